//! Delivery: one lane per sink, from the store's due rows to settled attempts.
//!
//! A lane knows its own sink only, so a slow or dead one delays no other. The destination backs off, not the row: after a
//! failure the lane pauses and then makes one attempt per step, however many rows wait. A lane never drops a result; while
//! one cannot be written it makes no new claims. Sends run as tasks of their own, so that a panic is one failed attempt.

mod flights;
mod health;
mod lane;
mod notice;
mod outbox;
mod pacer;
mod storm;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::health::{FAILING_NOTICE_AFTER, MAX_WAIT, MIN_WAIT, MISCONFIGURED_PROBE, OwnPauses, later};
pub use self::lane::Lane;
pub use self::notice::{LaneNotice, LaneNoticeKind, MAX_WAITING_NOTICES, NoticeSender, Notices};
pub use self::storm::Storm;

use super::status::Status;
use crate::clock::Clock;
use crate::sink::Sink;
use crate::store::hold::Holds;
use crate::store::{Alerts, LaneState, Queue, Result, Store};

/// Sends in flight toward a machine. Each may be a duplicate after kill -9, so this stays small.
pub const MACHINE_IN_FLIGHT: usize = 8;
/// Sends in flight toward people's tools, whose limits are about one a second.
pub const PERSON_IN_FLIGHT: usize = 2;
/// A sink bounds its own attempt (15 s, mail 60 s); beyond this the lane gives the attempt up itself.
pub const MAX_SEND: Duration = Duration::from_secs(90);
/// A claimed row is not due again before this; longer than the longest send, so that no row is in flight twice.
pub const LEASE: Duration = Duration::from_secs(150);
/// How often the store is looked at without being woken: another process (`deliveries retry`) may have made a row due.
pub const IDLE_RECHECK: Duration = Duration::from_secs(2);
/// How long a stop waits for sends in flight.
pub const MAX_DRAIN: Duration = Duration::from_secs(25);
/// Wakes lanes when rows were committed.
#[derive(Debug, Clone)]
pub struct Wake(watch::Sender<()>);

impl Default for Wake {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Wake {
    /// Every lane looks at the store now.
    pub fn wake(&self) {
        self.0.send_replace(());
    }

    /// For one lane.
    #[must_use]
    pub fn listen(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

/// What all lanes share.
#[derive(Clone)]
pub struct Lanes {
    /// The durable truth.
    pub store: Arc<dyn Store>,
    /// Where the plain text of a refused alert comes from.
    pub alerts: Arc<dyn Alerts>,
    /// Where what waits folds.
    pub holds: Arc<dyn Holds>,
    /// Both clocks.
    pub clock: Arc<dyn Clock>,
    /// Learns that the store takes writes.
    pub status: Arc<Status>,
    /// What this configuration knows of sinks that fail.
    pub own_pauses: OwnPauses,
    /// For the operator.
    pub notices: NoticeSender,
    /// Seed of the jitter; each lane mixes its name in.
    pub jitter_seed: u64,
}

impl Lanes {
    /// The lane of one sink; `state` is what the store kept of it. Must be called within a tokio runtime.
    #[must_use]
    pub fn lane(&self, name: &str, sink: Arc<dyn Sink>, state: LaneState) -> Lane {
        Lane::new(self.clone(), name, sink, state)
    }
}

/// Runs lanes until `stop`, each in a task of its own. The first storage failure stops the others and is returned.
///
/// # Errors
/// When the store failed, or results could not be written before the stop's time was used up.
pub async fn run(lanes: Vec<Lane>, wake: &Wake, stop: &CancellationToken) -> Result<()> {
    let stop = stop.child_token();
    if lanes.is_empty() {
        stop.cancelled().await;
    }
    let all = lanes.into_iter().map(|lane| lane.run(wake.listen(), stop.clone())).collect();
    join_lanes(all, &stop).await.map(drop)
}

/// Delivers what is due now and returns; what waits in back-off stays. Gives each sink's backlog as it was at the end.
///
/// # Errors
/// As [`run`].
pub async fn drain(lanes: Vec<Lane>, stop: &CancellationToken) -> Result<Vec<(String, Queue)>> {
    let stop = stop.child_token();
    let all = lanes.into_iter().map(|lane| lane.drain(stop.clone())).collect();
    join_lanes(all, &stop).await
}

async fn join_lanes<T, F>(lanes: Vec<F>, stop: &CancellationToken) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut tasks: JoinSet<Result<T>> = lanes.into_iter().collect();
    let mut ended = Vec::new();
    let mut failure = None;
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok(Ok(value)) => ended.push(value),
            Ok(Err(error)) => {
                stop.cancel();
                failure.get_or_insert(error);
            }
            // A lane does not panic by what a sink does, so this is a bug of ours and must be as loud as in one task.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(cancelled) => tracing::error!(?cancelled, "a lane was cancelled"),
            },
        }
    }
    failure.map_or(Ok(ended), Err)
}

#[cfg(test)]
mod tests;
