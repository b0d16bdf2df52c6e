//! What the rules remember in memory: the committed rows, by rule and key, with their ends of life and what is due in
//! order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::fold;
use crate::rule::Rule;
use crate::state;

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Row {
    /// Which alert takes up a match.
    Fold(fold::Row),
    /// What a detection noted.
    Noted(state::Row),
}

/// Which of a rule's two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    Fold,
    Noted,
}

/// Rows of all rules in force, by their place in load order.
#[derive(Debug, Default)]
pub(super) struct Memory {
    rules: Vec<[Table; 2]>,
}

/// Rows to fill a table with.
pub(super) type Rows = Vec<(Arc<str>, Kept)>;

/// Rows of one kind of one rule.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<Arc<str>, Kept>,
    by_end: BTreeSet<(i64, Arc<str>)>,
    by_due: BTreeSet<(i64, Arc<str>)>,
}

/// A row with its times, which depend on the rule and are set with it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    pub(super) row: Row,
    pub(super) expires_at_us: i64,
    pub(super) due_us: Option<i64>,
}

impl Row {
    /// As the store keeps it.
    pub(super) fn write(&self) -> String {
        match self {
            // Plain numbers and text: writing them cannot fail.
            Self::Fold(row) => serde_json::to_string(row).unwrap_or_default(),
            Self::Noted(row) => row.write(),
        }
    }

    /// What a detection noted; its tables hold nothing else.
    pub(super) fn noted(&mut self, make: fn() -> state::Row) -> &mut state::Row {
        if let Self::Fold(_) = self {
            *self = Self::Noted(make());
        }
        match self {
            Self::Noted(row) => row,
            Self::Fold(_) => unreachable!("it was just replaced"),
        }
    }
}

impl Kept {
    pub(super) fn new(rule: &Rule, row: Row) -> Self {
        let (expires_at_us, due_us) = match (&row, &rule.detection) {
            (Row::Fold(row), _) => (row.expires_at_us, None),
            (Row::Noted(row), Some(detection)) => (detection.expires_at_us(row), detection.due_us(row)),
            (Row::Noted(_), None) => (i64::MIN, None),
        };
        Self { row, expires_at_us, due_us }
    }
}

impl Memory {
    pub(super) fn of_rules(count: usize) -> Self {
        Self { rules: (0..count).map(|_| [Table::default(), Table::default()]).collect() }
    }

    pub(super) fn table(&self, rule_index: usize, slot: Slot) -> Option<&Table> {
        self.rules.get(rule_index)?.get(slot as usize)
    }

    pub(super) fn set(&mut self, rule_index: usize, slot: Slot, key: &str, kept: Option<Kept>) {
        if let Some(table) = self.rules.get_mut(rule_index).and_then(|tables| tables.get_mut(slot as usize)) {
            table.set(key, kept);
        }
    }

    /// Makes these all rows of a table.
    pub(super) fn fill(&mut self, rule_index: usize, slot: Slot, rows: Rows) {
        if let Some(table) = self.rules.get_mut(rule_index).and_then(|tables| tables.get_mut(slot as usize)) {
            *table = Table::of(rows);
        }
    }

    /// Rows of each rule.
    pub(super) fn counts(&self) -> impl Iterator<Item = usize> {
        self.rules.iter().map(|tables| tables.iter().map(Table::len).sum())
    }
}

impl Table {
    /// Of many rows at once: ordered sets are made from all of their members far sooner than one by one.
    fn of(rows: Rows) -> Self {
        let by_end = rows.iter().map(|(key, kept)| (kept.expires_at_us, Arc::clone(key))).collect();
        let by_due = rows.iter().filter_map(|(key, kept)| Some((kept.due_us?, Arc::clone(key)))).collect();
        Self { by_end, by_due, rows: rows.into_iter().collect() }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Row> {
        self.rows.get(key).map(|kept| &kept.row)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Ends of lives and keys, the earliest first, behind a place that was reached before.
    pub(super) fn by_end_after(&self, place: &Bound<(i64, String)>) -> impl Iterator<Item = (i64, &str)> {
        let from = match place {
            Bound::Excluded((end, key)) | Bound::Included((end, key)) => Bound::Excluded((*end, key.as_str().into())),
            Bound::Unbounded => Bound::Unbounded,
        };
        self.by_end.range((from, Bound::Unbounded)).map(|(end, key)| (*end, &**key))
    }

    /// What time alone will decide, the earliest first.
    pub(super) fn by_due(&self) -> impl Iterator<Item = (i64, &str)> {
        self.by_due.iter().map(|(due, key)| (*due, &**key))
    }

    fn set(&mut self, key: &str, kept: Option<Kept>) {
        let mut name: Option<Arc<str>> = None;
        if let Some((known, old)) = self.rows.remove_entry(key) {
            let mut entry = (old.expires_at_us, known);
            self.by_end.remove(&entry);
            if let Some(due_us) = old.due_us {
                entry.0 = due_us;
                self.by_due.remove(&entry);
            }
            name = Some(entry.1);
        }
        if let Some(kept) = kept {
            let name = name.unwrap_or_else(|| key.into());
            self.by_end.insert((kept.expires_at_us, Arc::clone(&name)));
            self.by_due.extend(kept.due_us.map(|due_us| (due_us, Arc::clone(&name))));
            self.rows.insert(name, kept);
        }
    }
}
