//! Tokens over real sockets: one server for tokens, one that takes alerts.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::TimeZone as _;
use tokio::net::TcpListener;
use vigie_engine::yaml::Node;

use super::*;
use crate::clock::Clock;
use crate::sink::contract::{self, CANARY, Loopback, Received, Reply, TEST_LIMITS, attempt, list_node, text_node};
use crate::sink::{BuildContext, Sink};

/// A clock that a test moves.
#[derive(Debug, Default)]
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> DateTime<Utc> {
        Utc.timestamp_opt(1_772_600_000 + self.0.load(Ordering::Relaxed), 0).single().expect("a time")
    }

    fn steady(&self) -> DateTime<Utc> {
        self.now()
    }
}

struct Scene {
    tokens: Loopback,
    destination: Loopback,
    sink: Box<dyn Sink>,
    hands: Arc<Hands>,
}

fn token(name: &str, life: &str) -> Reply {
    let body = format!(r#"{{"access_token": "{CANARY}.{name}", "token_type": "bearer"{life}}}"#);
    Reply::Http("200 OK", vec![("Cache-Control", "no-store".to_owned())], body.into_bytes())
}

fn hour(name: &str) -> Reply {
    token(name, r#", "expires_in": 3600"#)
}

fn options(tokens: &Loopback, destination: &Loopback) -> Vec<(&'static str, Node)> {
    vec![
        ("url", text_node(destination.url("/hook").as_str())),
        ("oauth2_token_url", text_node(tokens.url("/token").as_str())),
        ("oauth2_client_id", text_node("vigie:1")),
        ("oauth2_client_secret", text_node(&format!("{CANARY} &/%"))),
    ]
}

impl Scene {
    async fn new(tokens: Reply, destination: Reply, more: Vec<(&'static str, Node)>) -> Self {
        let (tokens, destination) = (Loopback::start(tokens).await, Loopback::start(destination).await);
        let hands = Arc::new(Hands::default());
        let mut context: BuildContext = contract::context().0;
        context.clock = hands.clone();
        let mut entries = options(&tokens, &destination);
        entries.extend(more);
        let sink = contract::build("webhook", entries, &context).expect("builds");
        Self { tokens, destination, sink, hands }
    }

    /// Of each request that the destination got, the token without what all have in common.
    fn shown(&self) -> Vec<String> {
        let name = |request: &Received| request.header("authorization").unwrap_or_default().to_owned();
        let names = self.destination.received().iter().map(name).collect::<Vec<_>>();
        names.iter().map(|name| name.replace(&format!("Bearer {CANARY}."), "")).collect()
    }

    async fn outcome(&self) -> Outcome {
        attempt(&*self.sink).await.outcome
    }
}

fn echo() -> Reply {
    Reply::Echo("200 OK")
}

#[tokio::test]
async fn a_token_is_kept_until_a_minute_before_it_expires() {
    let scene = Scene::new(
        Reply::in_turn([hour("a"), hour("b"), token("c", ""), token("d", r#", "expires_in": "7200""#)]),
        echo(),
        vec![],
    )
    .await;
    for moved_to_s in [0, 3539, 3540, 7079, 7080, 7319, 7320, 14_459] {
        scene.hands.0.store(moved_to_s, Ordering::Relaxed);
        assert_eq!(scene.outcome().await, Outcome::Delivered);
    }
    // b until 3540 + 3540; c says nothing of its life: five minutes less one; d writes its number as text.
    assert_eq!(scene.shown(), ["a", "a", "b", "b", "c", "c", "d", "d"]);
    assert_eq!(scene.tokens.received().len(), 4);
}

#[tokio::test]
async fn a_token_without_a_life_serves_one_request() {
    for life in [r#", "expires_in": 60"#, r#", "expires_in": 0"#, r#", "expires_in": -5"#] {
        let scene = Scene::new(Reply::in_turn([token("a", life), token("b", life)]), echo(), vec![]).await;
        assert_eq!((scene.outcome().await, scene.outcome().await), (Outcome::Delivered, Outcome::Delivered));
        assert_eq!(scene.shown(), ["a", "b"], "{life}");
    }
    let long = r#", "expires_in": 9223372036854775807"#;
    let scene = Scene::new(Reply::in_turn([token("a", long), token("b", long)]), echo(), vec![]).await;
    scene.outcome().await;
    scene.hands.0.store(24 * 3600, Ordering::Relaxed);
    scene.outcome().await;
    assert_eq!(scene.shown(), ["a", "b"]);
}

#[tokio::test]
async fn a_refused_token_is_fetched_anew_by_the_next_attempt() {
    let refused = || Reply::Echo("401 Unauthorized");
    let replies = [echo(), refused(), echo(), echo()];
    let scene = Scene::new(Reply::in_turn([hour("a"), hour("b")]), Reply::in_turn(replies), vec![]).await;
    assert_eq!(scene.outcome().await, Outcome::Delivered);
    let report = attempt(&*scene.sink).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "HTTP 401"));
    assert_eq!((scene.outcome().await, scene.outcome().await), (Outcome::Delivered, Outcome::Delivered));
    assert_eq!(scene.shown(), ["a", "a", "b", "b"]);
}

#[tokio::test]
async fn a_fresh_token_that_is_refused_is_for_the_operator() {
    let scene = Scene::new(Reply::in_turn([hour("a"), hour("b")]), Reply::Echo("401 Unauthorized"), vec![]).await;
    assert_eq!(scene.outcome().await, Outcome::Misconfigured);
    assert_eq!(scene.outcome().await, Outcome::Misconfigured);
    assert_eq!(scene.shown(), ["a", "b"], "it is not kept");
}

#[tokio::test]
async fn one_token_is_fetched_for_all_who_wait_for_it() {
    let scene = Scene::new(hour("a"), echo(), vec![]).await;
    let outcomes = futures_util::future::join_all((0..4).map(|_| scene.outcome())).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered), "{outcomes:?}");
    assert_eq!((scene.tokens.received().len(), scene.shown().len()), (1, 4));
}

#[tokio::test]
async fn the_client_says_who_it_is_as_the_standard_has_it() {
    let scopes = || ("oauth2_scopes", list_node(vec![text_node("alerts:write"), text_node("b")]));
    let audience = ("oauth2_audience", text_node("https://api.example/"));
    let scene = Scene::new(hour("a"), echo(), vec![scopes(), audience]).await;
    scene.outcome().await;
    let request = scene.tokens.received().remove(0);
    assert!(request.head.starts_with("POST /token HTTP/1.1\r\n"), "{}", request.head);
    let login = STANDARD.encode(format!("vigie%3A1:{CANARY}+%26%2F%25"));
    assert_eq!(request.header("authorization"), Some(format!("Basic {login}").as_str()));
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(
        String::from_utf8_lossy(&request.body),
        "grant_type=client_credentials&scope=alerts%3Awrite+b&audience=https%3A%2F%2Fapi.example%2F"
    );

    let scene = Scene::new(hour("a"), echo(), vec![("oauth2_client_auth", text_node("post"))]).await;
    scene.outcome().await;
    let request = scene.tokens.received().remove(0);
    assert_eq!(request.header("authorization"), None);
    assert_eq!(
        String::from_utf8_lossy(&request.body),
        format!("grant_type=client_credentials&client_id=vigie%3A1&client_secret={CANARY}+%26%2F%25")
    );
}

#[tokio::test]
async fn what_the_token_server_says_has_its_outcome() {
    let said = |status, body: &str| Reply::Http(status, vec![], body.as_bytes().to_vec());
    let later = Reply::Http("503 Busy", vec![("Retry-After", "7".to_owned())], vec![]);
    let minute = Outcome::Wait(Some(Duration::from_secs(60)));
    let limited = Reply::Http("429 Too Many", vec![("Retry-After", "60".to_owned())], vec![]);
    let leak = |kind: &str| said("200 OK", &format!(r#"{{"access_token": "{CANARY}", "token_type": "{kind}"}}"#));
    let cases = [
        (said("400 Bad Request", r#"{"error": "invalid_client"}"#), Outcome::Misconfigured, "HTTP 400"),
        (said("400 Bad Request", r#"{"error": "invalid_scope"}"#), Outcome::Misconfigured, "HTTP 400"),
        (Reply::Echo("401 Unauthorized"), Outcome::Misconfigured, "HTTP 401"),
        (said("403 Forbidden", ""), Outcome::Misconfigured, "HTTP 403"),
        (said("404 Not Found", ""), Outcome::Misconfigured, "HTTP 404"),
        (said("405 Method Not Allowed", ""), Outcome::Misconfigured, "HTTP 405"),
        (said("410 Gone", ""), Outcome::Misconfigured, "HTTP 410"),
        (said("302 Found", ""), Outcome::Misconfigured, "HTTP 302"),
        (said("408 Request Timeout", ""), Outcome::Retry, "HTTP 408"),
        (Reply::Echo("500 Internal"), Outcome::Retry, "HTTP 500"),
        (later, Outcome::Wait(Some(Duration::from_secs(7))), "HTTP 503"),
        (limited, minute, "HTTP 429"),
        (Reply::Reset, Outcome::Retry, "connection reset"),
        (Reply::Endless, Outcome::Retry, "HTTP 200"),
        (Reply::Echo("200 OK"), Outcome::Misconfigured, "HTTP 200"),
        (said("200 OK", r#"{"token": "canary"}"#), Outcome::Misconfigured, "HTTP 200"),
        (said("200 OK", r#"{"access_token": " "}"#), Outcome::Misconfigured, "HTTP 200"),
        (said("200 OK", r#"{"access_token": "a\nb"}"#), Outcome::Misconfigured, "HTTP 200"),
        (leak("mac"), Outcome::Misconfigured, "HTTP 200"),
    ];
    for (index, (reply, outcome, status)) in cases.into_iter().enumerate() {
        let scene = Scene::new(reply, echo(), vec![]).await;
        let report = attempt(&*scene.sink).await;
        assert_eq!((&report.outcome, report.spent), (&outcome, None), "case {index}: {report:?}");
        assert_eq!(report.status, format!("token server: {status}"), "case {index}: {report:?}");
        assert_eq!((scene.tokens.received().len(), scene.destination.received().len()), (1, 0), "case {index}");
    }
}

#[tokio::test]
async fn those_who_waited_for_a_fetch_that_failed_share_what_came_of_it() {
    let busy = Reply::Http("503 Busy", vec![], vec![]);
    let scene = Scene::new(Reply::in_turn([busy, hour("a")]), echo(), vec![]).await;
    let all = futures_util::future::join_all((0..8).map(|_| attempt(&*scene.sink))).await;
    for report in all {
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "token server: HTTP 503"));
    }
    assert_eq!(scene.tokens.received().len(), 1);
    for (moved_to_s, outcome, asked) in [(4, Outcome::Retry, 1), (5, Outcome::Delivered, 2)] {
        scene.hands.0.store(moved_to_s, Ordering::Relaxed);
        assert_eq!((scene.outcome().await, scene.tokens.received().len()), (outcome, asked), "{moved_to_s}");
    }
}

#[tokio::test]
async fn a_token_server_that_is_away_is_waited_for() {
    let destination = Loopback::start(echo()).await;
    let stalled = Loopback::start(Reply::Stall).await;
    let mut context = contract::context().0;
    context.http_limits = TEST_LIMITS;
    let sink = contract::build("webhook", options(&stalled, &destination), &context).expect("builds");
    let report = attempt(&*sink).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "token server: timed out"));

    let closed = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let mut entries = options(&stalled, &destination);
    entries[1].1 = text_node(&format!("http://{closed}/token"));
    let report = attempt(&*contract::build("webhook", entries, &context).expect("builds")).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "token server: connection refused"));
    assert!(destination.received().is_empty());
}
