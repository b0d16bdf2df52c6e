//! The binary under test in a directory of its own. Processes are ended by their own id, also when a test fails.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

/// No step of a test takes longer on a busy machine; beyond it the test fails instead of hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An alert for each event, and for nothing else.
pub(crate) const EVERY_EVENT: &str = r#"
rules:
  - id: every-event
    title: Every event
    severity: high
    when: {event_type: "*", source: CD}
    tests:
      - {name: any, events: [{event_type: APP_CREATE, source: CD}], expect: alert}
"#;

/// A working directory with a configuration.
pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: TempDir::new().expect("a temporary directory") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file below the directory.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// The binary with these arguments, in this directory, with an empty environment but for PATH.
    #[expect(clippy::disallowed_methods, reason = "the search path is the only thing that the tested process inherits")]
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vigie"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let output = tokio::time::timeout(PATIENCE, self.command(arguments).output()).await;
        output.expect("it ends").expect("it starts")
    }

    /// Starts it; what it says goes to `stdout.log` and `stderr.log`, so that a failing test can show it.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.file("stderr.log")).expect("a log");
        let out = std::fs::OpenOptions::new().create(true).append(true).open(self.file("stdout.log")).expect("a log");
        let child = self.command(arguments).stdout(out).stderr(log).spawn().expect("it starts");
        Running { child }
    }

    /// Writes `vigie.yaml` and the rule [`EVERY_EVENT`]; `rest` is sinks and whatever else.
    pub(crate) fn configure(&self, api: &crate::api::Api, rest: &str) {
        self.configure_with(api, EVERY_EVENT, rest);
    }

    pub(crate) fn configure_with(&self, api: &crate::api::Api, rules: &str, rest: &str) {
        self.write("rules/all.yaml", rules);
        let (key, secret, url) = (crate::api::KEY, crate::api::SECRET, &api.base_url);
        let account = format!("api_key: {key}, api_secret: {secret}, base_url: \"{url}\"");
        let source = format!("main: {{vonage_audit: {{{account}, poll_interval: 200ms, start: 1h}}}}");
        self.write("vigie.yaml", &format!("sources:\n  {source}\nrules: [rules/]\n{rest}"));
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.file("stderr.log")).unwrap_or_default()
    }
}

/// A process that runs.
pub(crate) struct Running {
    child: Child,
}

impl From<Child> for Running {
    fn from(child: Child) -> Self {
        Self { child }
    }
}

impl Running {
    /// kill -9.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Sends a signal by name and waits for the end.
    pub(crate) async fn end(mut self, signal: &str) -> ExitStatus {
        self.signal(signal).await;
        self.wait().await
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &id]).status().await.expect("kill runs");
        assert!(status.success(), "signal {signal} to {id}");
    }

    pub(crate) async fn wait(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("it can be waited for")
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }
}

/// A port on loopback where nothing listens.
pub(crate) fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// What a page of the console says: status and body.
pub(crate) async fn page(port: u16, path: &str) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer))
}

/// Waits until another process is where it should be; there is no signal to wait for, so it is asked again and again.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, asking).await.is_ok(), "not within {PATIENCE:?}: {what}");
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
