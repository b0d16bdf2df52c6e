//! Behaviour as data: each file of `tests/cases/state` is rules, events as they come, and the alerts that must follow.
//!
//! Sections begin with `=== rules`, `=== steps` or `=== expect`. A second `=== rules` is a reload: the engine starts anew
//! with what was kept. Steps are `event JSON`, `learn JSON`, `settle STAMP` and `restart`; `created_at` and `received_at`
//! in an event are its times. What is expected are all alerts as they stand at the end, and what was counted.
#![expect(clippy::disallowed_methods, reason = "the cases are files; the engine itself reads none")]
#![expect(clippy::panic, reason = "a case that cannot be read fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use vigie_engine::diagnostic::{Diagnostics, SourceFile};
use vigie_engine::engine::{Effects, Engine};
use vigie_engine::event::Event;
use vigie_engine::rule::{self, Rule};
use vigie_engine::state::StateKey;
use vigie_engine::time::parse_stamp;

const SOURCE: &str = "main";

#[derive(Default)]
struct World {
    engine: Option<Engine>,
    rules: Vec<Rule>,
    state: BTreeMap<StateKey, String>,
    alerts: Vec<vigie_engine::alert::Alert>,
    counts: BTreeMap<String, u64>,
}

impl World {
    fn reload(&mut self, text: &str) {
        let mut diagnostics = Diagnostics::default();
        let file = SourceFile { path: "rules.yaml".into(), text: text.into() };
        let mut no_lists = |_: &str, name: &str| Err(name.to_owned());
        self.rules = rule::load(&[file], &mut no_lists, &mut diagnostics).rules;
        assert!(!diagnostics.has_errors(), "{}", diagnostics.render());
        self.restart();
    }

    fn restart(&mut self) {
        let mut engine = Engine::new(self.rules.clone());
        let rows = self.state.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        assert!(engine.restore(rows).unreadable.is_empty());
        self.engine = Some(engine);
    }

    fn step(&mut self, line: &str) {
        let engine = self.engine.as_ref().expect("rules come first");
        let mut batch = engine.batch();
        match line.split_once(' ') {
            Some(("event", json)) => {
                let (event, received_at) = event(json);
                batch.step(SOURCE, &event, received_at);
            }
            Some(("learn", json)) => {
                let (event, received_at) = event(json);
                batch.learn(SOURCE, &event, received_at, None);
            }
            Some(("settle", stamp)) => batch.tick(SOURCE, parse_stamp(stamp).expect("a stamp"), None),
            _ if line == "restart" => {
                drop(batch);
                return self.restart();
            }
            _ => panic!("no such step: {line}"),
        }
        let effects = batch.finish();
        self.commit(effects);
    }

    fn commit(&mut self, effects: Effects) {
        for change in effects.state {
            match change.value {
                Some(value) => self.state.insert(change.key, value),
                None => self.state.remove(&change.key),
            };
        }
        self.alerts.extend(effects.alerts);
        for fold in effects.folds {
            let alert = self.alerts.iter_mut().find(|alert| alert.alert_id == fold.alert_id).expect("a known alert");
            (alert.count, alert.first_at, alert.last_at) = (fold.count, fold.first_at, fold.last_at);
        }
        let mut add = |name: String, count: u64| *self.counts.entry(name).or_default() += count;
        effects.learned.into_iter().for_each(|(rule, count)| add(format!("learned {rule}"), count));
        effects.uncounted.into_iter().for_each(|(rule, count)| add(format!("uncounted {rule}"), count));
        effects.evicted.into_iter().for_each(|(rule, count)| add(format!("evicted {rule}"), count));
        self.engine.as_mut().expect("an engine").apply(effects.changes);
    }

    fn told(&self) -> Vec<String> {
        let stamp = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let mut told: Vec<String> = Vec::new();
        for alert in &self.alerts {
            let key: Vec<&str> = alert.key.iter().map(|(_, value)| value.as_raw()).collect();
            let late = alert.late.map(|seconds| format!(" late {seconds}")).unwrap_or_default();
            let (first, last) = (stamp(alert.first_at), stamp(alert.last_at));
            told.push(format!("alert {} [{}] {first} to {last} x{}{late}", alert.rule.id, key.join(","), alert.count));
            if let Some(finding) = &alert.finding {
                told.push(format!("  {}", finding.summary.as_raw()));
                told.extend(finding.evidence.iter().map(|one| format!("  {} {}", one.event_id, stamp(one.at))));
            }
        }
        told.extend(self.counts.iter().map(|(name, count)| format!("{name} {count}")));
        told
    }
}

fn event(json: &str) -> (Event, DateTime<Utc>) {
    let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let stamp = |name: &str| value[name].as_str().map(|text| parse_stamp(text).expect("a stamp"));
    let at = stamp("created_at").expect("created_at");
    let event = Event::new(value["id"].as_str().expect("an id"), at, Arc::from(json)).expect("an event");
    (event, stamp("received_at").unwrap_or(at))
}

fn run(text: &str) -> (Vec<String>, Vec<String>) {
    let mut world = World::default();
    let mut expected = Vec::new();
    for section in text.split("=== ").skip(1) {
        let (name, body) = section.split_once('\n').expect("a section has lines");
        let lines = body.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        match name.trim() {
            "rules" => world.reload(body),
            "steps" => lines.for_each(|line| world.step(line)),
            "expect" => expected.extend(lines.map(str::to_owned)),
            other => panic!("no such section: {other}"),
        }
    }
    (world.told(), expected)
}

#[test]
fn every_case_gives_exactly_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases/state");
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(paths.len() >= 12, "{}", paths.len());
    let mut wrong = String::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("a readable case");
        let (told, expected) = run(&text);
        if told != expected {
            wrong.push_str(&format!("{} gives\n{}\n\n", path.display(), told.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
