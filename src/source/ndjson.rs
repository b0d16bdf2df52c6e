//! Any audit log that people already have as a source: a file or stdin with one JSON object a line.
//!
//! It never loses a line to its neighbours (a bad one becomes poison) and never reads a line of any length into
//! memory. The cursor is a byte offset. A batch is held until its cursor comes back, because stdin cannot be read
//! twice. A file that was rotated while nobody read it is read to its end under its new name first.

mod build;
mod identity;
mod line;
mod reader;
mod rotated;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use vigie_engine::event::Event;

use crate::clock::Clock;
use crate::pipeline::BoxFuture;
use crate::source::ndjson::line::{Read, read_line};
use crate::source::ndjson::reader::Reader;
use crate::source::{Cursor, Fault, Fetched, Notice, NoticeKind, Seen, Source, SourceError};

pub use build::{OPTIONS, build};

/// Lines in a batch: one commit each, small enough to be taken back after a failure.
const MAX_BATCH_LINES: usize = 500;
/// Bytes in a batch: 16 of the largest events.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How often a followed file is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);
/// Notices from one batch; the lines themselves are all kept.
const MAX_NOTICES: usize = 5;
/// How much of an id a notice shows.
const MAX_SHOWN_ID_CHARS: usize = 80;
/// How soon a store that could not answer is asked again.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// How late a line of a followed file is at most, unless the options say otherwise: programs flush their logs within that.
pub const DEFAULT_LATENESS: Duration = Duration::from_secs(60);
/// Version of the cursor.
const VERSION: u32 = 1;

/// Where the parts of an event stand in a line, as dotted paths; of several, the first that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// Identity; lines without one get the BLAKE3 digest of their bytes, and one that another line has is made unique.
    pub id: Vec<String>,
    /// Time: a stamp as text, or a number of seconds, milliseconds or microseconds since 1970.
    pub time: Vec<String>,
    /// Type; copied to `event_type` where a line has none.
    pub event_type: Vec<String>,
}

impl Default for Fields {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            id: list(&["id"]),
            time: list(&["created_at", "timestamp", "time", "@timestamp", "eventTime"]),
            event_type: Vec::new(),
        }
    }
}

/// The time that an event says it is of, if it can be read.
#[must_use]
pub fn time_of(event: &Event, fields: &Fields) -> Option<DateTime<Utc>> {
    line::time_of(event, fields)
}

/// What to read.
#[derive(Debug, Clone)]
pub struct NdjsonOptions {
    /// The source's name: its identity in the store.
    pub name: String,
    /// The file; `None` is stdin.
    pub path: Option<PathBuf>,
    /// Where the parts of an event stand.
    pub fields: Fields,
    /// Wait for more at the end (and take up the next file when it is rotated or truncated).
    pub follow: bool,
    /// How late a line may be written to a followed file, for rules that wait for something that does not come.
    pub lateness: Duration,
}

/// A file or stdin.
#[derive(Debug)]
pub struct NdjsonSource {
    options: NdjsonOptions,
    clock: Arc<dyn Clock>,
    reader: Option<Reader>,
    held: Option<Held>,
}

/// Which file, and how far it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Position {
    version: u32,
    /// Identity of the file on its device; 0 for stdin.
    file: u64,
    offset: u64,
    /// Stamp of the newest event so far, microseconds; what is dated ahead of our clock does not count.
    #[serde(rename = "newest", default, skip_serializing_if = "Option::is_none")]
    newest_us: Option<i64>,
}

#[derive(Debug)]
struct Held {
    given: Option<Cursor>,
    after: Cursor,
    reads: Vec<Read>,
    ended: bool,
    settled_at: Option<DateTime<Utc>>,
    notices: Vec<Notice>,
}

impl NdjsonSource {
    /// Nothing is opened before the first `fetch`.
    #[must_use]
    pub fn new(options: NdjsonOptions, clock: Arc<dyn Clock>) -> Self {
        Self { options, clock, reader: None, held: None }
    }

    async fn fetch_once(&mut self, cursor: Option<&Cursor>, seen: &dyn Seen) -> Result<Fetched, SourceError> {
        // A look that found nothing leads to the cursor that it began with; it is no batch to be given again.
        let is_next = |held: &Held| held.given.as_ref() != cursor || Some(&held.after) == cursor;
        if self.held.as_ref().is_none_or(is_next) {
            if self.held.take().is_none_or(|held| Some(&held.after) != cursor) {
                self.reader = None;
            }
            self.held = Some(self.read_batch(cursor).await?);
        }
        match &self.held {
            Some(held) => self.fetched(held, seen).await,
            None => Err(stop("no batch is held")),
        }
    }

    async fn read_batch(&mut self, cursor: Option<&Cursor>) -> Result<Held, SourceError> {
        let mut notices = Vec::new();
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.open(cursor, &mut notices).await?,
        };
        let mut lines = Vec::new();
        let mut bytes = 0;
        let mut ended = false;
        while lines.len() < MAX_BATCH_LINES && bytes < MAX_BATCH_BYTES {
            match reader.next_line(self.options.follow).await.map_err(|error| self.unreadable(&error))? {
                Some(line) => {
                    bytes += line.bytes.len();
                    lines.push(line);
                }
                None if (self.options.follow || reader.is_rotated())
                    && reader.take_up_next(self.options.follow).await.map_err(|error| self.unreadable(&error))? => {}
                None => {
                    ended = true;
                    break;
                }
            }
        }
        let reads: Vec<Read> = lines.iter().map(|line| read_line(line, &self.options.fields)).collect();
        let newest_us = position(cursor)?.newest_us.max(newest_us(&reads, self.clock.now()));
        let position = Position { version: VERSION, file: reader.file(), offset: reader.offset(), newest_us };
        let after = serde_json::to_string(&position).map_err(|error| stop(&error.to_string()))?;
        self.reader = Some(reader);
        let settled_at = if ended { self.settled_at(newest_us) } else { None };
        Ok(Held { given: cursor.cloned(), after: Cursor(after), reads, ended, settled_at, notices })
    }

    /// Up to when nothing is missing at the end of the input. Of a finite one that is its newest event, by event time; whoever
    /// writes to a followed one may be late by the option `lateness`.
    fn settled_at(&self, newest_us: Option<i64>) -> Option<DateTime<Utc>> {
        if self.options.follow {
            let lateness = TimeDelta::from_std(self.options.lateness).ok()?;
            return self.clock.now().checked_sub_signed(lateness);
        }
        newest_us.and_then(DateTime::from_timestamp_micros)
    }

    async fn open(&self, cursor: Option<&Cursor>, notices: &mut Vec<Notice>) -> Result<Reader, SourceError> {
        let position = position(cursor)?;
        let mut reader = Reader::open(self.options.path.as_deref()).await.map_err(|error| self.unreadable(&error))?;
        let resumed = match (&self.options.path, position.file) {
            (None, _) | (Some(_), 0) => true,
            (Some(_), file) if file == reader.file() => {
                reader.seek(position.offset).await.map_err(|error| self.unreadable(&error))?
            }
            (Some(path), file) => {
                let rest = Reader::open_rotated(path, file, position.offset).await;
                if let Some(rest) = rest.map_err(|error| self.unreadable(&error))? {
                    return Ok(if self.options.follow { rest } else { rest.left() });
                }
                false
            }
        };
        if !resumed {
            notices.push(Notice {
                kind: NoticeKind::AnchorMissing,
                message: format!("the file of source {} was replaced while nobody read it", self.options.name),
            });
        }
        Ok(reader)
    }

    async fn fetched(&self, held: &Held, seen: &dyn Seen) -> Result<Fetched, SourceError> {
        let (mut events, mut poison, mut notices) = (Vec::new(), Vec::new(), held.notices.clone());
        for read in &held.reads {
            match read {
                Read::Nothing => {}
                Read::Event(event) => events.push(event.clone()),
                Read::Poison(kept) => {
                    if poison.len() < MAX_NOTICES {
                        let message = format!("a line is no event ({}); kept as {}", kept.error, kept.id);
                        notices.push(Notice { kind: NoticeKind::PoisonEvent, message });
                    }
                    poison.push(kept.clone());
                }
            }
        }
        let (events, shared) =
            identity::tell_apart(&self.options.name, events, seen).await.map_err(|error| store_failed(&error))?;
        notices.extend(shared);
        Ok(Fetched {
            events,
            before_start: Vec::new(),
            poison,
            repeated: 0,
            cursor: held.after.clone(),
            cursor_may_wait: held.given.as_ref() == Some(&held.after),
            notices,
            settled_at: held.settled_at,
            aloud_from: None,
            learn_from: None,
            next_in: if held.ended { FOLLOW_INTERVAL } else { Duration::ZERO },
            windows_owed: 0,
            finished: held.ended && !self.options.follow,
            at_fault: None,
            caught_up: held.ended,
        })
    }

    fn unreadable(&self, error: &std::io::Error) -> SourceError {
        let place = self.options.path.as_ref().map_or_else(|| "stdin".into(), |path| path.display().to_string());
        let fault = match self.options.follow {
            // Between two files of a rotation there may be none.
            true => Fault::RetryAfter(FOLLOW_INTERVAL),
            false => Fault::Stop,
        };
        SourceError { fault, message: format!("{place} cannot be read: {error}"), notice: None }
    }
}

fn position(cursor: Option<&Cursor>) -> Result<Position, SourceError> {
    let Some(cursor) = cursor else { return Ok(Position::default()) };
    let position = serde_json::from_str::<Position>(&cursor.0).ok().filter(|position| position.version == VERSION);
    position.ok_or_else(|| stop("the stored cursor cannot be read"))
}

fn newest_us(reads: &[Read], now: DateTime<Utc>) -> Option<i64> {
    let stamps = reads.iter().filter_map(|read| match read {
        Read::Event(event) => Some(event.created_at()),
        Read::Nothing | Read::Poison(_) => None,
    });
    stamps.filter(|at| *at <= now).map(|at| at.timestamp_micros()).max()
}

/// The store answers for itself; the source just asks again.
fn store_failed(error: &crate::store::StoreError) -> SourceError {
    SourceError { fault: Fault::RetryAfter(STORE_RETRY), message: error.to_string(), notice: None }
}

fn stop(message: &str) -> SourceError {
    SourceError { fault: Fault::Stop, message: message.to_owned(), notice: None }
}

impl Source for NdjsonSource {
    fn fetch<'a>(
        &'a mut self,
        cursor: Option<&'a Cursor>,
        seen: &'a dyn Seen,
    ) -> BoxFuture<'a, Result<Fetched, SourceError>> {
        Box::pin(self.fetch_once(cursor, seen))
    }
}

#[cfg(test)]
mod tests;
