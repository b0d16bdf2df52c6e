//! `sqs`: an alert as JSON in a message of an Amazon SQS queue.
//!
//! The queue is put in when it is sent, for it may be mended while alerts wait; with it, for a queue that keeps an order,
//! the rule as the group and the delivery's id as the key by which the queue drops a second copy for five minutes.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use url::Url;
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;

use super::aws::{self, Service, ServiceSpec};
use super::bound::{Bound, Most, Unit};
use super::format::{FORMAT, Format};
use super::http::KEYED_TRANSPORT;
use super::http::answer::Answer;
use super::probe::{Probe, is_json};
use super::update::{CLOSING, UPDATES, Update};
use super::{
    AttemptReport, BuildContext, Delivery, Outcome, RenderContext, RenderError, RetryProfile, Sink, SinkKind, burst,
    rate,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;

/// As the configuration knows it.
pub const SQS: SinkKind = SinkKind {
    kind: "sqs",
    example: "queue:\n  sqs:\n    queue_url: https://sqs.eu-west-1.amazonaws.com/123456789012/alerts\n    \
              access_key_id: ${AWS_ACCESS_KEY_ID}\n    secret_access_key: ${AWS_SECRET_ACCESS_KEY}\n",
    bounds: &[Bound {
        what: "message with its attributes",
        most: Most::Of(aws::MAX_MESSAGE_BYTES),
        unit: Unit::Bytes,
        used: |body| {
            let message = serde_json::from_slice::<Value>(body).unwrap_or_default();
            let attributes = message["MessageAttributes"].as_object().into_iter().flatten();
            let attributes = attributes
                .map(|(name, value)| name.len() + "String".len() + value["StringValue"].as_str().map_or(0, str::len));
            message["MessageBody"].as_str().map_or(0, str::len) + attributes.sum::<usize>()
        },
    }],
    options: &[
        &[
            OptionSpec {
                name: "queue_url",
                kind: OptionKind::Url(&["https", "http"]),
                presence: Presence::Required,
                help: "URL of the queue, such as https://sqs.eu-west-1.amazonaws.com/123456789012/alerts",
            },
            aws::REGION,
            aws::ACCESS_KEY_ID,
            aws::SECRET_ACCESS_KEY,
            aws::SESSION_TOKEN,
            aws::CREDENTIALS_FILE,
            aws::PROFILE,
            aws::ROLE_ARN,
            aws::WEB_IDENTITY_TOKEN_FILE,
            aws::ENDPOINT,
            aws::STS_ENDPOINT,
            FORMAT,
            UPDATES,
            CLOSING,
            rate(Presence::Optional),
            burst("1"),
        ],
        KEYED_TRANSPORT,
    ],
    build,
};

/// What is asked of a service that speaks JSON.
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");

/// The sink.
struct SqsSink {
    service: Service,
    queue_url: Url,
    format: Format,
}

fn build(
    options: &Options,
    name: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    let queue_url = options.url("queue_url")?.clone();
    let mut url = queue_url.clone();
    url.set_path("/");
    let region = queue_url.host_str().and_then(aws::region_in);
    let spec = ServiceSpec { name, service: "sqs", region, option: "queue_url", url: Some(url) };
    let service = Service::read(options, spec, context, diagnostics)?;
    Some(Box::new(SqsSink { service, queue_url, format: Format::of(options) }))
}

impl SqsSink {
    async fn attempt(&self, delivery: &Delivery) -> AttemptReport {
        let Ok(mut request) = serde_json::from_slice::<Value>(&delivery.body) else {
            let status = "the stored body has another shape".to_owned();
            return AttemptReport {
                outcome: Outcome::Degrade,
                status,
                excerpt: String::new(),
                spent: None,
                receipt: None,
            };
        };
        let rule_id = request["MessageAttributes"]["rule"]["StringValue"].as_str().unwrap_or_default().to_owned();
        if let Some((group, key)) = aws::fifo(self.queue_url.path(), &rule_id, &delivery.delivery_id) {
            request["MessageGroupId"] = group.into();
            request["MessageDeduplicationId"] = key.into();
        }
        request["QueueUrl"] = self.queue_url.as_str().into();
        let headers = headers(HeaderValue::from_static("AmazonSQS.SendMessage"));
        self.service.post(headers, Bytes::from(request.to_string()), has_message_id).await
    }
}

fn headers(target: HeaderValue) -> HeaderMap {
    let json = HeaderValue::from_static("application/x-amz-json-1.0");
    HeaderMap::from_iter([(CONTENT_TYPE, json), (TARGET, target)])
}

fn has_message_id(answer: &Answer) -> bool {
    let said = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    said["MessageId"].as_str().is_some_and(|id| !id.is_empty())
}

impl Sink for SqsSink {
    fn kind(&self) -> &'static str {
        SQS.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        Ok(message(alert, &self.format.alert(alert, context, aws::room(&aws::attributes(alert)))?))
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        Ok(message(update.alert, &self.format.update(update, context)?))
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.attempt(delivery))
    }

    fn probe(&self) -> Probe<'_> {
        Probe::Asks(Box::pin(async {
            let body = json!({"QueueUrl": self.queue_url.as_str(), "AttributeNames": ["QueueArn"]});
            let headers = headers(HeaderValue::from_static("AmazonSQS.GetQueueAttributes"));
            let asked = ("GetQueueAttributes", "the keys are good and the queue is there");
            vec![self.service.ask(asked, headers, Bytes::from(body.to_string()), is_json).await]
        }))
    }
}

impl std::fmt::Debug for SqsSink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SqsSink").field("service", &self.service).finish_non_exhaustive()
    }
}

/// The request without its queue.
fn message(alert: &Alert, json: &[u8]) -> Vec<u8> {
    let attributes: serde_json::Map<String, Value> = aws::attributes(alert)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!({"DataType": "String", "StringValue": value})))
        .collect();
    let text = aws::allowed(&String::from_utf8_lossy(json));
    json!({"MessageBody": text, "MessageAttributes": attributes}).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::update::Told;
    use super::*;
    use crate::sink::Form;
    use crate::sink::contract::{
        self, CANARY, HOSTILE, Loopback, Reply, alert_titled, attempt, delivery, hold, make_hostile, make_long,
        stateful_alert, text_node, update_of,
    };

    const YES: &[u8] = br#"{"MD5OfMessageBody":"d41d8cd9","MessageId":"94f20ce6-13c5-43a0-9a9e-ca52d816e90b"}"#;
    const QUEUE: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/alerts";

    fn make(endpoint: &Url, queue: &str, context: &BuildContext) -> Box<dyn Sink> {
        let options = vec![
            ("queue_url", text_node(queue)),
            ("endpoint", text_node(endpoint.as_str())),
            ("access_key_id", text_node("AKIDEXAMPLE")),
            ("secret_access_key", text_node(CANARY)),
            ("session_token", text_node(&format!("token{CANARY}"))),
        ];
        contract::build("sqs", options, context).expect("builds")
    }

    fn sink() -> Box<dyn Sink> {
        make(&Url::parse("https://sqs.eu-west-1.amazonaws.com/").expect("valid"), QUEUE, &contract::context().0)
    }

    fn read(body: &[u8]) -> Value {
        serde_json::from_slice(body).expect("JSON")
    }

    #[tokio::test]
    async fn holds_the_contract() {
        hold(&|url, context| make(&url, QUEUE, context), YES, Outcome::Misconfigured).await;
    }

    #[tokio::test]
    async fn a_message_is_signed_for_the_region_of_its_queue() {
        let server = Loopback::start(Reply::Http("200 OK", vec![], YES.to_vec())).await;
        let sink = make(&server.url("/?a=b"), QUEUE, &contract::context().0);
        let stored = String::from_utf8(delivery(&*sink, &alert_titled("t"), Form::Full).body).expect("UTF-8");
        assert!(!stored.contains("amazonaws") && !stored.contains(CANARY), "{stored}");
        assert_eq!(attempt(&*sink).await.outcome, Outcome::Delivered);
        let request = server.received().remove(0);
        assert!(request.head.starts_with("POST / HTTP/1.1"), "{}", request.head);
        assert_eq!(request.header("x-amz-target"), Some("AmazonSQS.SendMessage"));
        assert_eq!(request.header("content-type"), Some("application/x-amz-json-1.0"));
        assert_eq!(request.header("x-amz-date"), Some("20260304T050607Z"));
        let authorization = request.header("authorization").expect("signed");
        let expected = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260304/eu-west-1/sqs/aws4_request, \
                        SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=";
        assert!(authorization.starts_with(expected), "{authorization}");
        let sent = read(&request.body);
        assert_eq!(sent["QueueUrl"], QUEUE);
        let attribute = |name: &str| sent["MessageAttributes"][name].clone();
        assert_eq!(attribute("rule"), json!({"DataType": "String", "StringValue": "change-from-unexpected-country"}));
        assert_eq!(attribute("severity")["StringValue"], "high");
        assert_eq!(attribute("alert_id")["StringValue"], "0123456789abcdef0123456789abcdef");
        assert!(sent["MessageGroupId"].is_null() && sent["MessageDeduplicationId"].is_null());
        assert_eq!(read(sent["MessageBody"].as_str().expect("text").as_bytes())["schema"], "vigie/alert/v1");
    }

    #[tokio::test]
    async fn an_ordered_queue_gets_its_group_and_its_key() {
        let server = Loopback::start(Reply::Http("200 OK", vec![], YES.to_vec())).await;
        let sink = make(&server.url("/"), &format!("{QUEUE}.fifo"), &contract::context().0);
        let mut alert = alert_titled("t");
        let sent = delivery(&*sink, &alert, Form::Full);
        sink.send(&sent).await;
        alert.rule.id = "é ".repeat(100);
        sink.send(&delivery(&*sink, &alert, Form::Full)).await;
        let requests: Vec<Value> = server.received().iter().map(|request| read(&request.body)).collect();
        assert_eq!(requests[0]["MessageGroupId"], "change-from-unexpected-country");
        assert_eq!(requests[0]["MessageDeduplicationId"].as_str(), Some(sent.delivery_id.as_str()));
        assert_eq!(requests[1]["MessageGroupId"].as_str(), Some("-".repeat(128).as_str()));
    }

    #[tokio::test]
    async fn the_code_decides_and_a_page_of_a_proxy_is_no_assent() {
        for (status, body, expected) in [
            ("200 OK", "<html>please log in</html>", Outcome::Retry),
            ("200 OK", r#"{"MessageId":""}"#, Outcome::Retry),
            ("400 Bad Request", r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist"}"#, Outcome::Misconfigured),
            ("400 Bad Request", r#"{"__type":"com.amazonaws.sqs#InvalidMessageContents"}"#, Outcome::Degrade),
            ("400 Bad Request", r#"{"__type":"com.amazonaws.sqs#RequestThrottled"}"#, Outcome::Wait(None)),
        ] {
            let server = Loopback::start(Reply::Http(status, vec![], body.into())).await;
            let report = attempt(&*make(&server.url("/"), QUEUE, &contract::context().0)).await;
            assert_eq!(report.outcome, expected, "{status} {body}");
        }
    }

    #[test]
    fn a_message_fits_with_its_attributes() {
        let size = |body: &[u8]| {
            let request = read(body);
            let attributes = request["MessageAttributes"].as_object().expect("a map").iter();
            let attributes = attributes
                .map(|(name, value)| name.len() + "String".len() + value["StringValue"].as_str().expect("text").len());
            request["MessageBody"].as_str().expect("text").len() + attributes.sum::<usize>()
        };
        let mut alert = alert_titled("t");
        let padded = |count: usize| {
            serde_json::value::RawValue::from_string(format!("{{\"pad\":\"{}\"}}", "a".repeat(count))).expect("valid")
        };
        let has_event = |alert: &Alert| {
            let request = read(&delivery(&*sink(), alert, Form::Full).body);
            read(request["MessageBody"].as_str().expect("text").as_bytes())["event"].is_object()
        };
        alert.event = padded(0);
        let room = aws::MAX_MESSAGE_BYTES - size(&delivery(&*sink(), &alert, Form::Full).body);
        alert.event = padded(room);
        assert_eq!(size(&delivery(&*sink(), &alert, Form::Full).body), aws::MAX_MESSAGE_BYTES);
        assert!(has_event(&alert));
        alert.event = padded(room + 1);
        assert!(size(&delivery(&*sink(), &alert, Form::Full).body) < 10_000 && !has_event(&alert));
        for character in ["a", "🦀", "\u{202e}", "\u{ffff}"] {
            let mut alert = stateful_alert();
            make_long(&mut alert, character);
            assert!(size(&delivery(&*sink(), &alert, Form::Full).body) <= aws::MAX_MESSAGE_BYTES);
        }
    }

    #[test]
    fn only_characters_that_the_queue_takes_go_out_and_none_steers() {
        let mut alert = stateful_alert();
        make_hostile(&mut alert, &format!("{HOSTILE}\u{0}\u{b}\u{fffe}\u{ffff}🦀"));
        let context = RenderContext { delivery_id: "d2", now: alert.first_at, form: Form::Full };
        let update = sink().render_update(&update_of(&alert, Told::More), &context).expect("renders");
        for body in [delivery(&*sink(), &alert, Form::Full).body, delivery(&*sink(), &alert, Form::Plain).body, update]
        {
            let request = read(&body);
            let text = request["MessageBody"].as_str().expect("text");
            let refused = |c: char| c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}');
            assert!(!text.chars().any(|c| refused(c) || vigie_engine::text::is_unsafe(c)), "{text}");
            assert!(read(text.as_bytes())["schema"].is_string());
        }
    }
}
