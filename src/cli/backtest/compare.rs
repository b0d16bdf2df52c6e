//! Two sets of rules over the same history: which alerts are new, which are gone.
//!
//! An alert's id says which event it began with and so on; here two alerts are the same when rule, source, key and first
//! time are. Where a rule has no key, the event that the alert hangs on takes its place.

use std::collections::{BTreeMap, HashMap};

use super::tally::{Raised, Tally};

/// What a change of rules does.
#[derive(Debug, Default)]
pub(super) struct Comparison<'t> {
    /// Raised by the new rules only, in order of time.
    pub(super) gained: Vec<&'t Raised>,
    /// Raised by the old rules only, in order of time.
    pub(super) lost: Vec<&'t Raised>,
    /// By rule id, those with a difference only.
    pub(super) rules: BTreeMap<&'t str, Difference>,
    /// Alerts that were not kept on either side and so were not compared.
    pub(super) not_compared: u64,
}

/// One rule's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub(super) struct Difference {
    pub(super) before: u64,
    pub(super) now: u64,
    pub(super) gained: u64,
    pub(super) lost: u64,
}

type Identity<'t> = (&'t str, &'t str, Vec<(&'t str, &'t str)>, i64);

/// Compares; each alert has at most one counterpart.
pub(super) fn compare<'t>(old: &'t Tally, new: &'t Tally) -> Comparison<'t> {
    let mut waiting: HashMap<Identity<'t>, Vec<&'t Raised>> = HashMap::new();
    for raised in old.alerts.iter().rev() {
        waiting.entry(identity(old, raised)).or_default().push(raised);
    }
    let mut comparison = Comparison { not_compared: old.not_kept + new.not_kept, ..Comparison::default() };
    for raised in &new.alerts {
        let counterpart = waiting.get_mut(&identity(new, raised)).and_then(Vec::pop);
        if counterpart.is_none() {
            comparison.gained.push(raised);
        }
    }
    comparison.lost = waiting.into_values().flatten().collect();
    for list in [&mut comparison.gained, &mut comparison.lost] {
        list.sort_by(|one, other| (one.first_at, &one.event_id).cmp(&(other.first_at, &other.event_id)));
    }
    for (tally, alerts, lost) in [(new, &comparison.gained, false), (old, &comparison.lost, true)] {
        for raised in alerts {
            let Some(rule) = tally.rule_of(raised) else { continue };
            let difference = comparison.rules.entry(&rule.id).or_default();
            *(if lost { &mut difference.lost } else { &mut difference.gained }) += 1;
        }
    }
    let alerts =
        |tally: &Tally, id: &str| tally.rules.iter().find(|rule| rule.id == id).map_or(0, |rule| rule.counts.alerts);
    for (id, difference) in &mut comparison.rules {
        (difference.before, difference.now) = (alerts(old, id), alerts(new, id));
    }
    comparison
}

fn identity<'t>(tally: &'t Tally, raised: &'t Raised) -> Identity<'t> {
    let mut key: Vec<(&str, &str)> = raised.key.iter().map(|(field, value)| (field.as_str(), value.as_raw())).collect();
    if key.is_empty() {
        key.push(("", raised.event_id.as_raw()));
    }
    let rule = tally.rule_of(raised).map_or("", |rule| rule.id.as_str());
    (rule, &raised.source, key, raised.first_at.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use vigie_engine::rule::Severity;
    use vigie_engine::text::Untrusted;

    use super::super::tally::{Counts, RuleTally};
    use super::*;

    fn rule(id: &str, alerts: u64) -> RuleTally {
        RuleTally {
            id: id.into(),
            title: id.into(),
            severity: Severity::High,
            enabled: true,
            counts: Counts { alerts, matches: alerts },
            learned: 0,
            uncounted: 0,
            evicted: 0,
            days: BTreeMap::new(),
        }
    }

    fn raised(rule: usize, key: Option<&str>, second: i64, event_id: &str) -> Raised {
        let at = DateTime::from_timestamp(second, 0).expect("a time");
        Raised {
            rule,
            source: "file".into(),
            key: key.map(|value| ("actor".into(), Untrusted::new(value))).into_iter().collect(),
            title: Untrusted::new("t"),
            event_id: Untrusted::new(event_id),
            first_at: at,
            last_at: at,
            count: 1,
        }
    }

    fn tally(rules: Vec<RuleTally>, alerts: Vec<Raised>) -> Tally {
        let mut tally = Tally::default();
        (tally.rules, tally.alerts) = (rules, alerts);
        tally
    }

    #[test]
    fn the_same_alert_has_the_same_rule_key_and_first_time_whatever_its_event() {
        let old = tally(
            vec![rule("a", 3), rule("b", 1)],
            vec![
                raised(0, Some("x"), 10, "e1"),
                raised(0, Some("x"), 20, "e2"),
                raised(1, None, 10, "e3"),
                raised(0, Some("y"), 5, "e4"),
            ],
        );
        let new = tally(
            vec![rule("b", 2), rule("a", 1)],
            vec![raised(1, Some("x"), 10, "other"), raised(0, None, 10, "e3"), raised(0, None, 10, "e5")],
        );
        let comparison = compare(&old, &new);
        let ids = |list: &[&Raised]| -> Vec<String> {
            list.iter().map(|raised| raised.event_id.as_raw().to_owned()).collect()
        };
        assert_eq!(
            (ids(&comparison.gained), ids(&comparison.lost)),
            (vec!["e5".into()], vec!["e4".into(), "e2".into()])
        );
        assert_eq!(comparison.rules["a"], Difference { before: 3, now: 1, gained: 0, lost: 2 });
        assert_eq!(comparison.rules["b"], Difference { before: 1, now: 2, gained: 1, lost: 0 });
    }

    #[test]
    fn nothing_changed_is_nothing_to_tell() {
        let alerts = || vec![raised(0, Some("x"), 10, "e1"), raised(0, Some("x"), 10, "e2")];
        let (old, new) = (tally(vec![rule("a", 2)], alerts()), tally(vec![rule("a", 2)], alerts()));
        let comparison = compare(&old, &new);
        assert!(comparison.gained.is_empty() && comparison.lost.is_empty() && comparison.rules.is_empty());
    }
}
