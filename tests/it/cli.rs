//! Every verb from outside: what it writes where, and how it ends. Exit codes are a promise to scripts.

use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::ChildStderr;

use crate::api::{Api, KEY, SECRET};
use crate::program::{PATIENCE, Place, Running, closed_port, text, until};
use crate::receiver::{Answer, Receiver};

const RULES: &str = r#"
rules:
- id: app-created
  title: An application was created
  severity: high
  tags: [attack.t1136]
  when: {event_type: APP_CREATE, source_country|neq: FR}
  tests:
  - {events: [{event_type: APP_CREATE, source_country: KP}], expect: alert}
  - {events: [{event_type: APP_CREATE, source_country: FR}], expect: nothing}
"#;
const SECOND_RULE: &str = r#"
rules:
- id: number-released
  title: A number was released
  severity: low
  when: {event_type: NUMBER_RELEASE}
  tests: [{events: [{event_type: NUMBER_RELEASE}], expect: alert}]
"#;

/// A directory with a configuration for the stand-in and one destination.
struct Scene {
    place: Place,
    api: Api,
    receiver: Receiver,
}

impl Scene {
    async fn new() -> Self {
        let scene = Self { place: Place::new(), api: Api::start().await, receiver: Receiver::start().await };
        scene.place.write("rules/app.yaml", RULES);
        scene.place.write(
            "vigie.yaml",
            &format!(
                "sources:\n  main:\n    vonage_audit:\n      {{api_key: {KEY}, api_secret: {SECRET}, base_url: '{}', \
                 poll_interval: 200ms, start: 1h}}\nrules: [rules/]\nsinks:\n  soc: {{webhook: {{url: '{}'}}}}\n",
                scene.api.base_url, scene.receiver.url
            ),
        );
        scene
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.place.run(arguments).await
    }

    /// Runs a verb with `-o json` and gives what it wrote; it must end with 0.
    async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["-o", "json"]].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        json(&output)
    }

    /// `vigie events ...` with credentials from the environment and no configuration.
    async fn events(&self, arguments: &[&str], secret: &str) -> Output {
        let elsewhere = Place::new();
        let mut command = elsewhere.command(&["events"]);
        command.args(arguments).args(["--base-url", &self.api.base_url]);
        command.env("VONAGE_API_KEY", KEY).env("VONAGE_API_SECRET", secret);
        tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").expect("it starts")
    }

    fn start(&self, arguments: &[&str]) -> Daemon {
        let mut child = self.place.command(arguments).stderr(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        Daemon { running: child.into(), lines, said: String::new() }
    }
}

/// A daemon whose log is read line by line.
struct Daemon {
    running: Running,
    lines: Lines<BufReader<ChildStderr>>,
    said: String,
}

impl Daemon {
    /// Reads the log until a line holds all of these, and gives it.
    async fn says(&mut self, parts: &[&str]) -> String {
        let reading = async {
            while let Some(line) = self.lines.next_line().await.expect("a log") {
                self.said.push_str(&line);
                self.said.push('\n');
                if parts.iter().all(|part| line.contains(part)) {
                    return Some(line);
                }
            }
            None
        };
        let found = tokio::time::timeout(PATIENCE, reading).await;
        found.ok().flatten().unwrap_or_else(|| missing(parts, &self.said))
    }

    /// The port that the console listens on.
    async fn port(&mut self) -> u16 {
        let line = self.says(&["console listens"]).await;
        let digits = line.rsplit(':').next().unwrap_or_default().trim_end_matches(|c: char| !c.is_ascii_digit());
        digits.parse().expect("a port")
    }
}

#[expect(clippy::panic, reason = "a test fails with what was said instead")]
fn missing(parts: &[&str], said: &str) -> String {
    panic!("it never said {parts:?} but\n{said}")
}

fn code(output: &Output) -> Option<i32> {
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
    output.status.code()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON on stdout")
}

/// Status and body of a GET.
async fn get(port: u16, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").expect("text");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_listed_fetched_and_named() {
    let scene = Scene::new().await;
    let first = scene.api.happen("APP_CREATE");
    scene.api.happen("APP_DELETE");
    scene.api.happen("APP_CREATE");

    let listed = json(&scene.events(&["list", "-o", "json"], SECRET).await);
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    let lines = scene.events(&["list", "-o", "ndjson", "--type", "APP_CREATE"], SECRET).await;
    let rows: Vec<Value> =
        text(&lines.stdout).lines().map(|line| serde_json::from_str(line).expect("one JSON a line")).collect();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["event_type"] == "APP_CREATE"), "{rows:?}");
    let human = scene.events(&["list", "--limit", "1"], SECRET).await;
    assert_eq!((code(&human), text(&human.stdout).lines().count()), (Some(0), 1));
    assert_eq!(text(&human.stderr), "1 event\n");

    let one = scene.events(&["get", &first], SECRET).await;
    assert_eq!((code(&one), &json(&one)["id"]), (Some(0), &Value::from(first)));
    let types = json(&scene.events(&["types", "-o", "json"], SECRET).await);
    assert!(types.as_array().is_some_and(|types| types.iter().any(|one| one["type"] == "APP_CREATE")), "{types}");
    let from_config = scene.json(&["events", "list", "-c", "vigie.yaml"]).await;
    assert_eq!(from_config, listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_end_with_the_code_of_what_went_wrong() {
    let scene = Scene::new().await;
    let unknown = scene.events(&["get", "no-such-id"], SECRET).await;
    assert_eq!(code(&unknown), Some(20), "{}", text(&unknown.stderr));
    let refused = scene.events(&["list"], "wrong-secret").await;
    assert_eq!(code(&refused), Some(5), "{}", text(&refused.stderr));
    assert!(!text(&refused.stderr).contains("wrong-secret"));
    let bare = Place::new().run(&["events", "list"]).await;
    assert_eq!(code(&bare), Some(2));
    assert!(text(&bare.stderr).contains("VONAGE_API_KEY"), "{}", text(&bare.stderr));
    let no_time = scene.events(&["list", "--from", "yesterday"], SECRET).await;
    assert_eq!(code(&no_time), Some(2), "{}", text(&no_time.stderr));
    // A port that was free a moment ago and is nobody's now.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = format!("http://{}/beta/audit", listener.local_addr().expect("an address"));
    drop(listener);
    let mut command = scene.place.command(&["events", "types", "--base-url", &nobody]);
    let silent = command.env("VONAGE_API_KEY", KEY).env("VONAGE_API_SECRET", SECRET).output().await.expect("it starts");
    assert_eq!(code(&silent), Some(69), "{}", text(&silent.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_early_is_no_failure() {
    let scene = Scene::new().await;
    for _ in 0..50 {
        scene.api.happen("APP_CREATE");
    }
    let mut command = scene.place.command(&["events", "list", "-c", "vigie.yaml", "-o", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").expect("its output");
    assert_eq!((code(&output), text(&output.stderr)), (Some(0), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn run_once_delivers_and_the_archive_shows_it() {
    let scene = Scene::new().await;
    scene.api.happen("APP_CREATE");
    scene.api.happen("APP_DELETE");
    let ran = scene.run(&["run", "--once", "-c", "vigie.yaml"]).await;
    assert_eq!(code(&ran), Some(0), "{}", text(&ran.stderr));
    assert!(text(&ran.stderr).ends_with("2 events, 1 alert\n"), "{}", text(&ran.stderr));
    assert_eq!(scene.receiver.received().len(), 1);

    let alerts = scene.json(&["alerts", "list"]).await;
    let id = alerts[0]["alert"]["alert_id"].as_str().expect("an alert").to_owned();
    assert_eq!(alerts.as_array().map(Vec::len), Some(1), "{alerts}");
    let shown = scene.run(&["alerts", "show", &id]).await;
    let human = text(&shown.stdout);
    assert!(human.contains("because   event_type is APP_CREATE") && human.contains("-> soc: delivered"), "{human}");
    assert_eq!(code(&scene.run(&["alerts", "show", "no-such-alert"]).await), Some(20));
    assert_eq!(scene.json(&["alerts", "list", "--severity", "critical"]).await, Value::Array(Vec::new()));
    assert_eq!(code(&scene.run(&["alerts", "list", "--severity", "hihg"]).await), Some(2));

    let deliveries = scene.json(&["deliveries", "list"]).await;
    let delivery = deliveries[0]["delivery_id"].as_str().expect("a delivery").to_owned();
    assert_eq!(scene.receiver.received()[0].header("webhook-id"), delivery);
    let detail = scene.json(&["deliveries", "show", &delivery]).await;
    let sent = scene.receiver.received()[0].body.clone();
    assert_eq!(detail["body"].as_str().map(str::as_bytes), Some(&*sent), "the body is kept as it was sent");
    assert_eq!(code(&scene.run(&["deliveries", "show", "no-such-delivery"]).await), Some(20));
    assert_eq!(code(&scene.run(&["deliveries", "retry", "no-such-delivery"]).await), Some(20));
    let again = scene.run(&["deliveries", "retry", &delivery]).await;
    assert_eq!((code(&again), text(&again.stderr).contains("delivered already")), (Some(0), true));

    // What was seen is not alerted again.
    assert_eq!(code(&scene.run(&["run", "--once", "-c", "vigie.yaml"]).await), Some(0));
    assert_eq!(scene.receiver.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_people_have_is_read_once() {
    let place = Place::new();
    place.write("rules/app.yaml", RULES);
    place.write("vigie.yaml", "sources: {replay: {ndjson: {path: events.ndjson}}}\nrules: [rules/]\n");
    let row = |id: &str, country: &str| {
        format!(
            r#"{{"id":"{id}","event_type":"APP_CREATE","created_at":"2026-01-05T12:00:00Z","source_country":"{country}"}}"#
        )
    };
    let rows = [row("one", "KP"), row("two", "FR"), row("one", "KP")];
    place.write("events.ndjson", &format!("{}\n", rows.join("\n")));
    let ran = place.run(&["run", "--once", "-c", "vigie.yaml"]).await;
    assert_eq!(code(&ran), Some(0), "{}", text(&ran.stderr));
    assert!(text(&ran.stderr).ends_with("2 events, 1 alert\n"), "{}", text(&ran.stderr));
    assert!(text(&ran.stdout).contains("An application was created"), "without sinks alerts go to stdout");
    let again = place.run(&["run", "--once", "-c", "vigie.yaml"]).await;
    assert_eq!((code(&again), text(&again.stdout)), (Some(0), String::new()), "{}", text(&again.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_replayed_under_their_id() {
    let scene = Scene::new().await;
    scene.receiver.answer(Answer::status(410));
    scene.api.happen("APP_CREATE");
    let ran = scene.run(&["run", "--once", "-c", "vigie.yaml"]).await;
    assert_eq!(code(&ran), Some(0), "{}", text(&ran.stderr));
    let dead = scene.json(&["deliveries", "list", "--status", "dead"]).await;
    let all: Vec<&Value> = dead.as_array().expect("a list").iter().collect();
    assert_eq!(all.len(), 2, "{dead}");
    let ids: Vec<String> = all.iter().map(|row| row["delivery_id"].as_str().expect("an id").to_owned()).collect();

    scene.receiver.answer(Answer::ok());
    let replayed = scene.run(&["deliveries", "replay", "--failed", "--since", "1h", "--sink", "soc"]).await;
    assert_eq!(code(&replayed), Some(0));
    // The alert about the dead letter went to the same sink and died there as well.
    assert_eq!(text(&replayed.stderr), "2 dead letters due again\n");
    let ran = scene.run(&["run", "--once", "-c", "vigie.yaml"]).await;
    assert_eq!(code(&ran), Some(0), "{}", text(&ran.stderr));
    let accepted: Vec<_> = scene.receiver.received().into_iter().filter(|request| request.accepted).collect();
    for id in &ids {
        assert!(accepted.iter().any(|request| request.header("webhook-id") == id), "{id} comes under its first id");
    }
    assert_eq!(scene.json(&["deliveries", "list", "--status", "dead"]).await, Value::Array(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_down_leaves_75_and_retry_makes_it_due() {
    let scene = Scene::new().await;
    scene.receiver.answer(Answer::status(503));
    scene.api.happen("APP_CREATE");
    let ran = scene.run(&["run", "--once", "-c", "vigie.yaml"]).await;
    assert_eq!(code(&ran), Some(75), "{}", text(&ran.stderr));
    assert!(text(&ran.stderr).contains("deliveries still wait: 1 for `soc`"), "{}", text(&ran.stderr));
    let waiting = scene.json(&["deliveries", "list", "--status", "pending"]).await;
    let id = waiting[0]["delivery_id"].as_str().expect("a delivery").to_owned();
    scene.receiver.answer(Answer::ok());
    assert_eq!(code(&scene.run(&["deliveries", "retry", &id]).await), Some(0));
    // The lane still waits for its next probe, so a daemon that stays is what shows it.
    let daemon = scene.start(&["run", "-c", "vigie.yaml"]);
    let accepted = |received: &[crate::receiver::Received]| {
        received.iter().any(|request| request.accepted && request.header("webhook-id") == id)
    };
    assert!(scene.receiver.wait(PATIENCE, accepted).await, "the same delivery arrives");
    assert_eq!(daemon.running.end("TERM").await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_sends_nothing_and_keeps_nothing_from_the_real_run() {
    let scene = Scene::new().await;
    scene.api.happen("APP_CREATE");
    let ran = scene.run(&["run", "--once", "--dry-run", "-c", "vigie.yaml"]).await;
    assert_eq!(code(&ran), Some(0), "{}", text(&ran.stderr));
    assert_eq!(scene.receiver.received().len(), 0);
    assert!(text(&ran.stderr).contains("dry run: would alert"), "{}", text(&ran.stderr));
    // Its store is its own: the real run still alerts.
    let ran = scene.run(&["run", "--once", "-c", "vigie.yaml"]).await;
    assert_eq!(code(&ran), Some(0), "{}", text(&ran.stderr));
    assert_eq!(scene.receiver.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_end_a_finite_run_with_5() {
    let scene = Scene::new().await;
    let config = std::fs::read_to_string(scene.place.file("vigie.yaml")).expect("the configuration");
    scene.place.write("vigie.yaml", &config.replace(SECRET, "revoked"));
    let ran = scene.run(&["run", "--once", "-c", "vigie.yaml"]).await;
    assert_eq!(code(&ran), Some(5), "{}", text(&ran.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_why_and_why_not() {
    let scene = Scene::new().await;
    scene.place.write("kp.json", r#"{"id": "1", "event_type": "APP_CREATE", "source_country": "KP"}"#);
    scene.place.write("fr.json", r#"{"id": "2", "event_type": "APP_CREATE", "source_country": "FR"}"#);
    scene.place.write("no.json", "not JSON");
    let fires = scene.run(&["explain", "app-created", "kp.json"]).await;
    let human = text(&fires.stdout);
    assert_eq!(code(&fires), Some(0), "{}", text(&fires.stderr));
    assert!(human.starts_with("app-created fires on event 1\n") && human.contains("source_country is KP"), "{human}");
    let silent = scene.run(&["explain", "app-created", "fr.json", "--rules", "rules"]).await;
    let human = text(&silent.stdout);
    assert_eq!(code(&silent), Some(0), "{}", text(&silent.stderr));
    assert!(human.starts_with("app-created does not fire on event 2\n") && human.contains("✗ source_country is FR"));
    assert_eq!(scene.json(&["explain", "app-created", "fr.json"]).await["holds"], false);
    let unknown = scene.run(&["explain", "app-craeted", "kp.json"]).await;
    assert_eq!(code(&unknown), Some(20));
    assert!(text(&unknown.stderr).contains("did you mean `app-created`?"), "{}", text(&unknown.stderr));
    assert_eq!(code(&scene.run(&["explain", "app-created", "no.json"]).await), Some(2));
    assert_eq!(code(&scene.run(&["explain", "app-created", "missing.json"]).await), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_tests_run_by_themselves() {
    let place = Place::new();
    place.write("rules/app.yaml", RULES);
    place.write("rules/number.yaml", SECOND_RULE);
    let passed = place.run(&["test", "rules", "--junit", "report.xml"]).await;
    assert_eq!((code(&passed), text(&passed.stdout)), (Some(0), "2 rules: 3 passed, 0 failed\n".into()));
    let report = std::fs::read_to_string(place.file("report.xml")).expect("a report");
    assert!(
        report.contains("tests=\"3\" failures=\"0\"") && report.contains("classname=\"number-released\""),
        "{report}"
    );
    let one = place.run(&["test", "rules", "--run", "^number"]).await;
    assert_eq!((code(&one), text(&one.stdout)), (Some(0), "1 rule: 1 passed, 0 failed\n".into()));
    assert_eq!(
        code(&place.run(&["test", "rules", "--run", "^nothing"]).await),
        Some(1),
        "nothing tested is no success"
    );
    assert_eq!(code(&place.run(&["test", "rules", "--run", "("]).await), Some(2));

    place.write("rules/number.yaml", &SECOND_RULE.replace("expect: alert", "expect: nothing"));
    let failed = place.run(&["test", "rules", "--junit", "report.xml"]).await;
    assert_eq!(code(&failed), Some(1));
    assert!(text(&failed.stdout).contains("rules/number.yaml:7: number-released"), "{}", text(&failed.stdout));
    assert!(std::fs::read_to_string(place.file("report.xml")).expect("a report").contains("<failure"));
    place.write("rules/number.yaml", "rules: [");
    assert_eq!(code(&place.run(&["test", "rules"]).await), Some(78));
    assert_eq!(code(&place.run(&["test", "nowhere"]).await), Some(78));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_is_shown_and_tried() {
    let scene = Scene::new().await;
    let rendered = scene.run(&["sink", "test", "soc", "--render-only"]).await;
    assert_eq!(code(&rendered), Some(0));
    assert_eq!(json(&rendered)["rule"]["id"], "vigie-sink-test");
    assert_eq!(scene.receiver.received().len(), 0, "it is only shown");
    let sent = scene.run(&["sink", "test", "soc"]).await;
    assert_eq!(code(&sent), Some(0), "{}", text(&sent.stderr));
    let received = scene.receiver.received();
    assert_eq!((received.len(), &received[0].json()["rule"]["id"]), (1, &Value::from("vigie-sink-test")));
    for (status, expect) in [(503, 75), (401, 5), (410, 1)] {
        scene.receiver.answer(Answer::status(status));
        let output = scene.run(&["sink", "test", "soc"]).await;
        assert_eq!(code(&output), Some(expect), "{status}: {}", text(&output.stderr));
    }
    let unknown = scene.run(&["sink", "test", "sco"]).await;
    assert_eq!(code(&unknown), Some(20));
    assert!(text(&unknown.stderr).contains("did you mean `soc`?"), "{}", text(&unknown.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_configuration_needs_none() {
    let place = Place::new();
    let config = json(&place.run(&["schema", "config"]).await);
    let properties = config["properties"].as_object().expect("properties");
    for section in ["sources", "rules", "sinks", "routes", "state", "server"] {
        assert!(properties.contains_key(section), "{section}");
    }
    assert_eq!(config["additionalProperties"], false);
    assert!(config.to_string().contains("poll_interval") && config.to_string().contains("webhook_url"));
    let rules = json(&place.run(&["schema", "rules"]).await);
    assert!(rules["properties"]["rules"].is_object() && rules["properties"]["lists"].is_object(), "{rules}");

    let completions = place.run(&["completions", "bash"]).await;
    assert_eq!(code(&completions), Some(0));
    assert!(text(&completions.stdout).contains("_vigie()"));
    let version = place.run(&["version"]).await;
    assert!(text(&version.stdout).starts_with(concat!("vigie ", env!("CARGO_PKG_VERSION"))));
    assert_eq!(json(&place.run(&["version", "-o", "json"]).await)["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(code(&place.run(&[]).await), Some(2));
    assert_eq!(code(&place.run(&["rnu"]).await), Some(2));
    assert_eq!(code(&place.run(&["--help"]).await), Some(0));
    let nothing = place.run(&["check"]).await;
    assert_eq!(code(&nothing), Some(2));
    assert!(text(&nothing.stderr).contains("-c FILE"), "{}", text(&nothing.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_asked_for_recovered_and_missed() {
    let scene = Scene::new().await;
    let none = scene.run(&["alerts", "list"]).await;
    assert_eq!(code(&none), Some(20), "{}", text(&none.stderr));
    assert!(!scene.place.file("state").exists(), "asking makes no store");
    scene.api.happen("APP_CREATE");
    assert_eq!(code(&scene.run(&["run", "--once", "-c", "vigie.yaml"]).await), Some(0));
    let before = scene.json(&["alerts", "list"]).await;
    let recovered = scene.run(&["state", "recover"]).await;
    assert_eq!(code(&recovered), Some(0), "{}", text(&recovered.stderr));
    assert!(text(&recovered.stdout).starts_with("the damaged store is kept as "), "{}", text(&recovered.stdout));
    assert_eq!(scene.json(&["alerts", "list"]).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_has_one_daemon() {
    let scene = Scene::new().await;
    let mut daemon = scene.start(&["run", "-c", "vigie.yaml"]);
    daemon.says(&["started"]).await;
    let asked_at = tokio::time::Instant::now();
    let second = scene.run(&["run", "-c", "vigie.yaml"]).await;
    let waited = asked_at.elapsed();
    assert_eq!(code(&second), Some(74), "{}", text(&second.stderr));
    let id = daemon.running.id().to_string();
    assert!(text(&second.stderr).contains(&id), "it names process {id}: {}", text(&second.stderr));
    assert!(waited.as_millis() < 1_000, "{waited:?}");
    assert_eq!(daemon.running.end("TERM").await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_shows_how_it_stands_to_loopback_only() {
    let scene = Scene::new().await;
    let mut daemon = scene.start(&["run", "-c", "vigie.yaml", "--listen", "127.0.0.1:0"]);
    let port = daemon.port().await;
    scene.api.happen("APP_CREATE");
    assert!(scene.receiver.wait(PATIENCE, |received| !received.is_empty()).await, "the alert comes");
    let (status, health) = get(port, "/healthz", "localhost").await;
    let health: Value = serde_json::from_str(&health).expect("JSON");
    assert_eq!((status, &health["sources"]["main"]["events"]), (200, &Value::from(1)), "{health}");
    assert_eq!(get(port, "/readyz", "127.0.0.1").await.0, 200);
    let (status, metrics) = get(port, "/metrics", &format!("[::1]:{port}")).await;
    assert_eq!(status, 200);
    for line in ["vigie_events_total{source=\"main\"} 1", "vigie_rule_matches_total{rule=\"app-created\"} 1"] {
        assert!(metrics.lines().any(|shown| shown == line), "{line} is not in\n{metrics}");
    }
    for path in ["/healthz", "/readyz", "/metrics", "/nothing"] {
        let (status, body) = get(port, path, "evil.example").await;
        assert_eq!(status, 421, "{path}: {body}");
        assert!(!body.contains("main"), "{path}: {body}");
    }
    assert_eq!(get(port, "/nothing", "localhost").await.0, 404);
    let refused = scene.run(&["run", "-c", "vigie.yaml", "--listen", "0.0.0.0:0"]).await;
    assert_eq!(code(&refused), Some(2), "{}", text(&refused.stderr));
    assert_eq!(daemon.running.end("INT").await.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_takes_effect_and_a_broken_one_does_not() {
    let scene = Scene::new().await;
    let mut daemon = scene.start(&["run", "-c", "vigie.yaml", "--listen", "127.0.0.1:0"]);
    let port = daemon.port().await;
    daemon.says(&["started"]).await;

    // A file that changes is enough; a broken one keeps what was there.
    scene.place.write("rules/app.yaml", &RULES.replace("severity: high", "severity: hihg"));
    daemon.says(&["rules/app.yaml:5:13: error[E0206]"]).await;
    daemon.says(&["not reloaded"]).await;
    assert_eq!(reload_successful(port).await, "0");
    scene.api.happen("APP_CREATE");
    assert!(scene.receiver.wait(PATIENCE, |received| received.len() == 1).await, "the old rule still fires");

    scene.place.write("rules/app.yaml", RULES);
    daemon.says(&["reloaded"]).await;
    assert_eq!(reload_successful(port).await, "1");

    // A rule in a new file, taken up by SIGHUP.
    let config = std::fs::read_to_string(scene.place.file("vigie.yaml")).expect("the configuration");
    scene.place.write("more/number.yaml", SECOND_RULE);
    scene.place.write("vigie.yaml", &config.replace("[rules/]", "[rules/, more/]"));
    daemon.running.signal("HUP").await;
    daemon.says(&["reloaded"]).await;
    scene.api.happen("NUMBER_RELEASE");
    let released = |received: &[crate::receiver::Received]| {
        received.iter().any(|request| request.json()["rule"]["id"] == "number-released")
    };
    assert!(scene.receiver.wait(PATIENCE, released).await, "the new rule fires");
    assert_eq!(daemon.running.end("TERM").await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_shows_the_sinks_of_now_and_says_what_takes_a_restart() {
    let (scene, port) = (Scene::new().await, closed_port());
    let config = std::fs::read_to_string(scene.place.file("vigie.yaml")).expect("the configuration");
    let listening = |config: &str, port: u16| format!("{config}server: {{listen: '127.0.0.1:{port}'}}\n");
    scene.place.write("vigie.yaml", &listening(&config, port));
    let mut daemon = scene.start(&["run", "-c", "vigie.yaml"]);
    assert_eq!(daemon.port().await, port);
    daemon.says(&["started"]).await;
    scene.api.happen("APP_CREATE");
    assert!(scene.receiver.wait(PATIENCE, |received| received.len() == 1).await, "it runs");
    let depth = async |sink: &str| {
        let (_, metrics) = get(port, "/metrics", "localhost").await;
        metrics.contains(&format!("vigie_delivery_queue_depth{{sink=\"{sink}\"}}"))
    };
    assert!(depth("soc").await && !depth("spare").await);

    let spare = format!("{config}  spare: {{webhook: {{url: '{}'}}}}\n", scene.receiver.url);
    scene.place.write("vigie.yaml", &listening(&spare, closed_port()));
    daemon.says(&["WARN", "`server: listen` changed", "takes a restart"]).await;
    daemon.says(&["reloaded"]).await;
    until("the new sink is shown", async || depth("spare").await).await;
    assert!(depth("soc").await);
    assert_eq!(daemon.running.end("TERM").await.code(), Some(0));
}

async fn reload_successful(port: u16) -> String {
    let (_, metrics) = get(port, "/metrics", "localhost").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("vigie_config_last_reload_successful "));
    line.expect("the metric").to_owned()
}
