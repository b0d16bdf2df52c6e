//! 50,000 alerts that wait: how fast the release binary drains them, in what memory, and what three other sinks of 50 alerts
//! each, one of them dead, notice of it.
//!
//! The store is filled through its own interface, the small backlogs behind the large one; then the real program runs on it,
//! with destinations on loopback in this process. A destination counts ids, so that nothing is lost or counted twice.
#[path = "shared/binary.rs"]
mod binary;
#[path = "shared/figures.rs"]
mod figures;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use vigie::sink::delivery_id;
use vigie::sink::format::alert_json;
use vigie::store::sqlite::{SqliteOptions, SqliteStore};
use vigie::store::{IngestBatch, NewAlert, NewDelivery, Store};
use vigie_engine::alert::{Alert, AlertRule};
use vigie_engine::rule::Severity;
use vigie_engine::text::Untrusted;

use binary::binary;
use figures::{print, print_fsync, scratch};

/// The lane that has too much to do.
const BULK: (&str, usize) = ("bulk", 50_000);
/// The others that are reached.
const OTHERS: [(&str, usize); 2] = [("siem", 50), ("desk", 50)];
/// Nobody listens there.
const DEAD: (&str, usize) = ("dead", 50);
/// Alerts in a commit while the store is filled.
const BATCH: usize = 500;
/// Until the first delivery: a program that does not start makes none.
const FIRST: Duration = Duration::from_secs(30);
/// Beyond it the benchmark fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(900);
const MEGABYTE: f64 = 1_000_000.0;

const RULE: &str = r#"
rules:
  - id: every-event
    title: Every event
    severity: high
    when: {event_type: "*"}
    tests:
      - {name: any, events: [{event_type: APP_CREATE}], expect: alert}
"#;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let alone = drained(&[]).await?;
        let beside = drained(&[BULK]).await?;
        report(&alone, &beside);
        Ok(())
    })
}

/// What one run showed.
struct Run {
    /// From the first delivery of any sink to the last of each.
    took: BTreeMap<&'static str, Duration>,
    /// `VmRSS` once the first delivery was made, and `VmHWM` at the end, in bytes.
    resident: f64,
    peak: f64,
    /// Processor time of the process.
    cpu: Duration,
}

fn report(alone: &Run, beside: &Run) {
    let (name, count) = BULK;
    let took = beside.took.get(name).copied().unwrap_or_default().as_secs_f64();
    print("50,000 alerts of one webhook lane drained in", &format!("{took:.1} s"), None);
    print("deliveries of that lane", &format!("{:.0}/s", count as f64 / took), None);
    let cpu = beside.cpu.as_secs_f64();
    print("processor time a delivery", &format!("{:.2} ms", cpu * 1000.0 / count as f64), None);
    for (name, count) in OTHERS {
        let [alone, beside] = [alone, beside].map(|run| run.took.get(name).copied().unwrap_or_default().as_secs_f64());
        let measured = format!("{beside:.2} s beside, {alone:.2} s alone");
        print(&format!("the {count} of `{name}`, a dead sink beside them"), &measured, None);
    }
    let [resident, peak] = [beside.resident, beside.peak].map(|bytes| bytes / MEGABYTE);
    let small = alone.peak / MEGABYTE;
    let measured = format!("{resident:.1} MB, peak {peak:.1} MB (150 alerts: {small:.1} MB)");
    print("resident memory at the first delivery", &measured, None);
}

/// Fills a store with the small backlogs behind these, runs the program until all that can be delivered is, and ends it.
async fn drained(large: &[(&'static str, usize)]) -> anyhow::Result<Run> {
    let directory = scratch()?;
    let path = directory.path();
    if !large.is_empty() {
        print_fsync(path)?;
    }
    let reached: Vec<(&'static str, usize)> = large.iter().copied().chain(OTHERS).collect();
    let world = World::new(&reached);
    let address = world.clone().serve().await?;
    configure(path, address)?;
    let rows: Vec<_> = large.iter().copied().chain([DEAD]).chain(OTHERS).collect();
    fill(&path.join("state"), &rows).await?;

    let mut process = spawn(path)?;
    let mut left = world.left.subscribe();
    let all = reached.iter().map(|(_, count)| count).sum::<usize>();
    let log = || std::fs::read_to_string(path.join("stderr.log")).unwrap_or_default();
    let first = tokio::time::timeout(FIRST, left.wait_for(|left| *left < all)).await.is_ok();
    anyhow::ensure!(first, "no delivery came: {}", log());
    let (resident, _) = memory(&process)?;
    let emptied = tokio::time::timeout(PATIENCE, left.wait_for(|left| *left == 0)).await.is_ok();
    anyhow::ensure!(emptied, "{} were not delivered: {}", *world.left.borrow(), log());
    let ((_, peak), cpu) = (memory(&process)?, cpu(&process)?);
    process.kill().await?;
    Ok(Run { took: world.took(), resident, peak, cpu })
}

fn configure(directory: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let sinks: String = [BULK, OTHERS[0], OTHERS[1], DEAD]
        .iter()
        .map(|(name, _)| {
            let address = if *name == DEAD.0 { closed } else { address };
            format!("  {name}: {{webhook: {{url: \"http://{address}/{name}\"}}}}\n")
        })
        .collect();
    let head = "sources: {log: {ndjson: {path: log.jsonl}}}\nrules: [rule.yaml]\nstate: {dir: state}\nsinks:\n";
    std::fs::write(directory.join("vigie.yaml"), format!("{head}{sinks}"))?;
    std::fs::write(directory.join("rule.yaml"), RULE)?;
    std::fs::write(directory.join("log.jsonl"), "")?;
    Ok(())
}

/// Commits the backlogs in this order, as ingest does.
async fn fill(state: &Path, rows: &[(&'static str, usize)]) -> anyhow::Result<()> {
    let store = SqliteStore::open(state, &SqliteOptions::daemon())?;
    let at = now() - TimeDelta::seconds(60);
    let sinks: Vec<&'static str> = rows.iter().flat_map(|(sink, count)| std::iter::repeat_n(*sink, *count)).collect();
    for (batch, sinks) in sinks.chunks(BATCH).enumerate() {
        let mut commit = IngestBatch { source: "log".into(), at: Some(at), ..IngestBatch::default() };
        for (index, sink) in sinks.iter().enumerate() {
            let alert = alert(batch * BATCH + index, at)?;
            let id = delivery_id(&alert.alert_id, sink);
            let body = alert_json(&alert, &id)?;
            commit.deliveries.push(NewDelivery::new(id, alert.alert_id.clone(), (*sink).to_owned(), body));
            commit.alerts.push(NewAlert { alert, muted_by: None });
        }
        store.commit(commit).await?;
    }
    Ok(())
}

fn alert(number: usize, at: DateTime<Utc>) -> anyhow::Result<Alert> {
    let event_id = format!("00000000-0000-4000-8000-{number:012}");
    let event = format!(
        r#"{{"id":"{event_id}","created_at":"{}","event_type":"ACCOUNT_SECRET_CREATE","event_type_description":"A secret was made","account_id":"abcd1234","source":"API","source_ip":"203.0.113.9","source_country":"GB","user_email":"ada@example.org","context":{{"secret_id":"{number:012}"}}}}"#,
        at.format("%Y-%m-%dT%H:%M:%SZ")
    );
    Ok(Alert {
        alert_id: blake3::hash(event_id.as_bytes()).to_hex().chars().take(32).collect(),
        rule: AlertRule {
            id: "every-event".into(),
            title: "Every event".into(),
            severity: Severity::High,
            tags: vec!["attack.t1098.001".into()],
            response: "Ask who made it.".into(),
        },
        source: "log".into(),
        account_id: Some(Untrusted::new("abcd1234")),
        title: Untrusted::new("A secret was made"),
        first_at: at,
        last_at: at,
        count: 1,
        late: None,
        finding: None,
        note: None,
        key: vec![("secret".into(), Untrusted::new(format!("{number}")))],
        reason: Vec::new(),
        event: RawValue::from_string(event)?,
        events: vec![event_id],
    })
}

fn spawn(directory: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::create(directory.join("stderr.log"))?;
    let mut command = Command::new(binary());
    command.args(["run", "-c", "vigie.yaml"]).current_dir(directory).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    command.spawn().context("the binary does not start")
}

/// The destinations, and when what came.
#[derive(Clone)]
struct World {
    lanes: Arc<Mutex<BTreeMap<&'static str, Received>>>,
    began: Arc<Mutex<Option<Instant>>>,
    left: watch::Sender<usize>,
}

struct Received {
    expected: usize,
    ids: BTreeSet<String>,
    /// When the last of them came for the first time.
    complete: Option<Instant>,
}

impl World {
    fn new(reached: &[(&'static str, usize)]) -> Self {
        let lane = |(name, expected): &(&'static str, usize)| {
            (*name, Received { expected: *expected, ids: BTreeSet::new(), complete: None })
        };
        let left = watch::Sender::new(reached.iter().map(|(_, count)| count).sum());
        Self { lanes: Arc::new(Mutex::new(reached.iter().map(lane).collect())), began: Arc::default(), left }
    }

    async fn serve(self) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let world = self.clone();
                // A client that goes away ends its connection.
                tokio::spawn(async move { world.converse(stream).await.unwrap_or_default() });
            }
        });
        Ok(address)
    }

    /// Enough of HTTP/1.1 to say yes, and cheap, for it runs on the cores of what is measured.
    async fn converse(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        // Else an answer would wait for the client's delayed ACK.
        stream.set_nodelay(true)?;
        let (mut unread, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        loop {
            let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") else {
                match stream.read(&mut buffer).await? {
                    0 => return Ok(()),
                    count => unread.extend_from_slice(&buffer[..count]),
                }
                continue;
            };
            let head = String::from_utf8_lossy(&unread[..end]).into_owned();
            let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
            let length: usize = header("content-length:").parse()?;
            while unread.len() < end + 4 + length {
                let count = stream.read(&mut buffer).await?;
                anyhow::ensure!(count > 0, "cut");
                unread.extend_from_slice(&buffer[..count]);
            }
            unread.drain(..end + 4 + length);
            let lane = head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
            self.take(&lane, header("webhook-id:").to_owned());
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        }
    }

    fn take(&self, lane: &str, id: String) {
        let at = Instant::now();
        lock(&self.began).get_or_insert(at);
        let is_new = match lock(&self.lanes).get_mut(lane) {
            Some(lane) => {
                let is_new = lane.ids.insert(id);
                if lane.ids.len() == lane.expected {
                    lane.complete.get_or_insert(at);
                }
                is_new
            }
            None => false,
        };
        self.left.send_modify(|left| *left -= usize::from(is_new));
    }

    fn took(&self) -> BTreeMap<&'static str, Duration> {
        let Some(began) = *lock(&self.began) else { return BTreeMap::new() };
        let lanes = lock(&self.lanes);
        lanes.iter().filter_map(|(name, lane)| Some((*name, lane.complete?.duration_since(began)))).collect()
    }
}

/// `VmRSS` and `VmHWM` in bytes.
fn memory(process: &Child) -> anyhow::Result<(f64, f64)> {
    let id = process.id().context("the process has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let bytes = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        let kibibytes: f64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes * 1024.0)
    };
    Ok((bytes("VmRSS")?, bytes("VmHWM")?))
}

/// Processor time in both modes, in the kernel's hundredths of a second.
fn cpu(process: &Child) -> anyhow::Result<Duration> {
    let id = process.id().context("the process has ended")?;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, behind_name) = stat.rsplit_once(") ").context("another shape")?;
    let fields: Vec<u64> = behind_name.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(Duration::from_millis(fields.iter().sum::<u64>() * 10))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "the binary under test lives in the machine's time")]
fn now() -> DateTime<Utc> {
    Utc::now()
}
