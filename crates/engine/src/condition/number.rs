//! Numbers, ranges and parts of a time stamp.
//!
//! Whole numbers are compared by their digits, so that two ids beyond 2^53 never become one.

use std::cmp::Ordering;
use std::net::IpAddr;

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike, Utc};

use super::ip::parse_address;

/// A number with the text that it was written as.
#[derive(Debug, Clone)]
pub(crate) struct Number {
    value: f64,
    text: Box<str>,
}

impl Number {
    /// Reads a decimal number; no spaces, no `NaN`, no infinity.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let starts_well = text.trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit() || c == '.');
        let value: f64 = if starts_well { text.parse().ok()? } else { return None };
        value.is_finite().then(|| Self { value, text: text.trim_start_matches('+').into() })
    }

    fn is_whole(&self) -> bool {
        self.text.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit())
    }

    /// How it stands to another.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        if self.is_whole()
            && other.is_whole()
            && let (Ok(this), Ok(that)) = (self.text.parse::<i128>(), other.text.parse::<i128>())
        {
            return this.cmp(&that);
        }
        self.value.partial_cmp(&other.value).unwrap_or(Ordering::Equal)
    }
}

/// `lt`, `lte`, `gt`, `gte`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(crate) fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// Both ends belong to it.
#[derive(Debug, Clone)]
pub(crate) enum Range {
    Numbers(Number, Number),
    Addresses(IpAddr, IpAddr),
}

impl Range {
    /// Reads `10.0.0.5-10.0.0.9`, `2001:db8::1-2001:db8::9`, `1-5` or `-5--1`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let ends = text.match_indices('-').filter_map(|(at, _)| {
            let (low, high) = (text.get(..at)?.trim(), text.get(at + 1..)?.trim());
            match (parse_address(low), parse_address(high)) {
                (Some(low), Some(high)) => Some(Self::Addresses(low, high)),
                _ => Some(Self::Numbers(Number::parse(low)?, Number::parse(high)?)),
            }
        });
        let Some(range) = ends.into_iter().next() else { return Err(format!("`{text}` is not a range")) };
        let upside_down = match &range {
            Self::Numbers(low, high) => low.compare(high).is_gt(),
            Self::Addresses(low, high) if low.is_ipv4() != high.is_ipv4() => {
                return Err(format!("`{text}` goes from one kind of address to the other"));
            }
            Self::Addresses(low, high) => low > high,
        };
        if upside_down { Err(format!("`{text}` ends before it begins")) } else { Ok(range) }
    }
}

/// A part of a time stamp, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StampPart {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl StampPart {
    /// `day` is the day of the month, `week` that of ISO 8601.
    pub(crate) fn of(self, stamp: DateTime<Utc>) -> Number {
        let part = match self {
            Self::Minute => i64::from(stamp.minute()),
            Self::Hour => i64::from(stamp.hour()),
            Self::Day => i64::from(stamp.day()),
            Self::Week => i64::from(stamp.iso_week().week()),
            Self::Month => i64::from(stamp.month()),
            Self::Year => i64::from(stamp.year()),
        };
        Number { value: part as f64, text: part.to_string().into() }
    }
}

/// Reads the stamps of audit logs: RFC 3339, or without a zone, which then is UTC.
pub(crate) fn parse_stamp(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(stamp) = DateTime::parse_from_rfc3339(text) {
        return Some(stamp.to_utc());
    }
    let naive = |format: &str| NaiveDateTime::parse_from_str(text, format).ok();
    naive("%Y-%m-%dT%H:%M:%S%.f").or_else(|| naive("%Y-%m-%d %H:%M:%S%.f")).map(|stamp| stamp.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(one: &str, other: &str) -> Ordering {
        Number::parse(one).expect("a number").compare(&Number::parse(other).expect("a number"))
    }

    #[test]
    fn large_ids_stay_apart() {
        assert_eq!(compare("9007199254740993", "9007199254740992"), Ordering::Greater);
        assert_eq!(compare("10", "10.0"), Ordering::Equal);
        assert_eq!(compare("-3", "2"), Ordering::Less);
        assert_eq!(compare("1e3", "1000"), Ordering::Equal);
        for bad in ["", "x", "NaN", "inf", "1e999", " 1", "1 ", "-", "0x10"] {
            assert!(Number::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn ranges_of_numbers_and_addresses() {
        assert!(matches!(Range::parse("-5--1"), Ok(Range::Numbers(..))));
        assert!(matches!(Range::parse("1.5 - 2"), Ok(Range::Numbers(..))));
        assert!(matches!(Range::parse("10.0.0.5-10.0.0.9"), Ok(Range::Addresses(..))));
        assert!(matches!(Range::parse("2001:db8::1-2001:db8::ff"), Ok(Range::Addresses(..))));
        for bad in ["", "5", "5-1", "10.0.0.9-10.0.0.5", "10.0.0.1-::2", "a-b", "1-", "-1", "10.0.0.1-5"] {
            assert!(Range::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stamps_with_and_without_a_zone() {
        let hour = |text: &str| parse_stamp(text).map(|stamp| StampPart::Hour.of(stamp).value);
        assert_eq!(hour("2018-08-13T10:15:31"), Some(10.0));
        assert_eq!(hour("2025-10-15T13:51:56.249Z"), Some(13.0));
        assert_eq!(hour("2025-10-15T01:51:56+02:00"), Some(23.0));
        assert_eq!(hour("yesterday"), None);
        let week = |text: &str| parse_stamp(text).map(|stamp| StampPart::Week.of(stamp).value);
        assert_eq!(week("2027-01-01T00:00:00Z"), Some(53.0), "by ISO 8601");
    }
}
