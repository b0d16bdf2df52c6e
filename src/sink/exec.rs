//! `exec`: a program of the operator's own, the alert as JSON on its standard input. Its end is the answer: 0 has it, 65 will
//! never take it (a dead letter), 126 and 127 are no program, anything else comes again: most programs that fail say no more
//! than 1, and that is no reason to lose an alert.
//!
//! There is no shell, and no environment but `PATH`, `VIGIE_ALERT_ID` and `VIGIE_DELIVERY_ID`: nothing of an event can become
//! a word of a command, and none of this process's secrets is handed on. What the program prints is kept as the excerpt,
//! without its arguments. What it starts belongs to its group and is ended with it.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;

use super::format::{FORMAT, Format};
use super::http::MAX_ANSWER_BYTES;
use super::http::redact::Redactor;
use super::probe::{Probe, look};
use super::update::{CLOSING, UPDATES, Update};
use super::{
    AttemptReport, BuildContext, Delivery, Outcome, RenderContext, RenderError, RetryProfile, Sink, SinkKind, burst,
    rate,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;

/// As the configuration knows it.
pub const EXEC: SinkKind = SinkKind {
    kind: "exec",
    example: "page:\n  exec:\n    command: [/usr/local/bin/page-me, --quiet]\n    timeout: 5s\n",
    bounds: &[],
    options: &[&[
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
        FORMAT,
        UPDATES,
        CLOSING,
        rate(Presence::Optional),
        burst("1"),
    ]],
    build,
};

/// The end that says that the alert itself is the trouble (EX_DATAERR of sysexits.h).
const NEVER: i32 = 65;
/// How shells and `env` say that what they were to start cannot be started, or is not there.
const NO_PROGRAM: std::ops::RangeInclusive<i32> = 126..=127;
/// How long after the program's end is waited for what it printed: what it started may hold the pipes for ever.
const PIPES_CLOSE: Duration = Duration::from_millis(200);
/// Linux and the BSDs: a file that may be executed and is no program.
const ENOEXEC: i32 = 8;
/// What a program finds other programs by.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The sink.
struct ExecSink {
    program: String,
    arguments: Vec<String>,
    timeout: Duration,
    format: Format,
    redactor: Redactor,
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
    let redactor = Redactor::of_arguments(arguments);
    let (program, arguments, format) = (program.clone(), arguments.to_vec(), Format::of(options));
    Some(Box::new(ExecSink { program, arguments, timeout, format, redactor }))
}

impl ExecSink {
    async fn attempt(&self, delivery: &Delivery) -> AttemptReport {
        let mut child = match self.start(delivery) {
            Ok(child) => child,
            Err(error) => return unstarted(&error),
        };
        let group = Group::of(&child);
        let conversed = timeout(self.timeout, converse(&mut child, &delivery.body)).await;
        // Whatever it left behind must not go on beside another attempt.
        drop(group);
        match conversed {
            Ok(Ok((status, said))) => report(outcome(status), &told(status), self.redactor.excerpt(&said)),
            Ok(Err(error)) => report(Outcome::Retry, "the program cannot be waited for", error.to_string()),
            Err(_) => {
                let ended = child.wait().await;
                report(Outcome::Retry, "timed out", ended.err().map(|error| error.to_string()).unwrap_or_default())
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
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// A file that this user may execute; whether it is a program shows when it runs.
fn executable(program: &str) -> io::Result<()> {
    if std::fs::metadata(program)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(access(program, Access::EXEC_OK)?)
}

/// A program and all that it started; ended when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
            && error != Errno::SRCH
        {
            tracing::warn!(?error, "what a program of an exec sink has started cannot be ended");
        }
    }
}

/// Hands the body over, reads what it prints, and waits for its end.
async fn converse(child: &mut Child, body: &[u8]) -> io::Result<(ExitStatus, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut printed, mut complained) = (Vec::new(), Vec::new());
    let status = {
        let pipes =
            async { tokio::join!(hand_over(stdin, body), read(stdout, &mut printed), read(stderr, &mut complained)) };
        tokio::pin!(pipes);
        tokio::select! {
            (handed, out, error) = &mut pipes => {
                handed.and(out).and(error)?;
                child.wait().await?
            }
            status = child.wait() => {
                // It has ended: what is in the pipes is soon read, and what holds them open is not waited for.
                if let Ok((_, out, error)) = timeout(PIPES_CLOSE, &mut pipes).await {
                    out.and(error)?;
                }
                status?
            }
        }
    };
    Ok((status, [complained, printed].concat()))
}

async fn hand_over(stdin: Option<ChildStdin>, body: &[u8]) -> io::Result<()> {
    let Some(mut stdin) = stdin else { return Ok(()) };
    match stdin.write_all(body).await {
        // It need not read all of it, or any.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// The first [`MAX_ANSWER_BYTES`]; the rest is read and dropped, for a full pipe would hold the program.
async fn read(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) -> io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut buffer = [0; 4096];
    loop {
        let count = pipe.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
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
    report(outcome, "the program cannot be started", error.to_string())
}

fn outcome(status: ExitStatus) -> Outcome {
    match status.code() {
        Some(0) => Outcome::Delivered,
        Some(NEVER) => Outcome::Dead,
        Some(code) if NO_PROGRAM.contains(&code) => Outcome::Misconfigured,
        // A failure, or a signal: the machine's doing, as a rule, and not the alert's.
        Some(_) | None => Outcome::Retry,
    }
}

fn told(status: ExitStatus) -> String {
    status.code().map_or_else(|| "ended by a signal".to_owned(), |code| format!("exit {code}"))
}

fn report(outcome: Outcome, status: &str, excerpt: String) -> AttemptReport {
    AttemptReport { outcome, status: status.to_owned(), excerpt, spent: None, receipt: None }
}

impl std::fmt::Debug for ExecSink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An argument may be a secret.
        formatter.debug_struct("ExecSink").field("program", &self.program).finish_non_exhaustive()
    }
}

impl Sink for ExecSink {
    fn kind(&self) -> &'static str {
        EXEC.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        self.format.alert(alert, context, usize::MAX)
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        self.format.update(update, context)
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.attempt(delivery))
    }

    fn probe(&self) -> Probe<'_> {
        let program = self.program.clone();
        Probe::Asks(Box::pin(async move {
            vec![look("the program", "it is there and may be executed", move || executable(&program)).await]
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Form;
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
            ("echo no; exit 1", Outcome::Retry, "exit 1", "no"),
            ("exit 65", Outcome::Dead, "exit 65", ""),
            ("no-such-program-at-all", Outcome::Misconfigured, "exit 127", ""),
            ("exit 0", Outcome::Delivered, "exit 0", ""),
            ("kill -9 $$", Outcome::Retry, "ended by a signal", ""),
            ("printf 'a\\033[2Jb'", Outcome::Delivered, "exit 0", "a\\u{1b}[2Jb"),
        ] {
            let report = attempt(&*running(script, "10s")).await;
            assert_eq!((report.outcome, report.status.as_str()), (outcome, status), "{script}");
            assert!(status == "exit 127" || report.excerpt == excerpt, "{script}: {}", report.excerpt);
        }
    }

    #[tokio::test]
    async fn it_gets_the_alert_its_ids_and_nothing_else_of_this_process() {
        let script = r#"printf '%s ' "${VIGIE_ALERT_ID%%a*}"; env | cut -d= -f1 | sort | tr '\n' ' '; head -c 25"#;
        let report = attempt(&*running(script, "10s")).await;
        let expected = "0123456789 PATH PWD VIGIE_ALERT_ID VIGIE_DELIVERY_ID ";
        let said = report.excerpt.replace("_ ", "").replace("SHLVL ", "").replace("OLDPWD ", "");
        assert_eq!(said, format!("{expected}{{\"schema\":\"vigie/alert/v1"));
    }

    #[tokio::test]
    async fn one_that_runs_too_long_is_ended_and_one_that_prints_without_end_holds_nothing_up() {
        let report = attempt(&*running("exec sleep 60", "100ms")).await;
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "timed out"));
        let report = attempt(&*running("head -c 1000000 /dev/zero; exit 3", "10s")).await;
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "exit 3"));
    }

    #[tokio::test]
    async fn what_it_leaves_behind_neither_holds_it_up_nor_outlives_it() {
        let report = attempt(&*running("sleep 60 & exit 0", "10s")).await;
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Delivered, "exit 0"));
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("pid");
        let script = format!("sleep 60 & echo $! > {}; wait; true", file.display());
        let report = attempt(&*running(&script, "500ms")).await;
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "timed out"));
        let pid = std::fs::read_to_string(file).expect("it began");
        let stat = format!("/proc/{}/stat", pid.trim());
        // Gone, dead and not yet collected by whoever collects orphans, or (field 31 of proc(5)) about to take its SIGKILL.
        let state = std::fs::read_to_string(stat).unwrap_or_else(|_| "0 (sleep) Z".into());
        let pending = state.split_whitespace().nth(30).and_then(|signals| signals.parse::<u64>().ok());
        let is_killed = pending.is_some_and(|signals| signals & (1 << 8) != 0);
        assert!(state.contains(") Z") || state.contains(") X") || is_killed, "{state}");
    }

    #[tokio::test]
    async fn an_argument_is_a_secret_to_all_but_the_program() {
        let command = ["/bin/sh", "-c", "echo \"no such token: $0\" >&2; exit 1", contract::CANARY];
        let command = list_node(command.map(text_node).into());
        let sink = contract::build("exec", vec![("command", command)], &contract::context().0).expect("builds");
        let report = attempt(&*sink).await;
        assert_eq!(report.excerpt, "no such token: [redacted]");
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
