//! A digest: one alert that stands for many, when a destination could not take them one by one or nobody was told of them.
//!
//! It is an alert like any, stored and delivered like any, so every sink can show it and its own delivery can be traced. It
//! never takes the place of what it tells of: those stay in the store, and it says how to list them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::value::to_raw_value;
use vigie_engine::alert::{Alert, AlertRule, MAX_ALERT_EVENT_IDS};
use vigie_engine::rule::Severity;
use vigie_engine::state::{Evidence, Finding, MAX_EVIDENCE};
use vigie_engine::text::{Untrusted, single_line};
use vigie_engine::time::format_duration;

use super::notice;

/// Rule id of digests; no rule of a user is named so.
pub const RULE_ID: &str = "vigie-digest";
/// Values named of each field, the most frequent first.
const TOP_VALUES: usize = 3;
/// Fields that values are named of.
const TOP_FIELDS: usize = 3;
/// Rules named in a title.
const TOP_RULES: usize = 2;
/// Longest value shown.
const MAX_VALUE_CHARS: usize = 60;

/// Why many are told as one.
#[derive(Debug, Clone, Copy)]
pub enum Why<'a> {
    /// They came faster than the sink takes them.
    Storm,
    /// They were kept back until now, by this.
    Released(&'a str),
}

/// What a digest keeps of each alert.
#[derive(Debug, Clone)]
pub struct Line {
    alert_id: String,
    rule_id: String,
    severity: Severity,
    title: Untrusted,
    count: u64,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
    key: Vec<(String, Untrusted)>,
}

impl Line {
    /// Of an alert as it stands.
    #[must_use]
    pub fn of(alert: &Alert) -> Self {
        Self {
            alert_id: alert.alert_id.clone(),
            rule_id: alert.rule.id.clone(),
            severity: alert.rule.severity,
            title: alert.title.clone(),
            count: alert.count,
            first_at: alert.first_at,
            last_at: alert.last_at,
            key: alert.key.clone(),
        }
    }

    /// The rule of the alert.
    #[must_use]
    pub fn rule_id(&self) -> &str {
        &self.rule_id
    }
}

/// One alert for all of these, for one sink; `None` for none. The same lines give the same id.
#[must_use]
pub fn digest(sink: &str, why: Why<'_>, lines: &[Line]) -> Option<Alert> {
    let first_at = lines.iter().map(|line| line.first_at).min()?;
    let last_at = lines.iter().map(|line| line.last_at).max()?;
    let worst = lines.iter().map(|line| line.severity).max()?;
    let span = (last_at - first_at).to_std().unwrap_or_default();
    let span = format_duration(std::time::Duration::from_secs(span.as_secs()));
    let rules = by_count(lines.iter().map(|line| line.rule_id.clone()));
    let rules_shown = shown_rules(&rules);
    let count = lines.len();
    let (title, response) = match why {
        Why::Storm => (
            format!("{count} more of {rules_shown} in {span}"),
            "They came faster than this destination takes them; none is lost.".to_owned(),
        ),
        Why::Released(note) => (
            format!("{count} of {rules_shown} were not told: {note}"),
            "Nobody was told of them here; what still goes on is told by itself.".to_owned(),
        ),
    };
    let list = format!("List them: vigie deliveries list --sink {sink} --status digested");
    let top = top_values(lines);
    let summary = format!("{count} alerts{}", if top.is_empty() { String::new() } else { format!("; top {top}") });
    let alert_ids: Vec<&str> = lines.iter().map(|line| line.alert_id.as_str()).collect();
    let event = serde_json::json!({
        "event_type": "VIGIE_DIGEST",
        "source": notice::SOURCE,
        "about": sink,
        "rules": rules.iter().map(|(rule, count)| format!("{rule}: {count}")).collect::<Vec<_>>(),
        "alerts": alert_ids.iter().take(MAX_ALERT_EVENT_IDS).collect::<Vec<_>>(),
    });
    Some(Alert {
        alert_id: id(sink, &alert_ids),
        rule: AlertRule {
            id: RULE_ID.into(),
            title: "Several alerts in one".into(),
            severity: worst,
            tags: vec!["vigie".into()],
            response: format!("{response}\n{list}"),
        },
        source: notice::SOURCE.into(),
        account_id: None,
        title: Untrusted::new(title),
        first_at,
        last_at,
        count: lines.iter().map(|line| line.count).sum(),
        late: None,
        key: Vec::new(),
        reason: Vec::new(),
        finding: Some(Finding {
            detection: "digest".into(),
            summary: Untrusted::new(summary),
            evidence: evidence(lines),
        }),
        note: None,
        // Texts and numbers: it cannot fail.
        event: to_raw_value(&event).unwrap_or_default(),
        events: Vec::new(),
    })
}

fn id(sink: &str, alert_ids: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [RULE_ID, sink].iter().chain(alert_ids) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().chars().take(32).collect()
}

/// The most frequent first.
fn by_count(values: impl Iterator<Item = String>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    let mut counted: Vec<(String, usize)> = counts.into_iter().collect();
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counted
}

fn shown_rules(rules: &[(String, usize)]) -> String {
    let named: Vec<&str> = rules.iter().take(TOP_RULES).map(|(rule, _)| rule.as_str()).collect();
    match rules.len().saturating_sub(TOP_RULES) {
        0 => named.join(" and "),
        more => format!("{} and {more} more rules", named.join(", ")),
    }
}

/// `actor: bob@example.org (20), eve (3)`; what an intruder chose is bounded and inert.
fn top_values(lines: &[Line]) -> String {
    let keys = lines.iter().flat_map(|line| &line.key);
    let fields = by_count(keys.clone().map(|(field, _)| field.clone()));
    let shown = fields.iter().take(TOP_FIELDS).map(|(field, _)| {
        let values = keys.clone().filter(|(name, _)| name == field);
        let values = by_count(values.map(|(_, value)| value.single_line(MAX_VALUE_CHARS)));
        let top: Vec<String> =
            values.iter().take(TOP_VALUES).map(|(value, count)| format!("{value} ({count})")).collect();
        format!("{}: {}", single_line(field, MAX_VALUE_CHARS), top.join(", "))
    });
    shown.collect::<Vec<_>>().join("; ")
}

/// The worst, then the oldest.
fn evidence(lines: &[Line]) -> Vec<Evidence> {
    let mut sorted: Vec<&Line> = lines.iter().collect();
    sorted.sort_by_key(|line| (std::cmp::Reverse(line.severity), line.first_at));
    let evidence = sorted.into_iter().take(MAX_EVIDENCE).map(|line| Evidence {
        at: line.first_at,
        event_id: line.alert_id.clone(),
        event_type: Some(Untrusted::new(line.rule_id.clone())),
        source_ip: None,
        source_country: None,
        note: Some(line.title.clone()),
    });
    evidence.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract;

    fn line(name: &str, rule: &str, actor: &str, severity: Severity) -> Line {
        let mut alert = contract::batch(name, 10, &[]).alerts.remove(0).alert;
        (alert.rule.id, alert.rule.severity) = (rule.into(), severity);
        alert.key = vec![("actor".into(), Untrusted::new(actor))];
        Line::of(&alert)
    }

    #[test]
    fn a_digest_says_how_many_of_what_and_by_whom() {
        let mut lines: Vec<Line> = (0..5).map(|n| line(&format!("a{n}"), "storm", "bob", Severity::Low)).collect();
        lines.push(line("b", "other", "eve\u{202e}\n", Severity::Critical));
        let alert = digest("chat", Why::Storm, &lines).expect("some");
        assert_eq!(alert.title.as_raw(), "6 more of storm and other in 0s");
        assert_eq!((alert.rule.severity, alert.count), (Severity::Critical, lines.iter().map(|line| line.count).sum()));
        let finding = alert.finding.as_ref().expect("there");
        assert!(finding.summary.as_raw().starts_with("6 alerts; top actor: bob (5), eve"), "{:?}", finding.summary);
        assert_eq!(finding.evidence[0].event_id, lines[5].alert_id, "the worst first");
        assert!(alert.rule.response.contains("--sink chat --status digested"));
        assert_eq!(alert.exception(), None);
        assert_eq!(digest("chat", Why::Storm, &lines).expect("some").alert_id, alert.alert_id);
        assert_ne!(digest("mail", Why::Storm, &lines).expect("some").alert_id, alert.alert_id);
        let released = digest("chat", Why::Released("silenced by bob"), &lines[..1]).expect("some");
        assert_eq!(released.title.as_raw(), "1 of storm were not told: silenced by bob");
        assert!(digest("chat", Why::Storm, &[]).is_none());
    }
}
