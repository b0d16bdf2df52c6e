//! `backfill`: the history before the start teaches rules that remember, and nothing of it is delivered.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use vigie_sim::{Fault, FaultPlan};

use crate::api::{Api, KEY, SECRET, now};
use crate::program::{PATIENCE, Place};
use crate::receiver::{Received, Receiver};

const RULES: &str = r#"
rules:
  - id: new-country
    title: New country
    severity: high
    when: {event_type: USER_LOGIN}
    first_seen: {of: source_country, by: user_email, learn: 7d}
  - id: plain
    title: Plain
    severity: high
    when: {event_type: APP_DELETE}
"#;

fn login(api: &Api, days_ago: i64, country: &'static str) -> String {
    login_at(api, days_ago * 24 * 60, country)
}

fn login_at(api: &Api, minutes_ago: i64, country: &'static str) -> String {
    api.happen_with("USER_LOGIN", |event| {
        event.created_at = now() - TimeDelta::minutes(minutes_ago);
        event.user_email = Some("ann@example.org".into());
        event.source_country = Some(country.into());
    })
}

fn configure(place: &Place, api: &Api, receiver: &Receiver, more: &str) {
    place.write("rules/all.yaml", RULES);
    let account = format!("api_key: {KEY}, api_secret: {SECRET}, base_url: \"{}\"", api.base_url);
    place.write(
        "vigie.yaml",
        &format!(
            "sources:\n  main: {{vonage_audit: {{{account}, poll_interval: 200ms{more}}}}}\nrules: [rules/]\n\
             sinks:\n  hook: {{webhook: {{url: \"{}\"}}}}\nroutes:\n  - to: hook\nstate: {{dir: state}}\n",
            receiver.url
        ),
    );
}

fn rules_and_events(received: &[Received]) -> BTreeSet<(String, String)> {
    let alerts = received.iter().filter(|request| request.accepted).map(Received::json);
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    alerts.map(|alert| (text(&alert["rule"]["id"]), text(&alert["events"][0]))).collect()
}

/// What was delivered once the login from Brazil was, and the summary if there is one to come.
async fn told(more: &str, with_summary: bool) -> (BTreeSet<(String, String)>, String) {
    let (api, receiver, place) = (Api::start().await, Receiver::start().await, Place::new());
    for (days_ago, country) in [(29, "GB"), (20, "FR"), (20, "GB"), (3, "ES")] {
        login(&api, days_ago, country);
    }
    api.happen_with("APP_DELETE", |event| event.created_at = now() - TimeDelta::days(2));
    configure(&place, &api, &receiver, more);
    let process = place.start(&["run", "-c", "vigie.yaml"]);
    if with_summary {
        let read =
            |received: &[Received]| rules_and_events(received).iter().any(|(rule, _)| rule == "vigie-history-read");
        assert!(receiver.wait(PATIENCE, read).await, "no summary\n{}", place.log());
    }
    let known = login(&api, 0, "FR");
    let new = login(&api, 0, "BR");
    let last = api.happen("APP_DELETE");
    let has_last = |received: &[Received]| rules_and_events(received).iter().any(|(_, event)| *event == last);
    assert!(receiver.wait(PATIENCE, has_last).await, "{}", place.log());
    assert!(process.end("TERM").await.success());
    let summary =
        receiver.received().iter().map(Received::json).find(|alert| alert["rule"]["id"] == "vigie-history-read");
    let summary = summary.map(|alert| alert["title"].as_str().expect("a title").to_owned()).unwrap_or_default();
    let told: BTreeSet<(String, String)> = rules_and_events(&receiver.received())
        .into_iter()
        .filter(|(rule, _)| !rule.starts_with("vigie-"))
        .map(|(rule, event)| {
            let name = match event {
                event if event == new => "BR".into(),
                event if event == known => "FR".into(),
                event if event == last => "last".into(),
                event => event,
            };
            (rule, name)
        })
        .collect();
    (told, summary)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_teaches_and_stays_silent() {
    let (told, summary) = told(", backfill: 30d", true).await;
    let expected = [("new-country", "BR"), ("plain", "last")];
    assert_eq!(told, expected.map(|(rule, event)| (rule.to_owned(), event.to_owned())).into());
    assert!(summary.contains("5 events since") && summary.contains("new-country 2, plain 1"), "{summary}");
}

/// The test above would pass as well if nothing were learned at all, or everything were new.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_history_the_rule_only_learns() {
    let (told, summary) = told("", false).await;
    assert_eq!(told, [("plain".to_owned(), "last".to_owned())].into());
    assert_eq!(summary, "");
}

/// Logins before and after the start, which the daemon learns from and judges; gives that from a country which no history
/// holds, and what `new-country` told of once the history was read and something has come after it.
async fn judged(faults: Vec<(u64, Fault)>) -> (String, Vec<String>) {
    let (api, receiver, place) = (Api::start().await, Receiver::start().await, Place::new());
    // More than one answer holds on either side of the start, so that neither is read by the way.
    for hours_ago in (49..=29 * 24).step_by(2) {
        login_at(&api, hours_ago * 60, if hours_ago == 20 * 24 + 1 { "FR" } else { "GB" });
    }
    let new = login_at(&api, 30 * 60, "BR");
    login_at(&api, 29 * 60, "FR");
    for minutes_ago in (10..2_800).step_by(15) {
        login_at(&api, minutes_ago, "GB");
    }
    configure(&place, &api, &receiver, ", start: 2d, backfill: 28d");
    api.with(|sim| sim.set_fault_plan(FaultPlan::scripted(faults)));
    let process = place.start(&["run", "-c", "vigie.yaml"]);
    let read = |received: &[Received]| rules_and_events(received).iter().any(|(rule, _)| rule == "vigie-history-read");
    assert!(receiver.wait(PATIENCE, read).await, "{}", place.log());
    let last = api.happen("APP_DELETE");
    let has_last = |received: &[Received]| rules_and_events(received).iter().any(|(_, event)| *event == last);
    assert!(receiver.wait(PATIENCE, has_last).await, "{}", place.log());
    assert!(process.end("TERM").await.success());
    let told = rules_and_events(&receiver.received()).into_iter().filter(|(rule, _)| rule == "new-country");
    (new, told.map(|(_, event)| event).collect())
}

/// What came after the start is judged by what came before it, in whatever order the API shows them.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_after_the_start_waits_until_the_history_is_read() {
    let (new, told) = judged(Vec::new()).await;
    assert_eq!(told, [new], "and not the login from France, which is known from the history");
}

/// A failure on the way, as any API has, does not let what came later be judged by half of the history.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_fails_now_and_then_is_still_read_first() {
    let pause = std::time::Duration::from_secs(1);
    let faults = [Fault::RateLimited { retry_after: pause }, Fault::ServerError, Fault::Unavailable, Fault::Cut];
    let script = faults.into_iter().enumerate().map(|(number, fault)| (2 + 3 * number as u64, fault));
    let (new, told) = judged(script.collect()).await;
    assert_eq!(told, [new]);
}
