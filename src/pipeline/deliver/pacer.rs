//! A lane's place in the queue of its destination: at most one token at a time, taken when a send is wanted.
//!
//! It never waits and never sleeps. The lane asks, and waits in its own single place until the token is ready.

use std::time::Duration;

use tokio::time::Instant;

use crate::pace::{Pace, Token};

/// A timer is no finer; it also keeps a token that cannot be used yet from turning the wait into a spin.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    pace: Option<Pace>,
    token: Option<Token>,
}

impl Pacer {
    /// `None` for a destination without a limit.
    pub(super) fn new(pace: Option<Pace>) -> Self {
        Self { pace, token: None }
    }

    /// Whether a send may begin now; otherwise its token is reserved and [`Self::wakes_at`] says when.
    pub(super) fn is_ready(&mut self, now: Instant) -> bool {
        let Some(pace) = &self.pace else { return true };
        self.token.get_or_insert_with(|| pace.take(now)).ready_at <= now
    }

    /// Uses the token up, if it is ready: one send begins.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let ready = self.is_ready(now);
        if ready {
            self.token = None;
        }
        ready
    }

    /// When the lane should look again, if a token is reserved. One that became ready a moment ago counts too.
    pub(super) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        self.token.map(|token| token.ready_at.max(now + MIN_WAIT))
    }

    /// Nothing is to be sent now: the token goes back.
    pub(super) fn give_back(&mut self) {
        if let (Some(pace), Some(token)) = (&self.pace, self.token.take()) {
            pace.put_back(token);
        }
    }

    /// How many rows are worth claiming when they must be sent within this time.
    pub(super) fn worth(&self, time: Duration, now: Instant) -> usize {
        let held = usize::from(self.token.is_some());
        self.pace.as_ref().map_or(usize::MAX, |pace| pace.within(time, now).saturating_add(held).max(1))
    }
}
