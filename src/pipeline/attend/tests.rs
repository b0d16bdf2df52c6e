//! Fallbacks and releases over a real file, for silences are added by another process: what is told where, and why.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use vigie_engine::diagnostic::{Diagnostics, SourceFile};
use vigie_engine::engine::Engine;
use vigie_engine::event::Event;
use vigie_engine::rule::{Lists, Rule};
use vigie_engine::{mute, route, rule, yaml};

use super::*;
use crate::pipeline::BoxFuture;
use crate::pipeline::drift::Drift;
use crate::pipeline::history::History;
use crate::pipeline::ingest::{Inhibitors, Parts};
use crate::sink::format::{Format, Shape};
use crate::sink::stdout::StdoutSink;
use crate::source::{Cursor, Fetched, Seen, Source, SourceError};
use crate::store::archive::{DeliveryFilter, DeliveryRow, DeliveryStatus};
use crate::store::hold::StoredSilence;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{Resolution, Settlement, Store};

const RULES: &str = "
rules:
  - {id: app-made, title: t, severity: high, when: {event_type: APP_CREATE}, alert: {dedup: [who], quiet: 1h}}
  - {id: app-gone, title: t, severity: low, when: {event_type: APP_DELETE}, alert: {dedup: [who], quiet: 1h}}
";

/// Everything that decides about an alert, on a clock that the test sets.
struct Scene {
    _directory: tempfile::TempDir,
    store: Arc<SqliteStore>,
    clock: Arc<Hand>,
    attendant: Arc<Attendant>,
}

/// Minutes since the start, as the test says.
#[derive(Debug, Default)]
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> DateTime<Utc> {
        start() + chrono::TimeDelta::minutes(self.0.load(Ordering::Relaxed))
    }

    fn steady(&self) -> DateTime<Utc> {
        self.now()
    }
}

/// One event and then the end.
struct One(Option<Event>);

impl Source for One {
    fn fetch<'a>(
        &'a mut self,
        _: Option<&'a Cursor>,
        _: &'a dyn Seen,
    ) -> BoxFuture<'a, std::result::Result<Fetched, SourceError>> {
        let events = self.0.take().into_iter().collect();
        let fetched = Fetched {
            events,
            before_start: Vec::new(),
            poison: Vec::new(),
            repeated: 0,
            cursor: Cursor("c".into()),
            cursor_may_wait: false,
            notices: Vec::new(),
            settled_at: None,
            aloud_from: None,
            learn_from: None,
            next_in: Duration::ZERO,
            windows_owed: 0,
            at_fault: None,
            finished: true,
            caught_up: true,
        };
        Box::pin(async move { Ok(fetched) })
    }
}

fn short(row: &DeliveryRow) -> String {
    row.alert_id.chars().take(12).collect()
}

fn start() -> DateTime<Utc> {
    "2026-03-04T10:00:00Z".parse().expect("a stamp")
}

fn loaded(text: &str) -> Vec<Rule> {
    let file = SourceFile { path: "r.yaml".into(), text: text.into() };
    rule::load(&[file], &mut |_, _| Err("no lists".into()), &mut Diagnostics::default()).rules
}

fn node(text: &str) -> yaml::Node {
    yaml::parse(&SourceFile { path: "v.yaml".into(), text: text.into() }, &mut Diagnostics::default()).expect("a tree")
}

impl Scene {
    fn new(routes: &str, inhibit: &str) -> Self {
        let directory = tempfile::TempDir::new().expect("a directory");
        let store = Arc::new(SqliteStore::open(directory.path(), &SqliteOptions::daemon()).expect("opened"));
        let clock = Arc::new(Hand::default());
        let mut diagnostics = Diagnostics::default();
        let outlet = |name: &str| {
            let writer: crate::sink::SharedWriter = Arc::new(Mutex::new(std::io::sink()));
            let sink = Arc::new(StdoutSink::new(Shape::Json(Format::Native), false, writer));
            Outlet { name: name.into(), sink, follow: None }
        };
        let outlets: Vec<Outlet> = ["chat", "mail"].map(outlet).into();
        let engine = Engine::new(loaded(RULES));
        let quiets = Quiets::of(engine.rules());
        let wake = Wake::default();
        let routes = route::load(&node(routes), &Lists::default(), &["chat", "mail"], &mut diagnostics);
        let inhibitions = mute::load(&node(inhibit), &Lists::default(), &mut diagnostics);
        assert!(!diagnostics.has_errors(), "{diagnostics:?}");
        let ingest = Arc::new(Ingest::new(Parts {
            engine,
            drift: Drift::default(),
            history: History::default(),
            routes,
            inhibitions,
            inhibitors: Inhibitors::default(),
            holds: store.clone(),
            outlets: outlets.clone(),
            wake: wake.clone(),
            store: store.clone(),
            clock: clock.clone(),
            status: Arc::default(),
            dry_run: false,
        }));
        let (holds, alerts) = (store.clone(), store.clone());
        let attendant = Arc::new(Attendant { holds, alerts, outlets, ingest, quiets, clock: clock.clone(), wake });
        Self { _directory: directory, store, clock, attendant }
    }

    /// An event of the present moment, through rules and routes.
    async fn happens(&self, id: &str, event_type: &str, who: &str) {
        let now = self.clock.now();
        let raw = format!(r#"{{"id": "{id}", "event_type": "{event_type}", "who": "{who}"}}"#);
        let mut source = One(Some(Event::new(id, now, raw.into()).expect("an event")));
        let stop = CancellationToken::new();
        self.attendant.ingest.run_source("main", &mut source, None, true, &stop).await.expect("stored");
    }

    async fn later(&self, minutes: i64) {
        self.clock.0.fetch_add(minutes, Ordering::Relaxed);
        self.attendant.look().await.expect("looked");
    }

    async fn silence(&self, matchers: &str, minutes: i64) -> StoredSilence {
        let now = self.clock.now();
        let silence = StoredSilence {
            silence_id: format!("s{minutes}"),
            matchers: matchers.into(),
            owner: "bob".into(),
            reason: "maintenance".into(),
            starts_at: now,
            ends_at: now + chrono::TimeDelta::minutes(minutes),
            created_at: now,
        };
        self.store.add_silence(&silence).await.expect("stored");
        silence
    }

    async fn rows(&self, sink: &str) -> Vec<DeliveryRow> {
        let filter = DeliveryFilter { sink: Some(sink.into()), ..DeliveryFilter::default() };
        let mut rows = self.store.deliveries(&filter).await.expect("readable");
        rows.reverse();
        rows
    }

    async fn standing(&self, sink: &str) -> Vec<DeliveryStatus> {
        self.rows(sink).await.iter().map(|row| row.status).collect()
    }

    async fn settle_all(&self, sink: &str, resolution: &Resolution) {
        let steady = self.clock.steady();
        for row in self.store.claim(sink, steady, steady, 64).await.expect("claimed") {
            let settlement = Settlement {
                delivery_id: row.delivery_id,
                resolution: resolution.clone(),
                started_at: self.clock.now(),
                latency_ms: 1,
                status: "HTTP 503".into(),
                excerpt: String::new(),
                receipt: None,
            };
            self.store.settle(sink, vec![settlement], None).await.expect("settled");
        }
    }

    async fn body(&self, row: &DeliveryRow) -> serde_json::Value {
        let detail = self.store.delivery(&row.delivery_id).await.expect("readable").expect("stored");
        serde_json::from_str(&detail.body).expect("JSON")
    }
}

#[tokio::test]
async fn what_is_not_confirmed_in_time_goes_to_the_fallback_with_the_reason() {
    let scene = Scene::new("[{to: chat, fallback: mail, after: 2m}]", "[]");
    scene.happens("e1", "APP_CREATE", "bob").await;
    scene.settle_all("chat", &Resolution::RetryAt(start() + chrono::TimeDelta::hours(1))).await;
    scene.later(1).await;
    assert_eq!(scene.standing("mail").await, []);
    scene.later(1).await;
    let rows = scene.rows("mail").await;
    assert_eq!(rows.len(), 1);
    let body = scene.body(&rows[0]).await;
    assert_eq!(body["note"], "sent here too because sink chat has not confirmed it after 2m (HTTP 503)");
    assert_eq!(rows[0].note.as_deref(), body["note"].as_str());
    scene.later(60).await;
    assert_eq!(
        (scene.rows("mail").await.len(), scene.standing("chat").await),
        (1, vec![DeliveryStatus::Pending]),
        "once"
    );
}

#[tokio::test]
async fn what_is_given_up_goes_there_at_once_and_what_is_confirmed_never() {
    let scene = Scene::new("[{to: chat, fallback: [mail, chat], after: 2h}]", "[]");
    scene.happens("e1", "APP_CREATE", "bob").await;
    scene.settle_all("chat", &Resolution::Dead).await;
    scene.happens("e2", "APP_CREATE", "eve").await;
    scene.settle_all("chat", &Resolution::Delivered { unconfirmed: true }).await;
    scene.later(0).await;
    let rows = scene.rows("mail").await;
    assert_eq!(rows.len(), 1);
    assert!(rows[0].note.as_ref().is_some_and(|note| note.contains("sink chat gave it up")), "{rows:?}");
    scene.later(600).await;
    assert_eq!(scene.rows("mail").await.len(), 1);
}

#[tokio::test]
async fn a_silence_keeps_back_what_it_fits_and_a_digest_tells_of_it_at_its_end() {
    let scene = Scene::new("[{to: [chat, mail]}]", "[]");
    scene.silence("rule=app-made", 120).await;
    scene.happens("e1", "APP_CREATE", "bob").await;
    scene.happens("e2", "APP_DELETE", "bob").await;
    assert_eq!(scene.standing("chat").await, [DeliveryStatus::Muted, DeliveryStatus::Pending]);
    let muted = scene.rows("chat").await.remove(0);
    assert_eq!(muted.muted_by.as_deref(), Some("silence s120"));
    let alert = scene.store.alert(&muted.alert_id).await.expect("readable").expect("stored").row;
    assert_eq!((alert.muted_by.as_deref(), alert.muted), (Some("silence s120"), 2));
    scene.later(119).await;
    assert_eq!(scene.standing("chat").await, [DeliveryStatus::Muted, DeliveryStatus::Pending]);
    // The alert has been quiet for longer than its rule's hour by now: a digest tells of it.
    scene.later(1).await;
    for sink in ["chat", "mail"] {
        let rows = scene.rows(sink).await;
        let status: Vec<_> = rows.iter().map(|row| row.status).collect();
        assert_eq!(status, [DeliveryStatus::Digested, DeliveryStatus::Pending, DeliveryStatus::Pending]);
        let body = scene.body(&rows[2]).await;
        let title = body["title"].as_str().expect("text");
        assert!(
            title.starts_with("1 of app-made were not told: silence s120 by bob until 2026-03-04 12:00 UTC"),
            "{title}"
        );
    }
    scene.later(600).await;
    assert_eq!(scene.rows("chat").await.len(), 3, "once");
}

#[tokio::test]
async fn what_still_goes_on_when_a_silence_ends_is_told_by_itself_and_early_when_it_is_expired() {
    let scene = Scene::new("[{to: chat}]", "[]");
    let silence = scene.silence("severity=high", 600).await;
    scene.happens("e1", "APP_CREATE", "bob").await;
    scene.later(10).await;
    scene.happens("e2", "APP_CREATE", "bob").await;
    assert!(scene.store.expire_silence(&silence.silence_id, scene.clock.now()).await.expect("written"));
    assert!(!scene.store.expire_silence(&silence.silence_id, scene.clock.now()).await.expect("written"), "it is over");
    scene.later(0).await;
    let rows = scene.rows("chat").await;
    assert_eq!(rows.iter().map(|row| row.status).collect::<Vec<_>>(), [DeliveryStatus::Pending]);
    let body = scene.body(&rows[0]).await;
    assert_eq!(body["count"], 2, "as it stands now");
    assert!(
        body["note"].as_str().expect("text").starts_with("it was kept back until now: silence s600 by bob"),
        "{body}"
    );
    scene.happens("e3", "APP_CREATE", "eve").await;
    assert_eq!(scene.standing("chat").await, [DeliveryStatus::Pending, DeliveryStatus::Pending], "in force no more");
}

#[tokio::test]
async fn what_another_silence_fits_stays_muted() {
    let scene = Scene::new("[{to: chat}]", "[]");
    scene.silence("severity=high", 30).await;
    scene.happens("e1", "APP_CREATE", "bob").await;
    scene.silence("rule=app-made", 90).await;
    scene.later(31).await;
    let rows = scene.rows("chat").await;
    assert_eq!((rows[0].status, rows[0].muted_by.as_deref()), (DeliveryStatus::Muted, Some("silence s90")));
    scene.later(90).await;
    assert_eq!(scene.standing("chat").await, [DeliveryStatus::Digested, DeliveryStatus::Pending]);
}

#[tokio::test]
async fn a_route_is_quiet_at_its_times_and_another_route_to_the_sink_is_not() {
    // 2026-03-04 is a Wednesday.
    let scene = Scene::new(
        "[{to: chat, mute: {hours: \"09:00-11:30\"}, continue: true}, {match: {severity: low}, to: chat}]",
        "[]",
    );
    scene.happens("e1", "APP_CREATE", "bob").await;
    scene.happens("e2", "APP_DELETE", "bob").await;
    assert_eq!(scene.standing("chat").await, [DeliveryStatus::Muted, DeliveryStatus::Pending]);
    let note = scene.rows("chat").await.remove(0).note.expect("said");
    assert_eq!(note, "the route at v.yaml:1 is quiet: 09:00-11:30 UTC");
    scene.later(89).await;
    assert_eq!(scene.standing("chat").await[0], DeliveryStatus::Muted);
    scene.later(1).await;
    assert_eq!(
        scene.standing("chat").await,
        [DeliveryStatus::Digested, DeliveryStatus::Pending, DeliveryStatus::Pending]
    );
}

#[tokio::test]
async fn a_route_tells_the_same_once_in_its_quiet_time() {
    let scene = Scene::new("[{to: chat, dedup: [rule], quiet: 3h, continue: true}, {to: mail}]", "[]");
    scene.happens("e1", "APP_CREATE", "bob").await;
    scene.happens("e2", "APP_CREATE", "eve").await;
    scene.happens("e3", "APP_DELETE", "eve").await;
    let rows = scene.rows("chat").await;
    let status: Vec<_> = rows.iter().map(|row| row.status).collect();
    assert_eq!(status, [DeliveryStatus::Pending, DeliveryStatus::Muted, DeliveryStatus::Pending]);
    let by = format!("repeat of alert {}", short(&rows[0]));
    assert_eq!(rows[1].muted_by.as_deref(), Some(by.as_str()));
    assert_eq!(scene.standing("mail").await, [DeliveryStatus::Pending; 3], "the other sink is told of each");
    scene.later(181).await;
    assert_eq!(scene.rows("chat").await.len(), 3, "a repeat is not told later");
    scene.happens("e4", "APP_CREATE", "ann").await;
    assert_eq!(scene.standing("chat").await[3], DeliveryStatus::Pending, "the time counts from what was told");
}

#[tokio::test]
async fn an_open_alert_holds_down_others_until_it_is_quiet_and_over_a_restart() {
    let inhibit = "[{source: {severity: high}, target: {severity: low}, equal: [event.who]}]";
    let scene = Scene::new("[{to: chat}]", inhibit);
    scene.happens("e0", "APP_DELETE", "bob").await;
    scene.happens("e1", "APP_CREATE", "bob").await;
    scene.later(50).await;
    // A further match keeps it open.
    scene.happens("e2", "APP_CREATE", "bob").await;
    scene.later(30).await;
    let state = scene.store.load().await.expect("readable").state.all().await.expect("readable");
    let mut inhibitors = Inhibitors::default();
    state.iter().for_each(|rows| inhibitors.take_up(rows));
    assert!(format!("{inhibitors:?}").contains("app-made"), "kept for a restart: {inhibitors:?}");
    scene.happens("e3", "APP_DELETE", "bob").await;
    scene.happens("e4", "APP_DELETE", "eve").await;
    let rows = scene.rows("chat").await;
    let told: Vec<_> = rows.iter().map(|row| row.status == DeliveryStatus::Pending).collect();
    assert_eq!(told, [true, true, false, true], "before it, itself, held down, of another");
    let by = format!("inhibited by alert {}", short(&rows[1]));
    assert_eq!(rows[2].muted_by.as_deref(), Some(by.as_str()));
    scene.later(120).await;
    scene.happens("e5", "APP_DELETE", "bob").await;
    assert_eq!(scene.standing("chat").await[4], DeliveryStatus::Pending, "it is quiet");
}

#[tokio::test]
async fn what_was_kept_back_for_a_sink_that_is_gone_waits_for_it() {
    let scene = Scene::new("[{to: chat}]", "[]");
    scene.silence("rule=app-made", 90).await;
    scene.happens("e1", "APP_CREATE", "bob").await;
    let Attendant { holds, alerts, outlets, ingest, quiets, clock, wake } = &*scene.attendant;
    let without = outlets.iter().filter(|outlet| outlet.name != "chat").cloned().collect();
    let (holds, alerts, ingest) = (holds.clone(), alerts.clone(), ingest.clone());
    let (quiets, clock, wake) = (quiets.clone(), clock.clone(), wake.clone());
    let reloaded = Attendant { holds, alerts, outlets: without, ingest, quiets, clock, wake };
    scene.clock.0.fetch_add(100, Ordering::Relaxed);
    reloaded.look().await.expect("looked");
    assert_eq!(scene.standing("chat").await, [DeliveryStatus::Muted], "nobody could be told");
    scene.later(61).await;
    assert_eq!(scene.standing("chat").await, [DeliveryStatus::Digested, DeliveryStatus::Pending], "it is back");
}

#[tokio::test]
async fn what_is_told_when_a_silence_ends_has_its_fallback() {
    let scene = Scene::new("[{to: chat, fallback: mail, after: 2m}]", "[]");
    scene.silence("rule=app-made", 10).await;
    scene.happens("e1", "APP_CREATE", "bob").await;
    scene.later(10).await;
    assert_eq!(scene.standing("chat").await, [DeliveryStatus::Pending], "it goes on");
    scene.later(3).await;
    assert_eq!(scene.rows("mail").await.len(), 1);
}

#[tokio::test]
async fn what_is_held_down_is_told_once_nothing_holds_it_down_and_it_still_goes_on() {
    let inhibit = "[{source: {severity: high}, target: {severity: low}, equal: [event.who]}]";
    let scene = Scene::new("[{to: chat}]", inhibit);
    scene.happens("e1", "APP_CREATE", "bob").await;
    scene.happens("e2", "APP_DELETE", "bob").await;
    for minute in 0..2 {
        scene.later(25).await;
        scene.happens(&format!("m{minute}"), "APP_DELETE", "bob").await;
    }
    assert_eq!(scene.standing("chat").await, [DeliveryStatus::Pending, DeliveryStatus::Muted]);
    scene.later(11).await;
    assert_eq!(scene.standing("chat").await, [DeliveryStatus::Pending, DeliveryStatus::Pending]);
}
