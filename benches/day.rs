//! A day of polling on one core: what 5,760 polls at the default interval cost with all shipped rules.
//!
//! Poller, engine, ingest and the store on a disk are the real ones; the API is called in this process, and its own time is
//! taken off. Time is paused, so that a day passes as fast as it can be worked through.

#[path = "shared/figures.rs"]
mod figures;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Context, Poll};
use std::thread::Thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;
use vigie::clock::{Clock, TokioClock};
use vigie::config::{self, Surroundings};
use vigie::pipeline::BoxFuture;
use vigie::pipeline::deliver::Wake;
use vigie::pipeline::drift::Drift;
use vigie::pipeline::history::History;
use vigie::pipeline::ingest::{Ingest, Inhibitors, Parts};
use vigie::pipeline::status::Status;
use vigie::sink::Delivery;
use vigie::source::vonage::transport::{HttpAnswer, Method, Transport, TransportError};
use vigie::source::vonage::{Start, VonageOptions, VonageSource};
use vigie::source::{Held, Seen};
use vigie::store::memory::MemoryStore;
use vigie::store::sqlite::{SqliteOptions, SqliteStore};
use vigie::store::{IngestBatch, LaneState, Loaded, Queue, Result, Settlement, Store};
use vigie_engine::engine::Engine;
use vigie_engine::rule::Rule;
use vigie_sim::{FaultPlan, Quirks, Sim, SimRequest, World, WorldConfig};

use figures::{print, print_fsync, scratch};

const KEY: &str = "abcd1234";
const SECRET: &str = "bench-secret";
const DAY: Duration = Duration::from_secs(86_400);
const INTERVAL: Duration = Duration::from_secs(15);
/// Into the simulated account's history: a working day with a planted attack or two.
const FIRST_DAY: i64 = 9;
/// Most processor time that a day may cost.
const AIM_S: f64 = 2.0;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let directory = scratch()?;
    print_fsync(directory.path())?;
    let rules = shipped_rules(directory.path())?;
    let count = rules.len();
    let began = Instant::now();
    let report = runtime.block_on(day(directory.path(), rules))?;
    let name = format!("a day of polling, {count} rules");
    let measured = format!("{:.2} s of processor time", report.cpu_s);
    print(&name, &measured, Some(("below 2 s", report.cpu_s < AIM_S)));
    let what = format!("{} requests, {} events, {} alerts", report.requests, report.events, report.alerts);
    print("what happened in it", &what, None);
    print("how long that took here", &format!("{:.2} s", began.elapsed().as_secs_f64()), None);
    Ok(())
}

struct Report {
    cpu_s: f64,
    requests: u64,
    events: u64,
    alerts: u64,
}

async fn day(directory: &Path, rules: Vec<Rule>) -> anyhow::Result<Report> {
    let world_start: DateTime<Utc> = "2026-03-01T00:00:00Z".parse()?;
    let world = World::generate(&WorldConfig::new(1, world_start));
    let sim = Sim::new(KEY, SECRET, world.events().to_vec(), Quirks::default(), FaultPlan::none());
    let clock = TokioClock::starting_at(world_start + TimeDelta::days(FIRST_DAY));
    let api = Arc::new(Api { sim: Mutex::new(sim), clock, own_ns: AtomicU64::new(0) });
    let status = Arc::<Status>::default();
    let store = Arc::new(Unhurried(SqliteStore::open(&directory.join("state"), &SqliteOptions::daemon())?));
    let ingest = Ingest::new(Parts {
        engine: Engine::new(rules),
        drift: Drift::default(),
        history: History::default(),
        routes: Vec::new(),
        inhibitions: Vec::new(),
        inhibitors: Inhibitors::default(),
        holds: Arc::new(MemoryStore::new()),
        outlets: Vec::new(),
        wake: Wake::default(),
        store,
        clock: Arc::new(clock),
        status: status.clone(),
        dry_run: false,
    });
    let options = VonageOptions { jitter_seed: 1, ..VonageOptions::new("main", INTERVAL, Start::Now) };
    let mut source = VonageSource::new(options, api.clone(), Arc::new(clock));
    let (cpu_before, own_before) = (cpu_seconds(), api.own_ns.load(Ordering::Relaxed));
    let stop = CancellationToken::new();
    let run = ingest.run_source("main", &mut source, None, false, &stop);
    let ended = tokio::time::timeout(DAY, run).await;
    anyhow::ensure!(
        ended.is_err(),
        "polling ended by itself: {:?}",
        ended.map(|end| end.map_err(|error| error.to_string()))
    );
    let own_s = Duration::from_nanos(api.own_ns.load(Ordering::Relaxed) - own_before).as_secs_f64();
    let snapshot = status.snapshot();
    let requests = api.sim.lock().unwrap_or_else(PoisonError::into_inner).requests();
    let events = snapshot.sources.values().map(|source| source.events).sum();
    Ok(Report { cpu_s: cpu_seconds() - cpu_before - own_s, requests, events, alerts: snapshot.alerts })
}

/// As a configuration file loads them.
fn shipped_rules(directory: &Path) -> anyhow::Result<Vec<Rule>> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/vonage");
    let path = directory.join("vigie.yaml");
    let text = format!(
        "sources: {{main: {{ndjson: {{path: none}}}}}}\nrules: [\"{}\"]\nsinks: {{out: {{stdout: {{}}}}}}\n",
        shipped.display()
    );
    std::fs::write(&path, text)?;
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(DateTime::UNIX_EPOCH));
    let surroundings = Surroundings {
        variable: &|_| None,
        sinks: vigie::sink::BuildContext::new(clock.clone(), Arc::new(Mutex::new(std::io::sink())), false),
        sources: vigie::source::BuildContext { clock },
    };
    let (config, diagnostics) = config::load(&[path], &surroundings);
    Ok(config.ok_or_else(|| anyhow::anyhow!("{diagnostics:?}"))?.rules)
}

/// The simulated API, without a network.
struct Api {
    sim: Mutex<Sim>,
    clock: TokioClock,
    /// Processor time of the simulation itself.
    own_ns: AtomicU64,
}

impl Transport for Api {
    fn request<'a>(
        &'a self,
        method: Method,
        path_and_query: &'a str,
    ) -> BoxFuture<'a, std::result::Result<HttpAnswer, TransportError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let began_ns = thread_ns();
            let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
            let request = SimRequest {
                method: if method == Method::Get { "GET".into() } else { "OPTIONS".into() },
                path: format!("/beta/audit{path}"),
                query: query.to_owned(),
                authorization: Some(Sim::basic_authorization(KEY, SECRET)),
            };
            let response = self.sim.lock().unwrap_or_else(PoisonError::into_inner).handle(&request, self.clock.now());
            let header = |name: &str| response.header(name).map(str::to_owned);
            let answer = HttpAnswer {
                status: response.status,
                date: header("Date"),
                retry_after: header("Retry-After"),
                content_type: header("Content-Type"),
                body: response.body.clone(),
            };
            self.own_ns.fetch_add(thread_ns() - began_ns, Ordering::Relaxed);
            Ok(answer)
        })
    }
}

/// The real store. While it works this thread waits, so that paused time stands still: it would run on for other threads.
struct Unhurried(SqliteStore);

struct Waiting(Thread);

impl task::Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn unhurried<'a, T: 'a>(mut work: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
    Box::pin(async move {
        let waker = Arc::new(Waiting(std::thread::current())).into();
        let mut context = Context::from_waker(&waker);
        loop {
            match work.as_mut().poll(&mut context) {
                Poll::Ready(done) => return done,
                Poll::Pending => std::thread::park(),
            }
        }
    })
}

impl Seen for Unhurried {
    fn held<'a>(&'a self, source: &'a str, ids: &'a [String]) -> BoxFuture<'a, Result<Vec<Held>>> {
        unhurried(self.0.held(source, ids))
    }

    fn count<'a>(&'a self, source: &'a str, from: DateTime<Utc>, to: DateTime<Utc>) -> BoxFuture<'a, Result<u64>> {
        unhurried(Seen::count(&self.0, source, from, to))
    }
}

impl Store for Unhurried {
    fn load(&self) -> BoxFuture<'_, Result<Loaded>> {
        unhurried(self.0.load())
    }

    fn take_over(&self, now: DateTime<Utc>, latest: DateTime<Utc>) -> BoxFuture<'_, Result<()>> {
        unhurried(self.0.take_over(now, latest))
    }

    fn commit(&self, batch: IngestBatch) -> BoxFuture<'_, Result<()>> {
        unhurried(self.0.commit(batch))
    }

    fn claim<'a>(
        &'a self,
        sink: &'a str,
        now: DateTime<Utc>,
        lease_until: DateTime<Utc>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        unhurried(self.0.claim(sink, now, lease_until, limit))
    }

    fn settle<'a>(
        &'a self,
        sink: &'a str,
        settlements: Vec<Settlement>,
        lane: Option<LaneState>,
    ) -> BoxFuture<'a, Result<()>> {
        unhurried(self.0.settle(sink, settlements, lane))
    }

    fn queue<'a>(&'a self, sink: &'a str) -> BoxFuture<'a, Result<Queue>> {
        unhurried(self.0.queue(sink))
    }
}

/// Of all threads, in the kernel's ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let line = std::fs::read_to_string("/proc/self/stat").expect("Linux counts the time of processes");
    // After the name, which is in brackets: utime and stime are the 12th and 13th.
    let fields = line.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    fields.take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn thread_ns() -> u64 {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts the time of threads");
    line.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).expect("nanoseconds")
}
