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
use crate::source::vonage::poller::{Ask, Observation, PAD_S, Request};
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
/// Passes in a row that bring nothing new though more is there, each with other page borders; the next would not either.
const MAX_BARREN_PASSES: u32 = 8;
/// Pause after the first walk that came to nothing; it doubles with each one that follows.
const MIN_REST: Duration = Duration::from_secs(1);
/// Longest pause: a walk that comes to nothing costs some ten requests, which is then little beside the roots.
const MAX_REST: Duration = Duration::from_secs(300);

/// The walks of one account. It may be forgotten at any moment: that costs requests only.
#[derive(Debug, Clone, Default)]
pub struct Walks {
    under_way: Option<Walk>,
    /// Owed windows whose walk came to nothing or was not begun; the longest waiting first.
    waiting: VecDeque<Window>,
    failures: u32,
    rests_until: Option<Instant>,
}

impl Walks {
    /// The next page of the walk under way.
    #[must_use]
    pub fn request(&self, owed: &Owed) -> Option<Request> {
        self.under_way.as_ref().filter(|walk| owed.windows().contains(&walk.window)).map(Walk::request)
    }

    /// The second whose turn it is, once the rest is over.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Window> {
        self.waiting.front().copied().filter(|_| !self.is_resting(now))
    }

    /// Whether a window is asked for only when it is `due`.
    #[must_use]
    pub fn holds_back(&self, window: Window) -> bool {
        self.waiting.contains(&window)
    }

    /// How long nothing is due; `None` when nothing waits.
    #[must_use]
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        let until = self.rests_until.filter(|_| !self.waiting.is_empty())?;
        Some(until.saturating_duration_since(now))
    }

    /// How many seconds wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A window was asked for and has more rows than came: `seen` is the first page of its walk. It waits while walks rest.
    pub fn begin(&mut self, window: Window, seen: &Observation, now: Instant) {
        if self.is_resting(now) {
            self.wait(window);
            return;
        }
        let mut walk = Walk::new(window, (seen.rows.len() as u64).min(u64::from(MAX_PAGE_SIZE)));
        walk.take(seen, false);
        self.under_way = Some(walk);
    }

    /// Takes one page of the walk under way; says how many walks in a row came to nothing where it is one of them.
    pub fn take(&mut self, seen: &Observation, totals_trusted: bool, now: Instant) -> (WalkEnd, u32) {
        let Some(walk) = &mut self.under_way else { return (WalkEnd::Open, 0) };
        let (window, end) = (walk.window, walk.take(seen, totals_trusted));
        match end {
            WalkEnd::Open => {}
            // It pages after all: whatever waits need not.
            WalkEnd::Complete { .. } => *self = Self::default(),
            WalkEnd::Fruitless => {
                self.under_way = None;
                let rest = MIN_REST.saturating_mul(1 << self.failures.min(16)).min(MAX_REST);
                self.failures = self.failures.saturating_add(1);
                self.rests_until = Some(now + rest);
                self.wait(window);
            }
        }
        (end, self.failures)
    }

    /// Forgets what is no longer owed.
    pub fn forget_settled(&mut self, owed: &Owed) {
        self.waiting.retain(|window| owed.windows().contains(window));
        if owed.is_empty() {
            *self = Self::default();
        }
    }

    /// Whether no walk begins now.
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
        Self { window, size, page_size: size, page: 1, probing: None, ids: HashSet::new(), known: 0, barren_passes: 0 }
    }

    /// The next page.
    #[must_use]
    pub fn request(&self) -> Request {
        let ask = Ask::Walk(self.window);
        let request = Request::new(ask, Some(self.window.from_s - PAD_S), Some(self.window.to_s));
        let probe = self.probing.and_then(|_| request.after(self.ids.len() as u64, u64::from(self.size)));
        probe.unwrap_or_else(|| request.at_page(self.page, self.page_size))
    }

    /// Takes one page.
    pub fn take(&mut self, seen: &Observation, totals_trusted: bool) -> WalkEnd {
        let known = self.ids.len() as u64;
        for row in &seen.rows {
            if self.ids.len() < MAX_IDS {
                self.ids.insert(key(&row.id));
            }
        }
        let total = seen.page.total_elements;
        if let Some(empty) = self.probing {
            return self.probed(empty, seen.rows.is_empty(), total.is_some_and(|total| total != known));
        }
        let full = seen.rows.len() as u64 >= u64::from(self.page_size);
        if full && self.is_repetitive() {
            return WalkEnd::Fruitless;
        }
        if full && self.page < MAX_PAGES {
            self.page += 1;
            return WalkEnd::Open;
        }
        if totals_trusted && total == Some(self.ids.len() as u64) {
            return WalkEnd::Complete { totals_lie: false };
        }
        if full {
            return WalkEnd::Fruitless;
        }
        // A total above what was seen is worth more passes before it is doubted.
        self.next_pass();
        if !totals_trusted || total.is_none_or(|total| total < self.ids.len() as u64) || self.ids.len() as u64 == known
        {
            self.probing = Some(0);
        }
        WalkEnd::Open
    }

    fn probed(&mut self, empty: u32, is_empty: bool, totals_lie: bool) -> WalkEnd {
        if !is_empty {
            self.probing = None;
            let is_barren = self.barren_passes >= MAX_BARREN_PASSES;
            return if is_barren { WalkEnd::Fruitless } else { WalkEnd::Open };
        }
        if empty + 1 >= EMPTY_PROBES && self.ids.len() < MAX_IDS {
            return WalkEnd::Complete { totals_lie };
        }
        self.probing = Some(empty + 1);
        WalkEnd::Open
    }

    fn is_repetitive(&self) -> bool {
        let shown = u64::from(self.page) * u64::from(self.page_size);
        self.page >= MIN_JUDGED_PAGES && shown > MAX_REPETITION * self.ids.len() as u64
    }

    /// Other page borders in every pass: a server that cuts its pages wrongly hides other rows each time.
    fn next_pass(&mut self) {
        self.barren_passes = if self.ids.len() > self.known { 0 } else { self.barren_passes + 1 };
        self.known = self.ids.len();
        self.page = 1;
        self.page_size = if self.page_size > self.size.div_ceil(2) { self.page_size - 1 } else { self.size };
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
            page: PageInfo { total_elements: total, ..PageInfo::default() },
            asked_s: 0,
            answered_s: 0,
            stored: 0,
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
        // The last page comes for all that lie beyond it.
        let (end, asked, _) = walk(50, 300, |request| {
            let shown = page(&rows, request);
            answer(if shown.is_empty() { rows.get(250..).unwrap_or_default() } else { &shown }, None)
        });
        assert_eq!(end, WalkEnd::Fruitless);
        assert!(asked < 100, "{asked}");
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
            let (end, asked, known) = walk(size, 2_000, |request| {
                rows.shuffle(&mut random);
                answer(&page(&rows, request), total)
            });
            assert!(matches!(end, WalkEnd::Complete { .. }), "seed {seed}: {end:?} after {asked}, {known} known");
            assert_eq!(known, rows.len(), "seed {seed}");
        }
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
        [second(5), second(7)].into_iter().for_each(|window| owed.add(window));
        assert_eq!(fail(&mut walks, second(5), Instant::now()), 1);
        assert_eq!((walks.due(Instant::now()), walks.rest(Instant::now())), (None, Some(MIN_REST)));
        walks.begin(second(7), &answer(&[1], None), Instant::now());
        assert!(walks.request(&owed).is_none(), "the server is at fault, so no other second is walked either");
        let (mut turns, mut rested) = (Vec::new(), Duration::ZERO);
        for _ in 0..20 {
            let rest = walks.rest(Instant::now()).expect("it rests");
            rested = rested.max(rest);
            tokio::time::advance(rest).await;
            let window = walks.due(Instant::now()).expect("its turn");
            turns.push(window.from_s);
            fail(&mut walks, window, Instant::now());
        }
        assert_eq!(turns.get(..5), Some(&[5, 7, 5, 7, 5][..]));
        assert_eq!(rested, MAX_REST);
        owed.settle(second(5));
        walks.forget_settled(&owed);
        assert_eq!(walks.waiting(), 1);
        tokio::time::advance(MAX_REST).await;
        walks.begin(second(7), &answer(&[1, 2], Some(3)), Instant::now());
        walks.take(&answer(&[3], Some(3)), true, Instant::now());
        assert!(walks.waiting() == 0 && !walks.is_resting(Instant::now()), "it pages again");
    }
}
