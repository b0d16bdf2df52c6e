//! `vigie schema config|rules`: JSON Schema for editors.

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
}

pub(super) fn run(args: Args, output: &mut Output) -> Outcome {
    let schema = match args.what {
        What::Config => crate::config::schema::config(),
        What::Rules => crate::config::schema::rules(),
    };
    output.json(&schema)?;
    Ok(Exit::OK)
}
