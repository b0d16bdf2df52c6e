//! Where keys come from, when they are asked for again, and that none of them is kept.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::sink::Sink;
use crate::sink::contract::{self, CANARY, Loopback, Reply, StoppedClock, attempt, map_node, text_node};

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

const QUEUE: (&str, &str) = ("queue_url", "https://sqs.eu-west-1.amazonaws.com/123456789012/alerts");
const SENT: &str = r#"{"MessageId":"1"}"#;

fn build(options: &[(&'static str, &str)], clock: &Arc<Hand>) -> Result<Box<dyn Sink>, String> {
    let mut context = contract::context().0;
    context.clock = clock.clone();
    let options = options.iter().map(|(name, value)| (*name, text_node(value))).collect();
    contract::build("sqs", options, &context)
}

fn keys_in(request: &contract::Received) -> (String, Option<String>) {
    let authorization = request.header("authorization").expect("signed");
    let key = authorization.split(['=', '/']).nth(1).expect("a credential").to_owned();
    (key, request.header("x-amz-security-token").map(str::to_owned))
}

fn granted(key: &str, ends_in_seconds: i64) -> Vec<u8> {
    let ends_at = (StoppedClock.now() + TimeDelta::seconds(ends_in_seconds)).to_rfc3339();
    format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
         <SessionToken>token/{CANARY}==</SessionToken><SecretAccessKey>{CANARY}</SecretAccessKey>\
         <Expiration>{ends_at}</Expiration><AccessKeyId>{key}</AccessKeyId>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
    .into_bytes()
}

fn ok(body: &[u8]) -> Reply {
    Reply::Http("200 OK", vec![], body.to_vec())
}

/// A sink with a role, its two servers behind it.
fn with_role(sqs: &Loopback, sts: &Loopback, token_file: &str, clock: &Arc<Hand>) -> Box<dyn Sink> {
    let (sqs, sts) = (sqs.url("/"), sts.url("/"));
    let options = [
        QUEUE,
        ("endpoint", sqs.as_str()),
        ("sts_endpoint", sts.as_str()),
        ("role_arn", "arn:aws:iam::123456789012:role/vigie"),
        ("web_identity_token_file", token_file),
    ];
    build(&options, clock).expect("builds")
}

#[tokio::test]
async fn keys_of_a_file_are_those_that_stand_there_now() {
    let server = Loopback::start(ok(SENT.as_bytes())).await;
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("credentials");
    let write = |key: &str, token: &str| {
        let text = format!(
            "# comment\n[default]\naws_access_key_id=OTHER\naws_secret_access_key=x\n\n[ soc ]\r\n\
             aws_access_key_id = {key}\naws_secret_access_key = {CANARY}\n{token}region = x\n[last]\naws_access_key_id=NO\n"
        );
        std::fs::write(&path, text).expect("written");
    };
    write("FIRST", "");
    let (endpoint, file) = (server.url("/"), path.display().to_string());
    let options = [QUEUE, ("endpoint", endpoint.as_str()), ("credentials_file", &file), ("profile", "soc")];
    let sink = build(&options, &Arc::default()).expect("builds");
    assert_eq!(attempt(&*sink).await.outcome, Outcome::Delivered);
    write("SECOND", "aws_session_token = abc\n");
    assert_eq!(attempt(&*sink).await.outcome, Outcome::Delivered);
    let keys: Vec<_> = server.received().iter().map(keys_in).collect();
    assert_eq!(keys, [("FIRST".into(), None), ("SECOND".into(), Some("abc".into()))]);
    std::fs::write(&path, "[soc]\naws_access_key_id = HALF\n").expect("written");
    let report = attempt(&*sink).await;
    assert_eq!(report.outcome, Outcome::Misconfigured, "{report:?}");
    std::fs::remove_file(&path).expect("removed");
    let report = attempt(&*sink).await;
    assert_eq!(
        (report.outcome, report.status.as_str()),
        (Outcome::Misconfigured, "the credentials file cannot be read")
    );
    assert_eq!(server.received().len(), 2);
}

#[tokio::test]
async fn keys_of_a_role_are_kept_until_five_minutes_before_their_end() {
    let (sqs, clock) = (Loopback::start(ok(SENT.as_bytes())).await, Arc::new(Hand::default()));
    let sts = Loopback::start(ok(&granted("ASIAROLE", 3_600))).await;
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "first.jwt\n").expect("written");
    let sink = with_role(&sqs, &sts, &token.path().display().to_string(), &clock);
    for (seconds, asked) in [(0, 1), (3_299, 1), (3_300, 2)] {
        clock.set(seconds);
        std::fs::write(token.path(), format!("token at {seconds}\n")).expect("written");
        assert_eq!(attempt(&*sink).await.outcome, Outcome::Delivered, "{seconds}");
        assert_eq!(sts.received().len(), asked, "{seconds}");
    }
    let request = &sts.received()[1];
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&request.body).into_owned().collect();
    let expected = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", "arn:aws:iam::123456789012:role/vigie"),
        ("RoleSessionName", "vigie"),
        ("WebIdentityToken", "token at 3300"),
    ];
    assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(request.header("authorization"), None, "the token is all that it is asked with");
    let expected = ("ASIAROLE".to_owned(), Some(format!("token/{CANARY}==")));
    assert!(sqs.received().iter().all(|request| keys_in(request) == expected));
}

#[tokio::test]
async fn one_asks_and_those_who_waited_share_what_came_of_it() {
    let (sqs, clock) = (Loopback::start(ok(SENT.as_bytes())).await, Arc::new(Hand::default()));
    let token = tempfile::NamedTempFile::new().expect("a file");
    let path = token.path().display().to_string();
    let sts = Loopback::start(ok(&granted("ASIAROLE", 3_600))).await;
    let sink = with_role(&sqs, &sts, &path, &clock);
    let all = futures_util::future::join_all((0..8).map(|_| attempt(&*sink))).await;
    assert!(all.iter().all(|report| report.outcome == Outcome::Delivered));
    assert_eq!((sts.received().len(), sqs.received().len()), (1, 8));

    let refused = format!("<Error><Code>AccessDenied</Code><Message>{CANARY} no</Message></Error>");
    let sts = Loopback::start(Reply::Http("403 Forbidden", vec![], refused.into())).await;
    let sink = with_role(&sqs, &sts, &path, &clock);
    let all = futures_util::future::join_all((0..8).map(|_| attempt(&*sink))).await;
    for report in all {
        assert_eq!(report.outcome, Outcome::Misconfigured);
        assert_eq!(report.status, "keys of the role: HTTP 403 AccessDenied");
    }
    assert_eq!((sts.received().len(), sqs.received().len()), (1, 8));
    clock.set(5);
    attempt(&*sink).await;
    assert_eq!(sts.received().len(), 2, "later it is asked again");
}

#[tokio::test]
async fn what_sts_answers_is_never_the_alerts_fault() {
    let sqs = Loopback::start(ok(SENT.as_bytes())).await;
    let token = tempfile::NamedTempFile::new().expect("a file");
    let path = token.path().display().to_string();
    let code = |code: &str| format!("<Error><Code>{code}</Code></Error>").into_bytes();
    for (status, body, expected) in [
        ("400 Bad Request", code("InvalidIdentityToken"), Outcome::Misconfigured),
        ("400 Bad Request", code("ExpiredTokenException"), Outcome::Misconfigured),
        ("400 Bad Request", code("ValidationError"), Outcome::Misconfigured),
        ("418 Teapot", Vec::new(), Outcome::Misconfigured),
        ("400 Bad Request", code("IDPCommunicationError"), Outcome::Retry),
        ("400 Bad Request", code("Throttling"), Outcome::Wait(None)),
        ("503 Busy", Vec::new(), Outcome::Retry),
        ("200 OK", b"<html>please log in</html>".to_vec(), Outcome::Retry),
        ("200 OK", granted("", 60), Outcome::Retry),
    ] {
        let sts = Loopback::start(Reply::Http(status, vec![], body)).await;
        let report = attempt(&*with_role(&sqs, &sts, &path, &Arc::default())).await;
        assert_eq!((report.outcome, report.excerpt.as_str()), (expected, ""), "{status}");
    }
    assert!(sqs.received().is_empty());
}

#[tokio::test]
async fn keys_that_end_soon_are_good_while_no_new_ones_are_to_be_had() {
    let (sqs, clock) = (Loopback::start(ok(SENT.as_bytes())).await, Arc::new(Hand::default()));
    let sts = Loopback::start(ok(&granted("ASIAROLE", 60))).await;
    let token = tempfile::NamedTempFile::new().expect("a file");
    let sink = with_role(&sqs, &sts, &token.path().display().to_string(), &clock);
    assert_eq!(attempt(&*sink).await.outcome, Outcome::Delivered);
    token.close().expect("removed");
    for (seconds, expected) in [(59, Outcome::Delivered), (60, Outcome::Misconfigured)] {
        clock.set(seconds);
        assert_eq!(attempt(&*sink).await.outcome, expected, "{seconds}");
    }
}

#[tokio::test]
async fn keys_that_ended_early_are_asked_for_again() {
    let expired = br#"{"__type":"com.amazon.coral.service#ExpiredTokenException","message":"expired"}"#;
    let sqs = Loopback::start(Reply::Http("403 Forbidden", vec![], expired.to_vec())).await;
    let sts = Loopback::start(ok(&granted("ASIAROLE", 3_600))).await;
    let token = tempfile::NamedTempFile::new().expect("a file");
    let sink = with_role(&sqs, &sts, &token.path().display().to_string(), &Arc::default());
    for _ in 0..2 {
        let report = attempt(&*sink).await;
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Misconfigured, "HTTP 403 ExpiredToken"));
    }
    assert_eq!(sts.received().len(), 2);

    // Those that were kept are no mistake of the operator's.
    let refused = Reply::Http("403 Forbidden", vec![], expired.to_vec());
    let sent = || ok(SENT.as_bytes());
    let sqs = Loopback::start(Reply::in_turn([sent(), refused, sent()])).await;
    let sink = with_role(&sqs, &sts, &token.path().display().to_string(), &Arc::default());
    for expected in [Outcome::Delivered, Outcome::Retry, Outcome::Delivered] {
        assert_eq!(attempt(&*sink).await.outcome, expected);
    }
    assert_eq!(sts.received().len(), 4);
}

#[tokio::test]
async fn what_a_refused_signature_repeats_is_not_kept() {
    let refused = format!("no ASIAROLE, {CANARY}, token/{CANARY}== here");
    let sqs = Loopback::start(Reply::Http("403 Forbidden", vec![], refused.into())).await;
    let sts = Loopback::start(ok(&granted("ASIAROLE", 3_600))).await;
    let token = tempfile::NamedTempFile::new().expect("a file");
    let sink = with_role(&sqs, &sts, &token.path().display().to_string(), &Arc::default());
    let report = attempt(&*sink).await;
    assert_eq!(report.outcome, Outcome::Misconfigured);
    assert_eq!(report.excerpt, "no [redacted], [redacted], [redacted] here");

    // What the operator sends beside it is not kept either, and STS does not hear of it.
    let sqs = Loopback::start(Reply::Echo("403 Forbidden")).await;
    let (queue, tokens) = (sqs.url("/"), sts.url("/"));
    let options = vec![
        (QUEUE.0, text_node(QUEUE.1)),
        ("endpoint", text_node(queue.as_str())),
        ("sts_endpoint", text_node(tokens.as_str())),
        ("role_arn", text_node("arn:aws:iam::123456789012:role/vigie")),
        ("web_identity_token_file", text_node(&token.path().display().to_string())),
        ("headers", map_node(vec![("A-Gateway", text_node("0pen"))])),
    ];
    let report = attempt(&*contract::build("sqs", options, &contract::context().0).expect("builds")).await;
    assert_eq!(sqs.received()[0].header("a-gateway"), Some("0pen"));
    assert!(report.excerpt.contains("a-gateway: [redacted]"), "{report:?}");
    assert_eq!(sts.received().iter().filter(|request| request.header("a-gateway").is_some()).count(), 0);
    let unsendable = build(
        &[QUEUE, ("access_key_id", "AKIDEXAMPLE"), ("secret_access_key", "x"), ("session_token", "a\nb")],
        &Arc::default(),
    );
    let report = attempt(&*unsendable.expect("builds")).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Misconfigured, "the keys are no header values"));
}

#[test]
fn keys_come_from_one_place_that_is_there() {
    let (id, secret) = (("access_key_id", "AKIDEXAMPLE"), ("secret_access_key", CANARY));
    let role = ("role_arn", "arn:aws:iam::123456789012:role/vigie");
    let missing = "/nonexistent/credentials";
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().display().to_string();
    let hidden = ("endpoint", "http://169.254.169.254/");
    let elsewhere = ("queue_url", "https://queue.example.org/1/alerts");
    let cases: [(&[(&'static str, &str)], &str); 13] = [
        (&[QUEUE], "E0474"),
        (&[QUEUE, id], "E0474"),
        (&[QUEUE, id, secret, ("credentials_file", &path)], "E0474"),
        (&[QUEUE, id, secret, role, ("web_identity_token_file", &path)], "E0474"),
        (&[QUEUE, role], "E0474"),
        (&[QUEUE, ("session_token", CANARY)], "E0474"),
        (&[QUEUE, ("credentials_file", missing)], "E0475"),
        (&[QUEUE, ("credentials_file", &path)], "E0475"),
        (&[QUEUE, role, ("web_identity_token_file", missing)], "E0475"),
        (&[elsewhere, id, secret], "E0473"),
        (&[QUEUE, ("region", "evil.example/"), id, secret], "E0473"),
        (&[QUEUE, id, secret, hidden], "E0421"),
        (&[QUEUE, role, ("web_identity_token_file", &path), ("sts_endpoint", "http://169.254.169.254/")], "E0421"),
    ];
    for (options, code) in cases {
        let told = build(options, &Arc::default()).err().expect("refused");
        assert!(told.contains(code), "{code}: {told}");
    }
    build(&[elsewhere, ("region", "eu-west-1"), id, secret], &Arc::default()).expect("with a region");
}

#[test]
fn a_region_is_found_where_aws_writes_it() {
    for (host, region) in [
        ("sqs.eu-west-1.amazonaws.com", Some("eu-west-1")),
        ("eu-west-1.queue.amazonaws.com", Some("eu-west-1")),
        ("sqs.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
        ("sqs-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
        ("sqs.eu-west-1.api.aws", Some("eu-west-1")),
        ("vpce-0a1b-2c3d.sqs.ap-southeast-2.vpce.amazonaws.com", Some("ap-southeast-2")),
        ("vpce-0a1b-2.sqs.ap-southeast-2.vpce.amazonaws.com", Some("ap-southeast-2")),
        ("queue.amazonaws.com", None),
        ("localhost", None),
    ] {
        assert_eq!(region_in(host).as_deref(), region, "{host}");
    }
    let public = |region: &str| public_url("sns", region).map(String::from);
    assert_eq!(public("eu-west-1").as_deref(), Some("https://sns.eu-west-1.amazonaws.com/"));
    assert_eq!(public("cn-north-1").as_deref(), Some("https://sns.cn-north-1.amazonaws.com.cn/"));
}
