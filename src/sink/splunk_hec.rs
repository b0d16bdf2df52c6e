//! `splunk_hec`: the alert as an event of Splunk's HTTP Event Collector; with `ack` delivered only once an indexer says
//! that it is written.
//!
//! Index and source type are put in when it is sent, for the operator may mend them while alerts wait. An indexer that has
//! not said yes in time leaves the delivery unconfirmed: it is not sent again, because it was taken.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use url::Url;
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;

use super::bound::{Bound, Most, Unit};
use super::format::{Format, format_of, with_member};
use super::http::answer::Answer;
use super::http::{Endpoint, KEYED_TRANSPORT, endpoint_at};
use super::probe::{Probe, Question, logged_in};
use super::update::{CLOSING, UPDATES, Update};
use super::{
    AttemptReport, BuildContext, Delivery, Outcome, RenderContext, RenderError, RetryProfile, Sink, SinkKind, burst,
    id_of, rate,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;
use crate::secret::{Secret, SinkUrl};

/// As the configuration knows it.
pub const SPLUNK_HEC: SinkKind = SinkKind {
    kind: "splunk_hec",
    example: "siem:\n  splunk_hec:\n    url: https://splunk.example.org:8088\n    token: ${SPLUNK_HEC_TOKEN}\n",
    bounds: &[Bound {
        what: "event",
        most: Most::Option("max_event"),
        unit: Unit::Bytes,
        used: |body| Unit::Bytes.at(body, "/event"),
    }],
    options: &[
        &[
            OptionSpec {
                name: "url",
                kind: OptionKind::Url(&["https", "http"]),
                presence: Presence::Required,
                help: "the collector without its path, such as https://splunk.example.org:8088",
            },
            OptionSpec {
                name: "token",
                kind: OptionKind::Secret,
                presence: Presence::Required,
                help: "token of the HTTP Event Collector",
            },
            OptionSpec {
                name: "index",
                kind: OptionKind::Text,
                presence: Presence::Optional,
                help: "index to write to; without it that of the token",
            },
            OptionSpec {
                name: "sourcetype",
                kind: OptionKind::Text,
                presence: Presence::Default("vigie:alert"),
                help: "source type that Splunk reads the event by",
            },
            OptionSpec {
                name: "ack",
                kind: OptionKind::Flag,
                presence: Presence::Default("false"),
                help: "whether to wait for the indexer's acknowledgement; the token must have it switched on",
            },
            OptionSpec {
                name: "max_event",
                kind: OptionKind::Size(2 << 10, 1 << 20),
                presence: Presence::Default("10KB"),
                help: "beyond this the raw event is left out: Splunk cuts longer events (TRUNCATE) in the middle of their JSON",
            },
            format_of(&["native", "ecs", "ocsf"]),
            UPDATES,
            CLOSING,
            rate(Presence::Optional),
            burst("1"),
        ],
        KEYED_TRANSPORT,
    ],
    build,
};

/// How often an acknowledgement is asked for, as long as a whole request may take: an indexer writes within a second or some.
const ACK_EVERY: Duration = Duration::from_millis(500);

/// The sink.
struct SplunkSink {
    event: Endpoint,
    /// Where acknowledgements are asked for, where they are.
    ack: Option<Endpoint>,
    token: Secret,
    channel: String,
    index: Option<String>,
    sourcetype: String,
    max_event_bytes: usize,
    format: Format,
    ack_wait: Duration,
}

fn build(
    options: &Options,
    name: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    let token = options.secret("token")?.clone();
    let base = options.url("url")?;
    let id = id_of(&["splunk channel", name]);
    let part = |from: usize, to: usize| id.get(from..to).unwrap_or_default();
    let channel = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-");
    let mut endpoint =
        |url: Url| endpoint_at(SinkUrl::new(url), options, "url", vec![token.clone()], context, diagnostics);
    let event = endpoint(at(base, "event"))?;
    let ack = if options.flag("ack") {
        let mut url = at(base, "ack");
        url.query_pairs_mut().append_pair("channel", &channel);
        Some(endpoint(url)?)
    } else {
        None
    };
    Some(Box::new(SplunkSink {
        event,
        ack,
        token,
        channel,
        index: options.text("index").map(str::to_owned),
        sourcetype: options.text("sourcetype")?.to_owned(),
        max_event_bytes: usize::try_from(options.integer("max_event")?).unwrap_or(usize::MAX),
        format: Format::of(options),
        ack_wait: context.http_limits.total,
    }))
}

fn at(base: &Url, verb: &str) -> Url {
    let mut url = base.clone();
    let root = base.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{root}/services/collector/{verb}"));
    url
}

impl SplunkSink {
    async fn attempt(&self, delivery: &Delivery) -> AttemptReport {
        let headers = match self.headers() {
            Ok(headers) => headers,
            Err(error) => {
                let (outcome, status) = (Outcome::Misconfigured, "the token is no header value".to_owned());
                return AttemptReport { outcome, status, excerpt: error.to_string(), spent: None, receipt: None };
            }
        };
        let mut body = with_member(&delivery.body, "sourcetype", &self.sourcetype);
        if let Some(index) = &self.index {
            body = with_member(&body, "index", index);
        }
        let answer = match self.event.send(Method::POST, headers.clone(), Bytes::from(body)).await {
            Ok(answer) => answer,
            Err(report) => return report,
        };
        let outcome = outcome(&answer);
        let report = self.event.report(&answer, outcome);
        match (&self.ack, report.outcome == Outcome::Delivered) {
            (Some(ack), true) => self.acknowledged(ack, headers, &answer, report).await,
            _ => report,
        }
    }

    fn headers(&self) -> Result<HeaderMap, reqwest::header::InvalidHeaderValue> {
        let mut headers = HeaderMap::new();
        let mut token = HeaderValue::from_str(&format!("Splunk {}", self.token.expose()))?;
        token.set_sensitive(true);
        headers.insert(AUTHORIZATION, token);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-splunk-request-channel", HeaderValue::from_str(&self.channel)?);
        Ok(headers)
    }

    /// Waits for the indexer. What it does not say in time stays unconfirmed.
    async fn acknowledged(
        &self,
        ack: &Endpoint,
        headers: HeaderMap,
        answer: &Answer,
        report: AttemptReport,
    ) -> AttemptReport {
        let id = member(answer, "ackId").and_then(|id| id.as_u64());
        let Some(id) = id else {
            let status = "taken without an acknowledgement id: the token has none switched on".to_owned();
            return AttemptReport { outcome: Outcome::Accepted, status, ..report };
        };
        let deadline = Instant::now() + self.ack_wait;
        loop {
            let asked = Bytes::from(json!({"acks": [id]}).to_string());
            let said = ack.send(Method::POST, headers.clone(), asked).await;
            let is_written = said
                .as_ref()
                .is_ok_and(|said| member(said, "acks").is_some_and(|acks| acks[id.to_string().as_str()] == true));
            if is_written {
                return report;
            }
            let next = Instant::now() + ACK_EVERY;
            if next >= deadline {
                let status = "taken, not acknowledged in time".to_owned();
                return AttemptReport { outcome: Outcome::Accepted, status, ..report };
            }
            sleep_until(next).await;
        }
    }
}

/// Splunk's reference: 200, or 503 with full queues; 400 is about the token, which the next question is for.
fn healthy(answer: &Answer) -> Outcome {
    match answer.status.as_u16() {
        200 => Outcome::Delivered,
        400 | 401 | 403..=405 => Outcome::Degrade,
        _ => answer.outcome(),
    }
}

/// Splunk's reference, by code: 5 has no data, 10 no channel, and either says so to a good token only; 1 to 4 are about the
/// token.
fn is_token_good(answer: &Answer) -> Outcome {
    match member(answer, "code").and_then(|code| code.as_u64()) {
        Some(5 | 10) => Outcome::Delivered,
        Some(1..=4) => Outcome::Misconfigured,
        _ => logged_in(answer),
    }
}

impl Sink for SplunkSink {
    fn kind(&self) -> &'static str {
        SPLUNK_HEC.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        Ok(wrapped(alert, &self.format.alert(alert, context, self.max_event_bytes)?))
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        Ok(wrapped(update.alert, &self.format.update(update, context)?))
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.attempt(delivery))
    }

    fn probe(&self) -> Probe<'_> {
        Probe::Asks(Box::pin(async {
            let Ok(headers) = self.headers() else { return Vec::new() };
            let asked = "/services/collector/health";
            let health =
                Question { judge: healthy, ..Question::get(asked, "the collector takes input", ("event", "health")) };
            // No event at all: whether there is one is asked only once the token is good.
            let (asked, shows) = ("an event of no bytes", "the token is good");
            let empty =
                Question { body: Some(Bytes::new()), judge: is_token_good, ..Question::get(asked, shows, ("", "")) };
            vec![health.ask(&self.event, headers.clone()).await, empty.ask(&self.event, headers).await]
        }))
    }
}

impl std::fmt::Debug for SplunkSink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SplunkSink").field("event", &self.event).finish_non_exhaustive()
    }
}

/// The collector's envelope. Its time is that of the first match, so that a search by time finds it where it happened.
fn wrapped(alert: &Alert, json: &[u8]) -> Vec<u8> {
    let at_ms = alert.first_at.timestamp_millis();
    let source = Value::from(format!("vigie:{}", alert.source));
    let head = format!("{{\"time\":{}.{:03},\"source\":{source},\"event\":", at_ms / 1_000, at_ms.rem_euclid(1_000));
    [head.as_bytes(), json, b"}"].concat()
}

fn member(answer: &Answer, name: &str) -> Option<Value> {
    serde_json::from_slice::<Value>(&answer.body).ok()?.get(name).cloned()
}

/// The collector's own code decides, then the status.
fn outcome(answer: &Answer) -> Outcome {
    let code = member(answer, "code").and_then(|code| code.as_u64());
    match (answer.status.as_u16(), code) {
        (200..=299, Some(0)) => answer.outcome(),
        // A proxy's page, or a cut answer.
        (200..=299, _) => Outcome::Retry,
        // Token (1 to 4), index (7), channel (10, 11) and acknowledgements (14) are the operator's.
        (400..=499, Some(1..=4 | 7 | 10 | 11 | 14)) => Outcome::Misconfigured,
        _ => answer.outcome_unless(&[]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::update::Told;
    use super::*;
    use crate::sink::Form;
    use crate::sink::contract::{
        self, CANARY, Loopback, Reply, TEST_LIMITS, alert_titled, attempt, delivery, hold, make_long, stateful_alert,
        text_node, update_of,
    };

    const YES: &[u8] = br#"{"text":"Success","code":0}"#;

    fn make(url: &Url, more: &[(&'static str, &str)], context: &BuildContext) -> Box<dyn Sink> {
        let mut options = vec![("url", text_node(url.as_str())), ("token", text_node(CANARY))];
        options.extend(more.iter().map(|(name, value)| (*name, text_node(value))));
        contract::build("splunk_hec", options, context).expect("builds")
    }

    #[tokio::test]
    async fn holds_the_contract() {
        hold(&|url, context| make(&url, &[], context), YES, Outcome::Misconfigured).await;
    }

    #[tokio::test]
    async fn the_collectors_code_decides() {
        for (status, body, expected) in [
            ("200 OK", r#"{"text":"Success","code":0}"#, Outcome::Delivered),
            ("200 OK", "<html>please log in</html>", Outcome::Retry),
            ("403 Forbidden", r#"{"text":"Invalid token","code":4}"#, Outcome::Misconfigured),
            ("400 Bad Request", r#"{"text":"Incorrect index","code":7}"#, Outcome::Misconfigured),
            ("400 Bad Request", r#"{"text":"Data channel is missing","code":10}"#, Outcome::Misconfigured),
            ("400 Bad Request", r#"{"text":"Invalid data format","code":6}"#, Outcome::Degrade),
            ("503 Service Unavailable", r#"{"text":"Server is busy","code":9}"#, Outcome::Retry),
        ] {
            let server = Loopback::start(Reply::Http(status, vec![], body.into())).await;
            let report = attempt(&*make(&server.url("/"), &[], &contract::context().0)).await;
            assert_eq!(report.outcome, expected, "{status} {body}");
        }
    }

    #[tokio::test]
    async fn index_and_token_are_sent_and_not_stored() {
        let server = Loopback::start(Reply::Http("200 OK", vec![], YES.to_vec())).await;
        let sink = make(&server.url("/own/"), &[("index", "security")], &contract::context().0);
        let stored = String::from_utf8(delivery(&*sink, &alert_titled("t"), Form::Full).body).expect("UTF-8");
        assert!(!stored.contains("security") && !stored.contains(CANARY), "{stored}");
        assert_eq!(attempt(&*sink).await.outcome, Outcome::Delivered);
        let request = &server.received()[0];
        assert!(request.head.starts_with("POST /own/services/collector/event "), "{}", request.head);
        assert_eq!(request.header("authorization"), Some(format!("Splunk {CANARY}").as_str()));
        let sent: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!((&sent["index"], &sent["sourcetype"]), (&json!("security"), &json!("vigie:alert")));
        assert_eq!((&sent["time"], &sent["source"]), (&json!(1_772_600_400.0), &json!("vigie:main")));
        assert_eq!(sent["event"]["schema"], "vigie/alert/v1");
    }

    #[tokio::test]
    async fn with_ack_it_is_delivered_when_the_indexer_says_so() {
        let written = br#"{"text":"Success","code":0,"ackId":7,"acks":{"7":true}}"#;
        let server = Loopback::start(Reply::Http("200 OK", vec![], written.to_vec())).await;
        let report = attempt(&*make(&server.url("/"), &[("ack", "true")], &contract::context().0)).await;
        assert_eq!(report.outcome, Outcome::Delivered);
        let received = server.received();
        assert_eq!(received.len(), 2);
        let channel = received[0].header("x-splunk-request-channel").expect("there").to_owned();
        assert_eq!(channel.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(received[1].head.starts_with(&format!("POST /services/collector/ack?channel={channel} ")));
        assert_eq!(received[1].body, br#"{"acks":[7]}"#);

        let without_id = Loopback::start(Reply::Http("200 OK", vec![], YES.to_vec())).await;
        let report = attempt(&*make(&without_id.url("/"), &[("ack", "true")], &contract::context().0)).await;
        assert_eq!((report.outcome, without_id.received().len()), (Outcome::Accepted, 1));
    }

    #[tokio::test]
    async fn what_is_not_acknowledged_in_time_stays_unconfirmed_and_is_not_sent_again() {
        let unwritten = br#"{"text":"Success","code":0,"ackId":7,"acks":{"7":false}}"#;
        let server = Loopback::start(Reply::Http("200 OK", vec![], unwritten.to_vec())).await;
        let mut context = contract::context().0;
        context.http_limits = TEST_LIMITS;
        let report = attempt(&*make(&server.url("/"), &[("ack", "true")], &context)).await;
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Accepted, "taken, not acknowledged in time"));
        let events = server.received().iter().filter(|request| request.head.contains("collector/event")).count();
        assert_eq!(events, 1);
    }

    #[test]
    fn an_event_stays_below_where_splunk_cuts() {
        let sink = make(&Url::parse("https://splunk.example.org:8088").expect("valid"), &[], &contract::context().0);
        let mut alert = stateful_alert();
        make_long(&mut alert, "é");
        let body: Value = serde_json::from_slice(&delivery(&*sink, &alert, Form::Full).body).expect("JSON");
        assert!(body["event"].to_string().len() <= 10_000, "{}", body["event"].to_string().len());
        assert!(!body["event"]["event_omitted"].is_null());
        let context = RenderContext { delivery_id: "d2", now: alert.first_at, form: Form::Full };
        let update = sink.render_update(&update_of(&alert, Told::More), &context).expect("renders");
        let update: Value = serde_json::from_slice(&update).expect("JSON");
        assert_eq!(update["event"]["schema"], "vigie/update/v1");
        let url = Url::parse("https://splunk.example.org:8088").expect("valid");
        let sink = make(&url, &[("format", "ocsf")], &contract::context().0);
        let body: Value = serde_json::from_slice(&delivery(&*sink, &alert, Form::Full).body).expect("JSON");
        assert!(body["event"]["class_uid"] == 2004 && body["event"].to_string().len() <= 10_000);
    }
}
