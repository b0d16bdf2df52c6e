//! Drift: what an account shows now against its own past. A new type of event, a field that vanished, silence.
//!
//! It reads events as they are committed and keeps one row a source, which is committed with them. It never reads a clock
//! and says nothing before it has seen enough: a young account is all news. What it finds becomes events of the built-in
//! source, so that rules decide who hears of it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use vigie_engine::event::Event;
use vigie_engine::state::{StateChange, StateKey};
use vigie_engine::text::single_line;

use super::notice::SelfNotice;

/// Rule id and kind of the rows; the engine passes them by.
const ROW: (&str, &str) = ("vigie", "drift");
/// An account is known from so many events on ...
const KNOWN_EVENTS: u64 = 50;
/// ... that lie so far apart, in seconds: a working week with its weekend.
const KNOWN_FOR_S: i64 = 7 * 86_400;
/// A field belongs to a type once it was in so many events of it, and in all of them.
const FIELD_EVENTS: u32 = 20;
/// It has vanished when so many in a row lack it.
const FIELD_MISSING: u32 = 5;
/// Silence is told from this length on, however busy an account is, in seconds.
const MIN_SILENCE_S: i64 = 6 * 3_600;
/// And when it is so many times the longest silence that was normal.
const SILENCE_RATIO: i64 = 2;
/// Types and fields that are kept: an intruder does not choose types, but a provider may add many.
const MAX_TYPES: usize = 300;
const MAX_FIELDS: usize = 64;
/// Longest name that is kept.
const MAX_NAME_CHARS: usize = 80;

/// All sources.
#[derive(Debug, Clone, Default)]
pub struct Drift {
    accounts: BTreeMap<String, Account>,
}

/// What one source has shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Account {
    events: u64,
    first_s: i64,
    last_s: i64,
    /// The longest time between two events that was not told of.
    longest_gap_s: i64,
    /// The present silence was told.
    quiet_told: bool,
    types: BTreeMap<String, Shape>,
}

/// What events of one type look like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Shape {
    events: u32,
    fields: BTreeMap<String, Field>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Field {
    seen: u32,
    missing: u32,
}

/// What a batch changes: to be committed with it, then taken over.
#[derive(Debug)]
pub(super) struct Change {
    source: String,
    account: Account,
    /// What the operator must know.
    pub(super) notices: Vec<SelfNotice>,
}

impl Drift {
    /// Takes up what the store kept.
    #[must_use]
    pub fn restore(rows: &[(StateKey, String)]) -> Self {
        let ours = rows.iter().filter(|(key, _)| (key.rule_id.as_str(), key.kind.as_str()) == ROW);
        let accounts = ours.filter_map(|(key, value)| match serde_json::from_str(value) {
            Ok(account) => Some((key.key.clone(), account)),
            Err(error) => {
                tracing::warn!(source = %key.key, ?error, "what the account showed so far cannot be read; it is learned anew");
                None
            }
        });
        Self { accounts: accounts.collect() }
    }

    /// What events and the time up to which the source is settled change.
    pub(super) fn observe(&self, source: &str, events: &[Event], settled_at: Option<DateTime<Utc>>) -> Option<Change> {
        let before = self.accounts.get(source);
        let is_silence = |account: &Account| settled_at.is_some_and(|at| account.is_silence(at.timestamp()));
        if events.is_empty() && !before.is_some_and(is_silence) {
            return None;
        }
        let mut account = before.cloned().unwrap_or_default();
        let mut told = Vec::new();
        for event in events {
            account.take(event, &mut told);
        }
        if let Some(settled_at) = settled_at {
            account.listen(settled_at.timestamp(), &mut told);
        }
        let notice = |(event_type, text)| SelfNotice { event_type, about: source.to_owned(), text };
        let notices = told.into_iter().map(notice).collect();
        (before != Some(&account)).then(|| Change { source: source.to_owned(), account, notices })
    }

    /// Makes a committed change its own.
    pub(super) fn apply(&mut self, change: Change) {
        self.accounts.insert(change.source, change.account);
    }

    /// The types that a source has shown, once it is known well enough to miss one.
    pub(super) fn known_types(&self) -> Option<Vec<&str>> {
        let known = self.accounts.values().filter(|account| account.is_known());
        let types: Vec<&str> = known.flat_map(|account| account.types.keys().map(String::as_str)).collect();
        (!types.is_empty()).then_some(types)
    }
}

impl Change {
    /// The row for the store.
    pub(super) fn row(&self) -> StateChange {
        let (rule_id, kind) = ROW;
        let key = StateKey { rule_id: rule_id.into(), kind: kind.into(), key: self.source.clone() };
        // Numbers and text: writing cannot fail.
        StateChange { key, value: serde_json::to_string(&self.account).ok(), expires_at_us: None }
    }
}

type Told = Vec<(&'static str, String)>;

impl Account {
    fn is_known(&self) -> bool {
        self.events >= KNOWN_EVENTS && self.last_s - self.first_s >= KNOWN_FOR_S
    }

    fn take(&mut self, event: &Event, told: &mut Told) {
        let at_s = event.created_at().timestamp();
        let is_known = self.is_known();
        if self.events == 0 {
            (self.first_s, self.last_s) = (at_s, at_s);
        }
        self.events += 1;
        if at_s > self.last_s {
            // A silence that was told is no measure of what is normal.
            if !std::mem::take(&mut self.quiet_told) {
                self.longest_gap_s = self.longest_gap_s.max(at_s - self.last_s);
            }
            self.last_s = at_s;
        }
        self.first_s = self.first_s.min(at_s);
        let Some(name) = event.text("event_type").map(|name| single_line(&name, MAX_NAME_CHARS)) else { return };
        if !self.types.contains_key(&name) {
            if self.types.len() >= MAX_TYPES {
                return;
            }
            if is_known {
                let text = format!("{name} was never seen here before; {} types were", self.types.len());
                told.push(("VIGIE_EVENT_TYPE_NEW", text));
            }
        }
        self.types.entry(name.clone()).or_default().take(&name, event, told);
    }

    /// Whether it is to be told that nothing has come up to `settled_s`.
    fn is_silence(&self, settled_s: i64) -> bool {
        let silence_s = settled_s - self.last_s;
        let is_long = silence_s >= MIN_SILENCE_S && silence_s >= self.longest_gap_s.saturating_mul(SILENCE_RATIO);
        self.is_known() && is_long && !self.quiet_told
    }

    /// Nothing has come up to `settled_s`.
    fn listen(&mut self, settled_s: i64, told: &mut Told) {
        if self.is_silence(settled_s) {
            self.quiet_told = true;
            let silence_s = settled_s - self.last_s;
            let hours = |seconds: i64| seconds / 3_600;
            let text = format!(
                "no event for {} h; in {} days the longest silence was {} h",
                hours(silence_s),
                (self.last_s - self.first_s) / 86_400,
                hours(self.longest_gap_s)
            );
            told.push(("VIGIE_ACCOUNT_QUIET", text));
        }
    }
}

impl Shape {
    fn take(&mut self, name: &str, event: &Event, told: &mut Told) {
        let present: Vec<String> = event
            .root()
            .members()
            .filter(|(_, value)| value.json() != "null")
            .map(|(field, _)| single_line(&field, MAX_NAME_CHARS))
            .collect();
        let is_settled = self.events >= FIELD_EVENTS;
        if !is_settled {
            self.events += 1;
            for field in &present {
                if self.fields.len() < MAX_FIELDS || self.fields.contains_key(field) {
                    self.fields.entry(field.clone()).or_default().seen += 1;
                }
            }
            if self.events == FIELD_EVENTS {
                self.fields.retain(|_, field| field.seen == FIELD_EVENTS);
            }
            return;
        }
        for (field, known) in &mut self.fields {
            let is_missing = !present.contains(field);
            known.missing = if is_missing { known.missing.saturating_add(1).min(FIELD_MISSING + 1) } else { 0 };
            if known.missing == FIELD_MISSING {
                let text = format!("{name} had `{field}` in every event, and not in the last {FIELD_MISSING}");
                told.push(("VIGIE_FIELD_VANISHED", text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const START_S: i64 = 1_767_614_400;

    fn event(at_s: i64, raw: &str) -> Event {
        Event::new("e", DateTime::from_timestamp(at_s, 0).expect("valid"), Arc::from(raw)).expect("an event")
    }

    fn at(at_s: i64) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(at_s, 0)
    }

    /// Commits each event alone and gives what was told.
    fn feed(drift: &mut Drift, events: &[Event], settled_at: Option<DateTime<Utc>>) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        let one: Vec<&[Event]> = if events.is_empty() { vec![&[]] } else { events.chunks(1).collect() };
        for events in one {
            if let Some(change) = drift.observe("main", events, settled_at) {
                told.extend(change.notices.iter().map(|notice| (notice.event_type, notice.text.clone())));
                // Through the store and back, as after a restart.
                let row = change.row();
                drift.apply(change);
                *drift = Drift::restore(&[(row.key, row.value.expect("a value"))]);
            }
        }
        told
    }

    /// Ten days, an event each four hours.
    fn known() -> Drift {
        let mut drift = Drift::default();
        let raw = r#"{"event_type":"APP_CREATE","user_email":"a@example.org","source_ip":"192.0.2.1"}"#;
        let events: Vec<Event> = (0..60).map(|number| event(START_S + number * 14_400, raw)).collect();
        assert!(feed(&mut drift, &events, None).is_empty(), "a young account is all news");
        drift
    }

    const LAST_S: i64 = START_S + 59 * 14_400;

    #[test]
    fn a_new_type_is_told_once_and_only_of_an_account_that_is_known() {
        let mut drift = known();
        let new = event(LAST_S + 60, r#"{"event_type":"NUMBER_ASSIGN"}"#);
        let told = feed(&mut drift, &[new.clone(), new], None);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].0, "VIGIE_EVENT_TYPE_NEW");
        assert_eq!(drift.known_types(), Some(vec!["APP_CREATE", "NUMBER_ASSIGN"]));
        assert_eq!(Drift::default().known_types(), None);
    }

    #[test]
    fn a_field_that_every_event_had_is_missed_once() {
        let mut drift = known();
        let without =
            |number: i64| event(LAST_S + number, r#"{"event_type":"APP_CREATE","user_email":null,"source_ip":""}"#);
        let events: Vec<Event> = (1..30).map(without).collect();
        let told = feed(&mut drift, &events[..4], None);
        assert!(told.is_empty(), "four may be chance: {told:?}");
        let told = feed(&mut drift, &events[4..], None);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].0 == "VIGIE_FIELD_VANISHED" && told[0].1.contains("`user_email`"), "{told:?}");
    }

    #[test]
    fn silence_is_measured_by_the_account_s_own_past() {
        let mut drift = known();
        assert!(feed(&mut drift, &[], at(LAST_S + 7 * 3_600)).is_empty(), "less than twice four hours");
        let told = feed(&mut drift, &[], at(LAST_S + 8 * 3_600));
        assert_eq!(told.first().map(|told| told.0), Some("VIGIE_ACCOUNT_QUIET"));
        assert!(feed(&mut drift, &[], at(LAST_S + 30 * 3_600)).is_empty(), "once for one silence");
        let back = event(LAST_S + 31 * 3_600, r#"{"event_type":"APP_CREATE"}"#);
        assert!(feed(&mut drift, &[back], None).is_empty());
        let again = feed(&mut drift, &[], at(LAST_S + 40 * 3_600));
        assert_eq!(again.len(), 1, "what was told is not what is normal");
    }

    #[test]
    fn what_was_not_committed_is_observed_again() {
        let drift = known();
        let new = [event(LAST_S + 60, r#"{"event_type":"NUMBER_ASSIGN"}"#)];
        for _ in 0..2 {
            assert_eq!(drift.observe("main", &new, None).expect("a change").notices.len(), 1);
        }
    }
}
