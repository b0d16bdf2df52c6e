//! An alert: what a person should see. It folds matches that share a dedup key.

mod exception;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::condition::{Condition, Explanation};
use crate::event::Event;
use crate::rule::Severity;
use crate::state::Finding;
use crate::text::Untrusted;

pub use exception::{EXCEPTION_DAYS, MAX_EXCEPTION_CHARS};

/// How many event ids an alert lists; the count goes on beyond it.
pub const MAX_ALERT_EVENT_IDS: usize = 100;
/// Most reasons that one alert carries; a person reads no more.
pub const MAX_REASONS: usize = 20;
/// From this age of the event on, an alert says that it is late.
pub const LATE_AFTER_SECONDS: i64 = 3600;

/// What a person should see.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Alert {
    /// `BLAKE3(rule id, group key, first event id, window start)`, 32 lower-case hex digits: computed, so a repeated
    /// evaluation gives the same id.
    pub alert_id: String,
    /// The rule that fired.
    pub rule: AlertRule,
    /// Name of the source in the configuration.
    pub source: String,
    /// Account that the event belongs to, if it says so.
    pub account_id: Option<Untrusted>,
    /// Title, rendered from the event.
    pub title: Untrusted,
    /// Event time of the first match.
    pub first_at: DateTime<Utc>,
    /// Event time of the last match.
    pub last_at: DateTime<Utc>,
    /// How many matches it holds.
    pub count: u64,
    /// Seconds between the event and its evaluation, when more than [`LATE_AFTER_SECONDS`].
    pub late: Option<i64>,
    /// The dedup key: field path and value. Empty when each match is an alert of its own.
    pub key: Vec<(String, Untrusted)>,
    /// Why it fired: each operand that held, with the value that it saw.
    pub reason: Vec<Reason>,
    /// What a stateful rule found: the events together, and the numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    /// The event as it came; of a match that time decided, the one that it waited on.
    pub event: Box<RawValue>,
    /// Ids of the events in it, at most [`MAX_ALERT_EVENT_IDS`].
    pub events: Vec<String>,
    /// Why this copy came to whom it came, when that is not by the routes alone. The engine never sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The part of a rule that an alert shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertRule {
    /// Rule id.
    pub id: String,
    /// Rule title.
    pub title: String,
    /// Severity.
    pub severity: Severity,
    /// Tags.
    pub tags: Vec<String>,
    /// What to do now.
    pub response: String,
}

/// One operand that held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Field path.
    pub field: String,
    /// Modifiers as written, or `equals`; a negated block is `not ...`.
    pub operator: String,
    /// What the rule asks for, shortened.
    pub expected: String,
    /// What the event had; absent when the field was missing.
    pub actual: Option<Untrusted>,
}

impl Condition {
    /// The operands that made it true, at most [`MAX_REASONS`]; nothing when it does not hold.
    #[must_use]
    pub fn reasons(&self, event: &Event) -> Vec<Reason> {
        let explanation = self.explain(event);
        let mut reasons = Vec::new();
        if explanation.holds {
            Reason::collect(explanation, true, &mut reasons);
        }
        reasons
    }
}

impl Reason {
    /// Adds the operands that made a part true or, below a `not`, false.
    fn collect(part: Explanation, wanted: bool, reasons: &mut Vec<Self>) {
        if reasons.len() >= MAX_REASONS {
            return;
        }
        match (part.field, part.operator) {
            (Some(field), Some(operator)) => {
                let operator = if wanted { operator } else { format!("not {operator}") };
                let expected = part.expected.unwrap_or_default();
                reasons.push(Self { field, operator, expected, actual: part.actual });
            }
            _ => {
                let wanted_below = wanted != (part.block == "not");
                for child in part.children.into_iter().filter(|child| child.holds == wanted_below) {
                    Self::collect(child, wanted_below, reasons);
                }
            }
        }
    }
}
