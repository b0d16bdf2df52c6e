//! The store: everything that must survive a crash, in three kinds of transactions (ingest, claim, settle).
//!
//! A commit is all or nothing; once it returned, a crash loses nothing. The trait has two implementations under one
//! contract suite: `sqlite` for real use, `memory` for simulations.

pub mod archive;
#[cfg(test)]
pub(crate) mod contract;
pub mod follow;
pub mod hold;
pub mod memory;
pub mod sqlite;

use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use vigie_engine::alert::{Alert, MAX_ALERT_EVENT_IDS};
use vigie_engine::engine::Fold;
use vigie_engine::event::Digest;
use vigie_engine::state::{StateChange, StateRows};

use crate::pipeline::BoxFuture;
use crate::sink::Delivery;
use crate::source::Cursor;

/// A storage failure, by what must follow from it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space: the transaction was rolled back; pause and try again.
    #[error("no space left for the store")]
    Full(#[source] BoxError),
    /// fsync or I/O failed, the file is corrupt, the writer is gone: stop, exit 74, never retry the fsync.
    #[error("the store failed")]
    Fatal(#[source] BoxError),
}

/// A cause of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// What a store call gives.
pub type Result<T> = std::result::Result<T, StoreError>;

/// An event or poison row to be stored.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Identity within the source.
    pub id: String,
    /// By the source's stamp (the time of receipt for a poison row without one).
    pub created_at: DateTime<Utc>,
    /// JSON text as it came.
    pub raw: std::sync::Arc<str>,
    /// What it says, so that an id that comes again with other content is known.
    pub digest: Digest,
    /// Why it is no event, for a poison row.
    pub poison: Option<String>,
}

/// A delivery row to be stored with its alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// Identity; see [`Delivery::delivery_id`].
    pub delivery_id: String,
    /// The alert.
    pub alert_id: String,
    /// Sink name.
    pub sink: String,
    /// Rendered body.
    pub body: Vec<u8>,
    /// Why this copy came where it came, for its reader; part of the alert whenever it is rendered.
    pub note: Option<String>,
    /// What keeps it from being sent.
    pub hold: Option<hold::Hold>,
    /// Where else it goes if it is not confirmed in time.
    pub fallback: Option<hold::FallbackDue>,
    /// The key of a route's `dedup` that it was told under.
    pub repeat_key: Option<String>,
    /// The delivery that this one adds to, for an update.
    pub about: Option<String>,
}

impl NewDelivery {
    /// One that is sent, by itself.
    #[must_use]
    pub fn new(delivery_id: String, alert_id: String, sink: String, body: Vec<u8>) -> Self {
        let (note, hold, fallback, repeat_key, about) = (None, None, None, None, None);
        Self { delivery_id, alert_id, sink, body, note, hold, fallback, repeat_key, about }
    }
}

/// A new alert; `muted_by` says what kept it from every sink ("dry run", a silence).
#[derive(Debug, Clone)]
pub struct NewAlert {
    /// The alert.
    pub alert: Alert,
    /// Why it has no deliveries, if that is on purpose.
    pub muted_by: Option<String>,
}

/// Everything that one response changes: the ingest transaction.
#[derive(Debug, Default)]
pub struct IngestBatch {
    /// Source name.
    pub source: String,
    /// Where the source stands afterwards.
    pub cursor: Option<Cursor>,
    /// Events not stored before, in order. An id that the source already has is an error of the caller.
    pub events: Vec<StoredEvent>,
    /// Rule state.
    pub state: Vec<StateChange>,
    /// New alerts.
    pub alerts: Vec<NewAlert>,
    /// Alerts that took up more matches.
    pub folds: Vec<Fold>,
    /// One row per alert and sink.
    pub deliveries: Vec<NewDelivery>,
    /// Ids of alerts that were muted and are no longer.
    pub unmuted: Vec<String>,
    /// One row per alert and sink that will be told of it again.
    pub follow_ups: Vec<follow::NewFollowUp>,
    /// Wall time of the commit.
    pub at: Option<DateTime<Utc>>,
    /// From when on the deliveries are due, by the clock that their lanes wait by; `at` when missing.
    pub due_at: Option<DateTime<Utc>>,
}

impl IngestBatch {
    /// Whether it moves a cursor and changes nothing else.
    #[must_use]
    pub fn is_cursor_alone(&self) -> bool {
        let Self { source: _, cursor, events, state, alerts, folds, deliveries, unmuted, follow_ups, at: _, due_at: _ } =
            self;
        let rows = [events.len(), state.len(), alerts.len(), folds.len(), deliveries.len()];
        cursor.is_some() && rows.iter().sum::<usize>() + unmuted.len() + follow_ups.len() == 0
    }
}

/// Rule state as it is read, of one snapshot with the cursors. It is to be taken, or dropped, before the store is asked for
/// anything else: reading waits for it.
#[derive(Debug)]
pub struct StateStream(mpsc::Receiver<Result<StateRows>>);

impl StateStream {
    /// A stream that holds so many parts, and the end where it is filled.
    #[must_use]
    pub fn channel(parts: usize) -> (mpsc::Sender<Result<StateRows>>, Self) {
        let (rows, stream) = mpsc::channel(parts.max(1));
        (rows, Self(stream))
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// When the store could not be read on.
    pub async fn next(&mut self) -> Result<Option<StateRows>> {
        self.0.recv().await.transpose()
    }

    /// All rows.
    ///
    /// # Errors
    /// When the store could not be read to its end.
    pub async fn all(mut self) -> Result<Vec<StateRows>> {
        let mut all = Vec::new();
        while let Some(rows) = self.next().await? {
            all.push(rows);
        }
        Ok(all)
    }
}

/// What a start needs.
#[derive(Debug)]
pub struct Loaded {
    /// Cursor of each source that has one.
    pub cursors: Vec<(String, Cursor)>,
    /// Rule state, read while it is taken.
    pub state: StateStream,
    /// Lanes that were not healthy when the process ended.
    pub lanes: Vec<(String, LaneState)>,
}

/// How a destination stands, durable so that a restart does not hammer it: it makes one probe, and none within the pause.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LaneState {
    /// Failures in a row; 0 is healthy.
    pub step: u32,
    /// No attempt before this time, by the clock that claims are made by: as long as the destination asked for.
    pub paused_until: Option<DateTime<Utc>>,
    /// Why, for people.
    pub reason: String,
}

/// How a delivery stands after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Done; `unconfirmed` when the destination took it without proof.
    Delivered {
        /// Taken, not proven shown.
        unconfirmed: bool,
    },
    /// Due again at this time, by the clock that claims are made by.
    RetryAt(DateTime<Utc>),
    /// As `RetryAt`, but the destination refuses us: what waits for that to be mended does not age.
    Refused(DateTime<Utc>),
    /// As `RetryAt`, with another body from now on (plain text after a refusal).
    Degraded(DateTime<Utc>, Vec<u8>),
    /// Never again by itself; kept, listed, replayable.
    Dead,
    /// The claim is given back; no attempt was made.
    Released,
}

/// The ledger's name of [`Resolution::Refused`]; the stores read it to tell how long a delivery has failed.
pub(crate) const REFUSED: &str = "refused";

/// One settled attempt: the resolution and its line in the ledger.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Which delivery.
    pub delivery_id: String,
    /// How it stands.
    pub resolution: Resolution,
    /// When the attempt began.
    pub started_at: DateTime<Utc>,
    /// How long it took.
    pub latency_ms: u64,
    /// Protocol status.
    pub status: String,
    /// Bounded, redacted excerpt of the answer.
    pub excerpt: String,
    /// What the destination calls what it took.
    pub receipt: Option<String>,
}

impl Resolution {
    /// As the ledger names it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delivered { unconfirmed: false } => "delivered",
            Self::Delivered { unconfirmed: true } => "unconfirmed",
            Self::RetryAt(_) => "retry",
            Self::Refused(_) => REFUSED,
            Self::Degraded(..) => "degraded",
            Self::Dead => "dead",
            Self::Released => "released",
        }
    }
}

impl Settlement {
    /// When the attempt was over.
    #[must_use]
    pub fn ended_at(&self) -> DateTime<Utc> {
        let latency_ms = i64::try_from(self.latency_ms).unwrap_or(i64::MAX);
        chrono::TimeDelta::try_milliseconds(latency_ms)
            .and_then(|latency| self.started_at.checked_add_signed(latency))
            .unwrap_or(self.started_at)
    }
}

/// Largest batch of claims and settlements.
pub const MAX_CLAIM: usize = 64;

/// The durable truth. Every method is one transaction.
pub trait Store: crate::source::Seen {
    /// What a start needs.
    fn load(&self) -> BoxFuture<'_, Result<Loaded>>;

    /// A process that starts takes over what waits: what was never tried, what nobody put off, and what lies beyond `latest`
    /// is due at `now`. It was scheduled by a clock that has been set back since; nothing is put off for so long.
    /// A follow-up of a time that is not yet is looked at now.
    fn take_over(&self, now: DateTime<Utc>, latest: DateTime<Utc>) -> BoxFuture<'_, Result<()>>;

    /// Ingest: all of the batch or nothing.
    fn commit(&self, batch: IngestBatch) -> BoxFuture<'_, Result<()>>;

    /// Claim up to `limit` deliveries of a sink that are due at `now`: attempts + 1 and not due again before `lease_until`.
    /// Rows with the fewest attempts come first, then the oldest.
    fn claim<'a>(
        &'a self,
        sink: &'a str,
        now: DateTime<Utc>,
        lease_until: DateTime<Utc>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Delivery>>>;

    /// Settle attempts, and how the lane stands now if that changed.
    fn settle<'a>(
        &'a self,
        sink: &'a str,
        settlements: Vec<Settlement>,
        lane: Option<LaneState>,
    ) -> BoxFuture<'a, Result<()>>;

    /// The due rows' summary of one sink: what a lane sleeps by and what the metrics show.
    fn queue<'a>(&'a self, sink: &'a str) -> BoxFuture<'a, Result<Queue>>;
}

/// What a lane may ask about alerts that are already stored.
pub trait Alerts: Send + Sync {
    /// The alert as it stands now, `None` when retention has removed it.
    fn alert<'a>(&'a self, alert_id: &'a str) -> BoxFuture<'a, Result<Option<Alert>>>;
}

/// Looking after the store while it is in use.
pub trait Maintain: Send + Sync {
    /// Removes what retention no longer keeps, in bounded steps; whether there is more.
    fn maintain(&self, now: DateTime<Utc>, retention: std::time::Duration) -> BoxFuture<'_, Result<bool>>;

    /// Size on disk.
    ///
    /// # Errors
    /// When the files cannot be looked at.
    fn store_bytes(&self) -> Result<u64>;

    /// Up to `limit` alerts that were stored as muted for this reason, oldest first, each with its place; go on `after` the
    /// last one's place, beginning at 0.
    fn muted<'a>(&'a self, muted_by: &'a str, after: u64, limit: usize) -> BoxFuture<'a, Result<Vec<(u64, Alert)>>>;

    /// Backlog of every sink that has one, configured or not.
    fn backlogs(&self) -> BoxFuture<'_, Result<Vec<(String, Queue)>>>;
}

/// How long rule state is kept beyond its expiry: an event may become visible so much later than it was created (look-back
/// of 7 days and a day to spare), and must then find what it would have found in time.
pub const STATE_GRACE_DAYS: i64 = 8;

/// Adds ids that are new to an alert's list, up to its limit.
pub(crate) fn add_event_ids(ids: &mut Vec<String>, added: &[String]) {
    for id in added {
        if ids.len() < MAX_ALERT_EVENT_IDS && !ids.contains(id) {
            ids.push(id.clone());
        }
    }
}

/// One sink's backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Queue {
    /// Rows that are neither delivered nor dead.
    pub depth: u64,
    /// Earliest time at which one of them is due.
    pub next_due_at: Option<DateTime<Utc>>,
    /// When the oldest of them was committed.
    pub oldest_created_at: Option<DateTime<Utc>>,
    /// Dead letters kept.
    pub dead: u64,
    /// When somebody last asked that a lane which was not healthy try at once (`deliveries retry`).
    pub asked_at: Option<DateTime<Utc>>,
}
