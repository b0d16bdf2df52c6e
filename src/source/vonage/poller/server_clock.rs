//! Whether a `Date` can be believed. A frontier stands on it, so one wrong `Date` would lose what happens until the time
//! that it shows.
//!
//! Our own clocks only vouch: a `Date` counts if it fits the last one and the (monotonic) time since then, or our wall
//! clock. One that fits neither moves no frontier further than time has passed since the last one that counted. A lower
//! frontier only costs requests; so a `Date` that lies back is believed once it stays that way, one that lies ahead
//! never.

use std::time::Duration;

use tokio::time::Instant;

use crate::source::vonage::state::ClockMark;

/// Whole seconds, the way of an answer, and servers that share an address without sharing a clock.
pub const SLACK_S: i64 = 60;
/// Clocks that nobody sets drift by minutes. Less than half the shortest look-back, which therefore covers it.
pub const WALL_SLACK_S: i64 = 240;
/// Answers in a row that agree with each other before their clock is believed against ours: a single one may come from
/// a cache or a server that is being started.
const AGREEING_ANSWERS: u32 = 5;
/// The operator is told no more often than this.
const MIN_BETWEEN: Duration = Duration::from_secs(3_600);

/// The clock of the other side, as far as it is known.
#[derive(Debug, Clone)]
pub struct ServerClock {
    /// The last `Date` that counted. After a restart the time that passed meanwhile is unknown: at least none.
    reference: Option<(i64, Instant)>,
    /// The last one that did not, and how many agreed with it.
    doubted: Option<(i64, Instant, u32)>,
    told_at: Option<Instant>,
}

/// What a `Date` is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Server time, for everything but frontiers.
    pub at_s: i64,
    /// Server time that a frontier may stand on: never later than what can be vouched for.
    pub frontier_s: i64,
    /// The `Date` counts.
    pub is_believed: bool,
}

impl ServerClock {
    /// Goes on from the last `Date` that counted before a restart.
    #[must_use]
    pub fn new(date_s: Option<i64>, now: Instant) -> Self {
        Self { reference: date_s.map(|date_s| (date_s, now)), doubted: None, told_at: None }
    }

    /// Takes the `Date` of an answer that came `now`. `mark` is what the last commit kept.
    pub fn read(&mut self, date_s: i64, wall_s: i64, mark: Option<ClockMark>, now: Instant) -> Reading {
        let expected_s = self.expected_s(now);
        let fits_ours = is_near(date_s, wall_s, WALL_SLACK_S)
            || mark.is_some_and(|mark| is_near(date_s - mark.date_s, wall_s - mark.wall_s, WALL_SLACK_S));
        let fits_last = expected_s.is_some_and(|expected_s| is_near(date_s, expected_s, SLACK_S));
        // Ahead of all that we know, however often it is said, it may be the one clock that is wrong.
        let may_persist = expected_s.is_none_or(|expected_s| date_s < expected_s);
        if fits_ours || fits_last || (self.doubt(date_s, now) >= AGREEING_ANSWERS && may_persist) {
            self.doubted = None;
            self.reference = Some((date_s, now));
            return Reading { at_s: date_s, frontier_s: date_s, is_believed: true };
        }
        let at_s = expected_s.unwrap_or(date_s);
        Reading { at_s, frontier_s: at_s.min(date_s), is_believed: false }
    }

    /// The last answer's `Date` did not count.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.doubted.is_some()
    }

    /// Whether the operator is to be told, now that a `Date` did not count.
    pub fn tells(&mut self, now: Instant) -> bool {
        let is_due = self.told_at.is_none_or(|told_at| now.saturating_duration_since(told_at) >= MIN_BETWEEN);
        if is_due {
            self.told_at = Some(now);
        }
        is_due
    }

    /// Server time now, as far as it is known.
    #[must_use]
    pub fn expected_s(&self, now: Instant) -> Option<i64> {
        self.reference.map(|(date_s, at)| date_s.saturating_add(seconds_between(at, now)))
    }

    /// The same, unless the last answer makes it doubtful.
    #[must_use]
    pub fn vouched_s(&self, now: Instant) -> Option<i64> {
        self.expected_s(now).filter(|_| !self.is_doubted())
    }

    /// How many in a row agree with this one, itself included.
    fn doubt(&mut self, date_s: i64, now: Instant) -> u32 {
        let agreeing = match self.doubted {
            Some((last_s, at, agreeing)) if is_near(date_s, last_s + seconds_between(at, now), SLACK_S) => agreeing + 1,
            _ => 1,
        };
        self.doubted = Some((date_s, now, agreeing));
        agreeing
    }
}

fn is_near(left_s: i64, right_s: i64, slack_s: i64) -> bool {
    left_s.abs_diff(right_s) <= slack_s.unsigned_abs()
}

fn seconds_between(from: Instant, to: Instant) -> i64 {
    i64::try_from(to.saturating_duration_since(from).as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN_S: i64 = 1_700_000_000;
    const MONTH_S: i64 = 30 * 86_400;

    /// What comes of dates that are off by so much, one a minute, by a wall clock that is off by `wall_s`.
    fn run(mut clock: ServerClock, wall_s: i64, mark: Option<ClockMark>, off_s: &[i64]) -> Vec<Reading> {
        let begun = Instant::now();
        let readings = off_s.iter().zip(0u32..).map(|(off_s, minute)| {
            let true_s = BEGIN_S + 60 * i64::from(minute);
            let reading = clock.read(true_s + off_s, true_s + wall_s, mark, begun + Duration::from_secs(60) * minute);
            let Reading { at_s, frontier_s, is_believed } = reading;
            Reading { at_s: at_s - true_s, frontier_s: frontier_s - true_s, is_believed }
        });
        readings.collect()
    }

    fn known() -> ServerClock {
        ServerClock::new(Some(BEGIN_S), Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_date_far_ahead_moves_nothing_further_than_time_has_passed() {
        for reading in run(known(), 0, None, &[0, MONTH_S, MONTH_S, -3, MONTH_S]) {
            assert!(reading.frontier_s <= SLACK_S, "{reading:?}");
        }
        let for_long = run(known(), 0, None, &[MONTH_S; 50]);
        assert!(for_long.iter().all(|reading| !reading.is_believed && reading.frontier_s == 0), "{for_long:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_date_that_lies_back_holds_the_frontier_until_it_stays_that_way() {
        let readings = run(known(), 7_200, None, &[0, -3_600, 0, -3_600, -3_600, -3_600, -3_600, -3_600]);
        let believed: Vec<bool> = readings.iter().map(|reading| reading.is_believed).collect();
        assert_eq!(believed, [true, false, true, false, false, false, false, true]);
        assert!(readings.iter().all(|reading| reading.frontier_s <= 0), "{readings:?}");
        assert_eq!(readings.get(1).map(|reading| reading.at_s), Some(0), "an answer out of a cache");
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_date_that_our_clock_denies_must_repeat_itself() {
        let unknown = || ServerClock::new(None, Instant::now());
        assert!(run(unknown(), 0, None, &[0]).iter().all(|reading| reading.is_believed));
        let believed = run(unknown(), -MONTH_S, None, &[0; 6]).iter().filter(|reading| reading.is_believed).count();
        assert_eq!(believed, 2, "a machine without a clock polls all the same");
        assert!(run(unknown(), 0, None, &[MONTH_S, 0, MONTH_S]).get(1).is_some_and(|reading| reading.is_believed));
    }

    #[tokio::test(start_paused = true)]
    async fn after_downtime_our_clock_vouches_even_if_it_is_always_wrong() {
        let down_s = 7_200;
        let clock = || ServerClock::new(Some(BEGIN_S - down_s), Instant::now());
        assert!(run(clock(), 0, None, &[0]).iter().all(|reading| reading.is_believed));
        let mark = ClockMark { date_s: BEGIN_S - down_s, wall_s: BEGIN_S - down_s - MONTH_S };
        assert!(run(clock(), -MONTH_S, Some(mark), &[0]).iter().all(|reading| reading.is_believed));
        let alone = run(clock(), -MONTH_S, None, &[0; 9]);
        assert!(alone.iter().all(|reading| !reading.is_believed && reading.frontier_s == -down_s), "{alone:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_poisoned_reference_gives_way_to_our_clock() {
        let poisoned = ServerClock::new(Some(BEGIN_S + MONTH_S), Instant::now());
        assert_eq!(run(poisoned, 0, None, &[0]).first().map(|reading| reading.is_believed), Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn the_operator_is_told_once_an_hour() {
        let (mut clock, now) = (known(), Instant::now());
        assert!(clock.tells(now) && !clock.tells(now + Duration::from_secs(60)));
        assert!(clock.tells(now + MIN_BETWEEN));
    }
}
