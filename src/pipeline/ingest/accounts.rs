//! What ingest remembers of accounts beside rule state: what they showed so far, and how much of their history was read.
//!
//! A change is committed with the events that it comes from and taken over only then, as rule state is.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use vigie_engine::event::Event;
use vigie_engine::rule::Rule;
use vigie_engine::state::StateChange;

use super::evaluation::Evaluation;
use super::{Ingest, StoreResult};
use crate::pipeline::drift::{self, Drift};
use crate::pipeline::history::{self, History};
use crate::pipeline::notice::SelfNotice;
use crate::store::IngestBatch;

/// See the module. Its locks are held for moments only, never over a wait.
pub(super) struct Accounts {
    drift: Mutex<Drift>,
    history: Mutex<History>,
}

impl Accounts {
    pub(super) fn new(drift: Drift, history: History) -> Self {
        Self { drift: Mutex::new(drift), history: Mutex::new(history) }
    }

    pub(super) fn observe(
        &self,
        source: &str,
        events: &[Event],
        settled_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Option<drift::Change> {
        held(&self.drift).observe(source, events, settled_at, now)
    }

    /// What an evaluation adds to the history that was read.
    pub(super) fn learned(
        &self,
        source: &str,
        evaluation: &Evaluation,
        matches: &[(String, u64)],
    ) -> Option<history::Change> {
        let stamps: Vec<DateTime<Utc>> = evaluation.learned().map(Event::created_at).collect();
        held(&self.history).add(source, &stamps, matches)
    }

    /// Takes over what was committed.
    pub(super) fn apply(&self, drift: Option<drift::Change>, history: Option<history::Change>) {
        if let Some(drift) = drift {
            held(&self.drift).apply(drift);
        }
        if let Some(history) = history {
            held(&self.history).apply(history);
        }
    }
}

/// Their rows for the commit.
pub(super) fn rows(drift: Option<&drift::Change>, history: Option<&history::Change>) -> Vec<StateChange> {
    drift.map(drift::Change::row).into_iter().chain(history.map(history::Change::row)).collect()
}

impl Ingest {
    /// Once all of the history is read. A crash between the two repeats the summary, the other order could lose it.
    pub(super) async fn tell_of_history(&self, name: &str, now: DateTime<Utc>) -> StoreResult<()> {
        let Some((notice, told)) = held(&self.accounts.history).summary(name) else { return Ok(()) };
        self.notify(vec![notice]).await?;
        let (source, state) = (name.to_owned(), vec![told.row()]);
        self.store.commit(IngestBatch { source, state, at: Some(now), ..IngestBatch::default() }).await?;
        self.accounts.apply(None, Some(told));
        Ok(())
    }

    /// Tells of rules that cannot match what the accounts show, once those are known well enough to say so.
    ///
    /// # Errors
    /// When the store cannot take it.
    pub async fn tell_of_dead_rules(&self) -> StoreResult<()> {
        let engine = self.engine.lock().await;
        let dead = match held(&self.accounts.drift).known_types() {
            Some(types) => {
                engine.rules().iter().filter(|rule| rule.waits_for_other_than(&types)).map(dead_rule).collect()
            }
            None => Vec::new(),
        };
        drop(engine);
        self.notify(dead).await
    }
}

fn dead_rule(rule: &Rule) -> SelfNotice {
    let text = format!("it needs {}, which no account has shown", rule.event_types.join(", "));
    SelfNotice { event_type: "VIGIE_EVENT_TYPE_UNSEEN", about: rule.id.clone(), text }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
