//! Cursors that stand for nothing new: a quiet poll moves its source's cursor and nothing else, and that is stored once a
//! minute only.
//!
//! The source says which cursors may wait, for it alone knows whether an older one does as well after a crash. One that comes
//! with anything else, be it a row of state, is never kept waiting.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

use crate::store::IngestBatch;

/// So much quiet time is asked for once more after a crash, at most. A commit waits for the disk, and costs more than all
/// else that a quiet poll does.
const STORED_EVERY: TimeDelta = TimeDelta::minutes(1);

/// By source.
#[derive(Debug, Default)]
pub(super) struct Cursors(Mutex<HashMap<String, Stored>>);

#[derive(Debug)]
struct Stored {
    at: DateTime<Utc>,
    waiting: Option<IngestBatch>,
}

impl Cursors {
    /// Keeps a batch whose cursor may wait and was stored lately; gives back one that must be stored now.
    pub(super) fn keep(&self, batch: IngestBatch, may_wait: bool, now: DateTime<Utc>) -> Option<IngestBatch> {
        let mut sources = self.sources();
        match sources.get_mut(&batch.source) {
            Some(stored) if may_wait && batch.is_cursor_alone() && now < stored.at + STORED_EVERY => {
                stored.waiting = Some(batch);
                None
            }
            _ => Some(batch),
        }
    }

    /// A cursor was stored, and with it all that waited before it.
    pub(super) fn stored(&self, source: &str, now: DateTime<Utc>) {
        self.sources().insert(source.to_owned(), Stored { at: now, waiting: None });
    }

    /// What still waits, when a source ends.
    pub(super) fn take(&self, source: &str) -> Option<IngestBatch> {
        self.sources().get_mut(source)?.waiting.take()
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<String, Stored>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
