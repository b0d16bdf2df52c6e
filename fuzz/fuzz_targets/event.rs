//! Any JSON as an event under rules of every kind. An accepted text stays as it was, and what explains a verdict agrees
//! with what gave it.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use vigie_engine::diagnostic::{Diagnostics, SourceFile};
use vigie_engine::engine::Engine;
use vigie_engine::event::Event;
use vigie_engine::rule;
use vigie_fuzz::noon;

const RULES: &str = include_str!("event/rules.yaml");
const PATHS: &[&str] = &["id", "actor", "*", "context.*", "context.changes.0.to", "source_ip", "a.b.c"];

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let file = SourceFile { path: "rules.yaml".into(), text: RULES.into() };
    let mut diagnostics = Diagnostics::default();
    let set = rule::load(&[file], &mut |_, _| Err("there are no list files".into()), &mut diagnostics);
    assert!(!diagnostics.has_errors(), "{}", diagnostics.render());
    Engine::new(set.rules)
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let raw: Arc<str> = text.into();
    let Ok(event) = Event::new("an-id", noon(), Arc::clone(&raw)) else { return };
    assert_eq!((event.id(), event.created_at(), event.raw()), ("an-id", noon(), &raw));
    assert!(event.to_json().is_object());
    for path in PATHS {
        assert!(event.text(path).is_none() || !event.values(path).is_empty(), "{path}");
    }
    let mut batch = ENGINE.batch();
    batch.step("fuzz", &event, noon());
    let fired: Vec<String> = batch.finish().alerts.into_iter().map(|alert| alert.rule.id).collect();
    for rule in ENGINE.rules() {
        let explanation = ENGINE.explain(&rule.id, &event).expect("a rule of the engine");
        assert_eq!(explanation.holds, fired.contains(&rule.id), "{}", rule.id);
    }
});
