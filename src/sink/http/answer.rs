//! From an HTTP answer to an outcome, by the classes of the delivery policy.
//!
//! Of the body it reads how long a refusal asks to wait, words of a refusal and whether it is markup, where a sink asks for
//! that: one whose destination answers 200 and means no (Slack) reads the body itself. A redirect is `Misconfigured`: the URL in the configuration is not the destination, the operator can
//! mend it, and nothing is lost meanwhile.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use super::hint;
use crate::sink::Outcome;

/// What came back.
#[derive(Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// What was read of the body, at most [`super::MAX_ANSWER_BYTES`].
    pub body: Vec<u8>,
    /// Whether that is all of it.
    pub complete: bool,
    /// When the headers were there, by our clock.
    pub received_at: DateTime<Utc>,
}

impl Answer {
    /// The outcome by status, and by what a refusal for being too fast says about its pause.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.status.as_u16() {
            202 => Outcome::Accepted,
            200..=299 => Outcome::Delivered,
            300..=399 | 401 | 403 | 404 => Outcome::Misconfigured,
            408 | 425 => Outcome::Retry,
            429 => Outcome::Wait(self.pause()),
            400 | 413 | 422 => Outcome::Degrade,
            500..=599 => match hint::asked(&self.headers, self.received_at) {
                Some(pause) => Outcome::Wait(Some(pause)),
                None => Outcome::Retry,
            },
            _ => Outcome::Dead,
        }
    }

    /// The outcome where the URL is all that the operator gave: that there is no such method or nothing any more (405, 410)
    /// is then for the operator, and so is a refusal that holds one of these words, which are in lower case.
    #[must_use]
    pub fn outcome_unless(&self, words_misconfigured: &[&str]) -> Outcome {
        let said = || String::from_utf8_lossy(&self.body).to_lowercase();
        match self.status.as_u16() {
            405 | 410 => Outcome::Misconfigured,
            400..=499 | 501 if words_misconfigured.iter().any(|word| said().contains(word)) => Outcome::Misconfigured,
            _ => self.outcome(),
        }
    }

    /// That outcome, where the operator of the destination may choose the words of an assent: markup with a friendly status is
    /// the page of somebody between (a log-in, a gateway).
    #[must_use]
    pub fn unless_page(&self, outcome: Outcome) -> Outcome {
        let assents = matches!(outcome, Outcome::Delivered | Outcome::Accepted);
        if assents && self.body.trim_ascii().starts_with(b"<") { Outcome::Retry } else { outcome }
    }

    /// How long it asks to stay away, as a refusal.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        hint::pause(&self.headers, &self.body, self.received_at)
    }

    /// How long nothing more is taken, whatever became of this attempt: a limit is used up.
    #[must_use]
    pub fn spent(&self) -> Option<Duration> {
        hint::spent(&self.headers, self.received_at)
    }
}
