//! The daemon: one configuration at work. It puts store, engine, sources and lanes together and ends them in order.
//!
//! Everything it must remember is in the store, so a reload is a stop and a start with another configuration; there is no
//! second way to change a running one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vigie_engine::engine::{Engine, Restored};

use crate::clock::Clock;
use crate::config::{Config, NamedSink};
use crate::pipeline::attend::Attendant;
use crate::pipeline::deliver::{self, Lane, LaneNotice, Lanes, NoticeSender, Notices, Wake};
use crate::pipeline::drift::Drift;
use crate::pipeline::follow::{Follower, Quiets};
use crate::pipeline::heartbeat::{Beat, Heartbeat};
use crate::pipeline::history::History;
use crate::pipeline::ingest::{Ingest, Inhibitors, Outlet, Parts, SourceEnd};
use crate::pipeline::notice::SelfNotice;
use crate::pipeline::status::Status;
use crate::source::Cursor;
use crate::store::follow::FollowUps;
use crate::store::hold::Holds;
use crate::store::{Alerts, Loaded, Maintain, Queue, Result, StateStream, Store, StoreError};

/// How often retention looks for something to remove.
const MAINTAIN_EVERY: Duration = Duration::from_secs(600);
/// Between two runs of retention when the first ended at its limit: ingest goes first.
const MAINTAIN_AGAIN: Duration = Duration::from_secs(1);

/// How often a finite run delivers what is due: once, once more for what failures of that had to say, and once for failures
/// of those. A sink that refuses its own failure is not asked for ever.
const MAX_DRAINS: u32 = 3;

/// What stays the same over reloads.
#[derive(Clone)]
pub struct Daemon {
    /// The durable truth.
    pub store: Arc<dyn Store>,
    /// Alerts that are stored already.
    pub alerts: Arc<dyn Alerts>,
    /// What sinks are told of them again.
    pub follow_ups: Arc<dyn FollowUps>,
    /// What waits for a time, and silences.
    pub holds: Arc<dyn Holds>,
    /// Retention.
    pub maintain: Arc<dyn Maintain>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// What the console shows.
    pub status: Arc<Status>,
    /// Stop once nothing is owed and what is due was delivered.
    pub once: bool,
    /// Match and store, send nothing.
    pub dry_run: bool,
    /// Seed of the back-off jitter.
    pub jitter_seed: u64,
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct End {
    /// The credentials of a source were refused.
    pub refused: Option<String>,
    /// A source cannot go on.
    pub stopped: Option<String>,
    /// What each sink still owes (finite runs only).
    pub left: Vec<(String, Queue)>,
}

impl Daemon {
    /// Runs one configuration until `stop`, or until its sources are finished.
    ///
    /// # Errors
    /// When the store failed for good: what was not acknowledged is asked for again at the next start.
    pub async fn run(&self, config: Config, stop: &CancellationToken) -> Result<End> {
        self.take_over().await?;
        let Loaded { cursors, state, lanes: lane_states } = self.store.load().await?;
        let mut engine = Engine::new(config.rules);
        let Noted { drift, history, inhibitors } = take_up(&mut engine, state).await?;
        let (notices, notices_in) = NoticeSender::channel();
        let shared = self.shared(notices);
        let lanes = self.lanes(&shared, &config.sinks, lane_states);
        let wake = Wake::default();
        self.status.update(|snapshot| snapshot.sinks.extend(names(&config.sinks)));
        let outlets = outlets(&config.sinks);
        let follower = Arc::new(self.follower(&outlets, &engine, &wake));
        let ingest = Arc::new(Ingest::new(Parts {
            engine,
            drift,
            history,
            routes: config.routes,
            inhibitions: config.inhibitions,
            inhibitors,
            holds: self.holds.clone(),
            outlets,
            wake: wake.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            status: self.status.clone(),
            dry_run: self.dry_run,
        }));
        let attendant = Arc::new(self.attendant(&ingest, &follower, &wake));
        ingest.take_up_unrouted(&*self.maintain, self.alerts.clone()).await?;
        ingest.tell_of_dead_rules().await?;
        self.warn_orphans(&names(&config.sinks)).await?;

        // Whatever fails first ends the others in order: sources, then lanes.
        let inner = stop.child_token();
        let lanes_stop = CancellationToken::new();
        let mut side = JoinSet::new();
        side.spawn(ending_all(&inner, pump_notices(ingest.clone(), notices_in)));
        if !self.dry_run {
            side.spawn(ending_all(&inner, follower.clone().run(inner.clone())));
            // A finite run looks by itself, between its deliveries: two at a time would tell the same.
            if !self.once {
                side.spawn(ending_all(&inner, attendant.clone().run(inner.clone())));
            }
            let heartbeat = self.heartbeat(config.heartbeat, &config.sinks);
            heartbeat.map(|heartbeat| side.spawn(ending_all(&inner, heartbeat.run(inner.clone()))));
        }
        side.spawn(ending_all(&inner, maintain(self.clone(), config.retention, inner.clone())));
        let lanes_stopped = lanes_stop.clone();
        let run_lanes = async move { deliver::run(lanes, &wake, &lanes_stopped).await };
        let lanes_task = tokio::spawn(ending_all(&inner, run_lanes));
        let sources = self.run_sources(&ingest, config.sources, cursors, &inner).await;
        if !self.once || sources.is_err() {
            inner.cancel();
        }
        lanes_stop.cancel();
        let lanes_ended = lanes_task.await.unwrap_or_else(|error| Err(StoreError::Fatal(error.into())));
        let mut end = sources?;
        lanes_ended?;
        if self.once && !stop.is_cancelled() {
            self.told_once(&follower, &attendant).await?;
            end.left = self.drain(&shared, &config.sinks, stop).await?;
            // What was given up just now has its fallback in this run.
            if self.attend_once(&attendant).await? {
                end.left = self.drain(&shared, &config.sinks, stop).await?;
            }
        }
        inner.cancel();
        // With the last sender gone, what the lanes had to say at their end is stored before the end.
        drop(shared);
        while let Some(ended) = side.join_next().await {
            ended.unwrap_or_else(|error| Err(StoreError::Fatal(error.into())))?;
        }
        Ok(end)
    }

    /// Delivers what is due, and what the lanes themselves had to say on the way.
    async fn drain(
        &self,
        shared: &Lanes,
        sinks: &[NamedSink],
        stop: &CancellationToken,
    ) -> Result<Vec<(String, Queue)>> {
        let mut told = shared.notices.all_done().await;
        let mut left = Vec::new();
        for _ in 0..MAX_DRAINS {
            let lane_states = self.store.load().await?.lanes;
            left = deliver::drain(self.lanes(shared, sinks, lane_states), stop).await?;
            let before = std::mem::replace(&mut told, shared.notices.all_done().await);
            if told == before {
                break;
            }
        }
        Ok(left)
    }

    /// What came due while the sources were read is told with the rest.
    async fn attend_once(&self, attendant: &Attendant) -> Result<bool> {
        if self.dry_run { Ok(false) } else { self.look_once(attendant.look().await) }
    }

    async fn told_once(&self, follower: &Follower, attendant: &Attendant) -> Result<()> {
        if !self.dry_run {
            self.look_once(follower.look().await.map(|_| false))?;
        }
        self.attend_once(attendant).await.map(drop)
    }

    fn look_once(&self, looked: Result<bool>) -> Result<bool> {
        match looked {
            Err(StoreError::Full(cause)) => {
                tracing::warn!(%cause, "updates, fallbacks and digests wait for space");
                Ok(false)
            }
            looked => looked,
        }
    }

    /// What an earlier process scheduled by a clock that was set back since must not wait for that clock.
    async fn take_over(&self) -> Result<()> {
        let now = self.clock.steady();
        match self.store.take_over(now, deliver::later(now, deliver::MAX_WAIT)).await {
            // It changes times only; a start on a full disk goes on without.
            Err(StoreError::Full(cause)) => {
                tracing::warn!(%cause, "the times of waiting deliveries were not looked at")
            }
            outcome => outcome?,
        }
        Ok(())
    }

    /// A lane for each sink; a dry run has none, so that what waits from before is not sent either.
    fn lanes(&self, shared: &Lanes, sinks: &[NamedSink], states: Vec<(String, crate::store::LaneState)>) -> Vec<Lane> {
        if self.dry_run {
            return Vec::new();
        }
        let states: BTreeMap<_, _> = states.into_iter().collect();
        let state = |name: &String| states.get(name).cloned().unwrap_or_default();
        let lane = |sink: &crate::config::NamedSink| {
            shared.lane(&sink.name, sink.sink.clone(), state(&sink.name)).paced(sink.pace.clone()).folding(sink.storm)
        };
        sinks.iter().map(lane).collect()
    }

    fn follower(&self, outlets: &[Outlet], engine: &Engine, wake: &Wake) -> Follower {
        Follower {
            rows: self.follow_ups.clone(),
            alerts: self.alerts.clone(),
            outlets: outlets.to_vec(),
            quiets: Quiets::of(engine.rules()),
            clock: self.clock.clone(),
            wake: wake.clone(),
        }
    }

    fn shared(&self, notices: NoticeSender) -> Lanes {
        Lanes {
            store: self.store.clone(),
            alerts: self.alerts.clone(),
            holds: self.holds.clone(),
            clock: self.clock.clone(),
            status: self.status.clone(),
            own_pauses: deliver::OwnPauses::default(),
            notices,
            jitter_seed: self.jitter_seed,
        }
    }

    /// A finite run has none: nobody waits for it.
    fn heartbeat(&self, beat: Option<Beat>, sinks: &[NamedSink]) -> Option<Heartbeat> {
        let beat = beat.filter(|_| !self.once)?;
        let (status, store, clock) = (self.status.clone(), self.store.clone(), self.clock.clone());
        Some(Heartbeat { beat, sinks: names(sinks), status, store, clock })
    }

    fn attendant(&self, ingest: &Arc<Ingest>, follower: &Follower, wake: &Wake) -> Attendant {
        Attendant {
            holds: self.holds.clone(),
            alerts: self.alerts.clone(),
            outlets: follower.outlets.clone(),
            ingest: ingest.clone(),
            quiets: follower.quiets.clone(),
            clock: self.clock.clone(),
            wake: wake.clone(),
        }
    }

    async fn run_sources(
        &self,
        ingest: &Arc<Ingest>,
        sources: Vec<crate::config::NamedSource>,
        cursors: Vec<(String, Cursor)>,
        stop: &CancellationToken,
    ) -> Result<End> {
        let cursors: BTreeMap<String, Cursor> = cursors.into_iter().collect();
        let names: BTreeSet<&str> = sources.iter().map(|named| named.name.as_str()).collect();
        // One that a reload took out would count as silent for ever.
        self.status.update(|snapshot| snapshot.sources.retain(|name, _| names.contains(name.as_str())));
        let mut tasks = JoinSet::new();
        for mut named in sources {
            let (ingest, stop, once) = (ingest.clone(), stop.clone(), self.once);
            let cursor = cursors.get(&named.name).cloned();
            self.status.update_source(&named.name, |_| {});
            tasks.spawn(async move {
                let ended = ingest.run_source(&named.name, &mut *named.source, cursor, once, &stop).await;
                (named.name, ended)
            });
        }
        let mut end = End::default();
        let mut failure = None;
        while let Some(joined) = tasks.join_next().await {
            match joined {
                Ok((_, Ok(SourceEnd::Cancelled | SourceEnd::Finished))) => {}
                Ok((name, Ok(SourceEnd::Refused(text)))) => end.refused = Some(format!("source `{name}`: {text}")),
                Ok((name, Ok(SourceEnd::Stopped(text)))) => {
                    tracing::error!(source = %name, error = ?text, "the source cannot go on");
                    end.stopped = Some(format!("source `{name}`: {text}"));
                }
                Ok((_, Err(error))) => {
                    failure.get_or_insert(error);
                    stop.cancel();
                }
                Err(error) => {
                    failure.get_or_insert(StoreError::Fatal(error.into()));
                    stop.cancel();
                }
            }
        }
        if !self.once && failure.is_none() && end.stopped.is_none() {
            // A daemon whose files are read to the end stays: lanes may still owe, and the console answers.
            stop.cancelled().await;
        }
        failure.map_or(Ok(end), Err)
    }

    /// Deliveries of a sink that the configuration no longer has are kept, and said aloud.
    async fn warn_orphans(&self, sinks: &[String]) -> Result<()> {
        for (name, queue) in self.maintain.backlogs().await? {
            if queue.depth > 0 && !sinks.contains(&name) {
                tracing::warn!(sink = %name, waiting = queue.depth, "deliveries wait for a sink that is not configured");
            }
        }
        Ok(())
    }
}

/// Takes up what was noted, while it is read.
async fn take_up(engine: &mut Engine, mut state: StateStream) -> Result<Noted> {
    let mut noted = Noted::default();
    let mut restoring = engine.restoring();
    while let Some(rows) = state.next().await? {
        noted.drift.take_up(&rows);
        noted.history.take_up(&rows);
        noted.inhibitors.take_up(&rows);
        restoring.take(rows);
    }
    warn_of_state(&restoring.finish());
    Ok(noted)
}

/// What the program itself noted.
#[derive(Default)]
struct Noted {
    drift: Drift,
    history: History,
    inhibitors: Inhibitors,
}

/// Tells what of the noted cannot be used.
fn warn_of_state(restored: &Restored) {
    let Restored { unreadable, set_aside } = restored;
    if !unreadable.is_empty() {
        tracing::error!(rows = unreadable.len(), first = ?unreadable.first(), "rule state that cannot be read is not used");
    }
    for (rule, rows) in set_aside {
        tracing::warn!(rule, rows, "the rule asks for something else than when these were noted; it begins anew");
    }
}

fn names(sinks: &[NamedSink]) -> Vec<String> {
    sinks.iter().map(|sink| sink.name.clone()).collect()
}

/// The sinks as ingest and updates see them.
fn outlets(sinks: &[NamedSink]) -> Vec<Outlet> {
    let outlet = |sink: &NamedSink| Outlet { name: sink.name.clone(), sink: sink.sink.clone(), follow: sink.follow };
    sinks.iter().map(outlet).collect()
}

/// A part without which the others must not go on: when it ends, by an error or a panic too, all are told to stop.
fn ending_all<F: Future>(all: &CancellationToken, part: F) -> impl Future<Output = F::Output> + use<F> {
    let guard = all.clone().drop_guard();
    async move {
        let _ends_all = guard;
        part.await
    }
}

/// Until no lane is left that could say anything. What finds the disk full waits for space; at the end it has one more try.
async fn pump_notices(ingest: Arc<Ingest>, mut notices: Notices) -> Result<()> {
    loop {
        let notice = tokio::select! {
            notice = notices.next() => Some(notice),
            () = ingest.kept_is_due() => None,
        };
        let (ended, stored) = match notice {
            Some(Some(LaneNotice { sink, kind, message })) => {
                let notice = SelfNotice { event_type: kind.event_type(), about: sink, text: message };
                let stored = ingest.notify_or_keep(vec![notice]).await;
                notices.is_done();
                (false, stored)
            }
            Some(None) => (true, ingest.store_kept().await),
            None => (false, ingest.store_kept().await),
        };
        match stored {
            Ok(()) => {}
            Err(StoreError::Full(cause)) if ended => {
                tracing::error!(%cause, count = ingest.kept(), "notices could not be stored; the log has them");
            }
            Err(StoreError::Full(cause)) => tracing::debug!(%cause, count = ingest.kept(), "notices wait for space"),
            Err(fatal) => return Err(fatal),
        }
        if ended {
            return Ok(());
        }
    }
}

async fn maintain(daemon: Daemon, retention: Duration, stop: CancellationToken) -> Result<()> {
    let mut wait = MAINTAIN_AGAIN;
    loop {
        #[expect(clippy::cast_precision_loss, reason = "a store stays far below 2^53 bytes")]
        metrics::gauge!(crate::metrics::STORE_BYTES).set(daemon.maintain.store_bytes()? as f64);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
        wait = match daemon.maintain.maintain(daemon.clock.now(), retention).await {
            Ok(more) if more => MAINTAIN_AGAIN,
            Ok(_) | Err(StoreError::Full(_)) => MAINTAIN_EVERY,
            Err(fatal) => return Err(fatal),
        };
    }
}

#[cfg(test)]
mod tests;
