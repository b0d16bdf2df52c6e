//! How sources and the store stand right now, for health checks and progress. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

/// A source that gave nothing good for this long is not polled: longer than the longest `Retry-After` that is obeyed
/// (15 min).
const POLLED_WITHIN: TimeDelta = TimeDelta::minutes(20);

/// One source.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SourceStatus {
    /// Last request that gave an answer which was committed.
    pub last_success_at: Option<DateTime<Utc>>,
    /// The last failure, until a request succeeds again.
    pub failing: Option<String>,
    /// When the failures began.
    pub failing_since: Option<DateTime<Utc>>,
    /// Windows not yet proven complete.
    pub windows_owed: u64,
    /// Events stored since the start of the process.
    pub events: u64,
    /// Everything visible so far is accounted for.
    pub caught_up: bool,
    /// It gave everything it has (a file).
    pub finished: bool,
    /// How far its history is read, once this process has read of it (`backfill`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryStatus>,
}

impl SourceStatus {
    /// Whether it gave something good lately, or everything that it has.
    #[must_use]
    pub fn is_polled(&self, now: DateTime<Utc>) -> bool {
        self.finished || self.last_success_at.is_some_and(|at| now - at < POLLED_WITHIN)
    }
}

/// How much of the time before the start was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HistoryStatus {
    /// Events that rules learned from, over all starts.
    pub events: u64,
    /// Stamp of the oldest of them.
    pub oldest_at: Option<DateTime<Utc>>,
}

/// The whole program.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    /// By name.
    pub sources: BTreeMap<String, SourceStatus>,
    /// Sinks that this process has had, configured still or no more: their backlogs are in the store.
    #[serde(skip)]
    pub sinks: BTreeSet<String>,
    /// Why ingest stands still, if it does.
    pub store: Option<String>,
    /// Alerts since the start of the process.
    pub alerts: u64,
    /// Why the last reload did not take effect.
    pub reload: Option<String>,
}

/// Shared between ingest, which writes, and the console, which reads.
#[derive(Debug, Default)]
pub struct Status(Mutex<Snapshot>);

impl Status {
    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Something was committed: the store has space.
    pub fn stored(&self) {
        self.update(|snapshot| snapshot.store = None);
    }

    /// Changes what is known of one source.
    pub fn update_source(&self, name: &str, change: impl FnOnce(&mut SourceStatus)) {
        self.update(|snapshot| change(snapshot.sources.entry(name.to_owned()).or_default()));
    }

    /// A copy.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
