//! Time windows: days and hours in a time zone.
//!
//! Hours are `[from, to)` and may span midnight; what lies after midnight then counts to the day on which the window began:
//! `days: fri, hours: 22:00-06:00` holds at 02:00 on Saturday and not at 02:00 on Friday.

use chrono::{DateTime, Datelike, NaiveTime, Timelike, Utc, Weekday};

use super::zone::Zone;
use super::{BuildError, Part, code};
use crate::diagnostic::nearest;

const DAYS: [(&str, &str); 7] = [
    ("mon", "monday"),
    ("tue", "tuesday"),
    ("wed", "wednesday"),
    ("thu", "thursday"),
    ("fri", "friday"),
    ("sat", "saturday"),
    ("sun", "sunday"),
];
const MINUTES_A_DAY: u16 = 24 * 60;

/// Days and hours in a time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct During {
    /// Bit 0 is Monday.
    days: u8,
    /// Minutes of the day, `[from, to)`; `to` is below `from` where the window spans midnight.
    hours: Vec<(u16, u16)>,
    zone: Zone,
    written: String,
}

impl During {
    /// Builds a time window; in errors the values count as `days` 0, `hours` 1, `tz` 2.
    ///
    /// # Errors
    /// Days, hours or a zone that cannot be read.
    pub fn build(days: Option<&str>, hours: Option<&str>, tz: Option<&str>) -> Result<Self, BuildError> {
        if days.is_none() && hours.is_none() {
            let hint =
                Some("give `days`, `hours` or both: `during: {days: mon-fri, hours: \"08:00-18:00\"}`".to_owned());
            let message = "the time window names neither days nor hours".to_owned();
            return Err(BuildError { code: code::EMPTY_WINDOW, part: Part::Key, message, hint });
        }
        let parsed_days = days.map_or(Ok(0x7f), parse_days)?;
        let parsed_hours = hours.map_or(Ok(vec![(0, MINUTES_A_DAY)]), parse_hours)?;
        let zone = tz.map_or(Ok(Zone::utc()), parse_zone)?;
        let words = [days, hours].into_iter().flatten().chain([zone.name()]);
        let written = words.map(str::trim).collect::<Vec<_>>().join(" ");
        Ok(Self { days: parsed_days, hours: parsed_hours, zone, written })
    }

    /// Whether an instant lies in it.
    #[must_use]
    pub fn holds_at(&self, instant: DateTime<Utc>) -> bool {
        let local = self.zone.local(instant);
        let minute = (local.hour() * 60 + local.minute()) as u16;
        let (today, yesterday) = (local.weekday(), local.weekday().pred());
        self.hours.iter().any(|&(from, to)| {
            if from < to {
                self.has_day(today) && (from..to).contains(&minute)
            } else {
                (self.has_day(today) && minute >= from) || (self.has_day(yesterday) && minute < to)
            }
        })
    }

    /// As written, with the zone.
    #[must_use]
    pub fn written(&self) -> &str {
        &self.written
    }

    /// The instant in the window's zone, for people.
    pub(crate) fn local(&self, instant: DateTime<Utc>) -> String {
        let local = self.zone.local(instant).format("%a %Y-%m-%d %H:%M:%S");
        format!("{local} {}", self.zone.abbreviation(instant))
    }

    fn has_day(&self, day: Weekday) -> bool {
        self.days & (1 << day.num_days_from_monday()) != 0
    }
}

fn parse_days(text: &str) -> Result<u8, BuildError> {
    let day = |name: &str| -> Result<usize, BuildError> {
        let lower = name.trim().to_lowercase();
        DAYS.iter().position(|(short, long)| lower == *short || lower == *long).ok_or_else(|| {
            let names = DAYS.iter().flat_map(|(short, long)| [*short, *long]);
            let hint = nearest(&lower, names).map_or_else(
                || "days are mon tue wed thu fri sat sun: `mon-fri` or `sat, sun`".to_owned(),
                |name| format!("did you mean `{name}`?"),
            );
            error(code::BAD_DAYS, 0, format!("unknown day `{}`", name.trim()), Some(hint))
        })
    };
    let mut days = 0;
    for item in text.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (day(first)?, day(last)?);
        let length = (last + 7 - first) % 7;
        for step in 0..=length {
            days |= 1 << ((first + step) % 7);
        }
    }
    Ok(days)
}

fn parse_hours(text: &str) -> Result<Vec<(u16, u16)>, BuildError> {
    let wrong = |message: String| {
        let hint = "hours are `08:00-18:00`, several with a comma; `22:00-06:00` spans midnight".to_owned();
        error(code::BAD_HOURS, 1, message, Some(hint))
    };
    let minute = |text: &str| -> Result<u16, BuildError> {
        let text = text.trim();
        if text == "24:00" {
            return Ok(MINUTES_A_DAY);
        }
        let time =
            NaiveTime::parse_from_str(text, "%H:%M").map_err(|_| wrong(format!("`{text}` is not a time of day")))?;
        Ok((time.hour() * 60 + time.minute()) as u16)
    };
    let mut hours = Vec::new();
    for item in text.split(',') {
        let (from, to) =
            item.split_once('-').ok_or_else(|| wrong(format!("`{}` is not a range of hours", item.trim())))?;
        let (from, to) = (minute(from)?, minute(to)?);
        if from == to || from == MINUTES_A_DAY {
            return Err(wrong(format!("`{}` is empty", item.trim())));
        }
        hours.push((from, to));
    }
    Ok(hours)
}

fn parse_zone(text: &str) -> Result<Zone, BuildError> {
    let wanted = text.trim().replace(' ', "_");
    if let Some(zone) = Zone::find(&wanted) {
        return Ok(zone);
    }
    let city = |name: &'static str| name.rsplit('/').next().unwrap_or(name);
    let by_city =
        || nearest(&wanted, Zone::names().map(city)).and_then(|near| Zone::names().find(|name| city(name) == near));
    let near = nearest(&wanted, Zone::names()).filter(|_| wanted.contains('/')).or_else(by_city);
    let hint = near.map_or_else(
        || "zones are named as in the tz database: `Europe/London`".to_owned(),
        |name| format!("did you mean `{name}`?"),
    );
    Err(error(code::UNKNOWN_ZONE, 2, format!("unknown time zone `{}`", text.trim()), Some(hint)))
}

fn error(code: &'static str, value: usize, message: String, hint: Option<String>) -> BuildError {
    BuildError { code, part: Part::Value(value), message, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a stamp")
    }

    fn during(days: Option<&str>, hours: Option<&str>, tz: Option<&str>) -> During {
        During::build(days, hours, tz).expect("a window")
    }

    #[test]
    fn hours_include_their_start_and_not_their_end() {
        let window = during(Some("mon-fri"), Some("08:00-18:00"), None);
        assert!(window.holds_at(at("2026-11-23T08:00:00Z")), "Monday");
        assert!(window.holds_at(at("2026-11-23T17:59:59.999Z")));
        assert!(!window.holds_at(at("2026-11-23T18:00:00Z")));
        assert!(!window.holds_at(at("2026-11-23T07:59:59Z")));
        assert!(!window.holds_at(at("2026-11-22T12:00:00Z")), "Sunday");
    }

    #[test]
    fn what_spans_midnight_belongs_to_the_day_on_which_it_began() {
        let window = during(Some("fri"), Some("22:00-06:00"), None);
        assert!(window.holds_at(at("2026-11-27T22:00:00Z")), "Friday");
        assert!(window.holds_at(at("2026-11-28T05:59:59Z")), "Saturday");
        assert!(!window.holds_at(at("2026-11-28T06:00:00Z")));
        assert!(!window.holds_at(at("2026-11-28T22:00:00Z")));
        assert!(!window.holds_at(at("2026-11-27T02:00:00Z")), "Friday before dawn");
    }

    #[test]
    fn the_zone_moves_the_window_and_knows_summer() {
        let window = during(None, Some("08:00-18:00"), Some("Europe/London"));
        assert!(window.holds_at(at("2026-07-01T07:00:00Z")));
        assert!(!window.holds_at(at("2026-12-01T07:00:00Z")));
        assert!(!window.holds_at(at("2026-07-01T17:00:00Z")));
    }

    #[test]
    fn lists_and_wrapping_days() {
        let window = during(Some("sat-mon, Wednesday"), Some("00:00-01:00,23:00-24:00"), None);
        assert!(window.holds_at(at("2026-11-22T23:30:00Z")) && window.holds_at(at("2026-11-25T00:30:00Z")));
        assert!(!window.holds_at(at("2026-11-24T23:30:00Z")) && !window.holds_at(at("2026-11-22T12:00:00Z")));
        assert!(during(Some("sun"), None, None).holds_at(at("2026-11-22T23:59:59Z")));
    }

    #[test]
    fn mistakes_come_with_hints() {
        let fails = |days, hours, tz| During::build(days, hours, tz).expect_err("a mistake");
        let day = fails(Some("mon-fry"), None, None);
        assert_eq!((day.code, day.part), (code::BAD_DAYS, Part::Value(0)));
        assert_eq!(day.hint.as_deref(), Some("did you mean `fri`?"));
        for hours in ["8-18", "08:00", "25:00-26:00", "08:00-08:00", "24:00-06:00", ""] {
            assert_eq!(fails(None, Some(hours), None).code, code::BAD_HOURS, "{hours}");
        }
        let zone = fails(None, Some("08:00-18:00"), Some("Europe/Londn"));
        assert_eq!((zone.part, zone.hint.as_deref()), (Part::Value(2), Some("did you mean `Europe/London`?")));
        let city = fails(None, Some("08:00-18:00"), Some("london"));
        assert_eq!(city.hint.as_deref(), Some("did you mean `Europe/London`?"));
        assert_eq!(fails(None, None, Some("UTC")).code, code::EMPTY_WINDOW);
    }
}
