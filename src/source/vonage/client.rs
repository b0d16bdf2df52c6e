//! The Audit API as calls: list, get, event types. Every failure has a type that says what must follow from it.
//!
//! It never follows `_links` (the published ones are plain http and drop the filters), never retries and never parses
//! an event: a page is split into raw rows, so that one bad row cannot cost its neighbours.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use vigie_engine::text::single_line;

use crate::clock::Clock;
use crate::source::vonage::transport::{HttpAnswer, Method, Transport, TransportError};

/// Largest `size` that the API documents.
pub const MAX_PAGE_SIZE: u32 = 100;
/// More rows than this in one answer are refused: ten times what can be asked for.
const MAX_ROWS: usize = 1_000;
/// What an error keeps of the API's own words.
const MAX_API_MESSAGE_CHARS: usize = 200;

/// How bounds are written into a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BoundForm {
    /// `2026-01-02T03:04:05Z`.
    #[default]
    Zulu,
    /// `2026-01-02T03:04:05` in the zone of the API's naive stamps.
    Naive(FixedOffset),
}

impl BoundForm {
    fn write(self, at: DateTime<Utc>) -> String {
        match self {
            Self::Zulu => at.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            Self::Naive(zone) => at.with_timezone(&zone).format("%Y-%m-%dT%H:%M:%S").to_string(),
        }
    }
}

/// What to list. Bounds are sent in whole seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Only these types; empty is all.
    pub event_types: Vec<String>,
    /// `date_from`.
    pub from: Option<DateTime<Utc>>,
    /// `date_to`.
    pub to: Option<DateTime<Utc>>,
    /// How both are written.
    pub bounds: BoundForm,
    /// Text to be found in the event's JSON; escaped here.
    pub search_text: Option<String>,
    /// From 1; 0 is left out (the first).
    pub page: u32,
    /// 1..=[`MAX_PAGE_SIZE`]; 0 is left out (the API's default).
    pub size: u32,
}

impl ListQuery {
    /// Path and query, relative to the base.
    #[must_use]
    pub fn path_and_query(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if !self.event_types.is_empty() {
            query.append_pair("event_type", &self.event_types.join(","));
        }
        if let Some(from) = self.from {
            query.append_pair("date_from", &self.bounds.write(from));
        }
        if let Some(to) = self.to {
            query.append_pair("date_to", &self.bounds.write(to));
        }
        if let Some(text) = &self.search_text {
            query.append_pair("search_text", &json_escaped(text));
        }
        if self.page > 0 {
            query.append_pair("page", &self.page.to_string());
        }
        if self.size > 0 {
            query.append_pair("size", &self.size.min(MAX_PAGE_SIZE).to_string());
        }
        let query = query.finish();
        if query.is_empty() { "/events".into() } else { format!("/events?{query}") }
    }
}

/// Legal text of a JSON string value, as the API wants it: quotes, backslashes and controls escaped, braces too.
fn json_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\\' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(character);
            }
            c if c.is_control() => escaped.extend(format!("\\u{:04x}", u32::from(c)).chars()),
            c => escaped.push(c),
        }
    }
    escaped
}

/// One page.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The rows as they came, whatever they are.
    pub rows: Vec<Arc<str>>,
    /// The beginning of a row that is too long to be read to its end.
    pub cut: Option<Arc<str>>,
    /// The page was refused, which usually means that it comes after the last one.
    pub is_refused: bool,
    /// What the API says about its pages.
    pub page: PageInfo,
    /// The server's clock.
    pub date: Option<DateTime<Utc>>,
    /// How long the request took.
    pub elapsed: Duration,
}

/// The `page` object; absent or odd numbers are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PageInfo {
    /// Rows in a page.
    pub size: Option<u64>,
    /// Rows in all pages.
    pub total_elements: Option<u64>,
    /// Number of pages.
    pub total_pages: Option<u64>,
    /// Which page this is.
    pub number: Option<u64>,
}

/// An event type that the API knows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct EventType {
    /// `APP_CREATE`.
    #[serde(rename = "type")]
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
}

/// What is wrong with a body that came with status 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// No bytes.
    Empty,
    /// `null`.
    Null,
    /// A web page.
    Html,
    /// JSON that ends too early.
    Truncated,
    /// Not JSON.
    NotJson,
    /// JSON of another shape.
    Shape,
    /// No `Date` header: without the server's clock nothing can be proven.
    NoDate,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// 401 or 403.
    #[error("the API refused the credentials with status {status}{}", note(.message))]
    Refused {
        /// Status.
        status: u16,
        /// The API's words.
        message: String,
    },
    /// 429.
    #[error("the API asks for fewer requests (429)")]
    RateLimited {
        /// Pause that it asked for.
        retry_after: Option<Duration>,
    },
    /// 5xx or 408.
    #[error("the API failed with status {status}")]
    Server {
        /// Status.
        status: u16,
        /// Pause that it asked for.
        retry_after: Option<Duration>,
    },
    /// 400 and other statuses that repeating cannot help.
    #[error("the API rejected the request with status {status}{}", note(.message))]
    Rejected {
        /// Status.
        status: u16,
        /// The API's words.
        message: String,
        /// The server's clock.
        date: Option<DateTime<Utc>>,
    },
    /// Nothing usable came back.
    #[error("no answer from the API: {0}")]
    Transport(TransportError),
    /// Status 200 with a body that is no answer.
    #[error("the API's answer is {}", .0.describe())]
    Body(BodyFault),
}

impl ClientError {
    /// How long the API said to wait.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Server { retry_after, .. } => *retry_after,
            Self::Refused { .. } | Self::Rejected { .. } | Self::Transport(_) | Self::Body(_) => None,
        }
    }
}

impl BodyFault {
    fn describe(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Null => "null",
            Self::Html => "a web page",
            Self::Truncated => "cut off within its JSON",
            Self::NotJson => "not JSON",
            Self::Shape => "JSON of an unknown shape",
            Self::NoDate => "without a Date header",
        }
    }
}

fn note(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// The client.
pub struct Client {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// `clock` is asked only when a `Retry-After` date comes without a `Date`.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self { transport, clock }
    }

    /// One page of events. Some servers refuse the page after the last one (400, 404, 410, 416, 422): that is a page
    /// without rows, and says so.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(&self, query: &ListQuery) -> Result<Answer, ClientError> {
        let asked_at = Instant::now();
        let sent = self.send(Method::Get, &query.path_and_query()).await;
        let elapsed = asked_at.elapsed();
        match sent {
            Ok(answer) => {
                let page = parse_page(&answer)?;
                Ok(Answer { date: http_date(answer.date.as_deref()), elapsed, ..page })
            }
            Err(ClientError::Rejected { status: 400 | 404 | 410 | 416 | 422, date, .. }) if query.page > 1 => {
                Ok(Answer { date, elapsed, is_refused: true, ..Answer::default() })
            }
            Err(error) => Err(error),
        }
    }

    /// One event as it came; `None` when the API does not know it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&self, id: &str) -> Result<Option<Arc<str>>, ClientError> {
        let mut path = String::from("/events/");
        for byte in id.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                path.push(char::from(byte));
            } else {
                path.extend(format!("%{byte:02X}").chars());
            }
        }
        match self.send(Method::Get, &path).await {
            Ok(answer) => {
                let text = body_text(&answer)?;
                let raw: &RawValue = serde_json::from_str(&text).map_err(|error| json_fault(&error))?;
                if !raw.get().starts_with('{') {
                    return Err(ClientError::Body(BodyFault::Shape));
                }
                Ok(Some(Arc::from(raw.get())))
            }
            Err(ClientError::Rejected { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The event types that the account may show; empty when the API says nothing (204).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn event_types(&self) -> Result<Vec<EventType>, ClientError> {
        let answer = self.send(Method::Options, "/events").await?;
        if answer.status == 204 {
            return Ok(Vec::new());
        }
        #[derive(Deserialize)]
        struct Types {
            #[serde(rename = "eventTypes")]
            event_types: Vec<EventType>,
        }
        let types: Types = serde_json::from_str(&body_text(&answer)?).map_err(|error| json_fault(&error))?;
        Ok(types.event_types)
    }

    async fn send(&self, method: Method, path_and_query: &str) -> Result<HttpAnswer, ClientError> {
        let answer = self.transport.request(method, path_and_query).await.map_err(ClientError::Transport)?;
        let status = answer.status;
        match status {
            200 => Ok(answer),
            204 if method == Method::Options => Ok(answer),
            401 | 403 => Err(ClientError::Refused { status, message: api_message(&answer) }),
            429 => Err(ClientError::RateLimited { retry_after: self.retry_after(&answer) }),
            408 | 500..=599 => Err(ClientError::Server { status, retry_after: self.retry_after(&answer) }),
            _ => Err(ClientError::Rejected {
                status,
                message: api_message(&answer),
                date: http_date(answer.date.as_deref()),
            }),
        }
    }

    /// Seconds, or an HTTP date relative to the answer's own `Date` (our clock may be off).
    fn retry_after(&self, answer: &HttpAnswer) -> Option<Duration> {
        let text = answer.retry_after.as_deref()?.trim();
        if let Ok(seconds) = text.parse::<u64>() {
            return Some(Duration::from_secs(seconds));
        }
        let until = http_date(Some(text))?;
        let now = http_date(answer.date.as_deref()).unwrap_or_else(|| self.clock.now());
        Some((until - now).to_std().unwrap_or(Duration::ZERO))
    }
}

/// An HTTP date, if it is one.
pub(super) fn http_date(text: Option<&str>) -> Option<DateTime<Utc>> {
    httpdate::parse_http_date(text?.trim()).ok().map(DateTime::<Utc>::from)
}

/// `error: message` of the API's error object, as one bounded line; nothing of any other body.
fn api_message(answer: &HttpAnswer) -> String {
    #[derive(Deserialize)]
    struct ApiError {
        #[serde(default)]
        error: String,
        #[serde(default)]
        message: String,
    }
    let Ok(told) = serde_json::from_slice::<ApiError>(&answer.body) else { return String::new() };
    let mut text = told.error;
    if !text.is_empty() && !told.message.is_empty() {
        text.push_str(": ");
    }
    text.push_str(&told.message);
    single_line(&text, MAX_API_MESSAGE_CHARS)
}

fn body_text(answer: &HttpAnswer) -> Result<std::borrow::Cow<'_, str>, ClientError> {
    // Checked first: the lossy reading, for the one bad row, is several times slower.
    let text = std::str::from_utf8(&answer.body)
        .map_or_else(|_| String::from_utf8_lossy(&answer.body), std::borrow::Cow::Borrowed);
    let shown = text.trim_start_matches(['\u{feff}', ' ', '\n', '\r', '\t']);
    let html = answer.content_type.as_deref().is_some_and(|kind| kind.trim_start().starts_with("text/html"));
    match shown.chars().next() {
        None => Err(ClientError::Body(BodyFault::Empty)),
        Some('<') => Err(ClientError::Body(BodyFault::Html)),
        Some(first) if html && first != '{' => Err(ClientError::Body(BodyFault::Html)),
        Some(_) if shown.trim_end() == "null" => Err(ClientError::Body(BodyFault::Null)),
        Some(_) => Ok(text),
    }
}

fn json_fault(error: &serde_json::Error) -> ClientError {
    ClientError::Body(match error.classify() {
        serde_json::error::Category::Eof => BodyFault::Truncated,
        serde_json::error::Category::Data => BodyFault::Shape,
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => BodyFault::NotJson,
    })
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow, rename = "_embedded")]
    embedded: Option<Embedded<'a>>,
    #[serde(borrow)]
    page: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Embedded<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// Splits a page. `_embedded` may be missing only where the page itself says that there is nothing.
fn parse_page(answer: &HttpAnswer) -> Result<Answer, ClientError> {
    let text = body_text(answer)?;
    let parsed: Page<'_> = serde_json::from_str(&text).map_err(|error| json_fault(&error))?;
    let page = parsed.page.map(parse_page_info).unwrap_or_default();
    let rows = match parsed.embedded {
        Some(embedded) => embedded.events,
        None if page.total_elements == Some(0) => Vec::new(),
        None => return Err(ClientError::Body(BodyFault::Shape)),
    };
    if rows.len() > MAX_ROWS {
        return Err(ClientError::Body(BodyFault::Shape));
    }
    let rows = rows.into_iter().map(|row| Arc::from(row.get())).collect();
    Ok(Answer { rows, page, ..Answer::default() })
}

fn parse_page_info(raw: &RawValue) -> PageInfo {
    let Ok(serde_json::Value::Object(map)) = serde_json::from_str(raw.get()) else { return PageInfo::default() };
    let number = |key: &str| match map.get(key)? {
        serde_json::Value::Number(number) => number.as_u64(),
        serde_json::Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    PageInfo {
        size: number("size"),
        total_elements: number("totalElements"),
        total_pages: number("totalPages"),
        number: number("number"),
    }
}

/// For logs and notices: an error with what caused it, never with a URL.
#[must_use]
pub fn describe(error: &ClientError) -> String {
    let mut text = error.to_string();
    if let ClientError::RateLimited { retry_after: Some(pause) }
    | ClientError::Server { retry_after: Some(pause), .. } = error
    {
        // Writing to a String cannot fail.
        if write!(text, ", pause asked for: {} s", pause.as_secs()).is_err() {
            text.push('…');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;
    use crate::clock::TokioClock;
    use crate::pipeline::BoxFuture;

    struct Canned(Mutex<VecDeque<Result<HttpAnswer, TransportError>>>);

    impl Transport for Canned {
        fn request<'a>(
            &'a self,
            _method: Method,
            _path_and_query: &'a str,
        ) -> BoxFuture<'a, Result<HttpAnswer, TransportError>> {
            let answer = self.0.lock().expect("test").pop_front().expect("an answer for each request");
            Box::pin(async move { answer })
        }
    }

    fn answer(status: u16, body: &str) -> HttpAnswer {
        HttpAnswer { status, body: bytes::Bytes::copy_from_slice(body.as_bytes()), ..HttpAnswer::default() }
    }

    fn client(answers: Vec<Result<HttpAnswer, TransportError>>) -> Client {
        let clock = TokioClock::starting_at("2026-01-02T03:04:05Z".parse().expect("valid"));
        Client::new(Arc::new(Canned(Mutex::new(answers.into()))), Arc::new(clock))
    }

    async fn list(http: HttpAnswer) -> Result<Answer, ClientError> {
        client(vec![Ok(http)]).list(&ListQuery::default()).await
    }

    #[test]
    fn a_query_is_written_and_escaped() {
        let at: DateTime<Utc> = "2026-01-02T03:04:05.678Z".parse().expect("valid");
        let query = ListQuery {
            event_types: vec!["APP_CREATE".into(), "APP_DELETE".into()],
            from: Some(at),
            to: Some(at),
            bounds: BoundForm::Naive(FixedOffset::east_opt(7200).expect("valid")),
            search_text: Some("a\"b{&c".into()),
            page: 2,
            size: 500,
        };
        assert_eq!(
            query.path_and_query(),
            "/events?event_type=APP_CREATE%2CAPP_DELETE&date_from=2026-01-02T05%3A04%3A05\
             &date_to=2026-01-02T05%3A04%3A05&search_text=a%5C%22b%5C%7B%26c&page=2&size=100"
        );
        let query = ListQuery { from: Some(at), ..ListQuery::default() };
        assert_eq!(query.path_and_query(), "/events?date_from=2026-01-02T03%3A04%3A05Z");
    }

    #[tokio::test]
    async fn a_page_keeps_rows_that_are_no_events() {
        let body = r#"{"_embedded":{"events":[{"id":"a"},17,{"b":"\ud800"},null]},
            "page":{"size":"100","totalElements":4,"totalPages":"x","number":1}}"#;
        let page = list(answer(200, body)).await.expect("a page");
        assert_eq!(page.rows.len(), 4);
        let info = PageInfo { size: Some(100), total_elements: Some(4), total_pages: None, number: Some(1) };
        assert_eq!(page.page, info);
    }

    #[tokio::test]
    async fn an_empty_page_may_lack_its_list_and_nothing_else_may() {
        assert!(list(answer(200, r#"{"page":{"totalElements":0}}"#)).await.expect("a page").rows.is_empty());
        for body in [r#"{"page":{"totalElements":3}}"#, "{}", "[]", "17", r#"{"_embedded":{"events":null}}"#] {
            assert_eq!(list(answer(200, body)).await.err(), Some(ClientError::Body(BodyFault::Shape)), "{body}");
        }
    }

    #[tokio::test]
    async fn bodies_that_are_no_answer_are_told_apart() {
        for (body, fault) in [
            ("", BodyFault::Empty),
            (" \n", BodyFault::Empty),
            ("null", BodyFault::Null),
            ("<html>", BodyFault::Html),
            (r#"{"_embedded":{"events":[{"#, BodyFault::Truncated),
            ("}", BodyFault::NotJson),
        ] {
            assert_eq!(list(answer(200, body)).await.err(), Some(ClientError::Body(fault)), "{body}");
        }
    }

    #[tokio::test]
    async fn statuses_become_types() {
        let told = r#"{"status":400,"error":"BadRequest","message":"date_from\nis odd"}"#;
        assert_eq!(
            list(answer(400, told)).await.err(),
            Some(ClientError::Rejected { status: 400, message: "BadRequest: date_from is odd".into(), date: None })
        );
        assert!(matches!(list(answer(401, "")).await, Err(ClientError::Refused { status: 401, .. })));
        assert!(matches!(list(answer(403, told)).await, Err(ClientError::Refused { status: 403, .. })));
        assert!(matches!(list(answer(503, told)).await, Err(ClientError::Server { status: 503, .. })));
        assert!(matches!(list(answer(302, told)).await, Err(ClientError::Rejected { status: 302, .. })));
    }

    #[tokio::test]
    async fn a_page_beyond_the_last_may_be_refused() {
        for status in [400, 404] {
            let refused =
                || Ok(HttpAnswer { date: Some("Fri, 02 Jan 2026 03:06:05 GMT".into()), ..answer(status, "") });
            let client = client(vec![refused(), refused()]);
            let beyond = client.list(&ListQuery { page: 2, ..ListQuery::default() }).await.expect("a page");
            assert!(beyond.rows.is_empty() && beyond.page == PageInfo::default() && beyond.date.is_some(), "{status}");
            assert!(client.list(&ListQuery { page: 1, ..ListQuery::default() }).await.is_err(), "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_read_in_both_forms() {
        for (retry_after, date, pause_s) in [
            ("17", None, Some(17)),
            ("Fri, 02 Jan 2026 03:06:05 GMT", Some("Fri, 02 Jan 2026 03:05:05 GMT"), Some(60)),
            ("Fri, 02 Jan 2026 03:06:05 GMT", None, Some(120)),
            ("Fri, 02 Jan 2026 03:00:00 GMT", None, Some(0)),
            ("soon", None, None),
        ] {
            let http =
                HttpAnswer { retry_after: Some(retry_after.into()), date: date.map(str::to_owned), ..answer(429, "") };
            let expected = ClientError::RateLimited { retry_after: pause_s.map(Duration::from_secs) };
            assert_eq!(list(http).await.err(), Some(expected), "{retry_after} {date:?}");
        }
    }

    #[tokio::test]
    async fn an_event_is_fetched_by_id_and_may_be_unknown() {
        let one = client(vec![Ok(answer(200, r#"{"id":"x"}"#)), Ok(answer(404, "{}")), Ok(answer(200, "[]"))]);
        assert_eq!(one.get("x").await, Ok(Some(Arc::from(r#"{"id":"x"}"#))));
        assert_eq!(one.get("../?y").await, Ok(None));
        assert_eq!(one.get("x").await, Err(ClientError::Body(BodyFault::Shape)));
    }

    #[tokio::test]
    async fn event_types_may_be_told_or_not() {
        let told = r#"{"eventTypes":[{"type":"APP_CREATE","description":"made"},{"type":"NEW"}]}"#;
        let types = client(vec![Ok(answer(200, told)), Ok(answer(204, ""))]);
        let names: Vec<String> = types.event_types().await.expect("types").into_iter().map(|kind| kind.name).collect();
        assert_eq!(names, ["APP_CREATE", "NEW"]);
        assert_eq!(types.event_types().await, Ok(Vec::new()));
    }
}
