//! `spike`: a window's count against the key's own past.
//!
//! Time is cut into quarters of the window. A quarter matches when it and the three before it hold at least `at_least`
//! events and at least `ratio` times as many as a window of the baseline does on average. The baseline ends a whole
//! window before this one begins, so that events that come late do not change it after the fact, and silence counts in
//! it. Until the key's past covers half the baseline there is nothing to compare with, and nothing fires.

use super::key::GroupKey;
use super::log::{Bucket, Log, Observation};
use super::threshold::shown;
use super::{Evidence, Firing, Noted, Row, Rows, Sighting, Standing, micros};
use crate::text::Untrusted;

/// Parts of a window.
const PARTS: i64 = 4;
/// How long beyond its baseline a silent key is known, about a year: it has a past, in which nothing happened.
const KNOWN_FOR: std::time::Duration = std::time::Duration::from_secs(400 * 86_400);
/// Noted events that a row keeps to show, the newest.
const SHOWN_EVENTS: usize = 20;

/// Options of `spike`.
#[derive(Debug, Clone)]
pub struct Spike {
    /// So many times the average.
    pub ratio: f64,
    /// And at least so many events.
    pub at_least: u32,
    /// Length of the window in microseconds.
    pub window_us: i64,
    /// How far the past reaches, in microseconds.
    pub baseline_us: i64,
}

/// One stretch against its past.
struct Level {
    count: u32,
    average: f64,
    has_past: bool,
}

impl Spike {
    pub(super) fn bucket_us(&self) -> i64 {
        (self.window_us / PARTS).max(1)
    }

    fn baseline_buckets(&self) -> i64 {
        self.baseline_us / self.bucket_us()
    }

    pub(super) fn note(&self, group: &GroupKey, sighting: &Sighting<'_>, rows: &mut dyn Rows) -> Noted {
        let Row::Log(log) = rows.change(&group.text, Row::log) else { return Noted::Uncounted };
        let number = self.count(log, sighting);
        let mut firings = Vec::new();
        let touched: Vec<usize> = (log.buckets.iter().enumerate())
            .filter(|(_, (known, _, fired))| (number..number + PARTS).contains(known) && !fired)
            .map(|(place, _)| place)
            .collect();
        for place in touched {
            let Some((number, _, _)) = log.buckets.get(place).copied() else { continue };
            if self.holds(&self.level(log, number)) {
                if let Some(bucket) = log.buckets.get_mut(place) {
                    bucket.2 = true;
                }
                let (at_us, event_id) = (number * self.bucket_us(), sighting.event.id().to_owned());
                firings.push(Firing::new(&group.text, at_us, event_id));
            }
        }
        self.forget(log, sighting);
        Noted::Fired(firings)
    }

    /// Adds an event and gives the number of its bucket.
    fn count(&self, log: &mut Log, sighting: &Sighting<'_>) -> i64 {
        let number = sighting.event.created_at().timestamp_micros().div_euclid(self.bucket_us());
        match log.buckets.binary_search_by_key(&number, |bucket| bucket.0) {
            Ok(place) => {
                if let Some(bucket) = log.buckets.get_mut(place) {
                    bucket.1 = bucket.1.saturating_add(1);
                }
            }
            Err(place) => log.buckets.insert(place, (number, 1, false)),
        }
        log.first_bucket = Some(log.first_bucket.map_or(number, |first| first.min(number)));
        log.insert(Observation::of(sighting));
        // A late event is evidence of what it may fire now, however old it is.
        let first = usize::from(log.place_of(sighting.event.id()) == Some(0));
        let too_many = log.observations.len().saturating_sub(SHOWN_EVENTS).min(log.observations.len() - first);
        log.observations.drain(first..first + too_many);
        number
    }

    fn forget(&self, log: &mut Log, sighting: &Sighting<'_>) {
        // A stamp in the future must not push the past out.
        let reached_us = sighting.event.created_at().min(sighting.received_at).timestamp_micros();
        let oldest = reached_us.div_euclid(self.bucket_us()) - self.baseline_buckets() - 4 * PARTS;
        let gone = log.buckets.partition_point(|bucket| bucket.0 < oldest);
        log.buckets.drain(..gone);
    }

    fn level(&self, log: &Log, number: i64) -> Level {
        let sum = |from: i64, to: i64| -> u64 {
            let inside = |bucket: &&Bucket| (from..to).contains(&bucket.0);
            log.buckets.iter().filter(inside).map(|bucket| u64::from(bucket.1)).sum()
        };
        let count = u32::try_from(sum(number + 1 - PARTS, number + 1)).unwrap_or(u32::MAX);
        let past_end = number + 1 - 2 * PARTS;
        let past_start = (past_end - self.baseline_buckets()).max(log.first_bucket.unwrap_or(past_end));
        let length = past_end - past_start;
        #[expect(clippy::cast_precision_loss, reason = "counts and lengths stay far below 2^53")]
        let average = if length > 0 { sum(past_start, past_end) as f64 * PARTS as f64 / length as f64 } else { 0.0 };
        Level { count, average, has_past: length * 2 >= self.baseline_buckets() }
    }

    fn holds(&self, level: &Level) -> bool {
        level.has_past && level.count >= self.at_least && f64::from(level.count) >= self.ratio * level.average
    }

    fn told(&self, level: &Level) -> String {
        let window = shown(self.window_us);
        format!(
            "{} events within {window}; on average {:.1} within {window} over the last {} (from {} times that and {} on)",
            level.count,
            level.average,
            shown(self.baseline_us),
            self.ratio,
            self.at_least
        )
    }

    pub(super) fn finding(&self, log: &Log, firing: &Firing) -> (Untrusted, Vec<Evidence>) {
        let level = self.level(log, firing.at_us.div_euclid(self.bucket_us()));
        (Untrusted::new(self.told(&level)), self.evidence(log, firing.at_us.div_euclid(self.bucket_us())))
    }

    /// The events of a window, as far as they are kept.
    fn evidence(&self, log: &Log, number: i64) -> Vec<Evidence> {
        let window = (number + 1 - PARTS) * self.bucket_us()..(number + 1) * self.bucket_us();
        let noted = log.observations.iter().filter(|known| window.contains(&known.at_us));
        noted.map(|known| Evidence::of(known, None)).collect()
    }

    pub(super) fn standing(&self, row: Option<&Row>, sighting: &Sighting<'_>) -> Standing {
        let mut log = match row {
            Some(Row::Log(log)) => log.clone(),
            _ => Log::default(),
        };
        let number = match log.place_of(sighting.event.id()) {
            Some(_) => sighting.event.created_at().timestamp_micros().div_euclid(self.bucket_us()),
            None => self.count(&mut log, sighting),
        };
        let level = self.level(&log, number);
        let past = if level.has_past { "" } else { "; too little past to compare with" };
        Standing::decided(self.holds(&level), format!("{}{past}", self.told(&level)), self.evidence(&log, number))
    }

    /// Long after its last event counts, for since when a key is known counts too: silence is a past.
    pub(super) fn expires_at_us(&self, log: &Log) -> i64 {
        let newest_us = log.buckets.last().map_or(i64::MIN, |bucket| bucket.0.saturating_mul(self.bucket_us()));
        newest_us.saturating_add(self.baseline_us).saturating_add(micros(KNOWN_FOR))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Question;
    use super::super::tests::Bench;
    use super::*;

    /// Quarters of 1 s; a window is 4 s, its past 40 s.
    fn bench() -> Bench {
        let (window_us, baseline_us) = (4_000_000, 40_000_000);
        Bench::new(Question::Spike(Spike { ratio: 3.0, at_least: 4, window_us, baseline_us }))
    }

    /// Events at this second; what fires with the last.
    fn burst(bench: &mut Bench, at_s: i64, events: usize) -> Vec<String> {
        (0..events).map(|number| bench.see(&format!("{at_s}-{number}"), at_s, "")).last().unwrap_or_default()
    }

    #[test]
    fn without_a_past_there_is_nothing_to_compare_with() {
        let mut bench = bench();
        assert!(burst(&mut bench, 0, 1).is_empty());
        assert!(burst(&mut bench, 20, 50).is_empty(), "its past covers 13 s, not the 20 that half a baseline are");
        assert!(bench.standing("x", 20, "").1.ends_with("; too little past to compare with"));
    }

    #[test]
    fn a_window_needs_so_many_events_and_so_many_times_its_past() {
        let mut bench = bench();
        for at_s in 0..40 {
            assert!(burst(&mut bench, at_s, 1).is_empty(), "four a window, as ever");
        }
        assert!(burst(&mut bench, 40, 8).is_empty(), "3 of the seconds before and 8 are 11, not three times 4");
        assert_eq!(bench.see("twelfth", 40, ""), ["twelfth@40"]);
        let (summary, ids) = bench.finding("twelfth", 40, "");
        assert_eq!(
            summary,
            "12 events within 4s; on average 4.0 within 4s over the last 40s (from 3 times that and 4 on)"
        );
        assert_eq!(ids.len(), 12);
        assert!(bench.see("more", 40, "").is_empty(), "a quarter matches once");
    }

    #[test]
    fn silence_is_a_past_and_a_few_events_are_no_spike() {
        let mut bench = bench();
        assert!(burst(&mut bench, 0, 1).is_empty());
        assert!(burst(&mut bench, 100, 3).is_empty(), "fewer than `at_least`");
        assert_eq!(bench.see("fourth", 100, ""), ["fourth@100"]);
    }

    #[test]
    fn a_late_event_counts_in_the_windows_that_hold_it() {
        let mut bench = bench();
        assert!(burst(&mut bench, 0, 1).is_empty() && burst(&mut bench, 101, 3).is_empty());
        assert_eq!(bench.see("late", 99, ""), ["late@101"]);
        assert!(bench.see("later", 90, "").is_empty());
    }
}
