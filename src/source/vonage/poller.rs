//! The polling algorithm as a state machine without input or output: `plan` says what to ask for, `judge` what an
//! answer proves, `absorb` what follows from it.
//!
//! It never reads a clock (the server's `Date` comes in with the answer) and never forgets a window that is not
//! proven complete. All that must survive a crash is in `State`; `Volatile` may be lost at any moment and only costs
//! requests.

pub mod absorb;
pub mod ingest;
pub mod judge;
pub mod observation;
pub mod page_size;
pub mod request;
pub mod server_clock;
pub mod strays;
pub mod troubles;
pub mod walk;
mod zone;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::source::vonage::client::ClientError;
use crate::source::vonage::fault::MAX_RETRY_AFTER;
use crate::source::vonage::poller::page_size::PageSize;
use crate::source::vonage::poller::request::PAD_S;
use crate::source::vonage::poller::server_clock::{Reading, ServerClock};
use crate::source::vonage::poller::strays::Strays;
use crate::source::vonage::poller::troubles::{LASTING_FAILURES, Troubles};
use crate::source::vonage::poller::walk::Walks;
use crate::source::vonage::poller::zone::ZoneSearch;
use crate::source::vonage::state::State;
use crate::source::vonage::window::Window;

pub use crate::source::vonage::poller::observation::{AnchorLookup, Observation, Probe};
pub use crate::source::vonage::poller::request::{Ask, Request};

/// Drains between two roots, so that neither starves the other.
const DRAINS_PER_ROOT: u32 = 8;
/// The history before the start may keep the first root waiting for so long: more than 100,000 events take.
const MAX_HISTORY_FIRST_S: i64 = 3_600;
/// Fewer than after which a finite run gives up.
const MAX_HISTORY_FAILURES: u32 = 4;
/// Refusals (401, 403) may lock an account: after one all windows pause, and that one rests.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
const REFUSED_REST: Duration = Duration::from_secs(30);
/// What is refused again and again while roots are not is narrowed down to a day, and then asked for each hour.
const REFUSED_WIDTH_S: i64 = 86_400;
const REFUSED_LONG_REST: Duration = Duration::from_secs(3_600);
/// Where the answer to a window asked for a pause, windows rest this many times as long: what is fresh goes first.
const PAUSES_FOR_ROOTS: u32 = 4;
/// A closed window ends this long after the root that owes it: the server's own clock may lag behind its stamps.
const CLOSED_BEYOND_S: i64 = 5;
/// End of time for counting: no stamp lies beyond the year 3000. It is never sent: a window up to it has no upper bound.
pub const FAR_S: i64 = 32_503_680_000;

/// One rhythm of looking back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// A root is due this long after the last one.
    pub every: Duration,
    /// What a root covers before its frontier.
    pub look_back: Duration,
}

/// The default tiers: fresh events fast, late ones surely. Lateness up to the last look-back loses nothing.
pub const DEFAULT_TIERS: [Tier; 3] = [
    Tier { every: Duration::from_secs(15), look_back: Duration::from_secs(600) },
    Tier { every: Duration::from_secs(300), look_back: Duration::from_secs(6 * 3_600) },
    Tier { every: Duration::from_secs(6 * 3_600), look_back: Duration::from_secs(7 * 86_400) },
];

/// Where the first frontier lies, on the server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first answer.
    Now,
    /// This long before the first answer.
    Ago(Duration),
    /// Here.
    At(DateTime<Utc>),
}

impl Start {
    /// As the cursor keeps it, to find out that the option has changed.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Now => "now".into(),
            Self::Ago(span) => format!("{} s ago", span.as_secs()),
            Self::At(at) => at.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }
    }
}

/// State machine of one account.
#[derive(Debug, Clone)]
pub struct Poller {
    /// Durable.
    pub state: State,
    tiers: Vec<Tier>,
    start: Start,
    /// How far before the start is read at the first one, in seconds.
    backfill_s: i64,
    volatile: Volatile,
}

/// What a restart forgets.
#[derive(Debug, Clone)]
struct Volatile {
    due: Vec<Instant>,
    rooted: Vec<bool>,
    unproven_roots: Vec<u32>,
    drains_since_root: u32,
    /// Requests in a row that failed while the history comes first.
    history_failures: u32,
    walks: Walks,
    /// In which step windows were last settled, by their beginning.
    settled: BTreeMap<i64, u64>,
    zone: ZoneSearch,
    /// By what was asked for: a good answer to something else is no excuse.
    troubles: Troubles,
    strays: Strays,
    /// Of roots, and of all else: what is long lies in the look-back of every root for a while.
    root_size: PageSize,
    size: PageSize,
    clock: ServerClock,
    /// Surveys in a row that could not begin.
    surveys: u32,
    /// When a root last succeeded.
    accepted_at: Option<Instant>,
}

impl Poller {
    /// Goes on from `state`, or begins.
    #[must_use]
    pub fn new(tiers: &[Tier], start: Start, state: Option<State>, now: Instant) -> Self {
        let state = state.unwrap_or_else(|| State::new(&look_backs_s(tiers)));
        let volatile = Volatile {
            due: vec![now; tiers.len()],
            rooted: vec![false; tiers.len()],
            unproven_roots: vec![0; tiers.len()],
            drains_since_root: 0,
            history_failures: 0,
            walks: Walks::default(),
            settled: BTreeMap::new(),
            zone: ZoneSearch::default(),
            troubles: Troubles::default(),
            strays: Strays::default(),
            root_size: PageSize::default(),
            size: PageSize::default(),
            clock: ServerClock::new(state.last_date_s(), now),
            surveys: 0,
            accepted_at: None,
        };
        let mut poller = Self { state, tiers: tiers.to_vec(), start, backfill_s: 0, volatile };
        poller.wait_for_history(now);
        poller
    }

    /// What to ask for now.
    #[must_use]
    pub fn plan(&self, now: Instant) -> Request {
        let size = self.volatile.size.now(now);
        if self.state.start_s.is_none() {
            return Request { size, ..Request::new(Ask::Survey, None, None) };
        }
        if let Some((stamp, _)) = &self.volatile.zone.row {
            return Request { size, ..self.zone_request(*stamp, now) };
        }
        let next = self.volatile.due.iter().enumerate().min_by_key(|(_, due)| **due);
        match (next, self.drain(now)) {
            (Some((_, due)), Some(drain)) if *due > now || self.volatile.drains_since_root < DRAINS_PER_ROOT => drain,
            // While the history comes first nothing else is asked for, and what rests is asked for a little early.
            (Some((tier, due)), None) if *due > now && self.state.history_until_s.is_some() => {
                self.drain(*due).unwrap_or_else(|| self.root(tier, now))
            }
            (Some((tier, _)), _) => self.root(tier, now),
            (None, drain) => drain.unwrap_or_else(|| self.root(0, now)),
        }
    }

    /// Rules that remember must know the history before they judge what came later: roots wait until it is read, or cannot
    /// be had in good time.
    fn wait_for_history(&mut self, now: Instant) {
        let Some(until_s) = self.state.history_until_s else { return };
        let left_s = until_s.saturating_sub(self.state.last_date_s().unwrap_or(until_s)).clamp(0, MAX_HISTORY_FIRST_S);
        let until = now + Duration::from_secs(u64::try_from(left_s).unwrap_or(0));
        self.volatile.due.iter_mut().for_each(|due| *due = until);
    }

    /// What is new must not wait for a history that cannot be had: one root is asked in between.
    fn history_failed(&mut self, now: Instant) {
        self.volatile.history_failures += 1;
        if self.state.history_until_s.is_some() && self.volatile.history_failures >= MAX_HISTORY_FAILURES {
            self.volatile.history_failures = 0;
            self.ask_root(now);
        }
    }

    /// Nothing waits for the history any more.
    fn end_history(&mut self, now: Instant) {
        if self.state.history_until_s.take().is_some() {
            self.volatile.due.iter_mut().for_each(|due| *due = (*due).min(now));
        }
    }

    /// How long until something is due; zero while something is owed that need not rest.
    #[must_use]
    pub fn idle_for(&self, now: Instant) -> Duration {
        if self.state.start_s.is_none() || self.volatile.zone.row.is_some() || self.drain(now).is_some() {
            return Duration::ZERO;
        }
        let rested = self.volatile.troubles.next(now).map(|at| at.saturating_duration_since(now));
        let walks = self.volatile.walks.rest(now);
        [rested, walks].into_iter().flatten().fold(self.root_due_in(now), Duration::min)
    }

    /// How long until the next root is due.
    #[must_use]
    pub fn root_due_in(&self, now: Instant) -> Duration {
        let due = self.volatile.due.iter().min().copied();
        due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }

    /// What is wrong with the answers at present.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        if self.volatile.troubles.has_stumbles() || self.volatile.walks.are_fruitless() {
            return Some("answers lack events that were seen before, or ignore what was asked");
        }
        if self.volatile.clock.is_doubted() {
            return Some("the Date of the answers fits neither our clock nor the answers before");
        }
        if self.volatile.zone.is_told {
            return Some("events wait for the zone of their stamps, which cannot be found out");
        }
        self.volatile.troubles.has_failures().then_some("what happened in some time cannot be asked for")
    }

    /// Takes the `Date` of an answer that came `now`, when our own clock showed `wall_s`.
    pub fn read_date(&mut self, date_s: i64, wall_s: i64, now: Instant) -> Reading {
        self.volatile.clock.read(date_s, wall_s, self.state.clock, now)
    }

    /// A page of this request is too long to be read: the next ones are shorter.
    pub fn halve(&mut self, request: &Request, now: Instant) {
        if matches!(request.ask, Ask::Root(_)) {
            self.volatile.root_size.halve(request.size, now);
            return;
        }
        self.volatile.size.halve(request.size, now);
        self.volatile.walks.shorten(self.volatile.size.now(now));
    }

    /// A request failed. Nothing moves, and something else comes first. Says for how long that has been so, where it is
    /// to be told; `others_work` where it is not for all requests to be told at once.
    pub fn failed(
        &mut self,
        request: &Request,
        error: &ClientError,
        others_work: bool,
        now: Instant,
    ) -> Option<Duration> {
        let rest = self.volatile.troubles.failed(request.ask, now);
        match request.ask {
            Ask::Root(tier) => {
                if let Some(due) = self.volatile.due.get_mut(tier) {
                    *due = now + rest;
                }
            }
            Ask::Drain(window) | Ask::Walk(window) => {
                self.history_failed(now);
                if self.volatile.troubles.failures(request.ask) >= LASTING_FAILURES {
                    self.volatile.walks.interrupt(window);
                }
                self.volatile.drains_since_root = DRAINS_PER_ROOT;
                if matches!(error, ClientError::Refused { .. }) {
                    self.refused(request.ask, window, now);
                } else if let Some(pause) = error.pause() {
                    let rest = pause.min(MAX_RETRY_AFTER).saturating_mul(PAUSES_FOR_ROOTS);
                    self.volatile.troubles.rest_windows(now + rest);
                } else if others_work && self.volatile.troubles.failures(request.ask) > 1 {
                    self.narrow(window, now);
                }
            }
            Ask::Zone => self.ask_zone_otherwise(now),
            Ask::Survey => {}
        }
        if others_work { self.volatile.troubles.tell(request.ask, now) } else { None }
    }

    /// A window was refused. Where the account is not, part of it may be older than what it may read.
    fn refused(&mut self, ask: Ask, window: Window, now: Instant) {
        self.volatile.troubles.rest_windows(now + REFUSED_PAUSE);
        let again = self.volatile.troubles.failures(ask) > 1;
        if !again || !self.is_accepted(now) {
            self.volatile.troubles.rest_until(window, now + REFUSED_REST);
        } else if window.width_s() > REFUSED_WIDTH_S {
            self.narrow(window, now);
        } else {
            self.volatile.troubles.lasts(ask);
            self.volatile.troubles.rest_until(window, now + REFUSED_LONG_REST);
        }
    }

    /// Halves a window that fails, so that no more stays unread than what cannot be read.
    fn narrow(&mut self, window: Window, now: Instant) {
        let is_closed = window.to_s < FAR_S;
        if is_closed && window.width_s() > 1 && !self.is_crowded() {
            self.state.owed.settle(window);
            let halves = window.split(2);
            halves.iter().for_each(|half| self.state.owed.add(*half));
            self.volatile.troubles.inherit(window, &halves, now);
            self.volatile.troubles.forget_settled(&self.state.owed);
            self.volatile.walks.forget_settled(&self.state.owed);
        }
    }

    /// A root succeeded lately: what is refused now is refused by itself.
    #[must_use]
    pub fn is_accepted(&self, now: Instant) -> bool {
        let every = self.tiers.first().map_or(Duration::ZERO, |tier| tier.every);
        let accepted_at = self.volatile.accepted_at;
        accepted_at.is_some_and(|at| now.saturating_duration_since(at) < every.saturating_mul(2))
    }

    /// Whether what becomes visible in a window later is not seen by any root.
    fn is_beyond_roots(&self, window: Window) -> bool {
        let reach = |tier: &crate::source::vonage::state::TierState| tier.frontier_s - tier.look_back_s;
        let reach_s = self.state.tiers.iter().map(reach).min();
        // No root reads before the start.
        reach_s.max(self.state.start_s).is_none_or(|reach_s| window.from_s < reach_s)
    }

    /// Whether nothing asks again for all that a request asks for: an answer without rows must then be beyond doubt.
    #[must_use]
    pub fn is_final(&self, request: &Request, answered_s: i64) -> bool {
        match request.ask {
            Ask::Drain(window) => self.is_beyond_roots(window),
            // After a pause, or at the first start, a root reaches further back than those that follow it.
            Ask::Root(_) => {
                let usual = self.tiers.iter().map(|tier| tier.look_back + tier.every.saturating_mul(2)).max();
                let usual_s = i64::try_from(usual.unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
                request.countable().0 < answered_s.saturating_sub(usual_s)
            }
            Ask::Survey | Ask::Zone | Ask::Walk(_) => false,
        }
    }

    /// Whether the request failed the last time it was made.
    #[must_use]
    pub fn has_failed(&self, request: &Request) -> bool {
        self.volatile.troubles.failures(request.ask) > 0
    }

    /// The next request is a root: it shows whether what was refused is refused to the account.
    pub fn ask_root(&mut self, now: Instant) {
        self.volatile.drains_since_root = DRAINS_PER_ROOT;
        if let Some(due) = self.volatile.due.first_mut() {
            *due = now;
        }
    }

    /// Every tier had its root since the start and nothing is owed.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.state.start_s.is_some()
            && self.volatile.zone.row.is_none()
            && self.state.owed.is_empty()
            && self.volatile.rooted.iter().all(|rooted| *rooted)
    }

    /// There is nothing to be done but to wait for the next root.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.caught_up() && self.fault().is_none()
    }

    /// At the very first start what lies so far before it is read too.
    #[must_use]
    pub fn reading_back(mut self, backfill: Option<Duration>) -> Self {
        self.backfill_s = backfill.map_or(0, |backfill| i64::try_from(backfill.as_secs()).unwrap_or(i64::MAX));
        if self.state.has_less_history(self.backfill_s) {
            let (now_s, was_s) = (self.backfill_s, self.state.backfill_s);
            tracing::warn!(
                now_s,
                was_s,
                "`backfill` counts at the first start only; the history before it stays unread"
            );
        }
        self
    }

    /// From where on (Unix seconds) the history is read, if it is.
    #[must_use]
    pub fn learn_from_s(&self) -> Option<i64> {
        self.state.start_s.filter(|_| self.backfill_s > 0).map(|start_s| start_s.saturating_sub(self.backfill_s))
    }

    /// Up to when (Unix seconds) nothing is missing any more but what is later than `lateness`: the server's time of the
    /// last root, or the oldest window that is not proven complete.
    #[must_use]
    pub fn settled_s(&self, lateness: Duration) -> Option<i64> {
        let reached_s = self.state.tiers.first()?.frontier_s;
        let owed_s = self.state.owed.windows().iter().map(|window| window.from_s).min();
        let complete_s = owed_s.map_or(reached_s, |owed_s| owed_s.min(reached_s));
        let lateness_s = i64::try_from(lateness.as_secs()).unwrap_or(i64::MAX);
        (self.state.start_s.is_some() && reached_s > 0).then(|| complete_s.saturating_sub(lateness_s))
    }

    fn root(&self, tier: usize, now: Instant) -> Request {
        let start_s = self.state.start_s.unwrap_or(0);
        let from_s = self.state.tiers.get(tier).map_or(start_s, |tier| tier.frontier_s - tier.look_back_s);
        let request = Request::new(Ask::Root(tier), Some(from_s.max(start_s) - PAD_S), None);
        Request { size: self.volatile.root_size.now(now), ..request }
    }

    /// The next request for what is owed, unless all of it rests.
    fn drain(&self, now: Instant) -> Option<Request> {
        let (owed, walks) = (&self.state.owed, &self.volatile.walks);
        let rests = |window: Window| self.volatile.troubles.is_resting(window, now);
        if let Some(page) = walks.request(owed, now).filter(|(window, _)| !rests(*window)) {
            return Some(page.1);
        }
        let due = walks.due(now).filter(|window| !rests(*window));
        let skip = |window: Window| rests(window) || walks.holds_back(window);
        // Each root that proves nothing owes all again. What was settled already must not keep the rest from its turn.
        let settled = |window: Window| self.volatile.settled.get(&window.from_s).copied();
        let window = due.or_else(|| owed.narrowest(skip, settled))?;
        Some(Request::drain(window, self.volatile.size.now(now)))
    }
}

/// Look-backs in seconds.
#[must_use]
pub fn look_backs_s(tiers: &[Tier]) -> Vec<i64> {
    tiers.iter().map(|tier| i64::try_from(tier.look_back.as_secs()).unwrap_or(i64::MAX)).collect()
}
