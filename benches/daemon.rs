//! The release binary as a sidecar runs it: latency from an answer of the API to the webhook, idle memory, start, size.
//!
//! The API and the destination are in this process, on loopback; everything between them is the real program with the
//! shipped rules and a real disk. The clock of the latency runs from before the answer leaves this process until the
//! whole POST was read here, so both ways over loopback count against the aim.
#![expect(clippy::print_stdout, reason = "a benchmark reports on stdout")]

#[path = "shared/binary.rs"]
mod binary;
#[path = "shared/figures.rs"]
mod figures;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, header};
use chrono::{DateTime, Utc};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use vigie_sim::{FaultPlan, Quirks, Sim, SimEvent, SimRequest};

use binary::binary;
use figures::{millis, percentiles, print, print_fsync, scratch};

const KEY: &str = "abcd1234";
const SECRET: &str = "bench-secret";
/// Events whose way is timed, one after the other.
const EVENTS: usize = 200;
/// Starts that are timed; the first of them creates the store.
const STARTS: usize = 20;
/// Settled after the start, as a sidecar is for most of its life.
const IDLE: Duration = Duration::from_secs(10);
/// No step takes longer; beyond it the benchmark fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);
const MEGABYTE: f64 = 1_000_000.0;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        size()?;
        idle().await?;
        start().await?;
        latency().await
    })
}

fn size() -> anyhow::Result<()> {
    let bytes = std::fs::metadata(binary())?.len() as f64;
    let measured = format!("{:.2} MB", bytes / MEGABYTE);
    print("size of the stripped binary", &measured, Some(("20 MB or less", bytes <= 20.0 * MEGABYTE)));
    Ok(())
}

/// The shipped rules, one source at its default interval, one webhook.
async fn idle() -> anyhow::Result<()> {
    let scene = Scene::new("").await?;
    let mut process = scene.spawn()?;
    scene.world.first_request().await?;
    tokio::time::sleep(IDLE).await;
    let (resident, peak) = memory(&process)?;
    let measured = format!("{:.2} MB (peak {:.2} MB)", resident / MEGABYTE, peak / MEGABYTE);
    print("resident memory after 10 s idle", &measured, Some(("20 MB or less", resident <= 20.0 * MEGABYTE)));
    process.kill().await?;
    Ok(())
}

async fn start() -> anyhow::Result<()> {
    let scene = Scene::new("").await?;
    let mut times = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        scene.world.forget_requests();
        let began = Instant::now();
        let process = scene.spawn()?;
        times.push(scene.world.first_request().await?.duration_since(began));
        end(process).await?;
    }
    let first = times.first().copied().unwrap_or_default();
    let (p50, p99) = percentiles(times);
    let measured = format!("p50 {:.1} ms, p99 {:.1} ms", millis(p50), millis(p99));
    print("start to first poll, 20 starts", &measured, Some(("100 ms or less", millis(p50) <= 100.0)));
    print("start to first poll, with a new store", &format!("{:.1} ms", millis(first)), None);
    Ok(())
}

async fn latency() -> anyhow::Result<()> {
    // The pause between polls is no part of the figure; it only bounds how long the benchmark takes.
    let scene = Scene::new(", poll_interval: 200ms").await?;
    print_fsync(scene.directory.path())?;
    let process = scene.spawn()?;
    scene.world.first_request().await?;
    let mut times = Vec::with_capacity(EVENTS);
    for index in 0..EVENTS {
        times.push(scene.world.one_way(index).await?);
    }
    let (resident, _) = memory(&process)?;
    end(process).await?;
    let (p50, p99) = percentiles(times);
    let measured = format!("p50 {:.2} ms, p99 {:.2} ms", millis(p50), millis(p99));
    print("response read to webhook received, 200 events", &measured, Some(("p50 below 20 ms", millis(p50) < 20.0)));
    print("resident memory after those 200 alerts", &format!("{:.2} MB", resident / MEGABYTE), None);
    Ok(())
}

/// The API, the destination, and a directory with a configuration that names both.
struct Scene {
    directory: tempfile::TempDir,
    world: World,
}

impl Scene {
    async fn new(options: &str) -> anyhow::Result<Self> {
        let directory = scratch()?;
        let world = World::default();
        let api = serve(Router::new().fallback(answer).with_state(world.clone())).await?;
        let hook = serve(Router::new().fallback(take).with_state(world.clone())).await?;
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/vonage");
        std::fs::write(directory.path().join("every.yaml"), RULE)?;
        let configuration = format!(
            r#"
sources:
  main:
    vonage_audit: {{api_key: {KEY}, api_secret: {SECRET}, base_url: "http://{api}/beta/audit", start: 1h{options}}}
rules: ["{}", every.yaml]
sinks:
  hook: {{webhook: {{url: "http://{hook}/hook"}}}}
routes:
  - to: hook
state: {{dir: state}}
"#,
            shipped.display()
        );
        std::fs::write(directory.path().join("vigie.yaml"), configuration)?;
        Ok(Self { directory, world })
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log = std::fs::File::create(self.directory.path().join("stderr.log"))?;
        let mut command = Command::new(binary());
        command.args(["run", "-c", "vigie.yaml"]).current_dir(self.directory.path()).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        command.spawn().context("the binary does not start")
    }
}

/// Every event raises an alert of its own, so that each one's way can be timed.
const RULE: &str = r#"
rules:
  - id: every-event
    title: Every event
    severity: high
    when: {event_type: "*"}
    tests:
      - {name: any, events: [{event_type: APP_CREATE}], expect: alert}
"#;

struct OnItsWay {
    event_id: String,
    /// When an answer first held it.
    shown: Option<Instant>,
}

/// Both ends of the program under test, and when what passed them.
#[derive(Clone)]
struct World {
    sim: Arc<Mutex<Sim>>,
    /// When the first request came.
    first: watch::Sender<Option<Instant>>,
    on_its_way: Arc<Mutex<Option<OnItsWay>>>,
    /// The last event of which an alert arrived, and when.
    arrived: watch::Sender<Option<(String, Instant)>>,
}

impl Default for World {
    fn default() -> Self {
        let sim = Sim::new(KEY, SECRET, Vec::new(), Quirks::default(), FaultPlan::none());
        Self {
            sim: Arc::new(Mutex::new(sim)),
            first: watch::Sender::new(None),
            on_its_way: Arc::default(),
            arrived: watch::Sender::new(None),
        }
    }
}

impl World {
    fn forget_requests(&self) {
        self.first.send_replace(None);
    }

    async fn first_request(&self) -> anyhow::Result<Instant> {
        let mut first = self.first.subscribe();
        let came = tokio::time::timeout(PATIENCE, first.wait_for(Option::is_some)).await;
        (*came.context("no request came")??).context("no request")
    }

    /// One event happens; gives the time from the answer that first held it to its alert.
    async fn one_way(&self, index: usize) -> anyhow::Result<Duration> {
        let id = format!("00000000-0000-4000-8000-{index:012}");
        *lock(&self.on_its_way) = Some(OnItsWay { event_id: id.clone(), shown: None });
        let mut event = SimEvent::new(id.clone(), "ACCOUNT_SECRET_CREATE", now());
        event.account_id = KEY.into();
        event.source_ip = "203.0.113.9".into();
        event.source_country = Some("GB".into());
        event.user_email = Some("ada@example.org".into());
        lock(&self.sim).push(event);
        let mut arrived = self.arrived.subscribe();
        let is_it = |arrived: &Option<(String, Instant)>| arrived.as_ref().is_some_and(|(arrived, _)| *arrived == id);
        let arrival = tokio::time::timeout(PATIENCE, arrived.wait_for(is_it)).await.context("no alert came")??;
        let at = arrival.as_ref().map(|(_, at)| *at).context("no alert")?;
        let shown =
            lock(&self.on_its_way).as_ref().and_then(|event| event.shown).context("an alert before its event")?;
        Ok(at.duration_since(shown))
    }
}

/// The stand-in API, which notes when it shows an event for the first time.
async fn answer(State(world): State<World>, request: Request) -> Response<Body> {
    world.first.send_if_modified(|first| first.is_none() && first.replace(Instant::now()).is_none());
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let asked = SimRequest {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        authorization: header.map(ToOwned::to_owned),
    };
    let given = lock(&world.sim).handle(&asked, now());
    let mut response = Response::builder().status(given.status);
    for (name, value) in &given.headers {
        response = response.header(name, value);
    }
    let body = String::from_utf8_lossy(&given.body);
    if let Some(event) = lock(&world.on_its_way).as_mut()
        && event.shown.is_none()
        && body.contains(&event.event_id)
    {
        event.shown = Some(Instant::now());
    }
    response.body(Body::from(given.body.clone())).unwrap_or_default()
}

/// The destination.
async fn take(State(world): State<World>, body: Bytes) -> StatusCode {
    let at = Instant::now();
    let alert: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    if alert["rule"]["id"] == "every-event"
        && let Some(id) = alert["events"][0].as_str()
    {
        world.arrived.send_replace(Some((id.to_owned(), at)));
    }
    StatusCode::OK
}

async fn serve(router: Router) -> anyhow::Result<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(axum::serve::ListenerExt::tap_io(listener, set_nodelay), router).await {
            println!("a server of the benchmark ended: {error}");
        }
    });
    Ok(address)
}

/// As servers do; else an answer would wait for the client's delayed ACK.
fn set_nodelay(stream: &mut tokio::net::TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        println!("an answer may be late: {error}");
    }
}

/// `VmRSS` and `VmHWM` in bytes.
fn memory(process: &Child) -> anyhow::Result<(f64, f64)> {
    let id = process.id().context("the process has ended")?;
    let status = std::fs::read_to_string(PathBuf::from(format!("/proc/{id}/status")))?;
    let bytes = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        let kibibytes: f64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes * 1024.0)
    };
    Ok((bytes("VmRSS")?, bytes("VmHWM")?))
}

/// SIGTERM, and the end of the process.
async fn end(mut process: Child) -> anyhow::Result<()> {
    let id = process.id().context("the process has ended")?.to_string();
    anyhow::ensure!(Command::new("kill").args(["-TERM", &id]).status().await?.success(), "kill {id}");
    let status = tokio::time::timeout(PATIENCE, process.wait()).await.context("it does not end")??;
    // Before it listens to signals, one ends it at once.
    anyhow::ensure!(matches!(status.code(), Some(0) | None), "it ended with {status}");
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "the binary under test lives in the machine's time")]
fn now() -> DateTime<Utc> {
    Utc::now()
}
