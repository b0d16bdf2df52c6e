//! The one place that builds HTTP clients for sinks: time-outs always, roots bundled (works in an image without CA files),
//! ring given explicitly, every host and address vetted, answers read up to a limit.
//!
//! It never follows a redirect (a 307 would post the alert again, elsewhere), never decompresses (a bomb), never takes a proxy
//! from the environment (it would be asked instead of our resolver, and see every URL), and never shows a URL. Through a
//! proxy that the operator names, names are the proxy's to resolve: then the guard sees the URL and the proxy alone. One
//! endpoint speaks HTTP/1.1 only: a lane has one request in flight, so there is nothing to multiplex.

pub mod answer;
mod authorization;
mod file;
pub mod guard;
pub mod hint;
pub mod login;
mod oauth2;
pub mod redact;
pub(in crate::sink) mod resolve;
mod tls;
mod transport;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use url::Url;

use self::answer::Answer;
use self::authorization::Authorization;
use self::guard::{Policy, Refused};
use self::redact::{Redactor, login};
pub use self::resolve::{Lookup, system_lookup};
pub use self::tls::Identity;
pub(super) use self::tls::{config as client_tls, refuses_client};
pub use self::transport::{
    ALLOW_PRIVATE, CA_FILE, CERTIFICATE_FILE, KEY_FILE, KEYED_TRANSPORT, TRANSPORT, endpoint, endpoint_at,
};
pub(super) use self::transport::{content, tls_config};
use super::{AttemptReport, Outcome};
use crate::clock::Clock;
use crate::secret::{Secret, SinkUrl};

/// Most that is read of an answer; delivery policy 4.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// An idle connection is kept this long: shorter than common servers do, so that a request seldom meets a closed one.
const IDLE: Duration = Duration::from_secs(20);
/// What the client says of a proxy that answers 407 to `CONNECT`; it names no type for it.
const PROXY_LOGIN: &str = "tunnel error: proxy authorization required";

/// How long an attempt may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Name, TCP and TLS.
    pub connect: Duration,
    /// Everything, the answer's body included.
    pub total: Duration,
}

impl Default for Limits {
    /// Delivery policy 4.
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), total: Duration::from_secs(15) }
    }
}

/// What an endpoint is made of.
#[derive(Clone)]
pub struct EndpointSpec {
    /// Where to.
    pub url: SinkUrl,
    /// What must never show in an excerpt.
    pub secrets: Vec<Secret>,
    /// PEM of additional authorities.
    pub ca_pem: Option<Vec<u8>>,
    /// Client certificate.
    pub identity: Option<Identity>,
    /// What all requests go through.
    pub proxy: Option<SinkUrl>,
    /// Sent with every request.
    pub headers: HeaderMap,
    /// What may be reached.
    pub policy: Policy,
    /// Time-outs.
    pub limits: Limits,
    /// How names become addresses, before they are vetted.
    pub lookup: Lookup,
    /// For dates in `Retry-After`.
    pub clock: Arc<dyn Clock>,
}

/// Why an endpoint cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The guard refuses the host.
    #[error("the host of the URL is refused")]
    Refused(#[source] Refused),
    /// The additional authorities are no PEM certificates.
    #[error("the CA file holds no usable certificate")]
    Authorities,
    /// The guard refuses the proxy, or nothing can be sent through it.
    #[error("the proxy cannot be used")]
    Proxy(#[source] Box<dyn StdError + Send + Sync>),
    /// TLS or the client could not be set up.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] Box<dyn StdError + Send + Sync>),
}

/// A URL and the client that may post to it.
pub struct Endpoint {
    url: SinkUrl,
    client: reqwest::Client,
    policy: Policy,
    headers: HeaderMap,
    authorization: Option<Authorization>,
    redactor: Redactor,
    clock: Arc<dyn Clock>,
}

impl EndpointSpec {
    /// A spec with the defaults of the policy: private addresses allowed, the system's resolver.
    #[must_use]
    pub fn new(url: SinkUrl, clock: Arc<dyn Clock>) -> Self {
        let policy = Policy { allow_private: true };
        let (limits, lookup) = (Limits::default(), system_lookup());
        Self {
            url,
            secrets: Vec::new(),
            ca_pem: None,
            identity: None,
            proxy: None,
            headers: HeaderMap::new(),
            policy,
            limits,
            lookup,
            clock,
        }
    }
}

impl Endpoint {
    /// Builds the client; opens nothing.
    ///
    /// # Errors
    /// When the host is refused or TLS cannot be set up.
    #[expect(clippy::disallowed_methods, reason = "the one place for sinks that sets time-outs, guard and limits")]
    pub fn build(spec: EndpointSpec) -> Result<Self, BuildError> {
        spec.policy.vet_url(spec.url.expose()).map_err(BuildError::Refused)?;
        // Behind a proxy the only name that is resolved here is its own, and the operator put it where it is.
        let resolved = if spec.proxy.is_some() { Policy { allow_private: true } } else { spec.policy };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(spec.ca_pem.as_deref(), spec.identity)?)
            .dns_resolver(resolve::Vetting::new(resolved, spec.lookup))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .user_agent(concat!("vigie/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(spec.limits.connect)
            .timeout(spec.limits.total)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(IDLE);
        let mut secrets = spec.secrets;
        let client = match &spec.proxy {
            Some(proxy) => {
                resolved.vet_url(proxy.expose()).map_err(|refused| BuildError::Proxy(Box::new(refused)))?;
                secrets.extend(login(proxy.expose()));
                let proxy = reqwest::Proxy::all(proxy.expose().clone());
                client.proxy(proxy.map_err(|error| BuildError::Proxy(Box::new(error.without_url())))?)
            }
            None => client,
        };
        let client = client.build().map_err(|error| BuildError::Client(Box::new(error.without_url())))?;
        let redactor = Redactor::new(spec.url.expose(), &secrets);
        let (url, policy, headers, clock) = (spec.url, spec.policy, spec.headers, spec.clock);
        Ok(Self { url, client, policy, headers, authorization: None, redactor, clock })
    }

    /// One request, with the operator's headers and `Authorization` beside those given. An answer of any status is `Ok`, but
    /// for what a proxy or a token that was kept too long is to blame; no answer is a finished report.
    ///
    /// # Errors
    /// When there was no answer: refused by the guard, not connected, cut, timed out, no token.
    pub async fn send(&self, method: Method, headers: HeaderMap, body: Bytes) -> Result<Answer, AttemptReport> {
        let has = |name| self.headers.contains_key(name) || (name == AUTHORIZATION && self.authorization.is_some());
        if let Some(name) = headers.keys().find(|name| has(*name)) {
            let cause = format!("the sink sets `{name}` itself; remove it from the options");
            return Err(self.failure(Outcome::Misconfigured, "a header is set twice", &cause));
        }
        let mut all = self.headers.clone();
        all.extend(headers);
        let url = self.url.expose().clone();
        self.authorized(method, url, all, body).await
    }

    /// A question beside the URL: below the same server, at a path whose end is another. `query` is joined to the URL's own.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn ask(
        &self,
        method: Method,
        (own, other): (&str, &str),
        query: Option<&str>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, AttemptReport> {
        let mut url = self.url.expose().clone();
        let path = url.path().strip_suffix(own).unwrap_or(url.path()).to_owned();
        url.set_path(&format!("{path}{other}"));
        let queries: Vec<&str> = self.url.expose().query().into_iter().chain(query).collect();
        url.set_query(Some(queries.join("&")).filter(|query| !query.is_empty()).as_deref());
        let mut all = self.headers.clone();
        all.extend(headers);
        self.authorized(method, url, all, body).await
    }

    async fn authorized(
        &self,
        method: Method,
        url: Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, AttemptReport> {
        let Some(authorization) = &self.authorization else { return self.exchange(method, url, headers, body).await };
        let credential = authorization.credential().await?;
        headers.insert(AUTHORIZATION, credential.header.clone());
        let answer = self.exchange(method, url, headers, body).await?;
        if answer.status == StatusCode::UNAUTHORIZED && authorization.refused(&credential).await {
            return Err(self.report(&answer, Outcome::Retry));
        }
        Ok(answer)
    }

    /// One request as it is given.
    async fn exchange(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, AttemptReport> {
        if let Err(refused) = self.policy.vet_url(&url) {
            return Err(self.failure(Outcome::Misconfigured, "refused by the address guard", &refused));
        }
        let request = self.client.request(method, url).headers(headers).body(body);
        let mut response = request.send().await.map_err(|error| self.explain(&error.without_url()))?;
        let received_at = self.clock.now();
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let (body, complete) = read_bounded(&mut response).await;
        let answer = Answer { status, headers, body, complete, received_at };
        match answer.status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(self.report(&answer, Outcome::Misconfigured)),
            _ => Ok(answer),
        }
    }

    /// One attempt of a sink that posts JSON and whose answer alone decides.
    pub async fn post_json(&self, body: Bytes, outcome: impl FnOnce(&Answer) -> Outcome) -> AttemptReport {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        match self.send(Method::POST, HeaderMap::from_iter([(CONTENT_TYPE, json)]), body).await {
            Ok(answer) => self.report(&answer, outcome(&answer)),
            Err(report) => report,
        }
    }

    /// A report with the answer's status and excerpt and the outcome that the sink decided.
    #[must_use]
    pub fn report(&self, answer: &Answer, outcome: Outcome) -> AttemptReport {
        self.report_with(answer, outcome, Vec::new())
    }

    /// The same where the request held secrets that the endpoint does not know.
    #[must_use]
    pub fn report_with(&self, answer: &Answer, outcome: Outcome, secrets: Vec<Secret>) -> AttemptReport {
        let no_yes = answer.status.is_success() && outcome == Outcome::Retry;
        let status =
            format!("HTTP {}{}", answer.status.as_u16(), if no_yes { " with a body that is no yes" } else { "" });
        let spent = answer.spent().filter(|_| !matches!(outcome, Outcome::Wait(Some(_))));
        AttemptReport { outcome, status, excerpt: self.excerpt(&answer.body, secrets), spent, receipt: None }
    }

    /// The same without the operator's headers: for a server that is asked on the way and is no destination.
    #[must_use]
    pub fn without_headers(self) -> Self {
        Self { headers: HeaderMap::new(), ..self }
    }

    /// Where it posts to, host only.
    #[must_use]
    pub fn url(&self) -> &SinkUrl {
        &self.url
    }

    fn explain(&self, error: &reqwest::Error) -> AttemptReport {
        let cause = root(error);
        let kinds = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        let kind = kinds.last();
        if let Some(refused) = chain(error).find_map(|cause| cause.downcast_ref::<Refused>()) {
            return self.failure(Outcome::Misconfigured, "refused by the address guard", refused);
        }
        let tls = chain(error).find_map(|cause| cause.downcast_ref::<rustls::Error>());
        if tls.is_some_and(refuses_client) {
            return self.failure(Outcome::Misconfigured, "the client certificate is refused", cause);
        }
        if cause.to_string() == PROXY_LOGIN {
            return self.failure(Outcome::Misconfigured, "the proxy refuses the login", cause);
        }
        let status = match (error.is_timeout(), error.is_connect()) {
            (true, true) => "connect timed out",
            (true, false) => "timed out",
            _ if tls.is_some() => "TLS failed",
            _ if kind == Some(io::ErrorKind::ConnectionRefused) => "connection refused",
            _ if kind == Some(io::ErrorKind::ConnectionReset) => "connection reset",
            (false, true) => "connect failed",
            (false, false) => "connection lost",
        };
        self.failure(Outcome::Retry, status, cause)
    }

    fn failure(&self, outcome: Outcome, status: &str, cause: &dyn fmt::Display) -> AttemptReport {
        let excerpt = self.excerpt(cause.to_string().as_bytes(), Vec::new());
        AttemptReport { outcome, status: status.into(), excerpt, spent: None, receipt: None }
    }

    fn excerpt(&self, text: &[u8], secrets: Vec<Secret>) -> String {
        let spoken = self.authorization.as_ref().and_then(Authorization::spoken);
        self.redactor.with(spoken.into_iter().chain(secrets)).excerpt(text)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Endpoint").field("url", &self.url).field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// The body up to [`MAX_ANSWER_BYTES`], and whether that is all of it. The status stands even when the body is cut.
async fn read_bounded(response: &mut reqwest::Response) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = MAX_ANSWER_BYTES - body.len();
                let taken = chunk.get(..room).unwrap_or(&chunk);
                body.extend_from_slice(taken);
                if taken.len() < chunk.len() || body.len() == MAX_ANSWER_BYTES {
                    return (body, false);
                }
            }
            Ok(None) => return (body, true),
            Err(_) => return (body, false),
        }
    }
}

/// An error and its causes. An `io::Error` passes over what it wraps when asked for its source, so it is asked otherwise.
pub(in crate::sink) fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        let error: &'a (dyn StdError + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

pub(in crate::sink) fn root<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    chain(error).last().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::sink::contract::{CANARY, Loopback, Reply, StoppedClock, TEST_LIMITS};

    fn spec(url: &str) -> EndpointSpec {
        let url = SinkUrl::new(Url::parse(url).expect("valid"));
        EndpointSpec { limits: TEST_LIMITS, ..EndpointSpec::new(url, Arc::new(StoppedClock)) }
    }

    fn resolving_to(addresses: &'static [&'static str]) -> Lookup {
        Arc::new(move |_| {
            let parsed = addresses.iter().map(|text| text.parse::<SocketAddr>().expect("an address")).collect();
            Box::pin(async move { Ok(parsed) })
        })
    }

    async fn post(spec: EndpointSpec) -> Result<Answer, AttemptReport> {
        let endpoint = Endpoint::build(spec).expect("builds");
        let shown = format!("{endpoint:?}");
        assert!(!shown.contains(CANARY), "{shown}");
        let sent = endpoint.send(Method::POST, HeaderMap::new(), Bytes::from_static(b"{}")).await;
        if let Err(report) = &sent {
            let shown = format!("{report:?}");
            assert!(!shown.contains(CANARY) && !shown.contains("rebind.example"), "{shown}");
        }
        sent
    }

    #[tokio::test]
    async fn every_resolved_address_is_vetted() {
        let cases: [(&[&str], bool); 5] = [
            (&["169.254.169.254:0"], true),
            (&["[::ffff:169.254.169.254]:0"], true),
            (&["[fd00:ec2::254]:0"], true),
            (&["8.8.8.8:0", "169.254.169.254:0"], true),
            (&["127.0.0.1:0"], false),
        ];
        for (addresses, allow_private) in cases {
            let mut spec = spec(&format!("http://rebind.example/{CANARY}"));
            (spec.lookup, spec.policy) = (resolving_to(addresses), Policy { allow_private });
            let report = post(spec).await.err().expect("refused");
            assert_eq!(report.outcome, Outcome::Misconfigured, "{addresses:?}: {report:?}");
            assert_eq!(report.status, "refused by the address guard", "{addresses:?}");
        }
    }

    #[tokio::test]
    async fn a_literal_is_vetted_again_before_each_request() {
        let server = Loopback::start(Reply::Http("200 OK", vec![], vec![])).await;
        let mut endpoint = Endpoint::build(spec(server.url("/").as_str())).expect("builds");
        endpoint.policy = Policy { allow_private: false };
        let report = endpoint.send(Method::POST, HeaderMap::new(), Bytes::new()).await.err().expect("refused");
        assert_eq!((report.outcome, server.received().len()), (Outcome::Misconfigured, 0));
    }

    #[tokio::test]
    async fn a_vetted_name_is_reached_at_the_vetted_address() {
        let server = Loopback::start(Reply::Http("200 OK", vec![], b"ok".to_vec())).await;
        let mut spec = spec(&format!("http://hooks.example:{}/{CANARY}", server.address.port()));
        spec.lookup = resolving_to(&["127.0.0.1:0"]);
        let answer = post(spec).await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.body.as_slice(), answer.complete), (200, b"ok".as_slice(), true));
        let host = format!("hooks.example:{}", server.address.port());
        assert_eq!(server.received()[0].header("host"), Some(host.as_str()));
        assert_eq!(server.received()[0].header("accept-encoding"), None);
    }

    #[tokio::test]
    async fn a_name_that_is_not_found_is_retried() {
        let mut spec = spec(&format!("http://rebind.example/{CANARY}"));
        spec.lookup = Arc::new(|_| Box::pin(async { Err(io::Error::new(io::ErrorKind::NotFound, "no such name")) }));
        let report = post(spec).await.err().expect("fails");
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "connect failed"));
    }

    #[tokio::test]
    async fn at_most_the_limit_is_read_of_an_answer() {
        for (length, complete) in [(MAX_ANSWER_BYTES - 1, true), (MAX_ANSWER_BYTES + 1, false)] {
            let server = Loopback::start(Reply::Http("200 OK", vec![], vec![b'a'; length])).await;
            let answer = post(spec(server.url("/").as_str())).await.expect("answered");
            assert_eq!((answer.body.len(), answer.complete), (length.min(MAX_ANSWER_BYTES), complete));
        }
        let server = Loopback::start(Reply::Endless).await;
        let answer = post(spec(server.url("/").as_str())).await.expect("answered");
        assert_eq!((answer.body.len(), answer.complete), (MAX_ANSWER_BYTES, false));
    }
}
