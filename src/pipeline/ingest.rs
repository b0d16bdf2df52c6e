//! Ingest: one response becomes one commit of events, rule state, alerts, deliveries and the source's cursor.
//!
//! It never sends anything and never moves a cursor without what the cursor stands for. A failed commit leaves engine and
//! source where they were, so the same request gives the same result.

mod accounts;
mod cursors;
mod evaluation;
mod evicted;
mod figures;
mod full;
mod mutes;
mod outlet;
mod owing;
mod unrouted;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use vigie_engine::engine::{Engine, MAX_TICKS};
use vigie_engine::event::{Event, text_digest};
use vigie_engine::mute::Inhibition;
use vigie_engine::route::Route;

pub use mutes::Inhibitors;
pub use outlet::Outlet;

use self::evaluation::Evaluation;
use self::owing::Owed;
use super::deliver::Wake;
use super::drift::Drift;
use super::follow::Quiets;
use super::history::History;
use super::notice::{self, SelfNotice};
use super::status::Status;
use crate::clock::Clock;
use crate::metrics as names;
use crate::source::{Cursor, Fault, Fetched, Held, Poison, Source, SourceError};
use crate::store::hold::Holds;
use crate::store::{IngestBatch, NewAlert, Result as StoreResult, Store, StoreError, StoredEvent};

/// Who mutes an alert that no route takes.
const UNROUTED: &str = "no route matched";
/// A finite run gives up after this many failures in a row; their pauses grow, so it takes about half a minute.
const MAX_ONCE_FAILURES: u32 = 6;

/// What ingest needs.
pub struct Parts {
    /// Rules and their state, already restored.
    pub engine: Engine,
    /// What the accounts have shown so far.
    pub drift: Drift,
    /// What was read of the time before the start.
    pub history: History,
    /// In order.
    pub routes: Vec<Route>,
    /// Which alerts hold down which.
    pub inhibitions: Vec<Inhibition>,
    /// Those that did when the process ended.
    pub inhibitors: Inhibitors,
    /// Silences, and what routes told already.
    pub holds: Arc<dyn Holds>,
    /// All sinks.
    pub outlets: Vec<Outlet>,
    /// Wakes the lanes when something was committed for them.
    pub wake: Wake,
    /// The durable truth.
    pub store: Arc<dyn Store>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// What the console shows.
    pub status: Arc<Status>,
    /// Match and store, but create no deliveries.
    pub dry_run: bool,
}

/// Runs sources.
pub struct Ingest {
    engine: Mutex<Engine>,
    accounts: accounts::Accounts,
    cursors: cursors::Cursors,
    evicted: evicted::Evicted,
    routes: Vec<Route>,
    outlets: Vec<Outlet>,
    wake: Wake,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    status: Arc<Status>,
    dry_run: bool,
    episode: full::Episode,
    kept: full::Kept,
    unrouted: unrouted::Unrouted,
    mutes: mutes::Mutes,
    quiets: Quiets,
}

/// Why a source's loop ended.
#[derive(Debug, PartialEq, Eq)]
pub enum SourceEnd {
    /// It was told to.
    Cancelled,
    /// A finite source gave everything, or `once` was asked for and nothing is owed.
    Finished,
    /// The credentials were refused and the run is finite.
    Refused(String),
    /// It cannot go on.
    Stopped(String),
}

impl Ingest {
    /// Takes the parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { engine, drift, history, routes, outlets, wake, store, clock, status, dry_run, .. } = parts;
        let quiets = Quiets::of(engine.rules());
        Self {
            mutes: mutes::Mutes::new(parts.inhibitions, parts.inhibitors, parts.holds),
            quiets,
            engine: Mutex::new(engine),
            accounts: accounts::Accounts::new(drift, history),
            cursors: cursors::Cursors::default(),
            evicted: evicted::Evicted::default(),
            routes,
            outlets,
            wake,
            store,
            clock,
            status,
            dry_run,
            episode: full::Episode::default(),
            kept: full::Kept::default(),
            unrouted: unrouted::Unrouted::default(),
        }
    }

    /// Polls one source until it is told to stop; with `once`, until nothing that was visible is left.
    ///
    /// # Errors
    /// When the store failed for good.
    pub async fn run_source(
        &self,
        name: &str,
        source: &mut dyn Source,
        cursor: Option<Cursor>,
        once: bool,
        stop: &CancellationToken,
    ) -> StoreResult<SourceEnd> {
        let end = self.poll(name, source, cursor, once, stop).await?;
        if let Some(waiting) = self.cursors.take(name) {
            match self.store.commit(waiting).await {
                // The next start asks for the last minute again.
                Err(StoreError::Full(cause)) => {
                    tracing::warn!(source = name, %cause, "no space left for a quiet minute")
                }
                stored => stored?,
            }
        }
        Ok(end)
    }

    async fn poll(
        &self,
        name: &str,
        source: &mut dyn Source,
        mut cursor: Option<Cursor>,
        once: bool,
        stop: &CancellationToken,
    ) -> StoreResult<SourceEnd> {
        let mut failures = 0;
        loop {
            let fetched = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(SourceEnd::Cancelled),
                fetched = source.fetch(cursor.as_ref(), &*self.store) => fetched,
            };
            let (wait, trouble) = match fetched {
                Ok(fetched) => match self.absorb(name, fetched).await {
                    Ok(absorbed) => {
                        cursor = Some(absorbed.cursor);
                        if absorbed.finished || (once && absorbed.caught_up) {
                            return Ok(SourceEnd::Finished);
                        }
                        (absorbed.next_in, absorbed.at_fault)
                    }
                    Err(StoreError::Full(cause)) => {
                        (self.full(name, &cause, stop).await, Some(format!("no space left for the store: {cause}")))
                    }
                    Err(fatal) => return Err(fatal),
                },
                Err(error) => {
                    let message = error.message.clone();
                    match self.fetch_failed(name, error, once, stop).await? {
                        Ok(wait) => (wait, Some(message)),
                        Err(end) => return Ok(end),
                    }
                }
            };
            failures = if trouble.is_some() { failures + 1 } else { 0 };
            if let (true, Some(trouble)) = (once && failures >= MAX_ONCE_FAILURES, trouble) {
                return Ok(SourceEnd::Stopped(trouble));
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(SourceEnd::Cancelled),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Says something about the program itself; it is stored and routed like any event.
    ///
    /// # Errors
    /// When the store cannot take it.
    pub async fn notify(&self, notices: Vec<SelfNotice>) -> StoreResult<()> {
        announce(&notices);
        self.store_notices(notices).await
    }

    async fn store_notices(&self, notices: Vec<SelfNotice>) -> StoreResult<()> {
        if notices.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let events: Vec<Event> = notices.into_iter().filter_map(|notice| notice.into_event(now)).collect();
        self.evaluate_and_commit(notice::SOURCE, Evaluation { events, settled_at: Some(now), ..Evaluation::at(now) })
            .await
    }

    async fn absorb(&self, name: &str, fetched: Fetched) -> StoreResult<Absorbed> {
        let now = self.clock.now();
        // Notices first: a crash in between repeats one (it folds), the other order could lose it.
        let notices = fetched.notices.into_iter().map(|notice| SelfNotice {
            event_type: notice.kind.event_type(),
            about: name.to_owned(),
            text: notice.message,
        });
        self.notify(notices.collect()).await?;
        let unseen = self.unseen(name, fetched.events, fetched.before_start, fetched.poison).await?;
        let Unseen { events, before_start, poison } = unseen;
        let (event_count, poison_count) = (events.len() as u64, poison.len() as u64);
        let poison = poison.into_iter().map(|row| StoredEvent {
            id: row.id,
            created_at: row.created_at.unwrap_or(now),
            digest: text_digest(&row.raw),
            raw: row.raw.into(),
            poison: Some(row.error),
        });
        let newest = events.iter().map(Event::created_at).max();
        // While something older is owed, what looks like silence may be what is not read yet.
        let heard_until = fetched.settled_at.filter(|_| fetched.windows_owed == 0);
        let drift = self.accounts.observe(name, &events, heard_until, now);
        self.notify(drift.as_ref().map(|drift| drift.notices.clone()).unwrap_or_default()).await?;
        let evaluation = Evaluation {
            events,
            before_start,
            poison: poison.collect(),
            cursor: Some(fetched.cursor.clone()),
            settled_at: fetched.settled_at,
            aloud_from: fetched.aloud_from,
            learn_from: fetched.learn_from,
            drift,
            cursor_may_wait: fetched.cursor_may_wait,
            now,
        };
        self.evaluate_and_commit(name, evaluation).await?;
        self.notify_or_keep(self.evicted.notices(self.clock.steady())).await?;
        if fetched.caught_up && fetched.learn_from.is_some() {
            self.tell_of_history(name, now).await?;
        }

        counter!(names::EVENTS, "source" => name.to_owned()).increment(event_count);
        counter!(names::EVENTS_DUPLICATE, "source" => name.to_owned()).increment(fetched.repeated);
        counter!(names::EVENTS_POISON, "source" => name.to_owned()).increment(poison_count);
        if let Some(newest) = newest {
            #[expect(clippy::cast_precision_loss, reason = "a lag in milliseconds stays far below 2^53")]
            let lag_seconds = (now - newest).num_milliseconds() as f64 / 1000.0;
            gauge!(names::EVENT_LAG, "source" => name.to_owned()).set(lag_seconds);
        }
        self.status.update_source(name, |status| {
            status.windows_owed = fetched.windows_owed;
            status.events += event_count;
            status.caught_up = fetched.caught_up;
            status.finished = fetched.finished;
        });
        self.polled(name, fetched.windows_owed, fetched.at_fault.as_deref(), now);
        Ok(Absorbed {
            cursor: fetched.cursor,
            next_in: fetched.next_in,
            finished: fetched.finished,
            caught_up: fetched.caught_up,
            at_fault: fetched.at_fault,
        })
    }

    /// Drops what the store has and what the answer itself repeats; an id counts once.
    async fn unseen(
        &self,
        name: &str,
        mut events: Vec<Event>,
        mut before_start: Vec<Event>,
        mut poison: Vec<Poison>,
    ) -> StoreResult<Unseen> {
        let given = (events.len() + before_start.len() + poison.len()) as u64;
        let mut ids: Vec<String> = events.iter().chain(&before_start).map(|event| event.id().to_owned()).collect();
        ids.extend(poison.iter().map(|row| row.id.clone()));
        let held = self.store.held(name, &ids).await?;
        let stored = ids.into_iter().zip(held).filter(|(_, held)| *held != Held::Nothing);
        let mut taken: HashSet<String> = stored.map(|(id, _)| id).collect();
        events.retain(|event| taken.insert(event.id().to_owned()));
        before_start.retain(|event| taken.insert(event.id().to_owned()));
        poison.retain(|row| taken.insert(row.id.clone()));
        let repeated = given - (events.len() + before_start.len() + poison.len()) as u64;
        counter!(names::EVENTS_DUPLICATE, "source" => name.to_owned()).increment(repeated);
        Ok(Unseen { events, before_start, poison })
    }

    /// One commit, and as many more as it takes to decide all that time has made due: a finite run has no next poll.
    async fn evaluate_and_commit(&self, source: &str, evaluation: Evaluation) -> StoreResult<()> {
        let rest = evaluation.time_alone();
        let mut more_is_due = self.commit_one(source, evaluation).await?;
        for _ in 1..MAX_TICKS {
            if !more_is_due {
                break;
            }
            more_is_due = self.commit_one(source, rest.time_alone()).await?;
        }
        Ok(())
    }

    /// Whether more is due than it decided.
    async fn commit_one(&self, source: &str, evaluation: Evaluation) -> StoreResult<bool> {
        let mut evaluation = evaluation.in_order();
        let (now, drift, cursor_may_wait) = (evaluation.now, evaluation.drift.take(), evaluation.cursor_may_wait);
        // Held over the commit: the next batch must see what this one changed, and a failed commit must change nothing.
        let mut engine = self.engine.lock().await;
        let mut effects = evaluation.run(&engine, source);
        let changes = std::mem::take(&mut effects.changes);
        let seen = self.accounts.learned(source, &evaluation, &effects.learned);
        let mut alerts = Vec::with_capacity(effects.alerts.len());
        let due_at = self.clock.steady();
        let mut owed = Owed::default();
        for alert in &effects.alerts {
            let muted_by = self.owe(alert, now, &mut owed).await?;
            alerts.push(NewAlert { alert: alert.clone(), muted_by });
        }
        let unmuted = self.reroute(&effects.folds, now, &mut owed).await?;
        for fold in &effects.folds {
            self.mutes.stage_match(&fold.alert_id, |rule| self.quiets.get(rule), now, &mut owed.open);
        }
        let outcomes: Vec<(&str, &str)> =
            alerts.iter().map(|new| (new.alert.rule.severity.as_str(), outcome(new))).collect();
        let Owed { deliveries, follow_ups, open, .. } = owed;
        let is_owed = !deliveries.is_empty();
        let own_rows = accounts::rows(drift.as_ref(), seen.as_ref()).into_iter().chain(self.mutes.rows(&open, now));
        let batch = IngestBatch {
            source: source.to_owned(),
            cursor: evaluation.cursor.clone(),
            state: effects.state.iter().cloned().chain(own_rows).collect(),
            events: evaluation.into_rows(),
            alerts,
            folds: effects.folds.clone(),
            deliveries,
            unmuted: unmuted.clone(),
            follow_ups,
            at: Some(now),
            due_at: Some(due_at),
        };
        let moves_cursor = batch.cursor.is_some();
        if let Some(batch) = self.cursors.keep(batch, cursor_may_wait, due_at) {
            self.store.commit(batch).await?;
            self.episode.end();
            self.status.stored();
            if moves_cursor {
                self.cursors.stored(source, due_at);
            }
        }
        self.unrouted.forget(&unmuted);
        self.mutes.apply(open, now);
        engine.apply(changes);
        if let Some(seen) = &seen {
            self.status.update_source(source, |status| status.history = Some(seen.progress()));
        }
        self.accounts.apply(drift, seen);
        #[expect(clippy::cast_precision_loss, reason = "a rule remembers at most some 100,000 keys")]
        for (rule_id, keys) in engine.state_keys() {
            gauge!(names::STATE_KEYS, "rule" => rule_id.to_owned()).set(keys as f64);
        }
        drop(engine);
        self.count(&effects);
        for (severity, outcome) in outcomes {
            counter!(names::ALERTS, "severity" => severity, "outcome" => outcome).increment(1);
        }
        if is_owed {
            self.wake.wake();
        }
        Ok(effects.more_is_due)
    }

    async fn fetch_failed(
        &self,
        name: &str,
        error: SourceError,
        once: bool,
        stop: &CancellationToken,
    ) -> StoreResult<Result<Duration, SourceEnd>> {
        let now = self.clock.now();
        let outcome = match error.fault {
            Fault::RetryAfter(_) => "retry",
            Fault::Refused(_) => "refused",
            Fault::Stop => "stopped",
        };
        counter!(names::POLL, "source" => name.to_owned(), "outcome" => outcome).increment(1);
        tracing::warn!(source = name, error = ?error.message, outcome, "request failed");
        self.status.update_source(name, |status| {
            status.failing_since.get_or_insert(now);
            status.failing = Some(error.message.clone());
        });
        let mut notices: Vec<SelfNotice> = error
            .notice
            .into_iter()
            .map(|notice| SelfNotice {
                event_type: notice.kind.event_type(),
                about: name.to_owned(),
                text: notice.message,
            })
            .collect();
        // A source tells of lasting failures by itself, once an episode; only its end is for its caller to tell.
        if notices.is_empty() && error.fault == Fault::Stop {
            let text = format!("the source is not read any more: {}", error.message);
            let event_type = crate::source::NoticeKind::PollingFailing.event_type();
            notices.push(SelfNotice { event_type, about: name.to_owned(), text });
        }
        // A source that stops is asked again until this can be stored; the others say it once and go on.
        let told = match error.fault {
            Fault::Stop => self.notify(notices).await,
            Fault::RetryAfter(_) | Fault::Refused(_) => self.notify_or_keep(notices).await,
        };
        match told {
            Ok(()) => {}
            Err(StoreError::Full(cause)) => return Ok(Ok(self.full(name, &cause, stop).await)),
            Err(fatal) => return Err(fatal),
        }
        Ok(match error.fault {
            Fault::RetryAfter(wait) => Ok(wait),
            Fault::Refused(_) if once => Err(SourceEnd::Refused(error.message)),
            Fault::Refused(wait) => Ok(wait),
            Fault::Stop => Err(SourceEnd::Stopped(error.message)),
        })
    }
}

fn announce(notices: &[SelfNotice]) {
    for notice in notices {
        counter!(names::NOTICES, "kind" => notice.event_type).increment(1);
        tracing::warn!(kind = notice.event_type, about = %notice.about, text = ?notice.text, "notice");
    }
}

fn outcome(new: &NewAlert) -> &'static str {
    match new.muted_by.as_deref() {
        None => "routed",
        Some(UNROUTED) => "unrouted",
        Some(_) => "muted",
    }
}

/// What of an answer is not stored yet.
struct Unseen {
    events: Vec<Event>,
    before_start: Vec<Event>,
    poison: Vec<Poison>,
}

struct Absorbed {
    cursor: Cursor,
    next_in: Duration,
    finished: bool,
    caught_up: bool,
    at_fault: Option<String>,
}

#[cfg(test)]
mod tests;
