//! The thread that reads, on a connection of its own: a listing never waits for an fsync, and the writer never for a listing.
//!
//! It changes nothing (the connection is `query_only`). Each request sees one snapshot, which holds everything that was
//! committed before the request was made.

use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, Statement, params};
use tokio::sync::{mpsc, oneshot};
use vigie_engine::event::Digest;
use vigie_engine::state::StateRows;

use super::fault::{Class, Fault};
use super::stamp::Stamp;
use crate::source::{Cursor, Held};
use crate::store::{LaneState, Loaded, Queue, Result, STATE_GRACE_DAYS, StateStream};

/// Requests that may wait.
const QUEUE: usize = 64;

/// Rows of rule state that are handed over at a time: enough to be worth it, few enough that both sides work at once.
const ROWS_PER_PART: usize = 10_000;

/// Parts that wait for the side that takes them.
const MAX_PARTS: usize = 8;

/// Cursors by source, lanes by sink, and when the newest cursor was stored.
type Sources = (Vec<(String, Cursor)>, Vec<(String, LaneState)>, Option<DateTime<Utc>>);

/// What the reader's requests work with.
pub(super) struct ReadSession<'c> {
    pub(super) connection: &'c Connection,
    held: Statement<'c>,
    count: Statement<'c>,
    find_source: Statement<'c>,
    due: Statement<'c>,
    dead: Statement<'c>,
}

type Job = Box<dyn FnOnce(&mut ReadSession<'_>) + Send>;

/// The way to the reader.
#[derive(Debug)]
pub(super) struct Reader {
    requests: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Starts the thread.
    pub(super) fn start(connection: Connection) -> std::result::Result<Self, Fault> {
        let (requests, inbox) = mpsc::channel(QUEUE);
        let (ready, started) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("store-reader".into())
            .spawn(move || serve(&connection, inbox, |outcome| ready.send(outcome).is_ok()))
            .map_err(|error| Fault::new(Class::Broken, error))?;
        started.recv().map_err(|_| Fault::gone())??;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Runs `read` on one snapshot.
    pub(super) async fn ask<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut ReadSession<'_>) -> std::result::Result<T, Fault> + Send + 'static,
    {
        let gone = || Fault::gone().into_store_error();
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |session| {
            let value = session.on_snapshot(read).map_err(Fault::into_store_error);
            drop(reply.send(value));
        });
        self.requests.as_ref().ok_or_else(gone)?.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// What a start needs.
    pub(super) async fn load(&self) -> Result<Loaded> {
        let gone = || Fault::gone().into_store_error();
        let (begun, answer) = oneshot::channel();
        let job: Job = Box::new(move |session| session.load(begun));
        self.requests.as_ref().ok_or_else(gone)?.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's reader ended by a panic");
        }
    }
}

fn serve(
    connection: &Connection,
    mut inbox: mpsc::Receiver<Job>,
    ready: impl FnOnce(std::result::Result<(), Fault>) -> bool,
) {
    let mut session = match ReadSession::prepare(connection) {
        Ok(session) => session,
        Err(error) => {
            ready(Err(error.into()));
            return;
        }
    };
    if !ready(Ok(())) {
        return;
    }
    while let Some(job) = inbox.blocking_recv() {
        job(&mut session);
    }
}

impl<'c> ReadSession<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        let prepare = |sql: &str| connection.prepare(sql);
        Ok(Self {
            connection,
            held: prepare("SELECT digest FROM events WHERE source_id = ?1 AND id = ?2")?,
            count: prepare(
                "SELECT count(*) FROM events WHERE source_id = ?1 AND created_at >= ?2 AND created_at < ?3",
            )?,
            find_source: prepare("SELECT source_id FROM sources WHERE name = ?1")?,
            due: prepare(
                "SELECT count(*), min(next_at), min(owed_since) FROM deliveries WHERE status = 0 AND sink = ?1",
            )?,
            dead: prepare(
                "SELECT count(*), (SELECT asked_at FROM lanes WHERE sink = ?1) FROM deliveries
                 WHERE status = 3 AND sink = ?1",
            )?,
        })
    }

    fn on_snapshot<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> std::result::Result<T, Fault>,
    ) -> std::result::Result<T, Fault> {
        let connection = self.connection;
        connection.execute_batch("BEGIN")?;
        let value = read(self);
        connection.execute_batch("COMMIT")?;
        value
    }

    pub(super) fn held(&mut self, source: &str, ids: &[String]) -> std::result::Result<Vec<Held>, Fault> {
        let Some(source_no) = self.source_no(source)? else { return Ok(vec![Held::Nothing; ids.len()]) };
        let mut held = Vec::with_capacity(ids.len());
        for id in ids {
            let found = self.held.query_row(params![source_no, id], |row| row.get::<_, Option<Digest>>(0));
            held.push(match found.optional()? {
                None => Held::Nothing,
                Some(digest) => digest.map_or(Held::Unknown, Held::Content),
            });
        }
        Ok(held)
    }

    pub(super) fn count(
        &mut self,
        source: &str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> std::result::Result<u64, Fault> {
        let Some(source_no) = self.source_no(source)? else { return Ok(0) };
        let count: i64 = self.count.query_row(params![source_no, Stamp(from), Stamp(to)], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    pub(super) fn queue(&mut self, sink: &str) -> std::result::Result<Queue, Fault> {
        let (dead, asked_at): (i64, Option<Stamp>) =
            self.dead.query_row([sink], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (depth, next_due_at, oldest_created_at): (i64, Option<Stamp>, Option<Stamp>) =
            self.due.query_row([sink], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(Queue {
            depth: u64::try_from(depth).unwrap_or(0),
            next_due_at: next_due_at.map(|stamp| stamp.0),
            oldest_created_at: oldest_created_at.map(|stamp| stamp.0),
            dead: u64::try_from(dead).unwrap_or(0),
            asked_at: asked_at.map(|stamp| stamp.0),
        })
    }

    /// Gives what a start needs through `begun`, and then rule state part by part, until nobody takes it.
    fn load(&mut self, begun: oneshot::Sender<Result<Loaded>>) {
        let (parts, state) = StateStream::channel(MAX_PARTS);
        let mut begun = Some((begun, state));
        let outcome = self.on_snapshot(|session| {
            let (cursors, lanes, newest) = session.load_sources()?;
            let is_wanted =
                begun.take().is_some_and(|(begun, state)| begun.send(Ok(Loaded { cursors, state, lanes })).is_ok());
            if is_wanted { session.load_state(newest, &parts) } else { Ok(()) }
        });
        if let Err(fault) = outcome {
            let error = fault.into_store_error();
            // Whoever asked is gone, or hears of it.
            match begun {
                Some((begun, _)) => drop(begun.send(Err(error))),
                None => drop(parts.blocking_send(Err(error))),
            }
        }
    }

    fn load_sources(&mut self) -> std::result::Result<Sources, Fault> {
        let (mut found, mut newest): (_, Option<DateTime<Utc>>) = (Vec::new(), None);
        let mut cursors =
            self.connection.prepare("SELECT name, cursor, cursor_at FROM sources WHERE cursor IS NOT NULL")?;
        let mut rows = cursors.query([])?;
        while let Some(row) = rows.next()? {
            found.push((row.get(0)?, Cursor(row.get(1)?)));
            newest = newest.max(row.get::<_, Option<Stamp>>(2)?.map(|stamp| stamp.0));
        }
        let mut states = Vec::new();
        let mut lanes = self.connection.prepare("SELECT sink, step, paused_until, reason FROM lanes")?;
        let mut rows = lanes.query([])?;
        while let Some(row) = rows.next()? {
            let paused_until = row.get::<_, Option<Stamp>>(2)?.map(|stamp| stamp.0);
            states.push((row.get(0)?, LaneState { step: row.get(1)?, paused_until, reason: row.get(3)? }));
        }
        Ok((found, states, newest))
    }

    /// State is expired by the time of the newest commit, since a store is told no other time. What was set lately stays:
    /// old events are being read, and their time goes on from there.
    fn load_state(
        &mut self,
        newest: Option<DateTime<Utc>>,
        parts: &mpsc::Sender<Result<StateRows>>,
    ) -> std::result::Result<(), Fault> {
        let kept_from = newest.map_or(i64::MIN, |newest| state_kept_from(newest).timestamp_micros());
        let mut kinds = self.connection.prepare(
            "SELECT rule_id, kind FROM state WHERE (rule_id, kind) > (?1, ?2) ORDER BY rule_id, kind LIMIT 1",
        )?;
        let mut state = self.connection.prepare(
            "SELECT key, value FROM state WHERE rule_id = ?1 AND kind = ?2
                AND (expires_at IS NULL OR expires_at >= ?3 OR set_at >= ?3) ORDER BY key",
        )?;
        let mut at = (String::new(), String::new());
        let next = |row: &rusqlite::Row<'_>| Ok::<(String, String), _>((row.get(0)?, row.get(1)?));
        while let Some((rule_id, kind)) = kinds.query_row(params![at.0, at.1], next).optional()? {
            let mut found = state.query(params![rule_id, kind, kept_from])?;
            loop {
                let mut rows = Vec::new();
                while rows.len() < ROWS_PER_PART
                    && let Some(row) = found.next()?
                {
                    rows.push((row.get(0)?, row.get(1)?));
                }
                let is_end = rows.len() < ROWS_PER_PART;
                let part = StateRows { rule_id: rule_id.clone(), kind: kind.clone(), rows };
                if parts.blocking_send(Ok(part)).is_err() {
                    return Ok(());
                }
                if is_end {
                    break;
                }
            }
            at = (rule_id, kind);
        }
        Ok(())
    }

    fn source_no(&mut self, name: &str) -> std::result::Result<Option<i64>, Fault> {
        Ok(self.find_source.query_row([name], |row| row.get(0)).optional()?)
    }
}

/// State that expired before this is gone. See [`STATE_GRACE_DAYS`].
pub(super) fn state_kept_from(now: DateTime<Utc>) -> DateTime<Utc> {
    now.checked_sub_signed(TimeDelta::days(STATE_GRACE_DAYS)).unwrap_or(DateTime::<Utc>::MIN_UTC)
}
