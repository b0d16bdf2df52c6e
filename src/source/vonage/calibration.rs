//! What the poller has found out about the API, because its description does not say: zone of naive stamps, page cap,
//! whether totals can be trusted.
//!
//! Nothing here is assumed for good on one answer. What is known of the bounds proves nothing for good either (see
//! `bounds`): every window is asked for with one second of padding and counted without the seconds at its edges, which is
//! right for every kind of bound; with them it is counted only where something reads it again.

use chrono::{DateTime, FixedOffset, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::source::vonage::bounds::Bounds;

/// Zones in use lie between these, in whole quarters of an hour.
const EASTMOST_S: i64 = 14 * 3_600;
const WESTMOST_S: i64 = -12 * 3_600;
const QUARTER_S: i64 = 900;
/// A stamp in whole seconds and a padded bound may miss each other by this much.
const SLACK_S: i64 = 2;
/// Answers that must agree before a zone is taken as proven.
const ZONE_ANSWERS: u8 = 2;
/// Answers in a row that must contradict a proven zone before it is doubted.
const ZONE_CONTRADICTIONS: u8 = 3;

/// Part of the cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    /// Zone of naive stamps.
    pub zone: Zone,
    /// Longest page that was shown when a longer one was asked for.
    pub page_cap: Option<u64>,
    /// Turns false for good when a total was below or above what can be shown.
    pub totals_trusted: bool,
    /// Totals below this were confirmed by asking for what lies beyond them.
    pub totals_confirmed_below: u64,
    /// Stored rows before this time are no evidence for counting (Unix seconds).
    pub counts_from_s: i64,
    /// Whether the seconds at the edges of a window belong to it.
    #[serde(default)]
    pub bounds: Bounds,
}

impl Default for Calibration {
    fn default() -> Self {
        Self {
            zone: Zone::default(),
            page_cap: None,
            totals_trusted: true,
            totals_confirmed_below: 0,
            counts_from_s: i64::MIN,
            bounds: Bounds::default(),
        }
    }
}

impl Calibration {
    /// The rows that fill a page when `asked` are asked for.
    #[must_use]
    pub fn full_page(&self, asked: u64) -> u64 {
        self.page_cap.map_or(asked, |cap| cap.min(asked))
    }

    /// A page of `rows` was not all there is although `asked` is more.
    pub fn learn_cap(&mut self, rows: u64, asked: u64) {
        if rows > 0 && rows < asked {
            self.page_cap = Some(rows);
        } else if self.page_cap.is_some_and(|cap| rows > cap) {
            self.page_cap = None;
        }
    }
}

/// In which zone naive stamps are written: an interval that every answer narrows, because a row lies within the
/// window that was asked for (in UTC) while its stamp shows the wall clock of the zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// East of UTC, lower bound.
    low_s: i64,
    /// East of UTC, upper bound.
    high_s: i64,
    /// Answers that narrowed it without contradiction.
    answers: u8,
    /// Answers in a row that contradict.
    contradictions: u8,
}

impl Default for Zone {
    fn default() -> Self {
        Self { low_s: WESTMOST_S, high_s: EASTMOST_S, answers: 0, contradictions: 0 }
    }
}

impl Zone {
    /// The offset, once exactly one zone is possible and enough answers said so.
    #[must_use]
    pub fn proven(&self) -> Option<FixedOffset> {
        if self.answers < ZONE_ANSWERS {
            return None;
        }
        self.only()
    }

    /// For reading stamps: the proven zone, else UTC.
    #[must_use]
    pub fn offset(&self) -> FixedOffset {
        self.proven().unwrap_or_else(utc)
    }

    /// Takes the naive stamps of one answer to the closed window `from..to` (padded, in UTC). Only for a zone that is
    /// not proven: what contradicts itself begins anew.
    pub fn learn(&mut self, stamps: &[NaiveDateTime], from: DateTime<Utc>, to: DateTime<Utc>) {
        // A row that no zone puts into the window says nothing about zones.
        let possible = (from.timestamp() + WESTMOST_S - SLACK_S)..=(to.timestamp() + EASTMOST_S + SLACK_S);
        let seconds = || stamps.iter().map(|stamp| stamp.and_utc().timestamp()).filter(|at_s| possible.contains(at_s));
        let (Some(first_s), Some(last_s)) = (seconds().min(), seconds().max()) else { return };
        self.low_s = self.low_s.max(last_s - to.timestamp() - SLACK_S);
        self.high_s = self.high_s.min(first_s - from.timestamp() + SLACK_S);
        if count_between(self.low_s, self.high_s) == 0 {
            *self = Self::default();
        } else if self.only().is_some() {
            self.answers = self.answers.saturating_add(1).min(ZONE_ANSWERS);
        }
    }

    /// An answer with naive stamps fits its window by this zone.
    pub fn confirm(&mut self) {
        self.contradictions = 0;
    }

    /// An answer with naive stamps lies outside of its window by this zone: the filter was ignored, or the zone
    /// changed.
    pub fn doubt(&mut self) {
        self.contradictions += 1;
        if self.contradictions >= ZONE_CONTRADICTIONS {
            *self = Self::default();
        }
    }

    /// A window (in UTC) whose answer tells whether a row with this naive stamp lies in part `index` (from the east) of
    /// `parts` of what is possible.
    #[must_use]
    pub fn probe(&self, stamp: NaiveDateTime, index: i64, parts: i64) -> (i64, i64) {
        let wall_s = stamp.and_utc().timestamp();
        // A single zone is left: confirm it.
        let (index, parts) = if self.only().is_some() { (0, 1) } else { (index, parts.max(1)) };
        let east_of = |cut: i64| self.high_s - (self.high_s - self.low_s) * cut / parts;
        (wall_s - east_of(index) - 1, wall_s - east_of(index + 1) + 1)
    }

    /// The row with this stamp, looked for by `probe`, is not in the window that was asked for, and the answer was
    /// complete.
    pub fn exclude(&mut self, stamp: NaiveDateTime, from_s: i64, to_s: i64) {
        let wall_s = stamp.and_utc().timestamp();
        if self.only().is_some() {
            // It is not where the only zone left puts it: an answer before was wrong.
            self.doubt();
            return;
        }
        if wall_s - from_s >= self.high_s {
            self.high_s = self.high_s.min(wall_s - to_s + SLACK_S);
        } else if wall_s - to_s <= self.low_s {
            self.low_s = self.low_s.max(wall_s - from_s - SLACK_S);
        }
        if count_between(self.low_s, self.high_s) == 0 {
            *self = Self::default();
        }
    }

    /// Gives up: naive stamps are UTC.
    pub fn assume_utc(&mut self) {
        *self = Self { low_s: 0, high_s: 0, answers: ZONE_ANSWERS, contradictions: 0 };
    }

    fn only(&self) -> Option<FixedOffset> {
        only_between(self.low_s, self.high_s)
    }
}

fn utc() -> FixedOffset {
    use chrono::Offset as _;
    Utc.fix()
}

fn count_between(low_s: i64, high_s: i64) -> i64 {
    (high_s.div_euclid(QUARTER_S) - (low_s - 1).div_euclid(QUARTER_S)).max(0)
}

fn only_between(low_s: i64, high_s: i64) -> Option<FixedOffset> {
    if count_between(low_s, high_s) != 1 {
        return None;
    }
    FixedOffset::east_opt(i32::try_from(high_s.div_euclid(QUARTER_S) * QUARTER_S).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("valid")
    }

    fn stamp(text: &str) -> NaiveDateTime {
        text.parse().expect("valid")
    }

    #[test]
    fn two_narrow_answers_prove_a_zone() {
        let mut zone = Zone::default();
        let stamps = [stamp("2026-01-02T08:39:00")];
        zone.learn(&stamps, at("2026-01-02T03:00:00Z"), at("2026-01-02T03:10:00Z"));
        assert_eq!(zone.proven(), None);
        zone.learn(&stamps, at("2026-01-02T03:00:00Z"), at("2026-01-02T03:10:00Z"));
        assert_eq!(zone.proven(), FixedOffset::east_opt(5 * 3600 + 1800));
    }

    #[test]
    fn a_wide_answer_with_spread_rows_narrows_too() {
        let mut zone = Zone::default();
        let stamps = [stamp("2026-01-01T19:01:00"), stamp("2026-01-02T06:58:00")];
        for _ in 0..2 {
            zone.learn(&stamps, at("2026-01-02T00:00:00Z"), at("2026-01-02T12:00:00Z"));
        }
        assert_eq!(zone.proven(), FixedOffset::west_opt(5 * 3600));
    }

    #[test]
    fn one_answer_that_ignored_its_filter_does_not_shake_a_proven_zone() {
        let mut zone = Zone::default();
        for _ in 0..2 {
            zone.learn(&[stamp("2026-01-02T03:05:00")], at("2026-01-02T03:00:00Z"), at("2026-01-02T03:10:00Z"));
        }
        zone.doubt();
        zone.doubt();
        zone.confirm();
        zone.doubt();
        zone.doubt();
        assert!(zone.proven().is_some());
        zone.doubt();
        assert!(zone.proven().is_none());
    }

    #[test]
    fn a_row_that_fits_in_no_zone_does_not_disturb() {
        let mut zone = Zone::default();
        let stamps = [stamp("2025-11-02T08:39:00"), stamp("2026-01-02T08:39:00")];
        for _ in 0..2 {
            zone.learn(&stamps, at("2026-01-02T03:00:00Z"), at("2026-01-02T03:10:00Z"));
        }
        assert_eq!(zone.proven(), FixedOffset::east_opt(5 * 3600 + 1800));
    }

    #[test]
    fn parts_cover_what_is_possible_and_a_middle_one_excludes_nothing() {
        let row = stamp("2026-01-02T08:39:00");
        let zone = Zone::default();
        for parts in [2, 4, 8] {
            let windows: Vec<(i64, i64)> = (0..parts).map(|index| zone.probe(row, index, parts)).collect();
            assert!(windows.windows(2).all(|pair| matches!(pair, [left, right] if left.1 >= right.0)), "{windows:?}");
            let wall_s = row.and_utc().timestamp();
            assert!(windows.first().is_some_and(|first| first.0 < wall_s - EASTMOST_S));
            assert!(windows.last().is_some_and(|last| last.1 > wall_s - WESTMOST_S));
            for (index, (from_s, to_s)) in (0..parts).zip(windows) {
                let mut narrowed = zone.clone();
                narrowed.exclude(row, from_s, to_s);
                assert_eq!(narrowed != zone, index == 0 || index == parts - 1, "{index} of {parts}");
            }
        }
    }

    #[test]
    fn one_wrong_answer_does_not_lead_to_a_wrong_zone() {
        let row = stamp("2026-01-02T08:39:00");
        let real_s = row.and_utc().timestamp() + 3_600;
        let mut zone = Zone::default();
        let mut asked = 0;
        while zone.proven().is_none() && asked < 40 {
            let (from_s, to_s) = zone.probe(row, 1, 2);
            // The third answer shows nothing although the row is there.
            if asked != 2 && (from_s..=to_s).contains(&real_s) {
                let moment = |second| DateTime::from_timestamp(second, 0).expect("valid");
                zone.learn(&[row], moment(from_s), moment(to_s));
            } else {
                zone.exclude(row, from_s, to_s);
            }
            asked += 1;
        }
        assert_eq!(zone.proven(), FixedOffset::east_opt(-3_600), "after {asked} requests");
    }

    #[test]
    fn halving_finds_any_zone() {
        let row = stamp("2026-01-02T08:39:00");
        for (quarter, western) in (-48i64..=56).flat_map(|quarter| [(quarter, false), (quarter, true)]) {
            let real_s = row.and_utc().timestamp() - quarter * 900;
            let mut zone = Zone::default();
            let mut asked = 0;
            while zone.proven().is_none() && asked < 20 {
                let (from_s, to_s) = zone.probe(row, i64::from(western), 2);
                if (from_s..=to_s).contains(&real_s) {
                    let moment = |second| DateTime::from_timestamp(second, 0).expect("valid");
                    zone.learn(&[row], moment(from_s), moment(to_s));
                } else {
                    zone.exclude(row, from_s, to_s);
                }
                asked += 1;
            }
            assert_eq!(zone.proven().map(|offset| i64::from(offset.local_minus_utc())), Some(quarter * 900));
            assert!(asked <= 12, "{asked} requests for {quarter}");
        }
    }
}
