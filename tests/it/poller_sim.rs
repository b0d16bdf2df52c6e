//! The real poller against the stand-in API, called in process on paused time: hundreds of seeds, each with its own
//! mix of every hostile knob, crashes, downtime and failed commits. No event may be lost, none evaluated twice.
//!
//! A seed decides everything. What once failed stays in `tests/seeds/poller.txt`, one seed a line.

mod faults;
mod naive;
mod server;
mod world;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use vigie::clock::Clock as _;
use vigie::source::vonage::{VonageOptions, VonageSource};
use vigie::source::{Cursor, Fault, Fetched, Held, NoticeKind, Seen as _, Source as _};
use vigie::store::memory::MemoryStore;
use vigie::store::{IngestBatch, Store as _, StoredEvent};

use server::Server;
use world::Scenario;

/// Seeds of one run: about 20 s on two quiet cores in the test profile.
const SEEDS: u64 = 500;
/// Requests of an average world of 3.5 h at a poll a minute, with every fault and lie: a bound on cost that no load
/// moves.
const MAX_REQUESTS_PER_SEED: u64 = 800;
/// Enough worlds for every naive style to lose more than one event in a thousand.
const NAIVE_SEEDS: u64 = 10;
const SOURCE: &str = "main";

/// What a run came to.
#[derive(Debug, Default)]
struct Outcome {
    expected: usize,
    lost: Vec<String>,
    repeated: Vec<String>,
    too_old: Vec<String>,
    requests: u64,
    crashes: u32,
    failed_commits: u32,
    stuck: bool,
    notices: Vec<NoticeKind>,
    errors: Vec<String>,
}

impl Outcome {
    fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.repeated.is_empty() && self.too_old.is_empty() && !self.stuck
    }
}

/// A daemon without rules: what it commits it has evaluated.
struct Daemon {
    scenario: Scenario,
    server: std::sync::Arc<Server>,
    store: MemoryStore,
    source: VonageSource,
    cursor: Option<Cursor>,
    random: SmallRng,
    evaluated: HashMap<String, u32>,
    outcome: Outcome,
}

impl Daemon {
    fn new(scenario: Scenario) -> Self {
        let server = std::sync::Arc::new(Server::new(&scenario));
        let source = Self::start(&scenario, &server);
        Self {
            random: SmallRng::seed_from_u64(scenario.seed ^ 0xdead),
            server,
            store: MemoryStore::new(),
            source,
            cursor: None,
            evaluated: HashMap::new(),
            outcome: Outcome::default(),
            scenario,
        }
    }

    fn start(scenario: &Scenario, server: &std::sync::Arc<Server>) -> VonageSource {
        let options = VonageOptions {
            name: SOURCE.into(),
            tiers: scenario.tiers.clone(),
            start: scenario.start,
            backfill: None,
            lateness: Duration::from_secs(600),
            jitter_seed: scenario.seed,
        };
        VonageSource::new(options, server.clone(), server.clock())
    }

    /// Everything in memory is gone; the store stays.
    async fn crash(&mut self) {
        self.outcome.crashes += 1;
        self.source = Self::start(&self.scenario, &self.server);
        let loaded = self.store.load().await.expect("memory");
        self.cursor = loaded.cursors.into_iter().find(|(name, _)| name == SOURCE).map(|(_, cursor)| cursor);
        if self.random.random_bool(0.3) {
            tokio::time::sleep(Duration::from_secs(self.random.random_range(0..1_800))).await;
        }
    }

    /// One turn of the ingest loop; returns whether the source has caught up.
    async fn turn(&mut self) -> bool {
        match self.source.fetch(self.cursor.as_ref(), &self.store).await {
            Ok(fetched) => {
                let (next_in, caught_up) = (fetched.next_in, fetched.caught_up);
                if self.random.random_bool(self.scenario.commit_failure) {
                    self.outcome.failed_commits += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    return false;
                }
                self.outcome.notices.extend(fetched.notices.iter().map(|notice| notice.kind));
                self.commit(fetched).await;
                tokio::time::sleep(next_in).await;
                caught_up
            }
            Err(error) => {
                self.outcome.notices.extend(error.notice.iter().map(|notice| notice.kind));
                self.outcome.errors.push(error.message.clone());
                let pause = match error.fault {
                    Fault::RetryAfter(pause) | Fault::Refused(pause) => pause,
                    Fault::Stop => {
                        self.outcome.stuck = true;
                        tokio::time::sleep(Duration::from_secs(60)).await;
                        return true;
                    }
                };
                tokio::time::sleep(pause).await;
                false
            }
        }
    }

    async fn commit(&mut self, fetched: Fetched) {
        let evaluated: Vec<_> = fetched.events.iter().map(|event| (event.id().to_owned(), event, true)).collect();
        let older: Vec<_> = fetched.before_start.iter().map(|event| (event.id().to_owned(), event, false)).collect();
        let mut batch = IngestBatch {
            source: SOURCE.into(),
            cursor: Some(fetched.cursor.clone()),
            at: Some(self.server.clock().now()),
            ..Default::default()
        };
        let mut ids: Vec<String> = evaluated.iter().chain(&older).map(|(id, ..)| id.clone()).collect();
        ids.extend(fetched.poison.iter().map(|poison| poison.id.clone()));
        let held = self.store.held(SOURCE, &ids).await.expect("memory");
        let stored: Vec<bool> = held.iter().map(|held| *held != Held::Nothing).collect();
        for ((id, event, evaluate), _) in evaluated.iter().chain(&older).zip(&stored).filter(|(_, stored)| !**stored) {
            if *evaluate {
                *self.evaluated.entry(id.clone()).or_insert(0) += 1;
            }
            batch.events.push(StoredEvent {
                id: id.clone(),
                created_at: event.created_at(),
                raw: event.raw().clone(),
                digest: event.digest(),
                poison: None,
            });
        }
        for (poison, _) in
            fetched.poison.iter().zip(stored.iter().skip(evaluated.len() + older.len())).filter(|(_, stored)| !**stored)
        {
            batch.events.push(StoredEvent {
                id: poison.id.clone(),
                created_at: poison.created_at.unwrap_or(self.server.clock().now()),
                raw: poison.raw.as_str().into(),
                digest: vigie_engine::event::text_digest(&poison.raw),
                poison: Some(poison.error.clone()),
            });
        }
        self.store.commit(batch).await.expect("memory");
        self.cursor = Some(fetched.cursor);
    }

    async fn run(mut self) -> Outcome {
        tokio::time::sleep(self.scenario.head_start).await;
        self.run_until(self.scenario.ends_at()).await;
        self.finish().await
    }

    async fn run_until(&mut self, end: chrono::DateTime<chrono::Utc>) {
        while self.server.clock().now() < end {
            if self.random.random_bool(self.scenario.crash) {
                self.crash().await;
            }
            self.turn().await;
        }
    }

    /// `run --once`: what was visible when it began must be there when it has caught up.
    async fn finish(mut self) -> Outcome {
        self.crash().await;
        let visible: Vec<String> = self.server.visible_ids();
        let mut turns = 0;
        while !self.turn().await {
            turns += 1;
            if turns > 20_000 {
                self.outcome.stuck = true;
                break;
            }
        }
        self.check(&visible);
        self.outcome.requests = self.server.requests();
        self.outcome
    }

    fn check(&mut self, visible: &[String]) {
        let state: serde_json::Value =
            serde_json::from_str(&self.cursor.as_ref().expect("committed").0).expect("the cursor is JSON");
        let start_s = state["start_s"].as_i64().expect("surveyed");
        let created_s = self.server.created_s();
        let malformed = self.server.malformed_id();
        for id in visible.iter().filter(|id| Some(*id) != malformed.as_ref()) {
            let evaluated = self.evaluated.get(id).copied().unwrap_or(0);
            if created_s[id] >= start_s {
                self.outcome.expected += 1;
                if evaluated == 0 {
                    self.outcome.lost.push(id.clone());
                }
            } else if evaluated > 0 {
                self.outcome.too_old.push(id.clone());
            }
            if evaluated > 1 {
                self.outcome.repeated.push(id.clone());
            }
        }
        if let Some(id) = malformed.filter(|id| visible.contains(id)) {
            let odd = |event: &StoredEvent| event.poison.is_some() || event.id == "17";
            if created_s[&id] >= start_s && !self.store.events(SOURCE).iter().any(odd) {
                self.outcome.lost.push(id);
            }
        }
    }
}

fn run_seed(seed: u64) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("runtime");
    runtime.block_on(async { Daemon::new(Scenario::draw(seed)).run().await })
}

/// Runs seeds on all cores and returns those that were not clean.
fn run_all(seeds: &[u64]) -> (Vec<(u64, Outcome)>, Outcome) {
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let results: Vec<(u64, Outcome)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        done.push((*seed, run_seed(*seed)));
                    }
                    done
                })
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("no panic")).collect()
    });
    let mut sum = Outcome::default();
    for (_, outcome) in &results {
        sum.expected += outcome.expected;
        sum.requests += outcome.requests;
        sum.crashes += outcome.crashes;
        sum.failed_commits += outcome.failed_commits;
    }
    (results.into_iter().filter(|(_, outcome)| !outcome.is_clean()).collect(), sum)
}

fn report(failed: &[(u64, Outcome)]) -> String {
    let mut text = String::new();
    for (seed, outcome) in failed.iter().take(10) {
        let scenario = Scenario::draw(*seed);
        text.push_str(&format!(
            "seed {seed}: {} expected, {} lost, {} repeated, {} before the start, stuck: {}, {} requests\n  {:?}\n",
            outcome.expected,
            outcome.lost.len(),
            outcome.repeated.len(),
            outcome.too_old.len(),
            outcome.stuck,
            outcome.requests,
            scenario.quirks,
        ));
    }
    text
}

#[test]
fn no_seed_loses_or_repeats_an_event() {
    let began = Instant::now();
    let seeds: Vec<u64> = (0..SEEDS).collect();
    let (failed, sum) = run_all(&seeds);
    println!(
        "{SEEDS} seeds, {} events, {} requests, {} crashes, {} failed commits in {:.1} s",
        sum.expected,
        sum.requests,
        sum.crashes,
        sum.failed_commits,
        began.elapsed().as_secs_f64()
    );
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), report(&failed));
    assert!(sum.expected as u64 > SEEDS * 100, "the worlds are too small to show anything: {}", sum.expected);
    assert!(sum.crashes > 0 && sum.failed_commits > 0);
    assert!(sum.requests < SEEDS * MAX_REQUESTS_PER_SEED, "{} requests", sum.requests);
}

#[test]
fn seeds_that_once_failed_stay_clean() {
    let seeds: Vec<u64> =
        include_str!("../seeds/poller.txt").lines().filter_map(|line| line.trim().parse().ok()).collect();
    let (failed, _) = run_all(&seeds);
    assert!(failed.is_empty(), "{}", report(&failed));
}

#[test]
fn every_naive_cursor_loses_events_in_the_same_worlds() {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("runtime");
    for style in naive::STYLES {
        let (mut expected, mut lost) = (0, 0);
        for seed in 0..NAIVE_SEEDS {
            let scenario = Scenario::draw(seed);
            let (visible, missed) = runtime().block_on(naive::lost(&scenario, style));
            expected += visible;
            lost += missed;
        }
        println!("{style:?}: {lost} of {expected} lost");
        assert!(lost * 1_000 > expected, "{style:?} lost {lost} of {expected}");
    }
}
