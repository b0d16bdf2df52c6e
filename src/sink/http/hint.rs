//! What an answer says about limits: how long to stay away after a refusal, and when a limit that is used up is filled again.
//!
//! Every form is read in full or not at all, and nothing read is longer than [`MAX_WAIT`]: a hint is the destination's word,
//! not a command. Clocks differ, so what is given as a time counts from the answer's own `Date`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde_json::Value;

/// Longest pause that a destination can ask for; delivery policy 2.
pub const MAX_WAIT: Duration = Duration::from_secs(6 * 3600);
/// `Retry-After` in milliseconds, as Azure's services give it.
const MILLISECOND_HEADERS: &[&str] = &["retry-after-ms", "x-ms-retry-after-ms"];
/// Members of a body in seconds: Discord and Telegram, and as it is spelled elsewhere.
const SECOND_MEMBERS: &[&str] = &["retry_after", "retryAfter", "retry_after_seconds"];
/// Members of a body in milliseconds.
const MILLISECOND_MEMBERS: &[&str] = &["retry_after_ms", "retryAfterMs"];
/// Objects within a body that hold such members: Telegram's `parameters`, and the usual `error`.
const NESTED: &[&str] = &["parameters", "error"];
/// Headers of one limit: what remains of it, and when it is filled again, the surest first.
const LIMIT_HEADERS: &[(&str, &[&str])] = &[
    ("x-ratelimit-remaining", &["x-ratelimit-reset-after", "x-ratelimit-reset"]),
    ("x-rate-limit-remaining", &["x-rate-limit-reset"]),
    ("ratelimit-remaining", &["ratelimit-reset"]),
];
/// The one header of the later drafts (draft-ietf-httpapi-ratelimit-headers).
const LIMIT_HEADER: &str = "ratelimit";
/// Limits read of one answer; a destination has a few windows.
const MAX_LIMITS: usize = 16;
/// From here on a number is a time since 1970 in seconds; less would be a wait of 30 years.
const LEAST_EPOCH_SECONDS: f64 = 1e9;
/// From here on it is one in milliseconds.
const LEAST_EPOCH_MILLISECONDS: f64 = 1e11;

/// One limit as an answer tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Limit {
    remaining: Option<f64>,
    reset: Option<Duration>,
}

/// How long a refusal (429) asks to stay away. What says so in as many words goes first, the longest of it; else the limits
/// that are used up, or do not say how they stand.
#[must_use]
pub fn pause(headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Option<Duration> {
    asked(headers, now).max(in_body(body)).or_else(|| {
        let limits = limits(headers, now).into_iter();
        limits.filter(|limit| limit.remaining.is_none_or(|left| left < 1.0)).filter_map(|limit| limit.reset).max()
    })
}

/// How long the headers ask to stay away: `Retry-After` in either form, or in milliseconds.
#[must_use]
pub fn asked(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let milliseconds = MILLISECOND_HEADERS.iter().filter_map(|name| wait(number(text(headers, name)?)? / 1000.0));
    milliseconds.max().max(retry_after(headers, now))
}

/// How long nothing more is taken, because a limit is used up; `None` when none is, or its end is not told.
#[must_use]
pub fn spent(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let spent = limits(headers, now).into_iter().filter(|limit| limit.remaining.is_some_and(|left| left < 1.0));
    spent.filter_map(|limit| limit.reset).max().filter(|reset| !reset.is_zero())
}

/// `Retry-After` as seconds or as a date; `None` when there is none that can be read.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = text(headers, RETRY_AFTER.as_str())?;
    if let Some(seconds) = number(text) {
        return wait(seconds.ceil());
    }
    let until: DateTime<Utc> = httpdate::parse_http_date(text).ok()?.into();
    // A date that is over asks for no pause.
    Some((until - answered_at(headers, now)).to_std().unwrap_or_default().min(MAX_WAIT))
}

fn in_body(body: &[u8]) -> Option<Duration> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let objects = NESTED.iter().filter_map(|name| body.get(name)).chain([&body]);
    let hints = objects.flat_map(|object| {
        let member = |name: &&str| match object.get(name)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => number(text.trim()),
            _ => None,
        };
        let seconds = SECOND_MEMBERS.iter().filter_map(member);
        let milliseconds = MILLISECOND_MEMBERS.iter().filter_map(member).map(|value| value / 1000.0);
        seconds.chain(milliseconds).collect::<Vec<_>>()
    });
    hints.filter_map(wait).max()
}

fn limits(headers: &HeaderMap, now: DateTime<Utc>) -> Vec<Limit> {
    let mut limits = structured(headers);
    for (remaining, resets) in LIMIT_HEADERS {
        let remaining = text(headers, remaining).and_then(number);
        let reset = resets.iter().find_map(|name| until(number(text(headers, name)?)?, headers, now));
        limits.push(Limit { remaining, reset });
    }
    limits
}

/// `limit=100, remaining=0, reset=5` and `"a";r=0;t=5, "b";r=9;t=60`.
fn structured(headers: &HeaderMap) -> Vec<Limit> {
    let mut whole = Limit::default();
    let mut limits = Vec::new();
    let lines = headers.get_all(LIMIT_HEADER).iter().filter_map(|value| value.to_str().ok());
    for item in lines.flat_map(|line| split(line, ',')).take(MAX_LIMITS) {
        let mut own = Limit::default();
        for part in split(item, ';') {
            let Some((name, value)) = part.split_once('=') else { continue };
            let value = number(value.trim());
            match name.trim() {
                "remaining" => whole.remaining = value,
                "reset" => whole.reset = value.and_then(wait),
                "r" => own.remaining = value,
                "t" => own.reset = value.and_then(wait),
                _ => {}
            }
        }
        limits.push(own);
    }
    limits.push(whole);
    limits
}

/// The parts between separators that stand outside quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |character| {
        quoted ^= character == '"';
        character == separator && !quoted
    })
}

/// A reset given as seconds from now, or as a time since 1970.
fn until(value: f64, headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    if value < LEAST_EPOCH_SECONDS {
        return wait(value);
    }
    let at_seconds = if value < LEAST_EPOCH_MILLISECONDS { value } else { value / 1000.0 };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 stay below 2^53 for 285,000 years")]
    let answered_seconds = answered_at(headers, now).timestamp_millis() as f64 / 1000.0;
    wait((at_seconds - answered_seconds).max(0.0))
}

/// When the answer was made, by the destination's clock if it says so.
fn answered_at(headers: &HeaderMap, now: DateTime<Utc>) -> DateTime<Utc> {
    let date = text(headers, DATE.as_str()).and_then(|date| httpdate::parse_http_date(date).ok());
    date.map_or(now, DateTime::<Utc>::from)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Digits, perhaps with a fraction; no sign, no exponent, no words. So long that it does not fit is infinite.
fn number(text: &str) -> Option<f64> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = text.split_once('.').map_or(digits(text), |(whole, part)| digits(whole) && digits(part));
    if is_number { text.parse().ok() } else { None }
}

/// At most [`MAX_WAIT`]; `None` for what is no time to wait.
fn wait(seconds: f64) -> Option<Duration> {
    let is_time = seconds >= 0.0;
    is_time.then(|| Duration::try_from_secs_f64(seconds).unwrap_or(MAX_WAIT).min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn now() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 3, 4, 5, 0, 0).single().expect("valid")
    }

    type Lines<'a> = &'a [(&'a str, &'a str)];

    fn headers(lines: Lines<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        headers
    }

    fn pause_ms(lines: Lines<'_>, body: &str) -> Option<u128> {
        pause(&headers(lines), body.as_bytes(), now()).map(|pause| pause.as_millis())
    }

    fn spent_ms(lines: Lines<'_>) -> Option<u128> {
        spent(&headers(lines), now()).map(|pause| pause.as_millis())
    }

    const DATED: (&str, &str) = ("Date", "Wed, 04 Mar 2026 05:00:10 GMT");
    const SIX_HOURS_MS: u128 = 6 * 3600 * 1000;

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let seconds = |value, date: Option<&str>| {
            let mut lines = vec![("Retry-After", value)];
            lines.extend(date.map(|date| ("Date", date)));
            pause_ms(&lines, "").map(|ms| ms / 1000)
        };
        assert_eq!(seconds("0", None), Some(0));
        assert_eq!(seconds(" 30 ", None), Some(30));
        assert_eq!(seconds("1.2", None), Some(2));
        assert_eq!(seconds("21601", None), Some(21_600));
        assert_eq!(seconds("Wed, 04 Mar 2026 05:00:30 GMT", None), Some(30));
        assert_eq!(seconds("Wed, 04 Mar 2026 05:00:30 GMT", Some(DATED.1)), Some(20));
        assert_eq!(seconds("Wed, 04 Mar 2026 05:00:30 GMT", Some("never")), Some(30));
        assert_eq!(seconds("Wednesday, 04-Mar-26 05:00:30 GMT", None), Some(30));
        assert_eq!(seconds("Wed, 04 Mar 2026 04:00:00 GMT", None), Some(0));
        assert_eq!(seconds("Wed, 04 Mar 2099 04:00:00 GMT", None), Some(21_600));
        for bad in ["", "-1", "1s", "1.", ".5", "1.x", "soon"] {
            assert_eq!(seconds(bad, None), None, "{bad}");
        }
    }

    #[test]
    fn a_refusal_tells_its_pause_in_every_known_form() {
        let cases: &[(Lines<'_>, &str, Option<u128>)] = &[
            (&[("retry-after-ms", "1500")], "", Some(1500)),
            (&[("x-ms-retry-after-ms", "2500"), ("Retry-After", "2")], "", Some(2500)),
            (&[], r#"{"message": "You are being rate limited.", "retry_after": 64.57, "global": false}"#, Some(64_570)),
            (&[], r#"{"ok":false,"error_code":429,"parameters":{"retry_after":35}}"#, Some(35_000)),
            (&[], r#"{"retry_after_ms": 700}"#, Some(700)),
            (&[], r#"{"error": {"retryAfterMs": "900"}}"#, Some(900)),
            (&[], r#"{"retryAfter": "12"}"#, Some(12_000)),
            (&[("Retry-After", "1")], r#"{"retry_after": 64.57}"#, Some(64_570)),
            (&[("Retry-After", "90")], r#"{"retry_after": 64.57}"#, Some(90_000)),
            (&[("X-RateLimit-Reset-After", "4.25")], "", Some(4250)),
            (&[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "30")], "", Some(30_000)),
            (&[("X-RateLimit-Remaining", "7"), ("X-RateLimit-Reset", "30")], "", None),
            (&[("RateLimit", "limit=100, remaining=0, reset=9")], "", Some(9000)),
            // In as many words goes before what a limit lets guess.
            (&[("Retry-After", "5"), ("RateLimit-Remaining", "0"), ("RateLimit-Reset", "3600")], "", Some(5000)),
            (&[], "", None),
            (&[], "slow down", None),
        ];
        for (lines, body, expected) in cases {
            assert_eq!(pause_ms(lines, body), *expected, "{lines:?} {body}");
        }
    }

    #[test]
    fn a_limit_that_is_used_up_is_seen_in_every_known_form() {
        let cases: &[(Lines<'_>, Option<u128>)] = &[
            (&[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset-After", "1.25")], Some(1250)),
            (&[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "60")], Some(60_000)),
            (&[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1772600460")], Some(60_000)),
            (&[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1772600460.5"), DATED], Some(50_500)),
            (&[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1772600460000")], Some(60_000)),
            (&[("X-Rate-Limit-Remaining", "0"), ("X-Rate-Limit-Reset", "1772600401")], Some(1000)),
            (&[("RateLimit-Limit", "10"), ("RateLimit-Remaining", "0"), ("RateLimit-Reset", "50")], Some(50_000)),
            (&[("RateLimit", "limit=10, remaining=0, reset=7")], Some(7000)),
            (&[("RateLimit", "\"default\";r=0;t=30")], Some(30_000)),
            (&[("RateLimit", "\"a, b; r=1\";r=0;t=30, \"day\";r=5;t=900")], Some(30_000)),
            (&[("RateLimit", "a;r=0;t=30"), ("RateLimit", "b;r=0;t=40")], Some(40_000)),
            (&[("X-RateLimit-Remaining", "1"), ("X-RateLimit-Reset-After", "60")], None),
            (&[("X-RateLimit-Reset-After", "60")], None),
            (&[("X-RateLimit-Remaining", "0")], None),
            (&[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1772600000")], None),
            (&[("RateLimit", "\"default\";r=4;t=30")], None),
            (&[("Retry-After", "60")], None),
        ];
        for (lines, expected) in cases {
            assert_eq!(spent_ms(lines), *expected, "{lines:?}");
        }
    }

    #[test]
    fn a_hostile_hint_is_ignored_or_cut() {
        let long = "9".repeat(400);
        for huge in ["99999999999999999999999999", &long, "21600001"] {
            for name in ["retry-after-ms", "x-ms-retry-after-ms", "Retry-After", "X-RateLimit-Reset-After"] {
                assert_eq!(pause_ms(&[(name, huge)], ""), Some(SIX_HOURS_MS), "{name}: {huge}");
            }
            assert_eq!(spent_ms(&[("RateLimit", &format!("x;r=0;t={huge}"))]), Some(SIX_HOURS_MS), "{huge}");
            assert_eq!(pause_ms(&[], &format!("{{\"retry_after\": \"{huge}\"}}")), Some(SIX_HOURS_MS), "{huge}");
        }
        assert_eq!(spent_ms(&[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", &long)]), Some(SIX_HOURS_MS));
        assert_eq!(pause_ms(&[], r#"{"retry_after": 1e308}"#), Some(SIX_HOURS_MS));
        for bad in ["-1", "NaN", "nan", "inf", "infinity", "1e3", "0x10", "+5", "", " ", "1_5", "é", "--", "1..2"] {
            for name in
                ["retry-after-ms", "x-ms-retry-after-ms", "Retry-After", "X-RateLimit-Reset-After", "RateLimit-Reset"]
            {
                assert_eq!(pause_ms(&[(name, bad)], ""), None, "{name}: {bad}");
            }
            assert_eq!(spent_ms(&[("RateLimit", &format!("x;r=0;t={bad}"))]), None, "{bad}");
            assert_eq!(spent_ms(&[("X-RateLimit-Remaining", bad), ("X-RateLimit-Reset-After", "9")]), None, "{bad}");
            assert_eq!(pause_ms(&[], &format!("{{\"retry_after\": \"{bad}\"}}")), None, "{bad}");
        }
        let deep = format!("{}1{}", "[".repeat(30_000), "]".repeat(30_000));
        for body in [
            r#"{"retry_after": -5}"#,
            r#"{"retry_after": [5]}"#,
            r#"{"retry_after": 1e999}"#,
            "[5]",
            "5",
            "null",
            &deep,
        ] {
            assert_eq!(pause_ms(&[], body), None);
        }
        assert_eq!(spent_ms(&[("RateLimit", &",".repeat(5000))]), None);
        assert_eq!(spent_ms(&[("RateLimit", "\"never closed;r=0;t=5")]), None);
    }
}
