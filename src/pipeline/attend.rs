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
use crate::store::hold::{Fold, Holds, Released, Standing, Unconfirmed};
use crate::store::{Alerts, NewAlert, NewDelivery, Result, StoreError};

/// How often the store is looked at: a fraction of the shortest time that a sink may be given.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// While the disk is full.
const FULL_SLEEP: Duration = Duration::from_secs(10);
/// Groups that one look tells of, so that a stop never waits for long.
const MAX_GROUPS: usize = 32;
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
                Ok(()) => LOOK_EVERY,
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

    /// Does what is due.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn look(&self) -> Result<()> {
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
        Ok(())
    }

    async fn fall_back(&self, row: &Unconfirmed) -> Result<()> {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let alert = self.alerts.alert(&row.alert_id).await?;
        let mut owed = (Vec::new(), Vec::new());
        if let Some(alert) = alert {
            let noted = Alert { note: Some(fallback_note(row, steady)), ..alert };
            for name in &row.to {
                let Some(outlet) = self.outlet(name) else {
                    tracing::error!(sink = %row.sink, fallback = %name, "the fallback is no sink of this configuration");
                    continue;
                };
                owed.0.push(noted_delivery(outlet, &noted, now));
            }
            owed.1 = follow::begin(&noted, &owed.0, &self.outlets, steady);
            tracing::warn!(sink = %row.sink, fallback = ?row.to, alert_id = %noted.alert_id, "not confirmed in time");
        }
        self.holds.fall_back(&row.delivery_id, owed, now, steady).await
    }

    /// What still goes on is told by itself, what is over by a digest, and what something else mutes now stays muted.
    async fn release(&self, group: Released) -> Result<()> {
        let (now, due_at) = (self.clock.now(), self.clock.steady());
        let Released { sink, by, note, rows } = group;
        let outlet = self.outlet(&sink);
        let mut lines = Vec::new();
        let mut fold = Fold {
            sink: sink.clone(),
            standing: Standing::Muted,
            told: Vec::new(),
            digest: None,
            sent: Vec::new(),
            held: Vec::new(),
            follow_ups: Vec::new(),
            at: now,
            due_at,
        };
        for (delivery_id, alert_id) in rows {
            let Some((alert, outlet)) = self.alerts.alert(&alert_id).await?.zip(outlet) else {
                // Its alert or its sink is gone: nobody is left to tell.
                fold.told.push(delivery_id);
                continue;
            };
            let again = self.ingest.hold_of(&alert, &sink, now).await?;
            if let Some(hold) = again.filter(|hold| hold.until.is_none_or(|until| until > now)) {
                fold.held.push((delivery_id, hold));
            } else if alert.last_at > earlier(now, self.quiets.get(&alert.rule.id)) {
                let noted = Alert { note: Some(format!("it was kept back until now: {note}")), ..alert };
                let delivery = noted_delivery(outlet, &noted, now);
                fold.follow_ups.extend(follow::begin(&noted, std::slice::from_ref(&delivery), &self.outlets, due_at));
                fold.sent.push(delivery);
            } else {
                lines.push(Line::of(&alert));
                fold.told.push(delivery_id);
            }
        }
        if let Some((alert, outlet)) = digest::digest(&sink, Why::Released(&note), &lines).zip(outlet) {
            let delivery = outlet.render(&alert, now);
            fold.follow_ups.extend(follow::begin(&alert, std::slice::from_ref(&delivery), &self.outlets, due_at));
            fold.digest = Some((NewAlert { alert, muted_by: None }, delivery));
        }
        tracing::info!(%sink, %by, sent = fold.sent.len(), told = fold.told.len(), held = fold.held.len(), "kept back until now");
        self.holds.fold(fold).await
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

fn earlier(at: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    chrono::TimeDelta::from_std(by).ok().and_then(|by| at.checked_sub_signed(by)).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

#[cfg(test)]
mod tests;
