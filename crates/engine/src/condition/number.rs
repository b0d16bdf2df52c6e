//! Numbers, ranges and parts of a time stamp.
//!
//! Whole numbers are compared by their digits, so that two ids beyond 2^53 never become one.

use std::cmp::Ordering;
use std::net::IpAddr;

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike, Utc};

use super::ip::parse_address;

/// A number. What is whole is held exactly, however it was spelt (`10`, `10.0`, `1e1`), so that equality is one thing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Whole(i128),
    /// Not whole, or beyond [`MAX_EXACT`].
    Float(f64),
}

/// Whole numbers from here on are floats: above it, the two kinds would overlap.
const MAX_EXACT: i128 = 1 << 100;

impl Number {
    /// Reads a decimal number; no spaces, no `NaN`, no infinity.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(whole) = text.parse::<i128>()
            && (-MAX_EXACT..=MAX_EXACT).contains(&whole)
        {
            return Some(Self::Whole(whole));
        }
        let starts_well = text.trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit() || c == '.');
        let value: f64 = if starts_well { text.parse().ok()? } else { return None };
        if !value.is_finite() {
            return None;
        }
        let exact = value.fract() == 0.0 && value.abs() < MAX_EXACT as f64;
        Some(if exact { Self::Whole(value as i128) } else { Self::Float(value) })
    }

    /// How it stands to another.
    pub(crate) fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Whole(this), Self::Whole(that)) => this.cmp(&that),
            _ => self.approximate().total_cmp(&other.approximate()),
        }
    }

    /// Equal numbers and only they have the same key.
    pub(crate) fn key(self) -> (bool, u128) {
        match self {
            Self::Whole(whole) => (true, whole as u128),
            Self::Float(float) => (false, u128::from(float.to_bits())),
        }
    }

    fn approximate(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Float(float) => float,
        }
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
            Self::Numbers(low, high) => low.compare(*high).is_gt(),
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
        Number::Whole(part.into())
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
        Number::parse(one).expect("a number").compare(Number::parse(other).expect("a number"))
    }

    #[test]
    fn large_ids_stay_apart() {
        assert_eq!(compare("9007199254740993", "9007199254740992"), Ordering::Greater);
        assert_eq!(compare("10", "10.0"), Ordering::Equal);
        assert_eq!(compare("-3", "2"), Ordering::Less);
        assert_eq!(compare("1e3", "1000"), Ordering::Equal);
        assert_eq!(compare("9007199254740993", "9007199254740992.0"), Ordering::Greater);
        assert_eq!(compare("0.1", "0.10"), Ordering::Equal);
        assert_eq!(compare("1e40", "9"), Ordering::Greater);
        assert_eq!(compare("-0.0", "0"), Ordering::Equal);
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
        let hour = |text: &str| parse_stamp(text).map(|stamp| StampPart::Hour.of(stamp));
        assert_eq!(hour("2018-08-13T10:15:31"), Some(Number::Whole(10)));
        assert_eq!(hour("2025-10-15T13:51:56.249Z"), Some(Number::Whole(13)));
        assert_eq!(hour("2025-10-15T01:51:56+02:00"), Some(Number::Whole(23)));
        assert_eq!(hour("yesterday"), None);
        let week = |text: &str| parse_stamp(text).map(|stamp| StampPart::Week.of(stamp));
        assert_eq!(week("2027-01-01T00:00:00Z"), Some(Number::Whole(53)), "by ISO 8601");
    }
}
