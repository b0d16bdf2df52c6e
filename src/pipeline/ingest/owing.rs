//! Which sinks owe an alert, and the bytes that they owe.
//!
//! It sends nothing. What is wrong with a sink is told beside it too, as far as the routes let it.

use chrono::{DateTime, Utc};
use vigie_engine::alert::Alert;
use vigie_engine::route::{destinations, destinations_beside};

use super::{Ingest, UNROUTED};
use crate::pipeline::notice;
use crate::store::NewDelivery;

/// How much of a title the log shows.
const MAX_TITLE_CHARS: usize = 120;

impl Ingest {
    /// Which sinks owe this alert, rendered; or why none does.
    pub(super) fn route(&self, alert: &Alert, now: DateTime<Utc>) -> (Option<String>, Vec<NewDelivery>) {
        if self.dry_run {
            let (rule, title) = (&alert.rule.id, alert.title.single_line(MAX_TITLE_CHARS));
            tracing::info!(%rule, ?title, to = ?self.destinations(alert), "dry run: would alert");
            return (Some("dry run".into()), Vec::new());
        }
        let names = self.destinations(alert);
        if names.is_empty() {
            return (Some(UNROUTED.into()), Vec::new());
        }
        let deliveries = names.iter().filter_map(|name| {
            let outlet = self.outlets.iter().find(|outlet| outlet.name == *name)?;
            Some(outlet.render(alert, now))
        });
        (None, deliveries.collect())
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
