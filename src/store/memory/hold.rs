//! Holds in memory. There are no silences: nobody could add one to a simulation from outside.

use chrono::{DateTime, Utc};

use super::{Content, DeliveryContent, MemoryStore};
use crate::pipeline::BoxFuture;
use crate::store::archive::DeliveryStatus;
use crate::store::follow::NewFollowUp;
use crate::store::hold::{Fold, Holds, MAX_FOLDED, MAX_LOOK, Released, Standing, StoredSilence, Unconfirmed};
use crate::store::{NewDelivery, Result};

impl Holds for MemoryStore {
    fn unconfirmed(&self, steady: DateTime<Utc>) -> BoxFuture<'_, Result<Vec<Unconfirmed>>> {
        let found = self.content().unconfirmed(steady);
        Box::pin(std::future::ready(Ok(found)))
    }

    fn fall_back<'a>(
        &'a self,
        delivery_id: &'a str,
        owed: (Vec<NewDelivery>, Vec<NewFollowUp>),
        at: DateTime<Utc>,
        due_at: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<()>> {
        self.content().fall_back(delivery_id, owed, at, due_at);
        Box::pin(std::future::ready(Ok(())))
    }

    fn released(&self, now: DateTime<Utc>) -> BoxFuture<'_, Result<Option<Released>>> {
        let found = self.content().released(now);
        Box::pin(std::future::ready(Ok(found)))
    }

    fn waiting<'a>(&'a self, sink: &'a str, skip: usize, limit: usize) -> BoxFuture<'a, Result<Vec<(String, String)>>> {
        let content = self.content();
        let untried = content.owed.get(sink).into_iter().flatten().filter(|(attempts, _)| *attempts == 0);
        let rows = untried.filter_map(|(_, place)| content.deliveries.get(*place)).map(DeliveryContent::ids);
        let rows = rows.skip(skip).take(limit.min(MAX_FOLDED)).collect();
        Box::pin(std::future::ready(Ok(rows)))
    }

    fn fold(&self, fold: Fold) -> BoxFuture<'_, Result<()>> {
        self.content().write_fold(fold);
        Box::pin(std::future::ready(Ok(())))
    }

    fn silences(&self, _: DateTime<Utc>) -> BoxFuture<'_, Result<Vec<StoredSilence>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn told_since<'a>(
        &'a self,
        sink: &'a str,
        repeat_key: &'a str,
        since: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        let content = self.content();
        let told = content.deliveries.iter().rev().find(|delivery| {
            delivery.row.sink == sink
                && delivery.repeat_key.as_deref() == Some(repeat_key)
                && delivery.row.status != DeliveryStatus::Muted
                && delivery.row.created_at > since
        });
        let found = told.map(|delivery| delivery.row.alert_id.clone());
        Box::pin(std::future::ready(Ok(found)))
    }
}

impl DeliveryContent {
    fn ids(&self) -> (String, String) {
        (self.row.delivery_id.clone(), self.row.alert_id.clone())
    }

    fn is_unconfirmed(&self) -> bool {
        let is_open = matches!(self.row.status, DeliveryStatus::Pending | DeliveryStatus::Dead);
        is_open && !self.fallback.is_empty() && self.look_at.is_some()
    }

    fn is_released(&self, now: DateTime<Utc>) -> bool {
        self.row.status == DeliveryStatus::Muted && self.look_at.is_some_and(|at| at <= now)
    }
}

impl Content {
    fn unconfirmed(&self, steady: DateTime<Utc>) -> Vec<Unconfirmed> {
        let is_due = |delivery: &&DeliveryContent| {
            let is_dead = delivery.row.status == DeliveryStatus::Dead;
            delivery.is_unconfirmed() && (is_dead || delivery.look_at.is_some_and(|at| at <= steady))
        };
        let mut due: Vec<&DeliveryContent> = self.deliveries.iter().filter(is_due).collect();
        due.sort_by_key(|delivery| delivery.look_at);
        let unconfirmed = due.into_iter().take(MAX_LOOK).map(|delivery| Unconfirmed {
            delivery_id: delivery.row.delivery_id.clone(),
            alert_id: delivery.row.alert_id.clone(),
            sink: delivery.row.sink.clone(),
            to: delivery.fallback.clone(),
            last_status: delivery.log.last().map(|attempt| attempt.status.clone()).unwrap_or_default(),
            is_dead: delivery.row.status == DeliveryStatus::Dead,
            owed_since: delivery.owed_since,
        });
        unconfirmed.collect()
    }

    fn fall_back(
        &mut self,
        delivery_id: &str,
        (new, follow_ups): (Vec<NewDelivery>, Vec<NewFollowUp>),
        at: DateTime<Utc>,
        due_at: DateTime<Utc>,
    ) {
        let place = self.delivery_index.get(delivery_id).copied();
        let Some(delivery) = place.and_then(|place| self.deliveries.get_mut(place)) else { return };
        let is_open = delivery.is_unconfirmed();
        delivery.look_at = None;
        if is_open {
            new.into_iter().for_each(|delivery| self.add_delivery(delivery, at, due_at));
            follow_ups.into_iter().for_each(|new| self.follow_ups.add(new, due_at));
        }
    }

    fn released(&self, now: DateTime<Utc>) -> Option<Released> {
        let due = || self.deliveries.iter().filter(move |delivery| delivery.is_released(now));
        let first = due().min_by_key(|delivery| delivery.look_at)?;
        let (sink, by) = (&first.row.sink, &first.row.muted_by);
        let of_group = |delivery: &&DeliveryContent| delivery.row.sink == *sink && delivery.row.muted_by == *by;
        Some(Released {
            sink: sink.clone(),
            by: by.clone().unwrap_or_default(),
            note: first.row.note.clone().unwrap_or_default(),
            rows: due().filter(of_group).map(DeliveryContent::ids).take(MAX_FOLDED).collect(),
        })
    }

    fn write_fold(&mut self, fold: Fold) {
        let Fold { sink, standing, told, digest, sent, held, follow_ups, at, due_at } = fold;
        follow_ups.into_iter().for_each(|new| self.follow_ups.add(new, due_at));
        let digest_id = digest.as_ref().map(|(_, delivery)| delivery.delivery_id.clone());
        if let Some((alert, delivery)) = digest {
            self.add_alert(alert, at);
            self.add_delivery(delivery, at, due_at);
        }
        let (status, is_untried) = match standing {
            Standing::Waiting => (DeliveryStatus::Pending, true),
            Standing::Muted => (DeliveryStatus::Muted, false),
        };
        let place = |content: &Self, id: &str| {
            let place = content.delivery_index.get(id).copied()?;
            let row = &content.deliveries.get(place)?.row;
            (row.sink == sink && row.status == status && (!is_untried || row.attempts == 0)).then_some(place)
        };
        for delivery_id in told {
            let Some(found) = place(self, &delivery_id) else { continue };
            self.owed.entry(sink.clone()).or_default().remove(&(0, found));
            let Some(delivery) = self.deliveries.get_mut(found) else { continue };
            (delivery.row.status, delivery.row.settled_at) = (DeliveryStatus::Digested, Some(at));
            (delivery.row.told_in, delivery.look_at) = (digest_id.clone(), None);
        }
        for new in sent {
            let Some(found) = place(self, &new.delivery_id) else { continue };
            self.owed.entry(sink.clone()).or_default().insert((0, found));
            let Some(delivery) = self.deliveries.get_mut(found) else { continue };
            (delivery.row.status, delivery.look_at) = (DeliveryStatus::Pending, None);
            (delivery.body, delivery.row.note) = (new.body, new.note);
            (delivery.next_at, delivery.owed_since) = (due_at, due_at);
        }
        for (delivery_id, hold) in held {
            let Some(found) = place(self, &delivery_id) else { continue };
            let Some(delivery) = self.deliveries.get_mut(found) else { continue };
            (delivery.row.muted_by, delivery.row.note, delivery.look_at) = (Some(hold.by), Some(hold.note), hold.until);
        }
    }
}
