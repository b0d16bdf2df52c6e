//! ServiceNow: an incident by the Table API, with the alert's id as what it correlates with.
//!
//! Its texts are plain; `[code]`, which lets HTML through in the fields that people write in, is taken apart all the same,
//! because texts are copied from one field to another.

use serde_json::{Value, json};
use vigie_engine::rule::Severity;

use super::{Answer, Desk, Form, Record, apart};

/// The dictionary's lengths of `short_description` and `description`, in characters.
const MAX_SUMMARY_CHARS: usize = 160;
const MAX_DESCRIPTION_CHARS: usize = 4_000;

pub(super) const DESK: Desk = Desk {
    kind: "servicenow",
    path: "/api/now/table/incident",
    question: (
        "/api/now/table/incident",
        Some("sysparm_limit=1&sysparm_fields=sys_id"),
        "the log-in is taken, and incidents may be read",
    ),
    max_summary_units: MAX_SUMMARY_CHARS,
    max_description_units: MAX_DESCRIPTION_CHARS,
    units: |_| 1,
    line_units: 0,
    inert: |text| apart(text, &["[code", "[/code"]),
    block: str::to_owned,
    record,
    assent: "result",
    outcome: |answer: &Answer| answer.outcome_unless(&[]),
};

fn record(record: &Record<'_>) -> Value {
    let mut incident = json!({
        "short_description": record.summary,
        "description": record.description,
        "correlation_id": record.alert.alert_id,
    });
    if record.form == Form::Full {
        let (urgency, impact) = urgency_and_impact(record.alert.rule.severity);
        incident["urgency"] = json!(urgency);
        incident["impact"] = json!(impact);
        incident["correlation_display"] = json!("vigie");
    }
    incident
}

/// From 1 (most) to 3 (least); both make the priority.
fn urgency_and_impact(severity: Severity) -> (&'static str, &'static str) {
    match severity {
        Severity::Critical => ("1", "1"),
        Severity::High => ("1", "2"),
        Severity::Medium => ("2", "2"),
        Severity::Low | Severity::Info => ("3", "3"),
    }
}
