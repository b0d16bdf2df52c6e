//! `vigie sim serve`: the stand-in for the Audit API, for trying rules and clients without an account.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use vigie_sim::faults::FaultChance;
use vigie_sim::quirks::Lateness;
use vigie_sim::{DEFAULT_SECRET, Fault, FaultPlan, Quirks, Sim, World, WorldConfig};

use super::exit::{Exit, Failure, Outcome, WithExit};
use super::output::Output;
use super::{Global, log, run as run_verb};
use crate::clock::{Clock, SystemClock};

/// Days of routine that are visible from the start.
const HISTORY_DAYS: u32 = 30;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Serve it on loopback
    Serve(ServeArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Port on 127.0.0.1
    #[arg(long, default_value_t = 8799)]
    port: u16,
    /// The world's seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// New events a minute
    #[arg(long, default_value_t = 6.0)]
    rate: f64,
    /// A fault with its chance, such as 429:0.1; may be given several times
    #[arg(long, value_name = "KIND:P")]
    fault: Vec<String>,
    /// Events become visible up to this long after their stamp
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    lateness: String,
}

pub(super) fn run(verb: Verb, global: &Global, output: &mut Output) -> Outcome {
    let Verb::Serve(args) = verb;
    log::start(global, "info");
    run_verb::block_on(serve(args, output))?
}

async fn serve(args: ServeArgs, output: &mut Output) -> Outcome {
    if !(0.0..=6_000.0).contains(&args.rate) {
        return Err(Failure::usage("--rate takes 0 to 6000 events a minute"));
    }
    let chances: Vec<FaultChance> = args
        .fault
        .iter()
        .map(|text| Fault::parse(text).map_err(|error| Failure::usage(format!("--fault {text}: {error}"))))
        .collect::<Result<_, _>>()?;
    let lateness = vigie_engine::time::parse_duration(&args.lateness)
        .map_err(|message| Failure::usage(format!("--lateness: {message}")))?;
    let now = SystemClock.now();
    let start = now - TimeDelta::days(i64::from(HISTORY_DAYS));
    let world = World::generate(&WorldConfig { days: HISTORY_DAYS, ..WorldConfig::new(args.seed, start) });
    let quirks = Quirks { lateness: Some(Lateness::within(lateness)), ..Quirks::default() };
    let sim = Sim::from_world(&world).with_quirks(quirks).with_faults(FaultPlan::seeded(args.seed, chances));
    let sim = Arc::new(Mutex::new(sim));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| Failure::text(Exit::UNAVAILABLE, format!("cannot listen on {address}: {error}")))?;
    let bound = listener.local_addr().exit(Exit::UNAVAILABLE)?;
    output.line(&format!(
        "base_url: http://{bound}/beta/audit\napi_key: {}\napi_secret: {DEFAULT_SECRET}",
        world.account_id()
    ))?;
    let clock: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync> = Arc::new(|| SystemClock.now());
    let live = tokio::spawn(go_on(sim.clone(), args.seed, args.rate));
    let served = vigie_sim::serve::serve(listener, sim, clock, async {
        // When the signal cannot be waited for, the process ends by the signal itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    served.await.exit(Exit::UNAVAILABLE)?;
    live.abort();
    Ok(Exit::OK)
}

/// Routine goes on while it runs: events of another stretch of the same world, stamped with the present.
async fn go_on(sim: Arc<Mutex<Sim>>, seed: u64, rate_per_minute: f64) {
    if rate_per_minute <= 0.0 {
        return;
    }
    let pause = Duration::from_secs_f64(60.0 / rate_per_minute);
    for generation in 1_u64.. {
        let start = SystemClock.now();
        let seed = seed.wrapping_add(generation);
        let world = World::generate(&WorldConfig { days: HISTORY_DAYS, ..WorldConfig::new(seed, start) });
        for event in world.events() {
            tokio::time::sleep(pause).await;
            let mut event = event.clone();
            event.set_created_at(SystemClock.now());
            sim.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event);
        }
    }
}
