//! The alert as text for a person who was asleep a minute ago: how bad, what, when, where, why, what to do, ids.
//!
//! Every line that holds text of an event went through `single_line`; it never contains a control character but the line
//! feeds between its own lines. Colour is not part of it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use vigie_engine::alert::{Alert, Reason};
use vigie_engine::rule::Severity;
use vigie_engine::state::{Evidence, MAX_EVIDENCE};
use vigie_engine::text::{Untrusted, single_line};
use vigie_engine::time::format_duration;

use super::format::whole_pairs;

/// Longest title shown to people.
pub const MAX_TITLE_CHARS: usize = 200;
/// Longest single value (a field's content, an account).
pub const MAX_VALUE_CHARS: usize = 200;
/// Reasons shown; the rest is counted.
pub const MAX_REASONS: usize = 12;
/// Top-level fields of the event shown.
pub const MAX_FACTS: usize = 10;
/// Lines of the response step.
pub const MAX_RESPONSE_LINES: usize = 20;
/// Longest part of a line about one event behind a finding; each part is an address, a name or a value.
const MAX_PART_CHARS: usize = 80;
/// Longest summary of a finding: its numbers and one value.
const MAX_SUMMARY_CHARS: usize = 300;
/// Of an id, enough to find it.
const SHORT_ID_CHARS: usize = 12;
/// Longest line of rule text.
pub const MAX_RULE_LINE_CHARS: usize = 400;

/// How much of an alert is said: what nobody needs at once goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    Whole,
    /// Without the ready-made exception.
    Evidence,
    /// Of a finding the summary only.
    Summary,
}

impl Extent {
    /// From the most to the least.
    pub const ALL: [Self; 3] = [Self::Whole, Self::Evidence, Self::Summary];

    /// The events behind the alert's finding, as far as this says them.
    #[must_use]
    pub fn found(self, alert: &Alert) -> Vec<String> {
        let most = if self == Self::Summary { 1 } else { usize::MAX };
        finding(alert).into_iter().take(most).collect()
    }

    /// The ready-made exception, if this says it.
    #[must_use]
    pub fn exception(self, alert: &Alert) -> Option<String> {
        if self == Self::Whole { alert.exception() } else { None }
    }
}

/// The whole alert, each line ended by a line feed.
#[must_use]
pub fn alert_text(alert: &Alert, delivery_id: &str) -> String {
    alert_text_of(alert, delivery_id, Extent::Whole)
}

/// The most of the alert that fits; an exception that was cut would mean something else, so it is whole or not there.
#[must_use]
pub fn alert_text_within(alert: &Alert, delivery_id: &str, fits: impl Fn(&str) -> bool) -> String {
    let mut texts = Extent::ALL.iter().map(|extent| alert_text_of(alert, delivery_id, *extent));
    texts.find(|text| fits(text)).unwrap_or_else(|| alert_text_of(alert, delivery_id, Extent::Summary))
}

fn alert_text_of(alert: &Alert, delivery_id: &str, extent: Extent) -> String {
    let mut lines = vec![format!("{:<8} {}", severity_word(alert.rule.severity), title(alert))];
    let mut add = |label: &str, values: Vec<String>| {
        for (index, value) in values.into_iter().enumerate() {
            lines.push(format!("  {:<8} {value}", if index == 0 { label } else { "" }));
        }
    };
    add("note", note(alert).into_iter().collect());
    add("when", vec![when(alert)]);
    add("where", vec![place(alert)]);
    add("key", alert.key.iter().map(|(field, value)| fact(field, value)).collect());
    add("what", facts(&alert.event).iter().map(|(field, value)| fact(field, value)).collect());
    add("why", reasons(alert));
    add("found", extent.found(alert));
    add("do", response_lines(&alert.rule.response));
    let tags = alert.rule.tags.join(", ");
    add("rule", vec![single_line(&format!("{} ({tags})", alert.rule.id), MAX_RULE_LINE_CHARS).replace(" ()", "")]);
    add("unless", extent.exception(alert).into_iter().collect());
    add("event", vec![event_ids(alert)]);
    add("alert", vec![single_line(&alert.alert_id, MAX_VALUE_CHARS)]);
    add("delivery", vec![single_line(delivery_id, MAX_VALUE_CHARS)]);
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// Whether all lines of a text fit into `room`.
#[must_use]
pub fn is_within(text: &str, room: usize, cost: impl Fn(&str) -> usize) -> bool {
    text.lines().map(cost).sum::<usize>() <= room
}

/// The lines of a text from its first on, as long as their costs fit into `room`; how many were left out stands below.
#[must_use]
pub fn lines_within(text: &str, room: usize, cost: impl Fn(&str) -> usize) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut used = 0;
    let fitting = lines.iter().take_while(|line| {
        used += cost(line);
        used <= room
    });
    let mut shown: Vec<String> = fitting.map(|line| (*line).to_owned()).collect();
    let left = lines.len() - shown.len();
    shown.extend((left > 0).then(|| format!("and {left} more lines")));
    shown
}

/// Both ids, short: where a receiver knows no key to drop a duplicate, a person can.
#[must_use]
pub fn footer(alert: &Alert, delivery_id: &str) -> String {
    let short = |id: &str| single_line(&id.chars().take(SHORT_ID_CHARS).collect::<String>(), SHORT_ID_CHARS);
    format!("vigie, alert {}, delivery {}", short(&alert.alert_id), short(delivery_id))
}

/// `CRITICAL`, for the eye.
#[must_use]
pub fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "INFO",
        Severity::Low => "LOW",
        Severity::Medium => "MEDIUM",
        Severity::High => "HIGH",
        Severity::Critical => "CRITICAL",
    }
}

/// The title on one inert line.
#[must_use]
pub fn title(alert: &Alert) -> String {
    let shown = alert.title.single_line(MAX_TITLE_CHARS);
    if shown.trim().is_empty() { single_line(&alert.rule.title, MAX_TITLE_CHARS) } else { shown }
}

/// First and last time, how many, how late.
#[must_use]
pub fn when(alert: &Alert) -> String {
    let mut shown = minute(alert.first_at);
    if alert.count > 1 {
        shown.push_str(&format!(" to {}, {} matches", minute(alert.last_at), alert.count));
    }
    if let Some(late_s) = alert.late {
        let late = Duration::from_secs(u64::try_from(late_s).unwrap_or_default());
        shown.push_str(&format!(" (late: seen {} after the event)", format_duration(late)));
    }
    shown
}

/// Why this copy came where it came, if there is something to say about it.
#[must_use]
pub fn note(alert: &Alert) -> Option<String> {
    alert.note.as_ref().map(|note| single_line(note, MAX_RULE_LINE_CHARS))
}

/// Source and account.
#[must_use]
pub fn place(alert: &Alert) -> String {
    let source = single_line(&alert.source, MAX_VALUE_CHARS);
    match &alert.account_id {
        Some(account) => format!("{source}, account {}", account.single_line(MAX_VALUE_CHARS)),
        None => source,
    }
}

/// Each operand that held, one a line.
#[must_use]
pub fn reasons(alert: &Alert) -> Vec<String> {
    let mut lines: Vec<String> = alert.reason.iter().take(MAX_REASONS).map(reason_line).collect();
    let more = alert.reason.len().saturating_sub(MAX_REASONS);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// What a stateful rule found: a sentence with the numbers, then the events that it rests on, one a line.
#[must_use]
pub fn finding(alert: &Alert) -> Vec<String> {
    let Some(finding) = &alert.finding else { return Vec::new() };
    let summary = finding.summary.single_line(MAX_SUMMARY_CHARS);
    [summary].into_iter().chain(finding.evidence.iter().take(MAX_EVIDENCE).map(evidence_line)).collect()
}

/// The response step, line by line.
#[must_use]
pub fn response_lines(response: &str) -> Vec<String> {
    let kept = response.lines().map(str::trim_end).filter(|line| !line.trim().is_empty());
    kept.take(MAX_RESPONSE_LINES).map(|line| single_line(line, MAX_RULE_LINE_CHARS)).collect()
}

/// Top-level fields of the event that hold a single value, without id and time, which stand elsewhere.
#[must_use]
pub fn facts(event: &RawValue) -> Vec<(String, Untrusted)> {
    // A field's name may be half a surrogate pair as well, and must not hide the others.
    let whole = whole_pairs(event.get());
    let Ok(fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(&whole) else {
        return Vec::new();
    };
    let shown = fields.into_iter().filter(|(field, _)| !matches!(field.as_str(), "id" | "created_at" | "account_id"));
    shown.filter_map(|(field, value)| Some((field, scalar(value.get())?))).take(MAX_FACTS).collect()
}

/// URLs made harmless for readers and for programs that turn them into links: `hxxps[:]//evil[.]example/x`. Only words that
/// hold `://` or begin with `www.` change, so that field paths stay as they are.
#[must_use]
pub fn defang(text: &str) -> String {
    let mut defanged = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        let lower = word.to_ascii_lowercase();
        if lower.contains("://") || lower.contains("www.") || lower.contains("mailto:") {
            let dotless = word.replace('.', "[.]").replace("://", "[:]//");
            defanged.push_str(&dotless.replace("http", "hxxp").replace("HTTP", "HXXP"));
        } else {
            defanged.push_str(word);
        }
    }
    defanged
}

fn scalar(json: &str) -> Option<Untrusted> {
    match json.as_bytes().first()? {
        b'{' | b'[' => None,
        b'n' => None,
        // A lone surrogate is no Rust string; its JSON form still says what came.
        b'"' => Some(Untrusted::new(serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned()))),
        _ => Some(Untrusted::new(json)),
    }
}

fn fact(field: &str, value: &Untrusted) -> String {
    format!("{} = {}", single_line(field, MAX_VALUE_CHARS), value.single_line(MAX_VALUE_CHARS))
}

fn reason_line(reason: &Reason) -> String {
    let asked = single_line(&format!("{} {} {}", reason.field, reason.operator, reason.expected), MAX_RULE_LINE_CHARS);
    match &reason.actual {
        Some(actual) => format!("{asked}: was {}", actual.single_line(MAX_VALUE_CHARS)),
        None => format!("{asked}: was missing"),
    }
}

/// `2026-03-04 05:00:00 UTC APP_CREATE from 203.0.113.7 (KP): second`, without what the event does not have.
fn evidence_line(evidence: &Evidence) -> String {
    let part = |text: &Option<Untrusted>| text.as_ref().map(|text| text.single_line(MAX_PART_CHARS));
    let mut line = minute(evidence.at);
    if let Some(event_type) = part(&evidence.event_type) {
        line.push_str(&format!(" {event_type}"));
    }
    match (part(&evidence.source_ip), part(&evidence.source_country)) {
        (Some(address), Some(country)) => line.push_str(&format!(" from {address} ({country})")),
        (Some(one), None) | (None, Some(one)) => line.push_str(&format!(" from {one}")),
        (None, None) => {}
    }
    if let Some(note) = part(&evidence.note) {
        line.push_str(&format!(": {note}"));
    }
    line
}

fn event_ids(alert: &Alert) -> String {
    let first = alert.events.first().map_or_else(|| "none".to_owned(), |id| single_line(id, MAX_VALUE_CHARS));
    match alert.events.len().saturating_sub(1) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// To the second, in UTC.
#[must_use]
pub fn minute(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::contract::{HOSTILE, alert_titled, make_hostile, stateful_alert};

    #[test]
    fn a_person_finds_what_why_and_what_to_do() {
        let expected = "\
HIGH     Number forwarded elsewhere
  when     2026-03-04 05:00:00 UTC to 2026-03-04 05:01:01 UTC, 3 matches (late: seen 2h1m after the event)
  where    main, account abcd1234
  key      actor = bob@example.org
  what     f = 1.10
           n = 12345678901234567890123
           s = a  b\" c
  why      source_country not in GB, IE: was KP
           user_email exists false: was missing
  do       Call the user.
           If it was not them, revoke the key.
  rule     change-from-unexpected-country (attack.t1078.004)
  event    e-1 and 1 more
  alert    0123456789abcdef0123456789abcdef
  delivery d1
";
        assert_eq!(alert_text(&alert_titled("Number forwarded elsewhere"), "d1"), expected);
    }

    #[test]
    fn evidence_and_exception_stand_where_they_are_looked_for() {
        let shown = alert_text(&stateful_alert(), "d1");
        let expected = "\
  found    2 countries of bob@example.org within 1h
           2026-03-04 04:59:00 UTC USER_LOGIN from 192.0.2.9 (GB): GB
           2026-03-04 05:00:00 UTC from KP
  do       Call the user.
           If it was not them, revoke the key.
  rule     change-from-unexpected-country (attack.t1078.004)
  unless   - {when: {user_email: \"bob@example.org\", source_country: \"KP\"}, until: \"2026-04-03T05:00:00Z\", \
owner: \"who answers for it\", reason: \"why it is harmless (alert 0123456789ab)\"}
  event    e-1 and 1 more
";
        assert!(shown.contains(expected), "{shown}");
    }

    #[test]
    fn what_does_not_fit_goes_whole_and_in_order() {
        let alert = stateful_alert();
        let whole = alert_text(&alert, "d1");
        let within = |bytes: usize| alert_text_within(&alert, "d1", |text| text.len() <= bytes);
        assert_eq!(within(whole.len()), whole);
        let evidence = within(whole.len() - 1);
        assert!(!evidence.contains("unless") && evidence.contains("USER_LOGIN"), "{evidence}");
        let summary = within(evidence.len() - 1);
        assert!(summary.contains("2 countries") && !summary.contains("USER_LOGIN"), "{summary}");
        assert_eq!(within(1), summary, "the caller cuts the rest");
    }

    #[test]
    fn hostile_text_adds_no_line_and_no_escape() {
        let lines = |alert: &Alert| alert_text(alert, "d1").lines().count();
        let plain = lines(&alert_titled("t"));
        let mut alert = alert_titled(HOSTILE);
        alert.account_id = Some(Untrusted::new(HOSTILE));
        alert.key = vec![(HOSTILE.into(), Untrusted::new(HOSTILE))];
        alert.reason[0].actual = Some(Untrusted::new(HOSTILE));
        alert.events = vec![HOSTILE.into()];
        alert.event =
            RawValue::from_string(serde_json::json!({HOSTILE: HOSTILE, "b": 1, "c": 2}).to_string()).expect("valid");
        assert_eq!(lines(&alert), plain);
        let unsafe_left: Vec<_> =
            alert_text(&alert, "d1").chars().filter(|c| *c != '\n' && vigie_engine::text::is_unsafe(*c)).collect();
        assert!(unsafe_left.is_empty(), "{unsafe_left:?}");
        let mut alert = stateful_alert();
        let plain = lines(&alert);
        make_hostile(&mut alert, HOSTILE);
        assert_eq!(lines(&alert), plain);
        assert!(!alert_text(&alert, "d1").chars().any(|c| c != '\n' && vigie_engine::text::is_unsafe(c)));
    }

    #[test]
    fn links_are_made_harmless_and_field_paths_stay() {
        let cases = [
            ("see https://evil.example/p?q=1.", "see hxxps[:]//evil[.]example/p?q=1[.]"),
            ("(HTTP://1.2.3.4) www.evil.example", "(HXXP[:]//1[.]2[.]3[.]4) www[.]evil[.]example"),
            ("HtTp://a.b", "HtTp[:]//a[.]b"),
            ("context.answer_url.url = x  y", "context.answer_url.url = x  y"),
        ];
        for (given, expected) in cases {
            assert_eq!(defang(given), expected);
        }
    }

    #[test]
    fn an_alert_without_parts_has_no_empty_lines() {
        let mut alert = alert_titled(" ");
        (alert.key, alert.reason, alert.events, alert.account_id, alert.late) = (vec![], vec![], vec![], None, None);
        (alert.count, alert.rule.response, alert.rule.tags) = (1, String::new(), vec![]);
        alert.event = RawValue::from_string("[1]".into()).expect("valid");
        let shown = alert_text(&alert, "d1");
        assert!(shown.starts_with("HIGH     Change from an unexpected country\n"), "{shown}");
        assert!(shown.contains("rule     change-from-unexpected-country\n"), "{shown}");
        assert_eq!(shown.lines().count(), 7, "{shown}");
    }
}
