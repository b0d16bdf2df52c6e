//! `vigie explain RULE EVENT.json`: the truth tree of a rule over one event, with each operand's value.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::FixedOffset;
use vigie_engine::condition::Explanation;
use vigie_engine::engine::Engine;
use vigie_engine::event::Event;

use super::exit::{Exit, Failure, Outcome, WithExit};
use super::output::Output;
use super::{Form, Global, load};
use crate::clock::{Clock, SystemClock};
use crate::source::stamp::Stamp;

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
}

pub(super) fn run(args: Args, global: &Global, output: &mut Output) -> Outcome {
    let (rules, lookup) = if args.rules.is_empty() {
        let (config, diagnostics) = load::config(global, output)?;
        let Some(config) = config else {
            output.diagnostics(&diagnostics)?;
            return Ok(Exit::CONFIG);
        };
        (config.rules, config.geo)
    } else {
        let (rules, diagnostics) = crate::config::load_rules(&args.rules);
        if diagnostics.has_errors() {
            output.diagnostics(&diagnostics)?;
            return Ok(Exit::CONFIG);
        }
        (rules, None)
    };
    let event = read_event(&args.event)?;
    let event = match lookup {
        Some(lookup) => lookup.locate_event(event),
        None => event,
    };
    let ids: Vec<String> = rules.iter().map(|rule| rule.id.clone()).collect();
    let engine = Engine::new(rules);
    let Some(explanation) = engine.explain(&args.rule, &event) else {
        let hint = crate::options::suggestion(&args.rule, ids.iter().map(String::as_str));
        return Err(Failure::text(Exit::NOT_FOUND, format!("there is no rule `{}`: {hint}", args.rule)));
    };
    match output.form() {
        Form::Human => {
            let verdict = if explanation.holds { "fires" } else { "does not fire" };
            output.line(&format!("{} {verdict} on event {}", args.rule, single(event.id())))?;
            tree(&explanation, 0, output)?;
        }
        Form::Json | Form::Ndjson => output.json(&explanation)?,
    }
    Ok(Exit::OK)
}

fn read_event(path: &PathBuf) -> Result<Event, Failure> {
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
    let unnamed = Event::new("(no id)", now, raw.clone()).map_err(refused)?;
    let stamp = unnamed.text("created_at").as_deref().and_then(Stamp::parse);
    let created_at = stamp.and_then(|stamp| stamp.at(FixedOffset::east_opt(0)?)).unwrap_or(now);
    let id = unnamed.text("id").unwrap_or("(no id)".into());
    Event::new(&id, created_at, raw).map_err(refused)
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
