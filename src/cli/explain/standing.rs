//! How a stateful rule stands for an event: over what the daemon noted, or over earlier events of a file or of the store.
//!
//! The store is only read. An event that it holds was judged already: then it is what the store keeps from before it that
//! counts, and not what is noted now. A history counts up to the event's own time: what came later did not make it fire.
//! Only where a rule waits for what does not come, the history is read on for as long as it waits.

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use indicatif::ProgressBar;
use vigie_engine::event::Event;
use vigie_engine::rule::Rule;
use vigie_engine::state::{Evidence, Standing};
use vigie_engine::text::{Untrusted, single_line};

use super::Args;
use crate::cli::exit::{Exit, Failure, WithExit};
use crate::cli::history::History;
use crate::cli::output::Output;
use crate::cli::replay::Replay;
use crate::cli::{load, run as run_verb};
use crate::clock::{Clock, SystemClock};
use crate::geo::Lookup;
use crate::source::ndjson::Fields;
use crate::source::{Held, Seen};
use crate::store::Store;
use crate::store::archive::{AlertFilter, HistoryWindow};

/// The source's name where no configuration has one.
const FILE_SOURCE: &str = "file";
/// How much of a text a line shows: a summary may name many values.
const MAX_SUMMARY_CHARS: usize = 400;
const MAX_VALUE_CHARS: usize = 80;

/// Where a configuration keeps its state.
pub(super) struct Place<'a> {
    pub(super) state_dir: &'a Path,
    pub(super) sources: Vec<&'a str>,
    /// Address databases, as `run` asks them.
    pub(super) geo: Option<&'a Lookup>,
}

/// How the rule stands, or why that cannot be said.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Over what is known.
    Standing(Standing),
    /// There is nothing to ask.
    NoState(String),
}

/// Asks the history that was given, else the store.
pub(super) fn ask(
    args: &Args,
    rules: Vec<Rule>,
    event: &Event,
    place: Option<Place<'_>>,
    output: &Output,
) -> Result<State, Failure> {
    let waits_us = rules.iter().find(|rule| rule.id == args.rule).and_then(|rule| rule.detection.as_ref()?.waits_us());
    let standing = |replay: &Replay, source: &str, known_until| match replay.engine().standing(
        &args.rule,
        source,
        event,
        known_until,
    ) {
        Some(standing) => State::Standing(standing),
        None => State::NoState("the rule has no detection".into()),
    };
    let geo = place.as_ref().and_then(|place| place.geo);
    let own_end = event.created_at().checked_add_signed(TimeDelta::microseconds(1));
    let around = HistoryWindow { from: None, to: own_end.filter(|_| waits_us.is_none()) };
    if let Some(path) = &args.history {
        let source = args.source.as_deref().unwrap_or(FILE_SOURCE);
        let path = (path.as_os_str() != "-").then_some(path.as_path());
        let mut replay = Replay::new(rules, source, None);
        let known_until = run_verb::block_on(async {
            let bar = ProgressBar::hidden();
            let history = History::of_file(source, path, Fields::default(), around, &bar).await?;
            take(&mut replay, history, event, waits_us, geo).await
        })??;
        return Ok(standing(&replay, source, known_until));
    }
    let Some(place) = place else {
        return Ok(State::NoState("no configuration names a store, and no --history was given".into()));
    };
    let source = match (args.source.as_deref(), place.sources.as_slice()) {
        (Some(name), sources) if sources.contains(&name) || name == crate::pipeline::notice::SOURCE => name,
        (Some(name), sources) => {
            let hint = crate::options::suggestion(name, sources.iter().copied());
            return Err(Failure::text(Exit::NOT_FOUND, format!("there is no source `{name}`: {hint}")));
        }
        (None, [only]) => only,
        (None, sources) => {
            return Err(Failure::usage(format!("which source? name one of {} with --source", sources.join(", "))));
        }
    };
    if !place.state_dir.join("vigie.db").exists() {
        let directory = place.state_dir.display();
        return Ok(State::NoState(format!("there is no store in {directory}, and no --history was given")));
    }
    let store = Arc::new(load::open_beside(place.state_dir)?);
    let mut replay = Replay::new(rules, source, None);
    let known_until = run_verb::block_on(async {
        let held = store.held(source, &[event.id().to_owned()]).await.exit(Exit::STORAGE)?;
        if held.iter().all(|held| *held == Held::Nothing) {
            return Ok(None);
        }
        let history = History::of_store(store.clone(), around, |name| name == source).await?;
        Ok::<_, Failure>(Some(take(&mut replay, history, event, waits_us, geo).await?))
    })??;
    if let Some(known_until) = known_until {
        let filter =
            AlertFilter { rule: Some(args.rule.clone()), source: Some(source.to_owned()), ..AlertFilter::default() };
        let alerts = run_verb::block_on(async { store.alerts(&filter).await })?.exit(Exit::STORAGE)?;
        for row in alerts.iter().filter(|row| row.alert.events.iter().any(|id| id == event.id())) {
            let (id, at) = (&row.alert.alert_id, row.created_at.to_rfc3339_opts(SecondsFormat::Secs, true));
            output.note(&format!("alert {id} of this rule rests on this event; it was raised at {at}"))?;
        }
        output.note("the store holds this event: what it keeps from before it is what counts here")?;
        return Ok(standing(&replay, source, known_until));
    }
    take_up(&mut replay, &*store, &args.rule, output)?;
    Ok(standing(&replay, source, None))
}

/// What the daemon noted.
fn take_up(replay: &mut Replay, store: &dyn Store, rule: &str, output: &Output) -> Result<(), Failure> {
    let restored =
        run_verb::block_on(async { replay.restore(store.load().await?.state).await })?.exit(Exit::STORAGE)?;
    let unreadable = restored.unreadable.len();
    if unreadable > 0 {
        output.note(&format!("{unreadable} rows of state cannot be read and were left out"))?;
    }
    if let Some(rows) = restored.set_aside.get(rule) {
        output
            .note(&format!("the rule asks for something else than when {rows} rows were noted; they do not count"))?;
    }
    Ok(())
}

/// Runs over what came before the event, or at its time, and notes what came while the rule still waits; the event itself is
/// left out. Gives up to when the history is known, where the rule waits.
async fn take(
    replay: &mut Replay,
    mut history: History,
    event: &Event,
    waits_us: Option<i64>,
    geo: Option<&Lookup>,
) -> Result<Option<DateTime<Utc>>, Failure> {
    let own = event.created_at();
    let end = own.checked_add_signed(TimeDelta::microseconds(waits_us.unwrap_or(0))).unwrap_or(own);
    'parts: for part in &mut history.parts {
        loop {
            let mut events = part.next(&mut history.skipped).await?;
            if events.is_empty() {
                break;
            }
            events.retain(|earlier| earlier.id() != event.id());
            if let Some(geo) = geo {
                events = events.into_iter().map(|event| geo.locate_event(event)).collect();
            }
            let later = events.partition_point(|earlier| earlier.created_at() <= own);
            let (before, after) = events.split_at_checked(later).unwrap_or_default();
            replay.take(before, &mut |_, _| {});
            let due = after.partition_point(|later| later.created_at() <= end);
            replay.note(after.get(..due).unwrap_or_default());
            if due < after.len() {
                break 'parts;
            }
        }
    }
    // A stamp in the future is no sign that the log is complete up to there.
    Ok(history.last_at.filter(|_| waits_us.is_some()).map(|last_at| last_at.min(SystemClock.now())))
}

impl State {
    /// Of a rule whose condition holds.
    pub(super) fn verdict(&self) -> &'static str {
        match self {
            Self::Standing(standing) if standing.holds => "fires",
            Self::Standing(standing) if standing.waits_until.is_some() => "waits",
            Self::Standing(_) => "does not fire",
            Self::NoState(_) => "may fire",
        }
    }

    pub(super) fn print(&self, event: &Event, output: &mut Output) -> std::io::Result<()> {
        let standing = match self {
            Self::NoState(why) => return output.line(&format!("  no state: {}", single_line(why, MAX_SUMMARY_CHARS))),
            Self::Standing(standing) => standing,
        };
        let mark = match (standing.holds, standing.waits_until) {
            (true, _) => "✓",
            (false, Some(_)) => "…",
            (false, None) => "✗",
        };
        output.line(&format!("  {mark} state: {}", single_line(&standing.summary, MAX_SUMMARY_CHARS)))?;
        standing.evidence.iter().try_for_each(|evidence| output.line(&format!("      {}", line(evidence, event))))
    }
}

fn line(evidence: &Evidence, event: &Event) -> String {
    let shown = |text: &Option<Untrusted>| {
        text.as_ref().map_or_else(|| "-".to_owned(), |text| text.single_line(MAX_VALUE_CHARS))
    };
    let mut line = format!(
        "{}  {:<24} {:<16} {:<3} {}",
        evidence.at.format("%Y-%m-%dT%H:%M:%SZ"),
        shown(&evidence.event_type),
        shown(&evidence.source_ip),
        shown(&evidence.source_country),
        single_line(&evidence.event_id, MAX_VALUE_CHARS),
    );
    if let Some(note) = &evidence.note {
        line.push_str(&format!("  {}", note.single_line(MAX_VALUE_CHARS)));
    }
    if evidence.event_id == event.id() {
        line.push_str("  (this event)");
    }
    line
}
