//! The stand-in API on loopback, with events pushed while it runs.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use vigie_sim::{Fault, FaultPlan, Quirks, Sim, SimEvent, SimRequest};

pub(crate) const KEY: &str = "abcd1234";
pub(crate) const SECRET: &str = "canary-api-secret-7Qx";

/// A running stand-in. It ends with the value.
pub(crate) struct Api {
    pub(crate) base_url: String,
    sim: Arc<Mutex<Sim>>,
    stop: CancellationToken,
    pushed: Mutex<Vec<String>>,
}

impl Api {
    pub(crate) async fn start() -> Self {
        let (sim, listener, base_url) = parts().await;
        let stop = CancellationToken::new();
        let served = vigie_sim::serve(listener, sim.clone(), Arc::new(now), stop.clone().cancelled_owned());
        tokio::spawn(served);
        Self { base_url, sim, stop, pushed: Mutex::new(Vec::new()) }
    }

    /// One whose bodies are rewritten on the way, for JSON that no Rust string can hold.
    pub(crate) async fn start_rewriting(rewrite: fn(String) -> String) -> Self {
        let (sim, listener, base_url) = parts().await;
        let stop = CancellationToken::new();
        let answering = sim.clone();
        let router = Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap| async move {
            let request = SimRequest {
                method: method.to_string(),
                path: uri.path().to_owned(),
                query: uri.query().unwrap_or_default().to_owned(),
                authorization: headers.get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned),
            };
            let response = answering.lock().unwrap_or_else(PoisonError::into_inner).handle(&request, now());
            let body = rewrite(String::from_utf8_lossy(&response.body).into_owned());
            let mut answer = (StatusCode::from_u16(response.status).expect("a status"), body).into_response();
            for (name, value) in response.headers {
                let name: HeaderName = name.parse().expect("a header name");
                answer.headers_mut().insert(name, value.parse().expect("a header value"));
            }
            answer
        });
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(async move { served.await.expect("it serves") });
        Self { base_url, sim, stop, pushed: Mutex::new(Vec::new()) }
    }

    /// Something happens now; gives the event's id.
    pub(crate) fn happen(&self, event_type: &'static str) -> String {
        self.happen_with(event_type, |_| {})
    }

    /// Something happens now, with details.
    pub(crate) fn happen_with(&self, event_type: &'static str, change: impl FnOnce(&mut SimEvent)) -> String {
        let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        let id = format!("00000000-0000-4000-8000-{:012}", pushed.len() + 1);
        let mut event = SimEvent::new(id.clone(), event_type, now());
        event.account_id = KEY.into();
        event.source_ip = "203.0.113.9".into();
        event.source_country = Some("KP".into());
        event.user_email = Some("mallory@example.net".into());
        event.context = json!({});
        change(&mut event);
        self.with(|sim| sim.push(event));
        pushed.push(id.clone());
        id
    }

    pub(crate) fn pushed(&self) -> Vec<String> {
        self.pushed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.with(|sim| sim.set_fault(fault));
    }

    pub(crate) fn requests(&self) -> u64 {
        self.with(|sim| sim.requests())
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Sim) -> T) -> T {
        act(&mut self.sim.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn parts() -> (Arc<Mutex<Sim>>, tokio::net::TcpListener, String) {
    let sim = Arc::new(Mutex::new(Sim::new(KEY, SECRET, Vec::new(), Quirks::default(), FaultPlan::none())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base_url = format!("http://{}/beta/audit", listener.local_addr().expect("an address"));
    (sim, listener, base_url)
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The stand-in's clock is the machine's: the binary under test lives in the same time.
#[expect(clippy::disallowed_methods, reason = "the machine's time is what the tested process sees")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}
