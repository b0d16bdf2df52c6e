//! Stateful detections against a naive reference: collect all events, sort them by time, decide.
//!
//! Rules, keys, order, repetitions, batches, lateness and crashes are random. The reference shares no code with the
//! engine but the table of distances. Each case prints nothing; a wrong one names its seed, which `VIGIE_SEED` repeats.
#![expect(clippy::disallowed_methods, reason = "a seed comes from outside so that a failure can be repeated")]
#![expect(
    clippy::panic,
    clippy::disallowed_macros,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking and print what a person reads"
)]

#[path = "reference/engine.rs"]
mod engine;
#[path = "reference/naive.rs"]
mod naive;
#[path = "reference/plan.rs"]
mod plan;

use plan::{Case, Kind, Rng};

/// Cases of each detection; seven detections make 21,000.
const CASES: u64 = 3_000;

/// One match or alert of a key: first and last time, count.
type Spans = Vec<(i64, i64, u64)>;

fn check(kind: Kind) {
    let fixed: Option<u64> = std::env::var("VIGIE_SEED").ok().and_then(|seed| seed.parse().ok());
    let base = fixed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
        u64::try_from(now.as_nanos() % u128::from(u64::MAX)).expect("fits") | 1
    });
    let mut matches = 0;
    let mut late_cases = 0;
    for number in 0..CASES {
        let seed = base.wrapping_add(number);
        let case = Case::random(kind, &mut Rng::new(seed));
        late_cases += u64::from(case.is_late());
        matches += compare(&case, seed);
        if fixed.is_some() {
            break;
        }
    }
    println!("{kind:?}: {CASES} cases from seed {base}, {late_cases} with late events, {matches} matches");
    assert!(fixed.is_some() || matches > CASES / 2, "{kind:?}: the cases hardly match anything: {matches}");
}

/// Runs one case both ways; how many matches it has.
fn compare(case: &Case, seed: u64) -> u64 {
    let expected = naive::matches(case);
    let given = engine::run(case);
    for key in expected.keys().chain(given.keys()) {
        let times: &[i64] = expected.get(key).map_or(&[], Vec::as_slice);
        let alerts: &[(i64, i64, u64)] = given.get(key).map_or(&[], Vec::as_slice);
        if let Err(problem) = agree(case, times, alerts) {
            panic!(
                "VIGIE_SEED={seed} {problem}\nkey {key:?}\nexpected matches {times:?}\nalerts {alerts:?}\n{}\n{:#?}",
                case.yaml, case.arrivals
            );
        }
    }
    expected.values().map(|times| times.len() as u64).sum()
}

/// Whether alerts of a key are those of its matches.
fn agree(case: &Case, times: &[i64], alerts: &[(i64, i64, u64)]) -> Result<(), String> {
    let episodes = naive::episodes(times, case.quiet_us);
    let counted: u64 = alerts.iter().map(|alert| alert.2).sum();
    if counted != times.len() as u64 {
        return Err(format!("{counted} matches were counted, there are {}", times.len()));
    }
    if !case.is_late() {
        let mut sorted = alerts.to_vec();
        sorted.sort_unstable();
        return if sorted == episodes { Ok(()) } else { Err("other alerts than without a window's memory".into()) };
    }
    for time in times {
        if !alerts.iter().any(|(first, last, _)| (first..=last).contains(&time)) {
            return Err(format!("the match at {time} is in no alert"));
        }
    }
    if !alerts.iter().all(|(first, last, _)| times.contains(first) && times.contains(last)) {
        return Err("an alert begins or ends where no match is".into());
    }
    let ends = (alerts.iter().map(|alert| alert.0).min(), alerts.iter().map(|alert| alert.1).max());
    if ends != (times.iter().min().copied(), times.iter().max().copied()) {
        return Err("the alerts begin or end at another time than the matches".into());
    }
    // What was sent before a late event joined two alerts stays two. An alert never joins what is not one, unless one of
    // its first sights moved away from the others: what was sent is not divided.
    let is_part = |alert: &(i64, i64, u64)| {
        episodes.iter().any(|(first, last, _)| *first <= alert.0 && alert.1 <= *last) || case.kind == Kind::FirstSeen
    };
    alerts.iter().all(is_part).then_some(()).ok_or_else(|| "an alert joins what is not one".into())
}

#[test]
fn threshold() {
    check(Kind::Threshold);
}

#[test]
fn distinct() {
    check(Kind::Distinct);
}

#[test]
fn first_seen() {
    check(Kind::FirstSeen);
}

#[test]
fn travel() {
    check(Kind::Travel);
}

#[test]
fn sequence() {
    check(Kind::Sequence);
}

#[test]
fn absence() {
    check(Kind::Absence);
}

#[test]
fn spike() {
    check(Kind::Spike);
}

/// A reference that agreed with everything would show nothing.
#[test]
fn the_comparison_notices_a_missing_and_an_invented_match() {
    let case = Case::random(Kind::Threshold, &mut Rng::new(7));
    assert!(agree(&case, &[5], &[]).is_err());
    assert!(agree(&case, &[], &[(5, 5, 1)]).is_err());
    assert!(agree(&case, &[5], &[(5, 5, 1)]).is_ok());
}
