//! The engine: events in, alerts and state changes out.
//!
//! It works in batches: `batch` reads the engine's state and collects changes, `finish` returns them, and only after the
//! store has committed them does `apply` make them the engine's own. It never decides where an alert goes.

mod batch;
mod fold;
mod memory;
mod overlay;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::alert::Alert;
use crate::condition::Explanation;
use crate::event::{Event, FieldPath};
use crate::plan::Plan;
use crate::rule::{Exception, Rule};
use crate::state::{Sighting, Standing, StateChange, StateKey, StateRows};

pub use batch::{Batch, MAX_ROWS_PER_TICK, MAX_TICKS};
pub use fold::{LATENESS_KEPT, MAX_WINDOWS};
pub use restore::{Restored, Restoring};

use memory::{Kept, Memory, Slot};
use overlay::Overlay;

/// Compiled rules and what they remember.
#[derive(Debug)]
pub struct Engine {
    rules: Vec<Rule>,
    plan: Plan,
    memory: Memory,
    /// Up to when each source is settled, as far as this process was told.
    settled_us: HashMap<String, i64>,
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
    /// The same for [`Engine::apply`], once the store has committed them.
    pub changes: Changes,
    /// Matches per rule id (folded ones too).
    pub matches: Vec<(String, u64)>,
    /// Matches per rule id that raised nothing, because the rules only learned.
    pub learned: Vec<(String, u64)>,
    /// Events per rule id that a detection could not count, because a field that it needs was missing.
    pub uncounted: Vec<(String, u64)>,
    /// Values that could not be used: an address that does not parse, a field of the wrong type. A test that several
    /// rules share counts once an event; a test that no rule needed does not count.
    pub unusable_values: u64,
    /// More was due than one batch decides: time has to act once more.
    pub more_is_due: bool,
    /// Rows and noted events per rule id that had to make room for others; see `max_keys` and
    /// [`crate::state::MAX_OBSERVATIONS`].
    pub evicted: Vec<(String, u64)>,
    /// Title templates that could not be filled in; the alert has its rule's title.
    pub title_failures: u64,
}

/// Changes of a batch in the engine's own form.
#[derive(Debug, Default)]
pub struct Changes {
    rows: Vec<(usize, Slot, String, Option<Kept>)>,
    settled_us: HashMap<String, i64>,
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
        let plan = Plan::new(rules.iter().map(|rule| rule.enabled.then_some(&rule.when)));
        Self { memory: Memory::of_rules(rules.len()), plan, rules, settled_us: HashMap::new() }
    }

    /// The rules in force, in load order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Begins with the rows that the store kept. Rows of rules that are not in force, or that meant something else, are left
    /// where they are.
    pub fn restore(&mut self, rows: Vec<(StateKey, String)>) -> Restored {
        let mut restoring = self.restoring();
        StateRows::of(rows).into_iter().for_each(|rows| restoring.take(rows));
        restoring.finish()
    }

    /// The same, part by part.
    pub fn restoring(&mut self) -> Restoring<'_> {
        Restoring::new(self)
    }

    /// Rows of state by rule id, for the metrics.
    pub fn state_keys(&self) -> impl Iterator<Item = (&str, usize)> {
        self.rules.iter().zip(self.memory.counts()).map(|(rule, count)| (rule.id.as_str(), count))
    }

    /// Starts a batch over the present state.
    #[must_use]
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self)
    }

    /// Makes committed changes the engine's own. They must come from a batch of this engine.
    pub fn apply(&mut self, changes: Changes) {
        for (rule_index, slot, key, kept) in changes.rows {
            self.memory.set(rule_index, slot, &key, kept);
        }
        self.settled_us.extend(changes.settled_us);
    }

    /// How a stateful rule stands for the subject of an event: what was noted, what is missing; what time decides up to
    /// `known_until`, where the log is known to be complete up to there. `None` when no rule has this id, or it has no
    /// detection.
    #[must_use]
    pub fn standing(
        &self,
        rule_id: &str,
        source: &str,
        event: &Event,
        known_until: Option<DateTime<Utc>>,
    ) -> Option<Standing> {
        let (place, rule) = self.rules.iter().enumerate().find(|(_, rule)| rule.id == rule_id)?;
        let rows = Overlay::new(self.memory.table(place, Slot::Noted)?, usize::MAX);
        let known_us = known_until.map(|at| at.timestamp_micros());
        let (received_at, settled_us) = (event.created_at(), known_us.or(self.settled_us.get(source).copied()));
        let detection = rule.detection.as_ref()?;
        let keys = [detection.by.as_slice(), rule.alert.dedup.as_slice()];
        Some(detection.standing(&rows, &Sighting { source, event, received_at, settled_us, keys }))
    }

    /// The fields whose values keep alerts of a rule apart.
    fn group_fields<'r>(&self, rule: &'r Rule) -> &'r [FieldPath] {
        match &rule.detection {
            Some(detection) if rule.alert.dedup.is_empty() => &detection.by,
            _ => &rule.alert.dedup,
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
        self.add_many(rule_index, 1);
    }

    fn add_many(&mut self, rule_index: usize, more: u64) {
        if more == 0 {
            return;
        }
        let count = self.counts.entry(rule_index).or_insert_with(|| {
            self.order.push(rule_index);
            0
        });
        *count += more;
    }

    fn counts(&self, rules: &[Rule]) -> Vec<(String, u64)> {
        let count = |index: &usize| Some((rules.get(*index)?.id.clone(), self.counts.get(index).copied()?));
        self.order.iter().filter_map(count).collect()
    }
}
