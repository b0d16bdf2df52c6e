//! Silences and routes from outside: what is kept back is stored with the reason and told when that ends.

use serde_json::Value;
use vigie::clock::{Clock as _, SystemClock};

use crate::program::{Place, text};
use crate::receiver::Receiver;

const RULES: &str = r#"
rules:
- id: app-created
  title: An application was created
  severity: high
  when: {event_type: APP_CREATE}
  alert: {dedup: [event_type]}
  tests: [{events: [{event_type: APP_CREATE}], expect: alert}]
"#;

struct Scene {
    place: Place,
    receiver: Receiver,
    events: std::cell::RefCell<String>,
}

impl Scene {
    async fn new() -> Self {
        let scene = Self { place: Place::new(), receiver: Receiver::start().await, events: Default::default() };
        scene.place.write("rules.yaml", RULES);
        scene.place.write("events.ndjson", "");
        let routes = "routes:\n  - {match: {rule: never}, to: soc, dedup: rule, fallback: other, mute: {days: mon-sun}}\n  \
                      - matchers: ['severity=~\"high|critical\"']\n    to: soc\n    fallback: other\n    \
                      routes: [{match: {account: acc1}, to: other}]\n  - to: other\n";
        scene.place.write(
            "vigie.yaml",
            &format!(
                "sources: {{log: {{ndjson: {{path: events.ndjson}}}}}}\nrules: [rules.yaml]\nsinks:\n  \
                 soc: {{webhook: {{url: '{0}'}}}}\n  other: {{file: {{path: other.jsonl}}}}\n{routes}",
                scene.receiver.url
            ),
        );
        assert_eq!(scene.run(&["run", "--once"]).await.0, Some(0));
        scene
    }

    fn happen(&self, id: &str) {
        let now = SystemClock.now().to_rfc3339();
        let mut events = self.events.borrow_mut();
        events.push_str(&format!("{{\"id\":\"{id}\",\"event_type\":\"APP_CREATE\",\"created_at\":\"{now}\"}}\n"));
        self.place.write("events.ndjson", &events);
    }

    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.place.run(&[arguments, &["-c", "vigie.yaml"]].concat()).await;
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(&[arguments, &["-o", "json"]].concat()).await;
        assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
        serde_json::from_str(&stdout).expect("JSON")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_silence_hides_is_stored_and_told_when_it_ends() {
    let scene = Scene::new().await;
    let add = ["silences", "add", "severity=high", "rule=~\"app-.*\"", "--owner", "bob", "--reason", "a migration"];
    let silence = scene.json(&[&add[..], &["--for", "2h"]].concat()).await;
    let id = silence["silence_id"].as_str().expect("text");
    assert_eq!(silence["matchers"], "{severity=\"high\", rule=~\"app-.*\"}");
    scene.happen("e1");
    assert_eq!(scene.run(&["run", "--once"]).await.0, Some(0));
    assert_eq!(scene.receiver.received().len(), 0);
    let alerts = scene.json(&["alerts", "list"]).await;
    assert_eq!((&alerts[0]["muted_by"], &alerts[0]["muted"]), (&Value::from(format!("silence {id}")), &Value::from(1)));
    let muted = scene.json(&["deliveries", "list", "--status", "muted"]).await;
    let note = muted[0]["note"].as_str().expect("text");
    assert!(note.starts_with(&format!("silence {id} by bob until ")) && note.ends_with(": a migration"), "{note}");
    let shown = scene.run(&["deliveries", "list"]).await.1;
    assert!(shown.contains(&format!("-> soc: muted by silence {id} (silence {id} by bob until ")), "{shown}");
    let listed = scene.run(&["silences", "list"]).await.1;
    assert!(listed.starts_with(&format!("{id} in force ")) && listed.contains("bob: a migration"), "{listed}");
    assert_eq!(scene.json(&["silences", "preview", "app-created"]).await.as_array().map(Vec::len), Some(1));
    assert_eq!(scene.json(&["silences", "preview", "another-rule"]).await.as_array().map(Vec::len), Some(0));

    assert_eq!(scene.run(&["silences", "expire", id]).await.0, Some(0));
    assert_eq!(scene.run(&["silences", "expire", id]).await.0, Some(20), "it is over");
    assert_eq!(scene.json(&["silences", "list"]).await.as_array().map(Vec::len), Some(0));
    assert_eq!(scene.json(&["silences", "list", "--since", "1h"]).await.as_array().map(Vec::len), Some(1));
    assert_eq!(scene.run(&["run", "--once"]).await.0, Some(0));
    let received = scene.receiver.received();
    assert_eq!(received.len(), 1, "it still goes on: told by itself");
    let body: Value = serde_json::from_slice(&received[0].body).expect("JSON");
    assert!(
        body["note"].as_str().is_some_and(|note| note.starts_with("it was kept back until now: silence ")),
        "{body}"
    );
    assert_eq!(scene.json(&["alerts", "list"]).await[0]["muted_by"], Value::Null, "it is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_that_is_not_meant_so_is_refused() {
    let scene = Scene::new().await;
    let who = ["--owner", "bob", "--reason", "r"];
    for (arguments, said) in [
        (&["sevrity=high", "--for", "2h"][..], "did you mean `severity`?"),
        (&["title=~\"(\"", "--for", "2h"], "does not compile"),
        (&["severity=high", "--for", "2"], "--for: "),
        (&["severity=high", "--for", "5000d"], "366 days at most"),
        (&["severity=high", "--until", "2020-01-01"], "over by then"),
        (&["severity=high"], "--for"),
        (&["severity=high", "--for", "2h", "--from", "2h"], "a date or a stamp"),
        (&["title=~\".*\"", "--for", "2h"], "without any of these fields"),
    ] {
        let (code, _, stderr) = scene.run(&[&["silences", "add"], arguments, &who[..]].concat()).await;
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
    let (code, _, stderr) = scene.run(&["silences", "add", "severity=high", "--for", "2h", "--owner", "bob"]).await;
    assert!(code == Some(2) && stderr.contains("--reason"), "{stderr}");
    let blank = ["silences", "add", "severity=high", "--for", "2h", "--owner", " ", "--reason", "r"];
    let (code, _, stderr) = scene.run(&blank).await;
    assert!(code == Some(2) && stderr.contains("--owner is blank"), "{stderr}");
    assert_eq!(scene.json(&["silences", "list"]).await.as_array().map(Vec::len), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn route_test_says_where_an_alert_would_go() {
    let scene = Scene::new().await;
    let found = scene.json(&["route", "test", "severity=critical", "account=acc2", "event.user_email=a"]).await;
    assert_eq!(found[0]["sink"], "soc");
    assert_eq!(
        (&found[0]["routes"][0], &found[0]["fallback"]),
        (&Value::from("vigie.yaml:8"), &Value::from("other after 2m"))
    );
    let quiet = scene.json(&["route", "test", "rule=never", "severity=low"]).await;
    assert_eq!((&quiet[0]["muted_now"], &quiet[0]["told_once_in"]), (&Value::from("mon-sun UTC"), &Value::from("1h")));
    for (fields, expect, code) in [
        (&["severity=high"][..], "soc", 0),
        (&["severity=high", "account=acc1"], "other", 0),
        (&["severity=low"], "other", 0),
        (&["rule=app-created"], "soc", 0),
        (&["severity=low"], "soc", 1),
    ] {
        let (ended, _, stderr) = scene.run(&[&["route", "test", "--expect", expect], fields].concat()).await;
        assert_eq!(ended, Some(code), "{fields:?}: {stderr}");
    }
    let (code, _, stderr) = scene.run(&["route", "test", "colour=red"]).await;
    assert!(code == Some(2) && stderr.contains("no field `colour`"), "{stderr}");
    let tree = scene.run(&["route", "show"]).await.1;
    // What it would take over leads to its own sink, which is no fallback.
    assert!(tree.contains("\n  vigie.yaml:11: what matches to other\n"), "{tree}");
    let other = scene.json(&["route", "test", "severity=high", "account=acc1"]).await;
    assert_eq!((&other[0]["sink"], other[0].get("fallback")), (&Value::from("other"), None));
}
