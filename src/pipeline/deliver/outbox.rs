//! Results that are not settled yet. They are written in batches, because a commit costs an fsync; they are never dropped:
//! while the disk is full they stay, and the lane makes no new claims.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::{LaneState, MAX_CLAIM, Resolution, Result, Settlement, Store, StoreError};

/// A result waits this long for others to share its commit.
const GATHER: Duration = Duration::from_millis(20);
/// First wait after the disk was full.
const FULL_FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest wait after the disk was full: space comes back by somebody's hand, and then alerts should leave soon.
const FULL_LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The waits while the disk is full.
#[derive(Debug, Default)]
pub(super) struct FullDisk {
    wait: Option<Duration>,
    since: Option<Instant>,
    until: Option<Instant>,
    cause: Option<StoreError>,
}

/// What waits to be settled: at most what the lane has claimed.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Settlement>,
    lane: Option<LaneState>,
    since: Option<Instant>,
    pub(super) full_disk: FullDisk,
}

impl FullDisk {
    /// Passes a result on, or takes note that the disk is full (`None`).
    pub(super) fn note<T>(&mut self, result: Result<T>, now: Instant) -> Result<Option<T>> {
        match result {
            Ok(value) => {
                *self = Self::default();
                Ok(Some(value))
            }
            Err(cause @ StoreError::Full(_)) => {
                let wait = self.wait.map_or(FULL_FIRST_WAIT, |wait| (wait * 2).min(FULL_LONGEST_WAIT));
                tracing::error!(?cause, wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "disk full");
                self.wait = Some(wait);
                self.until = Some(now + wait);
                self.since.get_or_insert(now);
                self.cause = Some(cause);
                Ok(None)
            }
            Err(fatal) => Err(fatal),
        }
    }

    /// When the store may be asked again, while the disk is full.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the disk has been full for this long.
    pub(super) fn lasts(&self, limit: Duration, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
    }
}

impl Outbox {
    /// Adds a result.
    pub(super) fn push(&mut self, settlement: Settlement, now: Instant) {
        self.waiting.push_back(settlement);
        self.since.get_or_insert(now);
    }

    /// The lane changed; only its latest state is kept.
    pub(super) fn set_lane(&mut self, state: LaneState, now: Instant) {
        self.lane = Some(state);
        self.since.get_or_insert(now);
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.lane.is_none()
    }

    /// Whether a result of this delivery waits.
    pub(super) fn holds(&self, delivery_id: &str) -> bool {
        self.waiting.iter().any(|settlement| settlement.delivery_id == delivery_id)
    }

    /// The end of the lane: an error when something could not be written.
    pub(super) fn end(self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { self.full_disk.cause.map_or(Ok(()), Err) }
    }

    /// How many attempts wait; rows that were given back without one do not count.
    pub(super) fn attempts(&self) -> usize {
        self.waiting.iter().filter(|settlement| settlement.resolution != Resolution::Released).count()
    }

    /// When the next batch should be written; `hurry` when nobody will share its commit.
    pub(super) fn flush_at(&self, hurry: bool) -> Option<Instant> {
        let since = self.since?;
        let gathered = if hurry || self.waiting.len() >= MAX_CLAIM { since } else { since + GATHER };
        Some(self.full_disk.until.map_or(gathered, |until| gathered.max(until)))
    }

    /// Writes everything, in batches. What cannot be written for want of space stays, in order.
    pub(super) async fn flush(&mut self, sink: &str, store: &dyn Store) -> Result<()> {
        while !self.is_empty() {
            let count = self.waiting.len().min(MAX_CLAIM);
            let batch: Vec<Settlement> = self.waiting.iter().take(count).cloned().collect();
            let written = store.settle(sink, batch, self.lane.clone()).await;
            if self.full_disk.note(written, Instant::now())?.is_none() {
                return Ok(());
            }
            self.waiting.drain(..count);
            self.lane = None;
        }
        self.since = None;
        Ok(())
    }
}
