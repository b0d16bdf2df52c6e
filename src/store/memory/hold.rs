//! Holds in memory. There are no silences: nobody could add one to a simulation from outside.

use chrono::{DateTime, Utc};

use super::{Content, DeliveryContent, MemoryStore, refused};
use crate::pipeline::BoxFuture;
use crate::store::archive::{DeliveryRow, DeliveryStatus};
use crate::store::follow::NewFollowUp;
use crate::store::hold::{
    Fold, Holds, MAX_FOLDED, MAX_LOOK, Released, Standing, StoredSilence, ToldAlert, Unconfirmed,
};
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
        let outcome = self.content().write_fold(fold);
        Box::pin(std::future::ready(outcome))
    }

    fn silences(&self, _: DateTime<Utc>) -> BoxFuture<'_, Result<Vec<StoredSilence>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn told_between<'a>(
        &'a self,
        sink: &'a str,
        repeat_key: &'a str,
        (since, until): (DateTime<Utc>, DateTime<Utc>),
    ) -> BoxFuture<'a, Result<Option<ToldAlert>>> {
        let content = self.content();
        let told = content.deliveries.iter().rev().find(|delivery| {
            delivery.row.sink == sink
                && delivery.repeat_key.as_deref() == Some(repeat_key)
                && delivery.row.created_at > since
                && delivery.row.created_at <= until
                && content.is_told(delivery)
        });
        let found = told.map(|delivery| (delivery.row.alert_id.clone(), delivery.row.created_at));
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
    fn is_told(&self, delivery: &DeliveryContent) -> bool {
        let told_in = delivery.row.told_in.as_ref().and_then(|id| self.deliveries.get(*self.delivery_index.get(id)?));
        match (delivery.row.status, told_in) {
            (DeliveryStatus::Pending | DeliveryStatus::Delivered | DeliveryStatus::Unconfirmed, _) => true,
            (DeliveryStatus::Digested, Some(digest)) => self.is_told(digest),
            (DeliveryStatus::Digested | DeliveryStatus::Dead | DeliveryStatus::Muted, _) => false,
        }
    }

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
            for delivery in new {
                self.add_delivery(delivery.clone(), at, due_at);
                self.send_muted(delivery, due_at);
            }
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

    fn write_fold(&mut self, fold: Fold) -> Result<()> {
        let Fold { sink, standing, told, digest, sent, held, follow_ups, at, due_at } = fold;
        if digest.is_none() && !told.is_empty() {
            return Err(refused("told of without a digest"));
        }
        let stands = |row: &DeliveryRow| match standing {
            Standing::Waiting => row.status == DeliveryStatus::Pending && row.attempts == 0,
            Standing::Muted => row.status == DeliveryStatus::Muted,
        };
        let mut places = Vec::with_capacity(told.len());
        for delivery_id in &told {
            let place = self.delivery_index.get(delivery_id).copied();
            let found = place.filter(|place| {
                self.deliveries.get(*place).is_some_and(|delivery| delivery.row.sink == sink && stands(&delivery.row))
            });
            let Some(place) = found else { return Ok(()) };
            places.push(place);
        }
        if let Some((alert, delivery)) = digest {
            let digest_id = delivery.delivery_id.clone();
            self.add_alert(alert, at);
            self.add_delivery(delivery, at, due_at);
            self.tell_in(&digest_id, &places, at);
        }
        for new in sent {
            self.unmute_of(&new.delivery_id);
            self.send_muted(new, due_at);
        }
        for (delivery_id, hold) in held {
            let place = self.delivery_index.get(&delivery_id).copied();
            let Some(delivery) = place.and_then(|place| self.deliveries.get_mut(place)) else { continue };
            if delivery.row.status == DeliveryStatus::Muted {
                (delivery.row.muted_by, delivery.row.note, delivery.look_at) =
                    (Some(hold.by), Some(hold.note), hold.until);
            }
        }
        follow_ups.into_iter().for_each(|new| self.follow_ups.add(new, due_at));
        Ok(())
    }

    /// The digest takes over the fallbacks of what it tells of, and nobody is told how that goes on.
    fn tell_in(&mut self, digest_id: &str, places: &[usize], at: DateTime<Utc>) {
        let (mut to, mut look_at): (Vec<String>, Option<DateTime<Utc>>) = (Vec::new(), None);
        for &place in places {
            let Some(delivery) = self.deliveries.get_mut(place) else { continue };
            if delivery.row.status == DeliveryStatus::Pending && !delivery.fallback.is_empty() {
                look_at = look_at.into_iter().chain(delivery.look_at).min();
                to.extend(delivery.fallback.iter().filter(|sink| !to.contains(sink)).cloned().collect::<Vec<_>>());
            }
            (delivery.row.status, delivery.row.settled_at) = (DeliveryStatus::Digested, Some(at));
            (delivery.row.told_in, delivery.look_at) = (Some(digest_id.to_owned()), None);
            let (id, alert_id, sink) =
                (delivery.row.delivery_id.clone(), delivery.row.alert_id.clone(), delivery.row.sink.clone());
            self.owed.entry(sink.clone()).or_default().remove(&(0, place));
            self.follow_ups.forget(&alert_id, &sink);
            self.unmute_of(&id);
        }
        let place = self.delivery_index.get(digest_id).copied();
        if let Some(digest) = place.and_then(|place| self.deliveries.get_mut(place)).filter(|_| look_at.is_some()) {
            (digest.fallback, digest.look_at) = (to, look_at);
        }
    }

    fn send_muted(&mut self, new: NewDelivery, due_at: DateTime<Utc>) {
        let Some(place) = self.delivery_index.get(&new.delivery_id).copied() else { return };
        let Some(delivery) = self.deliveries.get_mut(place) else { return };
        if delivery.row.status != DeliveryStatus::Muted || delivery.row.sink != new.sink {
            return;
        }
        let (to, look_at) = new.fallback.map_or((Vec::new(), None), |fallback| (fallback.to, Some(fallback.at)));
        (delivery.row.status, delivery.body, delivery.row.note) = (DeliveryStatus::Pending, new.body, new.note);
        (delivery.fallback, delivery.look_at, delivery.repeat_key) = (to, look_at, new.repeat_key);
        (delivery.next_at, delivery.owed_since) = (due_at, due_at);
        self.owed.entry(new.sink).or_default().insert((0, place));
    }

    fn unmute_of(&mut self, delivery_id: &str) {
        let place = self.delivery_index.get(delivery_id).copied();
        let alert_id = place.and_then(|place| self.deliveries.get(place)).map(|delivery| delivery.row.alert_id.clone());
        alert_id.iter().for_each(|alert_id| self.unmute(alert_id));
    }
}
