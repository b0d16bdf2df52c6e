//! One line becomes an event, poison, or nothing (a blank line).
//!
//! Identity, time and type are read from the event itself: a second reader of JSON that is stricter than the event's (about
//! lone surrogates, numbers without bound) would let an intruder write lines that no rule ever sees.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, FixedOffset, Offset as _, Utc};
use vigie_engine::event::{Event, EventError, MAX_EVENT_BYTES, Value, View};

use crate::source::Poison;
use crate::source::ndjson::Fields;
use crate::source::ndjson::reader::Line;
use crate::source::stamp::Stamp;

/// What a line is.
#[derive(Debug, Clone)]
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
    let unnamed = match Event::new("", DateTime::UNIX_EPOCH, text.into()) {
        Ok(event) => event,
        Err(error) => return poison(text, None, &describe(&error)),
    };
    let root = unnamed.root();
    let Some(at) = time_of(&unnamed, fields) else {
        return poison(text, None, "it has no time that can be read");
    };
    let id = first(root, &fields.id).and_then(plain).map_or_else(|| digest(text), Cow::into_owned);
    let kind = first(root, &fields.event_type).and_then(plain).filter(|_| root.member("event_type").is_none());
    let Some(kind) = kind else { return Read::Event(unnamed.identified(&id, at)) };
    let comma = if root.members().next().is_none() { "" } else { "," };
    let rest = text.strip_prefix('{').unwrap_or_default();
    let typed = format!("{{\"event_type\":{}{comma}{rest}", serde_json::Value::from(kind.as_ref()));
    match Event::new(&id, at, Arc::from(typed)) {
        Ok(event) => Read::Event(event),
        Err(error) => poison(text, Some(at), &describe(&error)),
    }
}

/// The time that an event says it is of.
pub(super) fn time_of(event: &Event, fields: &Fields) -> Option<DateTime<Utc>> {
    first(event.root(), &fields.time).and_then(moment)
}

fn describe(error: &EventError) -> String {
    match error {
        EventError::TooLarge => "it is too large".into(),
        EventError::NotAnObject => "it is no JSON object".into(),
        EventError::Json(place) => format!("it is no JSON: {place}"),
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
fn first<'e>(root: View<'e>, paths: &[String]) -> Option<View<'e>> {
    paths.iter().find_map(|path| {
        let found = root.member(path).or_else(|| path.split('.').try_fold(root, View::member))?;
        (!matches!(found.value(), Value::Null)).then_some(found)
    })
}

fn plain(view: View<'_>) -> Option<Cow<'_, str>> {
    match view.value() {
        Value::Text(text) if !text.is_empty() => Some(text),
        Value::Number(number) => Some(number.into()),
        _ => None,
    }
}

fn moment(view: View<'_>) -> Option<DateTime<Utc>> {
    match view.value() {
        Value::Text(text) => {
            let zone: FixedOffset = Utc.fix();
            let stamp = Stamp::parse(&text).and_then(|stamp| stamp.at(zone));
            stamp.or_else(|| text.trim().parse().ok().and_then(since_1970))
        }
        Value::Number(number) => number.parse().ok().and_then(since_1970),
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
