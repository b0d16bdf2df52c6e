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

/// Days of routine that the account shows before the attacks.
const HISTORY_DAYS: u32 = 30;
/// `--once` ends at the latest after this, whatever was caught: well within the promised 30 s.
const ONCE_LIMIT: Duration = Duration::from_secs(25);
/// How often `--once` looks whether all is caught.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// After the last planted event a stateless rule has long fired: polls are half a second apart.
const LAST_CHANCE: Duration = Duration::from_secs(4);

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
    attacks: Vec<PlantedAttack>,
    clock: Arc<dyn Clock>,
    store: Arc<SqliteStore>,
    stop: CancellationToken,
}

async fn play(args: &Args, directory: &Path, output: &mut Output) -> Outcome {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(sunday_night(SystemClock.now())));
    let (live, attacks, account) = world(args, clock.now())?;
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
    introduce(&config, &live, &attacks, &clock, output)?;
    let daemon = Daemon {
        store: store.clone(),
        alerts: store.clone(),
        follow_ups: store.clone(),
        maintain: store.clone(),
        clock: clock.clone(),
        status: Arc::new(Status::default()),
        once: false,
        dry_run: false,
        jitter_seed: args.seed,
    };
    let daemon_stop = stop.clone();
    let daemon = tokio::spawn(async move { daemon.run(config, &daemon_stop).await });
    let mut stage = Stage { sim, live, attacks, clock, store, stop };
    let interrupted = stage.release(args.once).await?;
    stage.stop.cancel();
    daemon.await.exit(Exit::UNAVAILABLE)?.exit(Exit::STORAGE)?;
    let missed = stage.sum_up(output).await?;
    match (missed.is_empty(), interrupted) {
        (_, true) => Ok(Exit::INTERRUPTED),
        (true, false) => Ok(Exit::OK),
        (false, false) => Err(Failure::text(Exit::EXPECTATION, format!("not caught: {}", missed.join(", ")))),
    }
}

fn world(args: &Args, now: DateTime<Utc>) -> Result<(LiveWorld, Vec<PlantedAttack>, String), Failure> {
    let start = now - TimeDelta::days(i64::from(HISTORY_DAYS));
    let world = World::generate(&WorldConfig { days: HISTORY_DAYS, ..WorldConfig::new(args.seed, start) });
    let usual = ReleasePlan::default();
    let faster = |pause: Duration| pause.div_f64(args.speed);
    let plan = ReleasePlan {
        first_after: faster(usual.first_after),
        between_attacks: faster(usual.between_attacks),
        between_events: faster(usual.between_events),
    };
    let live = LiveWorld::new(&world, now, &plan);
    let attacks: Vec<PlantedAttack> = live.attacks().to_vec();
    let names: Vec<&str> = attacks.iter().map(|attack| attack.name).collect();
    let chosen: Vec<PlantedAttack> = match &args.scenario {
        None => attacks.clone(),
        Some(name) => attacks.iter().filter(|attack| attack.name == name).cloned().collect(),
    };
    if let (true, Some(name)) = (chosen.is_empty(), &args.scenario) {
        let hint = crate::options::suggestion(name, names.iter().copied());
        return Err(Failure::usage(format!("there is no scenario `{name}`: {hint}")));
    }
    Ok((live, chosen, world.account_id().to_owned()))
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

fn introduce(
    config: &Config,
    live: &LiveWorld,
    attacks: &[PlantedAttack],
    clock: &Arc<dyn Clock>,
    output: &mut Output,
) -> Result<(), Failure> {
    let own = config.rules.iter().filter(|rule| !rule.id.starts_with("vigie-")).count();
    output.line(&format!(
        "A simulated Vonage account with {} days of routine ({}), watched by {}.",
        HISTORY_DAYS,
        counted(live.routine().len(), "event"),
        counted(own, "rule"),
    ))?;
    output.line(&format!(
        "Its clock says {}. {} about to happen.\n",
        clock.now().format("%A %Y-%m-%d %H:%M UTC"),
        if attacks.len() == 1 {
            "1 planted attack is".into()
        } else {
            format!("{} planted attacks are", attacks.len())
        },
    ))?;
    Ok(())
}

impl Stage {
    /// Lets the attacks happen; whether the user ended it.
    async fn release(&mut self, once: bool) -> Result<bool, Failure> {
        let chosen: BTreeSet<String> =
            self.attacks.iter().flat_map(|attack| attack.event_ids.iter().cloned()).collect();
        let started = tokio::time::Instant::now();
        let mut last_out = started;
        loop {
            let due = self.live.due(self.clock.now());
            if !due.is_empty() {
                let planted: BTreeSet<&str> =
                    self.live.attacks().iter().flat_map(|attack| attack.event_ids.iter().map(String::as_str)).collect();
                let mut sim = self.sim.lock().unwrap_or_else(PoisonError::into_inner);
                for event in due {
                    if !planted.contains(event.id.as_str()) || chosen.contains(&event.id) {
                        sim.push(event);
                    }
                }
                last_out = tokio::time::Instant::now();
            }
            if once {
                let all_out = self.live.next_at().is_none() && last_out.elapsed() >= LAST_CHANCE;
                let caught = self.live.next_at().is_none() && self.missed().await?.is_empty();
                if all_out || caught || started.elapsed() >= ONCE_LIMIT {
                    return Ok(false);
                }
            }
            let next =
                self.live.next_at().map_or(LOOK_EVERY, |at| (at - self.clock.now()).to_std().unwrap_or_default());
            tokio::select! {
                () = tokio::time::sleep(next.min(LOOK_EVERY)) => {}
                signal = tokio::signal::ctrl_c() => {
                    signal.exit(Exit::UNAVAILABLE)?;
                    return Ok(true);
                }
            }
        }
    }

    /// Which rules raised an alert over an event of this attack.
    async fn rules_that_fired(&self, attack: &PlantedAttack) -> Result<BTreeSet<String>, Failure> {
        let alerts = self.store.alerts(&AlertFilter::default()).await.exit(Exit::STORAGE)?;
        let hit = |ids: &[String]| ids.iter().any(|id| attack.event_ids.contains(id));
        Ok(alerts.into_iter().filter(|row| hit(&row.alert.events)).map(|row| row.alert.rule.id).collect())
    }

    /// Attacks that a stateless rule should have caught and none did.
    async fn missed(&self) -> Result<Vec<String>, Failure> {
        let mut missed = Vec::new();
        for attack in self.attacks.iter().filter(|attack| !attack.needs_state) {
            if self.rules_that_fired(attack).await?.is_empty() {
                missed.push(attack.name.to_owned());
            }
        }
        Ok(missed)
    }

    async fn sum_up(&self, output: &mut Output) -> Result<Vec<String>, Failure> {
        output.line("\nPlanted attacks:")?;
        for attack in &self.attacks {
            let rules = self.rules_that_fired(attack).await?;
            let verdict = match (rules.is_empty(), attack.needs_state) {
                (false, _) => format!("caught by {}", rules.into_iter().collect::<Vec<_>>().join(", ")),
                (true, true) => "waits for the stateful rules".to_owned(),
                (true, false) => "NOT CAUGHT".to_owned(),
            };
            output.line(&format!("  {:<22} {verdict}", attack.name))?;
        }
        self.missed().await
    }
}
