//! `vigie init`: writes `vigie.yaml` and the list of variables that it reads, asking on a terminal, by flags without one.
//!
//! It never writes a secret (the file names variables), never blocks on input that is no terminal, and overwrites nothing
//! without `--force`. What a sink needs is what its own example holds, so that a kind is described in one place. Questions and
//! findings go to stderr.

mod conversation;
mod draft;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use vigie_engine::rule::Severity;
use vigie_engine::text::single_line;

use self::conversation::Conversation;
use self::draft::{Chosen, Draft, stand_in};
use super::exit::{Exit, Failure, Outcome, WithExit};
use super::output::Output;
use super::{Global, demo, load, log, sink as sink_verb};
use crate::config::{self, Config, process_variable};
use crate::options::suggestion;
use crate::sink::{KINDS, SinkKind};

/// Beside the configuration: what must be set, without values.
const HINTS: &str = ".env.example";
/// Where rules are, beside the configuration.
const RULES: &str = "rules";
/// How much of a path is repeated.
const MAX_PATH_CHARS: usize = 200;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A sink by its kind, such as slack; may be given several times [default: stdout]
    #[arg(long, value_name = "KIND")]
    sink: Vec<String>,
    /// A severity that pagers are woken by; may be given several times [default: high and critical]
    #[arg(long, value_name = "SEVERITY")]
    pager_severity: Vec<String>,
    /// Variable that holds the account's API key
    #[arg(long, value_name = "NAME", default_value = "VONAGE_API_KEY")]
    key_variable: String,
    /// Variable that holds the account's API secret
    #[arg(long, value_name = "NAME", default_value = "VONAGE_API_SECRET")]
    secret_variable: String,
    /// Ask nothing: flags and examples decide
    #[arg(short, long)]
    yes: bool,
    /// Overwrite what is there
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: Args, global: &Global, output: &mut Output) -> Outcome {
    log::start(global, "warn");
    let path = target(global)?;
    if path.exists() && !args.force {
        let hint = "it stays as it is; --force overwrites it, -c names another file";
        return Err(Failure::usage(format!("{} is there already: {hint}", shown(&path))));
    }
    let mut draft = draft(&args)?;
    let asks = !args.yes && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let mut conversation = Conversation::new(std::io::stdin().lock(), std::io::stderr());
    if asks {
        conversation.fill(&mut draft, !args.sink.is_empty())?;
    }
    write(&path, &draft, args.force, output)?;
    let Some(config) = checked(&path, &draft, output)? else { return Ok(Exit::CONFIG) };
    let missing = missing(&draft);
    for line in draft.to_fill_in(asks).into_iter().chain(missing.iter().map(|name| format!("set {name}"))) {
        output.note(&format!("to do: {line}"))?;
    }
    if asks && missing.is_empty() {
        return offer_tests(&config, &mut conversation, output);
    }
    output.note("then: vigie check, vigie sink test NAME, vigie run")?;
    Ok(Exit::OK)
}

/// The file that is written: the one that `-c` names.
fn target(global: &Global) -> Result<PathBuf, Failure> {
    match global.config.as_slice() {
        [] => Ok(PathBuf::from("vigie.yaml")),
        [path] if !path.is_dir() => Ok(path.clone()),
        _ => Err(Failure::usage("`init` writes one file: name it with one -c FILE")),
    }
}

/// What flags say, and examples where they say nothing.
fn draft(args: &Args) -> Result<Draft, Failure> {
    let kinds: Vec<&str> = args.sink.iter().map(String::as_str).collect();
    let kinds = if kinds.is_empty() { vec!["stdout"] } else { kinds };
    let mut sinks: Vec<Chosen> = Vec::new();
    for name in kinds {
        let kind = kind(name).map_err(Failure::usage)?;
        if sinks.iter().all(|chosen| chosen.kind.kind != kind.kind) {
            sinks.push(Chosen::of(kind));
        }
    }
    let mut draft = Draft::new(sinks);
    for (name, place) in
        [(&args.key_variable, &mut draft.key_variable), (&args.secret_variable, &mut draft.secret_variable)]
    {
        if !draft::is_variable(name) {
            return Err(Failure::usage(
                "a variable is named by capital letters, digits and `_`; its value is not asked for",
            ));
        }
        place.clone_from(name);
    }
    if !args.pager_severity.is_empty() {
        let severities = args.pager_severity.iter().map(|text| severity(text).map_err(Failure::usage));
        draft.pager_severities = severities.collect::<Result<_, _>>()?;
    }
    Ok(draft)
}

fn kind(name: &str) -> Result<&'static SinkKind, String> {
    KINDS.iter().find(|kind| kind.kind == name).ok_or_else(|| {
        let name_shown = single_line(name, MAX_PATH_CHARS);
        format!("there is no sink of the kind `{name_shown}`: {}", suggestion(name, KINDS.iter().map(|kind| kind.kind)))
    })
}

fn severity(text: &str) -> Result<Severity, String> {
    Severity::ALL.into_iter().find(|severity| severity.as_str() == text).ok_or_else(|| {
        let names: Vec<&str> = Severity::ALL.iter().map(|severity| severity.as_str()).collect();
        format!("`{}` is no severity: {}", single_line(text, MAX_PATH_CHARS), names.join(", "))
    })
}

/// The configuration, the hints beside it, and the shipped rules where there are none.
fn write(path: &Path, draft: &Draft, force: bool, output: &Output) -> Result<(), Failure> {
    let directory = config::directory_of(&path.to_string_lossy());
    let rules = directory.join(RULES);
    if !rules.exists() {
        demo::write_rules(&directory).exit(Exit::STORAGE)?;
        output.note(&format!("wrote the shipped rules to {}", shown(&rules)))?;
    }
    let hints = directory.join(HINTS);
    for (path, text) in [(path, draft.configuration()), (&hints, draft.hints())] {
        match write_new(path, &text, force) {
            Ok(()) => output.note(&format!("wrote {}", shown(path)))?,
            // Somebody's own list of variables; what is missing in it is said below.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path == hints => {
                output.note(&format!("left {} as it is", shown(path)))?;
            }
            Err(error) => {
                let error = anyhow::Error::from(error).context(format!("{} cannot be written", shown(path)));
                return Err(Failure::new(Exit::STORAGE, error));
            }
        }
    }
    Ok(())
}

fn write_new(path: &Path, text: &str, force: bool) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(!force).create(force).truncate(force);
    options.open(path)?.write_all(text.as_bytes())
}

/// What was written, through the loader of `check`; a variable that is not set yet has a stand-in.
fn checked(path: &Path, draft: &Draft, output: &mut Output) -> Result<Option<Config>, Failure> {
    let variables = draft.variables();
    let variable = |name: &str| {
        let kind = variables.iter().find(|variable| variable.name == name).and_then(|variable| variable.kind);
        process_variable(name).filter(|value| !value.is_empty()).or_else(|| Some(stand_in(kind)))
    };
    let surroundings = config::Surroundings { variable: &variable, ..load::surroundings(output) };
    let (config, diagnostics) = config::load(&[path.to_owned()], &surroundings);
    output.diagnostics(&diagnostics)?;
    Ok(config)
}

/// Variables that are not set in this process.
fn missing(draft: &Draft) -> Vec<String> {
    let names = draft.variables().into_iter().map(|variable| variable.name);
    names.filter(|name| process_variable(name).is_none_or(|value| value.is_empty())).collect()
}

fn offer_tests<R: std::io::BufRead, W: std::io::Write>(
    config: &Config,
    conversation: &mut Conversation<R, W>,
    output: &mut Output,
) -> Outcome {
    let mut worst = Exit::OK;
    for named in &config.sinks {
        if !conversation.agrees(&format!("send a test to `{}` now?", named.name))? {
            continue;
        }
        worst = match sink_verb::test(named, false, true, output) {
            Ok(Exit::OK) => worst,
            Ok(exit) => exit,
            Err(failure) => output.fail(&failure),
        };
    }
    Ok(worst)
}

fn shown(path: &Path) -> String {
    single_line(&path.to_string_lossy(), MAX_PATH_CHARS)
}
