//! Lanes on paused time, over the memory store.

use std::collections::VecDeque;
use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt as _;
use tokio::time::Instant;
use vigie_engine::alert::{Alert, AlertRule};
use vigie_engine::rule::Severity;
use vigie_engine::text::Untrusted;

use super::*;
use crate::clock::SetClock;
use crate::pace::{Bucket, Pace, Rate};
use crate::pipeline::BoxFuture;
use crate::sink::{AttemptReport, Delivery, Form, Outcome, RenderContext, RenderError, RetryProfile};
use crate::source::{Held, Seen};
use crate::store::archive::{DeliveryFilter, DeliveryRow, DeliveryStatus};
use crate::store::memory::MemoryStore;
use crate::store::{IngestBatch, Loaded, MAX_CLAIM, NewAlert, NewDelivery, Resolution, Settlement, StoreError};

mod clocks;
mod dead_letters;
mod faults;
mod isolation;
mod pace;
mod storm;

/// The memory store, which can be told to fail and keeps what was settled.
#[derive(Default)]
struct BookStore {
    memory: MemoryStore,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    ledger: Vec<(String, Settlement)>,
    /// What the next writes give: `none`, `full`, `fatal`.
    failures: VecDeque<&'static str>,
    commits: usize,
    alerts_are_gone: bool,
}

impl BookStore {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().expect("no test panics while holding it")
    }

    fn may_write(&self) -> Result<()> {
        let mut book = self.book();
        book.commits += 1;
        match book.failures.pop_front() {
            None | Some("none") => Ok(()),
            Some("full") => Err(StoreError::Full("no space".into())),
            Some(_) => Err(StoreError::Fatal("fsync".into())),
        }
    }

    fn add(&self, sink: &str, count: usize, at: DateTime<Utc>) {
        self.add_due(sink, count, at, at);
    }

    fn add_due(&self, sink: &str, count: usize, at: DateTime<Utc>, due_at: DateTime<Utc>) {
        let known = self.rows(sink).len();
        let (at, due_at) = (Some(at), Some(due_at));
        let mut batch = IngestBatch { source: "main".into(), at, due_at, ..IngestBatch::default() };
        for index in known..known + count {
            let alert_id = format!("alert-{index}");
            let delivery_id = crate::sink::delivery_id(&alert_id, sink);
            let body = format!("full body of {alert_id}").into_bytes();
            batch.alerts.push(NewAlert { alert: alert(&alert_id), muted_by: None });
            batch.deliveries.push(NewDelivery::new(delivery_id, alert_id, sink.into(), body));
        }
        now(self.memory.commit(batch));
    }

    fn rows(&self, sink: &str) -> Vec<DeliveryRow> {
        now(self.memory.deliveries(&DeliveryFilter { sink: Some(sink.into()), ..DeliveryFilter::default() }))
    }

    fn lane(&self, sink: &str) -> LaneState {
        let lanes = now(self.memory.load()).lanes;
        lanes.into_iter().find(|(name, _)| name == sink).map(|(_, state)| state).unwrap_or_default()
    }

    fn count(&self, sink: &str, status: DeliveryStatus) -> usize {
        self.rows(sink).iter().filter(|row| row.status == status).count()
    }

    fn delivered(&self, sink: &str) -> usize {
        self.count(sink, DeliveryStatus::Delivered) + self.count(sink, DeliveryStatus::Unconfirmed)
    }

    fn dead(&self, sink: &str) -> usize {
        self.count(sink, DeliveryStatus::Dead)
    }

    /// Attempts as they were settled.
    fn settled(&self, sink: &str) -> Vec<Settlement> {
        let made =
            |(name, settlement): &&(String, Settlement)| name == sink && settlement.resolution != Resolution::Released;
        self.book().ledger.iter().filter(made).map(|(_, settlement)| settlement.clone()).collect()
    }
}

/// The memory store never waits and, used as here, never fails.
fn now<T>(call: impl Future<Output = Result<T>>) -> T {
    call.now_or_never().expect("never waits").expect("used by its contract")
}

impl Seen for BookStore {
    fn held<'a>(&'a self, source: &'a str, ids: &'a [String]) -> BoxFuture<'a, Result<Vec<Held>>> {
        self.memory.held(source, ids)
    }

    fn count<'a>(&'a self, source: &'a str, from: DateTime<Utc>, to: DateTime<Utc>) -> BoxFuture<'a, Result<u64>> {
        Seen::count(&self.memory, source, from, to)
    }
}

impl Alerts for BookStore {
    fn alert<'a>(&'a self, alert_id: &'a str) -> BoxFuture<'a, Result<Option<Alert>>> {
        if self.book().alerts_are_gone {
            return Box::pin(std::future::ready(Ok(None)));
        }
        Alerts::alert(&self.memory, alert_id)
    }
}

impl Store for BookStore {
    fn load(&self) -> BoxFuture<'_, Result<Loaded>> {
        self.memory.load()
    }

    fn take_over(&self, now: DateTime<Utc>, latest: DateTime<Utc>) -> BoxFuture<'_, Result<()>> {
        self.memory.take_over(now, latest)
    }

    fn commit(&self, batch: IngestBatch) -> BoxFuture<'_, Result<()>> {
        self.memory.commit(batch)
    }

    fn claim<'a>(
        &'a self,
        sink: &'a str,
        now: DateTime<Utc>,
        lease_until: DateTime<Utc>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        assert!(limit <= MAX_CLAIM);
        match self.may_write() {
            Ok(()) => self.memory.claim(sink, now, lease_until, limit),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn settle<'a>(
        &'a self,
        sink: &'a str,
        settlements: Vec<Settlement>,
        lane: Option<LaneState>,
    ) -> BoxFuture<'a, Result<()>> {
        assert!(settlements.len() <= MAX_CLAIM);
        if let Err(error) = self.may_write() {
            return Box::pin(std::future::ready(Err(error)));
        }
        self.book().ledger.extend(settlements.iter().map(|settlement| (sink.to_owned(), settlement.clone())));
        self.memory.settle(sink, settlements, lane)
    }

    fn queue<'a>(&'a self, sink: &'a str) -> BoxFuture<'a, Result<Queue>> {
        self.memory.queue(sink)
    }
}

/// What a scripted sink does with an attempt.
#[derive(Debug, Clone)]
enum Act {
    Give(Outcome),
    Stall,
    Panic,
    /// Answers after this long.
    Slow(Duration, Outcome),
    /// Answers, and takes nothing more for this long.
    Spent(Outcome, Duration),
}

type Script = Box<dyn Fn(&Delivery, usize) -> Act + Send + Sync>;

/// One attempt as the destination saw it.
#[derive(Debug, Clone)]
struct Seenit {
    at: Instant,
    delivery: Delivery,
}

struct Scripted {
    profile: RetryProfile,
    script: Script,
    attempts: Mutex<Vec<Seenit>>,
}

impl Scripted {
    fn new(profile: RetryProfile, script: impl Fn(&Delivery, usize) -> Act + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { profile, script: Box::new(script), attempts: Mutex::new(Vec::new()) })
    }

    fn machine(script: impl Fn(&Delivery, usize) -> Act + Send + Sync + 'static) -> Arc<Self> {
        Self::new(RetryProfile::Machine, script)
    }

    fn always(outcome: Outcome) -> Arc<Self> {
        Self::machine(move |_, _| Act::Give(outcome.clone()))
    }

    fn attempts(&self) -> Vec<Seenit> {
        self.attempts.lock().expect("not poisoned").clone()
    }
}

impl Sink for Scripted {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn retry_profile(&self) -> RetryProfile {
        self.profile
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> std::result::Result<Vec<u8>, RenderError> {
        match context.form {
            Form::Full => Ok(format!("full body of {}", alert.alert_id).into_bytes()),
            Form::Plain => Ok(format!("plain {} of {}", alert.alert_id, context.now.time()).into_bytes()),
        }
    }

    fn render_update(
        &self,
        update: &crate::sink::update::Update<'_>,
        _: &RenderContext<'_>,
    ) -> std::result::Result<Vec<u8>, RenderError> {
        Ok(update.headline().into_bytes())
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        let mut attempts = self.attempts.lock().expect("not poisoned");
        let act = (self.script)(delivery, attempts.len());
        attempts.push(Seenit { at: Instant::now(), delivery: delivery.clone() });
        drop(attempts);
        let report = |outcome: Outcome| AttemptReport {
            status: format!("{outcome:?}"),
            outcome,
            excerpt: "x".into(),
            spent: None,
            receipt: None,
        };
        Box::pin(async move {
            match act {
                Act::Give(outcome) => report(outcome),
                Act::Spent(outcome, pause) => AttemptReport { spent: Some(pause), ..report(outcome) },
                Act::Stall => std::future::pending().await,
                Act::Panic => panic!("the sink's bug"),
                Act::Slow(after, outcome) => {
                    tokio::time::sleep(after).await;
                    report(outcome)
                }
            }
        })
    }

    fn probe(&self) -> crate::sink::probe::Probe<'_> {
        crate::sink::probe::Probe::Nothing("a double")
    }
}

fn alert(alert_id: &str) -> Alert {
    Alert {
        alert_id: alert_id.into(),
        rule: AlertRule {
            id: "rule".into(),
            title: "Rule".into(),
            severity: Severity::High,
            tags: Vec::new(),
            response: String::new(),
        },
        source: "main".into(),
        account_id: None,
        title: Untrusted::new("Title"),
        first_at: start(),
        last_at: start(),
        count: 1,
        late: None,
        finding: None,
        note: None,
        key: Vec::new(),
        reason: Vec::new(),
        event: serde_json::value::RawValue::from_string("{}".into()).expect("JSON"),
        events: Vec::new(),
    }
}

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("in range")
}

/// A store, its lanes, and what they told the operator.
struct Bench {
    store: Arc<BookStore>,
    shared: Lanes,
    clock: Arc<SetClock>,
    notices: Notices,
    wake: Wake,
    stop: CancellationToken,
    lanes: Vec<Lane>,
}

impl Bench {
    fn new() -> Self {
        let store = Arc::new(BookStore::default());
        let (sender, notices) = NoticeSender::channel();
        let clock = Arc::new(SetClock::starting_at(start()));
        let shared = Lanes {
            store: Arc::clone(&store) as Arc<dyn Store>,
            alerts: Arc::clone(&store) as Arc<dyn Alerts>,
            holds: Arc::new(store.memory.clone()),
            clock: clock.clone(),
            status: Arc::default(),
            own_pauses: OwnPauses::default(),
            notices: sender,
            jitter_seed: 42,
        };
        Self { store, shared, clock, notices, wake: Wake::default(), stop: CancellationToken::new(), lanes: Vec::new() }
    }

    fn lane(&mut self, name: &str, sink: &Arc<Scripted>) -> &mut Self {
        self.paced_lane(name, sink, None)
    }

    fn paced_lane(&mut self, name: &str, sink: &Arc<Scripted>, pace: Option<Pace>) -> &mut Self {
        let lane = self.shared.lane(name, Arc::clone(sink) as Arc<dyn Sink>, LaneState::default());
        self.lanes.push(lane.paced(pace));
        self
    }

    fn spawn(&mut self) -> tokio::task::JoinHandle<Result<()>> {
        let (lanes, wake, stop) = (std::mem::take(&mut self.lanes), self.wake.clone(), self.stop.clone());
        tokio::spawn(async move { run(lanes, &wake, &stop).await })
    }

    /// Lets the lanes run for this long and stops them in good order.
    async fn run_for(&mut self, time: Duration) {
        let running = self.spawn();
        tokio::time::sleep(time).await;
        self.stop.cancel();
        running.await.expect("no panic").expect("no storage failure");
    }

    fn notices(&mut self) -> Vec<LaneNoticeKind> {
        self.told().into_iter().map(|notice| notice.kind).collect()
    }

    fn told(&mut self) -> Vec<LaneNotice> {
        std::iter::from_fn(|| self.notices.try_next()).collect()
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn what_is_due_is_delivered_once_and_settled_in_batches() {
    let mut bench = Bench::new();
    bench.store.add("good", 500, start());
    let good = Scripted::machine(|_, _| Act::Slow(Duration::from_millis(1), Outcome::Delivered));
    bench.lane("good", &good).run_for(Duration::from_secs(10)).await;
    assert_eq!(bench.store.delivered("good"), 500);
    assert_eq!(good.attempts().len(), 500);
    assert!(bench.store.book().commits < 150, "{} commits for 500 rows", bench.store.book().commits);
    assert!(bench.store.rows("good").iter().all(|row| row.attempts == 1));
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_woken_at_once_and_finds_rows_of_others_within_two_seconds() {
    let mut bench = Bench::new();
    let good = Scripted::always(Outcome::Delivered);
    bench.lane("good", &good);
    let running = bench.spawn();
    tokio::time::sleep(Duration::from_secs(60)).await;
    bench.store.add("good", 1, start());
    let woken = Instant::now();
    bench.wake.wake();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(good.attempts()[0].at - woken < Duration::from_millis(2));
    bench.store.add("good", 2, start());
    tokio::time::sleep(IDLE_RECHECK + Duration::from_millis(10)).await;
    assert_eq!(good.attempts().len(), 3, "without a wake");
    bench.stop.cancel();
    running.await.expect("no panic").expect("no failure");
}

/// What a class must lead to: rows delivered, rows dead, attempts at the destination, pause of the lane in seconds that
/// outlives the process.
struct Expect {
    delivered: usize,
    dead: usize,
    attempts: usize,
    pause_seconds: std::ops::RangeInclusive<i64>,
    notices: &'static [LaneNoticeKind],
}

#[tokio::test(start_paused = true)]
async fn every_outcome_class_leads_to_what_the_policy_says() {
    use LaneNoticeKind::{DeadLetter, Misconfigured};
    let ends = |delivered, dead, attempts, notices| Expect { delivered, dead, attempts, pause_seconds: 0..=0, notices };
    let pauses = |pause_seconds, notices| Expect { delivered: 0, dead: 0, attempts: 1, pause_seconds, notices };
    let table = [
        (Outcome::Delivered, ends(1, 0, 1, &[])),
        (Outcome::Accepted, ends(1, 0, 1, &[])),
        (Outcome::Dead, ends(0, 1, 1, &[DeadLetter])),
        (Outcome::Degrade, ends(0, 1, 2, &[DeadLetter])),
        (Outcome::Later(HOUR), Expect { delivered: 0, dead: 0, attempts: 1, pause_seconds: 0..=0, notices: &[] }),
        (Outcome::Retry, pauses(0..=0, &[])),
        (Outcome::Wait(None), pauses(0..=0, &[])),
        (Outcome::Wait(Some(Duration::ZERO)), pauses(1..=1, &[])),
        (Outcome::Wait(Some(Duration::from_secs(600))), pauses(600..=600, &[])),
        (Outcome::Wait(Some(100 * HOUR)), pauses(6 * 3600..=6 * 3600, &[])),
        (Outcome::Misconfigured, pauses(0..=0, &[Misconfigured])),
    ];
    for (outcome, expect) in table {
        let mut bench = Bench::new();
        bench.store.add("it", 1, start());
        let sink = Scripted::always(outcome.clone());
        bench.lane("it", &sink);
        let left = drain(std::mem::take(&mut bench.lanes), &bench.stop).await.expect("no failure");
        let open = 1 - expect.delivered - expect.dead;
        assert_eq!(left[0].1.depth, open as u64, "{outcome:?}");
        assert_eq!(bench.store.delivered("it"), expect.delivered, "{outcome:?}");
        assert_eq!(bench.store.dead("it"), expect.dead, "{outcome:?}");
        assert_eq!(sink.attempts().len(), expect.attempts, "{outcome:?}");
        assert_eq!(bench.store.settled("it").len(), expect.attempts, "the ledger has every attempt of {outcome:?}");
        let lane = bench.store.lane("it");
        let pause = lane.paused_until.map_or(0, |until| (until - start()).num_seconds());
        assert!(expect.pause_seconds.contains(&pause), "{outcome:?} pauses {pause} s");
        let keeps = matches!(outcome, Outcome::Wait(Some(_)));
        assert_eq!(lane.paused_until.is_some(), keeps, "{outcome:?}");
        assert_eq!(bench.notices(), expect.notices, "{outcome:?}");
    }
}
