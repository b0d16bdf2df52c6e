//! Access tokens by the client credentials grant of OAuth 2.0 (RFC 6749, section 4.4).
//!
//! A token is fetched when a request needs one, kept until a minute before it expires, and fetched by one request at a time.
//! Whatever the token server says, an alert is never given up for it: what it refuses is the operator's.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;
use tokio::sync::Mutex;
use url::form_urlencoded;

use super::Endpoint;
use super::answer::Answer;
use super::authorization::{bearer, unusable};
use crate::secret::{Secret, SinkUrl};
use crate::sink::{AttemptReport, Outcome};

/// A token is not used in the last minute of its life: a request and two clocks that differ must fit in.
const MARGIN_S: i64 = 60;
/// How long a token is kept whose server does not say how long it lives, in seconds: shorter than any usual life.
const UNTOLD_LIFE_S: i64 = 300;
/// Longest time that a token is kept, in seconds, whatever its server says: a day bounds what a wrong answer costs.
const MAX_LIFE_S: i64 = 24 * 3600;

/// Who waited for a fetch that failed does not fetch at once again: eight that do would hold the lane up for minutes.
const FAILED_FOR: Duration = Duration::from_secs(5);

/// How a client says who it is (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAuth {
    Basic,
    Post,
}

/// What a token is asked for with.
pub(super) struct Grant {
    pub(super) url: SinkUrl,
    pub(super) client_id: String,
    pub(super) client_secret: Secret,
    pub(super) scopes: Vec<String>,
    pub(super) audience: Option<String>,
    pub(super) client_auth: ClientAuth,
}

impl Grant {
    /// `id:secret` as it stands in a header: both are encoded as in a form first.
    fn basic(&self) -> String {
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        STANDARD.encode(format!("{}:{}", encoded(&self.client_id), encoded(self.client_secret.expose())))
    }

    /// Every spelling of the secret that goes out.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        let in_form = form_urlencoded::byte_serialize(self.client_secret.expose().as_bytes()).collect::<String>();
        vec![self.client_secret.clone(), Secret::new(in_form), Secret::new(self.basic())]
    }

    fn form(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !self.scopes.is_empty() {
            form.append_pair("scope", &self.scopes.join(" "));
        }
        if let Some(audience) = &self.audience {
            form.append_pair("audience", audience);
        }
        if self.client_auth == ClientAuth::Post {
            form.append_pair("client_id", &self.client_id).append_pair("client_secret", self.client_secret.expose());
        }
        form.finish()
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if self.client_auth == ClientAuth::Basic
            && let Ok(mut value) = HeaderValue::from_str(&format!("Basic {}", self.basic()))
        {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }
}

/// A token and when to stop using it, on the clock that nobody sets.
struct Held {
    token: Secret,
    until: DateTime<Utc>,
}

/// What came of asking so far: a token, or the last failure to get one and when it was.
#[derive(Default)]
struct State {
    held: Option<Held>,
    failed: Option<(AttemptReport, DateTime<Utc>)>,
}

/// The tokens of one client.
pub(super) struct Tokens {
    endpoint: Endpoint,
    headers: HeaderMap,
    form: Bytes,
    state: Mutex<State>,
}

impl Tokens {
    pub(super) fn new(endpoint: Endpoint, grant: &Grant) -> Self {
        Self { endpoint, headers: grant.headers(), form: Bytes::from(grant.form()), state: Mutex::default() }
    }

    /// A token, and whether it is one that was kept. Who asks while another fetches one waits for that one, and shares its
    /// failure; the fetch is bounded by the endpoint's limits.
    ///
    /// # Errors
    /// A finished report when there is none.
    pub(super) async fn token(&self) -> Result<(Secret, bool), AttemptReport> {
        let mut state = self.state.lock().await;
        let now = self.endpoint.clock.steady();
        if let Some(kept) = state.held.as_ref().filter(|kept| now < kept.until) {
            return Ok((kept.token.clone(), true));
        }
        state.held = None;
        let age = |at: DateTime<Utc>| (now - at).to_std().unwrap_or_default();
        if let Some((report, _)) = state.failed.as_ref().filter(|(_, at)| age(*at) < FAILED_FOR) {
            return Err(report.clone());
        }
        match self.fetch().await {
            Ok(fetched) => {
                let token = fetched.token.clone();
                *state = State { held: Some(fetched), failed: None };
                Ok((token, false))
            }
            Err(report) => {
                let status = format!("token server: {}", report.status);
                let report = AttemptReport { status, spent: None, ..report };
                state.failed = Some((report.clone(), self.endpoint.clock.steady()));
                Err(report)
            }
        }
    }

    /// What was kept is not given again, if it is this token.
    pub(super) async fn forget(&self, token: &Secret) {
        let mut state = self.state.lock().await;
        if state.held.as_ref().is_some_and(|kept| kept.token.expose() == token.expose()) {
            state.held = None;
        }
    }

    async fn fetch(&self) -> Result<Held, AttemptReport> {
        let asked_at = self.endpoint.clock.steady();
        let url = self.endpoint.url.expose().clone();
        let answer = self.endpoint.exchange(Method::POST, url, self.headers.clone(), self.form.clone()).await?;
        let outcome = match answer.outcome() {
            Outcome::Delivered | Outcome::Accepted => return read(&answer, asked_at),
            // An unknown client, a scope that it may not have, a URL that is none: never the alert's fault.
            Outcome::Degrade | Outcome::Dead => Outcome::Misconfigured,
            other => other,
        };
        Err(self.endpoint.report(&answer, outcome))
    }
}

/// Nothing of an answer with a token is repeated, whatever is wrong with it.
fn read(answer: &Answer, asked_at: DateTime<Utc>) -> Result<Held, AttemptReport> {
    let status = format!("HTTP {}", answer.status.as_u16());
    if !answer.complete {
        let excerpt = "the answer is cut, or longer than a token".to_owned();
        return Err(AttemptReport { outcome: Outcome::Retry, status, excerpt, spent: None, receipt: None });
    }
    let refuse = |why: &str| unusable(&status, why);
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else { return Err(refuse("the answer is no JSON")) };
    let token = body.get("access_token").and_then(Value::as_str).filter(|token| !token.trim().is_empty());
    let Some(token) = token else { return Err(refuse("the answer holds no access_token")) };
    if body.get("token_type").and_then(Value::as_str).is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(refuse("the token is of a type other than Bearer"));
    }
    if bearer(token).is_none() {
        return Err(refuse("the token is no header value"));
    }
    // Some servers write the number as text.
    let life_s = body.get("expires_in").and_then(|life| life.as_i64().or_else(|| life.as_str()?.trim().parse().ok()));
    let life_s = life_s.unwrap_or(UNTOLD_LIFE_S).clamp(0, MAX_LIFE_S);
    let kept = TimeDelta::seconds((life_s - MARGIN_S).max(0));
    Ok(Held { token: Secret::new(token), until: asked_at.checked_add_signed(kept).unwrap_or(asked_at) })
}

#[cfg(test)]
mod tests;
