//! Taking up what a store kept, part by part while it is still being read.
//!
//! A table is made at the end from all of its rows at once: a million of them are far sooner sorted than put in one by one.

use std::collections::{BTreeMap, HashMap};

use super::Engine;
use super::memory::{Kept, Row, Rows, Slot};
use crate::state::{self, FOLD_KIND, StateKey, StateRows};

/// See the module.
#[derive(Debug)]
pub struct Restoring<'engine> {
    engine: &'engine mut Engine,
    places: HashMap<String, usize>,
    tables: BTreeMap<(usize, Slot), Rows>,
    restored: Restored,
}

/// What could not be taken up of the rows that a store kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Rows that do not parse.
    pub unreadable: Vec<StateKey>,
    /// Rows by rule in force that were noted when the rule asked for something else: it begins anew. A rule that has begun
    /// since is not among them.
    pub set_aside: BTreeMap<String, u64>,
}

impl<'engine> Restoring<'engine> {
    pub(super) fn new(engine: &'engine mut Engine) -> Self {
        let places = engine.rules.iter().enumerate().map(|(place, rule)| (rule.id.clone(), place)).collect();
        Self { engine, places, tables: BTreeMap::new(), restored: Restored::default() }
    }

    /// Takes some rows.
    pub fn take(&mut self, rows: StateRows) {
        let StateRows { rule_id, kind, rows } = rows;
        let Some(place) = self.places.get(&rule_id).copied() else { return };
        let Some(rule) = self.engine.rules.get(place) else { return };
        let slot = if kind == FOLD_KIND {
            Slot::Fold
        } else if rule.detection.as_ref().is_some_and(|detection| detection.kind() == kind) {
            Slot::Noted
        } else {
            if !rows.is_empty() {
                *self.restored.set_aside.entry(rule_id).or_default() += rows.len() as u64;
            }
            return;
        };
        let table = self.tables.entry((place, slot)).or_default();
        table.reserve(rows.len());
        for (key, value) in rows {
            let row = match slot {
                Slot::Fold => serde_json::from_str(&value).ok().map(Row::Fold),
                Slot::Noted => state::Row::read(&kind, &value).map(Row::Noted),
            };
            match row {
                Some(row) => table.push((key, Kept::new(rule, row))),
                None => {
                    let (rule_id, kind, key) = (rule_id.clone(), kind.clone(), key.to_string());
                    self.restored.unreadable.push(StateKey { rule_id, kind, key });
                }
            }
        }
    }

    /// Makes the tables of the engine from what was taken.
    pub fn finish(mut self) -> Restored {
        for ((place, slot), rows) in self.tables {
            if let (Slot::Noted, Some(rule)) = (slot, self.engine.rules.get(place)) {
                self.restored.set_aside.remove(&rule.id);
            }
            self.engine.memory.fill(place, slot, rows);
        }
        self.restored
    }
}
