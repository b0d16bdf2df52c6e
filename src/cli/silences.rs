//! `vigie silences`: alerts that nobody is told of for a time, who wants that and why.
//!
//! A silence hides nothing for good: what it kept back is stored with its id and told in a digest when it ends.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use vigie_engine::mute::Silence;
use vigie_engine::route::AlertView;
use vigie_engine::text::single_line;
use vigie_engine::time::parse_duration;

use super::events::parse_time;
use super::exit::{Exit, Failure, Outcome, WithExit};
use super::load::Tool;
use super::output::{Output, counted};
use super::{Form, Global, alerts, load, log, run as run_verb};
use crate::clock::{Clock, SystemClock};
use crate::store::archive::{AlertFilter, AlertRow, MAX_LIST};
use crate::store::hold::StoredSilence;

/// Longest silence: what is not wanted for longer belongs into the rule, as an exception with its reason.
const MAX_SILENCE: TimeDelta = TimeDelta::days(366);
/// Longest owner and reason; they stand in notes that people read.
const MAX_TEXT_CHARS: usize = 300;
/// Alerts shown of what a silence would have hidden.
const MAX_SHOWN: usize = 10;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Keep alerts back for a time; says what it would have hidden lately
    Add(AddArgs),
    /// Show which of the stored alerts a silence would have hidden, and add nothing
    Preview(PreviewArgs),
    /// Silences that are in force or will be
    List(ListArgs),
    /// End a silence now; what it hid is told
    Expire {
        /// Its id
        id: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Matching {
    /// Which alerts, all of these: severity=high, rule=~"change-.*", account!=abcd, event.user_email=...; a word alone is a rule
    #[arg(required = true, value_name = "MATCHER")]
    matchers: Vec<String>,
    /// How far back to look for what it would have hidden: 24h, a date or a stamp
    #[arg(long, default_value = "24h", value_name = "TIME")]
    since: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    #[command(flatten)]
    matching: Matching,
    /// Who answers for it
    #[arg(long)]
    owner: String,
    /// Why
    #[arg(long)]
    reason: String,
    /// For how long (2h, 3d)
    #[arg(long = "for", value_name = "DURATION", required_unless_present = "until", conflicts_with = "until")]
    length: Option<String>,
    /// Until when, a date or a stamp
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// From when on, a date or a stamp [default: now]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct PreviewArgs {
    #[command(flatten)]
    matching: Matching,
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Also those that ended since: how long ago (7d), a date or a stamp
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

pub(super) fn run(verb: Verb, global: &Global, output: &mut Output) -> Outcome {
    log::start(global, "warn");
    let now = SystemClock.now();
    match verb {
        Verb::Add(args) => {
            // What is wrong with the arguments is said before the store is asked.
            let silence = silence(&args, now)?;
            let tool = load::tool(global, output)?;
            add(&args, &silence, &tool, now, output)?;
        }
        Verb::Preview(args) => {
            let matchers = args.matching.matchers.join(", ");
            let silence = Silence::new(&matchers, now, now).map_err(Failure::usage)?;
            let tool = load::tool(global, output)?;
            preview(&silence, &args.matching.since, &tool, now, output)?;
        }
        Verb::List(args) => {
            let from = args.since.as_deref().map(|text| parse_time(text, now)).transpose()?.unwrap_or(now);
            let tool = load::tool(global, output)?;
            let found = run_verb::block_on(tool.store.list_silences(from))?.exit(Exit::STORAGE)?;
            match output.form() {
                Form::Human => {
                    found.iter().try_for_each(|stored| output.line(&line(stored, now)))?;
                    output.note(&counted(found.len(), "silence"))?;
                }
                Form::Json => output.json(&found)?,
                Form::Ndjson => found.iter().try_for_each(|stored| output.json(stored))?,
            }
        }
        Verb::Expire { id } => {
            let tool = load::tool(global, output)?;
            if !run_verb::block_on(tool.store.expire_silence(&id, now))?.exit(Exit::STORAGE)? {
                return Err(Failure::text(
                    Exit::NOT_FOUND,
                    format!("there is no silence {id} in force: see `silences list`"),
                ));
            }
            output.note("ended; the running daemon tells what it hid within seconds")?;
        }
    }
    Ok(Exit::OK)
}

/// A silence as asked for, with its identity.
fn silence(args: &AddArgs, now: DateTime<Utc>) -> Result<StoredSilence, Failure> {
    if args.from.as_deref().is_some_and(|text| parse_duration(text).is_ok()) {
        return Err(Failure::usage("--from takes a date or a stamp: a length of time would count into the past"));
    }
    let starts_at = args.from.as_deref().map(|text| parse_time(text, now)).transpose()?.unwrap_or(now);
    let ends_at = match (&args.length, &args.until) {
        (Some(length), _) => ends_after(starts_at, length)?,
        (None, until) => parse_time(until.as_deref().unwrap_or_default(), now)?,
    };
    if ends_at <= now.max(starts_at) {
        return Err(Failure::usage(format!("the silence would end at {ends_at}, which is over by then")));
    }
    if ends_at - starts_at > MAX_SILENCE {
        let days = MAX_SILENCE.num_days();
        let text =
            format!("a silence lasts {days} days at most; for longer, write an exception under `unless:` of the rule");
        return Err(Failure::usage(text));
    }
    let matchers = args.matching.matchers.join(", ");
    let matchers = Silence::new(&matchers, starts_at, ends_at).map_err(Failure::usage)?.to_string();
    let said = |name: &str, text: &str| {
        let said = single_line(text.trim(), MAX_TEXT_CHARS);
        if said.is_empty() { Err(Failure::usage(format!("--{name} is blank"))) } else { Ok(said) }
    };
    let (owner, reason) = (said("owner", &args.owner)?, said("reason", &args.reason)?);
    let mut hasher = blake3::Hasher::new();
    for part in [&matchers, &owner, &reason, &starts_at.to_rfc3339(), &ends_at.to_rfc3339(), &now.to_rfc3339()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let silence_id = hasher.finalize().to_hex().chars().take(8).collect();
    Ok(StoredSilence { silence_id, matchers, owner, reason, starts_at, ends_at, created_at: now })
}

fn ends_after(starts_at: DateTime<Utc>, length: &str) -> Result<DateTime<Utc>, Failure> {
    let parsed: Duration = parse_duration(length).map_err(|problem| Failure::usage(format!("--for: {problem}")))?;
    let end = TimeDelta::from_std(parsed).ok().and_then(|length| starts_at.checked_add_signed(length));
    end.ok_or_else(|| Failure::usage("--for: that is too long"))
}

fn add(
    args: &AddArgs,
    silence: &StoredSilence,
    tool: &Tool,
    now: DateTime<Utc>,
    output: &mut Output,
) -> Result<(), Failure> {
    let read = Silence::new(&silence.matchers, silence.starts_at, silence.ends_at).map_err(Failure::usage)?;
    let hidden = fitting(&read, &args.matching.since, tool, now)?;
    run_verb::block_on(tool.store.add_silence(silence))?.exit(Exit::STORAGE)?;
    match output.form() {
        Form::Human => output.line(&line(silence, now))?,
        Form::Json | Form::Ndjson => output.json(silence)?,
    }
    output.note(&format!("it would have hidden {}", summary(&hidden, &args.matching.since)))?;
    Ok(())
}

fn preview(
    silence: &Silence,
    since: &str,
    tool: &Tool,
    now: DateTime<Utc>,
    output: &mut Output,
) -> Result<(), Failure> {
    let hidden = fitting(silence, since, tool, now)?;
    match output.form() {
        Form::Human => {
            hidden.rows.iter().take(MAX_SHOWN).try_for_each(|row| output.line(&alerts::line(row)))?;
            let more = hidden.rows.len().saturating_sub(MAX_SHOWN);
            if more > 0 {
                output.line(&format!("and {more} more"))?;
            }
            output.note(&format!("{silence} would have hidden {}", summary(&hidden, since)))?;
        }
        Form::Json => output.json(&hidden.rows)?,
        Form::Ndjson => hidden.rows.iter().try_for_each(|row| output.json(row))?,
    }
    Ok(())
}

fn summary(hidden: &Hidden, since: &str) -> String {
    let of = if hidden.is_cut { format!(", of the newest {MAX_LIST} alone") } else { String::new() };
    format!("{} since {since}{of}", counted(hidden.rows.len(), "alert"))
}

/// What a silence would have hidden, of as many alerts as one listing gives.
struct Hidden {
    rows: Vec<AlertRow>,
    is_cut: bool,
}

fn fitting(silence: &Silence, since: &str, tool: &Tool, now: DateTime<Utc>) -> Result<Hidden, Failure> {
    let filter = AlertFilter { since: Some(parse_time(since, now)?), ..AlertFilter::default() };
    let mut rows = run_verb::block_on(tool.store.alerts(&filter))?.exit(Exit::STORAGE)?;
    let is_cut = rows.len() >= MAX_LIST;
    rows.retain(|row| silence.fits(&AlertView::of(&row.alert)));
    Ok(Hidden { rows, is_cut })
}

fn line(stored: &StoredSilence, now: DateTime<Utc>) -> String {
    let standing = match (stored.starts_at <= now, now < stored.ends_at) {
        (true, true) => "in force",
        (false, true) => "to come",
        (_, false) => "ended",
    };
    let stamp = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M UTC").to_string();
    format!(
        "{} {standing:<8} {} to {}  {}  {}: {}",
        stored.silence_id,
        stamp(stored.starts_at),
        stamp(stored.ends_at),
        stored.matchers,
        stored.owner,
        stored.reason
    )
}
