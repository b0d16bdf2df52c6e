//! The query of `GET /events`, read from its raw text.
//! It never guesses: what the description does not allow is a 400. Naive bounds are read in the server's zone.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Utc};

/// Page size when none is asked for.
const DEFAULT_SIZE: u32 = 30;
/// Largest page size that the description allows.
const MAX_SIZE: u32 = 100;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    /// Wanted types; empty means all. A type that does not exist just matches nothing.
    pub(super) event_types: Vec<String>,
    pub(super) from: Option<DateTime<Utc>>,
    pub(super) to: Option<DateTime<Utc>>,
    /// Text that the event's JSON must contain.
    pub(super) search_text: Option<String>,
    /// From 1.
    pub(super) page: u64,
    pub(super) size: u32,
}

impl Filter {
    /// Reads a query; the error is the text of the 400.
    pub(super) fn parse(query: &str, zone: FixedOffset) -> Result<Self, String> {
        let mut filter =
            Self { event_types: Vec::new(), from: None, to: None, search_text: None, page: 1, size: DEFAULT_SIZE };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value).ok_or_else(|| format!("The value of {name} is not valid percent-encoding."))?;
            match name {
                "event_type" => {
                    let wanted = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                    filter.event_types.extend(wanted.map(str::to_owned));
                }
                "date_from" => filter.from = Some(instant(&value, zone).ok_or_else(|| bad("date_from", &value))?),
                "date_to" => filter.to = Some(instant(&value, zone).ok_or_else(|| bad("date_to", &value))?),
                "search_text" => {
                    filter.search_text = Some(legal_text(&value).ok_or_else(|| bad("search_text", &value))?);
                }
                "page" => {
                    let page = value.parse().ok().filter(|page| *page >= 1);
                    filter.page = page.ok_or_else(|| bad("page", &value))?;
                }
                "size" => {
                    let size = value.parse().ok().filter(|size| (1..=MAX_SIZE).contains(size));
                    filter.size = size.ok_or_else(|| bad("size", &value))?;
                }
                _ => {}
            }
        }
        Ok(filter)
    }
}

fn bad(name: &str, value: &str) -> String {
    format!("The value {value:?} of {name} is not valid.")
}

/// Percent-decoding as forms do it: `+` is a space.
fn decode(text: &str) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

/// ISO 8601: a date, a naive time, or a time with a zone.
fn instant(text: &str, zone: FixedOffset) -> Option<DateTime<Utc>> {
    if let Ok(zoned) = DateTime::parse_from_rfc3339(text) {
        return Some(zoned.to_utc());
    }
    let naive = text
        .parse::<NaiveDateTime>()
        .ok()
        .or_else(|| text.parse::<NaiveDate>().ok().map(|date| date.and_time(NaiveTime::MIN)))?;
    naive.and_local_timezone(zone).single().map(|local| local.to_utc())
}

/// `search_text` must be legal inside a JSON string, with braces escaped too. Returns the text as it stands in the
/// JSON.
fn legal_text(text: &str) -> Option<String> {
    let mut found = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '"' | '{' | '}' => return None,
            '\\' => match rest.next()? {
                brace @ ('{' | '}') => found.push(brace),
                escaped @ ('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' | 'u') => found.extend(['\\', escaped]),
                _ => return None,
            },
            control if control.is_control() => return None,
            plain => found.push(plain),
        }
    }
    Some(found)
}
