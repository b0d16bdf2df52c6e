//! What the user sees: data on stdout, diagnostics and errors on stderr, colours where they are wanted.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use vigie_engine::diagnostic::{Diagnostics, Level};

use super::exit::{Exit, Failure};
use super::{Color, Form, Global};

/// The terminal of this process.
pub(super) struct Output {
    form: Form,
    quiet: bool,
    color: bool,
    stdout: io::Stdout,
}

impl Output {
    pub(super) fn new(global: &Global) -> Self {
        let no_color = crate::config::process_variable("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => !no_color && io::stdout().is_terminal(),
        };
        Self { form: global.output, quiet: global.quiet, color, stdout: io::stdout() }
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    pub(super) fn color(&self) -> bool {
        self.color
    }

    /// stdout for a sink that writes to it.
    pub(super) fn writer(&self) -> Arc<Mutex<dyn Write + Send>> {
        Arc::new(Mutex::new(io::stdout()))
    }

    /// A line of data.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.stdout, "{text}")
    }

    /// A JSON document: indented, or on one line for ndjson.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = match self.form {
            Form::Ndjson => serde_json::to_string(value),
            Form::Human | Form::Json => serde_json::to_string_pretty(value),
        };
        let inert = crate::sink::format::inert_json(&text.map_err(io::Error::other)?);
        writeln!(self.stdout, "{inert}")
    }

    /// A remark for people, on stderr.
    pub(super) fn note(&self, text: &str) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        writeln!(io::stderr(), "{text}")
    }

    /// All findings: text on stderr, or JSON on stdout.
    pub(super) fn diagnostics(&mut self, diagnostics: &Diagnostics) -> io::Result<()> {
        let findings = diagnostics.sorted();
        match self.form {
            Form::Json => return self.json(&findings),
            Form::Ndjson => return findings.iter().try_for_each(|finding| self.json(finding)),
            Form::Human => {}
        }
        let mut stderr = io::stderr().lock();
        for finding in &findings {
            if self.quiet && finding.level == Level::Warning {
                continue;
            }
            writeln!(stderr, "{}", finding.render())?;
        }
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        let (errors, warnings) = (count(Level::Error), count(Level::Warning));
        if errors + warnings > 0 {
            writeln!(stderr, "{}, {}", counted(errors, "error"), counted(warnings, "warning"))?;
        }
        Ok(())
    }

    /// Says why it failed, with the chain of causes.
    pub(super) fn fail(&self, failure: &Failure) -> Exit {
        if failure.exit != Exit::OK {
            let chain: Vec<String> = failure.error.chain().map(ToString::to_string).collect();
            let text = vigie_engine::text::single_line(&chain.join(": "), 4_000);
            // Without a stderr the exit code is all that can be said.
            if writeln!(io::stderr(), "vigie: {text}").is_err() {
                return failure.exit;
            }
        }
        failure.exit
    }
}

/// `1 error`, `2 errors`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
