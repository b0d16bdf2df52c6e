//! The real poller and the real ingest against the stand-in API, called in process on paused time: hundreds of seeds,
//! each with its own mix of every hostile knob, crashes, downtime and failed commits. No event may be lost, none
//! evaluated twice.
//!
//! A seed decides everything. What once failed stays in `tests/seeds/poller.txt`, one seed a line; `VIGIE_SEED=4711` runs
//! that seed besides, and `VIGIE_SEEDS=500` runs so many: what the README counts, and what `.ci/run` does in its own stage.

mod endure;
mod faults;
mod ledger;
mod naive;
mod server;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;
use vigie::clock::Clock as _;
use vigie::pipeline::deliver::Wake;
use vigie::pipeline::drift::Drift;
use vigie::pipeline::history::History;
use vigie::pipeline::ingest::{Ingest, Inhibitors, Parts, SourceEnd};
use vigie::pipeline::status::Status;
use vigie::source::NoticeKind;
use vigie::source::vonage::{VonageOptions, VonageSource};
use vigie::store::StoredEvent;
use vigie::store::memory::MemoryStore;
use vigie_engine::engine::Engine;
use vigie_engine::rule::Rule;

use ledger::{Ledger, Said, Watched};
use server::Server;
use world::Scenario;

/// Seeds of one run, unless more are asked for: enough for every knob to meet every other.
const SEEDS: u64 = 100;
/// Requests of an average world of 2.5 h at a poll a minute, with every fault and lie: a bound on cost that no load
/// moves.
const MAX_REQUESTS_PER_SEED: u64 = 650;
/// Enough worlds for every naive style to lose more than one event in a thousand.
const NAIVE_SEEDS: u64 = 10;
const SOURCE: &str = "main";
/// A crash comes after this many times the inverse of its chance a turn, on average.
const MEAN_TURN: Duration = Duration::from_secs(20);
/// `run --once` ends within this much simulated time after a run of some hours.
const MAX_ONCE: Duration = Duration::from_secs(6 * 3_600);
/// A world in which every sixth request is refused by chance makes it give up some times.
const MAX_ONCE_TRIES: u32 = 600;

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
    /// Rows that came again.
    refetched: u64,
    /// Handed on by the poller although stored.
    yielded_again: Vec<String>,
    notices: Vec<NoticeKind>,
    errors: Vec<String>,
}

impl Outcome {
    fn is_clean(&self) -> bool {
        let once = self.repeated.is_empty() && self.yielded_again.is_empty();
        self.lost.is_empty() && once && self.too_old.is_empty() && !self.stuck
    }
}

/// Ingest with one rule, which fires on whatever is evaluated.
struct Daemon {
    scenario: Scenario,
    server: Arc<Server>,
    ledger: Arc<Ledger>,
    rules: Vec<Rule>,
    said: Arc<Mutex<Said>>,
    ingest: Ingest,
    source: Watched,
    random: SmallRng,
    outcome: Outcome,
}

impl Daemon {
    fn new(scenario: Scenario) -> Self {
        let server = Arc::new(Server::new(&scenario));
        let ledger = Arc::new(Ledger::new(scenario.seed, scenario.commit_failure));
        let (rules, said) = (ledger::everything(), Arc::<Mutex<Said>>::default());
        let (ingest, source) = Self::start(&scenario, &server, &ledger, &rules, &said);
        let random = SmallRng::seed_from_u64(scenario.seed ^ 0xdead);
        Self { scenario, server, ledger, rules, said, ingest, source, random, outcome: Outcome::default() }
    }

    fn start(
        scenario: &Scenario,
        server: &Arc<Server>,
        ledger: &Arc<Ledger>,
        rules: &[Rule],
        said: &Arc<Mutex<Said>>,
    ) -> (Ingest, Watched) {
        let options = VonageOptions {
            name: SOURCE.into(),
            tiers: scenario.tiers.clone(),
            start: scenario.start,
            backfill: None,
            lateness: Duration::from_secs(600),
            jitter_seed: scenario.seed,
        };
        let inner = VonageSource::new(options, server.clone(), server.our_clock());
        let ingest = Ingest::new(Parts {
            engine: Engine::new(rules.to_vec()),
            drift: Drift::default(),
            history: History::default(),
            routes: Vec::new(),
            inhibitions: Vec::new(),
            inhibitors: Inhibitors::default(),
            holds: Arc::new(MemoryStore::new()),
            outlets: Vec::new(),
            wake: Wake::default(),
            store: ledger.clone(),
            clock: server.our_clock(),
            status: Arc::new(Status::default()),
            dry_run: false,
        });
        (ingest, Watched { inner, said: said.clone() })
    }

    /// Everything in memory is gone; the store stays.
    fn restart(&mut self) {
        (self.ingest, self.source) = Self::start(&self.scenario, &self.server, &self.ledger, &self.rules, &self.said);
    }

    /// A restart, perhaps after a while.
    async fn crash(&mut self) {
        self.outcome.crashes += 1;
        self.restart();
        if self.random.random_bool(0.3) {
            tokio::time::sleep(Duration::from_secs(self.random.random_range(0..1_800))).await;
        }
    }

    /// Polls until it is told to stop, or for so long: then it is cut off wherever it is.
    async fn poll(&mut self, once: bool, most: Duration) -> Option<SourceEnd> {
        let cursor = self.ledger.cursor().await;
        let stop = CancellationToken::new();
        let run = self.ingest.run_source(SOURCE, &mut self.source, cursor, once, &stop);
        tokio::time::timeout(most, run).await.ok().map(|end| end.expect("memory"))
    }

    /// From where on events are evaluated, once the server's clock is known.
    async fn start_s(&self) -> Option<i64> {
        let cursor = self.ledger.cursor().await?;
        let state: serde_json::Value = serde_json::from_str(&cursor.0).expect("the cursor is JSON");
        state["start_s"].as_i64()
    }

    /// Of these, what should have been evaluated or kept by now.
    async fn late(&self, visible: &[String]) -> Vec<String> {
        let start_s = self.start_s().await.expect("surveyed");
        let created_s = self.server.created_s();
        let kept: std::collections::HashSet<String> = self.ledger.events().into_iter().map(|event| event.id).collect();
        visible.iter().filter(|id| created_s[*id] >= start_s && !kept.contains(*id)).cloned().collect()
    }

    async fn run(mut self) -> Outcome {
        tokio::time::sleep(self.scenario.head_start).await;
        self.run_until(self.scenario.ends_at()).await;
        self.finish().await
    }

    async fn run_until(&mut self, end: chrono::DateTime<chrono::Utc>) {
        while let Ok(left) = (end - self.server.clock().now()).to_std()
            && !left.is_zero()
        {
            let crash_in = match self.scenario.crash {
                crash if crash > 0.0 => MEAN_TURN.div_f64(crash).mul_f64(self.random.random_range(0.0..2.0)),
                _ => Duration::MAX,
            };
            match self.poll(false, left.min(crash_in)).await {
                Some(_) => {
                    self.outcome.stuck = true;
                    return;
                }
                None if crash_in < left => self.crash().await,
                None => {}
            }
        }
    }

    /// `run --once`: what was visible when it began must be there when it has caught up.
    async fn finish(mut self) -> Outcome {
        self.crash().await;
        let visible: Vec<String> = self.server.visible_ids();
        let mut tries = 0;
        loop {
            match self.poll(true, MAX_ONCE).await {
                Some(SourceEnd::Finished) => break,
                // It was at fault or refused; whoever runs it runs it again.
                Some(_) if tries < MAX_ONCE_TRIES => tries += 1,
                _ => {
                    self.outcome.stuck = true;
                    break;
                }
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        self.check(&visible).await;
        self.outcome.requests = self.server.requests();
        self.outcome
    }

    async fn check(&mut self, visible: &[String]) {
        let said = std::mem::take(&mut *self.said.lock().expect("no panic"));
        self.outcome.failed_commits = self.ledger.failed_commits();
        self.outcome.refetched = said.repeated;
        (self.outcome.notices, self.outcome.errors) = (said.notices, said.errors);
        self.outcome.yielded_again = said.yielded_again;
        let Some(start_s) = self.start_s().await else {
            self.outcome.stuck = true;
            return;
        };
        let created_s = self.server.created_s();
        let malformed = self.server.malformed_id();
        let giant = self.server.giant_id();
        let all = self.ledger.evaluated();
        self.outcome.repeated.extend(all.iter().filter(|(_, times)| **times > 1).map(|(id, _)| id.clone()));
        let odd = |id: &String| Some(id) == malformed.as_ref() || Some(id) == giant.as_ref();
        for id in visible.iter().filter(|id| !odd(id)) {
            let evaluated = all.get(id).copied().unwrap_or(0);
            if created_s[id] >= start_s {
                self.outcome.expected += 1;
                if evaluated == 0 {
                    self.outcome.lost.push(id.clone());
                }
            } else if evaluated > 0 {
                self.outcome.too_old.push(id.clone());
            }
        }
        if let Some(id) = giant.filter(|id| visible.contains(id) && Some(id) != malformed.as_ref()) {
            let kept = |event: &StoredEvent| event.id == id && event.poison.is_some();
            if created_s[&id] >= start_s && !self.ledger.events().iter().any(kept) {
                self.outcome.lost.push(id);
            }
        }
        if let Some(id) = malformed.filter(|id| visible.contains(id)) {
            let odd = |event: &StoredEvent| event.poison.is_some() || event.id == "17";
            if created_s[&id] >= start_s && !self.ledger.events().iter().any(odd) {
                self.outcome.lost.push(id);
            }
        }
    }
}

fn on_paused_time<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("runtime").block_on(work)
}

fn run_seed(seed: u64) -> Outcome {
    on_paused_time(async { Daemon::new(Scenario::draw(seed)).run().await })
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
        sum.refetched += outcome.refetched;
    }
    (results.into_iter().filter(|(_, outcome)| !outcome.is_clean()).collect(), sum)
}

fn report(failed: &[(u64, Outcome)]) -> String {
    let mut text = String::new();
    for (seed, outcome) in failed.iter().take(40) {
        let scenario = Scenario::draw(*seed);
        text.push_str(&format!(
            "seed {seed}: {:?} [{:?}] [{:?}] {} expected, {} lost, {} repeated, {} yielded again, {} before the start, stuck: {}, {} \
             requests\n  {:?}\n",
            outcome.lost.iter().take(3).collect::<Vec<_>>(),
            outcome.notices.iter().rev().take(8).collect::<Vec<_>>(),
            outcome.errors.iter().rev().take(3).collect::<Vec<_>>(),
            outcome.expected,
            outcome.lost.len(),
            outcome.repeated.len(),
            outcome.yielded_again.len(),
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
    #[expect(clippy::disallowed_methods, reason = "how many are run is no secret and no setting of the program")]
    let asked = std::env::var("VIGIE_SEEDS").ok();
    let count: u64 = asked.map_or(SEEDS, |count| count.parse().expect("VIGIE_SEEDS is a number"));
    let seeds: Vec<u64> = (0..count).collect();
    let (failed, sum) = run_all(&seeds);
    println!(
        "{count} seeds, {} events, {} requests, {} crashes, {} failed commits in {:.1} s",
        sum.expected,
        sum.requests,
        sum.crashes,
        sum.failed_commits,
        began.elapsed().as_secs_f64()
    );
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), report(&failed));
    assert!(sum.expected as u64 > count * 100, "the worlds are too small to show anything: {}", sum.expected);
    assert!(sum.crashes > 0 && sum.failed_commits > 0);
    assert!(sum.refetched > sum.expected as u64, "rows that come again are not counted: {}", sum.refetched);
    assert!(sum.requests < count * MAX_REQUESTS_PER_SEED, "{} requests", sum.requests);
}

#[test]
fn seeds_that_once_failed_stay_clean() {
    #[expect(clippy::disallowed_methods, reason = "a seed to be repeated")]
    let more = std::env::var("VIGIE_SEED").unwrap_or_default();
    let all = include_str!("../seeds/poller.txt").lines().chain(more.split(','));
    let seeds: Vec<u64> = all.filter_map(|line| line.trim().parse().ok()).collect();
    assert!(!seeds.is_empty(), "the list is gone");
    let (failed, _) = run_all(&seeds);
    assert!(failed.is_empty(), "{}", report(&failed));
}

#[test]
fn every_naive_cursor_loses_events_in_the_same_worlds() {
    for style in naive::STYLES {
        let (mut expected, mut lost) = (0, 0);
        for seed in 0..NAIVE_SEEDS {
            let scenario = Scenario::draw(seed);
            let (visible, missed) = on_paused_time(naive::lost(&scenario, style));
            expected += visible;
            lost += missed;
        }
        println!("{style:?}: {lost} of {expected} lost");
        assert!(lost * 1_000 > expected, "{style:?} lost {lost} of {expected}");
    }
}
