//! The engine: events in, alerts and state changes out.
//!
//! It works in batches: `batch` reads the engine's state and collects changes, `finish` returns them, and only after the
//! store has committed them does `apply` make them the engine's own. It never decides where an alert goes.

mod batch;
mod fold;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::alert::Alert;
use crate::condition::Explanation;
use crate::event::{Event, FieldPath};
use crate::plan::Plan;
use crate::rule::{Exception, Rule};
use crate::state::{FOLD_KIND, StateChange, StateKey};

pub use batch::{Batch, MAX_EXPIRED_PER_TICK, MAX_KEY_BYTES};
pub use fold::{LATENESS_KEPT, MAX_WINDOWS};
pub use memory::MAX_KEYS;

use fold::Row;
use memory::Memory;

/// Compiled rules and what they remember.
#[derive(Debug)]
pub struct Engine {
    rules: Vec<Rule>,
    /// The dedup fields of each rule, read once.
    dedup: Vec<Vec<(String, Option<FieldPath>)>>,
    plan: Plan,
    memory: Memory,
}

/// What a batch did.
#[derive(Debug, Default)]
pub struct Effects {
    /// New alerts, in order, with the counts they reached within the batch.
    pub alerts: Vec<Alert>,
    /// Further matches of alerts that were open before the batch.
    pub folds: Vec<Fold>,
    /// State rows set or removed; the last change of a key wins and stands alone.
    pub state: Vec<StateChange>,
    /// Matches per rule id (folded ones too).
    pub matches: Vec<(String, u64)>,
    /// Values that could not be used: an address that does not parse, a field of the wrong type. A test that several
    /// rules share counts once an event; a test that no rule needed does not count.
    pub unusable_values: u64,
    /// Rows that had to make room for others; see [`MAX_KEYS`].
    pub evicted_keys: u64,
    /// Title templates that could not be filled in; the alert has its rule's title.
    pub title_failures: u64,
}

/// Further matches of an alert that is already stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    /// Which alert.
    pub alert_id: String,
    /// Its count now (absolute, not a difference).
    pub count: u64,
    /// Event time of its earliest match now.
    pub first_at: DateTime<Utc>,
    /// Event time of its latest match now.
    pub last_at: DateTime<Utc>,
    /// Ids of the events that were added, as far as the alert lists them.
    pub event_ids: Vec<String>,
}

impl Engine {
    /// Compiles the rules; state is empty until `restore`.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut engine =
            Self { rules: Vec::new(), dedup: Vec::new(), plan: Plan::default(), memory: Memory::default() };
        engine.replace_rules(rules);
        engine
    }

    /// The rules in force, in load order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// New rules take the place of the old ones; what rules of the same id remember stays.
    pub fn replace_rules(&mut self, rules: Vec<Rule>) {
        let path = |field: &String| (field.clone(), FieldPath::parse(field).ok());
        self.dedup = rules.iter().map(|rule| rule.alert.dedup.iter().map(path).collect()).collect();
        self.plan = Plan::new(rules.iter().map(|rule| rule.enabled.then_some(&rule.when)));
        self.rules = rules;
    }

    /// Takes up rows that the store kept. Rows that do not parse are returned, not used.
    pub fn restore(&mut self, rows: Vec<(StateKey, String)>) -> Vec<StateKey> {
        let mut refused = Vec::new();
        for (key, value) in rows {
            match serde_json::from_str::<Row>(&value) {
                Ok(row) if key.kind == FOLD_KIND => self.memory.set(&key.rule_id, &key.key, Some(row)),
                _ => refused.push(key),
            }
        }
        refused
    }

    /// Rows of state by rule id, for the metrics.
    pub fn state_keys(&self) -> impl Iterator<Item = (&str, usize)> {
        self.memory.rules().map(|(rule_id, memory)| (rule_id, memory.len()))
    }

    /// Starts a batch over the present state.
    #[must_use]
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self)
    }

    /// Makes committed changes the engine's own. Only changes that a batch of this engine gave are understood.
    pub fn apply(&mut self, changes: &[StateChange]) {
        for change in changes.iter().filter(|change| change.key.kind == FOLD_KIND) {
            let row = change.value.as_deref().and_then(|value| serde_json::from_str::<Row>(value).ok());
            self.memory.set(&change.key.rule_id, &change.key.key, row);
        }
    }

    /// Why a rule fires on an event or does not: its condition and its exceptions. `None` when no rule has this id.
    #[must_use]
    pub fn explain(&self, rule_id: &str, event: &Event) -> Option<Explanation> {
        let rule = self.rules.iter().find(|rule| rule.id == rule_id)?;
        let when = rule.when.explain(event);
        let unless: Vec<Explanation> =
            rule.unless.iter().map(|exception| explain_exception(exception, event)).collect();
        let holds = rule.enabled && when.holds && !unless.iter().any(|exception| exception.holds);
        Some(Explanation::block("rule", holds, [when].into_iter().chain(unless).collect()))
    }
}

/// An exception holds until its end, in event time; the end itself is out.
fn in_force(exception: &Exception, event: &Event) -> bool {
    exception.until.is_none_or(|until| event.created_at() < until)
}

fn explain_exception(exception: &Exception, event: &Event) -> Explanation {
    let when = exception.when.explain(event);
    let holds = in_force(exception, event) && when.holds;
    let mut explanation = Explanation::block("unless", holds, vec![when]);
    let until = exception.until.map(|until| until.to_rfc3339_opts(SecondsFormat::AutoSi, true));
    let until = until.map_or(String::new(), |until| format!(", until {until}"));
    explanation.expected = Some(format!("{} ({}{until})", exception.reason, exception.owner));
    explanation
}

/// Counts by rule, in the order in which the rules first matched.
#[derive(Debug, Default)]
struct Tally {
    order: Vec<usize>,
    counts: HashMap<usize, u64>,
}

impl Tally {
    fn add(&mut self, rule_index: usize) {
        let count = self.counts.entry(rule_index).or_insert_with(|| {
            self.order.push(rule_index);
            0
        });
        *count += 1;
    }
}
