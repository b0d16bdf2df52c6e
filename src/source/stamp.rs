//! Stamps in every form that audit logs have been seen to use: naive, `Z`, offsets, with and without fractions.
//!
//! It never guesses a zone: a naive stamp stays naive until the caller says which zone the server writes in.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};

/// A stamp as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// With a zone: a moment.
    Zoned(DateTime<Utc>),
    /// Without: a wall clock somewhere.
    Naive(NaiveDateTime),
}

impl Stamp {
    /// Reads `2018-08-13T10:15:31`, `2025-10-15T13:51:56.249Z`, `2025-10-15 13:51+0200`, `2025-10-15`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let Some((date, time)) = text.split_once(['T', 't', ' ']) else {
            return parse_date(text).map(|date| Self::Naive(date.and_time(NaiveTime::MIN)));
        };
        let date = parse_date(date)?;
        let (clock, zone) = split_zone(time.trim())?;
        let clock = parse_clock(clock)?;
        let naive = date.and_time(clock);
        match zone {
            None => Some(Self::Naive(naive)),
            Some(zone) => zone.from_local_datetime(&naive).single().map(|at| Self::Zoned(at.with_timezone(&Utc))),
        }
    }

    /// The moment, with naive stamps read in `zone`.
    #[must_use]
    pub fn at(self, zone: FixedOffset) -> Option<DateTime<Utc>> {
        match self {
            Self::Zoned(at) => Some(at),
            Self::Naive(naive) => zone.from_local_datetime(&naive).single().map(|at| at.with_timezone(&Utc)),
        }
    }
}

/// `2018-08-13`. Read by hand: every row of every page has a stamp, and the general parser costs ten times as much.
fn parse_date(text: &str) -> Option<NaiveDate> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if year.len() != 4 {
        return None;
    }
    NaiveDate::from_ymd_opt(i32::try_from(digits(year)?).ok()?, digits(month)?, digits(day)?)
}

/// `10:15`, `10:15:31` or `10:15:31.249`.
fn parse_clock(text: &str) -> Option<NaiveTime> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = whole.splitn(3, ':');
    let (hour, minute, second) = (digits(parts.next()?)?, digits(parts.next()?)?, digits(parts.next().unwrap_or("0"))?);
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").chars().take(9).collect::<String>().parse().ok()?;
    // A leap second is the last moment of the second before it.
    let (second, nanos) = if second == 60 { (59, 999_999_999) } else { (second, nanos) };
    NaiveTime::from_hms_nano_opt(hour, minute, second, nanos)
}

/// One to four digits.
fn digits(text: &str) -> Option<u32> {
    let plain = matches!(text.len(), 1..=4) && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Splits `10:15:31+02:00` into its clock and zone; a zone that is none makes the whole text none.
fn split_zone(time: &str) -> Option<(&str, Option<FixedOffset>)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return Some((clock.trim_end(), FixedOffset::east_opt(0)));
    }
    let Some(place) = time.find(['+', '-']) else { return Some((time, None)) };
    let (clock, zone) = time.split_at(place);
    let west = zone.starts_with('-');
    let digits: String = zone.chars().skip(1).enumerate().filter(|pair| *pair != (2, ':')).map(|(_, c)| c).collect();
    if !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i32 = digits.parse().ok()?;
    let (hours, minutes) = if digits.len() == 2 { (number, 0) } else { (number / 100, number % 100) };
    let east_s = (hours * 60 + minutes) * 60;
    let zone = FixedOffset::east_opt(if west { -east_s } else { east_s })?;
    Some((clock.trim_end(), Some(zone)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let zone = FixedOffset::east_opt(3600).expect("valid");
        for (text, expected) in [
            ("2018-08-13T10:15:31", "2018-08-13T09:15:31Z"),
            ("2018-08-13T10:15:31.5", "2018-08-13T09:15:31.5Z"),
            ("2025-10-15T13:51:56.249Z", "2025-10-15T13:51:56.249Z"),
            ("2025-10-15T13:51:56z", "2025-10-15T13:51:56Z"),
            ("2025-10-15T13:51:56.249123+02:00", "2025-10-15T11:51:56.249123Z"),
            ("2025-10-15T13:51:56-0330", "2025-10-15T17:21:56Z"),
            ("2025-10-15 13:51:56 +02", "2025-10-15T11:51:56Z"),
            ("2025-10-15T13:51Z", "2025-10-15T13:51:00Z"),
            ("2025-10-15", "2025-10-14T23:00:00Z"),
            (" 2025-10-15T13:51:56Z ", "2025-10-15T13:51:56Z"),
        ] {
            let expected: DateTime<Utc> = expected.parse().expect("valid");
            assert_eq!(Stamp::parse(text).and_then(|stamp| stamp.at(zone)), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_stamp_is_refused() {
        for text in ["", "yesterday", "2025-13-01T00:00:00Z", "2025-10-15T25:00:00Z", "2025-10-15T10:00:00+2:0", "17"] {
            assert_eq!(Stamp::parse(text), None, "{text}");
        }
    }
}
