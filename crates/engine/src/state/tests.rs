//! What the tests of the detections share: one detection over rows in memory, events told by second and fields, matches
//! told as `id@second`.

use std::collections::HashMap;

use chrono::DateTime;

use super::{Detection, Firing, GroupKey, Noted, Question, Row, Rows, Sighting};
use crate::condition::{Condition, Literal, Test};
use crate::event::{Event, FieldPath};

#[derive(Default)]
struct InMemory(HashMap<String, Row>);

impl Rows for InMemory {
    fn peek(&self, key: &str) -> Option<&Row> {
        self.0.get(key)
    }

    fn change(&mut self, key: &str, make: fn() -> Row) -> &mut Row {
        self.0.entry(key.to_owned()).or_insert_with(make)
    }
}

/// One detection without a key, or with the one of a user.
pub(super) struct Bench {
    detection: Detection,
    rows: InMemory,
    settled_us: Option<i64>,
}

impl Bench {
    pub(super) fn new(question: Question) -> Self {
        Self::by(question, Vec::new())
    }

    pub(super) fn by_user(question: Question) -> Self {
        Self::by(question, vec![field("user_email")])
    }

    fn by(question: Question, by: Vec<FieldPath>) -> Self {
        Self { detection: Detection::new(question, by, 100), rows: InMemory::default(), settled_us: None }
    }

    /// Notes an event that happened at this second; `fields` are members of its JSON.
    pub(super) fn see(&mut self, id: &str, at_s: i64, fields: &str) -> Vec<String> {
        self.note(&event(id, at_s, fields))
    }

    /// The same, where an address database says this of the event's address.
    pub(super) fn see_located(&mut self, id: &str, at_s: i64, fields: &str, geo: &str) -> Vec<String> {
        self.note(&event(id, at_s, fields).with_geo_text(&format!(r#"{{"geo": {{{geo}}}}}"#)))
    }

    fn note(&mut self, event: &Event) -> Vec<String> {
        match self.detection.note(&self.sighting(event), &mut self.rows) {
            Noted::Fired(firings) => told(&firings),
            Noted::Uncounted => vec!["uncounted".into()],
        }
    }

    /// Nothing up to this second is missing any more; what time alone decides by then.
    pub(super) fn settle(&mut self, at_s: i64) -> Vec<String> {
        let settled_us = at_s * 1_000_000;
        self.settled_us = Some(settled_us);
        let mut due: Vec<&String> = self.rows.0.keys().collect();
        due.sort();
        let due: Vec<String> = due.into_iter().cloned().collect();
        due.iter()
            .flat_map(|key| match self.rows.0.get_mut(key) {
                Some(row) if self.detection.due_us(row).is_some_and(|due_us| due_us <= settled_us) => {
                    told(&self.detection.settle(key, row, settled_us))
                }
                _ => Vec::new(),
            })
            .collect()
    }

    /// The sentence of a match that hangs on this event, and the ids that it rests on.
    pub(super) fn finding(&self, id: &str, at_s: i64, fields: &str) -> (String, Vec<String>) {
        let event = event(id, at_s, fields);
        let key = GroupKey::of("main", &event, &self.detection.by).text;
        let finding = self.detection.finding(&self.rows, &Firing::new(&key, at_s * 1_000_000, id.to_owned()));
        let ids = finding.evidence.into_iter().map(|evidence| evidence.event_id).collect();
        (finding.summary.as_raw().to_owned(), ids)
    }

    /// How `explain` tells an event: whether it would fire, and why.
    pub(super) fn standing(&self, id: &str, at_s: i64, fields: &str) -> (bool, String) {
        let event = event(id, at_s, fields);
        let standing = self.detection.standing(&self.rows, &self.sighting(&event));
        (standing.holds, standing.summary)
    }

    fn sighting<'e>(&self, event: &'e Event) -> Sighting<'e> {
        let received_at = event.created_at();
        Sighting { source: "main", event, received_at, settled_us: self.settled_us, keys: [&[], &[]] }
    }
}

fn told(firings: &[Firing]) -> Vec<String> {
    firings.iter().map(|firing| format!("{}@{}", firing.event_id, firing.at_us / 1_000_000)).collect()
}

fn event(id: &str, at_s: i64, fields: &str) -> Event {
    let at = DateTime::from_timestamp(at_s, 0).expect("a stamp");
    Event::new(id, at, format!("{{{fields}}}").into()).expect("an event")
}

pub(super) fn field(name: &str) -> FieldPath {
    FieldPath::parse(name).expect("a path")
}

/// Events of this type.
pub(super) fn of_type(event_type: &str) -> Condition {
    Condition::Test(Test::build("event_type", vec![Literal::Text(event_type.into())]).expect("a test"))
}
