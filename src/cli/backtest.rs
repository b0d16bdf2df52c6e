//! `vigie backtest`: rules over history, before they wake anybody. Nothing is stored and nothing is sent.

mod axis;
mod compare;
mod human;
mod page;
mod plot;
mod report;
mod tally;

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use indicatif::ProgressBar;
use regex::Regex;
use vigie_engine::rule::Rule;

use super::events::{self, Walked, parse_time};
use super::exit::{Exit, Failure, Outcome, WithExit};
use super::history::{Gathering, History};
use super::output::Output;
use super::replay::Replay;
use super::{Form, Global, load, log, progress, run as run_verb};
use crate::clock::{Clock, SystemClock};
use crate::config::{BUILTIN_PATH, Config, NamedSource};
use crate::geo::Lookup;
use crate::pipeline::notice;
use crate::source::ndjson::Fields;
use crate::source::vonage::account::{Account, DEFAULT_BASE_URL};
use crate::source::vonage::client::{BoundForm, ListQuery, MAX_PAGE_SIZE};
use crate::store::archive::HistoryWindow;
use report::{HistoryPart, Report};
use tally::Tally;

/// The source's name where nobody gave one.
const FILE_SOURCE: &str = "file";
const API_SOURCE: &str = "api";
/// Days that are named on stderr as too loud; the report has all.
const MAX_LOUD_DAYS: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Events from a file with one JSON object a line (`-` is stdin), instead of the store of the configuration
    #[arg(long, value_name = "FILE", conflicts_with = "api")]
    file: Option<PathBuf>,
    /// Events from the API; needs --since
    #[arg(long, requires = "since")]
    api: bool,
    /// Without a configuration: where the API is
    #[arg(long, value_name = "URL", default_value = DEFAULT_BASE_URL)]
    base_url: String,
    /// Only this source; with --file, the name that its events go under
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Events from this time on: how long ago (30d), a date or a stamp
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Events before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Before this time rules only learn and raise nothing
    #[arg(long, visible_alias = "from", value_name = "TIME")]
    learn_until: Option<String>,
    /// Rule files or directories, instead of those of the configuration
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Only the rule of this id, or the rules whose id matches
    #[arg(long, value_name = "ID|REGEX")]
    rule: Option<String>,
    /// Old rules to compare with: which alerts are gained, which are lost
    #[arg(long, value_name = "PATH")]
    against: Vec<PathBuf>,
    /// End with 1 when a rule raises more alerts than this on any day
    #[arg(long, value_name = "N")]
    max_per_day: Option<u64>,
    /// Write the report as one HTML page, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Where an event's id stands in a line of --file [default: id]
    #[arg(long, value_name = "PATH", requires = "file")]
    id_field: Vec<String>,
    /// Where its time stands [default: created_at, timestamp, time, @timestamp, eventTime]
    #[arg(long, value_name = "PATH", requires = "file")]
    time_field: Vec<String>,
    /// Where its type stands
    #[arg(long, value_name = "PATH", requires = "file")]
    type_field: Vec<String>,
}

/// What the arguments mean.
struct Task {
    rules: Vec<Rule>,
    old_rules: Option<Vec<Rule>>,
    window: HistoryWindow,
    aloud_from: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    quiet: bool,
}

/// What the configuration gave, where there is one.
struct Origin {
    sources: Vec<NamedSource>,
    state_dir: PathBuf,
    /// Address databases, as `run` asks them.
    geo: Option<Arc<Lookup>>,
}

pub(super) fn run(args: Args, global: &Global, output: &mut Output) -> Outcome {
    log::start(global, "warn");
    let Some((rules, origin)) = load_rules(&args, global, output)? else { return Ok(Exit::CONFIG) };
    let old_rules = match args.against.as_slice() {
        [] => None,
        paths => match load::rules(paths, output)? {
            Some(rules) => Some(rules),
            None => return Ok(Exit::CONFIG),
        },
    };
    let now = SystemClock.now();
    let time = |text: &Option<String>| text.as_deref().map(|text| parse_time(text, now)).transpose();
    let window = HistoryWindow { from: time(&args.since)?, to: time(&args.until)? };
    if window.from.zip(window.to).is_some_and(|(from, to)| from >= to) {
        return Err(Failure::usage("--since lies after --until"));
    }
    let task = Task {
        rules: chosen(rules, &args)?,
        old_rules: old_rules.map(|rules| chosen(rules, &args)).transpose()?,
        window,
        aloud_from: time(&args.learn_until)?,
        now,
        quiet: global.quiet,
    };
    if task.rules.is_empty() {
        return Err(Failure::text(Exit::NOT_FOUND, "no rule was chosen"));
    }
    run_verb::block_on(backtest(&args, task, origin, output))?
}

/// Rules, and where their events are when a configuration says so.
type Loaded = (Vec<Rule>, Option<Origin>);

/// The rules that are asked about; `None` when they do not load, and that was said.
fn load_rules(args: &Args, global: &Global, output: &mut Output) -> Result<Option<Loaded>, Failure> {
    let asks_config = args.rules.is_empty() || !global.config.is_empty() || (!args.api && args.file.is_none());
    let mut config: Option<Config> = None;
    if asks_config {
        let (loaded, diagnostics) = load::config(global, output)?;
        if loaded.is_none() {
            output.diagnostics(&diagnostics)?;
            return Ok(None);
        }
        config = loaded;
    }
    let (config_rules, origin) = match config {
        Some(Config { rules, sources, state_dir, geo, .. }) => (rules, Some(Origin { sources, state_dir, geo })),
        None => (Vec::new(), None),
    };
    if args.rules.is_empty() {
        return Ok(Some((config_rules, origin)));
    }
    Ok(load::rules(&args.rules, output)?.map(|rules| (rules, origin)))
}

/// The rules that `--rule` names. The program's own rules are asked only about its own events.
fn chosen(mut rules: Vec<Rule>, args: &Args) -> Result<Vec<Rule>, Failure> {
    if args.source.as_deref() != Some(notice::SOURCE) {
        rules.retain(|rule| &*rule.span.path != BUILTIN_PATH);
    }
    let Some(wanted) = &args.rule else { return Ok(rules) };
    if rules.iter().any(|rule| rule.id == *wanted) {
        rules.retain(|rule| rule.id == *wanted);
        return Ok(rules);
    }
    let pattern = Regex::new(wanted)
        .map_err(|error| Failure::usage(format!("--rule takes an id or a regular expression: {error}")))?;
    rules.retain(|rule| pattern.is_match(&rule.id));
    Ok(rules)
}

async fn backtest(args: &Args, task: Task, origin: Option<Origin>, output: &mut Output) -> Outcome {
    let geo = origin.as_ref().and_then(|origin| origin.geo.clone());
    let mut history = gather(args, &task, origin, output).await?;
    let Some(last_at) = history.last_at else {
        let poison = history.skipped.poison;
        let poison = if poison > 0 { format!(", only {poison} that cannot be read") } else { String::new() };
        return Err(Failure::text(Exit::NOT_FOUND, format!("there are no events in that time{poison}")));
    };
    let bar = progress::bar(Some(history.events()), "events", task.quiet);
    let mut tally = Tally::of(&task.rules);
    let mut old_tally = task.old_rules.as_ref().map(|rules| Tally::of(rules));
    let mut first_at = last_at;
    let History { parts, skipped, .. } = &mut history;
    for part in parts.iter_mut() {
        let mut replay = Replay::new(task.rules.clone(), &part.source, task.aloud_from);
        let mut old_replay = task.old_rules.clone().map(|rules| Replay::new(rules, &part.source, task.aloud_from));
        loop {
            let mut events = part.next(skipped).await?;
            if let Some(geo) = &geo {
                events = events.into_iter().map(|event| geo.locate_event(event)).collect();
            }
            let Some(first) = events.first() else { break };
            first_at = first_at.min(first.created_at());
            for event in &events {
                tally.saw(event.created_at(), task.aloud_from);
            }
            replay.take(&events, &mut |day, effects| tally.take(day, effects));
            if let (Some(replay), Some(tally)) = (&mut old_replay, &mut old_tally) {
                replay.take(&events, &mut |day, effects| tally.take(day, effects));
            }
            bar.inc(events.len() as u64);
        }
        replay.end(last_at, &mut |day, effects| tally.take(day, effects));
        if let (Some(replay), Some(tally)) = (&mut old_replay, &mut old_tally) {
            replay.end(last_at, &mut |day, effects| tally.take(day, effects));
        }
    }
    bar.finish_and_clear();
    let part = HistoryPart {
        sources: history.parts.into_iter().map(|part| part.source).collect(),
        first_at,
        last_at,
        events: tally.events.values().sum(),
        learned: tally.learned_events,
        skipped: history.skipped,
    };
    let against = old_tally.as_ref().map(|old| (compare::compare(old, &tally), old));
    say(&Report::new(part, &tally, against, args.max_per_day), &tally, args, output)
}

/// Where the events come from.
async fn gather(args: &Args, task: &Task, origin: Option<Origin>, output: &mut Output) -> Result<History, Failure> {
    if let Some(path) = &args.file {
        let source = args.source.as_deref().unwrap_or(FILE_SOURCE);
        let defaults = Fields::default();
        let or = |given: &[String], default| if given.is_empty() { default } else { given.to_vec() };
        let fields = Fields {
            id: or(&args.id_field, defaults.id),
            time: or(&args.time_field, defaults.time),
            event_type: or(&args.type_field, defaults.event_type),
        };
        let path = (path.as_os_str() != "-").then_some(path.as_path());
        let bar = progress::bar(None, "events read", task.quiet);
        let history = History::of_file(source, path, fields, task.window, &bar).await;
        bar.finish_and_clear();
        return history;
    }
    if args.api {
        let (name, account) = account(args, origin)?;
        let bar = progress::bar(None, "events fetched", task.quiet);
        let history = from_api(&name, &account, task, args.max_per_day.is_some(), &bar, output).await;
        bar.finish_and_clear();
        return history;
    }
    let Some(origin) = origin else { return Err(Failure::usage("no configuration names a store")) };
    let store = Arc::new(load::open_beside(&origin.state_dir)?);
    let wanted = |source: &str| match args.source.as_deref() {
        Some(name) => name == source,
        None => source != notice::SOURCE,
    };
    History::of_store(store, task.window, wanted).await
}

/// The account that is asked: that of the configuration, or of the environment where there is none.
fn account(args: &Args, origin: Option<Origin>) -> Result<(String, Account), Failure> {
    match origin {
        Some(origin) => events::choose_account(args.source.as_deref(), origin.sources),
        None => {
            let name = args.source.clone().unwrap_or_else(|| API_SOURCE.to_owned());
            Ok((name, events::account_from_environment(&args.base_url)?))
        }
    }
}

async fn from_api(
    source: &str,
    account: &Account,
    task: &Task,
    must_be_whole: bool,
    bar: &ProgressBar,
    output: &mut Output,
) -> Result<History, Failure> {
    let client = account.client(Arc::new(SystemClock)).exit(Exit::UNAVAILABLE)?;
    let query = ListQuery {
        from: task.window.from,
        // A fixed end, so that what happens meanwhile does not shift the pages; bounds go out in whole seconds.
        to: task.window.to.unwrap_or(task.now).checked_add_signed(TimeDelta::seconds(1)),
        bounds: BoundForm::default(),
        page: 1,
        size: MAX_PAGE_SIZE,
        ..ListQuery::default()
    };
    let mut gathering = Gathering::new(task.window);
    let mut taken = Ok(());
    let walked = events::walk(&client, query, |row| {
        bar.inc(1);
        taken = gathering.take_row(&row, task.now);
        taken.is_ok()
    });
    let walked = walked.await?;
    taken?;
    if let Some(note) = judgeable(walked, must_be_whole)? {
        output.note(note)?;
    }
    Ok(gathering.into_history(source))
}

/// What to say of a listing that does not hold all; a limit cannot be judged by such a one.
fn judgeable(walked: Walked, must_be_whole: bool) -> Result<Option<&'static str>, Failure> {
    match (walked, must_be_whole) {
        (Walked::Whole, _) => Ok(None),
        (Walked::Cut, false) => {
            Ok(Some("the API has more events than one listing gives: narrow the time with --since and --until"))
        }
        (Walked::Cut, true) => {
            let text = "the API has more events than one listing gives, so --max-per-day cannot be judged: narrow the \
                        time with --since and --until";
            Err(Failure::text(Exit::UNAVAILABLE, text))
        }
    }
}

/// Says what was found, in every form that was asked for.
fn say(report: &Report<'_>, tally: &Tally, args: &Args, output: &mut Output) -> Outcome {
    if let Some(path) = &args.html {
        let written = std::fs::write(path, report.page());
        written
            .map_err(|error| Failure::text(Exit::STORAGE, format!("{} cannot be written: {error}", path.display())))?;
    }
    match output.form() {
        Form::Human => report.print(output)?,
        Form::Json => output.json(report)?,
        Form::Ndjson => report.lines(tally).try_for_each(|line| output.json(&line))?,
    }
    let Some(limit) = report.max_per_day.as_ref().filter(|_| report.is_too_loud()) else { return Ok(Exit::OK) };
    for part in limit.exceeded.iter().take(MAX_LOUD_DAYS) {
        let rule = part.rule.unwrap_or_default();
        output.note(&format!("{rule} is louder than {} a day: {} on {}", limit.limit, part.counts.alerts, part.day))?;
    }
    let more = limit.exceeded.len().saturating_sub(MAX_LOUD_DAYS);
    if more > 0 {
        output.note(&format!("and on {more} more days"))?;
    }
    Ok(Exit::EXPECTATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_that_is_cut_is_not_judged_by_its_loudest_day() {
        assert!(judgeable(Walked::Whole, true).is_ok_and(|note| note.is_none()));
        assert!(judgeable(Walked::Cut, false).is_ok_and(|note| note.is_some()));
        let refused = judgeable(Walked::Cut, true).expect_err("it is not whole");
        assert_eq!(refused.exit, Exit::UNAVAILABLE);
    }
}
