//! What waits for a time: alerts that a sink did not confirm in time go to another one, and what was kept back is told when
//! that ends.
//!
//! It works from rows of the store, so a crash at any moment repeats a look and never an alert. It never sends and never
//! takes a delivery from its sink: a fallback is told too, not instead.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use vigie_engine::alert::Alert;
use vigie_engine::text::single_line;
use vigie_engine::time::format_duration;

use super::deliver::Wake;
use super::digest::{self, Line, Why};
use super::follow::{self, Quiets};
use super::ingest::{Ingest, Outlet};
use crate::clock::Clock;
use crate::store::hold::{FallbackDue, Fold, Hold, Holds, Released, Standing, Unconfirmed};
use crate::store::{Alerts, NewAlert, NewDelivery, Result, StoreError};

/// How often the store is looked at: a fraction of the shortest time that a sink may be given.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// While the disk is full.
const FULL_SLEEP: Duration = Duration::from_secs(10);
/// Groups that one look tells of, so that a stop never waits for long.
const MAX_GROUPS: usize = 32;
/// How long what was kept back for a sink that is not configured waits for the next look.
const SINK_MISSING: chrono::TimeDelta = chrono::TimeDelta::hours(1);
/// How much of a status a note shows.
const MAX_STATUS_CHARS: usize = 80;

/// Attends to what waits for a time.
pub struct Attendant {
    /// Rows that wait.
    pub holds: Arc<dyn Holds>,
    /// Alerts as they stand.
    pub alerts: Arc<dyn Alerts>,
    /// All sinks.
    pub outlets: Vec<Outlet>,
    /// Knows what mutes now.
    pub ingest: Arc<Ingest>,
    /// When an alert is quiet.
    pub quiets: Quiets,
    /// Both clocks.
    pub clock: Arc<dyn Clock>,
    /// Wakes the lanes when something is to be sent.
    pub wake: Wake,
}

impl Attendant {
    /// Until `stop`. A look that has begun is finished.
    ///
    /// # Errors
    /// When the store failed for good.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<()> {
        loop {
            let wait = match self.look().await {
                Ok(_) => LOOK_EVERY,
                Err(StoreError::Full(cause)) => {
                    tracing::warn!(%cause, "fallbacks and digests wait for space");
                    FULL_SLEEP
                }
                Err(fatal) => return Err(fatal),
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Does what is due; whether that was anything.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn look(&self) -> Result<bool> {
        let unconfirmed = self.holds.unconfirmed(self.clock.steady()).await?;
        let mut is_owed = !unconfirmed.is_empty();
        for row in &unconfirmed {
            self.fall_back(row).await?;
        }
        for _ in 0..MAX_GROUPS {
            let Some(group) = self.holds.released(self.clock.now()).await? else { break };
            self.release(group).await?;
            is_owed = true;
        }
        if is_owed {
            self.wake.wake();
        }
        Ok(is_owed)
    }

    async fn fall_back(&self, row: &Unconfirmed) -> Result<()> {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let alert = self.alerts.alert(&row.alert_id).await?;
        let mut owed = (Vec::new(), Vec::new());
        if let Some(alert) = alert {
            let to = self.fallbacks(row, &alert, now).await?;
            let noted = Alert { note: Some(fallback_note(row, steady)), ..alert };
            owed.0.extend(to.iter().map(|outlet| noted_delivery(outlet, &noted, now)));
            if to.is_empty() {
                tracing::error!(sink = %row.sink, fallback = ?row.to, "the fallback is no sink of this configuration");
            }
            owed.1 = follow::begin(&noted, &owed.0, &self.outlets, steady);
            tracing::warn!(sink = %row.sink, fallback = ?row.to, alert_id = %noted.alert_id, "not confirmed in time");
        }
        self.holds.fall_back(&row.delivery_id, owed, now, steady).await
    }

    /// Those that it was stored with; where the configuration has none of them any more, those of today.
    async fn fallbacks(&self, row: &Unconfirmed, alert: &Alert, now: DateTime<Utc>) -> Result<Vec<&Outlet>> {
        let configured = |names: &[String]| names.iter().filter_map(|name| self.outlet(name)).collect::<Vec<_>>();
        let stored = configured(&row.to);
        if !stored.is_empty() {
            return Ok(stored);
        }
        let today = self.ingest.again(alert, &row.sink, now).await?.fallback;
        Ok(today.map(|fallback| configured(&fallback.to)).unwrap_or_default())
    }

    /// What still goes on is told by itself, what is over by a digest, and what something else mutes now stays muted.
    async fn release(&self, group: Released) -> Result<()> {
        let (now, due_at) = (self.clock.now(), self.clock.steady());
        let mut fold = Fold {
            sink: group.sink.clone(),
            standing: Standing::Muted,
            told: Vec::new(),
            digest: None,
            sent: Vec::new(),
            held: Vec::new(),
            follow_ups: Vec::new(),
            at: now,
            due_at,
        };
        let Some(outlet) = self.outlet(&group.sink) else {
            // It may come back with the next reload; until then nobody could be told.
            tracing::warn!(sink = %group.sink, by = %group.by, "what was kept back waits for a sink that is not configured");
            let until = Some(now + SINK_MISSING);
            let hold = Hold { by: group.by, note: group.note, until };
            fold.held = group.rows.into_iter().map(|(delivery_id, _)| (delivery_id, hold.clone())).collect();
            return self.holds.fold(fold).await;
        };
        let (mut lines, mut fallbacks) = (Vec::new(), Vec::new());
        for (delivery_id, alert_id) in &group.rows {
            let told = self.release_one((delivery_id, alert_id), &group, outlet, &mut fold).await?;
            if let Some((line, fallback)) = told {
                lines.push(line);
                fallbacks.extend(fallback);
            }
        }
        if let Some(alert) = digest::digest(&group.sink, Why::Released(&group.note), &lines) {
            let mut delivery = outlet.render(&alert, now);
            delivery.fallback = joined(fallbacks);
            fold.follow_ups.extend(follow::begin(&alert, std::slice::from_ref(&delivery), &self.outlets, due_at));
            fold.digest = Some((NewAlert { alert, muted_by: None }, delivery));
        }
        let (sent, told, held) = (fold.sent.len(), fold.told.len(), fold.held.len());
        tracing::info!(sink = %group.sink, by = %group.by, sent, told, held, "kept back until now");
        self.holds.fold(fold).await
    }

    async fn release_one(
        &self,
        (delivery_id, alert_id): (&str, &str),
        group: &Released,
        outlet: &Outlet,
        fold: &mut Fold,
    ) -> Result<Option<(Line, Option<FallbackDue>)>> {
        let over = || Hold { by: group.by.clone(), note: group.note.clone(), until: None };
        let Some(alert) = self.alerts.alert(alert_id).await? else {
            fold.held.push((delivery_id.to_owned(), over()));
            return Ok(None);
        };
        let again = self.ingest.again(&alert, &group.sink, fold.at).await?;
        if let Some(hold) = again.hold.filter(|hold| hold.until.is_some_and(|until| until > fold.at)) {
            fold.held.push((delivery_id.to_owned(), hold));
        } else if self.quiets.is_open(&alert, fold.at) {
            let noted = Alert { note: Some(format!("it was kept back until now: {}", group.note)), ..alert };
            let delivery = noted_delivery(outlet, &noted, fold.at);
            let delivery = NewDelivery { fallback: again.fallback, repeat_key: again.repeat_key, ..delivery };
            let new = follow::begin(&noted, std::slice::from_ref(&delivery), &self.outlets, fold.due_at);
            fold.follow_ups.extend(new);
            fold.sent.push(delivery);
        } else if group.is_repetition() {
            fold.held.push((delivery_id.to_owned(), over()));
        } else {
            fold.told.push(delivery_id.to_owned());
            return Ok(Some((Line::of(&alert), again.fallback)));
        }
        Ok(None)
    }

    fn outlet(&self, name: &str) -> Option<&Outlet> {
        self.outlets.iter().find(|outlet| outlet.name == name)
    }
}

fn noted_delivery(outlet: &Outlet, alert: &Alert, now: DateTime<Utc>) -> NewDelivery {
    NewDelivery { note: alert.note.clone(), ..outlet.render(alert, now) }
}

fn fallback_note(row: &Unconfirmed, now: DateTime<Utc>) -> String {
    let waited = (now - row.owed_since).to_std().unwrap_or_default();
    let waited = format_duration(Duration::from_secs(waited.as_secs()));
    let status = match row.last_status.as_str() {
        "" => "no attempt was made".to_owned(),
        status => single_line(status, MAX_STATUS_CHARS),
    };
    let what = if row.is_dead { "gave it up" } else { "has not confirmed it" };
    format!("sent here too because sink {} {what} after {waited} ({status})", row.sink)
}

/// Each of their sinks, at the first of their times.
fn joined(all: Vec<FallbackDue>) -> Option<FallbackDue> {
    let at = all.iter().map(|fallback| fallback.at).min()?;
    let mut to: Vec<String> = all.into_iter().flat_map(|fallback| fallback.to).collect();
    to.sort_unstable();
    to.dedup();
    Some(FallbackDue { to, at })
}

#[cfg(test)]
mod tests;
