//! What rules remember: stateful detections over events that come late, twice and out of order, and the rows that the
//! store commits together with the batch that changed them.
//!
//! A detection notes events in rows, one row a key, and says which of them fire. It never reads a clock: events carry
//! their time, and what time alone decides waits until the source is settled up to then. What fires is a function of the
//! noted events in order of time, so arrival order changes nothing as long as events come within the lateness bound.
//! The engine never keeps a change to itself: a batch collects changes, the store commits them, then they are applied.

mod absence;
mod distinct;
mod finding;
mod first_seen;
mod key;
mod log;
mod read;
mod sequence;
mod spike;
#[cfg(test)]
mod tests;
mod threshold;
mod travel;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::event::{Event, FieldPath};

pub use absence::Absence;
pub use distinct::Distinct;
pub use finding::{Evidence, Finding, MAX_EVIDENCE};
pub use first_seen::{DEFAULT_LEARN, DEFAULT_MEMORY, FirstSeen};
pub use key::{GroupKey, MAX_KEY_BYTES};
pub use log::{MAX_KEPT_EVENT_BYTES, MAX_OBSERVATIONS};
pub(crate) use read::{KINDS, PartReader, Reading, plain_paths, read};
pub use read::{MAX_KEYS_LIMIT, MAX_STEPS, MAX_WINDOW};
pub use sequence::{Sequence, Step};
pub use spike::Spike;
pub use threshold::Threshold;
pub use travel::Travel;

use first_seen::Seen;
pub(crate) use log::Kept;
use log::Log;

/// Kind of the rows that say which alert of a rule takes up a match.
pub const FOLD_KIND: &str = "fold";

/// Most keys that one rule remembers, unless it says otherwise (`max_keys`); beyond it the row that would expire first
/// is dropped, and counted.
pub const DEFAULT_MAX_KEYS: usize = 100_000;

/// Identity of a row: which rule, which kind of memory, which key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StateKey {
    /// Rule id.
    pub rule_id: String,
    /// `fold`, or the detection with a fingerprint of what its rows mean (`distinct#1f2e3d4c`).
    pub kind: String,
    /// Group key within the rule; opaque to the store.
    pub key: String,
}

/// Rows of one kind of one rule as the store kept them, in order of their keys; perhaps not all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRows {
    /// See [`StateKey::rule_id`].
    pub rule_id: String,
    /// See [`StateKey::kind`].
    pub kind: String,
    /// Key and value of each.
    pub rows: Vec<(Arc<str>, String)>,
}

impl StateRows {
    /// Single rows, those of one kind of one rule that follow each other together.
    #[must_use]
    pub fn of(rows: impl IntoIterator<Item = (StateKey, String)>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for (StateKey { rule_id, kind, key }, value) in rows {
            match all.last_mut().filter(|last| last.rule_id == rule_id && last.kind == kind) {
                Some(last) => last.rows.push((key.into(), value)),
                None => all.push(Self { rule_id, kind, rows: vec![(key.into(), value)] }),
            }
        }
        all
    }
}

/// A row set or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// Which row.
    pub key: StateKey,
    /// New value (JSON), or `None` to remove the row.
    pub value: Option<String>,
    /// Event time in microseconds after which the row has no effect and may be dropped.
    pub expires_at_us: Option<i64>,
}

/// What a rule asks of several events together.
#[derive(Debug, Clone)]
pub struct Detection {
    /// Which question.
    pub question: Question,
    /// Fields whose values keep subjects apart; empty: all events of a source together.
    pub by: Vec<FieldPath>,
    /// Most keys that are remembered.
    pub max_keys: usize,
    /// See [`StateKey::kind`].
    kind: String,
}

/// The stateful detections. Each says in its own file what it means exactly.
#[derive(Debug, Clone)]
pub enum Question {
    /// So many events within a window.
    Threshold(Threshold),
    /// So many different values within a window.
    Distinct(Distinct),
    /// A value that this key never had.
    FirstSeen(FirstSeen),
    /// Two places too far apart.
    Travel(Travel),
    /// Steps in order.
    Sequence(Sequence),
    /// Something did not come.
    Absence(Absence),
    /// Much more than this key's own past.
    Spike(Spike),
}

/// One row of a detection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Row {
    /// Noted events in order of time.
    Log(Log),
    /// One value of a `first_seen`.
    Seen(Seen),
}

/// An event that a detection sees, with what is known around it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sighting<'e> {
    pub(crate) source: &'e str,
    pub(crate) event: &'e Event,
    /// When we got it; bounds what a stamp in the future can push out.
    pub(crate) received_at: DateTime<Utc>,
    /// Nothing older than this comes any more, as far as known.
    pub(crate) settled_us: Option<i64>,
    /// Fields that an alert about it is known by: an event that is kept in part keeps them.
    pub(crate) keys: [&'e [FieldPath]; 2],
}

/// The rows of one detection, as the batch sees them.
pub(crate) trait Rows {
    /// The row of a key as it stands.
    fn peek(&self, key: &str) -> Option<&Row>;
    /// The row of a key, to be changed; `make` gives one that did not exist.
    fn change(&mut self, key: &str, make: fn() -> Row) -> &mut Row;
}

/// One match of a detection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Firing {
    /// Key of the row that fired, for the finding.
    pub(crate) row_key: String,
    /// Event time of the match.
    pub(crate) at_us: i64,
    /// Id of the event that it hangs on.
    pub(crate) event_id: String,
    /// It is an earlier beginning of the match at this time, and none of its own.
    pub(crate) moved_from_us: Option<i64>,
    /// The new value, where there is one.
    pub(crate) value: Option<Box<str>>,
    /// The event itself, where it is not the one that was just noted.
    pub(crate) kept: Option<Kept>,
}

impl Firing {
    fn new(row_key: &str, at_us: i64, event_id: String) -> Self {
        Self { row_key: row_key.to_owned(), at_us, event_id, moved_from_us: None, value: None, kept: None }
    }

    /// Whether an event that comes late can make it a match at an earlier time: only of a value the earliest is the first.
    pub(crate) fn may_move(&self) -> bool {
        self.value.is_some()
    }
}

/// What became of a sighting.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Noted {
    /// These matches are new.
    Fired(Vec<Firing>),
    /// The event lacks a field that the detection needs; it was not counted.
    Uncounted,
}

impl Detection {
    pub(crate) fn new(question: Question, by: Vec<FieldPath>, max_keys: usize) -> Self {
        let mut hasher = blake3::Hasher::new();
        for field in &by {
            hasher.update(field.as_str().as_bytes());
            hasher.update(&[0]);
        }
        question.meaning(&mut hasher);
        let fingerprint: String = hasher.finalize().to_hex().chars().take(8).collect();
        Self { kind: format!("{}#{fingerprint}", question.name()), question, by, max_keys }
    }

    /// See [`StateKey::kind`].
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// How long after an event time alone may still decide a match that begins with it, in microseconds; `None` when
    /// nothing waits for time.
    #[must_use]
    pub fn waits_us(&self) -> Option<i64> {
        self.sequence().filter(|sequence| sequence.waits()).map(|sequence| sequence.within_us)
    }

    /// Whether it keeps apart or compares what only an address database knows.
    #[must_use]
    pub fn asks_geo(&self) -> bool {
        let compared = match &self.question {
            Question::Distinct(distinct) => std::slice::from_ref(&distinct.field),
            Question::FirstSeen(first_seen) => first_seen.of.as_slice(),
            _ => &[],
        };
        self.by.iter().chain(compared).any(FieldPath::is_geo)
    }

    /// Notes an event and says what fires now.
    pub(crate) fn note(&self, sighting: &Sighting<'_>, rows: &mut dyn Rows) -> Noted {
        let Some(group) = GroupKey::complete(sighting.source, sighting.event, &self.by) else {
            return Noted::Uncounted;
        };
        match &self.question {
            Question::Threshold(threshold) => threshold.note(&group, sighting, rows),
            Question::Distinct(distinct) => distinct.note(&group, sighting, rows),
            Question::FirstSeen(first_seen) => first_seen.note(&group, sighting, rows),
            Question::Travel(travel) => travel.note(&group, sighting, rows),
            Question::Sequence(sequence) => sequence.note(&group, sighting, rows),
            Question::Absence(absence) => absence.sequence().note(&group, sighting, rows),
            Question::Spike(spike) => spike.note(&group, sighting, rows),
        }
    }

    /// What time alone decides in a row, up to `settled_us`.
    pub(crate) fn settle(&self, row_key: &str, row: &mut Row, settled_us: i64) -> Vec<Firing> {
        match (self.sequence(), row) {
            (Some(sequence), Row::Log(log)) => sequence.settle(row_key, log, settled_us),
            _ => Vec::new(),
        }
    }

    /// What a person should know about a match: which events made it, and by how much.
    pub(crate) fn finding(&self, rows: &dyn Rows, firing: &Firing) -> Finding {
        let (summary, evidence) = match (&self.question, rows.peek(&firing.row_key)) {
            (Question::Threshold(threshold), Some(Row::Log(log))) => threshold.finding(log, firing),
            (Question::Distinct(distinct), Some(Row::Log(log))) => distinct.finding(log, firing),
            (Question::FirstSeen(first_seen), _) => first_seen.finding(rows, firing),
            (Question::Travel(travel), Some(Row::Log(log))) => travel.finding(log, firing),
            (Question::Sequence(sequence), Some(Row::Log(log))) => sequence.finding(log, firing),
            (Question::Absence(absence), Some(Row::Log(log))) => absence.finding(log, firing),
            (Question::Spike(spike), Some(Row::Log(log))) => spike.finding(log, firing),
            _ => finding::none_found(),
        };
        Finding { detection: self.question.name().to_owned(), summary, evidence }
    }

    /// How a key stands without a further event: what it has and what is missing. For `explain`.
    pub(crate) fn standing(&self, rows: &dyn Rows, sighting: &Sighting<'_>) -> Standing {
        let Some(group) = GroupKey::complete(sighting.source, sighting.event, &self.by) else {
            let fields: Vec<&str> = self.by.iter().map(FieldPath::as_str).collect();
            return Standing::none(format!("not counted: the event lacks one of {}", fields.join(", ")));
        };
        match &self.question {
            Question::FirstSeen(first_seen) => first_seen.standing(&group, rows, sighting),
            Question::Threshold(threshold) => threshold.standing(rows.peek(&group.text), sighting),
            Question::Distinct(distinct) => distinct.standing(rows.peek(&group.text), sighting),
            Question::Travel(travel) => travel.standing(rows.peek(&group.text), sighting),
            Question::Sequence(sequence) => sequence.standing(rows.peek(&group.text), sighting),
            Question::Absence(absence) => absence.sequence().standing(rows.peek(&group.text), sighting),
            Question::Spike(spike) => spike.standing(rows.peek(&group.text), sighting),
        }
    }

    /// Event time after which a row has no effect.
    pub(crate) fn expires_at_us(&self, row: &Row) -> i64 {
        match (&self.question, row) {
            (Question::FirstSeen(first_seen), Row::Seen(seen)) => first_seen.expires_at_us(seen),
            (Question::Threshold(threshold), Row::Log(log)) => log.expires_at_us(threshold.within_us),
            (Question::Distinct(distinct), Row::Log(log)) => log.expires_at_us(distinct.within_us),
            (Question::Travel(travel), Row::Log(log)) => log.expires_at_us(travel.horizon_us()),
            (Question::Sequence(sequence), Row::Log(log)) => sequence.expires_at_us(log),
            (Question::Absence(absence), Row::Log(log)) => absence.sequence().expires_at_us(log),
            (Question::Spike(spike), Row::Log(log)) => spike.expires_at_us(log),
            _ => i64::MIN,
        }
    }

    /// When time alone will decide something in a row.
    pub(crate) fn due_us(&self, row: &Row) -> Option<i64> {
        match (self.sequence(), row) {
            (Some(sequence), Row::Log(log)) => sequence.due_us(log),
            _ => None,
        }
    }

    fn sequence(&self) -> Option<&Sequence> {
        match &self.question {
            Question::Sequence(sequence) => Some(sequence),
            Question::Absence(absence) => Some(absence.sequence()),
            _ => None,
        }
    }
}

/// How a key stands, for `explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Whether this event would fire.
    pub holds: bool,
    /// It will at this time, unless something comes before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_until: Option<DateTime<Utc>>,
    /// One sentence.
    pub summary: String,
    /// The noted events that count.
    pub evidence: Vec<Evidence>,
}

impl Standing {
    fn decided(holds: bool, summary: String, evidence: Vec<Evidence>) -> Self {
        Self { holds, waits_until: None, summary, evidence }
    }

    fn none(summary: String) -> Self {
        Self::decided(false, summary, Vec::new())
    }
}

impl Question {
    /// As rule files name it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Threshold(_) => "threshold",
            Self::Distinct(_) => "distinct",
            Self::FirstSeen(_) => "first_seen",
            Self::Travel(_) => "travel",
            Self::Sequence(_) => "sequence",
            Self::Absence(_) => "absence",
            Self::Spike(_) => "spike",
        }
    }

    /// What noted events mean: rows of another meaning are not taken up after a change of the rule.
    fn meaning(&self, hasher: &mut blake3::Hasher) {
        match self {
            Self::Threshold(_) | Self::Travel(_) => {}
            Self::Distinct(distinct) => {
                hasher.update(distinct.field.as_str().as_bytes());
            }
            Self::FirstSeen(first_seen) => first_seen.meaning(hasher),
            Self::Sequence(sequence) => sequence.meaning(hasher),
            Self::Absence(absence) => absence.sequence().meaning(hasher),
            Self::Spike(spike) => {
                hasher.update(&spike.bucket_us().to_le_bytes());
            }
        }
    }
}

impl Row {
    /// Reads what the store kept; the kind says which form.
    pub(crate) fn read(kind: &str, value: &str) -> Option<Self> {
        let (name, _) = kind.split_once('#')?;
        match name {
            "first_seen" => serde_json::from_str(value).ok().map(Self::Seen),
            name if KINDS.contains(&name) => serde_json::from_str(value).ok().map(Self::Log),
            _ => None,
        }
    }

    /// As the store keeps it.
    pub(crate) fn write(&self) -> String {
        let written = match self {
            Self::Log(log) => serde_json::to_string(log),
            Self::Seen(seen) => serde_json::to_string(seen),
        };
        // Neither has a map with keys that are no text, the only thing that JSON refuses.
        written.unwrap_or_default()
    }

    /// Noted events that had to be forgotten too early since this was asked last.
    pub(crate) fn take_forgotten(&mut self) -> u64 {
        match self {
            Self::Log(log) => std::mem::take(&mut log.forgotten),
            Self::Seen(_) => 0,
        }
    }

    pub(crate) fn log() -> Self {
        Self::Log(Log::default())
    }
}

/// A span of time in microseconds, cut at what fits.
pub(crate) fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
