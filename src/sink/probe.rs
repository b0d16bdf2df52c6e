//! Asking a destination, without a message, whether it would take one from us: for `sink test`, and for nothing else.
//!
//! A question changes nothing over there, goes the sink's own way (guard, time-outs, redaction), and shows no more than it
//! says: that we may not ask is no sign that we may not send. Where nothing can be asked, the sink says why.

use std::io;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::time::timeout;

use super::http::Endpoint;
use super::http::answer::Answer;
use super::write::{MAX_WRITE, outcome_of};
use super::{AttemptReport, Outcome};
use crate::pipeline::BoxFuture;

/// What a sink can ask its destination.
pub enum Probe<'a> {
    /// Nothing, because of this.
    Nothing(&'static str),
    /// These questions, each with what came of it.
    Asks(BoxFuture<'a, Vec<Probed>>),
}

/// One question and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// As the destination knows it, such as `getMe`.
    pub asked: &'static str,
    /// What is known if it holds.
    pub shows: &'static str,
    /// The answer. `Delivered` and `Accepted` hold, `Degrade` and `Dead` show nothing either way.
    pub report: AttemptReport,
}

/// What an answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// What was asked for.
    Holds,
    /// Nothing either way: the destination does not let us ask, or does not know the question.
    Untold,
    /// Nothing yet: it cannot be reached, or asks for a pause.
    NotNow,
    /// A person must mend something.
    Refused,
}

impl Probed {
    /// What it shows.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.report.outcome {
            Outcome::Delivered | Outcome::Accepted | Outcome::Needless => Verdict::Holds,
            Outcome::Degrade | Outcome::Dead => Verdict::Untold,
            Outcome::Retry | Outcome::Wait(_) | Outcome::Later(_) | Outcome::NotYet(_) => Verdict::NotNow,
            Outcome::Misconfigured => Verdict::Refused,
        }
    }
}

/// A question over HTTP.
pub struct Question {
    /// See [`Probed::asked`].
    pub asked: &'static str,
    /// See [`Probed::shows`].
    pub shows: &'static str,
    /// The end of the sink's own path, and what stands there in its place.
    pub place: (&'static str, &'static str),
    /// Joined to the URL's own.
    pub query: Option<&'static str>,
    /// Nothing for a GET, else what is posted.
    pub body: Option<Bytes>,
    /// What an answer shows.
    pub judge: fn(&Answer) -> Outcome,
}

impl Question {
    /// A GET that only one who is logged in is answered.
    #[must_use]
    pub fn get(asked: &'static str, shows: &'static str, place: (&'static str, &'static str)) -> Self {
        Self { asked, shows, place, query: None, body: None, judge: logged_in }
    }

    /// Asks.
    pub async fn ask(self, endpoint: &Endpoint, headers: HeaderMap) -> Probed {
        let (method, body) = match self.body {
            Some(body) => (Method::POST, body),
            None => (Method::GET, Bytes::new()),
        };
        let report = match endpoint.ask(method, self.place, self.query, headers, body).await {
            Ok(answer) => endpoint.report(&answer, (self.judge)(&answer)),
            Err(report) => report,
        };
        Probed { asked: self.asked, shows: self.shows, report }
    }
}

/// Who is not logged in is told so (401). Who is, and may not ask this (403), or asks what is not known there (404, 405), is
/// told nothing; nor by a page where JSON should be.
pub fn logged_in(answer: &Answer) -> Outcome {
    match answer.status.as_u16() {
        200..=299 if is_json(answer) => Outcome::Delivered,
        200..=299 | 400 | 403..=405 => Outcome::Degrade,
        _ => answer.outcome(),
    }
}

/// Whether the body can be the service's own: a page of a proxy is none.
#[must_use]
pub fn is_json(answer: &Answer) -> bool {
    serde_json::from_slice::<Value>(&answer.body).is_ok_and(|said| said.is_object())
}

/// One look at the file system, off the runtime's threads and bounded in time.
pub async fn look(
    asked: &'static str,
    shows: &'static str,
    question: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Probed {
    let (outcome, status, excerpt) = match timeout(MAX_WRITE, tokio::task::spawn_blocking(question)).await {
        Ok(Ok(Ok(()))) => (Outcome::Delivered, "found".to_owned(), String::new()),
        Ok(Ok(Err(error))) => (outcome_of(error.kind()), error.kind().to_string(), error.to_string()),
        Ok(Err(error)) => (Outcome::Retry, "not looked at".to_owned(), error.to_string()),
        Err(elapsed) => (Outcome::Retry, "timed out".to_owned(), elapsed.to_string()),
    };
    Probed { asked, shows, report: AttemptReport { outcome, status, excerpt, spent: None, receipt: None } }
}

#[cfg(test)]
mod tests;
