//! One fault at a time against an otherwise calm server: nothing is lost, and the operator hears of each by the right
//! name.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use vigie::clock::SystemClock;
use vigie::secret::Secret;
use vigie::source::NoticeKind;
use vigie::source::vonage::client::{BodyFault, Client, ClientError, ListQuery};
use vigie::source::vonage::transport::{HttpOptions, HttpTransport, MAX_PARTIAL_BYTES, TransportError};
use vigie_sim::faults::HUGE_PAGE_BYTES;
use vigie_sim::quirks::{Malformed, Quirks, Totals};
use vigie_sim::{Fault, FaultPlan, Sim, World};

use super::world::Scenario;
use super::{Daemon, Outcome, on_paused_time};

const SECRET: &str = "canary-7d1e";

/// The fault holds for twelve minutes in the middle of a run, longer than the shortest look-back.
fn run(quirks: Quirks, fault: Option<Fault>) -> Outcome {
    on_paused_time(async {
        let mut daemon = Daemon::new(Scenario::calm(quirks));
        tokio::time::sleep(daemon.scenario.head_start).await;
        let begin = daemon.scenario.stress.start;
        daemon.run_until(begin + TimeDelta::minutes(60)).await;
        daemon.server.set_fault(fault);
        daemon.run_until(begin + TimeDelta::minutes(72)).await;
        daemon.server.set_fault(None);
        daemon.run_until(daemon.scenario.ends_at()).await;
        daemon.finish().await
    })
}

fn assert_clean(name: &str, outcome: &Outcome) {
    assert!(outcome.is_clean(), "{name}: {outcome:?}");
    assert!(outcome.expected > 100, "{name}: only {} events", outcome.expected);
}

#[test]
fn a_failing_api_loses_nothing_and_is_reported_by_name() {
    let retry_after = Duration::from_secs(20);
    let stall = Fault::Stall(Duration::from_secs(120));
    let failing = NoticeKind::PollingFailing;
    for (name, fault, words, notice) in [
        ("401", Fault::Unauthorized, "refused", NoticeKind::PollingRefused),
        ("403", Fault::Forbidden, "refused", NoticeKind::PollingRefused),
        ("429 in seconds", Fault::RateLimited { retry_after }, "pause asked for: 20 s", failing),
        ("429 as a date", Fault::RateLimitedUntil { retry_after }, "pause asked for: 20 s", failing),
        ("500", Fault::ServerError, "status 500", failing),
        ("503", Fault::Unavailable, "status 503", failing),
        ("cut", Fault::Cut, "broke", failing),
        ("stall", stall, "timed out", failing),
        ("truncated", Fault::Truncated, "cut off", failing),
        ("HTML", Fault::Html, "a web page", failing),
        ("empty body", Fault::Empty, "is empty", failing),
        ("null", Fault::Null, "is null", failing),
    ] {
        let outcome = run(Quirks::default(), Some(fault));
        assert_clean(name, &outcome);
        assert!(outcome.errors.iter().any(|error| error.contains(words)), "{name}: {:?}", outcome.errors);
        assert_eq!(outcome.notices, [notice], "{name}");
    }
}

#[test]
fn a_deceiving_api_loses_nothing_and_is_reported_by_name() {
    let friendly = Quirks::default;
    for (name, quirks, fault, notice) in [
        ("empty page", friendly(), Some(Fault::EmptyPage), Some(NoticeKind::AnchorMissing)),
        ("filter ignored", friendly(), Some(Fault::FilterIgnored), Some(NoticeKind::FilterIgnored)),
        ("page cap 50", Quirks { page_cap: Some(50), ..friendly() }, None, None),
        ("repeated rows", Quirks { repeated_rows: 1.0, ..friendly() }, None, None),
        (
            "future row",
            Quirks { future_row: Some(Duration::from_secs(5_000)), ..friendly() },
            None,
            Some(NoticeKind::FutureEvent),
        ),
        (
            "shrinking totals",
            Quirks { totals: Totals::Shrinking(1), ..friendly() },
            None,
            Some(NoticeKind::TotalsUntrusted),
        ),
        (
            "malformed row",
            Quirks { malformed: Some(Malformed::BadStamp), ..friendly() },
            None,
            Some(NoticeKind::PoisonEvent),
        ),
    ] {
        let outcome = run(quirks, fault);
        assert_clean(name, &outcome);
        assert!(outcome.errors.is_empty(), "{name}: {:?}", outcome.errors);
        match notice {
            Some(notice) => {
                assert!(!outcome.notices.is_empty(), "{name} was not reported");
                let long = (notice == NoticeKind::FilterIgnored).then_some(NoticeKind::FilterIgnoredLong);
                assert!(
                    outcome.notices.iter().all(|kind| *kind == notice || Some(*kind) == long),
                    "{name}: {:?}",
                    outcome.notices
                );
                assert!(long.is_none_or(|long| outcome.notices.contains(&long)), "{name}: {:?}", outcome.notices);
            }
            None => assert_eq!(outcome.notices, [], "{name}"),
        }
    }
}

/// An hour in which only first pages come, with more events in one second than a page holds.
#[test]
fn a_server_that_does_not_page_is_asked_for_the_newest_and_hardly_for_the_rest() {
    on_paused_time(async {
        let mut scenario = Scenario::calm(Quirks::default());
        (scenario.stress.bursts_per_day, scenario.stress.burst_max) = (120.0, 260);
        let mut daemon = Daemon::new(scenario);
        let begin = daemon.scenario.stress.start;
        tokio::time::sleep(daemon.scenario.head_start).await;
        daemon.run_until(begin + TimeDelta::minutes(60)).await;
        let (requests, evaluated) = (daemon.server.requests(), daemon.ledger.evaluated().len());
        daemon.server.set_fault(Some(Fault::PageIgnored));
        daemon.run_until(begin + TimeDelta::minutes(120)).await;
        let asked = daemon.server.requests() - requests;
        println!("{asked} requests, {} events", daemon.ledger.evaluated().len() - evaluated);
        // At full speed, a request each 200 ms, it would be 18,000.
        assert!(asked < 2_000, "{asked} requests in an hour");
        assert!(daemon.ledger.evaluated().len() > evaluated + 100, "nothing new was seen");
        let notices = daemon.said.lock().expect("no panic").notices.clone();
        assert!(!notices.is_empty() && notices.len() < 10, "{notices:?}");
        daemon.server.set_fault(None);
        daemon.run_until(daemon.scenario.ends_at()).await;
        let outcome = daemon.finish().await;
        assert_clean("pages ignored", &outcome);
        assert!(outcome.notices.iter().all(|kind| *kind == NoticeKind::FilterIgnored), "{:?}", outcome.notices);
    });
}

async fn serve(fault: Option<Fault>) -> SocketAddr {
    let world = World::stress(&Scenario::calm(Quirks::default()).stress);
    let mut sim = Sim::new("abcd1234", SECRET, world.events().to_vec(), Quirks::default(), FaultPlan::none());
    sim.set_fault(fault);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let now = Scenario::calm(Quirks::default()).ends_at();
    tokio::spawn(vigie_sim::serve(listener, Arc::new(Mutex::new(sim)), Arc::new(move || now), std::future::pending()));
    address
}

async fn list(address: SocketAddr, secret: &str) -> Result<usize, ClientError> {
    let options = HttpOptions {
        base_url: format!("http://{address}/beta/audit").parse().expect("valid"),
        api_key: "abcd1234".into(),
        api_secret: Secret::new(secret),
        extra_roots: None,
        proxy: None,
    };
    let transport = HttpTransport::new(&options).expect("buildable");
    assert!(!format!("{transport:?} {options:?}").contains(secret));
    let client = Client::new(Arc::new(transport), Arc::new(SystemClock));
    let query = ListQuery { size: 100, ..ListQuery::default() };
    client.list(&query).await.map(|answer| answer.rows.len())
}

#[tokio::test]
async fn the_real_transport_tells_the_same_faults_apart() {
    let retry_after = Duration::from_secs(9);
    let body = ClientError::Body;
    assert_eq!(list(serve(None).await, SECRET).await, Ok(100));
    for (fault, expected) in [
        (Fault::RateLimited { retry_after }, ClientError::RateLimited { retry_after: Some(retry_after) }),
        (Fault::RateLimitedUntil { retry_after }, ClientError::RateLimited { retry_after: Some(retry_after) }),
        (Fault::ServerError, ClientError::Server { status: 500, retry_after: None }),
        (Fault::Unavailable, ClientError::Server { status: 503, retry_after: None }),
        (Fault::Cut, ClientError::Transport(TransportError::Cut)),
        (Fault::Reset, ClientError::Transport(TransportError::Cut)),
        (Fault::Truncated, body(BodyFault::Truncated)),
        (Fault::Html, body(BodyFault::Html)),
        (Fault::Empty, body(BodyFault::Empty)),
        (Fault::Null, body(BodyFault::Null)),
    ] {
        assert_eq!(list(serve(Some(fault.clone())).await, SECRET).await, Err(expected), "{fault:?}");
    }
    let huge = list(serve(Some(Fault::HugePage { body_bytes: HUGE_PAGE_BYTES })).await, SECRET).await;
    let Err(ClientError::Transport(TransportError::TooLarge(partial))) = huge else { panic!("{huge:?}") };
    assert!(partial.status == 200 && partial.date.is_some() && partial.body.len() == MAX_PARTIAL_BYTES);
}

#[tokio::test]
async fn no_error_of_the_real_transport_shows_a_secret() {
    let refused = list(serve(None).await, "canary-wrong").await.expect_err("wrong secret");
    assert!(matches!(refused, ClientError::Refused { status: 401, .. }), "{refused:?}");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let closed = listener.local_addr().expect("bound");
    drop(listener);
    let unreachable = list(closed, "canary-wrong").await.expect_err("nobody listens");
    assert!(matches!(unreachable, ClientError::Transport(TransportError::Connect(_))), "{unreachable:?}");
    for shown in [format!("{refused} {refused:?}"), format!("{unreachable} {unreachable:?}")] {
        assert!(!shown.contains("canary") && !shown.contains("127.0.0.1") && !shown.contains("Basic"), "{shown}");
    }
}
