//! Between the real ingest and its neighbours: a store that counts what was evaluated and fails commits, and a source
//! that notes what the poller said. Neither changes anything.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, Utc};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use vigie::pipeline::BoxFuture;
use vigie::sink::Delivery;
use vigie::source::vonage::VonageSource;
use vigie::source::{Cursor, Fetched, Held, NoticeKind, Seen, Source, SourceError};
use vigie::store::memory::MemoryStore;
use vigie::store::{IngestBatch, LaneState, Loaded, Queue, Result, Settlement, Store, StoreError, StoredEvent};
use vigie_engine::diagnostic::{Diagnostics, SourceFile};
use vigie_engine::rule::{self, Rule};

use super::SOURCE;

/// Fires on whatever is evaluated, each time anew.
const EVERYTHING: &str = "rules:
  - id: everything
    title: Everything
    severity: info
    when: {not: {id: no-event-has-this-id}}
    tests:
      - {name: fires, events: [{id: a}], expect: alert}
      - {name: does not, events: [{id: no-event-has-this-id}], expect: nothing}
";

pub(super) fn everything() -> Vec<Rule> {
    let file = SourceFile { path: "everything.yaml".into(), text: EVERYTHING.into() };
    let mut diagnostics = Diagnostics::default();
    let none = &mut |_: &str, _: &str| Err("no lists".to_owned());
    let rules = rule::load(std::slice::from_ref(&file), none, &mut diagnostics).rules;
    assert_eq!(rules.len(), 1, "{diagnostics:?}");
    rules
}

/// The store.
pub(super) struct Ledger {
    store: MemoryStore,
    random: Mutex<SmallRng>,
    commit_failure: f64,
    evaluated: Mutex<HashMap<String, u32>>,
    failed_commits: AtomicU32,
}

impl Ledger {
    pub(super) fn new(seed: u64, commit_failure: f64) -> Self {
        Self {
            store: MemoryStore::new(),
            random: Mutex::new(SmallRng::seed_from_u64(seed ^ 0xc0)),
            commit_failure,
            evaluated: Mutex::default(),
            failed_commits: AtomicU32::new(0),
        }
    }

    /// How many times each id was evaluated, in commits that succeeded.
    pub(super) fn evaluated(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.evaluated.lock().expect("no panic")
    }

    pub(super) fn failed_commits(&self) -> u32 {
        self.failed_commits.load(Ordering::Relaxed)
    }

    pub(super) fn events(&self) -> Vec<StoredEvent> {
        self.store.events(SOURCE)
    }

    pub(super) async fn cursor(&self) -> Option<Cursor> {
        let loaded = self.store.load().await.expect("memory");
        loaded.cursors.into_iter().find(|(name, _)| name == SOURCE).map(|(_, cursor)| cursor)
    }
}

impl Seen for Ledger {
    fn held<'a>(&'a self, source: &'a str, ids: &'a [String]) -> BoxFuture<'a, Result<Vec<Held>>> {
        self.store.held(source, ids)
    }

    fn count<'a>(&'a self, source: &'a str, from: DateTime<Utc>, to: DateTime<Utc>) -> BoxFuture<'a, Result<u64>> {
        self.store.count(source, from, to)
    }
}

impl Store for Ledger {
    fn load(&self) -> BoxFuture<'_, Result<Loaded>> {
        self.store.load()
    }

    fn take_over(&self, now: DateTime<Utc>, latest: DateTime<Utc>) -> BoxFuture<'_, Result<()>> {
        self.store.take_over(now, latest)
    }

    fn commit(&self, batch: IngestBatch) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if batch.source != SOURCE {
                return self.store.commit(batch).await;
            }
            if self.random.lock().expect("no panic").random_bool(self.commit_failure) {
                self.failed_commits.fetch_add(1, Ordering::Relaxed);
                return Err(StoreError::Full("as the seed has it".into()));
            }
            let ids: Vec<String> = batch.alerts.iter().map(|new| id_of(new.alert.event.get())).collect();
            self.store.commit(batch).await?;
            let mut evaluated = self.evaluated();
            ids.into_iter().for_each(|id| *evaluated.entry(id).or_insert(0) += 1);
            Ok(())
        })
    }

    fn claim<'a>(
        &'a self,
        sink: &'a str,
        now: DateTime<Utc>,
        lease_until: DateTime<Utc>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        self.store.claim(sink, now, lease_until, limit)
    }

    fn settle<'a>(
        &'a self,
        sink: &'a str,
        settlements: Vec<Settlement>,
        lane: Option<LaneState>,
    ) -> BoxFuture<'a, Result<()>> {
        self.store.settle(sink, settlements, lane)
    }

    fn queue<'a>(&'a self, sink: &'a str) -> BoxFuture<'a, Result<Queue>> {
        self.store.queue(sink)
    }
}

fn id_of(raw: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(raw).expect("an event is JSON");
    event["id"].as_str().map_or_else(|| event["id"].to_string(), str::to_owned)
}

/// What the poller said.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) notices: Vec<NoticeKind>,
    pub(super) errors: Vec<String>,
    /// Rows that came again, as the poller counts them.
    pub(super) repeated: u64,
    /// Events that it handed on although the store had them.
    pub(super) yielded_again: Vec<String>,
}

/// The source.
pub(super) struct Watched {
    pub(super) inner: VonageSource,
    pub(super) said: Arc<Mutex<Said>>,
}

impl Watched {
    async fn fetch_and_note(
        &mut self,
        cursor: Option<&Cursor>,
        seen: &dyn Seen,
    ) -> std::result::Result<Fetched, SourceError> {
        let result = self.inner.fetch(cursor, seen).await;
        let again = match &result {
            Ok(fetched) => {
                let ids: Vec<String> = fetched.events.iter().map(|event| event.id().to_owned()).collect();
                let held = seen.held(SOURCE, &ids).await.expect("memory");
                ids.into_iter().zip(held).filter_map(|(id, held)| (held != Held::Nothing).then_some(id)).collect()
            }
            Err(_) => Vec::new(),
        };
        let mut said = self.said.lock().expect("no panic");
        said.yielded_again.extend(again);
        match &result {
            Ok(fetched) => {
                said.notices.extend(fetched.notices.iter().map(|notice| notice.kind));
                said.repeated += fetched.repeated;
            }
            Err(error) => {
                said.notices.extend(error.notice.iter().map(|notice| notice.kind));
                said.errors.push(error.message.clone());
            }
        }
        result
    }
}

impl Source for Watched {
    fn fetch<'a>(
        &'a mut self,
        cursor: Option<&'a Cursor>,
        seen: &'a dyn Seen,
    ) -> BoxFuture<'a, std::result::Result<Fetched, SourceError>> {
        Box::pin(self.fetch_and_note(cursor, seen))
    }
}
