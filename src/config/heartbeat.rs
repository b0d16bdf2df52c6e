//! `heartbeat:`: a URL that is asked while polling and delivery succeed.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use vigie_engine::diagnostic::Diagnostics;

use super::Sections;
use super::variables::Variables;
use crate::options::{OptionKind, OptionSpec, Presence};
use crate::pipeline::BoxFuture;
use crate::pipeline::heartbeat::{Beat, Ping};
use crate::sink::BuildContext;
use crate::sink::http::{Endpoint, TRANSPORT, endpoint};

/// Options of `heartbeat:`, beside those of the transport.
pub const HEARTBEAT_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "url",
        kind: OptionKind::Url(&["https", "http"]),
        presence: Presence::Required,
        help: "asked by GET while all is well, such as the ping URL of a dead man's switch; it is a secret",
    },
    OptionSpec {
        name: "every",
        kind: OptionKind::Every(10_000, 86_400_000),
        presence: Presence::Default("1m"),
        help: "how often",
    },
    OptionSpec {
        name: "late_after",
        kind: OptionKind::Duration(60_000, 86_400_000),
        presence: Presence::Default("10m"),
        help: "it falls silent when a delivery waits for longer than this, a source fails, or nothing can be stored",
    },
];

/// One GET, of whose answer the status alone counts.
struct HttpPing(Endpoint);

impl Ping for HttpPing {
    fn ping(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            match self.0.send(Method::GET, HeaderMap::new(), Bytes::new()).await {
                Ok(answer) if answer.status.is_success() => Ok(()),
                Ok(answer) => Err(format!("HTTP {}", answer.status.as_u16())),
                Err(report) => Err(report.status),
            }
        })
    }
}

/// Reads the section, if it is there.
pub(super) fn read(
    sections: &Sections,
    variables: &Variables<'_>,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Beat> {
    sections.refuse_second("heartbeat", diagnostics);
    let node = sections.get("heartbeat")?;
    let specs = [HEARTBEAT_OPTIONS, TRANSPORT].concat();
    let options = variables.read(node, "`heartbeat`", &specs, diagnostics)?;
    let endpoint = endpoint(&options, "url", Vec::new(), context, diagnostics)?;
    let (every, late_after) = (options.duration("every")?, options.duration("late_after")?);
    options.is_whole().then(|| Beat { ping: Arc::new(HttpPing(endpoint)), every, late_after })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wiremock::matchers::{method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use crate::clock::SystemClock;
    use crate::secret::SinkUrl;
    use crate::sink::http::EndpointSpec;

    #[tokio::test]
    async fn a_beat_is_one_get_and_tells_no_secret() {
        for (status, expected) in [(200, Ok(())), (404, Err("HTTP 404".to_owned()))] {
            let server = MockServer::start().await;
            let answer = ResponseTemplate::new(status).set_body_string("canary");
            Mock::given(method("GET")).and(path("/canary")).respond_with(answer).expect(1).mount(&server).await;
            let url = format!("{}/canary", server.uri()).parse().expect("a URL");
            let spec = EndpointSpec::new(SinkUrl::new(url), Arc::new(SystemClock));
            let ping = HttpPing(Endpoint::build(spec).expect("builds"));
            assert_eq!(ping.ping().await, expected);
        }
    }
}
