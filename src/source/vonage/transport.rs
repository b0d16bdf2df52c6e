//! How a request of the Audit API client travels: one small trait, so that a simulation answers in process, and the
//! real one over HTTPS.
//!
//! It never follows a redirect or a link, never reads more than a bound, and no error of it shows a URL, a header or a
//! credential. Roots are bundled: an image without CA files must be able to poll.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;
use vigie_engine::event::MAX_EVENT_BYTES;

use crate::pipeline::BoxFuture;
use crate::secret::Secret;

/// A host that does not take a connection within this time is down.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request that takes longer is given up, body included: twice the poll interval.
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest body that is read: 100 rows of 128 KiB and some, and little enough for a sidecar.
pub const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// What is kept of a body that was given up: its first row, were it as long as two events may be.
pub const MAX_PARTIAL_BYTES: usize = 2 * MAX_EVENT_BYTES;

/// Request methods of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Ask for the event types.
    Options,
}

/// What came back, whatever the status.
#[derive(Debug, Clone, Default)]
pub struct HttpAnswer {
    /// HTTP status.
    pub status: u16,
    /// `Date`, as it came.
    pub date: Option<String>,
    /// `Retry-After`, as it came.
    pub retry_after: Option<String>,
    /// `Content-Type`, as it came.
    pub content_type: Option<String>,
    /// Body, at most [`MAX_BODY_BYTES`].
    pub body: Bytes,
}

/// The beginning of an answer that was given up while its body was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partial {
    /// HTTP status.
    pub status: u16,
    /// `Date`, as it came.
    pub date: Option<String>,
    /// The body as far as it was read, at most [`MAX_PARTIAL_BYTES`].
    pub body: Bytes,
}

impl Partial {
    /// Without a `Date`. The body is copied, so that the rest of it is not held.
    #[must_use]
    pub fn of(status: u16, body: &[u8]) -> Self {
        let body = body.get(..body.len().min(MAX_PARTIAL_BYTES)).unwrap_or_default();
        Self { status, date: None, body: Bytes::copy_from_slice(body) }
    }
}

/// Why nothing usable came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection: name, route, TLS.
    #[error("connection failed ({0})")]
    Connect(&'static str),
    /// No answer began within the time.
    #[error("timed out")]
    Timeout,
    /// The answer began and did not end within the time.
    #[error("timed out within the answer")]
    Slow(Partial),
    /// The connection broke within the answer.
    #[error("the connection broke within the answer")]
    Cut,
    /// More than [`MAX_BODY_BYTES`].
    #[error("the answer is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge(Partial),
}

/// Carries one request. `path_and_query` is relative to the base (`/events?page=1`).
pub trait Transport: Send + Sync {
    /// Sends it and reads the whole answer within bounds of time and size.
    fn request<'a>(
        &'a self,
        method: Method,
        path_and_query: &'a str,
    ) -> BoxFuture<'a, Result<HttpAnswer, TransportError>>;
}

/// Where and as whom to ask.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Up to and including `/beta/audit`.
    pub base_url: Url,
    /// HTTP Basic user.
    pub api_key: String,
    /// HTTP Basic password.
    pub api_secret: Secret,
    /// PEM file with more roots (a proxy that inspects TLS, a test server).
    pub extra_roots: Option<PathBuf>,
    /// Proxy; none is taken from the environment.
    pub proxy: Option<Url>,
}

/// Why a transport cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The base cannot be used.
    #[error("base_url must be http or https, without query, fragment or credentials")]
    BaseUrl,
    /// Characters that no header can carry.
    #[error("the API key and secret cannot be sent in a header")]
    Credentials,
    /// The extra roots cannot be read.
    #[error("cannot read root certificates from {path}")]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// TLS set-up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The HTTP client or its proxy.
    #[error("the HTTP client cannot be set up")]
    Http(#[source] reqwest::Error),
}

/// The real transport.
pub struct HttpTransport {
    client: reqwest::Client,
    base: String,
}

impl std::fmt::Debug for HttpTransport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("HttpTransport").field("base", &self.base).finish_non_exhaustive()
    }
}

impl HttpTransport {
    /// Builds the client: the only place of this source where time-outs and limits are set.
    ///
    /// # Errors
    /// When the options cannot work; nothing is sent.
    pub fn new(options: &HttpOptions) -> Result<Self, BuildError> {
        let base = &options.base_url;
        let plain = matches!(base.scheme(), "http" | "https") && base.query().is_none() && base.fragment().is_none();
        if !plain || !base.username().is_empty() || base.password().is_some() {
            return Err(BuildError::BaseUrl);
        }
        #[expect(clippy::disallowed_methods, reason = "time-outs and limits are set right here")]
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config(options.extra_roots.as_deref())?)
            .default_headers(headers(options)?)
            .user_agent(concat!("vigie/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy();
        if let Some(proxy) = &options.proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy.clone()).map_err(hide_url)?);
        }
        let client = builder.build().map_err(hide_url)?;
        Ok(Self { client, base: base.as_str().trim_end_matches('/').to_owned() })
    }
}

fn hide_url(error: reqwest::Error) -> BuildError {
    BuildError::Http(error.without_url())
}

fn headers(options: &HttpOptions) -> Result<HeaderMap, BuildError> {
    let pair = format!("{}:{}", options.api_key, options.api_secret.expose());
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).map_err(|_| BuildError::Credentials)?;
    value.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, value);
    headers.insert(reqwest::header::ACCEPT, HeaderValue::from_static("application/json"));
    Ok(headers)
}

fn tls_config(extra_roots: Option<&Path>) -> Result<rustls::ClientConfig, BuildError> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = extra_roots {
        let fail = |cause: Box<dyn std::error::Error + Send + Sync>| BuildError::Roots { path: path.to_owned(), cause };
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fail(Box::new(error)))? {
            let certificate = certificate.map_err(|error| fail(Box::new(error)))?;
            roots.add(certificate).map_err(|error| fail(Box::new(error)))?;
        }
        if roots.len() == before {
            return Err(fail("it holds no certificate".into()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(BuildError::Tls)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

impl Transport for HttpTransport {
    fn request<'a>(
        &'a self,
        method: Method,
        path_and_query: &'a str,
    ) -> BoxFuture<'a, Result<HttpAnswer, TransportError>> {
        Box::pin(async move {
            let method = match method {
                Method::Get => reqwest::Method::GET,
                Method::Options => reqwest::Method::OPTIONS,
            };
            let request = self.client.request(method, format!("{}{path_and_query}", self.base));
            let mut response = request.send().await.map_err(|error| classify(&error))?;
            let mut body = BytesMut::new();
            loop {
                match response.chunk().await {
                    Ok(None) => break,
                    Ok(Some(chunk)) if body.len() + chunk.len() > MAX_BODY_BYTES => {
                        body.extend_from_slice(&chunk);
                        return Err(TransportError::TooLarge(partial(&response, &body)));
                    }
                    Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                    Err(error) if error.is_timeout() => return Err(TransportError::Slow(partial(&response, &body))),
                    Err(error) => return Err(classify(&error)),
                }
            }
            Ok(HttpAnswer {
                status: response.status().as_u16(),
                date: header(&response, DATE),
                retry_after: header(&response, RETRY_AFTER),
                content_type: header(&response, CONTENT_TYPE),
                body: body.freeze(),
            })
        })
    }
}

fn header(response: &reqwest::Response, name: HeaderName) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn partial(response: &reqwest::Response, body: &[u8]) -> Partial {
    Partial { date: header(response, DATE), ..Partial::of(response.status().as_u16(), body) }
}

/// Only the kind of failure: the library's own words may hold the URL.
fn classify(error: &reqwest::Error) -> TransportError {
    if error.is_timeout() {
        TransportError::Timeout
    } else if error.is_connect() {
        TransportError::Connect("name, route or TLS")
    } else if error.is_builder() {
        TransportError::Connect("the request cannot be built")
    } else {
        TransportError::Cut
    }
}
