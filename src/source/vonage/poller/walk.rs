//! One second with more rows than a page holds: its pages are read again and again until what was seen is all there is.
//!
//! Rows of equal stamps may come in another order with each request, so a pass over the pages proves nothing by
//! itself. What does: the ids seen over all passes are as many as the total says, or nothing comes after that many
//! rows.

use std::collections::HashSet;

use crate::source::vonage::poller::{Ask, Observation, PAD_S, Request};
use crate::source::vonage::window::Window;

/// A total that cannot be trusted is replaced by asking for the row after the last: twice, since an answer may be
/// empty by fault.
const EMPTY_PROBES: u32 = 2;
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
    /// Between two passes: empty answers so far to what comes after the last known row.
    probing: Option<u32>,
    ids: HashSet<u128>,
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
}

impl Walk {
    /// Begins with pages of `size`, which the server is known to give.
    #[must_use]
    pub fn new(window: Window, size: u64) -> Self {
        let size = u32::try_from(size).unwrap_or(1).max(1);
        Self { window, size, page_size: size, page: 1, probing: None, ids: HashSet::new() }
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
        if full && self.page < MAX_PAGES {
            self.page += 1;
            return WalkEnd::Open;
        }
        if totals_trusted && total == Some(self.ids.len() as u64) {
            return WalkEnd::Complete { totals_lie: false };
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
            return WalkEnd::Open;
        }
        if empty + 1 >= EMPTY_PROBES && self.ids.len() < MAX_IDS {
            return WalkEnd::Complete { totals_lie };
        }
        self.probing = Some(empty + 1);
        WalkEnd::Open
    }

    /// Other page borders in every pass: a server that cuts its pages wrongly hides other rows each time.
    fn next_pass(&mut self) {
        self.page = 1;
        self.page_size = if self.page_size > self.size.div_ceil(2) { self.page_size - 1 } else { self.size };
    }
}

/// 128 bits of a digest in place of the id: a bound on memory that a long id cannot move.
fn key(id: &str) -> u128 {
    let digest = blake3::hash(id.as_bytes());
    digest.as_bytes().iter().take(16).fold(0, |number, byte| (number << 8) | u128::from(*byte))
}
