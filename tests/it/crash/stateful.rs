//! kill -9 with rules that remember: the same alerts as a run that nobody disturbed, none twice.

use std::collections::BTreeMap;

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
"#;

/// What an alert is, whichever run raised it.
type Alerts = BTreeMap<(String, String), Vec<(String, String, u64)>>;

fn configure(place: &Place, api: &Api, receiver: &Receiver) {
    place.write("rules/all.yaml", RULES);
    let account = format!("api_key: {KEY}, api_secret: {SECRET}, base_url: \"{}\"", api.base_url);
    let source = format!("{{{account}, poll_interval: 200ms, start: 1h, lateness: 1s}}");
    place.write(
        "vigie.yaml",
        &format!(
            "sources:\n  main: {{vonage_audit: {source}}}\nrules: [rules/]\n\
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
        event.user_email = Some(user.into());
        event.source_ip = ip.into();
        event.source_country = Some(country.into());
    });
}

/// The account's alerts as they stand in the store.
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
        let key = (text(&alert["rule"]["id"]), alert["key"].to_string());
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
    api.happen_with("APP_CREATE", |event| event.user_email = Some(last.clone().into()));
    let has_last = |received: &[Received]| {
        let mut bodies = received.iter().filter(|request| request.accepted).map(Received::json);
        bodies.any(|alert| alert["rule"]["id"] == "never-enabled" && alert["key"]["user_email"] == last.as_str())
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
    for round in 0..KILLS {
        let mut process = place.start(&["run", "-c", "vigie.yaml"]);
        for _ in 0..EVENTS_PER_ROUND {
            happen(&api, &mut rng, round);
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
    undisturbed.retain(|(_, key), _| !key.contains(&last));

    assert_eq!(disturbed, undisturbed, "seed {seed}");
    let rules: std::collections::BTreeSet<&str> = disturbed.keys().map(|(rule, _)| rule.as_str()).collect();
    assert_eq!(rules.len(), 6, "seed {seed}: every rule fires: {rules:?}");
    assert!(disturbed.values().all(|spans| spans.len() == 1), "seed {seed}: an alert twice");
    let told = told(&receiver.received());
    assert_eq!(told.len(), disturbed.len(), "seed {seed}: every alert was delivered, and no other");
    println!("{KILLS} kills, {} events: {} stateful alerts, as in a calm run", api.pushed().len(), disturbed.len());
}

/// Alerts that a destination took: rule and key to the one alert id.
fn told(received: &[Received]) -> BTreeMap<(String, String), String> {
    let mut told = BTreeMap::new();
    for alert in received.iter().filter(|request| request.accepted).map(Received::json) {
        if alert["source"] == "vigie" {
            continue;
        }
        let key = (alert["rule"]["id"].to_string(), alert["key"].to_string());
        let id = alert["alert_id"].to_string();
        let known = told.entry(key).or_insert_with(|| id.clone());
        assert_eq!(*known, id, "two alerts for one thing");
    }
    told
}
