//! An event: one audit record, immutable, with typed core fields and the raw JSON as it came.
//!
//! Access is total: a missing or oddly typed field is an absent value, never a panic. Text in an event was chosen by
//! whoever did the deed, so it leaves this crate only through `text::Untrusted` or as JSON.

use std::sync::Arc;

use chrono::{DateTime, Utc};

/// Largest raw event in bytes. An intruder chooses the content; a larger one becomes poison (kept, reported, not matched).
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// One audit record.
#[derive(Debug, Clone)]
pub struct Event {
    id: Arc<str>,
    created_at: DateTime<Utc>,
    raw: Arc<str>,
}

/// Why a text is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventError {
    /// Larger than [`MAX_EVENT_BYTES`].
    TooLarge,
    /// Not a JSON object.
    NotAnObject,
    /// Not JSON; the message says where.
    Json(String),
}

impl Event {
    /// Wraps one JSON object. The caller (a source) knows where identity and time stand in it.
    ///
    /// # Errors
    /// When the text is no JSON object or too large.
    pub fn new(id: &str, created_at: DateTime<Utc>, raw: Arc<str>) -> Result<Self, EventError> {
        if raw.len() > MAX_EVENT_BYTES {
            return Err(EventError::TooLarge);
        }
        Ok(Self { id: id.into(), created_at, raw })
    }

    /// The event's identity within its source.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
    /// When it happened, by the source's stamp.
    #[must_use]
    pub fn created_at(&self) -> DateTime<Utc> {
        self.created_at
    }
    /// The JSON text as the source gave it.
    #[must_use]
    pub fn raw(&self) -> &Arc<str> {
        &self.raw
    }
}
