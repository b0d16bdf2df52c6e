//! `vigie sink test NAME`: sends one marked alert through a sink, or shows what would be sent.

use std::io::Write;

use chrono::{DateTime, Utc};
use serde_json::json;
use serde_json::value::to_raw_value;
use vigie_engine::alert::{Alert, AlertRule, Reason};
use vigie_engine::rule::Severity;
use vigie_engine::text::Untrusted;

use super::exit::{Exit, Failure, Outcome, WithExit};
use super::output::Output;
use super::{Global, load, log, run as run_verb};
use crate::clock::{Clock, SystemClock};
use crate::sink::{Delivery, Form, Outcome as Sent, RenderContext, delivery_id};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Send a marked test alert
    Test(TestArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    /// Sink name from the configuration
    name: String,
    /// Show the bytes, send nothing
    #[arg(long)]
    render_only: bool,
}

pub(super) fn run(verb: Verb, global: &Global, output: &mut Output) -> Outcome {
    let Verb::Test(args) = verb;
    log::start(global, "warn");
    let (config, diagnostics) = load::config(global, output)?;
    let Some(config) = config else {
        output.diagnostics(&diagnostics)?;
        return Ok(Exit::CONFIG);
    };
    let names: Vec<&str> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    let Some(named) = config.sinks.iter().find(|sink| sink.name == args.name) else {
        let hint = crate::options::suggestion(&args.name, names.into_iter());
        return Err(Failure::text(Exit::NOT_FOUND, format!("there is no sink `{}`: {hint}", args.name)));
    };
    let now = SystemClock.now();
    let alert = test_alert(now)?;
    let delivery_id = delivery_id(&alert.alert_id, &named.name);
    let context = RenderContext { delivery_id: &delivery_id, now, form: Form::Full };
    let body = named.sink.render(&alert, &context).exit(Exit::EXPECTATION)?;
    if args.render_only {
        let mut stdout = std::io::stdout();
        stdout.write_all(&body)?;
        if !body.ends_with(b"\n") {
            stdout.write_all(b"\n")?;
        }
        return Ok(Exit::OK);
    }
    let delivery = Delivery {
        delivery_id,
        alert_id: alert.alert_id,
        sink: named.name.clone(),
        body,
        attempts: 0,
        created_at: now,
        note: None,
        about_receipt: None,
    };
    let report = run_verb::block_on(named.sink.send(&delivery))?;
    let answer = if report.excerpt.is_empty() { String::new() } else { format!(": {}", report.excerpt) };
    let (exit, verdict) = match report.outcome {
        Sent::Delivered | Sent::Needless => (Exit::OK, "delivered"),
        Sent::Accepted => (Exit::OK, "accepted, not proven shown"),
        Sent::Retry | Sent::Wait(_) | Sent::Later(_) | Sent::NotYet(_) => {
            (Exit::TEMPORARY, "not now; `run` would try again")
        }
        Sent::Misconfigured => (Exit::REFUSED, "refused; check the address and the credentials"),
        Sent::Degrade => (Exit::EXPECTATION, "the body was refused; `run` would send plain text instead"),
        Sent::Dead => (Exit::EXPECTATION, "refused for good"),
    };
    let line = format!("{}: {verdict} ({}{answer})", named.name, report.status);
    if exit == Exit::OK {
        output.note(&line)?;
        return Ok(exit);
    }
    Err(Failure::text(exit, line))
}

/// Marked as a test in every part that a person reads; a new one each time, so that no receiver takes it for a repeat.
fn test_alert(now: DateTime<Utc>) -> Result<Alert, Failure> {
    let stamp = now.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let event_id = format!("vigie-test-{stamp}");
    let event = json!({
        "id": event_id,
        "event_type": "VIGIE_TEST",
        "event_type_description": "Test of a sink",
        "created_at": stamp,
        "account_id": "test",
        "source_ip": "192.0.2.1",
        "source_country": "ZZ",
    });
    Ok(Alert {
        alert_id: blake3::hash(event_id.as_bytes()).to_hex().chars().take(32).collect(),
        rule: AlertRule {
            id: "vigie-sink-test".into(),
            title: "Test of a sink".into(),
            severity: Severity::Info,
            tags: vec!["test".into()],
            response: "Nothing to do: somebody ran `vigie sink test`.".into(),
        },
        source: crate::pipeline::notice::SOURCE.into(),
        account_id: Some(Untrusted::new("test")),
        title: Untrusted::new("TEST: this is a test of the sink, not an alert"),
        first_at: now,
        last_at: now,
        count: 1,
        late: None,
        finding: None,
        note: None,
        key: Vec::new(),
        reason: vec![Reason {
            field: "event_type".into(),
            operator: "equals".into(),
            expected: "VIGIE_TEST".into(),
            actual: Some(Untrusted::new("VIGIE_TEST")),
        }],
        event: to_raw_value(&event).exit(Exit::EXPECTATION)?,
        events: vec![event_id],
    })
}
