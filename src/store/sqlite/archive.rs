//! What the command line and the console ask: listings on the reader, `retry` and `replay` on the writer.
//!
//! A listing is newest first and bounded; it never changes a row. `retry` and `replay` may run in a second process beside the
//! daemon: they are short transactions of their own.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use serde_json::value::RawValue;
use vigie_engine::alert::Alert;

use super::SqliteStore;
use super::fault::Fault;
use super::ingest::severity_number;
use super::schema::status;
use super::stamp::Stamp;
use super::writer::Need;
use crate::store::Result;
use crate::store::archive::{
    AlertDetail, AlertFilter, AlertRow, AttemptRow, DeliveryDetail, DeliveryFilter, DeliveryRow, DeliveryStatus,
    EventRow, EventTypeRow, Named, PoisonFilter, Retried, list_limit,
};

/// Dead letters that one transaction of `replay` revives.
const REPLAY_CHUNK: usize = 1000;

const ALERT_COLUMNS: &str =
    "a.body, a.count, a.first_at, a.last_at, a.event_ids, coalesce(a.event, e.raw), a.created_at,
    a.muted_by, count(*) FILTER (WHERE d.status = 0), count(*) FILTER (WHERE d.status IN (1, 2, 4)),
    count(*) FILTER (WHERE d.status = 3), count(*) FILTER (WHERE d.status = 5)";
const ALERT_TABLES: &str = "alerts AS a LEFT JOIN events AS e ON e.event_no = a.event_no
    LEFT JOIN deliveries AS d ON d.alert_id = a.alert_id";
const DELIVERY_COLUMNS: &str =
    "d.delivery_id, d.alert_id, d.sink, d.status, d.attempts, d.degraded, d.created_at, d.next_at,
    d.settled_at, d.muted_by, d.note, d.told_in, d.body, d.delivery_no";
const EVENT_COLUMNS: &str = "s.name, e.id, e.created_at, e.stored_at, e.raw, e.poison";

impl SqliteStore {
    /// Alerts, newest first.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn alerts(&self, filter: &AlertFilter) -> Result<Vec<AlertRow>> {
        let filter = filter.clone();
        self.reader.ask(move |session| list_alerts(session.connection, &filter)).await
    }

    /// One alert with its deliveries and their attempts.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn alert(&self, alert_id: &str) -> Result<Option<AlertDetail>> {
        let alert_id = alert_id.to_owned();
        self.reader.ask(move |session| show_alert(session.connection, &alert_id)).await
    }

    /// Deliveries, newest first.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>> {
        let filter = filter.clone();
        self.reader.ask(move |session| list_deliveries(session.connection, &filter)).await
    }

    /// One delivery with its body and its ledger.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn delivery(&self, delivery_id: &str) -> Result<Option<DeliveryDetail>> {
        let delivery_id = delivery_id.to_owned();
        self.reader
            .ask(move |session| {
                let found = deliveries_where(session.connection, "d.delivery_id = ?1", &delivery_id)?;
                Ok(found.into_iter().next())
            })
            .await
    }

    /// Makes an owed or dead delivery due at `now`, and its sink's lane end its pause. A dead one starts anew: its age and its
    /// count of attempts begin at 0, its ledger goes on.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn retry(&self, delivery_id: &str, now: DateTime<Utc>) -> Result<Retried> {
        let delivery_id = delivery_id.to_owned();
        self.writer.submit(Need::Space, move |session| retry(session.connection, &delivery_id, now)).await
    }

    /// Revives the dead letters (of one sink, or of all) that were given up at or after `since`, as [`SqliteStore::retry`]
    /// does; tells how many.
    ///
    /// # Errors
    /// As every call of a store; what was revived until then stays so.
    pub async fn replay(&self, sink: Option<&str>, since: DateTime<Utc>, now: DateTime<Utc>) -> Result<u64> {
        let mut total = 0;
        loop {
            let sink = sink.map(str::to_owned);
            let revived = self
                .writer
                .submit(Need::Space, move |session| replay_chunk(session.connection, sink.as_deref(), since, now))
                .await?;
            total += revived as u64;
            if revived < REPLAY_CHUNK {
                return Ok(total);
            }
        }
    }

    /// A stored event, or poison row, by its id.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn event(&self, source: &str, id: &str) -> Result<Option<EventRow>> {
        let (source, id) = (source.to_owned(), id.to_owned());
        self.reader
            .ask(move |session| {
                let sql = format!(
                    "SELECT {EVENT_COLUMNS} FROM events AS e JOIN sources AS s USING (source_id)
                     WHERE s.name = ?1 AND e.id = ?2"
                );
                let mut statement = session.connection.prepare(&sql)?;
                Ok(statement.query_row([&source, &id], read_event).optional()?)
            })
            .await
    }

    /// Rows that are no events, newest first.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn poison(&self, filter: &PoisonFilter) -> Result<Vec<EventRow>> {
        let filter = filter.clone();
        self.reader
            .ask(move |session| {
                let sql = format!(
                    "SELECT {EVENT_COLUMNS} FROM events AS e JOIN sources AS s USING (source_id)
                     WHERE e.poison IS NOT NULL AND (:source IS NULL OR s.name = :source)
                       AND (:since IS NULL OR e.stored_at >= :since)
                     ORDER BY e.event_no DESC LIMIT :limit"
                );
                let mut statement = session.connection.prepare(&sql)?;
                let rows = statement.query_map(
                    named_params! {
                        ":source": filter.source,
                        ":since": filter.since.map(Stamp),
                        ":limit": list_limit(filter.limit) as i64,
                    },
                    read_event,
                )?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }

    /// Every name of this sort that a row bears, in order.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn names(&self, named: Named) -> Result<Vec<String>> {
        let sql = match named {
            Named::Sink => "SELECT DISTINCT sink FROM deliveries ORDER BY 1",
            Named::Rule => "SELECT DISTINCT rule_id FROM alerts ORDER BY 1",
            Named::Source => "SELECT name FROM sources UNION SELECT source FROM alerts ORDER BY 1",
        };
        self.reader
            .ask(move |session| {
                let mut statement = session.connection.prepare(sql)?;
                let names = statement.query_map([], |row| row.get(0))?;
                Ok(names.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }

    /// Up to `limit` events of a source from `since` on, oldest first, poison left out: what rules are run over again. Go on
    /// with the last one's `(created_at, id)` as `after`.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn events_since(
        &self,
        source: &str,
        since: DateTime<Utc>,
        after: Option<(DateTime<Utc>, &str)>,
        limit: usize,
    ) -> Result<Vec<EventRow>> {
        let source = source.to_owned();
        let (after_at, after_id) = after.map_or((since, String::new()), |(at, id)| (at, id.to_owned()));
        self.reader
            .ask(move |session| {
                let sql = format!(
                    "SELECT {EVENT_COLUMNS} FROM events AS e JOIN sources AS s USING (source_id)
                     WHERE e.source_id = (SELECT source_id FROM sources WHERE name = ?1) AND e.created_at >= ?2
                       AND (e.created_at, e.id) > (?2, ?3) AND e.raw IS NOT NULL AND e.poison IS NULL
                     ORDER BY e.created_at, e.id LIMIT ?4"
                );
                let mut statement = session.connection.prepare(&sql)?;
                let rows = statement
                    .query_map(params![source, Stamp(after_at), after_id, list_limit(limit) as i64], read_event)?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }

    /// Event types that any source has ever shown, retention notwithstanding.
    ///
    /// # Errors
    /// As every call of a store.
    pub async fn event_types(&self) -> Result<Vec<EventTypeRow>> {
        self.reader
            .ask(|session| {
                let mut statement = session.connection.prepare(
                    "SELECT s.name, t.event_type, t.first_at FROM event_types AS t JOIN sources AS s USING (source_id)
                     ORDER BY s.name, t.event_type",
                )?;
                let rows = statement.query_map([], |row| {
                    let first_at: Stamp = row.get(2)?;
                    Ok(EventTypeRow { source: row.get(0)?, event_type: row.get(1)?, first_at: first_at.0 })
                })?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }
}

/// As [`crate::store::Maintain::muted`].
pub(super) fn muted(
    connection: &Connection,
    muted_by: &str,
    after: u64,
    limit: usize,
) -> std::result::Result<Vec<(u64, Alert)>, Fault> {
    let sql = format!(
        "SELECT {ALERT_COLUMNS}, a.alert_no FROM {ALERT_TABLES} WHERE a.muted_by = ?1 AND a.alert_no > ?2
         GROUP BY a.alert_no ORDER BY a.alert_no LIMIT ?3"
    );
    let mut statement = connection.prepare(&sql)?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![muted_by, after, list_limit(limit) as i64])?;
    let mut alerts = Vec::new();
    while let Some(row) = rows.next()? {
        let place = u64::try_from(row.get::<_, i64>(12)?).unwrap_or(0);
        alerts.push((place, read_alert(row)?.alert));
    }
    Ok(alerts)
}

fn list_alerts(connection: &Connection, filter: &AlertFilter) -> std::result::Result<Vec<AlertRow>, Fault> {
    let sql = format!(
        "SELECT {ALERT_COLUMNS} FROM {ALERT_TABLES}
         WHERE (:since IS NULL OR a.created_at >= :since) AND (:rule IS NULL OR a.rule_id = :rule)
           AND (:severity IS NULL OR a.severity >= :severity) AND (:source IS NULL OR a.source = :source)
         GROUP BY a.alert_no ORDER BY a.alert_no DESC LIMIT :limit"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(named_params! {
        ":since": filter.since.map(Stamp),
        ":rule": filter.rule,
        ":severity": filter.min_severity.map(severity_number),
        ":source": filter.source,
        ":limit": list_limit(filter.limit) as i64,
    })?;
    let mut alerts = Vec::new();
    while let Some(row) = rows.next()? {
        alerts.push(read_alert(row)?);
    }
    Ok(alerts)
}

fn show_alert(connection: &Connection, alert_id: &str) -> std::result::Result<Option<AlertDetail>, Fault> {
    let sql = format!("SELECT {ALERT_COLUMNS} FROM {ALERT_TABLES} WHERE a.alert_id = ?1 GROUP BY a.alert_no");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([alert_id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let row = read_alert(row)?;
    let deliveries = deliveries_where(connection, "d.alert_id = ?1", alert_id)?;
    Ok(Some(AlertDetail { row, deliveries }))
}

fn list_deliveries(connection: &Connection, filter: &DeliveryFilter) -> std::result::Result<Vec<DeliveryRow>, Fault> {
    let sql = format!(
        "SELECT {DELIVERY_COLUMNS} FROM deliveries AS d
         WHERE (:status IS NULL OR d.status = :status) AND (:sink IS NULL OR d.sink = :sink)
           AND (:since IS NULL OR d.created_at >= :since)
           AND (NOT :failed OR d.status = 3 OR (d.status = 0 AND EXISTS
                (SELECT 1 FROM attempts AS t WHERE t.delivery_no = d.delivery_no)))
         ORDER BY d.delivery_no DESC LIMIT :limit"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(named_params! {
        ":status": filter.status.map(status_number),
        ":sink": filter.sink,
        ":since": filter.since.map(Stamp),
        ":failed": filter.failed,
        ":limit": list_limit(filter.limit) as i64,
    })?;
    let mut deliveries = Vec::new();
    while let Some(row) = rows.next()? {
        deliveries.push(read_delivery(row)?);
    }
    Ok(deliveries)
}

/// `condition` is one of ours, never a caller's text.
fn deliveries_where(
    connection: &Connection,
    condition: &'static str,
    id: &str,
) -> std::result::Result<Vec<DeliveryDetail>, Fault> {
    let sql = format!("SELECT {DELIVERY_COLUMNS} FROM deliveries AS d WHERE {condition} ORDER BY d.sink");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([id])?;
    let mut details = Vec::new();
    while let Some(row) = rows.next()? {
        let body: Vec<u8> = row.get(12)?;
        details.push(DeliveryDetail {
            row: read_delivery(row)?,
            body: String::from_utf8_lossy(&body).into_owned(),
            log: read_log(connection, row.get(13)?)?,
        });
    }
    Ok(details)
}

fn read_log(connection: &Connection, delivery_no: i64) -> rusqlite::Result<Vec<AttemptRow>> {
    let mut statement = connection.prepare(
        "SELECT number, started_at, latency_ms, resolution, status, excerpt FROM attempts
         WHERE delivery_no = ?1 ORDER BY number",
    )?;
    let rows = statement.query_map([delivery_no], |row| {
        Ok(AttemptRow {
            number: row.get(0)?,
            started_at: row.get::<_, Stamp>(1)?.0,
            latency_ms: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
            resolution: row.get(3)?,
            status: row.get(4)?,
            excerpt: row.get(5)?,
        })
    })?;
    rows.collect()
}

fn read_alert(row: &Row<'_>) -> std::result::Result<AlertRow, Fault> {
    let json = |error: serde_json::Error| Fault::refused(error.to_string());
    let count = |column: usize| row.get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or(0));
    let mut alert: Alert = serde_json::from_str(&row.get::<_, String>(0)?).map_err(json)?;
    alert.count = count(1)?;
    alert.first_at = row.get::<_, Stamp>(2)?.0;
    alert.last_at = row.get::<_, Stamp>(3)?.0;
    alert.events = serde_json::from_str(&row.get::<_, String>(4)?).map_err(json)?;
    if let Some(event) = row.get::<_, Option<String>>(5)? {
        alert.event = RawValue::from_string(event).map_err(json)?;
    }
    Ok(AlertRow {
        alert,
        created_at: row.get::<_, Stamp>(6)?.0,
        muted_by: row.get(7)?,
        pending: count(8)?,
        delivered: count(9)?,
        dead: count(10)?,
        muted: count(11)?,
    })
}

fn read_delivery(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    let status = status_of(row.get(3)?)?;
    let next_at: Stamp = row.get(7)?;
    Ok(DeliveryRow {
        delivery_id: row.get(0)?,
        alert_id: row.get(1)?,
        sink: row.get(2)?,
        status,
        attempts: row.get(4)?,
        degraded: row.get(5)?,
        created_at: row.get::<_, Stamp>(6)?.0,
        next_at: (status == DeliveryStatus::Pending).then_some(next_at.0),
        settled_at: row.get::<_, Option<Stamp>>(8)?.map(|stamp| stamp.0),
        muted_by: row.get(9)?,
        note: row.get(10)?,
        told_in: row.get(11)?,
    })
}

fn read_event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    Ok(EventRow {
        source: row.get(0)?,
        id: row.get(1)?,
        created_at: row.get::<_, Stamp>(2)?.0,
        stored_at: row.get::<_, Stamp>(3)?.0,
        raw: row.get(4)?,
        poison: row.get(5)?,
    })
}

/// Due at once by the daemon's clock too, which may differ from the time of day: a row is never due before it is owed. The
/// lane that runs and the next one end their pause.
fn retry(connection: &Connection, delivery_id: &str, now: DateTime<Utc>) -> std::result::Result<Retried, Fault> {
    let standing: Option<i64> = connection
        .query_row("SELECT status FROM deliveries WHERE delivery_id = ?1", [delivery_id], |row| row.get(0))
        .optional()?;
    let change = match standing {
        None => return Ok(Retried::Unknown),
        Some(status::PENDING) => {
            "UPDATE deliveries SET next_at = min(owed_since, ?2) WHERE delivery_id = ?1 AND leased = 0"
        }
        Some(status::DEAD) => {
            "UPDATE deliveries SET status = 0, attempts = 0, settled_at = NULL, next_at = min(owed_since, ?2), owed_since = ?2
             WHERE delivery_id = ?1"
        }
        Some(status::MUTED) => {
            "UPDATE deliveries SET status = 0, look_at = NULL, note = NULL, next_at = min(owed_since, ?2), owed_since = ?2
             WHERE delivery_id = ?1"
        }
        Some(_) => return Ok(Retried::AlreadyDelivered),
    };
    connection.execute(change, params![delivery_id, Stamp(now)])?;
    connection.execute(
        "UPDATE lanes SET asked_at = ?2, paused_until = NULL
         WHERE sink = (SELECT sink FROM deliveries WHERE delivery_id = ?1)",
        params![delivery_id, Stamp(now)],
    )?;
    let unmute =
        "UPDATE alerts SET muted_by = NULL WHERE alert_id = (SELECT alert_id FROM deliveries WHERE delivery_id = ?1)";
    if standing == Some(status::MUTED) {
        connection.execute(unmute, [delivery_id])?;
    }
    Ok(Retried::Due)
}

fn replay_chunk(
    connection: &Connection,
    sink: Option<&str>,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> std::result::Result<usize, Fault> {
    connection.execute(
        "UPDATE lanes SET asked_at = ?3, paused_until = NULL
         WHERE sink IN (SELECT sink FROM deliveries WHERE status = 3 AND (?1 IS NULL OR sink = ?1) AND settled_at >= ?2)",
        params![sink, Stamp(since), Stamp(now)],
    )?;
    Ok(connection.execute(
        "UPDATE deliveries SET status = 0, attempts = 0, settled_at = NULL, next_at = min(owed_since, ?3),
                               owed_since = ?3
         WHERE delivery_no IN (SELECT delivery_no FROM deliveries WHERE status = 3 AND (?1 IS NULL OR sink = ?1)
                               AND settled_at >= ?2 LIMIT ?4)",
        params![sink, Stamp(since), Stamp(now), REPLAY_CHUNK as i64],
    )?)
}

fn status_number(status: DeliveryStatus) -> i64 {
    match status {
        DeliveryStatus::Pending => status::PENDING,
        DeliveryStatus::Delivered => status::DELIVERED,
        DeliveryStatus::Unconfirmed => status::UNCONFIRMED,
        DeliveryStatus::Dead => status::DEAD,
        DeliveryStatus::Digested => status::DIGESTED,
        DeliveryStatus::Muted => status::MUTED,
    }
}

fn status_of(number: i64) -> rusqlite::Result<DeliveryStatus> {
    match number {
        status::PENDING => Ok(DeliveryStatus::Pending),
        status::DELIVERED => Ok(DeliveryStatus::Delivered),
        status::UNCONFIRMED => Ok(DeliveryStatus::Unconfirmed),
        status::DEAD => Ok(DeliveryStatus::Dead),
        status::DIGESTED => Ok(DeliveryStatus::Digested),
        status::MUTED => Ok(DeliveryStatus::Muted),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(3, other)),
    }
}
