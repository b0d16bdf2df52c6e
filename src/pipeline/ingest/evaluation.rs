//! What one answer gives the engine and the store, in the order in which it is evaluated.
//!
//! It never drops anything. Events of one answer are evaluated in order of time, so that what is told does not depend on
//! the way in which a source sorts.

use chrono::{DateTime, Utc};
use vigie_engine::engine::{Effects, Engine};
use vigie_engine::event::Event;

use crate::pipeline::drift;
use crate::source::Cursor;
use crate::store::StoredEvent;

/// One commit's input.
pub(super) struct Evaluation {
    pub(super) events: Vec<Event>,
    pub(super) before_start: Vec<Event>,
    pub(super) poison: Vec<StoredEvent>,
    pub(super) cursor: Option<Cursor>,
    pub(super) settled_at: Option<DateTime<Utc>>,
    pub(super) aloud_from: Option<DateTime<Utc>>,
    pub(super) learn_from: Option<DateTime<Utc>>,
    pub(super) drift: Option<drift::Change>,
    pub(super) cursor_may_wait: bool,
    pub(super) now: DateTime<Utc>,
}

impl Evaluation {
    /// Nothing but the time.
    pub(super) fn at(now: DateTime<Utc>) -> Self {
        Self {
            events: Vec::new(),
            before_start: Vec::new(),
            poison: Vec::new(),
            cursor: None,
            settled_at: None,
            aloud_from: None,
            learn_from: None,
            drift: None,
            cursor_may_wait: false,
            now,
        }
    }

    /// The same time once more, for what one batch did not decide.
    pub(super) fn time_alone(&self) -> Self {
        Self { settled_at: self.settled_at, aloud_from: self.aloud_from, ..Self::at(self.now) }
    }

    /// Events of one answer in order of time.
    pub(super) fn in_order(mut self) -> Self {
        in_order_of_time(&mut self.events);
        in_order_of_time(&mut self.before_start);
        self
    }

    /// The part of the past that rules learn from. What an answer shows beyond it by chance would be a past with gaps.
    pub(super) fn learned(&self) -> impl Iterator<Item = &Event> {
        let from = self.learn_from;
        self.before_start.iter().filter(move |event| from.is_some_and(|from| event.created_at() >= from))
    }

    /// What the rules make of it.
    pub(super) fn run(&self, engine: &Engine, source: &str) -> Effects {
        let mut batch = engine.batch();
        for event in self.learned() {
            batch.learn(source, event, self.now, self.aloud_from);
        }
        for event in &self.events {
            batch.step(source, event, self.now);
        }
        if let Some(settled_at) = self.settled_at {
            batch.tick(source, settled_at, self.aloud_from);
        }
        batch.finish()
    }

    /// All of it as rows, the past first.
    pub(super) fn into_rows(self) -> Vec<StoredEvent> {
        let mut rows: Vec<StoredEvent> = self.before_start.iter().chain(&self.events).map(stored).collect();
        rows.extend(self.poison);
        rows
    }
}

/// By time; events of one time keep the order of the source, turned around where it gives the newest first.
fn in_order_of_time(events: &mut [Event]) {
    let is_newest_first = match (events.first(), events.last()) {
        (Some(first), Some(last)) => first.created_at() > last.created_at(),
        _ => false,
    };
    if is_newest_first {
        events.reverse();
    }
    events.sort_by_key(Event::created_at);
}

pub(super) fn stored(event: &Event) -> StoredEvent {
    StoredEvent {
        id: event.id().to_owned(),
        created_at: event.created_at(),
        raw: event.raw().clone(),
        poison: None,
        digest: event.digest(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn ordered(rows: &[(&str, i64)]) -> String {
        let event = |(id, at_s): &(&str, i64)| {
            Event::new(id, DateTime::from_timestamp(*at_s, 0).expect("valid"), Arc::from("{}")).expect("an event")
        };
        let mut events: Vec<Event> = rows.iter().map(event).collect();
        in_order_of_time(&mut events);
        events.iter().map(Event::id).collect()
    }

    #[test]
    fn whichever_way_a_source_sorts_the_first_to_happen_comes_first() {
        assert_eq!(ordered(&[("a", 1), ("b", 2), ("c", 2), ("d", 3)]), "abcd");
        assert_eq!(ordered(&[("d", 3), ("c", 2), ("b", 2), ("a", 1)]), "abcd", "ties are turned around too");
        assert_eq!(ordered(&[("b", 2), ("c", 2)]), "bc", "of one time alone nothing can be known");
        assert_eq!(ordered(&[("c", 2), ("a", 1), ("d", 3)]), "acd");
        assert_eq!(ordered(&[]), "");
    }
}
