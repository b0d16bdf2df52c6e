//! kill -9 and SIGTERM at random moments: nothing lost, nothing invented, every copy under one id.
//!
//! The same harness runs two wrong commit orders, kept here as wrappers around the real store, and must catch both.

mod mutant;
mod stateful;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use vigie::pipeline::deliver::MACHINE_IN_FLIGHT;

use crate::api::{Api, KEY, SECRET};
use crate::program::{Place, Running};
use crate::receiver::{Answer, Received, Receiver};

const KILLS: usize = 100;
const STOPS: usize = 50;
/// A wrong order must show within this many kills; the first loss ends its run.
const MUTANT_KILLS: usize = 60;
/// A round lasts at most this long after the start of the process.
const MAX_ROUND_MS: u64 = 350;
const BURSTS_PER_ROUND: usize = 6;
const EVENTS_PER_BURST: usize = 5;

struct Scene {
    api: Api,
    steady: Receiver,
    slow: Receiver,
    place: Place,
    rng: SmallRng,
    seed: u64,
    /// Lines of the file when each process had ended.
    file_ends: Vec<usize>,
}

/// What a sink got of one alert, in order.
#[derive(Debug)]
struct Copy {
    delivery_id: String,
    /// The process that sent it, counted from 0.
    process: usize,
}

/// What a sink got: event id -> its copies.
type Copies = BTreeMap<String, Vec<Copy>>;

impl Scene {
    async fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let (api, steady, slow) = (Api::start().await, Receiver::start().await, Receiver::start().await);
        let place = Place::new();
        place.write("rules/all.yaml", RULES);
        Self { api, steady, slow, place, rng: SmallRng::seed_from_u64(seed), seed, file_ends: Vec::new() }
    }

    /// Starts the next process; what it sends says which one it is.
    fn start(&self, start: &dyn Fn(&Place) -> Running) -> Running {
        let number = self.file_ends.len();
        self.place.write("vigie.yaml", &configuration(&self.api, &self.steady, &self.slow, number));
        start(&self.place)
    }

    /// The process has ended: what the file has so far is its own or an earlier one's.
    fn ended(&mut self) {
        self.file_ends.push(self.file_text().lines().count());
    }

    fn file_text(&self) -> String {
        std::fs::read_to_string(self.place.file("alerts.jsonl")).unwrap_or_default()
    }

    /// A process runs for a random while, in which events happen and one destination answers now fast, now slowly.
    async fn round(&mut self, start: &dyn Fn(&Place) -> Running) -> Running {
        let process = self.start(start);
        let mut left_ms = self.rng.random_range(0..MAX_ROUND_MS);
        for _ in 0..BURSTS_PER_ROUND {
            for _ in 0..EVENTS_PER_BURST {
                self.api.happen("ACCOUNT_SECRET_CREATE");
            }
            let step_ms = self.rng.random_range(0..=left_ms / 2);
            left_ms -= step_ms;
            self.slow.answer(Answer::Slow(Duration::from_millis(self.rng.random_range(0..120))));
            // The moment of death is what is random here, so it is a time and not a signal.
            tokio::time::sleep(Duration::from_millis(step_ms)).await;
        }
        tokio::time::sleep(Duration::from_millis(left_ms)).await;
        process
    }

    /// Lets a last process deliver everything that is owed; whether every event reached every sink.
    async fn finish(&mut self, start: &dyn Fn(&Place) -> Running, patience: Duration) -> bool {
        self.slow.answer(Answer::ok());
        let expected: BTreeSet<String> = self.api.pushed().into_iter().collect();
        let process = self.start(start);
        let has_all = |copies: Copies| expected.iter().all(|id| copies.contains_key(id));
        let steady = self.steady.wait(patience, |received| has_all(webhook_copies(received))).await;
        let slow = self.slow.wait(patience, |received| has_all(webhook_copies(received))).await;
        // A file gives no signal, so it is looked at again and again.
        let filling = async {
            while !has_all(self.file_copies()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let filled = tokio::time::timeout(patience, filling).await.is_ok();
        let status = process.end("TERM").await;
        // Killed by the signal only before the program could listen to it: then everything had arrived before.
        assert!(matches!(status.code(), Some(0) | None), "seed {}: {status:?}\n{}", self.seed, self.place.log());
        steady && slow && filled
    }

    fn file_copies(&self) -> Copies {
        let mut copies = Copies::new();
        for (index, line) in self.file_text().lines().enumerate() {
            // A line torn by kill -9 is ended by the next process and is no alert.
            if let Ok(alert) = serde_json::from_str::<serde_json::Value>(line) {
                add(&mut copies, &alert, self.file_ends.partition_point(|end| *end <= index));
            }
        }
        copies
    }

    fn all_copies(&self) -> [(&'static str, Copies); 3] {
        [
            ("steady", webhook_copies(&self.steady.received())),
            ("slow", webhook_copies(&self.slow.received())),
            ("file", self.file_copies()),
        ]
    }

    /// Nothing lost, nothing invented, one id for all copies, no two of them from one process. Gives for each sink and
    /// process how many of its copies another process had to send again: what was in flight when it ended.
    fn judge(&self) -> BTreeMap<(&'static str, usize), usize> {
        let pushed: BTreeSet<String> = self.api.pushed().into_iter().collect();
        let mut repeated = BTreeMap::new();
        for (sink, copies) in self.all_copies() {
            let lost: Vec<&String> = pushed.iter().filter(|id| !copies.contains_key(*id)).collect();
            assert!(lost.is_empty(), "seed {}: {sink} lost {lost:?}\n{}", self.seed, self.place.log());
            let phantom: Vec<&String> = copies.keys().filter(|id| !pushed.contains(*id)).collect();
            assert!(phantom.is_empty(), "seed {}: {sink} invented {phantom:?}", self.seed);
            for (event, copies) in &copies {
                let ids: BTreeSet<&String> = copies.iter().map(|copy| &copy.delivery_id).collect();
                assert_eq!(ids.len(), 1, "seed {}: {sink} has {event} under several ids: {ids:?}", self.seed);
                let mut senders: Vec<usize> = copies.iter().map(|copy| copy.process).collect();
                senders.sort_unstable();
                let twice = senders.windows(2).any(|pair| pair[0] == pair[1]);
                assert!(!twice, "seed {}: {sink} has {event} twice from one process: {copies:?}", self.seed);
                senders.pop();
                senders.into_iter().for_each(|process| *repeated.entry((sink, process)).or_insert(0) += 1);
            }
        }
        repeated
    }
}

/// What a destination took; what it refused is no copy.
fn webhook_copies(received: &[Received]) -> Copies {
    let mut copies = Copies::new();
    for request in received.iter().filter(|request| request.accepted) {
        assert_eq!((request.method.as_str(), request.uri.path()), ("POST", "/hook"));
        let alert = request.json();
        assert_eq!(Some(request.header("webhook-id")), alert["delivery_id"].as_str(), "the header carries the id");
        add(&mut copies, &alert, request.header(PROCESS_HEADER).parse().expect("the number of a process"));
    }
    copies
}

fn add(copies: &mut Copies, alert: &serde_json::Value, process: usize) {
    // What the program says about itself (a slow destination on a busy machine) is no copy of a pushed event.
    if alert["source"] == "vigie" {
        return;
    }
    let event = alert["events"][0].as_str().expect("an alert names its event");
    let delivery_id = alert["delivery_id"].as_str().expect("an alert names its delivery").to_owned();
    copies.entry(event.to_owned()).or_default().push(Copy { delivery_id, process });
}

const RULES: &str = r#"
rules:
  - id: every-event
    title: Every event
    severity: high
    when: {event_type: "*"}
    tests:
      - {name: any, events: [{event_type: APP_CREATE}], expect: alert}
"#;

/// Says which process sent a request. Headers are made when it is sent, unlike the body.
const PROCESS_HEADER: &str = "x-process";

fn configuration(api: &Api, steady: &Receiver, slow: &Receiver, process: usize) -> String {
    format!(
        r#"
sources:
  main:
    vonage_audit: {{api_key: {KEY}, api_secret: {SECRET}, base_url: "{}", poll_interval: 200ms, start: 1h}}
rules: [rules/]
sinks:
  steady: {{webhook: {{url: "{}", headers: {{{PROCESS_HEADER}: "{process}"}}}}}}
  slow: {{webhook: {{url: "{}", headers: {{{PROCESS_HEADER}: "{process}"}}}}}}
  trail: {{file: {{path: alerts.jsonl}}}}
routes:
  - match: {{severity: high}}
    to: [steady, slow, trail]
  - to: trail
state: {{dir: state}}
"#,
        api.base_url, steady.url, slow.url
    )
}

fn daemon(place: &Place) -> Running {
    place.start(&["run", "-c", "vigie.yaml"])
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_100_random_moments_loses_nothing() {
    let mut scene = Scene::new(fresh_seed()).await;
    for _ in 0..KILLS {
        scene.round(&daemon).await.kill().await;
        scene.ended();
    }
    let complete = scene.finish(&daemon, crate::program::PATIENCE).await;
    let repeated = scene.judge();

    assert!(complete, "seed {}: not everything arrived\n{}", scene.seed, scene.place.log());
    let events = scene.api.pushed().len();
    let too_many: usize = repeated.values().sum();
    println!("{KILLS} kills, {events} events, 3 sinks: 0 lost, 0 phantom, {too_many} copies too many");
    // A lane has as many sends in flight, those that ended and are not settled yet included; no kill repeats more of a sink.
    let most = repeated.iter().max_by_key(|(_, count)| **count);
    assert!(
        most.is_none_or(|(_, count)| *count <= MACHINE_IN_FLIGHT),
        "seed {}: {most:?} copies were sent again after one kill, at most {MACHINE_IN_FLIGHT} were in flight",
        scene.seed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_50_times_sends_nothing_twice() {
    let mut scene = Scene::new(fresh_seed()).await;
    for _ in 0..STOPS {
        let status = scene.round(&daemon).await.end("TERM").await;
        // Killed by the signal only before the program could listen to it: then nothing was in flight.
        assert!(matches!(status.code(), Some(0) | None), "{status:?}\n{}", scene.place.log());
        scene.ended();
    }
    assert!(scene.finish(&daemon, crate::program::PATIENCE).await, "seed {}: incomplete", scene.seed);
    assert_eq!(scene.judge(), BTreeMap::new(), "seed {}: sent twice", scene.seed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_harness_catches_ids_stored_before_their_alerts() {
    assert_mutant_is_caught(mutant::Order::SeenFirst).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_harness_catches_deliveries_marked_before_they_are_sent() {
    assert_mutant_is_caught(mutant::Order::MarkThenSend).await;
}

async fn assert_mutant_is_caught(order: mutant::Order) {
    let start = move |place: &Place| mutant::start(place, order);
    let mut scene = Scene::new(fresh_seed()).await;
    for _ in 0..MUTANT_KILLS {
        scene.round(&start).await.kill().await;
        scene.ended();
    }
    // Everything that this order can still deliver has arrived long before.
    let complete = scene.finish(&daemon, Duration::from_secs(5)).await;
    let pushed: BTreeSet<String> = scene.api.pushed().into_iter().collect();
    let lost: usize =
        scene.all_copies().iter().map(|(_, copies)| pushed.iter().filter(|id| !copies.contains_key(*id)).count()).sum();
    println!("{order:?}: {lost} lost in {MUTANT_KILLS} kills");
    assert!(!complete && lost > 0, "seed {}: {order:?} was not caught", scene.seed);
}

/// A new seed each run; a failing one is printed and can be put in its place.
fn fresh_seed() -> u64 {
    rand::rng().random()
}
