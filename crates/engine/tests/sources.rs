//! Several sources, each with a time of its own, and more that is due than one batch decides.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use vigie_engine::diagnostic::{Diagnostics, SourceFile};
use vigie_engine::engine::{Effects, Engine, MAX_ROWS_PER_TICK};
use vigie_engine::event::{Event, Geo};
use vigie_engine::rule::{self, Rule};

const RULES: &str = "
rules:
  - id: left-open
    title: Left open
    severity: high
    absence: {after: {event_type: CREATE}, expect: {event_type: DELETE}, within: 1h, by: user}
    alert: {dedup: [user], quiet: 1h}
    tests:
      - name: left
        events:
          - {event_type: CREATE, created_at: '2026-03-01T00:00:00Z', user: a}
          - {event_type: OTHER, created_at: '2026-03-01T02:00:00Z'}
        expect: alert
      - {name: other, events: [{event_type: OTHER, created_at: '2026-03-01T00:00:00Z'}], expect: nothing}
  - id: thrice
    title: Thrice
    severity: low
    when: {event_type: CREATE}
    threshold: {count: 3, within: 10m, by: user}
    tests:
      - name: three
        events:
          - {id: a, event_type: CREATE, created_at: '2026-03-01T00:00:00Z', user: a}
          - {id: b, event_type: CREATE, created_at: '2026-03-01T00:00:00Z', user: a}
          - {id: c, event_type: CREATE, created_at: '2026-03-01T00:00:00Z', user: a}
        expect: alert
      - {name: other, events: [{event_type: OTHER, created_at: '2026-03-01T00:00:00Z'}], expect: nothing}
";

fn engine() -> Engine {
    let file = SourceFile { path: "rules.yaml".into(), text: RULES.into() };
    let mut diagnostics = Diagnostics::default();
    let none = &mut |_: &str, _: &str| Err("no lists".to_owned());
    let rules = rule::load(std::slice::from_ref(&file), none, &mut diagnostics).rules;
    assert_eq!(rules.len(), 2, "{diagnostics:?}");
    Engine::new(rules)
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_323_200 + second, 0).expect("a stamp")
}

fn create(id: &str, user: &str, second: i64) -> Event {
    let raw = format!(r#"{{"event_type":"CREATE","user":"{user}"}}"#);
    Event::new(id, at(second), Arc::from(raw)).expect("an event")
}

/// What a batch raises: the rules and how many times each.
fn run(engine: &mut Engine, source: &str, events: &[Event], settled_second: i64) -> (Vec<String>, bool) {
    let mut batch = engine.batch();
    for event in events {
        batch.step(source, event, event.created_at());
    }
    batch.tick(source, at(settled_second), None);
    let effects = batch.finish();
    engine.apply(effects.changes);
    (effects.alerts.iter().map(|alert| alert.rule.id.clone()).collect(), effects.more_is_due)
}

#[test]
fn a_source_that_is_further_on_ends_nothing_of_another() {
    let mut engine = engine();
    run(&mut engine, "slow", &[create("1", "a", 0), create("2", "a", 10)], 20);
    // A notice of the program itself, or another account, hours later.
    for source in ["vigie", "fast"] {
        assert_eq!(run(&mut engine, source, &[create("x", "a", 50_000)], 50_100).0, ["left-open"; 0]);
    }
    let (raised, _) = run(&mut engine, "slow", &[create("3", "a", 20)], 30);
    assert_eq!(raised, ["thrice"], "the first two are still there");
    let (raised, _) = run(&mut engine, "slow", &[], 7_300);
    assert_eq!(raised, ["left-open"], "three within an hour are one incident");
}

#[test]
fn each_row_of_a_source_ends_with_its_time() {
    let mut engine = engine();
    let long = "x".repeat(4_000);
    run(&mut engine, "main", &[create("1", "a", 0), create("2", &long, 0)], 10);
    let kept = |engine: &Engine| engine.state_keys().map(|(_, rows)| rows).sum::<usize>();
    assert!(kept(&engine) >= 4);
    run(&mut engine, "main", &[], 1_000_000);
    run(&mut engine, "main", &[], 2_000_000);
    assert_eq!(kept(&engine), 0, "windows, absences and open alerts");
}

#[test]
fn what_is_due_beyond_one_batch_is_decided_by_the_next_and_never_dropped() {
    let mut engine = engine();
    let users = MAX_ROWS_PER_TICK + 500;
    let events: Vec<Event> =
        (0..users).map(|user| create(&format!("e{user}"), &format!("u{user}"), user as i64 % 60)).collect();
    run(&mut engine, "main", &events, 100);
    let (first, more) = run(&mut engine, "main", &[], 100_000);
    assert_eq!((first.len(), more), (MAX_ROWS_PER_TICK, true));
    let (second, more) = run(&mut engine, "main", &[], 100_000);
    assert_eq!((second.len(), more), (500, false));
}

fn engine_of(rule_yaml: &str) -> Engine {
    Engine::new(rules_of(rule_yaml))
}

fn rules_of(rule_yaml: &str) -> Vec<Rule> {
    let text = format!("rules:\n  - {{id: one, title: One, severity: high, {rule_yaml}}}\n");
    let file = SourceFile { path: "rules.yaml".into(), text: text.into() };
    let mut diagnostics = Diagnostics::default();
    let rules = rule::load(&[file], &mut |_: &str, _: &str| Err("no lists".to_owned()), &mut diagnostics).rules;
    assert!(!diagnostics.has_errors(), "{}", diagnostics.render());
    rules
}

/// What a batch leaves behind, in an engine that begins with it.
fn restarted(rules: &[Rule], effects: Effects) -> Engine {
    let mut engine = Engine::new(rules.to_vec());
    let rows = effects.state.into_iter().filter_map(|change| Some((change.key, change.value?))).collect();
    assert!(engine.restore(rows).unreadable.is_empty());
    engine
}

/// While a source catches up nothing is settled, and all that a key does must be remembered; what waits for its time goes
/// last.
#[test]
fn a_flood_of_one_key_does_not_push_out_what_waits_for_its_time() {
    let mut engine = engine_of("when: {event_type: CREATE}, absence: {within: 3d}, alert: {quiet: 1h}");
    let day_s = 86_400;
    let mut batch = engine.batch();
    batch.step("main", &create("first", "ann", 0), at(0));
    for number in 0..3_000 {
        batch.step("main", &create(&format!("e{number}"), "ann", 10 * day_s + number), at(0));
    }
    let effects = batch.finish();
    assert!(!effects.evicted.is_empty());
    engine.apply(effects.changes);
    let mut batch = engine.batch();
    batch.tick("main", at(20 * day_s), None);
    let alerts = batch.finish().alerts;
    let times: Vec<i64> = alerts.iter().map(|alert| (alert.first_at - at(0)).num_seconds()).collect();
    assert_eq!(times, [3 * day_s, 13 * day_s + 2_999], "after the first, and after the last of the flood");
}

/// What an event that is forgotten had decided stays decided: else all that it forbade would be told.
#[test]
fn a_flood_brings_nothing_to_life_that_was_decided_against() {
    let mut engine = engine_of(
        "sequence: {within: 1h, by: event_type, steps: [{when: {user: ann}, absent: true}, {when: {user: bob}}]}, \
         alert: {quiet: 1h}",
    );
    let mut batch = engine.batch();
    batch.step("main", &create("forbids", "ann", 0), at(0));
    for number in 0..1_500 {
        batch.step("main", &create(&format!("e{number}"), "bob", 1 + number), at(0));
    }
    batch.step("main", &create("allowed", "bob", 3_600), at(0));
    let effects = batch.finish();
    assert!(!effects.evicted.is_empty());
    engine.apply(effects.changes);
    let mut batch = engine.batch();
    batch.tick("main", at(10_000), None);
    let effects = batch.finish();
    assert_eq!(effects.matches, [("one".to_owned(), 1)], "the last one alone has nothing before it that forbids it");
}

/// History that comes after all may complete what came after the start: that is told.
#[test]
fn a_live_match_that_the_past_completes_is_told() {
    let rules = rules_of("sequence: {within: 1h, by: event_type, steps: [{when: {user: ann}}, {when: {user: bob}}]}");
    let engine = Engine::new(rules);
    let mut batch = engine.batch();
    batch.step("main", &create("live", "bob", 20), at(20));
    batch.learn("main", &create("past", "ann", 10), at(30), Some(at(15)));
    let effects = batch.finish();
    assert_eq!((effects.alerts.len(), effects.learned.len()), (1, 0));
    assert!(effects.alerts[0].event.get().contains("bob"));
}

/// An event that was no match by itself is one once an earlier event comes late: the alert is about it, not about the late
/// one.
#[test]
fn a_match_that_comes_about_late_is_told_of_its_own_event() {
    for detection in [
        "threshold: {count: 2, within: 1h, by: event_type}",
        "distinct: {field: user, count: 2, within: 1h, by: event_type}",
        "sequence: {within: 1h, by: event_type, steps: [{when: {user: ann}}, {when: {user: bob}}]}",
    ] {
        let rules = rules_of(&format!(
            "when: {{event_type: CREATE}}, {detection}, alert: {{title: 'By {{{{ event.user }}}}', dedup: [user]}}"
        ));
        let engine = Engine::new(rules.clone());
        let mut batch = engine.batch();
        batch.step("main", &create("own", "bob", 20), at(20));
        let engine = restarted(&rules, batch.finish());
        let mut batch = engine.batch();
        batch.step("main", &create("late", "ann", 10), at(30));
        let alerts = batch.finish().alerts;
        assert_eq!(alerts.len(), 1, "{detection}");
        let alert = &alerts[0];
        assert_eq!((alert.title.as_raw(), alert.first_at), ("By bob", at(20)), "{detection}");
        assert_eq!(alert.key[0].1.as_raw(), "bob", "{detection}");
        assert!(alert.event.get().contains("bob"), "{detection}");
    }
}

/// What an address database said of the event that an absence waits on is there when the alert is raised.
#[test]
fn what_was_found_about_an_address_outlives_the_wait_and_a_restart() {
    let rules = rules_of(
        "absence: {after: {event_type: CREATE}, expect: {event_type: DELETE}, within: 1h, by: user}, \
         alert: {title: 'From {{ event.geo.country }}', dedup: [geo.country], quiet: 1h}",
    );
    let geo = Geo { country: Some("BR".into()), ..Geo::default() };
    let engine = Engine::new(rules.clone());
    let mut batch = engine.batch();
    batch.step("main", &create("c1", "ann", 0).with_geo(&geo), at(0));
    let engine = restarted(&rules, batch.finish());
    let mut batch = engine.batch();
    batch.tick("main", at(3_601), None);
    let alerts = batch.finish().alerts;
    let key: Vec<(&str, &str)> =
        alerts.iter().flat_map(|alert| &alert.key).map(|(field, value)| (field.as_str(), value.as_raw())).collect();
    assert_eq!(key, [("geo.country", "BR")]);
    assert_eq!(alerts[0].title.as_raw(), "From BR");
}
