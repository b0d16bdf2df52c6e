//! A batch: some events over the engine's present state, and everything they change.
//!
//! Nothing in the engine changes before `apply`; the batch keeps its own rows on top of the engine's. Within a batch a match
//! folds into an alert that the same batch raised, as if the events had come one by one.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::fold::{self, Window};
use super::memory::{Kept, Row, Slot};
use super::overlay::Overlay;
use super::{Changes, Effects, Engine, Fold, Tally, in_force};
use crate::alert::{Alert, AlertRule, LATE_AFTER_SECONDS, MAX_ALERT_EVENT_IDS};
use crate::event::Event;
use crate::plan::Scratch;
use crate::rule::{OWN_SOURCE, Rule};
use crate::state::{
    self, DEFAULT_MAX_KEYS, Detection, FOLD_KIND, Finding, Firing, GroupKey, MAX_KEYS_LIMIT, Noted, Sighting,
};
use crate::state::{StateChange, StateKey};
use crate::text::Untrusted;

/// Most rows that one `tick` drops or decides, so that no commit grows without bound; the next tick takes the rest.
pub const MAX_ROWS_PER_TICK: usize = 10_000;

/// Ticks after which nothing that was due at the first can be left, whatever the rules: each rule decides as many rows.
pub const MAX_TICKS: usize = MAX_KEYS_LIMIT / MAX_ROWS_PER_TICK + 1;

/// Changes that are collected and not yet the engine's own.
#[derive(Debug)]
pub struct Batch<'engine> {
    engine: &'engine Engine,
    scratch: Scratch,
    matched: Vec<usize>,
    tally: Tally,
    learned: Tally,
    uncounted: Tally,
    effects: Effects,
    rows: BTreeMap<(usize, Slot), Overlay<'engine>>,
    settled_us: HashMap<String, i64>,
    alert_places: HashMap<String, usize>,
    fold_places: HashMap<String, usize>,
}

/// Whether matches become alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    Aloud,
    /// Those before this time (microseconds) are counted only.
    SilentBefore(i64),
}

impl Voice {
    fn is_silent(self, at_us: i64) -> bool {
        matches!(self, Self::SilentBefore(from_us) if at_us < from_us)
    }
}

/// A match with what an alert about it is made from.
struct Match<'m> {
    source: &'m str,
    event: &'m Event,
    received_at: DateTime<Utc>,
    /// Event time of the match, the event's own unless a detection says otherwise.
    at_us: i64,
    /// Id of the event that it hangs on.
    event_id: &'m str,
    firing: Option<&'m Firing>,
}

impl<'engine> Batch<'engine> {
    pub(super) fn new(engine: &'engine Engine) -> Self {
        Self {
            engine,
            scratch: engine.plan.scratch(),
            matched: Vec::new(),
            tally: Tally::default(),
            learned: Tally::default(),
            uncounted: Tally::default(),
            effects: Effects::default(),
            rows: BTreeMap::new(),
            settled_us: HashMap::new(),
            alert_places: HashMap::new(),
            fold_places: HashMap::new(),
        }
    }

    /// Evaluates one event of a source. `received_at` decides whether the alert says it is late, and bounds what a stamp
    /// in the future can push out of memory.
    pub fn step(&mut self, source: &str, event: &Event, received_at: DateTime<Utc>) {
        self.take(source, event, received_at, Voice::Aloud);
    }

    /// Lets stateful rules learn from an event of the past. Matches before `aloud_from`, if that is known, are counted in
    /// `Effects::learned` and raise nothing; a later event that it makes a match is told of.
    pub fn learn(
        &mut self,
        source: &str,
        event: &Event,
        received_at: DateTime<Utc>,
        aloud_from: Option<DateTime<Utc>>,
    ) {
        let from_us = aloud_from.map_or(i64::MAX, |from| from.timestamp_micros());
        self.take(source, event, received_at, Voice::SilentBefore(from_us));
    }

    /// Lets time alone act. Nothing of `source` that is older than `settled_at` will come any more: what waited for that
    /// is decided, what has no further effect is dropped. Matches before `aloud_from` are counted only.
    pub fn tick(&mut self, source: &str, settled_at: DateTime<Utc>, aloud_from: Option<DateTime<Utc>>) {
        let settled_us = settled_at.timestamp_micros();
        if self.settled_us(source).is_some_and(|known_us| settled_us < known_us) {
            return;
        }
        self.settled_us.insert(source.to_owned(), settled_us);
        for rule_index in 0..self.engine.rules.len() {
            self.settle(rule_index, source, settled_at, aloud_from);
            self.expire(rule_index, source, settled_us);
        }
    }

    /// What the batch did, for the store.
    #[must_use]
    pub fn finish(mut self) -> Effects {
        let engine = self.engine;
        let counts = |tally: &Tally| tally.counts(&engine.rules);
        self.effects.matches = counts(&self.tally);
        self.effects.learned = counts(&self.learned);
        self.effects.uncounted = counts(&self.uncounted);
        let mut evicted = Tally::default();
        let mut changes = Changes { rows: Vec::new(), settled_us: self.settled_us };
        for ((rule_index, slot), overlay) in self.rows {
            let Some(rule) = engine.rules.get(rule_index) else { continue };
            let mut gone = overlay.evicted;
            for (key, row) in overlay.into_rows() {
                let kept = row.map(|row| kept(rule, row, &mut gone));
                self.effects.state.push(state_change(rule, slot, &key, kept.as_ref()));
                changes.rows.push((rule_index, slot, key, kept));
            }
            evicted.add_many(rule_index, gone);
        }
        self.effects.evicted = evicted.counts(&engine.rules);
        self.effects.changes = changes;
        self.effects
    }

    fn take(&mut self, source: &str, event: &Event, received_at: DateTime<Utc>, voice: Voice) {
        let engine = self.engine;
        let mut matched = std::mem::take(&mut self.matched);
        matched.clear();
        engine.plan.matches(event, &mut self.scratch, &mut self.effects.unusable_values, &mut matched);
        for &rule_index in &matched {
            let sees = |rule: &&Rule| rule.sees_own || source != OWN_SOURCE;
            let Some(rule) = engine.rules.get(rule_index).filter(sees) else { continue };
            let unusable = &mut self.effects.unusable_values;
            let exempt = rule
                .unless
                .iter()
                .any(|exception| in_force(exception, event) && exception.when.holds_counting(event, unusable));
            if exempt {
                continue;
            }
            match &rule.detection {
                None => {
                    let at_us = event.created_at().timestamp_micros();
                    let found = Match { source, event, received_at, at_us, event_id: event.id(), firing: None };
                    self.found(rule, rule_index, &found, voice);
                }
                Some(detection) => self.note(rule_index, detection, source, event, received_at, voice),
            }
        }
        self.matched = matched;
    }

    fn note(
        &mut self,
        rule_index: usize,
        detection: &Detection,
        source: &str,
        event: &Event,
        received_at: DateTime<Utc>,
        voice: Voice,
    ) {
        let settled_us = self.settled_us(source);
        let Some(rule) = self.engine.rules.get(rule_index) else { return };
        let Some(overlay) = self.overlay(rule_index, Slot::Noted) else { return };
        let keys = [detection.by.as_slice(), rule.alert.dedup.as_slice()];
        let firings = match detection.note(&Sighting { source, event, received_at, settled_us, keys }, overlay) {
            Noted::Fired(firings) => firings,
            Noted::Uncounted => return self.uncounted.add(rule_index),
        };
        for mut firing in firings {
            // What comes late may make an event a match that came before it.
            let kept = firing.kept.take().filter(|_| firing.event_id != event.id());
            let kept = kept.and_then(|kept| kept.event(&firing.event_id));
            let event = kept.as_ref().map_or(event, |(_, event)| event);
            let (at_us, event_id) = (firing.at_us, firing.event_id.as_str());
            let found = Match { source, event, received_at, at_us, event_id, firing: Some(&firing) };
            self.found(rule, rule_index, &found, voice);
        }
    }

    /// Decides what is due in one rule.
    fn settle(
        &mut self,
        rule_index: usize,
        source: &str,
        settled_at: DateTime<Utc>,
        aloud_from: Option<DateTime<Utc>>,
    ) {
        let engine = self.engine;
        let Some(rule) = engine.rules.get(rule_index).filter(|rule| rule.enabled) else { return };
        let Some(detection) = &rule.detection else { return };
        let settled_us = settled_at.timestamp_micros();
        for key in self.due_keys(rule_index, detection, source, settled_us) {
            let Some(overlay) = self.overlay(rule_index, Slot::Noted) else { return };
            let Row::Noted(row) = overlay.get_mut(&key, || Row::Noted(state::Row::log())) else { continue };
            for mut firing in detection.settle(&key, row, settled_us) {
                let Some((source, event)) = firing.kept.take().and_then(|kept| kept.event(&firing.event_id)) else {
                    continue;
                };
                let voice = aloud_from.map_or(Voice::Aloud, |from| Voice::SilentBefore(from.timestamp_micros()));
                let (at_us, event_id) = (firing.at_us, firing.event_id.as_str());
                // It is late by how long after its time it was decided, not by the age of the event that it waited on.
                let received_at = event.created_at() + (settled_at - stamp(at_us));
                let found =
                    Match { source: &source, event: &event, received_at, at_us, event_id, firing: Some(&firing) };
                self.found(rule, rule_index, &found, voice);
            }
        }
    }

    /// Rows of a source in which time up to `settled_us` decides something, changed ones too.
    fn due_keys(&mut self, rule_index: usize, detection: &Detection, source: &str, settled_us: i64) -> Vec<String> {
        let prefix = GroupKey::prefix(source);
        let Some(table) = self.engine.memory.table(rule_index, Slot::Noted) else { return Vec::new() };
        let due = table.by_due().take_while(|(due_us, _)| *due_us <= settled_us).map(|(_, key)| key);
        let mut keys: Vec<String> = match self.rows.get(&(rule_index, Slot::Noted)) {
            None => due.map(str::to_owned).collect(),
            Some(overlay) => {
                let changed = overlay.changed().filter(|(_, row)| {
                    matches!(row, Row::Noted(row) if detection.due_us(row).is_some_and(|due_us| due_us <= settled_us))
                });
                let due = due.filter(|key| !overlay.is_changed(key));
                due.chain(changed.map(|(key, _)| key)).map(str::to_owned).collect()
            }
        };
        keys.retain(|key| key.starts_with(&prefix));
        self.effects.more_is_due |= keys.len() > MAX_ROWS_PER_TICK;
        keys.truncate(MAX_ROWS_PER_TICK);
        keys
    }

    /// Drops rows of a source that have ended. Each source has a time of its own: what is over in one may be waited for in
    /// another. What is due and was not decided yet stays.
    fn expire(&mut self, rule_index: usize, source: &str, settled_us: i64) {
        let engine = self.engine;
        let prefix = GroupKey::prefix(source);
        let detection = engine.rules.get(rule_index).and_then(|rule| rule.detection.as_ref());
        let is_due = |row: Option<&Row>| match (row, detection) {
            (Some(Row::Noted(row)), Some(detection)) => detection.due_us(row).is_some(),
            _ => false,
        };
        for slot in [Slot::Fold, Slot::Noted] {
            let Some(table) = engine.memory.table(rule_index, slot) else { continue };
            let ended = table.by_end_after(&Bound::Unbounded).take_while(|(end_us, _)| *end_us < settled_us);
            let own = ended.map(|(_, key)| key).filter(|key| key.starts_with(&prefix) && !is_due(table.get(key)));
            let ended: Vec<&str> = own.take(MAX_ROWS_PER_TICK).collect();
            if !ended.is_empty()
                && let Some(overlay) = self.overlay(rule_index, slot)
            {
                ended.into_iter().for_each(|key| overlay.drop_unchanged(key));
            }
        }
    }

    /// One match: counted, and unless it is silent a new alert or a fold into an open one.
    fn found(&mut self, rule: &'engine Rule, rule_index: usize, found: &Match<'_>, voice: Voice) {
        let moved_from_us = found.firing.and_then(|firing| firing.moved_from_us);
        if voice.is_silent(found.at_us) {
            if moved_from_us.is_none() {
                self.learned.add(rule_index);
            }
            return;
        }
        if moved_from_us.is_none() {
            self.tally.add(rule_index);
        }
        let fields = self.engine.group_fields(rule);
        let group = GroupKey::of(found.source, found.event, fields);
        let alert_id = alert_id(&rule.id, &group.text, found.event_id, found.at_us);
        if fields.is_empty() && rule.detection.is_none() {
            self.raise(rule, rule_index, alert_id, group.shown, found);
            return;
        }
        let Some(overlay) = self.overlay(rule_index, Slot::Fold) else { return };
        let Row::Fold(row) = overlay.get_mut(&group.text, || Row::Fold(fold::Row::new())) else { return };
        let quiet = rule.alert.quiet;
        if let Some(from_us) = moved_from_us {
            if let Some(window) = row.shift(from_us, found.at_us).cloned() {
                row.touch(quiet);
                self.fold(&window, None);
            }
            return;
        }
        let may_move = found.firing.is_some_and(Firing::may_move);
        let known = row.window_at(found.at_us, quiet).map(|window| {
            window.take(found.at_us, may_move);
            window.clone()
        });
        if known.is_none() {
            row.open(alert_id.clone(), found.at_us, may_move);
        }
        row.touch(quiet);
        match known {
            Some(window) => self.fold(&window, Some(found.event_id)),
            None => self.raise(rule, rule_index, alert_id, group.shown, found),
        }
    }

    fn raise(
        &mut self,
        rule: &Rule,
        rule_index: usize,
        alert_id: String,
        key: Vec<(String, Untrusted)>,
        found: &Match<'_>,
    ) {
        let event = found.event;
        let title = rule.alert.title.as_ref().and_then(|template| match template.render(event) {
            Ok(title) => Some(title),
            Err(_) => {
                self.effects.title_failures += 1;
                None
            }
        });
        let finding = found.firing.and_then(|firing| self.finding(rule, rule_index, firing));
        let age_seconds = (found.received_at - event.created_at()).num_seconds();
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
            source: found.source.to_owned(),
            account_id: event.text("account_id").map(Untrusted::new),
            title: Untrusted::new(title.unwrap_or_else(|| rule.title.clone())),
            first_at: stamp(found.at_us),
            last_at: stamp(found.at_us),
            count: 1,
            late: Some(age_seconds).filter(|seconds| *seconds > LATE_AFTER_SECONDS),
            key,
            reason: rule.when.reasons(event),
            events: event_ids(found, finding.as_ref()),
            finding,
            event: raw_event(event),
            note: None,
        });
    }

    fn finding(&mut self, rule: &Rule, rule_index: usize, firing: &Firing) -> Option<Finding> {
        let overlay = self.overlay(rule_index, Slot::Noted)?;
        Some(rule.detection.as_ref()?.finding(overlay, firing))
    }

    fn fold(&mut self, window: &Window, event_id: Option<&str>) {
        let (first_at, last_at) = (stamp(window.first_at_us), stamp(window.last_at_us));
        let listed = event_id.filter(|_| window.count <= MAX_ALERT_EVENT_IDS as u64).map(str::to_owned);
        if let Some(alert) = self.alert_places.get(&window.alert_id).and_then(|at| self.effects.alerts.get_mut(*at)) {
            (alert.count, alert.first_at, alert.last_at) = (window.count, first_at, last_at);
            let is_new = |id: &String| !alert.events.contains(id);
            let listed = listed.filter(is_new);
            alert.events.extend(listed);
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
            fold.event_ids.extend(listed);
        }
    }

    fn settled_us(&self, source: &str) -> Option<i64> {
        self.settled_us.get(source).or_else(|| self.engine.settled_us.get(source)).copied()
    }

    fn overlay(&mut self, rule_index: usize, slot: Slot) -> Option<&mut Overlay<'engine>> {
        let engine = self.engine;
        let table = engine.memory.table(rule_index, slot)?;
        let max_keys = || {
            let detection = engine.rules.get(rule_index).and_then(|rule| rule.detection.as_ref());
            detection.filter(|_| slot == Slot::Noted).map_or(DEFAULT_MAX_KEYS, |detection| detection.max_keys)
        };
        Some(self.rows.entry((rule_index, slot)).or_insert_with(|| Overlay::new(table, max_keys())))
    }
}

/// A changed row with its times.
fn kept(rule: &Rule, mut row: Row, evicted: &mut u64) -> Kept {
    if let Row::Noted(row) = &mut row {
        *evicted += row.take_forgotten();
    }
    Kept::new(rule, row)
}

/// The events of an alert: those that it rests on, then the one that it hangs on.
fn event_ids(found: &Match<'_>, finding: Option<&Finding>) -> Vec<String> {
    let evidence = finding.map_or(&[][..], |finding| finding.evidence.as_slice());
    let mut ids: Vec<String> = evidence.iter().map(|evidence| evidence.event_id.clone()).collect();
    if !ids.iter().any(|id| id == found.event_id) {
        ids.push(found.event_id.to_owned());
    }
    ids
}

fn state_change(rule: &Rule, slot: Slot, key: &str, kept: Option<&Kept>) -> StateChange {
    let kind = match (slot, &rule.detection) {
        (Slot::Noted, Some(detection)) => detection.kind(),
        _ => FOLD_KIND,
    };
    StateChange {
        key: StateKey { rule_id: rule.id.clone(), kind: kind.to_owned(), key: key.to_owned() },
        value: kept.map(|kept| kept.row.write()),
        expires_at_us: kept.map(|kept| kept.expires_at_us).filter(|expires_at_us| *expires_at_us < i64::MAX),
    }
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

/// The event as it came; the tape accepts only what `RawValue` accepts, so the second form is never needed.
fn raw_event(event: &Event) -> Box<RawValue> {
    RawValue::from_string(event.raw().trim().to_owned())
        .or_else(|_| serde_json::value::to_raw_value(&event.to_json()))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn stamp(at_us: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at_us).unwrap_or_default()
}
