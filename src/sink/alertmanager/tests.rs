//! What one peer and several make of an alert, and how long it stays open.

use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::Value;
use vigie_engine::text::{Untrusted, is_unsafe};

use super::body::{MAX_DESCRIPTION_BYTES, MAX_KEY_LABELS, labels, own_labels};
use super::*;
use crate::sink::Form;
use crate::sink::contract::{
    self, CANARY, HOSTILE, Loopback, Reply, StoppedClock, alert_titled, delivery, hold, list_node, make_hostile,
    make_long, map_node, stateful_alert, text_node, update_of,
};
use crate::sink::text::MAX_VALUE_CHARS;
use crate::sink::update::Follow;

/// A clock that the test sets, in seconds after the stopped one.
#[derive(Debug, Default)]
struct Hand(AtomicI64);

impl Hand {
    fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> DateTime<Utc> {
        StoppedClock.now() + TimeDelta::seconds(self.0.load(Ordering::Relaxed))
    }

    fn steady(&self) -> DateTime<Utc> {
        self.now()
    }
}

fn urls(urls: &[Url]) -> (&'static str, vigie_engine::yaml::Node) {
    ("urls", list_node(urls.iter().map(|url| text_node(url.as_str())).collect()))
}

fn make(peers: &[&Loopback], clock: &Arc<Hand>) -> Box<dyn Sink> {
    let mut context = contract::context().0;
    context.clock = clock.clone();
    let peers: Vec<Url> = peers.iter().map(|peer| peer.url(&format!("/{CANARY}"))).collect();
    contract::build("alertmanager", vec![urls(&peers)], &context).expect("builds")
}

async fn answering(status: &'static str) -> Loopback {
    Loopback::start(Reply::Http(status, vec![], vec![])).await
}

fn update(sink: &dyn Sink, alert: &Alert, told: Told, at: DateTime<Utc>, number: u32) -> Delivery {
    let delivery_id = format!("update {number}");
    let context = RenderContext { delivery_id: &delivery_id, now: at, form: Form::Full };
    let body = sink.render_update(&update_of(alert, told), &context).expect("renders");
    let of = delivery(sink, alert, Form::Full);
    Delivery { delivery_id, body, created_at: at, ..of }
}

fn posted(peer: &Loopback) -> Vec<Value> {
    let read = |request: contract::Received| serde_json::from_slice::<Value>(&request.body).expect("JSON")[0].clone();
    peer.received().into_iter().map(read).collect()
}

fn seconds_from_start(alert: &Value, member: &str) -> i64 {
    let at = DateTime::parse_from_rfc3339(alert[member].as_str().expect("a stamp")).expect("RFC 3339");
    (at.to_utc() - StoppedClock.now()).num_seconds()
}

#[tokio::test]
async fn holds_the_contract() {
    let make = |url: Url, context: &BuildContext| {
        let options = vec![
            urls(&[url]),
            ("user", text_node("vigie")),
            ("password", text_node(CANARY)),
            ("headers", map_node(vec![("X-Scope-OrgID", text_node(CANARY))])),
        ];
        contract::build("alertmanager", options, context).expect("builds")
    };
    hold(&make, b"", Outcome::Misconfigured).await;
}

#[tokio::test]
async fn one_alert_a_request_with_what_is_put_in_when_it_is_sent() {
    let peer = answering("200 OK").await;
    let options = vec![
        urls(&[peer.url("/am/api/v2/alerts/")]),
        ("labels", map_node(vec![("team", text_node("secops")), ("severity", text_node("page"))])),
        ("generator_url", text_node("https://vigie.example.org/a?b=c")),
        ("headers", map_node(vec![("Authorization", text_node(&format!("Bearer {CANARY}")))])),
        ("ends_after", text_node("10m")),
    ];
    let sink = contract::build("alertmanager", options, &contract::context().0).expect("builds");
    let stored = String::from_utf8(delivery(&*sink, &alert_titled("t"), Form::Full).body).expect("UTF-8");
    for absent in ["secops", "vigie.example.org", "endsAt", CANARY] {
        assert!(!stored.contains(absent), "{stored}");
    }
    assert_eq!(contract::attempt(&*sink).await.outcome, Outcome::Delivered);
    let request = peer.received().remove(0);
    assert!(request.head.starts_with("POST /am/api/v2/alerts HTTP/1.1"), "{}", request.head);
    assert_eq!(request.header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
    let sent: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(sent.as_array().map(Vec::len), Some(1));
    let labels = json!({
        "account": "abcd1234", "actor": "bob@example.org", "alert_id": "0123456789abcdef0123456789abcdef",
        "alertname": "change-from-unexpected-country", "severity": "page", "source": "main",
        "tags": "attack.t1078.004", "team": "secops",
    });
    assert_eq!(sent[0]["labels"], labels);
    assert_eq!(sent[0]["startsAt"], "2026-03-04T05:00:00Z");
    assert_eq!(sent[0]["endsAt"], "2026-03-04T05:16:07Z");
    assert_eq!(sent[0]["generatorURL"], "https://vigie.example.org/a?b=c");
    let annotations = &sent[0]["annotations"];
    assert_eq!(annotations["summary"], "HIGH: Number forwarded elsewhere");
    assert_eq!(annotations["response"], "Call the user.\nIf it was not them, revoke the key.");
    assert!(annotations["description"].as_str().is_some_and(|text| text.contains("source_country not in GB, IE")));
}

#[tokio::test]
async fn basic_authentication_is_that_of_rfc_7617() {
    let peer = answering("200 OK").await;
    let options = vec![urls(&[peer.url("/")]), ("user", text_node("Aladdin")), ("password", text_node("open sesame"))];
    let sink = contract::build("alertmanager", options, &contract::context().0).expect("builds");
    contract::attempt(&*sink).await;
    assert_eq!(peer.received()[0].header("authorization"), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
}

#[tokio::test]
async fn it_is_posted_again_with_a_later_end_and_then_ended() {
    let (peer, clock) = (answering("200 OK").await, Arc::new(Hand::default()));
    let (sink, alert) = (make(&[&peer], &clock), stateful_alert());
    let first = delivery(&*sink, &alert, Form::Full);
    // As after an outage of two hours: it opens all the same.
    clock.set(7_200);
    assert_eq!(sink.send(&first).await.outcome, Outcome::Delivered);
    clock.set(7_800);
    let still = update(&*sink, &alert, Told::Still, clock.now(), 1);
    assert_eq!(sink.send(&still).await.outcome, Outcome::Delivered);
    clock.set(8_000);
    let closing = update(&*sink, &alert, Told::Closing { quiet: Duration::from_secs(600) }, clock.now(), 2);
    clock.set(8_010);
    assert_eq!(sink.send(&closing).await.outcome, Outcome::Delivered);
    let posted = posted(&peer);
    let ends: Vec<i64> = posted.iter().map(|alert| seconds_from_start(alert, "endsAt")).collect();
    assert_eq!(ends, [7_200 + 2_700, 7_800 + 2_700, 8_000]);
    assert!(posted.iter().all(|alert| alert["labels"] == posted[0]["labels"]), "one alert: {posted:?}");
}

#[tokio::test]
async fn an_alert_is_not_ended_before_it_could_be_told_of() {
    let (peer, clock) = (answering("200 OK").await, Arc::new(Hand::default()));
    let (sink, alert) = (make(&[&peer], &clock), stateful_alert());
    let first = delivery(&*sink, &alert, Form::Full);
    let closing = update(&*sink, &alert, Told::Closing { quiet: Duration::from_secs(600) }, clock.now(), 1);
    clock.set(7_200);
    assert_eq!(sink.send(&first).await.outcome, Outcome::Delivered);
    clock.set(7_201);
    let rest = Duration::from_secs(599);
    assert_eq!(sink.send(&closing).await.outcome, Outcome::NotYet(rest));
    assert_eq!(peer.received().len(), 1);
    clock.set(7_800);
    assert_eq!(sink.send(&closing).await.outcome, Outcome::Delivered);
    assert_eq!(seconds_from_start(&posted(&peer)[1], "endsAt"), 0);
}

#[tokio::test]
async fn holding_open_that_comes_too_late_opens_nothing_and_more_matches_always_do() {
    let (peer, clock) = (answering("200 OK").await, Arc::new(Hand::default()));
    let (sink, alert) = (make(&[&peer], &clock), stateful_alert());
    let still = update(&*sink, &alert, Told::Still, clock.now(), 1);
    let more = update(&*sink, &alert, Told::More, clock.now(), 2);
    clock.set(2_699);
    assert_eq!(sink.send(&still).await.outcome, Outcome::Delivered);
    assert_eq!(seconds_from_start(&posted(&peer)[0], "endsAt"), 2_700);
    clock.set(2_700);
    let report = sink.send(&still).await;
    assert_eq!((report.outcome, peer.received().len()), (Outcome::Needless, 1));
    assert!(report.status.contains("nothing to hold open"), "{}", report.status);
    sink.send(&more).await;
    assert_eq!(seconds_from_start(&posted(&peer)[1], "endsAt"), 5_400);
}

#[tokio::test]
async fn an_event_dated_in_the_future_starts_now() {
    let (peer, clock) = (answering("200 OK").await, Arc::new(Hand::default()));
    let sink = make(&[&peer], &clock);
    let mut alert = stateful_alert();
    alert.first_at = StoppedClock.now() + TimeDelta::days(400);
    sink.send(&delivery(&*sink, &alert, Form::Full)).await;
    // The time of day was set back meanwhile.
    clock.set(-86_400);
    let sink = make(&[&peer], &clock);
    sink.send(&update(&*sink, &alert, Told::Closing { quiet: Duration::from_secs(60) }, StoppedClock.now(), 1)).await;
    let posted = posted(&peer);
    assert_eq!(posted.len(), 2);
    for alert in posted {
        assert_eq!(seconds_from_start(&alert, "startsAt"), 0);
        assert!(seconds_from_start(&alert, "endsAt") >= 0, "{alert}");
    }
}

#[tokio::test]
async fn two_and_three_peers_come_to_one_outcome() {
    let later = Outcome::Later(PARTIAL);
    let cases: [(&[&'static str], Outcome, &str); 11] = [
        (&["200 OK", "200 OK"], Outcome::Delivered, "2 of 2 peers: HTTP 200"),
        (&["200 OK", "503 Busy"], later.clone(), "1 of 2 peers: HTTP 503"),
        (&["401 Unauthorized", "200 OK", "503 Busy"], later.clone(), "1 of 3 peers: peer 1 refuses: HTTP 401"),
        (&["200 OK", "401 Unauthorized"], Outcome::Delivered, "1 of 2 peers: peer 2 refuses: HTTP 401"),
        (
            &["403 Forbidden", "200 OK", "404 Not Found"],
            Outcome::Delivered,
            "1 of 3 peers: peer 1 refuses: HTTP 403, peer 3 refuses: HTTP 404",
        ),
        (&["200 OK", "200 OK", "400 Bad"], later, "2 of 3 peers: HTTP 400"),
        (&["503 Busy", "401 Unauthorized"], Outcome::Misconfigured, "0 of 2 peers: HTTP 401"),
        (&["400 Bad", "429 Too Many", "503 Busy"], Outcome::Wait(None), "0 of 3 peers: HTTP 429"),
        (&["400 Bad", "503 Busy"], Outcome::Retry, "0 of 2 peers: HTTP 503"),
        (&["418 Teapot", "400 Bad"], Outcome::Degrade, "0 of 2 peers: HTTP 400"),
        (&["418 Teapot", "418 Teapot"], Outcome::Dead, "0 of 2 peers: HTTP 418"),
    ];
    for (statuses, outcome, status) in cases {
        let peers = join_all(statuses.iter().map(|status| answering(status))).await;
        let sink = make(&peers.iter().collect::<Vec<_>>(), &Arc::default());
        let report = contract::attempt(&*sink).await;
        assert_eq!((&report.outcome, report.status.as_str()), (&outcome, status), "{statuses:?}");
        assert!(peers.iter().all(|peer| peer.received().len() == 1), "{statuses:?}");
    }
}

#[tokio::test]
async fn a_peer_that_has_it_is_not_asked_again_and_one_that_stays_away_holds_nothing_up() {
    let (up, down, clock) = (answering("200 OK").await, answering("503 Busy").await, Arc::new(Hand::default()));
    let sink = make(&[&up, &down], &clock);
    let mut sent = delivery(&*sink, &stateful_alert(), Form::Full);
    for (seconds, attempts, outcome) in [
        (0, 0, Outcome::Later(PARTIAL)),
        (30, 1, Outcome::Later(2 * PARTIAL)),
        (1_349, 90, Outcome::Later(16 * PARTIAL)),
        (1_350, 91, Outcome::Delivered),
    ] {
        clock.set(seconds);
        sent.attempts = attempts;
        assert_eq!(sink.send(&sent).await.outcome, outcome, "{seconds}");
    }
    assert_eq!((up.received().len(), down.received().len()), (1, 4));
    sink.send(&sent).await;
    assert_eq!(up.received().len(), 1, "what was given up is not forgotten");
}

#[tokio::test]
async fn no_peer_shows_how_another_is_reached() {
    let telling = Loopback::start(Reply::Http("500 Oops", vec![], b"cannot reach pass9word other-peer-path".to_vec()));
    let (telling, other) = (telling.await, answering("503 Busy").await);
    let mut second = other.url("/other-peer-path");
    second.set_username("u").and_then(|()| second.set_password(Some("pass9word"))).expect("a URL with a host");
    // Of two that fail alike the last is shown.
    let options = vec![urls(&[second, telling.url("/")])];
    let sink = contract::build("alertmanager", options, &contract::context().0).expect("builds");
    assert_eq!(contract::attempt(&*sink).await.excerpt, "cannot reach [redacted] [redacted]");
}

#[tokio::test]
async fn a_refused_end_never_opens_and_a_page_of_a_proxy_is_no_assent() {
    let (peer, clock) = (answering("400 Bad Request").await, Arc::new(Hand::default()));
    let (sink, alert) = (make(&[&peer], &clock), stateful_alert());
    let closing = update(&*sink, &alert, Told::Closing { quiet: Duration::from_secs(60) }, clock.now(), 1);
    assert_eq!(sink.send(&closing).await.outcome, Outcome::Dead);
    let still = update(&*sink, &alert, Told::Still, clock.now(), 2);
    assert_eq!(sink.send(&still).await.outcome, Outcome::Degrade);
    let unreadable = Delivery { body: b"Still open: HIGH: t".to_vec(), ..closing };
    assert_eq!(sink.send(&unreadable).await.outcome, Outcome::Degrade);
    for (body, outcome) in [
        ("\n<html>please log in</html>", Outcome::Retry),
        (r#"{"status":"error","error":"no tenant"}"#, Outcome::Retry),
        ("ok", Outcome::Retry),
        (" \n", Outcome::Delivered),
        ("{}\n", Outcome::Delivered),
    ] {
        let proxy = Loopback::start(Reply::Http("200 OK", vec![], body.into())).await;
        assert_eq!(contract::attempt(&*make(&[&proxy], &clock)).await.outcome, outcome, "{body}");
    }
}

#[test]
fn labels_are_names_and_short_texts_and_none_is_lost_to_another() {
    for (field, name) in
        [("actor", "actor"), ("context.user-id", "context_user_id"), ("9lives", "_9lives"), ("", "_"), ("ключ", "____")]
    {
        assert_eq!(label_name(field), name);
    }
    assert_eq!(label_name(&"a".repeat(MAX_LABEL_NAME_CHARS + 1)).len(), MAX_LABEL_NAME_CHARS);
    let mut alert = alert_titled("t");
    let value = |text: &str| Untrusted::new(text);
    alert.key = vec![
        ("alert_id".into(), value("forged")),
        ("severity".into(), value("info")),
        ("a.b".into(), value("1")),
        ("a-b".into(), value("2")),
        ("empty".into(), value(" ")),
    ];
    let full = labels(&alert);
    assert_eq!(full["alert_id"], alert.alert_id);
    assert_eq!((full["key_alert_id"].as_str(), full["key_severity"].as_str()), ("forged", "info"));
    assert_eq!((full["severity"].as_str(), full["a_b"].as_str()), ("high", "1"));
    alert.key = (0..20).map(|index| (format!("f{index}"), value(&"🦀".repeat(500)))).collect();
    let full = labels(&alert);
    assert_eq!(full.len(), 6 + MAX_KEY_LABELS);
    assert!(full.values().all(|value| value.chars().count() <= MAX_VALUE_CHARS));
    let names: Vec<String> = own_labels(&alert, false).into_keys().collect();
    assert_eq!(names, ["alert_id", "alertname", "severity"]);
}

#[test]
fn hostile_and_long_text_stays_text_within_bounds() {
    let sink = contract::build(
        "alertmanager",
        vec![urls(&[Url::parse("http://am.example.org:9093").expect("valid")])],
        &contract::context().0,
    )
    .expect("builds");
    let mut hostile = stateful_alert();
    make_hostile(&mut hostile, HOSTILE);
    hostile.title = Untrusted::new(HOSTILE);
    for form in [Form::Full, Form::Plain] {
        let stored: Stored = serde_json::from_slice(&delivery(&*sink, &hostile, form).body).expect("JSON");
        let texts = stored.labels.values().chain(stored.annotations.values());
        for text in texts.chain(stored.labels.keys()) {
            assert!(!text.chars().any(|c| c != '\n' && is_unsafe(c)) && !text.contains("://"), "{text}");
            assert!(!text.contains(['<', '>']), "{text}");
        }
    }
    for character in ["a", "🦀", "\u{202e}", "http://a"] {
        let mut alert = stateful_alert();
        make_long(&mut alert, character);
        let stored: Stored = serde_json::from_slice(&delivery(&*sink, &alert, Form::Full).body).expect("JSON");
        let longest = stored.annotations.values().map(String::len).max().unwrap_or_default();
        assert!(longest <= MAX_DESCRIPTION_BYTES + 64, "{longest}");
    }
}

#[test]
fn what_is_wrong_with_its_options_is_told() {
    let url = |text: &str| ("urls", text_node(text));
    let good = || url("http://am.example.org:9093");
    let label = |name: &str| ("labels", map_node(vec![(name, text_node("x"))]));
    let many = vec!["http://am.example.org"; MAX_PEERS + 1];
    let cases = [
        (vec![("urls", list_node(many.iter().map(|url| text_node(url)).collect()))], "E0470"),
        (vec![good(), ("user", text_node("u"))], "E0460"),
        (vec![good(), ("password", text_node(CANARY))], "E0460"),
        (vec![good(), label("a-b")], "E0472"),
        (vec![good(), label("alertname")], "E0472"),
        (vec![good(), ("headers", map_node(vec![("Host", text_node("x"))]))], "E0426"),
        (vec![url(&format!("http://169.254.169.254/{CANARY}"))], "E0421"),
        (vec![url(CANARY)], "E0403"),
        (vec![good(), ("ends_after", text_node("4m"))], "E0403"),
    ];
    for (options, code) in cases {
        let told = contract::build("alertmanager", options, &contract::context().0).err().expect("refused");
        assert!(told.contains(code), "{code}: {told}");
    }
    let most = list_node(many[1..].iter().map(|url| text_node(url)).collect());
    contract::build("alertmanager", vec![("urls", most)], &contract::context().0).expect("at the limit");
}

#[test]
fn it_asks_to_be_told_again_at_half_of_its_end() {
    let node = map_node(vec![("urls", text_node("http://am.example.org")), ("ends_after", text_node("10m"))]);
    let expand = |text: &str| Ok(text.to_owned());
    let mut diagnostics = Diagnostics::default();
    let options =
        crate::options::read(&node, "x", &ALERTMANAGER.options.concat(), &expand, &mut diagnostics).expect("a map");
    let expected = Follow { every: None, closing: true, keeps: Some(Duration::from_secs(300)) };
    assert_eq!(Follow::of(&options), Some(expected));
}
