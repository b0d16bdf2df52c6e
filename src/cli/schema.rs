//! `vigie schema config|rules|reference`: JSON Schema for editors, and the reference page.

use clap::ValueEnum;

use super::exit::{Exit, Outcome};
use super::output::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Of what
    #[arg(value_enum, default_value_t = What::Config)]
    what: What,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// The configuration file
    Config,
    /// Rule files
    Rules,
    /// All options and metrics, as a page
    Reference,
}

pub(super) fn run(args: Args, output: &mut Output) -> Outcome {
    match args.what {
        What::Config => output.json(&crate::config::schema::config())?,
        What::Rules => output.json(&crate::config::schema::rules())?,
        What::Reference => output.line(crate::config::reference::markdown().trim_end())?,
    }
    Ok(Exit::OK)
}
