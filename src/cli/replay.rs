//! Rules over events of the past, as `run` would have seen them had they come in order and in time.
//!
//! Before each event time goes on to its stamp, and at the end to the last one and no further. A batch holds events of one
//! day, so that what it did can be told by the day. Nothing is stored.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use vigie_engine::engine::{Effects, Engine, MAX_TICKS, Restored};
use vigie_engine::event::Event;
use vigie_engine::rule::Rule;

use crate::store::{StateStream, StoreError};

/// Events of a batch. Each tick within it looks again at all rows that ended before it, so a large one costs more.
const MAX_BATCH_EVENTS: usize = 32;
/// Days without an event over which what time decides is told by the day; after a longer pause the next event's day has it.
const MAX_IDLE_DAYS: u64 = 400;

/// An engine on its way through one source's history.
pub(super) struct Replay {
    engine: Engine,
    source: String,
    /// Before this time rules only learn.
    aloud_from: Option<DateTime<Utc>>,
    day: Option<NaiveDate>,
}

impl Replay {
    /// Begins without any state.
    pub(super) fn new(rules: Vec<Rule>, source: &str, aloud_from: Option<DateTime<Utc>>) -> Self {
        Self { engine: Engine::new(rules), source: source.to_owned(), aloud_from, day: None }
    }

    /// The engine as it stands.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Takes up what a daemon noted; tells which rows cannot be read.
    pub(super) async fn restore(&mut self, mut state: StateStream) -> Result<Restored, StoreError> {
        let mut restoring = self.engine.restoring();
        while let Some(rows) = state.next().await? {
            restoring.take(rows);
        }
        Ok(restoring.finish())
    }

    /// Runs over events in order of time; `took` gets what each day's part of them did.
    pub(super) fn take(&mut self, events: &[Event], took: &mut impl FnMut(NaiveDate, &Effects)) {
        for day in events.chunk_by(|one, next| day_of(one) == day_of(next)) {
            let Some(first) = day.first() else { continue };
            self.pass_days(day_of(first), took);
            day.chunks(MAX_BATCH_EVENTS).for_each(|some| self.evaluate(day_of(first), some, took));
            self.day = Some(day_of(first));
        }
    }

    /// Notes events without letting time pass: what waits for them stays undecided.
    pub(super) fn note(&mut self, events: &[Event]) {
        let mut batch = self.engine.batch();
        events.iter().for_each(|event| batch.step(&self.source, event, event.created_at()));
        let effects = batch.finish();
        self.engine.apply(effects.changes);
    }

    /// Lets time go on to the last stamp.
    pub(super) fn end(&mut self, last_at: DateTime<Utc>, took: &mut impl FnMut(NaiveDate, &Effects)) {
        self.pass_days(last_at.date_naive(), took);
        self.tick(last_at, last_at.date_naive(), took);
    }

    /// What time decides on days without events.
    fn pass_days(&mut self, until: NaiveDate, took: &mut impl FnMut(NaiveDate, &Effects)) {
        let Some(from) = self.day else { return };
        if (until - from).num_days().unsigned_abs() > MAX_IDLE_DAYS {
            return;
        }
        let mut day = from;
        while day < until {
            let Some(next) = day.checked_add_days(Days::new(1)) else { return };
            let end = next.and_time(NaiveTime::MIN).and_utc() - TimeDelta::microseconds(1);
            self.tick(end, day, took);
            day = next;
        }
        self.day = Some(until);
    }

    /// All that is due by then.
    fn tick(&mut self, to: DateTime<Utc>, day: NaiveDate, took: &mut impl FnMut(NaiveDate, &Effects)) {
        for _ in 0..MAX_TICKS {
            let mut batch = self.engine.batch();
            batch.tick(&self.source, to, self.aloud_from);
            let effects = batch.finish();
            let more_is_due = effects.more_is_due;
            self.finish(effects, day, took);
            if !more_is_due {
                break;
            }
        }
    }

    fn evaluate(&mut self, day: NaiveDate, events: &[Event], took: &mut impl FnMut(NaiveDate, &Effects)) {
        let mut batch = self.engine.batch();
        for event in events {
            let at = event.created_at();
            batch.tick(&self.source, at, self.aloud_from);
            if self.aloud_from.is_some_and(|from| at < from) {
                batch.learn(&self.source, event, at, self.aloud_from);
            } else {
                batch.step(&self.source, event, at);
            }
        }
        let effects = batch.finish();
        self.finish(effects, day, took);
    }

    fn finish(&mut self, mut effects: Effects, day: NaiveDate, took: &mut impl FnMut(NaiveDate, &Effects)) {
        let changes = std::mem::take(&mut effects.changes);
        took(day, &effects);
        self.engine.apply(changes);
    }
}

fn day_of(event: &Event) -> NaiveDate {
    event.created_at().date_naive()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENCE: &str = "rules: [{id: r, title: R, severity: high, absence: \
        {after: {event_type: A}, expect: {event_type: B}, within: 1h, by: [who]}}]";

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-01-{text}:00Z").parse().expect("a stamp")
    }

    fn event(event_type: &str, when: &str) -> Event {
        let raw = format!("{{\"event_type\":\"{event_type}\",\"who\":\"w\"}}");
        Event::new(&format!("{event_type}{when}"), at(when), raw.into()).expect("an event")
    }

    /// First times of alerts with the day of the batch that raised them, and how many matches were only learned.
    fn run(events: &[Event], last_at: &str, aloud_from: Option<&str>) -> (Vec<String>, u64) {
        let file = vigie_engine::diagnostic::SourceFile { path: "r.yaml".into(), text: ABSENCE.into() };
        let mut diagnostics = vigie_engine::diagnostic::Diagnostics::default();
        let rules = vigie_engine::rule::load(&[file], &mut |_, _| Err("no lists".into()), &mut diagnostics).rules;
        let (mut alerts, mut learned) = (Vec::new(), 0);
        let mut took = |day: NaiveDate, effects: &Effects| {
            alerts.extend(effects.alerts.iter().map(|alert| format!("{} in {day}", alert.first_at.format("%dT%H:%M"))));
            learned += effects.learned.iter().map(|(_, matches)| matches).sum::<u64>();
        };
        let mut replay = Replay::new(rules, "file", aloud_from.map(at));
        replay.take(events, &mut took);
        replay.end(at(last_at), &mut took);
        (alerts, learned)
    }

    #[test]
    fn time_goes_to_the_last_stamp_and_no_further() {
        let waiting = [event("A", "01T10:00")];
        assert_eq!(run(&waiting, "01T10:59", None).0, [""; 0]);
        assert_eq!(run(&waiting, "01T11:00", None).0, ["01T11:00 in 2026-01-01"]);
        assert_eq!(run(&waiting, "09T11:00", None).0, ["01T11:00 in 2026-01-01"], "told on its day");
        let came = [event("A", "01T10:00"), event("B", "01T10:59")];
        assert_eq!(run(&came, "09T11:00", None).0, [""; 0]);
    }

    #[test]
    fn before_a_time_matches_are_only_learned() {
        let events = [event("A", "01T10:00"), event("A", "02T10:00"), event("A", "03T10:00")];
        let (alerts, learned) = run(&events, "04T00:00", Some("02T12:00"));
        assert_eq!((alerts, learned), (vec!["03T11:00 in 2026-01-03".into()], 2));
    }
}
