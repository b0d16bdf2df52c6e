//! The stand-in API as a transport in process: what the wire would do takes (paused) time here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use vigie::clock::{Clock, TokioClock};
use vigie::pipeline::BoxFuture;
use vigie::source::vonage::transport::{HttpAnswer, MAX_BODY_BYTES, Method, TOTAL_TIMEOUT, Transport, TransportError};
use vigie_sim::{Fault, FaultPlan, Sim, SimRequest, SimResponse, World};

use super::world::Scenario;

const KEY: &str = "abcd1234";
const SECRET: &str = "canary-secret";

pub(super) struct Server {
    sim: Mutex<Sim>,
    clock: TokioClock,
    authorization: String,
}

impl Server {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let world = World::stress(&scenario.stress);
        let faults = FaultPlan::seeded(scenario.seed, scenario.faults.clone());
        let sim = Sim::new(KEY, SECRET, world.events().to_vec(), scenario.quirks.clone(), faults);
        Self {
            sim: Mutex::new(sim),
            clock: TokioClock::starting_at(scenario.stress.start),
            authorization: Sim::basic_authorization(KEY, SECRET),
        }
    }

    pub(super) fn clock(&self) -> Arc<TokioClock> {
        Arc::new(self.clock)
    }

    /// Every answer from now on is spoilt, or none.
    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        self.sim().set_fault(fault);
    }

    /// The zone of naive stamps, which only the naive connectors may know.
    pub(super) fn zone(&self) -> chrono::FixedOffset {
        self.sim().quirks().zone
    }

    pub(super) fn visible_ids(&self) -> Vec<String> {
        self.sim().visible_ids(self.clock.now())
    }

    pub(super) fn requests(&self) -> u64 {
        self.sim().requests()
    }

    pub(super) fn malformed_id(&self) -> Option<String> {
        self.sim().malformed_id().map(str::to_owned)
    }

    /// When each event happened, as far as its stamp shows it.
    pub(super) fn created_s(&self) -> HashMap<String, i64> {
        self.sim().events().map(|event| (event.id.clone(), event.created_at.timestamp())).collect()
    }

    fn sim(&self) -> MutexGuard<'_, Sim> {
        self.sim.lock().expect("no panic")
    }

    async fn carry(response: SimResponse) -> Result<HttpAnswer, TransportError> {
        let delay = match response.transport {
            vigie_sim::Transport::Whole => Duration::ZERO,
            vigie_sim::Transport::CutAfter(_) | vigie_sim::Transport::NoAnswer => return Err(TransportError::Cut),
            vigie_sim::Transport::StallFor(pause) => pause,
            vigie_sim::Transport::SlowBytes { piece_bytes, pause } => {
                pause.saturating_mul(u32::try_from(response.body.len() / piece_bytes).expect("small"))
            }
        };
        if delay >= TOTAL_TIMEOUT {
            tokio::time::sleep(TOTAL_TIMEOUT).await;
            return Err(TransportError::Timeout);
        }
        tokio::time::sleep(delay).await;
        if response.body.len() > MAX_BODY_BYTES {
            return Err(TransportError::TooLarge);
        }
        let header = |name: &str| response.header(name).map(str::to_owned);
        Ok(HttpAnswer {
            status: response.status,
            date: header("Date"),
            retry_after: header("Retry-After"),
            content_type: header("Content-Type"),
            body: response.body,
        })
    }
}

impl Transport for Server {
    fn request<'a>(
        &'a self,
        method: Method,
        path_and_query: &'a str,
    ) -> BoxFuture<'a, Result<HttpAnswer, TransportError>> {
        Box::pin(async move {
            // Way there, way back.
            tokio::time::sleep(Duration::from_millis(120)).await;
            let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
            let request = SimRequest {
                method: match method {
                    Method::Get => "GET".into(),
                    Method::Options => "OPTIONS".into(),
                },
                path: format!("/beta/audit{path}"),
                query: query.to_owned(),
                authorization: Some(self.authorization.clone()),
            };
            let response = self.sim().handle(&request, self.clock.now());
            tokio::time::sleep(Duration::from_millis(80)).await;
            Self::carry(response).await
        })
    }
}
