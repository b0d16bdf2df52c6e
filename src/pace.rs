//! How fast a destination may be sent to: a rate as people write it, and the bucket of tokens that keeps to it.
//!
//! Pure: time is an argument. A token is reserved, not waited for: whoever asks is told when its send may begin, so that
//! several senders to one destination take turns in the order in which they asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Most sends in one unit: beyond this a limit is none that a lane could reach.
pub const MAX_SENDS: u32 = 1000;
/// Most tokens that a bucket may hold: a burst is meant to be short.
pub const MAX_BURST: u64 = 100;
/// Units of a rate.
const UNITS: &[(&str, u64)] = &[("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];

/// So many sends in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    interval: Duration,
}

impl Rate {
    /// Reads `1/s`, `30/m`, `100/h`, `500/d`; `None` when it is no rate from 1 to [`MAX_SENDS`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
        let count = count.trim();
        let sends = count.parse::<u32>().ok().filter(|_| count.bytes().all(|byte| byte.is_ascii_digit()))?;
        let interval = Duration::from_secs(*seconds);
        (1..=MAX_SENDS).contains(&sends).then(|| Self { interval: interval / sends })
    }
}

/// What all senders to one destination share. It is full at the start of the process.
#[derive(Debug, Default)]
pub struct Bucket {
    /// When the bucket would be full again if nothing more were taken.
    full_at: Mutex<Option<Instant>>,
}

/// One sender's rate over the destination's bucket.
#[derive(Debug, Clone)]
pub struct Pace {
    interval: Duration,
    burst: u32,
    bucket: Arc<Bucket>,
}

/// A token that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The send may begin then, not before.
    pub ready_at: Instant,
    full_at: Instant,
}

impl Pace {
    /// `rate` in the long run, and up to `burst` sends at once after a silence.
    #[must_use]
    pub fn new(rate: Rate, burst: u32, bucket: Arc<Bucket>) -> Self {
        Self { interval: rate.interval, burst: burst.max(1), bucket }
    }

    /// Takes the next token.
    #[must_use]
    pub fn take(&self, now: Instant) -> Token {
        let mut full_at = self.bucket.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, ready_at) = self.next(*full_at, now);
        let token = Token { ready_at, full_at: from + self.interval };
        *full_at = Some(token.full_at);
        token
    }

    /// Puts a token back that was not used. One behind which others have queued is lost: they were told their time.
    pub fn put_back(&self, token: Token) {
        let mut full_at = self.bucket.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if *full_at == Some(token.full_at) {
            *full_at = token.full_at.checked_sub(self.interval);
        }
    }

    /// How many sends could begin within this time from now.
    #[must_use]
    pub fn within(&self, time: Duration, now: Instant) -> usize {
        let full_at = *self.bucket.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, _) = self.next(full_at, now);
        let ahead = from.saturating_duration_since(now);
        let span = (time + self.allowance()).saturating_sub(ahead);
        let later = span.as_nanos() / self.interval.as_nanos().max(1);
        let first = u128::from(time + self.allowance() >= ahead);
        usize::try_from(later + first).unwrap_or(usize::MAX)
    }

    fn next(&self, full_at: Option<Instant>, now: Instant) -> (Instant, Instant) {
        let from = full_at.map_or(now, |at| at.max(now));
        let ready_at = from.checked_sub(self.allowance()).map_or(now, |at| at.max(now));
        (from, ready_at)
    }

    /// How far the bucket may be from full and still give a token at once.
    fn allowance(&self) -> Duration {
        self.interval * (self.burst - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: &str, burst: u32) -> Pace {
        Pace::new(Rate::parse(rate).expect("a rate"), burst, Arc::default())
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        let cases =
            [("1/s", 1000), ("30/m", 2000), (" 4 / s ", 250), ("1/h", 3_600_000), ("1000/s", 1), ("1/d", 86_400_000)];
        for (text, interval_ms) in cases {
            let expected = Rate { interval: Duration::from_millis(interval_ms) };
            assert_eq!(Rate::parse(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "1",
            "/s",
            "1/",
            "0/s",
            "1001/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "1/w",
            "1/S",
            "1/s/s",
            "99999999999/s",
            "NaN/s",
        ] {
            assert_eq!(Rate::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_by_the_rate() {
        let (pace, now) = (pace("1/s", 3), Instant::now());
        let after: Vec<u64> = (0..6).map(|_| (pace.take(now).ready_at - now).as_secs()).collect();
        assert_eq!(after, [0, 0, 0, 1, 2, 3]);
        let later = now + Duration::from_secs(60);
        let after: Vec<u64> = (0..4).map(|_| (pace.take(later).ready_at - later).as_secs()).collect();
        assert_eq!(after, [0, 0, 0, 1], "full again, and not fuller");
    }

    #[test]
    fn no_time_holds_more_than_burst_and_rate_allow() {
        let (pace, start) = (pace("20/m", 10), Instant::now());
        let begins: Vec<Instant> = (0..200).map(|_| pace.take(start).ready_at).collect();
        for first in &begins {
            let minute = begins.iter().filter(|at| *at >= first && **at < *first + Duration::from_secs(60)).count();
            assert!(minute <= 30, "{minute} in one minute");
        }
    }

    #[test]
    fn senders_to_one_destination_take_turns() {
        let bucket = Arc::new(Bucket::default());
        let pace = |rate| Pace::new(Rate::parse(rate).expect("a rate"), 1, Arc::clone(&bucket));
        let (one, other, now) = (pace("1/s"), pace("2/s"), Instant::now());
        let after = [&one, &other, &one, &other].map(|pace| (pace.take(now).ready_at - now).as_millis());
        assert_eq!(after, [0, 1000, 1500, 2500], "each send takes up its own share");
    }

    #[test]
    fn a_token_that_was_not_used_goes_back_unless_others_have_queued() {
        let (pace, now) = (pace("1/m", 1), Instant::now());
        let token = pace.take(now);
        pace.put_back(token);
        let (first, second) = (pace.take(now), pace.take(now));
        assert_eq!(first.ready_at, now);
        pace.put_back(first);
        assert_eq!(pace.take(now).ready_at - now, Duration::from_secs(120));
        assert_eq!(second.ready_at - now, Duration::from_secs(60));
    }

    #[test]
    fn what_could_begin_within_a_time_is_what_is_then_told() {
        for (rate, burst, taken) in [("1/s", 1, 0), ("1/s", 3, 2), ("7/s", 5, 40), ("30/m", 10, 35), ("1/h", 1, 1)] {
            for seconds in [0, 1, 10, 60] {
                let (pace, now) = (pace(rate, burst), Instant::now());
                assert!((0..taken).all(|_| pace.take(now).ready_at >= now));
                let time = Duration::from_secs(seconds);
                let promised = pace.within(time, now);
                let begun = (0..1000).filter(|_| pace.take(now).ready_at <= now + time).count();
                assert_eq!(promised, begun, "{rate} burst {burst}, {taken} taken, {seconds} s");
            }
        }
    }
}
