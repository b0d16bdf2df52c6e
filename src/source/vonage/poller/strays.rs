//! Rows outside of the window that was asked for. An answer that shows one proves nothing, since the filter may have
//! been ignored; but a server that shows the same few in every answer must not hold up everything for ever.
//!
//! It never makes rows disappear: they are evaluated like all others, and only left out where windows are counted.

use std::time::Duration;

use tokio::time::Instant;

use crate::source::vonage::poller::troubles::LASTING;

/// More of them in one answer are no stray rows: the filter is ignored.
pub const MAX_STRAYS: usize = 10;
/// Answers with stray rows after which such an answer is judged without them: before a finite run gives up.
const USUAL_AFTER: u32 = 4;
/// Answers without any, in a row, after which that is over.
const OVER_AFTER: u32 = 10;

/// What was seen of them lately.
#[derive(Debug, Clone, Default)]
pub struct Strays {
    answers: u32,
    clean: u32,
    since: Option<Instant>,
    is_told: bool,
}

impl Strays {
    /// An answer to a window had so many; for how long that has been so, where it is to be told now.
    pub fn saw(&mut self, strays: usize, now: Instant) -> Option<Duration> {
        if strays == 0 {
            self.clean = self.clean.saturating_add(1);
            if self.clean >= OVER_AFTER {
                *self = Self::default();
            }
            return None;
        }
        self.clean = 0;
        self.answers = self.answers.saturating_add(1);
        let lasts = now.saturating_duration_since(*self.since.get_or_insert(now));
        let is_news = lasts >= LASTING && self.are_usual();
        (is_news && !std::mem::replace(&mut self.is_told, true)).then_some(lasts)
    }

    /// The first answer that had some.
    #[must_use]
    pub fn are_news(&self) -> bool {
        self.answers == 1
    }

    /// Whether a few in an answer are what this server does.
    #[must_use]
    pub fn are_usual(&self) -> bool {
        self.answers >= USUAL_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_few_in_answer_after_answer_become_usual_and_are_told_once() {
        let (mut strays, now) = (Strays::default(), Instant::now());
        for answer in 1..=USUAL_AFTER {
            assert!(!strays.are_usual());
            assert_eq!(strays.saw(1, now), None, "{answer}");
            assert_eq!(strays.saw(0, now), None, "one good answer in between is no excuse");
        }
        assert!(strays.are_usual());
        assert_eq!(strays.saw(1, now + LASTING), Some(LASTING));
        assert_eq!(strays.saw(1, now + LASTING), None);
        for _ in 0..OVER_AFTER {
            strays.saw(0, now);
        }
        assert!(!strays.are_usual());
    }
}
