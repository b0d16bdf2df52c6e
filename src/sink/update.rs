//! Updates: what a sink that got an alert is told about it afterwards, when its options ask for that.
//!
//! An update says what is new and points at its alert; it repeats neither the event nor what to do. It is short and plain in
//! every medium, so no destination has a reason to refuse it for its form.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use vigie_engine::alert::{Alert, MAX_ALERT_EVENT_IDS};
use vigie_engine::rule::Severity;
use vigie_engine::text::{Untrusted, single_line};
use vigie_engine::time::format_duration;

use super::RenderError;
use super::format::{inert_json, stamp};
use super::text::{MAX_VALUE_CHARS, minute, severity_word, title};
use crate::options::{OptionKind, OptionSpec, Options, Presence};

/// The option that asks for updates; every kind of sink has it.
pub const UPDATES: OptionSpec = OptionSpec {
    name: "updates",
    kind: OptionKind::Every(60_000, 7 * 86_400_000),
    presence: Presence::Optional,
    help: "how often an alert that takes up more matches is told again (every 10m); never when missing",
};
/// The option that asks for a closing note; every kind of sink has it.
pub const CLOSING: OptionSpec = OptionSpec {
    name: "closing",
    kind: OptionKind::Flag,
    presence: Presence::Default("false"),
    help: "whether a closing note tells that no more matches came for the rule's quiet time, and how many there were",
};
/// The option of a kind whose destination holds an alert open only for so long: such a kind is told again at half of it.
pub const ENDS_AFTER: OptionSpec = OptionSpec {
    name: "ends_after",
    kind: OptionKind::Duration(5 * 60_000, 24 * 3_600_000),
    presence: Presence::Default("45m"),
    help: "how long the alert stays open after it was last posted; it is posted again at half of that until it is quiet",
};
/// Version of the shape; a consumer matches on it.
pub const SCHEMA: &str = "vigie/update/v1";

/// What a sink wants to hear of an alert that it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follow {
    /// At most one update in this time; `None` for no updates.
    pub every: Option<Duration>,
    /// A note at the end.
    pub closing: bool,
    /// Told so often, more matches or not, until the alert is quiet: the destination forgets what it is not told again.
    pub keeps: Option<Duration>,
}

/// One update of an alert.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// The alert as it stands now.
    pub alert: &'a Alert,
    /// Which update to this sink, from 1.
    pub number: u32,
    /// What is told.
    pub told: Told,
    /// Matches that were not told yet.
    pub more: u64,
    /// When the last delivery about this alert was made.
    pub since: DateTime<Utc>,
    /// The delivery of the alert itself to this sink.
    pub alert_delivery_id: &'a str,
}

/// What an update tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// More matches came.
    More,
    /// None came, and it is not quiet yet: only who asked to be kept informed is told.
    Still,
    /// None came for so long.
    Closing {
        /// The rule's quiet time.
        quiet: Duration,
    },
}

impl Follow {
    /// What a sink's options ask for; `None` when they ask for nothing.
    #[must_use]
    pub fn of(options: &Options) -> Option<Self> {
        let (every, closing) = (options.duration(UPDATES.name), options.flag(CLOSING.name));
        let keeps = options.duration(ENDS_AFTER.name).map(|ends_after| ends_after / 2);
        (every.is_some() || closing || keeps.is_some()).then_some(Self { every, closing, keeps })
    }
}

/// `BLAKE3(alert_id, sink name, "update", number)` as 32 hex digits.
#[must_use]
pub fn update_id(alert_id: &str, sink: &str, number: u32) -> String {
    super::id_of(&[alert_id, sink, "update", &number.to_string()])
}

impl Update<'_> {
    /// `Update to HIGH: title`, on one inert line.
    #[must_use]
    pub fn headline(&self) -> String {
        let what = match self.told {
            Told::More => "Update to",
            Told::Still => "Still open:",
            Told::Closing { .. } => "Quiet again:",
        };
        format!("{what} {}: {}", severity_word(self.alert.rule.severity), title(self.alert))
    }

    /// What is new, as inert lines with their labels.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let alert = self.alert;
        let more = format!("{} since {}", matches(self.more, " more"), minute(self.since));
        let mut lines = match self.told {
            Told::More => vec![("more", format!("{more}, {} in all", alert.count))],
            Told::Still => {
                vec![("more", format!("no more matches since {}, {} in all", minute(self.since), alert.count))]
            }
            Told::Closing { quiet } => {
                let lasted = (alert.last_at - alert.first_at).to_std().unwrap_or_default();
                let total = format!("{} within {}", matches(alert.count, ""), format_duration(seconds(lasted)));
                let mut lines = vec![("quiet", format!("no more matches for {}", format_duration(quiet)))];
                lines.push(("total", total));
                if self.more > 0 {
                    lines.push(("more", more));
                }
                lines
            }
        };
        lines.push(("first", minute(alert.first_at)));
        let id = self.last_event().map(|id| format!(", event {}", single_line(id, MAX_VALUE_CHARS)));
        lines.push(("last", format!("{}{}", minute(alert.last_at), id.unwrap_or_default())));
        lines.push(("rule", single_line(&alert.rule.id, MAX_VALUE_CHARS)));
        lines.push(("alert", single_line(&alert.alert_id, MAX_VALUE_CHARS)));
        lines
    }

    /// The event that was listed last; a full list does not know it.
    fn last_event(&self) -> Option<&str> {
        let ids = &self.alert.events;
        ids.last().filter(|_| ids.len() < MAX_ALERT_EVENT_IDS).map(String::as_str)
    }
}

/// The update as text, each line ended by a line feed.
#[must_use]
pub fn update_text(update: &Update<'_>, delivery_id: &str) -> String {
    let mut text = format!("{}\n", update.headline());
    for (label, value) in update.lines().into_iter().chain([("delivery", single_line(delivery_id, MAX_VALUE_CHARS))]) {
        text.push_str(&format!("  {label:<8} {value}\n"));
    }
    text
}

/// The update as one line of JSON, without a line feed at its end.
///
/// # Errors
/// Never for an alert made by the engine; the type is that of rendering.
pub fn update_json(update: &Update<'_>, delivery_id: &str) -> Result<Vec<u8>, RenderError> {
    let alert = update.alert;
    let short = |text: &Untrusted| Untrusted::new(text.single_line(MAX_VALUE_CHARS));
    let (kind, quiet_seconds) = match update.told {
        Told::More => ("more", None),
        Told::Still => ("still", None),
        Told::Closing { quiet } => ("closing", Some(quiet.as_secs())),
    };
    let json = UpdateJson {
        schema: SCHEMA,
        alert_id: &alert.alert_id,
        delivery_id,
        alert_delivery_id: update.alert_delivery_id,
        number: update.number,
        kind,
        rule: &alert.rule.id,
        severity: alert.rule.severity,
        source: &alert.source,
        account_id: alert.account_id.as_ref().map(short),
        title: short(&alert.title),
        first_at: stamp(alert.first_at),
        last_at: stamp(alert.last_at),
        count: alert.count,
        more: update.more,
        since: stamp(update.since),
        last_event: update.last_event(),
        quiet_seconds,
    };
    let text = serde_json::to_string(&json).map_err(|error| RenderError(error.to_string()))?;
    Ok(inert_json(&text).into_bytes())
}

#[derive(Serialize)]
struct UpdateJson<'a> {
    schema: &'static str,
    alert_id: &'a str,
    delivery_id: &'a str,
    alert_delivery_id: &'a str,
    number: u32,
    kind: &'static str,
    rule: &'a str,
    severity: Severity,
    source: &'a str,
    account_id: Option<Untrusted>,
    title: Untrusted,
    first_at: String,
    last_at: String,
    count: u64,
    more: u64,
    since: String,
    last_event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quiet_seconds: Option<u64>,
}

fn matches(count: u64, kind: &str) -> String {
    if count == 1 { format!("1{kind} match") } else { format!("{count}{kind} matches") }
}

/// Fractions say nothing to a person.
fn seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::contract::{HOSTILE, alert_titled, update_of};

    #[test]
    fn an_update_says_what_is_new_and_which_alert_it_is_about() {
        let alert = alert_titled("Number forwarded elsewhere");
        let shown = update_text(&update_of(&alert, Told::More), "d2");
        let expected = "\
Update to HIGH: Number forwarded elsewhere
  more     2 more matches since 2026-03-04 05:00:30 UTC, 3 in all
  first    2026-03-04 05:00:00 UTC
  last     2026-03-04 05:01:01 UTC, event e-2
  rule     change-from-unexpected-country
  alert    0123456789abcdef0123456789abcdef
  delivery d2
";
        assert_eq!(shown, expected);
        let json = update_json(&update_of(&alert, Told::More), "d2").expect("encodes");
        let expected = concat!(
            r#"{"schema":"vigie/update/v1","alert_id":"0123456789abcdef0123456789abcdef","delivery_id":"d2","#,
            r#""alert_delivery_id":"d1","number":1,"kind":"more","rule":"change-from-unexpected-country","#,
            r#""severity":"high","source":"main","account_id":"abcd1234","title":"Number forwarded elsewhere","#,
            r#""first_at":"2026-03-04T05:00:00Z","last_at":"2026-03-04T05:01:01Z","count":3,"more":2,"#,
            r#""since":"2026-03-04T05:00:30Z","last_event":"e-2"}"#,
        );
        assert_eq!(String::from_utf8(json).expect("UTF-8"), expected);
    }

    #[test]
    fn a_closing_note_says_how_long_it_was_quiet_and_what_there_was() {
        let alert = alert_titled("t");
        let told = Told::Closing { quiet: Duration::from_secs(3600) };
        let shown = update_text(&Update { more: 0, ..update_of(&alert, told) }, "d2");
        assert!(shown.starts_with("Quiet again: HIGH: t\n  quiet    no more matches for 1h\n"), "{shown}");
        assert!(shown.contains("  total    3 matches within 1m1s\n") && !shown.contains("more  "), "{shown}");
        let shown = update_text(&Update { more: 1, ..update_of(&alert, told) }, "d2");
        assert!(shown.contains("  more     1 more match since"), "{shown}");
        let json = String::from_utf8(update_json(&update_of(&alert, told), "d2").expect("encodes")).expect("UTF-8");
        assert!(json.contains(r#""kind":"closing""#) && json.ends_with(r#""quiet_seconds":3600}"#), "{json}");
    }

    #[test]
    fn one_that_is_still_open_says_that_nothing_came() {
        let alert = alert_titled("t");
        let update = Update { more: 0, ..update_of(&alert, Told::Still) };
        let shown = update_text(&update, "d2");
        let expected = "Still open: HIGH: t\n  more     no more matches since 2026-03-04 05:00:30 UTC, 3 in all\n";
        assert!(shown.starts_with(expected), "{shown}");
        let json = String::from_utf8(update_json(&update, "d2").expect("encodes")).expect("UTF-8");
        assert!(json.contains(r#""kind":"still""#) && json.contains(r#""more":0"#), "{json}");
    }

    #[test]
    fn hostile_text_adds_no_line_and_no_escape() {
        let plain = alert_titled("t");
        let mut alert = alert_titled(HOSTILE);
        alert.events = vec![HOSTILE.into()];
        alert.account_id = Some(Untrusted::new(HOSTILE));
        let lines = |alert: &Alert| update_text(&update_of(alert, Told::More), "d2").lines().count();
        assert_eq!(lines(&alert), lines(&plain));
        let json = update_json(&update_of(&alert, Told::More), "d2").expect("encodes");
        for text in [update_text(&update_of(&alert, Told::More), "d2"), String::from_utf8(json).expect("UTF-8")] {
            assert!(!text.chars().any(|c| c != '\n' && vigie_engine::text::is_unsafe(c)), "{text}");
        }
    }

    #[test]
    fn an_update_has_an_id_of_its_own() {
        let ids = [
            super::super::delivery_id("a", "s"),
            update_id("a", "s", 1),
            update_id("a", "s", 2),
            update_id("a", "t", 1),
            update_id("b", "s", 1),
        ];
        assert!(ids.iter().enumerate().all(|(at, id)| id.len() == 32 && !ids[at + 1..].contains(id)), "{ids:?}");
        assert_eq!(update_id("a", "s", 1), ids[1]);
    }
}
