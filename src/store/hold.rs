//! Deliveries that wait for something else than their sink: what is muted, what goes to another sink when it is not confirmed
//! in time, and what one message told of many.
//!
//! Every change is one transaction and is made only to rows that still stand as they were read, so a crash or a delivery
//! that came first loses nothing and tells nothing twice. It never removes a row: "why was I not told" has an answer.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::follow::NewFollowUp;
use super::{NewAlert, NewDelivery, Result};
use crate::pipeline::BoxFuture;

/// Most rows that one look takes up.
pub const MAX_LOOK: usize = 64;
/// Most deliveries that one digest stands for; the next one stands for the rest.
pub const MAX_FOLDED: usize = 1_000;

/// How the name of a hold begins whose reader was told the like: what it kept back is no news when it is over.
const REPETITIONS: [&str; 2] = ["inhibited by ", "repeat of "];

/// What keeps a delivery from being sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// `silence 3fa2…`, `mute time …`, `inhibited by alert …`, `repeat of alert …`: also what such rows are found by.
    pub by: String,
    /// The same with owner and reason, for people.
    pub note: String,
    /// The time of day at which it is looked at again; `None` when it is over and nothing is to be told.
    pub until: Option<DateTime<Utc>>,
}

/// Other sinks, when a delivery is not confirmed in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackDue {
    /// Sinks by name.
    pub to: Vec<String>,
    /// By the clock that lanes wait by.
    pub at: DateTime<Utc>,
}

/// A delivery whose time is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconfirmed {
    /// Which.
    pub delivery_id: String,
    /// The alert it carries.
    pub alert_id: String,
    /// The sink that did not confirm it.
    pub sink: String,
    /// Sinks by name.
    pub to: Vec<String>,
    /// Status of its last attempt; empty when none was made.
    pub last_status: String,
    /// It was given up.
    pub is_dead: bool,
    /// Since when it is owed, by the clock that lanes wait by.
    pub owed_since: DateTime<Utc>,
}

/// Deliveries of one sink that were muted by one thing whose time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Sink name.
    pub sink: String,
    /// See [`Hold::by`].
    pub by: String,
    /// See [`Hold::note`], of the first of them.
    pub note: String,
    /// Delivery and alert, the oldest first, at most [`MAX_FOLDED`].
    pub rows: Vec<(String, String)>,
}

impl Released {
    /// Its reader was told the like of it, so only what still goes on is told.
    #[must_use]
    pub fn is_repetition(&self) -> bool {
        REPETITIONS.iter().any(|name| self.by.starts_with(name))
    }
}

/// Which rows a fold is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Owed and never tried.
    Waiting,
    /// Muted.
    Muted,
}

/// What becomes of several deliveries of a sink, all at once.
#[derive(Debug)]
pub struct Fold {
    /// Sink name.
    pub sink: String,
    /// When one of the told rows stands otherwise by now, nothing is done.
    pub standing: Standing,
    /// Deliveries that a digest tells of, which also takes over their fallbacks. None without a digest.
    pub told: Vec<String>,
    /// The digest.
    pub digest: Option<(NewAlert, NewDelivery)>,
    /// Deliveries that are sent after all, rendered anew: no byte of them was ever sent.
    pub sent: Vec<NewDelivery>,
    /// Deliveries that something else mutes now.
    pub held: Vec<(String, Hold)>,
    /// Of the digest and of what is sent, for sinks that want to hear of an alert again.
    pub follow_ups: Vec<NewFollowUp>,
    /// Time of day.
    pub at: DateTime<Utc>,
    /// The clock that deliveries wait by.
    pub due_at: DateTime<Utc>,
}

/// A silence as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredSilence {
    /// Eight hex digits.
    pub silence_id: String,
    /// In the notation of Alertmanager.
    pub matchers: String,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// From when on.
    pub starts_at: DateTime<Utc>,
    /// Until when.
    pub ends_at: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

impl StoredSilence {
    /// See [`Hold::by`].
    #[must_use]
    pub fn by(&self) -> String {
        format!("silence {}", self.silence_id)
    }
}

/// The id of an alert that was told, and when its delivery was stored.
pub type ToldAlert = (String, DateTime<Utc>);

/// Rows that wait for a time, and what keeps alerts from being told.
pub trait Holds: Send + Sync {
    /// Deliveries that were not confirmed in time, at most [`MAX_LOOK`].
    fn unconfirmed(&self, steady: DateTime<Utc>) -> BoxFuture<'_, Result<Vec<Unconfirmed>>>;

    /// Stores what other sinks owe for a delivery that was not confirmed in time; what mutes them there counts no more.
    /// Nothing happens when it is confirmed by now; it is looked at no more in either case.
    fn fall_back<'a>(
        &'a self,
        delivery_id: &'a str,
        owed: (Vec<NewDelivery>, Vec<NewFollowUp>),
        at: DateTime<Utc>,
        due_at: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<()>>;

    /// Deliveries of one sink and one hold whose time is over, if there are any.
    fn released(&self, now: DateTime<Utc>) -> BoxFuture<'_, Result<Option<Released>>>;

    /// Deliveries of a sink that were never tried, with their alerts, the oldest first; `skip` of them left out.
    fn waiting<'a>(&'a self, sink: &'a str, skip: usize, limit: usize) -> BoxFuture<'a, Result<Vec<(String, String)>>>;

    /// Changes several rows at once.
    fn fold(&self, fold: Fold) -> BoxFuture<'_, Result<()>>;

    /// Silences in force at `now`.
    fn silences(&self, now: DateTime<Utc>) -> BoxFuture<'_, Result<Vec<StoredSilence>>>;

    /// The alert that a sink was last told of, or is about to be, under this key of a route's `dedup`, and when, between two
    /// times of day. What was given up was not told.
    fn told_between<'a>(
        &'a self,
        sink: &'a str,
        repeat_key: &'a str,
        between: (DateTime<Utc>, DateTime<Utc>),
    ) -> BoxFuture<'a, Result<Option<ToldAlert>>>;
}
