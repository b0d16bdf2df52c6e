//! The command line: arguments, exit codes, terminal. Data goes to stdout, everything else to stderr.
//!
//! A verb is one file under `cli/`; it returns an exit code and never ends the process itself.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

mod alerts;
mod backtest;
mod check;
mod completions;
mod deliveries;
mod demo;
mod events;
mod exit;
mod explain;
mod history;
mod init;
mod load;
mod log;
mod output;
mod progress;
mod reload;
mod replay;
mod route;
mod run;
mod schema;
mod silences;
mod sim;
mod sink;
mod state;

mod test;

pub use exit::Exit;
use exit::{Failure, Outcome};
use output::Output;

/// A lookout for audit logs: polls events, matches them against YAML rules, delivers alerts and loses none.
#[derive(Debug, Parser)]
#[command(name = "vigie", version, max_term_width = 110, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options of every verb.
#[derive(Debug, clap::Args)]
struct Global {
    /// Configuration file, or a directory whose YAML files are merged; may be given several times [default: vigie.yaml]
    #[arg(short, long, global = true, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// Form of the data on stdout
    #[arg(short, long, global = true, value_enum, default_value_t = Form::Human)]
    output: Form,
    /// Only errors on stderr
    #[arg(short, long, global = true)]
    quiet: bool,
    /// More on stderr; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Form of the log on stderr
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Colours on a terminal
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    Human,
    /// One JSON document
    Json,
    /// One JSON document a line
    Ndjson,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON document a line
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    /// When stdout is a terminal and NO_COLOR is not set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show it at work: a simulated account, planted attacks, alerts with their reasons
    Demo(demo::Args),
    /// Write a configuration: asks on a terminal, takes flags without one
    Init(init::Args),
    /// Poll, match, alert, deliver
    Run(run::Args),
    /// Load configuration, rules and lists, run the tests inside the rules, report every mistake
    Check(check::Args),
    /// Run the tests inside rule files
    Test(test::Args),
    /// Say why a rule fires on an event, or why it does not
    Explain(explain::Args),
    /// Run rules over history: from a file, the store or the API; nothing is sent
    Backtest(Box<backtest::Args>),
    /// Ask the Audit API directly
    #[command(subcommand)]
    Events(events::Verb),
    /// A stand-in for the Audit API
    #[command(subcommand)]
    Sim(sim::Verb),
    /// Try a sink
    #[command(subcommand)]
    Sink(sink::Verb),
    /// What was raised
    #[command(subcommand)]
    Alerts(alerts::Verb),
    /// What was sent where, and what was not
    #[command(subcommand)]
    Deliveries(deliveries::Verb),
    /// Alerts that nobody is told of for a time
    #[command(subcommand)]
    Silences(silences::Verb),
    /// Where alerts go
    #[command(subcommand)]
    Route(route::Verb),
    /// The state directory
    #[command(subcommand)]
    State(state::Verb),
    /// JSON Schema of the configuration or of rule files
    Schema(schema::Args),
    /// Completions for a shell
    Completions(completions::Args),
    /// The version and what it was built with
    Version,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::USAGE } else { Exit::OK };
            // Nothing can be said when the terminal is gone, and the exit code still stands.
            return if error.print().is_ok() { exit } else { Exit::USAGE };
        }
    };
    let mut output = Output::new(&cli.global);
    match dispatch(cli, &mut output) {
        Ok(exit) => exit,
        Err(failure) => output.fail(&failure),
    }
}

fn dispatch(cli: Cli, output: &mut Output) -> Outcome {
    let Cli { global, verb } = cli;
    match verb {
        Verb::Demo(args) => demo::run(args, &global, output),
        Verb::Init(args) => init::run(args, &global, output),
        Verb::Run(args) => run::run(args, &global, output),
        Verb::Check(args) => check::run(args, &global, output),
        Verb::Test(args) => test::run(args, output),
        Verb::Explain(args) => explain::run(args, &global, output),
        Verb::Backtest(args) => backtest::run(*args, &global, output),
        Verb::Events(verb) => events::run(verb, &global, output),
        Verb::Sim(verb) => sim::run(verb, &global, output),
        Verb::Sink(verb) => sink::run(verb, &global, output),
        Verb::Alerts(verb) => alerts::run(verb, &global, output),
        Verb::Deliveries(verb) => deliveries::run(verb, &global, output),
        Verb::Silences(verb) => silences::run(verb, &global, output),
        Verb::Route(verb) => route::run(verb, &global, output),
        Verb::State(verb) => state::run(verb, &global, output),
        Verb::Schema(args) => schema::run(args, output),
        Verb::Completions(args) => completions::run(args, output),
        Verb::Version => version(output),
    }
}

fn version(output: &mut Output) -> Outcome {
    let engine = env!("CARGO_PKG_VERSION");
    let sqlite = rusqlite::version();
    match output.form() {
        Form::Human => output.line(&format!("vigie {engine} (SQLite {sqlite})"))?,
        Form::Json | Form::Ndjson => output.json(&serde_json::json!({"version": engine, "sqlite": sqlite}))?,
    }
    Ok(Exit::OK)
}

/// The configuration paths of this call.
fn config_paths(global: &Global) -> Result<Vec<PathBuf>, Failure> {
    if !global.config.is_empty() {
        return Ok(global.config.clone());
    }
    let default = PathBuf::from("vigie.yaml");
    match default.exists() {
        true => Ok(vec![default]),
        false => Err(Failure::usage("no configuration: name one with -c FILE, or put vigie.yaml here")),
    }
}
