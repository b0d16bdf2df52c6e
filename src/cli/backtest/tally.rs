//! What rules did over history: counts by rule and day, and the alerts themselves up to a limit.
//!
//! Counts are exact whatever the limit of alerts is. Texts of events are cut, so that an event of any size costs little.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, NaiveDate, Utc};
use vigie_engine::alert::Alert;
use vigie_engine::engine::Effects;
use vigie_engine::rule::{Rule, Severity};
use vigie_engine::text::Untrusted;

/// Alerts that are kept with their keys; of more the count goes on. Far more than a person looks through, 100 MB at most.
pub(super) const MAX_KEPT_ALERTS: usize = 200_000;
/// Longest value of a key; a longer one is cut and told from others by its digest.
const MAX_VALUE_CHARS: usize = 120;
/// Longest title.
const MAX_TITLE_CHARS: usize = 160;

/// The counts of all rules.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// In load order.
    pub(super) rules: Vec<RuleTally>,
    /// In the order in which they were raised, at most [`MAX_KEPT_ALERTS`].
    pub(super) alerts: Vec<Raised>,
    /// Alerts beyond that.
    pub(super) not_kept: u64,
    /// Events evaluated, by day.
    pub(super) events: BTreeMap<NaiveDate, u64>,
    /// Events that rules only learned from.
    pub(super) learned_events: u64,
    places: HashMap<String, usize>,
    rule_places: HashMap<String, usize>,
}

/// One rule's counts.
#[derive(Debug)]
pub(super) struct RuleTally {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) severity: Severity,
    pub(super) enabled: bool,
    pub(super) counts: Counts,
    /// Matches that raised nothing, because the rule only learned.
    pub(super) learned: u64,
    /// Events that it could not count, because a field that it needs was missing.
    pub(super) uncounted: u64,
    /// Rows and noted events that it had to forget before their time.
    pub(super) evicted: u64,
    pub(super) days: BTreeMap<NaiveDate, Counts>,
}

/// Alerts and matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub(super) struct Counts {
    pub(super) alerts: u64,
    pub(super) matches: u64,
}

/// An alert, as far as reports need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raised {
    /// Place in [`Tally::rules`].
    pub(super) rule: usize,
    pub(super) source: String,
    pub(super) key: Vec<(String, Untrusted)>,
    pub(super) title: Untrusted,
    /// What it hangs on first.
    pub(super) event_id: Untrusted,
    pub(super) first_at: DateTime<Utc>,
    pub(super) last_at: DateTime<Utc>,
    pub(super) count: u64,
}

impl Tally {
    pub(super) fn of(rules: &[Rule]) -> Self {
        let tally = |rule: &Rule| RuleTally {
            id: rule.id.clone(),
            title: rule.title.clone(),
            severity: rule.severity,
            enabled: rule.enabled,
            counts: Counts::default(),
            learned: 0,
            uncounted: 0,
            evicted: 0,
            days: BTreeMap::new(),
        };
        let rule_places = rules.iter().enumerate().map(|(place, rule)| (rule.id.clone(), place)).collect();
        Self { rules: rules.iter().map(tally).collect(), rule_places, ..Self::default() }
    }

    /// An event that is evaluated, or before `aloud_from` only learned from.
    pub(super) fn saw(&mut self, at: DateTime<Utc>, aloud_from: Option<DateTime<Utc>>) {
        if aloud_from.is_some_and(|from| at < from) {
            self.learned_events += 1;
        } else {
            *self.events.entry(at.date_naive()).or_default() += 1;
        }
    }

    /// What a batch of one day did.
    pub(super) fn take(&mut self, day: NaiveDate, effects: &Effects) {
        for (id, matches) in &effects.matches {
            if let Some(rule) = self.rule(id) {
                rule.counts.matches += matches;
                rule.days.entry(day).or_default().matches += matches;
            }
        }
        for (id, matches) in &effects.learned {
            self.rule(id).into_iter().for_each(|rule| rule.learned += matches);
        }
        for (id, events) in &effects.uncounted {
            self.rule(id).into_iter().for_each(|rule| rule.uncounted += events);
        }
        for (id, rows) in &effects.evicted {
            self.rule(id).into_iter().for_each(|rule| rule.evicted += rows);
        }
        effects.alerts.iter().for_each(|alert| self.raise(alert));
        for fold in &effects.folds {
            if let Some(raised) = self.places.get(&fold.alert_id).and_then(|place| self.alerts.get_mut(*place)) {
                (raised.count, raised.first_at, raised.last_at) = (fold.count, fold.first_at, fold.last_at);
            }
        }
    }

    fn raise(&mut self, alert: &Alert) {
        let Some(place) = self.rule_places.get(&alert.rule.id).copied() else { return };
        if let Some(rule) = self.rules.get_mut(place) {
            rule.counts.alerts += 1;
            rule.days.entry(alert.first_at.date_naive()).or_default().alerts += 1;
        }
        if self.alerts.len() >= MAX_KEPT_ALERTS {
            self.not_kept += 1;
            return;
        }
        self.places.insert(alert.alert_id.clone(), self.alerts.len());
        self.alerts.push(Raised {
            rule: place,
            source: alert.source.clone(),
            key: alert.key.iter().map(|(field, value)| (field.clone(), bounded(value, MAX_VALUE_CHARS))).collect(),
            title: bounded(&alert.title, MAX_TITLE_CHARS),
            event_id: bounded(&Untrusted::new(alert.events.first().cloned().unwrap_or_default()), MAX_VALUE_CHARS),
            first_at: alert.first_at,
            last_at: alert.last_at,
            count: alert.count,
        });
    }

    fn rule(&mut self, id: &str) -> Option<&mut RuleTally> {
        self.rule_places.get(id).and_then(|place| self.rules.get_mut(*place))
    }

    /// All rules together.
    pub(super) fn total(&self) -> Counts {
        self.rules.iter().fold(Counts::default(), |sum, rule| sum + rule.counts)
    }

    /// The rule of an alert.
    pub(super) fn rule_of(&self, raised: &Raised) -> Option<&RuleTally> {
        self.rules.get(raised.rule)
    }
}

impl RuleTally {
    /// The day with the most alerts, the first of several.
    pub(super) fn loudest_day(&self) -> Option<(NaiveDate, u64)> {
        let days = self.days.iter().filter(|(_, counts)| counts.alerts > 0);
        days.map(|(day, counts)| (*day, counts.alerts)).rev().max_by_key(|(_, alerts)| *alerts)
    }
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { alerts: self.alerts + other.alerts, matches: self.matches + other.matches }
    }
}

/// Cut to `max_chars`; two values that differ stay different.
fn bounded(text: &Untrusted, max_chars: usize) -> Untrusted {
    let raw = text.as_raw();
    if raw.chars().nth(max_chars).is_none() {
        return text.clone();
    }
    let digest = blake3::hash(raw.as_bytes()).to_hex();
    let kept: String = raw.chars().take(max_chars.saturating_sub(10)).collect();
    Untrusted::new(format!("{kept}…#{}", digest.chars().take(8).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use vigie_engine::event::Event;

    use super::super::super::replay::Replay;
    use super::*;

    fn event(number: i64, at: &str, text: &str) -> Event {
        let raw = serde_json::json!({"event_type": "APP_CREATE", "user_id": text}).to_string();
        Event::new(&format!("e{number}"), at.parse().expect("a stamp"), raw.into()).expect("an event")
    }

    fn rules(yaml: &str) -> Vec<Rule> {
        let file = vigie_engine::diagnostic::SourceFile { path: "r.yaml".into(), text: yaml.into() };
        let mut diagnostics = vigie_engine::diagnostic::Diagnostics::default();
        let set = vigie_engine::rule::load(&[file], &mut |_, _| Err("no lists".into()), &mut diagnostics);
        assert!(!diagnostics.has_errors(), "{:?}", diagnostics.sorted());
        set.rules
    }

    fn run(yaml: &str, events: &[Event]) -> Tally {
        let rules = rules(yaml);
        let mut tally = Tally::of(&rules);
        let mut replay = Replay::new(rules, "file", None);
        for page in events.chunks(2) {
            replay.take(page, &mut |day, effects| tally.take(day, effects));
        }
        let last = events.last().expect("events").created_at();
        replay.end(last, &mut |day, effects| tally.take(day, effects));
        tally
    }

    const FOLDING: &str = "rules: [{id: r, title: R, severity: high, when: {event_type: APP_CREATE}, \
        alert: {dedup: [user_id], quiet: 1h}}]";

    #[test]
    fn matches_count_on_their_day_and_an_alert_on_the_day_of_its_first() {
        let stamps = ["01T23:50:00Z", "01T23:55:00Z", "02T00:20:00Z", "02T00:40:00Z", "02T09:00:00Z"];
        let events: Vec<Event> =
            (1..).zip(stamps).map(|(number, at)| event(number, &format!("2026-01-{at}"), "a")).collect();
        let tally = run(FOLDING, &events);
        let rule = &tally.rules[0];
        assert_eq!(rule.counts, Counts { alerts: 2, matches: 5 });
        let days: Vec<Counts> = rule.days.values().copied().collect();
        assert_eq!(days, [Counts { alerts: 1, matches: 2 }, Counts { alerts: 1, matches: 3 }]);
        assert_eq!((tally.alerts[0].count, tally.alerts[1].count), (4, 1), "further matches fold over batches");
        assert_eq!(tally.alerts[0].last_at, events[3].created_at());
        assert_eq!(rule.loudest_day().map(|(day, _)| day), events[0].created_at().date_naive().into());
    }

    #[test]
    fn what_time_decides_counts_on_the_day_when_it_was_due() {
        let rules = "rules: [{id: r, title: R, severity: high, absence: \
            {after: {event_type: APP_CREATE}, expect: {event_type: APP_DELETE}, within: 1d, by: [user_id]}}]";
        let tally = run(rules, &[event(1, "2026-01-01T10:00:00Z", "a"), event(2, "2026-01-09T10:00:00Z", "b")]);
        let days: Vec<String> = tally.rules[0].days.keys().map(ToString::to_string).collect();
        assert_eq!(days, ["2026-01-02"], "and no further than the last stamp");
        assert_eq!(tally.rules[0].counts, Counts { alerts: 1, matches: 1 });
    }

    #[test]
    fn long_values_are_cut_and_stay_different() {
        let long = |end: &str| Untrusted::new(format!("{}{end}", "x".repeat(300)));
        let (one, other) = (bounded(&long("a"), 120), bounded(&long("b"), 120));
        assert_ne!(one, other);
        assert!(one.as_raw().chars().count() <= 120);
        assert_eq!(bounded(&Untrusted::new("short"), 120).as_raw(), "short");
    }
}
