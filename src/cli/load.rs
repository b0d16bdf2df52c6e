//! Loading the configuration for a verb, and what can only be said once store and rules are seen together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::rule::Rule;

use super::exit::{Exit, Failure, WithExit};
use super::output::Output;
use super::{Global, config_paths};
use crate::clock::SystemClock;
use crate::config::{self, Config, Surroundings, process_variable};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::{sink, source};

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
    let (config, diagnostics) = config(global, output)?;
    match config {
        Some(config) => Ok(config.state_dir),
        None => {
            output.diagnostics(&diagnostics)?;
            Err(Failure::text(Exit::CONFIG, "the configuration is invalid"))
        }
    }
}

/// The store of the configuration, beside a daemon that may be running.
pub(super) fn tool_store(global: &Global, output: &mut Output) -> Result<SqliteStore, Failure> {
    open_beside(&state_dir(global, output)?)
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
    let unseen = |pattern: &String| !shown.iter().any(|event_type| covers(&pattern.to_uppercase(), event_type));
    let waits = |rule: &&Rule| {
        rule.enabled
            && !rule.id.starts_with("vigie-")
            && !rule.event_types.is_empty()
            && rule.event_types.iter().all(unseen)
    };
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

/// Whether a pattern with `*` and `?` covers a text.
fn covers(pattern: &str, text: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => text.is_empty(),
        Some('*') => {
            let after = rest.as_str();
            text.char_indices().map(|(index, _)| index).chain([text.len()]).any(|index| {
                let (_, tail) = text.split_at(index);
                covers(after, tail)
            })
        }
        Some(wanted) => {
            let mut characters = text.chars();
            let fits = characters.next().is_some_and(|given| wanted == '?' || given == wanted);
            fits && covers(rest.as_str(), characters.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn patterns_cover_types() {
        for (pattern, text, expect) in [
            ("APP_*", "APP_CREATE", true),
            ("*_CREATE", "APP_CREATE", true),
            ("APP_CREATE", "APP_CREATE", true),
            ("APP_?REATE", "APP_CREATE", true),
            ("APP_", "APP_CREATE", false),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(covers(pattern, text), expect, "{pattern} {text}");
        }
    }
}
