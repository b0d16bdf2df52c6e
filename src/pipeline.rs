//! The pipeline: events from sources through the engine into the store (`ingest`), and from the store to the sinks
//! (`deliver`), told again when they go on (`follow`), elsewhere or together (`attend`, `digest`). It knows the traits only and names no driver.

use std::future::Future;
use std::pin::Pin;

pub mod attend;
pub mod deliver;
pub mod digest;
pub mod drift;
pub mod follow;
pub mod history;
pub mod ingest;
pub mod notice;
mod own_rows;
pub mod status;

/// A boxed future, because `async fn` in a trait cannot be called through `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
