//! kill -9 with rules that remember: the same alerts as a run that nobody disturbed, none twice.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::api::{Api, KEY, SECRET};
use crate::program::{PATIENCE, Place};
use crate::receiver::{Received, Receiver};

const KILLS: usize = 100;
/// A process lives at most this long.
const MAX_ROUND_MS: u64 = 250;
const EVENTS_PER_ROUND: usize = 6;
/// Rounds that one user is busy for, so that windows span kills.
const ROUNDS_PER_USER: usize = 4;

const RULES: &str = r#"
rules:
  - id: three-deletes
    title: Three deletes
    severity: high
    when: {event_type: APP_DELETE}
    threshold: {count: 3, within: 1h, by: user_email}
    alert: {quiet: 2h}
  - id: three-addresses
    title: Three addresses
    severity: high
    when: {event_type: "*", source: CD}
    distinct: {field: source_ip, count: 3, within: 1h, by: user_email}
    alert: {quiet: 2h}
  - id: new-country
    title: New country
    severity: high
    when: {event_type: "*", source: CD}
    first_seen: {of: source_country, by: user_email, learn: 0s}
    alert: {quiet: 2h}
  - id: leap
    title: Leap
    severity: high
    when: {event_type: "*", source: CD}
    travel: {by: user_email}
    alert: {quiet: 2h}
  - id: created-then-deleted
    title: Created, then deleted
    severity: high
    sequence:
      within: 1h
      by: user_email
      steps:
        - {name: created, when: {event_type: APP_CREATE}}
        - {name: deleted, when: {event_type: APP_DELETE}}
    alert: {quiet: 2h}
  - id: never-enabled
    title: Created and not enabled
    severity: high
    absence: {after: {event_type: APP_CREATE}, expect: {event_type: APP_ENABLE}, within: 2s, by: user_email}
    alert: {quiet: 2h}
  - id: deleted-unused
    title: Created and deleted without an update in between
    severity: high
    sequence:
      within: 1h
      by: user_email
      steps:
        - {name: created, when: {event_type: APP_CREATE}}
        - {name: updated, when: {event_type: APP_UPDATE}, absent: true}
        - {name: deleted, when: {event_type: APP_DELETE}}
    alert: {quiet: 2h}
  - id: much-more
    title: Much more than before
    severity: high
    when: {event_type: "*", source: CD}
    spike: {ratio: 3, at_least: 10, window: 2m, baseline: 10m, by: user_email}
    alert: {quiet: 2h}
"#;
const RULE_COUNT: usize = 8;
/// Two accounts that show the same: what one of them is settled for must not decide anything in the other.
const SOURCES: [&str; 2] = ["main", "other"];
/// Somebody who always does something once a minute, and then every moment.
const STEADY: &str = "steady@example.org";

/// Source, rule and key.
type Subject = (String, String, String);
/// What alerts are, whichever run raised them.
type Alerts = BTreeMap<Subject, Vec<(String, String, u64)>>;

fn configure(place: &Place, api: &Api, receiver: &Receiver) {
    place.write("rules/all.yaml", RULES);
    let account = format!("api_key: {KEY}, api_secret: {SECRET}, base_url: \"{}\"", api.base_url);
    let source = |lateness: &str| {
        format!("{{vonage_audit: {{{account}, poll_interval: 200ms, start: 1h, lateness: {lateness}}}}}")
    };
    let [main, other] = SOURCES;
    let (first, second) = (source("1s"), source("3s"));
    place.write(
        "vigie.yaml",
        &format!(
            "sources:\n  {main}: {first}\n  {other}: {second}\nrules: [rules/]\n\
             sinks:\n  hook: {{webhook: {{url: \"{}\"}}}}\nroutes:\n  - to: hook\nstate: {{dir: state}}\n",
            receiver.url
        ),
    );
}

/// Something that one of the busy users does.
fn happen(api: &Api, rng: &mut SmallRng, round: usize) {
    let kind = ["APP_CREATE", "APP_DELETE", "APP_ENABLE", "APP_UPDATE"][rng.random_range(0..4)];
    let user = format!("u{}.{}@example.org", round / ROUNDS_PER_USER, rng.random_range(0..2));
    let (country, ip) = [("GB", "192.0.2.1"), ("FR", "192.0.2.2"), ("JP", "192.0.2.3")][rng.random_range(0..3)];
    api.happen_with(kind, |event| {
        event.user_email = Some(user);
        event.source_ip = ip.into();
        event.source_country = Some(country.into());
    });
}

/// What the steady one did before anything is polled.
fn happened(api: &Api) {
    for minutes in 5..40 {
        api.happen_with("USER_LOGIN", |event| {
            event.user_email = Some(STEADY.into());
            event.created_at -= TimeDelta::minutes(minutes);
        });
    }
}

/// The accounts' alerts as they stand in the store.
async fn alerts(place: &Place) -> Alerts {
    let output = place.run(&["alerts", "list", "-c", "vigie.yaml", "--limit", "10000", "-o", "json"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut alerts = Alerts::new();
    for row in rows.as_array().expect("a list") {
        let alert = &row["alert"];
        if alert["source"] == "vigie" {
            continue;
        }
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let key = (text(&alert["source"]), text(&alert["rule"]["id"]), alert["key"].to_string());
        let span = (text(&alert["first_at"]), text(&alert["last_at"]), alert["count"].as_u64().expect("a count"));
        alerts.entry(key).or_default().push(span);
    }
    alerts.values_mut().for_each(|spans| spans.sort());
    alerts
}

/// Waits until an event that came after all others has had its say, which is long after every absence is due.
async fn settle(place: &Place, api: &Api, receiver: &Receiver) {
    let process = place.start(&["run", "-c", "vigie.yaml"]);
    let last = format!("last{}@example.org", api.pushed().len());
    api.happen_with("APP_CREATE", |event| event.user_email = Some(last.clone()));
    let has_last = |received: &[Received]| {
        let bodies = received.iter().filter(|request| request.accepted).map(Received::json);
        let is_last = |alert: &serde_json::Value| {
            alert["rule"]["id"] == "never-enabled" && alert["key"]["user_email"] == last.as_str()
        };
        let told: BTreeSet<String> = bodies.filter(is_last).map(|alert| alert["source"].to_string()).collect();
        told.len() == SOURCES.len()
    };
    assert!(receiver.wait(PATIENCE, has_last).await, "the last absence was never told\n{}", place.log());
    assert!(process.end("TERM").await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_100_random_moments_changes_no_stateful_alert() {
    let seed = super::fresh_seed();
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let (api, receiver) = (Api::start().await, Receiver::start().await);
    let place = Place::new();
    configure(&place, &api, &receiver);
    happened(&api);
    for round in 0..KILLS {
        let mut process = place.start(&["run", "-c", "vigie.yaml"]);
        for _ in 0..EVENTS_PER_ROUND {
            happen(&api, &mut rng, round);
            api.happen_with("USER_LOGIN", |event| event.user_email = Some(STEADY.into()));
            // The moment of death is what is random here, so it is a time and not a signal.
            let pause_ms = rng.random_range(0..=MAX_ROUND_MS / EVENTS_PER_ROUND as u64);
            tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
        }
        process.kill().await;
    }
    settle(&place, &api, &receiver).await;
    let disturbed = alerts(&place).await;

    let (calm_receiver, calm) = (Receiver::start().await, Place::new());
    configure(&calm, &api, &calm_receiver);
    settle(&calm, &api, &calm_receiver).await;
    let mut undisturbed = alerts(&calm).await;
    // The event that ended this run had not happened in the other.
    let last = format!("last{}@", api.pushed().len() - 1);
    undisturbed.retain(|(_, _, key), _| !key.contains(&last));

    assert_eq!(disturbed, undisturbed, "seed {seed}");
    let rules: BTreeSet<(&str, &str)> =
        disturbed.keys().map(|(source, rule, _)| (source.as_str(), rule.as_str())).collect();
    assert_eq!(rules.len(), SOURCES.len() * RULE_COUNT, "seed {seed}: every rule fires in each source: {rules:?}");
    assert!(disturbed.values().all(|spans| spans.len() == 1), "seed {seed}: an alert twice");
    let told = told(&receiver.received());
    assert_eq!(told.len(), disturbed.len(), "seed {seed}: every alert was delivered, and no other");
    println!("{KILLS} kills, {} events: {} stateful alerts, as in a calm run", api.pushed().len(), disturbed.len());
}

/// Alerts that a destination took, with the one id that each has.
fn told(received: &[Received]) -> BTreeMap<Subject, String> {
    let mut told = BTreeMap::new();
    for alert in received.iter().filter(|request| request.accepted).map(Received::json) {
        if alert["source"] == "vigie" {
            continue;
        }
        let key = (alert["source"].to_string(), alert["rule"]["id"].to_string(), alert["key"].to_string());
        let id = alert["alert_id"].to_string();
        let known = told.entry(key).or_insert_with(|| id.clone());
        assert_eq!(*known, id, "two alerts for one thing");
    }
    told
}
