//! A batch: some events over the engine's present state, and everything they change.
//!
//! Nothing in the engine changes before `apply`; the batch keeps its own rows on top of the engine's. Within a batch a match
//! folds into an alert that the same batch raised, as if the events had come one by one.

use std::collections::HashMap;
use std::ops::Bound;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::fold::{Row, Window};
use super::{Effects, Engine, Fold, Tally, in_force};
use crate::alert::{Alert, AlertRule, LATE_AFTER_SECONDS, MAX_ALERT_EVENT_IDS};
use crate::event::{Event, FieldPath};
use crate::plan::Scratch;
use crate::rule::{OWN_SOURCE, Rule};
use crate::state::{FOLD_KIND, StateChange, StateKey};
use crate::text::Untrusted;

/// Longest group key in bytes; a longer one is kept as its hash, for an intruder chooses its parts.
pub const MAX_KEY_BYTES: usize = 512;
/// Most rows that one `tick` drops, so that no commit grows without bound; the next tick takes the rest.
pub const MAX_EXPIRED_PER_TICK: usize = 10_000;

/// Changes that are collected and not yet the engine's own.
#[derive(Debug)]
pub struct Batch<'engine> {
    engine: &'engine Engine,
    scratch: Scratch,
    matched: Vec<usize>,
    tally: Tally,
    effects: Effects,
    rows: Vec<(StateKey, Option<Row>)>,
    row_places: HashMap<StateKey, usize>,
    alert_places: HashMap<String, usize>,
    fold_places: HashMap<String, usize>,
    rooms: HashMap<String, Room>,
}

/// How full a rule's memory is, the batch included, and how far eviction went through it.
#[derive(Debug)]
struct Room {
    keys: usize,
    evicted_to: Bound<(i64, String)>,
}

/// The dedup key of one match.
struct GroupKey {
    /// What identifies the group: source and values, absent ones told from empty ones.
    text: String,
    shown: Vec<(String, Untrusted)>,
}

/// What a match has in common for all rules that it matched.
struct Occasion<'e> {
    source: &'e str,
    event: &'e Event,
    received_at: DateTime<Utc>,
}

impl<'engine> Batch<'engine> {
    pub(super) fn new(engine: &'engine Engine) -> Self {
        Self {
            engine,
            scratch: engine.plan.scratch(),
            matched: Vec::new(),
            tally: Tally::default(),
            effects: Effects::default(),
            rows: Vec::new(),
            row_places: HashMap::new(),
            alert_places: HashMap::new(),
            fold_places: HashMap::new(),
            rooms: HashMap::new(),
        }
    }

    /// Evaluates one event of a source. `received_at` decides only whether the alert says it is late.
    pub fn step(&mut self, source: &str, event: &Event, received_at: DateTime<Utc>) {
        let engine = self.engine;
        let mut matched = std::mem::take(&mut self.matched);
        matched.clear();
        engine.plan.matches(event, &mut self.scratch, &mut self.effects.unusable_values, &mut matched);
        let occasion = Occasion { source, event, received_at };
        for &rule_index in &matched {
            let sees = |rule: &&Rule| rule.sees_own || source != OWN_SOURCE;
            let Some(rule) = engine.rules.get(rule_index).filter(sees) else { continue };
            let unusable = &mut self.effects.unusable_values;
            let exempt = rule
                .unless
                .iter()
                .any(|exception| in_force(exception, event) && exception.when.holds_counting(event, unusable));
            if !exempt {
                self.tally.add(rule_index);
                self.take(rule, rule_index, &occasion);
            }
        }
        self.matched = matched;
    }

    /// Lets time alone act, up to `at` (event time): rows without further effect are dropped.
    pub fn tick(&mut self, at: DateTime<Utc>) {
        let engine = self.engine;
        let at_us = at.timestamp_micros();
        let mut expired = Vec::new();
        for (rule_id, memory) in engine.memory.rules() {
            let ended = memory.by_end().take_while(|(end_us, _)| *end_us < at_us);
            expired.extend(ended.map(|(_, key)| fold_key(rule_id, key)).take(MAX_EXPIRED_PER_TICK - expired.len()));
        }
        expired.sort_unstable();
        for key in expired {
            if !self.row_places.contains_key(&key) {
                self.set_row(key, None);
            }
        }
    }

    /// What the batch did, for the store.
    #[must_use]
    pub fn finish(mut self) -> Effects {
        let rules = &self.engine.rules;
        let count = |index: &usize| Some((rules.get(*index)?.id.clone(), self.tally.counts.get(index).copied()?));
        self.effects.matches = self.tally.order.iter().filter_map(count).collect();
        self.effects.state = self.rows.into_iter().map(|(key, row)| state_change(key, row)).collect();
        self.effects
    }

    /// One match: a new alert, or a fold into an open one.
    fn take(&mut self, rule: &Rule, rule_index: usize, occasion: &Occasion<'_>) {
        let at_us = occasion.event.created_at().timestamp_micros();
        let fields = self.engine.dedup.get(rule_index).map_or(&[][..], Vec::as_slice);
        let group = GroupKey::of(occasion, fields);
        if fields.is_empty() {
            let alert_id = alert_id(&rule.id, &group.text, occasion.event.id(), at_us);
            self.raise(rule, alert_id, group.shown, occasion);
            return;
        }
        let key = fold_key(&rule.id, &group.text);
        let known = self.row(&key);
        let is_new = known.is_none();
        let mut row = known.unwrap_or_else(Row::new);
        if let Some(window) = row.window_at(at_us, rule.alert.quiet) {
            window.take(at_us);
            let window = window.clone();
            self.fold(&window, occasion.event.id());
        } else {
            let alert_id = alert_id(&rule.id, &group.text, occasion.event.id(), at_us);
            row.open(alert_id.clone(), at_us);
            self.raise(rule, alert_id, group.shown, occasion);
        }
        row.touch(rule.alert.quiet);
        if is_new {
            self.make_room(&rule.id);
        }
        self.set_row(key, Some(row));
    }

    fn raise(&mut self, rule: &Rule, alert_id: String, key: Vec<(String, Untrusted)>, occasion: &Occasion<'_>) {
        let event = occasion.event;
        let title = rule.alert.title.as_ref().and_then(|template| match template.render(event) {
            Ok(title) => Some(title),
            Err(_) => {
                self.effects.title_failures += 1;
                None
            }
        });
        let age_seconds = (occasion.received_at - event.created_at()).num_seconds();
        self.alert_places.insert(alert_id.clone(), self.effects.alerts.len());
        self.effects.alerts.push(Alert {
            alert_id,
            rule: AlertRule {
                id: rule.id.clone(),
                title: rule.title.clone(),
                severity: rule.severity,
                tags: rule.tags.clone(),
                response: rule.response.clone(),
            },
            source: occasion.source.to_owned(),
            account_id: event.text("account_id").map(Untrusted::new),
            title: Untrusted::new(title.unwrap_or_else(|| rule.title.clone())),
            first_at: event.created_at(),
            last_at: event.created_at(),
            count: 1,
            late: Some(age_seconds).filter(|seconds| *seconds > LATE_AFTER_SECONDS),
            key,
            reason: rule.when.reasons(event),
            event: raw_event(event),
            events: vec![event.id().to_owned()],
        });
    }

    fn fold(&mut self, window: &Window, event_id: &str) {
        let (first_at, last_at) = (stamp(window.first_at_us), stamp(window.last_at_us));
        let listed = window.count <= MAX_ALERT_EVENT_IDS as u64;
        if let Some(alert) = self.alert_places.get(&window.alert_id).and_then(|at| self.effects.alerts.get_mut(*at)) {
            (alert.count, alert.first_at, alert.last_at) = (window.count, first_at, last_at);
            alert.events.extend(listed.then(|| event_id.to_owned()));
            return;
        }
        let folds = &mut self.effects.folds;
        let place = *self.fold_places.entry(window.alert_id.clone()).or_insert_with(|| {
            let alert_id = window.alert_id.clone();
            folds.push(Fold { alert_id, count: 0, first_at, last_at, event_ids: Vec::new() });
            folds.len() - 1
        });
        if let Some(fold) = folds.get_mut(place) {
            (fold.count, fold.first_at, fold.last_at) = (window.count, first_at, last_at);
            fold.event_ids.extend(listed.then(|| event_id.to_owned()));
        }
    }

    /// The row as the batch sees it.
    fn row(&self, key: &StateKey) -> Option<Row> {
        match self.row_places.get(key).and_then(|place| self.rows.get(*place)) {
            Some((_, row)) => row.clone(),
            None => self.engine.memory.rule(&key.rule_id)?.row(&key.key).cloned(),
        }
    }

    fn set_row(&mut self, key: StateKey, row: Option<Row>) {
        if let Some((_, kept)) = self.row_places.get(&key).and_then(|place| self.rows.get_mut(*place)) {
            *kept = row;
            return;
        }
        self.row_places.insert(key.clone(), self.rows.len());
        self.rows.push((key, row));
    }

    /// Counts a new key of a rule and, when its memory is full, drops the row that would expire first.
    fn make_room(&mut self, rule_id: &str) {
        let memory = self.engine.memory.rule(rule_id);
        let room = self.rooms.entry(rule_id.to_owned()).or_insert_with(|| Room {
            keys: memory.map_or(0, super::memory::RuleMemory::len),
            evicted_to: Bound::Unbounded,
        });
        room.keys += 1;
        if room.keys <= super::MAX_KEYS {
            return;
        }
        let Some(memory) = memory else { return };
        let row_places = &self.row_places;
        let victim = memory
            .by_end_after(&room.evicted_to)
            .map(|(end_us, key)| (end_us, fold_key(rule_id, key)))
            .find(|(_, key)| !row_places.contains_key(key));
        if let Some((end_us, key)) = victim {
            room.evicted_to = Bound::Excluded((end_us, key.key.clone()));
            room.keys -= 1;
            self.effects.evicted_keys += 1;
            self.set_row(key, None);
        }
    }
}

impl GroupKey {
    fn of(occasion: &Occasion<'_>, fields: &[(String, Option<FieldPath>)]) -> Self {
        let mut parts = vec![Some(occasion.source.to_owned())];
        let mut shown = Vec::new();
        for (name, path) in fields {
            let value = path.as_ref().and_then(|path| key_value(path, occasion.event));
            shown.extend(value.as_ref().map(|value| (name.clone(), Untrusted::new(value.clone()))));
            parts.push(value);
        }
        let text = serde_json::Value::from_iter(parts).to_string();
        let text = if text.len() > MAX_KEY_BYTES { format!("blake3:{}", blake3::hash(text.as_bytes())) } else { text };
        Self { text, shown }
    }
}

/// A field as part of a key: its text, or the JSON of several or nested values. Missing and null are absent: all events
/// without the field share one group.
fn key_value(path: &FieldPath, event: &Event) -> Option<String> {
    let mut values = Vec::new();
    path.values(event, &mut |view| {
        values.push(view);
        false
    });
    match values.as_slice() {
        [] => None,
        [only] => match only.scalar_text() {
            Some(text) => Some(text.into_owned()),
            None => Some(only.json().to_owned()).filter(|json| json != "null"),
        },
        several => Some(several.iter().map(|view| view.json()).collect::<Vec<_>>().join(",")),
    }
}

fn fold_key(rule_id: &str, key: &str) -> StateKey {
    StateKey { rule_id: rule_id.to_owned(), kind: FOLD_KIND.to_owned(), key: key.to_owned() }
}

/// Each part behind its length, so that no two lists of parts read the same.
fn alert_id(rule_id: &str, group_key: &str, event_id: &str, start_us: i64) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [rule_id.as_bytes(), group_key.as_bytes(), event_id.as_bytes(), &start_us.to_le_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex().chars().take(32).collect()
}

fn state_change(key: StateKey, row: Option<Row>) -> StateChange {
    let expires_at_us = row.as_ref().map(|row| row.expires_at_us);
    // A row is plain numbers and text: writing it cannot fail.
    let value = row.and_then(|row| serde_json::to_string(&row).ok());
    StateChange { key, value, expires_at_us }
}

/// The event as it came; the tape accepts only what `RawValue` accepts, so the second form is never needed.
fn raw_event(event: &Event) -> Box<RawValue> {
    RawValue::from_string(event.raw().trim().to_owned())
        .or_else(|_| serde_json::value::to_raw_value(&event.to_json()))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn stamp(at_us: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at_us).unwrap_or_default()
}
