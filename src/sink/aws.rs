//! What the AWS sinks share: options, keys, and one signed request to a service.
//!
//! There is no AWS SDK behind it (see DESIGN.md). Keys are put in when a request is sent, by the time of day of the context,
//! and neither they nor what a service repeats of them is ever kept. It reaches no metadata service.

pub mod answer;
pub mod credentials;
pub mod sign;

use std::sync::Arc;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use tokio::sync::Mutex;
use url::Url;
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::text::single_line;

use self::credentials::{Profile, Role, RoleState, Source, in_profile};
use self::sign::{Credentials, Scope, sign};
use super::http::answer::Answer;
use super::http::{Endpoint, endpoint_at};
use super::probe::Probed;
use super::text::MAX_VALUE_CHARS;
use super::{AttemptReport, BuildContext, Outcome};
use crate::clock::Clock;
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::secret::{Secret, SinkUrl};

/// Option of every AWS sink.
pub const REGION: OptionSpec =
    optional("region", OptionKind::Text, "region to sign for, where the name does not say it");
/// Option of every AWS sink.
pub const ENDPOINT: OptionSpec = optional(
    "endpoint",
    OptionKind::Url(&["https", "http"]),
    "where requests go instead of the region's public address: a VPC endpoint, or a server that stands in for AWS",
);
/// Option of every AWS sink.
pub const ACCESS_KEY_ID: OptionSpec = optional(
    "access_key_id",
    OptionKind::Secret,
    "keys of a user; or `credentials_file`, or `role_arn`. The role of an instance is not used: its keys come from a metadata \
     address, and no sink may reach one",
);
/// Option of every AWS sink.
pub const SECRET_ACCESS_KEY: OptionSpec =
    optional("secret_access_key", OptionKind::Secret, "the secret beside `access_key_id`");
/// Option of every AWS sink.
pub const SESSION_TOKEN: OptionSpec =
    optional("session_token", OptionKind::Secret, "the token beside `access_key_id`, where the keys end");
/// Option of every AWS sink.
pub const CREDENTIALS_FILE: OptionSpec = optional(
    "credentials_file",
    OptionKind::Text,
    "shared credentials file (~/.aws/credentials by its whole path); what is changed in it holds at once",
);
/// Option of every AWS sink.
pub const PROFILE: OptionSpec = OptionSpec {
    name: "profile",
    kind: OptionKind::Text,
    presence: Presence::Default("default"),
    help: "section of `credentials_file`",
};
/// Option of every AWS sink.
pub const ROLE_ARN: OptionSpec = optional(
    "role_arn",
    OptionKind::Text,
    "role whose keys are asked for by `web_identity_token_file`, as Kubernetes gives them (IRSA): ${AWS_ROLE_ARN}",
);
/// Option of every AWS sink.
pub const WEB_IDENTITY_TOKEN_FILE: OptionSpec = optional(
    "web_identity_token_file",
    OptionKind::Text,
    "file with the token that stands for `role_arn`: ${AWS_WEB_IDENTITY_TOKEN_FILE}",
);
/// Option of every AWS sink.
pub const STS_ENDPOINT: OptionSpec = optional(
    "sts_endpoint",
    OptionKind::Url(&["https", "http"]),
    "where the keys of `role_arn` are asked for; the region's public address when missing",
);

/// What both services take in one message, attributes included; a larger limit must be set by whoever owns the queue.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// The references of both services: a group.
const MAX_GROUP_CHARS: usize = 128;
/// How names of ordered queues and topics end.
const FIFO: &str = ".fifo";

const fn optional(name: &'static str, kind: OptionKind, help: &'static str) -> OptionSpec {
    OptionSpec { name, kind, presence: Presence::Optional, help }
}

/// A service and the keys to it.
pub struct Service {
    endpoint: Endpoint,
    source: Source,
    scope: Scope,
    clock: Arc<dyn Clock>,
}

/// What a sink knows of its service before it is built.
pub struct ServiceSpec<'a> {
    /// Name of the sink.
    pub name: &'a str,
    /// As it is signed for, such as `sqs`.
    pub service: &'static str,
    /// What `region` is when the option is missing.
    pub region: Option<String>,
    /// The option that says where the service is.
    pub option: &'static str,
    /// Where it is when `endpoint` is missing; that of the region when missing too.
    pub url: Option<Url>,
}

impl Service {
    /// Builds it from the options of this module.
    pub fn read(
        options: &Options,
        spec: ServiceSpec<'_>,
        context: &BuildContext,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let region = options.text(REGION.name).map(str::to_owned).or(spec.region);
        let Some(region) = region.filter(|region| is_region(region)) else {
            let message = format!("sink `{}`: no region to sign for", spec.name);
            let hint = "write `region: eu-west-1`";
            diagnostics.error("E0473", options.span_of(spec.option), message, Some(hint.into()));
            return None;
        };
        let source = read_source(options, spec.name, &region, context, diagnostics);
        let (url, option) = match (options.url(ENDPOINT.name), spec.url) {
            (Some(url), _) => (url.clone(), ENDPOINT.name),
            (None, Some(url)) => (url, spec.option),
            (None, None) => (public_url(spec.service, &region)?, spec.option),
        };
        let secrets = [ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN].map(|spec| options.secret(spec.name).cloned());
        let secrets = secrets.into_iter().flatten().collect();
        let endpoint = endpoint_at(SinkUrl::new(without_query(url)), options, option, secrets, context, diagnostics)?;
        let scope = Scope { region, service: spec.service };
        Some(Self { endpoint, source: source?, scope, clock: Arc::clone(&context.clock) })
    }

    /// One signed POST. `confirms` says whether the body of a success is the service's own: a page of a proxy is none.
    pub async fn post(&self, headers: HeaderMap, body: Bytes, confirms: fn(&Answer) -> bool) -> AttemptReport {
        let judge = |answer: &Answer| match answer::outcome(answer) {
            Outcome::Delivered | Outcome::Accepted if !confirms(answer) => Outcome::Retry,
            outcome => outcome,
        };
        self.exchange(headers, body, judge).await
    }

    /// One signed question. That it may not be asked shows that the keys are good, and not whether a message may be sent.
    pub async fn ask(
        &self,
        (asked, shows): (&'static str, &'static str),
        headers: HeaderMap,
        body: Bytes,
        confirms: fn(&Answer) -> bool,
    ) -> Probed {
        let judge = |answer: &Answer| match answer::outcome(answer) {
            Outcome::Delivered | Outcome::Accepted if !confirms(answer) => Outcome::Degrade,
            Outcome::Misconfigured if answer::is_denied(answer) => Outcome::Degrade,
            outcome => outcome,
        };
        Probed { asked, shows, report: self.exchange(headers, body, judge).await }
    }

    async fn exchange(&self, headers: HeaderMap, body: Bytes, judge: impl Fn(&Answer) -> Outcome) -> AttemptReport {
        let (credentials, are_kept) = match self.source.credentials().await {
            Ok(credentials) => credentials,
            Err(report) => return report,
        };
        let (url, mut signed) = (self.endpoint.url().expose(), headers);
        let now = self.clock.now();
        if let Err(error) = sign(&Method::POST, url, &mut signed, &body, &self.scope, &credentials, now) {
            let (outcome, status) = (Outcome::Misconfigured, "the keys are no header values".to_owned());
            return AttemptReport { outcome, status, excerpt: error.to_string(), spent: None, receipt: None };
        }
        let answer = match self.endpoint.send(Method::POST, signed, body).await {
            Ok(answer) => answer,
            Err(report) => return report,
        };
        let is_expired = answer::is_expired(&answer);
        if is_expired {
            self.source.forget().await;
        }
        // The next attempt asks for new ones.
        let outcome = if is_expired && are_kept { Outcome::Retry } else { judge(&answer) };
        // A refused signature repeats what was signed, and the endpoint does not know the keys of files and roles.
        let report = self.endpoint.report_with(&answer, outcome, secrets_of(&credentials));
        AttemptReport { status: answer::status(&answer), ..report }
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Service")
            .field("endpoint", &self.endpoint)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// The group in which an ordered queue keeps an alert, and the key by which it drops a second copy; `None` for any other.
#[must_use]
pub fn fifo<'a>(destination: &str, rule_id: &str, delivery_id: &'a str) -> Option<(String, &'a str)> {
    if !destination.ends_with(FIFO) {
        return None;
    }
    let taken = rule_id.chars().map(|character| if character.is_ascii_graphic() { character } else { '-' });
    let group: String = taken.take(MAX_GROUP_CHARS).collect();
    Some((if group.is_empty() { "vigie".to_owned() } else { group }, delivery_id))
}

/// The attributes of a message: its rule, severity and alert.
#[must_use]
pub fn attributes(alert: &Alert) -> [(&'static str, String); 3] {
    [
        ("rule", single_line(&alert.rule.id, MAX_VALUE_CHARS)),
        ("severity", alert.rule.severity.as_str().to_owned()),
        ("alert_id", single_line(&alert.alert_id, MAX_VALUE_CHARS)),
    ]
}

/// What is left for a message beside its attributes.
#[must_use]
pub fn room(attributes: &[(&'static str, String)]) -> usize {
    let used: usize = attributes.iter().map(|(name, value)| name.len() + "String".len() + value.len()).sum();
    MAX_MESSAGE_BYTES.saturating_sub(used)
}

/// Text as both services take it: the characters of XML 1.0.
#[must_use]
pub fn allowed(text: &str) -> String {
    let is_allowed = |character: char| match character {
        '\t' | '\n' | '\r' => true,
        character => character >= ' ' && !matches!(character, '\u{fffe}' | '\u{ffff}'),
    };
    text.chars().map(|character| if is_allowed(character) { character } else { '\u{fffd}' }).collect()
}

/// The region that a host name holds (`sqs.eu-west-1.amazonaws.com`).
#[must_use]
pub fn region_in(host: &str) -> Option<String> {
    let ends_in_number = |label: &str| label.rsplit('-').next().is_some_and(|end| end.parse::<u8>().is_ok());
    let is_one = |label: &&str| is_region(label) && label.matches('-').count() >= 2 && ends_in_number(label);
    let mut labels = host.split('.').filter(|label| !label.starts_with("vpce-"));
    let found = labels.find(is_one)?;
    Some(found.to_owned())
}

/// It becomes part of a host name.
fn is_region(text: &str) -> bool {
    let is_taken = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(is_taken)
}

fn public_url(service: &str, region: &str) -> Option<Url> {
    let suffix = match region.split('-').next() {
        Some("cn") => "amazonaws.com.cn",
        Some("eusc") => "amazonaws.eu",
        _ => "amazonaws.com",
    };
    Url::parse(&format!("https://{service}.{region}.{suffix}/")).ok()
}

/// It would have to be signed, and no service here has one.
fn without_query(mut url: Url) -> Url {
    url.set_query(None);
    url
}

fn secrets_of(credentials: &Credentials) -> Vec<Secret> {
    let Credentials { access_key_id, secret_access_key, session_token } = credentials.clone();
    [access_key_id, secret_access_key].into_iter().chain(session_token).collect()
}

fn read_source(
    options: &Options,
    name: &str,
    region: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Source> {
    let key = |spec: OptionSpec| options.secret(spec.name).cloned();
    let text = |spec: OptionSpec| options.text(spec.name).map(str::to_owned);
    let keys = (key(ACCESS_KEY_ID), key(SECRET_ACCESS_KEY), key(SESSION_TOKEN));
    let role = (text(ROLE_ARN), text(WEB_IDENTITY_TOKEN_FILE));
    match (keys, text(CREDENTIALS_FILE), role) {
        ((Some(access_key_id), Some(secret_access_key), session_token), None, (None, None)) => {
            Some(Source::Keys(Credentials { access_key_id, secret_access_key, session_token }))
        }
        ((None, None, None), Some(path), (None, None)) => read_profile(options, name, path, diagnostics),
        ((None, None, None), None, (Some(arn), Some(token_file))) => {
            readable(options, name, WEB_IDENTITY_TOKEN_FILE, &token_file, diagnostics)?;
            let (url, option) = match options.url(STS_ENDPOINT.name) {
                Some(url) => (url.clone(), STS_ENDPOINT.name),
                None => (public_url("sts", region)?, ROLE_ARN.name),
            };
            let sts = endpoint_at(SinkUrl::new(without_query(url)), options, option, Vec::new(), context, diagnostics)?;
            // What the operator's headers say is for the destination.
            let (sts, clock) = (sts.without_headers(), Arc::clone(&context.clock));
            let state = Mutex::new(RoleState::default());
            Some(Source::Role(Box::new(Role { arn, token_file, sts, clock, state })))
        }
        // What was written and cannot be read was reported.
        _ if !options.is_whole() => None,
        _ => {
            let message = format!("sink `{name}` takes its keys from one place");
            let hint =
                "access_key_id with secret_access_key, or credentials_file, or role_arn with web_identity_token_file";
            diagnostics.error("E0474", options.span(), message, Some(hint.into()));
            None
        }
    }
}

fn read_profile(options: &Options, name: &str, path: String, diagnostics: &mut Diagnostics) -> Option<Source> {
    let text = readable(options, name, CREDENTIALS_FILE, &path, diagnostics)?;
    let profile = options.text(PROFILE.name)?.to_owned();
    if in_profile(&text, &profile).is_none() {
        let shown = single_line(&profile, MAX_VALUE_CHARS);
        let message = format!("sink `{name}`: no keys for the profile `{shown}` in `{path}`");
        let hint = "a section `[name]` with aws_access_key_id and aws_secret_access_key";
        diagnostics.error("E0475", options.span_of(PROFILE.name), message, Some(hint.into()));
        return None;
    }
    Some(Source::File(Profile { path, name: profile }))
}

fn readable(
    options: &Options,
    name: &str,
    spec: OptionSpec,
    path: &str,
    diagnostics: &mut Diagnostics,
) -> Option<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => {
            let message = format!("sink `{name}`: `{path}` cannot be read: {error}");
            diagnostics.error("E0475", options.span_of(spec.name), message, Some(spec.help.into()));
            None
        }
    }
}

#[cfg(test)]
mod tests;
