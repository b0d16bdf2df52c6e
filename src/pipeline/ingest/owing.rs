//! Which sinks owe an alert, and the bytes that they owe.
//!
//! It sends nothing. What is wrong with a sink is told beside it too, as far as the routes let it. What is muted is owed too,
//! and kept back with what muted it.

use chrono::{DateTime, Utc};
use vigie_engine::alert::Alert;
use vigie_engine::route::{AlertView, Destination, destinations, destinations_beside};

use super::mutes::{Inhibitors, later};
use super::{Ingest, UNROUTED};
use crate::pipeline::{follow, notice};
use crate::store::follow::NewFollowUp;
use crate::store::hold::{FallbackDue, Hold, StoredSilence};
use crate::store::{NewDelivery, Result};

/// How much of a title the log shows.
const MAX_TITLE_CHARS: usize = 120;

/// What sinks owe for some alerts.
#[derive(Default)]
pub(super) struct Owed {
    pub(super) deliveries: Vec<NewDelivery>,
    /// Of sinks that want to hear of an alert again.
    pub(super) follow_ups: Vec<NewFollowUp>,
    /// What these alerts hold down.
    pub(super) open: Inhibitors,
    /// Those in force, once they were asked for.
    silences: Option<Vec<StoredSilence>>,
}

/// How an alert stands toward a sink now.
pub(crate) struct Again {
    pub(crate) hold: Option<Hold>,
    pub(crate) repeat_key: Option<String>,
    pub(crate) fallback: Option<FallbackDue>,
}

impl Owed {
    /// The alert that a sink is told of under this key of a route, in the same commit.
    fn told(&self, sink: &str, key: &str) -> Option<String> {
        let is_told = |delivery: &&NewDelivery| {
            delivery.sink == sink && delivery.hold.is_none() && delivery.repeat_key.as_deref() == Some(key)
        };
        self.deliveries.iter().find(is_told).map(|delivery| delivery.alert_id.clone())
    }
}

impl Ingest {
    /// Adds what sinks owe for this alert, rendered; or says why none is told.
    pub(super) async fn owe(&self, alert: &Alert, now: DateTime<Utc>, owed: &mut Owed) -> Result<Option<String>> {
        let found = self.destinations(alert);
        if self.dry_run {
            let (rule, title) = (&alert.rule.id, alert.title.single_line(MAX_TITLE_CHARS));
            let to: Vec<&str> = found.iter().map(|to| to.sink).collect();
            tracing::info!(%rule, ?title, ?to, "dry run: would alert");
            return Ok(Some("dry run".into()));
        }
        if found.is_empty() {
            return Ok(Some(UNROUTED.into()));
        }
        let view = AlertView::of(alert);
        if owed.silences.is_none() {
            owed.silences = Some(self.mutes.silences(now).await?);
        }
        let hold = self.mutes.of_alert(&view, owed.silences.as_deref().unwrap_or_default(), &owed.open, now);
        let mut deliveries = Vec::with_capacity(found.len());
        for to in &found {
            deliveries.extend(self.delivery(alert, to, &view, hold.clone(), owed, now).await?);
        }
        let muted_by = deliveries.iter().map(|delivery| delivery.hold.as_ref());
        let muted_by =
            muted_by.collect::<Option<Vec<&Hold>>>().and_then(|holds| holds.first().map(|hold| hold.by.clone()));
        if muted_by.is_none() {
            self.mutes.stage(alert, &view, later(now, self.quiets.get(&alert.rule.id)), &mut owed.open);
        }
        owed.follow_ups.extend(follow::begin(alert, &deliveries, &self.outlets, self.clock.steady()));
        owed.deliveries.extend(deliveries);
        Ok(muted_by)
    }

    /// How an alert that was stored before stands toward a sink now; free to be told when no route leads there any more.
    pub(crate) async fn again(&self, alert: &Alert, sink: &str, now: DateTime<Utc>) -> Result<Again> {
        let view = AlertView::of(alert);
        let silences = self.mutes.silences(now).await?;
        if let Some(hold) = self.mutes.of_alert(&view, &silences, &Inhibitors::default(), now) {
            return Ok(Again { hold: Some(hold), repeat_key: None, fallback: None });
        }
        let found = self.destinations(alert);
        let Some(to) = found.iter().find(|to| to.sink == sink) else {
            return Ok(Again { hold: None, repeat_key: None, fallback: None });
        };
        let verdict = self.mutes.of_destination(to, &view, &|_, _| None, now).await?;
        Ok(Again { hold: verdict.hold, repeat_key: verdict.repeat_key, fallback: self.fallback(to) })
    }

    async fn delivery(
        &self,
        alert: &Alert,
        to: &Destination<'_>,
        view: &AlertView,
        hold: Option<Hold>,
        owed: &Owed,
        now: DateTime<Utc>,
    ) -> Result<Option<NewDelivery>> {
        let Some(outlet) = self.outlets.iter().find(|outlet| outlet.name == to.sink) else { return Ok(None) };
        let mut delivery = outlet.render(alert, now);
        if hold.is_some() {
            delivery.hold = hold;
            return Ok(Some(delivery));
        }
        let verdict = self.mutes.of_destination(to, view, &|sink, key| owed.told(sink, key), now).await?;
        (delivery.hold, delivery.repeat_key) = (verdict.hold, verdict.repeat_key);
        if delivery.hold.is_none() {
            delivery.fallback = self.fallback(to);
        }
        Ok(Some(delivery))
    }

    fn fallback(&self, to: &Destination<'_>) -> Option<FallbackDue> {
        let fallback = to.fallback()?;
        Some(FallbackDue { to: fallback.to, at: later(self.clock.steady(), fallback.after) })
    }

    /// What is wrong with a sink is told beside it too, as far as the routes let it.
    fn destinations(&self, alert: &Alert) -> Vec<Destination<'_>> {
        let Some(about) = notice::sink_of(alert) else { return destinations(&self.routes, alert) };
        let found = destinations_beside(&self.routes, alert, &about);
        if found.iter().all(|to| to.sink == about) {
            let rule = &alert.rule.id;
            tracing::error!(sink = %about, %rule, "no other sink is told of this; add a route that takes it elsewhere too");
        }
        found
    }
}
