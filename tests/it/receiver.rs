//! An HTTP destination that remembers every request and answers as it is told.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) at: tokio::time::Instant,
    /// It was answered with 2xx.
    pub(crate) accepted: bool,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// How it answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Status(u16, Vec<(&'static str, String)>, String),
    /// 200 after a while.
    Slow(Duration),
    /// Never.
    Stall,
    /// As told next, once `answer` is called again.
    Hold,
    /// This status, with everything that the request said: address, headers, body.
    Echo(u16),
}

impl Answer {
    pub(crate) fn ok() -> Self {
        Self::Status(200, Vec::new(), "ok".into())
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), String::new())
    }
}

#[derive(Clone)]
struct Shared {
    received: Arc<Mutex<Vec<Received>>>,
    count: watch::Sender<usize>,
    answer: watch::Sender<Answer>,
}

/// A running destination. It ends with the value.
pub(crate) struct Receiver {
    pub(crate) url: String,
    shared: Shared,
    stop: CancellationToken,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let shared =
            Shared { received: Arc::default(), count: watch::Sender::new(0), answer: watch::Sender::new(Answer::ok()) };
        let stop = CancellationToken::new();
        let router = Router::new().fallback(take).with_state(shared.clone());
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(async move { served.await.expect("it serves") });
        Self { url, shared, stop }
    }

    pub(crate) fn answer(&self, answer: Answer) {
        self.shared.answer.send_replace(answer);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `enough` says so of everything received; `false` when it does not within the time.
    pub(crate) async fn wait(&self, patience: Duration, enough: impl Fn(&[Received]) -> bool) -> bool {
        let mut count = self.shared.count.subscribe();
        let waiting = async {
            while !enough(&self.received()) {
                if count.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(patience, waiting).await.is_ok()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn take(State(shared): State<Shared>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let mut told = shared.answer.subscribe();
    let now = told.borrow_and_update().clone();
    let accepted = matches!(now, Answer::Status(200..300, ..) | Answer::Slow(_) | Answer::Hold);
    let echo = format!("{uri}\n{headers:?}\n{}", String::from_utf8_lossy(&body));
    let count = {
        let mut received = shared.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.push(Received { method, uri, headers, body, at: tokio::time::Instant::now(), accepted });
        received.len()
    };
    shared.count.send_replace(count);
    let answer = match now {
        Answer::Hold => match told.changed().await {
            Ok(()) => told.borrow().clone(),
            Err(_) => Answer::Stall,
        },
        other => other,
    };
    match answer {
        Answer::Stall | Answer::Hold => std::future::pending().await,
        Answer::Slow(pause) => {
            tokio::time::sleep(pause).await;
            StatusCode::OK.into_response()
        }
        Answer::Echo(status) => respond(status, Vec::new(), echo),
        Answer::Status(status, headers, body) => respond(status, headers, body),
    }
}

fn respond(status: u16, headers: Vec<(&'static str, String)>, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().expect("a header value"));
    }
    response
}
