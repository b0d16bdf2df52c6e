//! `vigie route`: the tree of routes, and where an alert would go.
//!
//! It sends nothing and asks no store: what silences and open alerts would mute stands in `silences preview` and with each
//! alert that was muted.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use vigie_engine::alert::{Alert, AlertRule};
use vigie_engine::route::{Destination, Route, destinations};
use vigie_engine::rule::{Rule, Severity};
use vigie_engine::text::Untrusted;
use vigie_engine::time::format_duration;

use super::exit::{Exit, Failure, Outcome, WithExit};
use super::output::Output;
use super::{Form, Global, load, log};
use crate::clock::{Clock, SystemClock};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Where an alert with these fields would go: severity=high rule=change-from-unexpected-country event.user_email=...
    Test {
        /// FIELD=VALUE: severity, rule, tags (with commas), account, source, title, event.FIELD
        #[arg(value_name = "FIELD=VALUE")]
        fields: Vec<String>,
        /// Fail unless it goes to just these sinks, with commas
        #[arg(long, value_name = "SINKS")]
        expect: Option<String>,
    },
    /// The tree of routes as it is in force
    Show,
}

/// Where an alert goes, and by which routes.
#[derive(Debug, Serialize)]
struct Found {
    sink: String,
    routes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    muted_now: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    told_once_in: Option<String>,
}

pub(super) fn run(verb: Verb, global: &Global, output: &mut Output) -> Outcome {
    log::start(global, "warn");
    let (config, diagnostics) = load::config(global, output)?;
    let Some(config) = config else {
        output.diagnostics(&diagnostics)?;
        return Ok(Exit::CONFIG);
    };
    match verb {
        Verb::Show => {
            show(&config.routes, 0, output)?;
            Ok(Exit::OK)
        }
        Verb::Test { fields, expect } => {
            let now = SystemClock.now();
            let mut alert = alert(&fields, now)?;
            assume(&mut alert, &fields, &config.rules, output)?;
            let found: Vec<Found> = destinations(&config.routes, &alert).iter().map(|to| shown(to, now)).collect();
            match output.form() {
                Form::Human => {
                    found.iter().try_for_each(|found| output.line(&line(found)))?;
                    if found.is_empty() {
                        output.line("no route takes it: it would be stored and told to nobody")?;
                    }
                }
                Form::Json => output.json(&found)?,
                Form::Ndjson => found.iter().try_for_each(|found| output.json(found))?,
            }
            Ok(judge(&found, expect.as_deref(), output)?)
        }
    }
}

/// What was not said of a rule that is known is taken from it; what is assumed is said.
fn assume(alert: &mut Alert, fields: &[String], rules: &[Rule], output: &mut Output) -> std::io::Result<()> {
    let is_said = |name: &str| fields.iter().any(|field| field.split('=').next() == Some(name));
    let rule = rules.iter().find(|rule| rule.id == alert.rule.id);
    if !is_said("severity") {
        match rule {
            Some(rule) => alert.rule.severity = rule.severity,
            None => output.note(&format!("severity {} is assumed", alert.rule.severity.as_str()))?,
        }
    }
    if let Some(rule) = rule.filter(|_| !is_said("tags")) {
        alert.rule.tags.clone_from(&rule.tags);
    }
    Ok(())
}

fn judge(found: &[Found], expect: Option<&str>, output: &mut Output) -> std::io::Result<Exit> {
    let Some(expect) = expect else { return Ok(Exit::OK) };
    let mut wanted: Vec<&str> = expect.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let mut got: Vec<&str> = found.iter().map(|found| found.sink.as_str()).collect();
    wanted.sort_unstable();
    got.sort_unstable();
    if wanted == got {
        return Ok(Exit::OK);
    }
    output.note(&format!("expected {}, and it goes to {}", wanted.join(", "), got.join(", ")))?;
    Ok(Exit::EXPECTATION)
}

fn shown(to: &Destination<'_>, now: DateTime<Utc>) -> Found {
    // A sink is quiet only if each route that leads there is.
    let quiet = to.by.iter().map(|route| route.muted_at(now)).collect::<Option<Vec<_>>>();
    let repeat = to.by.iter().map(|route| route.repeat.as_ref()).collect::<Option<Vec<_>>>();
    Found {
        sink: to.sink.to_owned(),
        routes: to.by.iter().map(|route| route.place()).collect(),
        muted_now: quiet.and_then(|windows| windows.first().map(|during| during.written().to_owned())),
        fallback: to
            .fallback()
            .map(|fallback| format!("{} after {}", fallback.to.join(", "), format_duration(fallback.after))),
        told_once_in: repeat.and_then(|all| all.first().map(|repeat| format_duration(repeat.quiet))),
    }
}

fn line(found: &Found) -> String {
    let mut line = format!("{} by {}", found.sink, found.routes.join(", "));
    for (label, value) in
        [("quiet now", &found.muted_now), ("fallback", &found.fallback), ("the same once in", &found.told_once_in)]
    {
        line.extend(value.as_ref().map(|value| format!("; {label}: {value}")));
    }
    line
}

fn show(routes: &[Route], depth: usize, output: &mut Output) -> std::io::Result<()> {
    for route in routes {
        let to = if route.to.is_empty() { "(no sink of its own)".to_owned() } else { route.to.join(", ") };
        let which = if route.when.is_some() { "what matches" } else { "every alert" };
        let mut text = format!("{:width$}{}: {which} to {to}", "", route.place(), width = depth * 2);
        if route.continue_ {
            text.push_str(", and on");
        }
        if let Some(fallback) = &route.fallback {
            text.push_str(&format!("; fallback {} after {}", fallback.to.join(", "), format_duration(fallback.after)));
        }
        if let Some(repeat) = &route.repeat {
            let fields: Vec<&str> = repeat.fields.iter().map(|field| field.as_str()).collect();
            text.push_str(&format!("; the same {} once in {}", fields.join(", "), format_duration(repeat.quiet)));
        }
        for during in &route.mute {
            text.push_str(&format!("; quiet {}", during.written()));
        }
        output.line(&text)?;
        show(&route.routes, depth + 1, output)?;
    }
    Ok(())
}

/// An alert that says what was given, and nothing else.
fn alert(fields: &[String], now: DateTime<Utc>) -> Result<Alert, Failure> {
    let mut alert = Alert {
        alert_id: "0".repeat(32),
        rule: AlertRule {
            id: String::new(),
            title: String::new(),
            severity: Severity::Medium,
            tags: Vec::new(),
            response: String::new(),
        },
        source: String::new(),
        account_id: None,
        title: Untrusted::new(""),
        first_at: now,
        last_at: now,
        count: 1,
        late: None,
        key: Vec::new(),
        reason: Vec::new(),
        finding: None,
        event: RawValue::NULL.to_owned(),
        events: Vec::new(),
        note: None,
    };
    let mut event = Value::Object(Map::new());
    for field in fields {
        let Some((name, value)) = field.split_once('=') else {
            return Err(Failure::usage(format!("`{field}` is not FIELD=VALUE")));
        };
        match name {
            "severity" => {
                let names = Severity::NAMES.iter().map(|(name, _)| *name);
                let hint = || crate::options::suggestion(value, names);
                let known = Severity::from_name(value);
                alert.rule.severity =
                    known.ok_or_else(|| Failure::usage(format!("`{value}` is no severity: {}", hint())))?;
            }
            "rule" | "alertname" => value.clone_into(&mut alert.rule.id),
            "tags" => alert.rule.tags = value.split(',').map(|tag| tag.trim().to_owned()).collect(),
            "account" => alert.account_id = Some(Untrusted::new(value)),
            "source" => value.clone_into(&mut alert.source),
            "title" => alert.title = Untrusted::new(value),
            _ => {
                let below = name.strip_prefix("event.").filter(|below| !below.is_empty());
                let Some(below) = below else {
                    let hint = "severity, rule, tags, account, source, title, event.FIELD";
                    return Err(Failure::usage(format!("an alert has no field `{name}`: known are {hint}")));
                };
                put(&mut event, below, value);
            }
        }
    }
    alert.event = serde_json::value::to_raw_value(&event).exit(Exit::EXPECTATION)?;
    Ok(alert)
}

/// `a.b.c` as nested objects.
fn put(object: &mut Value, path: &str, value: &str) {
    let mut place = object;
    for name in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[name];
    }
    *place = Value::from(value);
}
