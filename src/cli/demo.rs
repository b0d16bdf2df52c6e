//! `vigie demo`: a simulated account and the real daemon in one process, with planted attacks that it must catch.
//!
//! The daemon runs from a configuration file like any other; only the clock is the simulation's (a Sunday night, when
//! intruders work), so that every run shows the same.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};
use tokio_util::sync::CancellationToken;
use vigie_sim::world::{World, WorldConfig};
use vigie_sim::{DEFAULT_SECRET, FaultPlan, LiveWorld, PlantedAttack, Quirks, ReleasePlan, Sim};

use super::exit::{Exit, Failure, Outcome, WithExit};
use super::output::{Output, counted};
use super::{Global, load, log, run as run_verb};
use crate::clock::{Clock, SystemClock, TokioClock};
use crate::config::{self, Config, Surroundings};
use crate::daemon::Daemon;
use crate::pipeline::status::Status;
use crate::store::archive::AlertFilter;
use crate::store::sqlite::{SqliteOptions, SqliteStore};

mod pack;

pub(super) use pack::write_rules;

/// Days of routine that the account shows before the attacks.
const HISTORY_DAYS: u32 = 30;
/// Most alerts that the routine may raise: with more, nobody would look at those about the attacks.
const MAX_ROUTINE_ALERTS: usize = 3;
/// `--once` ends at the latest after this, whatever was caught: well within the promised 30 s.
const ONCE_LIMIT: Duration = Duration::from_secs(25);
/// How often `--once` looks whether all is caught.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// After the last planted event every rule has long fired: polls are half a second apart.
const LAST_CHANCE: Duration = Duration::from_secs(4);
/// Before that `--once` does not end, so that the list at the end names every rule: two polls.
const LAST_POLLS: Duration = Duration::from_millis(1_200);
/// The attacks wait at most this long until the history is read: rules that compare with the past need it.
const HISTORY_LIMIT: Duration = Duration::from_secs(8);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Port of the simulated API on 127.0.0.1 [default: any free one]
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// How many times faster than usual the attacks follow each other
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// The world's seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this planted attack
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// End when the attacks are over
    #[arg(long)]
    once: bool,
    /// Put configuration, rules and state here and keep them
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: Args, global: &Global, output: &mut Output) -> Outcome {
    log::start(global, "warn");
    if !(0.1..=100.0).contains(&args.speed) {
        return Err(Failure::usage("--speed takes 0.1 to 100"));
    }
    let kept = args.dir.clone();
    let directory = match &kept {
        Some(directory) => directory.clone(),
        None => std::env::temp_dir().join(format!("vigie-demo-{}", std::process::id())),
    };
    let outcome = run_verb::block_on(play(&args, &directory, output))?;
    if kept.is_none()
        && let Err(error) = std::fs::remove_dir_all(&directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        output.note(&format!("{} could not be removed: {error}", directory.display()))?;
    }
    outcome
}

/// What the demo shows, and where its parts are.
struct Stage {
    sim: Arc<Mutex<Sim>>,
    live: LiveWorld,
    clock: Arc<dyn Clock>,
    store: Arc<SqliteStore>,
    status: Arc<Status>,
    stop: CancellationToken,
}

async fn play(args: &Args, directory: &Path, output: &mut Output) -> Outcome {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(sunday_night(SystemClock.now())));
    let (live, account) = world(args, clock.now())?;
    let sim = Arc::new(Mutex::new(live.sim(Quirks::default(), FaultPlan::none())));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| Failure::text(Exit::UNAVAILABLE, format!("cannot listen on {address}: {error}")))?;
    let base_url = format!("http://{}/beta/audit", listener.local_addr().exit(Exit::UNAVAILABLE)?);
    let stop = CancellationToken::new();
    let sim_clock = clock.clone();
    tokio::spawn(vigie_sim::serve(
        listener,
        sim.clone(),
        Arc::new(move || sim_clock.now()),
        stop.clone().cancelled_owned(),
    ));
    pack::write(directory, &base_url, &account, DEFAULT_SECRET).exit(Exit::STORAGE)?;
    let Some(config) = load_config(directory, &clock, output)? else { return Ok(Exit::CONFIG) };
    let options = SqliteOptions::daemon();
    let store = Arc::new(SqliteStore::open(&config.state_dir, &options).exit(Exit::STORAGE)?);
    introduce(&config, &live, &clock, output)?;
    let status = Arc::new(Status::default());
    let daemon = Daemon {
        store: store.clone(),
        alerts: store.clone(),
        follow_ups: store.clone(),
        holds: store.clone(),
        maintain: store.clone(),
        clock: clock.clone(),
        status: status.clone(),
        once: false,
        dry_run: false,
        jitter_seed: args.seed,
    };
    let daemon_stop = stop.clone();
    let daemon = tokio::spawn(async move { daemon.run(config, &daemon_stop).await });
    let mut stage = Stage { sim, live, clock, store, status, stop };
    let interrupted = stage.release(args.once).await?;
    stage.stop.cancel();
    daemon.await.exit(Exit::UNAVAILABLE)?.exit(Exit::STORAGE)?;
    let wrong = stage.sum_up(output).await?;
    match (wrong.is_empty(), interrupted) {
        (_, true) => Ok(Exit::INTERRUPTED),
        (true, false) => Ok(Exit::OK),
        (false, false) => Err(Failure::text(Exit::EXPECTATION, wrong.join(", "))),
    }
}

fn world(args: &Args, now: DateTime<Utc>) -> Result<(LiveWorld, String), Failure> {
    let start = now - TimeDelta::days(i64::from(HISTORY_DAYS));
    let world = World::generate(&WorldConfig { days: HISTORY_DAYS, ..WorldConfig::new(args.seed, start) });
    let usual = ReleasePlan::default();
    let faster = |pause: Duration| pause.div_f64(args.speed);
    let plan = ReleasePlan {
        first_after: faster(usual.first_after),
        between_attacks: faster(usual.between_attacks),
        between_events: faster(usual.between_events),
        ..usual
    };
    let mut live = LiveWorld::new(&world, now, &plan);
    let names: Vec<&str> = live.attacks().iter().map(|attack| attack.name).collect();
    if let Some(name) = &args.scenario
        && !live.keep_only(name)
    {
        let hint = crate::options::suggestion(name, names.iter().copied());
        return Err(Failure::usage(format!("there is no scenario `{name}`: {hint}")));
    }
    Ok((live, world.account_id().to_owned()))
}

/// The Sunday before, at half past two in the night.
fn sunday_night(now: DateTime<Utc>) -> DateTime<Utc> {
    let days = i64::from(now.weekday().num_days_from_sunday());
    let midnight = now.with_nanosecond(0).unwrap_or(now)
        - TimeDelta::days(days)
        - TimeDelta::seconds(i64::from(now.num_seconds_from_midnight()));
    midnight + TimeDelta::minutes(150)
}

fn load_config(directory: &Path, clock: &Arc<dyn Clock>, output: &mut Output) -> Result<Option<Config>, Failure> {
    let mut surroundings: Surroundings<'_> = load::surroundings(output);
    surroundings.sinks.clock = clock.clone();
    surroundings.sources.clock = clock.clone();
    let (config, diagnostics) = config::load(&[directory.join("vigie.yaml")], &surroundings);
    if config.is_none() {
        output.diagnostics(&diagnostics)?;
    }
    Ok(config)
}

fn introduce(config: &Config, live: &LiveWorld, clock: &Arc<dyn Clock>, output: &mut Output) -> Result<(), Failure> {
    let own = config.rules.iter().filter(|rule| !rule.id.starts_with("vigie-")).count();
    output.line(&format!(
        "A simulated Vonage account with {} days of routine ({}), watched by {}.",
        HISTORY_DAYS,
        counted(live.routine().len(), "event"),
        counted(own, "rule"),
    ))?;
    let past = live.attacks().iter().filter(|attack| attack.shows_after.is_some()).count();
    let coming = live.attacks().len() - past;
    let planted = [(coming, "to come"), (past, "of the days before")].into_iter().filter(|(count, _)| *count > 0);
    let planted: Vec<String> = planted.map(|(count, when)| format!("{} {when}", counted(count, "attack"))).collect();
    output.line(&format!(
        "Its clock says {}. Planted: {}.\n",
        clock.now().format("%A %Y-%m-%d %H:%M UTC"),
        planted.join(", "),
    ))?;
    Ok(())
}

impl Stage {
    /// Lets the attacks happen; whether the user ended it.
    async fn release(&mut self, once: bool) -> Result<bool, Failure> {
        let started = tokio::time::Instant::now();
        let mut last_out = started;
        let mut is_reading = true;
        loop {
            if is_reading && (self.has_read() || started.elapsed() >= HISTORY_LIMIT) {
                is_reading = false;
                self.live.postpone(started.elapsed());
                last_out = tokio::time::Instant::now();
            }
            let due = if is_reading { Vec::new() } else { self.live.due(self.clock.now()) };
            if !due.is_empty() {
                let mut sim = self.sim.lock().unwrap_or_else(PoisonError::into_inner);
                due.into_iter().for_each(|event| sim.push(event));
                last_out = tokio::time::Instant::now();
            }
            if once {
                let is_out = !is_reading && self.live.next_at().is_none();
                let all_out = is_out && last_out.elapsed() >= LAST_CHANCE;
                let is_seen = is_out && last_out.elapsed() >= LAST_POLLS;
                let caught = is_seen && self.missed().await?.is_empty();
                if all_out || caught || started.elapsed() >= ONCE_LIMIT {
                    return Ok(false);
                }
            }
            let next = self.live.next_at().filter(|_| !is_reading);
            let next = next.map_or(LOOK_EVERY, |at| (at - self.clock.now()).to_std().unwrap_or_default());
            tokio::select! {
                () = tokio::time::sleep(next.min(LOOK_EVERY)) => {}
                signal = tokio::signal::ctrl_c() => {
                    signal.exit(Exit::UNAVAILABLE)?;
                    return Ok(true);
                }
            }
        }
    }

    /// Whether the daemon has read what the account shows so far.
    fn has_read(&self) -> bool {
        self.status.snapshot().sources.get(pack::SOURCE).is_some_and(|source| source.caught_up)
    }

    /// Which rules raised an alert over an event of this attack.
    async fn rules_that_fired(&self, attack: &PlantedAttack) -> Result<BTreeSet<String>, Failure> {
        let alerts = self.store.alerts(&AlertFilter::default()).await.exit(Exit::STORAGE)?;
        let hit = |ids: &[String]| ids.iter().any(|id| attack.event_ids.contains(id));
        Ok(alerts.into_iter().filter(|row| hit(&row.alert.events)).map(|row| row.alert.rule.id).collect())
    }

    /// Attacks that no rule caught.
    async fn missed(&self) -> Result<Vec<String>, Failure> {
        let mut missed = Vec::new();
        for attack in self.live.attacks() {
            if self.rules_that_fired(attack).await?.is_empty() {
                missed.push(attack.name.to_owned());
            }
        }
        Ok(missed)
    }

    /// How many alerts rest on no attack.
    async fn routine_alerts(&self) -> Result<usize, Failure> {
        let filter = AlertFilter { source: Some(pack::SOURCE.to_owned()), ..AlertFilter::default() };
        let alerts = self.store.alerts(&filter).await.exit(Exit::STORAGE)?;
        let planted: BTreeSet<&str> =
            self.live.attacks().iter().flat_map(|attack| attack.event_ids.iter().map(String::as_str)).collect();
        let is_planted = |ids: &[String]| ids.iter().any(|id| planted.contains(id.as_str()));
        Ok(alerts.iter().filter(|row| !is_planted(&row.alert.events)).count())
    }

    /// Says what was caught, and gives what is wrong with it.
    async fn sum_up(&self, output: &mut Output) -> Result<Vec<String>, Failure> {
        output.line("\nPlanted attacks:")?;
        for attack in self.live.attacks() {
            let rules = self.rules_that_fired(attack).await?;
            let verdict = match rules.is_empty() {
                false => format!("caught by {}", rules.into_iter().collect::<Vec<_>>().join(", ")),
                true => "NOT CAUGHT".to_owned(),
            };
            output.line(&format!("  {:<22} {verdict}", attack.name))?;
        }
        let routine = self.routine_alerts().await?;
        output.line(&format!("Alerts about the routine: {routine}"))?;
        let mut wrong: Vec<String> =
            self.missed().await?.into_iter().map(|name| format!("not caught: {name}")).collect();
        if routine > MAX_ROUTINE_ALERTS {
            wrong.push(format!("{routine} alerts about the routine"));
        }
        Ok(wrong)
    }
}
