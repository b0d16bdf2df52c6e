//! Folding: which alert of a rule takes up a match, as rows that the store keeps.
//!
//! A row holds the alert windows of one group key. A match folds into a window when its event time is at most `quiet` away
//! from it on either side, so late events take their place in time. Everything is event time; no clock is asked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::state::micros;

/// How long after its quiet time a row is kept: late events come up to seven days late.
pub const LATENESS_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Windows that one row keeps: the present one and those that late events may still belong to.
pub const MAX_WINDOWS: usize = 8;
/// Match times that a window keeps of a detection whose matches may move back: what ends it must be known without the one
/// that moved. With more matches than these its end stays where it was.
const MAX_MOVABLE: usize = 16;

/// One alert that takes up matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    pub(super) alert_id: String,
    pub(super) count: u64,
    pub(super) first_at_us: i64,
    pub(super) last_at_us: i64,
    /// Times of its latest matches, in order; only of those that may move.
    #[serde(rename = "m", default, skip_serializing_if = "Vec::is_empty")]
    movable_us: Vec<i64>,
}

/// All windows of one group key, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) windows: Vec<Window>,
    pub(super) expires_at_us: i64,
}

impl Row {
    pub(super) fn new() -> Self {
        Self { windows: Vec::new(), expires_at_us: i64::MIN }
    }

    /// The window that an event at this time belongs to; of two within reach the later one.
    pub(super) fn window_at(&mut self, at_us: i64, quiet: Duration) -> Option<&mut Window> {
        let quiet_us = micros(quiet);
        self.windows.iter_mut().rev().find(|window| {
            at_us >= window.first_at_us.saturating_sub(quiet_us) && at_us <= window.last_at_us.saturating_add(quiet_us)
        })
    }

    /// Moves a match back in the window that took it, without another match.
    pub(super) fn shift(&mut self, from_us: i64, to_us: i64) -> Option<&Window> {
        // What moves may make windows overlap; which of them took the match is known from its time.
        let took = self.windows.iter().rposition(|window| window.movable_us.binary_search(&from_us).is_ok());
        let window = match took {
            Some(place) => self.windows.get_mut(place)?,
            None => self.window_at(from_us, Duration::ZERO)?,
        };
        window.shift(from_us, to_us);
        Some(window)
    }

    /// Adds a window that begins with an event at this time.
    pub(super) fn open(&mut self, alert_id: String, at_us: i64, may_move: bool) {
        let movable_us = if may_move { vec![at_us] } else { Vec::new() };
        let window = Window { alert_id, count: 1, first_at_us: at_us, last_at_us: at_us, movable_us };
        let place = self.windows.partition_point(|window| window.first_at_us <= at_us);
        self.windows.insert(place, window);
        if self.windows.len() > MAX_WINDOWS {
            self.windows.remove(0);
        }
    }

    /// Sets the end of its life by its latest match.
    pub(super) fn touch(&mut self, quiet: Duration) {
        let latest_us = self.windows.iter().map(|window| window.last_at_us).max().unwrap_or(i64::MIN);
        let expires_at_us = latest_us.saturating_add(micros(quiet)).saturating_add(micros(LATENESS_KEPT));
        self.expires_at_us = self.expires_at_us.max(expires_at_us);
    }
}

impl Window {
    pub(super) fn take(&mut self, at_us: i64, may_move: bool) {
        self.count = self.count.saturating_add(1);
        self.first_at_us = self.first_at_us.min(at_us);
        self.last_at_us = self.last_at_us.max(at_us);
        if may_move {
            self.remember(at_us);
        }
    }

    fn shift(&mut self, from_us: i64, to_us: i64) {
        self.first_at_us = self.first_at_us.min(to_us);
        // Only where all of its matches are known is it known which of them is the last.
        let knows_all = self.movable_us.len() as u64 == self.count;
        if let Ok(place) = self.movable_us.binary_search(&from_us) {
            self.movable_us.remove(place);
            self.remember(to_us);
            if let (true, Some(last_us)) = (knows_all, self.movable_us.last()) {
                self.last_at_us = *last_us;
            }
        }
    }

    fn remember(&mut self, at_us: i64) {
        let place = self.movable_us.partition_point(|time_us| *time_us <= at_us);
        self.movable_us.insert(place, at_us);
        if self.movable_us.len() > MAX_MOVABLE {
            self.movable_us.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_micros(20);

    fn row(matches: &[i64]) -> Row {
        let mut row = Row::new();
        for at_us in matches {
            match row.window_at(*at_us, QUIET) {
                Some(window) => window.take(*at_us, true),
                None => row.open(format!("from {at_us}"), *at_us, true),
            }
        }
        row
    }

    fn spans(row: &Row) -> Vec<(i64, i64, u64)> {
        row.windows.iter().map(|window| (window.first_at_us, window.last_at_us, window.count)).collect()
    }

    #[test]
    fn a_match_that_moves_back_takes_the_end_with_it() {
        let mut row = row(&[10, 20, 30]);
        row.shift(30, 12);
        assert_eq!(spans(&row), [(10, 20, 3)]);
        row.shift(10, 2);
        assert_eq!(spans(&row), [(2, 20, 3)]);
    }

    #[test]
    fn of_windows_that_overlap_the_one_that_took_the_match_moves() {
        let mut row = row(&[8, 100, 110]);
        row.shift(100, 5);
        assert_eq!(spans(&row), [(8, 8, 1), (5, 110, 2)]);
        row.shift(8, 2);
        assert_eq!(spans(&row), [(2, 2, 1), (5, 110, 2)]);
    }

    #[test]
    fn the_end_stays_where_not_all_matches_are_known() {
        let old = r#"{"windows":[{"alert_id":"a","count":5,"first_at_us":0,"last_at_us":100}],"expires_at_us":0}"#;
        let mut old: Row = serde_json::from_str(old).expect("as an older release wrote it");
        old.window_at(110, QUIET).expect("within reach").take(110, true);
        old.shift(110, 90);
        assert_eq!(spans(&old), [(0, 110, 6)], "and not 90, for there may be a match at 100");

        let many: Vec<i64> = (1..=17).collect();
        let mut many = row(&many);
        (2..=17).for_each(|at_us| drop(many.shift(at_us, -at_us).cloned()));
        assert_eq!(spans(&many), [(-17, 17, 17)]);
        assert!(many.windows.iter().all(|window| window.movable_us.len() <= MAX_MOVABLE));
    }
}
