//! The engine: events in, alerts and state changes out.
//!
//! It works in batches: `batch` reads the engine's state and collects changes, `finish` returns them, and only after the
//! store has committed them does `apply` make them the engine's own. It never decides where an alert goes.

use chrono::{DateTime, Utc};

use crate::alert::Alert;
use crate::event::Event;
use crate::rule::Rule;
use crate::state::{StateChange, StateKey};

/// Compiled rules and what they remember.
#[derive(Debug)]
pub struct Engine {}

/// Changes that are collected and not yet the engine's own.
#[derive(Debug)]
pub struct Batch<'engine> {
    engine: &'engine Engine,
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
    /// Values that could not be used: an address that does not parse, a field of the wrong type.
    pub unusable_values: u64,
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
    /// Ids of the events that were added.
    pub event_ids: Vec<String>,
}

impl Engine {
    /// Compiles the rules; state is empty until `restore`.
    #[must_use]
    pub fn new(_rules: Vec<Rule>) -> Self {
        Self {}
    }

    /// The rules in force, in load order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &[]
    }

    /// New rules take the place of the old ones; what rules of the same id remember stays.
    pub fn replace_rules(&mut self, _rules: Vec<Rule>) {}

    /// Takes up rows that the store kept. Rows that do not parse are returned, not used.
    pub fn restore(&mut self, _rows: Vec<(StateKey, String)>) -> Vec<StateKey> {
        Vec::new()
    }

    /// Starts a batch over the present state.
    #[must_use]
    pub fn batch(&self) -> Batch<'_> {
        Batch { engine: self }
    }

    /// Makes committed changes the engine's own.
    pub fn apply(&mut self, _changes: &[StateChange]) {}
}

impl Batch<'_> {
    /// Evaluates one event of a source. `received_at` decides only whether the alert says it is late.
    pub fn step(&mut self, _source: &str, _event: &Event, _received_at: DateTime<Utc>) {
        let _engine = self.engine;
    }

    /// Lets time alone act, up to `at` (event time).
    pub fn tick(&mut self, _at: DateTime<Utc>) {}

    /// What the batch did, for the store.
    #[must_use]
    pub fn finish(self) -> Effects {
        Effects::default()
    }
}
