//! The ingest transaction: seen ids and events, rule state, alerts, folds, deliveries and the cursor, all or nothing.
//!
//! An event that is already stored is an error of the caller and undoes the batch. An alert or delivery that is already
//! stored is left as it is: ids are computed, so it is the same one, owed or done.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Statement, params};
use serde::Deserialize;
use serde_json::value::RawValue;
use vigie_engine::alert::{Alert, MAX_ALERT_EVENT_IDS};
use vigie_engine::engine::Fold;
use vigie_engine::rule::Severity;
use vigie_engine::state::StateChange;

use super::fault::Fault;
use super::follow;
use super::schema::status;
use super::stamp::Stamp;
use crate::store::{IngestBatch, NewAlert, NewDelivery, StoredEvent, add_event_ids};

/// Longest event type that is remembered; an intruder may choose it.
const MAX_EVENT_TYPE_BYTES: usize = 128;
/// Event types remembered per source; the documented ones are about 30.
const MAX_EVENT_TYPES: i64 = 1000;

/// `?5`, or the end of the silence `?3` if somebody ended it since it was read: then nobody looks for a row of a later time.
pub(super) const LOOK_AT_OF_HOLD: &str =
    "min(?5, coalesce((SELECT ends_at FROM silences WHERE 'silence ' || silence_id = ?3), ?5))";

/// Prepared once per writer.
pub(super) struct Statements<'c> {
    find_source: Statement<'c>,
    add_source: Statement<'c>,
    set_cursor: Statement<'c>,
    add_event: Statement<'c>,
    add_event_type: Statement<'c>,
    set_state: Statement<'c>,
    remove_state: Statement<'c>,
    add_alert: Statement<'c>,
    find_alert: Statement<'c>,
    find_event_ids: Statement<'c>,
    fold_alert: Statement<'c>,
    add_delivery: Statement<'c>,
    unmute_alert: Statement<'c>,
    follow: follow::Statements<'c>,
}

impl<'c> Statements<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        let prepare = |sql: &str| connection.prepare(sql);
        Ok(Self {
            find_source: prepare("SELECT source_id FROM sources WHERE name = ?1")?,
            add_source: prepare("INSERT INTO sources (name) VALUES (?1)")?,
            set_cursor: prepare("UPDATE sources SET cursor = ?2, cursor_at = ?3 WHERE source_id = ?1")?,
            add_event: prepare(
                "INSERT INTO events (source_id, id, created_at, stored_at, raw, poison, digest)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?,
            add_event_type: prepare(
                "INSERT INTO event_types (source_id, event_type, first_at) SELECT ?1, ?2, ?3
                 WHERE (SELECT count(*) FROM event_types WHERE source_id = ?1) < ?4
                 ON CONFLICT DO UPDATE SET first_at = excluded.first_at WHERE excluded.first_at < first_at",
            )?,
            set_state: prepare(
                "INSERT INTO state (rule_id, kind, key, value, expires_at, set_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at,
                                           set_at = excluded.set_at",
            )?,
            remove_state: prepare("DELETE FROM state WHERE rule_id = ?1 AND kind = ?2 AND key = ?3")?,
            add_alert: prepare(
                "INSERT INTO alerts (alert_id, source, rule_id, severity, first_at, last_at, count, event_ids,
                                     created_at, muted_by, body, event_no, event)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
                 ON CONFLICT (alert_id) DO NOTHING",
            )?,
            find_alert: prepare("SELECT 1 FROM alerts WHERE alert_id = ?1")?,
            find_event_ids: prepare("SELECT event_ids FROM alerts WHERE alert_id = ?1")?,
            fold_alert: prepare(
                "UPDATE alerts SET count = ?2, first_at = ?3, last_at = ?4, event_ids = ?5 WHERE alert_id = ?1",
            )?,
            add_delivery: prepare(&format!(
                "INSERT INTO deliveries (delivery_id, alert_id, sink, body, status, attempts, degraded, created_at,
                                             owed_since, next_at, note, look_at, muted_by, fallback, repeat_key, about)
                     VALUES (?1, ?2, ?8, ?9, ?10, 0, 0, ?6, ?7, ?7, ?4, {LOOK_AT_OF_HOLD}, ?3, ?11, ?12, ?13)
                     ON CONFLICT (delivery_id) DO NOTHING"
            ))?,
            unmute_alert: prepare("UPDATE alerts SET muted_by = NULL WHERE alert_id = ?1")?,
            follow: follow::Statements::prepare(connection)?,
        })
    }

    /// Writes the batch; the caller commits or undoes it.
    pub(super) fn write(&mut self, batch: &Prepared) -> Result<(), Fault> {
        let Prepared { batch, types, at } = batch;
        let due_at = batch.due_at.unwrap_or(*at);
        let source = self.source_no(&batch.source)?;
        let mut stored = Vec::with_capacity(batch.alerts.len());
        for event in &batch.events {
            let event_no = self.add_event(source, event, *at)?;
            if batch.alerts.iter().any(|alert| is_first_event(&alert.alert, &batch.source, event)) {
                stored.push((event, event_no));
            }
        }
        for (event_type, first_at) in types {
            self.add_event_type.execute(params![source, event_type, Stamp(*first_at), MAX_EVENT_TYPES])?;
        }
        for change in &batch.state {
            self.change_state(change, *at)?;
        }
        for alert in &batch.alerts {
            let event = stored.iter().find(|(event, _)| is_first_event(&alert.alert, &batch.source, event));
            self.add_alert(alert, event.map(|(_, event_no)| *event_no), *at)?;
        }
        for fold in &batch.folds {
            self.fold(fold)?;
            self.follow.matched(&fold.alert_id, due_at)?;
        }
        for delivery in &batch.deliveries {
            self.add_delivery(delivery, *at, due_at)?;
        }
        for new in &batch.follow_ups {
            self.follow.add(new, due_at)?;
        }
        for alert_id in &batch.unmuted {
            self.unmute_alert.execute([alert_id])?;
        }
        if let Some(cursor) = &batch.cursor {
            self.set_cursor.execute(params![source, cursor.0, Stamp(*at)])?;
        }
        Ok(())
    }

    fn source_no(&mut self, name: &str) -> Result<i64, Fault> {
        match self.find_source.query_row([name], |row| row.get(0)).optional()? {
            Some(source_no) => Ok(source_no),
            None => Ok(self.add_source.insert([name])?),
        }
    }

    fn add_event(&mut self, source: i64, event: &StoredEvent, at: DateTime<Utc>) -> Result<i64, Fault> {
        let StoredEvent { id, created_at, raw, digest, poison } = event;
        Ok(self.add_event.insert(params![source, id, Stamp(*created_at), Stamp(at), &**raw, poison, digest])?)
    }

    fn change_state(&mut self, change: &StateChange, at: DateTime<Utc>) -> Result<(), Fault> {
        let StateChange { key, value, expires_at_us } = change;
        match value {
            Some(value) => {
                self.set_state.execute(params![key.rule_id, key.kind, key.key, value, expires_at_us, Stamp(at)])?
            }
            None => self.remove_state.execute(params![key.rule_id, key.kind, key.key])?,
        };
        Ok(())
    }

    /// The raw event is not written again when the same batch stores it.
    pub(super) fn add_alert(&mut self, new: &NewAlert, event_no: Option<i64>, at: DateTime<Utc>) -> Result<(), Fault> {
        let alert = &new.alert;
        let event = if event_no.is_some() { None } else { Some(alert.event.get()) };
        let body = Alert { event: RawValue::NULL.to_owned(), events: Vec::new(), ..alert.clone() };
        self.add_alert.execute(params![
            alert.alert_id,
            alert.source,
            alert.rule.id,
            severity_number(alert.rule.severity),
            Stamp(alert.first_at),
            Stamp(alert.last_at),
            to_i64(alert.count),
            to_json(&bounded(&alert.events))?,
            Stamp(at),
            new.muted_by,
            to_json(&body)?,
            event_no,
            event,
        ])?;
        Ok(())
    }

    /// An alert that retention has removed takes up nothing more.
    fn fold(&mut self, fold: &Fold) -> Result<(), Fault> {
        let found: Option<String> = self.find_event_ids.query_row([&fold.alert_id], |row| row.get(0)).optional()?;
        let Some(found) = found else { return Ok(()) };
        let mut ids: Vec<String> = serde_json::from_str(&found).map_err(|e| Fault::refused(e.to_string()))?;
        add_event_ids(&mut ids, &fold.event_ids);
        self.fold_alert.execute(params![
            fold.alert_id,
            to_i64(fold.count),
            Stamp(fold.first_at),
            Stamp(fold.last_at),
            to_json(&ids)?
        ])?;
        Ok(())
    }

    pub(super) fn add_delivery(
        &mut self,
        delivery: &NewDelivery,
        at: DateTime<Utc>,
        due_at: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let NewDelivery { delivery_id, alert_id, sink, body, note, hold, fallback, repeat_key, about } = delivery;
        if !self.find_alert.exists([alert_id])? {
            return Err(Fault::refused(format!("delivery of an unknown alert {alert_id}")));
        }
        let status = if hold.is_some() { status::MUTED } else { status::PENDING };
        let look_at = match (hold, fallback) {
            (Some(hold), _) => hold.until,
            (None, Some(fallback)) => Some(fallback.at),
            (None, None) => None,
        };
        let fallback = fallback.as_ref().map(|fallback| to_json(&fallback.to)).transpose()?;
        self.add_delivery.execute(params![
            delivery_id,
            alert_id,
            hold.as_ref().map(|hold| &hold.by),
            hold.as_ref().map(|hold| &hold.note).or(note.as_ref()),
            look_at.map(Stamp),
            Stamp(at),
            Stamp(due_at),
            sink,
            body,
            status,
            fallback,
            repeat_key,
            about,
        ])?;
        Ok(())
    }
}

/// A batch with what was computed from it before the writer's time is spent.
#[derive(Debug)]
pub(super) struct Prepared {
    batch: IngestBatch,
    types: Vec<(String, DateTime<Utc>)>,
    at: DateTime<Utc>,
}

impl Prepared {
    pub(super) fn new(batch: IngestBatch) -> Result<Self, Fault> {
        let at = batch.at.ok_or_else(|| Fault::refused("a batch needs the time of its commit"))?;
        let mut types: Vec<(String, DateTime<Utc>)> = Vec::new();
        for event in batch.events.iter().filter(|event| event.poison.is_none()) {
            let Some(event_type) = event_type(&event.raw) else { continue };
            match types.iter_mut().find(|(known, _)| *known == event_type) {
                Some((_, first_at)) => *first_at = event.created_at.min(*first_at),
                None => types.push((event_type.into_owned(), event.created_at)),
            }
        }
        Ok(Self { batch, types, at })
    }
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow)]
    event_type: Option<std::borrow::Cow<'a, str>>,
}

/// The event's own `event_type`; other audit logs may have none, and then a rule cannot be checked against them.
fn event_type(raw: &str) -> Option<std::borrow::Cow<'_, str>> {
    let typed: Typed<'_> = serde_json::from_str(raw).ok()?;
    typed.event_type.filter(|text| !text.is_empty() && text.len() <= MAX_EVENT_TYPE_BYTES)
}

fn is_first_event(alert: &Alert, source: &str, event: &StoredEvent) -> bool {
    alert.source == source && alert.events.first() == Some(&event.id) && alert.event.get() == &*event.raw
}

fn bounded(ids: &[String]) -> &[String] {
    ids.get(..MAX_ALERT_EVENT_IDS).unwrap_or(ids)
}

/// Ordered as the severities are, so that "at least" is a comparison.
pub(super) fn severity_number(severity: Severity) -> i64 {
    match severity {
        Severity::Info => 0,
        Severity::Low => 1,
        Severity::Medium => 2,
        Severity::High => 3,
        Severity::Critical => 4,
    }
}

/// A count as a column holds it.
pub(super) fn to_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|error| Fault::refused(error.to_string()))
}
