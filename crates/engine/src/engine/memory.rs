//! What the rules remember in memory: the committed rows, by rule and key, with their ends of life in order.
//!
//! Bounded: a rule keeps at most [`MAX_KEYS`] rows; the one whose life ends first makes room.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::fold::Row;

/// Most keys that one rule remembers; beyond it the row that would expire first is dropped, and counted.
pub const MAX_KEYS: usize = 100_000;

/// Rows of all rules. Rows of rules that are not in force stay: the rule may come back with the next reload.
#[derive(Debug, Default)]
pub(super) struct Memory {
    rules: HashMap<String, RuleMemory>,
}

/// Rows of one rule.
#[derive(Debug, Default)]
pub(super) struct RuleMemory {
    rows: HashMap<Arc<str>, Row>,
    by_end: BTreeSet<(i64, Arc<str>)>,
}

impl Memory {
    pub(super) fn rule(&self, rule_id: &str) -> Option<&RuleMemory> {
        self.rules.get(rule_id)
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = (&str, &RuleMemory)> {
        self.rules.iter().map(|(id, memory)| (id.as_str(), memory))
    }

    pub(super) fn set(&mut self, rule_id: &str, key: &str, row: Option<Row>) {
        if !self.rules.contains_key(rule_id) {
            self.rules.insert(rule_id.to_owned(), RuleMemory::default());
        }
        if let Some(memory) = self.rules.get_mut(rule_id) {
            memory.set(key, row);
        }
    }
}

impl RuleMemory {
    pub(super) fn row(&self, key: &str) -> Option<&Row> {
        self.rows.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Rows and the ends of their lives, the earliest first.
    pub(super) fn by_end(&self) -> impl Iterator<Item = (i64, &str)> {
        self.by_end.iter().map(|(end, key)| (*end, &**key))
    }

    /// Like `by_end`, behind a place that was reached before.
    pub(super) fn by_end_after(&self, place: &Bound<(i64, String)>) -> impl Iterator<Item = (i64, &str)> {
        let from = match place {
            Bound::Excluded((end, key)) | Bound::Included((end, key)) => Bound::Excluded((*end, key.as_str().into())),
            Bound::Unbounded => Bound::Unbounded,
        };
        self.by_end.range((from, Bound::Unbounded)).map(|(end, key)| (*end, &**key))
    }

    fn set(&mut self, key: &str, row: Option<Row>) {
        if let Some((kept, old)) = self.rows.remove_entry(key) {
            self.by_end.remove(&(old.expires_at_us, kept));
        }
        if let Some(row) = row {
            let key: Arc<str> = key.into();
            self.by_end.insert((row.expires_at_us, Arc::clone(&key)));
            self.rows.insert(key, row);
        }
    }
}
