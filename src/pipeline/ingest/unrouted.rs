//! Alerts that no route took, once a route takes them.
//!
//! A match folds into an open alert, whether somebody heard of it or not: an incident that began while the routes were wrong
//! would stay silent for as long as it goes on. So when a daemon starts with other routes, what is still open is delivered,
//! and what is not, as soon as one more match folds into it. What is over stays in the store only: nobody who adds a route
//! wants the alerts of a month.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use vigie_engine::alert::Alert;
use vigie_engine::engine::Fold;
use vigie_engine::route::destinations;

use super::owing::Owed;
use super::{Ingest, UNROUTED};
use crate::pipeline::notice;
use crate::store::{Alerts, IngestBatch, Maintain, Result, StoreError, add_event_ids};

/// Alerts read at a time: an alert holds its event, which may be as large as an event may be.
const PAGE: usize = 64;
/// Alerts that are watched for further matches, the newest; an alert takes up matches for some days only.
const MAX_WATCHED: usize = 10_000;

/// What waits for one more match.
#[derive(Default)]
pub(super) struct Unrouted(Mutex<Option<Watched>>);

struct Watched {
    alert_ids: HashSet<String>,
    alerts: Arc<dyn Alerts>,
}

impl Unrouted {
    /// They were delivered.
    pub(super) fn forget(&self, alert_ids: &[String]) {
        if let (false, Some(watched)) = (alert_ids.is_empty(), &mut *self.lock()) {
            watched.alert_ids.retain(|alert_id| !alert_ids.contains(alert_id));
        }
    }

    /// Those of these folds that belong to a watched alert.
    fn among<'f>(&self, folds: &'f [Fold]) -> Option<(Arc<dyn Alerts>, Vec<&'f Fold>)> {
        let watched = self.lock();
        let watched = watched.as_ref()?;
        let found: Vec<&Fold> = folds.iter().filter(|fold| watched.alert_ids.contains(&fold.alert_id)).collect();
        (!found.is_empty()).then(|| (watched.alerts.clone(), found))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ingest {
    /// Delivers what no route took and one takes now, if it is still open, and watches the rest of it.
    ///
    /// # Errors
    /// When the store failed for good. A full disk only leaves it to the next match.
    pub async fn take_up_unrouted(&self, maintain: &dyn Maintain, alerts: Arc<dyn Alerts>) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        let now = self.clock.now();
        let quiet = self.quiet_times().await;
        let is_open = |alert: &Alert| quiet.get(&alert.rule.id).is_some_and(|quiet| alert.last_at >= now - *quiet);
        let (mut after, mut watched) = (0, Vec::new());
        loop {
            let page = maintain.muted(UNROUTED, after, PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            let routed = page.into_iter().map(|(_, alert)| alert);
            let routed = routed.filter(|alert| !destinations(&self.routes, alert).is_empty());
            let (open, over): (Vec<Alert>, Vec<Alert>) = routed.partition(is_open);
            watched.extend(over.into_iter().map(|alert| alert.alert_id));
            if !self.deliver_late(&open, now).await? {
                watched.extend(open.into_iter().map(|alert| alert.alert_id));
            }
        }
        let surplus = watched.len().saturating_sub(MAX_WATCHED);
        let alert_ids = watched.into_iter().skip(surplus).collect();
        *self.unrouted.lock() = Some(Watched { alert_ids, alerts });
        Ok(())
    }

    /// Adds what sinks owe for alerts that no route took and one takes now that another match came; says which they are.
    pub(super) async fn reroute(&self, folds: &[Fold], now: DateTime<Utc>, owed: &mut Owed) -> Result<Vec<String>> {
        let Some((alerts, folds)) = self.unrouted.among(folds) else { return Ok(Vec::new()) };
        let mut unmuted = Vec::with_capacity(folds.len());
        for fold in folds {
            let Some(mut alert) = alerts.alert(&fold.alert_id).await? else { continue };
            (alert.count, alert.first_at, alert.last_at) = (fold.count, fold.first_at, fold.last_at);
            add_event_ids(&mut alert.events, &fold.event_ids);
            if self.owe(&alert, now, owed).await?.is_none() {
                unmuted.push(alert.alert_id);
            }
        }
        Ok(unmuted)
    }

    /// False when there is no space for it.
    async fn deliver_late(&self, open: &[Alert], now: DateTime<Utc>) -> Result<bool> {
        if open.is_empty() {
            return Ok(true);
        }
        let mut owed = Owed::default();
        for alert in open {
            self.owe(alert, now, &mut owed).await?;
        }
        let Owed { deliveries, follow_ups, open: inhibitors, .. } = owed;
        let unmuted: Vec<String> = open.iter().map(|alert| alert.alert_id.clone()).collect();
        tracing::info!(alerts = unmuted.len(), "open alerts that no route took before are delivered now");
        let source = notice::SOURCE.to_owned();
        let (at, due_at) = (Some(now), Some(self.clock.steady()));
        let state = self.mutes.rows(&inhibitors, now);
        let batch =
            IngestBatch { source, state, deliveries, unmuted, follow_ups, at, due_at, ..IngestBatch::default() };
        match self.store.commit(batch).await {
            Ok(()) => {
                self.mutes.apply(inhibitors, now);
                Ok(true)
            }
            Err(StoreError::Full(cause)) => {
                tracing::error!(%cause, "no space to deliver open alerts that no route took before");
                Ok(false)
            }
            Err(fatal) => Err(fatal),
        }
    }

    /// How long the alerts of each rule stay open. Without `dedup` each match of a plain rule is an alert of its own, and none
    /// is open.
    async fn quiet_times(&self) -> HashMap<String, Duration> {
        let engine = self.engine.lock().await;
        let folding = engine.rules().iter().filter(|rule| !rule.alert.dedup.is_empty() || rule.detection.is_some());
        folding.map(|rule| (rule.id.clone(), rule.alert.quiet)).collect()
    }
}
