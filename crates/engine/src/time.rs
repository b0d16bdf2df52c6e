//! Time as text: durations with units and the stamps that audit logs use.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};

/// Reads `15s`, `500ms`, `5m`, `1h30m`, `7d`, `2w`. A number without a unit is refused: units are never guessed.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("a duration is empty".into());
    }
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(digits_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let unit_ms: u64 = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "" => return Err(format!("`{text}` has no unit")),
            other => return Err(format!("`{text}`: unknown unit `{other}` (ms, s, m, h, d, w)")),
        };
        let number: u64 = digits.parse().map_err(|_| format!("`{text}` is not a duration"))?;
        let part_ms = number.checked_mul(unit_ms).ok_or_else(|| format!("`{text}` is too long"))?;
        total_ms = total_ms.checked_add(part_ms).ok_or_else(|| format!("`{text}` is too long"))?;
        rest = next.trim_start();
    }
    Ok(Duration::from_millis(total_ms))
}

/// Reads a day (`2026-12-01`, its start), a stamp with a zone or offset (`2026-12-01T18:00:00Z`, `...+01:00`) or one without
/// (then UTC), with or without fractions, with `T` or a blank between date and time.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_stamp(text: &str) -> Result<DateTime<Utc>, String> {
    let text = text.trim();
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Ok(day.and_time(NaiveTime::MIN).and_utc());
    }
    if let Ok(zoned) = DateTime::parse_from_rfc3339(text) {
        return Ok(zoned.to_utc());
    }
    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    naive.map(|naive| naive.and_utc()).ok_or_else(|| format!("`{text}` is no date and no time stamp"))
}

/// Writes a duration in the form that `parse_duration` reads, largest units first.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut rest_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut shown = String::new();
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest_ms >= unit_ms {
            shown.push_str(&format!("{}{unit}", rest_ms / unit_ms));
            rest_ms %= unit_ms;
        }
    }
    if shown.is_empty() { "0s".into() } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_units() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration(" 2w "), Ok(Duration::from_secs(14 * 86_400)));
        for bad in ["", "15", "h", "1x", "99999999999999999999s", "18446744073709551615w", "-1s", "1.5h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stamps_come_in_many_forms() {
        for (text, expected) in [
            ("2026-12-01", "2026-12-01T00:00:00Z"),
            ("2026-12-01T18:00:00Z", "2026-12-01T18:00:00Z"),
            ("2026-12-01T18:00:00+01:00", "2026-12-01T17:00:00Z"),
            ("2018-08-13T10:15:31", "2018-08-13T10:15:31Z"),
            ("2018-08-13 10:15", "2018-08-13T10:15:00Z"),
            ("2025-10-15T13:51:56.249Z", "2025-10-15T13:51:56.249Z"),
            ("2025-10-15T13:51:56.249", "2025-10-15T13:51:56.249Z"),
        ] {
            let shown = parse_stamp(text).map(|stamp| stamp.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
            assert_eq!(shown.as_deref(), Ok(expected), "{text}");
        }
        for bad in ["", "tomorrow", "2026-13-01", "01.12.2026", "2026-12-01T25:00:00Z", "1764547200"] {
            assert!(parse_stamp(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn formatting_reads_back() {
        for text in ["0s", "1ms", "1h30m", "7d", "1d2h3m4s5ms"] {
            let duration = parse_duration(text).expect("valid");
            assert_eq!(format_duration(duration), text);
        }
    }
}
