//! `stdout`: alerts on the process's standard output, as text for people or as one JSON object a line.
//!
//! It writes through the writer that the process gave and never opens anything. Colour is put on when sending, not when
//! rendering: stored bytes hold no terminal escapes. A closed reader is `Misconfigured`: it will not come back to this
//! process, but the next one can still deliver the backlog.

use std::sync::{Arc, PoisonError};

use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;

use super::format::Shape;
use super::probe::Probe;
use super::text::alert_text;
use super::update::{CLOSING, UPDATES, Update, update_text};
use super::write::{MAX_WRITE, Writing};
use super::{
    AttemptReport, BuildContext, Delivery, RenderContext, RenderError, RetryProfile, SharedWriter, Sink, SinkKind,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;

/// As the configuration knows it.
pub const STDOUT: SinkKind = SinkKind {
    kind: "stdout",
    example: "console:\n  stdout:\n    format: json\n",
    bounds: &[],
    options: &[&[
        OptionSpec {
            name: "format",
            kind: OptionKind::Choice(&["text", "json", "ecs", "ocsf", "cloudevents"]),
            presence: Presence::Default("text"),
            help: "text for people, or one line of JSON an alert: the Alert JSON, or a schema of others",
        },
        UPDATES,
        CLOSING,
    ]],
    build,
};

/// The sink.
pub struct StdoutSink {
    shape: Shape,
    color: bool,
    writer: SharedWriter,
    writing: Writing,
}

/// Builds it from its options.
fn build(options: &Options, _: &str, context: &BuildContext, _: &mut Diagnostics) -> Option<Box<dyn Sink>> {
    Some(Box::new(StdoutSink::new(Shape::of(options), context.color, Arc::clone(&context.stdout))))
}

impl StdoutSink {
    /// Writes to `writer`; `color` only tints the severity of the text form.
    #[must_use]
    pub fn new(shape: Shape, color: bool, writer: SharedWriter) -> Self {
        Self { shape, color, writer, writing: Writing::default() }
    }
}

impl Sink for StdoutSink {
    fn kind(&self) -> &'static str {
        STDOUT.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let mut line = match self.shape {
            Shape::Text => alert_text(alert, context.delivery_id).into_bytes(),
            Shape::Json(format) => format.alert(alert, context, usize::MAX)?,
        };
        line.push(b'\n');
        Ok(line)
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let mut line = match self.shape {
            Shape::Text => update_text(update, context.delivery_id).into_bytes(),
            Shape::Json(format) => format.update(update, context)?,
        };
        line.push(b'\n');
        Ok(line)
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        let writer = Arc::clone(&self.writer);
        let bytes =
            if self.color && self.shape == Shape::Text { tinted(&delivery.body) } else { delivery.body.clone() };
        Box::pin(self.writing.attempt(&delivery.delivery_id, MAX_WRITE, move || {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.write_all(&bytes)?;
            writer.flush()
        }))
    }

    fn probe(&self) -> Probe<'_> {
        Probe::Nothing("whether anybody reads it shows when it is written to")
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;
    use crate::sink::contract::{self, HOSTILE, alert_titled, delivery, text_node};
    use crate::sink::{Form, Outcome};

    #[tokio::test]
    async fn json_is_one_line_an_alert() {
        let (context, written) = contract::context();
        let sink = contract::build("stdout", vec![("format", text_node("json"))], &context).expect("builds");
        for form in [Form::Full, Form::Plain] {
            let report = sink.send(&delivery(&*sink, &alert_titled(HOSTILE), form)).await;
            assert_eq!((report.outcome, report.status.as_str()), (Outcome::Delivered, "written"));
        }
        let written = String::from_utf8(written.lock().expect("not poisoned").clone()).expect("UTF-8");
        let lines: Vec<serde_json::Value> =
            written.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["title"], &lines[0]["event"]["id"]), (&HOSTILE.into(), &"e-1".into()));
        assert!(lines[1]["event"].is_null());
    }

    #[tokio::test]
    async fn colour_is_put_on_when_sending_and_never_stored() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = StdoutSink::new(Shape::Text, true, written.clone());
        let rendered = delivery(&sink, &alert_titled("t"), Form::Full);
        assert!(rendered.body.starts_with(b"HIGH     t\n") && !rendered.body.contains(&0x1b));
        sink.send(&rendered).await;
        assert!(written.lock().expect("not poisoned").starts_with(b"\x1b[1;31mHIGH\x1b[0m     t\n"));
        assert_eq!(tinted(b"other"), b"other");
    }

    struct Failing(io::ErrorKind);

    impl io::Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_closed_reader_pauses_the_lane_and_a_full_disk_is_retried() {
        for (kind, outcome) in [
            (io::ErrorKind::BrokenPipe, Outcome::Misconfigured),
            (io::ErrorKind::StorageFull, Outcome::Retry),
            (io::ErrorKind::Other, Outcome::Retry),
        ] {
            let sink = StdoutSink::new(Shape::Text, false, Arc::new(Mutex::new(Failing(kind))));
            let report = sink.send(&delivery(&sink, &alert_titled("t"), Form::Full)).await;
            assert_eq!(report.outcome, outcome, "{report:?}");
        }
    }
}
