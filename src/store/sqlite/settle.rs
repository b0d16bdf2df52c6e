//! The settle transaction: what became of attempts, their lines in the ledger, and how the lane stands.
//!
//! A delivery that is done stays done: an answer that comes after the lease ran out adds its line to the ledger and changes
//! the row only if it says delivered.

use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::fault::Fault;
use super::schema::status;
use super::stamp::Stamp;
use crate::store::{LaneState, Resolution, Settlement};

/// Prepared once per writer.
pub(super) struct Statements<'c> {
    find: Statement<'c>,
    done: Statement<'c>,
    dead: Statement<'c>,
    retry: Statement<'c>,
    degrade: Statement<'c>,
    release: Statement<'c>,
    add_attempt: Statement<'c>,
    set_lane: Statement<'c>,
    clear_lane: Statement<'c>,
}

impl<'c> Statements<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        let prepare = |sql: &str| connection.prepare(sql);
        Ok(Self {
            find: prepare("SELECT delivery_no, status FROM deliveries WHERE delivery_id = ?1 AND sink = ?2")?,
            done: prepare(
                "UPDATE deliveries SET status = ?2, settled_at = ?3, leased = 0, look_at = NULL, receipt = ?4
                 WHERE delivery_no = ?1",
            )?,
            dead: prepare(
                "UPDATE deliveries SET status = 3, settled_at = ?2, leased = 0
                 WHERE delivery_no = ?1 AND status = 0",
            )?,
            retry: prepare("UPDATE deliveries SET next_at = ?2, leased = 0 WHERE delivery_no = ?1 AND status = 0")?,
            degrade: prepare(
                "UPDATE deliveries SET next_at = ?2, body = ?3, degraded = 1, leased = 0
                 WHERE delivery_no = ?1 AND status = 0",
            )?,
            release: prepare(
                "UPDATE deliveries SET next_at = min(next_at, ?2), leased = 0, attempts = max(attempts - 1, 0)
                 WHERE delivery_no = ?1 AND status = 0",
            )?,
            add_attempt: prepare(
                "INSERT INTO attempts (delivery_no, number, started_at, latency_ms, resolution, status, excerpt)
                 SELECT ?1, coalesce(max(number), 0) + 1, ?2, ?3, ?4, ?5, ?6 FROM attempts WHERE delivery_no = ?1",
            )?,
            set_lane: prepare(
                "INSERT INTO lanes (sink, step, paused_until, reason) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET step = excluded.step, paused_until = excluded.paused_until,
                                           reason = excluded.reason",
            )?,
            clear_lane: prepare("DELETE FROM lanes WHERE sink = ?1")?,
        })
    }

    pub(super) fn settle(
        &mut self,
        sink: &str,
        settlements: &[Settlement],
        lane: Option<&LaneState>,
    ) -> Result<(), Fault> {
        for settlement in settlements {
            self.settle_one(sink, settlement)?;
        }
        match lane {
            Some(LaneState { step: 0, paused_until: None, .. }) => {
                self.clear_lane.execute([sink])?;
            }
            Some(LaneState { step, paused_until, reason }) => {
                self.set_lane.execute(params![sink, step, paused_until.map(Stamp), reason])?;
            }
            None => {}
        }
        Ok(())
    }

    fn settle_one(&mut self, sink: &str, settlement: &Settlement) -> Result<(), Fault> {
        let Settlement { delivery_id, resolution, started_at, latency_ms, status, excerpt, receipt } = settlement;
        let found: Option<(i64, i64)> =
            self.find.query_row([delivery_id, sink], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((delivery_no, standing)) = found else {
            return Err(Fault::refused(format!("no delivery {delivery_id} to {sink}")));
        };
        let ended_at = settlement.ended_at();
        match resolution {
            Resolution::Delivered { .. } if standing == status::DELIVERED => {}
            Resolution::Delivered { unconfirmed } => {
                let code = if *unconfirmed { status::UNCONFIRMED } else { status::DELIVERED };
                self.done.execute(params![delivery_no, code, Stamp(ended_at), receipt])?;
            }
            Resolution::RetryAt(at) | Resolution::Refused(at) => {
                self.retry.execute(params![delivery_no, Stamp(*at)])?;
            }
            Resolution::Degraded(at, body) => {
                self.degrade.execute(params![delivery_no, Stamp(*at), body])?;
            }
            Resolution::Dead => {
                self.dead.execute(params![delivery_no, Stamp(ended_at)])?;
            }
            Resolution::Released => {
                self.release.execute(params![delivery_no, Stamp(*started_at)])?;
                return Ok(());
            }
        }
        let latency_ms = i64::try_from(*latency_ms).unwrap_or(i64::MAX);
        let name = resolution.name();
        self.add_attempt.execute(params![delivery_no, Stamp(*started_at), latency_ms, name, status, excerpt])?;
        Ok(())
    }
}
