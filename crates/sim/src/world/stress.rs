//! A cheap stream of plain events for simulations of polling: bursts with more events in one second than fit a page,
//! quiet gaps, lateness, several styles of stamps. It tells no story; its contexts are empty or tiny, so that hundreds
//! of seeds can be made and served within seconds.

use std::borrow::Cow;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::event::{EVENT_TYPES, Origin, SimEvent, Stamp};
use crate::quirks::Lateness;
use crate::rng::Rng;

/// The account of every stress world.
pub(crate) const ACCOUNT_ID: &str = "abcd1234";

/// Most events of one stream: keeps a mistyped rate from filling the memory.
pub const MAX_STRESS_EVENTS: usize = 2_000_000;

/// What a stress stream is made from.
#[derive(Debug, Clone)]
pub struct StressConfig {
    /// Everything random follows from it.
    pub seed: u64,
    /// No event is older than this.
    pub start: DateTime<Utc>,
    /// Every event is younger than `start` plus this.
    pub duration: Duration,
    /// Average rate outside bursts and gaps.
    pub events_per_hour: f64,
    /// How many bursts come in a day on average.
    pub bursts_per_day: f64,
    /// Largest burst; each is a random part of it, and half of the bursts fall into one single second.
    pub burst_max: u64,
    /// How many quiet gaps come in a day on average.
    pub gaps_per_day: f64,
    /// Longest gap.
    pub gap_max: Duration,
    /// How late events become visible.
    pub lateness: Lateness,
    /// One style for all stamps; `None` mixes naive and zoned, with and without fractions.
    pub stamp: Option<Stamp>,
}

impl StressConfig {
    /// 60 events an hour, 12 bursts a day of up to 250, 6 gaps a day of up to 3 hours, default lateness, mixed stamps.
    #[must_use]
    pub fn new(seed: u64, start: DateTime<Utc>, duration: Duration) -> Self {
        Self {
            seed,
            start,
            duration,
            events_per_hour: 60.0,
            bursts_per_day: 12.0,
            burst_max: 250,
            gaps_per_day: 6.0,
            gap_max: Duration::from_secs(3 * 3_600),
            lateness: Lateness::default(),
            stamp: None,
        }
    }
}

const HOUR_MS: f64 = 3_600_000.0;

/// The stream, ordered by time.
pub(crate) fn play(config: &StressConfig, end: DateTime<Utc>) -> Vec<SimEvent> {
    let mut rng = Rng::new(config.seed);
    let mut events = Vec::new();
    let per_ms = [
        config.events_per_hour / HOUR_MS,
        config.bursts_per_day / (24.0 * HOUR_MS),
        config.gaps_per_day / (24.0 * HOUR_MS),
    ];
    let total: f64 = per_ms.iter().sum();
    if total <= 0.0 {
        return events;
    }
    let [plain, burst, _] = per_ms.map(|rate| rate / total);
    let mut at = config.start;
    while events.len() < MAX_STRESS_EVENTS {
        // Waiting times of a Poisson process; which of the three processes fired is drawn afterwards.
        let wait_ms = -(1.0 - rng.fraction()).ln() / total;
        at += whole_ms(wait_ms);
        if at >= end {
            break;
        }
        let draw = rng.fraction();
        if draw < plain {
            events.push(event(config, at, end, &mut rng));
        } else if draw < plain + burst {
            let spread_ms = if rng.chance(0.5) { 1_000 } else { 4_000 };
            let second = at - TimeDelta::milliseconds(i64::from(at.timestamp_subsec_millis()));
            for _ in 0..rng.between(1, config.burst_max) {
                let shifted = second + TimeDelta::milliseconds(i64::try_from(rng.below(spread_ms)).unwrap_or(0));
                events.push(event(config, shifted.max(config.start), end, &mut rng));
            }
        } else {
            at += TimeDelta::from_std(rng.duration_below(config.gap_max)).unwrap_or_default();
        }
    }
    events.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    events
}

fn event(config: &StressConfig, at: DateTime<Utc>, end: DateTime<Utc>, rng: &mut Rng) -> SimEvent {
    const STYLES: &[Stamp] = &[
        Stamp::Naive,
        Stamp::Naive,
        Stamp::NaiveMillis,
        Stamp::Zulu,
        Stamp::ZuluMillis,
        Stamp::ZuluMillis,
        Stamp::Offset(120),
        Stamp::Offset(-210),
    ];
    let (event_type, _) = rng.pick(EVENT_TYPES).copied().unwrap_or(("USER_LOGIN", ""));
    let mut event = SimEvent::new(rng.uuid(), event_type, at);
    event.stamp = config.stamp.or_else(|| rng.pick(STYLES).copied()).unwrap_or(Stamp::Naive);
    event.set_created_at(at.min(end - TimeDelta::milliseconds(1)));
    event.lateness = config.lateness.draw(rng.bits());
    event.account_id = Cow::Borrowed(ACCOUNT_ID);
    if rng.chance(0.5) {
        event.origin = Origin::Api;
        event.source_ip = Cow::Borrowed("198.51.100.20");
    } else {
        event.user_email = Some("alice@example.org".to_owned());
        event.user_id = Some(1_234_567);
        event.source_ip = Cow::Borrowed("192.0.2.10");
    }
    event.source_country = Some(Cow::Borrowed("GB"));
    event
}

#[expect(clippy::cast_possible_truncation, reason = "a waiting time far below 2^63 ms; the cast saturates anyway")]
fn whole_ms(duration_ms: f64) -> TimeDelta {
    TimeDelta::try_milliseconds(duration_ms.ceil() as i64).unwrap_or(TimeDelta::MAX)
}
