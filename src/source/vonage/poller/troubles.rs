//! What does not succeed, by what was asked for: each rests by itself, longer and longer, so that one request that never
//! succeeds keeps nothing else waiting.
//!
//! A request that fails and an answer that is at fault (rows missing, filter ignored) count alike here. A restart
//! forgets all of it, which costs requests only.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::source::vonage::poller::Ask;
use crate::source::vonage::window::{Owed, Window};

/// The first rest; it doubles with each time in a row.
const MIN_REST: Duration = Duration::from_millis(500);
/// Longest rest of a tier's root: what is fresh must not wait for long once it can be read again.
const MAX_ROOT_REST: Duration = Duration::from_secs(60);
/// Longest rest of an owed window: one that never succeeds then costs little beside the roots.
const MAX_WINDOW_REST: Duration = Duration::from_secs(300);
/// What has not succeeded for this long is worth an alert by itself.
pub const LASTING: Duration = Duration::from_secs(300);
/// Failed requests in a row after which it is no passing fault: once is usual.
pub const LASTING_FAILURES: u32 = 3;

/// What an answer would move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    Root(usize),
    Window(Window),
}

impl Subject {
    fn of(ask: Ask) -> Option<Self> {
        match ask {
            Ask::Root(tier) => Some(Self::Root(tier)),
            Ask::Drain(window) | Ask::Walk(window) => Some(Self::Window(window)),
            Ask::Survey | Ask::Zone => None,
        }
    }

    fn longest_rest(self) -> Duration {
        match self {
            Self::Root(_) => MAX_ROOT_REST,
            Self::Window(_) => MAX_WINDOW_REST,
        }
    }
}

#[derive(Debug, Clone)]
struct Trouble {
    failures: u32,
    stumbles: u32,
    /// How often it was narrowed: each time because it had failed.
    narrowed: u32,
    since: Instant,
    until: Instant,
    is_told: bool,
}

/// All that does not succeed at present: at most one entry for each tier and each owed window.
#[derive(Debug, Clone, Default)]
pub struct Troubles {
    all: HashMap<Subject, Trouble>,
    /// No owed window is asked for before this.
    windows_rest_until: Option<Instant>,
}

impl Troubles {
    /// A request for it failed; how long it rests.
    pub fn failed(&mut self, ask: Ask, now: Instant) -> Duration {
        self.count(ask, now, |trouble| trouble.failures = trouble.failures.saturating_add(1)).0
    }

    /// An answer to it was at fault; how long it rests, and how many times in a row that was.
    pub fn stumbled(&mut self, ask: Ask, now: Instant) -> (Duration, u32) {
        self.count(ask, now, |trouble| trouble.stumbles = trouble.stumbles.saturating_add(1))
    }

    fn count(&mut self, ask: Ask, now: Instant, count: impl FnOnce(&mut Trouble)) -> (Duration, u32) {
        let Some(subject) = Subject::of(ask) else { return (MIN_REST, 0) };
        let new = Trouble { failures: 0, stumbles: 0, narrowed: 0, since: now, until: now, is_told: false };
        let trouble = self.all.entry(subject).or_insert(new);
        count(trouble);
        let before = (trouble.failures + trouble.stumbles).saturating_sub(1);
        let rest = MIN_REST.saturating_mul(1 << before.min(16)).min(subject.longest_rest());
        trouble.until = now + rest;
        (rest, trouble.stumbles)
    }

    /// It is no passing fault, however seldom it was asked for.
    pub fn lasts(&mut self, ask: Ask) {
        if let Some(trouble) = self.own_mut(ask) {
            trouble.failures = trouble.failures.max(LASTING_FAILURES);
        }
    }

    /// The window rests until then, whatever it was.
    pub fn rest_until(&mut self, window: Window, until: Instant) {
        if let Some(trouble) = self.all.get_mut(&Subject::Window(window)) {
            trouble.until = until;
        }
    }

    /// No window is asked for before then.
    pub fn rest_windows(&mut self, until: Instant) {
        self.windows_rest_until = self.windows_rest_until.max(Some(until));
    }

    /// What was one window is asked for in parts from now on; since when it has not succeeded is the same.
    pub fn inherit(&mut self, window: Window, parts: &[Window], now: Instant) {
        let Some(old) = self.all.remove(&Subject::Window(window)) else { return };
        let narrowed = old.narrowed.saturating_add(1);
        let part = Trouble { failures: 0, stumbles: 0, narrowed, until: now, ..old };
        self.all.extend(parts.iter().map(|window| (Subject::Window(*window), part.clone())));
    }

    fn own_mut(&mut self, ask: Ask) -> Option<&mut Trouble> {
        self.all.get_mut(&Subject::of(ask)?)
    }

    /// It succeeded.
    pub fn recovered(&mut self, ask: Ask) {
        if let Some(subject) = Subject::of(ask) {
            self.all.remove(&subject);
        }
    }

    /// A part of it succeeded. Since when not all of it does is kept: the same part may fail each time.
    pub fn progressed(&mut self, ask: Ask, now: Instant) {
        if let Some(trouble) = self.own_mut(ask) {
            (trouble.failures, trouble.stumbles, trouble.until) = (0, 0, now);
        }
    }

    /// Stumbles are forgiven: what they were judged by no longer counts.
    pub fn forgive(&mut self) {
        self.all.retain(|_, trouble| trouble.stumbles == 0);
    }

    /// Drops windows that are no longer owed.
    pub fn forget_settled(&mut self, owed: &Owed) {
        self.all.retain(|subject, _| match subject {
            Subject::Window(window) => owed.has(*window),
            Subject::Root(_) => true,
        });
    }

    /// Whether an owed window is not to be asked for now.
    #[must_use]
    pub fn is_resting(&self, window: Window, now: Instant) -> bool {
        self.windows_rest_until.is_some_and(|until| until > now)
            || self.all.get(&Subject::Window(window)).is_some_and(|trouble| trouble.until > now)
    }

    /// When an owed window has rested, or all have.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let windows = self.all.iter().filter(|(subject, _)| matches!(subject, Subject::Window(_)));
        let own = windows.map(|(_, trouble)| trouble.until).filter(|until| *until > now).min();
        // While all rest, none is asked for when its own rest is over.
        own.max(self.windows_rest_until.filter(|until| *until > now))
    }

    /// How many requests for it have failed in a row.
    #[must_use]
    pub fn failures(&self, ask: Ask) -> u32 {
        Subject::of(ask).and_then(|subject| self.all.get(&subject)).map_or(0, |trouble| trouble.failures)
    }

    /// How long it has not succeeded, if that is to be told now: once.
    pub fn tell(&mut self, ask: Ask, now: Instant) -> Option<Duration> {
        let trouble = self.own_mut(ask)?;
        let lasts = now.saturating_duration_since(trouble.since);
        let times = trouble.failures + trouble.stumbles + trouble.narrowed;
        let is_news = lasts >= LASTING && times >= LASTING_FAILURES;
        (is_news && !std::mem::replace(&mut trouble.is_told, true)).then_some(lasts)
    }

    /// Some answers are at fault.
    #[must_use]
    pub fn has_stumbles(&self) -> bool {
        self.all.values().any(|trouble| trouble.stumbles > 0)
    }

    /// Some requests fail each time.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.all.values().any(|trouble| trouble.failures >= LASTING_FAILURES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rests_double_up_to_their_bounds_and_end_with_success() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        let window = Window { from_s: 10, to_s: 20, proven_s: 0 };
        let rests: Vec<u128> = (0..12).map(|_| troubles.failed(Ask::Drain(window), now).as_millis()).collect();
        assert_eq!(rests.get(..4), Some([500, 1_000, 2_000, 4_000].as_slice()));
        assert_eq!(rests.last(), Some(&300_000));
        let root = (0..12).map(|_| troubles.stumbled(Ask::Root(1), now)).last();
        assert_eq!(root, Some((MAX_ROOT_REST, 12)));
        assert!(troubles.is_resting(window, now) && !troubles.is_resting(window, now + MAX_WINDOW_REST));
        assert_eq!(troubles.next(now), Some(now + MAX_WINDOW_REST), "roots have a rhythm of their own");
        assert!(troubles.has_failures() && troubles.has_stumbles());
        troubles.recovered(Ask::Walk(window));
        assert!(!troubles.is_resting(window, now) && troubles.next(now).is_none());
        troubles.failed(Ask::Drain(window), now);
        troubles.forget_settled(&Owed::default());
        assert!(troubles.next(now).is_none() && troubles.has_stumbles());
    }

    #[tokio::test(start_paused = true)]
    async fn what_lasts_is_told_once() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        let ask = Ask::Drain(Window { from_s: 10, to_s: 20, proven_s: 0 });
        troubles.failed(ask, now);
        assert_eq!(troubles.tell(ask, now + LASTING), None, "it was asked for once only");
        troubles.failed(ask, now);
        troubles.failed(ask, now);
        assert_eq!(troubles.tell(ask, now), None);
        assert_eq!(troubles.tell(ask, now + LASTING), Some(LASTING));
        assert_eq!(troubles.tell(ask, now + LASTING), None);
        troubles.recovered(ask);
        assert_eq!(troubles.tell(ask, now + LASTING), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_is_narrowed_has_not_succeeded_since_it_was_whole() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        let mut window = Window { from_s: 0, to_s: 64, proven_s: 0 };
        let mut told = Vec::new();
        for turn in 0..5 {
            let ask = Ask::Drain(window);
            let later = now + LASTING / 4 * turn;
            troubles.failed(ask, later);
            troubles.failed(ask, later);
            told.extend(troubles.tell(ask, later));
            let halves = window.split(2);
            troubles.inherit(window, &halves, later);
            assert!(!troubles.is_resting(halves[1], later) && !troubles.has_failures(), "each half has its chance");
            window = halves[1];
        }
        assert_eq!(told, [LASTING]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_fails_each_time_is_told_though_the_pages_before_it_come() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        let ask = Ask::Walk(Window { from_s: 10, to_s: 11, proven_s: 0 });
        for turn in 0..3 {
            troubles.progressed(ask, now);
            assert!(troubles.failures(ask) == 0 && !troubles.has_failures(), "a page came");
            for _ in 0..LASTING_FAILURES {
                troubles.failed(ask, now);
            }
            assert!(troubles.failures(ask) == LASTING_FAILURES && troubles.has_failures());
            let told = troubles.tell(ask, now + LASTING * turn);
            assert_eq!(told, (turn == 1).then_some(LASTING));
        }
    }
}
