//! Whether the seconds that a window is bounded by belong to it, as answers show that have room for all of their rows.
//!
//! It is evidence and never proof: a server may compare fractions that it does not show. So no window rests on it that
//! nothing reads again (see `judge`). It spares requests where an account is so busy that no second without rows is near.

use serde::{Deserialize, Serialize};

/// Seconds whose stored rows must all have been shown before one is taken to belong to its window.
const AGREEING_SECONDS: u8 = 3;

/// A second that a window is bounded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundSecond {
    /// Unix seconds, as sent.
    pub at_s: i64,
    /// Rows stored in it before the answer.
    pub stored: u64,
}

/// What is known of `date_from` and `date_to`; part of the cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds([Bound; 2]);

impl Bounds {
    /// Both, in the order of [`BoundSecond`]s: from, to.
    #[must_use]
    pub fn sides(&self) -> &[Bound; 2] {
        &self.0
    }

    /// Takes an answer that showed all of its rows: of each bound its second, and how many of the rows stored in it were
    /// shown. Says which bound is known now and was not: its name in a query, and whether it is inclusive.
    pub fn learn(&mut self, shown: [Option<(BoundSecond, u64)>; 2]) -> Option<(&'static str, bool)> {
        let mut news = None;
        for ((bound, name), shown) in self.0.iter_mut().zip(["date_from", "date_to"]).zip(shown) {
            let before = bound.is_inclusive();
            if let Some((second, shown)) = shown {
                bound.learn(second, shown);
            }
            news = bound.is_inclusive().filter(|now| before != Some(*now)).map(|now| (name, now)).or(news);
        }
        news
    }
}

/// What is known of one bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Seconds of which all rows were shown.
    whole: u8,
    /// The last of them.
    last_s: i64,
    /// A row was once lacking: false for good, as one that counts too many would prove what is not so.
    lacked: bool,
}

impl Bound {
    /// Whether all rows of its second belong to the window; `None` while too few answers have said so.
    #[must_use]
    pub fn is_inclusive(&self) -> Option<bool> {
        match self.lacked {
            true => Some(false),
            false => (self.whole >= AGREEING_SECONDS).then_some(true),
        }
    }

    fn learn(&mut self, second: BoundSecond, shown: u64) {
        if shown < second.stored {
            self.lacked = true;
        } else if second.stored > 0 && second.at_s != self.last_s {
            (self.whole, self.last_s) = (self.whole.saturating_add(1).min(AGREEING_SECONDS), second.at_s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(at_s: i64, stored: u64, shown: u64) -> Option<(BoundSecond, u64)> {
        Some((BoundSecond { at_s, stored }, shown))
    }

    #[test]
    fn a_bound_is_inclusive_once_the_rows_of_three_seconds_were_all_shown() {
        let mut bounds = Bounds::default();
        assert_eq!(bounds.learn([answer(10, 2, 2), None]), None);
        assert_eq!(bounds.learn([answer(10, 2, 2), None]), None, "the same second says nothing more");
        assert_eq!(bounds.learn([answer(11, 0, 0), None]), None, "nor one without rows");
        assert_eq!(bounds.learn([answer(12, 1, 1), None]), None);
        assert_eq!(bounds.learn([answer(13, 1, 1), None]), Some(("date_from", true)));
        assert_eq!(bounds.learn([answer(14, 1, 1), None]), None, "it is told once");
        assert_eq!(bounds.sides().each_ref().map(Bound::is_inclusive), [Some(true), None]);
    }

    #[test]
    fn one_lacking_row_ends_it_for_good() {
        let mut bounds = Bounds::default();
        for at_s in 0..5 {
            bounds.learn([None, answer(at_s, 1, 1)]);
        }
        assert_eq!(bounds.sides().each_ref().map(Bound::is_inclusive), [None, Some(true)]);
        assert_eq!(bounds.learn([None, answer(9, 3, 2)]), Some(("date_to", false)));
        for at_s in 10..20 {
            assert_eq!(bounds.learn([None, answer(at_s, 1, 1)]), None);
        }
        assert_eq!(bounds.sides().each_ref().map(Bound::is_inclusive), [None, Some(false)]);
    }
}
