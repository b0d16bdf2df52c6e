//! TheHive: an alert, whose reference is ours, so that a second attempt finds that it is there.
//!
//! The description is Markdown; each of its lines is indented, and no line of an indented block can end it.

use serde::Deserialize;
use serde_json::{Value, json};
use vigie_engine::rule::Severity;
use vigie_engine::text::single_line;

use super::{Answer, Desk, Form, Outcome, Record, defang};
use crate::sink::format::facts::{Facts, ip};

/// TheHive's limits: a title, a description and a tag, in characters.
const MAX_TITLE_CHARS: usize = 512;
const MAX_DESCRIPTION_CHARS: usize = 1 << 20;
const MAX_TAG_CHARS: usize = 128;
/// What makes a line of Markdown one of a block.
const INDENT: &str = "    ";

pub(super) const DESK: Desk = Desk {
    kind: "thehive",
    path: "/api/v1/alert",
    question: ("/api/v1/user/current", None, "it knows who we are"),
    max_summary_units: MAX_TITLE_CHARS,
    max_description_units: MAX_DESCRIPTION_CHARS,
    units: |_| 1,
    line_units: INDENT.len(),
    inert: defang,
    block: |text| text.lines().map(|line| format!("{INDENT}{line}\n")).collect(),
    record,
    assent: "_id",
    outcome,
};

fn record(record: &Record<'_>) -> Value {
    let rule = &record.alert.rule;
    let mut alert = json!({
        "type": "vigie",
        "source": "vigie",
        "sourceRef": record.reference,
        "title": record.summary,
        "description": record.description,
        "severity": severity(rule.severity),
        "date": record.alert.first_at.timestamp_millis(),
    });
    if record.form == Form::Full {
        let tags =
            rule.tags.iter().cloned().chain([format!("rule:{}", rule.id), format!("vigie:{}", record.alert.alert_id)]);
        alert["tags"] = tags.map(|tag| single_line(&tag, MAX_TAG_CHARS)).collect();
        alert["observables"] = Value::Array(observables(record));
    }
    alert
}

/// Addresses and the user, each once: TheHive refuses an alert that names one twice.
fn observables(record: &Record<'_>) -> Vec<Value> {
    let facts = Facts::of(record.alert);
    let evidence = record.alert.finding.iter().flat_map(|finding| &finding.evidence);
    let evidence = evidence.filter_map(|evidence| ip(evidence.source_ip.as_ref()?.as_raw()));
    let mut addresses: Vec<String> = facts.ip().into_iter().chain(evidence).map(|ip| ip.to_string()).collect();
    addresses.sort();
    addresses.dedup();
    let addresses = addresses.into_iter().map(|address| json!({"dataType": "ip", "data": address}));
    addresses.chain(facts.mail().map(|mail| json!({"dataType": "mail", "data": mail}))).collect()
}

fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Info | Severity::Low => 1,
        Severity::Medium => 2,
        Severity::High => 3,
        Severity::Critical => 4,
    }
}

#[derive(Deserialize)]
struct Refusal {
    r#type: String,
    message: String,
}

/// That an observable is there already is said in the same way, and then the alert is not: only `Alert ...` counts.
fn outcome(answer: &Answer) -> Outcome {
    let refusal = serde_json::from_slice::<Refusal>(&answer.body).ok().filter(|_| answer.status.as_u16() == 400);
    let is_there = refusal.is_some_and(|refusal| {
        refusal.r#type == "CreateError"
            && refusal.message.starts_with("Alert ")
            && refusal.message.contains("already exist")
    });
    if is_there { Outcome::Delivered } else { answer.outcome_unless(&[]) }
}
