//! A sink as ingest sees it: it renders an alert once, and never sends.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use vigie_engine::alert::Alert;

use crate::sink::update::Follow;
use crate::sink::{Form, RenderContext, Sink, delivery_id};
use crate::store::NewDelivery;

/// A sink and what it wants to hear.
#[derive(Clone)]
pub struct Outlet {
    /// Name in the configuration: the identity.
    pub name: String,
    /// Renders the bytes.
    pub sink: Arc<dyn Sink>,
    /// What it wants to hear of an alert that it got.
    pub follow: Option<Follow>,
}

impl Outlet {
    /// Renders at ingest, so that a retry is byte-identical and a template error is found while the event is at hand.
    pub(crate) fn render(&self, alert: &Alert, now: DateTime<Utc>) -> NewDelivery {
        let delivery_id = delivery_id(&alert.alert_id, &self.name);
        let form = |form| self.sink.render(alert, &RenderContext { delivery_id: &delivery_id, now, form });
        let body = form(Form::Full).or_else(|error| {
            tracing::warn!(sink = %self.name, alert_id = %alert.alert_id, ?error, "rendered as plain text instead");
            form(Form::Plain)
        });
        let body = body.unwrap_or_else(|error| {
            tracing::error!(sink = %self.name, alert_id = %alert.alert_id, ?error, "reduced to its identity");
            format!("[{}] {} (alert {})", alert.rule.severity.as_str(), alert.rule.id, alert.alert_id).into_bytes()
        });
        NewDelivery::new(delivery_id, alert.alert_id.clone(), self.name.clone(), body)
    }
}
