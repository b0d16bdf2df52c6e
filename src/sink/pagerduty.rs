//! `pagerduty`: Events API v2. An alert triggers an incident, what folds into it triggers the same again, and its closing
//! note resolves it.
//!
//! The alert's id is the deduplication key, so that no retry makes a second incident. The routing key is put in when it is
//! sent and is never stored.

use bytes::Bytes;
use serde_json::{Value, json};
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::rule::Severity;
use vigie_engine::text::single_line;

use super::bound::{Bound, Most, Unit};
use super::format::{inert_json, stamp, with_member};
use super::http::answer::Answer;
use super::http::{Endpoint, TRANSPORT, endpoint};
use super::probe::Probe;
use super::text::{self, Extent, MAX_VALUE_CHARS, defang};
use super::update::{CLOSING, Told, UPDATES, Update};
use super::{
    AttemptReport, BuildContext, DIGEST, Delivery, Form, Outcome, RenderContext, RenderError, RetryProfile, Sink,
    SinkKind, burst, rate,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;
use crate::secret::Secret;

/// As the configuration knows it.
pub const PAGERDUTY: SinkKind = SinkKind {
    kind: "pagerduty",
    example: "pager:\n  pagerduty:\n    routing_key: ${PAGERDUTY_ROUTING_KEY}\n",
    bounds: &[
        Bound {
            what: "summary",
            most: Most::Of(MAX_SUMMARY_CHARS),
            unit: Unit::Chars,
            used: |body| Unit::Chars.at(body, "/payload/summary"),
        },
        Bound { what: "event", most: Most::Of(MAX_EVENT_BYTES), unit: Unit::Bytes, used: <[u8]>::len },
    ],
    options: &[
        &[
            OptionSpec {
                name: "routing_key",
                kind: OptionKind::Secret,
                presence: Presence::Required,
                help: "integration key of the service (Events API v2)",
            },
            OptionSpec {
                name: "url",
                kind: OptionKind::Url(&["https", "http"]),
                presence: Presence::Default("https://events.pagerduty.com/v2/enqueue"),
                help: "where events are sent to; for a European account https://events.eu.pagerduty.com/v2/enqueue",
            },
            DIGEST,
            UPDATES,
            // Without it no incident would ever be resolved from here.
            OptionSpec {
                name: CLOSING.name,
                kind: CLOSING.kind,
                presence: Presence::Default("true"),
                help: "whether the incident is resolved when no more matches came for the rule's quiet time",
            },
            // PagerDuty's page on the Events API: an integration takes about 120 events a minute.
            rate(Presence::Default("120/m")),
            burst("10"),
        ],
        TRANSPORT,
    ],
    build,
};

/// PagerDuty's reference: a summary, in characters.
const MAX_SUMMARY_CHARS: usize = 1024;
/// PagerDuty's reference: an event, in bytes. The routing key needs a little of it.
const MAX_EVENT_BYTES: usize = 512 * 1024 - 256;
/// Words of a refusal which say that the key is none (any more), and not that the event is wrong.
const WORDS_MISCONFIGURED: &[&str] = &["invalid routing key"];
/// An integration key.
const KEY_CHARS: usize = 32;

/// The sink.
struct PagerdutySink {
    endpoint: Endpoint,
    routing_key: Secret,
}

fn build(
    options: &Options,
    name: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    let routing_key = options.secret("routing_key")?.clone();
    if routing_key.expose().len() != KEY_CHARS || !routing_key.expose().bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        let message = format!("sink `{name}`: `routing_key` is no integration key");
        let hint = format!("{KEY_CHARS} letters and digits, from the service's integration \"Events API v2\"");
        diagnostics.error("E0442", options.span_of("routing_key"), message, Some(hint));
        return None;
    }
    let endpoint = endpoint(options, "url", vec![routing_key.clone()], context, diagnostics)?;
    Some(Box::new(PagerdutySink { endpoint, routing_key }))
}

/// PagerDuty's reference: an event that was taken is answered with `{"status": "success", ...}`. A resolve that is refused must
/// not come again as the alert's plain text, which would page once more.
fn outcome(answer: &Answer, body: &[u8]) -> Outcome {
    let says_success = || serde_json::from_slice::<Value>(&answer.body).is_ok_and(|said| said["status"] == "success");
    match answer.outcome_unless(WORDS_MISCONFIGURED) {
        Outcome::Delivered | Outcome::Accepted if !says_success() => Outcome::Retry,
        Outcome::Degrade if is_resolve(body) => Outcome::Dead,
        outcome => outcome,
    }
}

fn is_resolve(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|event| event["event_action"] == "resolve")
}

impl Sink for PagerdutySink {
    fn kind(&self) -> &'static str {
        PAGERDUTY.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Person
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let full = || {
            let mut events = Extent::ALL
                .iter()
                .map(|extent| event(alert, &headline(alert), Some(details(alert, *extent, context.delivery_id))));
            events.find(|event| event.len() <= MAX_EVENT_BYTES)
        };
        let plain = || event(alert, &headline(alert), None);
        Ok(match context.form {
            Form::Full => full().unwrap_or_else(plain),
            Form::Plain => plain(),
        })
    }

    fn render_update(&self, update: &Update<'_>, _: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let lines = update.lines().into_iter().map(|(label, value)| (label.to_owned(), Value::from(defang(&value))));
        let details = Value::Object(lines.collect());
        Ok(match update.told {
            Told::More | Told::Still => event(update.alert, &update.headline(), Some(details)),
            // It needs nothing but the key.
            Told::Closing { .. } => {
                let event = json!({"event_action": "resolve", "dedup_key": update.alert.alert_id, "client": "vigie"});
                event.to_string().into_bytes()
            }
        })
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        let body = Bytes::from(with_member(&delivery.body, "routing_key", self.routing_key.expose()));
        Box::pin(self.endpoint.post_json(body, |answer| outcome(answer, &delivery.body)))
    }

    fn probe(&self) -> Probe<'_> {
        Probe::Nothing("the Events API takes nothing but events")
    }
}

impl std::fmt::Debug for PagerdutySink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PagerdutySink").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

fn headline(alert: &Alert) -> String {
    format!("{}: {}", text::severity_word(alert.rule.severity), text::title(alert))
}

fn event(alert: &Alert, summary: &str, details: Option<Value>) -> Vec<u8> {
    let mut payload = json!({
        "summary": single_line(&defang(summary), MAX_SUMMARY_CHARS),
        "source": single_line(&defang(&text::place(alert)), MAX_VALUE_CHARS),
        "severity": severity(alert.rule.severity),
        "timestamp": stamp(alert.first_at),
        "component": single_line(&alert.source, MAX_VALUE_CHARS),
        "group": single_line(&alert.rule.id, MAX_VALUE_CHARS),
        "class": single_line(&alert.rule.tags.join(", "), MAX_VALUE_CHARS),
    });
    if let Some(details) = details {
        payload["custom_details"] = details;
    }
    let event = json!({
        "event_action": "trigger",
        "dedup_key": alert.alert_id,
        "client": "vigie",
        "payload": payload,
    });
    inert_json(&event.to_string()).into_bytes()
}

fn details(alert: &Alert, extent: Extent, delivery_id: &str) -> Value {
    let facts = text::facts(&alert.event).into_iter();
    let facts: serde_json::Map<String, Value> = facts
        .map(|(field, value)| {
            let shown = |text: &str| defang(&single_line(text, MAX_VALUE_CHARS));
            (shown(&field), shown(value.as_raw()).into())
        })
        .collect();
    json!({
        "note": text::note(alert).map(|note| defang(&note)),
        "when": text::when(alert),
        "why": inert(text::reasons(alert)),
        "found": inert(extent.found(alert)),
        "what": facts,
        "do": text::response_lines(&alert.rule.response),
        "unless": extent.exception(alert).map(|exception| defang(&exception)),
        "events": inert(alert.events.iter().map(|id| single_line(id, MAX_VALUE_CHARS)).collect()),
        "delivery": delivery_id,
    })
}

/// PagerDuty makes links of what looks like one.
fn inert(lines: Vec<String>) -> Vec<String> {
    lines.iter().map(|line| defang(line)).collect()
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Low | Severity::Medium => "warning",
        Severity::High => "error",
        Severity::Critical => "critical",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use url::Url;

    use super::*;
    use crate::sink::contract::{
        self, HOSTILE, Loopback, Reply, alert_titled, attempt, delivery, hold, make_hostile, make_long, stateful_alert,
        text_node, update_of,
    };

    const KEY: &str = "0123456789abcdefABCDEF0123456789";
    const SUCCESS: &[u8] = br#"{"status":"success","message":"Event processed","dedup_key":"k"}"#;

    fn make(url: &Url, context: &BuildContext) -> Box<dyn Sink> {
        let options = vec![("url", text_node(url.as_str())), ("routing_key", text_node(KEY))];
        contract::build("pagerduty", options, context).expect("builds")
    }

    fn sink() -> Box<dyn Sink> {
        make(&Url::parse("https://events.pagerduty.com/v2/enqueue").expect("valid"), &contract::context().0)
    }

    fn read(body: &[u8]) -> Value {
        serde_json::from_slice(body).expect("JSON")
    }

    #[tokio::test]
    async fn holds_the_contract() {
        hold(&|url, context| make(&url, context), SUCCESS, Outcome::Misconfigured).await;
    }

    #[tokio::test]
    async fn only_success_in_the_answer_is_an_event_taken() {
        for (said, expected) in [
            (SUCCESS, Outcome::Accepted),
            (b"", Outcome::Retry),
            (b"<html>log in</html>", Outcome::Retry),
            (br#"{"status":"throttled"}"#, Outcome::Retry),
        ] {
            let server = Loopback::start(Reply::Http("202 Accepted", vec![], said.to_vec())).await;
            let report = attempt(&*make(&server.url("/v2/enqueue"), &contract::context().0)).await;
            assert_eq!(report.outcome, expected, "{}", String::from_utf8_lossy(said));
            assert_eq!(report.status.ends_with("no yes"), expected == Outcome::Retry, "{}", report.status);
        }
    }

    #[tokio::test]
    async fn the_routing_key_is_sent_and_never_stored_or_told() {
        let server = Loopback::start(Reply::Echo("400 Bad Request")).await;
        let sink = make(&server.url("/v2/enqueue"), &contract::context().0);
        let stored = delivery(&*sink, &alert_titled("t"), Form::Full).body;
        assert!(!String::from_utf8_lossy(&stored).contains(KEY));
        let report = attempt(&*sink).await;
        assert!(!format!("{report:?}").contains(KEY), "{report:?}");
        let sent = read(&server.received()[0].body);
        assert_eq!((&sent["routing_key"], &sent["event_action"]), (&json!(KEY), &json!("trigger")));
    }

    #[test]
    fn an_alert_triggers_and_its_closing_note_resolves_the_same_incident() {
        let (sink, alert) = (sink(), stateful_alert());
        let triggered = read(&delivery(&*sink, &alert, Form::Full).body);
        assert_eq!(triggered["payload"]["summary"], "HIGH: Two countries at once");
        assert_eq!(
            (&triggered["payload"]["severity"], &triggered["dedup_key"]),
            (&json!("error"), &json!(alert.alert_id))
        );
        assert_eq!(triggered["payload"]["custom_details"]["unless"], json!(alert.exception()));
        let context = RenderContext { delivery_id: "d2", now: alert.first_at, form: Form::Full };
        let update = |told| read(&sink.render_update(&update_of(&alert, told), &context).expect("renders"));
        let more = update(Told::More);
        let closing = update(Told::Closing { quiet: Duration::from_secs(3600) });
        assert_eq!((&more["event_action"], &closing["event_action"]), (&json!("trigger"), &json!("resolve")));
        assert_eq!((&more["dedup_key"], &closing["dedup_key"]), (&triggered["dedup_key"], &triggered["dedup_key"]));
    }

    #[tokio::test]
    async fn a_refused_key_keeps_the_backlog_and_a_refused_resolve_never_pages_again() {
        let refused = br#"{"status":"invalid event","errors":["Invalid routing key"]}"#;
        let server = Loopback::start(Reply::Http("400 Bad Request", vec![], refused.to_vec())).await;
        let report = attempt(&*make(&server.url("/"), &contract::context().0)).await;
        assert_eq!(report.outcome, Outcome::Misconfigured);
        let server = Loopback::start(Reply::Http("400 Bad Request", vec![], b"nope".to_vec())).await;
        let (sink, alert) = (make(&server.url("/"), &contract::context().0), stateful_alert());
        let context = RenderContext { delivery_id: "d2", now: alert.first_at, form: Form::Full };
        let told = Told::Closing { quiet: Duration::from_secs(3600) };
        let body = sink.render_update(&update_of(&alert, told), &context).expect("renders");
        let report = sink.send(&Delivery { body, ..delivery(&*sink, &alert, Form::Full) }).await;
        assert_eq!(report.outcome, Outcome::Dead, "plain text would be the alert once more");
    }

    #[test]
    fn it_resolves_unless_it_is_told_not_to() {
        let closing = PAGERDUTY.specs().into_iter().find(|option| option.name == "closing").expect("there");
        assert_eq!(closing.presence, Presence::Default("true"));
    }

    #[test]
    fn an_event_fits_and_holds_nothing_that_steers() {
        for character in ["a", "🦀", "\"", "\u{202e}"] {
            let mut alert = stateful_alert();
            make_long(&mut alert, character);
            alert.title = vigie_engine::text::Untrusted::new(character.repeat(5_000));
            let body = delivery(&*sink(), &alert, Form::Full).body;
            assert!(body.len() <= MAX_EVENT_BYTES);
            let summary = read(&body)["payload"]["summary"].as_str().expect("text").chars().count();
            assert!(summary <= MAX_SUMMARY_CHARS, "{summary}");
        }
        let mut hostile = stateful_alert();
        make_hostile(&mut hostile, HOSTILE);
        let text = String::from_utf8(delivery(&*sink(), &hostile, Form::Full).body).expect("UTF-8");
        assert!(!text.chars().any(vigie_engine::text::is_unsafe) && !text.contains("://"), "{text}");
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        for key in ["short", &"x".repeat(33), &"\"".repeat(32)] {
            let built = contract::build("pagerduty", vec![("routing_key", text_node(key))], &contract::context().0);
            let told = built.err().expect("refused");
            assert!(told.contains("E0442") && !told.contains(key), "{told}");
        }
    }
}
