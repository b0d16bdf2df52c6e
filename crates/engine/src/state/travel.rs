//! `travel`: two events of one subject that imply an impossible speed.
//!
//! An event matches when any earlier event of the same key is at least `further_than_km` away and reaching this one from
//! there would take more than `faster_than_kmh`. Distance is between coordinates where both events have them
//! (`geo.lat`, `geo.lon`), else between the nearest borders of the two countries, so that neighbours are 0 km apart.
//! The same address never travels, an unknown place never alerts, and ignored addresses are not seen at all.

use std::collections::HashSet;

use ipnet::IpNet;

use super::finding::none_found;
use super::key::GroupKey;
use super::log::{Log, Observation};
use super::threshold::with_event;
use super::{Evidence, Firing, Noted, Row, Rows, Sighting, Standing};
use crate::condition::parse_address;
use crate::country;
use crate::event::Event;
use crate::text::Untrusted;

/// Half the way around the Earth: nothing is further apart.
const FURTHEST_KM: i64 = 20_038;
const HOUR_US: i64 = 3_600_000_000;
/// Mean radius of the Earth.
const RADIUS_KM: f64 = 6_371.0;

/// Options of `travel`.
#[derive(Debug, Clone)]
pub struct Travel {
    /// Speed that nobody reaches.
    pub faster_than_kmh: u32,
    /// Shorter distances are no travel: look-ups are not that exact.
    pub further_than_km: u32,
    /// Networks that say nothing about where a person is.
    pub ignore: Vec<IpNet>,
    /// Autonomous systems that say nothing about where a person is.
    pub ignore_asn: Vec<u32>,
}

/// Two places of one subject.
struct Leap {
    distance_km: u32,
    /// `None`: both at once.
    speed_kmh: Option<i64>,
}

impl Travel {
    pub(super) fn note(&self, group: &GroupKey, sighting: &Sighting<'_>, rows: &mut dyn Rows) -> Noted {
        let Some(observation) = self.observation(sighting) else { return Noted::Fired(Vec::new()) };
        let Row::Log(log) = rows.change(&group.text, Row::log) else { return Noted::Uncounted };
        forget_outrun(log, sighting.settled_us);
        let place = log.note(observation, sighting, self.horizon_us(), true);
        let firings = super::threshold::fire(log, place, self.horizon_us(), &group.text, |log, place| {
            self.origin(log, place).is_some()
        });
        Noted::Fired(firings)
    }

    /// Longer ago than this, every place on Earth can be reached.
    pub(super) fn horizon_us(&self) -> i64 {
        FURTHEST_KM * HOUR_US / i64::from(self.faster_than_kmh.max(1))
    }

    fn observation(&self, sighting: &Sighting<'_>) -> Option<Observation> {
        let mut observation = Observation::of(sighting);
        let address = observation.ip.as_deref().and_then(parse_address);
        let is_ignored = address.is_some_and(|address| self.ignore.iter().any(|net| net.contains(&address)))
            || number(sighting.event, "geo.asn")
                .is_some_and(|asn| self.ignore_asn.iter().any(|known| f64::from(*known) == asn));
        if is_ignored {
            return None;
        }
        let place = match (number(sighting.event, "geo.lat"), number(sighting.event, "geo.lon")) {
            (Some(lat), Some(lon)) => Some(format!("{lat:.4},{lon:.4}")),
            _ => None,
        };
        let named = sighting.event.text("geo.country").filter(|code| country::is_known(code));
        observation.country = named.map(|code| code.to_uppercase().into()).or(observation.country);
        observation.value = place.map(Into::into);
        let is_somewhere = observation.value.is_some() || observation.country.as_deref().is_some_and(country::is_known);
        is_somewhere.then_some(observation)
    }

    /// The earlier event from which the one at `place` cannot be reached: the nearest in time.
    fn origin(&self, log: &Log, place: usize) -> Option<(usize, Leap)> {
        let there = log.observations.get(place)?;
        (log.window_start(place, self.horizon_us())..place).rev().find_map(|at| {
            let here = log.observations.get(at)?;
            let leap = leap(here, there)?;
            let is_too_fast = leap.speed_kmh.is_none_or(|speed| speed > i64::from(self.faster_than_kmh));
            (leap.distance_km >= self.further_than_km && leap.distance_km > 0 && is_too_fast).then_some((at, leap))
        })
    }

    pub(super) fn finding(&self, log: &Log, firing: &Firing) -> (Untrusted, Vec<Evidence>) {
        let Some(place) = log.place_of(&firing.event_id) else { return none_found() };
        self.told(log, place).unwrap_or_else(none_found)
    }

    fn told(&self, log: &Log, place: usize) -> Option<(Untrusted, Vec<Evidence>)> {
        let (from, leap) = self.origin(log, place)?;
        let (here, there) = (log.observations.get(from)?, log.observations.get(place)?);
        let name = |known: &Observation| known.country.as_deref().unwrap_or("?").to_owned();
        let speed = leap.speed_kmh.map_or("at once".into(), |speed| format!("{speed} km/h"));
        let apart = super::threshold::shown((there.at_us - here.at_us) / 1_000_000 * 1_000_000);
        let summary = format!(
            "{} and {} are {} km apart, {apart} between the two: {speed} (more than {} km/h is impossible)",
            name(here),
            name(there),
            leap.distance_km,
            self.faster_than_kmh
        );
        let evidence = [here, there].map(|known| Evidence::of(known, known.value.as_deref()));
        Some((Untrusted::new(summary), evidence.into()))
    }

    pub(super) fn standing(&self, row: Option<&Row>, sighting: &Sighting<'_>) -> Standing {
        let Some(observation) = self.observation(sighting) else {
            return Standing::none("not counted: its address is ignored, or its place is unknown".into());
        };
        let (log, place) = with_event(row, observation);
        match self.told(&log, place) {
            Some((summary, evidence)) => Standing::decided(true, summary.as_raw().to_owned(), evidence),
            None => {
                let start = log.window_start(place, self.horizon_us());
                let noted = super::threshold::evidence(&log, start..place + 1);
                Standing::decided(false, "every earlier place is within reach".into(), noted)
            }
        }
    }
}

/// So many settled events of a key stay in any case: one of them may lie before an event that comes even later than the
/// lateness bound.
const MAX_SETTLED: usize = 32;

/// Of many settled events forgets those that a later settled one, of the same address at the same place, makes idle:
/// whatever comes now is as far from both, and the later one leaves less time for it.
fn forget_outrun(log: &mut Log, settled_us: Option<i64>) {
    let Some(settled_us) = settled_us else { return };
    let end = log.observations.partition_point(|known| known.at_us <= settled_us);
    if end <= MAX_SETTLED {
        return;
    }
    let mut seen = HashSet::new();
    let settled = log.observations.iter().take(end).rev();
    let mut is_latest: Vec<bool> =
        settled.map(|known| seen.insert((&known.ip, &known.country, &known.value))).collect();
    // From the oldest on; what is not settled stays.
    log.observations.retain(|_| is_latest.pop().unwrap_or(true));
}

fn leap(here: &Observation, there: &Observation) -> Option<Leap> {
    if here.ip.is_some() && here.ip == there.ip {
        return None;
    }
    let by_point = || Some(distance_km(point(here.value.as_deref()?)?, point(there.value.as_deref()?)?));
    let by_border = || country::distance_km(here.country.as_deref()?, there.country.as_deref()?);
    let distance_km = by_point().or_else(by_border)?;
    let apart_us = there.at_us - here.at_us;
    let speed_kmh = (apart_us > 0).then(|| i64::from(distance_km).saturating_mul(HOUR_US) / apart_us);
    Some(Leap { distance_km, speed_kmh })
}

fn number(event: &Event, field: &str) -> Option<f64> {
    event.text(field)?.parse::<f64>().ok().filter(|number| number.is_finite())
}

fn point(text: &str) -> Option<(f64, f64)> {
    let (lat, lon) = text.split_once(',')?;
    Some((lat.parse().ok()?, lon.parse().ok()?))
}

/// Great circle, by the haversine.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 20,016")]
fn distance_km(from: (f64, f64), to: (f64, f64)) -> u32 {
    let ((lat, lon), (other_lat, other_lon)) = (from, to);
    let (half_lat, half_lon) = ((other_lat - lat).to_radians() / 2.0, (other_lon - lon).to_radians() / 2.0);
    let chord = half_lat.sin().powi(2) + lat.to_radians().cos() * other_lat.to_radians().cos() * half_lon.sin().powi(2);
    (2.0 * RADIUS_KM * chord.clamp(0.0, 1.0).sqrt().asin()).round() as u32
}

#[cfg(test)]
mod tests {
    use super::super::Question;
    use super::super::tests::Bench;
    use super::*;

    fn bench() -> Bench {
        let ignore = vec!["10.0.0.0/8".parse().expect("a network")];
        Bench::new(Question::Travel(Travel {
            faster_than_kmh: 900,
            further_than_km: 500,
            ignore,
            ignore_asn: vec![64_500],
        }))
    }

    fn from(country: &str, ip: &str) -> String {
        format!(r#""source_country": "{country}", "source_ip": "{ip}""#)
    }

    const HOUR_S: i64 = 3_600;

    #[test]
    fn two_far_places_within_an_hour_are_impossible_and_neighbours_are_not() {
        let mut bench = bench();
        assert!(bench.see("a", 0, &from("DE", "192.0.2.1")).is_empty());
        assert!(bench.see("b", 1, &from("FR", "192.0.2.2")).is_empty(), "they share a border: 0 km");
        assert_eq!(bench.see("c", HOUR_S, &from("JP", "192.0.2.3")), ["c@3600"]);
        assert!(bench.finding("c", HOUR_S, "").0.starts_with("FR and JP are "));
        assert!(bench.see("d", 40 * HOUR_S, &from("DE", "192.0.2.1")).is_empty(), "a day is enough");
    }

    #[test]
    fn at_once_at_two_places_is_too_fast_and_a_late_event_takes_its_place() {
        let mut both = bench();
        assert!(both.see("a", 0, &from("DE", "192.0.2.1")).is_empty());
        assert_eq!(both.see("b", 0, &from("JP", "192.0.2.3")), ["b@0"]);
        let mut late = bench();
        assert!(late.see("b", HOUR_S, &from("JP", "192.0.2.3")).is_empty());
        assert_eq!(late.see("a", 0, &from("DE", "192.0.2.1")), ["b@3600"]);
    }

    #[test]
    fn the_same_address_never_travels_and_what_is_ignored_or_unknown_is_not_seen() {
        let mut bench = bench();
        assert!(bench.see("a", 0, &from("DE", "192.0.2.1")).is_empty());
        assert!(bench.see("b", 1, &from("JP", "192.0.2.1")).is_empty(), "the same address");
        assert!(bench.see("c", 2, &from("AU", "10.1.2.3")).is_empty(), "an ignored network");
        let office = bench.see_located("d", 3, &from("AU", "192.0.2.9"), r#""asn": 64500"#);
        assert!(office.is_empty(), "an ignored system");
        assert!(bench.see("e", 4, &from("ZZ", "192.0.2.8")).is_empty(), "nowhere");
        assert_eq!(bench.see("f", 5, &from("AU", "192.0.2.7")), ["f@5"]);
    }

    #[test]
    fn coordinates_count_before_borders() {
        let mut bench = bench();
        let (new_york, los_angeles) = (r#""lat": 40.7, "lon": -74.0"#, r#""lat": 34.1, "lon": -118.2"#);
        assert!(bench.see_located("a", 0, &from("US", "192.0.2.1"), new_york).is_empty());
        assert_eq!(bench.see_located("b", HOUR_S, &from("US", "192.0.2.2"), los_angeles), ["b@3600"]);
        let (summary, ids) = bench.finding("b", HOUR_S, "");
        // 3,936 km on the sphere of 6,371 km.
        assert!(summary.starts_with("US and US are 393"), "{summary}");
        assert_eq!(ids, ["a", "b"]);
    }
}
