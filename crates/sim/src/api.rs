//! The stand-in itself: one request in, one response out, at a time that the caller gives.
//! It never reads a clock, opens a socket or sleeps, so a simulation can call it in process. Rows are rendered once and
//! kept in order of their stamps; a request for a narrow range touches only that range.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use crate::event::SimEvent;
use crate::faults::{Fault, FaultPlan};
use crate::quirks::{Nothing, Quirks};
use crate::world::World;

mod damage;
mod list;
mod query;
mod rows;

use rows::Rows;

/// Where the API lies on the server; a client's base URL ends in `/beta/audit`.
pub const EVENTS_PATH: &str = "/beta/audit/events";

/// The secret of [`Sim::from_world`], to be used with the world's account as user.
pub const DEFAULT_SECRET: &str = "sim-secret-4f1d";

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimRequest {
    /// `GET`, `OPTIONS`, ...
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The query as it came, without `?`; empty when there is none.
    pub query: String,
    /// The value of the Authorization header.
    pub authorization: Option<String>,
}

impl SimRequest {
    /// A `GET` of a path and query.
    #[must_use]
    pub fn get(path: &str, query: &str, authorization: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            authorization: Some(authorization.to_owned()),
        }
    }
}

/// One response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimResponse {
    /// The HTTP status.
    pub status: u16,
    /// Headers without Content-Length, which the transport adds.
    pub headers: Vec<(String, String)>,
    /// The whole body, also where the transport will cut it.
    pub body: Bytes,
    /// What happens to it on the wire.
    pub transport: Transport,
}

impl SimResponse {
    /// The value of a header, by its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What happens to a response on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// It arrives.
    Whole,
    /// The connection ends after this many bytes of the body; Content-Length promised more.
    CutAfter(usize),
    /// The connection ends without an answer.
    NoAnswer,
    /// Nothing is sent for this long, then all of it.
    StallFor(Duration),
    /// The body comes in pieces.
    SlowBytes {
        /// Bytes in each piece.
        piece_bytes: usize,
        /// Pause between the pieces.
        pause: Duration,
    },
}

/// The stand-in API for one account.
#[derive(Debug)]
pub struct Sim {
    authorization: String,
    rows: Rows,
    quirks: Quirks,
    faults: FaultPlan,
    forced: Option<Fault>,
    requests: u64,
}

impl Sim {
    /// A server with one account and these events.
    #[must_use]
    pub fn new(api_key: &str, api_secret: &str, events: Vec<SimEvent>, quirks: Quirks, faults: FaultPlan) -> Self {
        let rows = Rows::new(events, &quirks);
        let authorization = Self::basic_authorization(api_key, api_secret);
        Self { authorization, rows, quirks, faults, forced: None, requests: 0 }
    }

    /// A friendly server that shows a world; user is the world's account, password [`DEFAULT_SECRET`].
    #[must_use]
    pub fn from_world(world: &World) -> Self {
        let events = world.events().to_vec();
        Self::new(world.account_id(), DEFAULT_SECRET, events, Quirks::default(), FaultPlan::none())
    }

    /// The Authorization header of a user and password.
    #[must_use]
    pub fn basic_authorization(user: &str, password: &str) -> String {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
    }

    /// Replaces the quirks; rows are rendered anew.
    #[must_use]
    pub fn with_quirks(mut self, quirks: Quirks) -> Self {
        self.set_quirks(quirks);
        self
    }

    /// Replaces the fault plan.
    #[must_use]
    pub fn with_faults(mut self, faults: FaultPlan) -> Self {
        self.faults = faults;
        self
    }

    /// Replaces the quirks while it runs; rows are rendered anew.
    pub fn set_quirks(&mut self, quirks: Quirks) {
        self.rows.rebuild(&quirks);
        self.quirks = quirks;
    }

    /// The quirks in force.
    #[must_use]
    pub fn quirks(&self) -> &Quirks {
        &self.quirks
    }

    /// Every request from now on gets this fault; `None` gives way to the plan again.
    pub fn set_fault(&mut self, fault: Option<Fault>) {
        self.forced = fault;
    }

    /// Replaces the fault plan while it runs. Its indexes go on counting from the first request ever.
    pub fn set_fault_plan(&mut self, faults: FaultPlan) {
        self.faults = faults;
    }

    /// Adds an event while it runs.
    pub fn push(&mut self, event: SimEvent) {
        self.rows.push(event, &self.quirks);
    }

    /// How many requests were made.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// The ids of all events that are visible now, in order of their stamps.
    #[must_use]
    pub fn visible_ids(&self, now: DateTime<Utc>) -> Vec<String> {
        self.rows.visible_ids(now)
    }

    /// The ids of all events, visible or not, in order of arrival.
    #[must_use]
    pub fn all_ids(&self) -> Vec<String> {
        self.rows.events().map(|event| event.id.clone()).collect()
    }

    /// All events with the time and lateness that the quirks give them, in order of arrival.
    pub fn events(&self) -> impl Iterator<Item = &SimEvent> {
        self.rows.events()
    }

    /// The id of the row that the quirk `malformed` breaks.
    #[must_use]
    pub fn malformed_id(&self) -> Option<&str> {
        self.rows.malformed_id()
    }

    /// The id of the row that the quirk `giant_bytes` makes long.
    #[must_use]
    pub fn giant_id(&self) -> Option<&str> {
        self.rows.giant_id()
    }

    /// The id of the row that the quirk `future_row` dates ahead.
    #[must_use]
    pub fn future_id(&self) -> Option<&str> {
        self.rows.future_id()
    }

    /// Answers one request as of `now`.
    pub fn handle(&mut self, request: &SimRequest, now: DateTime<Utc>) -> SimResponse {
        let index = self.requests;
        self.requests += 1;
        let fault = self.forced.as_ref().or_else(|| self.faults.at(index)).cloned();
        if let Some(refusal) = fault.as_ref().and_then(|fault| damage::refuse(fault, now)) {
            return refusal;
        }
        let response = self.answer(request, now, index, fault.as_ref());
        match fault {
            Some(fault) => damage::spoil(response, &fault, now),
            None => response,
        }
    }

    fn answer(&mut self, request: &SimRequest, now: DateTime<Utc>, index: u64, fault: Option<&Fault>) -> SimResponse {
        if request.authorization.as_deref() != Some(self.authorization.as_str()) {
            let text = "Full authentication is required. JWT was not found in \"Authorization\" HTTP header.";
            return error(401, text, now);
        }
        let Some(rest) = request.path.strip_prefix(EVENTS_PATH) else {
            return error(404, &format!("No resource at {}", request.path), now);
        };
        match (request.method.as_str(), rest.strip_prefix('/')) {
            ("GET", None) if rest.is_empty() => self.list(&request.query, now, index, fault),
            ("GET", Some(id)) => match self.rows.json_of(id, now) {
                Some(json) => json_response(200, Bytes::copy_from_slice(json.as_bytes()), now),
                None => error(404, &format!("Event with provided id: {id} was not found"), now),
            },
            ("OPTIONS", None) if rest.is_empty() => list::options(self.quirks.options, now),
            (_, Some(_)) => error(405, "This resource knows GET.", now),
            (_, None) if rest.is_empty() => error(405, "This resource knows GET and OPTIONS.", now),
            _ => error(404, &format!("No resource at {}", request.path), now),
        }
    }

    fn list(&mut self, query: &str, now: DateTime<Utc>, index: u64, fault: Option<&Fault>) -> SimResponse {
        let mut filter = match query::Filter::parse(query, self.quirks.zone) {
            Ok(filter) => filter,
            Err(text) => return error(400, &text, now),
        };
        if fault == Some(&Fault::FilterIgnored) {
            filter.from = None;
            filter.to = None;
        }
        if fault == Some(&Fault::PageIgnored) {
            filter.page = 1;
        }
        if fault == Some(&Fault::EmptyPage) {
            return json_response(200, list::render(&[], &filter, 0), now);
        }
        if let Some(refusal) = self.refuse_range(&filter, now) {
            return refusal;
        }
        if let Some(cap) = self.quirks.page_cap {
            filter.size = filter.size.min(cap.max(1));
        }
        let reaches = filter.page * u64::from(filter.size);
        if filter.page > 1 && self.quirks.depth.is_some_and(|depth| reaches > depth) {
            return error(400, "The page lies too deep.", now);
        }
        let found = self.rows.select(&filter, &self.quirks, now, index);
        let nothing = match (found.total, found.page.is_empty() && filter.page > 1) {
            (0, _) => self.quirks.nothing,
            (_, true) => self.quirks.beyond,
            (_, false) => Nothing::EmptyPage,
        };
        match nothing {
            Nothing::EmptyPage => {}
            Nothing::BadRequest => return error(400, "There is nothing.", now),
            Nothing::NotFound => return error(404, "There is nothing.", now),
            Nothing::ServerError => return error(500, "Something went wrong.", now),
        }
        let total = self.quirks.totals.claim(found.total, index);
        json_response(200, list::render(&found.page, &filter, total), now)
    }

    fn refuse_range(&self, filter: &query::Filter, now: DateTime<Utc>) -> Option<SimResponse> {
        let to = filter.to?;
        let horizon = self.quirks.horizon.and_then(|ahead| now.checked_add_signed(TimeDelta::from_std(ahead).ok()?));
        if horizon.is_some_and(|horizon| to > horizon) {
            return Some(error(400, "date_to lies too far ahead.", now));
        }
        let is_broken = self.quirks.broken_at.is_some_and(|at| filter.from.is_some_and(|from| from <= at && at <= to));
        is_broken.then(|| error(500, "Something went wrong.", now))
    }
}

/// The HTTP form of an instant, as in the Date header.
#[must_use]
pub fn http_date(at: DateTime<Utc>) -> String {
    at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn json_response(status: u16, body: Bytes, now: DateTime<Utc>) -> SimResponse {
    let headers = vec![
        ("Date".to_owned(), http_date(now)),
        ("Content-Type".to_owned(), "application/json;charset=UTF-8".to_owned()),
    ];
    SimResponse { status, headers, body, transport: Transport::Whole }
}

/// An error in the API's own form.
fn error(status: u16, text: &str, now: DateTime<Utc>) -> SimResponse {
    let body = serde_json::json!({"status": status, "error": reason(status), "message": text});
    json_response(status, Bytes::from(body.to_string()), now)
}

/// The reason phrase of the statuses that the stand-in uses.
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests;
