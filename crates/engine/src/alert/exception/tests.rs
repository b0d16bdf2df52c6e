//! The exception is loaded by the rule loader, put under its rule, and must silence its event and nothing beside it.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::diagnostic::{Diagnostics, SourceFile};
use crate::engine::Engine;
use crate::rule::{self, Rule};

/// When the event happened.
fn at() -> DateTime<Utc> {
    "2026-03-04T05:06:07.089Z".parse().expect("a stamp")
}

fn load(rule: &str) -> Rule {
    let text: Arc<str> = format!("lists: {{admins: [\"bob@example.org\"]}}\nrules:\n{rule}").into();
    let mut diagnostics = Diagnostics::default();
    let file = SourceFile { path: "rules.yaml".into(), text: text.clone() };
    let mut set = rule::load(&[file], &mut |_, _| Err("none".into()), &mut diagnostics);
    assert!(!diagnostics.has_errors() && set.rules.len() == 1, "{text}\n{:?}", diagnostics.sorted());
    set.rules.remove(0)
}

fn plain(dedup: &str) -> String {
    format!(
        "  - id: r\n    title: t\n    severity: low\n    when: {{event_type: \"*\"}}\n    alert: {{dedup: {dedup}}}\n"
    )
}

fn event(raw: &Value, at: DateTime<Utc>) -> Event {
    Event::new("e1", at, raw.to_string().into()).expect("an event")
}

/// The alerts that the rule raises on these events.
fn alerts(rule: &str, events: &[Event]) -> Vec<Alert> {
    let engine = Engine::new(vec![load(rule)]);
    let mut batch = engine.batch();
    for event in events {
        batch.step("main", event, event.created_at());
    }
    batch.tick("main", at() + TimeDelta::days(2), None);
    batch.finish().alerts
}

/// The rule with the exception of the alert that it raises on the event.
fn excepted(rule: &str, raw: &Value) -> (String, String) {
    let alert = alerts(rule, &[event(raw, at())]).pop().expect("the rule fires");
    let exception = alert.exception().unwrap_or_else(|| panic!("no exception for {raw}"));
    (format!("{rule}    unless:\n      {exception}\n"), exception)
}

fn fires(rule: &str, raw: &Value, at: DateTime<Utc>) -> bool {
    !alerts(rule, &[event(raw, at)]).is_empty()
}

fn with(raw: &Value, field: &str, value: Value) -> Value {
    let mut changed = raw.clone();
    changed[field] = value;
    changed
}

fn bob() -> Value {
    json!({"event_type": "APP_CREATE", "account_id": "a1", "user_id": 7, "user_email": "bob@example.org",
           "source_ip": "203.0.113.7", "source_country": "KP"})
}

#[test]
fn it_silences_its_event_and_no_other() {
    let (rule, exception) = excepted(&plain("[account_id, actor]"), &bob());
    assert_eq!(
        exception,
        "- {when: {account_id: \"a1\", user_email: \"bob@example.org\", source_country: \"KP\"}, \
         until: \"2026-04-03T05:06:07.089Z\", owner: \"who answers for it\", \
         reason: \"why it is harmless (alert "
            .to_owned()
            + exception.split("(alert ").nth(1).expect("an id")
    );
    assert!(!fires(&rule, &bob(), at()));
    assert!(!fires(&rule, &bob(), at() + TimeDelta::days(30) - TimeDelta::microseconds(1)));
    assert!(fires(&rule, &bob(), at() + TimeDelta::days(30)), "it has an end");
    for (field, value) in [
        ("account_id", json!("a2")),
        ("user_email", json!("carol@example.org")),
        ("user_email", json!("bob@example.organization")),
        ("source_country", json!("GB")),
        ("source_country", Value::Null),
    ] {
        assert!(fires(&rule, &with(&bob(), field, value.clone()), at()), "{field} {value}");
    }
}

#[test]
fn whose_and_from_where_depends_on_what_there_is() {
    let key =
        json!({"event_type": "APP_CREATE", "account_id": "a1", "source_ip": "203.0.113.7", "source_country": "KP"});
    let without =
        |raw: &Value, fields: &[&str]| fields.iter().fold(raw.clone(), |raw, field| with(&raw, field, Value::Null));
    for (dedup, raw, expected) in [
        ("[]", bob(), r#"user_email: "bob@example.org", source_country: "KP""#),
        ("[]", without(&bob(), &["user_email"]), r#"user_id: "7", source_country: "KP""#),
        ("[actor]", without(&bob(), &["user_email"]), r#"actor: "7", source_country: "KP""#),
        ("[user_id]", bob(), r#"user_id: "7", source_country: "KP""#),
        ("[]", without(&bob(), &["source_country"]), r#"user_email: "bob@example.org", source_ip: "203.0.113.7""#),
        ("[source_ip]", bob(), r#"source_ip: "203.0.113.7", user_email: "bob@example.org""#),
        // An API key has no user: its address is what is known of it.
        ("[account_id]", key.clone(), r#"account_id: "a1", source_ip: "203.0.113.7""#),
        ("[account_id, actor]", key.clone(), r#"account_id: "a1", actor: "203.0.113.7""#),
        ("[source_country]", key.clone(), r#"source_country: "KP", source_ip: "203.0.113.7""#),
    ] {
        let (rule, exception) = excepted(&plain(dedup), &raw);
        assert!(exception.starts_with(&format!("- {{when: {{{expected}}}, until")), "{dedup} {raw}: {exception}");
        assert!(!fires(&rule, &raw, at()), "{exception}");
    }
    let network = plain("[]").replace("{event_type: \"*\"}", "{source_ip|cidr: 203.0.113.0/24}");
    assert!(excepted(&network, &bob()).1.contains("source_ip: \"203.0.113.7\"}"), "the rule asks of addresses");
}

#[test]
fn what_would_leave_out_too_much_is_not_made() {
    let made = |dedup: &str, raw: &Value| alerts(&plain(dedup), &[event(raw, at())]).remove(0).exception();
    let account = json!({"event_type": "APP_CREATE", "account_id": "a1"});
    assert_eq!(made("[account_id]", &account), None);
    assert_eq!(made("[]", &json!({"event_type": "APP_CREATE"})), None);
    assert_eq!(made("[]", &with(&bob(), "event_type", json!("VIGIE_DEAD_LETTER"))), None, "our own rules are fixed");
    assert_eq!(made("[]", &with(&bob(), "user_email", json!("x".repeat(MAX_FIELD_CHARS + 1)))), None);
    assert_eq!(made("[context]", &with(&bob(), "context", json!({"a": 1}))), None, "a key that is no single value");
    let long = json!("é".repeat(MAX_FIELD_CHARS));
    let exception = made("[account_id]", &with(&bob(), "account_id", long)).expect("fits");
    assert!(exception.chars().count() <= MAX_EXCEPTION_CHARS);
    let escapes = json!("\u{e0041}".repeat(MAX_FIELD_CHARS));
    assert_eq!(made("[account_id]", &with(&bob(), "account_id", escapes)), None, "never cut");
    let mut late = alerts(&plain("[]"), &[event(&bob(), at())]).remove(0);
    late.first_at = "9999-12-31T00:00:00Z".parse().expect("a stamp");
    assert_eq!(late.exception(), None);
}

#[test]
fn fields_with_strange_names_are_quoted_or_refused() {
    let raw =
        json!({"event_type": "X", "a: b": "v", "null": "w", "all": "z", "context": {"app id": "q"}, "user_email": "b"});
    for (dedup, expected) in [
        ("[\"a: b\"]", Some(r#""a: b": "v""#)),
        ("[\"null\"]", Some(r#""null": "w""#)),
        ("[\"context.app id\"]", Some(r#""context.app id": "q""#)),
        ("[all]", None),
    ] {
        let alert = alerts(&plain(dedup), &[event(&raw, at())]).remove(0);
        match (alert.exception(), expected) {
            (Some(exception), Some(expected)) => {
                assert!(exception.contains(expected), "{exception}");
                let rule = format!("{}    unless:\n      {exception}\n", plain(dedup));
                assert!(!fires(&rule, &raw, at()), "{exception}");
            }
            (None, None) => {}
            (made, _) => panic!("{dedup}: {made:?}"),
        }
    }
}

#[test]
fn of_stateful_rules_it_takes_the_event_out_of_the_question() {
    let threshold = "  - id: r\n    title: t\n    severity: low\n    when: {event_type: APP_CREATE}\n    \
                     threshold: {count: 2, within: 1h, by: [user_email]}\n";
    let two = [event(&bob(), at()), Event::new("e2", at(), bob().to_string().into()).expect("an event")];
    let alert = alerts(threshold, &two).remove(0);
    assert!(alert.finding.is_some());
    let rule = format!("{threshold}    unless:\n      {}\n", alert.exception().expect("made"));
    assert!(alerts(&rule, &two).is_empty());
    let elsewhere = two.clone().map(|event| {
        Event::new(event.id(), at(), with(&bob(), "source_country", json!("FR")).to_string().into()).expect("an event")
    });
    assert_eq!(alerts(&rule, &elsewhere).len(), 1);

    let silence = "  - id: r\n    title: t\n    severity: low\n    when: {event_type: \"*\"}\n    \
                   absence: {within: 1h, by: [account_id, source]}\n";
    let raw = with(&bob(), "source", json!("CD"));
    let alert = alerts(silence, &[event(&raw, at())]).remove(0);
    assert_eq!(alert.exception(), None, "an account's silence is never harmless");
    let keyed = silence.replace("[account_id, source]", "[user_email]");
    let exception = alerts(&keyed, &[event(&raw, at())]).remove(0).exception().expect("made");
    assert!(exception.starts_with("- {when: {user_email: \"bob@example.org\"}, until"), "{exception}");
    assert!(alerts(&format!("{keyed}    unless:\n      {exception}\n"), &[event(&raw, at())]).is_empty());
}

/// Text that tries to get out of the quotes, to fit more than itself, or to name something.
const HOSTILE: &[&str] = &[
    "x\"}, until: \"2099-01-01\", owner: \"",
    "x'}\n    enabled: false\n#",
    "*",
    "?ob@example.org",
    "\\*",
    "\\\\*\\",
    "$",
    "$admins",
    "\\$admins",
    "\\\\$admins",
    "null",
    "~",
    "true",
    "0123",
    "1e3",
    " ",
    "  a  b  ",
    "\u{0}\u{1b}[2J\u{85}\u{9b}\u{2028}\u{202e}\u{feff}\u{fffe}\u{e0041}\u{10ffff}",
    "https://evil.example/?q=1",
    "WWW.evil.example",
    "MailTo:eve@evil.example",
    "<script>&amp;</script>",
    "{{ event.x }}",
    "${VAR}",
    "%s",
    "!!str x",
    "&a *a",
];

#[test]
fn hostile_text_stays_a_value() {
    for text in HOSTILE {
        for field in ["user_email", "source_country", "account_id"] {
            let raw = with(&bob(), field, json!(text));
            let (rule, exception) = excepted(&plain("[account_id]"), &raw);
            assert_eq!(load(&rule).unless.len(), 1, "{exception}");
            assert!(load(&rule).enabled && load(&rule).unless[0].until == Some(at() + TimeDelta::days(30)));
            assert!(!fires(&rule, &raw, at()), "{text:?}: {exception}");
            assert!(fires(&rule, &bob(), at()), "{text:?} fits more than itself: {exception}");
            assert!(fires(&rule, &with(&raw, field, json!(format!("{text}x"))), at()), "{exception}");
            assert!(!exception.chars().any(is_unsafe) && !exception.contains("  "), "{exception}");
            let lower = exception.to_ascii_lowercase();
            assert!(!["://", "www.", "mailto:"].iter().any(|link| lower.contains(link)), "{exception}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_text_fits_itself_alone(text in "\\PC{1,12}|[ -~\\\\\"*?$]{1,12}|.{1,12}", other in ".{1,12}") {
        let raw = with(&bob(), "user_email", json!(text));
        let (rule, exception) = excepted(&plain("[]"), &raw);
        prop_assert!(!fires(&rule, &raw, at()), "{}", exception);
        if crate::condition::text::fold(&text) != crate::condition::text::fold(&other) {
            prop_assert!(fires(&rule, &with(&bob(), "user_email", json!(other)), at()), "{}", exception);
        }
    }
}
