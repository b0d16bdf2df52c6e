//! What a fault does to an answer: some refuse before the request is looked at, the others spoil the finished response.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use super::{SimResponse, Transport, error, http_date};
use crate::faults::Fault;

/// The refusal that a fault gives, if it is of that kind.
pub(super) fn refuse(fault: &Fault, now: DateTime<Utc>) -> Option<SimResponse> {
    let mut response = match fault {
        Fault::Unauthorized => error(401, "Invalid credentials.", now),
        Fault::NotFound => error(404, "There is no such path.", now),
        Fault::Forbidden => error(403, "This account may not use the Audit API.", now),
        Fault::RateLimited { .. } | Fault::RateLimitedUntil { .. } => error(429, "Too many requests.", now),
        Fault::ServerError => error(500, "Something went wrong.", now),
        Fault::Unavailable => error(503, "Try again later.", now),
        _ => return None,
    };
    let retry_after = match fault {
        Fault::RateLimited { retry_after } => Some(retry_after.as_secs().to_string()),
        Fault::RateLimitedUntil { retry_after } => {
            Some(http_date(now + TimeDelta::from_std(*retry_after).unwrap_or_default()))
        }
        _ => None,
    };
    response.headers.extend(retry_after.map(|value| ("Retry-After".to_owned(), value)));
    Some(response)
}

/// Spoils a finished response.
pub(super) fn spoil(mut response: SimResponse, fault: &Fault, now: DateTime<Utc>) -> SimResponse {
    match fault {
        Fault::Cut => response.transport = Transport::CutAfter(response.body.len() / 2),
        Fault::Reset => response.transport = Transport::NoAnswer,
        Fault::Stall(pause) => response.transport = Transport::StallFor(*pause),
        Fault::SlowBody { piece_bytes, pause } => {
            response.transport = Transport::SlowBytes { piece_bytes: *piece_bytes, pause: *pause };
        }
        Fault::Truncated => response.body = response.body.slice(..response.body.len() / 2),
        Fault::Html => {
            response.body = Bytes::from_static(
                b"<!DOCTYPE html><html><head><title>Maintenance</title></head><body>Back soon.</body></html>",
            );
            for (name, value) in &mut response.headers {
                if name == "Content-Type" {
                    "text/html".clone_into(value);
                }
            }
            response.status = 200;
        }
        Fault::Empty => {
            response.body = Bytes::new();
            response.status = 200;
        }
        Fault::Null => {
            response.body = Bytes::from_static(b"null");
            response.status = 200;
        }
        Fault::HugePage { body_bytes } => response.body = padded(&response.body, *body_bytes),
        Fault::WrongDate { ahead_s } => {
            let date = now + TimeDelta::try_seconds(*ahead_s).unwrap_or_default();
            response.headers.retain(|(name, _)| name != "Date");
            response.headers.push(("Date".to_owned(), http_date(date)));
        }
        Fault::Unauthorized
        | Fault::Forbidden
        | Fault::NotFound
        | Fault::RateLimited { .. }
        | Fault::RateLimitedUntil { .. }
        | Fault::ServerError
        | Fault::Unavailable
        | Fault::EmptyPage
        | Fault::FilterIgnored
        | Fault::PageIgnored => {}
    }
    response
}

/// The same JSON object with one more member, long enough to make the body this many bytes.
fn padded(body: &Bytes, body_bytes: usize) -> Bytes {
    let Some(open) = body.strip_suffix(b"}") else { return body.clone() };
    let mut long = Vec::with_capacity(body_bytes.max(body.len()) + 16);
    long.extend_from_slice(open);
    long.extend_from_slice(b",\"padding\":\"");
    long.resize(body_bytes.saturating_sub(2).max(long.len()), b'x');
    long.extend_from_slice(b"\"}");
    Bytes::from(long)
}
