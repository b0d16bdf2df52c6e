//! What the poller must not forget: the cursor as JSON, versioned, committed together with the events that it
//! accounts for.
//!
//! It holds server time only. A cursor of a newer version is refused rather than guessed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::source::Cursor;
use crate::source::vonage::calibration::Calibration;
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
