//! `vigie check`: loads everything, runs the tests inside the rules, reports every mistake, opens no socket.

use crate::config::Config;

use super::exit::{Exit, Outcome};
use super::output::{Output, counted};
use super::{Form, Global, load};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End with 3 when there are warnings
    #[arg(long)]
    deny_warnings: bool,
}

pub(super) fn run(args: Args, global: &Global, output: &mut Output) -> Outcome {
    let (config, mut diagnostics) = load::config(global, output)?;
    if let Some(config) = &config {
        load::warn_unseen_event_types(config, &mut diagnostics);
    }
    output.diagnostics(&diagnostics)?;
    let Some(config) = config else { return Ok(Exit::CONFIG) };
    if args.deny_warnings && diagnostics.has_warnings() {
        return Ok(Exit::WARNINGS);
    }
    if output.form() == Form::Human {
        output.line(&summary(&config))?;
    }
    Ok(Exit::OK)
}

fn summary(config: &Config) -> String {
    let own: Vec<_> = config.rules.iter().filter(|rule| !rule.id.starts_with("vigie-")).collect();
    let tests: usize = own.iter().map(|rule| rule.tests.len()).sum();
    format!(
        "ok: {}, {} ({}), {}, {}",
        counted(config.sources.len(), "source"),
        counted(own.len(), "rule"),
        counted(tests, "test"),
        counted(config.sinks.len(), "sink"),
        counted(config.routes.len(), "route"),
    )
}
