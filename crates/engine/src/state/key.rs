//! Group keys: which events belong together.
//!
//! The source is always part of a key, so two accounts never share anything. Absent values are told from empty ones.

use crate::event::{Event, FieldPath};
use crate::text::Untrusted;

/// Longest group key in bytes; a longer one is kept as its hash, for an intruder chooses its parts.
pub const MAX_KEY_BYTES: usize = 512;

/// The values that one event has in some fields.
#[derive(Debug, Clone)]
pub struct GroupKey {
    /// What identifies the group: source and values.
    pub text: String,
    /// The values that are there, by field.
    pub shown: Vec<(String, Untrusted)>,
}

impl GroupKey {
    /// The key of an event; events that lack a field share one group.
    #[must_use]
    pub fn of(source: &str, event: &Event, fields: &[FieldPath]) -> Self {
        let mut parts = vec![Some(source.to_owned())];
        let mut shown = Vec::new();
        for field in fields {
            let value = key_value(field, event);
            shown.extend(value.as_ref().map(|value| (field.as_str().to_owned(), Untrusted::new(value.clone()))));
            parts.push(value);
        }
        let text = serde_json::Value::from_iter(parts).to_string();
        if text.len() <= MAX_KEY_BYTES {
            return Self { text, shown };
        }
        let hashed = format!("blake3:{}", blake3::hash(text.as_bytes()));
        Self { text: serde_json::Value::from_iter([source, &hashed]).to_string(), shown }
    }

    /// What the keys of a source begin with.
    #[must_use]
    pub fn prefix(source: &str) -> String {
        let mut text = serde_json::Value::from_iter([source]).to_string();
        text.pop();
        text
    }

    /// The key of an event that has something in every field; else nothing.
    #[must_use]
    pub fn complete(source: &str, event: &Event, fields: &[FieldPath]) -> Option<Self> {
        let key = Self::of(source, event, fields);
        let is_complete =
            key.shown.len() == fields.len() && key.shown.iter().all(|(_, value)| !value.as_raw().is_empty());
        is_complete.then_some(key)
    }
}

/// A text of any length as part of a row's identity.
pub(super) fn bounded(text: String) -> String {
    if text.len() > MAX_KEY_BYTES { format!("blake3:{}", blake3::hash(text.as_bytes())) } else { text }
}

/// A field as part of a key: its text, or the JSON of several or nested values. Missing and null are absent: all events
/// without the field share one group.
pub(super) fn key_value(path: &FieldPath, event: &Event) -> Option<String> {
    let mut values = Vec::new();
    path.values(event, &mut |view| {
        values.push(view);
        false
    });
    match values.as_slice() {
        [] => None,
        [only] => match only.scalar_text() {
            Some(text) => Some(text.into_owned()),
            None => Some(only.json().to_owned()).filter(|json| json != "null"),
        },
        several => Some(several.iter().map(|view| view.json()).collect::<Vec<_>>().join(",")),
    }
}
