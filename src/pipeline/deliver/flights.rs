//! Sends in flight: each in a task of its own, bounded in time, and what came of it as a value even when the sink panicked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use super::MAX_SEND;
use crate::sink::{AttemptReport, Delivery, Outcome, Sink};

/// What is in flight. Dropping it ends the sends.
#[derive(Debug, Default)]
pub(super) struct Flights {
    tasks: JoinSet<AttemptReport>,
    flying: HashMap<Id, Flight>,
}

#[derive(Debug)]
struct Flight {
    delivery: Arc<Delivery>,
    epoch: u64,
    started_at: DateTime<Utc>,
    started: Instant,
}

/// A send that ended.
#[derive(Debug)]
pub(super) struct Landed {
    pub(super) delivery: Arc<Delivery>,
    pub(super) epoch: u64,
    pub(super) started_at: DateTime<Utc>,
    pub(super) latency: Duration,
    pub(super) report: AttemptReport,
}

impl Flights {
    pub(super) fn len(&self) -> usize {
        self.flying.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flying.is_empty()
    }

    /// Whether this delivery is in flight.
    pub(super) fn carry(&self, delivery_id: &str) -> bool {
        self.flying.values().any(|flight| flight.delivery.delivery_id == delivery_id)
    }

    /// Starts one attempt.
    pub(super) fn start(&mut self, sink: &Arc<dyn Sink>, delivery: Delivery, epoch: u64, started_at: DateTime<Utc>) {
        let delivery = Arc::new(delivery);
        let (sink, sent) = (Arc::clone(sink), Arc::clone(&delivery));
        let task = self.tasks.spawn(async move {
            let attempt = async { sink.send(&sent).await };
            timeout(MAX_SEND, attempt).await.unwrap_or_else(|_| failed("no answer within the lane's limit"))
        });
        self.flying.insert(task.id(), Flight { delivery, epoch, started_at, started: Instant::now() });
    }

    /// Waits for the next one to end; `None` when nothing is in flight. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Landed> {
        loop {
            let (id, report) = match self.tasks.join_next_with_id().await? {
                Ok((id, report)) => (id, report),
                Err(error) => (error.id(), ended_badly(&error)),
            };
            if let Some(Flight { delivery, epoch, started_at, started }) = self.flying.remove(&id) {
                return Some(Landed { delivery, epoch, started_at, latency: started.elapsed(), report });
            }
        }
    }
}

fn ended_badly(error: &JoinError) -> AttemptReport {
    failed(if error.is_panic() { "the sink panicked" } else { "the attempt was cancelled" })
}

fn failed(status: &str) -> AttemptReport {
    AttemptReport {
        outcome: Outcome::Retry,
        status: status.to_owned(),
        excerpt: String::new(),
        spent: None,
        receipt: None,
    }
}
