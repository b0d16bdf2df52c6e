//! Folding, exceptions and state, edge by edge.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::fold;
use super::*;
use crate::alert::{LATE_AFTER_SECONDS, MAX_ALERT_EVENT_IDS};
use crate::condition::{Condition, Literal, Test};
use crate::diagnostic::Span;
use crate::rule::{AlertSpec, Severity};
use crate::state::{DEFAULT_MAX_KEYS, FOLD_KIND, MAX_KEY_BYTES};

fn equals(key: &str, value: &str) -> Condition {
    Condition::Test(Test::build(key, vec![Literal::Text(value.into())]).expect(key))
}

fn rule(id: &str, dedup: &[&str]) -> Rule {
    Rule {
        id: id.into(),
        title: format!("title of {id}"),
        severity: Severity::High,
        description: String::new(),
        tags: vec!["tag".into()],
        false_positives: Vec::new(),
        response: "look".into(),
        when: equals("event_type", "APP_*"),
        unless: Vec::new(),
        detection: None,
        alert: AlertSpec {
            title: None,
            dedup: dedup.iter().map(|field| FieldPath::parse(field).unwrap()).collect(),
            quiet: Duration::from_secs(3600),
        },
        tests: Vec::new(),
        event_types: vec!["APP_*".into()],
        sees_own: false,
        enabled: true,
        span: Span { path: "rules.yaml".into(), line: 1, column: 1, len_chars: 1 },
    }
}

fn at(minute: i64) -> DateTime<Utc> {
    "2026-11-23T10:00:00Z".parse::<DateTime<Utc>>().unwrap() + chrono::Duration::minutes(minute)
}

fn event_with(id: &str, minute: i64, members: &str) -> Event {
    Event::new(id, at(minute), format!(r#"{{"event_type":"APP_CREATE"{members}}}"#).into()).unwrap()
}

fn event(id: &str, minute: i64) -> Event {
    event_with(id, minute, r#","account_id":"a1","source_country":"KP""#)
}

/// One batch over the events, committed.
fn run(engine: &mut Engine, events: &[Event]) -> Effects {
    let mut batch = engine.batch();
    for event in events {
        batch.step("main", event, event.created_at());
    }
    let mut effects = batch.finish();
    engine.apply(std::mem::take(&mut effects.changes));
    effects
}

/// The committed rows of rule `r`, as a store would give them back.
fn rows(engine: &Engine) -> Vec<(StateKey, String)> {
    let table = engine.memory.table(0, Slot::Fold).unwrap();
    let key = |key: &str| StateKey { rule_id: "r".into(), kind: FOLD_KIND.into(), key: key.into() };
    let keys = table.by_end_after(&std::ops::Bound::Unbounded);
    keys.map(|(_, name)| (key(name), table.get(name).unwrap().write())).collect()
}

fn row_count(engine: &Engine) -> usize {
    engine.memory.table(0, Slot::Fold).unwrap().len()
}

fn counts(effects: &Effects) -> (usize, usize) {
    (effects.alerts.len(), effects.folds.len())
}

#[test]
fn without_dedup_each_match_is_an_alert_and_leaves_no_state() {
    let mut engine = Engine::new(vec![rule("r", &[])]);
    let effects = run(&mut engine, &[event("e1", 0), event("e2", 0)]);
    assert_eq!(counts(&effects), (2, 0));
    assert!(effects.state.is_empty());
    assert_ne!(effects.alerts[0].alert_id, effects.alerts[1].alert_id);
    assert_eq!(effects.matches, [("r".to_owned(), 2)]);
    assert!(effects.alerts[0].key.is_empty());
}

#[test]
fn an_alert_says_all_that_a_person_needs() {
    let mut engine = Engine::new(vec![rule("r", &["account_id", "missing"])]);
    let alert = run(&mut engine, &[event("e1", 0)]).alerts.remove(0);
    assert_eq!(alert.alert_id.len(), 32);
    assert!(alert.alert_id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    assert_eq!((alert.rule.id.as_str(), alert.rule.response.as_str()), ("r", "look"));
    assert_eq!((alert.source.as_str(), alert.count, alert.late), ("main", 1, None));
    assert_eq!(alert.account_id.unwrap().as_raw(), "a1");
    assert_eq!(alert.title.as_raw(), "title of r");
    assert_eq!(alert.key, [("account_id".to_owned(), crate::text::Untrusted::new("a1"))]);
    assert_eq!(alert.reason[0].operator, "equals");
    assert_eq!(alert.reason[0].actual.as_ref().unwrap().as_raw(), "APP_CREATE");
    assert_eq!(alert.event.get(), &**event("e1", 0).raw());
    assert_eq!(alert.events, ["e1"]);
}

#[test]
fn matches_of_one_key_fold_within_a_batch_and_across_batches() {
    let mut engine = Engine::new(vec![rule("r", &["account_id"])]);
    let first = run(&mut engine, &[event("e1", 0), event("e2", 59)]);
    assert_eq!(counts(&first), (1, 0));
    assert_eq!((first.alerts[0].count, first.alerts[0].last_at), (2, at(59)));
    assert_eq!(first.alerts[0].events, ["e1", "e2"]);
    assert_eq!(first.state.len(), 1, "the last change of a key stands alone");

    let second = run(&mut engine, &[event("e3", 118), event("e4", 119)]);
    assert_eq!(counts(&second), (0, 1), "quiet counts from the last match, not the first");
    let fold = &second.folds[0];
    assert_eq!((fold.alert_id.as_str(), fold.count), (first.alerts[0].alert_id.as_str(), 4));
    assert_eq!((fold.first_at, fold.last_at), (at(0), at(119)));
    assert_eq!(fold.event_ids, ["e3", "e4"]);

    assert_eq!(counts(&run(&mut engine, &[event("e5", 179)])), (0, 1), "exactly quiet is within");
    assert_eq!(counts(&run(&mut engine, &[event("e6", 240)])), (1, 0), "a minute more is a new alert");
}

#[test]
fn late_events_take_their_place_in_time() {
    let mut engine = Engine::new(vec![rule("r", &["account_id"])]);
    let opened = run(&mut engine, &[event("e1", 600)]).alerts.remove(0);
    let fold = run(&mut engine, &[event("e2", 540)]).folds.remove(0);
    assert_eq!((fold.alert_id, fold.first_at, fold.last_at), (opened.alert_id.clone(), at(540), at(600)));
    let older = run(&mut engine, &[event("e3", 100)]);
    assert_eq!(counts(&older), (1, 0), "too early for the window: an alert of its own");
    let back = run(&mut engine, &[event("e4", 601)]);
    assert_eq!(back.folds[0].alert_id, opened.alert_id, "the older alert did not close the newer one");
    let old_again = run(&mut engine, &[event("e5", 101)]);
    assert_eq!(old_again.folds[0].alert_id, older.alerts[0].alert_id);
}

#[test]
fn windows_of_a_key_are_bounded() {
    let mut engine = Engine::new(vec![rule("r", &["account_id"])]);
    let events: Vec<Event> = (0..30).map(|index| event(&format!("e{index}"), index * 120)).collect();
    let effects = run(&mut engine, &events);
    assert_eq!(effects.alerts.len(), 30);
    let row: fold::Row = serde_json::from_str(effects.state[0].value.as_deref().unwrap()).unwrap();
    assert_eq!(row.windows.len(), MAX_WINDOWS);
    assert_eq!(counts(&run(&mut engine, &[event("x", 29 * 120 + 1)])), (0, 1), "the newest windows stay");
}

#[test]
fn keys_tell_absent_from_empty_and_source_from_source() {
    let mut engine = Engine::new(vec![rule("r", &["user_email", "source_country"])]);
    let events = [
        event_with("e1", 0, ""),
        event_with("e2", 0, r#","user_email":null"#),
        event_with("e3", 0, r#","user_email":"""#),
        event_with("e4", 0, r#","source_country":"""#),
        event_with("e5", 0, r#","user_email":["x","y"]"#),
        event_with("e6", 0, r#","user_email":["x","z"]"#),
    ];
    let effects = run(&mut engine, &events);
    assert_eq!(effects.alerts.len(), 5, "missing and null are one group; all else differs");
    assert_eq!(effects.alerts[0].count, 2);
    let mut batch = engine.batch();
    batch.step("other", &events[0], at(0));
    assert_eq!(batch.finish().alerts.len(), 1, "two accounts never share an alert");
}

#[test]
fn the_actor_is_a_key() {
    let mut engine = Engine::new(vec![rule("r", &["actor"])]);
    let events = [
        event_with("e1", 0, r#","user_id":7,"source_ip":"192.0.2.1""#),
        event_with("e2", 1, r#","user_id":7,"source_ip":"192.0.2.2""#),
        event_with("e3", 2, r#","source_ip":"192.0.2.2""#),
    ];
    let effects = run(&mut engine, &events);
    assert_eq!(effects.alerts.iter().map(|alert| alert.count).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(effects.alerts[1].key[0].1.as_raw(), "192.0.2.2");
}

#[test]
fn a_long_key_is_kept_as_its_hash() {
    let mut engine = Engine::new(vec![rule("r", &["user_email"])]);
    let long = "x".repeat(100_000);
    let events = [
        event_with("e1", 0, &format!(r#","user_email":"{long}1""#)),
        event_with("e2", 0, &format!(r#","user_email":"{long}2""#)),
        event_with("e3", 0, &format!(r#","user_email":"{long}1""#)),
    ];
    let effects = run(&mut engine, &events);
    assert_eq!(effects.alerts.iter().map(|alert| alert.count).collect::<Vec<_>>(), [2, 1]);
    assert!(effects.state.iter().all(|change| change.key.key.len() <= MAX_KEY_BYTES));
}

#[test]
fn ids_are_computed_and_a_batch_that_is_dropped_changes_nothing() {
    let mut engine = Engine::new(vec![rule("r", &["account_id"])]);
    let mut batch = engine.batch();
    batch.step("main", &event("e1", 0), at(0));
    let dropped = batch.finish();
    let kept = run(&mut engine, &[event("e1", 0)]);
    assert_eq!(counts(&kept), (1, 0), "the engine did not learn from the dropped batch");
    assert_eq!(kept.alerts[0].alert_id, dropped.alerts[0].alert_id);
    assert_eq!(kept.state, dropped.state);
    let mut renamed = Engine::new(vec![rule("r2", &["account_id"])]);
    assert_ne!(run(&mut renamed, &[event("e1", 0)]).alerts[0].alert_id, kept.alerts[0].alert_id);
}

#[test]
fn one_batch_or_many_and_a_restart_between_give_the_same() {
    let events: Vec<Event> = (0..40).map(|index| event(&format!("e{index}"), (index * 37) % 400)).collect();
    let mut whole = Engine::new(vec![rule("r", &["account_id"])]);
    let expected = run(&mut whole, &events);
    let mut engine = Engine::new(vec![rule("r", &["account_id"])]);
    let mut ids = Vec::new();
    for event in &events {
        ids.extend(run(&mut engine, std::slice::from_ref(event)).alerts.into_iter().map(|alert| alert.alert_id));
        let mut restarted = Engine::new(vec![rule("r", &["account_id"])]);
        assert!(restarted.restore(rows(&engine)).unreadable.is_empty());
        engine = restarted;
    }
    assert_eq!(ids, expected.alerts.iter().map(|alert| alert.alert_id.clone()).collect::<Vec<_>>());
    assert_eq!(rows(&engine), rows(&whole));
}

#[test]
fn rows_that_cannot_be_read_are_given_back() {
    let mut engine = Engine::new(vec![rule("r", &["account_id"])]);
    let key = |kind: &str, key: &str| StateKey { rule_id: "r".into(), kind: kind.into(), key: key.into() };
    let good = r#"{"windows":[],"expires_at_us":0}"#.to_owned();
    let rows = vec![(key("fold", "a"), good.clone()), (key("fold", "b"), "{}".into()), (key("later", "c"), good)];
    assert_eq!(engine.restore(rows).unreadable, [key("fold", "b")], "what is of another meaning is left where it is");
    assert_eq!(row_count(&engine), 1);
}

#[test]
fn an_alert_lists_a_bounded_number_of_events_and_counts_on() {
    let mut engine = Engine::new(vec![rule("r", &["account_id"])]);
    let events = |from: usize, to: usize| (from..to).map(|index| event(&format!("e{index}"), 0)).collect::<Vec<_>>();
    run(&mut engine, &events(0, 90));
    let fold = run(&mut engine, &events(90, 150)).folds.remove(0);
    assert_eq!((fold.count, fold.event_ids.len()), (150, MAX_ALERT_EVENT_IDS - 90));
}

#[test]
fn exceptions_end_in_event_time_and_the_end_is_out() {
    let mut with_exception = rule("r", &[]);
    with_exception.unless.push(Exception {
        when: equals("account_id", "A1"),
        until: Some(at(60)),
        owner: "secops".into(),
        reason: "travels".into(),
    });
    let mut engine = Engine::new(vec![with_exception]);
    let alerts = |engine: &mut Engine, minute| run(engine, &[event("e", minute)]).alerts.len();
    assert_eq!((alerts(&mut engine, 59), alerts(&mut engine, 60)), (0, 1));
    assert_eq!(run(&mut engine, &[event_with("e", 0, r#","account_id":"a2""#)]).alerts.len(), 1);
    let explanation = engine.explain("r", &event("e", 0)).unwrap();
    assert_eq!((explanation.block, explanation.holds), ("rule", false));
    assert_eq!((explanation.children[0].block, explanation.children[0].holds), ("test", true));
    assert_eq!((explanation.children[1].block, explanation.children[1].holds), ("unless", true));
    let expected = "travels (secops, until 2026-11-23T11:00:00Z)";
    assert_eq!(explanation.children[1].expected.as_deref(), Some(expected));
    assert!(engine.explain("r", &event("e", 60)).unwrap().holds);
    assert!(engine.explain("other", &event("e", 60)).is_none());
}

#[test]
fn a_rule_that_is_switched_off_is_not_evaluated() {
    let mut off = rule("off", &[]);
    off.enabled = false;
    let mut engine = Engine::new(vec![off, rule("on", &[])]);
    let effects = run(&mut engine, &[event("e", 0)]);
    assert_eq!(effects.matches, [("on".to_owned(), 1)]);
    assert_eq!(effects.alerts[0].rule.id, "on");
    assert_eq!(engine.rules().len(), 2);
}

#[test]
fn an_old_event_makes_a_late_alert() {
    let engine = Engine::new(vec![rule("r", &[])]);
    let late = |seconds: i64| {
        let mut batch = engine.batch();
        batch.step("main", &event("e", 0), at(0) + chrono::Duration::seconds(seconds));
        batch.finish().alerts[0].late
    };
    assert_eq!(late(LATE_AFTER_SECONDS), None);
    assert_eq!(late(LATE_AFTER_SECONDS + 1), Some(LATE_AFTER_SECONDS + 1));
    assert_eq!(late(-5), None);
}

#[test]
fn a_title_comes_from_the_event_or_else_from_the_rule() {
    let mut titled = rule("r", &[]);
    titled.alert.title = Some(crate::template::Template::compile("by {{ event.account_id }}").unwrap());
    let mut engine = Engine::new(vec![titled.clone()]);
    assert_eq!(run(&mut engine, &[event("e", 0)]).alerts[0].title.as_raw(), "by a1");
    titled.alert.title = Some(crate::template::Template::compile("{{ event.account_id.x.y + 1 }}").unwrap());
    let mut failing = Engine::new(vec![titled]);
    let effects = run(&mut failing, &[event("e", 0)]);
    assert_eq!((effects.alerts[0].title.as_raw(), effects.title_failures), ("title of r", 1));
}

#[test]
fn time_alone_drops_rows_without_effect() {
    let mut engine = Engine::new(vec![rule("r", &["account_id"])]);
    let effects = run(&mut engine, &[event("e1", 0)]);
    let kept = chrono::Duration::from_std(LATENESS_KEPT + Duration::from_secs(3600)).unwrap();
    assert_eq!(effects.state[0].expires_at_us, Some((at(0) + kept).timestamp_micros()));
    let tick = |engine: &Engine, time| {
        let mut batch = engine.batch();
        batch.tick("main", time, None);
        batch.finish()
    };
    assert!(tick(&engine, at(0) + kept).state.is_empty());
    let dropped = tick(&engine, at(0) + kept + chrono::Duration::seconds(1));
    assert_eq!((dropped.state.len(), dropped.state[0].value.as_deref()), (1, None));
    engine.apply(dropped.changes);
    assert_eq!(row_count(&engine), 0);
}

#[test]
fn memory_is_bounded_and_eviction_is_counted() {
    let mut engine = Engine::new(vec![rule("r", &["user_email"])]);
    let key = |index: usize| StateKey { rule_id: "r".into(), kind: FOLD_KIND.into(), key: format!("k{index:06}") };
    let row = |index: usize| format!(r#"{{"windows":[],"expires_at_us":{index}}}"#);
    engine.restore((0..DEFAULT_MAX_KEYS).map(|index| (key(index), row(index))).collect());
    let events: Vec<Event> =
        (0..3).map(|index| event_with(&format!("e{index}"), 0, &format!(r#","user_email":"u{index}""#))).collect();
    let effects = run(&mut engine, &events);
    assert_eq!((effects.alerts.len(), effects.evicted), (3, vec![("r".to_owned(), 3)]));
    let removed: Vec<&str> =
        effects.state.iter().filter(|change| change.value.is_none()).map(|change| change.key.key.as_str()).collect();
    assert_eq!(removed, ["k000000", "k000001", "k000002"], "those that would expire first");
    assert_eq!(row_count(&engine), DEFAULT_MAX_KEYS);
}

#[test]
fn values_without_use_are_counted() {
    let mut by_address = rule("r", &[]);
    by_address.when = Condition::Test(Test::build("source_ip|cidr", vec![Literal::Text("10.0.0.0/8".into())]).unwrap());
    let mut engine = Engine::new(vec![by_address]);
    let ips = [r#","source_ip":"""#, r#","source_ip":"x""#, r#","source_ip":"10.0.0.1""#, ""];
    let events: Vec<Event> = ips.iter().map(|ip| event_with("e", 0, ip)).collect();
    let effects = run(&mut engine, &events);
    assert_eq!((effects.alerts.len(), effects.unusable_values), (1, 2));
}

#[test]
fn own_events_are_seen_by_rules_that_name_them_only() {
    let mut own = rule("own", &[]);
    own.sees_own = true;
    let engine = Engine::new(vec![rule("everything", &[]), own]);
    let fired = |source: &str| {
        let mut batch = engine.batch();
        batch.step(source, &event("e", 0), at(0));
        batch.finish().matches.into_iter().map(|(rule_id, _)| rule_id).collect::<Vec<_>>()
    };
    assert_eq!(fired(crate::rule::OWN_SOURCE), ["own"]);
    assert_eq!(fired("main"), ["everything", "own"]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(500))]

    /// The windows of a key are never within quiet of a match that they did not take, whatever the order.
    #[test]
    fn every_match_is_counted_once(minutes in proptest::collection::vec(0_i64..600, 1..40), cut in 0_usize..40) {
        let mut engine = Engine::new(vec![rule("r", &["account_id"])]);
        let events: Vec<Event> =
            minutes.iter().enumerate().map(|(index, minute)| event(&format!("e{index}"), *minute)).collect();
        let (first, second) = events.split_at(cut.min(events.len()));
        let mut total: HashMap<String, u64> = HashMap::new();
        for part in [first, second] {
            let effects = run(&mut engine, part);
            total.extend(effects.alerts.iter().map(|alert| (alert.alert_id.clone(), alert.count)));
            total.extend(effects.folds.iter().map(|fold| (fold.alert_id.clone(), fold.count)));
        }
        proptest::prop_assert_eq!(total.values().sum::<u64>(), events.len() as u64);
    }
}
