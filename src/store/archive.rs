//! What the command line and the console read back: alerts, deliveries, attempts, events, as plain structs.
//!
//! Nothing here takes part in delivery: a listing never claims, and only `retry` and `replay` of a store change a row.
//! Lists are cut at [`MAX_LIST`], so that a listing beside a running daemon stays short.

use chrono::{DateTime, Utc};
use serde::Serialize;
use vigie_engine::alert::Alert;
use vigie_engine::rule::Severity;

/// Longest list that one call gives, whatever its filter asks for.
pub const MAX_LIST: usize = 10_000;

/// What a name is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// A sink that has or had deliveries.
    Sink,
    /// A rule that raised alerts.
    Rule,
    /// A source that has events or alerts.
    Source,
}

/// Which poison rows to list; an absent part lets everything through.
#[derive(Debug, Clone, Default)]
pub struct PoisonFilter {
    /// Of this source.
    pub source: Option<String>,
    /// Committed at or after this time.
    pub since: Option<DateTime<Utc>>,
    /// At most this many; 0 means [`MAX_LIST`].
    pub limit: usize,
}

/// Which alerts to list; an absent part lets everything through.
#[derive(Debug, Clone, Default)]
pub struct AlertFilter {
    /// Committed at or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Of this rule.
    pub rule: Option<String>,
    /// At least this severe.
    pub min_severity: Option<Severity>,
    /// Of this source.
    pub source: Option<String>,
    /// At most this many; 0 means [`MAX_LIST`].
    pub limit: usize,
}

/// One line of a list of alerts.
#[derive(Debug, Clone, Serialize)]
pub struct AlertRow {
    /// The alert with the counts that it reached by now.
    pub alert: Alert,
    /// When it was committed.
    pub created_at: DateTime<Utc>,
    /// Why it has no deliveries, if that is on purpose.
    pub muted_by: Option<String>,
    /// Deliveries that are neither done nor dead.
    pub pending: u64,
    /// Deliveries that are done.
    pub delivered: u64,
    /// Dead letters.
    pub dead: u64,
    /// Deliveries that something keeps from being sent.
    pub muted: u64,
}

/// One alert with what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct AlertDetail {
    /// As in the list.
    #[serde(flatten)]
    pub row: AlertRow,
    /// Its deliveries with their attempts, by sink name.
    pub deliveries: Vec<DeliveryDetail>,
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryStatus {
    /// Owed.
    Pending,
    /// Done, and the destination said so.
    Delivered,
    /// Done: taken, not proven shown.
    Unconfirmed,
    /// Dead letter: kept, replayable.
    Dead,
    /// A digest tells of it.
    Digested,
    /// Something keeps it from being sent; kept.
    Muted,
}

/// Which deliveries to list; an absent part lets everything through.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// With this status.
    pub status: Option<DeliveryStatus>,
    /// To this sink.
    pub sink: Option<String>,
    /// Committed at or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Only dead letters and those whose last attempt failed.
    pub failed: bool,
    /// At most this many; 0 means [`MAX_LIST`].
    pub limit: usize,
}

/// One line of a list of deliveries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeliveryRow {
    /// Identity, the same for every copy.
    pub delivery_id: String,
    /// The alert it carries.
    pub alert_id: String,
    /// Sink name.
    pub sink: String,
    /// How it stands.
    pub status: DeliveryStatus,
    /// Attempts since it was committed or replayed.
    pub attempts: u32,
    /// Plain text took the place of the refused body.
    pub degraded: bool,
    /// When it was committed.
    pub created_at: DateTime<Utc>,
    /// From when on it is due, while it is pending.
    pub next_at: Option<DateTime<Utc>>,
    /// When it was done or given up.
    pub settled_at: Option<DateTime<Utc>>,
    /// What muted it.
    pub muted_by: Option<String>,
    /// Why it came here, or who muted it and why.
    pub note: Option<String>,
    /// The delivery of the digest that tells of it.
    pub told_in: Option<String>,
}

/// One delivery with its body and its ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeliveryDetail {
    /// As in the list.
    #[serde(flatten)]
    pub row: DeliveryRow,
    /// Body as it is sent; bytes that are no UTF-8 are replaced.
    pub body: String,
    /// The ledger, oldest first.
    pub log: Vec<AttemptRow>,
}

/// One attempt in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttemptRow {
    /// 1, 2, ... over the life of the delivery, replays included.
    pub number: u32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took.
    pub latency_ms: u64,
    /// What followed: `delivered`, `unconfirmed`, `retry`, `degraded`, `dead`.
    pub resolution: String,
    /// Protocol status.
    pub status: String,
    /// Excerpt of the answer.
    pub excerpt: String,
}

/// What `retry` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// The delivery is due now.
    Due,
    /// It is done already (a digest that tells of it counts); nothing changed.
    AlreadyDelivered,
    /// There is no such delivery.
    Unknown,
}

/// A stored event or poison row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventRow {
    /// Source name.
    pub source: String,
    /// Identity within the source.
    pub id: String,
    /// By the source's stamp.
    pub created_at: DateTime<Utc>,
    /// When it was committed.
    pub stored_at: DateTime<Utc>,
    /// JSON text as it came; absent once retention has taken it (the id stays longer, so that it is known again).
    pub raw: Option<String>,
    /// Why it is no event, for a poison row.
    pub poison: Option<String>,
}

/// An event type that a source has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventTypeRow {
    /// Source name.
    pub source: String,
    /// Value of the event's `event_type`.
    pub event_type: String,
    /// Event time at which it was first committed.
    pub first_at: DateTime<Utc>,
}

/// Which part of history to read again: `[from, to)` in event time; an absent end is open.
#[derive(Debug, Clone, Copy, Default)]
pub struct HistoryWindow {
    /// From this time on.
    pub from: Option<DateTime<Utc>>,
    /// Before this time.
    pub to: Option<DateTime<Utc>>,
}

/// What the store holds of one source within a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// Source name.
    pub source: String,
    /// Events that can be read again.
    pub events: u64,
    /// Rows that are no events.
    pub poison: u64,
    /// Events of which retention has left the id only.
    pub without_text: u64,
    /// Event time of the newest one that can be read again.
    pub last_at: Option<DateTime<Utc>>,
}

/// Some events in order of time; those of one moment stand in the order in which the source gave them.
#[derive(Debug)]
pub struct HistoryPage {
    /// The events, poison left out.
    pub events: Vec<super::StoredEvent>,
    /// Where the next page goes on; absent at the end.
    pub next: Option<HistoryPlace>,
}

/// Behind the last event of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryPlace {
    pub(super) created_at: DateTime<Utc>,
    pub(super) event_no: i64,
}

/// What one run of retention removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Maintained {
    /// Deliveries that were done.
    pub deliveries: u64,
    /// Alerts without any delivery left.
    pub alerts: u64,
    /// Raw events.
    pub events: u64,
    /// Ids that no look-back can show again.
    pub seen: u64,
    /// Expired rule state.
    pub state: u64,
    /// There is more to remove; the run ended at its limit.
    pub more: bool,
}

/// How many rows a list may have.
pub(crate) fn list_limit(asked: usize) -> usize {
    if asked == 0 { MAX_LIST } else { asked.min(MAX_LIST) }
}
