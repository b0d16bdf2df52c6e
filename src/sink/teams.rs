//! `teams`: an Adaptive Card to a webhook of Workflows, which takes it (202) and does not say whether it was shown.
//!
//! Whatever came out of an event stands in text runs, which know no markup; URLs are defanged. What nobody needs at once is
//! left out until the message fits.

use bytes::Bytes;
use serde_json::{Value, json};
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::rule::Severity;
use vigie_engine::text::single_line;

use super::bound::{Bound, Most, Unit};
use super::format::inert_json;
use super::http::answer::Answer;
use super::http::{Endpoint, TRANSPORT, endpoint};
use super::probe::Probe;
use super::text::{self, Extent, MAX_VALUE_CHARS, defang};
use super::update::{CLOSING, UPDATES, Update, update_text};
use super::{
    AttemptReport, BuildContext, DIGEST, Delivery, Form, Outcome, RenderContext, RenderError, RetryProfile, Sink,
    SinkKind, burst, rate,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;

/// As the configuration knows it.
pub const TEAMS: SinkKind = SinkKind {
    kind: "teams",
    example: "chat:\n  teams:\n    webhook_url: ${TEAMS_WEBHOOK_URL}\n",
    bounds: &[Bound { what: "message", most: Most::Of(MAX_MESSAGE_BYTES), unit: Unit::Bytes, used: <[u8]>::len }],
    options: &[
        &[
            OptionSpec {
                name: "webhook_url",
                kind: OptionKind::Url(&["https", "http"]),
                presence: Presence::Required,
                help: "URL of the workflow \"When a Teams webhook request is received\"; it is a secret",
            },
            DIGEST,
            UPDATES,
            CLOSING,
            // Microsoft's page on webhooks: more than four requests a second are refused.
            rate(Presence::Default("1/s")),
            burst("4"),
        ],
        TRANSPORT,
    ],
    build,
};

/// Microsoft's page on webhooks: the size of a message, in bytes.
const MAX_MESSAGE_BYTES: usize = 28 * 1024;
/// Of these what stands around the blocks, and the line that counts what was left out.
const ENVELOPE_BYTES: usize = 1024;
/// Newest version of Adaptive Cards that Teams shows everywhere.
const CARD_VERSION: &str = "1.4";
/// Words of a refusal which say that the workflow is switched off or gone, and not that the message is wrong.
const WORDS_MISCONFIGURED: &[&str] =
    &["workflowtriggerisnotenabled", "triggernotfound", "workflownotfound", "directapiauthorizationrequired"];
/// How a connector began that Teams itself refused, with status 200.
const REFUSAL: &str = "Webhook message delivery failed";
/// Hosts of the connectors that Microsoft has switched off.
const RETIRED_HOSTS: &[&str] = &["webhook.office.com", "outlook.office.com", "outlook.office365.com"];

/// The sink.
#[derive(Debug)]
struct TeamsSink {
    endpoint: Endpoint,
}

fn build(
    options: &Options,
    name: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    let host = options.url("webhook_url")?.host_str().unwrap_or_default().to_owned();
    if RETIRED_HOSTS.iter().any(|retired| host == *retired || host.ends_with(&format!(".{retired}"))) {
        let message =
            format!("sink `{name}`: `webhook_url` is of an Office 365 connector, which Microsoft has switched off");
        let hint = "make a workflow \"When a Teams webhook request is received\" in the channel and give its URL";
        diagnostics.error("E0441", options.span_of("webhook_url"), message, Some(hint.into()));
        return None;
    }
    let endpoint = endpoint(options, "webhook_url", Vec::new(), context, diagnostics)?;
    Some(Box::new(TeamsSink { endpoint }))
}

impl Sink for TeamsSink {
    fn kind(&self) -> &'static str {
        TEAMS.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Person
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let fits = |body: &Vec<u8>| body.len() <= MAX_MESSAGE_BYTES;
        let footer = text::footer(alert, context.delivery_id);
        let plain = || {
            let fits = |shown: &str| text::is_within(shown, room(&footer), bytes);
            message(&plain_card(&text::alert_text_within(alert, context.delivery_id, fits), &footer))
        };
        Ok(match context.form {
            Form::Full => {
                let mut cards = Extent::ALL.iter().map(|extent| message(&card(alert, *extent, &footer)));
                cards.find(fits).unwrap_or_else(plain)
            }
            Form::Plain => plain(),
        })
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let footer = text::footer(update.alert, context.delivery_id);
        Ok(message(&plain_card(&update_text(update, context.delivery_id), &footer)))
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.endpoint.post_json(Bytes::copy_from_slice(&delivery.body), outcome))
    }

    fn probe(&self) -> Probe<'_> {
        Probe::Nothing("a workflow takes nothing but messages")
    }
}

/// A workflow answers 202 without a body, or with what its author wrote; a refusal of Teams itself came with 200.
fn outcome(answer: &Answer) -> Outcome {
    let refused = || String::from_utf8_lossy(&answer.body).starts_with(REFUSAL);
    match answer.unless_page(answer.outcome_unless(WORDS_MISCONFIGURED)) {
        Outcome::Delivered | Outcome::Accepted if refused() => Outcome::Retry,
        outcome => outcome,
    }
}

fn message(body: &[Value]) -> Vec<u8> {
    let content = json!({
        "type": "AdaptiveCard",
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "version": CARD_VERSION,
        "msteams": {"width": "Full"},
        "body": body,
    });
    let message = json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": content,
        }],
    });
    inert_json(&message.to_string()).into_bytes()
}

fn card(alert: &Alert, extent: Extent, footer: &str) -> Vec<Value> {
    let severity = alert.rule.severity;
    let headline = format!("{}: {}", text::severity_word(severity), text::title(alert));
    let mut body =
        vec![rich(vec![run(&headline, json!({"weight": "Bolder", "size": "Large", "color": color(severity)}))])];
    let line = |field: &str, value: &str| {
        rich(vec![run(&format!("{field}: "), json!({"weight": "Bolder"})), run(value, json!({}))])
    };
    body.extend(text::note(alert).map(|note| line("Note", &defang(&note))));
    body.push(line("When", &text::when(alert)));
    body.push(line("Where", &text::place(alert)));
    body.push(line("Rule", &alert.rule.id));
    for (field, value) in &alert.key {
        body.push(line(&single_line(field, MAX_VALUE_CHARS), &value.single_line(MAX_VALUE_CHARS)));
    }
    body.extend(section("Why it matched", text::reasons(alert)));
    body.extend(section("What was found", extent.found(alert)));
    let facts = text::facts(&alert.event).into_iter();
    body.extend(section(
        "The event",
        facts
            .map(|(field, value)| {
                format!("{} = {}", single_line(&field, MAX_VALUE_CHARS), value.single_line(MAX_VALUE_CHARS))
            })
            .collect(),
    ));
    body.extend(section("What to do", text::response_lines(&alert.rule.response)));
    body.extend(section(
        "To leave this out, under `unless:` of the rule",
        extent.exception(alert).into_iter().collect(),
    ));
    body.push(rich(vec![run(footer, json!({"isSubtle": true, "size": "Small"}))]));
    body
}

/// The text as the terminal shows it, a block a line, as far as there is room.
fn plain_card(shown: &str, footer: &str) -> Vec<Value> {
    let lines = text::lines_within(shown, room(footer), bytes).into_iter().chain([footer.to_owned()]);
    lines.map(|line| monospace(&line)).collect()
}

fn monospace(line: &str) -> Value {
    rich(vec![run(line, json!({"fontType": "Monospace", "size": "Small"}))])
}

/// What a line costs of a message.
fn bytes(line: &str) -> usize {
    monospace(line).to_string().len() + 1
}

fn room(footer: &str) -> usize {
    MAX_MESSAGE_BYTES - ENVELOPE_BYTES - bytes(footer)
}

fn section(heading: &str, lines: Vec<String>) -> Vec<Value> {
    if lines.is_empty() {
        return Vec::new();
    }
    let heading = rich(vec![run(heading, json!({"weight": "Bolder"}))]);
    let lines = lines.into_iter().map(|line| rich(vec![run(&format!("• {line}"), json!({}))]));
    std::iter::once(heading).chain(lines).collect()
}

fn rich(inlines: Vec<Value>) -> Value {
    json!({"type": "RichTextBlock", "spacing": "Small", "inlines": inlines})
}

/// A text run: what it holds is shown as it is.
fn run(shown: &str, style: Value) -> Value {
    let mut run = json!({"type": "TextRun", "text": defang(shown)});
    if let (Some(run), Value::Object(style)) = (run.as_object_mut(), style) {
        run.extend(style);
    }
    run
}

fn color(severity: Severity) -> &'static str {
    match severity {
        Severity::Info | Severity::Low => "Default",
        Severity::Medium => "Warning",
        Severity::High | Severity::Critical => "Attention",
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::super::update::Told;
    use super::*;
    use crate::sink::Outcome;
    use crate::sink::contract::{
        self, HOSTILE, Loopback, Reply, alert_titled, delivery, hold, make_hostile, make_long, stateful_alert,
        text_node, update_of,
    };

    fn make(url: &Url, context: &BuildContext) -> Box<dyn Sink> {
        contract::build("teams", vec![("webhook_url", text_node(url.as_str()))], context).expect("builds")
    }

    fn rendered(alert: &Alert, form: Form) -> (String, Value) {
        let url = Url::parse("https://prod-1.westeurope.logic.azure.com/workflows/x").expect("valid");
        let body = delivery(&*make(&url, &contract::context().0), alert, form).body;
        let text = String::from_utf8(body).expect("UTF-8");
        let read: Value = serde_json::from_str(&text).expect("JSON");
        (text, read["attachments"][0]["content"].clone())
    }

    /// The text of each block.
    fn texts(card: &Value) -> Vec<String> {
        let blocks = card["body"].as_array().expect("blocks").iter();
        let runs = |block: &Value| -> String {
            let runs = block["inlines"].as_array().expect("runs").iter();
            runs.map(|run| run["text"].as_str().expect("text").to_owned()).collect()
        };
        blocks.map(runs).collect()
    }

    #[tokio::test]
    async fn holds_the_contract() {
        hold(&|url, context| make(&url, context), b"", Outcome::Misconfigured).await;
    }

    #[tokio::test]
    async fn pages_and_refusals_with_a_friendly_status_are_no_assent() {
        for (said, expected) in [
            ("", Outcome::Delivered),
            ("1", Outcome::Delivered),
            ("OK, posted", Outcome::Delivered),
            (
                "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429",
                Outcome::Retry,
            ),
            ("<html>log in</html>", Outcome::Retry),
        ] {
            let server = Loopback::start(Reply::Http("200 OK", vec![], said.into())).await;
            let report = contract::attempt(&*make(&server.url("/workflows/x"), &contract::context().0)).await;
            assert_eq!(report.outcome, expected, "{said}");
        }
    }

    #[test]
    fn a_card_says_how_bad_what_when_why_and_what_to_do() {
        let (_, card) = rendered(&stateful_alert(), Form::Full);
        assert_eq!((&card["type"], &card["version"]), (&json!("AdaptiveCard"), &json!("1.4")));
        assert_eq!(card["body"][0]["inlines"][0]["color"], "Attention");
        let texts = texts(&card);
        for (place, expected) in [
            (0, "HIGH: Two countries at once"),
            (3, "Rule: change-from-unexpected-country"),
            (4, "actor: bob@example.org"),
            (5, "Why it matched"),
        ] {
            assert_eq!(texts[place], expected);
        }
        for expected in ["What was found", "• Call the user.", "The event"] {
            assert!(texts.iter().any(|text| text == expected), "{expected}: {texts:?}");
        }
        let exception = stateful_alert().exception().expect("there");
        assert!(texts.iter().any(|text| text.trim_start_matches("• ") == exception), "{texts:?}");
        assert!(texts.last().is_some_and(|ids| ids.starts_with("vigie, alert 0123456789ab, delivery ")), "{texts:?}");
    }

    #[test]
    fn hostile_text_stands_in_runs_and_no_link_is_live() {
        let mut hostile = stateful_alert();
        make_hostile(&mut hostile, HOSTILE);
        // A field's name is the event's, too.
        let event = json!({"id": "e-1", HOSTILE: HOSTILE}).to_string();
        hostile.event = serde_json::value::RawValue::from_string(event).expect("valid");
        for form in [Form::Full, Form::Plain] {
            let (text, card) = rendered(&hostile, form);
            assert!(!text.contains("://evil"), "{text}");
            let unsafe_text = texts(&card).into_iter().find(|text| text.chars().any(vigie_engine::text::is_unsafe));
            assert_eq!(unsafe_text, None, "as Teams decodes it");
            // A TextBlock would read markup.
            let blocks = card["body"].as_array().expect("blocks");
            assert!(blocks.iter().all(|block| block["type"] == "RichTextBlock"), "{text}");
        }
    }

    #[test]
    fn a_message_fits_whatever_an_event_holds() {
        for character in ["a", "é", "🦀", "\"", "\u{202e}"] {
            let mut alert = stateful_alert();
            make_long(&mut alert, character);
            alert.rule.response = format!("{}\n", character.repeat(500)).repeat(300);
            for form in [Form::Full, Form::Plain] {
                let (text, card) = rendered(&alert, form);
                assert!(text.len() <= MAX_MESSAGE_BYTES, "{character} {form:?}: {} bytes", text.len());
                assert!(texts(&card).last().is_some_and(|ids| ids.contains("delivery ")));
            }
        }
    }

    #[test]
    fn a_connector_that_is_switched_off_is_refused() {
        for url in ["https://acme.webhook.office.com/webhookb2/x", "https://outlook.office.com/webhook/x"] {
            let told = contract::build("teams", vec![("webhook_url", text_node(url))], &contract::context().0);
            let told = told.err().expect("refused");
            assert!(told.contains("E0441") && told.contains("When a Teams webhook request is received"), "{told}");
        }
    }

    #[test]
    fn an_update_is_a_short_card() {
        let alert = alert_titled("t");
        let url = Url::parse("https://example.org/x").expect("valid");
        let sink = make(&url, &contract::context().0);
        let context = RenderContext { delivery_id: "d2", now: alert.first_at, form: Form::Full };
        let body = sink.render_update(&update_of(&alert, Told::More), &context).expect("renders");
        let read: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(texts(&read["attachments"][0]["content"])[0], "Update to HIGH: t");
    }
}
