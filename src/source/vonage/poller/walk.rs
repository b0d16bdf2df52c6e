//! One second with more rows than a page holds: its pages are read again and again until what was seen is all there is.
//!
//! Rows of equal stamps may come in another order with each request, so a single pass proves nothing: the set of ids over
//! all passes must reach the total, or, where totals cannot be trusted, many passes in a row must show nothing new.

use std::collections::HashSet;

use crate::source::vonage::poller::{Ask, Observation, PAD_S, Request};
use crate::source::vonage::window::Window;

/// Passes without a new row after which a total is believed to be wrong. A row that random order hides from a pass with
/// probability 0.4 stays hidden through this many with 2 in 100,000.
const QUIET_PASSES_AGAINST_TOTAL: u32 = 12;
/// The same where the total (which cannot be trusted) says no more than what was seen: 7 in 10,000.
const QUIET_PASSES: u32 = 8;
/// Pages after which a pass ends, whatever comes: a server that never ends its pages must not hold the poller.
const MAX_PAGES: u32 = 2_000;
/// Ids that are kept; a second with more is walked without an end in sight, which `windows_owed` shows.
const MAX_IDS: usize = 200_000;

/// A walk under way.
#[derive(Debug, Clone)]
pub struct Walk {
    /// The owed second.
    pub window: Window,
    size: u32,
    page_size: u32,
    page: u32,
    new_in_pass: bool,
    quiet_passes: u32,
    ids: HashSet<u128>,
    largest_total: u64,
}

/// What a page of a walk led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkEnd {
    /// Go on.
    Open,
    /// Everything was seen.
    Complete {
        /// A total was above or below what can be shown.
        totals_lie: bool,
    },
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
            new_in_pass: false,
            quiet_passes: 0,
            ids: HashSet::new(),
            largest_total: 0,
        }
    }

    /// The next page.
    #[must_use]
    pub fn request(&self) -> Request {
        let ask = Ask::Walk(self.window);
        Request::new(ask, Some(self.window.from_s - PAD_S), Some(self.window.to_s)).at_page(self.page, self.page_size)
    }

    /// Takes one page.
    pub fn take(&mut self, seen: &Observation, totals_trusted: bool) -> WalkEnd {
        for row in &seen.rows {
            if self.ids.len() < MAX_IDS && self.ids.insert(key(&row.id)) {
                self.new_in_pass = true;
            }
        }
        let total = seen.page.total_elements.unwrap_or(0);
        self.largest_total = self.largest_total.max(total);
        let full = seen.rows.len() as u64 >= u64::from(self.page_size);
        if full && self.page < MAX_PAGES {
            self.page += 1;
            return WalkEnd::Open;
        }
        self.end_pass(total, totals_trusted)
    }

    /// A page below the asked size ends a pass: nothing can lie beyond it.
    fn end_pass(&mut self, total: u64, totals_trusted: bool) -> WalkEnd {
        self.quiet_passes = if self.new_in_pass { 0 } else { self.quiet_passes + 1 };
        let seen = self.ids.len() as u64;
        if totals_trusted && total == seen && self.ids.len() < MAX_IDS {
            return WalkEnd::Complete { totals_lie: false };
        }
        let totals_lie = totals_trusted && total < seen;
        let enough = if self.largest_total > seen { QUIET_PASSES_AGAINST_TOTAL } else { QUIET_PASSES };
        if self.quiet_passes >= enough && self.ids.len() < MAX_IDS {
            return WalkEnd::Complete { totals_lie: totals_lie || self.largest_total > seen };
        }
        self.page = 1;
        self.new_in_pass = false;
        // Other page borders in every pass: a server that cuts its pages wrongly hides other rows each time.
        self.page_size = if self.page_size > self.size.div_ceil(2) { self.page_size - 1 } else { self.size };
        WalkEnd::Open
    }
}

/// 128 bits of a digest in place of the id: a bound on memory that a long id cannot move.
fn key(id: &str) -> u128 {
    let digest = blake3::hash(id.as_bytes());
    digest.as_bytes().iter().take(16).fold(0, |number, byte| (number << 8) | u128::from(*byte))
}
