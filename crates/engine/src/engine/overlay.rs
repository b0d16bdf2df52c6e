//! Changed rows of one table, on top of the committed ones.
//!
//! It counts keys as they come and, when the table is full, drops the row whose life would end first.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::memory::{Row, Table};
use crate::state;

/// See the module.
#[derive(Debug)]
pub(super) struct Overlay<'engine> {
    table: &'engine Table,
    max_keys: usize,
    rows: BTreeMap<String, Option<Row>>,
    keys: usize,
    evicted_to: Bound<(i64, String)>,
    /// Rows that had to make room.
    pub(super) evicted: u64,
}

impl<'engine> Overlay<'engine> {
    pub(super) fn new(table: &'engine Table, max_keys: usize) -> Self {
        let keys = table.len();
        Self { table, max_keys, rows: BTreeMap::new(), keys, evicted_to: Bound::Unbounded, evicted: 0 }
    }

    /// The row as the batch sees it.
    pub(super) fn get(&self, key: &str) -> Option<&Row> {
        match self.rows.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.table.get(key),
        }
    }

    /// The row, to be changed; a new one takes the place of none.
    pub(super) fn get_mut(&mut self, key: &str, make: impl FnOnce() -> Row) -> &mut Row {
        if self.get(key).is_none() {
            self.keys += 1;
            self.make_room(key);
        }
        let table = self.table;
        let changed = self.rows.entry(key.to_owned()).or_insert_with(|| table.get(key).cloned());
        changed.get_or_insert_with(make)
    }

    /// Drops a row; one that this batch changed stays.
    pub(super) fn drop_unchanged(&mut self, key: &str) {
        if !self.rows.contains_key(key) {
            self.rows.insert(key.to_owned(), None);
            self.keys = self.keys.saturating_sub(1);
        }
    }

    pub(super) fn is_changed(&self, key: &str) -> bool {
        self.rows.contains_key(key)
    }

    /// Rows that this batch set.
    pub(super) fn changed(&self) -> impl Iterator<Item = (&str, &Row)> {
        self.rows.iter().filter_map(|(key, row)| Some((key.as_str(), row.as_ref()?)))
    }

    pub(super) fn into_rows(self) -> BTreeMap<String, Option<Row>> {
        self.rows
    }

    fn make_room(&mut self, for_key: &str) {
        if self.keys <= self.max_keys {
            return;
        }
        let (rows, table) = (&self.rows, self.table);
        let victim = table
            .by_end_after(&self.evicted_to)
            .find(|(_, key)| !rows.contains_key(*key) && *key != for_key)
            .map(|(end_us, key)| (end_us, key.to_owned()));
        if let Some((end_us, key)) = victim {
            self.evicted_to = Bound::Excluded((end_us, key.clone()));
            self.evicted += 1;
            self.drop_unchanged(&key);
        }
    }
}

impl state::Rows for Overlay<'_> {
    fn peek(&self, key: &str) -> Option<&state::Row> {
        match self.get(key) {
            Some(Row::Noted(row)) => Some(row),
            _ => None,
        }
    }

    fn change(&mut self, key: &str, make: fn() -> state::Row) -> &mut state::Row {
        self.get_mut(key, || Row::Noted(make())).noted(make)
    }
}
