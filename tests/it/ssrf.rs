//! Where alerts may never go: metadata and link-local addresses in every spelling, and wherever an answer points to.
//!
//! Names that resolve to such an address, and addresses that carry another, are shown at the guard itself
//! (`src/sink/http.rs`, `src/sink/http/guard.rs`); here it is the whole program that refuses.

use crate::api::Api;
use crate::program::{PATIENCE, Place, text};
use crate::receiver::{Answer, Receiver};

/// Hosts of a URL: 169.254.169.254 and its kin as a careless or hostile author could write them.
const REFUSED: &[&str] = &[
    "169.254.169.254",
    "169.254.169.254.",
    "169.254.169.254:80",
    "user:pass@169.254.169.254",
    "2852039166",
    "2852039166.",
    "0xa9fea9fe",
    "0XA9FEA9FE",
    "025177524776",
    "0251.0376.0251.0376",
    "0xa9.0xfe.0xa9.0xfe",
    "0xa9.254.0251.254",
    "169.254.43518",
    "169.16689662",
    "%31%36%39.254.169.254",
    "１６９.254.169.254",
    "①⑥⑨.254.169.254",
    "169。254。169。254",
    "169.254.0.1",
    "169.254.170.2",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "[::169.254.169.254]",
    "[::ffff:0:a9fe:a9fe]",
    "[64:ff9b::169.254.169.254]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:a9fe:a9fe::1]",
    "[2001:db8::5efe:a9fe:a9fe]",
    "[fe80::1]",
    "[FE80::A9FE:A9FE]",
    "[febf:ffff::1]",
    "[fd00:ec2::254]",
    "[fd00:ec2::23]",
    "[fd20:ce::254]",
    "100.100.100.200",
    "0x646464c8",
    "192.0.0.192",
    "168.63.129.16",
    "metadata.google.internal",
    "METADATA.Google.Internal.",
    "metadata",
    "metadata.goog",
    "0.0.0.0",
    "0",
    "[::]",
    "224.0.0.1",
    "255.255.255.255",
];
/// Every kind of sink that speaks HTTP: its option with the URL, and what else it must have. Last, what all of them share.
pub(crate) const HTTP_SINKS: &[(&str, &str, &str)] = &[
    ("webhook", "url", ""),
    ("slack", "webhook_url", ""),
    ("teams", "webhook_url", ""),
    ("discord", "webhook_url", ""),
    ("mattermost", "webhook_url", ""),
    ("google_chat", "webhook_url", ""),
    ("slack_bot", "url", "      token: x\n      channel: x\n"),
    ("telegram", "api_url", "      bot_token: x\n      chat_id: x\n"),
    ("pagerduty", "url", "      routing_key: 0123456789abcdefABCDEF0123456789\n"),
    ("splunk_hec", "url", "      token: x\n"),
    ("elasticsearch", "url", ""),
    ("jira", "url", "      project: SEC\n      token: x\n"),
    ("servicenow", "url", "      token: x\n"),
    ("thehive", "url", "      token: x\n"),
    ("tines", "url", ""),
    ("alertmanager", "urls", ""),
    ("sqs", "queue_url", "      region: eu-west-1\n      access_key_id: x\n      secret_access_key: x\n"),
    (
        "sns",
        "endpoint",
        "      topic_arn: arn:aws:sns:eu-west-1:123456789012:alerts\n      access_key_id: x\n      secret_access_key: x\n",
    ),
    (
        "webhook",
        "oauth2_token_url",
        "      url: 'https://x.example'\n      oauth2_client_id: x\n      oauth2_client_secret: x\n",
    ),
];
/// What is no URL at all is refused as that.
const MALFORMED: &[&str] = &["169.254.169.254.0.1", "[fe80::1%25eth0]", "169.254.169.254%00.example.org"];

#[tokio::test]
async fn check_refuses_metadata_and_link_local_addresses_in_every_spelling() {
    let api = Api::start().await;
    let place = Place::new();
    let mut sinks = String::from("sinks:\n");
    let mut expected = Vec::new();
    let mut add = |host: &str, code: &str| {
        for (kind, option, more) in HTTP_SINKS {
            let name = format!("s{}", expected.len());
            let scheme = if expected.len().is_multiple_of(2) { "http" } else { "https" };
            sinks.push_str(&format!(
                "  {name}:\n    {kind}:\n      {option}: \"{scheme}://{host}/latest/meta-data\"\n{more}"
            ));
            expected.push((host.to_owned(), code.to_owned()));
        }
    };
    REFUSED.iter().for_each(|host| add(host, "E0421"));
    MALFORMED.iter().for_each(|host| add(host, "E0403"));
    sinks.push_str(
        "  mail:\n    email:\n      smtp: \"smtps://[fe80::1]\"\n      from: a@example.org\n      to: b@example.org\n",
    );
    sinks.push_str("  fine:\n    webhook:\n      url: \"https://hooks.example.org/x\"\n");
    place.configure(&api, &sinks);

    let output = place.run(&["check", "-c", "vigie.yaml", "-o", "json"]).await;
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("a list of findings");
    let (configuration, mut wrong) = (std::fs::read_to_string(place.file("vigie.yaml")).expect("ours"), Vec::new());
    for (index, (host, code)) in expected.iter().enumerate() {
        let line = configuration.lines().position(|line| line == format!("  s{index}:")).expect("written") + 3;
        let found = findings.iter().find(|finding| finding["span"]["line"] == line);
        if found.is_none_or(|finding| finding["code"] != code.as_str()) {
            wrong.push(format!("{host}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(findings.len(), expected.len() + 1, "each once, the mail relay too, and the good one not");
    println!(
        "{} spellings refused at {} kinds of sink, in one run with {} findings",
        REFUSED.len(),
        HTTP_SINKS.len(),
        findings.len()
    );

    let run = place.run(&["run", "-c", "vigie.yaml", "--once"]).await;
    assert_eq!(run.status.code(), Some(78), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("E0421") && api.requests() == 0, "nothing was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_points_elsewhere_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let (api, here, elsewhere) = (Api::start().await, Receiver::start().await, Receiver::start().await);
        here.answer(Answer::Status(status, vec![("location", elsewhere.url.clone())], String::new()));
        let place = Place::new();
        place.configure(&api, &format!("sinks:\n  here: {{webhook: {{url: \"{}\"}}}}\n", here.url));
        api.happen("APP_CREATE");
        let output = place.run(&["run", "-c", "vigie.yaml", "--once"]).await;
        assert_eq!(output.status.code(), Some(75), "{status}: it still waits\n{}", text(&output.stderr));
        assert_eq!((here.received().len(), elsewhere.received().len()), (1, 0), "{status}");

        let test = place.run(&["sink", "test", "here", "-c", "vigie.yaml"]).await;
        assert_ne!(test.status.code(), Some(0), "{status}: a redirect is no success");
        assert!(!elsewhere.wait(std::time::Duration::from_millis(50), |received| !received.is_empty()).await);
        assert!(here.wait(PATIENCE, |received| received.len() == 2).await);
    }
}
