//! `vigie alerts`: what was raised, and what became of it.

use chrono::{DateTime, Utc};

use super::events::parse_time;
use super::exit::{Exit, Failure, Outcome, WithExit};
use super::output::{Output, counted};
use super::{Form, Global, deliveries, load, log, run as run_verb};
use crate::clock::{Clock, SystemClock};
use crate::sink::text;
use crate::store::archive::{AlertDetail, AlertFilter, AlertRow, Named};
use vigie_engine::rule::Severity;

/// How much of a text a line shows.
const MAX_TEXT_CHARS: usize = 80;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Alerts, newest first
    List(ListArgs),
    /// One alert with its event, its reasons and its deliveries
    Show {
        /// Alert id
        id: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Raised since: how long ago (2h), a date or a stamp
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Of this rule
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    /// At least this severe
    #[arg(long, value_name = "SEVERITY")]
    severity: Option<String>,
    /// Of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

pub(super) fn run(verb: Verb, global: &Global, output: &mut Output) -> Outcome {
    log::start(global, "warn");
    let now = SystemClock.now();
    let tool = load::tool(global, output)?;
    let store = &tool.store;
    match verb {
        Verb::List(args) => {
            let since = args.since.as_deref().map(|text| parse_time(text, now)).transpose()?;
            let min_severity = args.severity.as_deref().map(severity).transpose()?;
            tool.require(Named::Rule, args.rule.as_deref())?;
            tool.require(Named::Source, args.source.as_deref())?;
            let filter = AlertFilter { since, rule: args.rule, min_severity, source: args.source, limit: args.limit };
            let rows = run_verb::block_on(store.alerts(&filter))?.exit(Exit::STORAGE)?;
            match output.form() {
                Form::Human => {
                    rows.iter().try_for_each(|row| output.line(&line(row)))?;
                    output.note(&counted(rows.len(), "alert"))?;
                }
                Form::Json => output.json(&rows)?,
                Form::Ndjson => rows.iter().try_for_each(|row| output.json(row))?,
            }
        }
        Verb::Show { id } => {
            let Some(detail) = run_verb::block_on(store.alert(&id))?.exit(Exit::STORAGE)? else {
                return Err(Failure::text(Exit::NOT_FOUND, format!("there is no alert {id}")));
            };
            match output.form() {
                Form::Human => show(&detail, now, output)?,
                Form::Json | Form::Ndjson => output.json(&detail)?,
            }
        }
    }
    Ok(Exit::OK)
}

fn severity(text: &str) -> Result<Severity, Failure> {
    let names = Severity::ALL.iter().map(|severity| severity.as_str());
    Severity::ALL
        .iter()
        .copied()
        .find(|severity| severity.as_str() == text)
        .ok_or_else(|| Failure::usage(format!("`{text}` is no severity: {}", crate::options::suggestion(text, names))))
}

pub(super) fn line(row: &AlertRow) -> String {
    let alert = &row.alert;
    let state = match &row.muted_by {
        Some(why) => format!("muted: {why}"),
        None if row.muted > 0 => {
            format!("{} delivered, {} waiting, {} dead, {} muted", row.delivered, row.pending, row.dead, row.muted)
        }
        None => format!("{} delivered, {} waiting, {} dead", row.delivered, row.pending, row.dead),
    };
    format!(
        "{} {:<8} {} x{} {} [{}] {}",
        row.created_at.format("%Y-%m-%dT%H:%M:%SZ"),
        alert.rule.severity.as_str(),
        alert.alert_id,
        alert.count,
        alert.title.single_line(MAX_TEXT_CHARS),
        alert.rule.id,
        state,
    )
}

fn show(detail: &AlertDetail, now: DateTime<Utc>, output: &mut Output) -> std::io::Result<()> {
    let alert = &detail.row.alert;
    output.line(&line(&detail.row))?;
    output.line(&format!("source    {}", alert.source))?;
    output.line(&format!("first     {}   last {}", alert.first_at, alert.last_at))?;
    if let Some(late_seconds) = alert.late {
        output.line(&format!("late      the event was {late_seconds} s old when it was evaluated"))?;
    }
    for (field, value) in &alert.key {
        output.line(&format!("key       {field} = {}", value.single_line(MAX_TEXT_CHARS)))?;
    }
    for reason in &alert.reason {
        let actual = reason.actual.as_ref().map_or_else(|| "(none)".into(), |text| text.single_line(MAX_TEXT_CHARS));
        output.line(&format!("because   {} is {actual}: {} {}", reason.field, reason.operator, reason.expected))?;
    }
    for (index, found) in text::finding(alert).iter().enumerate() {
        output.line(&format!("{:<9} {found}", if index == 0 { "found" } else { "" }))?;
    }
    if !alert.rule.response.is_empty() {
        output.line(&format!("response  {}", alert.rule.response.trim()))?;
    }
    if let Some(exception) = alert.exception() {
        output.line(&format!("unless    {exception}"))?;
    }
    output.line(&format!("event     {}", vigie_engine::text::single_line(alert.event.get(), 4_000)))?;
    for delivery in &detail.deliveries {
        output.line(&deliveries::line(&delivery.row, now))?;
        delivery.log.iter().try_for_each(|attempt| output.line(&deliveries::attempt_line(attempt)))?;
    }
    Ok(())
}
