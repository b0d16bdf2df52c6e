//! What a backtest has to say, before it is said as text, JSON or a page.
//!
//! Lists are cut at named limits and say so; counts are whole. Serialised it is `vigie/backtest/v1`.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, NaiveDate, Utc};
use serde::ser::{Serialize, SerializeMap, Serializer};
use vigie_engine::rule::Severity;
use vigie_engine::text::Untrusted;

use super::compare::{Comparison, Difference};
use super::tally::{Counts, Raised, Tally};
use crate::cli::history::Skipped;

/// Version of the shape; a consumer matches on it.
const SCHEMA: &str = "vigie/backtest/v1";
/// Keys with the most alerts that are named.
const LOUDEST_KEYS: usize = 10;
/// Alerts in one list of the JSON document; `ndjson` gives all that were kept.
const MAX_LISTED: usize = 10_000;

/// Everything.
#[derive(Debug, serde::Serialize)]
pub(super) struct Report<'t> {
    schema: &'static str,
    pub(super) history: HistoryPart,
    pub(super) total: Counts,
    /// In load order.
    pub(super) rules: Vec<RulePart<'t>>,
    /// Days with events or alerts.
    pub(super) days: Vec<DayPart<'t>>,
    pub(super) loudest: Vec<KeyPart<'t>>,
    /// Ids of enabled rules without a match.
    pub(super) never_matched: Vec<&'t str>,
    /// Rules above `--max-per-day`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_per_day: Option<LimitPart<'t>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) against: Option<AgainstPart<'t>>,
    pub(super) alerts: Vec<AlertPart<'t>>,
    /// Alerts that the list leaves out.
    pub(super) alerts_left_off: u64,
}

/// What was run over.
#[derive(Debug, serde::Serialize)]
pub(super) struct HistoryPart {
    pub(super) sources: Vec<String>,
    /// Time of the first event and of the last.
    pub(super) first_at: DateTime<Utc>,
    pub(super) last_at: DateTime<Utc>,
    /// Evaluated.
    pub(super) events: u64,
    /// Only learned from.
    pub(super) learned: u64,
    pub(super) skipped: Skipped,
}

#[derive(Debug, serde::Serialize)]
pub(super) struct RulePart<'t> {
    pub(super) id: &'t str,
    pub(super) title: &'t str,
    pub(super) severity: Severity,
    pub(super) enabled: bool,
    #[serde(flatten)]
    pub(super) counts: Counts,
    pub(super) learned: u64,
    pub(super) uncounted: u64,
    pub(super) evicted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) loudest_day: Option<RuleDay<'t>>,
    pub(super) days: Vec<RuleDay<'t>>,
}

impl RulePart<'_> {
    /// Whether there is anything to say of it: what it could not count or had to forget is no calm.
    pub(super) fn is_told(&self) -> bool {
        self.counts.matches + self.counts.alerts + self.learned + self.uncounted + self.evicted > 0
    }
}

/// Counts of a rule on a day.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct RuleDay<'t> {
    pub(super) day: NaiveDate,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<&'t str>,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

#[derive(Debug, serde::Serialize)]
pub(super) struct DayPart<'t> {
    pub(super) day: NaiveDate,
    pub(super) events: u64,
    #[serde(flatten)]
    pub(super) counts: Counts,
    /// By severity, lowest first, without zeros.
    #[serde(skip)]
    pub(super) by_severity: BTreeMap<Severity, u64>,
    /// Rules with alerts, the loudest first.
    #[serde(skip)]
    pub(super) rules: Vec<(&'t str, u64)>,
}

#[derive(Debug, serde::Serialize)]
pub(super) struct KeyPart<'t> {
    pub(super) rule: &'t str,
    pub(super) source: &'t str,
    pub(super) key: KeyMap<'t>,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

#[derive(Debug, serde::Serialize)]
pub(super) struct LimitPart<'t> {
    pub(super) limit: u64,
    pub(super) exceeded: Vec<RuleDay<'t>>,
}

#[derive(Debug, serde::Serialize)]
pub(super) struct AgainstPart<'t> {
    pub(super) gained: u64,
    pub(super) lost: u64,
    pub(super) rules: BTreeMap<&'t str, Difference>,
    pub(super) gained_alerts: Vec<AlertPart<'t>>,
    pub(super) lost_alerts: Vec<AlertPart<'t>>,
    /// Alerts beyond what is kept, on either side.
    pub(super) not_compared: u64,
    /// Alerts that the two lists leave out.
    pub(super) left_off: u64,
}

#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct AlertPart<'t> {
    pub(super) rule: &'t str,
    pub(super) severity: Severity,
    pub(super) source: &'t str,
    pub(super) key: KeyMap<'t>,
    pub(super) title: &'t Untrusted,
    pub(super) first_at: DateTime<Utc>,
    pub(super) last_at: DateTime<Utc>,
    pub(super) count: u64,
    pub(super) event_id: &'t Untrusted,
}

/// A part of the report on a line of its own.
#[derive(Debug, serde::Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Line<'r, 't> {
    Alert(AlertPart<'t>),
    Rule(&'r RulePart<'t>),
    Day(&'r DayPart<'t>),
    Key(&'r KeyPart<'t>),
    NeverMatched {
        rule: &'t str,
    },
    TooLoud(&'r RuleDay<'t>),
    Gained(&'r AlertPart<'t>),
    Lost(&'r AlertPart<'t>),
    Total {
        schema: &'static str,
        history: &'r HistoryPart,
        #[serde(flatten)]
        counts: Counts,
    },
}

/// A key as an object, as alerts have it everywhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyMap<'t>(pub(super) &'t [(String, Untrusted)]);

impl Serialize for KeyMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (field, value) in self.0 {
            map.serialize_entry(field, value)?;
        }
        map.end()
    }
}

impl<'t> Report<'t> {
    /// Puts it together; `against` is the comparison and the tally of the old rules.
    pub(super) fn new(
        history: HistoryPart,
        tally: &'t Tally,
        against: Option<(Comparison<'t>, &'t Tally)>,
        max_per_day: Option<u64>,
    ) -> Self {
        let rules: Vec<RulePart<'t>> = tally.rules.iter().map(rule_part).collect();
        let never_matched = rules.iter().filter(|rule| rule.enabled && rule.counts.matches + rule.learned == 0);
        let never_matched = never_matched.map(|rule| rule.id).collect();
        Self {
            schema: SCHEMA,
            history,
            total: tally.total(),
            days: days(tally),
            loudest: loudest(tally),
            never_matched,
            max_per_day: max_per_day.map(|limit| LimitPart { limit, exceeded: exceeded(tally, limit) }),
            against: against.map(|(comparison, old)| against_part(comparison, old, tally)),
            alerts: tally.alerts.iter().take(MAX_LISTED).filter_map(|raised| alert_part(tally, raised)).collect(),
            alerts_left_off: tally.total().alerts.saturating_sub(MAX_LISTED as u64),
            rules,
        }
    }

    /// The same as one document a line: each says its `kind`; all alerts that were kept.
    pub(super) fn lines<'r>(&'r self, tally: &'t Tally) -> impl Iterator<Item = Line<'r, 't>> {
        let alerts = tally.alerts.iter().filter_map(move |raised| alert_part(tally, raised)).map(Line::Alert);
        let against = self.against.iter();
        let gained = against.clone().flat_map(|part| &part.gained_alerts).map(Line::Gained);
        let lost = against.flat_map(|part| &part.lost_alerts).map(Line::Lost);
        let total = Line::Total { schema: SCHEMA, history: &self.history, counts: self.total };
        let never = self.never_matched.iter().map(|rule| Line::NeverMatched { rule });
        let exceeded = self.max_per_day.iter().flat_map(|limit| &limit.exceeded).map(Line::TooLoud);
        alerts
            .chain(self.rules.iter().map(Line::Rule))
            .chain(self.days.iter().map(Line::Day))
            .chain(self.loudest.iter().map(Line::Key))
            .chain(never)
            .chain(exceeded)
            .chain(gained)
            .chain(lost)
            .chain(std::iter::once(total))
    }

    /// Whether a rule is louder than it may be.
    pub(super) fn is_too_loud(&self) -> bool {
        self.max_per_day.as_ref().is_some_and(|limit| !limit.exceeded.is_empty())
    }
}

fn rule_part(rule: &super::tally::RuleTally) -> RulePart<'_> {
    let day = |(day, counts): (&NaiveDate, &Counts)| RuleDay { day: *day, rule: None, counts: *counts };
    let days: Vec<RuleDay<'_>> = rule.days.iter().map(day).collect();
    let loudest = rule.loudest_day().map(|(day, _)| day);
    RulePart {
        id: &rule.id,
        title: &rule.title,
        severity: rule.severity,
        enabled: rule.enabled,
        counts: rule.counts,
        learned: rule.learned,
        uncounted: rule.uncounted,
        evicted: rule.evicted,
        loudest_day: days.iter().find(|part| Some(part.day) == loudest).cloned(),
        days,
    }
}

pub(super) fn alert_part<'t>(tally: &'t Tally, raised: &'t Raised) -> Option<AlertPart<'t>> {
    let rule = tally.rule_of(raised)?;
    Some(AlertPart {
        rule: &rule.id,
        severity: rule.severity,
        source: &raised.source,
        key: KeyMap(&raised.key),
        title: &raised.title,
        first_at: raised.first_at,
        last_at: raised.last_at,
        count: raised.count,
        event_id: &raised.event_id,
    })
}

fn days(tally: &Tally) -> Vec<DayPart<'_>> {
    let mut days: BTreeMap<NaiveDate, DayPart<'_>> = BTreeMap::new();
    let new =
        |day| DayPart { day, events: 0, counts: Counts::default(), by_severity: BTreeMap::new(), rules: Vec::new() };
    for (day, events) in &tally.events {
        days.entry(*day).or_insert_with(|| new(*day)).events = *events;
    }
    for rule in &tally.rules {
        for (day, counts) in &rule.days {
            let part = days.entry(*day).or_insert_with(|| new(*day));
            part.counts = part.counts + *counts;
            if counts.alerts > 0 {
                *part.by_severity.entry(rule.severity).or_default() += counts.alerts;
                part.rules.push((&rule.id, counts.alerts));
            }
        }
    }
    let mut days: Vec<DayPart<'_>> = days.into_values().collect();
    days.iter_mut().for_each(|day| day.rules.sort_by_key(|(id, alerts)| (std::cmp::Reverse(*alerts), *id)));
    days
}

/// A rule's place, a source and the values of a key.
type Loud<'t> = (usize, &'t str, &'t [(String, Untrusted)]);

/// By alerts, then by matches, then by name.
fn loudest(tally: &Tally) -> Vec<KeyPart<'_>> {
    let mut keys: HashMap<Loud<'_>, Counts> = HashMap::new();
    for raised in &tally.alerts {
        let counts = keys.entry((raised.rule, &raised.source, &raised.key)).or_default();
        *counts = *counts + Counts { alerts: 1, matches: raised.count };
    }
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_by(|(one, one_counts), (other, other_counts)| {
        let loudness = |counts: &Counts| (counts.alerts, counts.matches);
        loudness(other_counts).cmp(&loudness(one_counts)).then_with(|| one.cmp(other))
    });
    let part = |((rule, source, key), counts)| {
        let rule = &tally.rules.get::<usize>(rule)?.id;
        Some(KeyPart { rule, source, key: KeyMap(key), counts })
    };
    keys.into_iter().take(LOUDEST_KEYS).filter_map(part).collect()
}

fn exceeded(tally: &Tally, limit: u64) -> Vec<RuleDay<'_>> {
    let days = tally.rules.iter().flat_map(|rule| rule.days.iter().map(move |(day, counts)| (rule, *day, *counts)));
    let louder = days.filter(|(_, _, counts)| counts.alerts > limit);
    louder.map(|(rule, day, counts)| RuleDay { day, rule: Some(&rule.id), counts }).collect()
}

fn against_part<'t>(comparison: Comparison<'t>, old: &'t Tally, new: &'t Tally) -> AgainstPart<'t> {
    let listed = |tally: &'t Tally, alerts: &[&'t Raised]| -> Vec<AlertPart<'t>> {
        alerts.iter().take(MAX_LISTED).filter_map(|raised| alert_part(tally, raised)).collect()
    };
    let (gained_alerts, lost_alerts) = (listed(new, &comparison.gained), listed(old, &comparison.lost));
    let (gained, lost) = (comparison.gained.len() as u64, comparison.lost.len() as u64);
    AgainstPart {
        gained,
        lost,
        rules: comparison.rules,
        left_off: gained + lost - (gained_alerts.len() + lost_alerts.len()) as u64,
        gained_alerts,
        lost_alerts,
        not_compared: comparison.not_compared,
    }
}
