//! Lanes on paused time, over a store that keeps its rows in memory and can be told to fail.

use std::collections::HashMap;
use std::sync::Mutex;

use vigie_engine::alert::{Alert, AlertRule};
use vigie_engine::rule::Severity;
use vigie_engine::text::Untrusted;

use super::*;
use crate::clock::TokioClock;
use crate::pipeline::BoxFuture;
use crate::sink::RenderError;
use crate::source::Seen;
use crate::store::{IngestBatch, Loaded, StoreError};

mod dead_letters;
mod faults;
mod isolation;

/// One row as the store has it.
#[derive(Debug, Clone)]
struct Row {
    delivery: Delivery,
    due: DateTime<Utc>,
    end: Option<Resolution>,
}

#[derive(Default)]
struct Book {
    rows: Vec<Row>,
    lanes: HashMap<String, LaneState>,
    ledger: Vec<(String, Settlement)>,
    failures: VecDeque<&'static str>,
    commits: usize,
}

#[derive(Default)]
struct BookStore(Mutex<Book>);

fn book_error(kind: &str) -> StoreError {
    if kind == "full" { StoreError::Full("no space".into()) } else { StoreError::Fatal("fsync".into()) }
}

impl BookStore {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().expect("no test panics while holding it")
    }

    fn write<T>(&self, change: impl FnOnce(&mut Book) -> T) -> Result<T> {
        let mut book = self.book();
        book.commits += 1;
        match book.failures.pop_front() {
            None | Some("none") => Ok(change(&mut book)),
            Some(kind) => Err(book_error(kind)),
        }
    }

    fn add(&self, sink: &str, count: usize, at: DateTime<Utc>) {
        for index in 0..count {
            let alert_id = format!("alert-{index}");
            let delivery_id = crate::sink::delivery_id(&alert_id, sink);
            let body = format!("full body of {alert_id}").into_bytes();
            let delivery = Delivery { delivery_id, alert_id, sink: sink.into(), body, attempts: 0, created_at: at };
            self.book().rows.push(Row { delivery, due: at, end: None });
        }
    }

    fn delivered(&self, sink: &str) -> usize {
        self.ended(sink, |end| matches!(end, Resolution::Delivered { .. }))
    }

    fn dead(&self, sink: &str) -> usize {
        self.ended(sink, |end| *end == Resolution::Dead)
    }

    fn ended(&self, sink: &str, what: impl Fn(&Resolution) -> bool) -> usize {
        self.book().rows.iter().filter(|row| row.delivery.sink == sink && row.end.as_ref().is_some_and(&what)).count()
    }

    fn settled(&self, sink: &str) -> Vec<Settlement> {
        let made = |(name, settlement): &(String, Settlement)| {
            name == sink && !matches!(settlement.resolution, Resolution::Released)
        };
        self.book().ledger.iter().filter(|line| made(line)).map(|(_, settlement)| settlement.clone()).collect()
    }
}

impl Seen for BookStore {
    fn contains<'a>(&'a self, _: &'a str, ids: &'a [String]) -> BoxFuture<'a, Result<Vec<bool>>> {
        Box::pin(async { Ok(vec![false; ids.len()]) })
    }

    fn count<'a>(&'a self, _: &'a str, _: DateTime<Utc>, _: DateTime<Utc>) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async { Ok(0) })
    }
}

impl Alerts for BookStore {
    fn alert<'a>(&'a self, alert_id: &'a str) -> BoxFuture<'a, Result<Option<Alert>>> {
        Box::pin(async move { Ok((alert_id != "alert-gone").then(|| alert(alert_id))) })
    }
}

impl Store for BookStore {
    fn load(&self) -> BoxFuture<'_, Result<Loaded>> {
        Box::pin(async { Ok(Loaded::default()) })
    }

    fn commit(&self, _: IngestBatch) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn claim<'a>(
        &'a self,
        sink: &'a str,
        now: DateTime<Utc>,
        lease_until: DateTime<Utc>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        Box::pin(async move {
            assert!(limit <= MAX_CLAIM);
            self.write(|book| {
                let mut due: Vec<&mut Row> = book
                    .rows
                    .iter_mut()
                    .filter(|row| row.delivery.sink == sink && row.end.is_none() && row.due <= now)
                    .collect();
                due.sort_by_key(|row| (row.delivery.attempts, row.delivery.created_at));
                due.truncate(limit);
                due.into_iter()
                    .map(|row| {
                        row.due = lease_until;
                        row.delivery.attempts += 1;
                        Delivery { attempts: row.delivery.attempts - 1, ..row.delivery.clone() }
                    })
                    .collect()
            })
        })
    }

    fn settle<'a>(
        &'a self,
        sink: &'a str,
        settlements: Vec<Settlement>,
        lane: Option<LaneState>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            assert!(settlements.len() <= MAX_CLAIM);
            self.write(|book| {
                for settlement in settlements {
                    let row = book
                        .rows
                        .iter_mut()
                        .find(|row| row.delivery.delivery_id == settlement.delivery_id)
                        .expect("settles what was claimed");
                    match settlement.resolution.clone() {
                        end @ (Resolution::Delivered { .. } | Resolution::Dead) => row.end = Some(end),
                        Resolution::RetryAt(at) => row.due = at,
                        Resolution::Degraded(at, body) => {
                            row.due = at;
                            row.delivery.body = body;
                        }
                        Resolution::Released => {
                            row.due = row.delivery.created_at;
                            row.delivery.attempts -= 1;
                        }
                    }
                    book.ledger.push((sink.to_owned(), settlement));
                }
                if let Some(lane) = lane {
                    book.lanes.insert(sink.to_owned(), lane);
                }
            })
        })
    }

    fn queue<'a>(&'a self, sink: &'a str) -> BoxFuture<'a, Result<Queue>> {
        Box::pin(async move {
            let book = self.book();
            let open: Vec<&Row> =
                book.rows.iter().filter(|row| row.delivery.sink == sink && row.end.is_none()).collect();
            Ok(Queue {
                depth: open.len() as u64,
                next_due_at: open.iter().map(|row| row.due).min(),
                oldest_created_at: open.iter().map(|row| row.delivery.created_at).min(),
                dead: 0,
            })
        })
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
            Form::Plain => Ok(format!("plain {}", alert.alert_id).into_bytes()),
        }
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        let mut attempts = self.attempts.lock().expect("not poisoned");
        let act = (self.script)(delivery, attempts.len());
        attempts.push(Seenit { at: Instant::now(), delivery: delivery.clone() });
        drop(attempts);
        let report = |outcome: Outcome| AttemptReport { status: format!("{outcome:?}"), outcome, excerpt: "x".into() };
        Box::pin(async move {
            match act {
                Act::Give(outcome) => report(outcome),
                Act::Stall => std::future::pending().await,
                Act::Panic => panic!("the sink's bug"),
                Act::Slow(after, outcome) => {
                    tokio::time::sleep(after).await;
                    report(outcome)
                }
            }
        })
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
    notices: tokio::sync::mpsc::Receiver<LaneNotice>,
    wake: Wake,
    stop: CancellationToken,
    lanes: Vec<Lane>,
}

impl Bench {
    fn new() -> Self {
        let store = Arc::new(BookStore::default());
        let (sender, notices) = NoticeSender::channel();
        let shared = Lanes {
            store: Arc::clone(&store) as Arc<dyn Store>,
            alerts: Arc::clone(&store) as Arc<dyn Alerts>,
            clock: Arc::new(TokioClock::starting_at(start())),
            notices: sender,
            jitter_seed: 42,
        };
        Self { store, shared, notices, wake: Wake::default(), stop: CancellationToken::new(), lanes: Vec::new() }
    }

    fn lane(&mut self, name: &str, sink: &Arc<Scripted>) -> &mut Self {
        let lane = self.shared.lane(name, Arc::clone(sink) as Arc<dyn Sink>, LaneState::default());
        self.lanes.push(lane);
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
        std::iter::from_fn(|| self.notices.try_recv().ok()).map(|notice| notice.kind).collect()
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
    assert!(bench.store.book().commits < 60, "{} commits for 500 rows", bench.store.book().commits);
    assert!(bench.store.book().rows.iter().all(|row| row.delivery.attempts == 1));
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

/// What a class must lead to: rows delivered, rows dead, attempts at the destination, pause of the lane in seconds.
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
        (Outcome::Retry, pauses(0..=1, &[])),
        (Outcome::Wait(None), pauses(0..=1, &[])),
        (Outcome::Wait(Some(Duration::ZERO)), pauses(1..=1, &[])),
        (Outcome::Wait(Some(Duration::from_secs(600))), pauses(600..=600, &[])),
        (Outcome::Wait(Some(100 * HOUR)), pauses(6 * 3600..=6 * 3600, &[])),
        (Outcome::Misconfigured, pauses(300..=300, &[Misconfigured])),
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
        let lane = bench.store.book().lanes.get("it").cloned().unwrap_or_default();
        let pause = lane.paused_until.map_or(0, |until| (until - start()).num_seconds());
        assert!(expect.pause_seconds.contains(&pause), "{outcome:?} pauses {pause} s");
        assert_eq!(lane.paused_until.is_some(), lane.step == 1, "{outcome:?}");
        assert_eq!(bench.notices(), expect.notices, "{outcome:?}");
    }
}
