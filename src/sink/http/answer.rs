//! From an HTTP answer to an outcome, by the classes of the delivery policy.
//!
//! It never looks at the body: a sink whose destination answers 200 and means no (Slack) reads the body itself. A redirect
//! is `Misconfigured`: the URL in the configuration is not the destination, the operator can mend it, and nothing is lost
//! meanwhile.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use crate::sink::Outcome;

/// Longest pause that a destination can ask for; delivery policy 2.
pub const MAX_WAIT: Duration = Duration::from_secs(6 * 3600);

/// What came back.
#[derive(Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// What was read of the body, at most [`super::MAX_ANSWER_BYTES`].
    pub body: Vec<u8>,
    /// Whether that is all of it.
    pub complete: bool,
    /// When the headers were there, by our clock.
    pub received_at: DateTime<Utc>,
}

impl Answer {
    /// The outcome by status and headers.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        classify(self.status, &self.headers, self.received_at)
    }
}

/// See [`Answer::outcome`].
#[must_use]
pub fn classify(status: StatusCode, headers: &HeaderMap, now: DateTime<Utc>) -> Outcome {
    match status.as_u16() {
        202 => Outcome::Accepted,
        200..=299 => Outcome::Delivered,
        300..=399 | 401 | 403 | 404 => Outcome::Misconfigured,
        408 | 425 => Outcome::Retry,
        429 => Outcome::Wait(retry_after(headers, now)),
        400 | 413 | 422 => Outcome::Degrade,
        500..=599 => match retry_after(headers, now) {
            Some(pause) => Outcome::Wait(Some(pause)),
            None => Outcome::Retry,
        },
        _ => Outcome::Dead,
    }
}

/// `Retry-After` as seconds or as a date; a date counts from the answer's own `Date`, because clocks differ, else from `now`.
/// At most [`MAX_WAIT`]; `None` when there is none that can be read.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Some(seconds) = text.split('.').next().filter(|whole| is_digits(whole) && is_number(text)) {
        // So long that it does not fit is as long as may be. A fraction is rounded up.
        let whole = seconds.parse::<u64>().unwrap_or(u64::MAX);
        let seconds = whole.saturating_add(u64::from(text.contains('.')));
        return Some(Duration::from_secs(seconds).min(MAX_WAIT));
    }
    let until: DateTime<Utc> = httpdate::parse_http_date(text).ok()?.into();
    let answered = headers.get(DATE).and_then(|value| value.to_str().ok());
    let answered = answered.and_then(|date| httpdate::parse_http_date(date).ok()).map_or(now, DateTime::<Utc>::from);
    // A date that is over asks for no pause.
    Some((until - answered).to_std().unwrap_or_default().min(MAX_WAIT))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_number(text: &str) -> bool {
    text.split_once('.').map_or(is_digits(text), |(whole, part)| is_digits(whole) && is_digits(part))
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;

    fn pause(retry_after: &str, date: Option<&str>) -> Option<u64> {
        let now = Utc.with_ymd_and_hms(2026, 3, 4, 5, 0, 0).single().expect("valid");
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().expect("valid"));
        if let Some(date) = date {
            headers.insert(DATE, date.parse().expect("valid"));
        }
        super::retry_after(&headers, now).map(|pause| pause.as_secs())
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        assert_eq!(pause("0", None), Some(0));
        assert_eq!(pause(" 30 ", None), Some(30));
        assert_eq!(pause("1.2", None), Some(2));
        assert_eq!(pause("21601", None), Some(21_600));
        assert_eq!(pause("Wed, 04 Mar 2026 05:00:30 GMT", None), Some(30));
        assert_eq!(pause("Wed, 04 Mar 2026 05:00:30 GMT", Some("Wed, 04 Mar 2026 05:00:10 GMT")), Some(20));
        assert_eq!(pause("Wed, 04 Mar 2026 05:00:30 GMT", Some("never")), Some(30));
        assert_eq!(pause("Wednesday, 04-Mar-26 05:00:30 GMT", None), Some(30));
        assert_eq!(pause("Wed, 04 Mar 2026 04:00:00 GMT", None), Some(0));
        assert_eq!(pause("Wed, 04 Mar 2099 04:00:00 GMT", None), Some(21_600));
        for bad in ["", "-1", "1s", "1.", ".5", "1.x", "soon"] {
            assert_eq!(pause(bad, None), None, "{bad}");
        }
    }
}
