//! One row of a page becomes an event or poison; nothing else on the page is touched by it.
//!
//! A row is never dropped. A poison row goes under its own id only when id and time could be read: otherwise a later,
//! repaired row with the same id would pass for a repetition and never be evaluated.

use std::sync::Arc;

use chrono::{DateTime, FixedOffset, NaiveDateTime, Utc};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer as _};
use serde_json::value::RawValue;
use vigie_engine::event::{Event, EventError, MAX_EVENT_BYTES};

use crate::source::Poison;
use crate::source::stamp::Stamp;

/// A longer id is no id. The API's are UUIDs.
const MAX_ID_BYTES: usize = 256;

/// A row with what the poller needs of it.
#[derive(Debug, Clone)]
pub struct Row {
    /// Identity; computed from the bytes where the row has none that can be used.
    pub id: String,
    /// By its stamp; the time of the answer where there is none.
    pub at: DateTime<Utc>,
    /// The stamp, if it came without a zone.
    pub naive: Option<NaiveDateTime>,
    /// Identity and time are the row's own, so it may be counted against the API's totals.
    pub counted: bool,
    /// What it is.
    pub content: Content,
}

/// An event or not.
#[derive(Debug, Clone)]
pub enum Content {
    /// An event.
    Event(Event),
    /// Kept, reported, never evaluated.
    Poison(Poison),
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
}

/// Reads one row. `zone` is where naive stamps are written, `answered_at` the server's time of the answer.
#[must_use]
pub fn read_row(raw: &Arc<str>, zone: FixedOffset, answered_at: DateTime<Utc>) -> Row {
    let head = match serde_json::from_str::<Head<'_>>(raw) {
        Ok(head) => head,
        Err(_) => return poison(raw, None, answered_at, "it is no JSON object with an id and a time"),
    };
    let stamp = head.created_at.and_then(text_of).as_deref().and_then(Stamp::parse);
    let at = stamp.and_then(|stamp| stamp.at(zone));
    let naive = match stamp {
        Some(Stamp::Naive(naive)) => Some(naive),
        Some(Stamp::Zoned(_)) | None => None,
    };
    let id = head.id.and_then(text_of).filter(|id| is_id(id));
    let (id, at) = match (id, at) {
        (Some(id), Some(at)) => (id, at),
        (None, at) => return poison(raw, at, answered_at, "it has no id"),
        (Some(_), None) => return poison(raw, None, answered_at, "its created_at cannot be read"),
    };
    let content = match Event::new(&id, at, Arc::clone(raw)) {
        Ok(event) => Content::Event(event),
        Err(error) => {
            Content::Poison(Poison { id: id.clone(), created_at: Some(at), raw: cut(raw), error: describe(&error) })
        }
    };
    Row { id, at, naive, counted: true, content }
}

/// What a row gives of which only the beginning could be read. Its id and time are its own if they stand there.
#[must_use]
pub fn read_cut_row(raw: &str, zone: FixedOffset, answered_at: DateTime<Utc>) -> Row {
    let error = "it is too long to be read to its end";
    let head = cut_head(raw);
    let stamp = head.created_at.as_ref().and_then(text_of_value).as_deref().and_then(Stamp::parse);
    let naive = match stamp {
        Some(Stamp::Naive(naive)) => Some(naive),
        Some(Stamp::Zoned(_)) | None => None,
    };
    let id = head.id.as_ref().and_then(text_of_value).filter(|id| is_id(id));
    match (id, stamp.and_then(|stamp| stamp.at(zone))) {
        (Some(id), Some(at)) => {
            let kept = Poison { id: id.clone(), created_at: Some(at), raw: cut(raw), error: error.into() };
            Row { id, at, naive, counted: true, content: Content::Poison(kept) }
        }
        // By what is kept: how much more was read differs from answer to answer.
        (_, at) => poison(&cut(raw), at, answered_at, error),
    }
}

#[derive(Default)]
struct CutHead {
    id: Option<serde_json::Value>,
    created_at: Option<serde_json::Value>,
}

/// The members that come before the end of an object whose end is missing.
fn cut_head(raw: &str) -> CutHead {
    struct Members<'a>(&'a mut CutHead);
    impl<'de> Visitor<'de> for Members<'_> {
        type Value = ();

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key::<String>()? {
                match name.as_str() {
                    "id" => self.0.id = Some(map.next_value()?),
                    "created_at" => self.0.created_at = Some(map.next_value()?),
                    _ => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok(())
        }
    }
    let mut head = CutHead::default();
    let read = serde_json::Deserializer::from_str(raw).deserialize_map(Members(&mut head));
    // The end is missing, so this is an error; what was read before it is in `head`.
    drop(read);
    head
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID_BYTES
}

fn poison(raw: &str, at: Option<DateTime<Utc>>, answered_at: DateTime<Utc>, error: &str) -> Row {
    let digest = blake3::hash(raw.as_bytes()).to_hex();
    let id = format!("poison-{}", digest.chars().take(32).collect::<String>());
    let at = at.unwrap_or(answered_at);
    let kept = Poison { id: id.clone(), created_at: Some(at), raw: cut(raw), error: error.to_owned() };
    Row { id, at, naive: None, counted: false, content: Content::Poison(kept) }
}

fn describe(error: &EventError) -> String {
    match error {
        EventError::TooLarge => format!("it is larger than {MAX_EVENT_BYTES} bytes"),
        EventError::NotAnObject => "it is no JSON object".into(),
        EventError::Json(place) => format!("it is no JSON: {place}"),
    }
}

/// Text, or a number as text (an id may change its type; it stays the same id).
fn text_of(raw: &RawValue) -> Option<String> {
    text_of_value(&serde_json::from_str(raw.get()).ok()?)
}

fn text_of_value(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn cut(raw: &str) -> String {
    let mut end = raw.len().min(MAX_EVENT_BYTES);
    while !raw.is_char_boundary(end) {
        end -= 1;
    }
    raw.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Row {
        let zone = FixedOffset::east_opt(7200).expect("valid");
        read_row(&Arc::from(text), zone, "2026-01-02T03:04:05Z".parse().expect("valid"))
    }

    fn error_of(row: &Row) -> &str {
        match &row.content {
            Content::Poison(poison) => &poison.error,
            Content::Event(_) => "",
        }
    }

    #[test]
    fn a_row_is_an_event_with_its_zone_applied() {
        let row = read(r#"{"id":"a","created_at":"2018-08-13T10:15:31","x":"\ud800"}"#);
        assert!(row.counted && row.naive.is_some());
        assert_eq!(row.at, "2018-08-13T08:15:31Z".parse::<DateTime<Utc>>().expect("valid"));
        assert_eq!(read(r#"{"id":17,"created_at":"2018-08-13T10:15:31Z"}"#).id, "17");
    }

    #[test]
    fn what_is_no_event_is_poison_under_a_computed_id() {
        for (text, error) in [
            ("17", "no JSON object"),
            ("null", "no JSON object"),
            (r#"{"created_at":"2018-08-13T10:15:31Z"}"#, "no id"),
            (r#"{"id":"","created_at":"2018-08-13T10:15:31Z"}"#, "no id"),
            (r#"{"id":"a"}"#, "created_at"),
            (r#"{"id":"a","created_at":"soon"}"#, "created_at"),
            (r#"{"id":"a","id":"b","created_at":"2018-08-13T10:15:31Z"}"#, "no JSON object"),
        ] {
            let row = read(text);
            assert!(error_of(&row).contains(error), "{text}: {}", error_of(&row));
            assert!(row.id.starts_with("poison-") && !row.counted, "{text}");
            assert_eq!(row.id, read(text).id, "{text}");
        }
    }

    #[test]
    fn a_row_without_its_end_keeps_what_stands_before_it() {
        let zone = FixedOffset::east_opt(0).expect("valid");
        let at = "2026-01-02T03:04:05Z".parse().expect("valid");
        let known = read_cut_row(r#"{"x":[1],"id":"a","created_at":"2018-08-13T10:15:31Z","y":"zzz"#, zone, at);
        assert!(known.counted && known.id == "a" && known.at.timestamp() == 1_534_155_331);
        assert!(error_of(&known).contains("too long"), "{}", error_of(&known));
        let long = format!(r#"{{"y":"{}"#, "z".repeat(MAX_EVENT_BYTES));
        let (short, longer) = (read_cut_row(&long, zone, at), read_cut_row(&format!("{long}zz"), zone, at));
        assert!(!short.counted && short.at == at && short.id.starts_with("poison-"));
        assert_eq!(short.id, longer.id, "it must not depend on how far it was read");
    }

    #[test]
    fn an_oversized_row_is_poison_under_its_own_id_and_cut() {
        let text = format!(r#"{{"id":"a","created_at":"2018-08-13T10:15:31Z","x":"{}"}}"#, "é".repeat(200_000));
        let row = read(&text);
        assert!(error_of(&row).contains("larger"), "{}", error_of(&row));
        assert!(row.counted && row.id == "a");
        let Content::Poison(poison) = row.content else { return };
        assert!(poison.raw.len() <= MAX_EVENT_BYTES && poison.raw.len() > MAX_EVENT_BYTES - 4);
    }
}
