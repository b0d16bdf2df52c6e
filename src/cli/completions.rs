//! `vigie completions SHELL`: a completion script on stdout.

use clap::CommandFactory;

use super::exit::{Exit, Outcome};
use super::output::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which shell
    shell: clap_complete::Shell,
}

pub(super) fn run(args: Args, output: &mut Output) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "vigie", &mut script);
    output.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::OK)
}
