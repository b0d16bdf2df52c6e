//! Holds in SQLite: rows of `deliveries` that wait for something else than their sink, and the table of silences.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::fault::Fault;
use super::ingest;
use super::stamp::Stamp;
use super::writer::Need;
use crate::pipeline::BoxFuture;
use crate::store::follow::NewFollowUp;
use crate::store::hold::{
    Fold, Holds, MAX_FOLDED, MAX_LOOK, Released, Standing, StoredSilence, ToldAlert, Unconfirmed,
};
use crate::store::{NewDelivery, Result};

/// Silences in one listing, in force or not; each is read by every alert while it is in force.
const MAX_SILENCES: usize = 1_000;
const SILENCE_COLUMNS: &str = "silence_id, matchers, owner, reason, starts_at, ends_at, created_at";

impl SqliteStore {
    /// Adds a silence.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn add_silence(&self, silence: &StoredSilence) -> Result<()> {
        let new = silence.clone();
        self.writer
            .submit(Need::Space, move |session| {
                session.connection.execute(
                    &format!("INSERT INTO silences ({SILENCE_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"),
                    params![
                        new.silence_id,
                        new.matchers,
                        new.owner,
                        new.reason,
                        Stamp(new.starts_at),
                        Stamp(new.ends_at),
                        Stamp(new.created_at)
                    ],
                )?;
                Ok(())
            })
            .await
    }

    /// Silences, the one that ends last first; those that ended before `from` left out.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn list_silences(&self, from: DateTime<Utc>) -> Result<Vec<StoredSilence>> {
        self.reader.ask(move |session| silences(session.connection, DateTime::<Utc>::MAX_UTC, from)).await
    }

    /// Ends a silence at `now`; what it hid is told then. Whether there was one to end.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn expire_silence(&self, silence_id: &str, now: DateTime<Utc>) -> Result<bool> {
        let id = silence_id.to_owned();
        self.writer
            .submit(Need::Space, move |session| {
                let ended = session.connection.execute(
                    "UPDATE silences SET ends_at = ?2, starts_at = min(starts_at, ?2) WHERE silence_id = ?1 AND ends_at > ?2",
                    params![id, Stamp(now)],
                )?;
                session.connection.execute(
                    "UPDATE deliveries SET look_at = ?2 WHERE status = 5 AND muted_by = ?1 AND look_at > ?2",
                    params![format!("silence {id}"), Stamp(now)],
                )?;
                Ok(ended > 0)
            })
            .await
    }
}

impl Holds for SqliteStore {
    fn unconfirmed(&self, steady: DateTime<Utc>) -> BoxFuture<'_, Result<Vec<Unconfirmed>>> {
        Box::pin(self.reader.ask(move |session| {
            // Two searches, each by its index: what waits in time may be many rows.
            let columns = "d.delivery_id, d.alert_id, d.sink, d.fallback, d.status = 3, d.owed_since,
                coalesce((SELECT a.status FROM attempts AS a WHERE a.delivery_no = d.delivery_no
                          ORDER BY a.number DESC LIMIT 1), '')";
            let of = |condition: &str| {
                format!(
                    "SELECT {columns} FROM deliveries AS d WHERE d.look_at IS NOT NULL AND d.fallback IS NOT NULL
                     AND {condition} ORDER BY d.look_at LIMIT ?2"
                )
            };
            let limit = MAX_LOOK as i64;
            let mut found = Vec::new();
            for condition in ["d.status = 0 AND d.look_at <= ?1", "d.status = 3 AND ?1 IS NOT NULL"] {
                let mut statement = session.connection.prepare(&of(condition))?;
                for row in statement.query_map(params![Stamp(steady), limit], unconfirmed)? {
                    found.push(row?);
                }
            }
            found.truncate(MAX_LOOK);
            Ok(found)
        }))
    }

    fn fall_back<'a>(
        &'a self,
        delivery_id: &'a str,
        (deliveries, follow_ups): (Vec<NewDelivery>, Vec<NewFollowUp>),
        at: DateTime<Utc>,
        due_at: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<()>> {
        let delivery_id = delivery_id.to_owned();
        Box::pin(self.writer.submit(Need::Space, move |session| {
            let sql = "SELECT 1 FROM deliveries WHERE delivery_id = ?1 AND status IN (0, 3) AND look_at IS NOT NULL";
            if session.connection.prepare(sql)?.exists([&delivery_id])? {
                for delivery in &deliveries {
                    session.ingest.add_delivery(delivery, at, due_at)?;
                    send_muted(session.connection, &delivery.sink, std::slice::from_ref(delivery), due_at)?;
                }
                follow_ups.iter().try_for_each(|new| session.follow.add(new, due_at))?;
            }
            session
                .connection
                .execute("UPDATE deliveries SET look_at = NULL WHERE delivery_id = ?1", [&delivery_id])?;
            Ok(())
        }))
    }

    fn released(&self, now: DateTime<Utc>) -> BoxFuture<'_, Result<Option<Released>>> {
        Box::pin(self.reader.ask(move |session| released(session.connection, now)))
    }

    fn waiting<'a>(&'a self, sink: &'a str, skip: usize, limit: usize) -> BoxFuture<'a, Result<Vec<(String, String)>>> {
        let (sink, skip, limit) = (sink.to_owned(), skip as i64, limit.min(MAX_FOLDED) as i64);
        Box::pin(self.reader.ask(move |session| {
            let mut statement = session.connection.prepare(
                "SELECT delivery_id, alert_id FROM deliveries
                 WHERE status = 0 AND sink = ?1 AND attempts = 0 ORDER BY delivery_no LIMIT ?2 OFFSET ?3",
            )?;
            let rows = statement.query_map(params![sink, limit, skip], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        }))
    }

    fn fold(&self, fold: Fold) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.writer.submit(Need::Space, move |session| {
            if write_fold(session.connection, &mut session.ingest, &fold)? {
                fold.follow_ups.iter().try_for_each(|new| session.follow.add(new, fold.due_at))?;
            }
            Ok(())
        }))
    }

    fn silences(&self, now: DateTime<Utc>) -> BoxFuture<'_, Result<Vec<StoredSilence>>> {
        // `ends_at > now` and stored whole: microseconds are what a stamp keeps.
        Box::pin(self.reader.ask(move |session| silences(session.connection, now, now)))
    }

    fn told_between<'a>(
        &'a self,
        sink: &'a str,
        repeat_key: &'a str,
        (since, until): (DateTime<Utc>, DateTime<Utc>),
    ) -> BoxFuture<'a, Result<Option<ToldAlert>>> {
        let (sink, key) = (sink.to_owned(), repeat_key.to_owned());
        Box::pin(self.reader.ask(move |session| {
            let mut statement = session.connection.prepare(
                "SELECT d.alert_id, d.created_at FROM deliveries AS d
                 LEFT JOIN deliveries AS t ON t.delivery_id = d.told_in
                 WHERE d.sink = ?1 AND d.repeat_key = ?2 AND d.created_at > ?3 AND d.created_at <= ?4
                   AND (d.status IN (0, 1, 2) OR (d.status = 4 AND t.status IN (0, 1, 2)))
                 ORDER BY d.delivery_no DESC LIMIT 1",
            )?;
            let found = statement.query_row(params![sink, key, Stamp(since), Stamp(until)], |row| {
                Ok((row.get(0)?, row.get::<_, Stamp>(1)?.0))
            });
            Ok(found.optional()?)
        }))
    }
}

fn unconfirmed(row: &Row<'_>) -> rusqlite::Result<Unconfirmed> {
    Ok(Unconfirmed {
        delivery_id: row.get(0)?,
        alert_id: row.get(1)?,
        sink: row.get(2)?,
        // Written by this program; what cannot be read names nobody.
        to: serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default(),
        is_dead: row.get(4)?,
        owed_since: row.get::<_, Stamp>(5)?.0,
        last_status: row.get(6)?,
    })
}

fn released(connection: &Connection, now: DateTime<Utc>) -> std::result::Result<Option<Released>, Fault> {
    let mut first = connection.prepare(
        "SELECT sink, muted_by, coalesce(note, '') FROM deliveries
         WHERE look_at IS NOT NULL AND look_at <= ?1 AND status = 5 ORDER BY look_at, delivery_no LIMIT 1",
    )?;
    let found = first.query_row([Stamp(now)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let Some((sink, by, note)) = found else { return Ok(None) };
    let (sink, by): (String, String) = (sink, by);
    let mut all = connection.prepare(
        "SELECT delivery_id, alert_id FROM deliveries
         WHERE look_at IS NOT NULL AND look_at <= ?1 AND status = 5 AND sink = ?2 AND muted_by = ?3
         ORDER BY delivery_no LIMIT ?4",
    )?;
    let rows = all.query_map(params![Stamp(now), sink, by, MAX_FOLDED as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows = rows.collect::<rusqlite::Result<_>>()?;
    Ok(Some(Released { sink, by, note, rows }))
}

fn write_fold(
    connection: &Connection,
    ingest: &mut ingest::Statements<'_>,
    fold: &Fold,
) -> std::result::Result<bool, Fault> {
    let Fold { sink, standing, told, digest, sent, held, follow_ups: _, at, due_at } = fold;
    if digest.is_none() && !told.is_empty() {
        return Err(Fault::refused("told of without a digest"));
    }
    // A row that was tried may have been delivered: it is told of by itself.
    let condition = match standing {
        Standing::Waiting => "status = 0 AND attempts = 0 AND leased = 0",
        Standing::Muted => "status = 5",
    };
    let mut stands = connection
        .prepare(&format!("SELECT 1 FROM deliveries WHERE delivery_id = ?1 AND sink = ?2 AND {condition}"))?;
    for delivery_id in told {
        if !stands.exists([delivery_id, sink])? {
            return Ok(false);
        }
    }
    if let Some((alert, delivery)) = digest {
        ingest.add_alert(alert, None, *at)?;
        ingest.add_delivery(delivery, *at, *due_at)?;
        take_over_fallbacks(connection, told, &delivery.delivery_id)?;
        let mut fold_one = connection.prepare(
            "UPDATE deliveries SET status = 4, told_in = ?2, settled_at = ?3, look_at = NULL WHERE delivery_id = ?1",
        )?;
        for delivery_id in told {
            fold_one.execute(params![delivery_id, delivery.delivery_id, Stamp(*at)])?;
        }
    }
    let of_told = "SELECT alert_id FROM deliveries WHERE delivery_id = ?1";
    // Whoever was told of an alert by a digest alone is not told how it goes on.
    let mut forget =
        connection.prepare(&format!("DELETE FROM follow_ups WHERE sink = ?2 AND alert_id = ({of_told})"))?;
    let mut unmute = connection.prepare(&format!("UPDATE alerts SET muted_by = NULL WHERE alert_id = ({of_told})"))?;
    for delivery_id in told {
        forget.execute([delivery_id, sink])?;
    }
    for delivery_id in told.iter().chain(sent.iter().map(|delivery| &delivery.delivery_id)) {
        unmute.execute([delivery_id])?;
    }
    send_muted(connection, sink, sent, *due_at)?;
    let mut hold = connection.prepare(&format!(
        "UPDATE deliveries SET muted_by = ?3, note = ?4, look_at = {} WHERE delivery_id = ?1 AND sink = ?2 AND status = 5",
        ingest::LOOK_AT_OF_HOLD
    ))?;
    for (delivery_id, new) in held {
        hold.execute(params![delivery_id, sink, new.by, new.note, new.until.map(Stamp)])?;
    }
    Ok(true)
}

/// Rows that were muted and are sent, rendered anew.
fn send_muted(
    connection: &Connection,
    sink: &str,
    sent: &[NewDelivery],
    due_at: DateTime<Utc>,
) -> std::result::Result<(), Fault> {
    let mut send = connection.prepare(
        "UPDATE deliveries SET status = 0, body = ?3, note = ?4, next_at = ?5, owed_since = ?5, fallback = ?6,
                               look_at = ?7, repeat_key = ?8
         WHERE delivery_id = ?1 AND sink = ?2 AND status = 5",
    )?;
    for delivery in sent {
        let NewDelivery { delivery_id, body, note, fallback, repeat_key, .. } = delivery;
        let look_at = fallback.as_ref().map(|fallback| Stamp(fallback.at));
        let fallback = fallback.as_ref().map(|fallback| serde_json::Value::from(fallback.to.clone()).to_string());
        send.execute(params![delivery_id, sink, body, note, Stamp(due_at), fallback, look_at, repeat_key])?;
    }
    Ok(())
}

/// What the folded deliveries have beside their sink, the digest has: all of their other sinks, at the first of their times.
fn take_over_fallbacks(connection: &Connection, told: &[String], digest_id: &str) -> std::result::Result<(), Fault> {
    let mut read = connection.prepare(
        "SELECT fallback, look_at FROM deliveries
         WHERE delivery_id = ?1 AND status = 0 AND fallback IS NOT NULL AND look_at IS NOT NULL",
    )?;
    let (mut to, mut at): (Vec<String>, Option<Stamp>) = (Vec::new(), None);
    for delivery_id in told {
        let found = read.query_row([delivery_id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Stamp>(1)?)));
        let Some((sinks, look_at)) = found.optional()? else { continue };
        let sinks: Vec<String> = serde_json::from_str(&sinks).unwrap_or_default();
        to.extend(sinks.into_iter().filter(|sink| !to.contains(sink)).collect::<Vec<_>>());
        at = Some(at.map_or(look_at, |at| if look_at.0 < at.0 { look_at } else { at }));
    }
    if let Some(at) = at {
        let to = serde_json::Value::from(to).to_string();
        connection.execute(
            "UPDATE deliveries SET fallback = ?2, look_at = ?3 WHERE delivery_id = ?1",
            params![digest_id, to, at],
        )?;
    }
    Ok(())
}

fn silences(
    connection: &Connection,
    begun_at: DateTime<Utc>,
    ends_after: DateTime<Utc>,
) -> std::result::Result<Vec<StoredSilence>, Fault> {
    let mut statement = connection.prepare(&format!(
        "SELECT {SILENCE_COLUMNS} FROM silences WHERE starts_at <= ?1 AND ends_at > ?2
         ORDER BY ends_at DESC, silence_id LIMIT ?3"
    ))?;
    let rows = statement.query_map(params![Stamp(begun_at), Stamp(ends_after), MAX_SILENCES as i64], |row| {
        let stamp = |column: usize| row.get::<_, Stamp>(column).map(|stamp| stamp.0);
        Ok(StoredSilence {
            silence_id: row.get(0)?,
            matchers: row.get(1)?,
            owner: row.get(2)?,
            reason: row.get(3)?,
            starts_at: stamp(4)?,
            ends_at: stamp(5)?,
            created_at: stamp(6)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
