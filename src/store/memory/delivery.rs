//! Deliveries in memory as the archive lists them.

use chrono::{DateTime, Utc};

use super::DeliveryContent;
use crate::store::archive::{DeliveryDetail, DeliveryFilter, DeliveryRow, DeliveryStatus};

impl DeliveryContent {
    pub(super) fn passes(&self, filter: &DeliveryFilter) -> bool {
        filter.status.is_none_or(|status| self.row.status == status)
            && filter.sink.as_ref().is_none_or(|sink| self.row.sink == *sink)
            && filter.since.is_none_or(|since| self.row.created_at >= since)
            && (!filter.failed || self.has_failed())
    }

    pub(super) fn has_failed(&self) -> bool {
        match self.row.status {
            DeliveryStatus::Dead => true,
            DeliveryStatus::Pending => !self.log.is_empty(),
            DeliveryStatus::Delivered | DeliveryStatus::Unconfirmed => false,
        }
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
}
