//! `vigie sink test NAME`: renders a marked alert, measures it by the destination's limits, asks the destination what can be
//! asked without a message, and sends it.
//!
//! What is refused on the way keeps the alert from being sent: a second refusal says no more than the first. Data is the
//! rendered body (`--render-only`) or one JSON document of everything; all else is said on stderr.

use std::io::Write;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use serde_json::value::to_raw_value;
use vigie_engine::alert::{Alert, AlertRule, Reason};
use vigie_engine::rule::Severity;
use vigie_engine::text::Untrusted;

use super::exit::{Exit, Failure, Outcome, WithExit};
use super::output::Output;
use super::{Form as OutputForm, Global, config_paths, load, log, run as run_verb};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, NamedSink};
use crate::sink::probe::{Probe, Probed, Verdict};
use crate::sink::{AttemptReport, Delivery, Form, Outcome as Sent, RenderContext, delivery_id};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Render a marked test alert, check limits and credentials, send it
    Test(TestArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    /// Sink name from the configuration
    name: String,
    /// Show the bytes and what they use of the limits; ask and send nothing
    #[arg(long)]
    render_only: bool,
    /// Check limits and credentials, send nothing
    #[arg(long, conflicts_with = "render_only")]
    no_send: bool,
}

pub(super) fn run(verb: Verb, global: &Global, output: &mut Output) -> Outcome {
    let Verb::Test(args) = verb;
    log::start(global, "warn");
    let mut surroundings = load::surroundings(output);
    if output.form() != OutputForm::Human {
        // The one document on stdout is the report.
        surroundings.sinks.stdout = Arc::new(Mutex::new(std::io::stderr()));
    }
    let (config, diagnostics) = config::load(&config_paths(global)?, &surroundings);
    let Some(config) = config else {
        output.diagnostics(&diagnostics)?;
        return Ok(Exit::CONFIG);
    };
    let names: Vec<&str> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    let Some(named) = config.sinks.iter().find(|sink| sink.name == args.name) else {
        let hint = crate::options::suggestion(&args.name, names.into_iter());
        return Err(Failure::text(Exit::NOT_FOUND, format!("there is no sink `{}`: {hint}", args.name)));
    };
    test(named, args.render_only, !args.no_send, output)
}

/// Tests one sink, and says on the way what was found.
pub(super) fn test(named: &NamedSink, render_only: bool, sends: bool, output: &mut Output) -> Outcome {
    let mut report = Report::new(named)?;
    for line in report.limit_lines() {
        output.note(&line)?;
    }
    let ended = match report.over() {
        Some(over) => Err(Failure::text(Exit::EXPECTATION, format!("{}: {over}", named.name))),
        None if render_only => Ok(Exit::OK),
        None => ask_and_send(named, sends, &mut report, output),
    };
    if output.form() != OutputForm::Human {
        let exit = ended.as_ref().map_or_else(|failure| failure.exit, |exit| *exit);
        output.json(&Document { report: &report, exit: exit.code() })?;
    } else if render_only {
        write_body(&report.rendered[0].body)?;
    }
    ended
}

fn write_body(body: &[u8]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(body)?;
    if !body.ends_with(b"\n") {
        stdout.write_all(b"\n")?;
    }
    Ok(())
}

fn ask_and_send(named: &NamedSink, sends: bool, report: &mut Report, output: &mut Output) -> Outcome {
    match named.sink.probe() {
        Probe::Nothing(why) => {
            output.note(&format!("nothing can be checked without a message: {why}"))?;
            report.unchecked = Some(why);
        }
        Probe::Asks(asking) => report.checks = run_verb::block_on(asking)?.into_iter().map(Check).collect(),
    }
    for check in &report.checks {
        output.note(&check.line())?;
    }
    for (verdict, exit) in [(Verdict::Refused, Exit::REFUSED), (Verdict::NotNow, Exit::TEMPORARY)] {
        if let Some(check) = report.checks.iter().find(|check| check.0.verdict() == verdict) {
            return Err(Failure::text(exit, format!("{}: {}, nothing was sent", named.name, check.line())));
        }
    }
    if !sends {
        output.note(&format!("{}: nothing was sent", named.name))?;
        return Ok(Exit::OK);
    }
    let sent = run_verb::block_on(named.sink.send(&report.delivery(named)))?;
    let (exit, outcome, verdict) = verdict(&sent.outcome);
    let line = format!("{}: {verdict} ({})", named.name, said(&sent));
    report.sent = Some(Attempt { outcome, status: sent.status, excerpt: sent.excerpt });
    if exit == Exit::OK {
        output.note(&line)?;
        return Ok(exit);
    }
    Err(Failure::text(exit, line))
}

/// Exit code, word and sentence.
fn verdict(outcome: &Sent) -> (Exit, &'static str, &'static str) {
    match outcome {
        Sent::Delivered | Sent::Needless => (Exit::OK, "delivered", "delivered"),
        Sent::Accepted => (Exit::OK, "accepted", "accepted, not proven shown"),
        Sent::Retry | Sent::Wait(_) | Sent::Later(_) | Sent::NotYet(_) => {
            (Exit::TEMPORARY, "retry", "not now; `run` would try again")
        }
        Sent::Misconfigured => (Exit::REFUSED, "misconfigured", "refused; check the address and the credentials"),
        Sent::Degrade => (Exit::EXPECTATION, "refused", "the body was refused; `run` would send plain text instead"),
        Sent::Dead => (Exit::EXPECTATION, "dead", "refused for good"),
    }
}

/// Status and excerpt, both of them text that is safe to show.
fn said(report: &AttemptReport) -> String {
    match report.excerpt.as_str() {
        "" => report.status.clone(),
        excerpt => format!("{}: {excerpt}", report.status),
    }
}

/// Everything that was found.
#[derive(Serialize)]
struct Report {
    sink: String,
    kind: &'static str,
    alert_id: String,
    delivery_id: String,
    /// Full, then plain.
    rendered: [Rendered; 2],
    limits: Vec<Limit>,
    checks: Vec<Check>,
    /// Why there are no checks, where there can be none.
    unchecked: Option<&'static str>,
    sent: Option<Attempt>,
    #[serde(skip)]
    now: DateTime<Utc>,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    report: &'a Report,
    exit: u8,
}

#[derive(Serialize)]
struct Rendered {
    form: &'static str,
    bytes: usize,
    #[serde(serialize_with = "as_text")]
    body: Vec<u8>,
}

#[derive(Serialize)]
struct Limit {
    what: &'static str,
    full: usize,
    plain: usize,
    most: usize,
    unit: &'static str,
}

#[derive(Serialize)]
struct Attempt {
    outcome: &'static str,
    status: String,
    excerpt: String,
}

struct Check(Probed);

fn as_text<S: serde::Serializer>(body: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(body))
}

impl Report {
    fn new(named: &NamedSink) -> Result<Self, Failure> {
        let now = SystemClock.now();
        let alert = test_alert(now)?;
        let delivery_id = delivery_id(&alert.alert_id, &named.name);
        let render = |form: Form, name: &'static str| {
            let context = RenderContext { delivery_id: &delivery_id, now, form };
            let body = named.sink.render(&alert, &context).exit(Exit::EXPECTATION)?;
            Ok::<_, Failure>(Rendered { form: name, bytes: body.len(), body })
        };
        let rendered = [render(Form::Full, "full")?, render(Form::Plain, "plain")?];
        let limits = named.bounds.iter().map(|(bound, most)| {
            let [full, plain] = [&rendered[0], &rendered[1]].map(|rendered| (bound.used)(&rendered.body));
            Limit { what: bound.what, full, plain, most: *most, unit: bound.unit.name() }
        });
        Ok(Self {
            sink: named.name.clone(),
            kind: named.sink.kind(),
            limits: limits.collect(),
            alert_id: alert.alert_id,
            rendered,
            delivery_id,
            checks: Vec::new(),
            unchecked: None,
            sent: None,
            now,
        })
    }

    fn limit_lines(&self) -> Vec<String> {
        let [full, plain] = [&self.rendered[0], &self.rendered[1]].map(|rendered| rendered.bytes);
        let first = format!("rendered: {full} bytes in full, {plain} in plain form");
        let limits = self.limits.iter().map(Limit::line);
        let none = self.limits.is_empty().then(|| format!("limit: none is documented for {}", self.kind));
        std::iter::once(first).chain(limits).chain(none).collect()
    }

    /// What is beyond its limit.
    fn over(&self) -> Option<String> {
        let over = self.limits.iter().find(|limit| limit.full.max(limit.plain) > limit.most)?;
        Some(format!("beyond what the destination takes, nothing was sent: {}", over.line()))
    }

    fn delivery(&self, named: &NamedSink) -> Delivery {
        Delivery {
            delivery_id: self.delivery_id.clone(),
            alert_id: self.alert_id.clone(),
            sink: named.name.clone(),
            body: self.rendered[0].body.clone(),
            attempts: 0,
            created_at: self.now,
            note: None,
            about_receipt: None,
            failing_since: None,
        }
    }
}

impl Limit {
    fn line(&self) -> String {
        let Self { what, full, plain, most, unit } = self;
        let [share, plain_share] = [full, plain].map(|used| used * 100 / most.max(&1));
        format!("limit: {what} {full} of {most} {unit} ({share} %), in plain form {plain} ({plain_share} %)")
    }
}

impl Check {
    fn line(&self) -> String {
        let Self(probed) = self;
        let (asked, shows, said) = (probed.asked, probed.shows, said(&probed.report));
        match probed.verdict() {
            Verdict::Holds => format!("checked by {asked}: {shows} ({})", probed.report.status),
            Verdict::Untold => format!("{asked} shows nothing ({said})"),
            Verdict::NotNow => format!("{asked} cannot be asked now ({said})"),
            Verdict::Refused => format!("{asked} is refused ({said})"),
        }
    }
}

impl Serialize for Check {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(Probed { asked, shows, report }) = self;
        let verdict = match self.0.verdict() {
            Verdict::Holds => "holds",
            Verdict::Untold => "untold",
            Verdict::NotNow => "not_now",
            Verdict::Refused => "refused",
        };
        let check = json!({
            "asked": asked, "shows": shows, "verdict": verdict, "status": report.status, "excerpt": report.excerpt,
        });
        check.serialize(serializer)
    }
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
