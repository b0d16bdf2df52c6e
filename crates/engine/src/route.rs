//! Routes: which alert goes to which sinks. Ordered; the first that matches takes the alert unless it says `continue`.
//!
//! A route's condition is one of the rule language over what an alert shows, so `match` knows the same modifiers and blocks
//! as `when`. Doubt is decided for delivery: a condition that cannot be evaluated counts as fulfilled, and does not stop
//! later routes.

mod load;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::alert::Alert;
use crate::condition::Condition;
use crate::diagnostic::Span;
use crate::event::Event;

pub use load::{MAX_ROUTES, load};

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Which alerts; every alert when absent.
    pub when: Option<Condition>,
    /// Sinks by name, in order.
    pub to: Vec<String>,
    /// Whether later routes see the alert too.
    pub continue_: bool,
    /// Where it stands in the configuration.
    pub span: Span,
    /// Whether the condition asks for fields of the event.
    reads_event: bool,
}

/// What a route's condition sees of an alert.
#[derive(Serialize)]
struct Facets<'a> {
    severity: &'a str,
    rule: &'a str,
    tags: &'a [String],
    account: Option<&'a str>,
    source: &'a str,
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a RawValue>,
}

/// The sinks that an alert goes to: in the order of the routes, each once.
#[must_use]
pub fn destinations<'r>(routes: &'r [Route], alert: &Alert) -> Vec<&'r str> {
    until_told(routes, alert, |_| true)
}

/// As [`destinations`], for an alert about one of the sinks: while only that sink is found, later routes that match see the
/// alert too, as if every one said `continue`.
#[must_use]
pub fn destinations_beside<'r>(routes: &'r [Route], alert: &Alert, about: &str) -> Vec<&'r str> {
    until_told(routes, alert, |sinks| sinks.iter().any(|sink| *sink != about))
}

/// The first route that takes the alert ends the search, if those who are told by then are `enough`.
fn until_told<'r>(routes: &'r [Route], alert: &Alert, enough: impl Fn(&[&str]) -> bool) -> Vec<&'r str> {
    // An event that fills its size limit does not fit with the rest around it; then routes see the alert without it.
    let whole = view(alert, true);
    let is_whole = whole.is_some();
    let seen = whole.or_else(|| view(alert, false));
    let mut sinks: Vec<&str> = Vec::new();
    for route in routes {
        let (is_match, is_sure) = match (&route.when, &seen) {
            (None, _) => (true, true),
            (Some(_), _) if route.reads_event && !is_whole => (true, false),
            (Some(when), Some(seen)) => (when.holds(seen), true),
            (Some(_), None) => (true, false),
        };
        if !is_match {
            continue;
        }
        for sink in &route.to {
            if !sinks.contains(&sink.as_str()) {
                sinks.push(sink);
            }
        }
        if is_sure && !route.continue_ && enough(&sinks) {
            break;
        }
    }
    sinks
}

fn view(alert: &Alert, with_event: bool) -> Option<Event> {
    let facets = Facets {
        severity: alert.rule.severity.name(),
        rule: &alert.rule.id,
        tags: &alert.rule.tags,
        account: alert.account_id.as_ref().map(|account| account.as_raw()),
        source: &alert.source,
        title: alert.title.as_raw(),
        event: with_event.then_some(&*alert.event),
    };
    let json = serde_json::to_string(&facets).ok()?;
    Event::new(&alert.alert_id, alert.last_at, json.into()).ok()
}

#[cfg(test)]
mod tests;
