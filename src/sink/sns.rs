//! `sns`: an alert as a message to an Amazon SNS topic, as JSON for programs or as text for people.
//!
//! Every subscriber gets the same message, so `text` is defanged: a mail program makes links of what looks like one. The
//! topic is put in when it is sent, for it may be mended while alerts wait.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::text::single_line;

use super::aws::answer::element;
use super::aws::{self, Service, ServiceSpec};
use super::bound::{Bound, Most, Unit};
use super::format::Shape;
use super::http::KEYED_TRANSPORT;
use super::http::answer::Answer;
use super::probe::Probe;
use super::text::{self, defang};
use super::update::{CLOSING, UPDATES, Update, update_text};
use super::{
    AttemptReport, BuildContext, Delivery, Form, Outcome, RenderContext, RenderError, RetryProfile, Sink, SinkKind,
    burst, rate,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;

/// As the configuration knows it.
pub const SNS: SinkKind = SinkKind {
    kind: "sns",
    example: "topic:\n  sns:\n    topic_arn: arn:aws:sns:eu-west-1:123456789012:alerts\n    \
              access_key_id: ${AWS_ACCESS_KEY_ID}\n    secret_access_key: ${AWS_SECRET_ACCESS_KEY}\n",
    bounds: &[
        Bound {
            what: "subject",
            most: Most::Of(MAX_SUBJECT_CHARS),
            unit: Unit::Chars,
            used: |body| Unit::Chars.at(body, "/subject"),
        },
        Bound {
            what: "message with its subject and attributes",
            most: Most::Of(aws::MAX_MESSAGE_BYTES),
            unit: Unit::Bytes,
            used: |body| {
                let Ok(stored) = serde_json::from_slice::<Stored>(body) else { return 0 };
                let attributes =
                    stored.attributes.iter().map(|(name, value)| name.len() + "String".len() + value.len());
                stored.subject.len() + stored.message.len() + attributes.sum::<usize>()
            },
        },
    ],
    options: &[
        &[
            OptionSpec {
                name: "topic_arn",
                kind: OptionKind::Text,
                presence: Presence::Required,
                help: "name of the topic, such as arn:aws:sns:eu-west-1:123456789012:alerts",
            },
            OptionSpec {
                name: "format",
                kind: OptionKind::Choice(&["json", "text", "ecs", "ocsf", "cloudevents"]),
                presence: Presence::Default("json"),
                help: "what subscribers get: the Alert JSON, text for people, or the JSON of a schema of others",
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
            UPDATES,
            CLOSING,
            rate(Presence::Optional),
            burst("1"),
        ],
        KEYED_TRANSPORT,
    ],
    build,
};

/// SNS's reference on Publish: a subject is ASCII on one line, "less than 100 characters".
const MAX_SUBJECT_CHARS: usize = 99;
/// Of SNS's interface.
const VERSION: &str = "2010-03-31";
/// Text that was refused once comes again in a size that any subscriber takes.
const MAX_PLAIN_BYTES: usize = 8 * 1024;

/// The sink.
struct SnsSink {
    service: Service,
    topic_arn: String,
    shape: Shape,
}

/// What is stored: the message without its topic.
#[derive(Serialize, Deserialize)]
struct Stored {
    subject: String,
    message: String,
    attributes: Vec<(String, String)>,
}

fn build(
    options: &Options,
    name: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    let topic_arn = options.text("topic_arn")?.trim().to_owned();
    let parts: Vec<&str> = topic_arn.split(':').collect();
    let ["arn", _, "sns", region, _, _] = parts.as_slice() else {
        let message = format!("sink `{name}`: `topic_arn` is no name of a topic");
        let hint = "such as arn:aws:sns:eu-west-1:123456789012:alerts; the topic, not a subscription";
        diagnostics.error("E0476", options.span_of("topic_arn"), message, Some(hint.into()));
        return None;
    };
    let region = Some((*region).to_owned());
    let spec = ServiceSpec { name, service: "sns", region, option: "topic_arn", url: None };
    let service = Service::read(options, spec, context, diagnostics)?;
    Some(Box::new(SnsSink { service, topic_arn, shape: Shape::of(options) }))
}

impl SnsSink {
    async fn attempt(&self, delivery: &Delivery) -> AttemptReport {
        let Ok(stored) = serde_json::from_slice::<Stored>(&delivery.body) else {
            let status = "the stored body has another shape".to_owned();
            return AttemptReport {
                outcome: Outcome::Degrade,
                status,
                excerpt: String::new(),
                spent: None,
                receipt: None,
            };
        };
        let form = self.form(&stored, &delivery.delivery_id);
        self.service.post(headers(), Bytes::from(form), has_message_id).await
    }

    fn form(&self, stored: &Stored, delivery_id: &str) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", "Publish")
            .append_pair("Version", VERSION)
            .append_pair("TopicArn", &self.topic_arn)
            .append_pair("Subject", &stored.subject)
            .append_pair("Message", &stored.message);
        for (index, (name, value)) in stored.attributes.iter().enumerate() {
            let entry = format!("MessageAttributes.entry.{}", index + 1);
            form.append_pair(&format!("{entry}.Name"), name)
                .append_pair(&format!("{entry}.Value.DataType"), "String")
                .append_pair(&format!("{entry}.Value.StringValue"), value);
        }
        let rule = stored.attributes.iter().find(|(name, _)| name == "rule").map_or("", |(_, value)| value.as_str());
        if let Some((group, key)) = aws::fifo(&self.topic_arn, rule, delivery_id) {
            form.append_pair("MessageGroupId", &group).append_pair("MessageDeduplicationId", key);
        }
        form.finish()
    }

    fn text(&self, alert: &Alert, delivery_id: &str, max_bytes: usize) -> String {
        let fits = |text: &str| defang(text).len() <= max_bytes;
        let text = defang(&text::alert_text_within(alert, delivery_id, fits));
        // How many lines were left out stands below them.
        let room = if text.len() <= max_bytes { max_bytes } else { max_bytes.saturating_sub(64) };
        text::lines_within(&text, room, |line| line.len() + 1).join("\n")
    }
}

fn headers() -> HeaderMap {
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
    HeaderMap::from_iter([(CONTENT_TYPE, form_type)])
}

fn has_message_id(answer: &Answer) -> bool {
    element(&String::from_utf8_lossy(&answer.body), "MessageId").is_some_and(|id| !id.is_empty())
}

impl Sink for SnsSink {
    fn kind(&self) -> &'static str {
        SNS.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let room = aws::room(&aws::attributes(alert)).saturating_sub(MAX_SUBJECT_CHARS);
        let message = match (self.shape, context.form) {
            (Shape::Text, Form::Full) => self.text(alert, context.delivery_id, room),
            (Shape::Text, Form::Plain) => self.text(alert, context.delivery_id, MAX_PLAIN_BYTES),
            (Shape::Json(format), Form::Full | Form::Plain) => text_of(format.alert(alert, context, room)?),
        };
        let headline = format!("{}: {}", text::severity_word(alert.rule.severity), text::title(alert));
        stored(alert, &headline, &message)
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let message = match self.shape {
            Shape::Text => defang(&update_text(update, context.delivery_id)),
            Shape::Json(format) => text_of(format.update(update, context)?),
        };
        stored(update.alert, &update.headline(), &message)
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.attempt(delivery))
    }

    fn probe(&self) -> Probe<'_> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", "GetTopicAttributes")
            .append_pair("Version", VERSION)
            .append_pair("TopicArn", &self.topic_arn);
        let form = Bytes::from(form.finish());
        Probe::Asks(Box::pin(async move {
            let asked = ("GetTopicAttributes", "the keys are good and the topic is there");
            let is_answer =
                |answer: &Answer| String::from_utf8_lossy(&answer.body).contains("<GetTopicAttributesResult");
            vec![self.service.ask(asked, headers(), form, is_answer).await]
        }))
    }
}

impl std::fmt::Debug for SnsSink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SnsSink").field("service", &self.service).finish_non_exhaustive()
    }
}

fn text_of(json: Vec<u8>) -> String {
    String::from_utf8_lossy(&json).into_owned()
}

fn stored(alert: &Alert, headline: &str, message: &str) -> Result<Vec<u8>, RenderError> {
    let attributes = aws::attributes(alert).map(|(name, value)| (name.to_owned(), value)).into();
    let stored = Stored { subject: subject(headline), message: aws::allowed(message), attributes };
    serde_json::to_vec(&stored).map_err(|error| RenderError(error.to_string()))
}

/// A subject that holds another character is refused with the whole message.
fn subject(headline: &str) -> String {
    let ascii = |character: char| if character.is_ascii_graphic() || character == ' ' { character } else { '?' };
    let line: String = single_line(&defang(headline), MAX_SUBJECT_CHARS).chars().map(ascii).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde_json::Value;
    use url::Url;
    use vigie_engine::text::{Untrusted, is_unsafe};

    use super::super::update::Told;
    use super::*;
    use crate::sink::contract::{
        self, CANARY, HOSTILE, Loopback, Reply, alert_titled, attempt, delivery, hold, make_hostile, make_long,
        stateful_alert, text_node, update_of,
    };

    const YES: &[u8] = b"<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult>\
                         <MessageId>567910cd-659e-55d4-8ccb-5aaf14679dc0</MessageId></PublishResult></PublishResponse>";
    const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:alerts";

    fn make(endpoint: &Url, topic: &str, format: &str, context: &BuildContext) -> Box<dyn Sink> {
        let options = vec![
            ("topic_arn", text_node(topic)),
            ("format", text_node(format)),
            ("endpoint", text_node(endpoint.as_str())),
            ("access_key_id", text_node("AKIDEXAMPLE")),
            ("secret_access_key", text_node(CANARY)),
        ];
        contract::build("sns", options, context).expect("builds")
    }

    fn sink(format: &str) -> Box<dyn Sink> {
        let url = Url::parse("https://sns.eu-west-1.amazonaws.com/").expect("valid");
        make(&url, TOPIC, format, &contract::context().0)
    }

    fn read(body: &[u8]) -> Stored {
        serde_json::from_slice(body).expect("JSON")
    }

    fn size(stored: &Stored) -> usize {
        let attributes = stored.attributes.iter().map(|(name, value)| name.len() + "String".len() + value.len());
        stored.message.len() + stored.subject.len() + attributes.sum::<usize>()
    }

    #[tokio::test]
    async fn holds_the_contract() {
        for format in ["json", "text"] {
            hold(&|url, context| make(&url, TOPIC, format, context), YES, Outcome::Misconfigured).await;
        }
    }

    #[tokio::test]
    async fn a_message_is_published_with_subject_and_attributes() {
        let server = Loopback::start(Reply::Http("200 OK", vec![], YES.to_vec())).await;
        let sink = make(&server.url("/"), TOPIC, "json", &contract::context().0);
        assert_eq!(attempt(&*sink).await.outcome, Outcome::Delivered);
        let fifo = make(&server.url("/"), &format!("{TOPIC}.fifo"), "text", &contract::context().0);
        let sent = delivery(&*fifo, &alert_titled("t"), Form::Full);
        assert_eq!(fifo.send(&sent).await.outcome, Outcome::Delivered);
        let requests = server.received();
        let authorization = requests[0].header("authorization").expect("signed");
        assert!(
            authorization.contains("/20260304/eu-west-1/sns/aws4_request, SignedHeaders=content-type;host;x-amz-date,")
        );
        let form = |index: usize| -> BTreeMap<String, String> {
            form_urlencoded::parse(&requests[index].body).into_owned().collect()
        };
        let first = form(0);
        for (name, expected) in [
            ("Action", "Publish"),
            ("Version", "2010-03-31"),
            ("TopicArn", TOPIC),
            ("Subject", "HIGH: Number forwarded elsewhere"),
            ("MessageAttributes.entry.1.Name", "rule"),
            ("MessageAttributes.entry.2.Value.StringValue", "high"),
            ("MessageAttributes.entry.3.Value.DataType", "String"),
        ] {
            assert_eq!(first[name], expected, "{name}");
        }
        let message: Value = serde_json::from_str(&first["Message"]).expect("JSON");
        assert_eq!((&message["schema"], first.contains_key("MessageGroupId")), (&"vigie/alert/v1".into(), false));
        let second = form(1);
        assert_eq!(second["MessageGroupId"], "change-from-unexpected-country");
        assert_eq!(second["MessageDeduplicationId"], sent.delivery_id);
        assert!(second["Message"].starts_with("HIGH     t\n"), "{}", second["Message"]);
    }

    #[tokio::test]
    async fn the_code_decides_and_a_page_of_a_proxy_is_no_assent() {
        let error = |code: &str| format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>");
        for (status, body, expected) in [
            ("200 OK", "<html>please log in</html>".to_owned(), Outcome::Retry),
            ("404 Not Found", error("NotFound"), Outcome::Misconfigured),
            ("403 Forbidden", error("AuthorizationError"), Outcome::Misconfigured),
            ("400 Bad Request", error("Throttling"), Outcome::Wait(None)),
            ("400 Bad Request", error("InvalidParameter"), Outcome::Degrade),
        ] {
            let server = Loopback::start(Reply::Http(status, vec![], body.clone().into())).await;
            let report = attempt(&*make(&server.url("/"), TOPIC, "json", &contract::context().0)).await;
            assert_eq!(report.outcome, expected, "{status} {body}");
        }
    }

    #[test]
    fn a_subject_is_short_ascii_on_one_line() {
        for (headline, expected) in [
            ("HIGH: plain", "HIGH: plain"),
            ("HIGH: a\r\nBcc: x\u{1b}", "HIGH: a  Bcc: x\\u{1b}"),
            ("HIGH: 🦀 https://evil.example", "HIGH: ? hxxps[:]//evil[.]example"),
            ("HIGH: \u{202e}gpj", "HIGH: \\u{202e}gpj"),
        ] {
            assert_eq!(subject(headline), expected);
        }
        assert_eq!(subject(&"a".repeat(99)), "a".repeat(99));
        assert_eq!(subject(&"a".repeat(100)), format!("{}?", "a".repeat(98)));
    }

    #[test]
    fn a_message_fits_and_nothing_in_it_steers() {
        for format in ["json", "text"] {
            for character in ["a", "🦀", "\u{202e}", "http://a", "\u{ffff}"] {
                let mut alert = stateful_alert();
                make_long(&mut alert, character);
                alert.title = Untrusted::new(character.repeat(5_000));
                for form in [Form::Full, Form::Plain] {
                    let stored = read(&delivery(&*sink(format), &alert, form).body);
                    assert!(size(&stored) <= aws::MAX_MESSAGE_BYTES, "{format} {character}");
                    assert!(stored.subject.is_ascii() && stored.subject.len() <= MAX_SUBJECT_CHARS);
                    assert!(format == "json" || form == Form::Full || stored.message.len() <= MAX_PLAIN_BYTES);
                }
            }
            let mut hostile = stateful_alert();
            make_hostile(&mut hostile, &format!("{HOSTILE}\u{0}\u{fffe}"));
            let context = RenderContext { delivery_id: "d2", now: hostile.first_at, form: Form::Full };
            let closing = Told::Closing { quiet: Duration::from_secs(60) };
            let update = sink(format).render_update(&update_of(&hostile, closing), &context).expect("renders");
            for body in [delivery(&*sink(format), &hostile, Form::Full).body, update] {
                let stored = read(&body);
                assert!(
                    !stored.message.chars().any(|c| c != '\n' && (is_unsafe(c) || c == '\u{fffe}')),
                    "{}",
                    stored.message
                );
                assert!(format == "json" || !stored.message.contains("://"), "{}", stored.message);
            }
        }
    }

    #[test]
    fn what_fills_a_message_to_the_last_byte_is_whole() {
        let mut alert = alert_titled("t");
        let padded = |count: usize| {
            serde_json::value::RawValue::from_string(format!("{{\"pad\":\"{}\"}}", "a".repeat(count))).expect("valid")
        };
        let has_event = |alert: &Alert| {
            let stored = read(&delivery(&*sink("json"), alert, Form::Full).body);
            serde_json::from_str::<Value>(&stored.message).expect("JSON")["event"].is_object()
        };
        alert.event = padded(0);
        let used = read(&delivery(&*sink("json"), &alert, Form::Full).body).message.len();
        let room = aws::room(&aws::attributes(&alert)) - MAX_SUBJECT_CHARS - used;
        alert.event = padded(room);
        assert!(has_event(&alert));
        alert.event = padded(room + 1);
        assert!(!has_event(&alert));
    }

    #[test]
    fn a_name_that_is_no_topic_is_refused() {
        for topic in ["alerts", "arn:aws:sqs:eu-west-1:123456789012:alerts", &format!("{TOPIC}:0a1b2c3d")] {
            let options = vec![
                ("topic_arn", text_node(topic)),
                ("access_key_id", text_node("AKIDEXAMPLE")),
                ("secret_access_key", text_node(CANARY)),
            ];
            let told = contract::build("sns", options, &contract::context().0).err().expect("refused");
            assert!(told.contains("E0476"), "{told}");
        }
    }
}
