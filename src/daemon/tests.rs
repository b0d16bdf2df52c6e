//! The daemon put together over the memory store, on paused time.

use std::future::{Future, pending};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use tokio::time::{advance, timeout};
use vigie_engine::event::Event;

use super::*;
use crate::clock::{SetClock, TokioClock};
use crate::config::{self, Surroundings};
use crate::pipeline::BoxFuture;
use crate::sink::{AttemptReport, Delivery, Outcome, RenderContext, RenderError, RetryProfile, Sink};
use crate::source::{Fault, Fetched, Held, Seen, Source, SourceError};
use crate::store::archive::DeliveryFilter;
use crate::store::memory::MemoryStore;
use crate::store::{IngestBatch, LaneState, Settlement};

const RULE: &str = r#"
rules:
  - id: every-event
    title: Every event
    severity: high
    when: {event_type: "*", source: CD}
    alert: {dedup: [source]}
    tests:
      - {name: any, events: [{event_type: APP_CREATE, source: CD}], expect: alert}
"#;

/// Retention that does nothing, or fails.
struct Upkeep {
    fails: bool,
    store: MemoryStore,
}

impl Maintain for Upkeep {
    fn maintain(&self, _: DateTime<Utc>, _: Duration) -> BoxFuture<'_, Result<bool>> {
        let fails = self.fails;
        Box::pin(async move { if fails { Err(StoreError::Fatal("a broken page".into())) } else { Ok(false) } })
    }

    fn store_bytes(&self) -> Result<u64> {
        Ok(0)
    }

    fn muted<'a>(
        &'a self,
        muted_by: &'a str,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(u64, vigie_engine::alert::Alert)>>> {
        Box::pin(async move { Ok(self.store.muted(muted_by, after, limit)) })
    }

    fn backlogs(&self) -> BoxFuture<'_, Result<Vec<(String, Queue)>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// The memory store, on a disk that is full for what the program says of itself until it is freed.
#[derive(Clone, Default)]
struct Disk {
    memory: MemoryStore,
    full: Arc<AtomicBool>,
}

impl Seen for Disk {
    fn held<'a>(&'a self, source: &'a str, ids: &'a [String]) -> BoxFuture<'a, Result<Vec<Held>>> {
        self.memory.held(source, ids)
    }

    fn count<'a>(&'a self, source: &'a str, from: DateTime<Utc>, to: DateTime<Utc>) -> BoxFuture<'a, Result<u64>> {
        Seen::count(&self.memory, source, from, to)
    }
}

impl Store for Disk {
    fn load(&self) -> BoxFuture<'_, Result<Loaded>> {
        self.memory.load()
    }

    fn take_over(&self, now: DateTime<Utc>, latest: DateTime<Utc>) -> BoxFuture<'_, Result<()>> {
        self.memory.take_over(now, latest)
    }

    fn commit(&self, batch: IngestBatch) -> BoxFuture<'_, Result<()>> {
        if batch.source == crate::pipeline::notice::SOURCE && self.full.load(Ordering::Relaxed) {
            return Box::pin(async { Err(StoreError::Full("no space".into())) });
        }
        self.memory.commit(batch)
    }

    fn claim<'a>(
        &'a self,
        sink: &'a str,
        now: DateTime<Utc>,
        lease_until: DateTime<Utc>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        self.memory.claim(sink, now, lease_until, limit)
    }

    fn settle<'a>(
        &'a self,
        sink: &'a str,
        settlements: Vec<Settlement>,
        lane: Option<LaneState>,
    ) -> BoxFuture<'a, Result<()>> {
        self.memory.settle(sink, settlements, lane)
    }

    fn queue<'a>(&'a self, sink: &'a str) -> BoxFuture<'a, Result<Queue>> {
        self.memory.queue(sink)
    }
}

/// One event (or the next, half an hour later) and then the end, or nothing for ever, or a file that cannot be read.
#[derive(Debug, Clone, Copy)]
enum Scripted {
    One,
    Next,
    Endless,
    Unreadable,
}

impl Source for Scripted {
    fn fetch<'a>(
        &'a mut self,
        _: Option<&'a Cursor>,
        _: &'a dyn Seen,
    ) -> BoxFuture<'a, std::result::Result<Fetched, SourceError>> {
        Box::pin(async move {
            let (id, stamp) = match self {
                Self::One => ("e1", "2026-03-01T00:00:00Z"),
                Self::Next => ("e2", "2026-03-01T00:30:00Z"),
                Self::Endless => return pending().await,
                Self::Unreadable => {
                    let message = "the stored cursor cannot be read".to_owned();
                    return Err(SourceError { fault: Fault::Stop, message, notice: None });
                }
            };
            let raw = format!(r#"{{"id":"{id}","event_type":"APP_CREATE","source":"CD","created_at":"{stamp}"}}"#);
            let at = stamp.parse().expect("a stamp");
            Ok(Fetched {
                at_fault: None,
                events: vec![Event::new(id, at, Arc::from(raw)).expect("an event")],
                before_start: Vec::new(),
                poison: Vec::new(),
                repeated: 0,
                cursor: Cursor("1".into()),
                cursor_may_wait: false,
                notices: Vec::new(),
                settled_at: None,
                aloud_from: None,
                learn_from: None,
                next_in: Duration::ZERO,
                windows_owed: 0,
                finished: true,
                caught_up: true,
            })
        })
    }
}

struct Hook {
    outcome: Outcome,
    /// Of what the program says of itself, if another.
    of_own: Option<Outcome>,
    takes: Duration,
    sent: Mutex<Vec<String>>,
}

impl Hook {
    fn new(outcome: Outcome) -> Self {
        Self { outcome, of_own: None, takes: Duration::ZERO, sent: Mutex::default() }
    }

    fn sent(&self) -> usize {
        self.sent.lock().expect("no panic").len()
    }
}

impl Sink for Hook {
    fn kind(&self) -> &'static str {
        "hook"
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(
        &self,
        alert: &vigie_engine::alert::Alert,
        _: &RenderContext<'_>,
    ) -> std::result::Result<Vec<u8>, RenderError> {
        Ok(alert.rule.id.clone().into_bytes())
    }

    fn render_update(
        &self,
        update: &crate::sink::update::Update<'_>,
        _: &RenderContext<'_>,
    ) -> std::result::Result<Vec<u8>, RenderError> {
        Ok(update.headline().into_bytes())
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        self.sent.lock().expect("no panic").push(delivery.delivery_id.clone());
        Box::pin(async move {
            tokio::time::sleep(self.takes).await;
            let own = self.of_own.clone().filter(|_| delivery.body.starts_with(b"vigie-"));
            let outcome = own.unwrap_or_else(|| self.outcome.clone());
            AttemptReport { outcome, status: "told so".into(), excerpt: String::new(), spent: None, receipt: None }
        })
    }

    fn probe(&self) -> crate::sink::probe::Probe<'_> {
        crate::sink::probe::Probe::Nothing("a double")
    }
}

/// What a test puts together.
struct Rig {
    /// `routes:` as text, if not all to all.
    routes: &'static str,
    directory: tempfile::TempDir,
    store: MemoryStore,
    hook: Arc<Hook>,
    daemon: Daemon,
}

impl Rig {
    fn new(outcome: Outcome, fails: bool) -> Self {
        let directory = tempfile::TempDir::new().expect("a directory");
        std::fs::write(directory.path().join("rules.yaml"), RULE).expect("written");
        let store = MemoryStore::default();
        let daemon = Daemon {
            store: Arc::new(store.clone()),
            alerts: Arc::new(store.clone()),
            follow_ups: Arc::new(store.clone()),
            holds: Arc::new(store.clone()),
            maintain: Arc::new(Upkeep { fails, store: store.clone() }),
            clock: Arc::new(TokioClock::starting_at("2026-03-01T00:00:01Z".parse().expect("a stamp"))),
            status: Arc::default(),
            once: true,
            dry_run: false,
            jitter_seed: 1,
        };
        Self { routes: "", directory, store, hook: Arc::new(Hook::new(outcome)), daemon }
    }

    fn config(&self, source: Scripted) -> Config {
        self.config_with(source, "sinks: {hook: {stdout: {}}}\n")
    }

    fn config_with(&self, source: Scripted, sinks: &str) -> Config {
        let text = format!(
            "sources: {{main: {{ndjson: {{path: none}}}}}}\nrules: [\"{}\"]\n{sinks}{}",
            self.directory.path().join("rules.yaml").display(),
            self.routes
        );
        let path = self.directory.path().join("vigie.yaml");
        std::fs::write(&path, text).expect("written");
        let clock = self.daemon.clock.clone();
        let surroundings = Surroundings {
            variable: &|_| None,
            sinks: crate::sink::BuildContext::new(clock.clone(), Arc::new(Mutex::new(std::io::sink())), false),
            sources: crate::source::BuildContext { clock },
        };
        let (config, diagnostics) = config::load(&[path], &surroundings);
        let mut config = config.unwrap_or_else(|| panic!("{diagnostics:?}"));
        config.sources.iter_mut().for_each(|named| named.source = Box::new(source));
        config.sinks.iter_mut().for_each(|named| named.sink = self.hook.clone());
        config
    }

    fn run(&self, source: Scripted) -> impl Future<Output = Result<End>> {
        let (daemon, config) = (self.daemon.clone(), self.config(source));
        async move {
            let ended =
                timeout(Duration::from_secs(3600), async { daemon.run(config, &CancellationToken::new()).await });
            ended.await.expect("it ends by itself")
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_does_not_send_what_waits_from_before_either() {
    let mut rig = Rig::new(Outcome::Retry, false);
    rig.run(Scripted::One).await.expect("stored");
    let tried = rig.hook.sent();
    assert!(tried > 0);
    advance(Duration::from_secs(60)).await;
    rig.daemon.dry_run = true;
    let end = rig.run(Scripted::One).await.expect("stored");
    assert_eq!(rig.hook.sent(), tried, "nothing is sent");
    assert!(end.left.is_empty(), "{:?}", end.left);
    assert_eq!(rig.store.queue("hook").await.expect("stored").depth, 1, "it waits on");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_under_retention_ends_the_daemon() {
    let mut rig = Rig::new(Outcome::Delivered, true);
    rig.daemon.once = false;
    assert!(matches!(rig.run(Scripted::Endless).await, Err(StoreError::Fatal(_))));
}

#[tokio::test(start_paused = true)]
async fn a_finite_run_delivers_what_a_slow_sink_says_after_the_others_are_done() {
    let rig = Rig::new(Outcome::Delivered, false);
    let slow = |outcome, of_own| Hook { takes: Duration::from_secs(5), of_own, ..Hook::new(outcome) };
    let refusing = Arc::new(slow(Outcome::Dead, None));
    let picky = Arc::new(slow(Outcome::Delivered, Some(Outcome::Dead)));
    let sinks = "sinks: {hook: {stdout: {}}, refusing: {stdout: {}}, picky: {stdout: {}}}\n";
    let mut config = rig.config_with(Scripted::One, sinks);
    for named in &mut config.sinks {
        match named.name.as_str() {
            "refusing" => named.sink = refusing.clone(),
            "picky" => named.sink = picky.clone(),
            _ => {}
        }
    }
    let end = rig.daemon.run(config, &CancellationToken::new()).await.expect("stored");
    // One about the sink that refuses the alert, and, when that one arrives, one about the sink that refuses it.
    let letters = rig.store.alerts().iter().filter(|row| row.alert.rule.id == "vigie-dead-letter").count();
    assert_eq!((letters, rig.hook.sent()), (2, 3), "and the alert");
    assert!(end.left.iter().all(|(_, queue)| queue.depth == 0), "{:?}", end.left);
}

#[tokio::test(start_paused = true)]
async fn what_a_lane_says_at_its_end_is_stored() {
    let rig = Rig::new(Outcome::Dead, false);
    rig.run(Scripted::One).await.expect("stored");
    let rules: Vec<String> = rig.store.alerts().into_iter().map(|row| row.alert.rule.id).collect();
    assert_eq!(rules, ["every-event", "vigie-dead-letter"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_a_reload_took_out_is_no_longer_waited_for() {
    let rig = Rig::new(Outcome::Delivered, false);
    rig.daemon.status.update_source("gone", |_| {});
    rig.run(Scripted::One).await.expect("stored");
    let names: Vec<String> = rig.daemon.status.snapshot().sources.into_keys().collect();
    assert_eq!(names, ["main"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_go_on_is_told_of() {
    let rig = Rig::new(Outcome::Delivered, false);
    let end = rig.run(Scripted::Unreadable).await.expect("stored");
    assert!(end.stopped.is_some());
    let rules: Vec<String> = rig.store.alerts().into_iter().map(|row| row.alert.rule.id).collect();
    assert_eq!(rules, ["vigie-polling-failing"]);
    assert_eq!(rig.hook.sent(), 1);
}

/// A sink that wants a closing note.
const CLOSING: &str = "sinks: {hook: {stdout: {closing: true}}}\n";

/// What was sent after each run of a daemon with these routes and for these hours.
async fn sent_with_a_closing_note(rig: &mut Rig, runs: &[(&'static str, u64, usize)]) {
    rig.daemon.once = false;
    for (routes, hours, sent) in runs {
        rig.routes = routes;
        let stop = CancellationToken::new();
        let (daemon, config, ends) = (rig.daemon.clone(), rig.config_with(Scripted::One, CLOSING), stop.clone());
        let running = tokio::spawn(async move { daemon.run(config, &ends).await });
        tokio::time::sleep(Duration::from_secs(hours * 3600 + 60)).await;
        stop.cancel();
        running.await.expect("no panic").expect("stored");
        assert_eq!(rig.hook.sent(), *sent, "after {hours} h");
    }
    let alert_id = rig.store.alerts().remove(0).alert.alert_id;
    let expected = [crate::sink::delivery_id(&alert_id, "hook"), crate::sink::update::update_id(&alert_id, "hook", 1)];
    assert_eq!(*rig.hook.sent.lock().expect("no panic"), expected);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_alert_is_closed_once_over_restarts() {
    let mut rig = Rig::new(Outcome::Delivered, false);
    sent_with_a_closing_note(&mut rig, &[("", 0, 1), ("", 0, 1), ("", 2, 2), ("", 5, 2)]).await;
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_a_route_takes_only_later_is_closed_too() {
    let mut rig = Rig::new(Outcome::Delivered, false);
    sent_with_a_closing_note(&mut rig, &[(WRONG_ROUTES, 0, 0), ("", 0, 1), ("", 2, 2), ("", 5, 2)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_holds_nothing_up_over_a_reload() {
    for set_by_s in [-86_400, -3600, 3600, 86_400] {
        let mut rig = Rig::new(Outcome::Retry, false);
        let clock = Arc::new(SetClock::starting_at("2026-03-01T00:00:01Z".parse().expect("a stamp")));
        rig.daemon.clock = clock.clone();
        rig.run(Scripted::One).await.expect("stored");
        assert_eq!(rig.store.queue("hook").await.expect("stored").depth, 1);
        clock.set_by(set_by_s);
        advance(Duration::from_secs(60)).await;
        rig.hook = Arc::new(Hook::new(Outcome::Delivered));
        rig.run(Scripted::One).await.expect("stored");
        assert_eq!(rig.hook.sent(), 1, "set by {set_by_s} s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_after_a_step_of_the_clock_is_sent_at_once_and_shows_the_time_of_day() {
    for set_by_s in [-86_400, -3600, 3600, 86_400] {
        let mut rig = Rig::new(Outcome::Delivered, false);
        let clock = Arc::new(SetClock::starting_at("2026-03-01T00:00:01Z".parse().expect("a stamp")));
        rig.daemon.clock = clock.clone();
        clock.set_by(set_by_s);
        rig.run(Scripted::One).await.expect("stored");
        assert_eq!(rig.hook.sent(), 1, "set by {set_by_s} s");
        let rows = rig.store.deliveries(&DeliveryFilter::default()).await.expect("stored");
        assert_eq!(rows[0].created_at, clock.now(), "set by {set_by_s} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_on_a_clock_that_was_set_back_by_days_sends_what_waits() {
    let mut rig = Rig::new(Outcome::Retry, false);
    rig.run(Scripted::One).await.expect("stored");
    rig.daemon.clock = Arc::new(TokioClock::starting_at("2026-02-20T00:00:00Z".parse().expect("a stamp")));
    rig.hook = Arc::new(Hook::new(Outcome::Delivered));
    // The lane's own pause is cut to its longest.
    advance(Duration::from_secs(60)).await;
    let stop = CancellationToken::new();
    let (daemon, config) = (Daemon { once: false, ..rig.daemon.clone() }, rig.config(Scripted::Endless));
    let ending = stop.clone();
    let running = tokio::spawn(async move { daemon.run(config, &ending).await });
    tokio::time::sleep(deliver::MAX_WAIT + Duration::from_secs(1)).await;
    assert_eq!(rig.hook.sent(), 1);
    stop.cancel();
    running.await.expect("no panic").expect("stored");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_while_the_disk_is_full_is_stored_once_when_there_is_space() {
    for source in [Scripted::One, Scripted::Unreadable] {
        let mut rig = Rig::new(Outcome::Dead, false);
        let disk = Disk { memory: rig.store.clone(), ..Disk::default() };
        disk.full.store(true, Ordering::Relaxed);
        (rig.daemon.store, rig.daemon.once) = (Arc::new(disk.clone()), false);
        let (daemon, config, stop) = (rig.daemon.clone(), rig.config(source), CancellationToken::new());
        let ending = stop.clone();
        let running = tokio::spawn(async move { daemon.run(config, &ending).await });
        tokio::time::sleep(Duration::from_secs(60)).await;
        let said = |rule: &str| {
            let alerts = rig.store.alerts();
            alerts.iter().filter(|row| row.alert.rule.id == rule).map(|row| row.alert.count).collect::<Vec<_>>()
        };
        // What tells of a dead letter becomes one itself here, and is counted with it.
        let (expected, count) = match source {
            Scripted::One => ("vigie-dead-letter", 2),
            _ => ("vigie-polling-failing", 1),
        };
        assert_eq!(said(expected), [0_u64; 0]);
        disk.full.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(said(expected), [count], "{source:?}");
        assert_eq!(rig.daemon.status.snapshot().store, None, "{source:?}: something was committed");
        stop.cancel();
        running.await.expect("no panic").expect("stored");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_does_not_keep_the_daemon_from_its_end() {
    let mut rig = Rig::new(Outcome::Dead, false);
    let disk = Disk { memory: rig.store.clone(), ..Disk::default() };
    disk.full.store(true, Ordering::Relaxed);
    rig.daemon.store = Arc::new(disk);
    let began = tokio::time::Instant::now();
    rig.run(Scripted::One).await.expect("stored");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_sink_is_told_beside_it_where_the_routes_have_another() {
    let routes = "sinks: {hook: {stdout: {}}, spare: {stdout: {}}}\nroutes: [{to: hook}, {to: spare}]\n";
    let rig = Rig::new(Outcome::Dead, false);
    let config = rig.config_with(Scripted::One, routes);
    rig.daemon.run(config, &CancellationToken::new()).await.expect("stored");
    let rows = rig.store.deliveries(&DeliveryFilter::default()).await.expect("stored");
    let alerts = rig.store.alerts();
    let rule = |id: &str| alerts.iter().find(|row| row.alert.alert_id == id).map(|row| row.alert.rule.id.clone());
    let mut told: Vec<(String, String)> =
        rows.iter().map(|row| (rule(&row.alert_id).expect("stored"), row.sink.clone())).collect();
    told.sort();
    let pair = |rule: &str, sink: &str| (rule.to_owned(), sink.to_owned());
    // The dead letter of the alert to `hook` is told to both, and the one of that to `spare` too: there it died as well.
    assert!(told.contains(&pair("vigie-dead-letter", "hook")) && told.contains(&pair("vigie-dead-letter", "spare")));
    assert_eq!(
        told.iter().filter(|(rule, _)| rule == "every-event").collect::<Vec<_>>(),
        [&pair("every-event", "hook")]
    );
}

#[tokio::test(start_paused = true)]
async fn sinks_with_one_url_share_its_limit_and_those_without_one_go_as_they_come() {
    let hook = |path: &str| format!("{{slack: {{webhook_url: \"https://hooks.example.org/{path}\"}}}}");
    let sinks = format!(
        "sinks:\n  a: {}\n  b: {}\n  c: {}\n  free: {{webhook: {{url: \"https://hooks.example.org/x\"}}}}\n  \
         slow: {{webhook: {{url: \"https://hooks.example.org/y\", rate: 2/m}}}}\n  out: {{stdout: {{}}}}\n",
        hook("x"),
        hook("x"),
        hook("z")
    );
    let config = Rig::new(Outcome::Delivered, false).config_with(Scripted::One, &sinks);
    let pace = |name: &str| config.sinks.iter().find(|sink| sink.name == name).expect("configured").pace.clone();
    let (now, wait) = (tokio::time::Instant::now(), |name: &str| {
        pace(name).map(|pace| pace.take(tokio::time::Instant::now()).ready_at)
    });
    assert_eq!(["a", "b", "a"].map(wait), [Some(now); 3], "a short burst");
    assert_eq!(wait("b"), Some(now + Duration::from_secs(1)));
    assert_eq!((wait("c"), wait("slow")), (Some(now), Some(now)));
    assert_eq!(wait("slow"), Some(now + Duration::from_secs(30)));
    assert!(pace("free").is_none() && pace("out").is_none());
}

const WRONG_ROUTES: &str = "routes: [{match: {severity: critical}, to: [hook]}]\n";

#[tokio::test(start_paused = true)]
async fn an_open_alert_that_no_route_took_is_delivered_once_a_route_takes_it() {
    let mut rig = Rig::new(Outcome::Delivered, false);
    rig.routes = WRONG_ROUTES;
    rig.run(Scripted::One).await.expect("stored");
    assert_eq!(rig.hook.sent(), 0);
    rig.daemon.dry_run = true;
    rig.routes = "";
    rig.run(Scripted::One).await.expect("stored");
    rig.daemon.dry_run = false;
    assert_eq!(rig.store.alerts()[0].muted_by.as_deref(), Some("no route matched"), "a dry run changes nothing");
    for _ in 0..2 {
        rig.run(Scripted::One).await.expect("stored");
        assert_eq!(rig.hook.sent(), 1, "once");
    }
    assert_eq!(rig.store.alerts()[0].muted_by, None);
}

#[tokio::test(start_paused = true)]
async fn a_match_that_folds_into_an_alert_that_no_route_took_is_not_silent() {
    let mut rig = Rig::new(Outcome::Delivered, false);
    rig.routes = WRONG_ROUTES;
    rig.run(Scripted::One).await.expect("stored");
    advance(Duration::from_secs(2 * 3600)).await;
    rig.routes = "";
    rig.run(Scripted::One).await.expect("stored");
    assert_eq!(rig.hook.sent(), 0, "it is over, as far as anybody knows");
    for _ in 0..2 {
        rig.run(Scripted::Next).await.expect("stored");
        assert_eq!(rig.hook.sent(), 1, "it goes on");
    }
    let alert = &rig.store.alerts()[0];
    assert_eq!((alert.alert.count, alert.muted_by.as_deref()), (2, None));
}
