//! The shared options over real sockets: what goes out, through what, and what each mistake and refusal comes to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;

use bytes::Bytes;
use reqwest::Method;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use url::Url;
use vigie_engine::yaml::Node;

use super::super::tls::tests::serve_once;
use super::*;
use crate::options;
use crate::sink::contract::{
    self, CANARY, Loopback, Received, Reply, StoppedClock, attempt, list_node, map_node, read_request, text_node,
};
use crate::sink::{KINDS, Outcome, Sink};

/// Of the fixtures of the tests.
fn pem(name: &str) -> Node {
    text_node(&format!("{}/tests/tls/{name}.pem", env!("CARGO_MANIFEST_DIR")))
}

fn url() -> (&'static str, Node) {
    ("url", text_node(&format!("https://hooks.example.org/{CANARY}")))
}

fn webhook(entries: Vec<(&'static str, Node)>) -> Box<dyn Sink> {
    contract::build("webhook", entries, &contract::context().0).expect("builds")
}

fn told(kind: &str, entries: Vec<(&'static str, Node)>) -> String {
    contract::build(kind, entries, &contract::context().0).err().expect("refused")
}

fn ok() -> Reply {
    Reply::Http("200 OK", vec![], b"ok".to_vec())
}

/// A file of this test with this content.
fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("token");
    std::fs::write(&path, content).expect("written");
    (directory, path)
}

fn path_node(path: &Path) -> Node {
    text_node(&path.display().to_string())
}

/// A proxy that opens a tunnel to one address, whatever it is asked for, and remembers what it was asked.
struct Tunnels {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Received>>>,
}

impl Tunnels {
    async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let (address, asked) = (listener.local_addr().expect("bound"), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.expect("a client");
            let request = read_request(&mut client).await.expect("readable").expect("a request");
            log.lock().expect("not poisoned").push(request);
            let mut server = TcpStream::connect(target).await.expect("the target");
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("written");
            // Either side ends it.
            copy_bidirectional(&mut client, &mut server).await.unwrap_or_default();
        });
        Self { address, asked }
    }
}

#[test]
fn every_mistake_is_told_at_its_option() {
    let (_directory, empty) = file("\n");
    let (_other, lines) = file("a\nb");
    let (certificate, key) = (("certificate_file", pem("client")), ("key_file", pem("client-key")));
    let nowhere = || text_node("/nonexistent/x.pem");
    let header = |name| ("headers", map_node(vec![(name, text_node(CANARY))]));
    let proxy = |url: &str| ("proxy", text_node(url));
    let token_url = |url: &str| ("oauth2_token_url", text_node(url));
    let (id, secret) = (("oauth2_client_id", text_node("id")), ("oauth2_client_secret", text_node(CANARY)));
    let server = || token_url("https://login.example.org/token");
    let bearer = |path: &Path| ("bearer_token_file", path_node(path));
    let cases = [
        (vec![certificate.clone()], "E0480", "`certificate_file` without `key_file`"),
        (vec![key.clone()], "E0480", "`key_file` without `certificate_file`"),
        (
            vec![("certificate_file", nowhere()), key.clone()],
            "E0480",
            "`certificate_file`: `/nonexistent/x.pem` cannot be",
        ),
        (vec![certificate.clone(), ("key_file", nowhere())], "E0480", "`key_file`: `/nonexistent/x.pem` cannot be"),
        (vec![certificate.clone(), ("key_file", pem("client-rsa-key"))], "E0480", "is the key of another certificate"),
        (vec![("certificate_file", pem("client-key")), key], "E0480", "holds no certificate"),
        (vec![certificate.clone(), ("key_file", text_node("/dev/null"))], "E0480", "`/dev/null` is not a file"),
        (vec![certificate, ("key_file", path_node(&empty))], "E0480", "holds no private key in the clear"),
        (vec![("ca_file", path_node(&empty))], "E0422", "`ca_file`: the CA file holds no usable certificate"),
        (vec![proxy(&format!("http://u:{CANARY}@169.254.169.254:3128"))], "E0481", "a link-local address is never"),
        (vec![proxy(&format!("http://metadata.google.internal/?{CANARY}"))], "E0481", "a cloud metadata name is"),
        (vec![proxy(&format!("http://proxy.example.org/{CANARY}"))], "E0481", "nothing may follow host and port"),
        (vec![proxy(&format!("socks5://u:{CANARY}@proxy.example.org"))], "E0403", "has the scheme `socks5`"),
        (vec![header("X-A"), header("Host")], "E0426", "header `Host` is set by the sink itself"),
        (vec![header("proxy-Authorization")], "E0426", "is set by the sink itself"),
        (vec![header("a b")], "E0426", "is no header name"),
        (vec![("headers", map_node(vec![("A", text_node("b")), ("a", text_node(CANARY))]))], "E0426", "is there twice"),
        (vec![bearer(&lines), header("X-A")], "E0484", "holds what no header can carry"),
        (vec![bearer(&empty)], "E0484", "is empty"),
        (vec![bearer(Path::new("/nonexistent"))], "E0484", "`/nonexistent` cannot be read"),
        (vec![bearer(Path::new("/dev/zero"))], "E0484", "is not a file"),
        (vec![server(), secret.clone()], "E0482", "`oauth2_token_url` without `oauth2_client_id`"),
        (vec![server(), id.clone()], "E0482", "`oauth2_token_url` without `oauth2_client_secret`"),
        (vec![("oauth2_scopes", text_node("a"))], "E0482", "`oauth2_scopes` without `oauth2_token_url`"),
        (
            vec![token_url("http://metadata/x"), id.clone(), secret.clone()],
            "E0421",
            "`oauth2_token_url`: the host of the",
        ),
        (vec![token_url(&format!("https://u:{CANARY}@a.example")), id.clone(), secret.clone()], "E0482", "a user or a"),
        (vec![server(), id.clone(), secret.clone(), ("oauth2_client_auth", text_node("jwt"))], "E0403", "takes one of"),
        (
            vec![header("Authorization"), server(), id.clone(), secret.clone()],
            "E0483",
            "`headers` and `oauth2_token_url`",
        ),
        (
            vec![header("AUTHORIZATION"), bearer(Path::new("/nonexistent"))],
            "E0483",
            "`headers` and `bearer_token_file`",
        ),
        (vec![bearer(&lines), server(), id, secret], "E0483", "`bearer_token_file` and `oauth2_token_url` both say"),
    ];
    for (mut entries, code, part) in cases {
        // The last one written of a name counts, so that a case can hold two.
        entries.insert(0, url());
        let told = told("webhook", entries);
        assert!(told.contains(code) && told.contains(part), "{code} {part}: {told}");
    }
    let in_url = ("url", text_node(&format!("https://u:{CANARY}@hooks.example.org")));
    let told = told("webhook", vec![in_url, header("authorization")]);
    assert!(told.contains("E0483") && told.contains("the URL and `headers` both say"), "{told}");
}

#[test]
fn what_a_sink_sends_itself_is_no_option_of_it() {
    let [all, keyed] = [TRANSPORT, KEYED_TRANSPORT].map(|table| table.iter().map(|spec| spec.name).collect::<Vec<_>>());
    let rest: Vec<&str> = all.into_iter().filter(|name| !keyed.contains(name)).collect();
    assert!(rest.iter().all(|name| name.starts_with("oauth2_") || *name == "bearer_token_file"), "{rest:?}");
    assert_eq!((rest.len(), keyed.contains(&"headers")), (1 + GRANT.len() + GRANT_MORE.len(), true));
    let splunk = || vec![("url", text_node("https://splunk.example.org:8088")), ("token", text_node(CANARY))];
    let with = |name: &'static str, node| splunk().into_iter().chain([(name, node)]).collect();
    let amazon = ["X-Amz-Date", "x-amz-target", "x-amz-security-token", "x-amz-content-sha256"];
    for name in amazon.into_iter().chain(["Authorization", "CE-anything"]) {
        let refused = told("splunk_hec", with("headers", map_node(vec![(name, text_node("x"))])));
        assert!(refused.contains("E0426") && refused.contains("set by the sink itself"), "{name}: {refused}");
    }
    let refused = told("splunk_hec", with("bearer_token_file", text_node("x")));
    assert!(refused.contains("E0402"), "{refused}");
    let refused = told("splunk_hec", with("url", text_node(&format!("https://u:{CANARY}@splunk.example.org:8088"))));
    assert!(refused.contains("E0483") && refused.contains("`url` holds a user"), "{refused}");
    let taken = contract::build(
        "splunk_hec",
        with("headers", map_node(vec![("X-Team", text_node("x"))])),
        &contract::context().0,
    );
    assert!(taken.is_ok(), "{taken:?}", taken = taken.err());
}

#[tokio::test]
async fn whoever_takes_a_token_file_sends_what_it_holds() {
    let (_directory, path) = file("of-the-file");
    for kind in KINDS.iter().filter(|kind| kind.specs().iter().any(|spec| spec.name == BEARER_TOKEN_FILE.name)) {
        let server = Loopback::start(ok()).await;
        let mut entries = vec![(BEARER_TOKEN_FILE.name, path_node(&path))];
        for spec in kind.specs() {
            let is_url = matches!(spec.kind, OptionKind::Url(_) | OptionKind::Urls(_));
            match (spec.name, spec.presence) {
                _ if is_url => entries.push((spec.name, text_node(server.url("/x").as_str()))),
                ("bot_token", _) => entries.push((spec.name, text_node("123456:abcdef"))),
                ("routing_key", _) => entries.push((spec.name, text_node(&"0a".repeat(16)))),
                ("chat_id", _) => entries.push((spec.name, text_node("-1001"))),
                (name, Presence::Required) => entries.push((name, text_node("SEC"))),
                _ => {}
            }
        }
        let sink = contract::build(kind.kind, entries, &contract::context().0);
        let report = attempt(&*sink.unwrap_or_else(|told| panic!("{}: {told}", kind.kind))).await;
        let received = server.received();
        let sent = received.first().and_then(|request| request.header("authorization"));
        assert_eq!(sent, Some("Bearer of-the-file"), "{}: {report:?}", kind.kind);
    }
}

#[tokio::test]
async fn every_sink_sends_the_operators_headers() {
    let server = Loopback::start(ok()).await;
    let headers =
        || ("headers", map_node(vec![("X-Team", text_node(CANARY)), ("Authorization", text_node("Custom a"))]));
    let url = || text_node(server.url("/").as_str());
    attempt(&*webhook(vec![("url", url()), headers()])).await;
    let slack = contract::build("slack", vec![("webhook_url", url()), headers()], &contract::context().0);
    let report = attempt(&*slack.expect("builds")).await;
    assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");
    for request in server.received() {
        assert_eq!((request.header("x-team"), request.header("authorization")), (Some(CANARY), Some("Custom a")));
    }
    assert_eq!(server.received().len(), 2);
}

#[tokio::test]
async fn a_header_that_a_sink_sets_too_is_for_the_operator() {
    let server = Loopback::start(ok()).await;
    let mut spec = EndpointSpec::new(SinkUrl::new(server.url("/")), Arc::new(StoppedClock));
    spec.headers.insert("x-key", HeaderValue::from_static(CANARY));
    let (_directory, path) = file(CANARY);
    let mut endpoint = Endpoint::build(spec).expect("builds");
    endpoint.authorization = Some(Authorization::of_file(TokenFile::new(&path.display().to_string())));
    for name in [HeaderName::from_static("x-key"), AUTHORIZATION] {
        let own = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("own"))]);
        let report = endpoint.send(Method::POST, own, Bytes::new()).await.err().expect("refused");
        assert_eq!((report.outcome.clone(), report.status.as_str()), (Outcome::Misconfigured, "a header is set twice"));
        assert!(report.excerpt.contains(name.as_str()) && !format!("{report:?}").contains(CANARY), "{report:?}");
    }
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_whole_url_and_resolves_the_name() {
    let proxy = Loopback::start(ok()).await;
    let at = proxy.address.port();
    let target = format!("http://hooks.invalid:8080/{CANARY}");
    let sink = webhook(vec![
        ("url", text_node(&target)),
        ("proxy", text_node(&format!("http://us%40er:{CANARY}@127.0.0.1:{at}"))),
        ("allow_private", text_node("false")),
    ]);
    let report = attempt(&*sink).await;
    assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");
    let request = proxy.received().remove(0);
    assert!(request.head.starts_with(&format!("POST {target} HTTP/1.1\r\n")), "{}", request.head);
    let login = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("us@er:{CANARY}"));
    assert_eq!(request.header("proxy-authorization"), Some(format!("Basic {login}").as_str()));
    assert_eq!(request.header("authorization"), None);
}

#[test]
fn a_proxy_does_not_open_what_the_guard_refuses() {
    let proxy = || ("proxy", text_node("http://127.0.0.1:3128"));
    let strict = || ("allow_private", text_node("false"));
    for host in ["169.254.169.254", "metadata.google.internal", "[::ffff:169.254.169.254]"] {
        let told = told("webhook", vec![("url", text_node(&format!("http://{host}/"))), proxy()]);
        assert!(told.contains("E0421"), "{host}: {told}");
    }
    for host in ["10.0.0.1", "localhost", "[::1]"] {
        let told = told("webhook", vec![("url", text_node(&format!("http://{host}/"))), proxy(), strict()]);
        assert!(told.contains("E0421"), "{host}: {told}");
    }
    webhook(vec![("url", text_node("http://hooks.example.org/")), proxy(), strict()]);
}

#[tokio::test]
async fn the_proxys_own_name_is_vetted_when_it_is_resolved() {
    let mut spec =
        EndpointSpec::new(SinkUrl::new(Url::parse("http://hooks.example/").expect("valid")), Arc::new(StoppedClock));
    spec.policy = Policy { allow_private: false };
    spec.proxy = Some(SinkUrl::new(Url::parse("http://proxy.example:3128").expect("valid")));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    spec.lookup = Arc::new(move |name| {
        log.lock().expect("not poisoned").push(name);
        Box::pin(async { Ok(vec![SocketAddr::from(([169, 254, 169, 254], 0))]) })
    });
    let endpoint = Endpoint::build(spec).expect("builds");
    let report = endpoint.send(Method::POST, HeaderMap::new(), Bytes::new()).await.err().expect("refused");
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Misconfigured, "refused by the address guard"));
    assert_eq!(*asked.lock().expect("not poisoned"), ["proxy.example"]);
}

#[tokio::test]
async fn a_tunnel_carries_tls_and_the_client_certificate() {
    let (target, served) = serve_once(true);
    let proxy = Tunnels::start(target).await;
    let entries = vec![
        ("url", text_node(&format!("https://localhost:{}/{CANARY}", target.port()))),
        ("proxy", text_node(&format!("http://user:{CANARY}@{}", proxy.address))),
        ("ca_file", pem("authority")),
        ("certificate_file", pem("client")),
        ("key_file", pem("client-key")),
        ("headers", map_node(vec![("X-Secret", text_node(CANARY))])),
    ];
    let (mut diagnostics, webhook) = (Diagnostics::default(), crate::sink::webhook::WEBHOOK.options.concat());
    let expand = |text: &str| Ok(text.to_owned());
    let options = options::read(&map_node(entries), "sink", &webhook, &expand, &mut diagnostics).expect("a map");
    let endpoint = endpoint(&options, "url", vec![], &contract::context().0, &mut diagnostics).expect("builds");
    let answer = endpoint.send(Method::POST, HeaderMap::new(), Bytes::from_static(b"{}")).await;
    assert_eq!(answer.map(|answer| answer.status.as_u16()).ok(), Some(200));
    let request = proxy.asked.lock().expect("not poisoned").remove(0);
    assert!(request.head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", target.port())), "{}", request.head);
    assert!(request.header("proxy-authorization").is_some_and(|login| login.starts_with("Basic ")), "{}", request.head);
    assert_eq!(request.header("x-secret"), None, "the destination's headers are none of the proxy's business");
    let (read, shown) = tokio::task::spawn_blocking(|| served.join()).await.expect("joined").expect("no panic");
    let read = String::from_utf8_lossy(&read);
    assert!(read.starts_with(&format!("POST /{CANARY} HTTP/1.1\r\n")) && read.contains("x-secret"), "{read}");
    assert!(shown.is_some() && !read.contains("proxy-authorization"), "{read}");
}

#[tokio::test]
async fn what_a_proxy_answers_has_its_outcome() {
    let echo = format!("wrong password {CANARY}").into_bytes();
    let cases = [
        ("407 Proxy Authentication Required", "http", Outcome::Misconfigured, "HTTP 407"),
        ("407 Proxy Authentication Required", "https", Outcome::Misconfigured, "the proxy refuses the login"),
        ("403 Forbidden", "http", Outcome::Misconfigured, "HTTP 403"),
        ("403 Forbidden", "https", Outcome::Retry, "connect failed"),
        ("502 Bad Gateway", "http", Outcome::Retry, "HTTP 502"),
        ("502 Bad Gateway", "https", Outcome::Retry, "connect failed"),
    ];
    for (answer, scheme, outcome, status) in cases {
        let proxy = Loopback::start(Reply::Http(answer, vec![], echo.clone())).await;
        let sink = webhook(vec![
            ("url", text_node(&format!("{scheme}://hooks.invalid/x"))),
            ("proxy", text_node(&format!("http://u:{CANARY}@{}", proxy.address))),
        ]);
        let report = attempt(&*sink).await;
        assert_eq!(
            (report.outcome, report.status.as_str()),
            (outcome, status),
            "{answer} {scheme}: {}",
            report.excerpt
        );
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let proxy = ("proxy", text_node(&format!("http://u:{CANARY}@{closed}")));
    let report = attempt(&*webhook(vec![url(), proxy])).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "connection refused"));
}

#[tokio::test]
async fn the_token_of_a_file_is_the_one_that_it_holds_now() {
    let server = Loopback::start(Reply::Echo("200 OK")).await;
    let (directory, path) = file(&format!("{CANARY}\n"));
    let sink = webhook(vec![("url", text_node(server.url("/").as_str())), ("bearer_token_file", path_node(&path))]);
    // `attempt` looks for the canary in what is kept of the echo.
    attempt(&*sink).await;
    let next = format!("{CANARY}.next");
    std::fs::write(directory.path().join("new"), &next).expect("written");
    std::fs::rename(directory.path().join("new"), &path).expect("renamed");
    attempt(&*sink).await;
    let sent: Vec<_> =
        server.received().iter().map(|request| request.header("authorization").map(str::to_owned)).collect();
    assert_eq!(sent, [Some(format!("Bearer {CANARY}")), Some(format!("Bearer {next}"))]);

    let too_long = "a".repeat(64 * 1024 + 1);
    for (content, part) in [("", "is empty"), ("a\nb", "no header can carry"), (too_long.as_str(), "is larger than")] {
        std::fs::write(&path, content).expect("written");
        let report = attempt(&*sink).await;
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Misconfigured, "no bearer token"), "{part}");
        assert!(report.excerpt.contains(part), "{}", report.excerpt);
    }
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(attempt(&*sink).await.outcome, Outcome::Misconfigured);
    std::fs::write(&path, "a".repeat(4096)).expect("written");
    assert_eq!(attempt(&*sink).await.outcome, Outcome::Delivered);
    assert_eq!(server.received().len(), 3, "without a token nothing goes out");
}

#[tokio::test]
async fn a_401_for_the_token_of_a_file_is_for_the_operator() {
    let server = Loopback::start(Reply::Echo("401 Unauthorized")).await;
    let (_directory, path) = file(CANARY);
    let sink = webhook(vec![("url", text_node(server.url("/").as_str())), ("bearer_token_file", path_node(&path))]);
    assert_eq!(attempt(&*sink).await.outcome, Outcome::Misconfigured);
}

#[test]
fn lists_and_single_scopes_are_taken() {
    let entries = |scopes| {
        vec![
            url(),
            ("oauth2_token_url", text_node("https://login.example.org/token")),
            ("oauth2_client_id", text_node("id")),
            ("oauth2_client_secret", text_node(CANARY)),
            ("oauth2_scopes", scopes),
        ]
    };
    webhook(entries(text_node("a")));
    let shown = format!("{:?}", webhook(entries(list_node(vec![text_node("a"), text_node("b")]))).kind());
    assert!(!shown.contains(CANARY));
}
