//! A million remembered values: what they cost in memory and on disk, how long a start with them takes, and how fast events
//! are taken while they are there.
//!
//! The release binary reads a file of log-ins, 100,000 people from 10 addresses each, under one `first_seen` rule. Nothing
//! is simulated: each value is a row that was committed with its event.

#[path = "shared/binary.rs"]
mod binary;
#[path = "shared/figures.rs"]
mod figures;

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::Context;
use binary::binary;
use figures::{print, print_fsync, scratch};

const PEOPLE: u32 = 100_000;
const ADDRESSES: u32 = 10;
/// Log-ins from known addresses, read while all values are remembered.
const MORE: u32 = 200_000;
/// A start takes some seconds.
const GIVE_UP: Duration = Duration::from_secs(60);
/// How often the process is looked at while it runs.
const LOOK: Duration = Duration::from_millis(20);
const MEGABYTE: f64 = 1_000_000.0;

const CONFIGURATION: &str = "
sources: {log: {ndjson: {path: log.jsonl}}}
rules: [rule.yaml]
sinks: {trail: {file: {path: alerts.jsonl}}}
state: {dir: state}
";

const RULE: &str = "
rules:
  - id: new-address
    title: A new address
    severity: low
    when: {event_type: USER_LOGIN}
    first_seen: {of: source_ip, by: user_email, max_keys: 2000000}
    tests:
      - name: learns
        events: [{event_type: USER_LOGIN, created_at: '2026-03-01T00:00:00Z', user_email: a@example.org, source_ip: 10.0.0.1}]
        expect: nothing
      - name: a new one
        events:
          - {event_type: USER_LOGIN, created_at: '2026-01-01T00:00:00Z', user_email: a@example.org, source_ip: 10.0.0.1}
          - {event_type: USER_LOGIN, created_at: '2026-03-01T00:00:00Z', user_email: a@example.org, source_ip: 10.0.0.2}
        expect: alert
";

fn main() -> anyhow::Result<()> {
    let directory = scratch()?;
    let path = directory.path();
    print_fsync(path)?;
    std::fs::write(path.join("vigie.yaml"), CONFIGURATION)?;
    std::fs::write(path.join("rule.yaml"), RULE)?;
    File::create(path.join("log.jsonl"))?;
    let empty = run(path)?;

    let values = PEOPLE * ADDRESSES;
    write(path, 0..values)?;
    let filled = run(path)?;
    let state_bytes = state_bytes(path)?;
    let restarted = run(path)?;
    let ready = until_ready(path)?;
    write(path, values..values + MORE)?;
    let more = run(path)?;

    let rate = f64::from(values) / (filled.took - empty.took).as_secs_f64();
    print(
        "ingest while 1,000,000 values are learned",
        &format!("{rate:.0} events/s"),
        aim("10,000 events/s", rate >= 1e4),
    );
    let rate = f64::from(MORE) / more.took.saturating_sub(restarted.took).as_secs_f64();
    print(
        "ingest with 1,000,000 values remembered",
        &format!("{rate:.0} events/s"),
        aim("10,000 events/s", rate >= 1e4),
    );
    let (ready_s, whole_s) = (ready.as_secs_f64(), restarted.took.as_secs_f64());
    print("restart with them, until it polls", &format!("{ready_s:.2} s"), aim("2 s or less", ready_s <= 2.0));
    print("start, load and end with them", &format!("{whole_s:.2} s"), None);
    let own = restarted.resident - empty.resident;
    let each = own / f64::from(values);
    print("resident memory of them", &format!("{:.0} MB, {each:.0} B each", own / MEGABYTE), None);
    let each = state_bytes / f64::from(values);
    print("their rows in the store", &format!("{:.0} MB, {each:.0} B each", state_bytes / MEGABYTE), None);
    Ok(())
}

fn aim(text: &'static str, holds: bool) -> Option<(&'static str, bool)> {
    Some((text, holds))
}

/// Appends log-ins, one a second, by everybody in turn; after ten rounds the addresses come again.
fn write(directory: &Path, numbers: std::ops::Range<u32>) -> anyhow::Result<()> {
    let mut log = BufWriter::new(File::options().append(true).open(directory.join("log.jsonl"))?);
    for number in numbers {
        let (person, address) = (number % PEOPLE, number / PEOPLE % ADDRESSES);
        let at = chrono::DateTime::from_timestamp(1_772_323_200 + i64::from(number), 0).unwrap_or_default();
        writeln!(
            log,
            r#"{{"id":"{number:036}","created_at":"{}","event_type":"USER_LOGIN","event_type_description":"A user logged in","account_id":"abcd1234","source":"CD","source_ip":"10.{}.{}.{address}","source_country":"GB","user_id":"{person}","user_email":"user{person}@example.org"}}"#,
            at.format("%Y-%m-%dT%H:%M:%SZ"),
            person / 250 % 250,
            person % 250,
        )?;
    }
    Ok(log.flush()?)
}

struct Run {
    took: Duration,
    /// The last that was seen of it, in bytes.
    resident: f64,
}

/// One finite run of the program, from its start to its end.
fn run(directory: &Path) -> anyhow::Result<Run> {
    let log = File::create(directory.join("stderr.log"))?;
    let mut command = Command::new(binary());
    command.args(["run", "--once", "-c", "vigie.yaml"]).current_dir(directory).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let began = Instant::now();
    let mut process = command.spawn().context("the binary does not start")?;
    let mut resident = 0.0;
    let id = process.id();
    let (tell, ended) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || tell.send(process.wait()));
    loop {
        match ended.recv_timeout(LOOK) {
            Ok(status) => {
                let (status, took) = (status?, began.elapsed());
                let log = std::fs::read_to_string(directory.join("stderr.log"))?;
                anyhow::ensure!(status.success(), "{status}: {log}");
                return Ok(Run { took, resident });
            }
            Err(RecvTimeoutError::Timeout) => resident = resident_bytes(id).unwrap_or(resident),
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("nobody waits for the process"),
        }
    }
}

/// From the start of a daemon until `/readyz` says that it polls.
fn until_ready(directory: &Path) -> anyhow::Result<Duration> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let server = format!("{CONFIGURATION}server: {{listen: 127.0.0.1:{port}}}\n");
    std::fs::write(directory.join("daemon.yaml"), server.replace("path: log.jsonl", "path: log.jsonl, follow: true"))?;
    let mut command = Command::new(binary());
    command.args(["run", "-c", "daemon.yaml"]).current_dir(directory).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let mut process = command.spawn().context("the binary does not start")?;
    let ready = loop {
        if is_ready(port) {
            break began.elapsed();
        }
        anyhow::ensure!(process.try_wait()?.is_none(), "the daemon ended");
        anyhow::ensure!(began.elapsed() < GIVE_UP, "it is never ready");
        std::thread::park_timeout(LOOK);
    };
    process.kill()?;
    process.wait()?;
    Ok(ready)
}

fn is_ready(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"))
}

/// None once it has ended.
fn resident_bytes(id: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024.0)
}

/// Pages of the table of rule state and of its indexes.
fn state_bytes(directory: &Path) -> anyhow::Result<f64> {
    let store = directory.join("state/vigie.db");
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let store = rusqlite::Connection::open_with_flags(store, flags)?;
    let sum = "SELECT SUM(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_schema WHERE tbl_name = 'state')";
    Ok(store.query_row(sum, [], |row| row.get(0))?)
}
