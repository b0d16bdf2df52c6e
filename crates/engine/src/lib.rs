//! The pure rule engine of Vigie: events and rules in, alerts and state changes out.
//!
//! Nothing in this crate reads a file, a clock, the environment or the network, and nothing prints: time comes in as an
//! argument and everything it has to say is a return value. That is what makes a replay give what live gave.
//!
//! Layers, each may use only those named before it: `time`, `country`, `text`, `diagnostic`, `yaml`, `event`;
//! `condition`, `template`; `state`; `rule`; `plan`; `alert`, `route`, `mute`; `engine`.

pub mod alert;
pub mod condition;
pub mod country;
pub mod diagnostic;
pub mod engine;
pub mod event;
pub mod mute;
pub mod plan;
pub mod route;
pub mod rule;
pub mod state;
pub mod template;
pub mod text;
pub mod time;
pub mod yaml;
