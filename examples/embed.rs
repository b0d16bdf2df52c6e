//! The engine without the program: a rule from text, an event from text, alerts as values.
//!
//! `cargo run --example embed`. Nothing here opens a file or a socket; what to do with an alert is the caller's business.

#![expect(clippy::print_stdout, reason = "an example shows what it got")]

use std::sync::Arc;

use anyhow::{anyhow, ensure};
use chrono::{DateTime, Utc};
use vigie_engine::diagnostic::{Diagnostics, SourceFile};
use vigie_engine::engine::Engine;
use vigie_engine::event::Event;
use vigie_engine::rule;

const RULE: &str = include_str!("quickstart/rules/secret-by-stranger.yaml");
const EVENT: &str =
    r#"{"event_type": "ACCOUNT_SECRET_CREATE", "source_country": "BR", "user_email": "ada@example.org"}"#;

fn main() -> anyhow::Result<()> {
    let file = SourceFile { path: "secret-by-stranger.yaml".into(), text: RULE.into() };
    let mut diagnostics = Diagnostics::default();
    let mut no_lists = |_: &str, name: &str| Err(format!("no list file {name} here"));
    let set = rule::load(&[file], &mut no_lists, &mut diagnostics);
    ensure!(!diagnostics.has_errors(), "{}", diagnostics.render());

    let mut engine = Engine::new(set.rules);
    let at: DateTime<Utc> = "2026-01-05T09:05:00Z".parse()?;
    let event = Event::new("one", at, Arc::from(EVENT)).map_err(|error| anyhow!("{error}"))?;
    let mut batch = engine.batch();
    batch.step("recorded", &event, at);
    let effects = batch.finish();
    for alert in &effects.alerts {
        // As JSON, because a title holds text from the event: whoever shows it must escape it for his medium.
        println!("{}", serde_json::to_string(alert)?);
    }
    // After the caller has stored them: what the engine remembers is what was stored.
    engine.apply(effects.changes);
    Ok(())
}
