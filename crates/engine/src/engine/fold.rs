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
/// Match times that a window keeps of a detection whose matches may move back: what ends it must be known without those
/// that moved. Of more that all move back the end stays where it was.
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

    /// Moves a match back in the window that holds it, without another match.
    pub(super) fn shift(&mut self, from_us: i64, to_us: i64) -> Option<&Window> {
        let window = self.window_at(from_us, Duration::ZERO)?;
        window.first_at_us = window.first_at_us.min(to_us);
        if let Ok(place) = window.movable_us.binary_search(&from_us) {
            window.movable_us.remove(place);
            window.may_move(to_us);
            window.last_at_us = window.movable_us.last().copied().unwrap_or(to_us);
        }
        Some(window)
    }

    /// Says that the match at this time, which is in a window already, may move back.
    pub(super) fn may_move(&mut self, at_us: i64) {
        if let Some(window) = self.window_at(at_us, Duration::ZERO) {
            window.may_move(at_us);
        }
    }

    /// Adds a window that begins with an event at this time.
    pub(super) fn open(&mut self, alert_id: String, at_us: i64) {
        let window = Window { alert_id, count: 1, first_at_us: at_us, last_at_us: at_us, movable_us: Vec::new() };
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
    pub(super) fn take(&mut self, at_us: i64) {
        self.count = self.count.saturating_add(1);
        self.first_at_us = self.first_at_us.min(at_us);
        self.last_at_us = self.last_at_us.max(at_us);
    }

    fn may_move(&mut self, at_us: i64) {
        let place = self.movable_us.partition_point(|time_us| *time_us <= at_us);
        self.movable_us.insert(place, at_us);
        if self.movable_us.len() > MAX_MOVABLE {
            self.movable_us.remove(0);
        }
    }
}
