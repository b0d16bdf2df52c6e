//! Drift: what an account shows now against its own past. A new type of event, a field that vanished, silence.
//!
//! It reads events as they are committed and keeps one row a source, which is committed with them. It never reads a clock
//! and says nothing before it has seen enough: a young account is all news. What it finds becomes events of the built-in
//! source, so that rules decide who hears of it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use vigie_engine::event::Event;
use vigie_engine::state::{StateChange, StateRows};
use vigie_engine::text::single_line;

use super::notice::SelfNotice;
use super::own_rows::OwnRows;

const ROWS: OwnRows =
    OwnRows { kind: "drift", unreadable: "what the account showed so far cannot be read; it is learned anew" };
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
/// Events so close to each other, in seconds, are one stretch of activity: no silence that counts lies between them.
const JOINED_S: i64 = 3_600;
/// A stretch that goes on is looked at each day.
const LONGEST_STRETCH_S: i64 = 86_400;
/// Clocks may differ by so much, in seconds.
const AHEAD_S: i64 = 300;
/// Stretches that wait until their time is settled: a year of nights. Of more the two oldest become one.
const MAX_STRETCHES: usize = 400;
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
    /// The first event, in settled time.
    first_s: Option<i64>,
    /// The longest time between two events that was not told of, in settled time: what comes out of order, or is dated in
    /// the future, shows no silence.
    longest_gap_s: i64,
    /// Up to where that was looked at: the last event then.
    heard_s: Option<i64>,
    /// Stretches of activity behind it, in order of time, from the first to the last event.
    stretches: Vec<(i64, i64)>,
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
    pub fn take_up(&mut self, rows: &StateRows) {
        self.accounts.extend(ROWS.read(rows));
    }

    /// What events and the time up to which the source is settled change.
    pub(super) fn observe(
        &self,
        source: &str,
        events: &[Event],
        settled_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Option<Change> {
        let before = self.accounts.get(source);
        let has_news =
            |account: &Account| settled_at.is_some_and(|at| account.has_news(at.timestamp(), now.timestamp()));
        if events.is_empty() && !before.is_some_and(has_news) {
            return None;
        }
        let mut account = before.cloned().unwrap_or_default();
        let mut told = Vec::new();
        for event in events {
            account.take(event, &mut told);
        }
        if let Some(settled_at) = settled_at {
            account.listen(settled_at.timestamp(), now.timestamp(), &mut told);
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
        ROWS.write(&self.source, &self.account)
    }
}

type Told = Vec<(&'static str, String)>;

impl Account {
    fn is_known(&self) -> bool {
        let span_s = self.first_s.zip(self.heard_s).map_or(0, |(first_s, heard_s)| heard_s - first_s);
        self.events >= KNOWN_EVENTS && span_s >= KNOWN_FOR_S
    }

    fn take(&mut self, event: &Event, told: &mut Told) {
        let at_s = event.created_at().timestamp();
        let is_known = self.is_known();
        self.events += 1;
        self.hear(at_s);
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

    /// Adds an event to the stretches of activity.
    fn hear(&mut self, at_s: i64) {
        let place = self.stretches.partition_point(|(from_s, _)| *from_s <= at_s);
        self.stretches.insert(place, (at_s, at_s));
        let mut joined: Vec<(i64, i64)> = Vec::with_capacity(self.stretches.len());
        for (from_s, to_s) in self.stretches.drain(..) {
            match joined.last_mut() {
                Some((_, end_s)) if from_s - *end_s <= JOINED_S => *end_s = to_s.max(*end_s),
                _ => joined.push((from_s, to_s)),
            }
        }
        if joined.len() > MAX_STRETCHES {
            let (_, to_s) = joined.remove(1);
            joined.iter_mut().take(1).for_each(|oldest| oldest.1 = to_s);
        }
        self.stretches = joined;
    }

    /// Takes up the stretches that are settled.
    fn settle(&mut self, settled_s: i64) {
        while let Some((from_s, to_s)) = self.stretches.first_mut() {
            let is_over = *to_s <= settled_s;
            if !is_over && settled_s - *from_s <= LONGEST_STRETCH_S {
                break;
            }
            let end_s = (*to_s).min(settled_s);
            // A silence that was told is no measure of what is normal.
            if let Some(heard_s) = self.heard_s
                && *from_s > heard_s
                && !std::mem::take(&mut self.quiet_told)
            {
                self.longest_gap_s = self.longest_gap_s.max(*from_s - heard_s);
            }
            self.first_s.get_or_insert(*from_s);
            self.heard_s = self.heard_s.max(Some(end_s));
            if is_over {
                self.stretches.remove(0);
            } else {
                *from_s = end_s;
                break;
            }
        }
    }

    /// Whether the time up to `settled_s` tells anything.
    fn has_news(&self, settled_s: i64, now_s: i64) -> bool {
        let is_ripe = |(from_s, to_s): &(i64, i64)| *to_s <= settled_s || settled_s - from_s > LONGEST_STRETCH_S;
        self.is_silence(settled_s, now_s) || self.stretches.first().is_some_and(is_ripe)
    }

    /// The last event up to `settled_s`.
    fn heard_until_s(&self, settled_s: i64) -> Option<i64> {
        let heard = self.stretches.iter().take_while(|(from_s, _)| *from_s <= settled_s);
        heard.map(|(_, to_s)| (*to_s).min(settled_s)).max().max(self.heard_s)
    }

    /// Whether it is to be told that nothing has come up to `settled_s`. What is known to have ended before `now_s` is not:
    /// the past is being read.
    fn is_silence(&self, settled_s: i64, now_s: i64) -> bool {
        let is_over = self.stretches.iter().any(|(from_s, _)| (settled_s + 1..=now_s + AHEAD_S).contains(from_s));
        if is_over {
            return false;
        }
        let Some(heard_s) = self.heard_until_s(settled_s) else { return false };
        let silence_s = settled_s - heard_s;
        let is_long = silence_s >= MIN_SILENCE_S && silence_s >= self.longest_gap_s.saturating_mul(SILENCE_RATIO);
        self.is_known() && is_long && !self.quiet_told
    }

    /// Nothing has come up to `settled_s`.
    fn listen(&mut self, settled_s: i64, now_s: i64, told: &mut Told) {
        self.settle(settled_s);
        if self.is_silence(settled_s, now_s) {
            self.quiet_told = true;
            let silence_s = settled_s - self.heard_s.unwrap_or(settled_s);
            let hours = |seconds: i64| seconds / 3_600;
            let text = format!(
                "no event for {} h; in {} days the longest silence was {} h",
                hours(silence_s),
                self.first_s.map_or(0, |first_s| (settled_s - silence_s - first_s) / 86_400),
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

    /// Long after all of it.
    fn now() -> DateTime<Utc> {
        at(LAST_S + 100 * 86_400).expect("valid")
    }

    /// Commits each event alone and gives what was told.
    fn feed(drift: &mut Drift, events: &[Event], settled_at: Option<DateTime<Utc>>) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        let one: Vec<&[Event]> = if events.is_empty() { vec![&[]] } else { events.chunks(1).collect() };
        for events in one {
            if let Some(change) = drift.observe("main", events, settled_at, now()) {
                told.extend(change.notices.iter().map(|notice| (notice.event_type, notice.text.clone())));
                // Through the store and back, as after a restart.
                let row = change.row();
                drift.apply(change);
                *drift = Drift::default();
                let rows = StateRows::of([(row.key, row.value.expect("a value"))]);
                rows.iter().for_each(|rows| drift.take_up(rows));
            }
        }
        told
    }

    /// Ten days, an event each four hours.
    fn known() -> Drift {
        let mut drift = Drift::default();
        let raw = r#"{"event_type":"APP_CREATE","user_email":"a@example.org","source_ip":"192.0.2.1"}"#;
        let events: Vec<Event> = (0..60).map(|number| event(START_S + number * 14_400, raw)).collect();
        for event in events {
            let settled_at = Some(event.created_at());
            assert!(feed(&mut drift, &[event], settled_at).is_empty(), "a young account is all news");
        }
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

    /// A start in the past reads pages in any order, and a row may be dated far ahead: neither is a silence.
    #[test]
    fn silence_is_not_learned_from_the_order_of_arrival_nor_from_a_stamp_in_the_future() {
        let raw = r#"{"event_type":"APP_CREATE"}"#;
        let stamps = |numbers: &mut dyn Iterator<Item = i64>| -> Vec<Event> {
            numbers.map(|number| event(START_S + number * 14_400, raw)).collect()
        };
        let shuffled = stamps(&mut (0..60).map(|number| number * 37 % 60));
        let backwards = stamps(&mut (0..60).rev());
        for mut events in [shuffled, backwards] {
            events.insert(30, event(4_070_908_800, raw));
            let mut drift = Drift::default();
            assert!(feed(&mut drift, &events, at(START_S)).is_empty());
            assert!(feed(&mut drift, &[], at(LAST_S + 7 * 3_600)).is_empty(), "less than twice four hours");
            let told = feed(&mut drift, &[], at(LAST_S + 8 * 3_600));
            assert!(
                told.iter().any(|(kind, text)| *kind == "VIGIE_ACCOUNT_QUIET" && text.contains("was 4 h")),
                "{told:?}"
            );
        }
    }

    /// A start in the past settles piece by piece: a weekend that is over, as later events show, is no silence to be told, and
    /// it is what is normal.
    #[test]
    fn silence_that_is_known_to_be_over_is_learned_and_not_told() {
        let raw = r#"{"event_type":"APP_CREATE"}"#;
        let hours = |hour: i64| event(START_S + hour * 3_600, raw);
        let mut drift = Drift::default();
        // Newest first: what comes after the weekend is there before its time is settled.
        let mut all: Vec<Event> = (0..9 * 24).step_by(3).chain(9 * 24 + 60..20 * 24).map(hours).collect();
        all.reverse();
        assert!(feed(&mut drift, &all, at(START_S - 1)).is_empty());
        for hour in 0..20 * 24 {
            assert!(feed(&mut drift, &[], at(START_S + hour * 3_600)).is_empty(), "hour {hour}");
        }
        let last_s = START_S + (20 * 24 - 1) * 3_600;
        assert!(feed(&mut drift, &[], at(last_s + 100 * 3_600)).is_empty(), "less than twice the weekend");
        assert_eq!(feed(&mut drift, &[], at(last_s + 130 * 3_600)).len(), 1);
    }

    /// A busy account is one stretch without an end; it is heard all the same.
    #[test]
    fn an_account_that_is_never_silent_is_missed_when_it_is() {
        let mut drift = Drift::default();
        let raw = r#"{"event_type":"APP_CREATE"}"#;
        let last_s = START_S + 10 * 86_400;
        for at_s in (START_S..=last_s).step_by(1_800) {
            assert!(feed(&mut drift, &[event(at_s, raw)], at(at_s - 600)).is_empty());
            assert!(feed(&mut drift, &[], at(at_s - 300)).is_empty());
        }
        assert!(feed(&mut drift, &[], at(last_s + 5 * 3_600)).is_empty());
        let told = feed(&mut drift, &[], at(last_s + 6 * 3_600));
        assert!(told[0].1.starts_with("no event for 6 h"), "{told:?}");
    }

    #[test]
    fn what_was_not_committed_is_observed_again() {
        let drift = known();
        let new = [event(LAST_S + 60, r#"{"event_type":"NUMBER_ASSIGN"}"#)];
        for _ in 0..2 {
            assert_eq!(drift.observe("main", &new, None, now()).expect("a change").notices.len(), 1);
        }
    }
}
