//! Bytes of an answer -> rows -> events. Every row of a page is an event or kept whole as poison; none is changed.
#![no_main]

use std::sync::Arc;

use chrono::FixedOffset;
use futures_util::FutureExt;
use libfuzzer_sys::fuzz_target;
use vigie::clock::TokioClock;
use vigie::pipeline::BoxFuture;
use vigie::source::vonage::client::{Client, ListQuery};
use vigie::source::vonage::event::{Content, read_row};
use vigie::source::vonage::transport::{HttpAnswer, Method, Transport, TransportError};
use vigie_engine::event::MAX_EVENT_BYTES;
use vigie_fuzz::noon;

/// Answers each request with the same bytes.
struct Canned(Vec<u8>);

impl Transport for Canned {
    fn request<'a>(&'a self, _: Method, _: &'a str) -> BoxFuture<'a, Result<HttpAnswer, TransportError>> {
        let answer = HttpAnswer {
            status: 200,
            date: None,
            retry_after: None,
            content_type: Some("application/json".into()),
            body: self.0.clone().into(),
        };
        Box::pin(async { Ok(answer) })
    }
}

fuzz_target!(|data: &[u8]| {
    let client = Client::new(Arc::new(Canned(data.to_vec())), Arc::new(TokioClock::starting_at(noon())));
    let query = ListQuery::default();
    let Ok(answer) = client.list(&query).now_or_never().expect("nothing to wait for") else { return };
    let body = String::from_utf8_lossy(data);
    for row in &answer.rows {
        assert!(body.contains(&**row), "a row that is not in the answer: {row}");
        let zone = FixedOffset::east_opt(0).expect("a zone");
        let read = read_row(row, zone, noon());
        assert!(!read.id.is_empty());
        match read.content {
            Content::Event(event) => {
                assert_eq!(event.raw(), row);
                assert_eq!((event.id(), event.created_at()), (read.id.as_str(), read.at));
            }
            Content::Poison(poison) => {
                assert!(!poison.error.is_empty());
                assert!(row.len() > MAX_EVENT_BYTES || poison.raw == **row, "poison is kept whole");
            }
        }
        assert_eq!(read_row(row, zone, noon()).id, read.id, "a row has one identity");
    }
});
