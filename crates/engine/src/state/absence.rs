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
