//! One line becomes an event, poison, or nothing (a blank line).

use std::sync::Arc;

use chrono::{DateTime, FixedOffset, Offset as _, Utc};
use serde_json::Value;
use vigie_engine::event::{Event, EventError, MAX_EVENT_BYTES};

use crate::source::Poison;
use crate::source::ndjson::Fields;
use crate::source::ndjson::reader::Line;
use crate::source::stamp::Stamp;

/// What a line is.
#[derive(Debug)]
pub(super) enum Read {
    /// Blank.
    Nothing,
    /// An event.
    Event(Event),
    /// Kept, reported, never evaluated.
    Poison(Poison),
}

pub(super) fn read_line(line: &Line, fields: &Fields) -> Read {
    let text = String::from_utf8_lossy(&line.bytes);
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Read::Nothing;
    }
    if line.bytes.len() > MAX_EVENT_BYTES {
        return poison(text, None, "it is too large");
    }
    let object = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return poison(text, None, "it is no JSON object"),
        Err(error) => return poison(text, None, &format!("it is no JSON: {error}")),
    };
    let Some(at) = first(&object, &fields.time).and_then(moment) else {
        return poison(text, None, "it has no time that can be read");
    };
    let id = first(&object, &fields.id).and_then(plain).unwrap_or_else(|| digest(text));
    let typed = first(&object, &fields.event_type).and_then(plain).filter(|_| !object.contains_key("event_type"));
    let raw: Arc<str> = match (typed, text.strip_prefix('{')) {
        (Some(kind), Some(rest)) => {
            let comma = if object.is_empty() { "" } else { "," };
            format!("{{\"event_type\":{}{comma}{rest}", Value::from(kind)).into()
        }
        _ => text.into(),
    };
    match Event::new(&id, at, raw) {
        Ok(event) => Read::Event(event),
        Err(EventError::TooLarge) => poison(text, Some(at), "it is too large"),
        Err(EventError::NotAnObject) => poison(text, Some(at), "it is no JSON object"),
        Err(EventError::Json(place)) => poison(text, Some(at), &format!("it is no JSON: {place}")),
    }
}

fn poison(text: &str, created_at: Option<DateTime<Utc>>, error: &str) -> Read {
    let id = format!("poison-{}", digest(text));
    let mut end = text.len().min(MAX_EVENT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let raw = text.get(..end).unwrap_or_default().to_owned();
    Read::Poison(Poison { id, created_at, raw, error: error.to_owned() })
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().chars().take(32).collect()
}

/// The first of several paths that holds something. A key with dots in it (`@timestamp`, `a.b`) is found as it stands
/// first.
fn first<'a>(object: &'a serde_json::Map<String, Value>, paths: &[String]) -> Option<&'a Value> {
    paths.iter().find_map(|path| {
        let direct = object.get(path.as_str());
        let value = direct.or_else(|| {
            let mut parts = path.split('.');
            let top = object.get(parts.next()?)?;
            parts.try_fold(top, |value, part| value.get(part))
        })?;
        (!value.is_null()).then_some(value)
    })
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn moment(value: &Value) -> Option<DateTime<Utc>> {
    match value {
        Value::String(text) => {
            let zone: FixedOffset = Utc.fix();
            let stamp = Stamp::parse(text).and_then(|stamp| stamp.at(zone));
            stamp.or_else(|| text.trim().parse().ok().and_then(since_1970))
        }
        Value::Number(number) => number.as_f64().and_then(since_1970),
        _ => None,
    }
}

/// Seconds up to the year 5138, milliseconds and microseconds beyond: the ranges do not meet for any date from 1973 on.
fn since_1970(number: f64) -> Option<DateTime<Utc>> {
    const SECONDS_BELOW: f64 = 1e11;
    const MILLIS_BELOW: f64 = 1e14;
    let micros = match number {
        n if !n.is_finite() || n < 0.0 => return None,
        n if n < SECONDS_BELOW => n * 1e6,
        n if n < MILLIS_BELOW => n * 1e3,
        n => n,
    };
    #[expect(clippy::cast_possible_truncation, reason = "finite; beyond the range it saturates and is refused below")]
    DateTime::from_timestamp_micros(micros.round() as i64)
}
