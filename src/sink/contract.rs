//! What every HTTP sink is held to, over a real server on loopback: the outcome of each answer, one request an attempt, no
//! redirect followed, a bounded read, and no secret in anything that is kept.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeZone as _, Utc};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;
use vigie_engine::alert::{Alert, AlertRule, Reason};
use vigie_engine::diagnostic::{Diagnostics, Span};
use vigie_engine::rule::Severity;
use vigie_engine::state::{Evidence, Finding, MAX_EVIDENCE};
use vigie_engine::text::Untrusted;
use vigie_engine::yaml::{Key, Kind, Node, Scalar};

use super::http::{Limits, MAX_ANSWER_BYTES};
use super::update::{Told, Update};
use super::{AttemptReport, BuildContext, Delivery, Form, Outcome, RenderContext, Sink};
use crate::clock::Clock;
use crate::options;

/// Searched for in everything that an attempt leaves behind.
pub(super) const CANARY: &str = "canary7secret4value";
/// Hostile text: header injection, markup, mentions, terminal escapes, bidi, a live link.
pub(super) const HOSTILE: &str = "x\r\nBcc: a@evil.example\u{1b}[2J\u{9b}31m\u{202e}gpj <!channel> <@U1> *b* `c` &amp; \
     <script>alert(1)</script> [l](https://evil.example/p) https://evil.example/q";

/// A clock that stands still.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 3, 4, 5, 6, 7).single().expect("a valid time")
    }

    fn steady(&self) -> DateTime<Utc> {
        self.now()
    }
}

/// What the server does after it read a request.
#[derive(Clone)]
pub(super) enum Reply {
    /// Answers with this status line, headers and body.
    Http(&'static str, Vec<(&'static str, String)>, Vec<u8>),
    /// These in turn, the last one for ever.
    InTurn(Arc<Mutex<VecDeque<Reply>>>),
    /// The request itself as the body of an answer with this status.
    Echo(&'static str),
    /// Never answers.
    Stall,
    /// Resets the connection.
    Reset,
    /// Answers 200 and sends a body without end.
    Endless,
}

impl Reply {
    pub(super) fn in_turn(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::InTurn(Arc::new(Mutex::new(replies.into_iter().collect())))
    }

    fn next(&self) -> Self {
        let Self::InTurn(replies) = self else { return self.clone() };
        let mut replies = replies.lock().expect("not poisoned");
        let next = replies.pop_front().expect("one is left");
        if replies.is_empty() {
            replies.push_back(next.clone());
        }
        next
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

/// A server that answers every request alike and remembers what came.
pub(super) struct Loopback {
    pub(super) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    sent_bytes: Arc<Mutex<usize>>,
}

impl Loopback {
    pub(super) async fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (received, sent_bytes) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (log, sent) = (Arc::clone(&received), Arc::clone(&sent_bytes));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, sent, reply) = (Arc::clone(&log), Arc::clone(&sent), reply.clone());
                tokio::spawn(async move {
                    // A client that goes away ends its connection; what matters is what it did before.
                    serve(stream, &reply, &log, &sent).await.unwrap_or_default();
                });
            }
        });
        Self { address, received, sent_bytes }
    }

    pub(super) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).expect("valid")
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("not poisoned").clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    reply: &Reply,
    log: &Mutex<Vec<Received>>,
    sent: &Mutex<usize>,
) -> io::Result<()> {
    while let Some(request) = read_request(&mut stream).await? {
        log.lock().expect("not poisoned").push(request.clone());
        match &reply.next() {
            Reply::InTurn(_) => return Ok(()),
            Reply::Http(status, headers, body) => answer(&mut stream, status, headers, body).await?,
            Reply::Echo(status) => {
                let echo = [request.head.as_bytes(), &request.body].concat();
                answer(&mut stream, status, &[], &echo).await?;
            }
            Reply::Stall => std::future::pending().await,
            Reply::Reset => {
                stream.set_zero_linger()?;
                return Ok(());
            }
            Reply::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                let chunk = [b"1000\r\n".as_slice(), &[b'a'; 0x1000], b"\r\n"].concat();
                loop {
                    stream.write_all(&chunk).await?;
                    *sent.lock().expect("not poisoned") += 0x1000;
                }
            }
        }
    }
    Ok(())
}

async fn answer(stream: &mut TcpStream, status: &str, headers: &[(&str, String)], body: &[u8]) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await
}

pub(super) async fn read_request(stream: &mut TcpStream) -> io::Result<Option<Received>> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let (head, rest) = bytes.split_at(end + 4);
            let head = String::from_utf8_lossy(head).into_owned();
            let mut request = Received { head, body: rest.to_vec() };
            let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            while request.body.len() < length {
                match stream.read(&mut buffer).await? {
                    0 => return Ok(None),
                    count => request.body.extend_from_slice(&buffer[..count]),
                }
            }
            return Ok(Some(request));
        }
        match stream.read(&mut buffer).await? {
            0 => return Ok(None),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Time-outs for tests: the total is what a stall costs.
pub(super) const TEST_LIMITS: Limits =
    Limits { connect: Duration::from_millis(2000), total: Duration::from_millis(300) };

/// A context whose standard output is a buffer.
pub(super) fn context() -> (BuildContext, Arc<Mutex<Vec<u8>>>) {
    let buffer = Arc::new(Mutex::new(Vec::new()));
    let writer: super::SharedWriter = buffer.clone();
    let mut context = BuildContext::new(Arc::new(StoppedClock), writer, false);
    context.http_limits = Limits { connect: Duration::from_secs(5), total: Duration::from_secs(15) };
    (context, buffer)
}

fn span() -> Span {
    Span { path: "vigie.yaml".into(), line: 1, column: 1, len_chars: 1 }
}

/// A scalar node.
pub(super) fn text_node(text: &str) -> Node {
    Node { span: span(), kind: Kind::Scalar(Scalar { text: text.into(), quoted: false }) }
}

/// A list node.
pub(super) fn list_node(items: Vec<Node>) -> Node {
    Node { span: span(), kind: Kind::List(items) }
}

/// A map node.
pub(super) fn map_node(entries: Vec<(&str, Node)>) -> Node {
    let entries = entries.into_iter().map(|(key, node)| (Key { text: key.into(), span: span() }, node));
    Node { span: span(), kind: Kind::Map(entries.collect()) }
}

/// Builds a sink as the configuration does; the codes of what was wrong otherwise.
pub(super) fn build(kind: &str, entries: Vec<(&str, Node)>, context: &BuildContext) -> Result<Box<dyn Sink>, String> {
    let mut diagnostics = Diagnostics::default();
    let built = super::kind(kind, &span(), &mut diagnostics).and_then(|kind| {
        let expand = |text: &str| Ok(text.to_owned());
        let options = options::read(&map_node(entries), "sink `test`", &kind.specs(), &expand, &mut diagnostics)?;
        let options = Some(options).filter(options::Options::is_whole)?;
        (kind.build)(&options, "test", context, &mut diagnostics)
    });
    let shown = format!("{:?}", diagnostics.sorted());
    assert!(!shown.contains(CANARY), "{shown}");
    assert_eq!(built.is_none(), diagnostics.has_errors(), "{shown}");
    built.ok_or(shown)
}

/// An alert with every part filled in; `title` is the event's.
pub(super) fn alert_titled(title: &str) -> Alert {
    let first_at = Utc.with_ymd_and_hms(2026, 3, 4, 5, 0, 0).single().expect("a valid time");
    Alert {
        alert_id: "0123456789abcdef0123456789abcdef".into(),
        rule: AlertRule {
            id: "change-from-unexpected-country".into(),
            title: "Change from an unexpected country".into(),
            severity: Severity::High,
            tags: vec!["attack.t1078.004".into()],
            response: "Call the user.\nIf it was not them, revoke the key.".into(),
        },
        source: "main".into(),
        account_id: Some(Untrusted::new("abcd1234")),
        title: Untrusted::new(title),
        first_at,
        last_at: first_at + chrono::TimeDelta::seconds(61),
        count: 3,
        late: Some(7260),
        finding: None,
        note: None,
        key: vec![("actor".into(), Untrusted::new("bob@example.org"))],
        reason: vec![
            Reason {
                field: "source_country".into(),
                operator: "not in".into(),
                expected: "GB, IE".into(),
                actual: Some(Untrusted::new("KP")),
            },
            Reason { field: "user_email".into(), operator: "exists".into(), expected: "false".into(), actual: None },
        ],
        event: RawValue::from_string(
            "{\n  \"id\": \"e-1\",\n  \"n\": 12345678901234567890123, \"f\": 1.10, \"s\": \"a  b\\\" c\"\n}".into(),
        )
        .expect("valid"),
        events: vec!["e-1".into(), "e-2".into()],
    }
}

/// An alert of a stateful rule about a known user.
pub(super) fn stateful_alert() -> Alert {
    let mut alert = alert_titled("Two countries at once");
    let event = r#"{"id": "e-1", "user_email": "bob@example.org", "source_country": "KP"}"#;
    alert.event = RawValue::from_string(event.into()).expect("valid");
    let some = |text: &str| Some(Untrusted::new(text));
    let evidence = Evidence {
        at: alert.first_at,
        event_id: "e-1".into(),
        event_type: None,
        source_ip: None,
        source_country: some("KP"),
        note: None,
    };
    let first = Evidence {
        at: alert.first_at - chrono::TimeDelta::seconds(60),
        event_id: "e-0".into(),
        event_type: some("USER_LOGIN"),
        source_ip: some("192.0.2.9"),
        source_country: some("GB"),
        note: some("GB"),
    };
    alert.finding = Some(Finding {
        detection: "distinct".into(),
        summary: Untrusted::new("2 countries of bob@example.org within 1h"),
        evidence: vec![first, evidence],
    });
    alert
}

/// The same alert with `text` wherever an event's text stands behind its finding and its exception.
pub(super) fn make_hostile(alert: &mut Alert, text: &str) {
    let event = serde_json::json!({"id": "e-1", "user_email": text, "source_country": text});
    alert.event = RawValue::from_string(event.to_string()).expect("valid");
    alert.key = vec![("actor".into(), Untrusted::new(text))];
    let Some(finding) = &mut alert.finding else { return };
    finding.summary = Untrusted::new(text);
    for evidence in &mut finding.evidence {
        let hostile = || Some(Untrusted::new(text));
        evidence.event_id = text.into();
        (evidence.event_type, evidence.source_ip) = (hostile(), hostile());
        (evidence.source_country, evidence.note) = (hostile(), hostile());
    }
}

/// As many and as long as an engine makes them.
pub(super) fn make_long(alert: &mut Alert, character: &str) {
    let long = character.repeat(5_000);
    make_hostile(alert, &long);
    let Some(finding) = &mut alert.finding else { return };
    let one = finding.evidence.first().cloned();
    finding.evidence = one.into_iter().cycle().take(MAX_EVIDENCE).collect();
}

/// The first update of an alert.
pub(super) fn update_of(alert: &Alert, told: Told) -> Update<'_> {
    let since = alert.first_at + chrono::TimeDelta::seconds(30);
    Update { alert, number: 1, told, more: 2, since, alert_delivery_id: "d1" }
}

/// An alert rendered and wrapped as the store would hand it over.
pub(super) fn delivery(sink: &dyn Sink, alert: &Alert, form: Form) -> Delivery {
    let delivery_id = super::delivery_id(&alert.alert_id, "test");
    let context = RenderContext { delivery_id: &delivery_id, now: StoppedClock.now(), form };
    let body = sink.render(alert, &context).expect("renders");
    Delivery {
        delivery_id,
        alert_id: alert.alert_id.clone(),
        sink: "test".into(),
        body,
        attempts: 0,
        created_at: StoppedClock.now(),
        note: None,
        about_receipt: None,
        failing_since: None,
    }
}

/// One attempt on an ordinary alert.
pub(super) async fn attempt(sink: &dyn Sink) -> AttemptReport {
    let delivery = delivery(sink, &alert_titled("Number forwarded elsewhere"), Form::Full);
    let report = sink.send(&delivery).await;
    let shown = format!("{report:?}");
    assert!(!shown.contains(CANARY), "{shown}");
    assert!(!report.excerpt.contains('\n') && report.excerpt.chars().count() <= super::MAX_EXCERPT_CHARS, "{shown}");
    report
}

fn http(status: &'static str) -> Reply {
    Reply::Http(status, vec![], b"nope".to_vec())
}

fn with(status: &'static str, header: &'static str, value: &str) -> Reply {
    Reply::Http(status, vec![(header, value.to_owned())], b"later".to_vec())
}

/// Holds a sink to the contract. `make` builds it for a URL (whose path holds the canary), `yes` is the destination's assent,
/// `by_method` what follows where it refuses the method.
pub(super) async fn hold(make: &dyn Fn(Url, &BuildContext) -> Box<dyn Sink>, yes: &[u8], by_method: Outcome) {
    let seconds = |seconds| Outcome::Wait(Some(Duration::from_secs(seconds)));
    let dated = Reply::Http(
        "429 Too Many Requests",
        vec![
            ("Date", "Wed, 04 Mar 2026 01:00:00 GMT".to_owned()),
            ("Retry-After", "Wed, 04 Mar 2026 01:02:00 GMT".to_owned()),
        ],
        vec![],
    );
    let cases = vec![
        (Reply::Http("200 OK", vec![], yes.to_vec()), Outcome::Delivered),
        (Reply::Http("202 Accepted", vec![], yes.to_vec()), Outcome::Accepted),
        (http("300 Multiple Choices"), Outcome::Misconfigured),
        (http("400 Bad Request"), Outcome::Degrade),
        (http("401 Unauthorized"), Outcome::Misconfigured),
        (http("403 Forbidden"), Outcome::Misconfigured),
        (http("404 Not Found"), Outcome::Misconfigured),
        (http("405 Method Not Allowed"), by_method.clone()),
        (http("408 Request Timeout"), Outcome::Retry),
        (http("413 Content Too Large"), Outcome::Degrade),
        (http("418 I'm a teapot"), Outcome::Dead),
        (http("422 Unprocessable"), Outcome::Degrade),
        (http("425 Too Early"), Outcome::Retry),
        (http("429 Too Many Requests"), Outcome::Wait(None)),
        (with("429 Too Many Requests", "Retry-After", "120"), seconds(120)),
        (with("429 Too Many Requests", "Retry-After", "999999999999999999999999"), seconds(6 * 3600)),
        (with("429 Too Many Requests", "Retry-After", "Wed, 04 Mar 2026 05:07:07 GMT"), seconds(60)),
        (dated, seconds(120)),
        (with("429 Too Many Requests", "Retry-After", "soon"), Outcome::Wait(None)),
        (http("500 Internal Server Error"), Outcome::Retry),
        (http("502 Bad Gateway"), Outcome::Retry),
        (with("503 Service Unavailable", "Retry-After", "7"), seconds(7)),
        (http("504 Gateway Timeout"), Outcome::Retry),
        (Reply::Reset, Outcome::Retry),
        (Reply::Echo("500 Echo"), Outcome::Retry),
        (Reply::Echo("400 Echo"), Outcome::Degrade),
        (Reply::Http("500 Huge", vec![], vec![b'a'; 3 * 1024 * 1024]), Outcome::Retry),
    ];
    let (context, _) = context();
    for (index, (reply, expected)) in cases.into_iter().enumerate() {
        let server = Loopback::start(reply).await;
        let sink = make(server.url(&format!("/hooks/{CANARY}")), &context);
        let report = attempt(&*sink).await;
        assert_eq!(report.outcome, expected, "case {index}: {report:?}");
        assert_eq!(server.received().len(), 1, "case {index}: one request an attempt");
    }
    limits(make, yes).await;
    stall_and_flood(make).await;
    redirects(make).await;
}

/// What a destination says of its limits, in headers and in a body.
async fn limits(make: &dyn Fn(Url, &BuildContext) -> Box<dyn Sink>, yes: &[u8]) {
    let wait = |ms| Outcome::Wait(Some(Duration::from_millis(ms)));
    let told = |status, headers: &[(&'static str, &str)], body: &[u8]| {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Reply::Http(status, headers, body.to_vec())
    };
    let spent = [("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset-After", "90")];
    let (limited, minute) = ("429 Too Many Requests", Some(Duration::from_secs(90)));
    let cases = [
        (told(limited, &[("x-ms-retry-after-ms", "2500")], b""), wait(2500), None),
        (told(limited, &[], br#"{"retry_after": 64.57, "global": false}"#), wait(64_570), None),
        (told(limited, &[], br#"{"ok": false, "parameters": {"retry_after": 35}}"#), wait(35_000), None),
        (told(limited, &spent, b""), wait(90_000), None),
        (told(limited, &[("Retry-After", "5"), spent[0], spent[1]], b""), wait(5000), None),
        (told("200 OK", &spent, yes), Outcome::Delivered, minute),
        (told("200 OK", &[("RateLimit", "\"a\";r=0;t=90")], yes), Outcome::Delivered, minute),
        (told("200 OK", &[("X-RateLimit-Remaining", "1"), spent[1]], yes), Outcome::Delivered, None),
        (told("202 Accepted", &[("Retry-After", "60")], yes), Outcome::Accepted, None),
        (told("403 Forbidden", &spent, b""), Outcome::Misconfigured, minute),
        (told("503 Busy", &spent, b""), Outcome::Retry, minute),
    ];
    let (context, _) = context();
    for (index, (reply, expected, spent)) in cases.into_iter().enumerate() {
        let server = Loopback::start(reply).await;
        let report = attempt(&*make(server.url(&format!("/hooks/{CANARY}")), &context)).await;
        assert_eq!((&report.outcome, report.spent), (&expected, spent), "case {index}: {report:?}");
    }
}

async fn stall_and_flood(make: &dyn Fn(Url, &BuildContext) -> Box<dyn Sink>) {
    let (mut context, _) = context();
    let server = Loopback::start(Reply::Endless).await;
    let sink = make(server.url(&format!("/hooks/{CANARY}")), &context);
    attempt(&*sink).await;
    drop(sink);
    let sent_bytes = *server.sent_bytes.lock().expect("not poisoned");
    // What a kernel buffers on both sides comes on top of what is read.
    assert!(sent_bytes < MAX_ANSWER_BYTES + 16 * 1024 * 1024, "{sent_bytes}");

    context.http_limits = TEST_LIMITS;
    let server = Loopback::start(Reply::Stall).await;
    let report = attempt(&*make(server.url(&format!("/hooks/{CANARY}")), &context)).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "timed out"));

    let closed = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let url = Url::parse(&format!("http://{closed}/hooks/{CANARY}")).expect("valid");
    let report = attempt(&*make(url, &context)).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "connection refused"));

    // A server that speaks no TLS.
    let server = Loopback::start(Reply::Stall).await;
    let url = Url::parse(&format!("https://{}/hooks/{CANARY}", server.address)).expect("valid");
    let report = attempt(&*make(url, &context)).await;
    assert_eq!(report.outcome, Outcome::Retry, "{report:?}");
}

async fn redirects(make: &dyn Fn(Url, &BuildContext) -> Box<dyn Sink>) {
    let (context, _) = context();
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let target = Loopback::start(http("200 OK")).await;
        let server = Loopback::start(with(status, "Location", target.url("/").as_str())).await;
        let report = attempt(&*make(server.url(&format!("/hooks/{CANARY}")), &context)).await;
        assert_eq!(report.outcome, Outcome::Misconfigured, "{status}");
        assert_eq!((server.received().len(), target.received().len()), (1, 0), "{status}");
    }
}
