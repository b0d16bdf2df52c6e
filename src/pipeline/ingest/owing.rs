//! Which sinks owe an alert, and the bytes that they owe.
//!
//! It sends nothing. What is wrong with a sink is told beside it too, as far as the routes let it.

use chrono::{DateTime, Utc};
use vigie_engine::alert::Alert;
use vigie_engine::route::{destinations, destinations_beside};

use super::{Ingest, UNROUTED};
use crate::pipeline::{follow, notice};
use crate::store::NewDelivery;
use crate::store::follow::NewFollowUp;

/// How much of a title the log shows.
const MAX_TITLE_CHARS: usize = 120;

/// What sinks owe for some alerts.
#[derive(Default)]
pub(super) struct Owed {
    pub(super) deliveries: Vec<NewDelivery>,
    /// Of sinks that want to hear of an alert again.
    pub(super) follow_ups: Vec<NewFollowUp>,
}

impl Ingest {
    /// Adds what sinks owe for this alert, rendered; or says why none does.
    pub(super) fn owe(&self, alert: &Alert, now: DateTime<Utc>, owed: &mut Owed) -> Option<String> {
        if self.dry_run {
            let (rule, title) = (&alert.rule.id, alert.title.single_line(MAX_TITLE_CHARS));
            tracing::info!(%rule, ?title, to = ?self.destinations(alert), "dry run: would alert");
            return Some("dry run".into());
        }
        let names = self.destinations(alert);
        if names.is_empty() {
            return Some(UNROUTED.into());
        }
        let deliveries = names.iter().filter_map(|name| {
            let outlet = self.outlets.iter().find(|outlet| outlet.name == *name)?;
            Some(outlet.render(alert, now))
        });
        let deliveries: Vec<NewDelivery> = deliveries.collect();
        owed.follow_ups.extend(follow::begin(alert, &deliveries, &self.outlets, self.clock.steady()));
        owed.deliveries.extend(deliveries);
        None
    }

    /// What is wrong with a sink is told beside it too, as far as the routes let it.
    fn destinations(&self, alert: &Alert) -> Vec<&str> {
        let Some(about) = notice::sink_of(alert) else { return destinations(&self.routes, alert) };
        let names = destinations_beside(&self.routes, alert, &about);
        if names.iter().all(|name| *name == about) {
            let rule = &alert.rule.id;
            tracing::error!(sink = %about, %rule, "no other sink is told of this; add a route that takes it elsewhere too");
        }
        names
    }
}
