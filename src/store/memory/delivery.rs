//! One delivery row as the memory store keeps it: what passes a filter, how it is shown, and how a start takes it over.

use chrono::{DateTime, Utc};

use crate::store::archive::{AttemptRow, DeliveryDetail, DeliveryFilter, DeliveryRow, DeliveryStatus};

#[derive(Debug)]
pub(super) struct DeliveryContent {
    pub(super) row: DeliveryRow,
    pub(super) body: Vec<u8>,
    pub(super) owed_since: DateTime<Utc>,
    pub(super) next_at: DateTime<Utc>,
    pub(super) log: Vec<AttemptRow>,
}

impl DeliveryContent {
    pub(super) fn passes(&self, filter: &DeliveryFilter) -> bool {
        filter.status.is_none_or(|status| self.row.status == status)
            && filter.sink.as_ref().is_none_or(|sink| self.row.sink == *sink)
            && filter.since.is_none_or(|since| self.row.created_at >= since)
            && (!filter.failed || self.has_failed())
    }

    pub(super) fn died_since(&self, sink: Option<&str>, since: DateTime<Utc>) -> bool {
        self.row.status == DeliveryStatus::Dead
            && sink.is_none_or(|sink| self.row.sink == sink)
            && self.row.settled_at.is_some_and(|at| at >= since)
    }

    pub(super) fn shown(&self) -> DeliveryRow {
        let is_pending = self.row.status == DeliveryStatus::Pending;
        DeliveryRow { next_at: is_pending.then_some(self.next_at), ..self.row.clone() }
    }

    pub(super) fn detail(&self) -> DeliveryDetail {
        let body = String::from_utf8_lossy(&self.body).into_owned();
        DeliveryDetail { row: self.shown(), body, log: self.log.clone() }
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
        self.owed_since = self.owed_since.min(now);
    }

    fn has_failed(&self) -> bool {
        match self.row.status {
            DeliveryStatus::Dead => true,
            DeliveryStatus::Pending => !self.log.is_empty(),
            DeliveryStatus::Delivered | DeliveryStatus::Unconfirmed => false,
        }
    }
}
