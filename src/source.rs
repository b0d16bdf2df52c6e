//! Sources: where events come from. A source may repeat an event and never skips one.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::event::{Digest, Event};

use crate::clock::Clock;
use crate::options::{OptionSpec, Options};
use crate::pipeline::BoxFuture;

pub mod located;
pub mod ndjson;
pub mod stamp;
pub mod vonage;

/// Where a source stands: JSON that only the source itself understands. It is committed with the events it accounts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// A row that could not be read as an event. It is kept whole and reported; the page around it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    /// The row's id if it has one, else computed from its bytes.
    pub id: String,
    /// When it happened, if that much could be read.
    pub created_at: Option<DateTime<Utc>>,
    /// The row as it came (cut at `MAX_EVENT_BYTES`).
    pub raw: String,
    /// Why it is no event.
    pub error: String,
}

/// Something the operator must know about a source. It becomes an event of the built-in source `vigie`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub kind: NoticeKind,
    /// One sentence for people, without secrets.
    pub message: String,
}

/// Kinds of notices; each has a built-in rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoticeKind {
    /// 401 or 403: the key may have been revoked by an intruder.
    PollingRefused,
    /// Polling has failed for longer than a few minutes.
    PollingFailing,
    /// An answer lacked an event that must be in it.
    AnchorMissing,
    /// The API's totals were below what it had already shown.
    TotalsUntrusted,
    /// A row could not be read.
    PoisonEvent,
    /// Events became visible later than half the look-back.
    EventsLate,
    /// A row is dated in the future.
    FutureEvent,
    /// The answer ignores what was asked (filter, page, page size).
    FilterIgnored,
    /// An id came again with other content.
    IdReused,
    /// Answers have ignored what was asked for minutes.
    FilterIgnoredLong,
    /// What happened in some time has not been readable for minutes, while other requests succeed.
    WindowStuck,
    /// The API's clock cannot be believed.
    ClockDoubted,
    /// Stamps have no zone, and no answer tells which it is.
    ZoneUnknown,
}

impl NoticeKind {
    /// The event type under which the built-in rules see it.
    #[must_use]
    pub fn event_type(self) -> &'static str {
        match self {
            Self::PollingRefused => "VIGIE_POLLING_REFUSED",
            Self::PollingFailing => "VIGIE_POLLING_FAILING",
            Self::AnchorMissing => "VIGIE_ANCHOR_MISSING",
            Self::TotalsUntrusted => "VIGIE_TOTALS_UNTRUSTED",
            Self::PoisonEvent => "VIGIE_POISON_EVENT",
            Self::EventsLate => "VIGIE_EVENTS_LATE",
            Self::FutureEvent => "VIGIE_FUTURE_EVENT",
            Self::FilterIgnored => "VIGIE_FILTER_IGNORED",
            Self::IdReused => "VIGIE_ID_REUSED",
            Self::FilterIgnoredLong => "VIGIE_FILTER_IGNORED_LONG",
            Self::WindowStuck => "VIGIE_WINDOW_STUCK",
            Self::ClockDoubted => "VIGIE_CLOCK_DOUBTED",
            Self::ZoneUnknown => "VIGIE_ZONE_UNKNOWN",
        }
    }
}

/// What came of one request, to be committed as one batch.
#[derive(Debug)]
pub struct Fetched {
    /// Events in the order of the source; some may have been seen before.
    pub events: Vec<Event>,
    /// Events from before the configured start: to be stored (they count towards completeness) and learned from by
    /// stateful rules; they never alert.
    pub before_start: Vec<Event>,
    /// Rows that are no events.
    pub poison: Vec<Poison>,
    /// Rows that came again and are not in the above.
    pub repeated: u64,
    /// The cursor once all of the above is stored.
    pub cursor: Cursor,
    /// It stands for nothing but the time that has passed: after a crash an older one does as well, so that it need not
    /// be stored with each answer.
    pub cursor_may_wait: bool,
    /// What the operator must know.
    pub notices: Vec<Notice>,
    /// No older event will come any more, within the lateness bound: what waits for time alone may be decided up to
    /// here. `None` while the source cannot say.
    pub settled_at: Option<DateTime<Utc>>,
    /// Where alerts begin: what time decides before it stays silent.
    pub aloud_from: Option<DateTime<Utc>>,
    /// The source was told to read what lies before its start, from here on: rules that remember learn from it, and a
    /// summary is told when that is done.
    pub learn_from: Option<DateTime<Utc>>,
    /// How long to wait before the next `fetch`; zero while something is owed.
    pub next_in: Duration,
    /// Windows that are not yet proven complete.
    pub windows_owed: u64,
    /// What is wrong with the answers, though they were taken: such a source is not healthy.
    pub at_fault: Option<String>,
    /// A finite source has given everything.
    pub finished: bool,
    /// Everything that was visible when this fetch began is now accounted for (`run --once` may stop).
    pub caught_up: bool,
}

/// A request that failed. Nothing changed: the same `fetch` may be called again.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What to do now.
    pub fault: Fault,
    /// What happened, for people; without secrets.
    pub message: String,
    /// For the operator, if this is worth an alert by itself.
    pub notice: Option<Notice>,
}

/// What follows from a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Ask again after this long.
    RetryAfter(Duration),
    /// Refused (401, 403): probe again after this long; exit code 5 where the run is finite.
    Refused(Duration),
    /// It cannot go on (a file that cannot be read).
    Stop,
}

/// What is stored under an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// A row of a release that did not keep what it says.
    Unknown,
    /// A row that says this.
    Content(Digest),
}

/// What a source may ask about events that are already stored.
pub trait Seen: Send + Sync {
    /// For each id, what the store has under it for this source.
    fn held<'a>(&'a self, source: &'a str, ids: &'a [String]) -> BoxFuture<'a, crate::store::Result<Vec<Held>>>;

    /// How many stored rows of this source have `from <= created_at < to`.
    fn count<'a>(
        &'a self,
        source: &'a str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> BoxFuture<'a, crate::store::Result<u64>>;
}

/// A place that events come from.
pub trait Source: Send {
    /// Makes one request (and the look-ups it needs) and returns what it gave. `cursor` is what the last commit stored,
    /// `None` at the very first start. The caller commits the result or calls again with the same cursor.
    fn fetch<'a>(
        &'a mut self,
        cursor: Option<&'a Cursor>,
        seen: &'a dyn Seen,
    ) -> BoxFuture<'a, Result<Fetched, SourceError>>;
}

/// What building a source may use.
#[derive(Debug, Clone)]
pub struct BuildContext {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
}

/// A source that was built, and what else its options gave.
pub struct Built {
    /// Ready to fetch.
    pub source: Box<dyn Source>,
    /// The account, for the verbs that ask the API directly.
    pub account: Option<vonage::account::Account>,
    /// It reads stdin, which cannot be opened a second time.
    pub reads_stdin: bool,
}

/// A kind of source.
pub struct SourceKind {
    /// Key in the configuration.
    pub kind: &'static str,
    /// What it takes.
    pub options: &'static [OptionSpec],
    /// Builds it, or says what is wrong with its options. Opens nothing.
    pub build: fn(&Options, &str, &BuildContext, &mut Diagnostics) -> Option<Built>,
}

/// Every kind of source that there is.
pub const KINDS: &[SourceKind] = &[
    SourceKind { kind: "vonage_audit", options: vonage::account::OPTIONS, build: vonage::account::build },
    SourceKind { kind: "ndjson", options: ndjson::OPTIONS, build: ndjson::build },
];
