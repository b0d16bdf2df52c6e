//! `exec`: a program of the operator's own, the Alert JSON on its standard input. Its end is the answer: 0 has it, 75 (the
//! usual "try again later") comes again, anything else is a dead letter.
//!
//! There is no shell, and no environment but `PATH`, `VIGIE_ALERT_ID` and `VIGIE_DELIVERY_ID`: nothing of an event can become
//! a word of a command, and none of this process's secrets is handed on. What the program prints is kept as the excerpt.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::text::single_line;

use super::format::{alert_json, lean_alert_json};
use super::http::MAX_ANSWER_BYTES;
use super::update::{CLOSING, UPDATES, Update, update_json};
use super::{
    AttemptReport, BuildContext, Delivery, Form, MAX_EXCERPT_CHARS, Outcome, RenderContext, RenderError, RetryProfile,
    Sink, SinkKind, burst, rate,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;

/// As the configuration knows it.
pub const EXEC: SinkKind = SinkKind {
    kind: "exec",
    options: &[
        OptionSpec {
            name: "command",
            kind: OptionKind::Texts,
            presence: Presence::Required,
            help: "the program by its absolute path, and its arguments as further texts of a list; no shell reads them",
        },
        OptionSpec {
            name: "timeout",
            kind: OptionKind::Duration(100, 15_000),
            presence: Presence::Default("10s"),
            help: "a program that runs longer is ended, and the alert comes again",
        },
        UPDATES,
        CLOSING,
        rate(Presence::Optional),
        burst("1"),
    ],
    build,
};

/// The end that asks for another attempt (EX_TEMPFAIL of sysexits.h).
const TRY_AGAIN: i32 = 75;
/// Linux and the BSDs: a file that may be executed and is no program.
const ENOEXEC: i32 = 8;
/// What a program finds other programs by.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The sink.
#[derive(Debug)]
struct ExecSink {
    program: String,
    arguments: Vec<String>,
    timeout: Duration,
}

fn build(options: &Options, name: &str, _: &BuildContext, diagnostics: &mut Diagnostics) -> Option<Box<dyn Sink>> {
    let (program, arguments) = options.texts("command").split_first()?;
    if !program.starts_with('/') {
        let message = format!("sink `{name}`: `command` begins with `{program}`, which is no absolute path");
        let hint = "such as [/usr/local/bin/page-me, --quiet]: what runs must not depend on where Vigie was started";
        diagnostics.error("E0443", options.span_of("command"), message, Some(hint.into()));
        return None;
    }
    let timeout = options.duration("timeout")?;
    Some(Box::new(ExecSink { program: program.clone(), arguments: arguments.to_vec(), timeout }))
}

impl ExecSink {
    async fn attempt(&self, delivery: &Delivery) -> AttemptReport {
        let mut child = match self.start(delivery) {
            Ok(child) => child,
            Err(error) => return unstarted(&error),
        };
        match timeout(self.timeout, converse(&mut child, &delivery.body)).await {
            Ok(Ok((status, said))) => ended(status, &said),
            Ok(Err(error)) => report(Outcome::Retry, "the program cannot be waited for", &error.to_string()),
            Err(_) => {
                // Dropping it would end it too; here its end is waited for, so that it is not there twice.
                let ended = child.kill().await;
                report(Outcome::Retry, "timed out", &ended.err().map(|error| error.to_string()).unwrap_or_default())
            }
        }
    }

    fn start(&self, delivery: &Delivery) -> io::Result<Child> {
        Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("VIGIE_ALERT_ID", &delivery.alert_id)
            .env("VIGIE_DELIVERY_ID", &delivery.delivery_id)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// Hands the body over, reads what it prints, and waits for its end.
async fn converse(child: &mut Child, body: &[u8]) -> io::Result<(ExitStatus, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let hand_over = async {
        let Some(mut stdin) = stdin else { return Ok(()) };
        match stdin.write_all(body).await {
            // It need not read all of it, or any.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    };
    let (handed, printed, complained) = tokio::join!(hand_over, read(stdout), read(stderr));
    handed?;
    let said = [complained?, printed?].concat();
    Ok((child.wait().await?, said))
}

/// The first [`MAX_ANSWER_BYTES`]; the rest is read and dropped, for a full pipe would hold the program.
async fn read(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return Ok(kept) };
    let mut buffer = [0; 4096];
    loop {
        let count = pipe.read(&mut buffer).await?;
        if count == 0 {
            return Ok(kept);
        }
        let room = MAX_ANSWER_BYTES - kept.len();
        kept.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
    }
}

/// A program that is not there needs a person, and the backlog is kept for then.
fn unstarted(error: &io::Error) -> AttemptReport {
    let outcome = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => {
            Outcome::Misconfigured
        }
        _ if error.raw_os_error() == Some(ENOEXEC) => Outcome::Misconfigured,
        _ => Outcome::Retry,
    };
    report(outcome, "the program cannot be started", &error.to_string())
}

fn ended(status: ExitStatus, said: &[u8]) -> AttemptReport {
    let said = String::from_utf8_lossy(said);
    match status.code() {
        Some(0) => report(Outcome::Delivered, "exit 0", &said),
        Some(TRY_AGAIN) => report(Outcome::Retry, "exit 75", &said),
        Some(code) => report(Outcome::Dead, &format!("exit {code}"), &said),
        // Ended by a signal: the machine's doing, not the alert's.
        None => report(Outcome::Retry, "ended by a signal", &said),
    }
}

fn report(outcome: Outcome, status: &str, said: &str) -> AttemptReport {
    let excerpt = single_line(said.trim_end(), MAX_EXCERPT_CHARS);
    AttemptReport { outcome, status: status.to_owned(), excerpt, spent: None }
}

impl Sink for ExecSink {
    fn kind(&self) -> &'static str {
        EXEC.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        match context.form {
            Form::Full => alert_json(alert, context.delivery_id),
            Form::Plain => lean_alert_json(alert, context.delivery_id),
        }
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        update_json(update, context.delivery_id)
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.attempt(delivery))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::contract::{self, HOSTILE, alert_titled, delivery, list_node, text_node};

    /// A shell reads only what the test wrote.
    fn running(script: &str, timeout: &str) -> Box<dyn Sink> {
        let command = list_node(["/bin/sh", "-c", script].map(text_node).into());
        contract::build("exec", vec![("command", command), ("timeout", text_node(timeout))], &contract::context().0)
            .expect("builds")
    }

    async fn attempt(sink: &dyn Sink) -> AttemptReport {
        sink.send(&delivery(sink, &alert_titled(HOSTILE), Form::Full)).await
    }

    #[tokio::test]
    async fn its_end_is_the_answer() {
        for (script, outcome, status, excerpt) in [
            ("cat >/dev/null; echo taken", Outcome::Delivered, "exit 0", "taken"),
            ("echo busy >&2; exit 75", Outcome::Retry, "exit 75", "busy"),
            ("echo no; exit 1", Outcome::Dead, "exit 1", "no"),
            ("exit 0", Outcome::Delivered, "exit 0", ""),
            ("kill -9 $$", Outcome::Retry, "ended by a signal", ""),
            ("printf 'a\\033[2Jb'", Outcome::Delivered, "exit 0", "a\\u{1b}[2Jb"),
        ] {
            let report = attempt(&*running(script, "10s")).await;
            assert_eq!((report.outcome, report.status.as_str(), report.excerpt.as_str()), (outcome, status, excerpt));
        }
    }

    #[tokio::test]
    async fn it_gets_the_alert_its_ids_and_nothing_else_of_this_process() {
        let script = r#"printf '%s ' "$VIGIE_ALERT_ID"; env | cut -d= -f1 | sort | tr '\n' ' '; head -c 25"#;
        let report = attempt(&*running(script, "10s")).await;
        let expected = "0123456789abcdef0123456789abcdef PATH PWD VIGIE_ALERT_ID VIGIE_DELIVERY_ID ";
        let said = report.excerpt.replace("_ ", "").replace("SHLVL ", "").replace("OLDPWD ", "");
        assert_eq!(said, format!("{expected}{{\"schema\":\"vigie/alert/v1"));
    }

    #[tokio::test]
    async fn one_that_runs_too_long_is_ended_and_one_that_prints_without_end_holds_nothing_up() {
        let report = attempt(&*running("exec sleep 60", "100ms")).await;
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "timed out"));
        let report = attempt(&*running("head -c 1000000 /dev/zero; exit 3", "10s")).await;
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Dead, "exit 3"));
    }

    #[tokio::test]
    async fn one_that_is_not_there_keeps_the_backlog() {
        for program in ["/no/such/program", "/etc/passwd", "/"] {
            let command = vec![("command", text_node(program))];
            let sink = contract::build("exec", command, &contract::context().0).expect("builds");
            let report = attempt(&*sink).await;
            assert_eq!(report.outcome, Outcome::Misconfigured, "{program}: {report:?}");
        }
        let told = contract::build("exec", vec![("command", text_node("page-me"))], &contract::context().0);
        let told = told.err().expect("refused");
        assert!(told.contains("E0443") && told.contains("no absolute path"), "{told}");
    }
}
