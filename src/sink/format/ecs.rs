//! Elastic Common Schema 8: an alert as a document of `event.kind: alert`, an update as one of `event.kind: event`, so that
//! nothing that counts alerts counts it.
//!
//! What the schema has no place for stands below `vigie`. The raw event is text in `event.original`: as an object its fields
//! would be fields of the index, and the first event of another shape would be refused.

use serde_json::{Value, json};
use vigie_engine::alert::Alert;

use super::facts::{Facts, ip, severity_number, tactics, techniques};
use super::{AlertJson, own, stamp};
use crate::sink::RenderContext;
use crate::sink::update::{Told, Update};

/// Version of the schema whose fields are used; all are older.
const VERSION: &str = "8.11.0";
/// Category and type of all that a detection says; others would claim what the event was.
const CATEGORY: &str = "intrusion_detection";

pub(super) fn alert(said: &AlertJson<'_>, alert: &Alert, context: &RenderContext<'_>) -> Value {
    let facts = Facts::of(alert);
    let mut document = common(alert, &facts);
    document["@timestamp"] = json!(said.first_at);
    document["message"] = json!(said.title);
    document["event"] = json!({
        "kind": "alert",
        "category": [CATEGORY],
        "type": ["info"],
        "action": facts.event_type.as_deref().unwrap_or("alert"),
        "severity": severity_number(alert.rule.severity),
        "id": said.alert_id,
        "created": stamp(context.now),
        "start": said.first_at,
        "end": said.last_at,
        "module": "vigie",
        "dataset": "vigie.alert",
        "provider": said.source,
        "reason": said.finding.map(|finding| &finding.summary),
        "original": said.event.map(|event| event.get()),
    });
    document["cloud"] = json!({"account": {"id": said.account_id}});
    document["labels"] = said.key.0.iter().map(|(field, value)| (field.replace('.', "_"), json!(value))).collect();
    document["vigie"] = own(said);
    document
}

pub(super) fn update(update: &Update<'_>, context: &RenderContext<'_>, own: Value) -> Value {
    let (alert, last_at) = (update.alert, stamp(update.alert.last_at));
    let mut document = common(alert, &Facts::of(alert));
    document["@timestamp"] = json!(last_at);
    document["message"] = json!(update.headline());
    document["event"] = json!({
        "kind": "event",
        "category": [CATEGORY],
        "type": ["info"],
        "action": match update.told {
            Told::More | Told::Still => "alert-updated",
            Told::Closing { .. } => "alert-closed",
        },
        "severity": severity_number(alert.rule.severity),
        "id": context.delivery_id,
        "created": stamp(context.now),
        "start": stamp(alert.first_at),
        "end": last_at,
        "module": "vigie",
        "dataset": "vigie.update",
        "provider": alert.source,
    });
    document["cloud"] = json!({"account": {"id": own["account_id"]}});
    document["vigie"] = own;
    document
}

/// What an alert and its updates have in common.
fn common(alert: &Alert, facts: &Facts) -> Value {
    let rule = &alert.rule;
    let (techniques, subtechniques): (Vec<_>, Vec<_>) = techniques(&rule.tags).partition(|name| !name.contains('.'));
    let parents = subtechniques.iter().filter_map(|name| name.split_once('.')).map(|(parent, _)| parent.to_owned());
    let mut techniques: Vec<String> = techniques.into_iter().chain(parents).collect();
    techniques.sort();
    techniques.dedup();
    let tactics: Vec<String> = tactics(&rule.tags).collect();
    let has_threat = !techniques.is_empty() || !tactics.is_empty();
    let address = facts.address.as_deref();
    json!({
        "ecs": {"version": VERSION},
        "rule": {"id": rule.id, "name": rule.title, "ruleset": "vigie"},
        "threat": {
            "framework": has_threat.then_some("MITRE ATT&CK"),
            "tactic": {"name": tactics},
            "technique": {"id": techniques, "subtechnique": {"id": subtechniques}},
        },
        "tags": rule.tags,
        "observer": {"vendor": "Vigie", "product": "vigie", "version": env!("CARGO_PKG_VERSION")},
        "source": {"address": address, "ip": address.and_then(ip), "geo": {"country_iso_code": facts.country}},
        "user": {"email": facts.email},
        "related": {"ip": related_ips(alert, facts), "user": facts.email.as_slice()},
    })
}

/// Every address that the event or the events behind it came from.
fn related_ips(alert: &Alert, facts: &Facts) -> Vec<String> {
    let evidence = alert.finding.iter().flat_map(|finding| &finding.evidence);
    let evidence = evidence.filter_map(|evidence| ip(evidence.source_ip.as_ref()?.as_raw()));
    let mut addresses: Vec<String> = facts.ip().into_iter().chain(evidence).map(|ip| ip.to_string()).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::{context, read, update};
    use super::*;
    use crate::sink::contract::{alert_titled, stateful_alert};

    #[test]
    fn an_alert_is_a_document_of_the_schema() {
        let document = read(Format::Ecs.alert(&alert_titled("t"), &context(), usize::MAX).expect("renders"));
        let expected = json!({
            "@timestamp": "2026-03-04T05:00:00Z",
            "ecs": {"version": "8.11.0"},
            "message": "t",
            "event": {
                "kind": "alert", "category": ["intrusion_detection"], "type": ["info"], "action": "alert",
                "severity": 4, "id": "0123456789abcdef0123456789abcdef", "created": "2026-03-04T05:06:07Z",
                "start": "2026-03-04T05:00:00Z", "end": "2026-03-04T05:01:01Z",
                "module": "vigie", "dataset": "vigie.alert", "provider": "main",
                "original": r#"{"id":"e-1","n":12345678901234567890123,"f":1.10,"s":"a  b\" c"}"#,
            },
            "rule": {
                "id": "change-from-unexpected-country", "name": "Change from an unexpected country", "ruleset": "vigie",
            },
            "threat": {
                "framework": "MITRE ATT&CK",
                "technique": {"id": ["T1078"], "subtechnique": {"id": ["T1078.004"]}},
            },
            "tags": ["attack.t1078.004"],
            "observer": {"vendor": "Vigie", "product": "vigie", "version": env!("CARGO_PKG_VERSION")},
            "cloud": {"account": {"id": "abcd1234"}},
            "labels": {"actor": "bob@example.org"},
            "vigie": {
                "schema": "vigie/alert/v1", "alert_id": "0123456789abcdef0123456789abcdef", "delivery_id": "d1",
                "rule": {
                    "id": "change-from-unexpected-country", "title": "Change from an unexpected country",
                    "severity": "high", "tags": ["attack.t1078.004"],
                    "response": "Call the user.\nIf it was not them, revoke the key.",
                },
                "source": "main", "account_id": "abcd1234", "title": "t", "first_at": "2026-03-04T05:00:00Z",
                "last_at": "2026-03-04T05:01:01Z", "count": 3, "late": 7260,
                "key": [{"field": "actor", "value": "bob@example.org"}],
                "reason": [
                    {"field": "source_country", "operator": "not in", "expected": "GB, IE", "actual": "KP"},
                    {"field": "user_email", "operator": "exists", "expected": "false"},
                ],
                "events": ["e-1", "e-2"],
            },
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn who_and_from_where_have_their_places() {
        let mut alert = stateful_alert();
        let event = r#"{"event_type":"USER_LOGIN","user_email":"bob@example.org","source_country":"KP","source_ip":"203.0.113.7"}"#;
        alert.event = serde_json::value::RawValue::from_string(event.into()).expect("valid");
        alert.rule.tags.push("attack.initial-access".into());
        let document = read(Format::Ecs.alert(&alert, &context(), usize::MAX).expect("renders"));
        assert_eq!(
            document["source"],
            json!({"address": "203.0.113.7", "ip": "203.0.113.7", "geo": {"country_iso_code": "KP"}})
        );
        assert_eq!(document["user"], json!({"email": "bob@example.org"}));
        assert_eq!(document["related"], json!({"ip": ["192.0.2.9", "203.0.113.7"], "user": ["bob@example.org"]}));
        assert_eq!(document["threat"]["tactic"], json!({"name": ["Initial Access"]}));
        assert_eq!(document["event"]["action"], "USER_LOGIN");
        assert_eq!(document["event"]["reason"], "2 countries of bob@example.org within 1h");
        let vigie = &document["vigie"];
        assert!(vigie["finding"]["evidence"][1]["source_country"] == "KP" && vigie["exception"].is_string(), "{vigie}");
    }

    #[test]
    fn what_is_no_address_is_not_said_to_be_one() {
        let mut alert = alert_titled("t");
        let event = r#"{"source_ip":"203.0.113.7, 10.0.0.1","source_country":"Nowhere"}"#;
        alert.event = serde_json::value::RawValue::from_string(event.into()).expect("valid");
        let document = read(Format::Ecs.alert(&alert, &context(), usize::MAX).expect("renders"));
        assert_eq!(document["source"], json!({"address": "203.0.113.7, 10.0.0.1"}), "an index would refuse it");
    }

    #[test]
    fn an_update_is_no_alert() {
        let document = read(update(Format::Ecs));
        assert_eq!(
            (&document["event"]["kind"], &document["event"]["action"]),
            (&json!("event"), &json!("alert-updated"))
        );
        assert_eq!((&document["@timestamp"], &document["event"]["id"]), (&json!("2026-03-04T05:01:01Z"), &json!("d2")));
        assert_eq!(document["message"], "Update to HIGH: t");
        assert_eq!(
            (&document["vigie"]["schema"], &document["vigie"]["alert_id"]),
            (&json!("vigie/update/v1"), &json!("0123456789abcdef0123456789abcdef"))
        );
        assert_eq!(document["cloud"]["account"]["id"], "abcd1234");
    }
}
