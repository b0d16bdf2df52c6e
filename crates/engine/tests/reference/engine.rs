//! The engine over a case, with what a store does around it: ids count once, a commit is all or nothing.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::DateTime;
use vigie_engine::diagnostic::{Diagnostics, SourceFile};
use vigie_engine::engine::{Effects, Engine};
use vigie_engine::event::Event;
use vigie_engine::rule::{self, Rule};
use vigie_engine::state::StateKey;

use super::Spans;
use super::naive::Subject;
use super::plan::{Case, Happening, Kind, Step};

fn rules(yaml: &str) -> Vec<Rule> {
    let mut diagnostics = Diagnostics::default();
    let file = SourceFile { path: "r.yaml".into(), text: yaml.into() };
    let mut no_lists = |_: &str, name: &str| Err(name.to_owned());
    let set = rule::load(&[file], &mut no_lists, &mut diagnostics);
    assert!(!diagnostics.has_errors(), "{}", diagnostics.render());
    set.rules
}

/// What is durable.
#[derive(Default)]
struct Store {
    seen: HashSet<(String, String)>,
    state: BTreeMap<StateKey, String>,
    /// Subject, first, last, count by alert id.
    alerts: BTreeMap<String, (Subject, i64, i64, u64)>,
}

/// Alerts by subject.
pub(crate) fn run(case: &Case) -> BTreeMap<Subject, Spans> {
    let rules = rules(&case.yaml);
    let mut store = Store::default();
    let mut engine = Engine::new(rules.clone());
    let restart = |store: &Store| {
        let mut engine = Engine::new(rules.clone());
        let rows = store.state.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        assert!(engine.restore(rows).unreadable.is_empty(), "a row that was written cannot be read");
        engine
    };
    for step in &case.arrivals {
        match step {
            Step::Restart => engine = restart(&store),
            Step::Batch { source, events, lost, settled_us } => {
                if *lost {
                    // Evaluated, never committed: as if it had not been.
                    drop(evaluate(&engine, &store, source, events, *settled_us));
                    engine = restart(&store);
                }
                let effects = evaluate(&engine, &store, source, events, *settled_us);
                // Each answer shows what was shown before once more.
                commit(case, &mut engine, &mut store, source, events, effects);
                let again = evaluate(&engine, &store, source, events, *settled_us);
                commit(case, &mut engine, &mut store, source, events, again);
            }
        }
    }
    for (source, end_us) in &case.ends_us {
        let effects = evaluate(&engine, &store, source, &[], Some(*end_us));
        commit(case, &mut engine, &mut store, source, &[], effects);
    }
    let mut spans: BTreeMap<Subject, Spans> = BTreeMap::new();
    for (subject, first, last, count) in store.alerts.into_values() {
        spans.entry(subject).or_default().push((first, last, count));
    }
    spans
}

fn evaluate(engine: &Engine, store: &Store, source: &str, events: &[Happening], settled_us: Option<i64>) -> Effects {
    let mut batch = engine.batch();
    let is_new = |happening: &&Happening| !store.seen.contains(&(source.to_owned(), happening.id.clone()));
    for happening in events.iter().filter(is_new) {
        let event = event(happening);
        let received_at = DateTime::from_timestamp_micros(happening.arrives_us).expect("valid");
        batch.step(source, &event, received_at);
    }
    if let Some(settled_us) = settled_us {
        batch.tick(source, DateTime::from_timestamp_micros(settled_us).expect("valid"), None);
    }
    batch.finish()
}

fn commit(case: &Case, engine: &mut Engine, store: &mut Store, source: &str, events: &[Happening], effects: Effects) {
    store.seen.extend(events.iter().map(|event| (source.to_owned(), event.id.clone())));
    for change in effects.state {
        match change.value {
            Some(value) => store.state.insert(change.key, value),
            None => store.state.remove(&change.key),
        };
    }
    for alert in effects.alerts {
        let key = alert.key.iter().map(|(_, value)| value.as_raw().to_owned()).collect::<Vec<_>>().join(",");
        let event: serde_json::Value = serde_json::from_str(alert.event.get()).expect("JSON");
        assert!(alert.events.iter().any(|id| event["id"] == id.as_str()), "it shows an event that it does not rest on");
        let hangs_on_its_event = matches!(case.kind, Kind::Threshold | Kind::Distinct | Kind::FirstSeen | Kind::Travel);
        let at_us = event["at_us"].as_i64().expect("a number");
        // A first sight may have moved back within the batch; the alert shows the one that was told.
        let last_us = if case.kind == Kind::FirstSeen { i64::MAX } else { alert.last_at.timestamp_micros() };
        let span_us = alert.first_at.timestamp_micros()..=last_us;
        assert!(!hangs_on_its_event || span_us.contains(&at_us), "it shows an event of another time");
        if case.by_user {
            assert_eq!(event["user_email"], key.as_str(), "it shows an event of somebody else");
        }
        let span = (
            (alert.source.clone(), key),
            alert.first_at.timestamp_micros(),
            alert.last_at.timestamp_micros(),
            alert.count,
        );
        assert!(store.alerts.insert(alert.alert_id, span).is_none(), "an alert twice");
        assert!(alert.finding.is_some_and(|finding| !finding.evidence.is_empty() || finding.detection == "first_seen"));
    }
    for fold in effects.folds {
        let alert = store.alerts.get_mut(&fold.alert_id).expect("a fold of a known alert");
        (alert.1, alert.2, alert.3) = (fold.first_at.timestamp_micros(), fold.last_at.timestamp_micros(), fold.count);
    }
    engine.apply(effects.changes);
}

fn event(happening: &Happening) -> Event {
    let raw = serde_json::json!({
        "id": happening.id,
        "event_type": happening.event_type,
        "user_email": happening.user,
        "source_country": happening.country,
        "source_ip": happening.ip,
        "at_us": happening.at_us,
    });
    let at = DateTime::from_timestamp_micros(happening.at_us).expect("valid");
    Event::new(&happening.id, at, Arc::from(raw.to_string())).expect("an event")
}
