//! `sequence`: steps in order within a window; a step may be absent.
//!
//! A chain takes one event for each present step, each later than the one before, the last one less than `within` after
//! the first. An absent step says that no event of its kind lies between its neighbours: before the first present step
//! within `within`, after the last one until `within` after the first. Of several chains that end in one event the one
//! that begins last counts. Without absent steps a chain matches with its last event; with one it waits until the source
//! is settled up to its end, so that an event that comes late is not taken for one that did not come.

use super::finding::none_found;
use super::key::GroupKey;
use super::log::{Log, MAX_OBSERVATIONS, Observation};
use super::threshold::{shown, with_event};
use super::{Evidence, Firing, Noted, Row, Rows, Sighting, Standing};
use crate::condition::Condition;
use crate::text::Untrusted;

/// Options of `sequence`.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// In order; at least one is present, and at most [`super::MAX_STEPS`] in all.
    pub steps: Vec<Step>,
    /// Length of the window in microseconds.
    pub within_us: i64,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// For people.
    pub name: String,
    /// Which events.
    pub when: Condition,
    /// No such event may come.
    pub absent: bool,
}

/// A chain that is complete as far as present steps go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chain {
    /// Place of its last event.
    last: usize,
    /// Place of its first event.
    first: usize,
    /// When time decides it; `None`: at once.
    due_us: Option<i64>,
}

impl Sequence {
    pub(super) fn note(&self, group: &GroupKey, sighting: &Sighting<'_>, rows: &mut dyn Rows) -> Noted {
        let observation = self.observation(sighting);
        if observation.marks == 0 {
            return Noted::Fired(Vec::new());
        }
        let Row::Log(log) = rows.change(&group.text, Row::log) else { return Noted::Uncounted };
        if !self.waits() {
            let may_match = self.last_present().is_some_and(|last| observation.has(last));
            log.note(observation, sighting, self.keep_us(), may_match);
            return Noted::Fired(self.fire(log, &group.text, |_| true));
        }
        self.decide(log, sighting.settled_us);
        log.forget_settled(sighting.settled_us, self.keep_us());
        log.insert(self.kept(log, observation, sighting));
        self.release(log, sighting.settled_us);
        self.make_room(log);
        Noted::Fired(Vec::new())
    }

    /// Forgets nothing: the findings of what fires now are still to be made.
    pub(super) fn settle(&self, row_key: &str, log: &mut Log, settled_us: i64) -> Vec<Firing> {
        self.fire(log, row_key, |chain| chain.due_us.is_some_and(|due_us| due_us <= settled_us))
    }

    /// When the next chain is decided by time.
    pub(super) fn due_us(&self, log: &Log) -> Option<i64> {
        if !self.waits() {
            return None;
        }
        let open = self.chains(log).into_iter().filter(|chain| !self.has_fired(log, chain.last));
        open.filter_map(|chain| chain.due_us).min()
    }

    pub(super) fn expires_at_us(&self, log: &Log) -> i64 {
        // What is still due keeps its row.
        log.expires_at_us(self.keep_us()).max(self.due_us(log).unwrap_or(i64::MIN))
    }

    fn observation(&self, sighting: &Sighting<'_>) -> Observation {
        let holds = self.steps.iter().enumerate().filter(|(_, step)| step.when.holds(sighting.event));
        let marks = holds.fold(0, |marks, (index, _)| marks | (1 << index));
        Observation { marks, ..Observation::of(sighting) }
    }

    /// With the event itself, if a match may hang on it.
    fn kept(&self, log: &Log, mut observation: Observation, sighting: &Sighting<'_>) -> Observation {
        if self.last_present().is_some_and(|last| observation.has(last)) {
            observation.keep(sighting, log.is_full());
        }
        observation
    }

    /// How long an event counts: what spoils the beginning of a chain lies up to a window before it.
    fn keep_us(&self) -> i64 {
        let begins_absent = self.steps.first().is_some_and(|step| step.absent);
        if begins_absent { self.within_us.saturating_mul(2) } else { self.within_us }
    }

    pub(super) fn waits(&self) -> bool {
        self.steps.iter().any(|step| step.absent)
    }

    fn last_present(&self) -> Option<usize> {
        self.steps.iter().rposition(|step| !step.absent)
    }

    fn has_fired(&self, log: &Log, place: usize) -> bool {
        log.observations.get(place).is_some_and(|known| known.fired)
    }

    fn fire(&self, log: &mut Log, row_key: &str, is_ripe: impl Fn(&Chain) -> bool) -> Vec<Firing> {
        let mut firings = Vec::new();
        for chain in self.chains(log).into_iter().filter(is_ripe) {
            let Some(last) = log.observations.get_mut(chain.last) else { continue };
            if !last.fired {
                last.fired = true;
                let (at_us, event_id) = (chain.due_us.unwrap_or(last.at_us), last.id.to_string());
                firings.push(Firing { kept: last.kept.take(), ..Firing::new(row_key, at_us, event_id) });
            }
        }
        firings
    }

    /// Marks what is decided against, before what decided it is forgotten.
    fn decide(&self, log: &mut Log, settled_us: Option<i64>) {
        let (Some(settled_us), true) = (settled_us, self.waits()) else { return };
        let open: Vec<usize> = self.chains(log).into_iter().map(|chain| chain.last).collect();
        for (place, known) in log.observations.iter_mut().enumerate() {
            known.fired |= known.at_us <= settled_us && open.binary_search(&place).is_err();
        }
    }

    /// Lets go of what is kept for nothing. Where one step alone is present and comes first, an event whose chain is
    /// decided is needed only to spoil what comes late, so no longer than the source is unsettled.
    fn release(&self, log: &mut Log, settled_us: Option<i64>) {
        let is_absence = self.last_present() == Some(0) && self.steps.len() > 1;
        if !is_absence {
            return;
        }
        let open: Vec<usize> = self.chains(log).into_iter().map(|chain| chain.last).collect();
        let mut place = 0;
        log.observations.retain_mut(|known| {
            let is_open = open.binary_search(&place).is_ok() && !known.fired;
            place += 1;
            if !is_open {
                known.kept = None;
            }
            is_open || settled_us.is_none_or(|settled_us| known.at_us > settled_us)
        });
    }

    /// Of too many events the oldest go that no open chain rests on; what they had decided stays decided. Where nothing
    /// else is left, the oldest chain goes.
    fn make_room(&self, log: &mut Log) {
        let too_many = log.observations.len().saturating_sub(MAX_OBSERVATIONS);
        if too_many == 0 {
            return;
        }
        let mut is_needed = vec![false; log.observations.len()];
        let open: Vec<Chain> = self.chains(log).into_iter().filter(|chain| !self.has_fired(log, chain.last)).collect();
        for chain in &open {
            is_needed.iter_mut().take(chain.last + 1).skip(chain.first).for_each(|needed| *needed = true);
        }
        // The last event of each absent step forbids what is still to come.
        for index in self.steps.iter().enumerate().filter(|(_, step)| step.absent).map(|(index, _)| index) {
            let last = log.observations.iter().rposition(|known| known.has(index));
            is_needed.iter_mut().skip(last.unwrap_or(usize::MAX)).take(1).for_each(|needed| *needed = true);
        }
        let idle = is_needed.iter().filter(|needed| !**needed).count();
        let all = idle < too_many;
        let mut places = is_needed.iter().enumerate().filter(|(_, needed)| all || !**needed);
        let Some((end, _)) = places.nth(too_many - 1) else { return };
        let mut was_open: Vec<bool> = vec![false; is_needed.len()];
        for chain in &open {
            was_open.iter_mut().skip(chain.last).take(1).for_each(|open| *open = true);
        }
        let stays: Vec<bool> =
            is_needed.iter().enumerate().map(|(place, needed)| place > end || (!all && *needed)).collect();
        let mut staying = stays.iter().copied();
        log.observations.retain(|_| staying.next().unwrap_or(true));
        let was_open: Vec<bool> =
            was_open.into_iter().zip(&stays).filter(|(_, stays)| **stays).map(|(open, _)| open).collect();
        // What only the forgotten spoiled was decided, and must not come to life.
        for chain in self.chains(log) {
            if let (Some(false), Some(last)) = (was_open.get(chain.last), log.observations.get_mut(chain.last)) {
                last.fired = true;
            }
        }
        log.forgotten += too_many as u64;
    }

    /// Every event that ends a chain, with the chain that begins last.
    fn chains(&self, log: &Log) -> Vec<Chain> {
        let mut walk = Walk::new(self);
        let mut chains = Vec::new();
        for place in 0..log.observations.len() {
            if let Some(first) = walk.take(log, place) {
                chains.push(Chain { last: place, first, due_us: None });
            }
        }
        if self.waits() {
            let spoilers = self.spoilers(log);
            chains.retain_mut(|chain| self.set_due(log, chain, &spoilers));
        }
        chains
    }

    /// For each place the next event behind it that is a trailing absent step.
    fn spoilers(&self, log: &Log) -> Vec<Option<usize>> {
        let trailing = self.last_present().map_or(0, |last| last + 1);
        let mut next = None;
        let mut spoilers: Vec<Option<usize>> = Vec::with_capacity(log.observations.len());
        for (place, known) in log.observations.iter().enumerate().rev() {
            spoilers.push(next);
            if (trailing..self.steps.len()).any(|step| known.has(step)) {
                next = Some(place);
            }
        }
        spoilers.reverse();
        spoilers
    }

    /// Sets when time decides a chain; whether nothing has spoiled it yet.
    fn set_due(&self, log: &Log, chain: &mut Chain, spoilers: &[Option<usize>]) -> bool {
        let (Some(first), Some(last)) = (log.observations.get(chain.first), log.observations.get(chain.last)) else {
            return false;
        };
        let end_us = first.at_us.saturating_add(self.within_us);
        let trailing = self.last_present().map_or(0, |last| last + 1);
        if trailing == self.steps.len() {
            chain.due_us = Some(last.at_us);
            return true;
        }
        chain.due_us = Some(end_us);
        spoils_before(log, spoilers, chain.last, end_us).is_none()
    }

    /// What comes after the last event of a chain and within its window, although it must not.
    fn spoiler<'l>(&self, log: &'l Log, first: usize, last: usize) -> Option<&'l Observation> {
        let end_us = log.observations.get(first)?.at_us.saturating_add(self.within_us);
        spoils_before(log, &self.spoilers(log), last, end_us)
    }

    pub(super) fn finding(&self, log: &Log, firing: &Firing) -> (Untrusted, Vec<Evidence>) {
        let Some(last) = log.place_of(&firing.event_id) else { return none_found() };
        let Some(first) = self.first_of(log, last) else { return none_found() };
        let steps: Vec<String> = self.steps.iter().map(Step::told).collect();
        let summary = format!("{} within {}", steps.join(", then "), shown(self.within_us));
        (Untrusted::new(summary), self.evidence(log, first, last))
    }

    /// Where the chain that ends at `last` begins, spoiled or not.
    fn first_of(&self, log: &Log, last: usize) -> Option<usize> {
        let mut walk = Walk::new(self);
        (0..=last)
            .filter_map(|place| Some((place, walk.take(log, place)?)))
            .find(|(place, _)| *place == last)
            .map(|(_, first)| first)
    }

    fn evidence(&self, log: &Log, first: usize, last: usize) -> Vec<Evidence> {
        let noted = log.observations.get(first..=last).unwrap_or_default();
        let steps = |known: &Observation| {
            let names = self.steps.iter().enumerate().filter(|(index, step)| !step.absent && known.has(*index));
            names.map(|(_, step)| step.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let told = noted.iter().map(|known| (known, steps(known))).filter(|(_, steps)| !steps.is_empty());
        Evidence::some(told.map(|(known, steps)| Evidence::of(known, Some(&steps))).collect())
    }

    pub(super) fn standing(&self, row: Option<&Row>, sighting: &Sighting<'_>) -> Standing {
        let observation = self.observation(sighting);
        if observation.marks == 0 {
            return Standing::none("not counted: the event is none of the steps".into());
        }
        let (log, place) = with_event(row, observation);
        let told = |us: i64| chrono::DateTime::from_timestamp_micros(us).unwrap_or_default();
        let is_settled = |due_us: i64| sighting.settled_us.is_some_and(|settled_us| due_us <= settled_us);
        let chain = self.chains(&log).into_iter().find(|chain| chain.last == place);
        let first = chain.map(|chain| chain.first).or_else(|| self.first_of(&log, place));
        let evidence = self.evidence(&log, first.unwrap_or(0), place);
        match (chain, first) {
            (Some(Chain { due_us: Some(due_us), .. }), _) if !is_settled(due_us) => {
                let due_at = told(due_us);
                let summary = format!(
                    "fires when the log is complete up to {}, unless an absent step comes",
                    due_at.to_rfc3339()
                );
                Standing { holds: false, waits_until: Some(due_at), summary, evidence }
            }
            (Some(Chain { due_us: Some(due_us), .. }), _) => {
                let summary = format!("complete: no absent step came up to {}", told(due_us).to_rfc3339());
                Standing::decided(true, summary, evidence)
            }
            (Some(_), _) => Standing::decided(true, "the last step: the sequence is complete".into(), evidence),
            (None, Some(first)) => {
                let spoiler = self.spoiler(&log, first, place).map(|known| self.told_of(known));
                Standing::decided(false, spoiler.unwrap_or_else(|| "an absent step came".into()), evidence)
            }
            (None, None) => {
                let done: Vec<&str> = (self.steps.iter().enumerate())
                    .filter(|(index, step)| {
                        !step.absent && log.observations.iter().take(place + 1).any(|known| known.has(*index))
                    })
                    .map(|(_, step)| step.name.as_str())
                    .collect();
                let mut summary = format!("incomplete; steps seen so far: {}", done.join(", "));
                let is_absent = |known: &&Observation| self.absent_steps(known).next().is_some();
                if let Some(known) = log.observations.iter().take(place).rev().find(is_absent) {
                    summary = format!("{summary}; {}", self.told_of(known));
                }
                Standing::decided(false, summary, evidence)
            }
        }
    }

    /// The absent steps that an event is.
    fn absent_steps<'s>(&'s self, known: &'s Observation) -> impl Iterator<Item = &'s str> {
        let steps = self.steps.iter().enumerate().filter(|(index, step)| step.absent && known.has(*index));
        steps.map(|(_, step)| step.name.as_str())
    }

    /// An event that is an absent step.
    fn told_of(&self, known: &Observation) -> String {
        let at = chrono::DateTime::from_timestamp_micros(known.at_us).unwrap_or_default();
        let names: Vec<&str> = self.absent_steps(known).collect();
        format!("{} came at {} (event {})", names.join(", "), at.to_rfc3339(), known.id)
    }

    pub(super) fn meaning(&self, hasher: &mut blake3::Hasher) {
        for step in &self.steps {
            hasher.update(&[u8::from(step.absent)]);
            step.when.meaning(hasher);
        }
    }
}

/// The next spoiler behind a place, if it comes before `end_us`.
fn spoils_before<'l>(log: &'l Log, spoilers: &[Option<usize>], place: usize, end_us: i64) -> Option<&'l Observation> {
    let next = spoilers.get(place).copied().flatten()?;
    log.observations.get(next).filter(|known| known.at_us < end_us)
}

impl Step {
    fn told(&self) -> String {
        if self.absent { format!("no {}", self.name) } else { self.name.clone() }
    }
}

/// Goes through a log in order and knows, for each step, where the latest chain up to it begins.
struct Walk<'s> {
    sequence: &'s Sequence,
    /// Per step: place of the first event of the latest chain that has come so far.
    begun: Vec<Option<usize>>,
    /// Per absent step before the first present one: time of the last such event.
    spoiled_us: Option<i64>,
}

impl<'s> Walk<'s> {
    fn new(sequence: &'s Sequence) -> Self {
        Self { sequence, begun: vec![None; sequence.steps.len()], spoiled_us: None }
    }

    /// Takes the event at `place`; where the chain that it completes begins.
    fn take(&mut self, log: &Log, place: usize) -> Option<usize> {
        let known = log.observations.get(place)?;
        let steps = &self.sequence.steps;
        let mut reached: Vec<(usize, usize)> = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            if !step.absent && known.has(index) {
                reached.extend(self.reach(log, known, index, place).map(|first| (index, first)));
            }
        }
        for (index, step) in steps.iter().enumerate() {
            if step.absent && known.has(index) {
                match self.present_before(index) {
                    Some(before) => {
                        if let Some(begun) = self.begun.get_mut(before) {
                            *begun = None;
                        }
                    }
                    None => self.spoiled_us = Some(known.at_us),
                }
            }
        }
        for (index, first) in &reached {
            if let Some(begun) = self.begun.get_mut(*index) {
                *begun = (*begun).max(Some(*first));
            }
        }
        let last = self.sequence.last_present();
        reached.iter().find(|(index, _)| Some(*index) == last).map(|(_, first)| *first)
    }

    /// Where the chain begins that this event carries on with step `index`.
    fn reach(&self, log: &Log, known: &Observation, index: usize, place: usize) -> Option<usize> {
        let within_us = self.sequence.within_us;
        match self.present_before(index) {
            None => {
                let is_spoiled = self.spoiled_us.is_some_and(|spoiled_us| known.at_us - spoiled_us < within_us);
                (!is_spoiled).then_some(place)
            }
            Some(before) => {
                let first = (*self.begun.get(before)?)?;
                let began_us = log.observations.get(first)?.at_us;
                (known.at_us - began_us < within_us).then_some(first)
            }
        }
    }

    fn present_before(&self, index: usize) -> Option<usize> {
        self.sequence.steps.iter().take(index).rposition(|step| !step.absent)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Question;
    use super::super::tests::{Bench, of_type};
    use super::*;

    /// Steps by event type, within 10 s; one that begins with `!` is absent.
    fn bench(steps: &[&str]) -> Bench {
        let step = |written: &&str| {
            let name = written.trim_start_matches('!');
            Step { name: name.to_lowercase(), when: of_type(name), absent: written.starts_with('!') }
        };
        Bench::new(Question::Sequence(Sequence { steps: steps.iter().map(step).collect(), within_us: 10_000_000 }))
    }

    fn kind(event_type: &str) -> String {
        format!(r#""event_type": "{event_type}""#)
    }

    #[test]
    fn steps_come_in_order_and_less_than_the_window_apart() {
        let mut bench = bench(&["A", "B"]);
        assert!(bench.see("b0", 0, &kind("B")).is_empty() && bench.see("a1", 1, &kind("A")).is_empty());
        assert!(bench.see("b2", 11, &kind("B")).is_empty(), "exactly 10 s after is out");
        assert!(bench.see("c", 12, &kind("C")).is_empty());
        assert!(bench.see("a2", 12, &kind("A")).is_empty());
        assert_eq!(bench.see("b3", 12, &kind("B")), ["b3@12"], "of one time, in the order in which they came");
        let (summary, ids) = bench.finding("b3", 12, "");
        assert_eq!(summary, "a, then b within 10s");
        assert_eq!(ids, ["a2", "b3"]);
    }

    #[test]
    fn a_late_first_step_completes_the_sequence_once() {
        let mut bench = bench(&["A", "B"]);
        assert!(bench.see("b", 5, &kind("B")).is_empty());
        assert_eq!(bench.see("a", 3, &kind("A")), ["b@5"]);
        assert!(bench.see("a0", 2, &kind("A")).is_empty(), "it is told already");
    }

    #[test]
    fn an_absent_step_between_breaks_the_chain_and_waits_until_nothing_can_come() {
        let mut open = bench(&["A", "!X", "B"]);
        assert!(open.see("a", 0, &kind("A")).is_empty());
        assert!(open.see("b", 6, &kind("B")).is_empty(), "an X may still come late");
        assert!(open.settle(5).is_empty());
        assert_eq!(open.settle(6), ["b@6"]);
        let mut broken = bench(&["A", "!X", "B"]);
        assert!(broken.see("a", 0, &kind("A")).is_empty() && broken.see("b", 6, &kind("B")).is_empty());
        assert!(broken.see("x", 3, &kind("X")).is_empty());
        assert!(broken.settle(100).is_empty());
    }

    #[test]
    fn an_absent_step_before_the_first_reaches_back_a_window() {
        let mut bench = bench(&["!X", "A"]);
        assert!(bench.see("x", 0, &kind("X")).is_empty());
        assert!(bench.see("a", 9, &kind("A")).is_empty() && bench.see("b", 10, &kind("A")).is_empty());
        assert_eq!(bench.settle(20), ["b@10"], "exactly a window after it, an X no longer spoils");
    }

    #[test]
    fn of_several_chains_the_one_that_begins_last_is_shown() {
        let mut bench = bench(&["A", "B"]);
        for (id, at_s) in [("a1", 0), ("a2", 3)] {
            assert!(bench.see(id, at_s, &kind("A")).is_empty());
        }
        assert_eq!(bench.see("b", 5, &kind("B")), ["b@5"]);
        assert_eq!(bench.finding("b", 5, "").1, ["a2", "b"]);
    }
}
