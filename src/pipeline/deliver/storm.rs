//! A storm: more alerts wait for a sink than it takes within sensible time. What is beyond folds into one digest a rule.
//!
//! The oldest go by themselves, and so does every rule that has but a few: a flood folds and does not hide what is rare. It
//! never drops anything: what a digest tells of stays in the store and names its digest. Only rows that were never tried
//! fold, for of any other nobody can say that it was not told.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Lane;
use crate::options::Options;
use crate::pipeline::digest::{self, Line, Why};
use crate::pipeline::{follow, notice};
use crate::sink::update::Follow;
use crate::sink::{DIGEST, delivery_id};
use crate::store::hold::{Fold, MAX_FOLDED, Standing};
use crate::store::{NewAlert, Result};

/// How often one sink is told of a storm.
const FOLD_EVERY: Duration = Duration::from_secs(60);
/// How soon it is looked at again when nothing folded.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// Below this each alert of a rule is told by itself.
const MIN_FOLDED: usize = 3;

/// When a sink's alerts fold.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// So many go by themselves.
    pub above: usize,
    /// What the sink wants to hear of an alert that it got.
    pub follow: Option<Follow>,
}

impl Storm {
    /// What a sink's options ask for, if its kind folds at all.
    #[must_use]
    pub fn of(options: &Options) -> Option<Self> {
        let above = options.integer(DIGEST.name).and_then(|above| usize::try_from(above).ok())?;
        Some(Self { above, follow: Follow::of(options) })
    }
}

impl Lane {
    /// Folds what waits beyond the limit, at most once in [`FOLD_EVERY`].
    pub(super) async fn fold_storm(&mut self, now: Instant) -> Result<()> {
        let Some(storm) = self.storm.filter(|_| now >= self.next_fold) else { return Ok(()) };
        self.next_fold = now + LOOK_AGAIN;
        let waiting = self.shared.store.queue(&self.name).await?.depth;
        if waiting <= storm.above as u64 || self.health.is_probing() {
            return Ok(());
        }
        let rows = self.shared.holds.waiting(&self.name, storm.above, MAX_FOLDED).await?;
        let mut by_rule: BTreeMap<String, Vec<(String, Line)>> = BTreeMap::new();
        for (id, alert_id) in rows {
            // Updates are told by themselves: they are few by their nature.
            let alert = if id == delivery_id(&alert_id, &self.name) {
                self.shared.alerts.alert(&alert_id).await?
            } else {
                None
            };
            // So is what the program says of itself, and a digest.
            if let Some(alert) = alert.filter(|alert| alert.source != notice::SOURCE) {
                by_rule.entry(alert.rule.id.clone()).or_default().push((id, Line::of(&alert)));
            }
        }
        for group in by_rule.into_values().filter(|group| group.len() >= MIN_FOLDED) {
            self.fold_group(group, storm).await?;
            self.next_fold = now + FOLD_EVERY;
        }
        Ok(())
    }

    async fn fold_group(&self, group: Vec<(String, Line)>, storm: Storm) -> Result<()> {
        let (told, lines): (Vec<String>, Vec<Line>) = group.into_iter().unzip();
        let (at, due_at) = (self.shared.clock.now(), self.shared.clock.steady());
        let Some(alert) = digest::digest(&self.name, Why::Storm, &lines) else { return Ok(()) };
        let outlet = self.outlet(storm.follow);
        let delivery = outlet.render(&alert, at);
        let follow_ups = follow::begin(&alert, std::slice::from_ref(&delivery), std::slice::from_ref(&outlet), due_at);
        tracing::warn!(sink = ?self.name, alerts = told.len(), "more waits than the sink takes: told as one");
        let fold = Fold {
            sink: self.name.clone(),
            standing: Standing::Waiting,
            told,
            digest: Some((NewAlert { alert, muted_by: None }, delivery)),
            sent: Vec::new(),
            held: Vec::new(),
            follow_ups,
            at,
            due_at,
        };
        self.shared.holds.fold(fold).await
    }
}
