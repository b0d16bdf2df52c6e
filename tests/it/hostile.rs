//! Event text that was chosen to do harm, through the real binary to everything that shows it: there it must be inert.
//!
//! The same for what a destination and the API answer. Each writer's own escaping has tests beside it; this finds the
//! writer that forgot.

use serde_json::{Value, json};
use vigie_engine::text::is_unsafe;

use crate::api::Api;
use crate::program::{Place, text};
use crate::receiver::{Answer, Receiver};
use crate::relay::{Mail, Relay};

/// CR LF and header lines, markup, direction overrides, Slack mentions, terminal escapes with their C1 forms, NUL, links.
const HOSTILE: &str = "x\r\nBcc: victim@example.org\r\n\r\n<script>alert(1)</script><img src=x onerror=alert(1)> \
    \u{202e}gpj.exe\u{2066}\u{200b} <!channel> <!here> <@U123> <https://evil.example|click> @everyone \
    `rm -rf` *b* _i_ ~s~ \u{1b}[2J\u{1b}]0;owned\u{7} \u{1b}]8;;https://evil.example\u{7}link\u{1b}]8;;\u{7} \u{9b}31m\u{90}q\u{9c} \
    \0\u{8}\u{7f}\u{2028}\u{feff} https://evil.example/a?b=c [x](https://evil.example) \"'; -- {{ 7*7 }} ${HOME} %0d%0a";
/// Stands for half a surrogate pair, which only JSON text can hold.
const LONE: &str = "@@LONE@@";

const RULES: &str = r#"
rules:
  - id: hostile
    title: Hostile
    severity: critical
    response: "Look at https://runbook.example.org/7"
    when:
      event_type: "*"
      source: CD
      user_email|contains: Bcc
      context.app_name|contains: x
    alert:
      title: "{{ event.user_email }} made {{ event.context.app_name }} from {{ event.source_ip }}"
      dedup: [user_email, context.app_name]
    tests:
      - {name: any, events: [{event_type: A, source: CD, user_email: Bcc, source_ip: i, context: {app_name: x}}], expect: alert}
"#;

async fn hostile_api() -> Api {
    let api = Api::start_rewriting(|body| body.replace(LONE, "\\ud83d")).await;
    for event_type in ["APP_CREATE", "APP\u{1b}]0;x\u{7}\u{202e}<script>"] {
        api.happen_with(event_type, |event| {
            event.user_email = Some(format!("{HOSTILE}{LONE}"));
            event.source_ip = HOSTILE.into();
            event.source_country = Some(HOSTILE.into());
            event.context = json!({
                "app_name": format!("{event_type} {HOSTILE}"),
                HOSTILE: {HOSTILE: [HOSTILE, LONE]},
                LONE: HOSTILE,
                "url": "https://evil.example/\r\nHost: evil.example",
                "long": "A\u{202e}\u{1b}[2J<script>".repeat(100 * 1024 / 16),
            });
        });
    }
    api
}

/// Nothing in it steers a terminal, reorders text or hides.
fn assert_inert(what: &str, text: &str) {
    assert!(!text.trim().is_empty(), "{what} is empty");
    if let Some(at) = text.char_indices().find(|(_, c)| *c != '\n' && is_unsafe(*c)).map(|(at, _)| at) {
        let around: String = text.chars().skip(text[..at].chars().count().saturating_sub(60)).take(120).collect();
        panic!("{what} holds {around:?}");
    }
    assert!(!text.lines().any(|line| line.trim_start().starts_with("Bcc:")), "{what} has a line of the event's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn event_text_is_inert_wherever_it_is_shown() {
    let (api, slack, hook, rude, relay) = (
        hostile_api().await,
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
        Relay::start(false).await,
    );
    rude.answer(Answer::Status(500, Vec::new(), HOSTILE.into()));
    let place = Place::new();
    let sinks = format!(
        "sinks:\n  out: {{stdout: {{}}}}\n  lines: {{stdout: {{format: json}}}}\n  trail: {{file: {{path: trail.jsonl}}}}\n  \
         chat: {{slack: {{webhook_url: \"{}\"}}}}\n  hook: {{webhook: {{url: \"{}\", max_body: 1MB}}}}\n  \
         rude: {{webhook: {{url: \"{}\"}}}}\n  mail: {{email: {{smtp: \"smtp://127.0.0.1:{}\", from: vigie@example.org, \
         to: [soc@example.org]}}}}\n",
        slack.url, hook.url, rude.url, relay.port
    );
    place.configure_with(&api, RULES, &sinks);
    let run = place.run(&["run", "-c", "vigie.yaml", "--once", "-vv"]).await;
    assert_eq!(run.status.code(), Some(75), "the rude sink still waits\n{}", text(&run.stderr));
    assert_inert("stdout", &text(&run.stdout));
    assert_inert("the log", &text(&run.stderr));
    assert!(text(&run.stdout).contains("Bcc: victim"), "the text itself is there");

    let lines = text(&run.stdout);
    let alerts: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(alerts.len(), 2, "one object a line\n{lines}");
    let trail = std::fs::read_to_string(place.file("trail.jsonl")).expect("written");
    assert_inert("the file", &trail);
    for line in trail.lines() {
        let alert: Value = serde_json::from_str(line).expect("an object a line");
        let shown = alert["event"]["source_ip"].as_str();
        assert_eq!(shown, Some(HOSTILE), "a machine reads what came");
    }
    for request in hook.received() {
        assert_inert("the webhook's body", &text(&request.body));
        assert_eq!(request.json()["event"]["source_ip"].as_str(), Some(HOSTILE));
    }
    assert_eq!((slack.received().len(), hook.received().len()), (2, 2));
    slack.received().iter().for_each(|request| assert_slack_is_inert(&text(&request.body)));
    let mails = relay.mails();
    assert_eq!(mails.len(), 2);
    mails.iter().for_each(assert_mail_is_inert);
    assert_verbs_are_inert(&place, &api).await;
    assert_json_log_is_inert(&place, &api).await;
}

fn assert_slack_is_inert(body: &str) {
    assert_inert("Slack's body", body);
    assert!(!body.contains(['<', '>', '&']), "no markup even for what stands between\n{body}");
    let message: Value = serde_json::from_str(body).expect("JSON");
    let fallback = message["text"].as_str().expect("a fallback");
    assert!(!fallback.contains(['<', '>']), "no mention in the fallback: {fallback}");
    let mut open = vec![&message];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                assert_ne!(members.get("type"), Some(&json!("mrkdwn")), "nothing of an event is parsed");
                open.extend(members.values());
            }
            Value::Array(items) => open.extend(items),
            Value::String(shown) => assert!(!shown.contains("://evil"), "a live link: {shown}"),
            _ => {}
        }
    }
    assert!(message["blocks"].as_array().is_some_and(|blocks| blocks.len() <= 50));
}

fn assert_mail_is_inert(mail: &Mail) {
    const OURS: &[&str] = &[
        "date",
        "from",
        "subject",
        "message-id",
        "in-reply-to",
        "references",
        "to",
        "auto-submitted",
        "x-auto-response-suppress",
        "x-vigie-alert-id",
        "x-vigie-delivery-id",
        "x-vigie-rule",
        "x-vigie-severity",
        "x-vigie-source",
        "mime-version",
        "content-type",
    ];
    for (name, value) in &mail.headers {
        assert!(OURS.contains(&name.as_str()), "a header of the event's own: {name}: {value}");
        assert!(value.is_ascii() && !value.chars().any(is_unsafe), "{name}: {value:?}");
        assert!(!value.contains("://"), "a live link: {name}: {value}");
    }
    assert_eq!(mail.header("to"), "soc@example.org");
    assert_eq!(mail.header("auto-submitted"), "auto-generated");
    assert!(mail.header("message-id").ends_with("@example.org>"));
    let [plain, html] = mail.parts.as_slice() else { panic!("two parts: {mail:?}") };
    assert!(plain.header("content-type").starts_with("text/plain"), "text first");
    assert!(html.header("content-type").starts_with("text/html"));
    for part in [plain, html] {
        assert_inert("the mail", &part.body.replace("\r\n", "\n"));
        assert!(!part.body.contains("://evil") && !part.body.contains("www.evil"), "a live link: {}", part.body);
    }
    let markup = html.body.to_lowercase();
    for tag in ["<script", "<img", "<a ", "href=", "<iframe", "<https"] {
        assert!(!markup.contains(tag), "{tag} in {markup}");
    }
    assert!(markup.contains("&lt;script&gt;"), "the text itself is there");
}

/// Every verb that reads events back, in every form.
async fn assert_verbs_are_inert(place: &Place, api: &Api) {
    let event_id = api.pushed()[0].clone();
    let listed = place.run(&["alerts", "list", "-c", "vigie.yaml", "-o", "ndjson"]).await;
    let alert: Value = serde_json::from_str(text(&listed.stdout).lines().next().expect("an alert")).expect("JSON");
    let alert_id = alert["alert"]["alert_id"].as_str().expect("an id").to_owned();
    let deliveries = place.run(&["deliveries", "list", "-c", "vigie.yaml", "-o", "json"]).await;
    let deliveries: Vec<Value> = serde_json::from_slice(&deliveries.stdout).expect("JSON");
    let event = place.run(&["events", "get", &event_id, "-c", "vigie.yaml"]).await;
    place.write("event.json", &text(&event.stdout));
    let mut calls: Vec<Vec<String>> = [
        vec!["alerts", "list"],
        vec!["alerts", "show", &alert_id],
        vec!["deliveries", "list"],
        vec!["events", "list", "--from", "1h"],
        vec!["events", "list", "--from", "1h", "--search", HOSTILE.split('\0').next().unwrap_or_default()],
        vec!["events", "get", &event_id],
        vec!["events", "get", "\u{1b}[2Jno-such-event"],
        vec!["alerts", "show", "\u{1b}[2Jno-such-alert"],
        vec!["deliveries", "show", "\u{1b}[2Jno-such-delivery"],
        vec!["sink", "test", "\u{1b}[2Jno-such-sink"],
        vec!["explain", "hostile", "event.json"],
        vec!["explain", "\u{1b}[2J", "event.json"],
        vec!["backtest", "--html", "report.html"],
        vec!["backtest", "--rule", "\u{1b}[2J"],
    ]
    .iter()
    .map(|call| call.iter().map(|&word| word.to_owned()).collect())
    .collect();
    for delivery in &deliveries {
        let id = delivery["delivery_id"].as_str().expect("an id").to_owned();
        calls.push(vec!["deliveries".into(), "show".into(), id]);
    }
    for call in &calls {
        for form in ["human", "json", "ndjson"] {
            let mut words: Vec<&str> = call.iter().map(String::as_str).collect();
            words.extend(["-c", "vigie.yaml", "-o", form]);
            let output = place.run(&words).await;
            let said = text(&output.stdout) + &text(&output.stderr);
            assert_inert(&format!("{words:?}"), &format!("{said}\n."));
            assert_ne!(output.status.code(), Some(101), "{words:?}: {said}");
        }
    }
    println!("{} calls in three forms are inert", calls.len());
}

/// The log as JSON, with an API and a destination that answer in hostile text.
async fn assert_json_log_is_inert(place: &Place, api: &Api) {
    let rude = Receiver::start().await;
    let problem = json!({"title": HOSTILE, "detail": HOSTILE, "error_title": HOSTILE}).to_string();
    for (status, body) in [(500, HOSTILE.to_owned()), (403, problem.clone()), (400, problem), (200, HOSTILE.to_owned())]
    {
        rude.answer(Answer::Status(status, Vec::new(), body));
        let configuration = std::fs::read_to_string(place.file("vigie.yaml")).expect("ours");
        place.write("rude.yaml", &configuration.replace(&api.base_url, &rude.url));
        for format in ["text", "json"] {
            let words = ["events", "list", "-c", "rude.yaml", "--log-format", format, "-vv"];
            let output = place.run(&words).await;
            assert_ne!(output.status.code(), Some(0));
            assert_inert(&format!("{status} {words:?}"), &text(&output.stderr));
        }
    }
    rude.answer(Answer::Status(403, Vec::new(), json!({"title": HOSTILE}).to_string()));
    let log = place.run(&["run", "-c", "rude.yaml", "--once", "-vv", "--log-format", "json"]).await;
    assert_eq!(log.status.code(), Some(5), "{}", text(&log.stderr));
    assert_inert("the log as JSON", &text(&log.stderr));
    let mut objects = 0;
    for line in text(&log.stderr).lines().filter(|line| !line.starts_with("vigie: ")) {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        objects += usize::from(entry.is_object());
    }
    assert!(objects > 0, "there is a log");
}
