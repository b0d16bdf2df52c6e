//! One second with more rows than a page holds: its pages are read again and again until what was seen is all there is.
//! Where too many windows are owed to split one more, it is a longer one.
//!
//! Rows of equal stamps may come in another order with each request, so a pass over the pages proves nothing by
//! itself. What does: the ids seen over all passes are as many as the total says, or nothing comes after that many
//! rows. A server that does not page proves nothing however often it is asked: its seconds stay owed and are walked more
//! and more rarely, all of them together, since it is the server that is at fault and not one second.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::source::vonage::client::MAX_PAGE_SIZE;
use crate::source::vonage::poller::{Ask, Observation, Request};
use crate::source::vonage::window::{Owed, Window};

/// A total that cannot be trusted is replaced by asking for the row after the last: twice, since an answer may be
/// empty by fault.
const EMPTY_PROBES: u32 = 2;
/// Pages after which a pass ends, whatever comes: a server that never ends its pages must not hold the poller.
const MAX_PAGES: u32 = 2_000;
/// Ids that are kept; a second with more is walked without an end in sight, which `windows_owed` shows.
const MAX_IDS: usize = 200_000;

/// A pass that has shown this many times more rows than there are ids does not go on through the rows. Of a server that
/// draws the order of equal stamps anew for each page, a pass shows more than half of the rows.
const MAX_REPETITION: u64 = 4;
/// Pages of a pass before that is judged: fewer small ones may be alike by chance.
const MIN_JUDGED_PAGES: u32 = 8;
/// Passes in a row that show as many rows as there are and bring nothing new; what is missing then is an id that two
/// rows share. Of a server that draws the order of equal stamps anew for each page, one pass misses a given row in at
/// most 37 of 100 cases, twelve in six of a million.
const MAX_BARREN_PASSES: u32 = 12;
/// Such passes before a total that is above what they show is taken for a lie: with their pauses, more than an outage of
/// some seconds that shows nothing.
const MAX_TOLD_PASSES: u32 = 6;
/// Pause after the first such pass; it doubles with each one that follows, up to the second.
const MIN_PASS_PAUSE: Duration = Duration::from_millis(250);
const MAX_PASS_PAUSE: Duration = Duration::from_secs(5);
/// Pause after the first walk that came to nothing; it doubles with each one that follows.
const MIN_REST: Duration = Duration::from_secs(1);
/// Longest pause: a walk that comes to nothing costs some ten requests, which is then little beside the roots.
const MAX_REST: Duration = Duration::from_secs(300);

/// The walks of one account. It may be forgotten at any moment: that costs requests only.
#[derive(Debug, Clone, Default)]
pub struct Walks {
    under_way: Option<Walk>,
    /// The walk under way does not go on before this.
    pauses_until: Option<Instant>,
    /// Owed windows whose walk came to nothing or was not begun; the longest waiting first.
    waiting: VecDeque<Window>,
    failures: u32,
    rests_until: Option<Instant>,
}

impl Walks {
    /// The next page of the walk under way.
    #[must_use]
    pub fn request(&self, owed: &Owed, now: Instant) -> Option<(Window, Request)> {
        let walk = self.under_way.as_ref().filter(|walk| owed.has(walk.window))?;
        self.pauses_until.is_none_or(|until| until <= now).then(|| (walk.window, walk.request()))
    }

    /// Pages of the walk under way are at most as long as this from now on.
    pub fn shorten(&mut self, size: u32) {
        if let Some(walk) = &mut self.under_way {
            walk.shorten(size);
        }
    }

    /// The second whose turn it is, once the rest is over.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Window> {
        let is_free = self.under_way.as_ref().is_none_or(|walk| walk.is_interrupted);
        self.waiting.front().copied().filter(|_| is_free && !self.is_resting(now))
    }

    /// Whether a window is asked for only when it is `due`.
    #[must_use]
    pub fn holds_back(&self, window: Window) -> bool {
        self.waiting.contains(&window) || self.under_way.as_ref().is_some_and(|walk| walk.window == window)
    }

    /// How long nothing is due; `None` when nothing waits.
    #[must_use]
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        let rests_until = self.rests_until.filter(|_| !self.waiting.is_empty());
        let pauses_until = self.pauses_until.filter(|_| self.under_way.is_some());
        // What is over already is not what is waited for.
        let until = [rests_until, pauses_until].into_iter().flatten().filter(|until| *until > now).min()?;
        Some(until.saturating_duration_since(now))
    }

    /// Walks come to nothing.
    #[must_use]
    pub fn are_fruitless(&self) -> bool {
        self.failures > 0 && (self.under_way.is_some() || !self.waiting.is_empty())
    }

    /// A page could not be had: another walk may begin first.
    pub fn interrupt(&mut self, window: Window) {
        if let Some(walk) = self.under_way.as_mut().filter(|walk| walk.window == window) {
            walk.is_interrupted = true;
        }
    }

    /// How many seconds wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A window was asked for and has more rows than came: `seen` is the first page of its walk. It waits while walks rest.
    pub fn begin(&mut self, window: Window, seen: &Observation, now: Instant) {
        let is_busy = self.under_way.as_ref().is_some_and(|walk| walk.window != window && !walk.is_interrupted);
        if is_busy || self.is_resting(now) {
            self.wait(window);
            return;
        }
        if let Some(given_up) = self.under_way.take().filter(|walk| walk.window != window) {
            // One page of it fails each time; when its turn comes again it begins from the first one.
            self.give_up(given_up.window, now);
        }
        self.waiting.retain(|waiting| *waiting != window);
        let mut walk = Walk::new(window, seen.shown.min(u64::from(MAX_PAGE_SIZE)));
        walk.take(seen, false);
        self.under_way = Some(walk);
        self.pauses_until = None;
    }

    /// Takes one page of the walk under way; says how many walks in a row came to nothing where it is one of them.
    pub fn take(&mut self, seen: &Observation, totals_trusted: bool, now: Instant) -> (WalkEnd, u32) {
        let Some(walk) = &mut self.under_way else { return (WalkEnd::Open, 0) };
        let (window, end) = (walk.window, walk.take(seen, totals_trusted));
        match end {
            WalkEnd::Open => self.pauses_until = walk.pause().map(|pause| now + pause),
            // It pages after all: whatever waits need not.
            WalkEnd::Complete { .. } => *self = Self::default(),
            WalkEnd::Fruitless => {
                self.under_way = None;
                self.give_up(window, now);
            }
        }
        (end, self.failures)
    }

    fn give_up(&mut self, window: Window, now: Instant) {
        let rest = MIN_REST.saturating_mul(1 << self.failures.min(16)).min(MAX_REST);
        self.failures = self.failures.saturating_add(1);
        self.rests_until = Some(now + rest);
        self.wait(window);
    }

    /// Forgets what is no longer owed.
    pub fn forget_settled(&mut self, owed: &Owed) {
        self.waiting.retain(|window| owed.has(*window));
        if self.under_way.as_ref().is_some_and(|walk| !owed.has(walk.window)) {
            self.under_way = None;
        }
        if owed.is_empty() {
            *self = Self::default();
        }
    }

    fn is_resting(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// To the end of the queue, so that none keeps another from its turn.
    fn wait(&mut self, window: Window) {
        self.waiting.retain(|waiting| *waiting != window);
        self.waiting.push_back(window);
    }
}

/// A walk under way.
#[derive(Debug, Clone)]
pub struct Walk {
    /// The owed second.
    pub window: Window,
    size: u32,
    page_size: u32,
    page: u32,
    /// Between two passes: empty answers so far to what comes after the last known row.
    probing: Option<u32>,
    ids: HashSet<u128>,
    /// How many ids were known when the pass began.
    known: usize,
    barren_passes: u32,
    is_interrupted: bool,
    /// Rows of the pass so far, repeated ones included.
    pass_rows: u64,
    /// Those of them that lie in the second.
    pass_inside: u64,
    /// The same of the last pass that came to its end.
    last_pass_inside: u64,
    /// The last total that was told.
    total: Option<u64>,
}

/// What a page of a walk led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkEnd {
    /// Go on.
    Open,
    /// Everything was seen.
    Complete {
        /// The total was above or below what can be shown.
        totals_lie: bool,
    },
    /// The pages do not lead to the end of the second.
    Fruitless,
}

impl Walk {
    /// Begins with pages of `size`, which the server is known to give.
    #[must_use]
    pub fn new(window: Window, size: u64) -> Self {
        let size = u32::try_from(size).unwrap_or(1).max(1);
        Self {
            window,
            size,
            page_size: size,
            page: 1,
            probing: None,
            ids: HashSet::new(),
            known: 0,
            barren_passes: 0,
            is_interrupted: false,
            pass_rows: 0,
            pass_inside: 0,
            last_pass_inside: 0,
            total: None,
        }
    }

    /// The next page.
    #[must_use]
    pub fn request(&self) -> Request {
        let request = Request { ask: Ask::Walk(self.window), ..Request::drain(self.window, self.size) };
        let probe = self.probing.and_then(|_| request.after(self.rows_known(), u64::from(self.size)));
        probe.unwrap_or_else(|| request.at_page(self.page, self.page_size))
    }

    /// Nothing after so many rows means that there are no more. Where two rows share an id, that is more than there are
    /// ids: as many as the last pass showed, once passes bring nothing new.
    fn rows_known(&self) -> u64 {
        let ids = self.ids.len() as u64;
        if self.barren_passes < MAX_BARREN_PASSES { ids } else { ids.max(self.last_pass_inside) }
    }

    /// Takes one page. Rows outside of the window are none of its ids: a page whose filter was ignored must not make the
    /// number of ids look complete.
    pub fn take(&mut self, seen: &Observation, totals_trusted: bool) -> WalkEnd {
        let (known, rows_known) = (self.ids.len() as u64, self.rows_known());
        let request = self.request();
        self.is_interrupted = false;
        // Strictly: all of an hour more, for stamps without a zone, would let in what an ignored filter shows.
        let strays = seen.rows.iter().filter(|row| request.is_elsewhere(row)).count() as u64;
        for row in seen.rows.iter().filter(|row| !request.is_elsewhere(row)) {
            if self.ids.len() < MAX_IDS {
                self.ids.insert(key(&row.id));
            }
        }
        // A page that is refused because it comes after the last one says nothing about the total.
        self.total = seen.page.total_elements.or(self.total);
        if let Some(empty) = self.probing {
            // A total that is believed and says that there is more is worth more passes.
            let is_told_more = totals_trusted && self.total.is_some_and(|total| total > rows_known);
            if seen.shown == 0 && is_told_more && self.barren_passes < MAX_TOLD_PASSES {
                self.probing = None;
                return WalkEnd::Open;
            }
            return self.probed(empty, seen.shown == 0, self.total.is_some_and(|total| total != rows_known));
        }
        self.pass_rows += seen.shown;
        self.pass_inside += seen.shown.saturating_sub(strays);
        let full = seen.shown >= u64::from(self.page_size);
        if full && self.is_repetitive() {
            return WalkEnd::Fruitless;
        }
        if full && self.page < MAX_PAGES {
            self.page += 1;
            return WalkEnd::Open;
        }
        let total = self.total.filter(|_| totals_trusted);
        if total == Some(self.ids.len() as u64) {
            return WalkEnd::Complete { totals_lie: false };
        }
        if full {
            return WalkEnd::Fruitless;
        }
        // A total above what was seen is worth more passes before it is doubted.
        let is_told_all = total.is_none_or(|total| self.pass_rows >= total);
        self.next_pass();
        if is_told_all && self.barren_passes >= MAX_BARREN_PASSES {
            return WalkEnd::Complete { totals_lie: false };
        }
        if total.is_none_or(|total| total < self.ids.len() as u64) || self.ids.len() as u64 == known {
            self.probing = Some(0);
        }
        WalkEnd::Open
    }

    /// How long to wait before the next page.
    fn pause(&self) -> Option<Duration> {
        let is_new_pass = self.page == 1 && self.probing.is_none() && self.barren_passes > 0;
        let doubled = MIN_PASS_PAUSE.saturating_mul(1 << self.barren_passes.min(16));
        is_new_pass.then(|| doubled.min(MAX_PASS_PAUSE))
    }

    /// Pages are too long to be read: a pass with such begins again.
    fn shorten(&mut self, size: u32) {
        // What is asked for between two passes has the longer size.
        self.size = self.size.min(size.max(1));
        if self.size < self.page_size {
            self.page_size = self.size;
            self.rewind();
        }
    }

    fn probed(&mut self, empty: u32, is_empty: bool, totals_lie: bool) -> WalkEnd {
        if !is_empty {
            self.probing = None;
            return if self.barren_passes >= MAX_BARREN_PASSES { WalkEnd::Fruitless } else { WalkEnd::Open };
        }
        if empty + 1 >= EMPTY_PROBES && self.ids.len() < MAX_IDS {
            return WalkEnd::Complete { totals_lie };
        }
        self.probing = Some(empty + 1);
        WalkEnd::Open
    }

    fn is_repetitive(&self) -> bool {
        self.page >= MIN_JUDGED_PAGES && self.pass_rows > MAX_REPETITION * self.ids.len() as u64
    }

    /// Other page borders in every pass: a server that cuts its pages wrongly hides other rows each time.
    fn next_pass(&mut self) {
        self.barren_passes = if self.ids.len() > self.known { 0 } else { self.barren_passes + 1 };
        self.known = self.ids.len();
        self.last_pass_inside = self.pass_inside;
        self.rewind();
        self.page_size = if self.page_size > self.size.div_ceil(2) { self.page_size - 1 } else { self.size };
    }

    fn rewind(&mut self) {
        (self.page, self.pass_rows, self.pass_inside) = (1, 0, 0);
    }
}

/// 128 bits of a digest in place of the id: a bound on memory that a long id cannot move.
fn key(id: &str) -> u128 {
    let digest = blake3::hash(id.as_bytes());
    digest.as_bytes().iter().take(16).fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::{DateTime, Offset as _, Utc};
    use rand::rngs::SmallRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::source::vonage::client::PageInfo;
    use crate::source::vonage::event::read_row;

    const WINDOW: Window = Window { from_s: 100, to_s: 101, proven_s: 0 };

    fn answer(numbers: &[u64], total: Option<u64>) -> Observation {
        let row = |number: &u64| {
            let text = format!(r#"{{"id":"e{number}","created_at":"1970-01-01T00:01:40Z"}}"#);
            read_row(&Arc::from(text), Utc.fix(), DateTime::UNIX_EPOCH)
        };
        Observation {
            rows: numbers.iter().map(row).collect(),
            new: vec![true; numbers.len()],
            shown: numbers.len() as u64,
            page: PageInfo { total_elements: total, ..PageInfo::default() },
            asked_s: 0,
            answered_s: 0,
            believed: None,
            stored: 0,
            bounds: [None; 2],
            probes: Vec::new(),
            anchor: None,
        }
    }

    fn page(rows: &[u64], request: &Request) -> Vec<u64> {
        let (page, size) = (request.page as usize, request.size as usize);
        rows.iter().skip((page - 1) * size).take(size).copied().collect()
    }

    /// Walks until it ends or has asked so many times; gives the end, the requests, and how many ids it knows.
    fn walk(size: u64, most: u32, mut serve: impl FnMut(&Request) -> Observation) -> (WalkEnd, u32, usize) {
        let mut walk = Walk::new(WINDOW, size);
        for asked in 1..=most {
            let end = walk.take(&serve(&walk.request()), true);
            if end != WalkEnd::Open {
                return (end, asked, walk.ids.len());
            }
        }
        (WalkEnd::Open, most, walk.ids.len())
    }

    #[test]
    fn a_server_that_does_not_page_is_found_out_within_some_pages() {
        let rows: Vec<u64> = (0..260).collect();
        for size in [1, 7, 100] {
            let first: Vec<u64> = rows.iter().take(size as usize).copied().collect();
            let (end, asked, _) = walk(size, 50, |_| answer(&first, Some(260)));
            assert_eq!((end, asked), (WalkEnd::Fruitless, MIN_JUDGED_PAGES), "size {size}");
        }
        let mut random = SmallRng::seed_from_u64(1);
        let (end, asked, known) = walk(100, 50, |_| {
            let mut drawn = rows.clone();
            drawn.shuffle(&mut random);
            drawn.truncate(100);
            answer(&drawn, Some(260))
        });
        assert_eq!(end, WalkEnd::Fruitless, "always another hundred of the same rows");
        assert!(asked < 20 && known > 200, "{asked} {known}");
    }

    #[test]
    fn passes_that_reach_the_end_and_bring_nothing_new_are_enough_in_the_end() {
        let rows: Vec<u64> = (0..260).collect();
        // The last page comes for all that lie beyond it.
        let (end, asked, known) = walk(50, 300, |request| {
            let shown = page(&rows, request);
            answer(if shown.is_empty() { rows.get(250..).unwrap_or_default() } else { &shown }, None)
        });
        assert_eq!((end, known), (WalkEnd::Complete { totals_lie: false }, 260));
        assert!(asked < 150, "{asked}");
        // Two rows share an id, and both count.
        let mut twins = rows.clone();
        twins.insert(100, 17);
        let (end, asked, known) = walk(50, 300, |request| answer(&page(&twins, request), Some(261)));
        assert_eq!((end, known), (WalkEnd::Complete { totals_lie: false }, 260));
        assert!(asked < 150, "{asked}");
        // The same where the total is above what is there.
        let (end, asked, known) = walk(50, 300, |request| answer(&page(&twins, request), Some(264)));
        assert_eq!((end, known), (WalkEnd::Complete { totals_lie: true }, 260));
        assert!(asked < 150, "{asked}");
        // Where it says that there are more than it ever shows, that is looked for.
        let (end, ..) = walk(50, 300, |request| answer(&page(&rows, request), Some(262)));
        assert_eq!(end, WalkEnd::Complete { totals_lie: true });
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_brought_nothing_new_is_not_repeated_at_once() {
        let (mut walks, mut owed, now) = (Walks::default(), Owed::default(), Instant::now());
        owed.add(second(100));
        walks.begin(second(100), &answer(&[1, 1], Some(3)), now);
        let mut paused = Duration::ZERO;
        for _ in 0..200 {
            let Some((_, request)) = walks.request(&owed, Instant::now()) else {
                let pause = walks.rest(Instant::now()).expect("it pauses");
                paused += pause;
                tokio::time::advance(pause).await;
                continue;
            };
            let shown = page(&[1, 1, 2], &request);
            if let (WalkEnd::Complete { .. }, _) = walks.take(&answer(&shown, Some(3)), true, Instant::now()) {
                assert!(paused > Duration::from_secs(20), "{paused:?}");
                return;
            }
        }
        panic!("it does not end");
    }

    #[test]
    fn a_second_without_an_end_is_left_after_its_bound() {
        let (end, asked, _) = walk(100, 5_000, |request| {
            let first = u64::from(request.page) * 1_000;
            answer(&(first..first + 100).collect::<Vec<_>>(), None)
        });
        assert_eq!((end, asked), (WalkEnd::Fruitless, MAX_PAGES));
    }

    #[test]
    fn a_server_that_pages_is_never_taken_for_one_that_does_not() {
        for seed in 0..400 {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut rows: Vec<u64> = (0..random.random_range(3..900)).collect();
            let size = random.random_range(10..=100).min(rows.len() as u64);
            let total = [Some(0), Some(7), None].map(|more| more.map(|more: u64| rows.len() as u64 + more));
            let total = total[random.random_range(0..3)];
            let (end, asked, known) = walk(size, 2_500, |request| {
                rows.shuffle(&mut random);
                answer(&page(&rows, request), total)
            });
            assert!(matches!(end, WalkEnd::Complete { .. }), "seed {seed}: {end:?} after {asked}, {known} known");
            assert_eq!(known, rows.len(), "seed {seed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_seconds_with_a_page_that_always_fails_take_turns_more_and_more_rarely() {
        let (mut walks, mut owed) = (Walks::default(), Owed::default());
        [second(100), second(102)].into_iter().for_each(|window| owed.add(window));
        let first: Vec<u64> = (0..100).collect();
        let mut rests = Vec::new();
        for turn in [second(100), second(102), second(100), second(102), second(100)] {
            walks.begin(turn, &answer(&first, Some(150)), Instant::now());
            assert_eq!(walks.request(&owed, Instant::now()).map(|(window, _)| window), Some(turn));
            walks.interrupt(turn);
            if let Some(rest) = walks.rest(Instant::now()) {
                rests.push(rest.as_secs());
                assert_eq!(walks.due(Instant::now()), None, "it rests");
                tokio::time::advance(rest).await;
            }
        }
        assert_eq!(rests, [1, 2, 4, 8], "each walk that was given up");
        let waiting = walks.due(Instant::now()).expect("its turn");
        assert_eq!(waiting, second(102));
    }

    fn second(from_s: i64) -> Window {
        Window { from_s, to_s: from_s + 1, proven_s: 0 }
    }

    /// A walk that comes to nothing: so many requests.
    fn fail(walks: &mut Walks, window: Window, now: Instant) -> u32 {
        let first: Vec<u64> = (0..100).collect();
        walks.begin(window, &answer(&first, Some(150)), now);
        for _ in 0..50 {
            if let (WalkEnd::Fruitless, failures) = walks.take(&answer(&first, Some(150)), true, now) {
                return failures;
            }
        }
        0
    }

    #[tokio::test(start_paused = true)]
    async fn walks_that_come_to_nothing_rest_longer_and_longer_and_take_turns() {
        let mut walks = Walks::default();
        let mut owed = Owed::default();
        [second(100), second(102)].into_iter().for_each(|window| owed.add(window));
        assert_eq!(fail(&mut walks, second(100), Instant::now()), 1);
        assert_eq!((walks.due(Instant::now()), walks.rest(Instant::now())), (None, Some(MIN_REST)));
        walks.begin(second(102), &answer(&[1], None), Instant::now());
        assert!(
            walks.request(&owed, Instant::now()).is_none(),
            "the server is at fault, so no other second is walked either"
        );
        let (mut turns, mut rested) = (Vec::new(), Duration::ZERO);
        for _ in 0..20 {
            let rest = walks.rest(Instant::now()).expect("it rests");
            rested = rested.max(rest);
            tokio::time::advance(rest).await;
            let window = walks.due(Instant::now()).expect("its turn");
            turns.push(window.from_s);
            fail(&mut walks, window, Instant::now());
        }
        assert_eq!(turns.get(..5), Some(&[100, 102, 100, 102, 100][..]));
        assert_eq!(rested, MAX_REST);
        owed.settle(second(100));
        walks.forget_settled(&owed);
        assert_eq!(walks.waiting(), 1);
        tokio::time::advance(MAX_REST).await;
        walks.begin(second(102), &answer(&[1, 2], Some(3)), Instant::now());
        walks.take(&answer(&[3], Some(3)), true, Instant::now());
        assert!(walks.waiting() == 0 && !walks.is_resting(Instant::now()), "it pages again");
    }
}
