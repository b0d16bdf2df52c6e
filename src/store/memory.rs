//! The store in memory: the same contract without a disk, for simulations and tests.
//!
//! Clones share one content, so a simulated daemon can end and start again over it. Every call is complete when it returns
//! and never waits, so it may be used on paused time. Nothing is ever removed from it.

mod archive;
mod follow;
mod hold;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use vigie_engine::alert::Alert;
use vigie_engine::engine::Fold;
use vigie_engine::event::Digest;
use vigie_engine::state::{StateKey, StateRows};

use super::archive::{AlertDetail, AlertRow, AttemptRow, DeliveryDetail, DeliveryRow, DeliveryStatus};
use super::{
    Alerts, BoxError, IngestBatch, LaneState, Loaded, MAX_CLAIM, NewAlert, NewDelivery, Queue, Resolution, Result,
    STATE_GRACE_DAYS, Settlement, StateStream, Store, StoreError, StoredEvent, add_event_ids,
};
use crate::pipeline::BoxFuture;
use crate::sink::Delivery;
use crate::source::{Cursor, Held, Seen};

/// The shared content.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    content: Arc<Mutex<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    sources: BTreeMap<String, SourceContent>,
    state: BTreeMap<StateKey, StateContent>,
    alerts: Vec<AlertContent>,
    alert_index: HashMap<String, usize>,
    deliveries: Vec<DeliveryContent>,
    delivery_index: HashMap<String, usize>,
    /// Per sink the owed rows by attempts, then age.
    owed: BTreeMap<String, BTreeSet<(u32, usize)>>,
    /// Per sink how many dead letters.
    dead: BTreeMap<String, u64>,
    lanes: BTreeMap<String, LaneState>,
    /// By sink, of those that have a lane in `lanes`.
    asked: BTreeMap<String, DateTime<Utc>>,
    follow_ups: follow::Rows,
}

#[derive(Debug, Default)]
struct SourceContent {
    cursor: Option<(Cursor, DateTime<Utc>)>,
    events: Vec<StoredEvent>,
    seen: HashMap<String, Digest>,
    /// Sorted, so that a count is two searches.
    created_at_us: Vec<i64>,
}

#[derive(Debug)]
struct StateContent {
    value: String,
    expires_at_us: Option<i64>,
    set_at: DateTime<Utc>,
}

#[derive(Debug)]
struct AlertContent {
    new: NewAlert,
    created_at: DateTime<Utc>,
}

#[derive(Debug)]
struct DeliveryContent {
    row: DeliveryRow,
    body: Vec<u8>,
    owed_since: DateTime<Utc>,
    next_at: DateTime<Utc>,
    log: Vec<AttemptRow>,
    look_at: Option<DateTime<Utc>>,
    fallback: Vec<String>,
    repeat_key: Option<String>,
    about: Option<String>,
    receipt: Option<String>,
}

impl MemoryStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything that a source has stored, in the order of its commits.
    #[must_use]
    pub fn events(&self, source: &str) -> Vec<StoredEvent> {
        self.content().sources.get(source).map_or_else(Vec::new, |content| content.events.clone())
    }

    /// Every alert with the counts that it reached, oldest first.
    #[must_use]
    pub fn alerts(&self) -> Vec<NewAlert> {
        self.content().alerts.iter().map(|alert| alert.new.clone()).collect()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // A panic elsewhere cannot leave half a change: every change is checked before it begins.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen for MemoryStore {
    fn held<'a>(&'a self, source: &'a str, ids: &'a [String]) -> BoxFuture<'a, Result<Vec<Held>>> {
        let content = self.content();
        let seen = content.sources.get(source).map(|source| &source.seen);
        let held = |id| seen.and_then(|seen| seen.get(id)).map_or(Held::Nothing, |digest| Held::Content(*digest));
        let found = ids.iter().map(held).collect();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn count<'a>(&'a self, source: &'a str, from: DateTime<Utc>, to: DateTime<Utc>) -> BoxFuture<'a, Result<u64>> {
        let content = self.content();
        let times = content.sources.get(source).map_or(&[] as &[i64], |source| &source.created_at_us);
        let before = |bound: DateTime<Utc>| times.partition_point(|&at| at < bound.timestamp_micros());
        let count = before(to).saturating_sub(before(from)) as u64;
        Box::pin(std::future::ready(Ok(count)))
    }
}

impl Alerts for MemoryStore {
    fn alert<'a>(&'a self, alert_id: &'a str) -> BoxFuture<'a, Result<Option<Alert>>> {
        let found = self.content().alert(alert_id).map(|detail| detail.row.alert);
        Box::pin(std::future::ready(Ok(found)))
    }
}

impl Store for MemoryStore {
    fn load(&self) -> BoxFuture<'_, Result<Loaded>> {
        let loaded = self.content().load();
        Box::pin(std::future::ready(Ok(loaded)))
    }

    fn take_over(&self, now: DateTime<Utc>, latest: DateTime<Utc>) -> BoxFuture<'_, Result<()>> {
        self.content().take_over(now, latest);
        Box::pin(std::future::ready(Ok(())))
    }

    fn commit(&self, batch: IngestBatch) -> BoxFuture<'_, Result<()>> {
        let outcome = self.content().commit(batch);
        Box::pin(std::future::ready(outcome))
    }

    fn claim<'a>(
        &'a self,
        sink: &'a str,
        now: DateTime<Utc>,
        lease_until: DateTime<Utc>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        let claimed = self.content().claim(sink, now, lease_until, limit);
        Box::pin(std::future::ready(Ok(claimed)))
    }

    fn settle<'a>(
        &'a self,
        sink: &'a str,
        settlements: Vec<Settlement>,
        lane: Option<LaneState>,
    ) -> BoxFuture<'a, Result<()>> {
        let outcome = self.content().settle(sink, settlements, lane);
        Box::pin(std::future::ready(outcome))
    }

    fn queue<'a>(&'a self, sink: &'a str) -> BoxFuture<'a, Result<Queue>> {
        let queue = self.content().queue(sink);
        Box::pin(std::future::ready(Ok(queue)))
    }
}

impl Content {
    fn load(&self) -> Loaded {
        let cursors = self.sources.iter().filter_map(|(name, source)| Some((name, source.cursor.as_ref()?)));
        let newest = cursors.clone().map(|(_, (_, at))| *at).max();
        let kept_from = newest.and_then(|at| at.checked_sub_signed(chrono::TimeDelta::days(STATE_GRACE_DAYS)));
        let kept = |state: &StateContent| match (state.expires_at_us, kept_from) {
            (Some(expires_at_us), Some(from)) => expires_at_us >= from.timestamp_micros() || state.set_at >= from,
            _ => true,
        };
        let state = self.state.iter().filter(|(_, state)| kept(state));
        let parts = StateRows::of(state.map(|(key, state)| (key.clone(), state.value.clone())));
        let (rows, stream) = StateStream::channel(parts.len());
        for part in parts {
            rows.try_send(Ok(part)).expect("it holds them all");
        }
        Loaded {
            cursors: cursors.map(|(name, (cursor, _))| (name.clone(), cursor.clone())).collect(),
            state: stream,
            lanes: self.lanes.iter().map(|(sink, lane)| (sink.clone(), lane.clone())).collect(),
        }
    }

    /// Everything is checked before anything is changed.
    fn commit(&mut self, batch: IngestBatch) -> Result<()> {
        let at = batch.at.ok_or_else(|| refused("a batch needs the time of its commit"))?;
        let mut fresh = HashSet::new();
        let known = self.sources.get(&batch.source);
        for event in &batch.events {
            if !fresh.insert(event.id.as_str()) || known.is_some_and(|source| source.seen.contains_key(&event.id)) {
                return Err(refused(format!("event {} is already stored", event.id)));
            }
        }
        let new_alerts: HashSet<&str> = batch.alerts.iter().map(|alert| alert.alert.alert_id.as_str()).collect();
        for delivery in &batch.deliveries {
            let alert_id = delivery.alert_id.as_str();
            if !new_alerts.contains(alert_id) && !self.alert_index.contains_key(alert_id) {
                return Err(refused(format!("delivery of an unknown alert {alert_id}")));
            }
        }
        let source = self.sources.entry(batch.source).or_default();
        for event in batch.events {
            source.add_event(event);
        }
        if let Some(cursor) = batch.cursor {
            source.cursor = Some((cursor, at));
        }
        for change in batch.state {
            let expires_at_us = change.expires_at_us;
            match change.value {
                Some(value) => drop(self.state.insert(change.key, StateContent { value, expires_at_us, set_at: at })),
                None => drop(self.state.remove(&change.key)),
            }
        }
        batch.alerts.into_iter().for_each(|alert| self.add_alert(alert, at));
        let due_at = batch.due_at.unwrap_or(at);
        batch.folds.iter().for_each(|fold| self.fold(fold, due_at));
        batch.deliveries.into_iter().for_each(|delivery| self.add_delivery(delivery, at, due_at));
        batch.unmuted.iter().for_each(|alert_id| self.unmute(alert_id));
        batch.follow_ups.into_iter().for_each(|new| self.follow_ups.add(new, due_at));
        Ok(())
    }

    fn add_alert(&mut self, new: NewAlert, at: DateTime<Utc>) {
        if !self.alert_index.contains_key(&new.alert.alert_id) {
            self.alert_index.insert(new.alert.alert_id.clone(), self.alerts.len());
            self.alerts.push(AlertContent { new, created_at: at });
        }
    }

    fn fold(&mut self, fold: &Fold, at: DateTime<Utc>) {
        self.follow_ups.matched(&fold.alert_id, at);
        let found = self.alert_index.get(&fold.alert_id).and_then(|&at| self.alerts.get_mut(at));
        if let Some(AlertContent { new, .. }) = found {
            new.alert.count = fold.count;
            new.alert.first_at = fold.first_at;
            new.alert.last_at = fold.last_at;
            add_event_ids(&mut new.alert.events, &fold.event_ids);
        }
    }

    fn unmute(&mut self, alert_id: &str) {
        let found = self.alert_index.get(alert_id).and_then(|&at| self.alerts.get_mut(at));
        if let Some(AlertContent { new, .. }) = found {
            new.muted_by = None;
        }
    }

    fn add_delivery(&mut self, new: NewDelivery, at: DateTime<Utc>, due_at: DateTime<Utc>) {
        if self.delivery_index.contains_key(&new.delivery_id) {
            return;
        }
        let place = self.deliveries.len();
        self.delivery_index.insert(new.delivery_id.clone(), place);
        let status = if new.hold.is_some() { DeliveryStatus::Muted } else { DeliveryStatus::Pending };
        if status == DeliveryStatus::Pending {
            self.owed.entry(new.sink.clone()).or_default().insert((0, place));
        }
        let (look_at, fallback) = match (&new.hold, new.fallback) {
            (Some(hold), fallback) => (hold.until, fallback.map(|fallback| fallback.to)),
            (None, Some(fallback)) => (Some(fallback.at), Some(fallback.to)),
            (None, None) => (None, None),
        };
        let (muted_by, note) = new.hold.map_or((None, new.note), |hold| (Some(hold.by), Some(hold.note)));
        let row = DeliveryRow {
            delivery_id: new.delivery_id,
            alert_id: new.alert_id,
            sink: new.sink,
            status,
            attempts: 0,
            degraded: false,
            created_at: at,
            next_at: Some(due_at),
            settled_at: None,
            muted_by,
            note,
            told_in: None,
        };
        let (body, log, fallback) = (new.body, Vec::new(), fallback.unwrap_or_default());
        let (owed_since, next_at, repeat_key, about) = (due_at, due_at, new.repeat_key, new.about);
        let delivery = DeliveryContent {
            row,
            body,
            owed_since,
            next_at,
            log,
            look_at,
            fallback,
            repeat_key,
            about,
            receipt: None,
        };
        self.deliveries.push(delivery);
    }

    fn take_over(&mut self, now: DateTime<Utc>, latest: DateTime<Utc>) {
        self.deliveries.iter_mut().for_each(|delivery| delivery.take_over(now, latest));
        self.follow_ups.take_over(now);
    }

    fn claim(&mut self, sink: &str, now: DateTime<Utc>, lease_until: DateTime<Utc>, limit: usize) -> Vec<Delivery> {
        let Some(owed) = self.owed.get_mut(sink) else { return Vec::new() };
        let first = |place: usize| {
            let of = |place: usize| self.deliveries.get(place).map(|delivery| delivery.row.alert_id.as_str());
            owed.iter().all(|&(_, other)| other >= place || of(other) != of(place))
        };
        let is_due =
            |place: usize| self.deliveries.get(place).is_some_and(|delivery| delivery.next_at <= now) && first(place);
        let due = owed.iter().copied().filter(|&(_, place)| is_due(place));
        let taken: Vec<(u32, usize)> = due.take(limit.min(MAX_CLAIM)).collect();
        let mut claimed = Vec::with_capacity(taken.len());
        for (attempts, place) in taken {
            let receipt_of = |id: &String| self.deliveries.get(*self.delivery_index.get(id)?)?.receipt.clone();
            let about = self.deliveries.get(place).and_then(|delivery| delivery.about.as_ref()).and_then(receipt_of);
            let Some(delivery) = self.deliveries.get_mut(place) else { continue };
            owed.remove(&(attempts, place));
            owed.insert((attempts + 1, place));
            claimed.push(Delivery {
                delivery_id: delivery.row.delivery_id.clone(),
                alert_id: delivery.row.alert_id.clone(),
                sink: sink.to_owned(),
                body: delivery.body.clone(),
                attempts,
                created_at: delivery.owed_since,
                note: delivery.row.note.clone(),
                about_receipt: about,
                failing_since: delivery.failing_since(),
            });
            delivery.row.attempts = attempts + 1;
            delivery.next_at = lease_until;
        }
        claimed
    }

    fn settle(&mut self, sink: &str, settlements: Vec<Settlement>, lane: Option<LaneState>) -> Result<()> {
        let mut places = Vec::with_capacity(settlements.len());
        for settlement in &settlements {
            let place = self.delivery_index.get(&settlement.delivery_id).copied();
            let of_sink = |place: &usize| self.deliveries.get(*place).is_some_and(|delivery| delivery.row.sink == sink);
            let unknown = || refused(format!("no delivery {} to {sink}", settlement.delivery_id));
            places.push(place.filter(of_sink).ok_or_else(unknown)?);
        }
        for (place, settlement) in places.into_iter().zip(settlements) {
            self.settle_one(place, settlement);
        }
        match lane {
            Some(LaneState { step: 0, paused_until: None, .. }) => {
                self.lanes.remove(sink);
                self.asked.remove(sink);
            }
            Some(lane) => drop(self.lanes.insert(sink.to_owned(), lane)),
            None => {}
        }
        Ok(())
    }

    fn settle_one(&mut self, place: usize, settlement: Settlement) {
        let Some(delivery) = self.deliveries.get_mut(place) else { return };
        let owed = self.owed.entry(delivery.row.sink.clone()).or_default();
        let ended_at = settlement.ended_at();
        let name = settlement.resolution.name();
        let is_pending = delivery.row.status == DeliveryStatus::Pending;
        owed.remove(&(delivery.row.attempts, place));
        let is_released = settlement.resolution == Resolution::Released;
        match settlement.resolution {
            Resolution::Delivered { unconfirmed } => {
                if delivery.row.status == DeliveryStatus::Dead {
                    *self.dead.entry(delivery.row.sink.clone()).or_default() -= 1;
                }
                delivery.look_at = None;
                delivery.receipt = settlement.receipt;
                if delivery.row.status != DeliveryStatus::Delivered {
                    delivery.row.status =
                        if unconfirmed { DeliveryStatus::Unconfirmed } else { DeliveryStatus::Delivered };
                    delivery.row.settled_at = Some(ended_at);
                }
            }
            Resolution::RetryAt(at) | Resolution::Refused(at) if is_pending => delivery.next_at = at,
            Resolution::Degraded(at, body) if is_pending => {
                delivery.next_at = at;
                delivery.body = body;
                delivery.row.degraded = true;
            }
            Resolution::Dead if is_pending => {
                delivery.row.status = DeliveryStatus::Dead;
                *self.dead.entry(delivery.row.sink.clone()).or_default() += 1;
                delivery.row.settled_at = Some(ended_at);
            }
            Resolution::Released if is_pending => {
                delivery.next_at = delivery.next_at.min(settlement.started_at);
                delivery.row.attempts = delivery.row.attempts.saturating_sub(1);
            }
            Resolution::RetryAt(_)
            | Resolution::Refused(_)
            | Resolution::Degraded(..)
            | Resolution::Dead
            | Resolution::Released => {}
        }
        if delivery.row.status == DeliveryStatus::Pending {
            owed.insert((delivery.row.attempts, place));
        }
        if !is_released {
            delivery.log.push(AttemptRow {
                number: u32::try_from(delivery.log.len() + 1).unwrap_or(u32::MAX),
                started_at: settlement.started_at,
                latency_ms: settlement.latency_ms,
                resolution: name.to_owned(),
                status: settlement.status,
                excerpt: settlement.excerpt,
            });
        }
    }

    fn queue(&self, sink: &str) -> Queue {
        let owed = || self.owed.get(sink).into_iter().flatten().filter_map(|&(_, place)| self.deliveries.get(place));
        Queue {
            depth: self.owed.get(sink).map_or(0, BTreeSet::len) as u64,
            next_due_at: owed().map(|delivery| delivery.next_at).min(),
            oldest_created_at: owed().map(|delivery| delivery.owed_since).min(),
            dead: self.dead.get(sink).copied().unwrap_or(0),
            asked_at: self.asked.get(sink).copied(),
        }
    }

    fn alert(&self, alert_id: &str) -> Option<AlertDetail> {
        let AlertContent { new, created_at } = self.alerts.get(*self.alert_index.get(alert_id)?)?;
        let of_alert = self.deliveries.iter().filter(|delivery| delivery.row.alert_id == alert_id);
        let mut deliveries: Vec<DeliveryDetail> = of_alert.map(DeliveryContent::detail).collect();
        deliveries.sort_by(|left, right| left.row.sink.cmp(&right.row.sink));
        let count = |wanted: &[DeliveryStatus]| {
            deliveries.iter().filter(|delivery| wanted.contains(&delivery.row.status)).count() as u64
        };
        let row = AlertRow {
            alert: new.alert.clone(),
            created_at: *created_at,
            muted_by: new.muted_by.clone(),
            pending: count(&[DeliveryStatus::Pending]),
            delivered: count(&[DeliveryStatus::Delivered, DeliveryStatus::Unconfirmed, DeliveryStatus::Digested]),
            dead: count(&[DeliveryStatus::Dead]),
            muted: count(&[DeliveryStatus::Muted]),
        };
        Some(AlertDetail { row, deliveries })
    }
}

impl SourceContent {
    fn add_event(&mut self, event: StoredEvent) {
        let at = event.created_at.timestamp_micros();
        let place = self.created_at_us.partition_point(|&known| known <= at);
        self.created_at_us.insert(place, at);
        self.seen.insert(event.id.clone(), event.digest);
        self.events.push(event);
    }
}

fn refused(message: impl Into<String>) -> StoreError {
    let cause: BoxError = message.into().into();
    StoreError::Fatal(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract;

    contract::suite!((MemoryStore::new(), ()));

    #[tokio::test]
    async fn clones_share_their_content() {
        let store = MemoryStore::new();
        let simulated = store.clone();
        simulated.commit(contract::batch("a", 10, &["chat"])).await.expect("committed");
        drop(simulated);
        assert_eq!(store.events(contract::SOURCE).len(), 1);
        assert_eq!(store.alerts().len(), 1);
    }
}
