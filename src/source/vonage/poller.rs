//! The polling algorithm as a state machine without input or output: `plan` says what to ask for, `judge` what an
//! answer proves, `absorb` what follows from it.
//!
//! It never reads a clock (the server's `Date` comes in with the answer) and never forgets a window that is not
//! proven complete. All that must survive a crash is in `State`; `Volatile` may be lost at any moment and only costs
//! requests.

pub mod absorb;
pub mod judge;
pub mod walk;

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use tokio::time::Instant;

use crate::source::vonage::client::{BoundForm, ListQuery, MAX_PAGE_SIZE, PageInfo};
use crate::source::vonage::event::Row;
use crate::source::vonage::poller::walk::Walks;
use crate::source::vonage::state::State;
use crate::source::vonage::window::Window;

/// Drains between two roots, so that neither starves the other.
const DRAINS_PER_ROOT: u32 = 8;
/// A closed window ends this long after the root that owes it: the server's own clock may lag behind its stamps.
const CLOSED_BEYOND_S: i64 = 5;
/// Every window is asked for with this much before its first second; see `calibration`.
const PAD_S: i64 = 1;
/// End of time for counting: no stamp lies beyond the year 3000.
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

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The very first: the server's clock and the form of its stamps.
    Survey,
    /// Where naive stamps are written.
    Zone,
    /// From a tier's look-back on, without an upper bound.
    Root(usize),
    /// An owed window.
    Drain(Window),
    /// A page of an owed second that holds more than a page.
    Walk(Window),
}

/// A list request with its window in whole seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What it is for.
    pub ask: Ask,
    /// `date_from` as sent.
    pub from_s: Option<i64>,
    /// `date_to` as sent.
    pub to_s: Option<i64>,
    /// From 1.
    pub page: u32,
    /// Rows asked for.
    pub size: u32,
}

impl Request {
    fn new(ask: Ask, from_s: Option<i64>, to_s: Option<i64>) -> Self {
        Self { ask, from_s, to_s, page: 1, size: MAX_PAGE_SIZE }
    }

    /// For the client.
    #[must_use]
    pub fn query(&self) -> ListQuery {
        let moment = |second: i64| DateTime::from_timestamp(second, 0);
        ListQuery {
            from: self.from_s.and_then(moment),
            to: self.to_s.and_then(moment),
            bounds: BoundForm::Zulu,
            page: self.page,
            size: self.size,
            ..ListQuery::default()
        }
    }

    /// The same window, another page.
    #[must_use]
    pub fn at_page(&self, page: u32, size: u32) -> Self {
        Self { page, size, ..self.clone() }
    }

    /// The request for what comes after the first `rows` of the window: whole pages, none larger than one that was
    /// shown.
    #[must_use]
    pub fn after(&self, rows: u64, shown: u64) -> Option<Self> {
        let most = shown.min(u64::from(MAX_PAGE_SIZE));
        let size = (1..=most).rev().find(|size| rows.is_multiple_of(*size)).unwrap_or(1);
        let page = u32::try_from(rows / size + 1).ok()?;
        Some(self.at_page(page, u32::try_from(size).ok()?))
    }

    /// The seconds in which every row is within the window whatever kind its bounds are of.
    #[must_use]
    pub fn countable(&self) -> (i64, i64) {
        (self.from_s.map_or(i64::MIN, |from_s| from_s + PAD_S), self.to_s.unwrap_or(FAR_S))
    }

    /// Whether its answer is judged as a whole window.
    #[must_use]
    pub fn is_window(&self) -> bool {
        matches!(self.ask, Ask::Root(_) | Ask::Drain(_))
    }
}

/// What came back, with what the store knows about it.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Rows without repetitions, in the order of the answer.
    pub rows: Vec<Row>,
    /// For each row, whether the store lacks it.
    pub new: Vec<bool>,
    /// What the API said about its pages.
    pub page: PageInfo,
    /// Server time when the request was made (`Date` less the time it took).
    pub asked_s: i64,
    /// Server time of the answer.
    pub answered_s: i64,
    /// Rows stored in the countable seconds before this answer.
    pub stored: u64,
    /// What `judge` wanted to know besides, in the order asked.
    pub probes: Vec<Probe>,
    /// Whether the newest event is still known, where an answer lacked rows.
    pub anchor: Option<AnchorLookup>,
}

/// What lies beyond what an answer showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Nothing.
    Empty,
    /// Rows.
    Rows,
    /// The probe said nothing that can be used.
    Unknown,
}

/// `GET /events/{id}` of the newest seen event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnchorLookup {
    /// It is there: the list is at fault.
    Found,
    /// The API no longer knows it.
    Gone,
    /// No answer.
    Failed,
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
    walks: Walks,
    zone_row: Option<(NaiveDateTime, String)>,
    zone_tries: u32,
    /// Answers at fault in a row, by what was asked for: a good answer to something else is no excuse.
    stumbles: Vec<(Ask, u32)>,
    deferred: Option<Window>,
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
            walks: Walks::default(),
            zone_row: None,
            zone_tries: 0,
            stumbles: Vec::new(),
            deferred: None,
        };
        Self { state, tiers: tiers.to_vec(), start, backfill_s: 0, volatile }
    }

    /// What to ask for now.
    #[must_use]
    pub fn plan(&self, now: Instant) -> Request {
        if self.state.start_s.is_none() {
            return Request::new(Ask::Survey, None, None);
        }
        if let Some((stamp, _)) = &self.volatile.zone_row {
            let (from_s, to_s) = self.state.calibration.zone.probe(*stamp);
            return Request::new(Ask::Zone, Some(from_s), Some(to_s));
        }
        let next = self.volatile.due.iter().enumerate().min_by_key(|(_, due)| **due);
        match (next, self.drain(now)) {
            (Some((_, due)), Some(drain)) if *due > now || self.volatile.drains_since_root < DRAINS_PER_ROOT => drain,
            (Some((tier, _)), _) => self.root(tier),
            (None, drain) => drain.unwrap_or_else(|| self.root(0)),
        }
    }

    /// How long until something is due; zero while something is owed that need not rest.
    #[must_use]
    pub fn idle_for(&self, now: Instant) -> Duration {
        if self.state.start_s.is_none() || self.volatile.zone_row.is_some() || self.drain(now).is_some() {
            return Duration::ZERO;
        }
        let due = self.volatile.due.iter().min().copied();
        let due = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
        self.volatile.walks.rest(now).map_or(due, |rest| rest.min(due))
    }

    /// What is wrong with the answers at present.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        let in_doubt = !self.volatile.stumbles.is_empty() || self.volatile.walks.waiting() > 0;
        in_doubt.then_some("answers lack events that were seen before, or ignore what was asked")
    }

    /// Every tier had its root since the start and nothing is owed.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.state.start_s.is_some()
            && self.volatile.zone_row.is_none()
            && self.state.owed.is_empty()
            && self.volatile.rooted.iter().all(|rooted| *rooted)
    }

    /// At the very first start what lies so far before it is read too.
    #[must_use]
    pub fn reading_back(mut self, backfill: Option<Duration>) -> Self {
        self.backfill_s = backfill.map_or(0, |backfill| i64::try_from(backfill.as_secs()).unwrap_or(i64::MAX));
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

    fn root(&self, tier: usize) -> Request {
        let start_s = self.state.start_s.unwrap_or(0);
        let from_s = self.state.tiers.get(tier).map_or(start_s, |tier| tier.frontier_s - tier.look_back_s);
        Request::new(Ask::Root(tier), Some(from_s.max(start_s) - PAD_S), None)
    }

    /// The next request for what is owed, unless all of it rests.
    fn drain(&self, now: Instant) -> Option<Request> {
        let (owed, walks) = (&self.state.owed, &self.volatile.walks);
        if let Some(page) = walks.request(owed) {
            return Some(page);
        }
        let is_deferred = |window: Window| Some(window) == self.volatile.deferred;
        let due = walks.due(now);
        let window = due.filter(|window| !is_deferred(*window));
        let window = window.or_else(|| owed.narrowest(|window| is_deferred(window) || walks.holds_back(window)));
        let window = window.or(due).or_else(|| owed.narrowest(|window| walks.holds_back(window)))?;
        Some(Request::new(Ask::Drain(window), Some(window.from_s - PAD_S), Some(window.to_s)))
    }
}

/// Look-backs in seconds.
#[must_use]
pub fn look_backs_s(tiers: &[Tier]) -> Vec<i64> {
    tiers.iter().map(|tier| i64::try_from(tier.look_back.as_secs()).unwrap_or(i64::MAX)).collect()
}
