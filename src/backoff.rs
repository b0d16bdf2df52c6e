//! Back-off ladders: how long a failing destination is left alone after its n-th failure in a row.
//!
//! Pure: randomness comes in as an argument, and no clock is read. Jitter is full (anything up to the step), because many
//! sidecars that lost the same destination at the same moment must not come back to it at the same moment.

use std::time::Duration;

use rand::Rng;

/// No delay is shorter: a jitter close to zero would be a second attempt within the same incident.
pub const MIN_DELAY: Duration = Duration::from_millis(100);

/// Steps of a destination and the age at which a delivery is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    steps_seconds: &'static [u64],
    give_up_after: Duration,
}

/// Webhook and SIEM: patient, because a machine can still use the alert days later.
pub const MACHINE: Ladder =
    Ladder { steps_seconds: &[1, 5, 30, 120, 600, 1800, 3600, 7200, 14_400], give_up_after: hours(72) };

/// Chat, pager and mail: short steps, because a person wants the alert now or hardly at all.
pub const PERSON: Ladder =
    Ladder { steps_seconds: &[1, 2, 5, 10, 30, 60, 120, 300, 600, 900], give_up_after: hours(24) };

impl Ladder {
    /// The longest delay after failure number `failures` (from 1); the last step repeats.
    #[must_use]
    pub fn step(&self, failures: u32) -> Duration {
        let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        let seconds = self.steps_seconds.get(index).or(self.steps_seconds.last());
        Duration::from_secs(seconds.copied().unwrap_or_default())
    }

    /// The delay to use after failure number `failures`: anything from [`MIN_DELAY`] up to the step.
    pub fn delay(&self, failures: u32, rng: &mut impl Rng) -> Duration {
        let step_ms = u64::try_from(self.step(failures).as_millis()).unwrap_or(u64::MAX);
        let min_ms = u64::try_from(MIN_DELAY.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(rng.random_range(min_ms.min(step_ms)..=step_ms))
    }

    /// Whether a delivery of this age is not tried again after one more failure.
    #[must_use]
    pub fn gives_up_at(&self, age: Duration) -> bool {
        age >= self.give_up_after
    }
}

const fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn the_ladders_are_those_of_the_policy() {
        let shown = |ladder: &Ladder| (1..=12).map(|n| ladder.step(n).as_secs()).collect::<Vec<_>>();
        assert_eq!(shown(&MACHINE), [1, 5, 30, 120, 600, 1800, 3600, 7200, 14_400, 14_400, 14_400, 14_400]);
        assert_eq!(shown(&PERSON), [1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 900, 900]);
        assert_eq!(MACHINE.step(u32::MAX), hours(4));
        assert_eq!(MACHINE.step(0), MACHINE.step(1), "a step is never zero");
    }

    #[test]
    fn deliveries_are_given_up_at_the_age_of_the_profile() {
        for (ladder, limit) in [(MACHINE, hours(72)), (PERSON, hours(24))] {
            assert!(!ladder.gives_up_at(limit - Duration::from_millis(1)));
            assert!(ladder.gives_up_at(limit));
        }
    }

    #[test]
    fn jitter_is_full_bounded_and_comes_from_the_seed() {
        for failures in 1..=10 {
            let step = MACHINE.step(failures);
            let mut rng = SmallRng::seed_from_u64(7);
            let drawn: Vec<_> = (0..1000).map(|_| MACHINE.delay(failures, &mut rng)).collect();
            assert!(drawn.iter().all(|delay| (MIN_DELAY..=step).contains(delay)));
            assert!(drawn.iter().any(|delay| *delay < step / 4), "step {failures} uses its lower part");
            assert!(drawn.iter().any(|delay| *delay > step * 9 / 10), "step {failures} uses its upper part");
            let mut again = SmallRng::seed_from_u64(7);
            assert_eq!(MACHINE.delay(failures, &mut again), drawn[0]);
        }
    }
}
