//! Sinks: where alerts go. A sink renders an alert once and makes one attempt at a time.
//!
//! It never retries, logs, counts or panics: what an attempt gave is an `Outcome`, and the lane decides what follows.

pub mod alertmanager;
pub mod aws;
pub mod bound;
pub mod chat;
pub mod elasticsearch;
pub mod email;
pub mod exec;
pub mod file;
pub mod format;
pub mod http;
pub mod nats;
pub mod pagerduty;
pub mod probe;
pub mod slack;
pub mod sns;
pub mod splunk_hec;
pub mod sqs;
pub mod stdout;
pub mod syslog;
pub mod teams;
pub mod text;
pub mod ticket;
pub mod update;
pub mod webhook;
pub mod wire;
mod write;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod every;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod golden;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::{Diagnostics, Span};

use self::bound::Bound;
use self::probe::Probe;
use crate::clock::Clock;
use crate::options::{OptionKind, OptionSpec, Options, Presence, suggestion};
use crate::pace::{MAX_BURST, Rate};
use crate::pipeline::BoxFuture;

/// Every kind of sink: what `config` reads, `schema` writes and the reference lists.
pub const KINDS: &[SinkKind] = &[
    stdout::STDOUT,
    file::FILE,
    webhook::WEBHOOK,
    email::EMAIL,
    slack::SLACK,
    slack::SLACK_BOT,
    teams::TEAMS,
    chat::DISCORD,
    chat::MATTERMOST,
    chat::GOOGLE_CHAT,
    chat::TELEGRAM,
    pagerduty::PAGERDUTY,
    splunk_hec::SPLUNK_HEC,
    elasticsearch::ELASTICSEARCH,
    ticket::JIRA,
    ticket::SERVICENOW,
    ticket::THEHIVE,
    webhook::TINES,
    syslog::SYSLOG,
    nats::NATS,
    alertmanager::ALERTMANAGER,
    sqs::SQS,
    sns::SNS,
    exec::EXEC,
];

/// One kind of sink.
#[derive(Debug, Clone, Copy)]
pub struct SinkKind {
    /// Key in the YAML.
    pub kind: &'static str,
    /// The entry of a configuration that people begin with: printed in the reference, loaded by a test.
    pub example: &'static str,
    /// What its destination takes at most; empty where it documents no limit.
    pub bounds: &'static [Bound],
    /// Its options: its own table, then those that it shares with others.
    pub options: &'static [&'static [OptionSpec]],
    /// Makes one; `None` comes with at least one error among the diagnostics. It opens no socket and creates no file.
    pub build: Build,
}

impl SinkKind {
    /// Its options as one table.
    #[must_use]
    pub fn specs(&self) -> Vec<OptionSpec> {
        self.options.concat()
    }
}

/// Name of the option that limits how fast a destination is sent to. The configuration reads it for every kind that has
/// it, and the lane keeps to it; a sink only says what its destination documents.
pub const RATE: &str = "rate";
/// Name of the option beside [`RATE`].
pub const BURST: &str = "burst";

/// The option [`RATE`]; its default is the limit that the destination documents.
#[must_use]
pub const fn rate(presence: Presence) -> OptionSpec {
    let help = "most alerts in a unit of time; the others wait in the store; sinks with the same URL share it";
    OptionSpec { name: RATE, kind: OptionKind::Rate, presence, help }
}

/// The option [`BURST`].
#[must_use]
pub const fn burst(default: &'static str) -> OptionSpec {
    let help = "how many may go at once after a silence, before `rate` holds them back";
    OptionSpec { name: BURST, kind: OptionKind::Integer(1, MAX_BURST), presence: Presence::Default(default), help }
}

/// The option of destinations that people read: beyond so many that wait, the others fold.
pub const DIGEST: OptionSpec = OptionSpec {
    name: "digest",
    kind: OptionKind::Integer(5, 10_000),
    presence: Presence::Default("20"),
    help: "when more alerts than this wait, what is beyond is told in one message a rule; every one stays in the store",
};

/// The limit that a sink's options set, if they set one: rate and burst.
#[must_use]
pub fn limit(options: &Options) -> Option<(Rate, u32)> {
    let burst = options.integer(BURST).and_then(|burst| u32::try_from(burst).ok()).unwrap_or(1);
    options.rate(RATE).map(|rate| (rate, burst))
}

/// Makes a sink from its options and its name in the configuration.
pub type Build = fn(&Options, &str, &BuildContext, &mut Diagnostics) -> Option<Box<dyn Sink>>;

/// A writer that several may share, such as the process's standard output.
pub type SharedWriter = Arc<Mutex<dyn Write + Send>>;

/// What sinks take from the process that builds them.
#[derive(Clone)]
pub struct BuildContext {
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// Where `stdout` writes.
    pub stdout: SharedWriter,
    /// Whether that is a terminal that shows colour.
    pub color: bool,
    /// Time-outs of HTTP sinks.
    pub http_limits: http::Limits,
    /// How names become addresses, before they are vetted.
    pub lookup: http::Lookup,
}

impl BuildContext {
    /// With the time-outs of the delivery policy and the system's resolver.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, stdout: SharedWriter, color: bool) -> Self {
        let (http_limits, lookup) = (http::Limits::default(), http::system_lookup());
        Self { clock, stdout, color, http_limits, lookup }
    }
}

/// The kind of that name; a name that is none is reported at `span`.
pub fn kind(kind: &str, span: &Span, diagnostics: &mut Diagnostics) -> Option<&'static SinkKind> {
    let found = KINDS.iter().find(|known| known.kind == kind);
    if found.is_none() {
        let hint = suggestion(kind, KINDS.iter().map(|known| known.kind));
        diagnostics.error("E0420", span, format!("there is no sink of kind `{kind}`"), Some(hint));
    }
    found
}

/// What one attempt gave. The classes and what follows from each are in docs (delivery policy).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The destination has it and says so.
    Delivered,
    /// Taken, not proven shown (202, syslog over TCP).
    Accepted,
    /// Network, TLS, time-out, 408, 425, 5xx: back off, then try the same bytes again.
    Retry,
    /// The destination asked for a pause (429 or a hint); `None` when it gave no time.
    Wait(Option<Duration>),
    /// Part of the destination has it and the rest not yet (some recipients of a mail): this delivery alone is tried again
    /// after this long, the lane goes on.
    Later(Duration),
    /// The same, and nothing was sent: it says nothing about the destination.
    NotYet(Duration),
    /// There is nothing to send any more: done, and nothing is known of the destination.
    Needless,
    /// The rendered body was refused (400, 413, 422): once more as built-in plain text, then dead.
    Degrade,
    /// 401, 403, 404: the whole lane is paused, the backlog kept, the operator told.
    Misconfigured,
    /// It can never succeed (410, other 4xx), for part of the destination at least (a recipient of a mail): dead letter.
    Dead,
}

/// One attempt's outcome with what the ledger keeps of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptReport {
    /// Class.
    pub outcome: Outcome,
    /// Status as the protocol gives it (`HTTP 503`, `SMTP 451`), or the kind of failure (`connect timed out`).
    pub status: String,
    /// At most [`MAX_EXCERPT_CHARS`] of the answer, on one line, secrets redacted.
    pub excerpt: String,
    /// The destination said, whatever became of this attempt, that for so long it takes nothing more.
    pub spent: Option<Duration>,
    /// What the destination calls what it took, where an update needs it: bounded, without secrets.
    pub receipt: Option<String>,
}

/// What the ledger keeps of an answer.
pub const MAX_EXCERPT_CHARS: usize = 300;

/// Which rendering is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The sink's own.
    Full,
    /// Built-in plain text in the least demanding shape that the destination takes, after `Full` was refused.
    Plain,
}

/// What rendering may use besides the alert.
#[derive(Debug, Clone, Copy)]
pub struct RenderContext<'a> {
    /// Id of the delivery, the receiver's key to drop a duplicate.
    pub delivery_id: &'a str,
    /// Wall time of rendering.
    pub now: DateTime<Utc>,
    /// Which rendering.
    pub form: Form,
}

/// One attempt's input: the bytes that were rendered at ingest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// `BLAKE3(alert_id, sink name)`, 32 lower-case hex digits; the same for every copy.
    pub delivery_id: String,
    /// The alert it carries.
    pub alert_id: String,
    /// Sink name from the configuration.
    pub sink: String,
    /// Body as rendered; what it means is the sink's business.
    pub body: Vec<u8>,
    /// Attempts made before this one.
    pub attempts: u32,
    /// When the row was committed, on the clock that nobody sets (`Clock::steady`).
    pub created_at: DateTime<Utc>,
    /// Why this copy came here, if it was rendered with that.
    pub note: Option<String>,
    /// For an update: the receipt of the alert's own delivery, if it left one.
    pub about_receipt: Option<String>,
    /// When the first of the attempts began that failed since the destination last refused us, by the time of day.
    pub failing_since: Option<DateTime<Utc>>,
}

/// Why an alert could not be rendered; the lane then asks for `Form::Plain`.
#[derive(Debug, thiserror::Error)]
#[error("alert cannot be rendered: {0}")]
pub struct RenderError(pub String);

/// How a destination is retried: its steps and its end. See delivery policy 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryProfile {
    /// Webhook and SIEM: 1 s .. 4 h, given up after 72 h.
    Machine,
    /// Chat, pager, mail: 1 s .. 15 min, given up after 24 h.
    Person,
}

/// A destination.
pub trait Sink: Send + Sync {
    /// Kind as in the configuration (`slack`).
    fn kind(&self) -> &'static str;

    /// How it wants to be retried.
    fn retry_profile(&self) -> RetryProfile;

    /// The bytes for one alert; pure, so that they can be stored before the first attempt.
    ///
    /// # Errors
    /// When the alert cannot be expressed within the destination's limits.
    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError>;

    /// The bytes for one update of an alert that was sent; as pure as `render`, and short and plain.
    ///
    /// # Errors
    /// When the update cannot be expressed within the destination's limits.
    fn render_update(&self, update: &update::Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError>;

    /// One attempt, bounded in time by the sink itself.
    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport>;

    /// What can be asked of the destination without a message; bounded in time, and as silent about secrets, as `send`.
    fn probe(&self) -> Probe<'_>;
}

/// `BLAKE3(alert_id, sink name)` as 32 hex digits.
#[must_use]
pub fn delivery_id(alert_id: &str, sink: &str) -> String {
    id_of(&[alert_id, sink])
}

/// Each part behind its length, so that no two lists of parts have the same id.
fn id_of(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once_and_says_what_its_options_do() {
        for (index, known) in KINDS.iter().enumerate() {
            assert!(KINDS.iter().skip(index + 1).all(|other| other.kind != known.kind), "{}", known.kind);
            for option in known.specs() {
                assert!(option.help.len() > 10, "{}: {}", known.kind, option.name);
            }
            let schema = crate::options::json_schema(&known.specs());
            let count = schema["properties"].as_object().map(serde_json::Map::len);
            assert_eq!(count, Some(known.specs().len()), "{}: an option twice", known.kind);
        }
    }

    #[test]
    fn an_unknown_kind_is_told_with_the_nearest() {
        let (context, _) = contract::context();
        let told = contract::build("slak", vec![], &context).err().expect("refused");
        assert!(told.contains("E0420") && told.contains("did you mean `slack`?"), "{told}");
    }

    #[test]
    fn a_delivery_id_depends_on_both_parts_and_their_border() {
        let id = delivery_id("ab", "c");
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert_ne!(id, delivery_id("a", "bc"));
        assert_ne!(id, delivery_id("ab", "d"));
        assert_eq!(id, delivery_id("ab", "c"));
    }
}
