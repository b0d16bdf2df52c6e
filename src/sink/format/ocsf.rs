//! OCSF: a Detection Finding (class 2004), created by an alert, updated by its updates, closed by its closing note.
//!
//! The finding's id is the alert's, so that all three are one finding; the event's id is the delivery's. Only attributes of
//! the base schema are used, none of a profile. What the schema has no place for stands below `unmapped.vigie`.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use vigie_engine::alert::Alert;
use vigie_engine::rule::Severity;
use vigie_engine::state::Evidence;

use super::facts::{Facts, ip, is_country, severity_number, tactics, techniques};
use super::{AlertJson, own};
use crate::sink::RenderContext;
use crate::sink::text::{self, MAX_VALUE_CHARS};
use crate::sink::update::{Told, Update};

/// Version of the schema.
const VERSION: &str = "1.5.0";
/// Category Findings.
const CATEGORY: u32 = 2;
/// Class Detection Finding.
const CLASS: u32 = 2004;

/// What became of a finding: number and name of the activity, then of the status.
type Activity = (u32, &'static str, u32, &'static str);

const CREATE: Activity = (1, "Create", 1, "New");
const UPDATE: Activity = (2, "Update", 1, "New");
const CLOSE: Activity = (3, "Close", 4, "Resolved");

pub(super) fn alert(said: &AlertJson<'_>, alert: &Alert, context: &RenderContext<'_>) -> Value {
    let facts = Facts::of(alert);
    let mut finding = finding(alert, CREATE, context, said.account_id.map(|id| json!(id)));
    let summary = said.finding.map(|finding| finding.summary.single_line(MAX_VALUE_CHARS));
    finding["message"] = json!(said.title);
    finding["is_alert"] = json!(true);
    finding["finding_info"]["title"] = json!(said.title);
    finding["finding_info"]["desc"] = json!(summary.unwrap_or_else(|| text::reasons(alert).join("\n")));
    finding["finding_info"]["related_events"] = said.events.iter().map(|id| json!({"uid": id})).collect();
    let behind = said.finding.iter().flat_map(|finding| &finding.evidence).map(evidence);
    finding["evidences"] = behind.chain([subject(&facts)]).filter(|evidence| !evidence.is_null()).collect();
    finding["remediation"] = json!({"desc": Some(&alert.rule.response).filter(|response| !response.trim().is_empty())});
    finding["raw_data"] = json!(said.event.map(|event| event.get()));
    finding["unmapped"] = json!({"vigie": own(said)});
    finding
}

pub(super) fn update(update: &Update<'_>, context: &RenderContext<'_>, own: Value) -> Value {
    let activity = match update.told {
        Told::More | Told::Still => UPDATE,
        Told::Closing { .. } => CLOSE,
    };
    let account_id = own.get("account_id").cloned();
    let mut finding = finding(update.alert, activity, context, account_id);
    finding["message"] = json!(update.headline());
    finding["finding_info"]["title"] = json!(text::title(update.alert));
    finding["finding_info"]["modified_time"] = json!(context.now.timestamp_millis());
    finding["unmapped"] = json!({"vigie": own});
    finding
}

/// What an alert and its updates have in common, with all that the schema demands.
fn finding(alert: &Alert, activity: Activity, context: &RenderContext<'_>, account_id: Option<Value>) -> Value {
    let (activity_id, activity_name, status_id, status) = activity;
    let (rule, ms) = (&alert.rule, |time: DateTime<Utc>| time.timestamp_millis());
    json!({
        "activity_id": activity_id,
        "activity_name": activity_name,
        "category_uid": CATEGORY,
        "category_name": "Findings",
        "class_uid": CLASS,
        "class_name": "Detection Finding",
        "type_uid": CLASS * 100 + activity_id,
        "type_name": format!("Detection Finding: {activity_name}"),
        "severity_id": severity_number(rule.severity),
        "severity": severity(rule.severity),
        "status_id": status_id,
        "status": status,
        "time": ms(context.now),
        "start_time": ms(alert.first_at),
        "end_time": ms(alert.last_at),
        "count": alert.count,
        "metadata": {
            "version": VERSION,
            "product": {"name": "Vigie", "vendor_name": "Vigie", "version": env!("CARGO_PKG_VERSION")},
            "uid": context.delivery_id,
            "correlation_uid": alert.alert_id,
            "tenant_uid": account_id,
            "log_provider": alert.source,
            "labels": rule.tags,
        },
        "finding_info": {
            "uid": alert.alert_id,
            "types": [rule.id],
            "analytic": {"type_id": 1, "type": "Rule", "uid": rule.id, "name": rule.title},
            "attacks": attacks(&rule.tags),
            "first_seen_time": ms(alert.first_at),
            "last_seen_time": ms(alert.last_at),
            "data_sources": [alert.source],
        },
    })
}

/// Who did it and from where; null when the event says neither.
fn subject(facts: &Facts) -> Value {
    let endpoint = facts.ip().map(|ip| json!({"ip": ip, "location": {"country": facts.country}}));
    let actor = facts.email.as_ref().map(|name| json!({"user": {"name": name, "email_addr": facts.mail()}}));
    if endpoint.is_none() && actor.is_none() {
        return Value::Null;
    }
    json!({"name": facts.event_type, "actor": actor, "src_endpoint": endpoint})
}

/// An event behind the finding.
fn evidence(evidence: &Evidence) -> Value {
    let address = evidence.source_ip.as_ref().and_then(|address| ip(address.as_raw()));
    let country = evidence.source_country.as_ref().filter(|country| is_country(country.as_raw()));
    json!({
        "uid": evidence.event_id,
        "name": evidence.event_type,
        "src_endpoint": address.map(|ip| json!({"ip": ip, "location": {"country": country}})),
        "data": {"time": evidence.at.timestamp_millis(), "country": country, "note": evidence.note},
    })
}

fn attacks(tags: &[String]) -> Vec<Value> {
    let techniques = techniques(tags).map(|name| match name.split_once('.') {
        Some((technique, _)) => json!({"technique": {"uid": technique}, "sub_technique": {"uid": name}}),
        None => json!({"technique": {"uid": name}}),
    });
    let tactics = tactics(tags).map(|name| json!({"tactic": {"name": name}}));
    techniques.chain(tactics).collect()
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "Informational",
        Severity::Low => "Low",
        Severity::Medium => "Medium",
        Severity::High => "High",
        Severity::Critical => "Critical",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Format;
    use super::super::tests::{context, read, update, update_told};
    use super::*;
    use crate::sink::contract::{alert_titled, stateful_alert};

    #[test]
    fn an_alert_is_a_detection_finding() {
        let finding = read(Format::Ocsf.alert(&stateful_alert(), &context(), usize::MAX).expect("renders"));
        let vigie = &finding["unmapped"]["vigie"];
        assert_eq!((&vigie["schema"], &vigie["count"]), (&json!("vigie/alert/v1"), &json!(3)));
        assert!(vigie["exception"].is_string() && vigie.get("event").is_none(), "{vigie}");
        let expected = json!({
            "activity_id": 1, "activity_name": "Create",
            "category_uid": 2, "category_name": "Findings",
            "class_uid": 2004, "class_name": "Detection Finding",
            "type_uid": 200_401, "type_name": "Detection Finding: Create",
            "severity_id": 4, "severity": "High", "status_id": 1, "status": "New", "is_alert": true,
            "time": 1_772_600_767_000_i64, "start_time": 1_772_600_400_000_i64, "end_time": 1_772_600_461_000_i64,
            "count": 3, "message": "Two countries at once",
            "metadata": {
                "version": "1.5.0",
                "product": {"name": "Vigie", "vendor_name": "Vigie", "version": env!("CARGO_PKG_VERSION")},
                "uid": "d1", "correlation_uid": "0123456789abcdef0123456789abcdef", "tenant_uid": "abcd1234",
                "log_provider": "main", "labels": ["attack.t1078.004"],
            },
            "finding_info": {
                "uid": "0123456789abcdef0123456789abcdef", "title": "Two countries at once",
                "desc": "2 countries of bob@example.org within 1h",
                "types": ["change-from-unexpected-country"],
                "analytic": {
                    "type_id": 1, "type": "Rule",
                    "uid": "change-from-unexpected-country", "name": "Change from an unexpected country",
                },
                "attacks": [{"technique": {"uid": "T1078"}, "sub_technique": {"uid": "T1078.004"}}],
                "first_seen_time": 1_772_600_400_000_i64, "last_seen_time": 1_772_600_461_000_i64,
                "data_sources": ["main"], "related_events": [{"uid": "e-1"}, {"uid": "e-2"}],
            },
            "evidences": [
                {
                    "uid": "e-0", "name": "USER_LOGIN",
                    "src_endpoint": {"ip": "192.0.2.9", "location": {"country": "GB"}},
                    "data": {"time": 1_772_600_340_000_i64, "country": "GB", "note": "GB"},
                },
                {"uid": "e-1", "data": {"time": 1_772_600_400_000_i64, "country": "KP"}},
                {"actor": {"user": {"name": "bob@example.org", "email_addr": "bob@example.org"}}},
            ],
            "remediation": {"desc": "Call the user.\nIf it was not them, revoke the key."},
            "raw_data": r#"{"id":"e-1","user_email":"bob@example.org","source_country":"KP"}"#,
            "unmapped": {"vigie": vigie},
        });
        assert_eq!(finding, expected);
    }

    #[test]
    fn all_that_the_schema_demands_is_there_whatever_the_event_lacks() {
        let mut alert = alert_titled("t");
        (alert.key, alert.reason, alert.events, alert.account_id, alert.late) = (vec![], vec![], vec![], None, None);
        (alert.rule.response, alert.rule.tags) = (String::new(), vec![]);
        alert.event = serde_json::value::RawValue::from_string("[1]".into()).expect("valid");
        let mut findings = vec![read(Format::Ocsf.alert(&alert, &context(), usize::MAX).expect("renders"))];
        findings.push(read(update(Format::Ocsf)));
        for finding in findings {
            for demanded in ["activity_id", "category_uid", "class_uid", "type_uid", "severity_id", "time"] {
                assert!(finding[demanded].is_u64(), "{demanded}: {finding}");
            }
            assert!(finding["metadata"]["version"].is_string() && finding["metadata"]["product"]["name"].is_string());
            assert!(finding["finding_info"]["uid"].is_string() && finding["finding_info"]["title"].is_string());
            for absent in ["evidences", "remediation"] {
                assert!(finding.get(absent).is_none(), "{absent} would lack what it must have: {finding}");
            }
        }
    }

    #[test]
    fn updates_and_the_closing_note_are_about_the_same_finding() {
        let more = read(update(Format::Ocsf));
        let closing = read(update_told(Format::Ocsf, Told::Closing { quiet: Duration::from_secs(3600) }));
        for (finding, activity, status) in [(&more, 2, 1), (&closing, 3, 4)] {
            assert_eq!((&finding["activity_id"], &finding["type_uid"]), (&json!(activity), &json!(200_400 + activity)));
            assert_eq!(finding["status_id"], status);
            assert_eq!(finding["finding_info"]["uid"], "0123456789abcdef0123456789abcdef");
            assert_eq!(finding["metadata"]["uid"], "d2");
            assert!(finding.get("is_alert").is_none());
        }
        assert_eq!(closing["unmapped"]["vigie"]["quiet_seconds"], 3600);
    }
}
