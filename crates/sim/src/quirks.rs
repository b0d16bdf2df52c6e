//! What the real API leaves open, as knobs: order, bounds, zone, lateness, caps, totals, shifting and broken rows.
//! A quirk is lasting behaviour of a server that is otherwise well; a single bad answer is a fault (`faults`). The
//! default is the friendliest server that the description allows.

use std::time::Duration;

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};

use crate::event::Stamp;
use crate::rng::{fraction_of, mix};

/// Lasting behaviour of the stand-in.
#[derive(Debug, Clone, PartialEq)]
pub struct Quirks {
    /// How rows are ordered before they are cut into pages.
    pub order: SortOrder,
    /// The order inside equal stamps differs from request to request.
    pub unstable_ties: bool,
    /// Whether `date_from` itself belongs to the range.
    pub from: Bound,
    /// Whether `date_to` itself belongs to the range.
    pub to: Bound,
    /// How finely stamps are compared with the bounds, and when two stamps are equal.
    pub resolution: Resolution,
    /// The zone in which naive stamps are written and naive bounds are read.
    pub zone: FixedOffset,
    /// One style for all stamps, in place of each event's own.
    pub stamp: Option<Stamp>,
    /// The server keeps milliseconds that whole-second stamps do not show, and compares with them.
    pub hidden_fraction: bool,
    /// Lateness in place of each event's own.
    pub lateness: Option<Lateness>,
    /// Pages are never longer than this, whatever `size` asks for.
    pub page_cap: Option<u32>,
    /// What `totalElements` says.
    pub totals: Totals,
    /// Every page after the first is answered as if this much later: late rows appear while somebody is paging.
    pub shift: Duration,
    /// One row is dated this far after it became visible.
    pub future_row: Option<Duration>,
    /// This share of the pages shows one of its rows twice.
    pub repeated_rows: f64,
    /// One row is always broken in this way.
    pub malformed: Option<Malformed>,
    /// One row is listed twice, and both count.
    pub twin: bool,
    /// The first row of all is shown, and counts, in every answer to a range that it does not lie in.
    pub stray: bool,
    /// Every row is longer by this many bytes.
    pub padding_bytes: usize,
    /// One row is longer by this many bytes.
    pub giant_bytes: Option<usize>,
    /// What is answered to a page after the last one.
    pub beyond: Nothing,
    /// What is answered where no row lies in the range.
    pub nothing: Nothing,
    /// A `date_to` that lies further ahead than this is refused (400).
    pub horizon: Option<Duration>,
    /// Every range with both bounds that this lies in fails (500).
    pub broken_at: Option<DateTime<Utc>>,
    /// Pages that reach further than this many rows are refused (400).
    pub depth: Option<u64>,
    /// What `OPTIONS /events` answers.
    pub options: OptionsAnswer,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            order: SortOrder::Ascending,
            unstable_ties: false,
            from: Bound::Inclusive,
            to: Bound::Inclusive,
            resolution: Resolution::Full,
            zone: FixedOffset::east_opt(0).expect("zero is a valid offset"),
            stamp: None,
            hidden_fraction: false,
            lateness: None,
            page_cap: None,
            totals: Totals::Exact,
            shift: Duration::ZERO,
            future_row: None,
            repeated_rows: 0.0,
            malformed: None,
            twin: false,
            stray: false,
            padding_bytes: 0,
            giant_bytes: None,
            beyond: Nothing::EmptyPage,
            nothing: Nothing::EmptyPage,
            horizon: None,
            broken_at: None,
            depth: None,
            options: OptionsAnswer::Types,
        }
    }
}

/// How rows are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SortOrder {
    /// Oldest first; ties in order of arrival.
    Ascending,
    /// Newest first; ties in reverse order of arrival.
    Descending,
    /// No order that a client could use, but the same in every request.
    Scrambled,
    /// Newest first; ties by id.
    NewestFirstById,
}

/// Whether a bound itself belongs to the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// It does.
    Inclusive,
    /// It does not.
    Exclusive,
}

/// How finely time is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// To the microsecond.
    Full,
    /// Stamps and bounds are cut to the second before they are compared.
    Second,
}

/// What `totalElements` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Totals {
    /// The truth.
    Exact,
    /// Too low by this much, never below 0.
    Low(u64),
    /// Too high by this much.
    High(u64),
    /// Never above this.
    Capped(u64),
    /// Lower by this much with every request that is made, never below 0.
    Shrinking(u64),
}

impl Totals {
    /// What is said of the true total in the request with this index.
    #[must_use]
    pub fn claim(self, truth: u64, request_index: u64) -> u64 {
        match self {
            Self::Exact => truth,
            Self::Low(by) => truth.saturating_sub(by),
            Self::High(by) => truth.saturating_add(by),
            Self::Capped(at) => truth.min(at),
            Self::Shrinking(by) => truth.saturating_sub(by.saturating_mul(request_index)),
        }
    }
}

/// How a row is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// No `created_at`.
    NoStamp,
    /// `created_at` is `yesterday`.
    BadStamp,
    /// `id` is a number.
    NumericId,
    /// The row is a string, not an object.
    Text,
}

/// How a list says that it has nothing to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nothing {
    /// 200 and a page without rows.
    EmptyPage,
    /// 400.
    BadRequest,
    /// 404.
    NotFound,
    /// 500.
    ServerError,
}

/// What `OPTIONS /events` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OptionsAnswer {
    /// 200 with the types.
    Types,
    /// 204 without a body.
    NoContent,
}

/// How long after `created_at` events become visible.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lateness {
    /// Most events are shown within this.
    pub usual: Duration,
    /// This share of the events is later than that.
    pub late_share: f64,
    /// No event is later than this.
    pub late_max: Duration,
}

impl Default for Lateness {
    /// Within 5 s; 2 % up to 20 minutes.
    fn default() -> Self {
        Self { usual: Duration::from_secs(5), late_share: 0.02, late_max: Duration::from_secs(1_200) }
    }
}

impl Lateness {
    /// Nothing is late.
    #[must_use]
    pub fn none() -> Self {
        Self { usual: Duration::ZERO, late_share: 0.0, late_max: Duration::ZERO }
    }

    /// Everything within this.
    #[must_use]
    pub fn within(usual: Duration) -> Self {
        Self { usual, late_share: 0.0, late_max: usual }
    }

    /// The lateness that belongs to these random bits, in whole milliseconds.
    #[must_use]
    pub fn draw(&self, bits: u64) -> TimeDelta {
        let share = fraction_of(mix(bits, 1));
        let lateness = if fraction_of(mix(bits, 2)) < self.late_share {
            self.usual + self.late_max.saturating_sub(self.usual).mul_f64(share)
        } else {
            self.usual.min(self.late_max).mul_f64(share)
        };
        TimeDelta::try_milliseconds(i64::try_from(lateness.as_millis()).unwrap_or(i64::MAX)).unwrap_or(TimeDelta::MAX)
    }
}
