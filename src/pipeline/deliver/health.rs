//! How a destination stands, and what follows from the outcome of an attempt, for the delivery and for its lane.
//!
//! Pure but for the seeded jitter: both clocks come in as arguments. The destination backs off, not the delivery: only the
//! first failure since the lane last changed is a new step; what was in flight with it just waits along.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::notice::LaneNoticeKind;
use crate::backoff::{Ladder, MACHINE, PERSON};
use crate::sink::{AttemptReport, Delivery, Outcome, RetryProfile};
use crate::store::{LaneState, Resolution};

/// A destination may pause its lane for this long at most; a longer hint would be an outage in disguise.
pub const MAX_WAIT: Duration = Duration::from_secs(6 * 3600);
/// Shortest pause after a destination asked for one (`Retry-After: 0`).
pub const MIN_WAIT: Duration = Duration::from_secs(1);
/// How often a destination that refuses us is probed. See [`OwnPauses`].
pub const MISCONFIGURED_PROBE: Duration = Duration::from_secs(300);
/// After this long without a delivery the operator is told.
pub const FAILING_NOTICE_AFTER: Duration = Duration::from_secs(300);

/// Now, by every clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// What the lane waits by.
    pub(super) instant: Instant,
    /// The same as a time, which the store can keep: when rows are due, leases and pauses end.
    pub(super) steady: DateTime<Utc>,
    /// The time of day: for the ledger.
    pub(super) wall: DateTime<Utc>,
}

/// One finished attempt.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) delivery: &'a Delivery,
    pub(super) report: &'a AttemptReport,
    /// [`Health::epoch`] when it began.
    pub(super) epoch: u64,
}

/// Until when sinks rest by our own decision, by name: after a failure or a refusal. Such a pause is no wish of the
/// destination, so it ends with the configuration: whoever starts the program or loads it again may just have mended what
/// failed, and gets one probe at once. It outlives a lane, for a finite run makes several.
#[derive(Debug, Clone, Default)]
pub struct OwnPauses(Arc<Mutex<HashMap<String, Instant>>>);

impl OwnPauses {
    pub(super) fn until(&self, sink: &str) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(sink).copied()
    }

    pub(super) fn note(&self, sink: &str, until: Option<Instant>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match until {
            Some(until) => drop(all.insert(sink.to_owned(), until)),
            None => drop(all.remove(sink)),
        }
    }
}

/// Why a lane pauses after a failure.
enum Pause {
    /// By the step of its back-off.
    Ladder,
    /// For as long as the destination said. Only this one is kept over a start.
    Asked(Duration),
    /// We are refused, which only we can mend.
    Refused,
}

/// What becomes of the delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Settle(Resolution),
    /// Once more as plain text, if there is a plain text that was not tried yet.
    Plain,
}

/// A destination's standing.
#[derive(Debug)]
pub(super) struct Health {
    ladder: Ladder,
    jitter: SmallRng,
    state: LaneState,
    asked_until: Option<Instant>,
    own_until: Option<Instant>,
    failing_since: Option<Instant>,
    /// As `failing_since`, but of failures that are the destination's: since it last refused us.
    in_trouble_since: Option<Instant>,
    /// When somebody asked for an attempt, as the store last said it; `None` before the first look.
    seen_ask: Option<Option<DateTime<Utc>>>,
    told: Option<LaneNoticeKind>,
    epoch: u64,
}

impl Health {
    /// Takes up what the store kept of the lane, and what this configuration knows of its own pauses.
    pub(super) fn new(
        profile: RetryProfile,
        jitter_seed: u64,
        state: LaneState,
        own_until: Option<Instant>,
        now: Now,
    ) -> Self {
        let ladder = match profile {
            RetryProfile::Machine => MACHINE,
            RetryProfile::Person => PERSON,
        };
        // A clock that was set back before this start must not stretch the pause.
        let rest = |until: DateTime<Utc>| (until - now.steady).to_std().unwrap_or_default().min(MAX_WAIT);
        let rest = state.paused_until.map(rest);
        Self {
            ladder,
            jitter: SmallRng::seed_from_u64(jitter_seed),
            asked_until: rest.map(|rest| now.instant + rest),
            own_until,
            failing_since: (state.step > 0).then_some(now.instant),
            state: LaneState { paused_until: rest.map(|rest| later(now.steady, rest)), ..state },
            in_trouble_since: None,
            seen_ask: None,
            told: None,
            epoch: 0,
        }
    }

    /// Changes whenever the lane pauses or opens; an attempt that began before is no news.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What the store keeps.
    pub(super) fn state(&self) -> &LaneState {
        &self.state
    }

    /// After a failure one attempt at a time is made, until one succeeds.
    pub(super) fn is_probing(&self) -> bool {
        self.state.step > 0
    }

    /// The end of the pause, if there is one and it lies ahead.
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.asked_until.max(self.own_until).filter(|until| *until > now)
    }

    /// The part of the pause that is for [`OwnPauses`] to keep.
    pub(super) fn own_until(&self) -> Option<Instant> {
        self.own_until
    }

    /// Ends whatever pause there is, once for each time at which somebody asked for it, so that a failing destination is
    /// probed; whether it did.
    pub(super) fn open_if_asked(&mut self, asked_at: Option<DateTime<Utc>>, now: Instant) -> bool {
        let is_new = self.seen_ask.is_some_and(|seen| asked_at.is_some() && seen != asked_at);
        let opens = is_new && self.paused_until(now).is_some();
        if opens {
            (self.asked_until, self.own_until, self.state.paused_until) = (None, None, None);
            self.epoch += 1;
        }
        // A probe that is on its way may have begun before: then the pause that follows it is the one to end.
        if opens || !(is_new && self.is_probing()) {
            self.seen_ask = Some(asked_at);
        }
        opens
    }

    /// What follows from an attempt. The lane's own change shows in `state` and `epoch`.
    pub(super) fn judge(&mut self, attempt: &Attempt<'_>, now: Now) -> Next {
        match attempt.report.outcome {
            Outcome::Delivered => {
                self.answered(attempt, now, Next::Settle(Resolution::Delivered { unconfirmed: false }))
            }
            Outcome::Accepted => self.answered(attempt, now, Next::Settle(Resolution::Delivered { unconfirmed: true })),
            // Nobody was asked, so nothing is known of the destination.
            Outcome::Needless => Next::Settle(Resolution::Delivered { unconfirmed: false }),
            Outcome::NotYet(delay) => {
                Next::Settle(self.again_in(attempt.delivery, delay.clamp(MIN_WAIT, MAX_WAIT), now))
            }
            Outcome::Dead => self.answered(attempt, now, Next::Settle(Resolution::Dead)),
            Outcome::Degrade => self.answered(attempt, now, Next::Plain),
            Outcome::Later(delay) => {
                let resolution = self.again_in(attempt.delivery, delay.clamp(MIN_WAIT, MAX_WAIT), now);
                self.answered(attempt, now, Next::Settle(resolution))
            }
            Outcome::Retry | Outcome::Wait(None) => {
                self.failed(attempt, Pause::Ladder, now);
                // It is the lane that waits; the row is due as soon as that opens.
                let own = self.own_delay(attempt.delivery);
                Next::Settle(self.again_in(attempt.delivery, own, now))
            }
            Outcome::Wait(Some(hint)) => {
                self.failed(attempt, Pause::Asked(hint.clamp(MIN_WAIT, MAX_WAIT)), now);
                Next::Settle(self.again_in(attempt.delivery, Duration::ZERO, now))
            }
            Outcome::Misconfigured => {
                self.failed(attempt, Pause::Refused, now);
                Next::Settle(Resolution::Refused(due_at(attempt.delivery, Duration::ZERO, now)))
            }
        }
    }

    /// What the operator should be told after an attempt with this outcome, if anything.
    pub(super) fn notice(&mut self, outcome: &Outcome, now: Instant) -> Option<LaneNoticeKind> {
        let failing_for = self.failing_since.map(|since| now.saturating_duration_since(since));
        let kind = match (self.told, failing_for) {
            (Some(_), None) => {
                self.told = None;
                return Some(LaneNoticeKind::Recovered);
            }
            (told, Some(_)) if *outcome == Outcome::Misconfigured => {
                (told != Some(LaneNoticeKind::Misconfigured)).then_some(LaneNoticeKind::Misconfigured)
            }
            (None, Some(failing_for)) => (failing_for >= FAILING_NOTICE_AFTER).then_some(LaneNoticeKind::Failing),
            (Some(_), Some(_)) | (None, None) => None,
        };
        self.told = kind.or(self.told);
        kind
    }

    /// The destination said that it takes nothing more for this long. That is no failure: no step, and no probe after it.
    pub(super) fn hold(&mut self, pause: Duration, reason: &str, now: Now) {
        self.pause(pause.min(MAX_WAIT), reason, now);
    }

    fn answered(&mut self, attempt: &Attempt<'_>, now: Now, next: Next) -> Next {
        // One that began before the pause says nothing about the pause: a Retry-After stands in full.
        if self.is_probing() && attempt.epoch == self.epoch {
            self.state = LaneState::default();
            self.asked_until = None;
            self.own_until = None;
            self.failing_since = None;
            self.in_trouble_since = None;
            self.epoch += 1;
        }
        if !self.is_probing() && self.state.paused_until.is_some() && self.paused_until(now.instant).is_none() {
            self.state = LaneState::default();
        }
        next
    }

    fn failed(&mut self, attempt: &Attempt<'_>, pause: Pause, now: Now) {
        let straggler = self.is_probing() && attempt.epoch != self.epoch;
        if !straggler {
            self.state.step = self.state.step.saturating_add(1);
            self.failing_since.get_or_insert(now.instant);
            self.epoch += 1;
        }
        let reason = &attempt.report.status;
        self.in_trouble_since = match pause {
            Pause::Refused => None,
            Pause::Ladder | Pause::Asked(_) => self.in_trouble_since.or(Some(now.instant)),
        };
        match pause {
            Pause::Asked(delay) => self.pause(delay, reason, now),
            Pause::Ladder if straggler => {}
            Pause::Ladder => {
                let delay = self.ladder.delay(self.state.step, &mut self.jitter);
                self.rest(delay, reason, now);
            }
            Pause::Refused => self.rest(MISCONFIGURED_PROBE, reason, now),
        }
    }

    /// As [`Self::pause`], by our own decision.
    fn rest(&mut self, delay: Duration, reason: &str, now: Now) {
        self.own_until = self.own_until.max(Some(now.instant + delay));
        reason.clone_into(&mut self.state.reason);
    }

    /// A pause is never made shorter.
    fn pause(&mut self, delay: Duration, reason: &str, now: Now) {
        let until = now.instant + delay;
        if self.asked_until.is_none_or(|present| present < until) {
            self.asked_until = Some(until);
            self.state.paused_until = Some(later(now.steady, delay));
            reason.clone_into(&mut self.state.reason);
        }
    }

    /// A delivery that failed more often than its lane is itself the trouble: it waits by the ladder of its own failures
    /// and does not keep the lane from the others.
    fn own_delay(&mut self, delivery: &Delivery) -> Duration {
        let failures = delivery.attempts.saturating_add(1);
        if failures > self.state.step { self.ladder.delay(failures, &mut self.jitter) } else { Duration::ZERO }
    }

    fn again_in(&self, delivery: &Delivery, delay: Duration, now: Now) -> Resolution {
        // Whoever replays a dead letter stamps it by the time of day: after a step of it, the row is as young as it looks.
        let now_by_either = now.steady.min(now.wall);
        let since = |at: DateTime<Utc>| (now_by_either - at).to_std().unwrap_or_default();
        // What waited untried, while we were refused or not running, is no older for it. Nor does it wait for ever untried,
        // when more comes in than there are probes: then the destination has failed for long enough.
        let own = delivery.failing_since.map(since);
        let lane = self.in_trouble_since.map(|since| now.instant.saturating_duration_since(since));
        let age = own.max(lane).unwrap_or_default().min(since(delivery.created_at));
        if self.ladder.gives_up_at(age) { Resolution::Dead } else { Resolution::RetryAt(due_at(delivery, delay, now)) }
    }
}

/// Without a delay, since it is owed: a clock that is set back over a start must not put it off.
fn due_at(delivery: &Delivery, delay: Duration, now: Now) -> DateTime<Utc> {
    if delay.is_zero() { delivery.created_at.min(now.steady) } else { later(now.steady, delay) }
}

/// Total, since a hint may be absurd.
#[must_use]
pub fn later(at: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(by).ok().and_then(|by| at.checked_add_signed(by)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
