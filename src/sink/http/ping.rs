//! A heartbeat over HTTP: one GET, of whose answer the status alone counts.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;

use super::Endpoint;
use crate::pipeline::BoxFuture;
use crate::pipeline::heartbeat::Ping;

impl Ping for Endpoint {
    fn ping(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            match self.send(Method::GET, HeaderMap::new(), Bytes::new()).await {
                Ok(answer) if answer.status.is_success() => Ok(()),
                Ok(answer) => Err(format!("HTTP {}", answer.status.as_u16())),
                Err(report) => Err(report.status),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::secret::SinkUrl;
    use crate::sink::contract::{CANARY, Loopback, Reply, StoppedClock};
    use crate::sink::http::EndpointSpec;

    #[tokio::test]
    async fn a_beat_is_one_get_and_tells_no_secret() {
        for (reply, expected) in [
            (Reply::Http("200 OK", vec![], b"OK".to_vec()), Ok(())),
            (Reply::Http("404 Not Found", vec![], CANARY.into()), Err("HTTP 404".to_owned())),
            (Reply::Reset, Err("connection reset".to_owned())),
        ] {
            let server = Loopback::start(reply).await;
            let url = SinkUrl::new(server.url(&format!("/ping/{CANARY}")));
            let endpoint = Endpoint::build(EndpointSpec::new(url, Arc::new(StoppedClock))).expect("builds");
            assert_eq!(endpoint.ping().await, expected);
            let received = server.received();
            assert!(received.len() == 1 && received[0].head.starts_with("GET /ping/"), "{received:?}");
        }
    }
}
