//! A world moved to the present: its past is already visible, its attacks are released one after another.
//! It never looks at a clock; the caller asks what is due at a time. History moves by whole weeks only, so that working
//! days and hours stay what they were.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::api::{DEFAULT_SECRET, Sim};
use crate::event::SimEvent;
use crate::faults::FaultPlan;
use crate::quirks::Quirks;
use crate::world::{PlantedAttack, World, in_working_hours};

/// Tells the time; shared between threads.
pub type SharedClock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// When the attacks of a live world are released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleasePlan {
    /// From the start to the first event of the first attack.
    pub first_after: Duration,
    /// From the last event of an attack to the first of the next.
    pub between_attacks: Duration,
    /// Between the events of one attack.
    pub between_events: Duration,
    /// How long before the start the time is over of what does not come ([`PlantedAttack::shows_after`]).
    pub omissions_end_before: Duration,
}

impl Default for ReleasePlan {
    /// The first after half a second, all attacks of a world within 10 seconds. Omissions end an hour before, because a
    /// poller takes nothing for missing before it is too late for late events.
    fn default() -> Self {
        Self {
            first_after: Duration::from_millis(500),
            between_attacks: Duration::from_millis(300),
            between_events: Duration::from_millis(60),
            omissions_end_before: Duration::from_secs(3_600),
        }
    }
}

/// A world whose past is over and whose attacks are about to happen.
#[derive(Debug, Clone)]
pub struct LiveWorld {
    account_id: String,
    routine: Vec<SimEvent>,
    /// What attacks of the past consist of.
    omissions: Vec<SimEvent>,
    /// Ordered by time; what was handed out is gone.
    releases: VecDeque<Release>,
    attacks: Vec<PlantedAttack>,
}

#[derive(Debug, Clone)]
struct Release {
    at: DateTime<Utc>,
    event: SimEvent,
}

impl LiveWorld {
    /// Moves a world so that it ends in the week after `start`. The account take-over is released first.
    #[must_use]
    pub fn new(world: &World, start: DateTime<Utc>, plan: &ReleasePlan) -> Self {
        let weeks = (start - world.end()).num_seconds().div_euclid(7 * 86_400) + 1;
        let shift = TimeDelta::weeks(weeks);
        let mut routine: Vec<SimEvent> = world.benign().cloned().collect();
        for event in &mut routine {
            event.created_at += shift;
        }
        let mut attacks = world.attacks().to_vec();
        attacks.sort_by_key(|attack| (attack.shows_after.is_some(), attack.name != "account_takeover"));
        let by_id: HashMap<&str, &SimEvent> = world.events().iter().map(|event| (event.id.as_str(), event)).collect();
        let (mut releases, mut omissions) = (VecDeque::new(), Vec::new());
        let mut at = start + span(plan.first_after);
        for attack in &mut attacks {
            if let Some(shows_after) = attack.shows_after {
                let started_at = start - span(plan.omissions_end_before) - shows_after;
                let moved = |event: &&SimEvent| moved(event, started_at - attack.started_at);
                let acts = attack.event_ids.iter().filter_map(|id| by_id.get(id.as_str()));
                omissions.extend(acts.map(moved));
                attack.started_at = started_at;
                continue;
            }
            attack.started_at = at;
            attack.needs_state |= attack.hour_is_the_clue && may_be_working_hours(at);
            let acts = attack.event_ids.iter().filter_map(|id| by_id.get(id.as_str()));
            for event in acts {
                releases.push_back(Release { at, event: (*event).clone() });
                at += span(plan.between_events);
            }
            at += span(plan.between_attacks.saturating_sub(plan.between_events));
        }
        Self { account_id: world.account_id().to_owned(), routine, omissions, releases, attacks }
    }

    /// Forgets all attacks but one; whether there is one of this name.
    pub fn keep_only(&mut self, name: &str) -> bool {
        let Some(kept) = self.attacks.iter().find(|attack| attack.name == name).cloned() else { return false };
        self.omissions.retain(|event| kept.event_ids.contains(&event.id));
        self.releases.retain(|release| kept.event_ids.contains(&release.event.id));
        self.attacks = vec![kept];
        true
    }

    /// Releases everything later by this much.
    pub fn postpone(&mut self, by: Duration) {
        for release in &mut self.releases {
            release.at += span(by);
        }
        for attack in self.attacks.iter_mut().filter(|attack| attack.shows_after.is_none()) {
            attack.started_at += span(by);
        }
    }

    /// A server that shows the routine, with what is yet to come of it, and what attacks of the past left; user is the account, password
    /// [`DEFAULT_SECRET`].
    #[must_use]
    pub fn sim(&self, quirks: Quirks, faults: FaultPlan) -> Sim {
        let past = self.routine.iter().chain(&self.omissions).cloned().collect();
        Sim::new(&self.account_id, DEFAULT_SECRET, past, quirks, faults)
    }

    /// The routine, moved to the present.
    #[must_use]
    pub fn routine(&self) -> &[SimEvent] {
        &self.routine
    }

    /// The attacks in order of release, with the time of release; then those of the past, which end in something that
    /// does not come. An attack that only its hour gives away needs state
    /// when it is released inside working hours, or near them, where rules in other zones may differ.
    #[must_use]
    pub fn attacks(&self) -> &[PlantedAttack] {
        &self.attacks
    }

    /// When the next event is due; `None` when all are out.
    #[must_use]
    pub fn next_at(&self) -> Option<DateTime<Utc>> {
        self.releases.front().map(|release| release.at)
    }

    /// Takes out what is due, stamped with `now` and visible at once: to be given to [`Sim::push`].
    pub fn due(&mut self, now: DateTime<Utc>) -> Vec<SimEvent> {
        let count = self.releases.iter().take_while(|release| release.at <= now).count();
        self.releases
            .drain(..count)
            .map(|release| {
                let mut event = release.event;
                event.set_created_at(now);
                event.lateness = TimeDelta::zero();
                event
            })
            .collect()
    }
}

/// A clock that shows `from` now and then runs `speed` times as fast as the given one: 30 days pass in a minute at
/// 43,200.
#[must_use]
pub fn faster_clock(clock: SharedClock, from: DateTime<Utc>, speed: f64) -> SharedClock {
    let origin = clock();
    Arc::new(move || {
        let passed = (clock() - origin).to_std().unwrap_or_default();
        // A product beyond the range of Duration means beyond the calendar.
        let passed = Duration::try_from_secs_f64(passed.as_secs_f64() * speed.max(0.0)).unwrap_or(Duration::MAX);
        let passed = TimeDelta::from_std(passed).unwrap_or(TimeDelta::MAX);
        from.checked_add_signed(passed).unwrap_or(DateTime::<Utc>::MAX_UTC)
    })
}

fn moved(event: &SimEvent, by: TimeDelta) -> SimEvent {
    let mut event = event.clone();
    event.set_created_at(event.created_at + by);
    event
}

/// Whether somebody may take this for working hours: a rule may count them in the time of London, Paris or Madrid.
fn may_be_working_hours(at: DateTime<Utc>) -> bool {
    (-1..=2).any(|hours| in_working_hours(at + TimeDelta::hours(hours)))
}

fn span(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::world::WorldConfig;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn live(start: DateTime<Utc>) -> LiveWorld {
        let world = World::generate(&WorldConfig::new(11, at("2026-01-05T00:00:00Z")));
        LiveWorld::new(&world, start, &ReleasePlan::default())
    }

    #[test]
    fn the_past_moves_by_weeks_and_reaches_the_present() {
        let start = at("2026-11-24T14:30:00Z");
        let live = live(start);
        let people = live.routine().iter().filter(|event| event.user_email.is_some());
        assert!(people.clone().count() > 500);
        for event in people {
            assert!(in_working_hours(event.created_at), "{event:?}");
        }
        let last = live.routine().iter().map(|event| event.created_at).max().unwrap();
        assert!(last >= start - TimeDelta::hours(2) && last < start + TimeDelta::weeks(1), "{last}");
        let sim = live.sim(Quirks::default(), FaultPlan::none());
        let shown = sim.visible_ids(start).len();
        assert!(shown > 1_000 && shown <= sim.all_ids().len(), "{shown}");
    }

    #[test]
    fn attacks_come_one_after_another_stamped_with_now() {
        let start = at("2026-11-24T14:30:00Z");
        let mut live = live(start);
        let mut sim = live.sim(Quirks::default(), FaultPlan::none());
        let now = live.attacks().iter().filter(|attack| attack.shows_after.is_none());
        let wanted: Vec<String> = now.flat_map(|attack| attack.event_ids.clone()).collect();
        assert_eq!(live.attacks()[0].name, "account_takeover");
        assert!(live.due(start).is_empty());
        let mut released = Vec::new();
        let mut steps = 0;
        while let Some(next) = live.next_at() {
            let due = live.due(next);
            assert_eq!(due.len(), 1);
            for event in due {
                assert!(event.created_at <= next && next - event.created_at < TimeDelta::seconds(1), "{event:?}");
                released.push(event.id.clone());
                let before = sim.visible_ids(next).len();
                sim.push(event);
                assert_eq!(sim.visible_ids(next).len(), before + 1);
            }
            assert!(next < start + TimeDelta::seconds(10), "{next}");
            steps += 1;
        }
        assert!(steps >= 70, "{steps}");
        assert_eq!(released, wanted);
    }

    #[test]
    fn what_does_not_come_is_over_an_hour_before() {
        let start = at("2026-11-24T14:30:00Z");
        let live = live(start);
        let sim = live.sim(Quirks::default(), FaultPlan::none());
        let visible = sim.visible_ids(start);
        let past: Vec<_> = live.attacks().iter().filter(|attack| attack.shows_after.is_some()).collect();
        assert_eq!(past.iter().map(|attack| attack.name).collect::<Vec<_>>(), ["rotation_left_open", "feed_cut"]);
        for attack in past {
            assert_eq!(attack.started_at + attack.shows_after.unwrap(), start - TimeDelta::hours(1));
            assert!(attack.event_ids.iter().all(|id| visible.contains(id)), "{attack:?}");
        }
    }

    #[test]
    fn one_attack_alone_and_everything_later() {
        let start = at("2026-11-24T14:30:00Z");
        let mut live = live(start);
        let routine = live.routine().len();
        live.postpone(Duration::from_secs(5));
        assert_eq!(live.next_at(), Some(start + TimeDelta::milliseconds(5_500)));
        assert_eq!(live.attacks()[0].started_at, start + TimeDelta::milliseconds(5_500));
        assert!(live.keep_only("feed_cut") && live.next_at().is_none());
        let feed = live.attacks()[0].event_ids.len();
        assert_eq!(live.sim(Quirks::default(), FaultPlan::none()).all_ids().len(), routine + feed);
        assert!(!live.keep_only("bulk_purchase"), "it is gone");
    }

    #[test]
    fn by_day_the_secret_swap_needs_state() {
        let needs = |start: &str| {
            let live = live(at(start));
            live.attacks().iter().find(|attack| attack.name == "secret_swap").unwrap().needs_state
        };
        assert!(needs("2026-11-24T14:30:00Z"));
        assert!(needs("2026-11-24T06:30:00Z"));
        assert!(!needs("2026-11-24T03:00:00Z"));
        assert!(!needs("2026-11-22T14:30:00Z"));
    }

    #[test]
    fn a_faster_clock_runs_at_its_speed() {
        let seconds = Arc::new(AtomicI64::new(1_000));
        let read = Arc::clone(&seconds);
        let plain: SharedClock =
            Arc::new(move || DateTime::from_timestamp(read.load(Ordering::SeqCst), 0).unwrap_or_default());
        let fast = faster_clock(plain, at("2026-01-01T00:00:00Z"), 3_600.0);
        assert_eq!(fast(), at("2026-01-01T00:00:00Z"));
        seconds.store(1_024, Ordering::SeqCst);
        assert_eq!(fast(), at("2026-01-02T00:00:00Z"));
    }
}
