//! `webhook`: the alert as JSON by POST or PUT, signed as Standard Webhooks say, anew at each attempt (the stamp is part of what
//! is signed); the body and `webhook-id` stay the same.
//!
//! Several secrets give several signatures, so that a receiver can change its secret without losing an alert. It never fails
//! for size: beyond `max_body` the raw event is left out and marked.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use sha2::Sha256;
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;

use super::bound::{Bound, Most, Unit};
use super::format::{FORMAT_WITH_HEADERS, Format};
use super::http::login::{self, PASSWORD, USER};
use super::http::{Endpoint, TRANSPORT};
use super::probe::Probe;
use super::update::{CLOSING, UPDATES, Update};
use super::{AttemptReport, BuildContext, Delivery, Outcome, RenderContext, RenderError, RetryProfile, Sink, SinkKind};
use crate::clock::Clock;
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;

/// As the configuration knows it.
pub const WEBHOOK: SinkKind = SinkKind {
    kind: KIND,
    example: "soc:\n  webhook:\n    url: ${SOC_URL}\n    secret: ${SOC_SECRET}\n",
    bounds: &[BODY],
    options: &[OPTIONS, TRANSPORT],
    build: |options, name, context, diagnostics| build(KIND, options, name, context, diagnostics),
};
/// The webhook that begins a story of Tines: the Alert JSON to a URL that is all there is to know.
pub const TINES: SinkKind = SinkKind {
    kind: KIND_TINES,
    example: "story:\n  tines:\n    url: ${TINES_URL}\n",
    bounds: &[BODY],
    options: &[
        &[
            OptionSpec {
                name: "url",
                kind: OptionKind::Url(&["https", "http"]),
                presence: Presence::Required,
                help: "URL of the story's webhook action; it is a secret",
            },
            MAX_BODY,
            UPDATES,
            CLOSING,
            super::rate(Presence::Optional),
            super::burst("1"),
        ],
        TRANSPORT,
    ],
    build: |options, name, context, diagnostics| build(KIND_TINES, options, name, context, diagnostics),
};

const KIND: &str = "webhook";
const KIND_TINES: &str = "tines";
const BODY: Bound = Bound { what: "body", most: Most::Option(MAX_BODY.name), unit: Unit::Bytes, used: <[u8]>::len };
const MAX_BODY: OptionSpec = OptionSpec {
    name: "max_body",
    kind: OptionKind::Size(4 << 10, 1 << 20),
    presence: Presence::Default("20KB"),
    help: "beyond this the raw event is left out; receivers of Standard Webhooks expect at most 20 KB",
};
const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "url",
        kind: OptionKind::Url(&["https", "http"]),
        presence: Presence::Required,
        help: "where alerts are sent to; redirects are not followed",
    },
    OptionSpec {
        name: "secret",
        kind: OptionKind::Secrets,
        presence: Presence::Optional,
        help: "whsec_<base64> to sign with; during a rotation a list, newest first",
    },
    OptionSpec {
        name: "method",
        kind: OptionKind::Choice(&["POST", "PUT"]),
        presence: Presence::Default("POST"),
        help: "method of the request",
    },
    USER,
    PASSWORD,
    FORMAT_WITH_HEADERS,
    MAX_BODY,
    UPDATES,
    CLOSING,
    super::rate(Presence::Optional),
    super::burst("1"),
];

/// Prefix of a signing secret.
const SECRET_PREFIX: &str = "whsec_";
/// Secrets during a rotation.
const MAX_SECRETS: usize = 5;
/// Below this a key can be guessed; the specification asks for 24 to 64 bytes.
const MIN_KEY_BYTES: usize = 24;
/// People paste keys with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A signing key.
pub struct SigningKey(Vec<u8>);

/// The sink.
struct WebhookSink {
    kind: &'static str,
    endpoint: Endpoint,
    method: Method,
    keys: Vec<SigningKey>,
    format: Format,
    max_body_bytes: usize,
    clock: Arc<dyn Clock>,
}

fn build(
    kind: &'static str,
    options: &Options,
    name: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    let keys = read_keys(options, name, diagnostics);
    let endpoint = login::endpoint(options, "url", options.secrets("secret").to_vec(), context, diagnostics);
    Some(Box::new(WebhookSink {
        kind,
        endpoint: endpoint?,
        method: if options.text("method") == Some("PUT") { Method::PUT } else { Method::POST },
        keys: keys?,
        format: Format::of(options),
        max_body_bytes: usize::try_from(options.integer(MAX_BODY.name)?).unwrap_or(usize::MAX),
        clock: Arc::clone(&context.clock),
    }))
}

impl SigningKey {
    /// Reads `whsec_<base64>`.
    ///
    /// # Errors
    /// A sentence that never holds any of the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let encoded = text.trim().strip_prefix(SECRET_PREFIX).ok_or("does not start with whsec_")?;
        let key = LENIENT.decode(encoded).map_err(|_| "is not base64 after whsec_")?;
        if key.is_empty() { Err("holds no key") } else { Ok(Self(key)) }
    }

    /// `v1,<base64 HMAC-SHA256 of id.timestamp.body>`.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        // HMAC takes a key of any length, so this cannot fail.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{id}.{timestamp_s}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl WebhookSink {
    fn request_headers(&self, delivery: &Delivery) -> Result<HeaderMap, reqwest::header::InvalidHeaderValue> {
        let mut headers = HeaderMap::new();
        let timestamp_s = self.clock.now().timestamp();
        for (name, value) in self.format.headers(delivery) {
            headers.insert(name, HeaderValue::from_str(&value)?);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.format.content_type()));
        headers.insert("webhook-id", HeaderValue::from_str(&delivery.delivery_id)?);
        headers.insert("webhook-timestamp", HeaderValue::from(timestamp_s));
        if !self.keys.is_empty() {
            let signatures = self.keys.iter().map(|key| key.sign(&delivery.delivery_id, timestamp_s, &delivery.body));
            let signatures = signatures.collect::<Vec<_>>().join(" ");
            headers.insert("webhook-signature", HeaderValue::from_str(&signatures)?);
        }
        Ok(headers)
    }

    async fn attempt(&self, delivery: &Delivery) -> AttemptReport {
        let headers = match self.request_headers(delivery) {
            Ok(headers) => headers,
            Err(error) => {
                let status = "delivery id is no header value".into();
                return AttemptReport {
                    outcome: Outcome::Dead,
                    status,
                    excerpt: error.to_string(),
                    spent: None,
                    receipt: None,
                };
            }
        };
        match self.endpoint.send(self.method.clone(), headers, Bytes::copy_from_slice(&delivery.body)).await {
            // Of a story the URL is all that the operator gave: gone means moved.
            Ok(answer) if self.kind == KIND_TINES => {
                self.endpoint.report(&answer, answer.unless_page(answer.outcome_unless(&[])))
            }
            Ok(answer) => self.endpoint.report(&answer, answer.outcome()),
            Err(report) => report,
        }
    }
}

impl Sink for WebhookSink {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        self.format.alert(alert, context, self.max_body_bytes)
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        self.format.update(update, context)
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.attempt(delivery))
    }

    fn probe(&self) -> Probe<'_> {
        Probe::Nothing("what a webhook makes of another request is its own business")
    }
}

impl std::fmt::Debug for WebhookSink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("WebhookSink").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

fn read_keys(options: &Options, name: &str, diagnostics: &mut Diagnostics) -> Option<Vec<SigningKey>> {
    let secrets = options.secrets("secret");
    let mut keys = Vec::new();
    let hint = || Some("make one with: echo whsec_$(openssl rand -base64 32)".to_owned());
    if secrets.len() > MAX_SECRETS {
        let message = format!("sink `{name}`: {} secrets, at most {MAX_SECRETS} are used at a time", secrets.len());
        let hint = "remove the oldest: receivers need only the one that they know and its successor";
        diagnostics.error("E0425", options.span_of("secret"), message, Some(hint.into()));
        return None;
    }
    for (index, secret) in secrets.iter().enumerate() {
        match SigningKey::parse(secret.expose()) {
            Ok(key) => {
                if key.0.len() < MIN_KEY_BYTES {
                    let message = format!("sink `{name}`: secret {} holds fewer than {MIN_KEY_BYTES} bytes", index + 1);
                    diagnostics.warning("W0425", options.span_of("secret"), message, hint());
                }
                keys.push(key);
            }
            Err(why) => {
                let message = format!("sink `{name}`: secret {} {why}", index + 1);
                diagnostics.error("E0425", options.span_of("secret"), message, hint());
            }
        }
    }
    (keys.len() == secrets.len()).then_some(keys)
}

#[cfg(test)]
mod tests {
    use standardwebhooks::Webhook;
    use url::Url;

    use super::*;
    use crate::sink::Form;
    use crate::sink::contract::{
        self, CANARY, HOSTILE, Loopback, Reply, alert_titled, delivery, hold, list_node, map_node, text_node,
    };

    /// 33 bytes; the canary is part of the text.
    fn secret(head: &str) -> String {
        format!("whsec_{head}{CANARY}MfKQ9r8GKYqrTwjUPD8I")
    }

    fn make(url: &Url, context: &BuildContext, secrets: &[String]) -> Box<dyn Sink> {
        let entries = vec![
            ("url", text_node(url.as_str())),
            ("secret", list_node(secrets.iter().map(|secret| text_node(secret)).collect())),
            ("headers", map_node(vec![("Authorization", text_node(&format!("Bearer {CANARY}")))])),
        ];
        contract::build("webhook", entries, context).expect("builds")
    }

    #[tokio::test]
    async fn holds_the_contract() {
        hold(&|url, context| make(&url, context, &[secret("A")]), b"", Outcome::Dead).await;
    }

    #[tokio::test]
    async fn a_story_holds_the_contract_too_and_gets_the_alert_as_it_is() {
        let make = |url: Url, context: &BuildContext| {
            contract::build("tines", vec![("url", text_node(url.as_str()))], context).expect("builds")
        };
        // What a webhook action of Tines says unless its author chose other words.
        hold(&make, b"Ok", Outcome::Misconfigured).await;
        let server = Loopback::start(Reply::Http("410 Gone", vec![], vec![])).await;
        let sink = make(server.url("/webhook/a/b"), &contract::context().0);
        assert_eq!((sink.kind(), contract::attempt(&*sink).await.outcome), ("tines", Outcome::Misconfigured));
        let sent: serde_json::Value = serde_json::from_slice(&server.received()[0].body).expect("JSON");
        assert_eq!(sent["schema"], "vigie/alert/v1");
    }

    #[tokio::test]
    async fn gone_is_gone_and_put_is_put() {
        let server = Loopback::start(Reply::Http("410 Gone", vec![], vec![])).await;
        let entries = vec![("url", text_node(server.url("/").as_str())), ("method", text_node("PUT"))];
        let sink = contract::build("webhook", entries, &contract::context().0).expect("builds");
        assert_eq!(contract::attempt(&*sink).await.outcome, Outcome::Dead);
        let request = server.received().remove(0);
        assert!(request.head.starts_with("PUT / HTTP/1.1"), "{}", request.head);
        assert_eq!(request.header("webhook-signature"), None);
    }

    #[tokio::test]
    async fn a_later_attempt_signs_anew_over_the_same_bytes() {
        let server = Loopback::start(Reply::Http("503 Busy", vec![], vec![])).await;
        let (mut context, _) = contract::context();
        let sink = make(&server.url("/"), &context, &[secret("A")]);
        let sent = delivery(&*sink, &alert_titled("t"), Form::Full);
        sink.send(&sent).await;
        context.clock = Arc::new(crate::clock::SystemClock);
        make(&server.url("/"), &context, &[secret("A")]).send(&sent).await;
        let requests = server.received();
        let [first, second] = requests.as_slice() else { panic!("two attempts: {requests:?}") };
        assert_eq!((&first.body, first.header("webhook-id")), (&second.body, second.header("webhook-id")));
        assert_eq!(first.header("webhook-timestamp"), Some("1772600767"));
        for changed in ["webhook-timestamp", "webhook-signature"] {
            assert_ne!(first.header(changed), second.header(changed), "{changed}");
        }
        assert_eq!(first.header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
    }

    #[tokio::test]
    async fn every_signature_verifies_with_the_reference_library() {
        let server = Loopback::start(Reply::Http("204 No Content", vec![], vec![])).await;
        let clock: Arc<dyn Clock> = Arc::new(crate::clock::SystemClock);
        let (mut context, _) = contract::context();
        context.clock = clock;
        let secrets = [secret("A"), secret("B")];
        let sink = make(&server.url("/"), &context, &secrets);
        let sent = delivery(&*sink, &alert_titled(HOSTILE), Form::Full);
        assert_eq!(sink.send(&sent).await.outcome, Outcome::Delivered);
        let request = server.received().remove(0);
        assert_eq!(request.body, sent.body);
        assert_eq!(request.header("webhook-id"), Some(sent.delivery_id.as_str()));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let mut headers = http_headers(&request);
        for secret in &secrets {
            Webhook::new(secret).expect("a key").verify(&request.body, &headers).expect("verifies");
        }
        assert!(Webhook::new(&secret("C")).expect("a key").verify(&request.body, &headers).is_err());
        headers.insert("webhook-id", "other".parse().expect("valid"));
        assert!(Webhook::new(&secrets[0]).expect("a key").verify(&request.body, &headers).is_err());
    }

    #[tokio::test]
    async fn a_cloud_event_is_signed_like_any_alert() {
        let (mut context, _) = contract::context();
        context.clock = Arc::new(crate::clock::SystemClock);
        for (format, content_type, id) in [
            ("cloudevents", "application/cloudevents+json; charset=utf-8", None),
            ("cloudevents-binary", "application/json", Some(())),
            ("ecs", "application/json", None),
        ] {
            let server = Loopback::start(Reply::Http("204 No Content", vec![], vec![])).await;
            let options = vec![
                ("url", text_node(server.url("/").as_str())),
                ("secret", text_node(&secret("A"))),
                ("format", text_node(format)),
            ];
            let sink = contract::build("webhook", options, &context).expect("builds");
            let sent = delivery(&*sink, &alert_titled(HOSTILE), Form::Full);
            assert_eq!(sink.send(&sent).await.outcome, Outcome::Delivered);
            let request = server.received().remove(0);
            assert_eq!(request.header("content-type"), Some(content_type), "{format}");
            assert_eq!(request.header("ce-id"), id.map(|()| sent.delivery_id.as_str()), "{format}");
            assert_eq!(request.header("ce-type"), id.map(|()| "vigie.alert.v1"), "{format}");
            let headers = http_headers(&request);
            Webhook::new(&secret("A")).expect("a key").verify(&request.body, &headers).expect("verifies");
        }
    }

    fn http_headers(request: &contract::Received) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers.insert(name, request.header(name).expect("present").parse().expect("valid"));
        }
        headers
    }

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // Example of the Standard Webhooks specification's reference libraries.
        let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("valid");
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_large_event_is_left_out_and_marked_and_nothing_is_refused() {
        let (context, _) = contract::context();
        let url = Url::parse("https://hooks.example.org/x").expect("valid");
        let sink = make(&url, &context, &[secret("A")]);
        let mut alert = alert_titled("t");
        let size_of = |alert: &Alert| delivery(&*sink, alert, Form::Full).body;
        let padded = |count: usize| {
            serde_json::value::RawValue::from_string(format!("{{\"pad\":\"{}\"}}", "a".repeat(count))).expect("valid")
        };
        alert.event = padded(0);
        let room = 20_000 - size_of(&alert).len();
        alert.event = padded(room);
        let at_limit: serde_json::Value = serde_json::from_slice(&size_of(&alert)).expect("JSON");
        assert!(at_limit["event"]["pad"].is_string() && size_of(&alert).len() == 20_000);
        alert.event = padded(room + 1);
        let beyond: serde_json::Value = serde_json::from_slice(&size_of(&alert)).expect("JSON");
        assert!(beyond["event"].is_null() && beyond["event_omitted"]["limit_bytes"] == 20_000, "{beyond}");
        alert.reason[0].actual = Some(vigie_engine::text::Untrusted::new("🦀".repeat(60_000)));
        let longest = size_of(&alert);
        assert!(longest.len() <= 20_000, "{}", longest.len());
        let lean: serde_json::Value = serde_json::from_slice(&longest).expect("JSON");
        assert_eq!(lean["reason"][0]["actual"].as_str().map(|text| text.chars().count()), Some(256));
    }

    #[test]
    fn wrong_options_are_told_without_the_secret() {
        let (context, _) = contract::context();
        let url = || ("url", text_node("https://hooks.example.org/x"));
        let header = |name, value: &str| ("headers", map_node(vec![(name, text_node(value))]));
        let cases = [
            (vec![url(), ("secret", text_node(CANARY))], "E0425"),
            (vec![url(), ("secret", text_node("whsec_%%"))], "E0425"),
            (vec![url(), ("secret", list_node((0..6).map(|_| text_node(&secret("A"))).collect()))], "E0425"),
            (vec![url(), header("Host", "x")], "E0426"),
            (vec![url(), header("webhook-ID", "x")], "E0426"),
            (vec![url(), header("a b", "x")], "E0426"),
            (vec![url(), header("X-A", &format!("{CANARY}\r\nX: y"))], "E0426"),
            (vec![("url", text_node(&format!("http://169.254.169.254/{CANARY}")))], "E0421"),
            (vec![("url", text_node("http://127.0.0.1/")), ("allow_private", text_node("false"))], "E0421"),
            (vec![url(), ("ca_file", text_node("/nonexistent.pem"))], "E0422"),
            (vec![url(), ("method", text_node("GET"))], "E0403"),
        ];
        for (entries, code) in cases {
            let told = contract::build("webhook", entries, &context).err().expect("refused");
            assert!(told.contains(code), "{code}: {told}");
        }
    }
}
