//! `threshold`: so many events within a window.
//!
//! An event matches when it and those before it within the window are at least `count`. The window is open at its old
//! end: an event exactly `within` old is out.

use super::finding::none_found;
use super::key::GroupKey;
use super::log::{Log, Observation};
use super::{Evidence, Firing, Noted, Row, Rows, Sighting, Standing};
use crate::text::Untrusted;
use crate::time::format_duration;

/// Options of `threshold`.
#[derive(Debug, Clone)]
pub struct Threshold {
    /// From so many events on.
    pub count: usize,
    /// Length of the window in microseconds.
    pub within_us: i64,
}

impl Threshold {
    pub(super) fn note(&self, group: &GroupKey, sighting: &Sighting<'_>, rows: &mut dyn Rows) -> Noted {
        let Row::Log(log) = rows.change(&group.text, Row::log) else { return Noted::Uncounted };
        let place = log.note(Observation::of(sighting), sighting, self.within_us, true);
        let firings = fire(log, place, self.within_us, &group.text, |log, place| self.holds(log, place));
        Noted::Fired(firings)
    }

    fn holds(&self, log: &Log, place: usize) -> bool {
        self.counted(log, place) >= self.count
    }

    fn counted(&self, log: &Log, place: usize) -> usize {
        place + 1 - log.window_start(place, self.within_us)
    }

    pub(super) fn finding(&self, log: &Log, firing: &Firing) -> (Untrusted, Vec<Evidence>) {
        let Some(place) = log.place_of(&firing.event_id) else { return none_found() };
        let summary =
            format!("{} events within {} (from {} on)", self.counted(log, place), shown(self.within_us), self.count);
        (Untrusted::new(summary), evidence(log, log.window_start(place, self.within_us)..place + 1))
    }

    pub(super) fn standing(&self, row: Option<&Row>, sighting: &Sighting<'_>) -> Standing {
        let (log, place) = with_event(row, Observation::of(sighting));
        let counted = self.counted(&log, place);
        let missing = self.count.saturating_sub(counted);
        let end = if missing == 0 { "enough".to_owned() } else { format!("{missing} more to come") };
        Standing::decided(
            missing == 0,
            format!("{counted} of {} events within {}: {end}", self.count, shown(self.within_us)),
            evidence(&log, log.window_start(place, self.within_us)..place + 1),
        )
    }
}

/// Marks and gives the matches that an event at `place` brought about: its own, and those of later events.
pub(super) fn fire(
    log: &mut Log,
    place: usize,
    within_us: i64,
    row_key: &str,
    holds: impl Fn(&Log, usize) -> bool,
) -> Vec<Firing> {
    let touched = log.touched(place, within_us);
    let new: Vec<usize> =
        touched.filter(|at| log.observations.get(*at).is_some_and(|known| !known.fired) && holds(log, *at)).collect();
    let mut firings = Vec::with_capacity(new.len());
    for at in new {
        if let Some(known) = log.observations.get_mut(at) {
            known.fired = true;
            let kept = known.kept.take();
            firings.push(Firing { kept, ..Firing::new(row_key, known.at_us, known.id.to_string()) });
        }
    }
    firings
}

/// The events of some places.
pub(super) fn evidence(log: &Log, places: std::ops::Range<usize>) -> Vec<Evidence> {
    let noted = log.observations.get(places).unwrap_or_default();
    Evidence::some(noted.iter().map(|known| Evidence::of(known, known.value.as_deref())).collect())
}

/// A copy of the row with an event that was perhaps not noted yet, and its place.
pub(super) fn with_event(row: Option<&Row>, observation: Observation) -> (Log, usize) {
    let mut log = match row {
        Some(Row::Log(log)) => log.clone(),
        _ => Log::default(),
    };
    let place = log.place_of(&observation.id).unwrap_or_else(|| log.insert(observation));
    (log, place)
}

/// A window's length for people.
pub(super) fn shown(within_us: i64) -> String {
    format_duration(std::time::Duration::from_micros(u64::try_from(within_us).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::super::Question;
    use super::super::tests::Bench;
    use super::*;

    fn three_within_10_s() -> Question {
        Question::Threshold(Threshold { count: 3, within_us: 10_000_000 })
    }

    #[test]
    fn the_window_is_open_at_its_old_end() {
        let mut bench = Bench::new(three_within_10_s());
        assert!(bench.see("a", 0, "").is_empty() && bench.see("b", 5, "").is_empty());
        assert!(bench.see("c", 10, "").is_empty(), "a is exactly 10 s old, so it is out");
        assert_eq!(bench.see("d", 14, ""), ["d@14"]);
        assert_eq!(bench.see("e", 14, ""), ["e@14"], "each further one is a match");
        let (summary, ids) = bench.finding("d", 14, "");
        assert_eq!(summary, "3 events within 10s (from 3 on)");
        assert_eq!(ids, ["b", "c", "d"]);
    }

    #[test]
    fn a_late_event_makes_those_after_it_a_match() {
        let mut bench = Bench::new(three_within_10_s());
        assert!(bench.see("b", 4, "").is_empty() && bench.see("c", 8, "").is_empty());
        assert_eq!(bench.see("a", 2, ""), ["c@8"], "not the late one itself, which has two before it at most");
        assert!(bench.see("z", 8, "").len() == 1 && bench.see("y", 30, "").is_empty());
    }

    #[test]
    fn keys_are_counted_apart_and_an_event_without_one_is_not_counted() {
        let mut bench = Bench::by_user(three_within_10_s());
        let (ann, bob) = (r#""user_email": "ann""#, r#""user_email": "bob""#);
        assert!(bench.see("a", 0, ann).is_empty() && bench.see("b", 1, ann).is_empty());
        assert!(bench.see("c", 2, bob).is_empty());
        assert_eq!(bench.see("d", 2, ""), ["uncounted"]);
        assert_eq!(bench.see("e", 2, r#""user_email": """#), ["uncounted"]);
        assert_eq!(bench.standing("f", 3, bob), (false, "2 of 3 events within 10s: 1 more to come".into()));
        assert_eq!(bench.see("f", 3, ann), ["f@3"]);
    }
}
