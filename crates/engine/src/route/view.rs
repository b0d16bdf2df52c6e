//! An alert as conditions of routes, silences and inhibitions see it: what it shows, and its event below `event.`.
//!
//! It never guesses: what cannot be evaluated (an event at its size limit leaves no room for the rest) is said to be unknown,
//! and each user of it decides for delivery.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::alert::Alert;
use crate::condition::Condition;
use crate::event::{Event, FieldPath};
use crate::state::GroupKey;

/// What such a condition may ask for; `event.` stands for every field of the event.
pub const VOCABULARY: &[&str] = &["severity", "rule", "tags", "account", "source", "title", "event."];

/// What a condition sees of an alert.
#[derive(Debug)]
pub struct AlertView {
    seen: Option<Event>,
    is_whole: bool,
}

/// A condition on alerts.
#[derive(Debug, Clone)]
pub struct AlertCondition {
    condition: Condition,
    reads_event: bool,
}

#[derive(Serialize)]
struct Facets<'a> {
    severity: &'a str,
    rule: &'a str,
    tags: &'a [String],
    account: Option<&'a str>,
    source: &'a str,
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a RawValue>,
}

impl AlertView {
    /// Of an alert; without its event where both together are too long.
    #[must_use]
    pub fn of(alert: &Alert) -> Self {
        let whole = Self::facets(alert, true);
        let is_whole = whole.is_some();
        Self { seen: whole.or_else(|| Self::facets(alert, false)), is_whole }
    }

    /// The values of some fields, as one text that tells groups apart.
    #[must_use]
    pub fn key(&self, fields: &[FieldPath]) -> Option<String> {
        let reads_event = fields.iter().any(|field| asks_below_event(field.as_str()));
        let seen = self.seen.as_ref().filter(|_| self.is_whole || !reads_event)?;
        Some(GroupKey::of("", seen, fields).text)
    }

    fn facets(alert: &Alert, with_event: bool) -> Option<Event> {
        let facets = Facets {
            severity: alert.rule.severity.name(),
            rule: &alert.rule.id,
            tags: &alert.rule.tags,
            account: alert.account_id.as_ref().map(|account| account.as_raw()),
            source: &alert.source,
            title: alert.title.as_raw(),
            event: with_event.then_some(&*alert.event),
        };
        let json = serde_json::to_string(&facets).ok()?;
        Event::new(&alert.alert_id, alert.last_at, json.into()).ok()
    }
}

impl AlertCondition {
    /// Of a condition whose fields are all in [`VOCABULARY`].
    #[must_use]
    pub fn new(condition: Condition) -> Self {
        let reads_event = asks_for_event(&condition);
        Self { condition, reads_event }
    }

    /// Feeds a hash with what it asks.
    pub(crate) fn meaning(&self, hasher: &mut blake3::Hasher) {
        self.condition.meaning(hasher);
    }

    /// Whether it holds; `None` when that cannot be said.
    #[must_use]
    pub fn holds(&self, view: &AlertView) -> Option<bool> {
        let seen = view.seen.as_ref().filter(|_| view.is_whole || !self.reads_event)?;
        Some(self.condition.holds(seen))
    }
}

fn asks_for_event(condition: &Condition) -> bool {
    match condition {
        Condition::All(parts) | Condition::Any(parts) => parts.iter().any(asks_for_event),
        Condition::Not(part) => asks_for_event(part),
        Condition::Test(test) => asks_below_event(test.field()) || test.key.contains("|fieldref"),
        Condition::During(_) => false,
    }
}

fn asks_below_event(field: &str) -> bool {
    field.starts_with("event")
}
