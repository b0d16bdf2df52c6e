//! Follow-ups in SQLite: rows beside alerts, each moved only from the state in which it was read.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Statement, params};

use super::SqliteStore;
use super::fault::Fault;
use super::ingest;
use super::reader::ReadSession;
use super::stamp::Stamp;
use super::writer::Need;
use crate::pipeline::BoxFuture;
use crate::store::Result;
use crate::store::follow::{Due, FollowMove, FollowUp, FollowUps, Look, MAX_FOLLOW_UPS, NewFollowUp, Step};

/// Prepared once per writer.
pub(super) struct Statements<'c> {
    add: Statement<'c>,
    find: Statement<'c>,
    matched: Statement<'c>,
    is_as_read: Statement<'c>,
    wait: Statement<'c>,
    told: Statement<'c>,
    end: Statement<'c>,
}

impl<'c> Statements<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        let prepare = |sql: &str| connection.prepare(sql);
        Ok(Self {
            add: prepare(
                "INSERT INTO follow_ups (alert_id, sink, number, told_count, told_at, changed_at, closed, not_before, due_at)
                 VALUES (?1, ?2, 0, ?3, ?4, ?4, 0, ?5, ?6) ON CONFLICT DO NOTHING",
            )?,
            find: prepare("SELECT sink, not_before, due_at FROM follow_ups WHERE alert_id = ?1")?,
            matched: prepare("UPDATE follow_ups SET changed_at = ?3, due_at = ?4 WHERE alert_id = ?1 AND sink = ?2")?,
            is_as_read: prepare(
                "SELECT 1 FROM follow_ups AS f LEFT JOIN alerts AS a USING (alert_id)
                 WHERE f.alert_id = ?1 AND f.sink = ?2 AND f.number = ?3 AND f.changed_at = ?4 AND a.count IS ?5",
            )?,
            wait: prepare("UPDATE follow_ups SET not_before = ?3, due_at = ?4 WHERE alert_id = ?1 AND sink = ?2")?,
            told: prepare(
                "UPDATE follow_ups SET number = number + 1, told_count = ?3, told_at = ?4, closed = ?5, not_before = ?6,
                                       due_at = ?7
                 WHERE alert_id = ?1 AND sink = ?2",
            )?,
            end: prepare("DELETE FROM follow_ups WHERE alert_id = ?1 AND sink = ?2")?,
        })
    }

    /// Part of the ingest transaction.
    pub(super) fn add(&mut self, new: &NewFollowUp, at: DateTime<Utc>) -> rusqlite::Result<()> {
        let NewFollowUp { alert_id, sink, told_count, when } = new;
        let (not_before, due_at) = (when.not_before.map(Stamp), when.due_at.map(Stamp));
        self.add.execute(params![alert_id, sink, ingest::to_i64(*told_count), Stamp(at), not_before, due_at])?;
        Ok(())
    }

    /// Part of the ingest transaction: the alert took up more matches.
    pub(super) fn matched(&mut self, alert_id: &str, at: DateTime<Utc>) -> rusqlite::Result<()> {
        let rows = self.find.query_map([alert_id], |row| Ok((row.get::<_, String>(0)?, look(row, 1)?)))?;
        for (sink, when) in rows.collect::<rusqlite::Result<Vec<_>>>()? {
            let due_at = when.after_match(at).due_at.map(Stamp);
            self.matched.execute(params![alert_id, sink, Stamp(at), due_at])?;
        }
        Ok(())
    }

    fn advance(
        &mut self,
        moved: &FollowMove,
        (at, due_at): (DateTime<Utc>, DateTime<Utc>),
        ingest: &mut ingest::Statements<'_>,
    ) -> std::result::Result<(), Fault> {
        let FollowUp { alert_id, sink, number, changed_at, .. } = &moved.read;
        let count = moved.count.map(ingest::to_i64);
        if !self.is_as_read.exists(params![alert_id, sink, number, Stamp(*changed_at), count])? {
            return Ok(());
        }
        match &moved.step {
            Step::Wait(when) => {
                self.wait.execute(params![alert_id, sink, when.not_before.map(Stamp), when.due_at.map(Stamp)])?;
            }
            Step::Tell { delivery, closed, then } => {
                ingest.add_delivery(delivery, at, due_at)?;
                let told_at = Stamp(due_at);
                let (not_before, due_at) = (then.not_before.map(Stamp), then.due_at.map(Stamp));
                self.told.execute(params![
                    alert_id,
                    sink,
                    count.unwrap_or_default(),
                    told_at,
                    closed,
                    not_before,
                    due_at
                ])?;
            }
            Step::End => {
                self.end.execute([alert_id, sink])?;
            }
        }
        Ok(())
    }
}

impl FollowUps for SqliteStore {
    fn due(&self, now: DateTime<Utc>) -> BoxFuture<'_, Result<Due>> {
        Box::pin(self.reader.ask(move |session| due(session, now)))
    }

    fn advance(&self, moves: Vec<FollowMove>, at: DateTime<Utc>, due_at: DateTime<Utc>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.writer.submit(Need::Space, move |session| {
            let (follow, ingest) = (&mut session.follow, &mut session.ingest);
            moves.iter().try_for_each(|moved| follow.advance(moved, (at, due_at), ingest))
        }))
    }
}

/// See [`crate::store::Store::take_over`].
pub(super) fn take_over(connection: &Connection, now: DateTime<Utc>) -> std::result::Result<(), Fault> {
    connection.execute(
        "UPDATE follow_ups SET told_at = min(told_at, ?1), changed_at = min(changed_at, ?1),
                               not_before = min(not_before, ?1), due_at = min(due_at, ?1)
         WHERE told_at > ?1 OR changed_at > ?1",
        [Stamp(now)],
    )?;
    Ok(())
}

fn due(session: &ReadSession<'_>, now: DateTime<Utc>) -> std::result::Result<Due, Fault> {
    let connection = session.connection;
    let next: Option<Stamp> =
        connection.query_row("SELECT min(due_at) FROM follow_ups WHERE due_at IS NOT NULL", [], |row| row.get(0))?;
    let mut due = connection.prepare(
        "SELECT alert_id, sink, number, told_count, told_at, changed_at, closed FROM follow_ups
         WHERE due_at IS NOT NULL AND due_at <= ?1 ORDER BY due_at LIMIT ?2",
    )?;
    let limit = i64::try_from(MAX_FOLLOW_UPS).unwrap_or(i64::MAX);
    let rows = due.query_map(params![Stamp(now), limit], |row| {
        Ok(FollowUp {
            alert_id: row.get(0)?,
            sink: row.get(1)?,
            number: row.get(2)?,
            told_count: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
            told_at: row.get::<_, Stamp>(4)?.0,
            changed_at: row.get::<_, Stamp>(5)?.0,
            closed: row.get(6)?,
        })
    })?;
    Ok(Due { rows: rows.collect::<rusqlite::Result<_>>()?, next_at: next.map(|stamp| stamp.0) })
}

fn look(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<Look> {
    let stamp = |column: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<Stamp>>(column)?.map(|stamp| stamp.0));
    Ok(Look { not_before: stamp(from)?, due_at: stamp(from + 1)? })
}
