//! The history before a source's start: how much of it the stateful rules have learned from, and what each rule would have
//! fired. Nothing of it is delivered; one summary is told when all of it was read.
//!
//! One row a source is committed with the events, so that a restart goes on counting.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use vigie_engine::state::{StateChange, StateRows};

use super::notice::SelfNotice;
use super::own_rows::OwnRows;
use super::status::HistoryStatus;

const ROWS: OwnRows =
    OwnRows { kind: "history", unreadable: "how much history was read cannot be read; counting begins anew" };
/// Rules that a summary names, the loudest first.
const MAX_NAMED: usize = 20;

/// All sources that read their history.
#[derive(Debug, Clone, Default)]
pub struct History {
    sources: BTreeMap<String, Read>,
}

/// What was read of one source's history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Read {
    events: u64,
    oldest_us: Option<i64>,
    /// Matches by rule that stayed silent.
    matches: BTreeMap<String, u64>,
    is_told: bool,
}

/// What a batch changes: to be committed with it, then taken over.
#[derive(Debug)]
pub(super) struct Change {
    source: String,
    read: Read,
}

impl History {
    /// Takes up what the store kept.
    pub fn take_up(&mut self, rows: &StateRows) {
        self.sources.extend(ROWS.read(rows));
    }

    /// Adds events of the past and the matches that they would have been.
    pub(super) fn add(&self, source: &str, stamps: &[DateTime<Utc>], matches: &[(String, u64)]) -> Option<Change> {
        if stamps.is_empty() && matches.is_empty() {
            return None;
        }
        let mut read = self.sources.get(source).cloned().unwrap_or_default();
        read.events += stamps.len() as u64;
        let oldest_us = stamps.iter().map(DateTime::timestamp_micros).min();
        read.oldest_us = read.oldest_us.into_iter().chain(oldest_us).min();
        for (rule, count) in matches {
            *read.matches.entry(rule.clone()).or_default() += count;
        }
        tracing::info!(source, events = read.events, oldest = ?read.oldest_us.and_then(DateTime::from_timestamp_micros), "history is read");
        Some(Change { source: source.to_owned(), read })
    }

    /// Makes a committed change its own.
    pub(super) fn apply(&mut self, change: Change) {
        self.sources.insert(change.source, change.read);
    }

    /// The summary of a source whose history is read to its end, if it was not told yet, and what marks it as told.
    pub(super) fn summary(&self, source: &str) -> Option<(SelfNotice, Change)> {
        let read = self.sources.get(source).filter(|read| !read.is_told)?;
        let mut loudest: Vec<(&String, &u64)> = read.matches.iter().collect();
        loudest.sort_by_key(|(rule, count)| (std::cmp::Reverse(**count), rule.as_str()));
        let named: Vec<String> =
            loudest.iter().take(MAX_NAMED).map(|(rule, count)| format!("{rule} {count}")).collect();
        let oldest = read.oldest_us.and_then(DateTime::from_timestamp_micros).unwrap_or_default();
        let text = format!(
            "{} events since {} were learned from; silent matches: {}",
            read.events,
            oldest.to_rfc3339_opts(SecondsFormat::Secs, true),
            if named.is_empty() { "none".into() } else { named.join(", ") }
        );
        let notice = SelfNotice { event_type: "VIGIE_HISTORY_READ", about: source.to_owned(), text };
        let told = Read { is_told: true, ..read.clone() };
        Some((notice, Change { source: source.to_owned(), read: told }))
    }
}

impl Change {
    /// How far the reading is.
    pub(super) fn progress(&self) -> HistoryStatus {
        let oldest_at = self.read.oldest_us.and_then(DateTime::from_timestamp_micros);
        HistoryStatus { events: self.read.events, oldest_at }
    }

    /// The row for the store.
    pub(super) fn row(&self) -> StateChange {
        ROWS.write(&self.source, &self.read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_counted_over_restarts_and_told_once() {
        let mut history = History::default();
        assert!(history.summary("main").is_none() && history.add("main", &[], &[]).is_none());
        for day in [20, 10] {
            let at = DateTime::from_timestamp(day * 86_400, 0).expect("valid");
            let change = history.add("main", &[at, at], &[("loud".into(), 2), ("calm".into(), 1)]).expect("a change");
            assert!(history.clone().sources.get("main").is_none_or(|read| read.events < change.read.events));
            let row = change.row();
            history.apply(change);
            history = History::default();
            let rows = StateRows::of([(row.key, row.value.expect("a value"))]);
            rows.iter().for_each(|rows| history.take_up(rows));
        }
        let (notice, told) = history.summary("main").expect("a summary");
        let text = "4 events since 1970-01-11T00:00:00Z were learned from; silent matches: loud 4, calm 2";
        assert_eq!((notice.about.as_str(), notice.text.as_str()), ("main", text));
        assert!(history.summary("main").is_some(), "what is not committed is told again");
        history.apply(told);
        assert!(history.summary("main").is_none());
    }
}
