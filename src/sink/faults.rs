//! Every kind of sink against every fault, on real lanes over real sockets: beside each sink in trouble one of the same kind is
//! well. The well ones are not held up, and what the others owe is there once the trouble has ended, once.
//!
//! A fault that a kind cannot have is in the table with the reason. Nothing here waits for time-outs: time is moved on when
//! nothing else happens, so that a relay's minute costs nothing.

mod destination;
mod place;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{TimeZone as _, Utc};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use vigie_engine::alert::Alert;

use self::destination::{Destination, Language, Trouble};
use self::place::Place;
use super::contract::{alert_titled, context, text_node};
use super::every::{DELIVERY, Every, all};
use super::probe::Probe;
use super::update::Update;
use super::{AttemptReport, Delivery, Form, Outcome, RenderContext, RenderError, RetryProfile, Sink, delivery_id};
use crate::clock::{Clock as _, TokioClock};
use crate::pipeline::BoxFuture;
use crate::pipeline::deliver::{Lanes, NoticeSender, OwnPauses, Wake, run};
use crate::store::archive::{DeliveryFilter, DeliveryStatus};
use crate::store::memory::MemoryStore;
use crate::store::{IngestBatch, LaneState, NewAlert, NewDelivery};

/// How much later than without any fault a neighbour may deliver.
const MAX_LATER: Duration = Duration::from_secs(1);
/// How often a fault is tried when a neighbour is later than that.
const MAX_TRIES: usize = 4;
/// What the kernel keeps between the two sides, beyond what is read: a small send buffer and its usual receive buffer, which
/// does not grow while nobody reads.
const KERNEL_BYTES: usize = 192 * 1024;
/// What happens without time moving on happens within this.
const SOON: Duration = Duration::from_secs(20);
/// Nothing happens any more.
const QUIET: Duration = Duration::from_millis(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Refused,
    Dns,
    CertificateExpired,
    CertificateOfAnother,
    ConnectStall,
    ByteASecond,
    ResetInRequest,
    ResetInAnswer,
    Burst,
    Limited,
    Endless,
    Bomb,
    ErrorPage,
}

impl Fault {
    const ALL: [Self; 13] = [
        Self::Refused,
        Self::Dns,
        Self::CertificateExpired,
        Self::CertificateOfAnother,
        Self::ConnectStall,
        Self::ByteASecond,
        Self::ResetInRequest,
        Self::ResetInAnswer,
        Self::Burst,
        Self::Limited,
        Self::Endless,
        Self::Bomb,
        Self::ErrorPage,
    ];

    /// Whether an attempt may count as delivered all the same: the destination has said yes before it went on.
    fn may_deliver(self) -> bool {
        matches!(self, Self::None | Self::ResetInAnswer | Self::Endless | Self::Bomb)
    }
}

/// How a fault is made for a kind.
enum Way {
    /// By a server that speaks its language.
    Server(Trouble),
    /// By what the test does on this machine.
    Local,
    /// It cannot be.
    Absent(&'static str),
}

/// Rows beside those of the kinds: `syslog` over UDP, and TLS that begins in the middle of a conversation.
const DATAGRAMS: &str = "syslog over UDP";
const STARTTLS: &str = "email over STARTTLS";
const TLS_AFTER_INFO: &str = "nats with TLS after its first word";
const NO_NET: &str = "there is no network between the two";
const NO_ANSWER: &str = "syslog has no answer";
const STATUS_ONLY: &str = "any 2xx is a yes, by Standard Webhooks";

fn way(kind: &str, fault: Fault) -> Way {
    use Way::{Absent, Local, Server};
    match (kind, fault) {
        (_, Fault::None) if matches!(kind, "stdout" | "file" | "exec") => Local,
        ("stdout", Fault::Refused | Fault::ConnectStall | Fault::Burst) => Local,
        ("file", Fault::Refused | Fault::ConnectStall | Fault::Burst) => Local,
        ("exec", Fault::Refused | Fault::ConnectStall | Fault::ByteASecond | Fault::Burst | Fault::Endless) => Local,
        ("exec", Fault::ErrorPage) => Absent("the program's end is its answer, whatever it prints"),
        ("stdout" | "file" | "exec", _) => Absent(NO_NET),
        ("syslog", Fault::ByteASecond | Fault::ResetInAnswer | Fault::Burst | Fault::Limited | Fault::ErrorPage) => {
            Absent(NO_ANSWER)
        }
        (DATAGRAMS, fault) if !matches!(fault, Fault::None | Fault::Refused | Fault::Dns) => {
            Absent("a datagram has no connection, and nothing is answered")
        }
        ("syslog" | "nats" | TLS_AFTER_INFO | "email" | STARTTLS, Fault::Bomb) => {
            Absent("nothing is compressed in its protocol")
        }
        ("webhook", Fault::ErrorPage) => Absent(STATUS_ONLY),
        (_, fault) => Server(match fault {
            Fault::None | Fault::Dns => Trouble::None,
            Fault::Refused => Trouble::Refuses,
            Fault::CertificateExpired => Trouble::Certificate("expired"),
            Fault::CertificateOfAnother => Trouble::Certificate("elsewhere"),
            Fault::ConnectStall => Trouble::NeverAccepts,
            Fault::ByteASecond => Trouble::ByteASecond,
            Fault::ResetInRequest => Trouble::ResetsInRequest,
            Fault::ResetInAnswer => Trouble::ResetsInAnswer,
            Fault::Burst => Trouble::Busy,
            Fault::Limited => Trouble::Limits,
            Fault::Endless => Trouble::Endless,
            Fault::Bomb => Trouble::Bomb,
            Fault::ErrorPage => Trouble::Page,
        }),
    }
}

/// Every kind, and what is a row of its own beside it.
fn rows() -> impl Iterator<Item = (&'static Every, &'static str)> {
    all().flat_map(|every| {
        let more = match every.kind {
            "syslog" => Some((every, DATAGRAMS)),
            "email" => Some((every, STARTTLS)),
            "nats" => Some((every, TLS_AFTER_INFO)),
            _ => None,
        };
        [(every, every.kind)].into_iter().chain(more)
    })
}

/// What the test sees of a sink: attempts that began, and what came of those that ended.
#[derive(Debug, Default)]
struct Seen {
    began: usize,
    reports: Vec<AttemptReport>,
}

impl Seen {
    fn in_flight(&self) -> usize {
        self.began - self.reports.len()
    }
}

struct Watched {
    sink: Box<dyn Sink>,
    seen: watch::Sender<Seen>,
}

impl Sink for Watched {
    fn kind(&self) -> &'static str {
        self.sink.kind()
    }

    fn retry_profile(&self) -> RetryProfile {
        self.sink.retry_profile()
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        self.sink.render(alert, context)
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        self.sink.render_update(update, context)
    }

    fn probe(&self) -> Probe<'_> {
        self.sink.probe()
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(async move {
            self.seen.send_modify(|seen| seen.began += 1);
            let report = self.sink.send(delivery).await;
            self.seen.send_modify(|seen| seen.reports.push(report.clone()));
            report
        })
    }
}

const TITLE: &str = "Number forwarded elsewhere";

/// Where a sink sends to.
enum Side {
    Server(Destination),
    Here(Place),
}

/// One sink of the matrix.
struct One {
    name: String,
    kind: &'static str,
    fault: Fault,
    sink: Arc<Watched>,
    side: Side,
    resolves: Arc<AtomicBool>,
}

impl One {
    async fn new((every, row): (&'static Every, &'static str), fault: Fault, name: String) -> Self {
        let (mut context, _) = context();
        let resolves = Arc::new(AtomicBool::new(fault != Fault::Dns));
        let answers = Arc::clone(&resolves);
        context.lookup = Arc::new(move |host| {
            let found = match host == "faults.test" && answers.load(Ordering::SeqCst) {
                true => Ok(vec![([127, 0, 0, 1], 0).into()]),
                false => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
            };
            Box::pin(std::future::ready(found))
        });
        let (side, place, mut more) = match way(row, fault) {
            Way::Server(trouble) => {
                let language = match row {
                    DATAGRAMS => Language::Datagram,
                    "email" | STARTTLS => Language::Smtp,
                    "nats" | TLS_AFTER_INFO => Language::Nats,
                    "syslog" => Language::Syslog,
                    _ => Language::Http(every.yes.replace(DELIVERY, &delivery_id(&alert().alert_id, &name))),
                };
                let server = Destination::start(language, matches!(row, STARTTLS | TLS_AFTER_INFO), trouble).await;
                let (place, more) = server.place();
                (Side::Server(server), place, more)
            }
            Way::Local => {
                let (place, path) = Place::new(every, fault, &mut context);
                (Side::Here(place), path, Vec::new())
            }
            Way::Absent(reason) => panic!("{}, {fault:?}: {reason}", every.kind),
        };
        more.extend((every.kind == "stdout").then(|| ("format", text_node("json"))));
        let sink = every.make(&place, more, &context);
        let sink = Arc::new(Watched { sink, seen: watch::Sender::default() });
        Self { name, kind: every.kind, fault, sink, side, resolves }
    }

    fn heal(&self) {
        self.resolves.store(true, Ordering::SeqCst);
        match &self.side {
            Side::Server(server) => server.heal(),
            Side::Here(place) => place.heal(self.kind, self.fault),
        }
    }

    fn copies(&self) -> usize {
        match &self.side {
            Side::Server(server) => server.copies(),
            Side::Here(place) => place.copies(self.kind, self.fault),
        }
    }
}

fn alert() -> Alert {
    alert_titled(TITLE)
}

/// Sinks of one fault with their neighbours, their lanes, and the store that says how their rows stand.
struct Matrix {
    faulty: Vec<One>,
    well: Vec<One>,
    store: MemoryStore,
    changed: watch::Receiver<()>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Matrix {
    async fn start(fault: Fault) -> Self {
        let (mut faulty, mut well) = (Vec::new(), Vec::new());
        for (every, row) in rows().filter(|(_, row)| !matches!(way(row, fault), Way::Absent(_))) {
            faulty.push(One::new((every, row), fault, row.to_owned()).await);
        }
        for (every, row) in rows() {
            well.push(One::new((every, row), Fault::None, format!("{row} beside it")).await);
        }
        let store = MemoryStore::default();
        let clock = TokioClock::starting_at(Utc.with_ymd_and_hms(2026, 3, 4, 5, 6, 7).single().expect("a valid time"));
        let now = clock.now();
        let mut batch =
            IngestBatch { source: "main".into(), at: Some(now), due_at: Some(now), ..IngestBatch::default() };
        batch.alerts.push(NewAlert { alert: alert(), muted_by: None });
        let (notices, _told) = NoticeSender::channel();
        let shared = Lanes {
            store: Arc::new(store.clone()),
            alerts: Arc::new(store.clone()),
            holds: Arc::new(store.clone()),
            clock: Arc::new(clock),
            status: Arc::default(),
            own_pauses: OwnPauses::default(),
            notices,
            jitter_seed: 7,
        };
        let (news, changed) = watch::channel(());
        let mut lanes = Vec::new();
        for one in faulty.iter().chain(&well) {
            let id = delivery_id(&alert().alert_id, &one.name);
            let context = RenderContext { delivery_id: &id, now, form: Form::Full };
            let body = one.sink.render(&alert(), &context).expect("renders");
            batch.deliveries.push(NewDelivery::new(id.clone(), alert().alert_id, one.name.clone(), body));
            lanes.push(shared.lane(&one.name, Arc::clone(&one.sink) as Arc<dyn Sink>, LaneState::default()));
            let (mut seen, news) = (one.sink.seen.subscribe(), news.clone());
            tokio::spawn(async move {
                while seen.changed().await.is_ok() {
                    news.send_replace(());
                }
            });
        }
        crate::store::Store::commit(&store, batch).await.expect("committed");
        let (stop, wake) = (CancellationToken::new(), Wake::default());
        let until = stop.clone();
        let running = tokio::spawn(async move { run(lanes, &wake, &until).await.expect("no storage failure") });
        Self { faulty, well, store, changed, stop, running }
    }

    /// Waits until that holds, for as long as time does not move on.
    async fn within(&mut self, patience: Duration, holds: impl Fn(&[One], &[One]) -> bool) -> bool {
        let (faulty, well, changed) = (&self.faulty, &self.well, &mut self.changed);
        let waiting = async {
            while !holds(faulty, well) {
                changed.changed().await.expect("the sinks are there");
            }
        };
        timeout(patience, waiting).await.is_ok()
    }

    /// How each row stands.
    async fn standing(&self) -> HashMap<String, DeliveryStatus> {
        let rows = self.store.deliveries(&DeliveryFilter::default()).await.expect("read");
        rows.into_iter().map(|row| (row.sink, row.status)).collect()
    }

    async fn all_delivered(&self) -> bool {
        let standing = self.standing().await;
        let is_there = |status: &DeliveryStatus| {
            assert_ne!(*status, DeliveryStatus::Dead, "lost: {standing:?}");
            matches!(status, DeliveryStatus::Delivered | DeliveryStatus::Unconfirmed)
        };
        standing.values().all(is_there)
    }
}

/// Time moves on at once, while sockets and programs stay as they are.
async fn move_on(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// One fault for all kinds; how long the slowest neighbour took.
async fn hold(fault: Fault) -> Duration {
    let started = std::time::Instant::now();
    let mut matrix = Matrix::start(fault).await;
    let began = Instant::now();
    let are_sent = |well: &[One]| well.iter().all(|one| !one.sink.seen.borrow().reports.is_empty());
    assert!(matrix.within(SOON, |_, well| are_sent(well)).await, "{fault:?}: a neighbour is held up");
    let took = began.elapsed();
    let reports = |one: &One| one.sink.seen.borrow().reports.clone();
    for one in &matrix.well {
        let report = reports(one).swap_remove(0);
        assert!(matches!(report.outcome, Outcome::Delivered | Outcome::Accepted), "{}: {report:?}", one.name);
    }
    let have_failed = |faulty: &[One], _: &[One]| {
        faulty.iter().all(|one| !one.sink.seen.borrow().reports.is_empty() && one.sink.seen.borrow().in_flight() == 0)
    };
    for _ in 0..30 {
        if matrix.within(QUIET, have_failed).await {
            break;
        }
        move_on(Duration::from_secs(5)).await;
    }
    for one in &matrix.faulty {
        let reports = reports(one);
        let report = reports.first().unwrap_or_else(|| panic!("{}, {fault:?}: it goes on for ever", one.name));
        let is_there = matches!(report.outcome, Outcome::Delivered | Outcome::Accepted);
        assert!(fault.may_deliver() || !is_there, "{}, {fault:?}: {report:?}", one.name);
        if let Side::Server(server) = &one.side {
            assert!(server.said_bytes() < 64 * 1024 + KERNEL_BYTES, "{}: {}", one.name, server.said_bytes());
        }
        one.heal();
    }
    // What began before the healing may still have to run out of time; what begins after it is waited for.
    let mut patience = QUIET * 10;
    for _ in 0..60 {
        let are_idle = |faulty: &[One], _: &[One]| faulty.iter().all(|one| one.sink.seen.borrow().in_flight() == 0);
        if matrix.within(patience, are_idle).await {
            patience = SOON;
            if matrix.all_delivered().await {
                break;
            }
        }
        move_on(Duration::from_secs(100)).await;
    }
    matrix.stop.cancel();
    timeout(SOON, &mut matrix.running).await.expect("it stops").expect("no panic");
    let all_there = matrix.all_delivered().await;
    for one in matrix.faulty.iter().chain(&matrix.well) {
        assert!(all_there, "{fault:?}: {:?}\n{}: {:?}", matrix.standing().await, one.name, reports(one));
        let has_delivered = reports(one).iter().filter(|report| report.outcome == Outcome::Delivered).count();
        assert!(has_delivered <= 1, "{}, {fault:?}: {:?}", one.name, reports(one));
        let copies = one.copies();
        let is_early = one.fault.may_deliver() && copies == 0 && reports(one).len() == 1;
        assert!(copies == 1 || is_early, "{}, {fault:?}: {copies} copies, {:?}", one.name, reports(one));
    }
    println!("{fault:?}: {} sinks, {:?}", matrix.faulty.len(), started.elapsed());
    took
}

#[tokio::test]
async fn every_sink_outlives_every_fault_and_holds_no_other_up() {
    let usual = hold(Fault::None).await;
    for fault in Fault::ALL {
        let mut took = hold(fault).await;
        // A neighbour that is held up is so every time, for seconds at least; on a busy machine it is only late.
        for _ in 1..MAX_TRIES {
            if took >= usual + MAX_LATER {
                took = hold(fault).await;
            }
        }
        assert!(took < usual + MAX_LATER, "{fault:?}: a neighbour took {took:?}, without a fault {usual:?}");
    }
}

#[test]
fn every_kind_says_of_every_fault_how_it_comes_or_why_it_cannot() {
    for (every, row) in rows() {
        let ways = Fault::ALL.map(|fault| way(row, fault));
        let reasons = ways.iter().filter_map(|way| if let Way::Absent(reason) = way { Some(reason) } else { None });
        assert!(reasons.clone().all(|reason| reason.len() > 15), "{row}");
        let least = if every.speaks_http() { 12 } else { 2 };
        assert!(ways.len() - reasons.count() >= least, "{row}: too little is tried");
    }
}
