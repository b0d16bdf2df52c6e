//! `vigie state`: the state directory.

use super::exit::{Exit, Outcome, WithExit};
use super::output::Output;
use super::{Form, Global, load, log};
use crate::clock::{Clock, SystemClock};
use crate::store::sqlite::recover;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Set a damaged store aside and start a new one with what can still be read
    Recover,
}

pub(super) fn run(verb: Verb, global: &Global, output: &mut Output) -> Outcome {
    let Verb::Recover = verb;
    log::start(global, "info");
    let directory = load::state_dir(global, output)?;
    let name = SystemClock.now().format("%Y%m%dT%H%M%SZ").to_string();
    let recovered = recover(&directory, &name).exit(Exit::STORAGE)?;
    match output.form() {
        Form::Human => {
            output.line(&format!("the damaged store is kept as {}", recovered.damaged.display()))?;
            for table in &recovered.tables {
                let verdict = if table.complete { "complete" } else { "parts of it could not be read" };
                output.line(&format!("  {}: {} rows saved, {verdict}", table.name, table.rows))?;
            }
        }
        Form::Json | Form::Ndjson => output.json(&recovered)?,
    }
    Ok(Exit::OK)
}
