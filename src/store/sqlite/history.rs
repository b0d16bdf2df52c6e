//! Stored events in order of time, page by page: what rules are run over again.
//!
//! A page is one short request on the reader, so a running daemon is never kept from a checkpoint for long. Poison and
//! events whose text retention has taken are counted, never given.

use std::sync::Arc;

use rusqlite::{Connection, params};
use vigie_engine::event::text_digest;

use super::SqliteStore;
use super::fault::Fault;
use super::stamp::Stamp;
use crate::store::archive::{HistoryPage, HistoryPlace, HistoryRow, HistoryWindow};
use crate::store::{Result, StoredEvent};

/// Events of a page.
const MAX_PAGE_EVENTS: usize = 500;
/// A page ends with the event that reaches so many bytes of text: 16 of the largest events.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

impl SqliteStore {
    /// What there is to read again, by source name.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn history(&self, window: HistoryWindow) -> Result<Vec<HistoryRow>> {
        self.reader.ask(move |session| count(session.connection, window)).await
    }

    /// The next events of a source: a page of bounded length and size.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn history_page(
        &self,
        source: &str,
        window: HistoryWindow,
        after: Option<HistoryPlace>,
    ) -> Result<HistoryPage> {
        let source = source.to_owned();
        self.reader.ask(move |session| page(session.connection, &source, window, after)).await
    }
}

fn count(connection: &Connection, window: HistoryWindow) -> std::result::Result<Vec<HistoryRow>, Fault> {
    let mut statement = connection.prepare(
        "SELECT s.name, count(*) FILTER (WHERE e.poison IS NULL AND e.raw IS NOT NULL),
                count(*) FILTER (WHERE e.poison IS NOT NULL),
                count(*) FILTER (WHERE e.poison IS NULL AND e.raw IS NULL),
                max(e.created_at) FILTER (WHERE e.poison IS NULL AND e.raw IS NOT NULL)
         FROM sources AS s JOIN events AS e USING (source_id)
         WHERE (?1 IS NULL OR e.created_at >= ?1) AND (?2 IS NULL OR e.created_at < ?2)
         GROUP BY s.name ORDER BY s.name",
    )?;
    let rows = statement.query_map(params![window.from.map(Stamp), window.to.map(Stamp)], |row| {
        let number = |column: usize| row.get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or(0));
        Ok(HistoryRow {
            source: row.get(0)?,
            events: number(1)?,
            poison: number(2)?,
            without_text: number(3)?,
            last_at: row.get::<_, Option<Stamp>>(4)?.map(|stamp| stamp.0),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn page(
    connection: &Connection,
    source: &str,
    window: HistoryWindow,
    after: Option<HistoryPlace>,
) -> std::result::Result<HistoryPage, Fault> {
    let (from_us, after_no) = match after {
        Some(place) => (place.created_at.timestamp_micros(), place.event_no),
        None => (window.from.map_or(i64::MIN, |from| from.timestamp_micros()), i64::MIN),
    };
    let to_us = window.to.map_or(i64::MAX, |to| to.timestamp_micros());
    let mut statement = connection.prepare(
        "SELECT event_no, id, created_at, raw FROM events
         WHERE source_id = (SELECT source_id FROM sources WHERE name = ?1)
           AND created_at >= ?2 AND (created_at > ?2 OR event_no > ?3) AND created_at < ?4
           AND raw IS NOT NULL AND poison IS NULL
         ORDER BY created_at, event_no LIMIT ?5",
    )?;
    let mut rows = statement.query(params![source, from_us, after_no, to_us, MAX_PAGE_EVENTS as i64])?;
    let (mut events, mut next, mut bytes) = (Vec::new(), None, 0);
    while let Some(row) = rows.next()? {
        let created_at = row.get::<_, Stamp>(2)?.0;
        let raw: Arc<str> = row.get::<_, String>(3)?.into();
        bytes += raw.len();
        next = Some(HistoryPlace { created_at, event_no: row.get(0)? });
        let digest = text_digest(&raw);
        events.push(StoredEvent { id: row.get(1)?, created_at, raw, poison: None, digest });
        if bytes >= MAX_PAGE_BYTES {
            return Ok(HistoryPage { events, next });
        }
    }
    let is_last = events.len() < MAX_PAGE_EVENTS;
    Ok(HistoryPage { events, next: next.filter(|_| !is_last) })
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::store::sqlite::SqliteOptions;
    use crate::store::{IngestBatch, Store};

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("a time")
    }

    fn row(id: String, second: i64, text: &str, poison: Option<&str>) -> StoredEvent {
        let raw: Arc<str> = format!("{{\"id\":\"{id}\",\"x\":\"{text}\"}}").into();
        let digest = text_digest(&raw);
        StoredEvent { id, created_at: at(second), raw, poison: poison.map(str::to_owned), digest }
    }

    async fn all(store: &SqliteStore, window: HistoryWindow) -> (Vec<String>, usize) {
        let (mut ids, mut pages, mut after) = (Vec::new(), 0, None);
        loop {
            let page = store.history_page("main", window, after).await.expect("readable");
            pages += 1;
            ids.extend(page.events.into_iter().map(|event| event.id));
            after = page.next;
            if after.is_none() {
                return (ids, pages);
            }
        }
    }

    #[tokio::test]
    async fn events_come_in_order_of_time_and_ties_as_they_were_given() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(directory.path(), &SqliteOptions::daemon()).expect("a store");
        // Later stamps first, and 1100 events of one second under ids that sort the other way round.
        let ties = (0..1100).map(|number| row(format!("t{:04}", 9999 - number), 50, "", None));
        let first = [row("late".into(), 90, "", None), row("bad".into(), 10, "", Some("no JSON"))];
        let batch = |source: &str, events| IngestBatch {
            source: source.into(),
            events,
            at: Some(at(100)),
            ..IngestBatch::default()
        };
        store.commit(batch("main", first.into_iter().chain(ties).collect())).await.expect("committed");
        store.commit(batch("other", vec![row("o".into(), 60, "", None)])).await.expect("committed");
        store.commit(batch("main", vec![row("early".into(), 5, "", None)])).await.expect("committed");

        let (ids, pages) = all(&store, HistoryWindow::default()).await;
        assert_eq!((ids.len(), pages), (1102, 3));
        assert_eq!((ids[0].as_str(), ids[1].as_str(), ids[1101].as_str()), ("early", "t9999", "late"));
        assert!(ids[1..1101].windows(2).all(|pair| pair[0] > pair[1]), "ties keep their order over pages");
        let window = HistoryWindow { from: Some(at(50)), to: Some(at(90)) };
        assert_eq!(all(&store, window).await.0.len(), 1100, "from is in, to is out");

        let rows = store.history(HistoryWindow::default()).await.expect("readable");
        let main =
            HistoryRow { source: "main".into(), events: 1102, poison: 1, without_text: 0, last_at: Some(at(90)) };
        assert_eq!(rows[0], main);
        assert_eq!((rows[1].source.as_str(), rows[1].events), ("other", 1));
    }

    #[tokio::test]
    async fn a_page_of_large_events_ends_early() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(directory.path(), &SqliteOptions::daemon()).expect("a store");
        let text = "x".repeat(200_000);
        let events = (0..50).map(|number| row(format!("e{number}"), number, &text, None)).collect();
        let batch = IngestBatch { source: "main".into(), events, at: Some(at(100)), ..IngestBatch::default() };
        store.commit(batch).await.expect("committed");
        let page = store.history_page("main", HistoryWindow::default(), None).await.expect("readable");
        assert_eq!(page.events.len(), 21, "4 MiB and no more than the event that reaches them");
        let (ids, pages) = all(&store, HistoryWindow::default()).await;
        assert_eq!((ids.len(), pages), (50, 3));
    }
}
