//! Single bad answers: refused, limited, failing, cut, stalled, truncated, empty, oversized, unfiltered.
//! A plan never draws from a shared generator: the fault of a request follows from the seed and the index of the
//! request, so a failing run can be repeated from its seed.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::rng::{fraction_of, mix};

/// One bad answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 401, although the credentials are right.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404, as from one of several servers that does not know the path.
    NotFound,
    /// 429 with a Retry-After in seconds.
    RateLimited {
        /// What Retry-After says.
        retry_after: Duration,
    },
    /// 429 with a Retry-After as an HTTP date.
    RateLimitedUntil {
        /// How far ahead of now the date lies.
        retry_after: Duration,
    },
    /// 500.
    ServerError,
    /// 503 without a Retry-After.
    Unavailable,
    /// The connection ends in the middle of the body.
    Cut,
    /// The connection ends without any answer.
    Reset,
    /// Nothing is sent for this long, then the whole answer.
    Stall(Duration),
    /// Half of the JSON with a Content-Length that fits the half.
    Truncated,
    /// 200 with a page of HTML.
    Html,
    /// 200 with no body.
    Empty,
    /// 200 with `null`.
    Null,
    /// A well-formed page without rows and a total of 0, though rows exist.
    EmptyPage,
    /// The date filters are ignored.
    FilterIgnored,
    /// Whatever page is asked for, the first one comes.
    PageIgnored,
    /// The `Date` header is off.
    WrongDate {
        /// By how many seconds it is ahead.
        ahead_s: i64,
    },
    /// A valid page with a body of this many bytes.
    HugePage {
        /// How long the body is at least.
        body_bytes: usize,
    },
    /// The body comes in small pieces.
    SlowBody {
        /// Bytes in each piece.
        piece_bytes: usize,
        /// Pause between the pieces.
        pause: Duration,
    },
}

/// Size of a huge page where the command line names none.
pub const HUGE_PAGE_BYTES: usize = 20 * 1024 * 1024;

/// How far ahead a wrong `Date` is where the command line says nothing: 30 days.
pub const WRONG_DATE_S: i64 = 30 * 86_400;

/// Length of a stall where the command line names none: longer than any sane time-out.
pub const STALL: Duration = Duration::from_secs(120);

/// The names that [`Fault::parse`] knows.
pub const FAULT_NAMES: &[&str] = &[
    "401",
    "403",
    "404",
    "429",
    "429-date",
    "500",
    "503",
    "cut",
    "reset",
    "stall",
    "truncated",
    "html",
    "empty",
    "null",
    "empty-page",
    "filter-ignored",
    "page-ignored",
    "wrong-date",
    "huge",
    "slow",
];

impl Fault {
    /// The fault of a name in [`FAULT_NAMES`], with default sizes and times.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let retry_after = Duration::from_secs(5);
        Some(match name {
            "401" => Self::Unauthorized,
            "403" => Self::Forbidden,
            "404" => Self::NotFound,
            "429" => Self::RateLimited { retry_after },
            "429-date" => Self::RateLimitedUntil { retry_after },
            "500" => Self::ServerError,
            "503" => Self::Unavailable,
            "cut" => Self::Cut,
            "reset" => Self::Reset,
            "stall" => Self::Stall(STALL),
            "truncated" => Self::Truncated,
            "html" => Self::Html,
            "empty" => Self::Empty,
            "null" => Self::Null,
            "empty-page" => Self::EmptyPage,
            "filter-ignored" => Self::FilterIgnored,
            "page-ignored" => Self::PageIgnored,
            "wrong-date" => Self::WrongDate { ahead_s: WRONG_DATE_S },
            "huge" => Self::HugePage { body_bytes: HUGE_PAGE_BYTES },
            "slow" => Self::SlowBody { piece_bytes: 256, pause: Duration::from_millis(50) },
            _ => return None,
        })
    }

    /// Reads `KIND:P`: a name and the share of requests that it hits (1 when left out).
    ///
    /// # Errors
    /// When the name is unknown or the share is no number from 0 to 1.
    pub fn parse(text: &str) -> Result<FaultChance, FaultParseError> {
        let (name, share) = text.split_once(':').unwrap_or((text, "1"));
        let fault = Self::named(name).ok_or_else(|| FaultParseError::UnknownKind(name.to_owned()))?;
        let probability: f64 = share.parse().map_err(|_| FaultParseError::BadShare(share.to_owned()))?;
        if !(0.0..=1.0).contains(&probability) {
            return Err(FaultParseError::BadShare(share.to_owned()));
        }
        Ok(FaultChance { fault, probability })
    }
}

/// A fault and the share of requests that it hits.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultChance {
    /// What goes wrong.
    pub fault: Fault,
    /// From 0 to 1.
    pub probability: f64,
}

/// Why a text is no `KIND:P`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultParseError {
    /// No fault has this name.
    UnknownKind(String),
    /// This is no number from 0 to 1.
    BadShare(String),
}

impl fmt::Display for FaultParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind(name) => {
                write!(f, "unknown fault `{name}`; known are {}", FAULT_NAMES.join(", "))
            }
            Self::BadShare(share) => write!(f, "`{share}` is no share of requests from 0 to 1"),
        }
    }
}

impl std::error::Error for FaultParseError {}

/// Which request gets which fault.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultPlan {
    seed: u64,
    chances: Vec<FaultChance>,
    script: HashMap<u64, Fault>,
}

impl FaultPlan {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Each request gets at most one of these, drawn from the seed and the request's index. Shares beyond a sum of 1
    /// never come.
    #[must_use]
    pub fn seeded(seed: u64, chances: Vec<FaultChance>) -> Self {
        Self { seed, chances, script: HashMap::new() }
    }

    /// The requests with these indexes (from 0, in order of arrival) get these faults, all others none.
    #[must_use]
    pub fn scripted(script: Vec<(u64, Fault)>) -> Self {
        Self { seed: 0, chances: Vec::new(), script: script.into_iter().collect() }
    }

    /// The fault of the request with this index.
    #[must_use]
    pub fn at(&self, request_index: u64) -> Option<&Fault> {
        if let Some(fault) = self.script.get(&request_index) {
            return Some(fault);
        }
        let mut draw = fraction_of(mix(self.seed, request_index));
        for chance in &self.chances {
            if draw < chance.probability {
                return Some(&chance.fault);
            }
            draw -= chance.probability;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_fault_of_its_own() {
        let faults: Vec<Fault> = FAULT_NAMES.iter().map(|name| Fault::named(name).unwrap()).collect();
        for (place, fault) in faults.iter().enumerate() {
            assert!(!faults[..place].contains(fault), "{fault:?} twice");
        }
    }

    #[test]
    fn parses_kind_and_share() {
        let retry_after = Duration::from_secs(5);
        let expected = FaultChance { fault: Fault::RateLimited { retry_after }, probability: 0.1 };
        assert_eq!(Fault::parse("429:0.1"), Ok(expected));
        assert_eq!(Fault::parse("html").map(|chance| chance.probability), Ok(1.0));
        for bad in ["429:1.1", "429:-0.1", "429:", "429:x", "429:NaN"] {
            assert!(matches!(Fault::parse(bad), Err(FaultParseError::BadShare(_))), "{bad}");
        }
        assert_eq!(Fault::parse("430:1"), Err(FaultParseError::UnknownKind("430".to_owned())));
    }

    #[test]
    fn seeded_plans_hit_their_share_and_repeat() {
        let plan = FaultPlan::seeded(9, vec![Fault::parse("429:0.1").unwrap(), Fault::parse("500:0.2").unwrap()]);
        let count = |fault: &Fault| (0..10_000).filter(|index| plan.at(*index) == Some(fault)).count();
        let limited = count(&Fault::RateLimited { retry_after: Duration::from_secs(5) });
        assert!((850..1_150).contains(&limited), "{limited}");
        let failed = count(&Fault::ServerError);
        assert!((1_800..2_200).contains(&failed), "{failed}");
        let again = plan.clone();
        assert!((0..1_000).all(|index| plan.at(index) == again.at(index)));
    }

    #[test]
    fn scripted_plans_hit_exactly_their_requests() {
        let plan = FaultPlan::scripted(vec![(2, Fault::Html), (5, Fault::Null)]);
        let hit: Vec<u64> = (0..10).filter(|index| plan.at(*index).is_some()).collect();
        assert_eq!(hit, [2, 5]);
        assert_eq!(plan.at(5), Some(&Fault::Null));
    }
}
