//! Ingest: one response becomes one commit of events, rule state, alerts, deliveries and the source's cursor.
//!
//! It never sends anything and never moves a cursor without what the cursor stands for. A failed commit leaves engine and
//! source where they were, so the same request gives the same result.

mod full;
mod outlet;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics::{counter, gauge};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use vigie_engine::alert::Alert;
use vigie_engine::engine::{Effects, Engine};
use vigie_engine::event::Event;
use vigie_engine::route::{Route, destinations, destinations_beside};

pub use outlet::Outlet;

use super::deliver::Wake;
use super::notice::{self, SelfNotice};
use super::status::Status;
use crate::clock::Clock;
use crate::metrics as names;
use crate::source::{Cursor, Fault, Fetched, Poison, Source, SourceError};
use crate::store::{IngestBatch, NewAlert, NewDelivery, Result as StoreResult, Store, StoreError, StoredEvent};

/// Who mutes an alert that no route takes.
const UNROUTED: &str = "no route matched";
/// How much of a title the log shows.
const MAX_TITLE_CHARS: usize = 120;
/// A finite run gives up after this many failures in a row; their pauses grow, so it takes about half a minute.
const MAX_ONCE_FAILURES: u32 = 6;

/// What ingest needs.
pub struct Parts {
    /// Rules and their state, already restored.
    pub engine: Engine,
    /// In order.
    pub routes: Vec<Route>,
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
    routes: Vec<Route>,
    outlets: Vec<Outlet>,
    wake: Wake,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    status: Arc<Status>,
    dry_run: bool,
    episode: full::Episode,
    kept: full::Kept,
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
        let Parts { engine, routes, outlets, wake, store, clock, status, dry_run } = parts;
        Self {
            engine: Mutex::new(engine),
            routes,
            outlets,
            wake,
            store,
            clock,
            status,
            dry_run,
            episode: full::Episode::default(),
            kept: full::Kept::default(),
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
            raw: row.raw.into(),
            poison: Some(row.error),
        });
        let newest = events.iter().map(Event::created_at).max();
        let evaluation = Evaluation {
            events,
            before_start,
            poison: poison.collect(),
            cursor: Some(fetched.cursor.clone()),
            settled_at: fetched.settled_at,
            aloud_from: fetched.aloud_from,
            now,
        };
        self.evaluate_and_commit(name, evaluation).await?;

        counter!(names::EVENTS, "source" => name.to_owned()).increment(event_count);
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

    /// An answer was taken; only one without fault counts as a success.
    #[expect(clippy::cast_precision_loss, reason = "metrics are floats; seconds and counts stay far below 2^53")]
    fn polled(&self, name: &str, windows_owed: u64, at_fault: Option<&str>, now: DateTime<Utc>) {
        let source = name.to_owned();
        let outcome = if at_fault.is_none() { "ok" } else { "at_fault" };
        counter!(names::POLL, "source" => source.clone(), "outcome" => outcome).increment(1);
        gauge!(names::WINDOWS_OWED, "source" => source.clone()).set(windows_owed as f64);
        match at_fault {
            None => {
                gauge!(names::POLL_LAST_SUCCESS, "source" => source).set(now.timestamp() as f64);
                self.status.update_source(name, |status| {
                    status.last_success_at = Some(now);
                    status.failing = None;
                    status.failing_since = None;
                });
            }
            Some(fault) => self.status.update_source(name, |status| {
                status.failing = Some(fault.to_owned());
                status.failing_since.get_or_insert(now);
            }),
        }
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
        let stored = self.store.contains(name, &ids).await?;
        let mut taken: HashSet<String> =
            ids.into_iter().zip(stored).filter(|(_, stored)| *stored).map(|(id, _)| id).collect();
        events.retain(|event| taken.insert(event.id().to_owned()));
        before_start.retain(|event| taken.insert(event.id().to_owned()));
        poison.retain(|row| taken.insert(row.id.clone()));
        let repeated = given - (events.len() + before_start.len() + poison.len()) as u64;
        counter!(names::EVENTS_DUPLICATE, "source" => name.to_owned()).increment(repeated);
        Ok(Unseen { events, before_start, poison })
    }

    async fn evaluate_and_commit(&self, source: &str, evaluation: Evaluation) -> StoreResult<()> {
        let Evaluation { events, before_start, poison, cursor, settled_at, aloud_from, now } = evaluation;
        // Held over the commit: the next batch must see what this one changed, and a failed commit must change nothing.
        let mut engine = self.engine.lock().await;
        let mut batch = engine.batch();
        for event in &before_start {
            batch.learn(source, event, now);
        }
        for event in &events {
            batch.step(source, event, now);
        }
        if let Some(settled_at) = settled_at {
            batch.tick(source, settled_at, aloud_from);
        }
        let mut effects = batch.finish();
        let changes = std::mem::take(&mut effects.changes);
        let mut rows: Vec<StoredEvent> = before_start.iter().chain(&events).map(stored).collect();
        rows.extend(poison);
        let mut alerts = Vec::with_capacity(effects.alerts.len());
        let due_at = self.clock.steady();
        let (mut deliveries, mut follow_ups) = (Vec::new(), Vec::new());
        for alert in &effects.alerts {
            let (muted_by, mut owed) = self.route(alert, now);
            follow_ups.extend(super::follow::begin(alert, &owed, &self.outlets, due_at));
            deliveries.append(&mut owed);
            alerts.push(NewAlert { alert: alert.clone(), muted_by });
        }
        let outcomes: Vec<(&str, &str)> =
            alerts.iter().map(|new| (new.alert.rule.severity.as_str(), outcome(new))).collect();
        let owed = !deliveries.is_empty();
        let batch = IngestBatch {
            source: source.to_owned(),
            cursor,
            events: rows,
            state: effects.state.clone(),
            alerts,
            folds: effects.folds.clone(),
            deliveries,
            follow_ups,
            at: Some(now),
            due_at: Some(due_at),
        };
        self.store.commit(batch).await?;
        self.episode.end();
        self.status.stored();
        engine.apply(changes);
        #[expect(clippy::cast_precision_loss, reason = "a rule remembers at most some 100,000 keys")]
        for (rule_id, keys) in engine.state_keys() {
            gauge!(names::STATE_KEYS, "rule" => rule_id.to_owned()).set(keys as f64);
        }
        drop(engine);
        self.count(&effects);
        for (severity, outcome) in outcomes {
            counter!(names::ALERTS, "severity" => severity, "outcome" => outcome).increment(1);
        }
        if owed {
            self.wake.wake();
        }
        Ok(())
    }

    /// Which sinks owe this alert, rendered; or why none does.
    fn route(&self, alert: &Alert, now: DateTime<Utc>) -> (Option<String>, Vec<NewDelivery>) {
        if self.dry_run {
            let (rule, title) = (&alert.rule.id, alert.title.single_line(MAX_TITLE_CHARS));
            tracing::info!(%rule, ?title, to = ?self.destinations(alert), "dry run: would alert");
            return (Some("dry run".into()), Vec::new());
        }
        let names = self.destinations(alert);
        if names.is_empty() {
            return (Some(UNROUTED.into()), Vec::new());
        }
        let deliveries = names.iter().filter_map(|name| {
            let outlet = self.outlets.iter().find(|outlet| outlet.name == *name)?;
            Some(outlet.render(alert, now))
        });
        (None, deliveries.collect())
    }

    /// What is wrong with a sink is told beside it too, as far as the routes let it.
    fn destinations(&self, alert: &Alert) -> Vec<&str> {
        let Some(about) = notice::sink_of(alert) else { return destinations(&self.routes, alert) };
        let names = destinations_beside(&self.routes, alert, &about);
        if names.iter().all(|name| *name == about) {
            let rule = &alert.rule.id;
            tracing::error!(sink = %about, %rule, "no other sink is told of this; add a route that takes it elsewhere too");
        }
        names
    }

    fn count(&self, effects: &Effects) {
        for (rule_id, matches) in &effects.matches {
            counter!(names::RULE_MATCHES, "rule" => rule_id.clone()).increment(*matches);
        }
        for (rule_id, events) in &effects.uncounted {
            counter!(names::RULE_UNCOUNTED, "rule" => rule_id.clone()).increment(*events);
        }
        counter!(names::UNUSABLE_VALUES).increment(effects.unusable_values);
        counter!(names::TITLE_FAILURES).increment(effects.title_failures);
        counter!(names::STATE_EVICTED).increment(effects.evicted_keys);
        self.status.update(|snapshot| snapshot.alerts += effects.alerts.len() as u64);
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

/// What one answer gives the engine and the store.
struct Evaluation {
    events: Vec<Event>,
    before_start: Vec<Event>,
    poison: Vec<StoredEvent>,
    cursor: Option<Cursor>,
    settled_at: Option<DateTime<Utc>>,
    aloud_from: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
}

impl Evaluation {
    fn at(now: DateTime<Utc>) -> Self {
        Self {
            events: Vec::new(),
            before_start: Vec::new(),
            poison: Vec::new(),
            cursor: None,
            settled_at: None,
            aloud_from: None,
            now,
        }
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

fn stored(event: &Event) -> StoredEvent {
    StoredEvent { id: event.id().to_owned(), created_at: event.created_at(), raw: event.raw().clone(), poison: None }
}

struct Absorbed {
    cursor: Cursor,
    next_in: Duration,
    finished: bool,
    caught_up: bool,
    at_fault: Option<String>,
}
