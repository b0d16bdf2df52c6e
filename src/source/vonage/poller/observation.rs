//! What one answer of the API says, beside what the store and further look-ups know about it. It decides nothing.

use crate::source::vonage::bounds::BoundSecond;
use crate::source::vonage::client::PageInfo;
use crate::source::vonage::event::Row;
use crate::source::vonage::state::ClockMark;

/// What came back, with what the store knows about it.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Rows without repetitions, in the order of the answer.
    pub rows: Vec<Row>,
    /// For each row, whether the store lacks it.
    pub new: Vec<bool>,
    /// Rows of the answer, repetitions included.
    pub shown: u64,
    /// What the API said about its pages.
    pub page: PageInfo,
    /// Server time when the request was made (`Date` less the time it took), as far as it may move a frontier.
    pub asked_s: i64,
    /// Server time of the answer.
    pub answered_s: i64,
    /// The `Date` with our own clock, if it is believed.
    pub believed: Option<ClockMark>,
    /// Rows stored in the countable seconds before this answer.
    pub stored: u64,
    /// The seconds that the window is bounded by, from and to, where the answer shows rows.
    pub bounds: [Option<BoundSecond>; 2],
    /// What `judge` wanted to know besides, in the order asked.
    pub probes: Vec<Probe>,
    /// Whether the newest event is still known, where an answer lacked rows.
    pub anchor: Option<AnchorLookup>,
}

impl Observation {
    /// Rows that the store had, or that the answer itself repeats.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        self.shown.saturating_sub(self.new.iter().filter(|is_new| **is_new).count() as u64)
    }
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
    /// It is there, and yet the list shows nothing at all.
    Unlisted,
    /// No answer.
    Failed,
}
