//! An event: one audit record, immutable, with typed core fields and the raw JSON as it came.
//!
//! Access is total: a missing or oddly typed field is an absent value, never a panic. Text in an event was chosen by
//! whoever did the deed, so it leaves this crate only through `text::Untrusted` or as JSON. The text is read once into a
//! flat tape of spans; nothing is copied or decoded before somebody asks. Of two equal keys the last one counts.

mod digest;
mod geo;
mod path;
mod reader;
mod tape;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

pub use digest::{Digest, text_digest};
pub use geo::{GEO, GEO_FIELDS, Geo};
pub use path::{FieldPath, MAX_PATH_SEGMENTS};
pub use reader::MAX_EVENT_DEPTH;
pub use tape::{Value, View};

use geo::GeoFields;
use tape::Node;

/// Largest raw event in bytes. An intruder chooses the content; a larger one becomes poison (kept, reported, not matched).
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// One audit record.
#[derive(Debug, Clone)]
pub struct Event {
    id: Arc<str>,
    created_at: DateTime<Utc>,
    raw: Arc<str>,
    tape: Arc<[Node]>,
    geo: Option<GeoFields>,
}

/// Why a text is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventError {
    /// Larger than [`MAX_EVENT_BYTES`].
    TooLarge,
    /// Not a JSON object.
    NotAnObject,
    /// Not JSON, or nested deeper than [`MAX_EVENT_DEPTH`]; the message says where.
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
        let tape = reader::read(&raw).map_err(EventError::Json)?;
        if !tape.first().is_some_and(Node::is_object) {
            return Err(EventError::NotAnObject);
        }
        Ok(Self { id: id.into(), created_at, raw, tape: tape.into(), geo: None })
    }

    /// With what an address database says of its `source_ip`, under `geo.`; the event itself stays as it came.
    #[must_use]
    pub fn with_geo(mut self, geo: &Geo) -> Self {
        let geo = geo.fields(self.text("source_country").as_deref());
        self.geo = geo;
        self
    }

    /// What an address database said of it, to be kept beside it.
    pub(crate) fn geo_text(&self) -> Option<&str> {
        self.geo.as_ref().map(GeoFields::text)
    }

    /// With what was kept beside it.
    pub(crate) fn with_geo_text(mut self, text: &str) -> Self {
        self.geo = GeoFields::read(text);
        self
    }

    /// The same record under another identity and time: for a source that must read it before it knows them.
    #[must_use]
    pub fn identified(self, id: &str, created_at: DateTime<Utc>) -> Self {
        Self { id: id.into(), created_at, ..self }
    }

    /// What it says, whatever the order of its members, its spaces and its escapes. Numbers count as they are written.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest::of(self.root())
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

    /// The whole event as a view.
    #[must_use]
    pub fn root(&self) -> View<'_> {
        View::root(&self.raw, &self.tape)
    }

    /// The first text, number or boolean at a path, as text. `actor`, `geo.*`, `context.*` and `*` are understood.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        let path = FieldPath::parse(path).ok()?;
        let mut found = None;
        path.leaves(self, &mut |view| {
            found = view.scalar_text();
            found.is_some()
        });
        found
    }

    /// Every value at a path: several where an array lies on the way or at its end.
    #[must_use]
    pub fn values(&self, path: &str) -> Vec<Value<'_>> {
        let mut values = Vec::new();
        if let Ok(path) = FieldPath::parse(path) {
            path.leaves(self, &mut |view| {
                values.push(view.value());
                false
            });
        }
        values
    }

    /// Who did it: `user_id`, else `user_email`, else `source_ip` (events by API key have no user).
    #[must_use]
    pub fn actor(&self) -> Option<Cow<'_, str>> {
        self.text("actor")
    }

    /// The event as a JSON value. A lone surrogate becomes U+FFFD, an integer beyond 64 bits a float, a number beyond
    /// a float its text.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.root().to_json()
    }

    /// Like [`Event::to_json`], with `geo` as paths see it: what a template may show.
    #[must_use]
    pub fn fields_to_json(&self) -> serde_json::Value {
        let mut fields = self.to_json();
        if let serde_json::Value::Object(members) = &mut fields {
            members.remove(GEO);
            if let Some(geo) = self.geo.as_ref().and_then(|geo| geo.root().member(GEO)) {
                members.insert(GEO.to_owned(), geo.to_json());
            }
        }
        fields
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(formatter, "the event is larger than {MAX_EVENT_BYTES} bytes"),
            Self::NotAnObject => formatter.write_str("the event is not a JSON object"),
            Self::Json(problem) => write!(formatter, "the event is not usable JSON: {problem}"),
        }
    }
}

impl std::error::Error for EventError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(raw: &str) -> Event {
        Event::new("e1", DateTime::UNIX_EPOCH, raw.into()).expect("an event")
    }

    #[test]
    fn only_objects_within_the_bound_are_events() {
        let new = |raw: &str| Event::new("e1", DateTime::UNIX_EPOCH, raw.into()).map(|_| ());
        assert_eq!(new("[]"), Err(EventError::NotAnObject));
        assert_eq!(new("3"), Err(EventError::NotAnObject));
        assert!(matches!(new("{"), Err(EventError::Json(_))));
        assert!(matches!(new(""), Err(EventError::Json(_))));
        let text = "x".repeat(MAX_EVENT_BYTES);
        assert_eq!(new(&format!("{{\"a\":\"{text}\"}}")), Err(EventError::TooLarge));
        assert_eq!(new(&format!("{{\"a\":\"{}\"}}", text.get(8..).unwrap())), Ok(()));
    }

    #[test]
    fn a_lone_surrogate_or_a_huge_number_loses_nothing() {
        let event = event(r#"{"a":"x\ud800y","b":123456789012345678901234567890,"c":1e999,"d":"\ud83d\ude00"}"#);
        assert_eq!(event.text("a").as_deref(), Some("x\u{fffd}y"));
        assert_eq!(event.text("b").as_deref(), Some("123456789012345678901234567890"));
        assert_eq!(event.text("c").as_deref(), Some("1e999"));
        assert_eq!(event.text("d").as_deref(), Some("😀"));
        assert_eq!(event.to_json()["c"], "1e999");
        assert_eq!(event.to_json()["b"], 123_456_789_012_345_678_901_234_567_890_f64);
    }

    #[test]
    fn paths_are_dotted_and_a_literal_key_wins() {
        let event =
            event(r#"{"a":{"b":{"c":1},"b.c":2},"x.y":{"z":3},"x":{"y":{"z":4,"w":5}},"l":[{"k":6},{"k":[7,8]},9]}"#);
        assert_eq!(event.text("a.b.c").as_deref(), Some("2"));
        assert_eq!(event.text("x.y.z").as_deref(), Some("3"));
        assert_eq!(event.text("x.y.w").as_deref(), Some("5"), "a literal key that leads nowhere hides nothing");
        assert_eq!(event.values("l.k").len(), 3);
        assert_eq!(event.values("l").len(), 3);
        assert_eq!(event.text("a.b.c.d"), None);
        assert_eq!(event.text(""), None);
    }

    #[test]
    fn of_two_equal_keys_the_last_counts() {
        let event = event(r#"{"a":1,"\u0061":2,"a":3,"b":null,"b":{"c":4}}"#);
        assert_eq!(event.text("a").as_deref(), Some("3"));
        assert_eq!(event.text("b.c").as_deref(), Some("4"));
        assert_eq!(event.to_json()["a"], 3);
    }

    #[test]
    fn escaped_keys_are_found() {
        assert_eq!(event(r#"{"\u0061\n":1}"#).text("a\n").as_deref(), Some("1"));
        assert_eq!(event(r#"{"a":0,"\u0061":2}"#).text("a").as_deref(), Some("2"));
    }

    #[test]
    fn wildcards_give_every_string_below() {
        let event = event(r#"{"a":"one","context":{"k":["two",{"m":"three"}],"n":4,"o":null}}"#);
        let texts = |path: &str| -> Vec<String> {
            let shown = |value: Value<'_>| match value {
                Value::Text(text) => text.into_owned(),
                other => format!("{other:?}"),
            };
            event.values(path).into_iter().map(shown).collect()
        };
        assert_eq!(texts("context.*"), ["two", "three"]);
        assert_eq!(texts("*"), ["one", "two", "three"]);
        assert_eq!(texts("context.k.*"), ["two", "three"]);
    }

    #[test]
    fn the_actor_is_the_user_or_else_the_address() {
        assert_eq!(event(r#"{"user_id":7,"user_email":"a@b","source_ip":"1.2.3.4"}"#).actor().as_deref(), Some("7"));
        assert_eq!(event(r#"{"user_id":null,"user_email":"a@b"}"#).actor().as_deref(), Some("a@b"));
        assert_eq!(event(r#"{"user_email":"","source_ip":"1.2.3.4"}"#).actor().as_deref(), Some("1.2.3.4"));
        assert_eq!(event(r#"{"source_ip":""}"#).actor(), None);
    }
}
