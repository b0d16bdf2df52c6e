//! The daemon put together over the memory store, on paused time.

use std::future::{Future, pending};
use std::sync::Mutex;

use chrono::{DateTime, Utc};
use tokio::time::{advance, timeout};
use vigie_engine::event::Event;

use super::*;
use crate::clock::TokioClock;
use crate::config::{self, Surroundings};
use crate::pipeline::BoxFuture;
use crate::sink::{AttemptReport, Delivery, Outcome, RenderContext, RenderError, RetryProfile, Sink};
use crate::source::{Fault, Fetched, Seen, Source, SourceError};
use crate::store::memory::MemoryStore;

const RULE: &str = r#"
rules:
  - id: every-event
    title: Every event
    severity: high
    when: {event_type: "*", source: CD}
    tests:
      - {name: any, events: [{event_type: APP_CREATE, source: CD}], expect: alert}
"#;

/// Retention that does nothing, or fails.
struct Upkeep {
    fails: bool,
}

impl Maintain for Upkeep {
    fn maintain(&self, _: DateTime<Utc>, _: Duration) -> BoxFuture<'_, Result<bool>> {
        let fails = self.fails;
        Box::pin(async move { if fails { Err(StoreError::Fatal("a broken page".into())) } else { Ok(false) } })
    }

    fn store_bytes(&self) -> Result<u64> {
        Ok(0)
    }

    fn backlogs(&self) -> BoxFuture<'_, Result<Vec<(String, Queue)>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// One event and then the end, or nothing for ever, or a file that cannot be read.
#[derive(Debug, Clone, Copy)]
enum Scripted {
    One,
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
            match self {
                Self::One => {}
                Self::Endless => return pending().await,
                Self::Unreadable => {
                    let message = "the stored cursor cannot be read".to_owned();
                    return Err(SourceError { fault: Fault::Stop, message, notice: None });
                }
            }
            let raw = r#"{"id":"e1","event_type":"APP_CREATE","source":"CD","created_at":"2026-03-01T00:00:00Z"}"#;
            let at = "2026-03-01T00:00:00Z".parse().expect("a stamp");
            Ok(Fetched {
                at_fault: None,
                events: vec![Event::new("e1", at, Arc::from(raw)).expect("an event")],
                before_start: Vec::new(),
                poison: Vec::new(),
                cursor: Cursor("1".into()),
                notices: Vec::new(),
                settled_at: None,
                aloud_from: None,
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
    sent: Mutex<Vec<String>>,
}

impl Hook {
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
        let outcome = self.outcome.clone();
        Box::pin(async move { AttemptReport { outcome, status: "told so".into(), excerpt: String::new() } })
    }
}

/// What a test puts together.
struct Rig {
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
            maintain: Arc::new(Upkeep { fails }),
            clock: Arc::new(TokioClock::starting_at("2026-03-01T00:00:01Z".parse().expect("a stamp"))),
            status: Arc::default(),
            once: true,
            dry_run: false,
            jitter_seed: 1,
        };
        Self { directory, store, hook: Arc::new(Hook { outcome, sent: Mutex::default() }), daemon }
    }

    fn config(&self, source: Scripted) -> Config {
        let text = format!(
            "sources: {{main: {{ndjson: {{path: none}}}}}}\nrules: [\"{}\"]\nsinks: {{hook: {{stdout: {{closing: true}}}}}}\n",
            self.directory.path().join("rules.yaml").display()
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

#[tokio::test(start_paused = true)]
async fn a_quiet_alert_is_closed_once_over_restarts() {
    let mut rig = Rig::new(Outcome::Delivered, false);
    rig.daemon.once = false;
    for (hours, sent) in [(0, 1), (0, 1), (2, 2), (5, 2)] {
        let stop = CancellationToken::new();
        let (daemon, config, ends) = (rig.daemon.clone(), rig.config(Scripted::One), stop.clone());
        let running = tokio::spawn(async move { daemon.run(config, &ends).await });
        tokio::time::sleep(Duration::from_secs(hours * 3600 + 60)).await;
        stop.cancel();
        running.await.expect("no panic").expect("stored");
        assert_eq!(rig.hook.sent(), sent, "after {hours} h");
    }
    let alert_id = rig.store.alerts().remove(0).alert.alert_id;
    let expected = [crate::sink::delivery_id(&alert_id, "hook"), crate::sink::update::update_id(&alert_id, "hook", 1)];
    assert_eq!(*rig.hook.sent.lock().expect("no panic"), expected);
}
