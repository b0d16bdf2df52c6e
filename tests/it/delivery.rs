//! Bad destinations beside a good one, with the real binary: none delays another, and each is left alone as it should be.
//!
//! What takes hours (the whole ladder, a pause of six hours, giving up) is shown on paused time in the lanes' own tests
//! (`src/pipeline/deliver/tests.rs`); this shows that the program is put together so that it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use vigie::store::Store;
use vigie::store::sqlite::{SqliteOptions, SqliteStore};

use crate::api::Api;
use crate::program::{PATIENCE, Place, closed_port, until};
use crate::receiver::{Answer, Received, Receiver};

const EVENTS: usize = 100;
/// From the moment of an event to its arrival at the good destination, on a busy machine; the poll interval is 200 ms.
const PROMPT: Duration = Duration::from_secs(5);

fn events_of(received: &[Received]) -> BTreeSet<String> {
    let id = |request: &Received| request.json()["events"][0].as_str().map(str::to_owned);
    received.iter().filter_map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_a_stalling_and_a_limited_sink_delay_no_other() {
    let (api, good, stalling, limited) =
        (Api::start().await, Receiver::start().await, Receiver::start().await, Receiver::start().await);
    stalling.answer(Answer::Stall);
    limited.answer(Answer::Status(429, vec![("retry-after", "3600".into())], String::new()));
    let place = Place::new();
    let sinks = format!(
        "sinks:\n  dead: {{webhook: {{url: \"http://127.0.0.1:{}/hook\"}}}}\n  stalling: {{webhook: {{url: \"{}\"}}}}\n  \
         limited: {{webhook: {{url: \"{}\"}}}}\n  good: {{webhook: {{url: \"{}\"}}}}\n",
        closed_port(),
        stalling.url,
        limited.url,
        good.url
    );
    place.configure(&api, &sinks);
    let process = place.start(&["run", "-c", "vigie.yaml"]);

    // The first event alone, so that each bad sink has shown what it is before the others happen.
    let mut happened = BTreeMap::from([(api.happen("APP_CREATE"), Instant::now())]);
    for receiver in [&good, &stalling, &limited] {
        assert!(receiver.wait(PATIENCE, |received| !received.is_empty()).await, "{}", place.log());
    }
    for _ in 1..EVENTS {
        happened.insert(api.happen("APP_CREATE"), Instant::now());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let complete = good.wait(PATIENCE, |received| events_of(received).len() == EVENTS).await;
    assert!(complete, "{} of {EVENTS}\n{}", events_of(&good.received()).len(), place.log());
    let mut delays: Vec<Duration> = good
        .received()
        .iter()
        .skip(1)
        .filter_map(|request| {
            let event = request.json()["events"][0].as_str()?.to_owned();
            Some(request.at.saturating_duration_since(*happened.get(&event)?))
        })
        .collect();
    delays.sort();
    let (median, worst) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    println!("{EVENTS} events beside three bad sinks: p50 {median:?}, worst {worst:?}");
    assert!(worst < PROMPT, "the good sink was delayed by {worst:?}");
    assert_eq!(good.received().len(), EVENTS, "each once");
    assert!(good.received().iter().all(|request| request.method == "POST" && request.uri.path() == "/hook"));

    // What waits for the others is waiting, not lost, and nobody was pestered.
    let store = SqliteStore::open(&place.file("state"), &SqliteOptions::tool()).expect("the daemon made it");
    for sink in ["dead", "stalling", "limited"] {
        assert_eq!(store.queue(sink).await.expect("readable").depth, EVENTS as u64, "{sink}");
    }
    assert_eq!(limited.received().len(), 1, "Retry-After is obeyed");
    let lanes: BTreeMap<_, _> = store.load().await.expect("readable").lanes.into_iter().collect();
    let pause = lanes["limited"].paused_until.expect("a pause") - crate::api::now();
    assert!((3500..=3600).contains(&pause.num_seconds()), "{pause}");
    let in_flight = vigie::pipeline::deliver::MACHINE_IN_FLIGHT;
    assert!(stalling.received().len() <= in_flight, "no more than may be in flight: {}", stalling.received().len());
    drop(store);
    assert_eq!(process.end("TERM").await.code(), Some(0), "{}", place.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_sink_with_500_rows_waiting_gets_one_probe_a_step() {
    const ROWS: usize = 500;
    let (api, good, dead) = (Api::start().await, Receiver::start().await, Receiver::start().await);
    dead.answer(Answer::status(503));
    let place = Place::new();
    let sinks = format!(
        "sinks:\n  dead: {{webhook: {{url: \"{}\"}}}}\n  good: {{webhook: {{url: \"{}\"}}}}\n",
        dead.url, good.url
    );
    place.configure(&api, &sinks);
    let process = place.start(&["run", "-c", "vigie.yaml"]);
    api.happen("APP_CREATE");
    assert!(dead.wait(PATIENCE, |received| received.len() == 1).await, "{}", place.log());
    let began = Instant::now();
    for _ in 1..ROWS {
        api.happen("APP_CREATE");
    }
    assert!(good.wait(PATIENCE, |received| received.len() == ROWS).await, "{}", place.log());

    // The steps are 1 s, 5 s, 30 s, 120 s with full jitter.
    tokio::time::sleep_until(began + Duration::from_secs(12)).await;
    let store = SqliteStore::open(&place.file("state"), &SqliteOptions::tool()).expect("the daemon made it");
    let attempts = || dead.received().len();
    let step = async || {
        let lanes: BTreeMap<_, _> = store.load().await.expect("readable").lanes.into_iter().collect();
        lanes["dead"].step as usize
    };
    // An attempt is on its way for some milliseconds before its step is written.
    until("as many attempts as steps", async || attempts() == step().await).await;
    let attempts = attempts();
    let queue = store.queue("dead").await.expect("readable");
    println!("{} rows waited 12 s for a sink that answers 503: {attempts} attempts, step {attempts}", queue.depth);
    assert_eq!(queue.depth, ROWS as u64);
    // Nine probes would have to draw 30 s and 120 s steps close to zero several times over.
    assert!((2..=8).contains(&attempts), "{attempts} attempts in 12 s");
    let bodies: BTreeSet<_> = dead.received().iter().map(|request| request.header("webhook-id").to_owned()).collect();
    println!("{} different deliveries were tried", bodies.len());
    drop(store);
    assert_eq!(process.end("TERM").await.code(), Some(0), "{}", place.log());
}
