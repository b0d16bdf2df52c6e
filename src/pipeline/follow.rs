//! Follow-ups: sinks that ask for it are told when an alert that they got takes up more matches, while it is
//! open, and when it goes quiet.
//!
//! The store says which rows are due; what is told follows from the row, the alert as it stands and the time alone, so
//! a crash at any moment repeats a look and never an update. An update is a delivery like any: the sink's lane sends it. It
//! never looks at a destination, and a sink that the configuration no longer lets ask is followed no more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;
use vigie_engine::alert::Alert;
use vigie_engine::rule::{DEFAULT_QUIET, Rule};

use super::deliver::Wake;
use super::ingest::Outlet;
use crate::clock::Clock;
use crate::sink::update::{Follow, Told, Update, update_id};
use crate::sink::{Form, RenderContext};
use crate::store::follow::{FollowMove, FollowUp, FollowUps, Look, MAX_FOLLOW_UPS, NewFollowUp, Step};
use crate::store::{Alerts, NewDelivery, Result, StoreError};

/// Longest time without a look at the store: a match may have made a row due.
const MAX_SLEEP: Duration = Duration::from_secs(5);
/// Shortest time between two looks.
const MIN_SLEEP: Duration = Duration::from_millis(100);
/// While the disk is full.
const FULL_SLEEP: Duration = Duration::from_secs(10);

/// How long a rule's alert waits for a further match.
#[derive(Debug, Clone, Default)]
pub struct Quiets {
    quiet: HashMap<String, Duration>,
    /// Rules whose alerts take up further matches: those of the others are over at once.
    folding: HashSet<String>,
}

impl Quiets {
    /// Those of rules.
    #[must_use]
    pub fn of(rules: &[Rule]) -> Self {
        let folds = |rule: &&Rule| !rule.alert.dedup.is_empty() || rule.detection.is_some();
        Self {
            quiet: rules.iter().map(|rule| (rule.id.clone(), rule.alert.quiet)).collect(),
            folding: rules.iter().filter(folds).map(|rule| rule.id.clone()).collect(),
        }
    }

    /// That of one rule; of one that is not in force any more, the default.
    #[must_use]
    pub fn get(&self, rule_id: &str) -> Duration {
        self.quiet.get(rule_id).copied().unwrap_or(DEFAULT_QUIET)
    }

    /// Whether an alert still goes on: it may take up a further match, and did so lately.
    #[must_use]
    pub fn is_open(&self, alert: &Alert, now: DateTime<Utc>) -> bool {
        let quiet = TimeDelta::from_std(self.get(&alert.rule.id)).unwrap_or(TimeDelta::MAX);
        let since = now.checked_sub_signed(quiet).unwrap_or(DateTime::<Utc>::MIN_UTC);
        self.folding.contains(&alert.rule.id) && alert.last_at > since
    }
}

/// Follows alerts that were delivered.
pub struct Follower {
    /// Rows and where their deliveries go.
    pub rows: Arc<dyn FollowUps>,
    /// Alerts as they stand.
    pub alerts: Arc<dyn Alerts>,
    /// All sinks.
    pub outlets: Vec<Outlet>,
    /// When an alert is quiet.
    pub quiets: Quiets,
    /// The clock that rows wait by, and the time of day.
    pub clock: Arc<dyn Clock>,
    /// Wakes the lanes when something is to be sent.
    pub wake: Wake,
}

/// The rows of an alert that is about to be committed with its deliveries.
#[must_use]
pub fn begin(alert: &Alert, deliveries: &[NewDelivery], outlets: &[Outlet], at: DateTime<Utc>) -> Vec<NewFollowUp> {
    let of_sink = |name: &str| outlets.iter().find(|outlet| outlet.name == name).and_then(|outlet| outlet.follow);
    let told = deliveries.iter().filter(|delivery| delivery.alert_id == alert.alert_id && delivery.hold.is_none());
    let rows = told.filter_map(|delivery| {
        let follow = of_sink(&delivery.sink)?;
        let not_before = follow.every.map(|every| later(at, every));
        // The first look finds out when the alert will be quiet.
        let when = Look { not_before, due_at: (follow.closing || follow.keeps.is_some()).then_some(at) };
        Some(NewFollowUp {
            alert_id: alert.alert_id.clone(),
            sink: delivery.sink.clone(),
            told_count: alert.count,
            when,
        })
    });
    rows.collect()
}

impl Follower {
    /// Until `stop`. A look that has begun is finished: it is one transaction.
    ///
    /// # Errors
    /// When the store failed for good.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<()> {
        loop {
            let wait = match self.look().await {
                Ok(wait) => wait,
                Err(StoreError::Full(cause)) => {
                    tracing::warn!(%cause, "updates of alerts wait for space");
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

    /// Tells what is due and says when to look again.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn look(&self) -> Result<Duration> {
        let now = self.clock.steady();
        let due = self.rows.due(now).await?;
        let is_full = due.rows.len() >= MAX_FOLLOW_UPS;
        let mut moves = Vec::with_capacity(due.rows.len());
        for read in due.rows {
            let alert = self.alerts.alert(&read.alert_id).await?;
            let step = self.step(&read, alert.as_ref(), now);
            moves.push(FollowMove { read, count: alert.map(|alert| alert.count), step });
        }
        if moves.is_empty() {
            let next_in = due.next_at.map_or(MAX_SLEEP, |at| (at - now).to_std().unwrap_or_default());
            return Ok(next_in.clamp(MIN_SLEEP, MAX_SLEEP));
        }
        let tells = moves.iter().any(|moved| matches!(moved.step, Step::Tell { .. }));
        self.rows.advance(moves, self.clock.now(), now).await?;
        if tells {
            self.wake.wake();
        }
        Ok(if is_full { MIN_SLEEP } else { MAX_SLEEP })
    }

    fn step(&self, read: &FollowUp, alert: Option<&Alert>, now: DateTime<Utc>) -> Step {
        let outlet = self.outlets.iter().find(|outlet| outlet.name == read.sink);
        let (Some(alert), Some(outlet)) = (alert, outlet) else { return Step::End };
        let Some(follow) = outlet.follow else { return Step::End };
        let quiet = self.quiets.get(&alert.rule.id);
        let (told, then) = match decide(read, alert.count, follow, quiet, now) {
            (None, then) => return Step::Wait(then),
            (Some(told), then) => (told, then),
        };
        let number = read.number.saturating_add(1);
        let delivery_id = update_id(&alert.alert_id, &read.sink, number);
        let update = Update {
            alert,
            number,
            told,
            more: alert.count.saturating_sub(read.told_count),
            since: read.told_at,
            alert_delivery_id: &crate::sink::delivery_id(&alert.alert_id, &read.sink),
        };
        let context = RenderContext { delivery_id: &delivery_id, now: self.clock.now(), form: Form::Full };
        let body = outlet.sink.render_update(&update, &context).unwrap_or_else(|error| {
            tracing::error!(sink = %read.sink, alert_id = %alert.alert_id, ?error, "an update reduced to one line");
            update.headline().into_bytes()
        });
        let about = Some(update.alert_delivery_id.to_owned());
        let delivery = NewDelivery::new(delivery_id, alert.alert_id.clone(), read.sink.clone(), body);
        let delivery = NewDelivery { about, ..delivery };
        Step::Tell { delivery: Box::new(delivery), closed: matches!(told, Told::Closing { .. }), then }
    }
}

/// What is told now, and when to look again.
fn decide(read: &FollowUp, count: u64, follow: Follow, quiet: Duration, now: DateTime<Utc>) -> (Option<Told>, Look) {
    let quiet_at = later(read.changed_at.min(now), quiet);
    let has_more = count > read.told_count;
    let owes_closing = follow.closing && (has_more || !read.closed);
    if owes_closing && now >= quiet_at {
        // Where an alert is held open, a further match opens it again, and does not wait.
        let every = follow.every.filter(|_| follow.keeps.is_none());
        let then = Look { not_before: every.map(|every| later(now, every)), due_at: None };
        return (Some(Told::Closing { quiet }), then);
    }
    let told_at = read.told_at.min(now);
    let update_at = follow.every.map(|every| later(told_at, every));
    let keep_at = match (follow.keeps, read.closed, has_more) {
        (None, _, _) | (_, true, false) => None,
        (Some(_), true, true) => Some(now),
        (Some(keeps), false, _) => Some(later(told_at, keeps)),
    };
    // What is quiet is not held open any more.
    let is_open = |at: &DateTime<Utc>| now.max(*at) < quiet_at;
    let tell_at = update_at.filter(|_| has_more).into_iter().chain(keep_at.filter(is_open)).min();
    if tell_at.is_none_or(|at| at > now) {
        let due_at = tell_at.into_iter().chain(owes_closing.then_some(quiet_at)).min();
        return (None, Look { not_before: update_at, due_at });
    }
    // The note is owed whatever was owed before: what is told opens the alert again.
    let keep_at = follow.keeps.map(|keeps| later(now, keeps)).filter(is_open);
    let due_at = keep_at.into_iter().chain(follow.closing.then_some(quiet_at)).min();
    let then = Look { not_before: follow.every.map(|every| later(now, every)), due_at };
    (Some(if has_more { Told::More } else { Told::Still }), then)
}

fn later(at: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(by).ok().and_then(|by| at.checked_add_signed(by)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests;
