//! HTTP on loopback: `/healthz` (the process lives and can store), `/readyz` (it polls), `/metrics`.
//!
//! It shows state and never changes any. A request whose Host is not loopback is refused, so that a web page cannot read
//! it by pointing a name of its own at 127.0.0.1.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics::{counter, gauge};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::clock::Clock;
use crate::metrics as names;
use crate::pipeline::status::{Snapshot, Status};
use crate::store::Store;

/// What the pages show.
#[derive(Clone)]
pub struct Console {
    /// Serves the metrics.
    pub metrics: PrometheusHandle,
    /// How sources stand, and which sinks there are.
    pub status: Arc<Status>,
    /// Backlogs are read from it at each scrape.
    pub store: Arc<dyn Store>,
    /// Both clocks.
    pub clock: Arc<dyn Clock>,
}

/// Serves until `shutdown` resolves.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: tokio::net::TcpListener,
    console: Console,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .layer(middleware::from_fn(only_loopback_names))
        .with_state(console);
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn only_loopback_names(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_loopback_name(host) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, "this address answers to loopback names only\n").into_response()
}

fn is_loopback_name(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, port)| match port.parse::<u16>() {
        Ok(_) => name,
        Err(_) => host,
    });
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || literal.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn healthz(State(console): State<Console>) -> Response {
    let snapshot = console.status.snapshot();
    let status = if snapshot.store.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, &snapshot)
}

async fn readyz(State(console): State<Console>) -> Response {
    let snapshot = console.status.snapshot();
    let now = console.clock.now();
    let is_polled = snapshot.sources.values().all(|source| source.is_polled(now));
    let ready = snapshot.store.is_none() && !snapshot.sources.is_empty() && is_polled;
    answer(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &snapshot)
}

fn answer(status: StatusCode, snapshot: &Snapshot) -> Response {
    match serde_json::to_string(snapshot) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floats; counts and seconds stay far below 2^53")]
async fn metrics_page(State(console): State<Console>) -> Response {
    let now = console.clock.steady();
    for sink in &console.status.snapshot().sinks {
        let Ok(queue) = console.store.queue(sink).await else {
            return (StatusCode::SERVICE_UNAVAILABLE, "the store cannot be read\n").into_response();
        };
        let oldest_seconds = queue.oldest_created_at.map_or(0, |at| (now - at).num_seconds().max(0));
        gauge!(names::DELIVERY_QUEUE_DEPTH, "sink" => sink.clone()).set(queue.depth as f64);
        gauge!(names::DELIVERY_OLDEST, "sink" => sink.clone()).set(oldest_seconds as f64);
        // The lanes count on from here; a second kind under one name would make the page unreadable.
        counter!(names::DEAD_LETTERS, "sink" => sink.clone()).absolute(queue.dead);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], console.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_answered() {
        for good in ["localhost", "LOCALHOST:8787", "127.0.0.1", "127.0.0.1:8787", "[::1]:8787", "[::1]", "127.8.8.8"] {
            assert!(is_loopback_name(good), "{good}");
        }
        for bad in ["", "evil.example", "evil.example:8787", "192.0.2.1", "127.0.0.1.evil.example", "localhost.evil"] {
            assert!(!is_loopback_name(bad), "{bad}");
        }
    }
}
