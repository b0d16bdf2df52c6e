//! The claim transaction: a delivery is taken for one attempt, durably, before anything is sent.
//!
//! It never looks at lanes: whether a sink may be tried at all is the lane's decision. The order (fewest attempts first)
//! keeps a row that always fails from holding up the others; but what is told of one alert goes in its order, or its end
//! would overtake its beginning.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Statement, params};

use super::fault::Fault;
use super::stamp::Stamp;
use crate::sink::Delivery;
use crate::store::{MAX_CLAIM, REFUSED};

/// Prepared once per writer.
pub(super) struct Statements<'c> {
    due: Statement<'c>,
    take: Statement<'c>,
}

/// Ends the leases of a process that is gone: whoever holds the directory's lock is the only one who sends, so what it
/// finds claimed is not being sent and need not wait until its lease is over.
pub(super) fn end_leases(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute("UPDATE deliveries SET next_at = owed_since, leased = 0 WHERE status = 0 AND leased = 1", [])
}

/// See [`crate::store::Store::take_over`]. A row that nobody put off is due since it is owed.
pub(super) fn take_over(connection: &Connection, now: DateTime<Utc>, latest: DateTime<Utc>) -> Result<(), Fault> {
    connection.execute(
        "UPDATE deliveries SET next_at = ?1 WHERE status = 0 AND leased = 0 AND next_at > ?1
         AND (attempts = 0 OR next_at <= owed_since OR next_at > ?2)",
        params![Stamp(now), Stamp(latest)],
    )?;
    // A fallback waits by the same clock, and as long as it would have.
    connection.execute(
        "UPDATE deliveries SET look_at = look_at - (owed_since - ?1), owed_since = ?1
         WHERE status = 0 AND owed_since > ?1",
        params![Stamp(now)],
    )?;
    Ok(())
}

/// A claim as asked.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) sink: String,
    pub(super) now: DateTime<Utc>,
    pub(super) lease_until: DateTime<Utc>,
    pub(super) limit: usize,
}

impl<'c> Statements<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            due: connection.prepare(
                "SELECT delivery_no, delivery_id, alert_id, body, attempts, owed_since, note,
                        (SELECT receipt FROM deliveries AS a WHERE a.delivery_id = d.about),
                        (SELECT min(started_at) FROM attempts AS f WHERE f.delivery_no = d.delivery_no
                         AND f.number > coalesce((SELECT max(number) FROM attempts AS r WHERE r.delivery_no = d.delivery_no
                                                  AND r.resolution = ?4), 0))
                 FROM deliveries AS d
                 WHERE status = 0 AND sink = ?1 AND next_at <= ?2
                   AND NOT EXISTS (SELECT 1 FROM deliveries AS e WHERE e.alert_id = d.alert_id AND e.sink = d.sink
                                   AND e.status = 0 AND e.delivery_no < d.delivery_no)
                 ORDER BY attempts, delivery_no LIMIT ?3",
            )?,
            take: connection.prepare(
                "UPDATE deliveries SET attempts = attempts + 1, next_at = ?2, leased = 1 WHERE delivery_no = ?1",
            )?,
        })
    }

    pub(super) fn claim(&mut self, claim: &Claim) -> Result<Vec<Delivery>, Fault> {
        let limit = i64::try_from(claim.limit.min(MAX_CLAIM)).unwrap_or(0);
        let mut rows = self.due.query(params![claim.sink, Stamp(claim.now), limit, REFUSED])?;
        let mut claimed = Vec::new();
        while let Some(row) = rows.next()? {
            let delivery = Delivery {
                delivery_id: row.get(1)?,
                alert_id: row.get(2)?,
                sink: claim.sink.clone(),
                body: row.get(3)?,
                attempts: row.get(4)?,
                created_at: row.get::<_, Stamp>(5)?.0,
                note: row.get(6)?,
                about_receipt: row.get(7)?,
                failing_since: row.get::<_, Option<Stamp>>(8)?.map(|stamp| stamp.0),
            };
            claimed.push((row.get::<_, i64>(0)?, delivery));
        }
        drop(rows);
        for (delivery_no, _) in &claimed {
            self.take.execute(params![delivery_no, Stamp(claim.lease_until)])?;
        }
        Ok(claimed.into_iter().map(|(_, delivery)| delivery).collect())
    }
}
