//! `stdout`: alerts on the process's standard output, as text for people or as one JSON object a line.
//!
//! It writes through the writer that the process gave and never opens anything. Colour is put on when sending, not when
//! rendering: stored bytes hold no terminal escapes. A closed reader is `Misconfigured`: it will not come back to this
//! process, but the next one can still deliver the backlog.

use std::sync::{Arc, PoisonError};

use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;

use super::format::{alert_json, lean_alert_json};
use super::text::alert_text;
use super::write::{MAX_WRITE, Writing};
use super::{
    AttemptReport, BuildContext, Delivery, Form, RenderContext, RenderError, RetryProfile, SharedWriter, Sink,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;

/// Key in the YAML.
pub const KIND: &str = "stdout";

/// Its options.
pub const OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "format",
    kind: OptionKind::Choice(&["text", "json"]),
    presence: Presence::Default("text"),
    help: "text for people, or json with one Alert JSON a line",
}];

/// What it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One Alert JSON a line.
    Json,
}

/// The sink.
pub struct StdoutSink {
    format: Format,
    color: bool,
    writer: SharedWriter,
    writing: Writing,
}

/// Builds it from its options.
pub fn build(options: &Options, _: &str, context: &BuildContext, _: &mut Diagnostics) -> Option<Box<dyn Sink>> {
    let format = if options.text("format") == Some("json") { Format::Json } else { Format::Text };
    Some(Box::new(StdoutSink::new(format, context.color, Arc::clone(&context.stdout))))
}

impl StdoutSink {
    /// Writes to `writer`; `color` only tints the severity of the text form.
    #[must_use]
    pub fn new(format: Format, color: bool, writer: SharedWriter) -> Self {
        Self { format, color, writer, writing: Writing::default() }
    }
}

impl Sink for StdoutSink {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let mut line = match (self.format, context.form) {
            (Format::Text, Form::Full | Form::Plain) => alert_text(alert, context.delivery_id).into_bytes(),
            (Format::Json, Form::Full) => alert_json(alert, context.delivery_id)?,
            (Format::Json, Form::Plain) => lean_alert_json(alert, context.delivery_id)?,
        };
        line.push(b'\n');
        Ok(line)
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        let writer = Arc::clone(&self.writer);
        let bytes =
            if self.color && self.format == Format::Text { tinted(&delivery.body) } else { delivery.body.clone() };
        Box::pin(self.writing.attempt(&delivery.delivery_id, MAX_WRITE, move || {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.write_all(&bytes)?;
            writer.flush()
        }))
    }
}

/// The first word is the severity; anything else stays as it is.
fn tinted(body: &[u8]) -> Vec<u8> {
    let end = body.iter().position(|byte| !byte.is_ascii_uppercase()).unwrap_or(body.len());
    let (word, rest) = body.split_at(end);
    let color: &[u8] = match word {
        b"CRITICAL" => b"1;37;41",
        b"HIGH" => b"1;31",
        b"MEDIUM" => b"1;33",
        b"LOW" => b"36",
        b"INFO" => b"2",
        _ => return body.to_vec(),
    };
    [b"\x1b[", color, b"m", word, b"\x1b[0m", rest].concat()
}
