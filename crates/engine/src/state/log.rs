//! Noted events of one key, in order of time; events of one time in the order in which the source gave them.
//!
//! A log forgets what can no longer count: what lies a window before the time up to which the source is settled. It never
//! holds more than [`MAX_OBSERVATIONS`]; what had to go before its time is counted.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Sighting;
use crate::event::{Event, FieldPath};

/// Most events that one key keeps, about 150 bytes each. No window needs more, because no `count` may be higher.
pub const MAX_OBSERVATIONS: usize = 1_000;
/// Longest event that is kept whole for a match by time; of a longer one the fields that an alert shows are kept.
pub const MAX_KEPT_EVENT_BYTES: usize = 8 * 1024;
/// Most bytes of events that one log keeps whole; beyond it the fields that an alert shows are kept.
const MAX_KEPT_BYTES: usize = 256 * 1024;
/// Longest member that a key is taken from of which a part-kept event keeps all.
const MAX_KEY_MEMBER_BYTES: usize = 1_024;
/// And of all such members together.
const MAX_KEY_MEMBERS_BYTES: usize = 4 * 1_024;
/// Longest text of one field in a noted event: an intruder chooses it.
const MAX_FIELD_BYTES: usize = 256;

/// One noted event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Observation {
    #[serde(rename = "t")]
    pub(crate) at_us: i64,
    pub(crate) id: Box<str>,
    #[serde(rename = "k", skip_serializing_if = "Option::is_none", default)]
    pub(crate) event_type: Option<Box<str>>,
    #[serde(rename = "a", skip_serializing_if = "Option::is_none", default)]
    pub(crate) ip: Option<Box<str>>,
    #[serde(rename = "c", skip_serializing_if = "Option::is_none", default)]
    pub(crate) country: Option<Box<str>>,
    /// What the detection compares: a value, a place.
    #[serde(rename = "v", skip_serializing_if = "Option::is_none", default)]
    pub(crate) value: Option<Box<str>>,
    /// Steps that the event fulfils, a bit each.
    #[serde(rename = "m", skip_serializing_if = "is_zero", default)]
    pub(crate) marks: u32,
    /// It has been a match, or can be none any more.
    #[serde(rename = "f", skip_serializing_if = "is_false", default)]
    pub(crate) fired: bool,
    /// The event and where it came from, while a match by time may hang on it.
    #[serde(rename = "e", skip_serializing_if = "Option::is_none", default)]
    pub(crate) kept: Option<Kept>,
}

/// An event kept for later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    source: Box<str>,
    at_us: i64,
    raw: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    geo: Option<Box<str>>,
}

/// Noted events of one key.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Log {
    #[serde(rename = "o", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) observations: Vec<Observation>,
    /// Events by number of bucket, for detections that only count; in order.
    #[serde(rename = "b", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) buckets: Vec<Bucket>,
    /// Bucket of the first event of this key.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_bucket: Option<i64>,
    #[serde(skip)]
    pub(crate) forgotten: u64,
}

/// Events within one stretch of time: number of the stretch, count, whether it was a match.
pub(crate) type Bucket = (i64, u32, bool);

impl Observation {
    pub(crate) fn of(sighting: &Sighting<'_>) -> Self {
        let field = |name: &str| sighting.event.text(name).filter(|text| !text.is_empty()).map(|text| short(&text));
        Self {
            at_us: sighting.event.created_at().timestamp_micros(),
            id: sighting.event.id().into(),
            event_type: field("event_type"),
            ip: field("source_ip"),
            country: field("source_country"),
            value: None,
            marks: 0,
            fired: false,
            kept: None,
        }
    }

    /// Keeps the event itself, for a match that time or a later arrival decides; the fields that it is shown by, if there is no room for more.
    pub(crate) fn keep(&mut self, sighting: &Sighting<'_>, in_part: bool) {
        let event = sighting.event;
        let is_short = event.raw().len() <= MAX_KEPT_EVENT_BYTES && !in_part;
        let raw: Box<str> = if is_short { (&**event.raw()).into() } else { essence(event, sighting.keys) };
        let geo = event.geo_text().map(Into::into);
        self.kept = Some(Kept { source: sighting.source.into(), at_us: self.at_us, raw, geo });
    }

    pub(crate) fn has(&self, step: usize) -> bool {
        self.marks & (1 << step) != 0
    }
}

impl Log {
    /// Notes an event, if it may become a match with itself as long as one that comes late may do that; gives its place.
    pub(crate) fn note(
        &mut self,
        mut observation: Observation,
        sighting: &Sighting<'_>,
        keep_us: i64,
        may_match: bool,
    ) -> usize {
        self.forget(sighting.settled_us, keep_us);
        let is_settled = |at_us: i64| sighting.settled_us.is_some_and(|settled_us| at_us <= settled_us);
        self.observations.iter_mut().take_while(|known| is_settled(known.at_us)).for_each(|known| known.kept = None);
        if may_match && !is_settled(observation.at_us) {
            observation.keep(sighting, self.is_full());
        }
        self.insert(observation)
    }

    /// So many events are kept whole that of the next ones a part must do.
    pub(crate) fn is_full(&self) -> bool {
        let kept = self.observations.iter().filter_map(|known| known.kept.as_ref());
        kept.map(|kept| kept.raw.len()).sum::<usize>() > MAX_KEPT_BYTES
    }

    /// Puts an event in its place and gives that place.
    pub(crate) fn insert(&mut self, observation: Observation) -> usize {
        let place = self.observations.partition_point(|known| known.at_us <= observation.at_us);
        self.observations.insert(place, observation);
        place
    }

    /// Forgets what lies further than `keep_us` before the time up to which the source is settled.
    pub(crate) fn forget_settled(&mut self, settled_us: Option<i64>, keep_us: i64) {
        if let Some(settled_us) = settled_us {
            let from_us = settled_us.saturating_sub(keep_us);
            let gone = self.observations.partition_point(|known| known.at_us <= from_us);
            self.observations.drain(..gone);
        }
    }

    /// The same, and the oldest of too many.
    fn forget(&mut self, settled_us: Option<i64>, keep_us: i64) {
        self.forget_settled(settled_us, keep_us);
        let too_many = self.observations.len().saturating_sub(MAX_OBSERVATIONS);
        self.observations.drain(..too_many);
        self.forgotten += too_many as u64;
    }

    /// Where the window that ends with the event at `place` begins: the old end is open.
    pub(crate) fn window_start(&self, place: usize, within_us: i64) -> usize {
        let Some(last) = self.observations.get(place) else { return place };
        let from_us = last.at_us.saturating_sub(within_us);
        self.observations.partition_point(|known| known.at_us <= from_us).min(place)
    }

    /// The places whose windows hold the event at `place`: itself and what follows within the window.
    pub(crate) fn touched(&self, place: usize, within_us: i64) -> std::ops::Range<usize> {
        let Some(first) = self.observations.get(place) else { return place..place };
        let until_us = first.at_us.saturating_add(within_us);
        place..self.observations.partition_point(|known| known.at_us < until_us).max(place)
    }

    pub(crate) fn place_of(&self, event_id: &str) -> Option<usize> {
        self.observations.iter().rposition(|known| &*known.id == event_id)
    }

    pub(crate) fn expires_at_us(&self, keep_us: i64) -> i64 {
        self.observations.last().map_or(i64::MIN, |newest| newest.at_us.saturating_add(keep_us))
    }
}

impl Kept {
    /// The event and the name of its source.
    pub(crate) fn event(&self, event_id: &str) -> Option<(String, Event)> {
        let event = Event::new(event_id, DateTime::from_timestamp_micros(self.at_us)?, (&*self.raw).into()).ok()?;
        let event = self.geo.iter().fold(event, |event, geo| event.with_geo_text(geo));
        Some((self.source.to_string(), event))
    }
}

/// The fields of a large event that keys and alerts show.
fn essence(event: &Event, keys: [&[FieldPath]; 2]) -> Box<str> {
    const SHOWN: [&str; 9] = [
        "id",
        "event_type",
        "created_at",
        "user_email",
        "user_id",
        "account_id",
        "source",
        "source_ip",
        "source_country",
    ];
    let keys = || keys.into_iter().flatten().flat_map(FieldPath::fields);
    let ends_a_name = |rest: &str| rest.is_empty() || rest.starts_with('.');
    let is_of_a_key = |name: &str| keys().any(|key| key.strip_prefix(name).is_some_and(ends_a_name));
    let raw = |json: String| RawValue::from_string(json).ok();
    let mut fields: BTreeMap<String, Box<RawValue>> = BTreeMap::new();
    let mut room = MAX_KEY_MEMBERS_BYTES;
    for (name, member) in event.root().members().filter(|(name, _)| is_of_a_key(name)) {
        // A key must be what it is of the whole event: its member is kept as it is, with the list or object that it is in.
        // Of a name that comes twice the last one counts.
        let json = raw(member.json().to_owned()).filter(|json| json.get().len() <= MAX_KEY_MEMBER_BYTES.min(room));
        room -= json.as_ref().map_or(0, |json| json.get().len());
        match json {
            Some(json) => drop(fields.insert(name.into_owned(), json)),
            None => drop(fields.remove(&*name)),
        }
    }
    let whole: Vec<String> = fields.keys().cloned().collect();
    let is_kept = |path: &str| whole.iter().any(|name| path.strip_prefix(&**name).is_some_and(ends_a_name));
    for name in SHOWN.into_iter().chain(keys()) {
        let text = event.text(name).filter(|_| !is_kept(name));
        let json = text.and_then(|text| raw(serde_json::Value::from(&*short(&text)).to_string()));
        fields.extend(json.map(|json| (name.to_owned(), json)));
    }
    // Texts by name: writing cannot fail.
    serde_json::to_string(&fields).unwrap_or_default().into()
}

pub(super) fn short(text: &str) -> Box<str> {
    if text.len() <= MAX_FIELD_BYTES {
        return text.into();
    }
    let end = (0..=MAX_FIELD_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let (kept, _) = text.split_at_checked(end).unwrap_or_default();
    format!("{kept}…").into()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this form")]
fn is_zero(marks: &u32) -> bool {
    *marks == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this form")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use super::super::GroupKey;
    use super::super::tests::field;
    use super::*;

    #[test]
    fn an_event_that_is_kept_in_part_keeps_its_keys() {
        let (tags, who) = (r#"[ "b", {"x": 1.0} ]"#, "w".repeat(300));
        let raw = format!(
            r#"{{"id": "a", "user_email": "ann@example.org", "tags": {tags}, "context": {{"who": "{who}", "n": 1e2}}, "fill": "{}"}}"#,
            "f".repeat(MAX_KEPT_EVENT_BYTES)
        );
        let event = Event::new("a", DateTime::UNIX_EPOCH, raw.into()).expect("an event");
        let (by, dedup) =
            ([field("user_email"), field("context.n")], [field("tags"), field("context.who"), field("gone")]);
        let sighting = Sighting {
            source: "main",
            event: &event,
            received_at: DateTime::UNIX_EPOCH,
            settled_us: None,
            keys: [&by, &dedup],
        };
        let mut observation = Observation::of(&sighting);
        observation.keep(&sighting, false);
        let kept = observation.kept.expect("kept");
        assert!(kept.raw.len() < 1_000, "it is kept in part: {} bytes", kept.raw.len());
        let (_, part) = kept.event("a").expect("an event");
        for keys in [&by[..], &dedup] {
            let (whole, part) = (GroupKey::of("main", &event, keys), GroupKey::of("main", &part, keys));
            assert_eq!((whole.text, whole.shown), (part.text, part.shown));
        }
    }
}
