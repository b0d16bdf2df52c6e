//! What can be used of a page that was given up while it was read: its first row, whole or cut.
//!
//! It never guesses: a page whose list does not begin in what came gives nothing.

use std::sync::Arc;

use serde_json::value::RawValue;
use vigie_engine::event::MAX_EVENT_BYTES;

use crate::source::vonage::transport::Partial;

/// What a page of one row shows, however long it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstRow {
    /// There is none.
    Nothing,
    /// It came whole; what made the answer too long is something else.
    Whole(Arc<str>),
    /// Its beginning, longer than an event may be.
    Cut(Arc<str>),
}

/// The first row, unless what came is too little to say. A row that was cut while it was no longer than an event may be
/// is not too long: the connection is too slow.
#[must_use]
pub fn first_row(partial: &Partial) -> Option<FirstRow> {
    if partial.status != 200 {
        return None;
    }
    let text = String::from_utf8_lossy(&partial.body);
    let rows = list_of(&text)?;
    match serde_json::Deserializer::from_str(rows).into_iter::<&RawValue>().next() {
        Some(Ok(row)) => Some(FirstRow::Whole(Arc::from(row.get()))),
        _ if rows.starts_with(']') => Some(FirstRow::Nothing),
        _ => (rows.len() > MAX_EVENT_BYTES).then(|| FirstRow::Cut(Arc::from(rows))),
    }
}

/// What follows the opening bracket of the list of events.
fn list_of(text: &str) -> Option<&str> {
    text.match_indices("\"events\"").find_map(|(place, name)| {
        let rest = text.get(place + name.len()..)?.trim_start().strip_prefix(':')?;
        Some(rest.trim_start().strip_prefix('[')?.trim_start())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> Option<FirstRow> {
        first_row(&Partial::of(200, text.as_bytes()))
    }

    #[test]
    fn the_first_row_is_found_whole_or_cut() {
        assert_eq!(first(r#"{"_embedded":{"events":[]},"padding":"xx"#), Some(FirstRow::Nothing));
        assert_eq!(
            first(r#"{"_links":{"self":"/events"}, "_embedded" : {"events" : [ {"id":"a"},{"id":"#),
            Some(FirstRow::Whole(Arc::from(r#"{"id":"a"}"#)))
        );
        let long = format!(r#"{{"id":"a","x":"{}"#, "y".repeat(MAX_EVENT_BYTES));
        assert_eq!(first(&format!(r#"{{"_embedded":{{"events":[{long}"#)), Some(FirstRow::Cut(Arc::from(long))));
    }

    #[test]
    fn too_little_says_nothing() {
        for text in
            ["", "{", r#"{"_embedded":{"events":"#, r#"{"_embedded":{"events":["#, r#"{"_embedded":{"events":[{"id":"#]
        {
            assert_eq!(first(text), None, "{text}");
        }
        let failed = Partial::of(500, br#"{"_embedded":{"events":[]}"#);
        assert_eq!(first_row(&failed), None);
    }
}
