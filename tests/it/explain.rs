//! Why a rule fires on an event and why not, as `explain` tells it: over a history, over the store, over nothing.

use serde_json::{Value, json};

use crate::backtest::{CONFIG, RULES, code, ok};
use crate::program::{Place, text};

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_which_earlier_events_count_and_what_is_missing() {
    let place = Place::new();
    place.write("rules/all.yaml", RULES);
    place.write("vigie.yaml", CONFIG);
    let row = |id: u32, minute: u32, user: &str| {
        json!({
            "id": format!("e{id}"), "event_type": "APP", "created_at": format!("2026-01-01T10:{minute:02}:00Z"),
            "user_id": user, "app": "a", "source_ip": format!("203.0.113.{id}"), "source_country": "FR",
        })
    };
    let earlier = [row(1, 1, "a"), row(2, 2, "b"), row(3, 3, "a"), row(9, 59, "a")];
    let earlier: Vec<String> = earlier.iter().map(Value::to_string).collect();
    place.write("events.ndjson", &(earlier.join("\n") + "\n"));
    place.write("event.json", &row(4, 4, "a").to_string());

    let none = ok(&place, &["explain", "burst", "event.json"]).await;
    let none = text(&none.stdout);
    assert!(none.starts_with("burst may fire on event e4\n") && none.contains("no state: there is no store"), "{none}");
    let none = ok(&place, &["explain", "burst", "event.json", "--rules", "rules", "-o", "json"]).await;
    let none: Value = serde_json::from_slice(&none.stdout).expect("JSON");
    assert!(none["no_state"].as_str().is_some_and(|why| why.contains("--history")), "{none}");

    let words = ["explain", "burst", "event.json", "--rules", "rules", "--history", "events.ndjson"];
    let human = text(&ok(&place, &words).await.stdout);
    assert!(human.starts_with("burst does not fire on event e4\n"), "{human}");
    assert!(human.contains("✗ state: 3 of 4 events within 30m: 1 more to come\n"), "{human}");
    let told: Vec<&str> = human.lines().filter(|line| line.contains("2026-01-01T10:")).map(str::trim).collect();
    assert_eq!(told.len(), 3, "another user's event and a later one do not count: {human}");
    assert!(
        told[0].starts_with("2026-01-01T10:01:00Z  APP") && told[0].contains("203.0.113.1") && told[0].contains(" FR ")
    );
    assert!(told[2].ends_with("e4  (this event)"), "{human}");
    let json = ok(&place, &[&words[..], &["-o", "json"]].concat()).await;
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(
        (&json["block"], &json["holds"], &json["standing"]["holds"]),
        (&json!("rule"), &json!(true), &json!(false))
    );
    assert_eq!(json["standing"]["evidence"][0]["event_id"], "e1");

    // The daemon notes the same; a further event makes it fire.
    place.write("events.ndjson", &(earlier[..3].join("\n") + "\n" + &row(5, 5, "a").to_string() + "\n"));
    ok(&place, &["run", "--once", "-c", "vigie.yaml"]).await;
    let human = text(&ok(&place, &["explain", "burst", "event.json"]).await.stdout);
    assert!(human.contains("state: 3 of 4") || human.contains("state: 4 of 4"), "{human}");
    place.write("event.json", &row(6, 6, "a").to_string());
    let human = text(&ok(&place, &["explain", "burst", "event.json"]).await.stdout);
    assert!(human.starts_with("burst fires on event e6\n") && human.contains("✓ state: 4 of 4"), "{human}");
    // Once it was judged, it is what came before it that counts, and not what has come since.
    let more = [row(5, 5, "a"), row(6, 6, "a"), row(7, 55, "a"), row(8, 58, "c")].map(|row| row.to_string());
    place.write("events.ndjson", &(earlier[..3].join("\n") + "\n" + &more.join("\n") + "\n"));
    ok(&place, &["run", "--once", "-c", "vigie.yaml"]).await;
    for (id, minute, says) in [(6, 6, "burst fires on event e6\n"), (3, 3, "burst does not fire on event e3\n")] {
        place.write("event.json", &row(id, minute, "a").to_string());
        let output = ok(&place, &["explain", "burst", "event.json"]).await;
        let (human, noted) = (text(&output.stdout), text(&output.stderr));
        assert!(human.starts_with(says) && human.contains(" of 4 events"), "{human}");
        assert!(noted.contains("the store holds this event"), "{noted}");
    }
    let stateless = ok(&place, &["explain", "plain", "event.json", "-o", "json"]).await;
    let stateless: Value = serde_json::from_slice(&stateless.stdout).expect("JSON");
    assert!(stateless.get("standing").is_none() && stateless.get("no_state").is_none());

    place.write("two.yaml", "sources: {a: {ndjson: {path: x}}, b: {ndjson: {path: y}}}\nrules: [rules/]\n");
    let which = place.run(&["explain", "burst", "event.json", "-c", "two.yaml"]).await;
    assert_eq!(code(&which), Some(2));
    assert!(text(&which.stderr).contains("which source? name one of a, b"), "{}", text(&which.stderr));
    let unknown = place.run(&["explain", "burst", "event.json", "--source", "audti"]).await;
    assert_eq!(code(&unknown), Some(20));
    assert!(text(&unknown.stderr).contains("did you mean `audit`?"), "{}", text(&unknown.stderr));
}

const ANSWERED: &str = "
rules:
  - {id: off, title: Off, severity: low, enabled: false, when: {event_type: APP}}
  - id: unanswered
    title: Unanswered
    severity: low
    absence: {after: {event_type: APP}, expect: {event_type: SIGN}, within: 1h}
";

fn happened(id: &str, event_type: &str, minute: u32) -> String {
    let at = format!("2026-01-01T{:02}:{:02}:00Z", 10 + minute / 60, minute % 60);
    json!({"id": id, "event_type": event_type, "created_at": at}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_switched_off_says_so() {
    let place = Place::new();
    place.write("rules/all.yaml", ANSWERED);
    place.write("event.json", &happened("a", "APP", 0));
    let words = ["explain", "off", "event.json", "--rules", "rules"];
    let human = text(&ok(&place, &words).await.stdout);
    assert!(human.contains("✗ the rule is switched off (`enabled: false`)"), "{human}");
    let told = ok(&place, &[&words[..], &["-o", "json"]].concat()).await;
    let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!((&told["enabled"], &told["holds"]), (&json!(false), &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_waits_is_told_by_how_far_the_history_goes() {
    let place = Place::new();
    place.write("rules/all.yaml", ANSWERED);
    place.write("event.json", &happened("a", "APP", 0));
    for (history, says, why) in [
        (vec![happened("x", "RARE", 30)], "unanswered waits on event a", "2026-01-01T11:00:00+00:00"),
        (vec![happened("x", "RARE", 90)], "unanswered fires on event a", "no absent step came"),
        (
            vec![happened("s", "SIGN", 20), happened("x", "RARE", 90)],
            "unanswered does not fire on event a",
            "expect came at 2026-01-01T10:20:00+00:00 (event s)",
        ),
    ] {
        place.write("history.ndjson", &(history.join("\n") + "\n"));
        let words = ["explain", "unanswered", "event.json", "--rules", "rules", "--history", "history.ndjson"];
        let human = text(&ok(&place, &words).await.stdout);
        assert!(human.starts_with(says) && human.contains(why), "{human}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_events_time_is_read_from_any_usual_field_and_its_lack_is_told() {
    let place = Place::new();
    place.write("rules/all.yaml", ANSWERED);
    place.write("history.ndjson", &(happened("s", "SIGN", 20) + "\n" + &happened("x", "RARE", 90) + "\n"));
    let words = ["explain", "unanswered", "event.json", "--rules", "rules", "--history", "history.ndjson"];
    for field in ["created_at", "timestamp", "time"] {
        place.write("event.json", &json!({"id": "a", "event_type": "APP", field: "2026-01-01T10:00:00Z"}).to_string());
        let output = ok(&place, &words).await;
        assert!(text(&output.stdout).contains("expect came at"), "{field}: {}", text(&output.stdout));
        assert!(!text(&output.stderr).contains("no time"), "{field}: {}", text(&output.stderr));
    }
    place.write("event.json", r#"{"id": "a", "event_type": "APP"}"#);
    let output = ok(&place, &words).await;
    assert!(text(&output.stderr).contains("it counts as of now"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("unanswered waits"), "{}", text(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_noted_for_another_question_is_told_not_to_count() {
    let place = Place::new();
    let burst = |by: &str| {
        format!(
            "rules: [{{id: burst, title: B, severity: low, when: {{event_type: APP}}, \
             threshold: {{count: 2, within: 1h, by: {by}}}}}]"
        )
    };
    let row = |id: &str| {
        json!({"id": id, "event_type": "APP", "created_at": "2026-01-01T10:00:00Z", "user_id": 1, "app": "x"})
            .to_string()
    };
    place.write("rules/all.yaml", &burst("user_id"));
    place.write("vigie.yaml", CONFIG);
    place.write("events.ndjson", &(row("a") + "\n"));
    place.write("event.json", &row("b"));
    ok(&place, &["run", "--once", "-c", "vigie.yaml"]).await;
    let same = ok(&place, &["explain", "burst", "event.json"]).await;
    assert!(text(&same.stdout).starts_with("burst fires"), "{}", text(&same.stdout));
    assert!(!text(&same.stderr).contains("do not count"), "{}", text(&same.stderr));
    place.write("rules/all.yaml", &burst("app"));
    let other = ok(&place, &["explain", "burst", "event.json"]).await;
    assert!(text(&other.stdout).starts_with("burst does not fire"), "{}", text(&other.stdout));
    assert!(text(&other.stderr).contains("1 rows were noted; they do not count"), "{}", text(&other.stderr));
}
