//! `discord`, `mattermost`, `google_chat` and `telegram`: the alert as text in a chat, within the limits of one table.
//!
//! The text stands in a block of fixed width, where a chat knows no markup and no mention; what could end the block is
//! replaced, URLs are defanged. What does not fit is left out by whole lines, and the ids stay.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;

use super::bound::{Bound, Most, Unit};
use super::format::with_member;
use super::http::answer::Answer;
use super::http::{Endpoint, TRANSPORT, endpoint_at};
use super::probe::{Probe, Question, Verdict};
use super::text::{self, defang};
use super::update::{CLOSING, UPDATES, Update, update_text};
use super::{
    AttemptReport, BuildContext, DIGEST, Delivery, Form, Outcome, RenderContext, RenderError, RetryProfile, Sink,
    SinkKind, burst, rate,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;
use crate::secret::SinkUrl;

/// Discord: one message takes 2,000 characters, a webhook 30 messages a minute and 5 within two seconds.
pub const DISCORD: SinkKind = SinkKind {
    kind: "discord",
    example: "chat:\n  discord:\n    webhook_url: ${DISCORD_WEBHOOK_URL}\n",
    bounds: &[Bound {
        what: "text",
        most: Most::Of(LIMITS_DISCORD.max_units),
        unit: Unit::Utf16,
        used: |body| Unit::Utf16.at(body, "/content"),
    }],
    options: &[&[WEBHOOK_URL, UPDATES, CLOSING, DIGEST, rate(Presence::Default("30/m")), burst("5")], TRANSPORT],
    build: |options, _, context, diagnostics| build(&LIMITS_DISCORD, options, context, diagnostics),
};
/// Mattermost: 4,000 characters on any server, and by default ten requests a second where its limits are switched on.
pub const MATTERMOST: SinkKind = SinkKind {
    kind: "mattermost",
    example: "chat:\n  mattermost:\n    webhook_url: ${MATTERMOST_WEBHOOK_URL}\n",
    bounds: &[Bound {
        what: "text",
        most: Most::Of(LIMITS_MATTERMOST.max_units),
        unit: Unit::Utf16,
        used: |body| Unit::Utf16.at(body, "/text"),
    }],
    options: &[&[WEBHOOK_URL, UPDATES, CLOSING, DIGEST, rate(Presence::Default("10/s")), burst("10")], TRANSPORT],
    build: |options, _, context, diagnostics| build(&LIMITS_MATTERMOST, options, context, diagnostics),
};
/// Google Chat: 32,000 bytes, one message a second in a space.
pub const GOOGLE_CHAT: SinkKind = SinkKind {
    kind: "google_chat",
    example: "chat:\n  google_chat:\n    webhook_url: ${GOOGLE_CHAT_WEBHOOK_URL}\n",
    bounds: &[Bound {
        what: "text",
        most: Most::Of(LIMITS_GOOGLE_CHAT.max_units),
        unit: Unit::Bytes,
        used: |body| Unit::Bytes.at(body, "/text"),
    }],
    options: &[&[WEBHOOK_URL, UPDATES, CLOSING, DIGEST, rate(Presence::Default("1/s")), burst("1")], TRANSPORT],
    build: |options, _, context, diagnostics| build(&LIMITS_GOOGLE_CHAT, options, context, diagnostics),
};
/// Telegram: 4,096 UTF-16 units, 20 messages a minute in a group.
pub const TELEGRAM: SinkKind = SinkKind {
    kind: "telegram",
    example: "chat:\n  telegram:\n    bot_token: ${TELEGRAM_BOT_TOKEN}\n    chat_id: \"-1001234567890\"\n",
    bounds: &[Bound {
        what: "text",
        most: Most::Of(LIMITS_TELEGRAM.max_units),
        unit: Unit::Utf16,
        used: |body| Unit::Utf16.at(body, "/text"),
    }],
    options: &[
        &[
            OptionSpec {
                name: "bot_token",
                kind: OptionKind::Secret,
                presence: Presence::Required,
                help: "token of the bot, as BotFather gave it",
            },
            OptionSpec {
                name: "chat_id",
                kind: OptionKind::Text,
                presence: Presence::Required,
                help: "number of the chat (of a group it begins with -), or @name of a public channel",
            },
            OptionSpec {
                name: "api_url",
                kind: OptionKind::Url(&["https", "http"]),
                presence: Presence::Default("https://api.telegram.org/"),
                help: "server of the Bot API; another one only if you run your own",
            },
            DIGEST,
            UPDATES,
            CLOSING,
            rate(Presence::Default("20/m")),
            burst("3"),
        ],
        TRANSPORT,
    ],
    build: build_telegram,
};

const WEBHOOK_URL: OptionSpec = OptionSpec {
    name: "webhook_url",
    kind: OptionKind::Url(&["https", "http"]),
    presence: Presence::Required,
    help: "URL of the incoming webhook; it is a secret",
};

/// What one kind of chat takes, and how it says yes and no.
#[derive(Debug)]
struct Limits {
    kind: &'static str,
    /// Most of a message's text, in its own units.
    max_units: usize,
    units: fn(char) -> usize,
    /// The message around a text; telegram's chat is put in when it is sent, for it may be mended meanwhile.
    message: fn(&Text<'_>) -> Value,
    /// Whether the body of a 2xx is the destination's own.
    assents: fn(&[u8]) -> bool,
    /// Parts of a refusal, in lower case, which say that the chat is not there for us, whatever is sent.
    words_misconfigured: &'static [&'static str],
    /// What can be asked where the URL is all there is.
    probe: for<'a> fn(&'a Endpoint) -> Probe<'a>,
}

/// A text that goes out.
struct Text<'t> {
    text: &'t str,
    is_block: bool,
}

/// Discord's webhook reference; no mention is parsed and no link is shown as a card (flag 4).
const LIMITS_DISCORD: Limits = Limits {
    kind: "discord",
    max_units: 2_000,
    units: char::len_utf16,
    message: |text| json!({"content": fenced(text), "allowed_mentions": {"parse": []}, "flags": 4}),
    assents: |body| has_member(body, "id"),
    words_misconfigured: &["thread_name"],
    probe: |endpoint| {
        Probe::Asks(Box::pin(async move {
            let webhook =
                Question { judge: is_webhook, ..Question::get("GET of the URL", "the webhook is there", ("", "")) };
            vec![webhook.ask(endpoint, HeaderMap::new()).await]
        }))
    },
};
/// A longer text than a server takes comes as several posts, the block broken: old databases hold 4,000 characters.
const LIMITS_MATTERMOST: Limits = Limits {
    kind: "mattermost",
    max_units: 4_000,
    units: char::len_utf16,
    message: |text| json!({"text": fenced(text)}),
    assents: |body| body.trim_ascii() == b"ok",
    words_misconfigured: &[
        "web.incoming_webhook.invalid",
        "web.incoming_webhook.disabled",
        "web.incoming_webhook.channel",
        "web.incoming_webhook.user",
    ],
    probe: |_| Probe::Nothing("an incoming webhook takes nothing but messages"),
};
const LIMITS_GOOGLE_CHAT: Limits = Limits {
    kind: "google_chat",
    max_units: 32_000,
    units: char::len_utf8,
    message: |text| json!({"text": fenced(text)}),
    assents: |body| has_member(body, "name"),
    words_misconfigured: &["api_key_invalid"],
    probe: |_| Probe::Nothing("a webhook of a space takes nothing but messages"),
};
/// The Bot API: no `parse_mode`, so that nothing in the text is markup; the block is an entity beside it.
const LIMITS_TELEGRAM: Limits = Limits {
    kind: "telegram",
    max_units: 4_096,
    units: char::len_utf16,
    message: |text| {
        let mut message = json!({"text": text.text, "link_preview_options": {"is_disabled": true}});
        if text.is_block {
            let length = text.text.encode_utf16().count();
            message["entities"] = json!([{"type": "pre", "offset": 0, "length": length}]);
        }
        message
    },
    assents: |body| serde_json::from_slice::<Value>(body).is_ok_and(|answer| answer["ok"] == true),
    words_misconfigured: &[
        "chat not found",
        "chat_id is empty",
        "chat_write_forbidden",
        "group is deactivated",
        "have no rights to send",
        "need administrator rights",
        "not enough rights",
        "peer_id_invalid",
        "upgraded to a supergroup",
    ],
    probe: |_| Probe::Nothing("it is asked by its chat"),
};

/// Most of a text outside of a block: what was refused once must be shorter the second time.
const MAX_PLAIN_UNITS: usize = 1_000;
/// How the line of the ready-made exception begins.
const UNLESS: &str = "\n  unless ";
/// Room for the marks of a block, and for the line that counts what was left out.
const OVERHEAD_UNITS: usize = 48;

/// The sink.
#[derive(Debug)]
struct ChatSink {
    limits: &'static Limits,
    endpoint: Endpoint,
    /// Telegram's.
    chat_id: Option<String>,
}

fn build(
    limits: &'static Limits,
    options: &Options,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    let mut url = options.url(WEBHOOK_URL.name)?.clone();
    if limits.kind == LIMITS_DISCORD.kind && !url.query_pairs().any(|(name, _)| name == "wait") {
        // Otherwise it says yes before it has saved the message.
        url.query_pairs_mut().append_pair("wait", "true");
    }
    let endpoint = endpoint_at(SinkUrl::new(url), options, WEBHOOK_URL.name, Vec::new(), context, diagnostics)?;
    Some(Box::new(ChatSink { limits, endpoint, chat_id: None }))
}

fn build_telegram(
    options: &Options,
    name: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    let (token, chat_id) = (options.secret("bot_token")?, options.text("chat_id")?.to_owned());
    let is_token = token.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || b":_-".contains(&byte));
    let mut url = options.url("api_url")?.clone();
    url.set_path(&format!("{}/bot{}/sendMessage", url.path().trim_end_matches('/'), token.expose()));
    if !is_token {
        let message = format!("sink `{name}`: `bot_token` is no token");
        let hint = "as BotFather gave it: a number, a colon, and letters";
        diagnostics.error("E0440", options.span_of("bot_token"), message, Some(hint.into()));
        return None;
    };
    let endpoint = endpoint_at(SinkUrl::new(url), options, "api_url", vec![token.clone()], context, diagnostics)?;
    Some(Box::new(ChatSink { limits: &LIMITS_TELEGRAM, endpoint, chat_id: Some(chat_id) }))
}

impl ChatSink {
    fn message(&self, text: &str, ids: &str, form: Form) -> Vec<u8> {
        let shown = inert(text, form);
        let text = self.within(&shown, ids, form);
        let text = Text { text: &text, is_block: form == Form::Full };
        (self.limits.message)(&text).to_string().into_bytes()
    }

    /// The lines that fit, and the ids.
    fn within(&self, text: &str, ids: &str, form: Form) -> String {
        let mut shown = text::lines_within(text, self.room(ids, form), |line| self.units(line) + 1);
        shown.push(ids.to_owned());
        shown.join("\n")
    }

    fn room(&self, ids: &str, form: Form) -> usize {
        let most = if form == Form::Plain { MAX_PLAIN_UNITS } else { self.limits.max_units };
        most.saturating_sub(OVERHEAD_UNITS + self.units(ids))
    }

    fn units(&self, text: &str) -> usize {
        text.chars().map(self.limits.units).sum()
    }

    fn outcome(&self, answer: &Answer) -> Outcome {
        match answer.status.as_u16() {
            // A proxy's page, or a cut answer.
            200..=299 if !(self.limits.assents)(&answer.body) => Outcome::Retry,
            _ => answer.outcome_unless(self.limits.words_misconfigured),
        }
    }
}

impl Sink for ChatSink {
    fn kind(&self) -> &'static str {
        self.limits.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Person
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let ids = text::footer(alert, context.delivery_id);
        let room = self.room(&ids, context.form);
        let fits = |shown: &str| text::is_within(&inert(shown, context.form), room, |line| self.units(line) + 1);
        let shown = match context.form {
            Form::Full => text::alert_text_within(alert, context.delivery_id, fits),
            // What is to be copied would not be what it says any more.
            Form::Plain => {
                text::alert_text_within(alert, context.delivery_id, |shown| !shown.contains(UNLESS) && fits(shown))
            }
        };
        Ok(self.message(&shown, &ids, context.form))
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let ids = text::footer(update.alert, context.delivery_id);
        Ok(self.message(&update_text(update, context.delivery_id), &ids, context.form))
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        let body = match &self.chat_id {
            Some(chat_id) => with_member(&delivery.body, "chat_id", chat_id),
            None => delivery.body.clone(),
        };
        Box::pin(self.endpoint.post_json(Bytes::from(body), |answer| self.outcome(answer)))
    }

    fn probe(&self) -> Probe<'_> {
        let Some(chat_id) = &self.chat_id else { return (self.limits.probe)(&self.endpoint) };
        Probe::Asks(Box::pin(async move {
            let own = "sendMessage";
            let me =
                Question { judge: of_telegram, ..Question::get("getMe", "the token is that of a bot", (own, "getMe")) };
            let me = me.ask(&self.endpoint, HeaderMap::new()).await;
            if me.verdict() == Verdict::Refused {
                return vec![me];
            }
            let body = Bytes::from(json!({"chat_id": chat_id}).to_string());
            let chat = Question {
                body: Some(body),
                judge: of_telegram,
                ..Question::get("getChat", "the bot sees the chat", (own, "getChat"))
            };
            let json = HeaderValue::from_static("application/json");
            vec![me, chat.ask(&self.endpoint, HeaderMap::from_iter([(CONTENT_TYPE, json)])).await]
        }))
    }
}

/// Text that no chat takes for a link, the end of a block or a tag; outside of a block also not for a mention, a name of a
/// host or markup.
fn inert(text: &str, form: Form) -> String {
    let shown = defang(text).replace('`', "'").replace('<', "‹").replace('>', "›");
    if form == Form::Full {
        return shown;
    }
    let mut plain = String::with_capacity(shown.len());
    let mut characters = shown.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '@' => plain.push('＠'),
            '*' => plain.push('∗'),
            '_' => plain.push('＿'),
            '#' => plain.push('＃'),
            '~' => plain.push('∼'),
            '/' => plain.push('∕'),
            '[' => plain.push('('),
            ']' => plain.push(')'),
            '.' if characters.peek().is_some_and(|next| next.is_alphanumeric()) => plain.push_str("(.)"),
            other => plain.push(other),
        }
    }
    plain
}

/// Telegram answers 401 to a token that is none any more, and 404 to one that never was.
fn of_telegram(answer: &Answer) -> Outcome {
    match answer.status.as_u16() {
        200..=299 if !(LIMITS_TELEGRAM.assents)(&answer.body) => Outcome::Degrade,
        _ => answer.outcome_unless(LIMITS_TELEGRAM.words_misconfigured),
    }
}

/// Discord answers with the webhook's own object, to whoever knows its URL.
fn is_webhook(answer: &Answer) -> Outcome {
    match answer.status.as_u16() {
        200..=299 if !has_member(&answer.body, "id") => Outcome::Degrade,
        _ => answer.outcome_unless(&[]),
    }
}

fn has_member(body: &[u8], name: &str) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|answer| answer.get(name).is_some())
}

fn fenced(text: &Text<'_>) -> String {
    if text.is_block { format!("```\n{}\n```", text.text) } else { text.text.to_owned() }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::super::update::Told;
    use super::*;
    use crate::sink::contract::{
        self, CANARY, HOSTILE, Loopback, Reply, alert_titled, attempt, delivery, hold, make_hostile, make_long,
        stateful_alert, text_node, update_of,
    };

    const ALL: [&Limits; 4] = [&LIMITS_DISCORD, &LIMITS_MATTERMOST, &LIMITS_GOOGLE_CHAT, &LIMITS_TELEGRAM];

    /// Telegram's token is the canary: it stands in the URL.
    fn make(kind: &str, url: &Url, context: &BuildContext) -> Box<dyn Sink> {
        let url = text_node(url.as_str());
        let options = match kind {
            "telegram" => vec![("api_url", url), ("bot_token", text_node(CANARY)), ("chat_id", text_node("-100123"))],
            _ => vec![("webhook_url", url)],
        };
        contract::build(kind, options, context).expect("builds")
    }

    fn sink(kind: &str) -> Box<dyn Sink> {
        make(kind, &Url::parse("https://chat.example.org/hooks/x").expect("valid"), &contract::context().0)
    }

    fn message(kind: &str, alert: &Alert, form: Form) -> Value {
        serde_json::from_slice(&delivery(&*sink(kind), alert, form).body).expect("JSON")
    }

    fn text_of(message: &Value) -> &str {
        message.get("content").or(message.get("text")).and_then(Value::as_str).expect("a text")
    }

    #[tokio::test]
    async fn each_holds_the_contract() {
        for (kind, yes) in [
            ("discord", &br#"{"id":"1"}"#[..]),
            ("mattermost", b"ok"),
            ("google_chat", br#"{"name":"x"}"#),
            ("telegram", br#"{"ok":true}"#),
        ] {
            hold(&|url, context| make(kind, &url, context), yes, Outcome::Misconfigured).await;
        }
    }

    #[tokio::test]
    async fn what_the_destination_says_of_itself_decides() {
        for (kind, status, body, expected) in [
            ("discord", "200 OK", "<html>please log in</html>", Outcome::Retry),
            (
                "discord",
                "400 Bad Request",
                r#"{"code":220001,"message":"... must have a thread_name or thread_id"}"#,
                Outcome::Misconfigured,
            ),
            ("google_chat", "200 OK", "{}", Outcome::Retry),
            (
                "google_chat",
                "400 Bad Request",
                r#"{"error":{"details":[{"reason":"API_KEY_INVALID"}]}}"#,
                Outcome::Misconfigured,
            ),
            ("discord", "410 Gone", "", Outcome::Misconfigured),
            ("mattermost", "200 OK", "<html>please log in</html>", Outcome::Retry),
            (
                "mattermost",
                "400 Bad Request",
                r#"{"id":"web.incoming_webhook.invalid.app_error"}"#,
                Outcome::Misconfigured,
            ),
            (
                "mattermost",
                "501 Not Implemented",
                r#"{"id":"web.incoming_webhook.disabled.app_error"}"#,
                Outcome::Misconfigured,
            ),
            ("mattermost", "400 Bad Request", r#"{"id":"web.incoming_webhook.text.app_error"}"#, Outcome::Degrade),
            ("telegram", "200 OK", r#"{"ok":false}"#, Outcome::Retry),
            (
                "telegram",
                "400 Bad Request",
                r#"{"ok":false,"description":"Bad Request: chat not found"}"#,
                Outcome::Misconfigured,
            ),
            (
                "telegram",
                "400 Bad Request",
                r#"{"ok":false,"description":"Bad Request: message is too long"}"#,
                Outcome::Degrade,
            ),
            (
                "telegram",
                "403 Forbidden",
                r#"{"ok":false,"description":"Forbidden: bot was kicked"}"#,
                Outcome::Misconfigured,
            ),
        ] {
            let server = Loopback::start(Reply::Http(status, vec![], body.into())).await;
            let report = attempt(&*make(kind, &server.url("/hooks/x"), &contract::context().0)).await;
            assert_eq!(report.outcome, expected, "{kind}: {status} {body}");
        }
    }

    #[tokio::test]
    async fn telegram_is_asked_at_the_bots_own_path_and_nothing_is_markup() {
        let server = Loopback::start(Reply::Http("200 OK", vec![], br#"{"ok":true}"#.to_vec())).await;
        let sink = make("telegram", &server.url("/own"), &contract::context().0);
        assert_eq!(attempt(&*sink).await.outcome, Outcome::Delivered);
        let request = &server.received()[0];
        assert!(request.head.starts_with(&format!("POST /own/bot{CANARY}/sendMessage ")), "{}", request.head);
        let sent: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!((&sent["chat_id"], sent.get("parse_mode")), (&json!("-100123"), None));
        let stored = delivery(&*sink, &alert_titled("t"), Form::Full).body;
        assert!(!String::from_utf8_lossy(&stored).contains("100123"), "it may be mended while rows wait");
        let length = text_of(&sent).encode_utf16().count();
        assert_eq!(sent["entities"], json!([{"type": "pre", "offset": 0, "length": length}]));
        let told = contract::build(
            "telegram",
            vec![("bot_token", text_node("12:a/../b")), ("chat_id", text_node("1"))],
            &contract::context().0,
        );
        let told = told.err().expect("refused");
        assert!(told.contains("E0440") && !told.contains("12:a"), "{told}");
    }

    #[test]
    fn hostile_text_is_inert() {
        let mut hostile = alert_titled(HOSTILE);
        make_hostile(&mut hostile, HOSTILE);
        for limits in ALL {
            for form in [Form::Full, Form::Plain] {
                let message = message(limits.kind, &hostile, form);
                let text = text_of(&message);
                let inside = match (form, limits.kind) {
                    (Form::Full, "discord" | "mattermost" | "google_chat") => {
                        text.strip_prefix("```\n").and_then(|text| text.strip_suffix("\n```")).expect("a block")
                    }
                    _ => text,
                };
                assert!(!inside.contains(['`', '<', '>', '\u{1b}', '\u{202e}']), "{}: {inside}", limits.kind);
                assert!(!inside.contains("://"), "{}: {inside}", limits.kind);
                let is_live = |text: &str| text.contains(['@', '*', '[', '/', '#', '~']) || text.contains(".example");
                assert!(form == Form::Full || !is_live(inside), "{}: {inside}", limits.kind);
            }
        }
        let discord = message("discord", &hostile, Form::Full);
        assert_eq!((&discord["allowed_mentions"], &discord["flags"]), (&json!({"parse": []}), &json!(4)));
    }

    #[test]
    fn a_message_says_all_at_its_limit_and_counts_what_is_left_out_beyond_it() {
        let whole = message("google_chat", &stateful_alert(), Form::Full);
        let whole = text_of(&whole);
        assert!(whole.contains("unless   - {when") && whole.contains("Call the user."), "{whole}");
        assert!(whole.starts_with("```\nHIGH     Two countries at once\n"), "{whole}");
        for limits in ALL {
            for character in ["a", "é", "🦀", "\u{202e}", "`"] {
                let mut alert = stateful_alert();
                make_long(&mut alert, character);
                alert.rule.response = format!("{}\n", character.repeat(390)).repeat(300);
                for form in [Form::Full, Form::Plain] {
                    let message = message(limits.kind, &alert, form);
                    let text = text_of(&message);
                    let units: usize = text.chars().map(limits.units).sum();
                    assert!(units <= limits.max_units, "{} {character} {form:?}: {units}", limits.kind);
                    assert!(text.contains("vigie, alert 0123456789ab, delivery "), "{text}");
                    let all_fits = form == Form::Full && limits.max_units > 16_000 || text.contains("more lines");
                    assert!(all_fits && text.contains("HIGH "), "{}: {text}", limits.kind);
                }
            }
        }
    }

    /// What fits exactly is whole; one unit more and a line goes.
    #[test]
    fn the_limit_is_exact() {
        let sink = ChatSink {
            limits: &LIMITS_DISCORD,
            endpoint: Endpoint::build(crate::sink::http::EndpointSpec::new(
                SinkUrl::new(Url::parse("https://chat.example.org/x").expect("valid")),
                std::sync::Arc::new(contract::StoppedClock),
            ))
            .expect("builds"),
            chat_id: None,
        };
        let room = LIMITS_DISCORD.max_units - OVERHEAD_UNITS - "ids".len();
        let lines = |last: usize| format!("first\n{}", "a".repeat(last));
        let exact = room - "first\n".len() - 1;
        assert!(sink.within(&lines(exact), "ids", Form::Full).ends_with("a\nids"));
        assert_eq!(sink.within(&lines(exact + 1), "ids", Form::Full), "first\nand 1 more lines\nids");
        assert!(sink.within(&format!("first\n{}🦀", "a".repeat(exact - 2)), "ids", Form::Full).ends_with("🦀\nids"));
        assert!(
            sink.within(&format!("first\n{}🦀", "a".repeat(exact - 1)), "ids", Form::Full).ends_with("more lines\nids")
        );
    }

    /// What is to be copied goes whole before any line of the rest does.
    #[test]
    fn the_exception_goes_before_a_line_is_left_out() {
        let mut alert = stateful_alert();
        let mut was_whole = false;
        for step in 0..400 {
            alert.rule.response.push_str(if step % 40 == 0 { "\nx" } else { "xxxxxxxx" });
            let message = message("discord", &alert, Form::Full);
            let text = text_of(&message);
            let (has_exception, is_cut) = (text.contains("  unless   "), text.contains("more lines"));
            assert!(!(has_exception && is_cut), "{text}");
            was_whole |= has_exception;
            if !has_exception {
                assert!(was_whole && !is_cut, "the exception alone makes room: {text}");
                return;
            }
        }
        panic!("it never grew beyond the limit");
    }

    #[test]
    fn an_update_is_a_message_like_any() {
        let alert = alert_titled("t");
        let context = RenderContext { delivery_id: "d2", now: alert.first_at, form: Form::Full };
        for limits in ALL {
            let body = sink(limits.kind).render_update(&update_of(&alert, Told::More), &context).expect("renders");
            let message: Value = serde_json::from_slice(&body).expect("JSON");
            assert!(text_of(&message).contains("Update to HIGH: t\n"), "{message}");
        }
    }
}
