//! `vigie explain RULE EVENT.json`: the truth tree of a rule over one event, with each operand's value; of a stateful rule
//! also how it stands: which earlier events count, and what is missing.

mod standing;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use vigie_engine::condition::Explanation;
use vigie_engine::engine::Engine;
use vigie_engine::event::Event;

use super::exit::{Exit, Failure, Outcome, WithExit};
use super::output::Output;
use super::{Form, Global, load};
use crate::clock::{Clock, SystemClock};
use crate::source::ndjson::{self, Fields};

/// How much of a value a line of the tree shows.
const MAX_VALUE_CHARS: usize = 80;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Rule id
    rule: String,
    /// File with one event as JSON; `-` is stdin
    event: PathBuf,
    /// Rule files or directories, instead of those of the configuration
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// For a stateful rule: what came before the event, one JSON object a line, instead of the store of the configuration
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Which source of the configuration the event came from
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

pub(super) fn run(args: Args, global: &Global, output: &mut Output) -> Outcome {
    let mut config = None;
    if args.rules.is_empty() || !global.config.is_empty() {
        let (loaded, diagnostics) = load::config(global, output)?;
        if loaded.is_none() {
            output.diagnostics(&diagnostics)?;
            return Ok(Exit::CONFIG);
        }
        config = loaded;
    }
    let rules = match (&config, args.rules.as_slice()) {
        (Some(config), []) => config.rules.clone(),
        (_, paths) => match load::rules(paths, output)? {
            Some(rules) => rules,
            None => return Ok(Exit::CONFIG),
        },
    };
    let event = read_event(&args.event, output)?;
    let event = match config.as_ref().and_then(|config| config.geo.as_ref()) {
        Some(lookup) => lookup.locate_event(event),
        None => event,
    };
    let engine = Engine::new(rules.clone());
    let Some(explanation) = engine.explain(&args.rule, &event) else {
        let hint = crate::options::suggestion(&args.rule, rules.iter().map(|rule| rule.id.as_str()));
        return Err(Failure::text(Exit::NOT_FOUND, format!("there is no rule `{}`: {hint}", args.rule)));
    };
    let place = config.as_ref().map(|config| standing::Place {
        state_dir: &config.state_dir,
        sources: config.sources.iter().map(|source| source.name.as_str()).collect(),
        geo: config.geo.as_deref(),
    });
    let is_enabled = rules.iter().any(|rule| rule.id == args.rule && rule.enabled);
    let is_stateful = rules.iter().any(|rule| rule.id == args.rule && rule.detection.is_some());
    let state = if is_stateful { Some(standing::ask(&args, rules, &event, place, output)?) } else { None };
    match output.form() {
        Form::Human => {
            let verdict = match (explanation.holds, &state) {
                (false, _) => "does not fire",
                (true, Some(state)) => state.verdict(),
                (true, None) => "fires",
            };
            output.line(&format!("{} {verdict} on event {}", args.rule, single(event.id())))?;
            if !is_enabled {
                output.line("  ✗ the rule is switched off (`enabled: false`)")?;
            }
            tree(&explanation, 0, output)?;
            state.iter().try_for_each(|state| state.print(&event, output))?;
        }
        Form::Json | Form::Ndjson => {
            output.json(&Explained { explanation: &explanation, enabled: is_enabled, state: state.as_ref() })?
        }
    }
    Ok(Exit::OK)
}

/// The tree, and beside it how a stateful rule stands.
#[derive(serde::Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    explanation: &'a Explanation,
    enabled: bool,
    #[serde(flatten)]
    state: Option<&'a standing::State>,
}

fn read_event(path: &PathBuf, output: &mut Output) -> Result<Event, Failure> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).exit(Exit::USAGE)?;
    } else {
        text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))?;
    }
    let raw: Arc<str> = Arc::from(text.trim());
    let now = SystemClock.now();
    let refused = |error| Failure::usage(format!("{} holds no event: {error}", path.display()));
    // Read as an event first: what no strict reader of JSON takes may be one all the same.
    let unnamed = Event::new("(no id)", now, raw).map_err(refused)?;
    let created_at = ndjson::time_of(&unnamed, &Fields::default());
    if created_at.is_none() {
        output.note("the event has no time that can be read (created_at, timestamp, time): it counts as of now")?;
    }
    let id = unnamed.text("id").unwrap_or("(no id)".into()).into_owned();
    Ok(unnamed.identified(&id, created_at.unwrap_or(now)))
}

fn tree(explanation: &Explanation, depth: usize, output: &mut Output) -> std::io::Result<()> {
    let mark = if explanation.holds { "✓" } else { "✗" };
    output.line(&format!("{}{mark} {}", "  ".repeat(depth + 1), operand(explanation)))?;
    explanation.children.iter().try_for_each(|child| tree(child, depth + 1, output))
}

/// One line of the tree: an operand with what it saw, or a block by its name.
fn operand(explanation: &Explanation) -> String {
    let Some(field) = &explanation.field else { return explanation.block.to_owned() };
    let actual = explanation.actual.as_ref().map_or_else(|| "(none)".into(), |text| text.single_line(MAX_VALUE_CHARS));
    let operator = explanation.operator.as_deref().unwrap_or("equals");
    let expected = single(explanation.expected.as_deref().unwrap_or_default());
    format!("{} is {actual}: {operator} {expected}", single(field))
}

fn single(text: &str) -> String {
    vigie_engine::text::single_line(text, MAX_VALUE_CHARS)
}
