//! The reference: all events of a key in order of time, and for each the question, answered by looking at all others.

use std::collections::{BTreeMap, BTreeSet};

use vigie_engine::country;

use super::Spans;
use super::plan::{Case, Happening, Kind, Numbers, START_US, Step};

/// A source and a key within it.
pub(crate) type Subject = (String, String);

/// Times of the matches of each subject.
pub(crate) fn matches(case: &Case) -> BTreeMap<Subject, Vec<i64>> {
    let sources = case.ends_us.iter();
    sources.flat_map(|(source, end_us)| matches_of(case, source, *end_us)).collect()
}

fn events_of<'c>(case: &'c Case, of: &str) -> impl Iterator<Item = &'c Happening> {
    let batches = case.arrivals.iter().filter_map(move |step| match step {
        Step::Batch { source, events, .. } if *source == of => Some(events),
        _ => None,
    });
    batches.flatten()
}

fn matches_of(case: &Case, source: &str, end_us: i64) -> BTreeMap<Subject, Vec<i64>> {
    let mut by_key: BTreeMap<String, Vec<Happening>> = BTreeMap::new();
    for event in events_of(case, source) {
        let key = if case.by_user { event.user } else { Some("") };
        if let Some(key) = key {
            by_key.entry(key.to_owned()).or_default().push(event.clone());
        }
    }
    // The rule's first event, whatever its key; one without a value is not seen.
    let all = by_key.values().flatten();
    let start_us = all.filter(|event| event.country.is_some()).map(|event| event.at_us).min().unwrap_or(START_US);
    let mut matches = BTreeMap::new();
    for (key, mut events) in by_key {
        // A stable sort: events of one time keep the order in which they came.
        events.sort_by_key(|event| event.at_us);
        let mut times = match case.kind {
            Kind::Threshold => threshold(&events, &case.numbers),
            Kind::Distinct => distinct(&events, &case.numbers),
            Kind::FirstSeen => first_seen(&events, &case.numbers, start_us),
            Kind::Travel => travel(&events, &case.numbers),
            Kind::Sequence => sequence(&events, &case.numbers, end_us),
            Kind::Absence => absence(&events, &case.numbers, end_us),
            Kind::Spike => spike(&events, &case.numbers),
        };
        times.sort_unstable();
        if !times.is_empty() {
            matches.insert((source.to_owned(), key), times);
        }
    }
    matches
}

/// Matches that are at most `quiet` apart are one alert.
pub(crate) fn episodes(times: &[i64], quiet_us: i64) -> Spans {
    let mut episodes: Spans = Vec::new();
    for time in times {
        match episodes.last_mut() {
            Some((_, last, count)) if *time - *last <= quiet_us => (*last, *count) = (*time, *count + 1),
            _ => episodes.push((*time, *time, 1)),
        }
    }
    episodes
}

fn threshold(events: &[Happening], numbers: &Numbers) -> Vec<i64> {
    let holds = |at: &usize| {
        let window = events[..=*at].iter().filter(|event| event.at_us > events[*at].at_us - numbers.within_us);
        window.count() >= numbers.count
    };
    (0..events.len()).filter(holds).map(|at| events[at].at_us).collect()
}

fn distinct(events: &[Happening], numbers: &Numbers) -> Vec<i64> {
    let events: Vec<&Happening> = events.iter().filter(|event| event.country.is_some()).collect();
    let holds = |at: &usize| {
        let window = events[..=*at].iter().filter(|event| event.at_us > events[*at].at_us - numbers.within_us);
        window.filter_map(|event| event.country.map(str::to_lowercase)).collect::<BTreeSet<_>>().len() >= numbers.count
    };
    (0..events.len()).filter(holds).map(|at| events[at].at_us).collect()
}

fn first_seen(events: &[Happening], numbers: &Numbers, start_us: i64) -> Vec<i64> {
    let events: Vec<(i64, String)> =
        events.iter().filter_map(|event| Some((event.at_us, event.country?.to_lowercase()))).collect();
    let is_new = |at: usize| {
        let (at_us, value) = &events[at];
        !events[..at].iter().any(|(other_us, other)| other == value && at_us - other_us < numbers.memory_us)
    };
    let is_loud = |at: usize| numbers.learn_us == 0 || events[at].0 >= start_us + numbers.learn_us;
    (0..events.len()).filter(|at| is_new(*at) && is_loud(*at)).map(|at| events[at].0).collect()
}

fn travel(events: &[Happening], numbers: &Numbers) -> Vec<i64> {
    let events: Vec<&Happening> =
        events.iter().filter(|event| event.country.is_some() && !event.ip.starts_with("10.")).collect();
    let is_leap = |from: &Happening, to: &Happening| {
        let (Some(here), Some(there)) = (from.country, to.country) else { return false };
        let distance_km = country::distance_km(here, there).unwrap_or(0);
        let hours = (to.at_us - from.at_us) as f64 / 3.6e9;
        let allowed_km = numbers.faster_kmh as f64 * hours;
        // The engine rounds the speed down to whole km/h.
        let is_too_fast = hours == 0.0 || (f64::from(distance_km) / hours).floor() > numbers.faster_kmh as f64;
        from.ip != to.ip
            && distance_km > 0
            && distance_km >= numbers.further_km
            && is_too_fast
            && allowed_km <= 20_038.0 + 1.0
    };
    let holds = |at: &usize| events[..*at].iter().any(|from| is_leap(from, events[*at]));
    (0..events.len()).filter(holds).map(|at| events[at].at_us).collect()
}

/// Every way to walk through the present steps, one event each.
fn chains(events: &[Happening], numbers: &Numbers) -> Vec<Vec<usize>> {
    let present: Vec<&str> = numbers.steps.iter().filter(|(_, absent)| !absent).map(|(kind, _)| *kind).collect();
    let mut chains: Vec<Vec<usize>> = vec![Vec::new()];
    for kind in present {
        let mut longer = Vec::new();
        for chain in &chains {
            let from = chain.last().map_or(0, |last| last + 1);
            for at in from..events.len() {
                let first_us = chain.first().map_or(events[at].at_us, |first| events[*first].at_us);
                if events[at].event_type == kind && events[at].at_us - first_us < numbers.within_us {
                    longer.push(chain.iter().copied().chain([at]).collect());
                }
            }
        }
        chains = longer;
    }
    chains
}

/// Whether no absent step before or between the present ones came.
fn is_clean(events: &[Happening], numbers: &Numbers, chain: &[usize]) -> bool {
    let mut reached = 0;
    for (kind, absent) in &numbers.steps {
        if !absent {
            reached += 1;
            continue;
        }
        if reached == chain.len() {
            continue;
        }
        let before = chain[reached];
        let spoils = |at: usize| match reached {
            0 => events[before].at_us - events[at].at_us < numbers.within_us,
            _ => at > chain[reached - 1],
        };
        if (0..before).any(|at| events[at].event_type == *kind && spoils(at)) {
            return false;
        }
    }
    true
}

fn sequence(events: &[Happening], numbers: &Numbers, end_us: i64) -> Vec<i64> {
    let mut begins: BTreeMap<usize, usize> = BTreeMap::new();
    for chain in chains(events, numbers).into_iter().filter(|chain| is_clean(events, numbers, chain)) {
        let (first, last) = (chain[0], chain[chain.len() - 1]);
        begins.entry(last).and_modify(|known| *known = first.max(*known)).or_insert(first);
    }
    let trailing: Vec<&str> =
        numbers.steps.iter().rev().take_while(|(_, absent)| *absent).map(|(kind, _)| *kind).collect();
    let mut times = Vec::new();
    for (last, first) in begins {
        if trailing.is_empty() {
            times.push(events[last].at_us);
            continue;
        }
        let due_us = events[first].at_us + numbers.within_us;
        let spoils = |event: &Happening| trailing.contains(&event.event_type) && event.at_us < due_us;
        if due_us <= end_us && !events[last + 1..].iter().any(spoils) {
            times.push(due_us);
        }
    }
    times
}

fn absence(events: &[Happening], numbers: &Numbers, end_us: i64) -> Vec<i64> {
    let mut times = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let (is_after, expect) = match numbers.steps.as_slice() {
            [(after, _), (expect, _)] => (event.event_type == *after, Some(*expect)),
            _ => (true, None),
        };
        let due_us = event.at_us + numbers.within_us;
        let came = events[at + 1..]
            .iter()
            .any(|other| other.at_us < due_us && expect.is_none_or(|expect| other.event_type == expect));
        if is_after && !came && due_us <= end_us {
            times.push(due_us);
        }
    }
    times
}

fn spike(events: &[Happening], numbers: &Numbers) -> Vec<i64> {
    let bucket_us = numbers.within_us / 4;
    let of = |event: &Happening| event.at_us.div_euclid(bucket_us);
    let count = |from: i64, to: i64| events.iter().filter(|event| (from..to).contains(&of(event))).count();
    let first = events.iter().map(of).min().unwrap_or(0);
    let length = numbers.baseline_us / bucket_us;
    let buckets: BTreeSet<i64> = events.iter().map(of).collect();
    let holds = |bucket: &i64| {
        let present = count(bucket - 3, bucket + 1);
        let (from, to) = ((bucket - 7 - length).max(first), bucket - 7);
        let average = if to > from { count(from, to) as f64 * 4.0 / (to - from) as f64 } else { 0.0 };
        (to - from) * 2 >= length && present >= numbers.count && present as f64 >= numbers.ratio * average
    };
    buckets.into_iter().filter(holds).map(|bucket| bucket * bucket_us).collect()
}
