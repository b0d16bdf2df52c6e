//! The bodies of `GET /events` and `OPTIONS /events`.
//! Links are as the real ones are documented: `http://` and without the filters, so a client that follows them goes
//! wrong.

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::query::Filter;
use super::{SimResponse, json_response};
use crate::event::{EVENT_TYPES, push_format};
use crate::quirks::OptionsAnswer;

/// The body of one page.
pub(super) fn render(page: &[&str], filter: &Filter, total: u64) -> Bytes {
    let rows_bytes: usize = page.iter().map(|row| row.len() + 1).sum();
    // The frame around the rows takes about 450 bytes.
    let mut body = String::with_capacity(rows_bytes + 512);
    body.push_str("{\"_embedded\":{\"events\":[");
    for (place, row) in page.iter().enumerate() {
        if place > 0 {
            body.push(',');
        }
        body.push_str(row);
    }
    body.push_str("]},\"_links\":{\"self\":");
    let size = u64::from(filter.size);
    let pages = total.div_ceil(size);
    push_link(&mut body, filter.page, size);
    if filter.page < pages {
        body.push_str(",\"next\":");
        push_link(&mut body, filter.page + 1, size);
    }
    body.push_str(",\"last\":");
    push_link(&mut body, pages.max(1), size);
    let number = filter.page;
    push_format(
        &mut body,
        format_args!(
            "}},\"page\":{{\"size\":{size},\"totalElements\":{total},\"totalPages\":{pages},\"number\":{number}}}}}"
        ),
    );
    Bytes::from(body)
}

/// The answer to OPTIONS.
pub(super) fn options(answer: OptionsAnswer, now: DateTime<Utc>) -> SimResponse {
    match answer {
        OptionsAnswer::NoContent => json_response(204, Bytes::new(), now),
        OptionsAnswer::Types => {
            let types: Vec<_> =
                EVENT_TYPES.iter().map(|(name, text)| serde_json::json!({"type": name, "description": text})).collect();
            json_response(200, Bytes::from(serde_json::json!({"eventTypes": types}).to_string()), now)
        }
    }
}

fn push_link(body: &mut String, page: u64, size: u64) {
    push_format(body, format_args!("{{\"href\":\"http://api.nexmo.com/beta/audit/events?page={page}&size={size}\"}}"));
}
