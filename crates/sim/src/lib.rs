//! A stand-in for the Vonage Audit API, written from its public description.
//! It shares no type with the client or the engine, so that both cannot be wrong in the same way, and it never reads a
//! clock: [`Sim::handle`] answers as of a time that the caller gives. `serve` puts it behind a real socket.

pub mod api;
pub mod event;
pub mod faults;
pub mod live;
pub mod quirks;
pub mod rng;
pub mod serve;
pub mod world;

pub use api::{DEFAULT_SECRET, Sim, SimRequest, SimResponse, Transport};
pub use event::SimEvent;
pub use faults::{Fault, FaultChance, FaultPlan};
pub use live::{LiveWorld, ReleasePlan, SharedClock};
pub use quirks::{Lateness, Quirks};
pub use serve::serve;
pub use world::{PlantedAttack, StressConfig, World, WorldConfig};
