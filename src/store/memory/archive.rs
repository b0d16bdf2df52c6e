//! What the contract suite and the simulations read back from the store in memory, and the two calls that revive.
//!
//! It answers as the durable store does; where it differs, the contract suite fails.

use chrono::{DateTime, Utc};
use vigie_engine::alert::Alert;

use super::{Content, DeliveryContent, MemoryStore};
use crate::store::archive::{
    AlertDetail, DeliveryDetail, DeliveryFilter, DeliveryRow, DeliveryStatus, Retried, list_limit,
};
use crate::store::{REFUSED, Result};

impl MemoryStore {
    /// As [`super::super::sqlite::SqliteStore::alert`].
    ///
    /// # Errors
    /// Never; the signature is that of the durable store.
    pub async fn alert(&self, alert_id: &str) -> Result<Option<AlertDetail>> {
        Ok(self.content().alert(alert_id))
    }

    /// As [`super::super::sqlite::SqliteStore::deliveries`].
    ///
    /// # Errors
    /// Never; the signature is that of the durable store.
    pub async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>> {
        let content = self.content();
        let rows = content.deliveries.iter().rev().filter(|delivery| delivery.passes(filter));
        Ok(rows.take(list_limit(filter.limit)).map(DeliveryContent::shown).collect())
    }

    /// As [`super::super::sqlite::SqliteStore::delivery`].
    ///
    /// # Errors
    /// Never; the signature is that of the durable store.
    pub async fn delivery(&self, delivery_id: &str) -> Result<Option<DeliveryDetail>> {
        let content = self.content();
        let found = content.delivery_index.get(delivery_id).and_then(|&at| content.deliveries.get(at));
        Ok(found.map(DeliveryContent::detail))
    }

    /// As [`super::super::sqlite::SqliteStore::retry`].
    ///
    /// # Errors
    /// Never; the signature is that of the durable store.
    pub async fn retry(&self, delivery_id: &str, now: DateTime<Utc>) -> Result<Retried> {
        let mut content = self.content();
        let Some(at) = content.delivery_index.get(delivery_id).copied() else { return Ok(Retried::Unknown) };
        Ok(content.revive(at, now))
    }

    /// As [`super::super::sqlite::SqliteStore::replay`].
    ///
    /// # Errors
    /// Never; the signature is that of the durable store.
    pub async fn replay(&self, sink: Option<&str>, since: DateTime<Utc>, now: DateTime<Utc>) -> Result<u64> {
        let mut content = self.content();
        let dead: Vec<usize> = (0..content.deliveries.len())
            .filter(|&at| content.deliveries.get(at).is_some_and(|delivery| delivery.died_since(sink, since)))
            .collect();
        for &at in &dead {
            content.revive(at, now);
        }
        Ok(dead.len() as u64)
    }

    /// As [`super::super::Maintain::muted`].
    #[must_use]
    pub fn muted(&self, muted_by: &str, after: u64, limit: usize) -> Vec<(u64, Alert)> {
        let content = self.content();
        let placed = content.alerts.iter().zip(1..).filter(|(_, place)| *place > after);
        let muted = placed.filter(|(alert, _)| alert.new.muted_by.as_deref() == Some(muted_by));
        muted.take(limit).map(|(alert, place)| (place, alert.new.alert.clone())).collect()
    }
}

impl Content {
    /// See [`MemoryStore::retry`].
    fn revive(&mut self, place: usize, now: DateTime<Utc>) -> Retried {
        let Some(delivery) = self.deliveries.get_mut(place) else { return Retried::Unknown };
        match delivery.row.status {
            DeliveryStatus::Delivered | DeliveryStatus::Unconfirmed | DeliveryStatus::Digested => {
                return Retried::AlreadyDelivered;
            }
            DeliveryStatus::Pending => delivery.next_at = now.min(delivery.owed_since),
            DeliveryStatus::Dead | DeliveryStatus::Muted => {
                if delivery.row.status == DeliveryStatus::Dead {
                    *self.dead.entry(delivery.row.sink.clone()).or_default() -= 1;
                } else {
                    (delivery.look_at, delivery.row.note) = (None, None);
                }
                delivery.row.status = DeliveryStatus::Pending;
                delivery.row.attempts = 0;
                delivery.row.settled_at = None;
                delivery.next_at = now.min(delivery.owed_since);
                delivery.owed_since = now;
                self.owed.entry(delivery.row.sink.clone()).or_default().insert((0, place));
            }
        }
        if let Some(lane) = self.lanes.get_mut(&delivery.row.sink) {
            lane.paused_until = None;
            self.asked.insert(delivery.row.sink.clone(), now);
        }
        Retried::Due
    }
}

impl DeliveryContent {
    fn passes(&self, filter: &DeliveryFilter) -> bool {
        filter.status.is_none_or(|status| self.row.status == status)
            && filter.sink.as_ref().is_none_or(|sink| self.row.sink == *sink)
            && filter.since.is_none_or(|since| self.row.created_at >= since)
            && (!filter.failed || self.has_failed())
    }

    fn has_failed(&self) -> bool {
        match self.row.status {
            DeliveryStatus::Dead => true,
            DeliveryStatus::Pending => !self.log.is_empty(),
            DeliveryStatus::Delivered
            | DeliveryStatus::Unconfirmed
            | DeliveryStatus::Digested
            | DeliveryStatus::Muted => false,
        }
    }

    fn died_since(&self, sink: Option<&str>, since: DateTime<Utc>) -> bool {
        self.row.status == DeliveryStatus::Dead
            && sink.is_none_or(|sink| self.row.sink == sink)
            && self.row.settled_at.is_some_and(|at| at >= since)
    }

    /// See [`crate::sink::Delivery::failing_since`].
    pub(super) fn failing_since(&self) -> Option<DateTime<Utc>> {
        let since_refused = self.log.rsplit(|attempt| attempt.resolution == REFUSED).next()?;
        since_refused.iter().map(|attempt| attempt.started_at).min()
    }

    /// See [`crate::store::Store::take_over`].
    pub(super) fn take_over(&mut self, now: DateTime<Utc>, latest: DateTime<Utc>) {
        if self.row.status != DeliveryStatus::Pending {
            return;
        }
        let put_off = self.row.attempts > 0 && self.next_at > self.owed_since;
        if self.next_at > now && (!put_off || self.next_at > latest) {
            self.next_at = now;
        }
        if self.owed_since > now && !self.fallback.is_empty() {
            let ahead = self.owed_since - now;
            self.look_at = self.look_at.map(|at| at - ahead);
        }
        self.owed_since = self.owed_since.min(now);
    }

    pub(super) fn shown(&self) -> DeliveryRow {
        let is_pending = self.row.status == DeliveryStatus::Pending;
        DeliveryRow { next_at: is_pending.then_some(self.next_at), ..self.row.clone() }
    }

    pub(super) fn detail(&self) -> DeliveryDetail {
        let body = String::from_utf8_lossy(&self.body).into_owned();
        DeliveryDetail { row: self.shown(), body, log: self.log.clone() }
    }
}
