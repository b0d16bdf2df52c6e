//! An audit event as the stand-in holds it, and its rendering in the exact JSON shape of the API.
//! It shares no type with any client. A stamp keeps its own style (naive or zoned, fraction or none), because the real
//! API shows several.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use chrono::{DateTime, Datelike, FixedOffset, NaiveDateTime, TimeDelta, Timelike, Utc};
use serde_json::Value;

/// Every event type of the published lists, with its description.
pub const EVENT_TYPES: &[(&str, &str)] = &[
    ("USER_STATUS", "User status updated"),
    ("USER_UPDATE", "User updated"),
    ("USER_BILLING_UPDATE", "User billing updated"),
    ("USER_CREATE", "User created"),
    ("USER_LOGIN", "User logged in"),
    ("USER_LOGOUT", "User logged out"),
    ("USER_PRODUCT_SEARCH", "User searched for a product"),
    ("USER_API_KEYS_UPDATE", "User API keys updated"),
    ("ACCOUNT_SECRET_CREATE", "Account secret created"),
    ("ACCOUNT_SECRET_DELETE", "Account secret deleted"),
    ("ACCOUNT_UPDATE_SPAMMER", "Account spammer status updated"),
    ("ACCOUNT_UPDATE_SETTINGS", "Account settings updated"),
    ("ACCOUNT_UPDATE_SETTINGS_API", "Account settings updated via API"),
    ("NUMBER_ASSIGN", "Number assigned"),
    ("NUMBER_UPDATED", "Number updated"),
    ("NUMBER_RELEASE", "Number released"),
    ("NUMBER_USER_CANCELED", "Number cancelled by user"),
    ("NUMBER_LINKED", "Number linked to application"),
    ("NUMBER_UNLINKED", "Number unlinked from application"),
    ("APP_CREATE", "Application created"),
    ("APP_UPDATE", "Application updated"),
    ("APP_DELETE", "Application deleted"),
    ("APP_DISABLE", "Application disabled"),
    ("APP_ENABLE", "Application enabled"),
    ("IP_WHITELIST_CREATE", "IP whitelist entry created"),
    ("IP_WHITELIST_DELETE", "IP whitelist entry deleted"),
    ("AUTORELOAD_ENABLE", "Auto-reload enabled"),
    ("AUTORELOAD_UPDATE", "Auto-reload updated"),
    ("AUTORELOAD_DISABLE", "Auto-reload disabled"),
];

/// Where a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// `CD`, a person in the Customer Dashboard.
    Dashboard,
    /// `DEVAPI`, a program with the account's key.
    Api,
}

/// How `created_at` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stamp {
    /// `2018-08-13T10:15:31`, in the server's zone.
    Naive,
    /// `2018-08-13T10:15:31.249`, in the server's zone.
    NaiveMillis,
    /// `2018-08-13T10:15:31Z`.
    Zulu,
    /// `2025-10-15T13:51:56.249Z`.
    ZuluMillis,
    /// `2025-10-15T15:51:56.249+02:00`, with this many minutes east of UTC.
    Offset(i16),
}

impl Stamp {
    /// Whether it shows parts of a second.
    #[must_use]
    pub fn has_fraction(self) -> bool {
        matches!(self, Self::NaiveMillis | Self::ZuluMillis | Self::Offset(_))
    }
}

/// One audit event.
#[derive(Debug, Clone, PartialEq)]
pub struct SimEvent {
    /// UUID.
    pub id: String,
    /// One of [`EVENT_TYPES`], or anything.
    pub event_type: Cow<'static, str>,
    /// When it happened; whole milliseconds, whole seconds where the stamp shows no fraction.
    pub created_at: DateTime<Utc>,
    /// How `created_at` is written.
    pub stamp: Stamp,
    /// How long after `created_at` the API begins to show it; negative for a row dated in the future.
    pub lateness: TimeDelta,
    /// The user's e-mail; absent on events of the API.
    pub user_email: Option<String>,
    /// The user's number; absent on events of the API.
    pub user_id: Option<u64>,
    /// The account, which is its API key.
    pub account_id: Cow<'static, str>,
    /// Where it was made.
    pub origin: Origin,
    /// The address it was made from; may be empty.
    pub source_ip: Cow<'static, str>,
    /// The country of that address; `None` leaves the member out.
    pub source_country: Option<Cow<'static, str>>,
    /// What is particular to the type: a JSON object.
    pub context: Value,
}

impl SimEvent {
    /// An event of a type at a time, with everything else plain: dashboard, no user, no address, empty context, no
    /// lateness.
    #[must_use]
    pub fn new(id: String, event_type: impl Into<Cow<'static, str>>, created_at: DateTime<Utc>) -> Self {
        Self {
            id,
            event_type: event_type.into(),
            created_at: to_millis(created_at),
            stamp: Stamp::ZuluMillis,
            lateness: TimeDelta::zero(),
            user_email: None,
            user_id: None,
            account_id: Cow::Borrowed(""),
            origin: Origin::Dashboard,
            source_ip: Cow::Borrowed(""),
            source_country: None,
            context: Value::Object(serde_json::Map::new()),
        }
    }

    /// Sets the time, cut to what the stamp can show: the second or the millisecond.
    pub fn set_created_at(&mut self, at: DateTime<Utc>) {
        self.created_at = if self.stamp.has_fraction() { to_millis(at) } else { to_seconds(at) };
    }

    /// Sets how late the API shows it.
    pub fn set_lateness(&mut self, lateness: Duration) {
        self.lateness = TimeDelta::from_std(lateness).unwrap_or(TimeDelta::MAX);
    }

    /// From when on the API shows it.
    #[must_use]
    pub fn visible_at(&self) -> DateTime<Utc> {
        self.created_at.checked_add_signed(self.lateness).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// The description that goes with the type.
    #[must_use]
    pub fn description(&self) -> &'static str {
        EVENT_TYPES.iter().find(|(name, _)| *name == self.event_type).map_or("", |(_, text)| text)
    }

    /// The event as the API writes it; naive stamps are written in `zone`.
    #[must_use]
    pub fn to_json(&self, zone: FixedOffset) -> String {
        // A short context makes about 600 bytes.
        let mut json = String::with_capacity(640);
        json.push_str("{\"id\":");
        push_text(&mut json, &self.id);
        json.push_str(",\"event_type\":");
        push_text(&mut json, &self.event_type);
        json.push_str(",\"event_type_description\":");
        push_text(&mut json, self.description());
        json.push_str(",\"created_at\":\"");
        push_stamp(&mut json, self.created_at, self.stamp, zone);
        json.push('"');
        if let Some(email) = &self.user_email {
            json.push_str(",\"user_email\":");
            push_text(&mut json, email);
        }
        if let Some(user_id) = self.user_id {
            push_format(&mut json, format_args!(",\"user_id\":{user_id}"));
        }
        json.push_str(",\"account_id\":");
        push_text(&mut json, &self.account_id);
        json.push_str(match self.origin {
            Origin::Dashboard => ",\"source\":\"CD\",\"source_description\":\"Customer Dashboard\",\"source_ip\":",
            Origin::Api => ",\"source\":\"DEVAPI\",\"source_description\":\"Developer API\",\"source_ip\":",
        });
        push_text(&mut json, &self.source_ip);
        if let Some(country) = &self.source_country {
            json.push_str(",\"source_country\":");
            push_text(&mut json, country);
        }
        push_format(&mut json, format_args!(",\"context\":{}", self.context));
        json.push_str(",\"_links\":{\"self\":{\"href\":\"https://api.nexmo.com/beta/audit/events/");
        json.push_str(&self.id);
        json.push_str("\"}}}");
        json
    }
}

/// Writes a JSON string.
pub(crate) fn push_text(json: &mut String, text: &str) {
    let plain = text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
    if plain {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        push_format(json, format_args!("{}", Value::from(text)));
    }
}

/// Appends formatted text.
pub(crate) fn push_format(json: &mut String, text: std::fmt::Arguments<'_>) {
    json.write_fmt(text).expect("writing into a String does not fail");
}

fn push_stamp(json: &mut String, at: DateTime<Utc>, stamp: Stamp, zone: FixedOffset) {
    match stamp {
        Stamp::Naive => push_naive(json, at.with_timezone(&zone).naive_local(), false),
        Stamp::NaiveMillis => push_naive(json, at.with_timezone(&zone).naive_local(), true),
        Stamp::Zulu | Stamp::ZuluMillis => {
            push_naive(json, at.naive_utc(), stamp.has_fraction());
            json.push('Z');
        }
        Stamp::Offset(minutes) => {
            let shifted = at.naive_utc() + TimeDelta::minutes(i64::from(minutes));
            push_naive(json, shifted, true);
            let sign = if minutes < 0 { '-' } else { '+' };
            let east = minutes.unsigned_abs();
            push_format(json, format_args!("{sign}{:02}:{:02}", east / 60, east % 60));
        }
    }
}

fn push_naive(json: &mut String, at: NaiveDateTime, fraction: bool) {
    let (year, month, day) = (at.year(), at.month(), at.day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    push_format(json, format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"));
    if fraction {
        push_format(json, format_args!(".{:03}", at.and_utc().timestamp_subsec_millis()));
    }
}

fn to_millis(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at.timestamp_millis()).unwrap_or(at)
}

fn to_seconds(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(at.timestamp(), 0).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn stamps_are_written_in_their_style() {
        let mut event = SimEvent::new("x".to_owned(), "APP_CREATE", at("2025-10-15T13:51:56.249Z"));
        let zone = FixedOffset::east_opt(7_200).unwrap();
        let cases = [
            (Stamp::Naive, "2025-10-15T15:51:56"),
            (Stamp::NaiveMillis, "2025-10-15T15:51:56.249"),
            (Stamp::Zulu, "2025-10-15T13:51:56Z"),
            (Stamp::ZuluMillis, "2025-10-15T13:51:56.249Z"),
            (Stamp::Offset(-210), "2025-10-15T10:21:56.249-03:30"),
        ];
        for (stamp, expected) in cases {
            event.stamp = stamp;
            let json: Value = serde_json::from_str(&event.to_json(zone)).unwrap();
            assert_eq!(json["created_at"], expected);
        }
    }

    #[test]
    fn hostile_text_stays_valid_json() {
        let mut event = SimEvent::new("x".to_owned(), "APP_CREATE", at("2025-10-15T13:51:56Z"));
        event.user_email = Some("a\"b\\c\r\n\u{202e}@example.org".to_owned());
        let json: Value = serde_json::from_str(&event.to_json(zone_utc())).unwrap();
        assert_eq!(json["user_email"], "a\"b\\c\r\n\u{202e}@example.org");
    }

    #[test]
    fn time_is_cut_to_what_the_stamp_shows() {
        let mut event = SimEvent::new("x".to_owned(), "APP_CREATE", at("2025-10-15T13:51:56.2491Z"));
        assert_eq!(event.created_at, at("2025-10-15T13:51:56.249Z"));
        event.stamp = Stamp::Naive;
        event.set_created_at(at("2025-10-15T13:51:56.249Z"));
        assert_eq!(event.created_at, at("2025-10-15T13:51:56Z"));
    }

    fn zone_utc() -> FixedOffset {
        FixedOffset::east_opt(0).unwrap()
    }
}
