//! Rules as meant: what the YAML says after it was read, checked and its lists were put in.

pub mod check;
mod country;
pub(crate) mod event_type;
mod fact;
mod list;
mod load;
mod own;
mod read;
mod value;
pub(crate) mod when;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::diagnostic::Span;
use crate::event::FieldPath;
use crate::state::Detection;

pub use event_type::{KNOWN_EVENT_TYPES, OWN_PREFIX};
pub(crate) use list::reference;
pub use list::{Lists, MAX_LIST_BYTES, MAX_LIST_VALUES, ReadList};
pub use load::{RuleSet, load};
pub use own::OWN_SOURCE;
pub(crate) use read::severity_of;
pub use read::{MAX_RULE_ID_CHARS, MAX_TEST_EVENTS};

/// Severity, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth keeping.
    Info,
    /// Look at it this week.
    Low,
    /// Look at it today.
    Medium,
    /// Look at it now.
    High,
    /// Wake somebody.
    Critical,
}

impl Severity {
    /// Lowest first.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// As rule files write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// How long after the last match an alert still takes up further matches, unless the rule says otherwise.
pub const DEFAULT_QUIET: Duration = Duration::from_secs(3600);
/// Longest `quiet`: with more, one alert would take up all that come after it.
pub const MAX_QUIET: Duration = Duration::from_secs(30 * 86_400);

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Kebab-case identity; stable over edits.
    pub id: String,
    /// One line for people.
    pub title: String,
    /// How urgent.
    pub severity: Severity,
    /// Who did it, why it matters, what else it can be.
    pub description: String,
    /// Free tags, such as `attack.t1078.004`.
    pub tags: Vec<String>,
    /// Known harmless causes.
    pub false_positives: Vec<String>,
    /// What to do now.
    pub response: String,
    /// What it asks of an event.
    pub when: Condition,
    /// Exceptions, each with an owner, a reason and perhaps an end.
    pub unless: Vec<Exception>,
    /// What it asks of several events together; a plain rule fires on each event.
    pub detection: Option<Detection>,
    /// How a match becomes an alert.
    pub alert: AlertSpec,
    /// Firing and non-firing examples.
    pub tests: Vec<RuleTest>,
    /// Event types that `when` names (patterns as written, upper case), for the check against what an account shows.
    pub event_types: Vec<String>,
    /// Whether it looks at the program's own events too: only a rule that names them does.
    pub sees_own: bool,
    /// A rule may be switched off: it is loaded and checked, never evaluated.
    pub enabled: bool,
    /// Where the rule starts.
    pub span: Span,
}

impl Rule {
    /// Whether it needs event types, and none of these is one of them; the program's own rules and types aside.
    #[must_use]
    pub fn waits_for_other_than(&self, shown: &[&str]) -> bool {
        let is_unseen = |pattern: &String| {
            let pattern = pattern.to_uppercase();
            !pattern.starts_with(OWN_PREFIX)
                && !shown.iter().any(|name| event_type::wildcard(&pattern, &name.to_uppercase()))
        };
        self.enabled && !self.event_types.is_empty() && self.event_types.iter().all(is_unseen)
    }

    /// Whether it asks for something that only an address database knows (`geo.*`), in conditions, detection, dedup or
    /// title. A `travel` does without one.
    #[must_use]
    pub fn asks_geo(&self) -> bool {
        let title = self.alert.title.as_ref().is_some_and(|title| title.text().contains("event.geo"));
        self.when.asks_geo()
            || self.unless.iter().any(|exception| exception.when.asks_geo())
            || self.alert.dedup.iter().any(FieldPath::is_geo)
            || self.detection.as_ref().is_some_and(Detection::asks_geo)
            || title
    }
}

/// A known harmless case.
#[derive(Debug, Clone)]
pub struct Exception {
    /// Which events.
    pub when: Condition,
    /// End, exclusive, in event time.
    pub until: Option<DateTime<Utc>>,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
}

/// How matches become alerts.
#[derive(Debug, Clone)]
pub struct AlertSpec {
    /// Title template; the rule's title when absent.
    pub title: Option<crate::template::Template>,
    /// Dotted field paths (`actor` allowed). Empty: each match is an alert of its own; with a detection its `by`.
    pub dedup: Vec<FieldPath>,
    /// See [`DEFAULT_QUIET`].
    pub quiet: Duration,
}

/// An example inside a rule.
#[derive(Debug, Clone)]
pub struct RuleTest {
    /// What it shows.
    pub name: String,
    /// Events in order, as JSON objects.
    pub events: Vec<serde_json::Value>,
    /// How many alerts they must raise; `None` is "at least one".
    pub expect: Expect,
    /// Where the test starts.
    pub span: Span,
}

/// What a rule test expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// `alert`: at least one.
    Alert,
    /// `nothing`: none.
    Nothing,
    /// `{alerts: N}`: exactly this many.
    Alerts(usize),
}

#[cfg(test)]
mod tests;
