//! The answers against the public description, read by a small validator: types, enums, references, one-of.

use super::*;

const DESCRIPTION: &str = include_str!("../../../testdata/vonage-audit.openapi.json");

/// Types that newer lists publish and this description lacks.
const NEWER_TYPES: &[&str] = &["ACCOUNT_UPDATE_SETTINGS", "NUMBER_USER_CANCELED"];

/// What the description never marks as required and every documented event has.
const EVENT_MEMBERS: &[&str] = &[
    "id",
    "event_type",
    "event_type_description",
    "created_at",
    "account_id",
    "source",
    "source_ip",
    "source_description",
    "source_country",
    "context",
    "_links",
];

struct Description(Value);

impl Description {
    fn read() -> Self {
        Self(serde_json::from_str(DESCRIPTION).unwrap())
    }

    /// Checks a value against a named schema and that it has no member beside those.
    fn check(&self, name: &str, value: &Value) {
        self.fits(&self.0["components"]["schemas"][name], value, name);
    }

    fn fits(&self, schema: &Value, value: &Value, place: &str) {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap();
            return self.fits(&self.0["components"]["schemas"][name], value, place);
        }
        let fits = match schema["type"].as_str() {
            Some("string") => value.is_string(),
            Some("integer") => value.is_u64(),
            Some("array") => value.is_array(),
            _ => value.is_object(),
        };
        assert!(fits, "{place}: {value} is not a {}", schema["type"]);
        if let Some(allowed) = schema["enum"].as_array() {
            let newer = NEWER_TYPES.iter().any(|name| value == name);
            assert!(allowed.contains(value) || newer, "{place}: {value} is not one of {allowed:?}");
        }
        for item in value.as_array().into_iter().flatten() {
            self.fits(&schema["items"], item, place);
        }
        if let (Some(members), Some(known)) = (value.as_object(), schema["properties"].as_object()) {
            for (name, member) in members {
                let schema = known.get(name).unwrap_or_else(|| panic!("{place}: {name} is not described"));
                if name != "context" {
                    self.fits(schema, member, &format!("{place}.{name}"));
                }
            }
        }
    }
}

#[test]
fn a_month_of_pages_has_the_described_shape() {
    let description = Description::read();
    let world = World::generate(&WorldConfig::new(6, at("2026-04-01T00:00:00Z")));
    let mut sim = Sim::from_world(&world);
    let mut seen = 0;
    for number in 1.. {
        let answer = body(&ask_at(&mut sim, &format!("size=100&page={number}"), world.end() + TimeDelta::hours(1)));
        description.check("AuditResp", &answer);
        for member in ["_embedded", "_links", "page"] {
            assert!(answer.get(member).is_some(), "{member}");
        }
        let rows = answer["_embedded"]["events"].as_array().unwrap();
        for row in rows {
            for member in EVENT_MEMBERS {
                assert!(row.get(member).is_some(), "{member} missing in {row}");
            }
            let id = row["id"].as_str().unwrap();
            assert_eq!(row["_links"]["self"]["href"], format!("https://api.nexmo.com/beta/audit/events/{id}"));
            context(&description, row);
        }
        seen += rows.len();
        if answer["_links"].get("next").is_none() {
            assert_eq!(answer["page"]["totalPages"], number);
            break;
        }
    }
    assert_eq!(seen, world.events().len());
}

fn context(description: &Description, row: &Value) {
    let mut context = row["context"].clone();
    match row["event_type"].as_str().unwrap() {
        "APP_CREATE" => description.check("ContextAppCreate", &context),
        "NUMBER_LINKED" | "NUMBER_UNLINKED" => description.check("ContextNumberLinking", &context),
        "NUMBER_UPDATED" => {
            // Part of the documented example, though not of the schema.
            assert!(context.as_object_mut().unwrap().remove("accountId").is_some());
            description.check("ContextNumberUpdate", &context);
            assert!(context.get("voice-type").is_some() && context.get("voice-value").is_some(), "{context}");
        }
        _ => assert!(context.is_object()),
    }
}

#[test]
fn errors_and_options_have_the_described_shape() {
    let description = Description::read();
    let mut sim = sim(ten());
    let cases = [
        ("ErrorBadRequest", ask(&mut sim, "size=0")),
        ("ErrorUnauthorized", sim.handle(&SimRequest::get(EVENTS_PATH, "", "none"), now())),
    ];
    for (schema, response) in cases {
        let error = body(&response);
        description.check(schema, &error);
        assert!(error["status"] == response.status && error["error"].is_string() && error["message"].is_string());
    }
    let authorization = Sim::basic_authorization(KEY, DEFAULT_SECRET);
    let options = SimRequest { method: "OPTIONS".to_owned(), ..SimRequest::get(EVENTS_PATH, "", &authorization) };
    description.check("AuditEventTypesResp", &body(&sim.handle(&options, now())));
}

#[test]
fn the_documented_example_can_be_written() {
    let mut event =
        SimEvent::new("aaaaaaaa-bbbb-cccc-dddd-0123456789ab".to_owned(), "NUMBER_UPDATED", at("2018-08-13T10:15:31Z"));
    event.stamp = Stamp::Naive;
    event.account_id = "abcd1234".into();
    event.origin = crate::event::Origin::Api;
    event.source_ip = "154.59.142.233".into();
    event.source_country = Some("GB".into());
    event.context = serde_json::json!({
        "country": "GB", "msisdn": "447700900000", "voice-type": "sip", "voice-value": "sip:user@example12.com",
        "accountId": "abcd1234",
    });
    let expected = serde_json::json!({
        "id": "aaaaaaaa-bbbb-cccc-dddd-0123456789ab",
        "event_type": "NUMBER_UPDATED",
        "event_type_description": "Number updated",
        "created_at": "2018-08-13T10:15:31",
        "account_id": "abcd1234",
        "source": "DEVAPI",
        "source_ip": "154.59.142.233",
        "source_description": "Developer API",
        "source_country": "GB",
        "context": event.context.clone(),
        "_links": {"self": {"href": "https://api.nexmo.com/beta/audit/events/aaaaaaaa-bbbb-cccc-dddd-0123456789ab"}},
    });
    let mut sim = sim(vec![event]);
    assert_eq!(page(&mut sim, "")["_embedded"]["events"][0], expected);
}
