//! `alertmanager`: each alert to every peer of a Prometheus Alertmanager (API v2), posted again until it is quiet, then ended.
//!
//! Alertmanager forgets what is not posted again: an alert is open until its `endsAt`. That time is put in when it is sent,
//! so that an alert which waited through an outage still opens. One request carries one alert, because one that is refused
//! gives the answer for all. It never ends an alert before Alertmanager had time to tell of it: what ends before the next
//! notification of its group is told to nobody.

mod body;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::json;
use url::Url;
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::text::single_line;

use self::body::{MAX_DESCRIPTION_BYTES, MAX_LABEL_NAME_CHARS, Says, Stored, label_name, stored};
use super::bound::{Bound, Most, Unit};
use super::format::{inert_json, stamp};
use super::http::answer::Answer;
use super::http::login::{self, PASSWORD, USER};
use super::http::{Endpoint, TRANSPORT};
use super::probe::{Probe, Question};
use super::update::{CLOSING, ENDS_AFTER, Told, UPDATES, Update};
use super::{
    AttemptReport, BuildContext, Delivery, Outcome, RenderContext, RenderError, RetryProfile, Sink, SinkKind, burst,
    rate,
};
use crate::clock::Clock;
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;
use crate::secret::{Secret, SinkUrl};

/// As the configuration knows it.
pub const ALERTMANAGER: SinkKind = SinkKind {
    kind: "alertmanager",
    example: "cluster:\n  alertmanager:\n    urls: [http://alertmanager-0:9093, http://alertmanager-1:9093]\n    \
              labels: {team: secops}\n",
    bounds: &[Bound {
        what: "description",
        most: Most::Of(MAX_DESCRIPTION_BYTES),
        unit: Unit::Bytes,
        used: |body| Unit::Bytes.at(body, "/annotations/description"),
    }],
    options: &[
        &[
            OptionSpec {
                name: "urls",
                kind: OptionKind::Urls(&["https", "http"]),
                presence: Presence::Required,
                help: "each peer of the cluster, such as http://alertmanager-0:9093; not a load balancer before them",
            },
            USER,
            PASSWORD,
            OptionSpec {
                name: "labels",
                kind: OptionKind::Map,
                presence: Presence::Optional,
                help: "additional labels of every alert, for routes and inhibitions ({team: secops})",
            },
            OptionSpec {
                name: "generator_url",
                kind: OptionKind::Url(&["https", "http"]),
                presence: Presence::Optional,
                help: "page that a notification links to as the source of the alert",
            },
            ENDS_AFTER,
            UPDATES,
            // Without it an alert would be open for the whole of `ends_after` behind its end.
            OptionSpec {
                name: CLOSING.name,
                kind: CLOSING.kind,
                presence: Presence::Default("true"),
                help: "whether the alert is ended when no more matches came for the rule's quiet time; else it ends by itself",
            },
            rate(Presence::Optional),
            burst("1"),
        ],
        TRANSPORT,
    ],
    build,
};

/// Where alerts are posted to; Alertmanager's OpenAPI page.
const API_PATH: &str = "/api/v2/alerts";
/// A cluster has three peers as a rule; all are posted to at once.
const MAX_PEERS: usize = 12;
/// Additional labels.
const MAX_LABELS: usize = 32;
/// Shortest life of an alert: two of Alertmanager's default `group_interval` (5 minutes).
const MIN_OPEN: Duration = Duration::from_secs(600);
/// Until peers that failed are tried again; twice as long each time, or a peer that is away would fill the lane.
const PARTIAL: Duration = Duration::from_secs(30);
/// From here on it stays as it is: 8 minutes.
const MAX_PARTIAL_DOUBLINGS: u32 = 4;
/// Alerts opened lately, and deliveries that some peers took: beyond, the oldest is forgotten.
const MAX_REMEMBERED: usize = 1024;
/// From here on the path of a peer may be a secret, as the redactor has it.
const MIN_SECRET_PATH_BYTES: usize = 8;
/// What makes an alert this one; no additional label may say otherwise.
const IDENTITY: &[&str] = &["alertname", "alert_id"];
/// The sink.
struct AlertmanagerSink {
    peers: Vec<Endpoint>,
    labels: Vec<(String, String)>,
    generator_url: Option<Url>,
    ends_after: TimeDelta,
    clock: Arc<dyn Clock>,
    memory: Mutex<Memory>,
}

/// Forgotten at a restart: then a peer gets what it has once more, and an alert may end before it was told of.
#[derive(Default)]
struct Memory {
    /// Alerts by id, and when they were opened, on the steady clock.
    opened: VecDeque<(String, DateTime<Utc>)>,
    /// Deliveries by id, and the peers that have them.
    taken: VecDeque<(String, Vec<usize>)>,
}

fn build(
    options: &Options,
    name: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    let urls = options.urls("urls");
    if urls.len() > MAX_PEERS {
        let message = format!("sink `{name}`: {} peers, at most {MAX_PEERS} are posted to at once", urls.len());
        let hint = "the peers of one cluster; another cluster is another sink";
        diagnostics.error("E0470", options.span_of("urls"), message, Some(hint.into()));
        return None;
    }
    let labels = read_labels(options, name, diagnostics);
    // What one peer answers must not show how another is reached.
    let of_urls = urls.iter().flat_map(|url| [Some(url.as_str()), url.password(), long_path(url)]);
    let secrets: Vec<Secret> = of_urls.flatten().map(Secret::new).collect();
    let peers: Vec<Option<Endpoint>> = urls
        .iter()
        .map(|url| login::endpoint_at(SinkUrl::new(at(url)), options, "urls", secrets.clone(), context, diagnostics))
        .collect();
    Some(Box::new(AlertmanagerSink {
        peers: peers.into_iter().collect::<Option<_>>()?,
        labels: labels?,
        generator_url: options.url("generator_url").cloned(),
        ends_after: TimeDelta::from_std(options.duration(ENDS_AFTER.name)?).ok()?,
        clock: Arc::clone(&context.clock),
        memory: Mutex::default(),
    }))
}

/// A short one is no secret, and would take ordinary words out of an answer.
fn long_path(url: &Url) -> Option<&str> {
    Some(url.path().trim_matches('/')).filter(|path| path.len() >= MIN_SECRET_PATH_BYTES)
}

/// People give the base or the whole of it.
fn at(url: &Url) -> Url {
    let mut url = url.clone();
    let base = url.path().trim_end_matches('/').trim_end_matches(API_PATH).to_owned();
    url.set_path(&format!("{base}{API_PATH}"));
    url
}

fn read_labels(options: &Options, name: &str, diagnostics: &mut Diagnostics) -> Option<Vec<(String, String)>> {
    let labels = options.map("labels");
    let mut refuse = |message: String, hint: &str| {
        diagnostics.error("E0472", options.span_of("labels"), format!("sink `{name}`: {message}"), Some(hint.into()));
        None
    };
    if labels.len() > MAX_LABELS {
        return refuse(format!("{} labels, at most {MAX_LABELS} are taken", labels.len()), "what routes ask for");
    }
    if let Some((label, _)) = labels.iter().find(|(label, _)| label_name(label) != *label) {
        let label = single_line(label, MAX_LABEL_NAME_CHARS);
        return refuse(
            format!("`{label}` is no name of a label"),
            "letters, digits and `_`, not beginning with a digit",
        );
    }
    if let Some((label, _)) = labels.iter().find(|(label, _)| IDENTITY.contains(&label.as_str())) {
        return refuse(format!("label `{label}` is set by the sink itself"), "remove it, or give it another name");
    }
    Some(labels.iter().map(|(label, value)| (label.clone(), value.expose().to_owned())).collect())
}

impl AlertmanagerSink {
    async fn attempt(&self, delivery: &Delivery) -> AttemptReport {
        let Ok(stored) = serde_json::from_slice::<Stored>(&delivery.body) else {
            return unsent(Outcome::Degrade, "the stored body has another shape");
        };
        let Some(ends_at) = stored.ends_at(self.clock.now(), self.ends_after) else {
            return unsent(Outcome::Needless, "not posted: there is nothing to hold open any more");
        };
        let says = stored.says;
        if let (Says::Ends, Some(rest)) = (says, self.unseen(&delivery.alert_id)) {
            return unsent(Outcome::NotYet(rest), "not posted yet: it was opened a moment ago");
        }
        let body = Bytes::from(self.wire(stored, ends_at));
        let taken = self.taken(&delivery.delivery_id);
        let pending = self.peers.iter().enumerate().filter(|(index, _)| !taken.contains(index));
        let answers = join_all(pending.map(|(index, peer)| {
            let body = body.clone();
            async move { (index, self.post(peer, body, says).await) }
        }));
        let answers = answers.await;
        let new = answers.iter().filter(|(_, report)| took(report)).map(|(index, _)| *index);
        let taken: Vec<usize> = taken.into_iter().chain(new).collect();
        if says == Says::Opens && !taken.is_empty() {
            self.opened(&delivery.alert_id);
        }
        self.judge(delivery, taken, answers)
    }

    async fn post(&self, peer: &Endpoint, body: Bytes, says: Says) -> AttemptReport {
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, json)]);
        match peer.send(Method::POST, headers, body).await {
            Ok(answer) => peer.report(&answer, outcome(&answer, says)),
            Err(report) => report,
        }
    }

    fn wire(&self, stored: Stored, ends_at: DateTime<Utc>) -> String {
        let mut labels = stored.labels;
        labels.extend(self.labels.iter().cloned());
        let mut alert = json!({
            "labels": labels,
            "annotations": stored.annotations,
            "startsAt": stamp(stored.starts_at),
            "endsAt": stamp(ends_at),
        });
        if let Some(url) = &self.generator_url {
            alert["generatorURL"] = url.as_str().into();
        }
        inert_json(&json!([alert]).to_string())
    }

    /// What the answers of the peers come to, those of earlier attempts included. Once a peer took it, one that refuses us
    /// is named and not waited for: that is for a person, and the others must not stand still meanwhile.
    fn judge(&self, delivery: &Delivery, taken: Vec<usize>, answers: Vec<(usize, AttemptReport)>) -> AttemptReport {
        let has_all = taken.len() >= self.peers.len();
        let standing = format!("{} of {} peers", taken.len(), self.peers.len());
        let has_any = !taken.is_empty();
        self.remember(&delivery.delivery_id, taken, has_any && !has_all);
        let spent = answers.iter().map(|(_, report)| report.spent).min().flatten();
        let refuses = |report: &AttemptReport| report.outcome == Outcome::Misconfigured;
        let refusals = answers.iter().filter(|(_, report)| has_any && refuses(report));
        let refusals: Vec<String> =
            refusals.map(|(index, report)| format!("peer {} refuses: {}", index + 1, report.status)).collect();
        let is_in_doubt = |report: &AttemptReport| !refuses(report) && !took(report);
        let waits = answers.iter().any(|(_, report)| is_in_doubt(report));
        let Some((_, mut report)) = answers.into_iter().max_by_key(|(_, report)| rank(&report.outcome)) else {
            return unsent(Outcome::Needless, "every peer has it");
        };
        if self.peers.len() > 1 {
            let told = if refusals.is_empty() { report.status } else { refusals.join(", ") };
            (report.status, report.spent) = (format!("{standing}: {told}"), spent);
        }
        if has_any && !has_all && !waits {
            report.outcome = Outcome::Delivered;
        } else if has_any && !has_all {
            // A peer that is away for longer is told of what is still open by the next post, which goes to all.
            let age = self.clock.steady() - delivery.created_at;
            let later = PARTIAL * 2_u32.pow(delivery.attempts.min(MAX_PARTIAL_DOUBLINGS));
            report.outcome = if age < self.ends_after / 2 { Outcome::Later(later) } else { Outcome::Delivered };
        }
        report
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, alert_id: &str) {
        let now = self.clock.steady();
        let mut memory = self.memory();
        memory.opened.retain(|(_, at)| is_young(*at, now));
        if memory.opened.iter().all(|(id, _)| id != alert_id) {
            push(&mut memory.opened, (alert_id.to_owned(), now));
        }
    }

    /// How much longer the alert must stay open to be told of.
    fn unseen(&self, alert_id: &str) -> Option<Duration> {
        let now = self.clock.steady();
        let opened_at = self.memory().opened.iter().find(|(id, _)| id == alert_id).map(|(_, at)| *at)?;
        let open_for = (now - opened_at).to_std().unwrap_or_default();
        Some(MIN_OPEN.saturating_sub(open_for)).filter(|rest| !rest.is_zero())
    }

    fn taken(&self, delivery_id: &str) -> Vec<usize> {
        let memory = self.memory();
        memory.taken.iter().find(|(id, _)| id == delivery_id).map(|(_, peers)| peers.clone()).unwrap_or_default()
    }

    fn remember(&self, delivery_id: &str, taken: Vec<usize>, is_partial: bool) {
        let mut memory = self.memory();
        memory.taken.retain(|(id, _)| id != delivery_id);
        if is_partial {
            push(&mut memory.taken, (delivery_id.to_owned(), taken));
        }
    }
}

fn push<T>(remembered: &mut VecDeque<T>, item: T) {
    if remembered.len() >= MAX_REMEMBERED {
        remembered.pop_front();
    }
    remembered.push_back(item);
}

fn is_young(at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    (now - at).to_std().unwrap_or_default() < MIN_OPEN
}

fn took(report: &AttemptReport) -> bool {
    matches!(report.outcome, Outcome::Delivered | Outcome::Accepted)
}

fn unsent(outcome: Outcome, status: &str) -> AttemptReport {
    AttemptReport { outcome, status: status.to_owned(), excerpt: String::new(), spent: None, receipt: None }
}

fn outcome(answer: &Answer, says: Says) -> Outcome {
    match answer.outcome_unless(&[]) {
        // A page of a proxy, an error with a friendly status: Alertmanager assents without a word.
        Outcome::Delivered if !matches!(answer.body.trim_ascii(), b"" | b"{}") => Outcome::Retry,
        // The plain text would be the alert once more, and open it again.
        Outcome::Degrade if says == Says::Ends => Outcome::Dead,
        outcome => outcome,
    }
}

/// Which of several answers decides: what a person must mend, then what a peer may yet take, then what is refused by all.
fn rank(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Misconfigured => 6,
        Outcome::Wait(_) | Outcome::Later(_) | Outcome::NotYet(_) => 5,
        Outcome::Retry => 4,
        Outcome::Degrade => 3,
        Outcome::Dead => 2,
        Outcome::Accepted => 1,
        Outcome::Delivered | Outcome::Needless => 0,
    }
}

impl Sink for AlertmanagerSink {
    fn kind(&self) -> &'static str {
        ALERTMANAGER.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Person
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        stored(alert, Says::Opens, context)
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let says = match update.told {
            Told::More => Says::Opens,
            Told::Still => Says::Holds,
            Told::Closing { .. } => Says::Ends,
        };
        stored(update.alert, says, context)
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.attempt(delivery))
    }

    fn probe(&self) -> Probe<'_> {
        Probe::Asks(Box::pin(async {
            let place = (API_PATH, "/api/v2/status");
            let ask = |peer| Question::get("/api/v2/status", "a peer answers", place).ask(peer, HeaderMap::new());
            join_all(self.peers.iter().map(ask)).await
        }))
    }
}

impl std::fmt::Debug for AlertmanagerSink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AlertmanagerSink").field("peers", &self.peers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
