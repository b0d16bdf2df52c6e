//! What a seed decides: the world, the server's knobs and faults, crashes and the rhythm of polling.

use std::time::Duration;

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use vigie::source::vonage::transport::MAX_BODY_BYTES;
use vigie::source::vonage::{Start, Tier};
use vigie_sim::event::Stamp;
use vigie_sim::faults::WRONG_DATE_S;
use vigie_sim::quirks::{Bound, Malformed, Nothing, Quirks, Resolution, SortOrder, Totals};
use vigie_sim::{Fault, FaultChance, Lateness, StressConfig};

/// Longest body in a drawn world: some rows more than an event may be long.
const SMALL_BODY_BYTES: usize = 400_000;

/// Length of a drawn world: three times the last look-back, so that the last sweep cannot repair what was lost before.
const WORLD_S: u64 = 2 * 3_600;

/// Everything that a seed decides.
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) stress: StressConfig,
    pub(super) quirks: Quirks,
    pub(super) faults: Vec<FaultChance>,
    pub(super) tiers: Vec<Tier>,
    pub(super) start: Start,
    /// The daemon begins this long after the world.
    pub(super) head_start: Duration,
    pub(super) crash: f64,
    pub(super) commit_failure: f64,
    /// How far the clock of the machine that polls is ahead.
    pub(super) our_clock_ahead: TimeDelta,
    /// Largest body that the transport reads.
    pub(super) body_bytes: usize,
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn pick<T: Copy>(random: &mut SmallRng, items: &[T]) -> T {
    items[random.random_range(0..items.len())]
}

impl Scenario {
    pub(super) fn draw(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let world_start: DateTime<Utc> = "2026-03-01T00:00:00Z".parse().expect("valid");
        let stress = StressConfig {
            events_per_hour: random.random_range(20.0..120.0),
            bursts_per_day: random.random_range(6.0..40.0),
            burst_max: random.random_range(5..260),
            gaps_per_day: 8.0,
            gap_max: seconds(3_600),
            lateness: Lateness {
                usual: seconds(5),
                late_share: random.random_range(0.0..0.1),
                late_max: seconds(1_200),
            },
            ..StressConfig::new(seed, world_start, seconds(WORLD_S))
        };
        let quirks = quirks(&mut random);
        let faults = faults(&mut random);
        // The last look-back is the longest lateness and some.
        let tiers = vec![
            Tier { every: seconds(pick(&mut random, &[45, 60, 90])), look_back: seconds(600) },
            Tier { every: seconds(300), look_back: seconds(2_400) },
        ];
        let head_start = seconds(random.random_range(0..2_400));
        let start = match random.random_range(0..4) {
            0 => Start::Ago(seconds(random.random_range(60..4_800))),
            1 => Start::At(world_start + TimeDelta::seconds(random.random_range(0..3_600))),
            _ => Start::Now,
        };
        let crash = if random.random_bool(0.5) { random.random_range(0.0..0.02) } else { 0.0 };
        let commit_failure = if random.random_bool(0.5) { random.random_range(0.0..0.05) } else { 0.0 };
        let mut scenario = Self {
            seed,
            stress,
            quirks,
            faults,
            tiers,
            start,
            head_start,
            crash,
            commit_failure,
            our_clock_ahead: TimeDelta::zero(),
            body_bytes: SMALL_BODY_BYTES,
        };
        scenario.draw_more(&mut SmallRng::seed_from_u64(seed ^ 0x0dd));
        scenario
    }

    /// Knobs that came later have draws of their own, so that a seed keeps the world that it always had.
    fn draw_more(&mut self, random: &mut SmallRng) {
        let nothing = [Nothing::EmptyPage, Nothing::EmptyPage, Nothing::BadRequest, Nothing::NotFound];
        let quirks = &mut self.quirks;
        quirks.beyond = pick(random, &nothing);
        quirks.nothing = pick(random, &[Nothing::EmptyPage, Nothing::EmptyPage, Nothing::NotFound]);
        quirks.twin = random.random_bool(0.06);
        // Of naive stamps nobody can say that they lie outside before their zone is known.
        let is_zoned = matches!(quirks.stamp, Some(Stamp::Offset(_) | Stamp::Zulu | Stamp::ZuluMillis));
        quirks.stray = random.random_bool(0.3) && is_zoned;
        quirks.horizon = random.random_bool(0.3).then(|| seconds(random.random_range(60..86_400)));
        quirks.padding_bytes = if random.random_bool(0.06) { random.random_range(4_000..8_000) } else { 0 };
        quirks.giant_bytes = random.random_bool(0.04).then_some(SMALL_BODY_BYTES + 1_000);
        if random.random_bool(0.5) {
            let most_s = pick(random, &[300, WRONG_DATE_S]);
            let ahead_s = random.random_range(-most_s..most_s);
            let probability = random.random_range(0.0..0.05);
            self.faults.push(FaultChance { fault: Fault::WrongDate { ahead_s }, probability });
        }
        self.quirks.depth = random.random_bool(0.1).then(|| random.random_range(300..1_000));
        if random.random_bool(0.3) {
            self.faults.push(FaultChance { fault: Fault::NotFound, probability: random.random_range(0.0..0.02) });
        }
        if random.random_bool(0.3) {
            self.our_clock_ahead = TimeDelta::seconds(random.random_range(-86_400..86_400));
        }
    }

    /// An account with some traffic and a server without any oddity: what goes wrong in it is the test's doing.
    pub(super) fn calm(quirks: Quirks) -> Self {
        let mut calm = Self::draw(1);
        calm.stress.events_per_hour = 120.0;
        calm.stress.gaps_per_day = 0.0;
        calm.stress.lateness = Lateness::within(seconds(3));
        calm.quirks = quirks;
        calm.faults = Vec::new();
        calm.start = Start::Now;
        calm.head_start = seconds(600);
        (calm.crash, calm.commit_failure) = (0.0, 0.0);
        (calm.our_clock_ahead, calm.body_bytes) = (TimeDelta::zero(), MAX_BODY_BYTES);
        calm
    }

    /// A while after the last event of the world became visible.
    pub(super) fn ends_at(&self) -> DateTime<Utc> {
        self.stress.start + TimeDelta::from_std(self.stress.duration).expect("short") + TimeDelta::minutes(25)
    }
}

fn quirks(random: &mut SmallRng) -> Quirks {
    let stamps =
        [Stamp::Naive, Stamp::NaiveMillis, Stamp::Zulu, Stamp::ZuluMillis, Stamp::Offset(120), Stamp::Offset(-210)];
    let zone_minutes = pick(random, &[0, 0, 60, 120, 330, 345, 720, 840, -180, -210, -480, -720]);
    let orders = [SortOrder::Ascending, SortOrder::Descending, SortOrder::Scrambled, SortOrder::NewestFirstById];
    let totals = match random.random_range(0..13) {
        0 => Totals::Low(random.random_range(1..6)),
        1 => Totals::High(random.random_range(1..6)),
        2 => Totals::Capped(random.random_range(20..200)),
        3 => Totals::Shrinking(random.random_range(1..3)),
        _ => Totals::Exact,
    };
    let malformed = [Malformed::NoStamp, Malformed::BadStamp, Malformed::NumericId, Malformed::Text];
    Quirks {
        order: pick(random, &orders),
        unstable_ties: random.random_bool(0.5),
        from: pick(random, &[Bound::Inclusive, Bound::Exclusive]),
        to: pick(random, &[Bound::Inclusive, Bound::Exclusive]),
        resolution: pick(random, &[Resolution::Full, Resolution::Second]),
        zone: FixedOffset::east_opt(zone_minutes * 60).expect("valid"),
        stamp: random.random_bool(0.6).then(|| pick(random, &stamps)),
        hidden_fraction: random.random_bool(0.3),
        lateness: None,
        page_cap: random.random_bool(0.3).then(|| random.random_range(15..100)),
        totals,
        shift: if random.random_bool(0.3) { seconds(random.random_range(1..120)) } else { Duration::ZERO },
        future_row: random.random_bool(0.2).then(|| seconds(random.random_range(10..7_200))),
        repeated_rows: if random.random_bool(0.3) { 0.1 } else { 0.0 },
        malformed: random.random_bool(0.12).then(|| pick(random, &malformed)),
        ..Quirks::default()
    }
}

fn faults(random: &mut SmallRng) -> Vec<FaultChance> {
    if random.random_bool(0.3) {
        return Vec::new();
    }
    let retry_after = seconds(random.random_range(1..60));
    let all = [
        Fault::Unauthorized,
        Fault::Forbidden,
        Fault::RateLimited { retry_after },
        Fault::RateLimitedUntil { retry_after },
        Fault::ServerError,
        Fault::Unavailable,
        Fault::Cut,
        Fault::Reset,
        Fault::Stall(seconds(random.random_range(1..60))),
        Fault::Truncated,
        Fault::Html,
        Fault::Empty,
        Fault::Null,
        Fault::EmptyPage,
        Fault::FilterIgnored,
        Fault::SlowBody { piece_bytes: 4_096, pause: seconds(1) },
    ];
    all.into_iter()
        .map(|fault| {
            let rare = matches!(fault, Fault::Unauthorized | Fault::Forbidden);
            FaultChance { fault, probability: random.random_range(0.0..if rare { 0.002 } else { 0.02 }) }
        })
        .collect()
}
