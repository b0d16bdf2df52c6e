//! `slack`: an incoming webhook, Block Kit within its limits, and answers read by their word (200 may mean no).
//!
//! Whatever came out of an event stands in `plain_text`, which Slack never parses, with URLs defanged; the fallback `text` is
//! escaped. Limits are counted in UTF-16 units, which no way of counting characters exceeds.

mod bot;

use bytes::Bytes;
use serde_json::{Value, json};
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::text::single_line;

use super::bound::{Bound, Most, Unit};
use super::http::answer::Answer;
use super::http::{Endpoint, TRANSPORT, endpoint};
use super::probe::Probe;
use super::text::{self, MAX_VALUE_CHARS, defang};
use super::update::{CLOSING, UPDATES, Update, update_text};
use super::{
    AttemptReport, BuildContext, DIGEST, Delivery, Form, Outcome, RenderContext, RenderError, RetryProfile, Sink,
    SinkKind,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;

pub use self::bot::SLACK_BOT;

/// As the configuration knows it.
pub const SLACK: SinkKind = SinkKind {
    kind: "slack",
    example: "chat:\n  slack:\n    webhook_url: ${SLACK_WEBHOOK_URL}\n",
    bounds: BOUNDS,
    options: &[
        &[
            OptionSpec {
                name: "webhook_url",
                kind: OptionKind::Url(&["https", "http"]),
                presence: Presence::Required,
                help: "URL of the incoming webhook; it is a secret",
            },
            DIGEST,
            UPDATES,
            CLOSING,
            // Slack's page on rate limits: one message a second for each webhook, short bursts are let through.
            super::rate(Presence::Default("1/s")),
            super::burst("3"),
        ],
        TRANSPORT,
    ],
    build,
};

/// What Slack takes of a message.
const BOUNDS: &[Bound] = &[
    bound("text", MAX_TEXT_UNITS, |body| Unit::Utf16.at(body, "/text")),
    bound("a header", MAX_HEADER_UNITS, |body| longest(&blocks(body, "header"), "/text/text")),
    bound("a section", MAX_SECTION_UNITS, |body| longest(&blocks(body, "section"), "/text/text")),
    bound("a field", MAX_FIELD_UNITS, |body| {
        let fields = |block: &Value| longest(block["fields"].as_array().map_or(&[], Vec::as_slice), "/text");
        blocks(body, "section").iter().map(fields).max().unwrap_or(0)
    }),
    Bound {
        what: "fields of a section",
        most: Most::Of(MAX_FIELDS),
        unit: Unit::Count,
        used: |body| {
            let fields = |block: &Value| block["fields"].as_array().map_or(0, Vec::len);
            blocks(body, "section").iter().map(fields).max().unwrap_or(0)
        },
    },
];

const fn bound(what: &'static str, most_units: usize, used: fn(&[u8]) -> usize) -> Bound {
    Bound { what, most: Most::Of(most_units), unit: Unit::Utf16, used }
}

/// The blocks of a type.
fn blocks(body: &[u8], of_type: &str) -> Vec<Value> {
    let body = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let blocks = body["blocks"].as_array().into_iter().flatten();
    blocks.filter(|block| block["type"] == of_type).cloned().collect()
}

/// The longest text at this place of each.
fn longest(values: &[Value], pointer: &str) -> usize {
    let texts = values.iter().filter_map(|value| value.pointer(pointer)?.as_str());
    texts.map(units).max().unwrap_or(0)
}

/// Of Slack's Block Kit reference: a header's text.
const MAX_HEADER_UNITS: usize = 150;
/// Of Slack's Block Kit reference: a section's text.
const MAX_SECTION_UNITS: usize = 3000;
/// Of Slack's Block Kit reference: fields of a section.
const MAX_FIELDS: usize = 10;
/// Of Slack's Block Kit reference: a field's text.
const MAX_FIELD_UNITS: usize = 2000;
/// Longest `text`: Slack asks for at most 4,000 and cuts at 40,000.
const MAX_TEXT_UNITS: usize = 3000;
/// Room for "and 99 more" below the lines of a section.
const MORE_UNITS: usize = 16;
/// Longest body that can be an error word.
const MAX_WORD_BYTES: usize = 64;

/// Words with which Slack says that the hook, its channel or its team is not there for us.
const WORDS_MISCONFIGURED: &[&str] = &[
    "access_denied",
    "account_inactive",
    "action_prohibited",
    "channel_is_archived",
    "channel_not_found",
    "ekm_access_denied",
    "enterprise_is_restricted",
    "invalid_auth",
    "invalid_token",
    "is_archived",
    "is_inactive",
    "messages_tab_disabled",
    "missing_scope",
    "no_active_hooks",
    "no_permission",
    "no_service",
    "no_service_id",
    "no_team",
    "not_allowed_token_type",
    "not_authed",
    "not_in_channel",
    "org_login_required",
    "posting_to_general_channel_denied",
    "team_access_not_granted",
    "team_disabled",
    "token_expired",
    "token_revoked",
    "user_not_found",
];
/// How all words begin with which an administrator's rule says no: `restricted_action_read_only_channel` and more to come.
const RESTRICTED: &str = "restricted_action";
/// Words about what was sent.
const WORDS_DEGRADE: &[&str] = &[
    "cannot_reply_to_message",
    "invalid_arguments",
    "invalid_attachments",
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_metadata_format",
    "invalid_metadata_schema",
    "invalid_payload",
    "metadata_must_be_sent_from_app",
    "metadata_too_large",
    "missing_text_or_fallback_or_attachments",
    "msg_blocks_too_long",
    "msg_too_long",
    "no_text",
    "restricted_action_thread_locked",
    "too_many_attachments",
];
/// Words that ask for a pause.
const WORDS_WAIT: &[&str] = &["message_limit_exceeded", "rate_limited", "ratelimited"];

/// The sink.
#[derive(Debug)]
pub struct SlackSink {
    endpoint: Endpoint,
}

/// Builds it from its options.
fn build(options: &Options, _: &str, context: &BuildContext, diagnostics: &mut Diagnostics) -> Option<Box<dyn Sink>> {
    let endpoint = endpoint(options, "webhook_url", Vec::new(), context, diagnostics)?;
    Some(Box::new(SlackSink { endpoint }))
}

impl Sink for SlackSink {
    fn kind(&self) -> &'static str {
        SLACK.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Person
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let payload = match context.form {
            Form::Full => full(alert, context.delivery_id),
            Form::Plain => plain_payload(alert, context.delivery_id),
        };
        Ok(bytes(&payload))
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let shown = defang(&update_text(update, context.delivery_id));
        Ok(bytes(&json!({
            "text": escape(&fit(&shown, MAX_TEXT_UNITS)),
            "mrkdwn": false,
            "unfurl_links": false,
            "unfurl_media": false,
        })))
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.endpoint.post_json(Bytes::copy_from_slice(&delivery.body), outcome))
    }

    fn probe(&self) -> Probe<'_> {
        Probe::Nothing("an incoming webhook takes nothing but messages")
    }
}

fn plain_payload(alert: &Alert, delivery_id: &str) -> Value {
    let fits = |shown: &str| units(&defang(shown)) <= MAX_TEXT_UNITS;
    let shown = text::alert_text_within(alert, delivery_id, fits);
    json!({"text": escape(&fit(&defang(&shown), MAX_TEXT_UNITS)), "mrkdwn": false})
}

/// Markup as `\u003c`: the same JSON, and nothing that a program on the way could take for a tag.
fn bytes(payload: &Value) -> Vec<u8> {
    let shown = payload.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    shown.into_bytes()
}

fn full(alert: &Alert, delivery_id: &str) -> Value {
    let headline = format!("{}: {}", text::severity_word(alert.rule.severity), text::title(alert));
    let mut blocks = vec![
        json!({"type": "header", "text": plain(&defang(&headline), MAX_HEADER_UNITS)}),
        json!({"type": "section", "fields": fields(alert)}),
    ];
    blocks.extend(section("Why it matched", text::reasons(alert).iter().map(|line| defang(line))));
    blocks.extend(section("What was found", text::finding(alert).iter().map(|line| defang(line))));
    let facts = text::facts(&alert.event).into_iter();
    let facts = facts.map(|(field, value)| {
        defang(&format!("{} = {}", single_line(&field, MAX_VALUE_CHARS), value.single_line(MAX_VALUE_CHARS)))
    });
    blocks.extend(section("The event", facts));
    // The rule's own text: a link to a runbook stays one.
    blocks.extend(section("What to do", text::response_lines(&alert.rule.response).into_iter()));
    blocks.extend(alert.exception().and_then(|exception| paste(&exception)));
    let footer = text::footer(alert, delivery_id);
    blocks.push(json!({"type": "context", "elements": [plain(&footer, MAX_FIELD_UNITS)]}));
    let summary = format!("{headline} ({}, {})", text::place(alert), text::when(alert));
    json!({
        "text": escape(&fit(&defang(&summary), MAX_TEXT_UNITS)),
        "blocks": blocks,
        "mrkdwn": false,
        "unfurl_links": false,
        "unfurl_media": false,
    })
}

fn fields(alert: &Alert) -> Vec<Value> {
    let rule = single_line(&alert.rule.id, MAX_VALUE_CHARS);
    let tags = single_line(&alert.rule.tags.join(", "), MAX_VALUE_CHARS);
    let mut named = vec![
        ("When".to_owned(), text::when(alert)),
        ("Where".to_owned(), text::place(alert)),
        ("Rule".to_owned(), if tags.is_empty() { rule } else { format!("{rule} ({tags})") }),
    ];
    named.extend(text::note(alert).map(|note| ("Note".to_owned(), note)));
    for (field, value) in &alert.key {
        named.push((single_line(field, MAX_VALUE_CHARS), value.single_line(MAX_VALUE_CHARS)));
    }
    let shown = named.iter().take(MAX_FIELDS);
    shown.map(|(name, value)| plain(&defang(&format!("{name}\n{value}")), MAX_FIELD_UNITS)).collect()
}

/// A heading and lines; nothing when there are no lines. Lines that do not fit are counted.
fn section(heading: &str, lines: impl Iterator<Item = String>) -> Option<Value> {
    let lines: Vec<String> = lines.map(|line| format!("• {line}")).collect();
    let mut shown = heading.to_owned();
    let mut used = units(heading);
    for (index, line) in lines.iter().enumerate() {
        used += 1 + units(line);
        let is_last = index + 1 == lines.len();
        if index > 0 && used + if is_last { 0 } else { MORE_UNITS } > MAX_SECTION_UNITS {
            shown.push_str(&format!("\nand {} more", lines.len() - index));
            break;
        }
        shown.push('\n');
        shown.push_str(line);
    }
    (!lines.is_empty()).then(|| json!({"type": "section", "text": plain(&shown, MAX_SECTION_UNITS)}))
}

/// What is to be copied stands on a line of its own, whole or not at all.
fn paste(exception: &str) -> Option<Value> {
    let shown = format!("To leave this out, under `unless:` of the rule\n{}", defang(exception));
    (units(&shown) <= MAX_SECTION_UNITS).then(|| json!({"type": "section", "text": plain(&shown, MAX_SECTION_UNITS)}))
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

fn plain(text: &str, max_units: usize) -> Value {
    json!({"type": "plain_text", "text": fit(text, max_units), "emoji": false})
}

/// At most `max_units` UTF-16 units, the cut marked; never half a character.
fn fit(text: &str, max_units: usize) -> String {
    if units(text) <= max_units {
        return text.to_owned();
    }
    let mut used = 1;
    let kept = text.chars().take_while(|character| {
        used += character.len_utf16();
        used <= max_units
    });
    kept.chain(['…']).collect()
}

/// The three characters that Slack's markup begins with.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A known word decides, then the status. 410 is the hook's end, not the alert's: the operator makes a new hook.
fn outcome(answer: &Answer) -> Outcome {
    let said = if answer.complete { word(&answer.body) } else { None };
    let is_ok = said.as_deref() == Some("ok");
    match (answer.status.as_u16(), said) {
        (200, _) if is_ok => Outcome::Delivered,
        (200 | 400..=499, Some(word)) if is_operators(&word) => Outcome::Misconfigured,
        (200, Some(word)) if WORDS_DEGRADE.contains(&word.as_str()) => Outcome::Degrade,
        (200, Some(word)) if WORDS_WAIT.contains(&word.as_str()) => Outcome::Wait(answer.pause()),
        // Not Slack's assent: a proxy's page, a cut answer, a word that we do not know.
        (200, _) => Outcome::Retry,
        (410, _) => Outcome::Misconfigured,
        _ => answer.outcome(),
    }
}

fn is_operators(word: &str) -> bool {
    WORDS_MISCONFIGURED.contains(&word) || (word.starts_with(RESTRICTED) && !WORDS_DEGRADE.contains(&word))
}

/// `ok` or an error word, from plain text or from `{"ok": ..., "error": ...}`.
fn word(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    if let Ok(Value::Object(members)) = serde_json::from_str(text) {
        let is_ok = members.get("ok").and_then(Value::as_bool).unwrap_or_default();
        let error = members.get("error").and_then(Value::as_str).map(str::to_owned);
        return if is_ok { Some("ok".into()) } else { error };
    }
    let is_word = !text.is_empty() && text.len() <= MAX_WORD_BYTES && !text.contains(char::is_whitespace);
    is_word.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::value::RawValue;
    use url::Url;
    use vigie_engine::alert::Reason;
    use vigie_engine::text::Untrusted;

    use super::super::update::Told;
    use super::*;
    use crate::clock::Clock as _;
    use crate::sink::contract::{
        self, CANARY, HOSTILE, Loopback, Reply, alert_titled, attempt, delivery, hold, make_hostile, make_long,
        stateful_alert, text_node,
    };

    fn make(url: &Url, context: &BuildContext) -> Box<dyn Sink> {
        contract::build("slack", vec![("webhook_url", text_node(url.as_str()))], context).expect("builds")
    }

    fn rendered(alert: &Alert, form: Form) -> (String, Value) {
        let url = Url::parse("https://hooks.slack.com/services/T/B/x").expect("valid");
        let body = delivery(&*make(&url, &contract::context().0), alert, form).body;
        let text = String::from_utf8(body).expect("UTF-8");
        let read = serde_json::from_str(&text).expect("JSON");
        (text, read)
    }

    fn length(value: &Value) -> usize {
        units(value.as_str().expect("text"))
    }

    #[tokio::test]
    async fn holds_the_contract() {
        hold(&|url, context| make(&url, context), b"ok", Outcome::Dead).await;
    }

    #[tokio::test]
    async fn the_word_decides_before_the_status() {
        let cases = [
            ("200 OK", "ok\n", Outcome::Delivered),
            ("200 OK", r#"{"ok":true}"#, Outcome::Delivered),
            ("200 OK", "", Outcome::Retry),
            ("200 OK", "okay", Outcome::Retry),
            ("200 OK", "<html>please log in</html>", Outcome::Retry),
            ("200 OK", "invalid_payload", Outcome::Degrade),
            ("200 OK", "no_service", Outcome::Misconfigured),
            ("200 OK", r#"{"ok":false,"error":"channel_not_found"}"#, Outcome::Misconfigured),
            ("200 OK", r#"{"ok":false,"error":"is_inactive"}"#, Outcome::Misconfigured),
            ("200 OK", r#"{"ok":false,"error":"restricted_action"}"#, Outcome::Misconfigured),
            ("200 OK", r#"{"ok":false,"error":"restricted_action_read_only_channel"}"#, Outcome::Misconfigured),
            ("200 OK", r#"{"ok":false,"error":"ekm_access_denied"}"#, Outcome::Misconfigured),
            ("200 OK", r#"{"ok":false,"error":"messages_tab_disabled"}"#, Outcome::Misconfigured),
            ("200 OK", r#"{"ok":false,"error":"enterprise_is_restricted"}"#, Outcome::Misconfigured),
            ("200 OK", r#"{"ok":false,"error":"restricted_action_thread_locked"}"#, Outcome::Degrade),
            ("200 OK", r#"{"ok":false,"error":"cannot_reply_to_message"}"#, Outcome::Degrade),
            ("200 OK", r#"{"ok":false,"error":"invalid_arguments"}"#, Outcome::Degrade),
            ("200 OK", r#"{"ok":false,"error":"metadata_too_large"}"#, Outcome::Degrade),
            ("200 OK", r#"{"ok":false,"error":"invalid_metadata_format"}"#, Outcome::Degrade),
            ("200 OK", r#"{"ok":false,"error":"invalid_metadata_schema"}"#, Outcome::Degrade),
            ("200 OK", r#"{"ok":false,"error":"metadata_must_be_sent_from_app"}"#, Outcome::Degrade),
            ("200 OK", "rate_limited", Outcome::Wait(None)),
            ("400 Bad Request", "invalid_blocks", Outcome::Degrade),
            ("400 Bad Request", "user_not_found", Outcome::Misconfigured),
            ("403 Forbidden", "action_prohibited", Outcome::Misconfigured),
            ("404 Not Found", "channel_not_found", Outcome::Misconfigured),
            ("410 Gone", "channel_is_archived", Outcome::Misconfigured),
            ("410 Gone", "", Outcome::Misconfigured),
            ("500 Internal Server Error", "rollup_error", Outcome::Retry),
        ];
        for (status, body, expected) in cases {
            let server = Loopback::start(Reply::Http(status, vec![], body.into())).await;
            let report = attempt(&*make(&server.url(&format!("/services/{CANARY}")), &contract::context().0)).await;
            assert_eq!(report.outcome, expected, "{status} {body}");
        }
    }

    fn hostile_alert() -> Alert {
        let mut alert = alert_titled(HOSTILE);
        alert.account_id = Some(Untrusted::new("<!here>"));
        alert.key = vec![("actor".into(), Untrusted::new(HOSTILE))];
        alert.reason[0].actual = Some(Untrusted::new(HOSTILE));
        alert.event = RawValue::from_string(json!({"user_email": HOSTILE}).to_string()).expect("valid");
        alert.rule.response = "See https://runbook.example.org/7".into();
        alert
    }

    #[test]
    fn hostile_text_is_inert() {
        let (text, shown) = rendered(&hostile_alert(), Form::Full);
        let inert = "x  Bcc: a@evil.example\\u{1b}[2J\\u{9b}31m\\u{202e}gpj <!channel> <@U1> *b* `c` &amp; \
                     <script>alert(1)</script> [l](hxxps[:]//evil[.]example/p) hxxps[:]//evil[.]example/q";
        let when = "2026-03-04 05:00:00 UTC to 2026-03-04 05:01:01 UTC, 3 matches (late: seen 2h1m after the event)";
        let plain = |text: &str| json!({"type": "plain_text", "text": text, "emoji": false});
        let header = format!("HIGH: {inert}");
        let cut_header = format!("{}…", header.chars().take(149).collect::<String>());
        let expected = json!({
            "text": format!("HIGH: {} (main, account &lt;!here&gt;, {when})", escape(inert)),
            "blocks": [
                {"type": "header", "text": plain(&cut_header)},
                {"type": "section", "fields": [
                    plain(&format!("When\n{when}")),
                    plain("Where\nmain, account <!here>"),
                    plain("Rule\nchange-from-unexpected-country (attack.t1078.004)"),
                    plain(&format!("actor\n{inert}")),
                ]},
                {"type": "section", "text": plain(&format!(
                    "Why it matched\n• source_country not in GB, IE: was {inert}\n• user_email exists false: was missing"
                ))},
                {"type": "section", "text": plain(&format!("The event\n• user_email = {inert}"))},
                {"type": "section", "text": plain("What to do\n• See https://runbook.example.org/7")},
                {"type": "section", "text": plain(&format!(
                    "To leave this out, under `unless:` of the rule\n{}", hostile_alert().exception().expect("made")
                ))},
                {"type": "context", "elements": [plain(&format!(
                    "vigie, alert 0123456789ab, delivery {}",
                    crate::sink::delivery_id("0123456789abcdef0123456789abcdef", "test").split_at(12).0
                ))]},
            ],
            "mrkdwn": false,
            "unfurl_links": false,
            "unfurl_media": false,
        });
        assert_eq!(shown, expected);
        assert!(!text.contains(['<', '>', '\u{1b}', '\u{202e}']), "{text}");
    }

    #[test]
    fn plain_is_escaped_text_alone() {
        let (text, shown) = rendered(&hostile_alert(), Form::Plain);
        let members = shown.as_object().expect("an object");
        assert_eq!(members.keys().collect::<Vec<_>>(), ["mrkdwn", "text"]);
        let said = shown["text"].as_str().expect("text");
        assert!(said.contains("&lt;!channel&gt;") && !said.contains('<') && !said.contains("://e"), "{said}");
        assert!(said.contains("hxxps[:]//evil[.]example") && said.lines().count() > 8, "{said}");
        assert!(!text.contains("<!"), "{text}");
    }

    #[test]
    fn an_update_is_escaped_text_that_names_its_alert() {
        let url = Url::parse("https://hooks.slack.com/services/T/B/x").expect("valid");
        let sink = make(&url, &contract::context().0);
        let context = RenderContext { delivery_id: "d2", now: contract::StoppedClock.now(), form: Form::Full };
        for (title, told) in [
            ("Number forwarded elsewhere", Told::More),
            (HOSTILE, Told::Closing { quiet: Duration::from_secs(60) }),
            (&"<".repeat(9_000), Told::More),
        ] {
            let mut alert = alert_titled(title);
            alert.events = vec![title.into()];
            let body = sink.render_update(&contract::update_of(&alert, told), &context).expect("renders");
            let text = String::from_utf8(body).expect("UTF-8");
            assert!(!text.contains(['<', '>', '\u{1b}', '\u{202e}']) && !text.contains("://"), "{text}");
            let shown: Value = serde_json::from_str(&text).expect("JSON");
            let said = shown["text"].as_str().expect("text");
            let begin = if told == Told::More { "Update to HIGH: " } else { "Quiet again: HIGH: " };
            assert!(said.starts_with(begin) && said.contains("alert    0123456789abcdef0123456789abcdef"), "{said}");
            assert!(!said.contains("<!channel>") && length(&shown["text"]) <= 5 * MAX_TEXT_UNITS);
        }
    }

    /// The text of the block that begins with this heading.
    fn block(shown: &Value, heading: &str) -> Option<String> {
        let texts = shown["blocks"].as_array()?.iter().filter_map(|block| block["text"]["text"].as_str());
        texts.filter(|text| text.starts_with(heading)).map(str::to_owned).next()
    }

    #[test]
    fn evidence_and_exception_are_blocks_of_their_own() {
        let (_, shown) = rendered(&stateful_alert(), Form::Full);
        let found = "What was found\n• 2 countries of bob@example.org within 1h\n\
                     • 2026-03-04 04:59:00 UTC USER_LOGIN from 192.0.2.9 (GB): GB\n• 2026-03-04 05:00:00 UTC from KP";
        assert_eq!(block(&shown, "What was found").as_deref(), Some(found));
        let paste = block(&shown, "To leave this out").expect("there");
        assert_eq!(paste.lines().nth(1), stateful_alert().exception().as_deref(), "to be copied as it is");

        let mut hostile = stateful_alert();
        make_hostile(&mut hostile, HOSTILE);
        let (text, shown) = rendered(&hostile, Form::Full);
        assert!(!text.contains(['<', '>', '\u{1b}', '\u{202e}']) && !text.contains("://"), "{text}");
        let paste = block(&shown, "To leave this out").expect("there");
        assert_eq!(paste.lines().nth(1), hostile.exception().as_deref(), "nothing in it needs to be changed");
        let (text, _) = rendered(&hostile, Form::Plain);
        assert!(!text.contains(['<', '>', '\u{1b}', '\u{202e}']) && !text.contains("://"), "{text}");
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        let mut alert = stateful_alert();
        make_long(&mut alert, "é");
        let (_, shown) = rendered(&alert, Form::Full);
        let found = block(&shown, "What was found").expect("there");
        assert!(found.encode_utf16().count() <= MAX_SECTION_UNITS && !found.contains("…\n…"), "{found}");
        let listed = found.matches("\n• 2026").count();
        assert!(listed > 3 && found.ends_with(&format!("\nand {} more", 20 - listed)), "{found}");
        assert_eq!(block(&shown, "To leave this out"), None, "its values are too long");
        let ends_whole = |alert: &Alert| {
            let (_, shown) = rendered(alert, Form::Plain);
            let said = shown["text"].as_str().expect("text").to_owned();
            assert!(said.contains("delivery ") && said.encode_utf16().count() <= MAX_TEXT_UNITS, "{said}");
            said
        };
        assert!(ends_whole(&stateful_alert()).contains("unless   - {when"), "it fits");
        assert!(!ends_whole(&alert).contains("from é"), "the evidence goes first");
        let mut alert = stateful_alert();
        while units(&text::alert_text(&alert, "d")) <= MAX_TEXT_UNITS {
            alert.rule.response.push_str(&format!("\n{}", "x".repeat(150)));
        }
        let said = ends_whole(&alert);
        assert!(!said.contains("unless") && said.contains("USER_LOGIN"), "the exception goes before it: {said}");
    }

    #[test]
    fn a_header_fits_at_the_limit_and_is_cut_beyond_it() {
        let room = MAX_HEADER_UNITS - "HIGH: ".len();
        let header = |title: String| rendered(&alert_titled(&title), Form::Full).1["blocks"][0]["text"]["text"].clone();
        assert_eq!(header("a".repeat(room)), format!("HIGH: {}", "a".repeat(room)));
        assert_eq!(header("a".repeat(room + 1)), format!("HIGH: {}…", "a".repeat(room - 1)));
        assert_eq!(header("🦀".repeat(room / 2)), format!("HIGH: {}", "🦀".repeat(room / 2)));
        assert_eq!(header("🦀".repeat(room / 2 + 1)), format!("HIGH: {}…", "🦀".repeat(room / 2 - 1)));
    }

    #[test]
    fn sections_fields_and_blocks_stay_within_limits() {
        assert_eq!(fit(&"a".repeat(3000), 3000), "a".repeat(3000));
        assert_eq!(fit(&"a".repeat(3001), 3000), format!("{}…", "a".repeat(2999)));
        for character in ["a", "é", "🦀", "<", "\u{1b}"] {
            let mut alert = alert_titled(&character.repeat(70_000));
            let long = || Untrusted::new(character.repeat(5_000));
            alert.key = (0..12).map(|index| (format!("k{index}"), long())).collect();
            let reason = Reason { actual: Some(long()), ..alert.reason[0].clone() };
            alert.reason = vec![reason; 200];
            alert.rule.response = format!("{}\n", character.repeat(500)).repeat(300);
            alert.event =
                RawValue::from_string(json!({"a": character.repeat(5_000), "b": character.repeat(5_000)}).to_string())
                    .expect("valid");
            let (_, shown) = rendered(&alert, Form::Full);
            let blocks = shown["blocks"].as_array().expect("blocks");
            assert!(blocks.len() <= 50 && length(&shown["text"]) <= 5 * MAX_TEXT_UNITS);
            assert!(length(&blocks[0]["text"]["text"]) <= MAX_HEADER_UNITS);
            let fields = blocks[1]["fields"].as_array().expect("fields");
            assert_eq!(fields.len(), MAX_FIELDS);
            assert!(fields.iter().all(|field| length(&field["text"]) <= MAX_FIELD_UNITS));
            for block in &blocks[2..blocks.len() - 1] {
                assert!(length(&block["text"]["text"]) <= MAX_SECTION_UNITS, "{character}");
            }
            let (_, plain) = rendered(&alert, Form::Plain);
            assert!(length(&plain["text"]) <= 5 * MAX_TEXT_UNITS);
        }
    }
}
