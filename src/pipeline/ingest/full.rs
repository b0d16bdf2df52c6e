//! A full disk as ingest meets it: polling pauses, the operator hears of it once, from memory, and what the program had to
//! say of other things meanwhile is kept until it can be stored.
//!
//! This alert is the only one that is sent without being stored first, because the store is what is full. So it has one
//! attempt at each destination and no ledger; what it is about shows in the log and in `/healthz` for as long as it lasts.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::owing::Owed;
use super::{Ingest, announce};
use crate::metrics as names;
use crate::pipeline::notice::{self, SelfNotice};
use crate::sink::{AttemptReport, Delivery, Outcome};
use crate::store::{BoxError, Result as StoreResult};

/// How long ingest waits before it tries a full disk again: long enough not to spin, short enough to resume at once
/// when somebody has made room.
const FULL_RETRY: Duration = Duration::from_secs(2);
/// The event under which the built-in rules know it.
const EVENT_TYPE: &str = "VIGIE_STORE_FULL";
/// All attempts together; an HTTP sink gives up after 15 s by itself. Polling waits for them, and it could not store
/// anything anyway.
const MAX_TELL: Duration = Duration::from_secs(20);
/// A disk at its limit goes back and forth between full and not; that is told no more often than this.
const MIN_BETWEEN: Duration = Duration::from_secs(600);

/// Notices kept while the disk is full; as many as may wait in the lanes' channel. Beyond that the first ones stay: they say
/// how it began.
const MAX_KEPT: usize = 256;

/// What was told of a full disk.
#[derive(Debug, Default)]
pub(super) struct Episode(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// This episode was told.
    told: bool,
    /// When one was told last.
    told_at: Option<Instant>,
}

/// Notices that found the disk full, oldest first.
#[derive(Debug, Default)]
pub(super) struct Kept {
    notices: Mutex<VecDeque<SelfNotice>>,
    turn: tokio::sync::Mutex<()>,
    added: Notify,
}

impl Kept {
    fn notices(&self) -> MutexGuard<'_, VecDeque<SelfNotice>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, notice: SelfNotice) {
        let mut notices = self.notices();
        if notices.len() < MAX_KEPT {
            notices.push_back(notice);
            self.added.notify_one();
        } else {
            counter!(names::NOTICES_DROPPED).increment(1);
            tracing::error!(kind = notice.event_type, about = %notice.about, "the disk is full and too many notices wait");
        }
    }
}

impl Episode {
    /// Something was stored.
    pub(super) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).told = false;
    }

    /// Whether to tell now that the disk is full: once an episode, and not again soon after another.
    fn is_to_be_told(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = state.told_at.is_some_and(|at| now.saturating_duration_since(at) < MIN_BETWEEN);
        if state.told || recent {
            return false;
        }
        *state = State { told: true, told_at: Some(now) };
        true
    }
}

impl Ingest {
    /// As [`Ingest::notify`]; what finds the disk full is kept and stored when there is space.
    ///
    /// # Errors
    /// When the store cannot take it; `Full` says that it was kept.
    pub async fn notify_or_keep(&self, notices: Vec<SelfNotice>) -> StoreResult<()> {
        announce(&notices);
        notices.into_iter().for_each(|notice| self.kept.add(notice));
        self.store_kept().await
    }

    /// Stores what was kept, one after the other: a batch that is too large for the space would keep all of them waiting.
    ///
    /// # Errors
    /// When the store cannot take it; on `Full` it stays kept.
    pub async fn store_kept(&self) -> StoreResult<()> {
        // One at a time: two that store the same notice would tell it twice.
        let _turn = self.kept.turn.lock().await;
        loop {
            let Some(oldest) = self.kept.notices().front().cloned() else { return Ok(()) };
            self.store_notices(vec![oldest]).await?;
            self.kept.notices().pop_front();
        }
    }

    /// Resolves when something that was kept is worth another try.
    pub async fn kept_is_due(&self) {
        while self.kept.notices().is_empty() {
            self.kept.added.notified().await;
        }
        tokio::time::sleep(FULL_RETRY).await;
    }

    /// How many are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.notices().len()
    }

    /// Says that nothing can be stored; gives how long to wait before the next try.
    pub(super) async fn full(&self, source: &str, cause: &BoxError, stop: &CancellationToken) -> Duration {
        counter!(names::POLL, "source" => source.to_owned(), "outcome" => "store_full").increment(1);
        tracing::error!(source, %cause, "no space left for the store; polling pauses, nothing is lost");
        self.status.update(|snapshot| snapshot.store = Some(format!("no space left: {cause}")));
        if self.episode.is_to_be_told(Instant::now()) {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.tell_full(cause) => {}
            }
        }
        FULL_RETRY
    }

    /// One attempt at each destination of the alert, all at the same time.
    async fn tell_full(&self, cause: &BoxError) {
        let mut sends = JoinSet::new();
        for delivery in self.evaluate_in_memory(cause).await {
            if let Some(outlet) = self.outlets.iter().find(|outlet| outlet.name == delivery.sink) {
                let sink = outlet.sink.clone();
                sends.spawn(async move {
                    let report = sink.send(&delivery).await;
                    (delivery.sink, report)
                });
            }
        }
        let told = async {
            while let Some(sent) = sends.join_next().await {
                match sent {
                    Ok((sink, report)) => log(&sink, &report),
                    Err(error) => tracing::error!(?error, "the attempt ended badly"),
                }
            }
        };
        if timeout(MAX_TELL, told).await.is_err() {
            tracing::warn!("not every sink took the alert about the full disk in time");
        }
    }

    /// The alert as the rules see it, routed and rendered, but neither committed nor known to the engine afterwards.
    async fn evaluate_in_memory(&self, cause: &BoxError) -> Vec<Delivery> {
        let (now, due_at) = (self.clock.now(), self.clock.steady());
        counter!(names::NOTICES, "kind" => EVENT_TYPE).increment(1);
        let text = format!("nothing can be stored and polling pauses until there is space: {cause}");
        let notice = SelfNotice { event_type: EVENT_TYPE, about: "store".into(), text };
        let Some(event) = notice.into_event(now) else { return Vec::new() };
        let engine = self.engine.lock().await;
        let mut batch = engine.batch();
        batch.step(notice::SOURCE, &event, now);
        let effects = batch.finish();
        drop(engine);
        let mut owed = Owed::default();
        for alert in &effects.alerts {
            // What cannot be asked whether it is muted is told.
            if let Err(error) = self.owe(alert, now, &mut owed).await {
                tracing::error!(?error, "an alert about the full disk has no destination");
            }
        }
        let delivery = |row: crate::store::NewDelivery| Delivery {
            delivery_id: row.delivery_id,
            alert_id: row.alert_id,
            sink: row.sink,
            body: row.body,
            attempts: 0,
            created_at: due_at,
            note: row.note,
            about_receipt: None,
            failing_since: None,
        };
        owed.deliveries.into_iter().filter(|row| row.hold.is_none()).map(delivery).collect()
    }
}

fn log(sink: &str, report: &AttemptReport) {
    let AttemptReport { outcome, status, excerpt, .. } = report;
    if matches!(outcome, Outcome::Delivered | Outcome::Accepted) {
        tracing::info!(sink, ?status, "told of the full disk");
    } else {
        tracing::warn!(sink, ?outcome, ?status, ?excerpt, "could not be told of the full disk");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_episode_is_told_once_and_a_disk_at_its_limit_seldom() {
        let episode = Episode::default();
        let told = || episode.is_to_be_told(Instant::now());
        assert!(told());
        assert!(!told(), "the same episode");
        tokio::time::advance(MIN_BETWEEN * 2).await;
        assert!(!told(), "the same episode, however long it lasts");
        episode.end();
        assert!(told(), "the next one");
        episode.end();
        tokio::time::advance(MIN_BETWEEN / 2).await;
        assert!(!told(), "back and forth");
        tokio::time::advance(MIN_BETWEEN).await;
        assert!(told(), "but not kept back for good");
    }
}
