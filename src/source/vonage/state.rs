//! What the poller must not forget: the cursor as JSON, versioned, committed together with the events that it
//! accounts for.
//!
//! It holds server time only. A cursor of a newer version is refused rather than guessed.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::{Deserialize, Serialize};

use crate::source::Cursor;
use crate::source::vonage::calibration::Calibration;
use crate::source::vonage::poller::Start;
use crate::source::vonage::poller::ingest::MAX_LOOK_BACK_S;
use crate::source::vonage::poller::server_clock::WALL_SLACK_S;
use crate::source::vonage::window::Owed;

/// Version that this code writes and reads.
const VERSION: u32 = 1;
/// Most times at which rows are stored that must not be counted; beyond it counting begins anew.
pub const MAX_UNCOUNTED: usize = 64;

/// Everything durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// Grows with every answer, so that no two cursors are equal.
    pub step: u64,
    /// From here on events are evaluated; `None` before the server's clock is known.
    pub start_s: Option<i64>,
    /// One per tier, in the order of the options.
    pub tiers: Vec<TierState>,
    /// Windows not yet proven complete.
    pub owed: Owed,
    /// What was found out about the API.
    pub calibration: Calibration,
    /// The newest event seen.
    pub anchor: Option<Anchor>,
    /// Rows stored under a time or an id that is not the API's: microseconds to how many.
    pub uncounted: BTreeMap<i64, u64>,
    /// The last `Date` that was believed.
    #[serde(default)]
    pub clock: Option<ClockMark>,
    /// The option `start` as it was when `start_s` was set.
    #[serde(default)]
    pub start: Option<String>,
    /// How much before it was to be read, in seconds.
    #[serde(default)]
    pub backfill_s: i64,
    /// Until this time of the server (Unix seconds) what is owed of the history comes before anything later; `None` once it
    /// is read, or the first root was.
    #[serde(default)]
    pub history_until_s: Option<i64>,
}

/// A `Date`, and our own clock when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockMark {
    /// By the server's clock.
    pub date_s: i64,
    /// By ours.
    pub wall_s: i64,
}

/// A tier's durable part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierState {
    /// Server time of the last root whose window is accounted for.
    pub frontier_s: i64,
    /// How far a root looks back; it grows with observed lateness.
    pub look_back_s: i64,
    /// Everything before the frontier was proven complete.
    pub proven: bool,
}

/// An event that later answers must show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Its id.
    pub id: String,
    /// When it happened, in microseconds.
    pub at_us: i64,
}

/// Why a cursor cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not our JSON.
    #[error("the stored cursor cannot be read")]
    Json(#[source] serde_json::Error),
    /// Written by a newer release.
    #[error("the stored cursor has version {0}; this release reads {VERSION}")]
    Version(u32),
}

impl State {
    /// Before the first answer.
    #[must_use]
    pub fn new(look_backs_s: &[i64]) -> Self {
        let tier = |look_back_s: &i64| TierState { frontier_s: 0, look_back_s: *look_back_s, proven: false };
        Self {
            version: VERSION,
            step: 0,
            start_s: None,
            tiers: look_backs_s.iter().map(tier).collect(),
            owed: Owed::default(),
            calibration: Calibration::default(),
            anchor: None,
            uncounted: BTreeMap::new(),
            clock: None,
            start: None,
            backfill_s: 0,
            history_until_s: None,
        }
    }

    /// Reads a cursor. Tiers that the options added since start where the last one stands.
    ///
    /// # Errors
    /// When it is not ours.
    pub fn read(cursor: &Cursor, look_backs_s: &[i64]) -> Result<Self, StateError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_str(&cursor.0).map_err(StateError::Json)?;
        if head.version != VERSION {
            return Err(StateError::Version(head.version));
        }
        let mut state: Self = serde_json::from_str(&cursor.0).map_err(StateError::Json)?;
        let oldest_s = state.tiers.iter().map(|tier| tier.frontier_s).min().unwrap_or(state.start_s.unwrap_or(0));
        state.tiers.truncate(look_backs_s.len());
        for (index, look_back_s) in look_backs_s.iter().enumerate() {
            match state.tiers.get_mut(index) {
                Some(tier) => tier.look_back_s = tier.look_back_s.max(*look_back_s),
                None => state.tiers.push(TierState { frontier_s: oldest_s, look_back_s: *look_back_s, proven: false }),
            }
        }
        Ok(state)
    }

    /// The cursor to be committed.
    ///
    /// # Errors
    /// Never in practice: every part is plain data.
    pub fn write(&self) -> Result<Cursor, StateError> {
        serde_json::to_string(self).map(Cursor).map_err(StateError::Json)
    }

    /// The option `start` of the first run, where `now` is another. A cursor of an older release knows a stamp only.
    #[must_use]
    pub fn other_start(&self, now: Start) -> Option<String> {
        let start_s = self.start_s?;
        let was = match (&self.start, now) {
            (Some(was), _) => was.clone(),
            (None, Start::At(_)) => Start::At(DateTime::from_timestamp(start_s, 0)?).text(),
            (None, Start::Now | Start::Ago(_)) => return None,
        };
        (was != now.text()).then_some(was)
    }

    /// Whether there was a first run, which was told to read less of the history than `backfill_s`.
    #[must_use]
    pub fn has_less_history(&self, backfill_s: i64) -> bool {
        self.start_s.is_some() && self.backfill_s < backfill_s
    }

    /// The last `Date` before a restart: as a cursor of an older release has none, where its frontiers stand.
    #[must_use]
    pub fn last_date_s(&self) -> Option<i64> {
        self.start_s?;
        let frontier_s = self.tiers.iter().map(|tier| tier.frontier_s).max();
        self.clock.map(|mark| mark.date_s).or(frontier_s)
    }

    /// Takes back what a wrong `Date` did to the cursor, now that `date_s` is known to be right; whether anything was.
    /// Frontiers go back to the newest event that was seen by then: all before it is proven or owed.
    pub fn heal(&mut self, date_s: i64, start_is_fixed: bool) -> bool {
        // As far off as a Date that fits our clock may be: servers that share an address need not share a clock.
        let is_ahead = |at_s: i64| at_s > date_s.saturating_add(WALL_SLACK_S);
        let Some(start_s) = self.start_s else { return false };
        let start_s = if is_ahead(start_s) && !start_is_fixed { date_s } else { start_s };
        let is_ahead_of_start = |tier: &TierState| is_ahead(tier.frontier_s) && tier.frontier_s > start_s;
        if self.start_s == Some(start_s) && !self.tiers.iter().any(is_ahead_of_start) {
            return false;
        }
        self.start_s = Some(start_s);
        // What is dated ahead was there all the same: nothing older was missed. Further back than the store remembers
        // its ids nothing is read again.
        let newest_s = self.anchor.as_ref().map(|anchor| anchor.at_us.div_euclid(1_000_000).min(date_s));
        let seen_s = newest_s.unwrap_or(start_s).max(date_s.saturating_sub(MAX_LOOK_BACK_S));
        self.anchor = self.anchor.take().filter(|anchor| !is_ahead(anchor.at_us.div_euclid(1_000_000)));
        for tier in self.tiers.iter_mut().filter(|tier| is_ahead(tier.frontier_s)) {
            tier.frontier_s = seen_s.max(start_s);
            tier.proven = false;
        }
        self.calibration.counts_from_s = self.calibration.counts_from_s.min(date_s);
        self.owed.doubt_after(date_s);
        true
    }

    /// Notes a stored row that must not be counted.
    pub fn leave_out(&mut self, at_us: i64, now_s: i64) {
        *self.uncounted.entry(at_us).or_insert(0) += 1;
        if self.uncounted.len() > MAX_UNCOUNTED {
            self.uncounted.clear();
            self.calibration.counts_from_s = self.calibration.counts_from_s.max(now_s);
        }
    }

    /// How many stored rows in a range (seconds) must not be counted.
    #[must_use]
    pub fn left_out(&self, from_s: i64, to_s: i64) -> u64 {
        let (from_us, to_us) = (from_s.saturating_mul(1_000_000), to_s.saturating_mul(1_000_000));
        if from_us >= to_us {
            return 0;
        }
        self.uncounted.range(from_us..to_us).map(|(_, rows)| rows).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_takes_new_tiers() {
        let mut state = State::new(&[600, 21_600]);
        state.start_s = Some(50);
        for tier in &mut state.tiers {
            tier.frontier_s = 70;
        }
        state.leave_out(5_000_000, 70);
        let cursor = state.write().expect("plain data");
        assert_eq!(State::read(&cursor, &[600, 21_600]).expect("ours"), state);
        let grown = State::read(&cursor, &[300, 21_600, 604_800]).expect("ours");
        assert_eq!(grown.tiers.len(), 3);
        assert_eq!(grown.tiers.first().map(|tier| tier.look_back_s), Some(600));
        assert_eq!(grown.tiers.get(2).map(|tier| tier.frontier_s), Some(70));
    }

    #[test]
    fn a_start_that_was_changed_after_the_first_run_is_noticed() {
        let ago = |days: u64| Start::Ago(std::time::Duration::from_secs(days * 86_400));
        let mut state = State::new(&[600]);
        assert_eq!(state.other_start(ago(30)), None, "before the first run it counts");
        state.start_s = Some(1_700_000_000);
        assert_eq!(state.other_start(ago(30)), None, "an older cursor does not say");
        let at = |second_s| Start::At(DateTime::from_timestamp(second_s, 0).expect("valid"));
        assert_eq!(state.other_start(at(1_700_000_000)), None);
        assert_eq!(state.other_start(at(1_700_000_001)), Some("2023-11-14T22:13:20Z".into()));
        state.start = Some(Start::Now.text());
        assert_eq!(state.other_start(Start::Now), None);
        assert_eq!(state.other_start(ago(30)), Some("now".into()));
    }

    #[test]
    fn a_cursor_that_a_wrong_date_moved_goes_back_to_what_was_seen() {
        let (now_s, month_s) = (1_700_000_000, 30 * 86_400);
        let mut state = State::new(&[600, 21_600]);
        state.start_s = Some(now_s - 9_000);
        state.anchor = Some(Anchor { id: "a".into(), at_us: (now_s - 5_000) * 1_000_000 });
        state.tiers.iter_mut().zip([now_s + month_s, now_s - 100]).for_each(|(tier, at_s)| tier.frontier_s = at_s);
        state.calibration.counts_from_s = now_s + month_s;
        let cursor = state.write().expect("plain data");
        let mut state = State::read(&cursor, &[600, 21_600]).expect("ours");
        assert!(state.heal(now_s, false) && !state.heal(now_s, false));
        assert_eq!(state.tiers.iter().map(|tier| now_s - tier.frontier_s).collect::<Vec<_>>(), [5_000, 100]);
        assert_eq!((state.start_s, state.calibration.counts_from_s), (Some(now_s - 9_000), now_s));

        // A Date that is some minutes behind, as of another server, is no sign of a wrong one before it.
        state.tiers.iter_mut().for_each(|tier| tier.frontier_s = now_s);
        assert!(!state.clone().heal(now_s - 200, false));
        // Of an event that is dated ahead nothing follows for those before it.
        state.anchor = Some(Anchor { id: "b".into(), at_us: (now_s + 9_000) * 1_000_000 });
        state.tiers.iter_mut().for_each(|tier| tier.frontier_s = now_s + month_s);
        let mut healed = state.clone();
        assert!(healed.heal(now_s, false) && healed.anchor.is_none());
        assert!(healed.tiers.iter().all(|tier| tier.frontier_s == now_s), "{healed:?}");
        // Nothing is read again that the store may have forgotten.
        (state.anchor, state.start_s) = (None, Some(now_s - 12 * month_s));
        assert!(state.heal(now_s, false));
        assert!(state.tiers.iter().all(|tier| tier.frontier_s == now_s - month_s), "{state:?}");

        state.start_s = Some(now_s + month_s);
        state.tiers.iter_mut().for_each(|tier| tier.frontier_s = now_s + month_s);
        assert!(!state.clone().heal(now_s, true), "a start that lies ahead was asked for");
        assert!(state.heal(now_s, false));
        assert_eq!(state.start_s, Some(now_s));
        assert!(state.tiers.iter().all(|tier| tier.frontier_s == now_s), "{state:?}");
    }

    #[test]
    fn foreign_and_newer_cursors_are_refused() {
        assert!(matches!(State::read(&Cursor("17".into()), &[600]), Err(StateError::Json(_))));
        let newer = Cursor(r#"{"version":2}"#.into());
        assert!(matches!(State::read(&newer, &[600]), Err(StateError::Version(2))));
    }

    #[test]
    fn rows_left_out_are_counted_by_range() {
        let mut state = State::new(&[600]);
        state.leave_out(5_000_000, 9);
        state.leave_out(5_000_000, 9);
        state.leave_out(7_500_000, 9);
        assert_eq!((state.left_out(5, 7), state.left_out(6, 8), state.left_out(8, 5)), (2, 1, 0));
        for index in 0..70 {
            state.leave_out(index * 1_000_000, 9);
        }
        assert_eq!(state.calibration.counts_from_s, 9);
    }
}
