//! `distinct`: so many different values of a field within a window.
//!
//! An event matches when it and those before it within the window have at least `count` different values. Values are
//! compared as text without regard to case; an event without a value is not counted.

use std::collections::BTreeMap;

use super::finding::none_found;
use super::key::{GroupKey, key_value};
use super::log::{Log, Observation, short};
use super::threshold::{evidence, fire, shown, with_event};
use super::{Evidence, Firing, Noted, Row, Rows, Sighting, Standing};
use crate::event::{Event, FieldPath};
use crate::text::Untrusted;

/// How many values a sentence lists.
const MAX_LISTED: usize = 10;

/// Options of `distinct`.
#[derive(Debug, Clone)]
pub struct Distinct {
    /// Whose values.
    pub field: FieldPath,
    /// From so many values on.
    pub count: usize,
    /// Length of the window in microseconds.
    pub within_us: i64,
}

impl Distinct {
    pub(super) fn note(&self, group: &GroupKey, sighting: &Sighting<'_>, rows: &mut dyn Rows) -> Noted {
        let Some(observation) = self.observation(sighting) else { return Noted::Uncounted };
        let Row::Log(log) = rows.change(&group.text, Row::log) else { return Noted::Uncounted };
        let place = log.note(observation, sighting, self.within_us, true);
        let firings =
            fire(log, place, self.within_us, &group.text, |log, place| self.values(log, place).len() >= self.count);
        Noted::Fired(firings)
    }

    fn observation(&self, sighting: &Sighting<'_>) -> Option<Observation> {
        let value = value(&self.field, sighting.event)?;
        Some(Observation { value: Some(value), ..Observation::of(sighting) })
    }

    /// The values of a window, each once, as they were first written.
    fn values<'l>(&self, log: &'l Log, place: usize) -> BTreeMap<String, &'l str> {
        let window = log.observations.get(log.window_start(place, self.within_us)..=place).unwrap_or_default();
        let values = window.iter().rev().filter_map(|known| known.value.as_deref());
        values.map(|value| (value.to_lowercase(), value)).collect()
    }

    fn sentence(&self, log: &Log, place: usize) -> String {
        let values = self.values(log, place);
        let listed: Vec<&str> = values.values().copied().take(MAX_LISTED).collect();
        let more = if values.len() > listed.len() { ", ..." } else { "" };
        format!(
            "{} values of {} within {}: {}{more}",
            values.len(),
            self.field.as_str(),
            shown(self.within_us),
            listed.join(", ")
        )
    }

    pub(super) fn finding(&self, log: &Log, firing: &Firing) -> (Untrusted, Vec<Evidence>) {
        let Some(place) = log.place_of(&firing.event_id) else { return none_found() };
        let summary = format!("{} (from {} on)", self.sentence(log, place), self.count);
        (Untrusted::new(summary), evidence(log, log.window_start(place, self.within_us)..place + 1))
    }

    pub(super) fn standing(&self, row: Option<&Row>, sighting: &Sighting<'_>) -> Standing {
        let Some(observation) = self.observation(sighting) else {
            return Standing::none(format!("not counted: the event has no {}", self.field.as_str()));
        };
        let (log, place) = with_event(row, observation);
        let missing = self.count.saturating_sub(self.values(&log, place).len());
        let end = if missing == 0 { "enough".to_owned() } else { format!("{missing} more to come") };
        Standing::decided(
            missing == 0,
            format!("{} (of {}): {end}", self.sentence(&log, place), self.count),
            evidence(&log, log.window_start(place, self.within_us)..place + 1),
        )
    }
}

/// A field's value, if there is one.
pub(super) fn value(field: &FieldPath, event: &Event) -> Option<Box<str>> {
    let text = key_value(field, event)?;
    let text = text.trim();
    (!text.is_empty()).then(|| short(text))
}

#[cfg(test)]
mod tests {
    use super::super::Question;
    use super::super::tests::{Bench, field};
    use super::*;

    fn three_countries() -> Question {
        Question::Distinct(Distinct { field: field("source_country"), count: 3, within_us: 10_000_000 })
    }

    fn from(country: &str) -> String {
        format!(r#""source_country": "{country}""#)
    }

    #[test]
    fn values_count_once_without_regard_to_case() {
        let mut bench = Bench::new(three_countries());
        for (at_s, country) in [(0, "GB"), (1, "gb"), (2, "FR"), (3, " fr ")] {
            assert!(bench.see(country, at_s, &from(country)).is_empty(), "{country}");
        }
        assert_eq!(bench.see("c", 4, &from("JP")), ["c@4"]);
        let (summary, ids) = bench.finding("c", 4, "");
        assert_eq!(summary, "3 values of source_country within 10s: FR, GB, JP (from 3 on)");
        assert_eq!(ids.len(), 5);
    }

    #[test]
    fn a_missing_or_empty_value_is_not_counted() {
        let mut bench = Bench::new(three_countries());
        for fields in ["", r#""source_country": null"#, r#""source_country": "  ""#] {
            assert_eq!(bench.see("a", 0, fields), ["uncounted"], "{fields}");
        }
    }

    #[test]
    fn a_value_leaves_with_its_last_event_and_a_late_one_completes() {
        let mut bench = Bench::new(three_countries());
        assert!(bench.see("a", 0, &from("GB")).is_empty() && bench.see("b", 9, &from("FR")).is_empty());
        assert!(bench.see("c", 10, &from("JP")).is_empty(), "GB is exactly 10 s ago, so it is out");
        assert_eq!(bench.see("d", 5, &from("GB")), ["c@10"]);
        let (holds, summary) = bench.standing("e", 16, &from("JP"));
        assert!(!holds, "{summary}");
    }
}
