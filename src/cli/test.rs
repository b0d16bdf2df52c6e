//! `vigie test PATH...`: runs the tests inside rule files.

use std::path::PathBuf;

use regex::Regex;
use vigie_engine::rule::check;

use super::exit::{Exit, Failure, Outcome};
use super::output::{Output, counted};
use super::{Form, progress};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Rule files, or directories of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Only rules whose id matches
    #[arg(long, value_name = "REGEX")]
    run: Option<String>,
}

pub(super) fn run(args: Args, output: &mut Output) -> Outcome {
    let only = args.run.as_deref().map(Regex::new).transpose();
    let only = only.map_err(|error| Failure::usage(format!("--run takes a regular expression: {error}")))?;
    let (rules, diagnostics) = crate::config::load_rules(&args.paths);
    if diagnostics.has_errors() {
        output.diagnostics(&diagnostics)?;
        return Ok(Exit::CONFIG);
    }
    let chosen: Vec<_> = rules.iter().filter(|rule| only.as_ref().is_none_or(|only| only.is_match(&rule.id))).collect();
    if chosen.is_empty() {
        return Err(Failure::text(Exit::EXPECTATION, "no rule was tested"));
    }
    let bar = progress::bar(Some(chosen.len() as u64), "rules", false);
    let mut results = Vec::new();
    for rule in &chosen {
        results.extend(check::run_tests(rule));
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some(path) = &args.junit {
        std::fs::write(path, check::junit(&results))
            .map_err(|error| Failure::text(Exit::STORAGE, format!("{} cannot be written: {error}", path.display())))?;
    }
    report(&results, chosen.len(), output)
}

fn report(results: &[check::TestResult], rules: usize, output: &mut Output) -> Outcome {
    let failed: Vec<_> = results.iter().filter(|result| result.failure.is_some()).collect();
    match output.form() {
        Form::Human => {
            for result in &failed {
                output.line(&describe(result))?;
            }
            let passed = results.len() - failed.len();
            output.line(&format!("{}: {passed} passed, {} failed", counted(rules, "rule"), failed.len()))?;
        }
        Form::Json => output.json(&results.iter().map(as_json).collect::<Vec<_>>())?,
        Form::Ndjson => results.iter().try_for_each(|result| output.json(&as_json(result)))?,
    }
    Ok(if failed.is_empty() { Exit::OK } else { Exit::EXPECTATION })
}

fn describe(result: &check::TestResult) -> String {
    let place = format!("{}:{}", result.span.path, result.span.line);
    let failure = result.failure.as_ref();
    let message = failure.map_or("passed", |failure| &failure.message);
    let detail =
        failure.and_then(|failure| failure.detail.as_deref()).map_or_else(String::new, |text| format!("\n  {text}"));
    format!("{place}: {}: {}: {message}{detail}", result.rule_id, result.name)
}

fn as_json(result: &check::TestResult) -> serde_json::Value {
    serde_json::json!({
        "rule_id": result.rule_id,
        "name": result.name,
        "passed": result.failure.is_none(),
        "failure": result.failure.as_ref().map(|failure| &failure.message),
        "detail": result.failure.as_ref().and_then(|failure| failure.detail.as_deref()),
        "path": result.span.path,
        "line": result.span.line,
    })
}
