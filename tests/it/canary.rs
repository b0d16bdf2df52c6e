//! A canary in the place of every secret, everything that can go wrong with it, and no output that holds one.
//!
//! The destinations and the API repeat aloud what they are sent, so that it is our redaction that is seen and not their
//! discretion. Short words are used, because long random ones are taken out for looking like a token.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use vigie::store::Store;
use vigie::store::sqlite::{SqliteOptions, SqliteStore};

use crate::api::{Api, KEY, SECRET};
use crate::program::{PATIENCE, Place, closed_port, page, text, until};
use crate::receiver::{Answer, Receiver};
use crate::relay::Relay;

const SIGNING: &str = "whsec_Y2FuYXJ5LXNpZ25pbmcta2V5LTM0LWJ5dGVz";
const BEARER: &str = "canary-bearer-4";
const HEADER: &str = "canary-header-5";
const SLACK_PATH: &str = "canary-slack-6";
const QUERY: &str = "canary-query-7";
const MAIL: &str = "canary-mail-8";
const MAIL_USER: &str = "vigie-mailer";
/// Of 32 letters and digits, as such keys are.
const PAGER: &str = "canarypagerkey9canarypagerkey9xy";
const BOT: &str = "9:canary-bot-9";
const CLIENT: &str = "canary-client-10";
const TOKEN: &str = "canary-token-11";
const PROXY: &str = "canary-proxy-12";
const FILE: &str = "canary-file-13";
/// Statuses with which each kind of sink is tried that has a secret of its own kind.
const TRIED: [&str; 2] = ["rejected", "fine"];

/// Every spelling under which a secret could come out.
fn canaries() -> Vec<String> {
    let encoded = |text: String| STANDARD.encode(text);
    let mut spellings: Vec<String> =
        [SECRET, SIGNING, BEARER, HEADER, SLACK_PATH, QUERY, MAIL, PAGER, BOT, CLIENT, TOKEN, PROXY, FILE]
            .iter()
            .map(|&word| word.to_owned())
            .collect();
    spellings.extend([
        SIGNING.trim_start_matches("whsec_").to_owned(),
        "canary-signing-key".into(),
        encoded(format!("{KEY}:{SECRET}")),
        encoded(SECRET.into()),
        encoded(MAIL.into()),
        encoded(format!("vigie:{CLIENT}")),
        encoded(format!("vigie:{PROXY}")),
        encoded(format!("\0{MAIL_USER}\0{MAIL}")),
    ]);
    spellings
}

fn assert_none(what: &str, said: &str) {
    assert!(!said.is_empty(), "{what} is empty");
    for canary in canaries() {
        if let Some(at) = said.find(&canary) {
            let around: String = said.chars().skip(said[..at].chars().count().saturating_sub(200)).take(400).collect();
            panic!("{what} holds {canary}: {around}");
        }
    }
}

struct Scene {
    api: Api,
    place: Place,
    port: u16,
    echoes: BTreeMap<&'static str, Receiver>,
    tokens: Receiver,
    relay: Relay,
}

/// What each echoing destination answers with.
const STATUSES: &[(&str, u16)] = &[
    ("broken", 500),
    ("unknown", 401),
    ("forbidden", 403),
    ("rejected", 400),
    ("gone", 410),
    ("limited", 429),
    ("fine", 200),
];

impl Scene {
    async fn new() -> Self {
        let (api, relay, mut echoes) = (Api::start().await, Relay::start(true).await, BTreeMap::new());
        for (name, status) in STATUSES {
            let receiver = Receiver::start().await;
            receiver.answer(Answer::Echo(*status));
            echoes.insert(*name, receiver);
        }
        let tokens = Receiver::start().await;
        tokens.answer(Answer::Status(
            200,
            Vec::new(),
            format!("{{\"access_token\": \"{TOKEN}\", \"expires_in\": 90}}"),
        ));
        let scene = Self { api, place: Place::new(), port: closed_port(), echoes, tokens, relay };
        scene.place.write("token", FILE);
        scene.place.configure(&scene.api, &scene.sinks());
        scene
    }

    fn sinks(&self) -> String {
        let options = |url: &str| {
            let headers = format!("{{Authorization: \"Bearer {BEARER}\", X-Key: {HEADER}}}");
            format!("{{webhook: {{url: \"{url}?key={QUERY}\", secret: \"{SIGNING}\", headers: {headers}}}}}")
        };
        let mut sinks = String::from("sinks:\n");
        for (name, receiver) in &self.echoes {
            sinks.push_str(&format!("  {name}: {}\n", options(&receiver.url)));
            let slack = receiver.url.replace("/hook", &format!("/services/T0/B0/{SLACK_PATH}"));
            sinks.push_str(&format!("  slack-{name}: {{slack: {{webhook_url: \"{slack}\"}}}}\n"));
        }
        for name in TRIED {
            let url = &self.echoes[name].url;
            sinks.push_str(&format!(
                "  pager-{name}: {{pagerduty: {{routing_key: {PAGER}, url: \"{url}\", rate: 100/s}}}}\n"
            ));
            let bot = format!("bot_token: \"{BOT}\", chat_id: \"-1\", api_url: \"{url}\", rate: 100/s");
            sinks.push_str(&format!("  bot-{name}: {{telegram: {{{bot}}}}}\n"));
        }
        sinks.push_str(&self.with_tokens());
        let tls = self.echoes["fine"].url.replace("http://", "https://");
        let refused = format!("http://127.0.0.1:{}/{SLACK_PATH}", closed_port());
        sinks.push_str(&format!("  tls: {}\n  refused: {}\n", options(&tls), options(&refused)));
        let from_to = "from: vigie@example.org, to: soc@example.org";
        for (name, port) in [("mail", self.relay.port), ("mail-refused", closed_port())] {
            sinks.push_str(&format!(
                "  {name}: {{email: {{smtp: \"smtp://{MAIL_USER}:{MAIL}@127.0.0.1:{port}\", {from_to}}}}}\n"
            ));
        }
        sinks.push_str("  out: {stdout: {}}\n");
        sinks + &format!("server: {{listen: \"127.0.0.1:{}\"}}\n", self.port)
    }

    /// Keys that are fetched, read, or meant for what stands between.
    fn with_tokens(&self) -> String {
        let mut sinks = String::new();
        let client =
            |url: &str| format!("oauth2_token_url: \"{url}\", oauth2_client_id: vigie, oauth2_client_secret: {CLIENT}");
        let url = &self.echoes["rejected"].url;
        let at = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let proxy = format!("http://vigie:{PROXY}@{at}");
        for (name, options) in [
            ("token", format!("url: \"{url}\", {}", client(&self.tokens.url))),
            ("login", format!("url: \"{url}\", {}, oauth2_client_auth: post", client(url))),
            ("basic", format!("url: \"{url}\", {}", client(url))),
            ("file", format!("url: \"{url}\", bearer_token_file: token")),
            ("proxy", format!("url: \"http://hooks.invalid/{QUERY}\", proxy: \"{proxy}\"")),
            ("tunnel", format!("url: \"https://hooks.invalid/{QUERY}\", proxy: \"{proxy}\"")),
        ] {
            sinks.push_str(&format!("  {name}: {{webhook: {{{options}}}}}\n"));
        }
        sinks
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = ["tls", "refused", "mail", "mail-refused"].map(str::to_owned).to_vec();
        names.extend(self.echoes.keys().flat_map(|name| [(*name).to_owned(), format!("slack-{name}")]));
        names.extend(TRIED.iter().flat_map(|name| [format!("pager-{name}"), format!("bot-{name}")]));
        names.extend(["token", "login", "basic", "file", "proxy", "tunnel"].map(str::to_owned));
        names
    }

    /// Runs a verb to its end and looks through what it said.
    async fn check(&self, words: &[&str]) -> String {
        let output = self.place.run(words).await;
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_none(&format!("{words:?}"), &format!("{said}."));
        assert_ne!(output.status.code(), Some(101), "{words:?}: {said}");
        text(&output.stdout)
    }
}

/// An API that repeats the request, with the log-in in it, as HTML and as a problem.
async fn echoing_api(scene: &Scene) {
    let mirror = Receiver::start().await;
    let authorization = STANDARD.encode(format!("{KEY}:{SECRET}"));
    let problem = format!("{{\"title\": \"{SECRET}\", \"detail\": \"Basic {authorization}\"}}");
    let configuration = std::fs::read_to_string(scene.place.file("vigie.yaml")).expect("ours");
    scene.place.write("mirror.yaml", &configuration.replace(&scene.api.base_url, &mirror.url));
    let mut answers: Vec<Answer> = [400, 401, 403, 429, 500, 200].map(Answer::Echo).to_vec();
    answers.extend([400, 401, 403, 500].map(|status| Answer::Status(status, Vec::new(), problem.clone())));
    for answer in answers {
        mirror.answer(answer);
        scene.check(&["events", "list", "-c", "mirror.yaml", "-vv"]).await;
    }
    mirror.answer(Answer::Status(401, Vec::new(), problem));
    scene.check(&["run", "--once", "-c", "mirror.yaml", "-vv", "--log-format", "json"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_output_holds_a_secret() {
    let scene = Scene::new().await;
    let place = &scene.place;
    for format in ["text", "json"] {
        let words = ["run", "-c", "vigie.yaml", "-vv", "--log-format", format];
        let process = place.start(&words);
        for _ in 0..3 {
            scene.api.happen("APP_CREATE");
        }
        assert!(scene.echoes["fine"].wait(PATIENCE, |received| received.len() >= 3).await, "{}", place.log());
        let store = SqliteStore::open(&place.file("state"), &SqliteOptions::tool()).expect("the daemon made it");
        for name in scene.names() {
            let filter = vigie::store::archive::DeliveryFilter { sink: Some(name.clone()), ..Default::default() };
            until("each sink was tried", async || {
                let rows = store.deliveries(&filter).await.expect("readable");
                rows.iter().any(|row| row.attempts > 0) && store.queue(&name).await.is_ok()
            })
            .await;
        }
        for path in ["/healthz", "/readyz", "/metrics"] {
            let mut said = None;
            until("the console answers", async || {
                said = page(scene.port, path).await;
                said.is_some()
            })
            .await;
            assert_none(path, &said.unwrap_or_default().1);
        }
        scene.api.set_fault(vigie_sim::Fault::named("401"));
        let asked = scene.api.requests();
        until("it met a refusal", async || scene.api.requests() > asked).await;
        scene.api.set_fault(None);
        assert_eq!(process.end("TERM").await.code(), Some(0), "{}", place.log());
    }
    assert_none("the log", &place.log());
    let out = std::fs::read_to_string(place.file("stdout.log")).expect("written");
    assert_none("stdout", &out);
    echoing_api(&scene).await;

    let deliveries = scene.check(&["deliveries", "list", "-c", "vigie.yaml", "-o", "json", "--limit", "1000"]).await;
    let deliveries: Vec<Value> = serde_json::from_str(&deliveries).expect("JSON");
    let mut attempts = 0;
    for delivery in &deliveries {
        let id = delivery["delivery_id"].as_str().expect("an id");
        let shown = scene.check(&["deliveries", "show", id, "-c", "vigie.yaml", "-o", "json"]).await;
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        attempts += shown["log"].as_array().map_or(0, Vec::len);
    }
    let alerts = scene.check(&["alerts", "list", "-c", "vigie.yaml", "-o", "json"]).await;
    for alert in serde_json::from_str::<Vec<Value>>(&alerts).expect("JSON") {
        scene.check(&["alerts", "show", alert["alert"]["alert_id"].as_str().expect("an id"), "-c", "vigie.yaml"]).await;
    }
    for name in scene.names() {
        scene.check(&["sink", "test", &name, "-c", "vigie.yaml", "-vv"]).await;
        scene.check(&["sink", "test", &name, "-c", "vigie.yaml", "--render-only"]).await;
    }
    for words in [vec!["check", "-c", "vigie.yaml"], vec!["check", "-c", "vigie.yaml", "-o", "json"]] {
        scene.check(&words).await;
    }
    assert!(attempts > 20, "{attempts}");
    println!("{} spellings of 7 secrets looked for; {attempts} attempts in the ledger", canaries().len());
}

#[tokio::test]
async fn a_mistake_beside_a_secret_is_shown_without_it() {
    let scene = Scene::new().await;
    let good = std::fs::read_to_string(scene.place.file("vigie.yaml")).expect("ours");
    let mistakes = [
        good.replace("secret: \"whsec_", "secrett: \"whsec_"),
        good.replace("webhook_url: \"http://", "webhook_url: \"htp://"),
        good.replace("webhook_url: \"http://127.0.0.1", "webhook_url: \"http://169.254.169.254"),
        good.replace("headers: {", "bogus: 1, headers: {"),
        good.replace("from: vigie@example.org", "from: nobody"),
        good.replace("smtp://", "smtps://").replace("from: ", "form: "),
        good.replace("api_key: ", "api_kee: "),
        good.replace("poll_interval: 200ms", "poll_interval: soon"),
        good.replace("start: 1h}}\n", &format!("start: soon}}}} # until May: {SECRET}: {HEADER}\n")),
        good.replace("sinks:\n", &format!("sinks: # {SIGNING} \"{BEARER}\n  stray: # {QUERY}\n")),
        good.replace("rules: [rules/]", &format!("rules: [rules/, nowhere/] # '{MAIL}' {SLACK_PATH}")),
        good.replace("sinks:\n", &format!("sinkz: [ # {SECRET}: {HEADER}\nsinks:\n")),
        good.replace("X-Key: ", "\"X Key\": "),
        good.replace(SIGNING, "whsec_canary-signing-key"),
        good.replace("whsec_", "whsec-"),
        good.replace("{webhook: {", "{webhok: {"),
        good.replace("oauth2_client_secret: ", "oauth2_client_secrt: "),
        good.replace("oauth2_client_id: ", "bearer_token_file: token, oauth2_client_id: "),
        good.replace("proxy: \"http://", "proxy: \"htp://"),
        good.replace("proxy: \"http://", "prxy: \"http://"),
        good.replace(&format!("{PROXY}@127.0.0.1"), &format!("{PROXY}@169.254.169.254")),
        format!("{good}  : : ]\n"),
        good.replace("api_secret: canary", "api_secret: [canary").replace("poll_interval", "]poll_interval"),
    ];
    for (index, mistake) in mistakes.iter().enumerate() {
        assert_ne!(*mistake, good, "case {index} changes something");
        scene.place.write("bad.yaml", mistake);
        for form in ["human", "json"] {
            let output = scene.place.run(&["check", "-c", "bad.yaml", "-o", form]).await;
            assert_eq!(output.status.code(), Some(78), "case {index}: {}", text(&output.stderr));
            assert_none(&format!("case {index} as {form}"), &(text(&output.stdout) + &text(&output.stderr)));
        }
    }
    println!("{} mistakes beside secrets", mistakes.len());
}
