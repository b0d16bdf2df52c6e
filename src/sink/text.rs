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
use vigie_engine::text::{Untrusted, single_line};
use vigie_engine::time::format_duration;

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
/// Longest line of rule text.
pub const MAX_RULE_LINE_CHARS: usize = 400;

/// The whole alert, each line ended by a line feed.
#[must_use]
pub fn alert_text(alert: &Alert, delivery_id: &str) -> String {
    let mut lines = vec![format!("{:<8} {}", severity_word(alert.rule.severity), title(alert))];
    let mut add = |label: &str, values: Vec<String>| {
        for (index, value) in values.into_iter().enumerate() {
            lines.push(format!("  {:<8} {value}", if index == 0 { label } else { "" }));
        }
    };
    add("when", vec![when(alert)]);
    add("where", vec![place(alert)]);
    add("key", alert.key.iter().map(|(field, value)| fact(field, value)).collect());
    add("what", facts(&alert.event).iter().map(|(field, value)| fact(field, value)).collect());
    add("why", reasons(alert));
    add("do", response_lines(&alert.rule.response));
    let tags = alert.rule.tags.join(", ");
    add("rule", vec![single_line(&format!("{} ({tags})", alert.rule.id), MAX_RULE_LINE_CHARS).replace(" ()", "")]);
    add("event", vec![event_ids(alert)]);
    add("alert", vec![single_line(&alert.alert_id, MAX_VALUE_CHARS)]);
    add("delivery", vec![single_line(delivery_id, MAX_VALUE_CHARS)]);
    let mut text = lines.join("\n");
    text.push('\n');
    text
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

/// The response step, line by line.
#[must_use]
pub fn response_lines(response: &str) -> Vec<String> {
    let kept = response.lines().map(str::trim_end).filter(|line| !line.trim().is_empty());
    kept.take(MAX_RESPONSE_LINES).map(|line| single_line(line, MAX_RULE_LINE_CHARS)).collect()
}

/// Top-level fields of the event that hold a single value, without id and time, which stand elsewhere.
#[must_use]
pub fn facts(event: &RawValue) -> Vec<(String, Untrusted)> {
    let Ok(fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(event.get()) else {
        return Vec::new();
    };
    let shown = fields.into_iter().filter(|(field, _)| !matches!(field.as_str(), "id" | "created_at" | "account_id"));
    shown.filter_map(|(field, value)| Some((field, scalar(value.get())?))).take(MAX_FACTS).collect()
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

fn event_ids(alert: &Alert) -> String {
    let first = alert.events.first().map_or_else(|| "none".to_owned(), |id| single_line(id, MAX_VALUE_CHARS));
    match alert.events.len().saturating_sub(1) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn minute(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}
