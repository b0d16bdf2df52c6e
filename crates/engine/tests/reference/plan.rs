//! Random cases: a rule, events, and how they arrive.

/// Xorshift: small and the same everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            rng.next();
        }
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: i64) -> i64 {
        i64::try_from(self.next() % u64::try_from(end.max(1)).expect("positive")).expect("fits")
    }

    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below(high - low + 1)
    }

    pub(crate) fn chance(&mut self, percent: i64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.below(i64::try_from(from.len()).expect("small"))).expect("fits")]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Threshold,
    Distinct,
    FirstSeen,
    Travel,
    Sequence,
    Absence,
    Spike,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happening {
    pub(crate) id: String,
    pub(crate) at_us: i64,
    /// When it becomes visible.
    pub(crate) arrives_us: i64,
    pub(crate) event_type: &'static str,
    pub(crate) user: Option<&'static str>,
    pub(crate) country: Option<&'static str>,
    pub(crate) ip: &'static str,
}

/// What happens while events arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A batch is evaluated; `lost`: it is not committed, the process starts anew and evaluates it again.
    Batch { source: &'static str, events: Vec<Happening>, lost: bool, settled_us: Option<i64> },
    /// The process starts anew with what was committed.
    Restart,
}

/// Numbers of the rule, for the reference.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers {
    pub(crate) count: usize,
    pub(crate) within_us: i64,
    pub(crate) memory_us: i64,
    pub(crate) learn_us: i64,
    pub(crate) ratio: f64,
    pub(crate) baseline_us: i64,
    pub(crate) further_km: u32,
    pub(crate) faster_kmh: i64,
    /// Event type and whether it must be absent.
    pub(crate) steps: Vec<(&'static str, bool)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) yaml: String,
    pub(crate) numbers: Numbers,
    pub(crate) quiet_us: i64,
    pub(crate) by_user: bool,
    pub(crate) lateness_us: i64,
    /// Each source with the time up to which it is settled in the end; their ids and keys are the same.
    pub(crate) ends_us: Vec<(&'static str, i64)>,
    pub(crate) arrivals: Vec<Step>,
}

pub(crate) const SECOND_US: i64 = 1_000_000;
pub(crate) const START_US: i64 = 1_767_614_400 * SECOND_US;
/// How long what crowds together lasts.
const BURST_UNITS: i64 = 6;
const TYPES: &[&str] = &["APP_CREATE", "APP_UPDATE", "APP_DELETE"];
const COUNTRIES: &[&str] = &["GB", "gb", "FR", "US", "JP", "BR", "ES"];
const IPS: &[&str] = &["192.0.2.1", "192.0.2.2", "192.0.2.3", "10.0.0.1"];

impl Case {
    pub(crate) fn random(kind: Kind, rng: &mut Rng) -> Self {
        let (unit_us, length) = match kind {
            Kind::Travel => (900 * SECOND_US, rng.between(20, 120)),
            Kind::Spike => (900 * SECOND_US, rng.between(80, 400)),
            Kind::FirstSeen => (900 * SECOND_US, rng.between(10, 100)),
            _ => (SECOND_US, rng.between(5, 120)),
        };
        let mut numbers = numbers(kind, rng);
        let in_order = rng.chance(35) || numbers.learn_us > 0;
        let lateness_us = if in_order { 0 } else { rng.between(1, 12) * unit_us };
        if lateness_us > 0 {
            // See the head of `first_seen`: what was told as new cannot be taken back when a late event bridges a gap.
            numbers.memory_us = numbers.memory_us.max((length + BURST_UNITS) * unit_us);
        }
        // The past of a spike ends a window before it, so events may come late by a window.
        let lateness_us = if kind == Kind::Spike { lateness_us.min(numbers.within_us) } else { lateness_us };
        let by_user = rng.chance(70);
        let quiet_us = rng.between(1, 30) * unit_us;
        let yaml = yaml(kind, &numbers, by_user, quiet_us);
        let sources: &[&str] = if rng.chance(50) { &["main"] } else { &["main", "other"] };
        let (mut ends_us, mut lanes) = (Vec::new(), Vec::new());
        for source in sources {
            let start_us = START_US + rng.between(-1, 1) * rng.below(length) * unit_us;
            let mut happenings = happenings(kind, rng, (start_us, unit_us), length, lateness_us);
            ends_us.push((*source, happenings.iter().map(|event| event.at_us).max().unwrap_or(start_us)));
            happenings.sort_by_key(|event| event.arrives_us);
            lanes.push(arrivals(source, happenings, rng, lateness_us));
        }
        let arrivals = interleaved(lanes, rng);
        Self { kind, yaml, numbers, quiet_us, by_user, lateness_us, ends_us, arrivals }
    }

    pub(crate) fn is_late(&self) -> bool {
        self.lateness_us > 0
    }
}

fn numbers(kind: Kind, rng: &mut Rng) -> Numbers {
    let mut numbers = Numbers {
        count: usize::try_from(rng.between(2, 5)).expect("small"),
        within_us: rng.between(2, 40) * SECOND_US,
        ..Numbers::default()
    };
    match kind {
        Kind::FirstSeen => {
            numbers.memory_us = rng.between(4, 40) * 900 * SECOND_US;
            numbers.learn_us = if rng.chance(60) { 0 } else { rng.between(4, 20) * 900 * SECOND_US };
        }
        Kind::Travel => {
            numbers.further_km = u32::try_from(rng.between(1, 4)).expect("small") * 250;
            numbers.faster_kmh = rng.between(1, 4) * 300;
        }
        Kind::Spike => {
            numbers.within_us = rng.between(1, 4) * 4 * 900 * SECOND_US;
            numbers.baseline_us = numbers.within_us * rng.between(4, 10);
            numbers.ratio = f64::from(i32::try_from(rng.between(1, 4)).expect("small"));
        }
        Kind::Sequence => {
            let steps = rng.between(2, 4);
            numbers.steps = (0..steps).map(|_| (rng.pick(TYPES), rng.chance(30))).collect();
            if numbers.steps.iter().all(|(_, absent)| *absent) {
                numbers.steps[0].1 = false;
            }
        }
        Kind::Absence if rng.chance(70) => {
            numbers.steps = vec![(rng.pick(TYPES), false), (rng.pick(TYPES), true)];
        }
        Kind::Threshold | Kind::Distinct | Kind::Absence => {}
    }
    numbers
}

fn yaml(kind: Kind, numbers: &Numbers, by_user: bool, quiet_us: i64) -> String {
    let seconds = |us: i64| format!("{}s", us / SECOND_US);
    let by = if by_user { ", by: user_email" } else { "" };
    let within = seconds(numbers.within_us);
    let detection = match kind {
        Kind::Threshold => format!("threshold: {{count: {}, within: {within}{by}}}", numbers.count),
        Kind::Distinct => {
            format!("distinct: {{field: source_country, count: {}, within: {within}{by}}}", numbers.count)
        }
        Kind::FirstSeen => format!(
            "first_seen: {{of: source_country, memory: {}, learn: {}{by}}}",
            seconds(numbers.memory_us),
            seconds(numbers.learn_us)
        ),
        Kind::Travel => format!(
            "travel: {{faster_than_kmh: {}, further_than_km: {}, ignore: [10.0.0.0/8], by: {}}}",
            numbers.faster_kmh,
            numbers.further_km,
            if by_user { "user_email" } else { "[]" }
        ),
        Kind::Sequence => {
            let step = |(event_type, absent): &(&str, bool)| {
                format!("{{when: {{event_type: {event_type}}}, absent: {absent}}}")
            };
            let steps: Vec<String> = numbers.steps.iter().map(step).collect();
            format!("sequence: {{within: {within}, steps: [{}]{by}}}", steps.join(", "))
        }
        Kind::Absence => match numbers.steps.as_slice() {
            [(after, _), (expect, _)] => format!(
                "absence: {{after: {{event_type: {after}}}, expect: {{event_type: {expect}}}, within: {within}{by}}}"
            ),
            _ => format!("absence: {{within: {within}{by}}}"),
        },
        Kind::Spike => format!(
            "spike: {{ratio: {}, at_least: {}, window: {within}, baseline: {}{by}}}",
            numbers.ratio,
            numbers.count,
            seconds(numbers.baseline_us)
        ),
    };
    format!(
        "rules:\n- id: r\n  title: T\n  severity: low\n  when: {{event_type: \"APP_*\"}}\n  {detection}\n  alert: {{quiet: {}}}\n",
        seconds(quiet_us)
    )
}

fn happenings(
    kind: Kind,
    rng: &mut Rng,
    (start_us, unit_us): (i64, i64),
    length: i64,
    lateness_us: i64,
) -> Vec<Happening> {
    let count = rng.between(3, if matches!(kind, Kind::Spike | Kind::Travel) { 120 } else { 40 });
    let burst = rng.below(length);
    (0..count)
        .map(|number| {
            // Some events crowd together, and many share a stamp.
            let place = if rng.chance(40) { burst + rng.below(BURST_UNITS) } else { rng.below(length) };
            let at_us = start_us + place * unit_us;
            let late_us = if lateness_us > 0 && rng.chance(60) { rng.below(lateness_us + 1) } else { 0 };
            Happening {
                id: format!("e{number}"),
                at_us,
                arrives_us: at_us + late_us,
                event_type: rng.pick(TYPES),
                user: if rng.chance(10) { None } else { Some(rng.pick(&["ann", "bob"])) },
                country: if rng.chance(8) { None } else { Some(rng.pick(COUNTRIES)) },
                ip: rng.pick(IPS),
            }
        })
        .collect()
}

fn arrivals(source: &'static str, happenings: Vec<Happening>, rng: &mut Rng, lateness_us: i64) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = happenings;
    while !rest.is_empty() {
        let size = usize::try_from(rng.between(1, 6)).expect("small").min(rest.len());
        let events: Vec<Happening> = rest.drain(..size).collect();
        // All that arrives up to the next event has arrived: nothing older than that less the lateness will come.
        let seen_us = rest.first().map(|next| next.arrives_us);
        let settled_us = seen_us.filter(|_| rng.chance(70)).map(|seen_us| seen_us - lateness_us);
        steps.push(Step::Batch { source, events, lost: rng.chance(15), settled_us });
        if rng.chance(15) {
            steps.push(Step::Restart);
        }
    }
    steps
}

/// Steps of several sources, each in its own order.
fn interleaved(lanes: Vec<Vec<Step>>, rng: &mut Rng) -> Vec<Step> {
    let mut lanes: Vec<std::vec::IntoIter<Step>> = lanes.into_iter().map(Vec::into_iter).collect();
    let mut steps = Vec::new();
    while !lanes.is_empty() {
        let at = usize::try_from(rng.below(i64::try_from(lanes.len()).expect("small"))).expect("fits");
        match lanes[at].next() {
            Some(step) => steps.push(step),
            None => drop(lanes.remove(at)),
        }
    }
    steps
}
