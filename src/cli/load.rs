//! Loading the configuration for a verb, and what can only be said once store and rules are seen together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vigie_engine::diagnostic::{Diagnostics, nearest};
use vigie_engine::rule::Rule;

use super::exit::{Exit, Failure, WithExit};
use super::output::Output;
use super::{Global, config_paths, run as run_verb};
use crate::clock::SystemClock;
use crate::config::{self, Config, Surroundings, process_variable};
use crate::store::archive::Named;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::{sink, source};

/// Names that are all told to who gave one that is near none of them.
const MAX_NAMES_SHOWN: usize = 20;
/// How much of a wrong name is repeated.
const MAX_NAME_CHARS: usize = 80;

/// Loads the configuration that the arguments name, with all findings.
pub(super) fn config(global: &Global, output: &Output) -> Result<(Option<Config>, Diagnostics), Failure> {
    let paths = config_paths(global)?;
    Ok(config::load(&paths, &surroundings(output)))
}

/// Rules from files and directories; `None` when they do not load, and that was said.
pub(super) fn rules(paths: &[PathBuf], output: &mut Output) -> Result<Option<Vec<Rule>>, Failure> {
    let (rules, diagnostics) = config::load_rules(paths);
    if diagnostics.has_errors() {
        output.diagnostics(&diagnostics)?;
        return Ok(None);
    }
    Ok(Some(rules))
}

/// What drivers may use in this process.
pub(super) fn surroundings(output: &Output) -> Surroundings<'static> {
    let clock = Arc::new(SystemClock);
    Surroundings {
        variable: &process_variable,
        sinks: sink::BuildContext::new(clock.clone(), output.writer(), output.color()),
        sources: source::BuildContext { clock },
    }
}

/// The state directory that the configuration names.
pub(super) fn state_dir(global: &Global, output: &mut Output) -> Result<PathBuf, Failure> {
    whole_config(global, output).map(|config| config.state_dir)
}

fn whole_config(global: &Global, output: &mut Output) -> Result<Config, Failure> {
    let (config, diagnostics) = config(global, output)?;
    match config {
        Some(config) => Ok(config),
        None => {
            output.diagnostics(&diagnostics)?;
            Err(Failure::text(Exit::CONFIG, "the configuration is invalid"))
        }
    }
}

/// A configuration and its store, beside a daemon that may be running.
pub(super) struct Tool {
    pub(super) config: Config,
    pub(super) store: SqliteStore,
}

impl Tool {
    /// Refuses a name that neither the configuration nor the store knows: it would find nothing, and nothing found looks
    /// like good news.
    pub(super) fn require(&self, named: Named, name: Option<&str>) -> Result<(), Failure> {
        let Some(name) = name else { return Ok(()) };
        let config = &self.config;
        let mut known: BTreeSet<String> = match named {
            Named::Sink => config.sinks.iter().map(|sink| sink.name.clone()).collect(),
            Named::Rule => config.rules.iter().map(|rule| rule.id.clone()).collect(),
            Named::Source => config.sources.iter().map(|source| source.name.clone()).collect(),
        };
        if named == Named::Source {
            known.insert(crate::pipeline::notice::SOURCE.to_owned());
        }
        if known.contains(name) {
            return Ok(());
        }
        known.extend(run_verb::block_on(self.store.names(named))?.exit(Exit::STORAGE)?);
        if known.contains(name) {
            return Ok(());
        }
        let what = match named {
            Named::Sink => "sink",
            Named::Rule => "rule",
            Named::Source => "source",
        };
        let hint = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.len() <= MAX_NAMES_SHOWN => {
                format!("known here: {}", known.into_iter().collect::<Vec<_>>().join(", "))
            }
            None => format!("{} are known here", known.len()),
        };
        let name = vigie_engine::text::single_line(name, MAX_NAME_CHARS);
        Err(Failure::text(Exit::NOT_FOUND, format!("there is no {what} `{name}`: {hint}")))
    }
}

/// The configuration and its store.
pub(super) fn tool(global: &Global, output: &mut Output) -> Result<Tool, Failure> {
    let config = whole_config(global, output)?;
    let directory = config.state_dir.clone();
    let store = open_beside(&directory)?;
    Ok(Tool { config, store })
}

/// The store in a directory, beside a daemon that may be running.
pub(super) fn open_beside(directory: &Path) -> Result<SqliteStore, Failure> {
    if !directory.join("vigie.db").exists() {
        let text = format!("there is no store in {}: `vigie run` makes one", directory.display());
        return Err(Failure::text(Exit::NOT_FOUND, text));
    }
    SqliteStore::open(directory, &SqliteOptions::tool()).exit(Exit::STORAGE)
}

/// Warns about rules that name only event types which this account never showed: they may be dead without a sign
/// (logins, for instance, are logged for some customers only). Says nothing while the store is empty.
pub(super) fn warn_unseen_event_types(config: &Config, diagnostics: &mut Diagnostics) {
    if !config.state_dir.join("vigie.db").exists() {
        return;
    }
    let opened = SqliteStore::open(&config.state_dir, &SqliteOptions::tool());
    let asked = opened.map_err(anyhow::Error::from).and_then(|store| {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(runtime.block_on(store.event_types())?)
    });
    let shown: BTreeSet<String> = match asked {
        Ok(rows) => rows.into_iter().map(|row| row.event_type.to_uppercase()).collect(),
        Err(error) => {
            tracing::warn!(?error, "the store cannot be asked for the event types that it holds");
            return;
        }
    };
    if shown.is_empty() {
        return;
    }
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    let waits = |rule: &&Rule| rule.waits_for_other_than(&shown);
    let waiting: Vec<&Rule> = config.rules.iter().filter(waits).collect();
    // One finding for all: a young account has not shown most types yet, and a page of warnings is read by nobody.
    if let Some(first) = waiting.first() {
        let named: Vec<String> =
            waiting.iter().map(|rule| format!("{} ({})", rule.id, rule.event_types.join(", "))).collect();
        let text = format!("{} so far for event types that no event has shown yet", waits_for(waiting.len()));
        let hint = format!("some types are logged for some customers only; waiting: {}", named.join("; "));
        diagnostics.warning("W0401", &first.span, text, Some(hint));
    }
}

fn waits_for(count: usize) -> String {
    if count == 1 { "1 rule waits".into() } else { format!("{count} rules wait") }
}
