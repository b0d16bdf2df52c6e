//! Follow-ups in memory.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{Content, MemoryStore};
use crate::pipeline::BoxFuture;
use crate::store::Result;
use crate::store::follow::{Due, FollowMove, FollowUp, FollowUps, Look, MAX_FOLLOW_UPS, NewFollowUp, Step};

/// Rows by alert and sink.
#[derive(Debug, Default)]
pub(super) struct Rows(BTreeMap<(String, String), (FollowUp, Look)>);

impl Rows {
    pub(super) fn add(&mut self, new: NewFollowUp, at: DateTime<Utc>) {
        let NewFollowUp { alert_id, sink, told_count, when } = new;
        let key = (alert_id.clone(), sink.clone());
        let row = FollowUp { alert_id, sink, number: 0, told_count, told_at: at, changed_at: at, closed: false };
        self.0.entry(key).or_insert((row, when));
    }

    /// The alert took up more matches.
    pub(super) fn matched(&mut self, alert_id: &str, at: DateTime<Utc>) {
        for (row, when) in self.0.values_mut().filter(|(row, _)| row.alert_id == alert_id) {
            row.changed_at = at;
            *when = when.after_match(at);
        }
    }

    /// The sink is told of it no more.
    pub(super) fn forget(&mut self, alert_id: &str, sink: &str) {
        self.0.remove(&(alert_id.to_owned(), sink.to_owned()));
    }

    /// See [`crate::store::Store::take_over`].
    pub(super) fn take_over(&mut self, now: DateTime<Utc>) {
        for (row, when) in self.0.values_mut().filter(|(row, _)| row.told_at > now || row.changed_at > now) {
            (row.told_at, row.changed_at) = (row.told_at.min(now), row.changed_at.min(now));
            when.not_before = when.not_before.map(|at| at.min(now));
            when.due_at = when.due_at.map(|at| at.min(now));
        }
    }

    fn due(&self, now: DateTime<Utc>) -> Due {
        let mut timed: Vec<(DateTime<Utc>, &FollowUp)> =
            self.0.values().filter_map(|(row, when)| Some((when.due_at?, row))).collect();
        timed.sort_by_key(|(due_at, _)| *due_at);
        let due = timed.iter().filter(|(due_at, _)| *due_at <= now).take(MAX_FOLLOW_UPS);
        Due { rows: due.map(|(_, row)| (*row).clone()).collect(), next_at: timed.first().map(|(due_at, _)| *due_at) }
    }
}

impl Content {
    fn advance(&mut self, moved: FollowMove, at: DateTime<Utc>, due_at: DateTime<Utc>) {
        let FollowMove { read, count, step } = moved;
        let now = self.alert_index.get(&read.alert_id).and_then(|&place| self.alerts.get(place));
        let is_same = now.map(|alert| alert.new.alert.count) == count;
        let key = (read.alert_id, read.sink);
        let is_as_read = |row: &FollowUp| is_same && row.number == read.number && row.changed_at == read.changed_at;
        let Some((row, look)) = self.follow_ups.0.get_mut(&key).filter(|(row, _)| is_as_read(row)) else { return };
        match step {
            Step::Wait(when) => *look = when,
            Step::Tell { delivery, closed, then } => {
                row.number += 1;
                row.told_count = count.unwrap_or_default();
                (row.told_at, row.closed, *look) = (due_at, closed, then);
                self.add_delivery(*delivery, at, due_at);
            }
            Step::End => drop(self.follow_ups.0.remove(&key)),
        }
    }
}

impl FollowUps for MemoryStore {
    fn due(&self, now: DateTime<Utc>) -> BoxFuture<'_, Result<Due>> {
        let due = self.content().follow_ups.due(now);
        Box::pin(std::future::ready(Ok(due)))
    }

    fn advance(&self, moves: Vec<FollowMove>, at: DateTime<Utc>, due_at: DateTime<Utc>) -> BoxFuture<'_, Result<()>> {
        let mut content = self.content();
        moves.into_iter().for_each(|moved| content.advance(moved, at, due_at));
        Box::pin(std::future::ready(Ok(())))
    }
}
