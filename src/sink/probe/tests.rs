//! What each kind asks, what it makes of the answers, and that nothing is sent or shown on the way.

use std::time::Duration;

use vigie_engine::yaml::Node;

use super::*;
use crate::sink::contract::{CANARY, Loopback, Reply, TEST_LIMITS, build, context, list_node, text_node};
use crate::sink::{KINDS, Sink};

/// A sink of that kind, its destination at `server`; every secret of it is or holds the canary.
fn sink(kind: &str, server: &Loopback) -> Box<dyn Sink> {
    sink_at(kind, server.url("/").as_str(), server.url(&format!("/hooks/{CANARY}")).as_str())
}

fn sink_at(kind: &str, base: &str, hook: &str) -> Box<dyn Sink> {
    let text = text_node;
    let keys = || vec![("access_key_id", text("AKIAEXAMPLE")), ("secret_access_key", text(CANARY))];
    let options: Vec<(&str, Node)> = match kind {
        "telegram" => vec![("bot_token", text(CANARY)), ("chat_id", text("-100")), ("api_url", text(base))],
        "splunk_hec" => vec![("url", text(base)), ("token", text(CANARY))],
        "elasticsearch" => vec![("url", text(base)), ("api_key", text(CANARY))],
        "jira" => vec![("url", text(base)), ("token", text(CANARY)), ("project", text("SEC"))],
        "servicenow" | "thehive" => vec![("url", text(base)), ("token", text(CANARY))],
        "alertmanager" => vec![("urls", list_node(vec![text(base), text(base)]))],
        "sqs" => {
            let queue = ("queue_url", text("https://sqs.eu-west-1.amazonaws.com/1/alerts"));
            [vec![queue, ("endpoint", text(base))], keys()].concat()
        }
        "sns" => {
            let topic = ("topic_arn", text("arn:aws:sns:eu-west-1:123456789012:alerts"));
            [vec![topic, ("endpoint", text(base))], keys()].concat()
        }
        _ => vec![("webhook_url", text(hook))],
    };
    let mut context = context().0;
    context.http_limits = TEST_LIMITS;
    build(kind, options, &context).expect("builds")
}

async fn asked(sink: &dyn Sink) -> Vec<Probed> {
    let Probe::Asks(asking) = sink.probe() else { return Vec::new() };
    let probed = asking.await;
    let shown = format!("{probed:?}");
    assert!(!shown.contains(CANARY), "{shown}");
    probed
}

fn verdicts(probed: &[Probed]) -> Vec<Verdict> {
    probed.iter().map(Probed::verdict).collect()
}

fn http(status: &'static str, body: &str) -> Reply {
    Reply::Http(status, vec![], body.into())
}

/// Of one kind.
type Assents = &'static [(&'static str, &'static str, &'static str)];

/// Kinds that ask over HTTP: the first line of each request, and the answers that assent to each in turn.
const ASSENTS: &[(&str, Assents)] = &[
    (
        "telegram",
        &[
            ("POST_OR_GET /botCANARY/getMe ", "200 OK", r#"{"ok": true, "result": {}}"#),
            ("POST /botCANARY/getChat ", "200 OK", r#"{"ok": true, "result": {}}"#),
        ],
    ),
    ("discord", &[("GET /hooks/CANARY?wait=true ", "200 OK", r#"{"id": "1"}"#)]),
    (
        "splunk_hec",
        &[
            ("GET /services/collector/health ", "200 OK", r#"{"text": "HEC is healthy", "code": 17}"#),
            ("POST /services/collector/event ", "400 Bad Request", r#"{"text": "No data", "code": 5}"#),
        ],
    ),
    ("elasticsearch", &[("GET /_security/_authenticate ", "200 OK", r#"{"username": "vigie"}"#)]),
    ("jira", &[("GET /rest/api/2/myself ", "200 OK", r#"{"name": "vigie"}"#)]),
    (
        "servicenow",
        &[("GET /api/now/table/incident?sysparm_limit=1&sysparm_fields=sys_id ", "200 OK", r#"{"result": []}"#)],
    ),
    ("thehive", &[("GET /api/v1/user/current ", "200 OK", r#"{"login": "vigie"}"#)]),
    (
        "alertmanager",
        &[
            ("GET /api/v2/status ", "200 OK", r#"{"cluster": {}}"#),
            ("GET /api/v2/status ", "200 OK", r#"{"cluster": {}}"#),
        ],
    ),
    ("sqs", &[("POST / ", "200 OK", r#"{"Attributes": {}}"#)]),
    ("sns", &[("POST / ", "200 OK", "<GetTopicAttributesResponse><GetTopicAttributesResult/>")]),
];

#[tokio::test]
async fn each_asks_in_its_own_place_and_sends_nothing() {
    for (kind, questions) in ASSENTS {
        let replies = questions.iter().map(|(_, status, body)| http(status, body));
        let server = Loopback::start(Reply::in_turn(replies)).await;
        let probed = asked(&*sink(kind, &server)).await;
        assert_eq!(verdicts(&probed), vec![Verdict::Holds; questions.len()], "{kind}: {probed:?}");
        let received = server.received();
        assert_eq!(received.len(), questions.len(), "{kind}");
        for (request, (line, ..)) in received.iter().zip(*questions) {
            let line = line.replace("CANARY", CANARY).replace("POST_OR_GET", "GET");
            assert!(request.head.starts_with(&line), "{kind}: {}", request.head);
            let body = String::from_utf8_lossy(&request.body);
            assert!(request.body.is_empty() || ["Queue", "TopicArn", "chat_id"].iter().any(|word| body.contains(word)));
            assert!(!body.contains("SendMessage") && !body.contains("Publish"), "{kind}: {body}");
        }
    }
}

#[tokio::test]
async fn wrong_credentials_are_refused_and_never_shown() {
    for (kind, _) in ASSENTS {
        // Repeats the request with all that it holds.
        let server = Loopback::start(Reply::Echo("401 Unauthorized")).await;
        let probed = asked(&*sink(kind, &server)).await;
        assert!(probed.iter().any(|probed| probed.verdict() == Verdict::Refused), "{kind}: {probed:?}");
    }
}

#[tokio::test]
async fn who_cannot_be_reached_or_asks_for_a_pause_is_no_refusal() {
    for (kind, _) in ASSENTS {
        for reply in [Reply::Stall, Reply::Reset, http("503 Busy", ""), http("429 Too Many Requests", "")] {
            let server = Loopback::start(reply).await;
            let probed = asked(&*sink(kind, &server)).await;
            let is_patient = |probed: &Probed| matches!(probed.verdict(), Verdict::NotNow | Verdict::Untold);
            assert!(!probed.is_empty() && probed.iter().all(is_patient), "{kind}: {probed:?}");
            assert!(probed.iter().any(|probed| probed.verdict() == Verdict::NotNow), "{kind}: {probed:?}");
        }
    }
}

#[tokio::test]
async fn a_page_of_a_proxy_and_a_ban_on_asking_show_nothing() {
    for (kind, _) in ASSENTS {
        let server = Loopback::start(http("200 OK", "<html>please log in</html>")).await;
        let probed = asked(&*sink(kind, &server)).await;
        // Of Splunk's health the status is all there is.
        let last = probed.last().expect("a question");
        assert_eq!(last.verdict(), Verdict::Untold, "{kind}: {probed:?}");
    }
    for kind in ["elasticsearch", "jira", "servicenow", "thehive", "alertmanager"] {
        let server = Loopback::start(http("403 Forbidden", "{}")).await;
        let probed = asked(&*sink(kind, &server)).await;
        assert!(verdicts(&probed).iter().all(|verdict| *verdict == Verdict::Untold), "{kind}: {probed:?}");
    }
    for (kind, body) in [
        ("sqs", r#"{"__type": "com.amazonaws.sqs#AccessDeniedException", "message": "no"}"#),
        ("sns", "<ErrorResponse><Error><Code>AuthorizationError</Code></Error></ErrorResponse>"),
    ] {
        let server = Loopback::start(http("403 Forbidden", body)).await;
        assert_eq!(verdicts(&asked(&*sink(kind, &server)).await), [Verdict::Untold], "{kind}");
    }
}

#[tokio::test]
async fn a_refusal_is_read_by_the_words_of_the_service() {
    for (kind, status, body, expected) in [
        (
            "splunk_hec",
            "403 Forbidden",
            r#"{"text": "Invalid token", "code": 4}"#,
            vec![Verdict::Untold, Verdict::Refused],
        ),
        ("telegram", "404 Not Found", r#"{"ok": false, "error_code": 404}"#, vec![Verdict::Refused]),
        ("discord", "404 Not Found", r#"{"message": "Unknown Webhook", "code": 10015}"#, vec![Verdict::Refused]),
        ("sqs", "400 Bad Request", r#"{"__type": "com.amazonaws.sqs#QueueDoesNotExist"}"#, vec![Verdict::Refused]),
        ("sqs", "403 Forbidden", r#"{"__type": "InvalidClientTokenId"}"#, vec![Verdict::Refused]),
    ] {
        let server = Loopback::start(http(status, body)).await;
        assert_eq!(verdicts(&asked(&*sink(kind, &server)).await), expected, "{kind}: {body}");
    }
    let replies = [
        http("200 OK", r#"{"ok": true}"#),
        http("400 Bad Request", r#"{"ok": false, "description": "Bad Request: chat not found"}"#),
    ];
    let server = Loopback::start(Reply::in_turn(replies)).await;
    assert_eq!(verdicts(&asked(&*sink("telegram", &server)).await), [Verdict::Holds, Verdict::Refused]);
    let replies = [http("400 Bad Request", r#"{"error": "no handler found"}"#), http("200 OK", r#"{"version": {}}"#)];
    let server = Loopback::start(Reply::in_turn(replies)).await;
    assert_eq!(verdicts(&asked(&*sink("elasticsearch", &server)).await), [Verdict::Holds], "OpenSearch");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_guard_holds() {
    let target = Loopback::start(http("200 OK", "{}")).await;
    let server = Loopback::start(Reply::Http("302 Found", vec![("Location", target.url("/").into())], vec![])).await;
    assert_eq!(verdicts(&asked(&*sink("jira", &server)).await), [Verdict::Refused]);
    assert_eq!((server.received().len(), target.received().len()), (1, 0));
    // A name that leads to where nothing may lead.
    let options = vec![("url", text_node("http://localhost:9")), ("token", text_node(CANARY))];
    let options = [options, vec![("allow_private", text_node("false"))]].concat();
    assert!(build("thehive", options, &context().0).err().is_some_and(|told| told.contains("E0421")));
}

#[tokio::test]
async fn who_has_nothing_to_ask_says_why() {
    let server = Loopback::start(http("200 OK", "ok")).await;
    for kind in ["slack", "teams", "mattermost", "google_chat"] {
        let sink = sink(kind, &server);
        assert!(matches!(sink.probe(), Probe::Nothing(why) if why.len() > 20), "{kind}");
    }
    assert!(server.received().is_empty());
    assert!(KINDS.len() > 20);
}

#[tokio::test]
async fn a_file_and_a_program_are_looked_at_and_not_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("alerts.jsonl");
    let file = |path: &str| build("file", vec![("path", text_node(path))], &context().0).expect("builds");
    let shown = path.to_string_lossy().into_owned();
    assert_eq!(verdicts(&asked(&*file(&shown)).await), [Verdict::Holds]);
    assert!(!path.exists(), "it is only looked at");
    assert_eq!(verdicts(&asked(&*file("/dev/null")).await), [Verdict::Holds]);
    let missing = directory.path().join("none/alerts.jsonl").to_string_lossy().into_owned();
    assert_eq!(verdicts(&asked(&*file(&missing)).await), [Verdict::Refused]);
    std::fs::write(&path, "#!/bin/sh\n").expect("a file");
    let exec = |path: &str| {
        let command = list_node(vec![text_node(path), text_node(CANARY)]);
        build("exec", vec![("command", command)], &context().0).expect("builds")
    };
    assert_eq!(verdicts(&asked(&*exec(&shown)).await), [Verdict::Refused], "nobody may execute it");
    assert_eq!(verdicts(&asked(&*exec("/nowhere/at/all")).await), [Verdict::Refused]);
    let parent = directory.path().to_string_lossy().into_owned();
    assert_eq!(verdicts(&asked(&*exec(&parent)).await), [Verdict::Refused], "a directory");
    assert_eq!(verdicts(&asked(&*exec("/bin/sh")).await), [Verdict::Holds]);
}

#[tokio::test]
async fn a_wire_is_connected_to_and_nothing_is_said_on_it() {
    use tokio::io::AsyncReadExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.expect("its end");
        heard
    });
    let syslog = |url: String| {
        let mut context = context().0;
        context.http_limits.connect = Duration::from_secs(2);
        build("syslog", vec![("url", text_node(&url))], &context).expect("builds")
    };
    assert_eq!(verdicts(&asked(&*syslog(format!("tcp://{address}"))).await), [Verdict::Holds]);
    assert_eq!(heard.await.expect("no panic"), b"");
    assert_eq!(verdicts(&asked(&*syslog(format!("tcp://{address}"))).await), [Verdict::NotNow], "nobody listens");
    assert!(matches!(syslog(format!("udp://{address}")).probe(), Probe::Nothing(_)));
    let server = Loopback::start(Reply::Stall).await;
    let tls = syslog(format!("tls://{}", server.address));
    assert_eq!(verdicts(&asked(&*tls).await), [Verdict::NotNow], "no TLS is spoken there");
}
