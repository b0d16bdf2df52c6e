//! Events of the past for verbs that run rules over them: from a file, from the API, or from the store.
//!
//! Each source is a part of its own, in order of event time; those of one moment keep the order in which the source gave
//! them. Files and answers of the API are held in memory, since they come in any order, up to named limits; the store is
//! read page by page beside a running daemon. An id counts once.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Offset as _, Utc};
use indicatif::ProgressBar;
use vigie_engine::event::Event;

use super::exit::{Exit, Failure, WithExit};
use crate::clock::SystemClock;
use crate::pipeline::BoxFuture;
use crate::source::ndjson::{DEFAULT_LATENESS, Fields, NdjsonOptions, NdjsonSource};
use crate::source::vonage::event::{Content, read_row};
use crate::source::{self, Seen, Source};
use crate::store::archive::{HistoryPlace, HistoryWindow};
use crate::store::sqlite::SqliteStore;

/// Most events that are held: more than two years of ten a minute.
const MAX_HELD_EVENTS: usize = 10_000_000;
/// Most text that is held: about a million events of 1 KiB, on a machine that runs other things too.
const MAX_HELD_BYTES: usize = 1024 * 1024 * 1024;
/// Events that are made ready at a time.
const PAGE_EVENTS: usize = 500;

/// What is to be run over.
#[derive(Debug, Default)]
pub(super) struct History {
    /// By source name.
    pub(super) parts: Vec<Part>,
    /// What takes no part.
    pub(super) skipped: Skipped,
    /// Time of the newest event: time goes so far and no further.
    pub(super) last_at: Option<DateTime<Utc>>,
}

/// Rows that are not run over.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Skipped {
    /// Ids that came again.
    pub(super) duplicates: u64,
    /// Rows that are no events.
    pub(super) poison: u64,
    /// Events of which retention has left the id only.
    pub(super) without_text: u64,
    /// Events outside of the window that was asked for (a file has all of them in it).
    pub(super) outside: u64,
    /// Why the first poison row is no event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_poison: Option<String>,
}

/// Events of one source in order of time.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) source: String,
    /// How many there are (a store may have got some more meanwhile).
    pub(super) events: u64,
    feed: Feed,
}

#[derive(Debug)]
enum Feed {
    Held(std::vec::IntoIter<Held>),
    Stored { store: Arc<SqliteStore>, window: HistoryWindow, after: Option<HistoryPlace>, ended: bool },
}

/// An event before it is parsed: a fifth of the memory.
#[derive(Debug)]
struct Held {
    at: DateTime<Utc>,
    id: Box<str>,
    raw: Arc<str>,
}

/// Collects events that come in any order.
pub(super) struct Gathering {
    window: HistoryWindow,
    held: Vec<Held>,
    held_bytes: usize,
    seen: HashSet<u128>,
    skipped: Skipped,
}

impl History {
    /// Reads a file, or stdin for `None`, with one JSON object a line.
    pub(super) async fn of_file(
        source: &str,
        path: Option<&Path>,
        fields: Fields,
        window: HistoryWindow,
        bar: &ProgressBar,
    ) -> Result<Self, Failure> {
        let path = path.map(Path::to_path_buf);
        let (name, lateness) = (source.to_owned(), DEFAULT_LATENESS);
        let options = NdjsonOptions { name, path, fields, follow: false, lateness };
        let mut reader = NdjsonSource::new(options, Arc::new(SystemClock));
        let mut gathering = Gathering::new(window);
        let mut cursor = None;
        loop {
            let fetched = reader.fetch(cursor.as_ref(), &NothingStored).await.exit(Exit::USAGE)?;
            bar.inc(fetched.events.len() as u64);
            fetched.poison.iter().for_each(|row| gathering.refuse(&row.error));
            fetched.events.iter().try_for_each(|event| gathering.take(event))?;
            if fetched.finished {
                return Ok(gathering.into_history(source));
            }
            cursor = Some(fetched.cursor);
        }
    }

    /// What the store holds of the sources that `is_wanted` names.
    pub(super) async fn of_store(
        store: Arc<SqliteStore>,
        window: HistoryWindow,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Self, Failure> {
        let mut history = Self::default();
        for row in store.history(window).await.exit(Exit::STORAGE)? {
            if !is_wanted(&row.source) {
                continue;
            }
            history.skipped.poison += row.poison;
            history.skipped.without_text += row.without_text;
            history.last_at = history.last_at.max(row.last_at);
            let feed = Feed::Stored { store: store.clone(), window, after: None, ended: false };
            history.parts.push(Part { source: row.source, events: row.events, feed });
        }
        Ok(history)
    }

    /// How many events there are.
    pub(super) fn events(&self) -> u64 {
        self.parts.iter().map(|part| part.events).sum()
    }
}

impl Part {
    /// The next events, none at the end. What turns out to be no event is counted in `skipped`.
    pub(super) async fn next(&mut self, skipped: &mut Skipped) -> Result<Vec<Event>, Failure> {
        loop {
            let page: Vec<(String, DateTime<Utc>, Arc<str>)> = match &mut self.feed {
                Feed::Held(held) => {
                    held.take(PAGE_EVENTS).map(|event| (event.id.into(), event.at, event.raw)).collect()
                }
                Feed::Stored { ended: true, .. } => Vec::new(),
                Feed::Stored { store, window, after, ended } => {
                    let page = store.history_page(&self.source, *window, *after).await.exit(Exit::STORAGE)?;
                    (*after, *ended) = (page.next, page.next.is_none());
                    page.events.into_iter().map(|event| (event.id, event.created_at, event.raw)).collect()
                }
            };
            if page.is_empty() {
                return Ok(Vec::new());
            }
            let mut events = Vec::with_capacity(page.len());
            for (id, at, raw) in page {
                match Event::new(&id, at, raw) {
                    Ok(event) => events.push(event),
                    Err(error) => skipped.poison(&error.to_string()),
                }
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

impl Skipped {
    fn poison(&mut self, error: &str) {
        self.poison += 1;
        self.first_poison.get_or_insert_with(|| error.to_owned());
    }
}

impl Gathering {
    pub(super) fn new(window: HistoryWindow) -> Self {
        Self { window, held: Vec::new(), held_bytes: 0, seen: HashSet::new(), skipped: Skipped::default() }
    }

    /// Takes an event that is new and lies in the window.
    pub(super) fn take(&mut self, event: &Event) -> Result<(), Failure> {
        let (at, HistoryWindow { from, to }) = (event.created_at(), self.window);
        if from.is_some_and(|from| at < from) || to.is_some_and(|to| at >= to) {
            self.skipped.outside += 1;
            return Ok(());
        }
        if !self.seen.insert(digest(event.id())) {
            self.skipped.duplicates += 1;
            return Ok(());
        }
        self.held_bytes += event.id().len() + event.raw().len();
        if self.held.len() >= MAX_HELD_EVENTS || self.held_bytes > MAX_HELD_BYTES {
            let text = format!(
                "more than {MAX_HELD_EVENTS} events or {} MiB of them: narrow the time with --since and --until",
                MAX_HELD_BYTES >> 20
            );
            return Err(Failure::text(Exit::UNAVAILABLE, text));
        }
        self.held.push(Held { at, id: event.id().into(), raw: event.raw().clone() });
        Ok(())
    }

    /// Takes a row of the API; stamps without a zone are read as UTC.
    pub(super) fn take_row(&mut self, raw: &Arc<str>, now: DateTime<Utc>) -> Result<(), Failure> {
        match read_row(raw, Utc.fix(), now).content {
            Content::Event(event) => self.take(&event),
            Content::Poison(poison) => {
                self.refuse(&poison.error);
                Ok(())
            }
        }
    }

    fn refuse(&mut self, error: &str) {
        self.skipped.poison(error);
    }

    /// In order of time, ties as they came.
    pub(super) fn into_history(mut self, source: &str) -> History {
        self.held.sort_by_key(|event| event.at);
        let last_at = self.held.last().map(|event| event.at);
        let events = self.held.len() as u64;
        let part = Part { source: source.to_owned(), events, feed: Feed::Held(self.held.into_iter()) };
        History { parts: vec![part], skipped: self.skipped, last_at }
    }
}

/// Two ids share 128 bits of a digest by no chance that matters.
fn digest(id: &str) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(blake3::hash(id.as_bytes()).as_bytes().first_chunk::<16>().unwrap_or(&[0; 16]));
    u128::from_le_bytes(bytes)
}

/// A file that is read once asks no store.
struct NothingStored;

impl Seen for NothingStored {
    fn held<'a>(&'a self, _: &'a str, ids: &'a [String]) -> BoxFuture<'a, crate::store::Result<Vec<source::Held>>> {
        Box::pin(async move { Ok(ids.iter().map(|_| source::Held::Nothing).collect()) })
    }

    fn count<'a>(&'a self, _: &'a str, _: DateTime<Utc>, _: DateTime<Utc>) -> BoxFuture<'a, crate::store::Result<u64>> {
        Box::pin(async { Ok(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, second: i64) -> Event {
        let raw = format!("{{\"id\":\"{id}\"}}");
        Event::new(id, DateTime::from_timestamp(second, 0).expect("a time"), raw.into()).expect("an event")
    }

    async fn ids(history: &mut History) -> Vec<String> {
        let mut ids = Vec::new();
        for part in &mut history.parts {
            loop {
                let events = part.next(&mut history.skipped).await.expect("readable");
                if events.is_empty() {
                    break;
                }
                ids.extend(events.iter().map(|event| event.id().to_owned()));
            }
        }
        ids
    }

    #[tokio::test]
    async fn events_are_sorted_by_time_ties_stay_and_an_id_counts_once() {
        let at = |second| DateTime::from_timestamp(second, 0);
        let mut gathering = Gathering::new(HistoryWindow { from: at(10), to: at(30) });
        for (id, second) in [("z", 20), ("a", 20), ("late", 29), ("z", 11), ("early", 10), ("out", 30), ("out2", 9)] {
            gathering.take(&event(id, second)).expect("room");
        }
        let mut history = gathering.into_history("file");
        assert_eq!((history.events(), history.last_at), (4, at(29)));
        assert_eq!(ids(&mut history).await, ["early", "z", "a", "late"]);
        assert_eq!((history.skipped.duplicates, history.skipped.outside), (1, 2));
    }

    #[tokio::test]
    async fn a_file_gives_events_and_says_what_it_left_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let line = |number: usize| format!("{{\"id\":\"e{number}\",\"time\":{}}}\n", 1_700_000_000 - number);
        let text: String = (0..1_201).map(line).collect();
        std::fs::write(&path, format!("{text}{{\"id\":\"x\"}}\nnot json\n{}", line(7))).expect("written");
        let bar = ProgressBar::hidden();
        let window = HistoryWindow::default();
        let read = History::of_file("file", Some(&path), Fields::default(), window, &bar).await;
        let mut history = read.expect("readable");
        let ids = ids(&mut history).await;
        assert_eq!((ids.len(), ids[0].as_str(), ids[1_200].as_str()), (1_201, "e1200", "e0"));
        assert_eq!((history.skipped.poison, history.skipped.duplicates), (2, 1));
        assert!(history.skipped.first_poison.as_deref().is_some_and(|error| error.contains("no time")));
        let missing = History::of_file("file", Some(Path::new("/no/where")), Fields::default(), window, &bar).await;
        assert_eq!(missing.expect_err("missing").exit, Exit::USAGE);
    }
}
