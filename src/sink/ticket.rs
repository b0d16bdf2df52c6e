//! `jira`, `servicenow` and `thehive`: an alert becomes a record of a system that people work through, within the limits of
//! one table.
//!
//! The text is the terminal's, as a block in which that system knows no markup; URLs are defanged. None of them finds a
//! record by a key of ours in one request, so an update is a record of its own, under the alert's id; and an answer that is
//! lost makes a second record of Jira and ServiceNow, told by the same id. What the operator may mend while records wait is
//! put in when sending.

mod jira;
mod servicenow;
mod thehive;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;

use super::bound::{Bound, Most, Unit};
use super::format::inert_json;
use super::http::answer::Answer;
use super::http::login::{self, PASSWORD, TOKEN, USER};
use super::http::{Endpoint, TRANSPORT};
use super::probe::{Probe, Question};
use super::text::{self, defang};
use super::update::{CLOSING, UPDATES, Update, update_text};
use super::{
    AttemptReport, BuildContext, Delivery, Form, Outcome, RenderContext, RenderError, RetryProfile, Sink, SinkKind,
    burst, rate,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;
use crate::secret::SinkUrl;

/// Jira, in the cloud and on servers of one's own.
pub const JIRA: SinkKind = SinkKind {
    kind: "jira",
    example: "desk:\n  jira:\n    url: https://example.atlassian.net\n    project: SEC\n    user: vigie@example.org\n    password: ${JIRA_API_TOKEN}\n",
    bounds: &[
        Bound {
            what: "summary",
            most: Most::Of(jira::DESK.max_summary_units),
            unit: Unit::Utf16,
            used: |body| Unit::Utf16.at(body, "/summary"),
        },
        Bound {
            what: "description",
            most: Most::Of(jira::DESK.max_description_units),
            unit: Unit::Utf16,
            used: |body| Unit::Utf16.at(body, "/description"),
        },
    ],
    options: &[
        &[
            URL,
            OptionSpec {
                name: "project",
                kind: OptionKind::Text,
                presence: Presence::Required,
                help: "key of the project that issues are made in, such as SEC",
            },
            OptionSpec {
                name: "issue_type",
                kind: OptionKind::Text,
                presence: Presence::Default("Task"),
                help: "name of the issues' type in that project",
            },
            USER,
            PASSWORD,
            TOKEN,
            UPDATES_OWN,
            CLOSING,
            rate(Presence::Optional),
            burst("1"),
        ],
        TRANSPORT,
    ],
    build: |options, name, context, diagnostics| build(&jira::DESK, options, name, context, diagnostics),
};
/// ServiceNow, as an incident.
pub const SERVICENOW: SinkKind = SinkKind {
    kind: "servicenow",
    example: "desk:\n  servicenow:\n    url: https://example.service-now.com\n    user: vigie\n    password: ${SERVICENOW_PASSWORD}\n",
    bounds: &[
        Bound {
            what: "short_description",
            most: Most::Of(servicenow::DESK.max_summary_units),
            unit: Unit::Chars,
            used: |body| Unit::Chars.at(body, "/short_description"),
        },
        Bound {
            what: "description",
            most: Most::Of(servicenow::DESK.max_description_units),
            unit: Unit::Chars,
            used: |body| Unit::Chars.at(body, "/description"),
        },
    ],
    options: &[PLAIN_OPTIONS, TRANSPORT],
    build: |options, name, context, diagnostics| build(&servicenow::DESK, options, name, context, diagnostics),
};
/// TheHive 4 and 5, as an alert.
pub const THEHIVE: SinkKind = SinkKind {
    kind: "thehive",
    example: "desk:\n  thehive:\n    url: https://thehive.example.org\n    token: ${THEHIVE_TOKEN}\n",
    bounds: &[
        Bound {
            what: "title",
            most: Most::Of(thehive::DESK.max_summary_units),
            unit: Unit::Chars,
            used: |body| Unit::Chars.at(body, "/title"),
        },
        Bound {
            what: "description",
            most: Most::Of(thehive::DESK.max_description_units),
            unit: Unit::Chars,
            used: |body| Unit::Chars.at(body, "/description"),
        },
    ],
    options: &[PLAIN_OPTIONS, TRANSPORT],
    build: |options, name, context, diagnostics| build(&thehive::DESK, options, name, context, diagnostics),
};

const PLAIN_OPTIONS: &[OptionSpec] =
    &[URL, USER, PASSWORD, TOKEN, UPDATES_OWN, CLOSING, rate(Presence::Optional), burst("1")];
const URL: OptionSpec = OptionSpec {
    name: "url",
    kind: OptionKind::Url(&["https", "http"]),
    presence: Presence::Required,
    help: "the server without the path of its interface, such as https://desk.example.org",
};
const UPDATES_OWN: OptionSpec = OptionSpec {
    help: "how often an alert that takes up more matches is told again (every 10m), as a record of its own; never when missing",
    ..UPDATES
};

/// Most of a description that is sent after the full one was refused: what was too much must be less.
const MAX_PLAIN_UNITS: usize = 1_000;
/// Room for the marks of a block, and for the line that counts what was left out.
const OVERHEAD_UNITS: usize = 64;

/// What one kind of system takes, and how it says yes and no.
struct Desk {
    kind: &'static str,
    /// Below the server's URL.
    path: &'static str,
    /// What only one who is logged in is answered: path, query, and what that shows.
    question: (&'static str, Option<&'static str>, &'static str),
    /// Most of a summary and of a description, in the system's own units.
    max_summary_units: usize,
    max_description_units: usize,
    units: fn(char) -> usize,
    /// What a line costs beyond its text.
    line_units: usize,
    /// The text without what could end its block or act in it.
    inert: fn(&str) -> String,
    /// The block around it.
    block: fn(&str) -> String,
    record: fn(&Record<'_>) -> Value,
    /// The member of an assent.
    assent: &'static str,
    /// The outcome of anything else.
    outcome: fn(&Answer) -> Outcome,
}

/// What a record is made of.
struct Record<'a> {
    alert: &'a Alert,
    /// One line.
    summary: String,
    description: String,
    /// The same for every attempt, and another for every update.
    reference: String,
    form: Form,
}

/// The sink.
struct TicketSink {
    desk: &'static Desk,
    endpoint: Endpoint,
    headers: HeaderMap,
    /// Jira's members of an issue that the operator chose.
    chosen: Option<String>,
}

fn build(
    desk: &'static Desk,
    options: &Options,
    name: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    if !login::logs_in(options) {
        let message = format!("sink `{name}`: it does not say how to log in");
        let hint = "give `token`, or `user` and `password` (in Jira's cloud the address and an API token)";
        diagnostics.error("E0462", options.span(), message, Some(hint.into()));
        return None;
    }
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    let mut url = options.url(URL.name)?.clone();
    url.set_path(&format!("{}{}", url.path().trim_end_matches('/'), desk.path));
    let endpoint = login::endpoint_at(SinkUrl::new(url), options, URL.name, Vec::new(), context, diagnostics)?;
    let chosen = options.text("project").zip(options.text("issue_type"));
    let chosen = chosen.map(|(project, issue_type)| {
        format!("\"project\":{},\"issuetype\":{}", json!({"key": project}), json!({"name": issue_type}))
    });
    Some(Box::new(TicketSink { desk, endpoint, headers, chosen }))
}

impl Desk {
    fn body(&self, record: &Record<'_>) -> Vec<u8> {
        inert_json(&(self.record)(record).to_string()).into_bytes()
    }

    /// One line within the limit, the cut marked; never half a character.
    fn summary(&self, line: &str) -> String {
        let line = (self.inert)(line);
        if self.units(&line) <= self.max_summary_units {
            return line;
        }
        let mut used = (self.units)('…');
        let kept = line.chars().take_while(|character| {
            used += (self.units)(*character);
            used <= self.max_summary_units
        });
        kept.chain(['…']).collect()
    }

    /// The lines that fit and the ids, in their block.
    fn description(&self, text: &str, ids: &str, form: Form) -> String {
        let mut lines = text::lines_within(&(self.inert)(text), self.room(ids, form), |line| self.cost(line));
        lines.push(ids.to_owned());
        (self.block)(&lines.join("\n"))
    }

    fn fits(&self, text: &str, ids: &str, form: Form) -> bool {
        text::is_within(&(self.inert)(text), self.room(ids, form), |line| self.cost(line))
    }

    fn room(&self, ids: &str, form: Form) -> usize {
        let most = if form == Form::Plain { MAX_PLAIN_UNITS } else { self.max_description_units };
        most.saturating_sub(OVERHEAD_UNITS + self.cost(ids))
    }

    fn cost(&self, line: &str) -> usize {
        self.units(line) + 1 + self.line_units
    }

    fn units(&self, text: &str) -> usize {
        text.chars().map(self.units).sum()
    }

    fn judge(&self, answer: &Answer) -> Outcome {
        let is_assent =
            || serde_json::from_slice::<Value>(&answer.body).is_ok_and(|said| said.get(self.assent).is_some());
        match answer.status.as_u16() {
            // Made, whatever became of the rest of the answer: asking again would make another.
            201 => Outcome::Delivered,
            // A proxy's page, or a cut answer.
            200..=299 if !is_assent() => Outcome::Retry,
            _ => (self.outcome)(answer),
        }
    }
}

impl TicketSink {
    async fn attempt(&self, delivery: &Delivery) -> AttemptReport {
        let body = match &self.chosen {
            Some(chosen) => {
                let rest = delivery.body.strip_prefix(b"{").unwrap_or(&delivery.body);
                [b"{\"fields\":{", chosen.as_bytes(), b",", rest, b"}"].concat()
            }
            None => delivery.body.clone(),
        };
        match self.endpoint.send(Method::POST, self.headers.clone(), Bytes::from(body)).await {
            Ok(answer) => self.endpoint.report(&answer, self.desk.judge(&answer)),
            Err(report) => report,
        }
    }
}

impl Sink for TicketSink {
    fn kind(&self) -> &'static str {
        self.desk.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let (desk, form) = (self.desk, context.form);
        let ids = text::footer(alert, context.delivery_id);
        let shown = text::alert_text_within(alert, context.delivery_id, |text| desk.fits(text, &ids, form));
        let headline = format!("{}: {}", text::severity_word(alert.rule.severity), text::title(alert));
        Ok(desk.body(&Record {
            alert,
            summary: desk.summary(&headline),
            description: desk.description(&shown, &ids, form),
            reference: alert.alert_id.clone(),
            form,
        }))
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let (desk, form) = (self.desk, context.form);
        let ids = text::footer(update.alert, context.delivery_id);
        Ok(desk.body(&Record {
            alert: update.alert,
            summary: desk.summary(&update.headline()),
            description: desk.description(&update_text(update, context.delivery_id), &ids, form),
            reference: format!("{}.{}", update.alert.alert_id, update.number),
            form,
        }))
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.attempt(delivery))
    }

    fn probe(&self) -> Probe<'_> {
        Probe::Asks(Box::pin(async {
            let (other, query, shows) = self.desk.question;
            let question = Question { query, ..Question::get(other, shows, (self.desk.path, other)) };
            vec![question.ask(&self.endpoint, self.headers.clone()).await]
        }))
    }
}

impl std::fmt::Debug for TicketSink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.desk.kind;
        formatter
            .debug_struct("TicketSink")
            .field("kind", &kind)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Defanged, and each of these words, in whatever letters, apart behind its first character: `[code]` becomes `[ code]`.
fn apart(text: &str, words: &[&str]) -> String {
    let mut apart = defang(text);
    for word in words {
        let lower = apart.to_ascii_lowercase();
        let mut rest = apart.as_str();
        let mut parted = String::with_capacity(apart.len());
        let mut at = 0;
        while let Some(found) = lower.get(at..).and_then(|lower| lower.find(word)) {
            let (before, after) = rest.split_at_checked(found + 1).unwrap_or((rest, ""));
            parted.push_str(before);
            parted.push(' ');
            (rest, at) = (after, at + found + 1);
        }
        parted.push_str(rest);
        apart = parted;
    }
    apart
}

#[cfg(test)]
mod tests;
