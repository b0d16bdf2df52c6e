//! `vigie deliveries`: what was sent where, what was not, and sending it again.

use chrono::{DateTime, Utc};

use super::events::parse_time;
use super::exit::{Exit, Failure, Outcome, WithExit};
use super::output::{Output, counted};
use super::{Form, Global, load, log, run as run_verb};
use crate::clock::{Clock, SystemClock};
use crate::store::archive::{AttemptRow, DeliveryFilter, DeliveryRow, DeliveryStatus, Named, Retried};

/// How much of an answer a line shows.
const MAX_TEXT_CHARS: usize = 120;

/// How much of a note a line shows.
const MAX_NOTE_CHARS: usize = 200;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Deliveries, newest first
    List(ListArgs),
    /// One delivery with its body and every attempt
    Show {
        /// Delivery id
        id: String,
    },
    /// Make one due now
    Retry {
        /// Delivery id
        id: String,
    },
    /// Make dead letters due again
    Replay(ReplayArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// With this status
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// To this sink
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Committed since: how long ago (2h), a date or a stamp
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only those whose last attempt failed
    #[arg(long)]
    failed: bool,
    /// At most this many
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// Dead letters (the only ones that can be replayed; the flag says that it is meant)
    #[arg(long, required = true)]
    failed: bool,
    /// Committed since: how long ago (2h), a date or a stamp
    #[arg(long, value_name = "TIME")]
    since: String,
    /// Of this sink
    #[arg(long, value_name = "NAME")]
    sink: String,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Status {
    Pending,
    Delivered,
    Unconfirmed,
    Dead,
    Digested,
    Muted,
}

pub(super) fn run(verb: Verb, global: &Global, output: &mut Output) -> Outcome {
    log::start(global, "warn");
    let now = SystemClock.now();
    let tool = load::tool(global, output)?;
    let store = &tool.store;
    match verb {
        Verb::List(args) => {
            let since = args.since.as_deref().map(|text| parse_time(text, now)).transpose()?;
            let status = args.status.map(|status| match status {
                Status::Pending => DeliveryStatus::Pending,
                Status::Delivered => DeliveryStatus::Delivered,
                Status::Unconfirmed => DeliveryStatus::Unconfirmed,
                Status::Dead => DeliveryStatus::Dead,
                Status::Digested => DeliveryStatus::Digested,
                Status::Muted => DeliveryStatus::Muted,
            });
            tool.require(Named::Sink, args.sink.as_deref())?;
            let filter = DeliveryFilter { status, sink: args.sink, since, failed: args.failed, limit: args.limit };
            let rows = run_verb::block_on(store.deliveries(&filter))?.exit(Exit::STORAGE)?;
            match output.form() {
                Form::Human => {
                    rows.iter().try_for_each(|row| output.line(&line(row, now)))?;
                    output.note(&format!("{} listed", counted(rows.len(), "row")))?;
                }
                Form::Json => output.json(&rows)?,
                Form::Ndjson => rows.iter().try_for_each(|row| output.json(row))?,
            }
        }
        Verb::Show { id } => {
            let Some(detail) = run_verb::block_on(store.delivery(&id))?.exit(Exit::STORAGE)? else {
                return Err(Failure::text(Exit::NOT_FOUND, format!("there is no delivery {id}")));
            };
            match output.form() {
                Form::Human => {
                    output.line(&line(&detail.row, now))?;
                    detail.log.iter().try_for_each(|attempt| output.line(&attempt_line(attempt)))?;
                    output.line(&format!("body      {}", vigie_engine::text::single_line(&detail.body, 8_000)))?;
                }
                Form::Json | Form::Ndjson => output.json(&detail)?,
            }
        }
        Verb::Retry { id } => match run_verb::block_on(store.retry(&id, now))?.exit(Exit::STORAGE)? {
            Retried::Due => output.note(
                "due now; the running daemon takes it up within two seconds, even if its sink was resting after a failure",
            )?,
            Retried::AlreadyDelivered => output.note("it is delivered already; nothing to do")?,
            Retried::Unknown => return Err(Failure::text(Exit::NOT_FOUND, format!("there is no delivery {id}"))),
        },
        Verb::Replay(args) => {
            let since = parse_time(&args.since, now)?;
            tool.require(Named::Sink, Some(&args.sink))?;
            let count = run_verb::block_on(store.replay(Some(&args.sink), since, now))?.exit(Exit::STORAGE)?;
            output
                .note(&format!("{} due again", counted(usize::try_from(count).unwrap_or(usize::MAX), "dead letter")))?;
        }
    }
    Ok(Exit::OK)
}

pub(super) fn line(row: &DeliveryRow, now: DateTime<Utc>) -> String {
    let status = match row.status {
        DeliveryStatus::Pending => match row.next_at.filter(|at| *at > now) {
            Some(at) => format!("waiting until {}", at.format("%Y-%m-%dT%H:%M:%SZ")),
            None => "due; waits for its sink".into(),
        },
        DeliveryStatus::Delivered => "delivered".into(),
        DeliveryStatus::Unconfirmed => "delivered, unconfirmed".into(),
        DeliveryStatus::Dead => "dead letter".into(),
        DeliveryStatus::Digested => {
            format!("told in the digest of delivery {}", row.told_in.as_deref().unwrap_or("(gone)"))
        }
        DeliveryStatus::Muted => format!("muted by {}", row.muted_by.as_deref().unwrap_or("(unknown)")),
    };
    let note = row.note.as_ref().map(|note| format!(" ({})", vigie_engine::text::single_line(note, MAX_NOTE_CHARS)));
    let note = note.unwrap_or_default();
    let degraded = if row.degraded { " (as plain text)" } else { "" };
    format!(
        "{} {} -> {}: {status}{degraded}{note}, {} [alert {}]",
        row.created_at.format("%Y-%m-%dT%H:%M:%SZ"),
        row.delivery_id,
        row.sink,
        counted(row.attempts as usize, "attempt"),
        row.alert_id,
    )
}

pub(super) fn attempt_line(attempt: &AttemptRow) -> String {
    format!(
        "  attempt {} at {} took {} ms: {} ({}) {}",
        attempt.number,
        attempt.started_at.format("%Y-%m-%dT%H:%M:%S%.3fZ"),
        attempt.latency_ms,
        attempt.resolution,
        attempt.status,
        vigie_engine::text::single_line(&attempt.excerpt, MAX_TEXT_CHARS),
    )
}
