//! Retention: removes what has served its time, in chunks, so that ingest waits for one chunk at most.
//!
//! It never removes a delivery that is owed or dead, nor an id that a look-back could show again: an id goes only when both
//! its event time and its commit lie further back than any look-back, counted from the source's own last commit, so that a
//! source that was not polled for months forgets nothing.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, params};

use super::SqliteStore;
use super::fault::{Class, Fault};
use super::reader::state_kept_from;
use super::stamp::Stamp;
use super::writer::Need;
use crate::store::Result;
use crate::store::archive::Maintained;

/// Rows that one transaction looks at: a few milliseconds of the writer's time.
const CHUNK_ROWS: i64 = 500;
/// Transactions in one run: bounds a run to some seconds; the next run goes on.
const MAX_CHUNKS: usize = 400;
/// Free pages (4 KiB) given back to the file system after each chunk.
const VACUUM_PAGES: i64 = 256;
/// A look-back widens up to 30 days; a day to spare for zones and padding.
const SEEN_DAYS: i64 = 31;

/// Where a run stands.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Alerts in order of commit, after this one.
    Alerts {
        after_us: i64,
        after_no: i64,
    },
    Raw,
    Seen,
    State,
}

/// What one transaction did.
#[derive(Debug, Default)]
struct Chunk {
    removed: Maintained,
    next: Option<Step>,
}

/// Bounds of one run.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    now: DateTime<Utc>,
    kept_from: DateTime<Utc>,
    seen: TimeDelta,
}

impl SqliteStore {
    /// Removes delivered alerts with their deliveries and ledger, raw events, seen ids and expired state that are older than
    /// `retention` (ids: at least 31 days, state: see [`crate::store::STATE_GRACE_DAYS`]).
    ///
    /// # Errors
    /// As every call of a store; what was removed until then stays so.
    pub async fn maintain(&self, now: DateTime<Utc>, retention: Duration) -> Result<Maintained> {
        let retention = TimeDelta::from_std(retention).unwrap_or(TimeDelta::MAX);
        let kept_from = now.checked_sub_signed(retention).unwrap_or(DateTime::<Utc>::MIN_UTC);
        let bounds = Bounds { now, kept_from, seen: retention.max(TimeDelta::days(SEEN_DAYS)) };
        let mut total = Maintained::default();
        let mut step = Some(Step::Alerts { after_us: i64::MIN, after_no: 0 });
        for _ in 0..MAX_CHUNKS {
            let Some(current) = step else { break };
            let chunk =
                self.writer.submit(Need::Space, move |session| sweep(session.connection, current, bounds)).await?;
            total.deliveries += chunk.removed.deliveries;
            total.alerts += chunk.removed.alerts;
            total.events += chunk.removed.events;
            total.seen += chunk.removed.seen;
            total.state += chunk.removed.state;
            step = chunk.next;
        }
        total.more = step.is_some();
        Ok(total)
    }

    /// Bytes of the database and its log on the disk.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn store_bytes(&self) -> Result<u64> {
        let database = self.directory.database();
        let mut bytes = 0;
        for suffix in ["", "-wal"] {
            let mut path = database.clone().into_os_string();
            path.push(suffix);
            bytes += match std::fs::metadata(path) {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
                Err(error) => return Err(Fault::new(Class::Refused, error).into_store_error()),
            };
        }
        Ok(bytes)
    }
}

fn sweep(connection: &Connection, step: Step, bounds: Bounds) -> std::result::Result<Chunk, Fault> {
    let chunk = match step {
        Step::Alerts { after_us, after_no } => sweep_alerts(connection, (after_us, after_no), bounds)?,
        Step::Raw => sweep_raw(connection, bounds)?,
        Step::Seen => sweep_seen(connection, bounds)?,
        Step::State => sweep_state(connection, bounds)?,
    };
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let mut freed = vacuum.query([])?;
    while freed.next()?.is_some() {}
    Ok(chunk)
}

/// An alert goes when nothing is owed or dead and its last delivery and last match are old too.
fn sweep_alerts(connection: &Connection, after: (i64, i64), bounds: Bounds) -> std::result::Result<Chunk, Fault> {
    let kept_from = Stamp(bounds.kept_from);
    let mut old = connection.prepare(
        "SELECT a.created_at, a.alert_no, a.alert_id, a.last_at >= ?1 OR EXISTS
                (SELECT 1 FROM deliveries AS d
                 WHERE d.alert_id = a.alert_id AND (d.status IN (0, 3) OR d.look_at IS NOT NULL OR d.settled_at >= ?1))
         FROM alerts AS a WHERE a.created_at < ?1 AND (a.created_at, a.alert_no) > (?2, ?3)
         ORDER BY a.created_at, a.alert_no LIMIT ?4",
    )?;
    let rows: Vec<(i64, i64, String, bool)> = old
        .query_map(params![kept_from, after.0, after.1, CHUNK_ROWS], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut remove_attempts = connection.prepare(
        "DELETE FROM attempts WHERE delivery_no IN (SELECT delivery_no FROM deliveries WHERE alert_id = ?1)",
    )?;
    let mut remove_deliveries = connection.prepare("DELETE FROM deliveries WHERE alert_id = ?1")?;
    let mut remove_alert = connection.prepare("DELETE FROM alerts WHERE alert_no = ?1")?;
    let mut remove_follow_ups = connection.prepare("DELETE FROM follow_ups WHERE alert_id = ?1")?;
    let mut chunk = Chunk::default();
    for (_, alert_no, alert_id, _) in rows.iter().filter(|(.., is_kept)| !is_kept) {
        remove_attempts.execute([alert_id])?;
        remove_follow_ups.execute([alert_id])?;
        chunk.removed.deliveries += remove_deliveries.execute([alert_id])? as u64;
        chunk.removed.alerts += remove_alert.execute([alert_no])? as u64;
    }
    let full = i64::try_from(rows.len()).is_ok_and(|found| found == CHUNK_ROWS);
    chunk.next = match rows.last() {
        Some(&(after_us, after_no, ..)) if full => Some(Step::Alerts { after_us, after_no }),
        _ => Some(Step::Raw),
    };
    Ok(chunk)
}

/// Events lie in the order of their commits, so a mark says how far their raw text is gone. An alert that stays takes the
/// text over first.
fn sweep_raw(connection: &Connection, bounds: Bounds) -> std::result::Result<Chunk, Fault> {
    let mark = read_mark(connection, "raw")?;
    let (upto, full) = walk(connection, mark, bounds.kept_from)?;
    let range = params![mark, upto];
    connection.execute(
        "UPDATE alerts SET event = (SELECT raw FROM events AS e WHERE e.event_no = alerts.event_no), event_no = NULL
         WHERE event_no > ?1 AND event_no <= ?2",
        range,
    )?;
    let events = connection.execute("UPDATE events SET raw = NULL WHERE event_no > ?1 AND event_no <= ?2", range)?;
    write_mark(connection, "raw", upto)?;
    let next = if full { Step::Raw } else { Step::Seen };
    Ok(Chunk { removed: Maintained { events: events as u64, ..Maintained::default() }, next: Some(next) })
}

/// Walks behind the raw text. The mark returns to the start after each pass, for rows that had to stay then.
fn sweep_seen(connection: &Connection, bounds: Bounds) -> std::result::Result<Chunk, Fault> {
    let mark = read_mark(connection, "seen")?;
    let cut = bounds.now.checked_sub_signed(bounds.seen).unwrap_or(DateTime::<Utc>::MIN_UTC);
    let (upto, full) = walk(connection, mark, cut)?;
    let seen = connection.execute(
        "DELETE FROM events WHERE event_no > ?1 AND event_no <= ?2 AND raw IS NULL AND max(created_at, stored_at) <
            (SELECT min(coalesce(cursor_at, ?3), ?3) - ?4 FROM sources AS s WHERE s.source_id = events.source_id)",
        params![mark, upto, Stamp(bounds.now), bounds.seen.num_microseconds().unwrap_or(i64::MAX)],
    )?;
    write_mark(connection, "seen", if full { upto } else { 0 })?;
    let next = if full { Step::Seen } else { Step::State };
    Ok(Chunk { removed: Maintained { seen: seen as u64, ..Maintained::default() }, next: Some(next) })
}

fn sweep_state(connection: &Connection, bounds: Bounds) -> std::result::Result<Chunk, Fault> {
    let removed = connection.execute(
        "DELETE FROM state WHERE (rule_id, kind, key) IN
            (SELECT rule_id, kind, key FROM state WHERE expires_at < ?1 AND set_at < ?1 LIMIT ?2)",
        params![Stamp(state_kept_from(bounds.now)), CHUNK_ROWS],
    )?;
    let full = i64::try_from(removed).is_ok_and(|removed| removed == CHUNK_ROWS);
    let removed = Maintained { state: removed as u64, ..Maintained::default() };
    Ok(Chunk { removed, next: full.then_some(Step::State) })
}

/// The last of the next rows after `mark` that were all committed before `cut`, and whether more may follow.
fn walk(connection: &Connection, mark: i64, cut: DateTime<Utc>) -> std::result::Result<(i64, bool), Fault> {
    let mut next = connection
        .prepare("SELECT event_no, stored_at < ?2 FROM events WHERE event_no > ?1 ORDER BY event_no LIMIT ?3")?;
    let mut rows = next.query(params![mark, Stamp(cut), CHUNK_ROWS])?;
    let (mut upto, mut walked) = (mark, 0);
    while let Some(row) = rows.next()? {
        if !row.get::<_, bool>(1)? {
            break;
        }
        upto = row.get(0)?;
        walked += 1;
    }
    Ok((upto, walked == CHUNK_ROWS))
}

fn read_mark(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    let mark =
        connection.query_row("SELECT event_no FROM marks WHERE name = ?1", [name], |row| row.get(0)).optional()?;
    Ok(mark.unwrap_or(0))
}

fn write_mark(connection: &Connection, name: &str, event_no: i64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO marks VALUES (?1, ?2) ON CONFLICT DO UPDATE SET event_no = excluded.event_no";
    connection.execute(sql, params![name, event_no])?;
    Ok(())
}
