//! The clocks as an argument. Sleeping goes through tokio's time, so that tests can pause it.
//!
//! There are two: the time of day, which people and NTP set, and a steady one, which nobody sets. What waits (a delivery, a
//! lease, a pause) waits on the steady one, or a step of the time of day would hold it up or let it go too early.

use std::sync::OnceLock;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

/// Tells the time. Neither of its two readings drives a frontier or a rule.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time of day: for display, and for what others compare with their own clocks.
    fn now(&self) -> DateTime<Utc>;

    /// The time of day at the start of the process, plus what has passed since. It never jumps; after a step of the clock
    /// it differs from `now` by the step, until the next start.
    fn steady(&self) -> DateTime<Utc>;
}

/// Read once, by the first that asks: what a reload finds scheduled must still mean the same.
static START: OnceLock<(DateTime<Utc>, Instant)> = OnceLock::new();

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn steady(&self) -> DateTime<Utc> {
        let (start, started) = START.get_or_init(|| (self.now(), Instant::now()));
        after(*start, *started)
    }
}

/// A clock that follows tokio's (pausable) time from a fixed start: for tests and simulations.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    start: DateTime<Utc>,
    started: Instant,
}

impl TokioClock {
    /// Starts at `start`; must be called within a tokio runtime.
    #[must_use]
    pub fn starting_at(start: DateTime<Utc>) -> Self {
        Self { start, started: Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> DateTime<Utc> {
        after(self.start, self.started)
    }

    fn steady(&self) -> DateTime<Utc> {
        self.now()
    }
}

/// A time of day that a test sets by whole seconds; the steady reading follows tokio's time.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct SetClock {
    steady: TokioClock,
    set_by_s: std::sync::atomic::AtomicI64,
}

#[cfg(test)]
impl SetClock {
    pub(crate) fn starting_at(start: DateTime<Utc>) -> Self {
        Self { steady: TokioClock::starting_at(start), set_by_s: std::sync::atomic::AtomicI64::default() }
    }

    pub(crate) fn set_by(&self, seconds: i64) {
        self.set_by_s.store(seconds, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Clock for SetClock {
    fn now(&self) -> DateTime<Utc> {
        self.steady.now() + TimeDelta::seconds(self.set_by_s.load(std::sync::atomic::Ordering::Relaxed))
    }

    fn steady(&self) -> DateTime<Utc> {
        self.steady.now()
    }
}

fn after(start: DateTime<Utc>, started: Instant) -> DateTime<Utc> {
    let elapsed = TimeDelta::from_std(started.elapsed()).ok();
    elapsed.and_then(|elapsed| start.checked_add_signed(elapsed)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
