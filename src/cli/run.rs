//! `vigie run`: the daemon. Signals, reloads and the console are its business; what it runs is `daemon`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure, Outcome, WithExit};
use super::output::{Output, counted};
use super::reload::{Reloads, Trigger};
use super::{Global, config_paths, load, log};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::console::{self, Console};
use crate::daemon::{Daemon, End};
use crate::pipeline::status::Status;
use crate::store::StoreError;
use crate::store::sqlite::{OpenError, SqliteOptions, SqliteStore};

/// Threads of the runtime: one for polling and matching, one for sends; the store has its own.
const WORKER_THREADS: usize = 2;
/// Nothing that must be kept is still running when a verb has its result.
const MAX_LEFTOVER: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Poll until nothing is owed, deliver what is due, end
    #[arg(long)]
    once: bool,
    /// Match and store, send nothing
    #[arg(long)]
    dry_run: bool,
    /// Listen here instead of what the configuration says
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
}

pub(super) fn run(args: Args, global: &Global, output: &mut Output) -> Outcome {
    log::start(global, "info");
    let (config, mut diagnostics) = load::config(global, output)?;
    if let Some(config) = &config {
        load::warn_unseen_event_types(config, &mut diagnostics);
    }
    output.diagnostics(&diagnostics)?;
    let Some(config) = config else { return Ok(Exit::CONFIG) };
    if args.listen.is_some_and(|address| !address.ip().is_loopback()) {
        return Err(Failure::usage("--listen takes a loopback address"));
    }
    block_on(run_daemon(args, global, config, output))?
}

/// Runs a verb's future to its end. What still blocks a thread then (a terminal that takes no more output) does not keep
/// the process.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .exit(Exit::UNAVAILABLE)?;
    let value = runtime.block_on(future);
    runtime.shutdown_timeout(MAX_LEFTOVER);
    Ok(value)
}

/// Opens the store for this process alone. A dry run has one of its own: what it sees must be alerted later all the same.
fn open_store(config: &Config, dry_run: bool) -> Result<Arc<SqliteStore>, Failure> {
    let directory = if dry_run { config.state_dir.join("dry-run") } else { config.state_dir.clone() };
    SqliteStore::open(&directory, &SqliteOptions::daemon())
        .map(Arc::new)
        .map_err(|error: OpenError| Failure::new(Exit::STORAGE, error))
}

async fn run_daemon(args: Args, global: &Global, config: Config, output: &mut Output) -> Outcome {
    let metrics = crate::metrics::install().exit(Exit::UNAVAILABLE)?;
    metrics::gauge!(crate::metrics::RELOAD_SUCCESSFUL).set(1.0);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let status = Arc::new(Status::default());
    let store = open_store(&config, args.dry_run)?;
    let listener = match args.listen.or(config.listen) {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let daemon = Daemon {
        store: store.clone(),
        alerts: store.clone(),
        follow_ups: store.clone(),
        holds: store.clone(),
        maintain: store.clone(),
        clock: clock.clone(),
        status: status.clone(),
        once: args.once,
        dry_run: args.dry_run,
        jitter_seed: jitter_seed(clock.now()),
    };
    let mut reloads = Reloads::start(&config.watched).exit(Exit::UNAVAILABLE)?;
    let console_stop = CancellationToken::new();
    tokio::spawn(crate::metrics::keep_up(metrics.clone(), console_stop.clone()));
    if let Some(listener) = listener {
        let console = Console { metrics, status: status.clone(), store: store.clone(), clock: clock.clone() };
        let address = listener.local_addr().exit(Exit::UNAVAILABLE)?;
        tracing::info!(%address, "console listens");
        tokio::spawn(console::serve(listener, console, console_stop.clone().cancelled_owned()));
    }
    tracing::info!(
        sources = config.sources.len(),
        rules = config.rules.len(),
        sinks = config.sinks.len(),
        state = ?config.state_dir,
        dry_run = args.dry_run,
        "started"
    );
    let fixed = Fixed { state_dir: config.state_dir.clone(), listen: args.listen.is_none().then_some(config.listen) };
    let ended = supervise(&daemon, config, &fixed, &mut reloads, global, output).await;
    console_stop.cancel();
    finish(&args, ended, &status, output)
}

async fn bind(address: SocketAddr) -> Result<tokio::net::TcpListener, Failure> {
    let bound = tokio::net::TcpListener::bind(address).await;
    bound.map_err(|error| {
        let text = format!("cannot listen on {address}: {error}; choose another with --listen or `server: listen`");
        Failure::text(Exit::UNAVAILABLE, text)
    })
}

/// What a running process cannot change.
struct Fixed {
    state_dir: PathBuf,
    /// Where the console listens, if the configuration decides that.
    listen: Option<Option<SocketAddr>>,
}

/// Runs one configuration after another until a signal ends it.
async fn supervise(
    daemon: &Daemon,
    mut config: Config,
    fixed: &Fixed,
    reloads: &mut Reloads,
    global: &Global,
    output: &mut Output,
) -> Result<(End, Option<Exit>), StoreError> {
    loop {
        let reads_stdin = config.sources.iter().any(|source| source.reads_stdin);
        let stop = CancellationToken::new();
        let running = daemon.run(config, &stop);
        tokio::pin!(running);
        let next = loop {
            let trigger = tokio::select! {
                ended = &mut running => return ended.map(|end| (end, None)),
                trigger = reloads.next() => trigger,
            };
            match trigger {
                Trigger::Stop(exit) => {
                    stop.cancel();
                    return end_by(exit, running, reloads).await;
                }
                Trigger::Reload => {
                    if let Some(next) = reload(daemon, fixed, reads_stdin, reloads, global, output) {
                        break next;
                    }
                }
            }
        };
        // Before the wait for sends in flight: what changes meanwhile is a change to what was just loaded.
        reloads.watch(&next.watched);
        stop.cancel();
        let mut next = next;
        loop {
            // A signal is obeyed while the old configuration ends, too: then the new one is never started.
            let trigger = tokio::select! {
                ended = &mut running => break ended.map(drop)?,
                trigger = reloads.next() => trigger,
            };
            match trigger {
                Trigger::Stop(exit) => return end_by(exit, running, reloads).await,
                Trigger::Reload => {
                    if let Some(newer) = reload(daemon, fixed, reads_stdin, reloads, global, output) {
                        reloads.watch(&newer.watched);
                        next = newer;
                    }
                }
            }
        }
        config = next;
    }
}

/// Waits for a daemon that was told to stop, unless the user insists.
async fn end_by(
    exit: Exit,
    running: impl Future<Output = Result<End, StoreError>>,
    reloads: &mut Reloads,
) -> Result<(End, Option<Exit>), StoreError> {
    tracing::info!("stopping: sends in flight are finished and settled");
    tokio::select! {
        ended = running => Ok((ended?, Some(exit))),
        () = reloads.interrupted() => Ok((End::default(), Some(Exit::INTERRUPTED))),
    }
}

/// The new configuration, or `None` when it does not load: then the old one stays in force.
fn reload(
    daemon: &Daemon,
    fixed: &Fixed,
    reads_stdin: bool,
    reloads: &mut Reloads,
    global: &Global,
    output: &mut Output,
) -> Option<Config> {
    let paths = config_paths(global).ok()?;
    let (loaded, diagnostics) = config::load_or_named(&paths, &load::surroundings(output));
    let config = loaded.map_err(|named| reloads.watch_too(named)).ok();
    if output.diagnostics(&diagnostics).is_err() {
        tracing::debug!("stderr is gone");
    }
    let refused = match &config {
        None => Some("the new configuration is invalid".to_owned()),
        Some(_) if reads_stdin => {
            Some("a source reads stdin, which cannot be opened again; that needs a restart".to_owned())
        }
        Some(config) if config.state_dir != fixed.state_dir => {
            Some("`state: dir` changed; that needs a restart".to_owned())
        }
        Some(_) => None,
    };
    metrics::gauge!(crate::metrics::RELOAD_SUCCESSFUL).set(if refused.is_none() { 1.0 } else { 0.0 });
    daemon.status.update(|snapshot| snapshot.reload.clone_from(&refused));
    match refused {
        Some(why) => {
            tracing::error!(why, "not reloaded; the old configuration stays in force");
            None
        }
        None => {
            if let (Some(config), Some(listen)) = (&config, fixed.listen)
                && config.listen != listen
            {
                let (now, wanted) = (shown(listen), shown(config.listen));
                tracing::warn!(now, wanted, "`server: listen` changed; that takes a restart, the rest is in force");
            }
            tracing::info!("reloaded");
            config
        }
    }
}

fn shown(listen: Option<SocketAddr>) -> String {
    listen.map_or("nowhere".into(), |address| address.to_string())
}

fn finish(
    args: &Args,
    ended: Result<(End, Option<Exit>), StoreError>,
    status: &Status,
    output: &mut Output,
) -> Outcome {
    let (end, by_signal) = ended.map_err(|error| Failure::new(Exit::STORAGE, error))?;
    if let Some(exit) = by_signal {
        tracing::info!("stopped");
        return Ok(exit);
    }
    if let Some(text) = end.refused {
        return Err(Failure::text(Exit::REFUSED, text));
    }
    if let Some(text) = end.stopped {
        return Err(Failure::text(Exit::UNAVAILABLE, text));
    }
    if !args.once {
        return Ok(Exit::OK);
    }
    let snapshot = status.snapshot();
    let events: u64 = snapshot.sources.values().map(|source| source.events).sum();
    let [events, alerts] = [events, snapshot.alerts].map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    output.note(&format!("{}, {}", counted(events, "event"), counted(alerts, "alert")))?;
    let waiting: Vec<String> = end
        .left
        .iter()
        .filter(|(_, queue)| queue.depth > 0)
        .map(|(name, queue)| format!("{} for `{name}`", queue.depth))
        .collect();
    if waiting.is_empty() {
        return Ok(Exit::OK);
    }
    Err(Failure::text(Exit::TEMPORARY, format!("deliveries still wait: {}", waiting.join(", "))))
}

/// Differs between processes; nothing secret depends on it.
pub(super) fn jitter_seed(now: DateTime<Utc>) -> u64 {
    now.timestamp_micros().unsigned_abs() ^ (u64::from(std::process::id()) << 32)
}
