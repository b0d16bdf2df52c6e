//! `vigie sink test` from outside: what it renders, measures, asks and sends, how it ends, and what it never shows.

use serde_json::Value;

use crate::program::{EVERY_EVENT, Place, closed_port, text};
use crate::receiver::{Answer, Receiver};
use crate::relay::Relay;

const TOKEN: &str = "123456:canary7secret4value";

fn place(sinks: &str) -> Place {
    let place = Place::new();
    place.write("rules/all.yaml", EVERY_EVENT);
    place.write(
        "vigie.yaml",
        &format!("sources: {{log: {{ndjson: {{path: '-'}}}}}}\nrules: [rules/]\nsinks: {{{sinks}}}\n"),
    );
    place
}

/// Runs `sink test` with `-o json`; its exit code, its one document, and what it said aside.
async fn tested(place: &Place, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = place.run(&[&["sink", "test"], arguments, &["-o", "json"]].concat()).await;
    let shown = text(&output.stderr);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert!(!shown.contains(TOKEN) && !text(&output.stdout).contains(TOKEN), "{shown}");
    assert_eq!(output.status.code().map(Value::from), Some(document["exit"].clone()), "{shown}");
    (output.status.code(), document, shown)
}

fn root(receiver: &Receiver) -> &str {
    receiver.url.trim_end_matches("/hook")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_document_holds_what_was_rendered_measured_and_sent() {
    let receiver = Receiver::start().await;
    let place = place(&format!("soc: {{webhook: {{url: '{}'}}}}, console: {{stdout: {{}}}}", receiver.url));
    let (exit, document, shown) = tested(&place, &["soc"]).await;
    assert_eq!(exit, Some(0), "{shown}");
    let body = document["rendered"][0]["body"].as_str().expect("text");
    assert_eq!(receiver.received()[0].body, body.as_bytes());
    let limit = &document["limits"][0];
    assert_eq!((&limit["what"], &limit["most"], &limit["unit"]), (&"body".into(), &20_000.into(), &"bytes".into()));
    assert_eq!((&limit["full"], &document["rendered"][0]["bytes"]), (&body.len().into(), &body.len().into()));
    assert_eq!(document["rendered"][1]["form"], "plain");
    assert!(document["unchecked"].as_str().is_some() && document["checks"] == serde_json::json!([]), "{document}");
    assert_eq!((&document["sent"]["outcome"], &document["sent"]["status"]), (&"delivered".into(), &"HTTP 200".into()));
    assert!(shown.contains(&format!("limit: body {} of 20000 bytes", body.len())), "{shown}");
    // The alert of a sink that writes to stdout goes aside, or there would be two documents.
    let (exit, document, shown) = tested(&place, &["console"]).await;
    assert_eq!((exit, &document["sent"]["outcome"]), (Some(0), &"delivered".into()), "{shown}");
    assert!(
        shown.contains("TEST: this is a test of the sink") && shown.contains("limit: none is documented"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_is_asked_for_and_only_then_sends() {
    let receiver = Receiver::start().await;
    let telegram = format!("{{bot_token: '{TOKEN}', chat_id: '-100', api_url: '{}'}}", root(&receiver));
    let place = place(&format!("chat: {{telegram: {telegram}}}"));
    let asked = |receiver: &Receiver| -> Vec<String> {
        let methods = receiver.received().into_iter().map(|request| request.uri.path().to_owned());
        methods.map(|path| path.rsplit('/').next().unwrap_or_default().to_owned()).collect()
    };
    receiver.answer(Answer::Status(401, Vec::new(), r#"{"ok": false, "description": "Unauthorized"}"#.into()));
    let (exit, document, shown) = tested(&place, &["chat"]).await;
    assert_eq!((exit, &document["checks"][0]["verdict"]), (Some(5), &"refused".into()), "{shown}");
    assert!(document["sent"].is_null() && shown.contains("getMe is refused (HTTP 401"), "{shown}");
    assert_eq!(asked(&receiver), ["getMe"]);

    receiver.answer(Answer::Status(200, Vec::new(), r#"{"ok": true, "result": {}}"#.into()));
    let (exit, document, shown) = tested(&place, &["chat", "--no-send"]).await;
    assert_eq!((exit, document["checks"].as_array().map(Vec::len)), (Some(0), Some(2)), "{shown}");
    assert!(document["sent"].is_null() && shown.contains("checked by getChat: the bot sees the chat"), "{shown}");
    let (exit, document, shown) = tested(&place, &["chat"]).await;
    assert_eq!((exit, &document["sent"]["outcome"]), (Some(0), &"delivered".into()), "{shown}");
    assert_eq!(asked(&receiver), ["getMe", "getMe", "getChat", "getMe", "getChat", "sendMessage"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_says_whether_a_person_or_time_must_help() {
    let receiver = Receiver::start().await;
    let (base, closed) = (root(&receiver), closed_port());
    let desk = |url: &str| format!("{{jira: {{url: '{url}', project: SEC, token: '{TOKEN}'}}}}");
    let place = place(&format!("desk: {}, away: {}", desk(base), desk(&format!("http://127.0.0.1:{closed}"))));
    let (exit, _, shown) = tested(&place, &["away"]).await;
    assert!(exit == Some(75) && shown.contains("connection refused"), "{shown}");
    receiver.answer(Answer::Echo(401));
    let (exit, _, shown) = tested(&place, &["desk"]).await;
    assert!(exit == Some(5) && shown.contains("/rest/api/2/myself is refused"), "{shown}");
    // That it may not be asked is no reason to send nothing.
    receiver.answer(Answer::status(403));
    let (exit, document, shown) = tested(&place, &["desk"]).await;
    assert_eq!((exit, &document["checks"][0]["verdict"]), (Some(5), &"untold".into()), "{shown}");
    assert_eq!(document["sent"]["outcome"], "misconfigured");
    let before = receiver.received().len();
    let (exit, document, shown) = tested(&place, &["desk", "--render-only"]).await;
    assert_eq!((exit, receiver.received().len()), (Some(0), before), "{shown}");
    assert!(document["rendered"][0]["body"].as_str().is_some_and(|body| body.contains("noformat")), "{document}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_refuses_the_log_in_gets_no_mail_and_its_words_show_no_password() {
    for (refuses, expected) in [(true, Some(5)), (false, Some(0))] {
        let relay = Relay::start(refuses).await;
        let smtp = format!("smtp: 'smtp://127.0.0.1:{}', user: vigie, password: '{TOKEN}'", relay.port);
        let place = place(&format!("mail: {{email: {{{smtp}, from: v@example.org, to: soc@example.org}}}}"));
        let (exit, document, shown) = tested(&place, &["mail"]).await;
        assert_eq!(exit, expected, "{shown}");
        assert_eq!(relay.mails().len(), usize::from(!refuses), "{shown}");
        assert_eq!(document["checks"][0]["asked"], "EHLO, AUTH, QUIT");
        let line = document["limits"][0]["full"].as_u64().expect("a number");
        assert!((1..=998).contains(&line), "{document}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_and_a_directory_that_is_not_are_found_without_an_alert() {
    let place = place("page: {exec: {command: [/nowhere/page-me]}}, trail: {file: {path: none/alerts.jsonl}}");
    for (name, word) in [("page", "the program is refused"), ("trail", "file and directory is refused")] {
        let (exit, document, shown) = tested(&place, &[name]).await;
        assert!(exit == Some(5) && shown.contains(word) && document["sent"].is_null(), "{shown}");
    }
    place.write("none/keep", "");
    let (exit, _, shown) = tested(&place, &["trail", "--no-send"]).await;
    assert!(exit == Some(0) && !place.file("none/alerts.jsonl").exists(), "{shown}");
}
