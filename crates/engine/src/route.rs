//! Routes: which alert goes to which sinks. A tree, tried in order; the first route that matches takes the alert unless it
//! says `continue`, and one with routes of its own leaves it to the first of them that matches.
//!
//! A route's condition is one of the rule language over what an alert shows, so `match` knows the same modifiers and blocks
//! as `when`; `matchers` is the notation of Alertmanager for the same. Doubt is decided for delivery: a condition that cannot
//! be evaluated counts as fulfilled, and does not stop later routes.

pub(crate) mod load;
pub mod matcher;
mod view;

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::alert::Alert;
use crate::condition::During;
use crate::diagnostic::Span;
use crate::event::FieldPath;

pub use load::{DEFAULT_AFTER, DEFAULT_QUIET, KEYS, MAX_ROUTES, load};
pub use view::{AlertCondition, AlertView, VOCABULARY};

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Which alerts; every alert when absent.
    pub when: Option<AlertCondition>,
    /// Sinks by name, in order; its parent's where it names none.
    pub to: Vec<String>,
    /// Whether later routes see the alert too.
    pub continue_: bool,
    /// Where else an alert goes that is not confirmed in time.
    pub fallback: Option<Fallback>,
    /// What is told only once in a while.
    pub repeat: Option<Repeat>,
    /// When nothing is told.
    pub mute: Vec<During>,
    /// Tried before `to`.
    pub routes: Vec<Route>,
    /// Where it stands in the configuration.
    pub span: Span,
}

/// Other sinks for what is not confirmed in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// Sinks by name.
    pub to: Vec<String>,
    /// How long the first sink has.
    pub after: Duration,
}

/// Alerts with the same values are told once in a time: `dedup` and `quiet` of a route.
#[derive(Debug, Clone)]
pub struct Repeat {
    /// Fields of the alert.
    pub fields: Vec<FieldPath>,
    /// How long after one was told the next one is not.
    pub quiet: Duration,
}

/// A sink that an alert goes to, and the routes that lead there.
#[derive(Debug, Clone)]
pub struct Destination<'r> {
    /// Its name.
    pub sink: &'r str,
    /// In the order in which they were found.
    pub by: Vec<&'r Route>,
}

impl Route {
    /// `vigie.yaml:31`, for people.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.span.path, self.span.line)
    }

    /// The time window that keeps this route quiet at an instant, if one does.
    #[must_use]
    pub fn muted_at(&self, now: DateTime<Utc>) -> Option<&During> {
        self.mute.iter().find(|during| during.holds_at(now))
    }
}

impl Destination<'_> {
    /// All fallbacks of the routes that lead to the sink, without the sink itself, at the first of their times.
    #[must_use]
    pub fn fallback(&self) -> Option<Fallback> {
        let all: Vec<&Fallback> = self.by.iter().filter_map(|route| route.fallback.as_ref()).collect();
        let after = all.iter().map(|fallback| fallback.after).min()?;
        let mut to: Vec<String> = Vec::new();
        for sink in all.iter().flat_map(|fallback| &fallback.to) {
            if sink != self.sink && !to.contains(sink) {
                to.push(sink.clone());
            }
        }
        (!to.is_empty()).then_some(Fallback { to, after })
    }
}

/// The sinks that an alert goes to: in the order of the routes, each once.
#[must_use]
pub fn destinations<'r>(routes: &'r [Route], alert: &Alert) -> Vec<Destination<'r>> {
    Search::new(alert, |_| true).among(routes)
}

/// As [`destinations`], for an alert about one of the sinks: while only that sink is found, later routes that match see the
/// alert too, as if every one said `continue`.
#[must_use]
pub fn destinations_beside<'r>(routes: &'r [Route], alert: &Alert, about: &str) -> Vec<Destination<'r>> {
    Search::new(alert, |found| found.iter().any(|destination| destination.sink != about)).among(routes)
}

struct Search<'r, E> {
    view: AlertView,
    /// Whether those who are told by now are enough for a route to end the search.
    enough: E,
    found: Vec<Destination<'r>>,
}

impl<'r, E: Fn(&[Destination<'r>]) -> bool> Search<'r, E> {
    fn new(alert: &Alert, enough: E) -> Self {
        Self { view: AlertView::of(alert), enough, found: Vec::new() }
    }

    fn among(mut self, routes: &'r [Route]) -> Vec<Destination<'r>> {
        self.visit(routes);
        self.found
    }

    /// Whether one of them took it.
    fn visit(&mut self, routes: &'r [Route]) -> bool {
        let mut is_taken = false;
        for route in routes {
            let holds = route.when.as_ref().map_or(Some(true), |when| when.holds(&self.view));
            if holds == Some(false) {
                continue;
            }
            let is_taken_below = self.visit(&route.routes) && (self.enough)(&self.found);
            let is_taken_here = is_taken_below || self.add(route);
            // Whoever is told in doubt takes the alert from nobody.
            is_taken |= is_taken_here && holds.is_some();
            if is_taken_here && holds.is_some() && !route.continue_ && (self.enough)(&self.found) {
                break;
            }
        }
        is_taken
    }

    fn add(&mut self, route: &'r Route) -> bool {
        for sink in &route.to {
            match self.found.iter_mut().find(|destination| destination.sink == sink) {
                Some(known) => known.by.push(route),
                None => self.found.push(Destination { sink, by: vec![route] }),
            }
        }
        !route.to.is_empty()
    }
}

#[cfg(test)]
pub(crate) mod tests;
