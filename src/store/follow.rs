//! Follow-ups: what a sink that got an alert was told about it, and when to look at it again.
//!
//! A row per alert and sink, made in the commit that makes the delivery, so that a sink without the alert is never told of
//! it again. A match that folds into the alert moves the row's time in its own commit. What is said next and where the row
//! stands then are one transaction: a crash before it repeats the look, a crash after it repeats nothing. All times are by
//! the clock that nobody sets.

use chrono::{DateTime, Utc};

use super::{NewDelivery, Result};
use crate::pipeline::BoxFuture;

/// Most rows that one look takes up.
pub const MAX_FOLLOW_UPS: usize = 64;

/// A follow-up to be stored with its alert and its delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFollowUp {
    /// The alert.
    pub alert_id: String,
    /// Sink name.
    pub sink: String,
    /// Matches that the delivery speaks of.
    pub told_count: u64,
    /// When to look at it.
    pub when: Look,
}

/// When a row is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// A further match is not told before this; `None` when no updates are asked for.
    pub not_before: Option<DateTime<Utc>>,
    /// Look at it then; `None`: not before a further match.
    pub due_at: Option<DateTime<Utc>>,
}

/// A stored follow-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    /// The alert.
    pub alert_id: String,
    /// Sink name.
    pub sink: String,
    /// How many updates and closing notes were made.
    pub number: u32,
    /// Matches that were told.
    pub told_count: u64,
    /// When that was made.
    pub told_at: DateTime<Utc>,
    /// When the last match was committed.
    pub changed_at: DateTime<Utc>,
    /// The last that was told is a closing note.
    pub closed: bool,
}

/// What becomes of a row after a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing to say yet.
    Wait(Look),
    /// This is said.
    Tell {
        /// The update or closing note.
        delivery: Box<NewDelivery>,
        /// It is a closing note.
        closed: bool,
        /// And then.
        then: Look,
    },
    /// Nothing will be said any more.
    End,
}

/// A step of a row as it was read. It does nothing when the row or the alert's count has changed since: then the row is
/// due again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowMove {
    /// The row as it was read.
    pub read: FollowUp,
    /// The alert's count as it was read; `None` when there is no such alert any more.
    pub count: Option<u64>,
    /// What to do.
    pub step: Step,
}

/// What a look finds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// Rows that are due, the longest due first.
    pub rows: Vec<FollowUp>,
    /// When the next one is due, these included.
    pub next_at: Option<DateTime<Utc>>,
}

/// Follow-ups of alerts that are stored.
pub trait FollowUps: Send + Sync {
    /// Rows due at `now`, at most [`MAX_FOLLOW_UPS`].
    fn due(&self, now: DateTime<Utc>) -> BoxFuture<'_, Result<Due>>;

    /// Moves rows and stores what is said, all in one transaction: `at` is the time of day, `due_at` the clock that rows and
    /// deliveries wait by.
    fn advance(&self, moves: Vec<FollowMove>, at: DateTime<Utc>, due_at: DateTime<Utc>) -> BoxFuture<'_, Result<()>>;
}

impl Look {
    /// After a further match that is committed at `at`.
    #[must_use]
    pub fn after_match(self, at: DateTime<Utc>) -> Self {
        let wanted = self.not_before.map_or(at, |not_before| not_before.max(at));
        let due_at = match self.due_at {
            // Without updates the closing note is put off when its time comes.
            Some(due_at) if self.not_before.is_none() => due_at,
            Some(due_at) => due_at.min(wanted),
            None => wanted,
        };
        Self { due_at: Some(due_at), ..self }
    }
}
