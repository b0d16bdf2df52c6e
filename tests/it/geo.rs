//! Address databases from outside: `geo.*` in a rule, in its alert and in `explain`, and a database that is replaced.

use std::path::Path;

use serde_json::Value;

use crate::program::{Place, text, until};

const RULES: &str = r#"
rules:
- id: from-elsewhere
  title: T
  severity: high
  when: {geo.mismatch: true}
  alert:
    title: "{{ event.event_type }} from {{ event.geo.city }} ({{ event.geo.country }}, AS{{ event.geo.asn }})"
    dedup: [geo.country]
  tests:
  - {events: [{source_country: GB, geo: {country: BR}}], expect: alert}
  - {events: [{source_country: GB, geo: {country: GB}}, {source_country: GB}], expect: nothing}
"#;
const CONFIG: &str = r#"
sources: {main: {ndjson: {path: events.ndjson}}}
rules: [rules.yaml]
sinks: {out: {file: {path: alerts.ndjson}}}
geo: {database: places/database.mmdb, asn: places/asn.mmdb}
"#;
/// From Brazil, from Britain, from nowhere, and from who says itself where it is.
const EVENTS: &str = r#"{"id":"1","created_at":"2026-03-01T00:00:00Z","event_type":"A","source_ip":"203.0.113.7","source_country":"GB"}
{"id":"2","created_at":"2026-03-01T00:00:01Z","event_type":"B","source_ip":"192.0.2.7","source_country":"GB"}
{"id":"3","created_at":"2026-03-01T00:00:02Z","event_type":"C","source_ip":"198.51.100.7","source_country":"GB"}
{"id":"4","created_at":"2026-03-01T00:00:03Z","event_type":"D","source_country":"GB","geo":{"mismatch":true,"country":"BR"}}
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("vigie.yaml", CONFIG);
    place.write("rules.yaml", RULES);
    place.write("events.ndjson", EVENTS);
    database(&place, "city.mmdb", "database.mmdb");
    database(&place, "asn.mmdb", "asn.mmdb");
    place
}

fn database(place: &Place, fixture: &str, name: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/geo").join(fixture);
    let to = place.file(&format!("places/{name}"));
    std::fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
    std::fs::copy(from, to).expect("copied");
}

fn alerts(place: &Place) -> Vec<Value> {
    let lines = std::fs::read_to_string(place.file("alerts.ndjson")).unwrap_or_default();
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_tells_where_the_address_is() {
    let place = place();
    let ran = place.run(&["run", "--once"]).await;
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let alerts = alerts(&place);
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let alert = &alerts[0];
    let shown = alert.to_string();
    assert!(shown.contains("A from São Paulo (BR, AS64500)") && shown.contains("geo.country"), "{shown}");
    let events = EVENTS.lines().next().expect("one");
    let event: Value = serde_json::from_str(events).expect("JSON");
    let kept = [&alert["event"], &alert["data"]["event"]];
    assert!(kept.contains(&&event), "the event stays as it came: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_and_check_ask_the_database_too() {
    let place = place();
    let check = place.run(&["check", "--deny-warnings"]).await;
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    place.write("event.json", EVENTS.lines().next().expect("one"));
    let explained = place.run(&["explain", "from-elsewhere", "event.json"]).await;
    let said = text(&explained.stdout);
    assert!(said.starts_with("from-elsewhere fires on event 1\n") && said.contains("geo.mismatch is true"), "{said}");
    let explained = place.run(&["explain", "from-elsewhere", "event.json", "--rules", "rules.yaml"]).await;
    assert!(text(&explained.stdout).contains("geo.mismatch is (none)"), "{}", text(&explained.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backtest_asks_the_database_as_run_does() {
    let place = place();
    let stored = place.run(&["run", "--once"]).await;
    assert_eq!(stored.status.code(), Some(0), "{}", text(&stored.stderr));
    let of_file = ["backtest", "-c", "vigie.yaml", "--source", "main", "-o", "json", "--file", "events.ndjson"];
    for arguments in [&of_file[..], &of_file[..7]] {
        let tested = place.run(arguments).await;
        assert_eq!(tested.status.code(), Some(0), "{arguments:?}: {}", text(&tested.stderr));
        let report: Value = serde_json::from_slice(&tested.stdout).expect("JSON");
        let (events, alerts) = (&report["history"]["events"], &report["total"]["alerts"]);
        assert_eq!((events, alerts), (&Value::from(4), &Value::from(1)), "{arguments:?}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_the_database_again() {
    let place = place();
    place.write("vigie.yaml", &CONFIG.replace("events.ndjson", "events.ndjson, follow: true"));
    place.write("events.ndjson", "");
    let line = |id: &str| EVENTS.lines().next().expect("one").replace("\"id\":\"1\"", &format!("\"id\":\"{id}\""));
    let daemon = place.start(&["run"]);
    until("the start", async || place.log().contains("started")).await;
    database(&place, "country.mmdb", "database.mmdb");
    daemon.signal("HUP").await;
    until("the reload", async || place.log().contains("reloaded")).await;
    place.write("events.ndjson", &format!("{}\n", line("5")));
    until("an alert", async || !alerts(&place).is_empty()).await;
    let shown = alerts(&place)[0].to_string();
    assert!(shown.contains("A from (none) (BR, AS64500)"), "{shown}");
    assert_eq!(daemon.end("TERM").await.code(), Some(0));
}
