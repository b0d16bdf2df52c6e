//! `elasticsearch`: an alert as a document of Elasticsearch or OpenSearch, by Elastic Common Schema.
//!
//! The delivery's id is the document's, and a document is only ever created: one that is there already was delivered. What
//! is answered about the document decides, never that the request was understood. The index and what it logs in with are
//! put in when it is sent, for the operator may mend them while alerts wait.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;

use super::bound::{Bound, Most, Unit};
use super::format::{Format, inert_json};
use super::http::answer::Answer;
use super::http::login::{self, API_KEY, PASSWORD, USER};
use super::http::{Endpoint, TRANSPORT};
use super::probe::{Probe, Question, Verdict};
use super::text::alert_text_within;
use super::update::{CLOSING, UPDATES, Update};
use super::{
    AttemptReport, BuildContext, Delivery, Form, Outcome, RenderContext, RenderError, RetryProfile, Sink, SinkKind,
    burst, rate,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;
use crate::secret::SinkUrl;

/// As the configuration knows it.
pub const ELASTICSEARCH: SinkKind = SinkKind {
    kind: "elasticsearch",
    example: "siem:\n  elasticsearch:\n    url: https://search.example.org:9200\n    api_key: ${ELASTIC_API_KEY}\n",
    bounds: &[Bound { what: "document", most: Most::Option("max_document"), unit: Unit::Bytes, used: <[u8]>::len }],
    options: &[
        &[
            OptionSpec {
                name: "url",
                kind: OptionKind::Url(&["https", "http"]),
                presence: Presence::Required,
                help: "the cluster without its path, such as https://search.example.org:9200; OpenSearch as well",
            },
            OptionSpec {
                name: "index",
                kind: OptionKind::Text,
                presence: Presence::Default("vigie-alerts"),
                help: "index, alias or data stream to write to, such as logs-vigie.alert-default",
            },
            API_KEY,
            USER,
            PASSWORD,
            OptionSpec {
                name: "max_document",
                kind: OptionKind::Size(4 << 10, 10 << 20),
                presence: Presence::Default("1MiB"),
                help: "beyond this the raw event is left out; a cluster takes 100 MB, a proxy before it often 1 MiB",
            },
            UPDATES,
            CLOSING,
            rate(Presence::Optional),
            burst("1"),
        ],
        TRANSPORT,
    ],
    build,
};

/// Elasticsearch's reference: the name of an index, in bytes.
const MAX_INDEX_BYTES: usize = 255;
/// What the name of an index never holds, besides capital letters.
const NOT_IN_AN_INDEX: &str = "\\/*?\"<>| ,#:";
/// Longest message of a plain document: a person reads no more, and no index refuses it.
const MAX_PLAIN_CHARS: usize = 8_000;
/// What is left of a document in its plain form: fields whose kinds no event decides.
const PLAIN: [&str; 5] = ["@timestamp", "ecs", "event", "rule", "tags"];
/// Kinds of refusal that are about the document, whatever their words.
const KINDS_DOCUMENT: &[&str] = &[
    "document_parsing_exception",
    "mapper_parsing_exception",
    "max_bytes_length_exceeded_exception",
    "strict_dynamic_mapping_exception",
];
/// What an `illegal_argument_exception` says when a field of the document is to blame: the same kind tells of aliases,
/// pipelines and limits of the cluster.
const WORDS_DOCUMENT: &[&str] = &[
    "Limit of total fields",
    "Limit of mapping depth",
    "Limit of nested",
    "cannot change field",
    "field name cannot",
    "immense term",
    "mapper [",
    "object field starting or ending with",
    "object mapping",
    // An event that is older than what a time series still takes.
    "outside of ranges of currently writable indices",
];

/// The sink.
struct ElasticsearchSink {
    endpoint: Endpoint,
    index: String,
    max_document_bytes: usize,
}

fn build(
    options: &Options,
    name: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    let index = options.text("index")?.to_owned();
    if !is_index(&index) {
        let message = format!("sink `{name}`: `index` is no name of an index");
        let hint = "lower case, without spaces, wildcards and date formulas, such as vigie-alerts";
        diagnostics.error("E0463", options.span_of("index"), message, Some(hint.into()));
        return None;
    }
    let mut url = options.url("url")?.clone();
    url.set_path(&format!("{}/_bulk", url.path().trim_end_matches('/')));
    let endpoint = login::endpoint_at(SinkUrl::new(url), options, "url", Vec::new(), context, diagnostics)?;
    let max_document_bytes = usize::try_from(options.integer("max_document")?).unwrap_or(usize::MAX);
    Some(Box::new(ElasticsearchSink { endpoint, index, max_document_bytes }))
}

fn is_index(name: &str) -> bool {
    let is_named = !name.is_empty() && !name.starts_with(['-', '_', '+']) && name.len() <= MAX_INDEX_BYTES;
    is_named
        && !name.chars().any(|c| c.is_uppercase() || c.is_control() || NOT_IN_AN_INDEX.contains(c))
        && !matches!(name, "." | "..")
}

impl ElasticsearchSink {
    async fn attempt(&self, delivery: &Delivery) -> AttemptReport {
        let ndjson = HeaderValue::from_static("application/x-ndjson");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, ndjson)]);
        let action = json!({"create": {"_index": self.index, "_id": delivery.delivery_id}}).to_string();
        let body = [action.as_bytes(), b"\n", &delivery.body, b"\n"].concat();
        match self.endpoint.send(Method::POST, headers, Bytes::from(body)).await {
            Ok(answer) => {
                let (outcome, status) = judged(&answer, &delivery.delivery_id);
                let report = self.endpoint.report(&answer, outcome);
                match status {
                    Some(status) => AttemptReport { status: format!("{}, document {status}", report.status), ..report },
                    None => report,
                }
            }
            Err(report) => report,
        }
    }
}

impl Sink for ElasticsearchSink {
    fn kind(&self) -> &'static str {
        ELASTICSEARCH.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let document = Format::Ecs.alert(alert, context, self.max_document_bytes)?;
        if context.form == Form::Full { Ok(document) } else { plain(&document, alert, context) }
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        Format::Ecs.update(update, context)
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.attempt(delivery))
    }

    fn probe(&self) -> Probe<'_> {
        Probe::Asks(Box::pin(async {
            let (own, shows) = ("_bulk", "it knows who we are");
            let who = Question::get("_security/_authenticate", shows, (own, "_security/_authenticate"));
            let who = who.ask(&self.endpoint, HeaderMap::new()).await;
            if who.verdict() != Verdict::Untold {
                return vec![who];
            }
            // OpenSearch has no such question, nor has a cluster without security.
            let root = Question::get("GET /", "the cluster answers, and asks for no other log-in", (own, ""));
            vec![root.ask(&self.endpoint, HeaderMap::new()).await]
        }))
    }
}

impl std::fmt::Debug for ElasticsearchSink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ElasticsearchSink").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A document that an index takes whose fields are of other kinds than the schema's: the alert as text, and little more.
fn plain(lean: &[u8], alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
    let mut document: Value = serde_json::from_slice(lean).map_err(|error| RenderError(error.to_string()))?;
    if let Some(members) = document.as_object_mut() {
        members.retain(|name, _| PLAIN.contains(&name.as_str()));
    }
    let text = alert_text_within(alert, context.delivery_id, |text| text.chars().count() <= MAX_PLAIN_CHARS);
    document["message"] = text.chars().take(MAX_PLAIN_CHARS).collect::<String>().into();
    Ok(inert_json(&document.to_string()).into_bytes())
}

/// The answer to a request with one action.
#[derive(Deserialize)]
struct Bulk {
    errors: bool,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: Created,
}

/// What became of the document.
#[derive(Deserialize)]
struct Created {
    #[serde(rename = "_id")]
    id: String,
    status: u16,
    error: Option<Refusal>,
}

/// An answer that refuses the whole request.
#[derive(Deserialize)]
struct Refused {
    error: Refusal,
}

#[derive(Deserialize)]
struct Refusal {
    r#type: String,
    #[serde(default)]
    reason: Option<String>,
}

/// What the answer means for the document, and the document's own status where it has one.
fn judged(answer: &Answer, delivery_id: &str) -> (Outcome, Option<u16>) {
    if !answer.status.is_success() {
        let refusal = serde_json::from_slice::<Refused>(&answer.body).ok().map(|refused| refused.error);
        return (refused(answer, answer.status.as_u16(), refusal.as_ref()), None);
    }
    let bulk = serde_json::from_slice::<Bulk>(&answer.body).ok();
    let (errors, items) = bulk.map(|bulk| (bulk.errors, bulk.items)).unwrap_or_default();
    // A proxy's page, a cut answer, or one to something else.
    let Some(Item { create }) = items.into_iter().find(|item| item.create.id == delivery_id) else {
        return (Outcome::Retry, None);
    };
    let outcome = match create.status {
        200..=299 if !errors && create.error.is_none() => answer.outcome(),
        200..=299 => Outcome::Retry,
        // There already: an earlier attempt, whose answer was lost.
        409 => Outcome::Delivered,
        status => refused(answer, status, create.error.as_ref()),
    };
    (outcome, Some(create.status))
}

/// The outcome of a refusal with this status, of the document or of the whole request.
fn refused(answer: &Answer, status: u16, refusal: Option<&Refusal>) -> Outcome {
    let kind = refusal.map(|refusal| refusal.r#type.as_str()).unwrap_or_default();
    let reason = refusal.and_then(|refusal| refusal.reason.as_deref()).unwrap_or_default();
    match (status, kind) {
        (429, _) => Outcome::Wait(answer.pause()),
        // A full disk or a cluster under repair: it comes back by itself.
        (403, "cluster_block_exception") => Outcome::Retry,
        (400, "index_closed_exception" | "invalid_index_name_exception") => Outcome::Misconfigured,
        (400, "illegal_argument_exception") if reason.contains("no write index") => Outcome::Misconfigured,
        (400, kind) if answer.status.is_success() => match kind {
            "illegal_argument_exception" if WORDS_DOCUMENT.iter().any(|words| reason.contains(words)) => {
                Outcome::Degrade
            }
            kind if KINDS_DOCUMENT.contains(&kind) => Outcome::Degrade,
            // Shards, pipelines, aliases: the cluster's, and no other form of the document would be taken either.
            _ => Outcome::Misconfigured,
        },
        (401 | 403 | 404, _) => Outcome::Misconfigured,
        (413, _) => Outcome::Degrade,
        (500..=599, _) if answer.status.is_success() => Outcome::Retry,
        _ if answer.status.is_success() => Outcome::Dead,
        _ => answer.outcome_unless(&[]),
    }
}

#[cfg(test)]
mod tests {
    use url::Url;
    use vigie_engine::text::{Untrusted, is_unsafe};

    use super::super::delivery_id;
    use super::super::update::Told;
    use super::*;
    use crate::sink::contract::{
        self, CANARY, HOSTILE, Loopback, Reply, alert_titled, attempt, delivery, hold, make_hostile, make_long,
        stateful_alert, text_node, update_of,
    };

    fn make(url: &Url, more: &[(&'static str, &str)], context: &BuildContext) -> Box<dyn Sink> {
        let mut options = vec![("url", text_node(url.as_str())), ("api_key", text_node(CANARY))];
        options.extend(more.iter().map(|(name, value)| (*name, text_node(value))));
        contract::build("elasticsearch", options, context).expect("builds")
    }

    fn sink(more: &[(&'static str, &str)]) -> Box<dyn Sink> {
        make(&Url::parse("https://search.example.org:9200").expect("valid"), more, &contract::context().0)
    }

    /// The delivery of every test.
    fn id() -> String {
        delivery_id(&alert_titled("t").alert_id, "test")
    }

    fn bulk(errors: bool, item: Value) -> Vec<u8> {
        let mut created = json!({"_index": "vigie-alerts", "_id": id()});
        created.as_object_mut().expect("a map").extend(item.as_object().expect("a map").clone());
        json!({"took": 3, "errors": errors, "items": [{"create": created}]}).to_string().into_bytes()
    }

    fn yes() -> Vec<u8> {
        bulk(false, json!({"status": 201, "result": "created"}))
    }

    async fn judged_as(status: &'static str, body: Vec<u8>) -> AttemptReport {
        let server = Loopback::start(Reply::Http(status, vec![], body)).await;
        attempt(&*make(&server.url("/"), &[], &contract::context().0)).await
    }

    #[tokio::test]
    async fn holds_the_contract() {
        hold(&|url, context| make(&url, &[], context), &yes(), Outcome::Misconfigured).await;
    }

    #[tokio::test]
    async fn what_became_of_the_document_decides() {
        let error = |kind: &str, reason: &str| json!({"type": kind, "reason": reason});
        for (status, kind, reason, expected) in [
            (409, "version_conflict_engine_exception", "document already exists", Outcome::Delivered),
            (429, "es_rejected_execution_exception", "queue capacity", Outcome::Wait(None)),
            (429, "cluster_block_exception", "disk usage exceeded flood-stage watermark", Outcome::Wait(None)),
            (400, "mapper_parsing_exception", "object mapping for [labels]", Outcome::Degrade),
            (400, "document_parsing_exception", "failed to parse", Outcome::Degrade),
            (400, "illegal_argument_exception", "Limit of total fields [1000] has been exceeded", Outcome::Degrade),
            (
                400,
                "illegal_argument_exception",
                "mapper [a.b] cannot be changed from type [long] to [text]",
                Outcome::Degrade,
            ),
            (400, "illegal_argument_exception", "Document contains at least one immense term", Outcome::Degrade),
            (400, "strict_dynamic_mapping_exception", "mapping set to strict", Outcome::Degrade),
            (400, "illegal_argument_exception", "no write index is defined for alias [a]", Outcome::Misconfigured),
            (400, "illegal_argument_exception", "pipeline with id [x] does not exist", Outcome::Misconfigured),
            (400, "validation_exception", "this action would add [2] shards", Outcome::Misconfigured),
            (400, "some_new_exception", "r", Outcome::Misconfigured),
            (400, "index_closed_exception", "closed", Outcome::Misconfigured),
            (401, "security_exception", "missing credentials", Outcome::Misconfigured),
            (403, "security_exception", "action is unauthorized", Outcome::Misconfigured),
            (403, "cluster_block_exception", "index read-only / allow delete (api)", Outcome::Retry),
            (404, "index_not_found_exception", "no such index", Outcome::Misconfigured),
            (413, "x", "too large", Outcome::Degrade),
            (500, "x", "y", Outcome::Retry),
            (503, "unavailable_shards_exception", "primary shard is not active", Outcome::Retry),
            (418, "x", "y", Outcome::Dead),
        ] {
            let report = judged_as("200 OK", bulk(true, json!({"status": status, "error": error(kind, reason)}))).await;
            assert_eq!(report.outcome, expected, "{status} {kind}: {report:?}");
            let no_yes = if report.outcome == Outcome::Retry { " with a body that is no yes" } else { "" };
            assert_eq!(report.status, format!("HTTP 200{no_yes}, document {status}"));
        }
        let report = judged_as("200 OK", yes()).await;
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Delivered, "HTTP 200, document 201"));
    }

    #[tokio::test]
    async fn nothing_else_counts_as_delivered() {
        let other = String::from_utf8(yes()).expect("UTF-8").replace(&id(), "somebody-elses");
        for body in [
            bulk(true, json!({"status": 201})),
            bulk(false, json!({"status": 201, "error": {"type": "x"}})),
            other.into_bytes(),
            br#"{"took": 3, "errors": false, "items": []}"#.to_vec(),
            br#"{"took": 3, "errors": false}"#.to_vec(),
            b"{}".to_vec(),
            b"<html>please log in</html>".to_vec(),
            yes()[..yes().len() - 2].to_vec(),
            Vec::new(),
        ] {
            let report = judged_as("200 OK", body.clone()).await;
            assert_eq!(report.outcome, Outcome::Retry, "{}", String::from_utf8_lossy(&body));
        }
    }

    #[tokio::test]
    async fn a_refused_request_is_judged_by_its_kind() {
        let error = |kind: &str| json!({"error": {"type": kind, "reason": "r"}, "status": 0}).to_string().into_bytes();
        for (status, kind, expected) in [
            ("403 Forbidden", "cluster_block_exception", Outcome::Retry),
            ("429 Too Many Requests", "cluster_block_exception", Outcome::Wait(None)),
            ("403 Forbidden", "security_exception", Outcome::Misconfigured),
            ("401 Unauthorized", "security_exception", Outcome::Misconfigured),
            ("404 Not Found", "index_not_found_exception", Outcome::Misconfigured),
            ("400 Bad Request", "invalid_index_name_exception", Outcome::Misconfigured),
            ("400 Bad Request", "x_content_parse_exception", Outcome::Degrade),
            ("413 Content Too Large", "content_too_long_exception", Outcome::Degrade),
            ("503 Service Unavailable", "cluster_block_exception", Outcome::Retry),
        ] {
            let report = judged_as(status, error(kind)).await;
            assert_eq!(report.outcome, expected, "{status} {kind}");
        }
    }

    #[tokio::test]
    async fn index_and_key_are_sent_and_not_stored() {
        let server = Loopback::start(Reply::Http("200 OK", vec![], yes())).await;
        let sink = make(&server.url("/es/"), &[("index", "logs-vigie.alert-default")], &contract::context().0);
        let stored = delivery(&*sink, &alert_titled(HOSTILE), Form::Full);
        let text = String::from_utf8(stored.body.clone()).expect("UTF-8");
        assert!(!text.contains("logs-vigie") && !text.contains(CANARY) && !text.contains('\n'), "{text}");
        assert_eq!(sink.send(&stored).await.outcome, Outcome::Delivered);
        let request = &server.received()[0];
        assert!(request.head.starts_with("POST /es/_bulk HTTP/1.1"), "{}", request.head);
        assert_eq!(request.header("authorization"), Some(format!("ApiKey {CANARY}").as_str()));
        assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
        let sent = String::from_utf8(request.body.clone()).expect("UTF-8");
        let (action, document) = sent.split_once('\n').expect("two lines");
        let action: Value = serde_json::from_str(action).expect("JSON");
        assert_eq!(action, json!({"create": {"_index": "logs-vigie.alert-default", "_id": id()}}));
        assert_eq!(document, format!("{text}\n"));
    }

    #[test]
    fn a_document_fits_steers_nothing_and_its_plain_form_is_the_least() {
        let mut long = stateful_alert();
        make_long(&mut long, "🦀");
        long.title = Untrusted::new("🦀".repeat(5_000));
        let small = sink(&[("max_document", "4KiB")]);
        assert!(delivery(&*small, &long, Form::Full).body.len() <= 20_000);
        let small = delivery(&*sink(&[("max_document", "16KiB")]), &long, Form::Full).body;
        assert!(small.len() <= 16_384, "{}", small.len());
        let mut hostile = stateful_alert();
        make_hostile(&mut hostile, HOSTILE);
        for (alert, form) in [(&hostile, Form::Full), (&hostile, Form::Plain), (&long, Form::Plain)] {
            let text = String::from_utf8(delivery(&*sink(&[]), alert, form).body).expect("UTF-8");
            assert!(!text.chars().any(is_unsafe), "{text}");
            let document: Value = serde_json::from_str(&text).expect("JSON");
            let names: Vec<&String> = document.as_object().expect("a map").keys().collect();
            if form == Form::Plain {
                assert_eq!(names, ["@timestamp", "ecs", "event", "message", "rule", "tags"]);
                assert!(document["message"].as_str().is_some_and(|text| text.chars().count() <= MAX_PLAIN_CHARS));
            }
        }
        let context = RenderContext { delivery_id: "d2", now: hostile.first_at, form: Form::Full };
        let update = sink(&[]).render_update(&update_of(&hostile, Told::More), &context).expect("renders");
        let update: Value = serde_json::from_slice(&update).expect("JSON");
        assert_eq!((&update["event"]["kind"], &update["vigie"]["delivery_id"]), (&json!("event"), &json!("d2")));
    }

    #[test]
    fn a_name_that_no_index_has_is_refused() {
        let long = "i".repeat(MAX_INDEX_BYTES);
        for (name, good) in [
            ("vigie-alerts", true),
            ("logs-vigie.alert-default", true),
            (long.as_str(), true),
            (&(long.clone() + "i"), false),
            ("Vigie", false),
            ("a b", false),
            ("a*", false),
            ("_bulk", false),
            ("a\nb", false),
            ("<vigie-{now/d}>", false),
            ("..", false),
        ] {
            let options = vec![("url", text_node("https://search.example.org")), ("index", text_node(name))];
            let built = contract::build("elasticsearch", options, &contract::context().0);
            assert_eq!(built.is_ok(), good, "{name}");
            assert!(built.err().is_none_or(|told| told.contains("E0463")), "{name}");
        }
    }
}
