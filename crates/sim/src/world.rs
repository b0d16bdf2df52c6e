//! A seeded world: people, servers and their routines over some weeks, with attacks planted in it as ground truth.
//! It never looks at a clock or at entropy of the machine: equal configurations give equal worlds, to the byte.
//! The routine is benign by the published policy constants of [`people`]; only planted attacks break it.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use crate::event::SimEvent;
use crate::rng::{Rng, mix};

pub mod attacks;
pub mod people;
pub mod routines;
pub mod stress;

pub use attacks::PlantedAttack;
pub use people::{
    CALLBACK_DOMAINS, FORWARD_NUMBERS, FORWARD_SIP_DOMAINS, HOME_COUNTRIES, HOME_NETWORKS, OFFICE_NETWORKS, Person,
    SERVER_NETWORKS, STAFF_DOMAINS, WORKING_DAYS, WORKING_HOURS_UTC, in_working_hours,
};
pub use stress::StressConfig;

/// Longest world in days; routines of eight people make about 70 events a day.
pub const MAX_WORLD_DAYS: u32 = 366;

/// Shortest world in days: every attack needs a day of its own kind (a working day, a weekend).
pub const MIN_WORLD_DAYS: u32 = 14;

/// What a world is made from.
#[derive(Debug, Clone)]
pub struct WorldConfig {
    /// Everything random follows from it.
    pub seed: u64,
    /// The first instant of the world.
    pub start: DateTime<Utc>,
    /// How long it lasts: [`MIN_WORLD_DAYS`] to [`MAX_WORLD_DAYS`].
    pub days: u32,
    /// The account and API key.
    pub account_id: String,
    /// How many people work there: 3 to 60.
    pub people: u32,
    /// Whether the attacks are planted.
    pub attacks: bool,
}

impl WorldConfig {
    /// 30 days, 8 people, account `abcd1234`, attacks planted.
    #[must_use]
    pub fn new(seed: u64, start: DateTime<Utc>) -> Self {
        Self { seed, start, days: 30, account_id: "abcd1234".to_owned(), people: 8, attacks: true }
    }
}

/// Everything that happened, in order of time.
#[derive(Debug, Clone)]
pub struct World {
    account_id: String,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    people: Vec<Person>,
    events: Vec<SimEvent>,
    attacks: Vec<PlantedAttack>,
}

impl World {
    /// Makes the world of a configuration.
    #[must_use]
    pub fn generate(config: &WorldConfig) -> Self {
        let days = config.days.clamp(MIN_WORLD_DAYS, MAX_WORLD_DAYS);
        let end = config.start + chrono::TimeDelta::days(i64::from(days));
        let people = people::staff(config.seed, config.people.clamp(3, 60));
        let stage = Stage { account_id: &config.account_id, start: config.start, end, people: &people };
        // Each part has a generator of its own, so that a change to routines does not move the attacks.
        let mut events = routines::play(&stage, &mut Rng::new(mix(config.seed, 1)));
        let mut planted = Vec::new();
        if config.attacks {
            let mut rng = Rng::new(mix(config.seed, 2));
            for (attack, acts) in attacks::plant(&stage, &mut rng) {
                events.extend(acts);
                planted.push(attack);
            }
        }
        events.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Self { account_id: config.account_id.clone(), start: config.start, end, people, events, attacks: planted }
    }

    /// Makes a cheap stream of plain events with bursts, ties, gaps and lateness: for simulations of polling.
    #[must_use]
    pub fn stress(config: &StressConfig) -> Self {
        let end = config.start + chrono::TimeDelta::from_std(config.duration).unwrap_or_default();
        let events = stress::play(config, end);
        Self {
            account_id: stress::ACCOUNT_ID.to_owned(),
            start: config.start,
            end,
            people: Vec::new(),
            events,
            attacks: Vec::new(),
        }
    }

    /// All events, ordered by `created_at`.
    #[must_use]
    pub fn events(&self) -> &[SimEvent] {
        &self.events
    }

    /// The planted attacks, ordered by their first event.
    #[must_use]
    pub fn attacks(&self) -> &[PlantedAttack] {
        &self.attacks
    }

    /// Who works there.
    #[must_use]
    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// The account and API key.
    #[must_use]
    pub fn account_id(&self) -> &str {
        &self.account_id
    }

    /// The first instant.
    #[must_use]
    pub fn start(&self) -> DateTime<Utc> {
        self.start
    }

    /// The instant after the last.
    #[must_use]
    pub fn end(&self) -> DateTime<Utc> {
        self.end
    }

    /// The events that belong to no attack.
    pub fn benign(&self) -> impl Iterator<Item = &SimEvent> {
        let hostile: HashSet<&str> =
            self.attacks.iter().flat_map(|attack| attack.event_ids.iter().map(String::as_str)).collect();
        self.events.iter().filter(move |event| !hostile.contains(event.id.as_str()))
    }
}

/// What routines and attacks play on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stage<'a> {
    pub(crate) account_id: &'a str,
    pub(crate) start: DateTime<Utc>,
    pub(crate) end: DateTime<Utc>,
    pub(crate) people: &'a [Person],
}

#[cfg(test)]
mod tests;
