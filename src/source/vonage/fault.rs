//! What follows from a failed request: how long to wait and when the operator must know.
//!
//! It never gives up: a failed request changes nothing, so the same one is made again. The pause is drawn from the
//! whole range (full jitter), so that many pollers do not come back together.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use crate::source::vonage::client::{ClientError, describe};
use crate::source::{Fault, Notice, NoticeKind, SourceError};

/// Shortest upper end of the range that a pause is drawn from.
const MIN_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause that we choose ourselves.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause that the API may ask for; beyond it we probe.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);
/// A refused account is probed this often: the key may be restored, and refusals may lock an account.
const REFUSED_PROBE: Duration = Duration::from_secs(5 * 60);
/// Failures for longer than this are worth an alert by themselves.
const FAILING_AFTER: Duration = Duration::from_secs(5 * 60);

/// Failures for less than this do not mean that everything fails: four polls.
const ALONE_WITHIN: Duration = Duration::from_secs(60);

/// The run of failures so far.
#[derive(Debug)]
pub struct Faults {
    random: SmallRng,
    failures: u32,
    failing_since: Option<Instant>,
    told_failing: bool,
    told_refused: bool,
}

impl Faults {
    /// `seed` decides the jitter only.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            failures: 0,
            failing_since: None,
            told_failing: false,
            told_refused: false,
        }
    }

    /// A request succeeded.
    pub fn clear(&mut self) {
        self.failures = 0;
        self.failing_since = None;
        self.told_failing = false;
        self.told_refused = false;
    }

    /// Something succeeded a while ago at most: what fails now fails by itself.
    #[must_use]
    pub fn others_work(&self, now: Instant) -> bool {
        self.failing_since.is_none_or(|since| now.saturating_duration_since(since) < ALONE_WITHIN)
    }

    /// A pause after so many failures in a row: up to 0.5 s, 1 s, 2 s .. 60 s.
    pub fn pause(&mut self, failures: u32) -> Duration {
        let doubled = MIN_PAUSE.saturating_mul(1u32 << failures.saturating_sub(1).min(16)).min(MAX_PAUSE);
        let most_ms = u64::try_from(doubled.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.random.random_range(0..=most_ms))
    }

    /// What the caller is told about a failure.
    pub fn classify(&mut self, error: &ClientError, now: Instant) -> SourceError {
        self.failures = self.failures.saturating_add(1);
        let message = describe(error);
        if let ClientError::Refused { .. } = error {
            let notice = (!std::mem::replace(&mut self.told_refused, true)).then(|| Notice {
                kind: NoticeKind::PollingRefused,
                message: format!("{message}; if nobody changed the key, an intruder may have revoked it"),
            });
            return SourceError { fault: Fault::Refused(REFUSED_PROBE), message, notice };
        }
        let asked = error.pause();
        // A pause that was asked for is kept in full; the jitter on top spreads those who were asked the same.
        let pause = self.pause(self.failures);
        let pause = asked.map_or(pause, |asked| asked.min(MAX_RETRY_AFTER) + pause.min(Duration::from_secs(1)));
        let since = *self.failing_since.get_or_insert(now);
        let failing = now.saturating_duration_since(since) >= FAILING_AFTER;
        let notice = (failing && !std::mem::replace(&mut self.told_failing, true)).then(|| Notice {
            kind: NoticeKind::PollingFailing,
            message: format!("polling has failed for {} s: {message}", now.saturating_duration_since(since).as_secs()),
        });
        SourceError { fault: Fault::RetryAfter(pause), message, notice }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::vonage::client::BodyFault;

    fn limited(pause_s: u64) -> ClientError {
        ClientError::RateLimited { retry_after: Some(Duration::from_secs(pause_s)) }
    }

    fn pause_of(error: &SourceError) -> Duration {
        match error.fault {
            Fault::RetryAfter(pause) | Fault::Refused(pause) => pause,
            Fault::Stop => Duration::MAX,
        }
    }

    #[test]
    fn pauses_grow_up_to_a_minute_and_are_jittered() {
        let mut faults = Faults::new(7);
        for (failures, most_ms) in [(1, 500), (2, 1_000), (3, 2_000), (8, 60_000), (40, 60_000)] {
            let pauses: Vec<u128> = (0..400).map(|_| faults.pause(failures).as_millis()).collect();
            let (least, most) = (pauses.iter().min().expect("some"), pauses.iter().max().expect("some"));
            assert!(
                *most <= most_ms && *most > most_ms * 9 / 10 && *least < most_ms / 10,
                "{failures}: {least}..{most}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_was_asked_for_is_kept_up_to_a_quarter_of_an_hour() {
        let mut faults = Faults::new(7);
        let now = Instant::now();
        let kept = pause_of(&faults.classify(&limited(40), now));
        assert!((40..=41).contains(&kept.as_secs()), "{kept:?}");
        let kept = pause_of(&faults.classify(&limited(86_400), now));
        assert!((900..=901).contains(&kept.as_secs()), "{kept:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_operator_is_told_once_per_episode() {
        let mut faults = Faults::new(7);
        let refused = ClientError::Refused { status: 401, message: String::new() };
        let first = faults.classify(&refused, Instant::now());
        assert_eq!(first.fault, Fault::Refused(REFUSED_PROBE));
        assert_eq!(first.notice.map(|notice| notice.kind), Some(NoticeKind::PollingRefused));
        assert!(faults.classify(&refused, Instant::now()).notice.is_none());
        faults.clear();
        assert!(faults.classify(&refused, Instant::now()).notice.is_some());

        faults.clear();
        let broken = ClientError::Body(BodyFault::Html);
        assert!(faults.classify(&broken, Instant::now()).notice.is_none());
        tokio::time::advance(FAILING_AFTER).await;
        let later = faults.classify(&broken, Instant::now()).notice.expect("a notice");
        assert_eq!(later.kind, NoticeKind::PollingFailing);
        assert!(faults.classify(&broken, Instant::now()).notice.is_none());
    }
}
