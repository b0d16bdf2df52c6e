//! `absence`: an expected event does not come, or nothing comes at all.
//!
//! With `after` and `expect`: after each event of the first kind one of the second must come in less than `within`. With
//! neither: after each event another must come. It is a sequence whose last step is absent, so it waits like one.

use super::log::Log;
use super::sequence::{Sequence, Step};
use super::{Evidence, Firing};
use crate::condition::Condition;
use crate::text::Untrusted;

/// Options of `absence`.
#[derive(Debug, Clone)]
pub struct Absence {
    sequence: Sequence,
    is_silence: bool,
}

impl Absence {
    /// After an event of the first kind one of the second is expected.
    pub(super) fn expecting(after: Condition, expect: Condition, within_us: i64) -> Self {
        let step = |name: &str, when: Condition, absent: bool| Step { name: name.to_owned(), when, absent };
        let steps = vec![step("after", after, false), step("expect", expect, true)];
        Self { sequence: Sequence { steps, within_us }, is_silence: false }
    }

    /// After any event another is expected.
    pub(super) fn silence(within_us: i64) -> Self {
        let any = || Condition::All(Vec::new());
        Self { is_silence: true, ..Self::expecting(any(), any(), within_us) }
    }

    pub(super) fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    pub(super) fn finding(&self, log: &Log, firing: &Firing) -> (Untrusted, Vec<Evidence>) {
        let within = super::threshold::shown(self.sequence.within_us);
        let (_, evidence) = self.sequence.finding(log, firing);
        let summary = if self.is_silence {
            format!("nothing came for {within} after the event below")
        } else {
            format!("what was expected within {within} after the event below did not come")
        };
        (Untrusted::new(summary), evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Question;
    use super::super::tests::{Bench, of_type};
    use super::*;

    const WITHIN_US: i64 = 10_000_000;

    fn revoked() -> Question {
        Question::Absence(Absence::expecting(of_type("CREATE"), of_type("REVOKE"), WITHIN_US))
    }

    fn kind(event_type: &str) -> String {
        format!(r#""event_type": "{event_type}""#)
    }

    #[test]
    fn what_comes_in_time_answers_and_exactly_at_the_end_is_too_late() {
        let mut answered = Bench::new(revoked());
        assert!(answered.see("c", 0, &kind("CREATE")).is_empty() && answered.see("r", 9, &kind("REVOKE")).is_empty());
        assert!(answered.settle(100).is_empty());
        let mut late = Bench::new(revoked());
        assert!(late.see("c", 0, &kind("CREATE")).is_empty() && late.see("r", 10, &kind("REVOKE")).is_empty());
        assert_eq!(late.settle(100), ["c@10"]);
        assert_eq!(late.finding("c", 10, "").0, "what was expected within 10s after the event below did not come");
    }

    #[test]
    fn it_waits_until_nothing_can_come_any_more() {
        let mut bench = Bench::new(revoked());
        assert!(bench.see("c", 0, &kind("CREATE")).is_empty());
        assert!(bench.settle(9).is_empty());
        assert!(bench.see("r", 4, &kind("REVOKE")).is_empty(), "it came late, and in time");
        assert!(bench.settle(100).is_empty());
    }

    #[test]
    fn each_event_of_the_first_kind_is_answered_by_itself() {
        let mut bench = Bench::new(revoked());
        for (id, at_s, event_type) in [("c1", 0, "CREATE"), ("r", 5, "REVOKE"), ("c2", 6, "CREATE")] {
            assert!(bench.see(id, at_s, &kind(event_type)).is_empty());
        }
        assert_eq!(bench.settle(16), ["c2@16"]);
        assert!(bench.settle(100).is_empty(), "it is told once");
    }

    #[test]
    fn silence_is_told_once_until_something_comes() {
        let mut bench = Bench::new(Question::Absence(Absence::silence(WITHIN_US)));
        assert!(bench.see("a", 0, "").is_empty() && bench.see("b", 8, "").is_empty());
        assert_eq!(bench.settle(40), ["b@18"]);
        assert_eq!(bench.finding("b", 18, "").0, "nothing came for 10s after the event below");
        assert!(bench.see("c", 50, "").is_empty());
        assert_eq!(bench.settle(60), ["c@60"]);
    }
}
