//! `slack_bot`: `chat.postMessage` with a bot's token. Updates stand in the thread of their alert, and the alert itself is
//! edited to what it has become.
//!
//! What Slack calls the message (channel and `ts`) is the receipt of its delivery, kept in the store, so that an update finds
//! it after a restart. An update whose alert has no receipt is posted by itself: nothing waits for a thread. The edit goes
//! first, because it may be repeated; the answer to the reply decides. Once the operator names another channel, replies go
//! there by themselves, for the thread stayed behind.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use url::Url;
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;

use super::{BOUNDS, MAX_TEXT_UNITS, bytes, escape, fit, full, outcome, plain_payload};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;
use crate::secret::{Secret, SinkUrl};
use crate::sink::format::with_member;
use crate::sink::http::{Endpoint, KEYED_TRANSPORT, endpoint_at};
use crate::sink::probe::{Probe, Question};
use crate::sink::text::defang;
use crate::sink::update::{CLOSING, UPDATES, Update, update_text};
use crate::sink::{
    AttemptReport, BuildContext, DIGEST, Delivery, Form, Outcome, RenderContext, RenderError, RetryProfile, Sink,
    SinkKind, burst, rate,
};

/// As the configuration knows it.
pub const SLACK_BOT: SinkKind = SinkKind {
    kind: "slack_bot",
    example: "chat:\n  slack_bot:\n    token: ${SLACK_BOT_TOKEN}\n    channel: C0123ABCD\n    updates: every 10m\n",
    bounds: BOUNDS,
    options: &[
        &[
            OptionSpec {
                name: "token",
                kind: OptionKind::Secret,
                presence: Presence::Required,
                help: "token of the bot (xoxb-...), with the scope chat:write",
            },
            OptionSpec {
                name: "channel",
                kind: OptionKind::Text,
                presence: Presence::Required,
                help: "id of the channel (C0123ABCD), to which the bot was invited",
            },
            OptionSpec {
                name: "url",
                kind: OptionKind::Url(&["https", "http"]),
                presence: Presence::Default("https://slack.com/api"),
                help: "where Slack's Web API is",
            },
            OptionSpec {
                name: "edit",
                kind: OptionKind::Flag,
                presence: Presence::Default("true"),
                help: "whether an update also changes the alert's own message to what it has become",
            },
            DIGEST,
            UPDATES,
            CLOSING,
            // Slack's page on rate limits: one message a second for each channel, short bursts are let through.
            rate(Presence::Default("1/s")),
            burst("3"),
        ],
        KEYED_TRANSPORT,
    ],
    build,
};

/// Member of a stored update under which the alert's message as it is now stands; never sent as it is.
const EDIT: &str = "edit";
/// Words of a refused edit that no repetition would change, though they read like a passing failure.
const WORDS_NOT_EDITED: &[&str] =
    &["cant_update_message", "edit_window_closed", "message_not_found", "msg_too_long", "update_failed"];

struct BotSink {
    post: Endpoint,
    update: Endpoint,
    token: Secret,
    channel: String,
    edits: bool,
}

fn build(options: &Options, _: &str, context: &BuildContext, diagnostics: &mut Diagnostics) -> Option<Box<dyn Sink>> {
    let token = options.secret("token")?.clone();
    let base = options.url("url")?;
    let mut endpoint = |method: &str| {
        let url = SinkUrl::new(at(base, method));
        endpoint_at(url, options, "url", vec![token.clone()], context, diagnostics)
    };
    let (post, update) = (endpoint("chat.postMessage")?, endpoint("chat.update")?);
    let channel = options.text("channel")?.to_owned();
    Some(Box::new(BotSink { post, update, token, channel, edits: options.flag("edit") }))
}

fn at(base: &Url, method: &str) -> Url {
    let mut url = base.clone();
    let root = base.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{root}/{method}"));
    url
}

impl BotSink {
    async fn attempt(&self, delivery: &Delivery) -> AttemptReport {
        let headers = match self.headers() {
            Ok(headers) => headers,
            Err(error) => {
                let (outcome, status) = (Outcome::Misconfigured, "the token is no header value".to_owned());
                return AttemptReport { outcome, status, excerpt: error.to_string(), spent: None, receipt: None };
            }
        };
        let Ok(Value::Object(mut stored)) = serde_json::from_slice(&delivery.body) else {
            // A body that was reduced to one line.
            let text = String::from_utf8_lossy(&delivery.body);
            let body = json!({"text": escape(&fit(&defang(&text), MAX_TEXT_UNITS)), "mrkdwn": false});
            return self.posted(headers, &bytes(&body)).await;
        };
        let edit = stored.remove(EDIT);
        let told: Option<Receipt> = delivery.about_receipt.as_deref().and_then(Receipt::read);
        if let (Some(edit), Some(told)) = (edit.filter(|_| self.edits), &told)
            && let Err(report) = self.edited(headers.clone(), edit, told).await
        {
            return report;
        }
        if let Some(told) = told.filter(|told| self.may_hold(&told.channel)) {
            stored.insert("thread_ts".into(), told.ts.into());
        }
        self.posted(headers, &bytes(&Value::Object(stored))).await
    }

    /// Posts a message; its receipt is what Slack calls it.
    async fn posted(&self, headers: HeaderMap, body: &[u8]) -> AttemptReport {
        let body = Bytes::from(with_member(body, "channel", &self.channel));
        match self.post.send(Method::POST, headers, body).await {
            Ok(answer) => {
                let mut report = self.post.report(&answer, outcome(&answer));
                if report.outcome == Outcome::Delivered {
                    report.receipt = Receipt::of_answer(&answer.body);
                }
                report
            }
            Err(report) => report,
        }
    }

    /// Whether a message in this channel can be one of the channel that is configured now. A name or a person says nothing
    /// of ids, which is all that a receipt holds.
    fn may_hold(&self, told: &str) -> bool {
        let is_id = self.channel.starts_with(['C', 'D', 'G'])
            && self.channel.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        !is_id || self.channel == told
    }

    /// Changes the alert's message. An error is a report that ends the attempt: nothing was posted yet. What the operator
    /// could mend is no reason to end it, for it may be about a channel that was left behind.
    async fn edited(&self, headers: HeaderMap, edit: Value, told: &Receipt) -> Result<(), AttemptReport> {
        let body = with_member(&bytes(&edit), "ts", &told.ts);
        let body = Bytes::from(with_member(&body, "channel", &told.channel));
        let answer = self.update.send(Method::POST, headers, body).await?;
        let report = self.update.report(&answer, outcome(&answer));
        let said: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let word = said.as_ref().and_then(|said| said["error"].as_str()).unwrap_or_default();
        let is_in_doubt = matches!(report.outcome, Outcome::Retry | Outcome::Wait(_));
        if is_in_doubt && !WORDS_NOT_EDITED.contains(&word) { Err(report) } else { Ok(()) }
    }

    fn headers(&self) -> Result<HeaderMap, reqwest::header::InvalidHeaderValue> {
        let mut token = HeaderValue::from_str(&format!("Bearer {}", self.token.expose()))?;
        token.set_sensitive(true);
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        Ok(HeaderMap::from_iter([(AUTHORIZATION, token), (CONTENT_TYPE, json)]))
    }
}

/// The alert as it is now. `chat.update` knows no other member, and would look for links in the text unless told not to.
fn edit(update: &Update<'_>) -> Value {
    let message = full(update.alert, update.alert_delivery_id);
    json!({"text": message["text"], "blocks": message["blocks"], "parse": "none"})
}

/// What Slack calls a message.
struct Receipt {
    channel: String,
    ts: String,
}

impl Receipt {
    fn read(text: &str) -> Option<Self> {
        let read: Value = serde_json::from_str(text).ok()?;
        let member = |name: &str| read[name].as_str().map(str::to_owned);
        Some(Self { channel: member("channel")?, ts: member("ts")? })
    }

    /// As it is kept: of an answer only what is needed, and only where it looks like what it should be.
    fn of_answer(body: &[u8]) -> Option<String> {
        let Self { channel, ts } = Self::read(std::str::from_utf8(body).ok()?)?;
        let is_plain =
            |text: &str| !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic());
        (is_plain(&channel) && is_plain(&ts)).then(|| json!({"channel": channel, "ts": ts}).to_string())
    }
}

impl Sink for BotSink {
    fn kind(&self) -> &'static str {
        SLACK_BOT.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Person
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let mut payload = match context.form {
            Form::Full => full(alert, context.delivery_id),
            Form::Plain => plain_payload(alert, context.delivery_id),
        };
        // What Slack may refuse for the metadata is taken without.
        if context.form == Form::Full {
            payload["metadata"] = json!({
                "event_type": "vigie_alert",
                "event_payload": {"alert_id": alert.alert_id, "delivery_id": context.delivery_id},
            });
        }
        Ok(bytes(&payload))
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let shown = defang(&update_text(update, context.delivery_id));
        Ok(bytes(&json!({
            "text": escape(&fit(&shown, MAX_TEXT_UNITS)),
            "mrkdwn": false,
            "unfurl_links": false,
            "unfurl_media": false,
            EDIT: edit(update),
        })))
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.attempt(delivery))
    }

    fn probe(&self) -> Probe<'_> {
        Probe::Asks(Box::pin(async {
            let Ok(headers) = self.headers() else { return Vec::new() };
            let place = ("chat.postMessage", "auth.test");
            let body = Some(Bytes::from_static(b"{}"));
            let test = Question { body, judge: outcome, ..Question::get("auth.test", "the token is good", place) };
            vec![test.ask(&self.post, headers).await]
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::update::Told;
    use super::*;
    use crate::sink::contract::{
        self, CANARY, HOSTILE, Loopback, Reply, alert_titled, attempt, delivery, hold, text_node, update_of,
    };

    const YES: &[u8] = br#"{"ok":true,"channel":"C0123","ts":"1700.0001"}"#;

    fn make(url: &Url, context: &BuildContext) -> Box<dyn Sink> {
        make_for("C0123", url, context)
    }

    fn make_for(channel: &str, url: &Url, context: &BuildContext) -> Box<dyn Sink> {
        let options =
            vec![("token", text_node(CANARY)), ("channel", text_node(channel)), ("url", text_node(url.as_str()))];
        contract::build("slack_bot", options, context).expect("builds")
    }

    fn updating(sink: &dyn Sink, alert: &Alert, receipt: Option<&str>) -> Delivery {
        let context = RenderContext { delivery_id: "d2", now: alert.first_at, form: Form::Full };
        let body = sink.render_update(&update_of(alert, Told::More), &context).expect("renders");
        let about_receipt = receipt.map(str::to_owned);
        Delivery { delivery_id: "d2".into(), body, about_receipt, ..delivery(sink, alert, Form::Full) }
    }

    #[tokio::test]
    async fn holds_the_contract() {
        hold(&|url, context| make(&url, context), YES, Outcome::Dead).await;
    }

    #[tokio::test]
    async fn a_message_is_posted_with_the_token_and_its_receipt_kept() {
        let server = Loopback::start(Reply::Http("200 OK", vec![], YES.to_vec())).await;
        let sink = make(&server.url("/api/"), &contract::context().0);
        let stored = String::from_utf8(delivery(&*sink, &alert_titled(HOSTILE), Form::Full).body).expect("UTF-8");
        assert!(!stored.contains("C0123") && !stored.contains(CANARY) && !stored.contains('<'), "{stored}");
        let report = attempt(&*sink).await;
        assert_eq!(report.receipt.as_deref(), Some(r#"{"channel":"C0123","ts":"1700.0001"}"#));
        let request = &server.received()[0];
        assert!(request.head.starts_with("POST /api/chat.postMessage "), "{}", request.head);
        assert_eq!(request.header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
        let sent: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!((&sent["channel"], &sent["thread_ts"]), (&json!("C0123"), &Value::Null));
        assert_eq!(sent["metadata"]["event_payload"]["alert_id"], alert_titled("t").alert_id.as_str());
        let plain: Value =
            serde_json::from_slice(&delivery(&*sink, &alert_titled("t"), Form::Plain).body).expect("JSON");
        assert_eq!(plain.get("metadata"), None);
    }

    #[tokio::test]
    async fn an_update_edits_its_alert_and_stands_in_its_thread() {
        let server = Loopback::start(Reply::Http("200 OK", vec![], YES.to_vec())).await;
        let sink = make(&server.url("/"), &contract::context().0);
        let alert = alert_titled("t");
        let receipt = r#"{"channel":"C0123","ts":"1600.5"}"#;
        assert_eq!(sink.send(&updating(&*sink, &alert, Some(receipt))).await.outcome, Outcome::Delivered);
        let received = server.received();
        let bodies: Vec<Value> =
            received.iter().map(|sent| serde_json::from_slice(&sent.body).expect("JSON")).collect();
        assert!(
            received[0].head.starts_with("POST /chat.update ")
                && received[1].head.starts_with("POST /chat.postMessage ")
        );
        assert_eq!((&bodies[0]["channel"], &bodies[0]["ts"]), (&json!("C0123"), &json!("1600.5")));
        assert!(bodies[0]["blocks"].is_array());
        let mut members: Vec<&String> = bodies[0].as_object().expect("an object").keys().collect();
        members.sort();
        assert_eq!(members, ["blocks", "channel", "parse", "text", "ts"], "what chat.update knows");
        assert_eq!((&bodies[1]["thread_ts"], &bodies[1]["edit"]), (&json!("1600.5"), &Value::Null));

        let alone = sink.send(&updating(&*sink, &alert, None)).await;
        assert_eq!((alone.outcome, server.received().len()), (Outcome::Delivered, 3), "no receipt: by itself");
    }

    #[tokio::test]
    async fn an_edit_that_is_refused_for_good_keeps_no_reply_back_and_one_in_doubt_does() {
        for (said, outcome, requests) in [
            (r#"{"ok":false,"error":"edit_window_closed"}"#, Outcome::Retry, 2),
            (r#"{"ok":false,"error":"internal_error"}"#, Outcome::Retry, 1),
            (r#"{"ok":false,"error":"token_revoked"}"#, Outcome::Misconfigured, 2),
            (r#"{"ok":false,"error":"ratelimited"}"#, Outcome::Wait(None), 1),
        ] {
            let server = Loopback::start(Reply::Http("200 OK", vec![], said.into())).await;
            let sink = make(&server.url("/"), &contract::context().0);
            let update = updating(&*sink, &alert_titled("t"), Some(r#"{"channel":"C9","ts":"1"}"#));
            let report = sink.send(&update).await;
            assert_eq!((report.outcome, server.received().len()), (outcome, requests), "{said}");
        }
    }

    #[tokio::test]
    async fn a_channel_that_was_left_behind_holds_nothing_up() {
        for (channel, word, thread) in [
            ("C0123", "not_in_channel", Value::Null),
            ("C0123", "is_inactive", Value::Null),
            ("C9", "channel_not_found", json!("1")),
            ("#alerts", "is_archived", json!("1")),
            ("U0123", "edit_window_closed", json!("1")),
        ] {
            let refusal = format!(r#"{{"ok":false,"error":"{word}"}}"#).into_bytes();
            let said = |body: Vec<u8>| Reply::Http("200 OK", vec![], body);
            let server = Loopback::start(Reply::in_turn([said(refusal), said(YES.to_vec())])).await;
            let sink = make_for(channel, &server.url("/"), &contract::context().0);
            let update = updating(&*sink, &alert_titled("t"), Some(r#"{"channel":"C9","ts":"1"}"#));
            assert_eq!(sink.send(&update).await.outcome, Outcome::Delivered, "{channel} {word}");
            let reply: Value = serde_json::from_slice(&server.received()[1].body).expect("JSON");
            assert_eq!((&reply["channel"], &reply["thread_ts"]), (&json!(channel), &thread), "{channel} {word}");
        }
    }

    #[test]
    fn a_receipt_is_kept_only_if_it_looks_like_one() {
        let kept = |body: &str| Receipt::of_answer(body.as_bytes());
        assert!(kept(r#"{"channel":"C9","ts":"1.2","message":{"text":"x"}}"#).is_some_and(|kept| !kept.contains('x')));
        for bad in [r#"{"channel":"C 9","ts":"1"}"#, r#"{"channel":"C9"}"#, "ok", r#"{"channel":"","ts":"1"}"#] {
            assert_eq!(kept(bad), None, "{bad}");
        }
    }
}
