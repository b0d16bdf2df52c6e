//! A full disk under the real binary: it goes on, says so once, loses nothing, and resumes when there is space.
//!
//! The state lies on a small tmpfs of its own: mounted here as root, or within a user namespace. Where neither is allowed
//! the tests of the real binary say that they did not run, and what stands in for them is the last one, which limits the
//! database file instead and runs everywhere.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use vigie::clock::SystemClock;
use vigie::config::{self, Surroundings};
use vigie::daemon::Daemon;
use vigie::pipeline::status::Status;
use vigie::store::sqlite::{SqliteOptions, SqliteStore};

use crate::api::Api;
use crate::program::{PATIENCE, Place, Running, closed_port, page, until};
use crate::receiver::{Answer, Received, Receiver};

/// The ballast (8 MiB), a write-ahead log at its longest (16 MiB), and room for what the tests do.
const DISK_OPTIONS: &str = "size=40m,mode=0700";
const STORE_FULL: &str = "vigie-store-full";

/// A daemon whose state lies on a disk of its own.
struct Rig {
    process: Running,
    /// The disk as this process reaches it.
    disk: PathBuf,
    mounted: Option<PathBuf>,
}

impl Rig {
    /// `None`, said loudly, where this machine allows no mount at all.
    async fn start(place: &Place) -> Option<Self> {
        let point = place.file("disk");
        std::fs::create_dir_all(&point).expect("a directory");
        let mount = ["-t", "tmpfs", "-o", DISK_OPTIONS, "tmpfs"];
        let rig = if succeeds("mount", &mount, Some(&point)) {
            let process = place.start(&["run", "-c", "vigie.yaml"]);
            Self { process, disk: point.clone(), mounted: Some(point) }
        } else if succeeds("unshare", &["--user", "--map-root-user", "--mount", "true"], None) {
            let script = format!("mount -t tmpfs -o {DISK_OPTIONS} tmpfs disk && exec \"$@\"");
            let inner = ["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"];
            let child = tokio::process::Command::new("unshare")
                .args(inner)
                .arg(env!("CARGO_BIN_EXE_vigie"))
                .args(["run", "-c", "vigie.yaml"])
                .current_dir(place.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(place.file("stderr.log")).expect("a log"))
                .kill_on_drop(true)
                .spawn()
                .expect("it starts");
            let process = Running::from(child);
            let relative = point.strip_prefix("/").expect("absolute").to_path_buf();
            let disk = Path::new("/proc").join(process.id().to_string()).join("root").join(relative);
            Self { process, disk, mounted: None }
        } else {
            eprintln!("\n*** NOT RUN: no tmpfs can be mounted here; only the limited database file was tested ***\n");
            return None;
        };
        let database = rig.disk.join("state/vigie.db");
        until("the store is there", async || database.exists()).await;
        Some(rig)
    }

    /// Leaves no space at all.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.disk.join("filler")).expect("created");
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![1_u8; size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.disk.join("filler")).expect("removed");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(point) = &self.mounted {
            // Lazily: a failing test leaves a process that still has files open there.
            assert!(succeeds("umount", &["-l"], Some(point)), "unmounted");
        }
    }
}

fn succeeds(program: &str, arguments: &[&str], path: Option<&Path>) -> bool {
    let mut command = std::process::Command::new(program);
    let status = command.args(arguments).args(path).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// How often each event, by its id, and the alert about the full disk arrived.
fn copies<'a>(alerts: impl Iterator<Item = &'a serde_json::Value>) -> (BTreeMap<String, usize>, usize) {
    let (mut of_events, mut of_store_full) = (BTreeMap::new(), 0);
    for alert in alerts {
        if alert["rule"]["id"] == STORE_FULL {
            of_store_full += 1;
        } else {
            *of_events.entry(alert["events"][0].as_str().expect("an event").to_owned()).or_default() += 1;
        }
    }
    (of_events, of_store_full)
}

fn received(requests: &[Received]) -> (BTreeMap<String, usize>, usize) {
    let bodies: Vec<_> = requests.iter().filter(|request| request.accepted).map(Received::json).collect();
    copies(bodies.iter())
}

fn lines(path: &Path) -> (BTreeMap<String, usize>, usize) {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // A line without its end is still being written.
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let bodies: Vec<_> = whole.map(|line| serde_json::from_str(line).expect("a whole line")).collect();
    copies(bodies.iter())
}

async fn health(port: u16) -> u16 {
    page(port, "/healthz").await.map_or(0, |(status, _)| status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_says_so_once_and_resumes() {
    let (api, hook, place, port) = (Api::start().await, Receiver::start().await, Place::new(), closed_port());
    let sinks = format!(
        "sinks:\n  hook: {{webhook: {{url: \"{}\"}}}}\n  trail: {{file: {{path: trail.jsonl}}}}\n  \
         beside: {{file: {{path: disk/beside.jsonl}}}}\nstate: {{dir: disk/state}}\nserver: {{listen: \"127.0.0.1:{port}\"}}\n",
        hook.url
    );
    place.configure(&api, &sinks);
    let Some(mut rig) = Rig::start(&place).await else { return };
    let happen = |count: usize| (0..count).for_each(|_| drop(api.happen("APP_CREATE")));
    happen(10);
    assert!(hook.wait(PATIENCE, |requests| received(requests).0.len() == 10).await, "{}", place.log());
    until("healthy", async || health(port).await == 200).await;

    rig.fill();
    happen(5);
    until("it says that it is full", async || health(port).await == 503).await;
    assert!(place.log().contains("no space left for the store"), "{}", place.log());
    assert!(hook.wait(PATIENCE, |requests| received(requests).1 == 1).await, "told from memory\n{}", place.log());
    happen(200);
    let asked = api.requests();
    until("it goes on asking", async || api.requests() >= asked + 2).await;
    assert!(rig.process.is_running() && health(port).await == 503);
    assert_eq!(received(&hook.received()).0.len(), 10, "nothing is sent that is not stored");

    rig.free();
    assert!(hook.wait(PATIENCE, |requests| received(requests).0.len() == 215).await, "{}", place.log());
    for file in ["trail.jsonl", "disk/beside.jsonl"] {
        let file = if file.starts_with("disk") { rig.disk.join("beside.jsonl") } else { place.file(file) };
        until("the file has all", async || lines(&file).0.len() == 215).await;
    }
    until("healthy again", async || health(port).await == 200).await;

    // A second time, soon after: not told again, and nothing lost either.
    rig.fill();
    happen(20);
    until("full again", async || health(port).await == 503).await;
    rig.free();
    assert!(hook.wait(PATIENCE, |requests| received(requests).0.len() == 235).await, "{}", place.log());
    until("the trail has all", async || lines(&place.file("trail.jsonl")).0.len() == 235).await;
    let (of_hook, told) = received(&hook.received());
    let (of_trail, written) = lines(&place.file("trail.jsonl"));
    assert_eq!((told, written), (1, 1), "once at each destination");
    let most = of_hook.values().chain(of_trail.values()).max();
    let extra: usize = of_hook.values().chain(of_trail.values()).map(|count| count - 1).sum();
    println!("235 events, disk full twice: 0 lost, most copies of one alert {most:?}, {extra} copies too many");
    assert!(most <= Some(&2), "no alert more than twice");
    rig.process.signal("TERM").await;
    assert_eq!(rig.process.wait().await.code(), Some(0), "{}", place.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_while_sends_are_in_flight_repeats_none_of_them() {
    let (api, hook, place, port) = (Api::start().await, Receiver::start().await, Place::new(), closed_port());
    let sinks = format!(
        "sinks:\n  hook: {{webhook: {{url: \"{}\"}}}}\nstate: {{dir: disk/state}}\nserver: {{listen: \"127.0.0.1:{port}\"}}\n",
        hook.url
    );
    place.configure(&api, &sinks);
    let Some(mut rig) = Rig::start(&place).await else { return };
    hook.answer(Answer::Hold);
    let in_flight = vigie::pipeline::deliver::MACHINE_IN_FLIGHT;
    (0..in_flight).for_each(|_| drop(api.happen("APP_CREATE")));
    assert!(hook.wait(PATIENCE, |requests| requests.len() == in_flight).await, "{}", place.log());
    rig.fill();
    (0..50).for_each(|_| drop(api.happen("APP_CREATE")));
    until("it says that it is full", async || health(port).await == 503).await;
    hook.answer(Answer::ok());
    let ballast = rig.disk.join("state/ballast");
    until("the ballast was used to write down what was sent", async || !ballast.exists()).await;
    let asked = api.requests();
    until("it goes on asking", async || api.requests() >= asked + 2).await;
    assert_eq!(received(&hook.received()).0.len(), in_flight, "no new attempt on a full disk");

    rig.free();
    assert!(hook.wait(PATIENCE, |requests| received(requests).0.len() == in_flight + 50).await, "{}", place.log());
    until("healthy again", async || health(port).await == 200).await;
    assert!(ballast.exists(), "set aside again");
    rig.process.signal("TERM").await;
    assert_eq!(rig.process.wait().await.code(), Some(0), "{}", place.log());
    let (of_hook, told) = received(&hook.received());
    assert!(of_hook.values().all(|count| *count == 1) && told == 1, "{told} {of_hook:?}");
    println!("{in_flight} sends in flight when the disk filled, 50 events after: 0 lost, each alert once");
}

/// The whole daemon in this process, on a database file that may not grow; with its runtime it is gone at once.
fn limited_daemon(place: &Place, status: Arc<Status>) -> tokio::runtime::Runtime {
    let clock = Arc::new(SystemClock);
    let surroundings = Surroundings {
        variable: &|_| None,
        sinks: vigie::sink::BuildContext::new(clock.clone(), Arc::new(std::sync::Mutex::new(std::io::sink())), false),
        sources: vigie::source::BuildContext { clock: clock.clone() },
    };
    let (config, _) = config::load(&[place.file("vigie.yaml")], &surroundings);
    let config = config.expect("it loads");
    let options = SqliteOptions { max_file_bytes: Some(400 << 10), ..SqliteOptions::daemon() };
    let store = Arc::new(SqliteStore::open(&place.file("state"), &options).expect("opened"));
    let daemon = Daemon {
        store: store.clone(),
        alerts: store.clone(),
        follow_ups: store.clone(),
        holds: store.clone(),
        maintain: store,
        clock,
        status,
        once: false,
        dry_run: false,
        jitter_seed: 1,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.spawn(async move { daemon.run(config, &CancellationToken::new()).await });
    runtime
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_may_not_grow_loses_nothing_and_is_told_from_memory() {
    let (api, hook, place, status) = (Api::start().await, Receiver::start().await, Place::new(), Arc::default());
    place.configure(&api, &format!("sinks:\n  hook: {{webhook: {{url: \"{}\"}}}}\n", hook.url));
    let large = |event: &mut vigie_sim::SimEvent| event.context = serde_json::json!({"padding": "x".repeat(4000)});
    let limited = limited_daemon(&place, Arc::clone(&status));
    api.happen_with("APP_CREATE", large);
    assert!(hook.wait(PATIENCE, |requests| received(requests).0.len() == 1).await);
    let mut events = 1;
    until("it is full", async || {
        (0..10).for_each(|_| drop(api.happen_with("APP_CREATE", large)));
        events += 10;
        Status::snapshot(&status).store.is_some()
    })
    .await;
    assert!(hook.wait(PATIENCE, |requests| received(requests).1 == 1).await, "told from memory");
    let asked = api.requests();
    until("it goes on asking", async || api.requests() >= asked + 2).await;
    tokio::task::spawn_blocking(move || drop(limited)).await.expect("it ends");

    let process = place.start(&["run", "-c", "vigie.yaml"]);
    assert!(hook.wait(PATIENCE, |requests| received(requests).0.len() == events).await, "{}", place.log());
    assert_eq!(process.end("TERM").await.code(), Some(0), "{}", place.log());
    let (of_hook, told) = received(&hook.received());
    let extra: usize = of_hook.values().map(|count| count - 1).sum();
    println!("{events} events on a database of 400 KiB: 0 lost, {extra} copies too many, told {told} time");
    assert!(told == 1 && of_hook.values().all(|count| *count <= 2), "{told} {of_hook:?}");
}
