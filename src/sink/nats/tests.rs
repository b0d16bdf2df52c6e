//! The sink against a small server on loopback: every answer of its classes, every way to log in, TLS before and after INFO.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::super::update::Told;
use super::credentials::tests::{SEED_TEXT, file as credentials};
use super::*;
use crate::clock::Clock as _;
use crate::sink::Form;
use crate::sink::contract::{
    self, CANARY, HOSTILE, StoppedClock, TEST_LIMITS, alert_titled, attempt, delivery, text_node, update_of,
};
use crate::sink::wire::tests::{TLS_FILES, acceptor};

const YES: &str = r#"{"stream":"ALERTS","seq":7}"#;

/// A server of one connection.
#[derive(Clone)]
struct Script {
    info: Value,
    /// When TLS is spoken: before INFO, or after.
    tls: Option<bool>,
    /// Its answer to CONNECT and PING.
    to_connect: String,
    /// Its answer to SUB and PING.
    to_subscribe: String,
    /// Its answer to a message; `INBOX` stands for our inbox.
    to_publish: String,
}

/// What it heard.
#[derive(Debug, Default)]
struct Heard {
    connect: Value,
    subscribed: String,
    published: String,
    headers: String,
    payload: Vec<u8>,
}

impl Default for Script {
    fn default() -> Self {
        let info = json!({"server_id": "x", "max_payload": 1_048_576, "headers": true});
        Self {
            info,
            tls: None,
            to_connect: "PONG\r\n".into(),
            to_subscribe: "PONG\r\n".into(),
            to_publish: answered(YES),
        }
    }
}

fn answered(payload: &str) -> String {
    format!("MSG INBOX 1 {}\r\n{payload}\r\n", payload.len())
}

impl Script {
    async fn start(self) -> (SocketAddr, JoinHandle<io::Result<Heard>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            let info = format!("INFO {}\r\n", self.info);
            match self.tls {
                None => {
                    stream.write_all(info.as_bytes()).await?;
                    self.converse(BufStream::new(stream)).await
                }
                Some(true) => {
                    let mut stream = acceptor(false).accept(stream).await?;
                    stream.write_all(info.as_bytes()).await?;
                    self.converse(BufStream::new(stream)).await
                }
                Some(false) => {
                    stream.write_all(info.as_bytes()).await?;
                    self.converse(BufStream::new(acceptor(false).accept(stream).await?)).await
                }
            }
        });
        (address, task)
    }

    async fn converse<S: Duplex>(&self, mut stream: BufStream<S>) -> io::Result<Heard> {
        let mut heard = Heard::default();
        loop {
            let mut line = String::new();
            // TLS without its farewell is an end like another.
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return Ok(heard);
            }
            let (verb, rest) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
            match verb {
                "CONNECT" => heard.connect = serde_json::from_str(rest)?,
                "PING" if heard.subscribed.is_empty() => stream.write_all(self.to_connect.as_bytes()).await?,
                "PING" => stream.write_all(self.to_subscribe.as_bytes()).await?,
                "SUB" => heard.subscribed = rest.to_owned(),
                "HPUB" => {
                    let words: Vec<&str> = rest.split(' ').collect();
                    let length = |at: usize| words[at].parse::<usize>().expect("a length");
                    let mut bytes = vec![0; length(3) + 2];
                    stream.read_exact(&mut bytes).await?;
                    assert!(bytes.ends_with(b"\r\n"));
                    bytes.truncate(length(3));
                    heard.payload = bytes.split_off(length(2));
                    heard.headers = String::from_utf8(bytes).expect("UTF-8");
                    heard.published = rest.to_owned();
                    stream.write_all(self.to_publish.replace("INBOX", words[1]).as_bytes()).await?;
                }
                "PONG" => {}
                _ => panic!("{line}"),
            }
            stream.flush().await?;
        }
    }
}

fn made(url: &str, more: &[(&'static str, &str)]) -> Result<Box<dyn Sink>, String> {
    let mut context = contract::context().0;
    context.http_limits = TEST_LIMITS;
    let mut options = vec![("url", text_node(url))];
    options.extend(more.iter().map(|(name, value)| (*name, text_node(value))));
    contract::build("nats", options, &context)
}

fn make(url: &str, more: &[(&'static str, &str)]) -> Box<dyn Sink> {
    made(url, more).expect("builds")
}

/// One attempt against a script.
async fn with(script: Script, scheme: &str, more: &[(&'static str, &str)]) -> (AttemptReport, Heard) {
    let (address, server) = script.start().await;
    let report = attempt(&*make(&format!("{scheme}://{address}"), more)).await;
    (report, server.await.expect("no panic").unwrap_or_default())
}

fn told(report: &AttemptReport) -> (Outcome, &str) {
    (report.outcome.clone(), report.status.as_str())
}

#[tokio::test]
async fn what_the_stream_acknowledges_is_delivered() {
    // Pings and news in between are part of the language.
    let noise = "PING\r\nINFO {\"max_payload\":1}\r\n+OK\r\n";
    let script = Script {
        to_connect: format!("{noise}PONG\r\n"),
        to_subscribe: format!("{noise}PONG\r\n"),
        to_publish: noise.to_owned() + &answered(YES),
        ..Script::default()
    };
    let (report, heard) = with(script, "nats", &[]).await;
    assert_eq!(told(&report), (Outcome::Delivered, "acknowledged"));
    assert_eq!(report.excerpt, "ALERTS, sequence 7");
    for (option, expected) in [("headers", true), ("no_responders", true), ("verbose", false), ("tls_required", false)]
    {
        assert_eq!(heard.connect[option], expected, "{}", heard.connect);
    }
    assert_eq!((heard.connect.get("user"), heard.connect.get("sig")), (None, None));
    let delivery = delivery(&*make("nats://h", &[]), &alert_titled("Number forwarded elsewhere"), Form::Full);
    assert_eq!(heard.headers, format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", delivery.delivery_id));
    assert_eq!(heard.payload, delivery.body);
    let (inbox, sid) = heard.subscribed.split_once(' ').expect("two words");
    assert!(inbox.starts_with("_INBOX.") && inbox.len() == 39 && sid == "1", "{}", heard.subscribed);
    assert!(heard.published.starts_with(&format!("vigie.alerts {inbox} ")), "{}", heard.published);

    let copy = answered(r#"{"stream":"ALERTS","seq":7,"duplicate":true}"#);
    let (report, other) = with(Script { to_publish: copy, ..Script::default() }, "nats", &[("subject", "soc.x")]).await;
    assert_eq!(told(&report), (Outcome::Delivered, "acknowledged, as a copy"));
    assert!(other.published.starts_with("soc.x _INBOX.") && other.subscribed != heard.subscribed);
}

#[tokio::test]
async fn what_the_stream_says_decides() {
    let error = |code: u16, err_code: u16, description: &str| {
        answered(&json!({"error": {"code": code, "err_code": err_code, "description": description}}).to_string())
    };
    let no_responders = "HMSG INBOX 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n".to_owned();
    for (to_publish, outcome, status) in [
        (no_responders, Outcome::Misconfigured, "no stream takes the subject"),
        (error(503, 10_023, "insufficient resources"), Outcome::Retry, "NATS 10023"),
        (error(500, 10_047, "insufficient storage resources available"), Outcome::Retry, "NATS 10047"),
        (error(400, 10_002, "resource limits exceeded for account"), Outcome::Retry, "NATS 10002"),
        (error(503, 10_077, "maximum messages exceeded"), Outcome::Retry, "NATS 10077"),
        (error(503, 10_077, "maximum messages per subject exceeded"), Outcome::Misconfigured, "NATS 10077"),
        (error(409, 10_158, "duplicate message id is in process"), Outcome::Retry, "NATS 10158"),
        (error(429, 10_167, "too many requests"), Outcome::Wait(None), "NATS 10167"),
        (error(400, 10_054, "message size exceeds maximum allowed"), Outcome::Degrade, "NATS 10054"),
        (error(404, 10_059, "stream not found"), Outcome::Misconfigured, "NATS 10059"),
        (error(503, 10_039, "JetStream not enabled for account"), Outcome::Misconfigured, "NATS 10039"),
        (error(503, 10_076, "JetStream not enabled"), Outcome::Misconfigured, "NATS 10076"),
        (error(400, 10_109, "invalid operation on sealed stream"), Outcome::Misconfigured, "NATS 10109"),
        (error(500, 10_118, "stream is offline"), Outcome::Retry, "NATS 10118"),
        (answered(r#"{"error":{"code":500}}"#), Outcome::Retry, "NATS 500"),
        (answered("hello"), Outcome::Misconfigured, "answered by something that is no stream"),
        (answered(r#"{"stream":"S"}"#), Outcome::Misconfigured, "answered by something that is no stream"),
        ("-ERR 'Permissions Violation for Publish to \"vigie.alerts\"'\r\n".into(), Outcome::Misconfigured, REFUSED),
        ("-ERR 'Maximum Payload Violation'\r\n".into(), Outcome::Degrade, REFUSED),
        ("-ERR 'Stale Connection'\r\n".into(), Outcome::Retry, REFUSED),
        ("PONG\r\n".into(), Outcome::Retry, "no NATS answer"),
        ("HTTP/1.1 400 Bad Request\r\n".into(), Outcome::Retry, "no NATS answer"),
        (format!("MSG INBOX 1 {}\r\n", 1 << 30), Outcome::Retry, "no NATS answer"),
        (answered(&format!("{CANARY}{HOSTILE}")), Outcome::Misconfigured, "answered by something that is no stream"),
    ] {
        let script = Script { to_publish: to_publish.clone(), ..Script::default() };
        let (report, _) = with(script, "nats", &[("token", CANARY)]).await;
        assert_eq!(told(&report), (outcome, status), "{to_publish}: {report:?}");
    }
}

const REFUSED: &str = "refused by the server";

#[tokio::test]
async fn nothing_is_published_before_its_answer_can_be_heard() {
    let refusal = "-ERR 'Permissions Violation for Subscription to \"_INBOX.x\"'\r\nPONG\r\n";
    for (to_subscribe, expected) in [
        (refusal, (Outcome::Misconfigured, REFUSED)),
        ("MSG x 1 0\r\n\r\n", (Outcome::Retry, "no NATS answer")),
        ("", (Outcome::Retry, "not acknowledged in time")),
    ] {
        let script = Script { to_subscribe: to_subscribe.into(), ..Script::default() };
        let (report, heard) = with(script, "nats", &[]).await;
        assert_eq!((told(&report), heard.published.as_str()), (expected, ""), "{to_subscribe}");
        assert!(heard.subscribed.starts_with("_INBOX."), "{}", heard.subscribed);
    }
}

#[tokio::test]
async fn a_server_that_lets_nobody_in_is_told_in_its_words() {
    for (words, outcome) in [
        ("Authorization Violation", Outcome::Misconfigured),
        ("User Authentication Expired", Outcome::Misconfigured),
        ("Authentication Timeout", Outcome::Retry),
        ("maximum connections exceeded", Outcome::Retry),
        ("Secure Connection - TLS Required", Outcome::Misconfigured),
    ] {
        let script = Script { to_connect: format!("-ERR '{words}'\r\n"), ..Script::default() };
        let login = [("user", "bob"), ("password", CANARY)];
        let (report, heard) = with(script, "nats", &login).await;
        assert_eq!(told(&report), (outcome, REFUSED), "{words}");
        assert_eq!((report.excerpt.as_str(), heard.published.as_str()), (words, ""));
    }
    for (first, status) in [
        ("-ERR 'maximum connections exceeded'\r\n", REFUSED),
        ("PING\r\n", "no NATS answer"),
        ("220 mail.example.org\r\n", "no NATS answer"),
        ("INFO {\r\n", "no NATS answer"),
        ("", "connection lost"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let url = format!("nats://{}", listener.local_addr().expect("bound"));
        let server = tokio::spawn(async move { listener.accept().await?.0.write_all(first.as_bytes()).await });
        assert_eq!(told(&attempt(&*make(&url, &[])).await), (Outcome::Retry, status), "{first}");
        server.await.expect("no panic").expect("written");
    }
}

#[tokio::test]
async fn silence_is_bounded_and_tried_again() {
    let script = Script { to_publish: String::new(), ..Script::default() };
    assert_eq!(told(&with(script, "nats", &[]).await.0), (Outcome::Retry, "not acknowledged in time"));
    let script = Script { to_connect: String::new(), ..Script::default() };
    assert_eq!(told(&with(script, "nats", &[]).await.0), (Outcome::Retry, "timed out"));
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let report = attempt(&*make(&format!("nats://{closed}"), &[])).await;
    assert_eq!(told(&report), (Outcome::Retry, "connection refused"));
}

#[tokio::test]
async fn every_way_to_log_in_is_known_and_shows_nowhere() {
    let heard = with(Script::default(), "nats", &[("user", "bob"), ("password", CANARY)]).await.1;
    assert_eq!((&heard.connect["user"], &heard.connect["pass"]), (&json!("bob"), &json!(CANARY)));
    let heard = with(Script::default(), "nats", &[("token", CANARY)]).await.1;
    assert_eq!(heard.connect["auth_token"], CANARY);
    for (url, user, pass, token) in [
        (format!("nats://bob:%40{CANARY}@"), json!("bob"), json!(format!("@{CANARY}")), Value::Null),
        (format!("nats://{CANARY}@"), Value::Null, Value::Null, json!(CANARY)),
    ] {
        let script = Script { to_publish: format!("-ERR 'no {pass} {token}'\r\n"), ..Script::default() };
        let (address, server) = script.start().await;
        let sink = make(&format!("{url}{address}"), &[]);
        assert!(!attempt(&*sink).await.excerpt.is_empty());
        let connect = server.await.expect("no panic").expect("heard").connect;
        assert_eq!((&connect["user"], &connect["pass"], &connect["auth_token"]), (&user, &pass, &token));
    }

    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("a.creds");
    std::fs::write(&path, credentials(&format!("a.{CANARY}.c"), SEED_TEXT)).expect("written");
    let path = path.to_str().expect("UTF-8");
    let info = json!({"max_payload": 1_048_576, "headers": true, "nonce": "n0nce"});
    let said = format!("-ERR 'a.{CANARY}.c {SEED_TEXT}'\r\n");
    let (report, heard) =
        with(Script { info, to_connect: said, ..Script::default() }, "nats", &[("credentials_file", path)]).await;
    assert_eq!(report.excerpt, "[redacted] [redacted]");
    assert_eq!(heard.connect["jwt"], format!("a.{CANARY}.c"));
    assert_eq!(heard.connect["sig"].as_str().map(str::len), Some(86));
}

#[tokio::test]
async fn tls_is_spoken_where_it_is_asked_for() {
    let authority = format!("{TLS_FILES}/authority.pem");
    let ca = [("ca_file", authority.as_str())];
    let first = [("ca_file", authority.as_str()), ("handshake_first", "true")];
    let info = |required, available| json!({"max_payload": 1_048_576, "headers": true, "tls_required": required, "tls_available": available});
    for (info, tls, scheme, options) in [
        (info(true, false), false, "nats", &ca[..]),
        (info(true, false), false, "tls", &ca),
        (info(false, true), false, "tls", &ca),
        (info(true, false), true, "tls", &first),
        (info(false, false), true, "nats", &first),
    ] {
        let (report, heard) = with(Script { info, tls: Some(tls), ..Script::default() }, scheme, options).await;
        assert_eq!(told(&report), (Outcome::Delivered, "acknowledged"), "{scheme}: {report:?}");
        assert_eq!(heard.connect["tls_required"], true);
    }
    // Without a voucher, and without TLS where the operator wants it, nothing is said, the password least.
    let login = [("token", CANARY)];
    let (report, heard) =
        with(Script { info: info(true, true), tls: Some(false), ..Script::default() }, "tls", &login).await;
    assert_eq!((told(&report), heard.connect), ((Outcome::Retry, "TLS failed"), Value::Null));
    let (report, heard) = with(Script::default(), "tls", &login).await;
    assert_eq!(told(&report), (Outcome::Misconfigured, "the server offers no TLS"));
    assert_eq!(heard.connect, Value::Null);
    let (report, heard) = with(Script { info: info(false, true), ..Script::default() }, "nats", &login).await;
    assert_eq!((report.outcome, heard.connect["tls_required"].as_bool()), (Outcome::Delivered, Some(false)));
    // Files for TLS say that it is wanted, whatever the server says of itself.
    let both = [("ca_file", authority.as_str()), ("token", CANARY)];
    let script = Script { info: info(false, true), tls: Some(false), ..Script::default() };
    let (report, heard) = with(script, "nats", &both).await;
    assert_eq!((report.outcome, heard.connect["tls_required"].as_bool()), (Outcome::Delivered, Some(true)));
    let (report, heard) = with(Script::default(), "nats", &both).await;
    assert_eq!(told(&report), (Outcome::Misconfigured, "the server offers no TLS"));
    assert_eq!(heard.connect, Value::Null);
}

#[tokio::test]
async fn a_message_stays_below_what_the_server_takes() {
    let sink = make("nats://h", &[]);
    let body = delivery(&*sink, &alert_titled("Number forwarded elsewhere"), Form::Full).body;
    let total = body.len() + "NATS/1.0\r\nNats-Msg-Id: \r\n\r\n".len() + 32;
    for (max_payload, expected) in [(total, "acknowledged"), (total - 1, "longer than the server takes")] {
        let info = json!({"max_payload": max_payload, "headers": true});
        let (report, heard) = with(Script { info, ..Script::default() }, "nats", &[]).await;
        assert_eq!(report.status, expected);
        assert_eq!(report.outcome == Outcome::Degrade, heard.published.is_empty());
    }
    let (report, _) = with(Script { info: json!({"max_payload": 9_999}), ..Script::default() }, "nats", &[]).await;
    assert_eq!(report.outcome, Outcome::Misconfigured, "a server without headers");

    let mut alert = alert_titled("t");
    let event = |bytes: usize| serde_json::value::RawValue::from_string(format!("\"{}\"", "x".repeat(bytes)));
    alert.event = event(MAX_PAYLOAD_BYTES - 4_000).expect("valid");
    let full = delivery(&*sink, &alert, Form::Full).body;
    assert!(full.len() > MAX_PAYLOAD_BYTES - 4_000 && full.len() <= MAX_PAYLOAD_BYTES);
    alert.event = event(MAX_PAYLOAD_BYTES).expect("valid");
    let cut = String::from_utf8(delivery(&*sink, &alert, Form::Full).body).expect("UTF-8");
    assert!(cut.len() < 16_384 && cut.contains("event_omitted"), "{}", cut.len());
}

#[test]
fn a_change_of_the_credentials_is_a_change_of_the_configuration() {
    assert_eq!(CREDENTIALS_FILE.kind, OptionKind::File);
}

#[test]
fn an_update_is_its_json() {
    let alert = alert_titled("t");
    let context = RenderContext { delivery_id: "d2", now: StoppedClock.now(), form: Form::Full };
    let body = make("nats://h", &[]).render_update(&update_of(&alert, Told::More), &context).expect("renders");
    assert!(body.starts_with(br#"{"schema":"vigie/update/v1","#));
}

#[test]
fn options_that_cannot_be_meant_are_told() {
    let (long, most) = ("a".repeat(MAX_SUBJECT_BYTES + 1), "a".repeat(MAX_SUBJECT_BYTES));
    for subject in ["a b", "a.*", "a.>", ">", ".a", "a.", "a..b", "$JS.API", "a\tb", "a\u{202e}b", &long] {
        let told = made("nats://h", &[("subject", subject)]).err().expect("refused");
        assert!(told.contains("E0454"), "{subject}: {told}");
    }
    assert!(made("nats://h", &[("subject", &most)]).is_ok() && is_subject("Vigie.alerts-1.é"));
    for (url, more, code) in [
        ("nats://h", &[("user", "bob")] as &[(&'static str, &str)], "E0455"),
        ("nats://h", &[("password", CANARY)], "E0455"),
        ("nats://h", &[("token", "t"), ("user", "bob"), ("password", CANARY)], "E0455"),
        ("nats://bob:canary7secret4value@h", &[("token", "t")], "E0455"),
        ("nats://h", &[("credentials_file", "/absent.creds")], "E0456"),
        ("nats://h", &[("credentials_file", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))], "E0456"),
        ("nats://169.254.169.254", &[], "E0421"),
        ("nats://h/x", &[], "E0451"),
        ("http://h", &[], "E0403"),
    ] {
        let told = made(url, more).err().expect("refused");
        assert!(told.contains(code), "{url} {more:?}: {told}");
    }
}

#[tokio::test]
async fn it_is_logged_in_and_nothing_is_published_to_ask() {
    use crate::sink::probe::{Probe, Verdict};
    for (to_connect, expected) in [
        ("PONG\r\n", Verdict::Holds),
        ("-ERR 'Authorization Violation'\r\n", Verdict::Refused),
        ("-ERR 'maximum connections exceeded'\r\n", Verdict::NotNow),
    ] {
        let (address, task) = Script { to_connect: to_connect.into(), ..Script::default() }.start().await;
        let options = vec![("url", text_node(&format!("nats://{address}"))), ("token", text_node(CANARY))];
        let sink = contract::build("nats", options, &contract::context().0).expect("builds");
        let Probe::Asks(asking) = sink.probe() else { panic!("it can be asked") };
        let probed = asking.await;
        assert_eq!(probed[0].verdict(), expected, "{probed:?}");
        assert!(!format!("{probed:?}").contains(CANARY));
        let heard = task.await.expect("no panic").expect("a conversation");
        assert_eq!((heard.connect["auth_token"].as_str(), heard.published.as_str()), (Some(CANARY), ""));
    }
}
