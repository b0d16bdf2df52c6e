//! One list request: what it is for, its window in whole seconds, its page, and which rows have a place in its answer.
//!
//! It never decides what to ask for; that is the poller's.

use chrono::{DateTime, Utc};

use crate::source::vonage::client::{BoundForm, ListQuery, MAX_PAGE_SIZE};
use crate::source::vonage::event::Row;
use crate::source::vonage::poller::FAR_S;
use crate::source::vonage::poller::judge::DAYLIGHT_SAVING_S;
use crate::source::vonage::window::Window;

/// Every window is asked for with this much before its first second; see `calibration`.
pub(super) const PAD_S: i64 = 1;
/// Stamps in whole seconds and a padded bound may miss each other by this much.
const OUTSIDE_SLACK_S: i64 = 2;

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
    pub(super) fn new(ask: Ask, from_s: Option<i64>, to_s: Option<i64>) -> Self {
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
    /// shown, or asked for.
    #[must_use]
    pub fn after(&self, rows: u64, shown: u64) -> Option<Self> {
        let most = shown.min(u64::from(self.size));
        let size = (1..=most).rev().find(|size| rows.is_multiple_of(*size)).unwrap_or(1);
        let page = u32::try_from(rows / size + 1).ok()?;
        Some(self.at_page(page, u32::try_from(size).ok()?))
    }

    /// The seconds in which every row is within the window whatever kind its bounds are of.
    #[must_use]
    pub fn countable(&self) -> (i64, i64) {
        (self.from_s.map_or(i64::MIN, |from_s| from_s + PAD_S), self.to_s.unwrap_or(FAR_S))
    }

    /// Whether a row has no place in an answer to it. `slack_s` is how much further than whole seconds a stamp may miss
    /// the bounds.
    #[must_use]
    pub fn is_outside(&self, row: &Row, slack_s: i64) -> bool {
        row.counted && self.is_beyond(row.at.timestamp(), slack_s)
    }

    /// The same strictly; a stamp without a zone may also lie an hour off, to the second, where clocks were put forward or
    /// back.
    #[must_use]
    pub fn is_elsewhere(&self, row: &Row) -> bool {
        let shifts_s: &[i64] = if row.naive.is_some() { &[0, DAYLIGHT_SAVING_S, -DAYLIGHT_SAVING_S] } else { &[0] };
        row.counted && shifts_s.iter().all(|shift_s| self.is_beyond(row.at.timestamp() + shift_s, 0))
    }

    fn is_beyond(&self, at_s: i64, slack_s: i64) -> bool {
        let slack_s = slack_s + OUTSIDE_SLACK_S;
        self.from_s.is_some_and(|from_s| at_s < from_s - slack_s) || self.to_s.is_some_and(|to_s| at_s > to_s + slack_s)
    }

    /// An owed window.
    pub(super) fn drain(window: Window, size: u32) -> Self {
        let to_s = (window.to_s < FAR_S).then_some(window.to_s);
        Self { size, ..Self::new(Ask::Drain(window), Some(window.from_s - PAD_S), to_s) }
    }

    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let stamp = |second_s| {
            let moment: DateTime<Utc> = DateTime::from_timestamp(second_s, 0).unwrap_or_default();
            moment.format("%Y-%m-%dT%H:%M:%SZ").to_string()
        };
        let from = self.from_s.map(|from_s| format!(" from {}", stamp(from_s))).unwrap_or_default();
        let to = self.to_s.map(|to_s| format!(" to {}", stamp(to_s))).unwrap_or_default();
        format!("what happened{from}{to}")
    }

    /// Whether its answer is judged as a whole window.
    #[must_use]
    pub fn is_window(&self) -> bool {
        matches!(self.ask, Ask::Root(_) | Ask::Drain(_))
    }
}
