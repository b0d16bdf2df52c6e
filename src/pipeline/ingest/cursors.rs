//! Cursors that stand for nothing new: a quiet poll moves its source's cursor and nothing else, and that is stored once a
//! minute only.
//!
//! An older cursor never loses and never repeats anything: from there the same time is asked for again, and ids count once.
//! A cursor that owes anything is never kept waiting, so that every step of a long walk outlives a crash.

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
    /// Keeps the batch of a quiet poll whose source's cursor was stored lately; gives back one that must be stored now.
    pub(super) fn keep(&self, batch: IngestBatch, is_quiet: bool, now: DateTime<Utc>) -> Option<IngestBatch> {
        let mut sources = self.sources();
        match sources.get_mut(&batch.source) {
            Some(stored) if is_quiet && batch.is_cursor_alone() && now < stored.at + STORED_EVERY => {
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
