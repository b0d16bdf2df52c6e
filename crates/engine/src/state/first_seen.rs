//! `first_seen`: a value, or a tuple of values, that this key never had before.
//!
//! An event matches when its value was not seen for this key within `memory` before it; `memory` counts from the last
//! time that the value was seen, and exactly `memory` is out. For `learn` from the first event that the rule ever saw it
//! only learns. A missing or empty value is not a new value. Of one value that comes out of order the earliest event is
//! the first: the match moves, it is not made again. What was told as new stays told when a late event shows that the
//! value had not been gone for all of `memory`, or lets `learn` begin earlier: nothing waits here, for a new country must
//! be told at once.

use serde::{Deserialize, Serialize};

use super::distinct::value;
use super::key::{GroupKey, bounded};
use super::log::{Observation, short};
use super::threshold::shown;
use super::{Evidence, Firing, Noted, Row, Rows, Sighting, Standing};
use crate::event::{Event, FieldPath};
use crate::text::Untrusted;

/// How long a value is remembered after it was last seen, unless the rule says otherwise: 90 d.
pub const DEFAULT_MEMORY: std::time::Duration = std::time::Duration::from_secs(90 * 86_400);
/// How long a rule only learns, unless it says otherwise: 30 d.
pub const DEFAULT_LEARN: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);
/// A key's own row is written again when so large a part of `memory` has passed: rarely, and long before its end.
const REFRESHED_PARTS: i64 = 16;
/// How many values of a key are listed as known: for people, who read no more.
const MAX_KNOWN: usize = 10;

/// Options of `first_seen`.
#[derive(Debug, Clone)]
pub struct FirstSeen {
    /// Whose values; several are one tuple.
    pub of: Vec<FieldPath>,
    /// See [`DEFAULT_MEMORY`]; microseconds.
    pub memory_us: i64,
    /// See [`DEFAULT_LEARN`]; microseconds.
    pub learn_us: i64,
}

/// One value of one key; also the rule's own row (its first event) and a key's row (the values it has had).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// When it was first seen, without a gap of `memory` since.
    #[serde(rename = "f")]
    since_us: i64,
    #[serde(rename = "l")]
    last_us: i64,
    /// Known values of a key, newest last.
    #[serde(rename = "k", default, skip_serializing_if = "Vec::is_empty")]
    known: Vec<Box<str>>,
    /// It never ends: the rule's own row.
    #[serde(rename = "r", default, skip_serializing_if = "std::ops::Not::not")]
    is_rule: bool,
}

impl Seen {
    fn row() -> Row {
        Row::Seen(Self { since_us: i64::MAX, last_us: i64::MIN, known: Vec::new(), is_rule: false })
    }
}

/// What a sighting of a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    New,
    /// Earlier than the first one so far.
    Earlier,
    Known,
}

impl FirstSeen {
    pub(super) fn note(&self, group: &GroupKey, sighting: &Sighting<'_>, rows: &mut dyn Rows) -> Noted {
        let Some(value) = self.value(sighting.event) else { return Noted::Uncounted };
        let at_us = sighting.event.created_at().timestamp_micros();
        let learned_us = self.start(sighting, rows).saturating_add(self.learn_us);
        let row_key = row_key(group, &value);
        let sight = self.sight(rows.peek(&row_key), at_us);
        let Row::Seen(seen) = rows.change(&row_key, Seen::row) else { return Noted::Uncounted };
        let moved_from_us = (sight == Sight::Earlier).then_some(seen.since_us);
        match sight {
            Sight::New => (seen.since_us, seen.last_us) = (at_us, at_us),
            Sight::Earlier => (seen.since_us, seen.last_us) = (at_us, seen.last_us.max(at_us)),
            Sight::Known => seen.last_us = seen.last_us.max(at_us),
        }
        if sight == Sight::New || self.is_fading(rows.peek(&group.text), at_us) {
            self.learn(group, &value, at_us, rows);
        }
        let is_silent = self.learn_us > 0 && at_us < learned_us;
        if sight == Sight::Known || is_silent {
            return Noted::Fired(Vec::new());
        }
        Noted::Fired(vec![Firing {
            moved_from_us,
            value: Some(value),
            ..Firing::new(&group.text, at_us, sighting.event.id().to_owned())
        }])
    }

    fn sight(&self, row: Option<&Row>, at_us: i64) -> Sight {
        match row {
            Some(Row::Seen(seen)) if at_us.saturating_sub(seen.last_us) >= self.memory_us => Sight::New,
            Some(Row::Seen(seen)) if at_us >= seen.since_us => Sight::Known,
            Some(Row::Seen(seen)) if seen.since_us.saturating_sub(at_us) < self.memory_us => Sight::Earlier,
            // Before all that is remembered: whatever was known then is forgotten.
            Some(_) => Sight::Known,
            None => Sight::New,
        }
    }

    /// Event time of the first event that the rule ever saw.
    fn start(&self, sighting: &Sighting<'_>, rows: &mut dyn Rows) -> i64 {
        let at_us = sighting.event.created_at().timestamp_micros();
        let key = GroupKey::of(sighting.source, sighting.event, &[]).text;
        let known_us = match rows.peek(&key) {
            Some(Row::Seen(seen)) if seen.is_rule => Some(seen.since_us),
            _ => None,
        };
        match known_us {
            Some(known_us) if known_us <= at_us => known_us,
            _ => {
                if let Row::Seen(seen) = rows.change(&key, Seen::row) {
                    (seen.since_us, seen.is_rule) = (at_us, true);
                }
                at_us
            }
        }
    }

    /// Whether what a key has had is near its end, although it is still seen.
    fn is_fading(&self, row: Option<&Row>, at_us: i64) -> bool {
        match row {
            Some(Row::Seen(key)) => at_us.saturating_sub(key.last_us) >= self.memory_us / REFRESHED_PARTS,
            _ => true,
        }
    }

    /// Adds a value to those of its key.
    fn learn(&self, group: &GroupKey, value: &str, at_us: i64, rows: &mut dyn Rows) {
        if let Row::Seen(key) = rows.change(&group.text, Seen::row) {
            key.known.retain(|known| **known != *value);
            key.known.push(short(value));
            let too_many = key.known.len().saturating_sub(MAX_KNOWN);
            key.known.drain(..too_many);
            key.last_us = key.last_us.max(at_us);
            key.since_us = key.since_us.min(at_us);
        }
    }

    fn value(&self, event: &Event) -> Option<Box<str>> {
        let values: Option<Vec<Box<str>>> = self.of.iter().map(|field| value(field, event)).collect();
        values.map(|values| values.join(", ").into())
    }

    fn fields(&self) -> String {
        self.of.iter().map(FieldPath::as_str).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn finding(&self, rows: &dyn Rows, firing: &Firing) -> (Untrusted, Vec<Evidence>) {
        let value = firing.value.as_deref().unwrap_or_default();
        let known = known(rows.peek(&firing.row_key), value);
        (Untrusted::new(format!("{value} was never seen before as {}; {known}", self.fields())), Vec::new())
    }

    pub(super) fn standing(&self, group: &GroupKey, rows: &dyn Rows, sighting: &Sighting<'_>) -> Standing {
        let Some(value) = self.value(sighting.event) else {
            return Standing::none(format!("not counted: the event lacks one of {}", self.fields()));
        };
        let at_us = sighting.event.created_at().timestamp_micros();
        let row = rows.peek(&row_key(group, &value));
        let known = known(rows.peek(&group.text), &value);
        let start_us = match rows.peek(&GroupKey::of(sighting.source, sighting.event, &[]).text) {
            Some(Row::Seen(seen)) if seen.is_rule => seen.since_us.min(at_us),
            _ => at_us,
        };
        let learned_us = start_us.saturating_add(self.learn_us);
        let is_new = self.sight(row, at_us) != Sight::Known;
        let summary = match (is_new, row) {
            (false, Some(Row::Seen(seen))) => {
                let shown = |us: i64| chrono::DateTime::from_timestamp_micros(us).unwrap_or_default().to_rfc3339();
                format!("{value} was seen from {} to {}; {known}", shown(seen.since_us), shown(seen.last_us))
            }
            (_, _) if at_us < learned_us && self.learn_us > 0 => {
                let left = shown(learned_us - at_us);
                format!("{value} is new, but the rule still learns for {left}; {known}")
            }
            _ => format!("{value} is new; {known}"),
        };
        let observation = Observation::of(sighting);
        Standing::decided(
            is_new && (self.learn_us == 0 || at_us >= learned_us),
            summary,
            vec![Evidence::of(&observation, Some(&value))],
        )
    }

    pub(super) fn expires_at_us(&self, seen: &Seen) -> i64 {
        if seen.is_rule { i64::MAX } else { seen.last_us.saturating_add(self.memory_us) }
    }

    pub(super) fn meaning(&self, hasher: &mut blake3::Hasher) {
        for field in &self.of {
            hasher.update(field.as_str().as_bytes());
            hasher.update(&[0]);
        }
    }
}

fn known(row: Option<&Row>, new: &str) -> String {
    let known: Vec<&str> = match row {
        Some(Row::Seen(seen)) => seen.known.iter().map(|known| &**known).filter(|known| *known != new).collect(),
        _ => Vec::new(),
    };
    if known.is_empty() { "nothing was known before".into() } else { format!("known: {}", known.join(", ")) }
}

/// One row a value, which begins with its group as all rows of a source do; values differ without regard to case.
fn row_key(group: &GroupKey, value: &str) -> String {
    format!("{}{}", group.text, bounded(serde_json::Value::from(value.to_lowercase()).to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::Question;
    use super::super::tests::{Bench, field};
    use super::*;

    fn country(memory_s: i64, learn_s: i64) -> Question {
        let of = vec![field("source_country")];
        Question::FirstSeen(FirstSeen { of, memory_us: memory_s * 1_000_000, learn_us: learn_s * 1_000_000 })
    }

    fn from(country: &str) -> String {
        format!(r#""source_country": "{country}""#)
    }

    #[test]
    fn it_learns_from_the_first_event_of_the_rule_on_and_tells_afterwards() {
        let mut bench = Bench::by_user(country(1_000, 50));
        let seen = |user: &str, country: &str| format!(r#""user_email": "{user}", "source_country": "{country}""#);
        assert!(bench.see("a", 0, &seen("ann", "GB")).is_empty());
        assert!(bench.see("b", 49, &seen("ann", "FR")).is_empty(), "it still learns");
        assert_eq!(
            bench.standing("x", 49, &seen("bob", "FR")).1,
            "FR is new, but the rule still learns for 1s; nothing was known before"
        );
        assert_eq!(bench.see("c", 50, &seen("bob", "GB")), ["c@50"], "of the rule, not of the key");
        assert_eq!(bench.see("d", 60, &seen("ann", "JP")), ["d@60"]);
        assert!(bench.see("e", 61, &seen("ann", "jp")).is_empty(), "the same value in another spelling");
    }

    #[test]
    fn memory_counts_from_the_last_time_and_exactly_memory_is_out() {
        let mut bench = Bench::new(country(100, 0));
        assert_eq!(bench.see("a", 0, &from("GB")), ["a@0"]);
        assert!(bench.see("b", 99, &from("GB")).is_empty());
        assert!(bench.see("c", 198, &from("GB")).is_empty(), "99 s after the last time");
        assert_eq!(bench.see("d", 298, &from("GB")), ["d@298"]);
    }

    #[test]
    fn of_a_value_that_comes_out_of_order_the_earliest_event_is_the_first() {
        let mut bench = Bench::new(country(100, 0));
        assert_eq!(bench.see("b", 50, &from("GB")), ["b@50"]);
        assert_eq!(bench.see("a", 20, &from("GB")), ["a@20"], "the match moves");
        assert!(bench.see("c", 30, &from("GB")).is_empty());
        assert!(bench.see("z", -90, &from("GB")).is_empty(), "before all that is remembered nothing is known");
    }

    #[test]
    fn a_tuple_needs_all_of_its_values() {
        let of = vec![field("source_country"), field("source_ip")];
        let mut bench = Bench::new(Question::FirstSeen(FirstSeen { of, memory_us: 100_000_000, learn_us: 0 }));
        let seen = |country: &str, ip: &str| format!(r#""source_country": "{country}", "source_ip": "{ip}""#);
        assert_eq!(bench.see("a", 0, &seen("GB", "192.0.2.1")), ["a@0"]);
        assert_eq!(bench.see("b", 1, &seen("GB", "192.0.2.2")), ["b@1"]);
        assert!(bench.see("c", 2, &seen("GB", "192.0.2.1")).is_empty());
        assert_eq!(bench.see("d", 3, &seen("FR", "")), ["uncounted"]);
    }
}
