//! What an operator asks and hears: names that are none, rows that are no events, recipients that refuse, signals that are
//! obeyed at once.

use std::time::Duration;

use serde_json::Value;

use crate::program::{Place, text, until};
use crate::receiver::{Answer, Receiver};
use crate::relay::Relay;

const RULE: &str = r#"
rules:
  - id: every-login
    title: A log-in
    severity: high
    when: {event_type: LOGIN}
    tests:
      - {name: any, events: [{event_type: LOGIN}], expect: alert}
"#;
/// A log-in, something with a terminal escape that is no JSON, and a log-in under the same id.
const LINES: &str = "{\"id\":\"1\",\"time\":1700000000,\"event_type\":\"LOGIN\"}\nno \u{1b}[31mJSON\n\
                     {\"id\":\"1\",\"time\":1700000001,\"event_type\":\"LOGIN\"}\n";

fn place(sinks: &str) -> Place {
    let place = Place::new();
    place.write("rules/login.yaml", RULE);
    place.write("events.ndjson", LINES);
    place.write(
        "vigie.yaml",
        &format!("sources: {{log: {{ndjson: {{path: events.ndjson}}}}}}\nrules: [rules/]\nsinks: {{{sinks}}}\n"),
    );
    place
}

const TRAIL: &str = "trail: {file: {path: alerts.jsonl}}";

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_knows_is_no_empty_list() {
    let place = place(TRAIL);
    let ran = place.run(&["run", "-c", "vigie.yaml", "--once"]).await;
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    // What only the store knows is known: the sink and the rule have other names from now on.
    let config = std::fs::read_to_string(place.file("vigie.yaml")).expect("a configuration");
    place.write("vigie.yaml", &config.replace("trail:", "ledger:"));
    place.write("rules/login.yaml", &RULE.replace("every-login", "each-login"));
    for (arguments, expected) in [
        (vec!["deliveries", "list", "--sink", "trial"], "there is no sink `trial`: did you mean `trail`?"),
        (vec!["deliveries", "replay", "--failed", "--since", "1h", "--sink", "zzz"], "there is no sink `zzz`"),
        (vec!["alerts", "list", "--rule", "every-logn"], "did you mean `every-login`?"),
        (vec!["alerts", "list", "--source", "lag"], "there is no source `lag`: did you mean `log`?"),
        (vec!["events", "poison", "--source", "zzz"], "there is no source `zzz`"),
    ] {
        let output = place.run(&[&arguments[..], &["-c", "vigie.yaml"]].concat()).await;
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(20), "{arguments:?}: {told}");
        assert!(told.contains(expected) && output.stdout.is_empty(), "{arguments:?}: {told}");
    }
    for arguments in [
        ["deliveries", "list", "--sink", "trail"],
        ["deliveries", "list", "--sink", "ledger"],
        ["alerts", "list", "--rule", "every-login"],
        ["alerts", "list", "--rule", "each-login"],
        ["alerts", "list", "--source", "log"],
        ["alerts", "list", "--source", "vigie"],
    ] {
        let output = place.run(&[&arguments[..], &["-c", "vigie.yaml"]].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_no_events_are_shown_as_they_came_and_nothing_in_them_acts() {
    let place = place(TRAIL);
    let ran = place.run(&["run", "-c", "vigie.yaml", "--once"]).await;
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let alerts = std::fs::read_to_string(place.file("alerts.jsonl")).expect("alerts");
    let rules = |rule: &str| alerts.matches(&format!("\"rule\":{{\"id\":\"{rule}\"")).count();
    assert_eq!(rules("every-login"), 2, "two log-ins that share an id\n{alerts}");
    assert_eq!((rules("vigie-id-reused"), rules("vigie-poison-event")), (1, 1), "{alerts}");
    assert!(alerts.contains("vigie events poison"), "the alert says where to look");

    let human = place.run(&["events", "poison", "-c", "vigie.yaml"]).await;
    let shown = text(&human.stdout);
    assert_eq!(human.status.code(), Some(0), "{}", text(&human.stderr));
    assert!(shown.contains(" log poison-") && shown.contains("it is no JSON"), "{shown}");
    assert!(shown.contains("[31mJSON") && !shown.contains('\u{1b}'), "{shown:?}");
    let json =
        place.run(&["events", "poison", "--source", "log", "--since", "1h", "-c", "vigie.yaml", "-o", "json"]).await;
    let rows: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(rows[0]["raw"], "no \u{1b}[31mJSON", "{rows}");
    assert_eq!(rows.as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_that_is_refused_beside_one_that_is_not_is_told_of() {
    let relay = Relay::start(false).await;
    let to = "to: [soc@example.org, gone@example.org]";
    let mail = format!("mail: {{email: {{smtp: 'smtp://127.0.0.1:{}', from: v@example.org, {to}}}}}", relay.port);
    let place = place(&format!("{mail}, {TRAIL}"));
    let tested = place.run(&["sink", "test", "mail", "-c", "vigie.yaml"]).await;
    assert_eq!(tested.status.code(), Some(1), "{}", text(&tested.stderr));
    assert!(text(&tested.stderr).contains("1 refused: gone@example.org"), "{}", text(&tested.stderr));
    assert_eq!(relay.mails().len(), 1, "the other one has it");

    let ran = place.run(&["run", "-c", "vigie.yaml", "--once"]).await;
    let alerts = std::fs::read_to_string(place.file("alerts.jsonl")).expect("alerts");
    assert!(alerts.contains("vigie-dead-letter") && alerts.contains("1 refused: gone@example.org"), "{alerts}");
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let ledger = place.run(&["deliveries", "list", "--status", "dead", "-c", "vigie.yaml"]).await;
    assert!(text(&ledger.stdout).contains("-> mail: dead letter"), "{}", text(&ledger.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_are_obeyed_while_a_reload_waits_for_sends() {
    let receiver = Receiver::start().await;
    receiver.answer(Answer::Stall);
    let place = place(&format!("soc: {{webhook: {{url: '{}'}}}}", receiver.url));
    let mut daemon = place.start(&["run", "-c", "vigie.yaml"]);
    assert!(receiver.wait(crate::program::PATIENCE, |received| !received.is_empty()).await, "{}", place.log());
    daemon.signal("HUP").await;
    until("reloaded", async || place.log().contains("reloaded")).await;
    let told_at = tokio::time::Instant::now();
    daemon.signal("TERM").await;
    until("stopping", async || place.log().contains("stopping")).await;
    assert!(told_at.elapsed() < Duration::from_secs(8), "a send may take 15 s, the signal was heard at once");
    daemon.signal("INT").await;
    assert_eq!(daemon.wait().await.code(), Some(130), "{}", place.log());
    assert!(told_at.elapsed() < Duration::from_secs(10), "{}", place.log());
}

/// A secret that stays for a day, in a file that goes on for two: what did not come is told at the end of the file.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_finite_log_lacks_is_told_at_its_end() {
    let place = place(TRAIL);
    place.write(
        "rules/login.yaml",
        r#"rules:
  - id: left-open
    title: A secret that was not deleted
    severity: high
    absence: {after: {event_type: CREATE}, expect: {event_type: DELETE}, within: 1d, by: key}
    tests:
      - name: left
        events:
          - {event_type: CREATE, created_at: "2026-03-01T00:00:00Z", key: a}
          - {event_type: OTHER, created_at: "2026-03-03T00:00:00Z"}
        expect: alert
      - name: nothing began
        events: [{event_type: OTHER, created_at: "2026-03-03T00:00:00Z"}]
        expect: nothing
"#,
    );
    let lines = [
        r#"{"id":"3","event_type":"OTHER","created_at":"2026-03-03T00:00:00Z"}"#,
        r#"{"id":"1","event_type":"CREATE","key":"a","created_at":"2026-03-01T00:00:00Z"}"#,
        r#"{"id":"2","event_type":"CREATE","key":"b","created_at":"2026-03-01T00:00:00Z"}"#,
        r#"{"id":"4","event_type":"DELETE","key":"b","created_at":"2026-03-01T12:00:00Z"}"#,
        r#"{"id":"5","event_type":"CREATE","key":"c","created_at":"2026-03-02T12:00:00Z"}"#,
    ];
    place.write("events.ndjson", &lines.join("\n"));
    let ran = place.run(&["run", "-c", "vigie.yaml", "--once"]).await;
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let alerts = std::fs::read_to_string(place.file("alerts.jsonl")).expect("alerts");
    let told: Vec<Value> = alerts.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let about: Vec<&Value> = told.iter().filter(|alert| alert["rule"]["id"] == "left-open").collect();
    assert_eq!(about.len(), 1, "b was deleted, and the day of c is not over: {alerts}");
    assert_eq!(about[0]["event"]["id"], "1", "{alerts}");
}
