//! The stand-in API as a transport in process: what the wire would do takes (paused) time here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use vigie::clock::{Clock, TokioClock};
use vigie::pipeline::BoxFuture;
use vigie::source::vonage::transport::{HttpAnswer, Method, Partial, TOTAL_TIMEOUT, Transport, TransportError};
use vigie_sim::{Fault, FaultPlan, Sim, SimRequest, SimResponse, World};

use super::world::Scenario;

const KEY: &str = "abcd1234";
const SECRET: &str = "canary-secret";

pub(super) struct Server {
    sim: Mutex<Sim>,
    clock: TokioClock,
    authorization: String,
    our_clock_ahead: TimeDelta,
    is_away: AtomicBool,
    /// Stands in for the largest body that is read, so that worlds need not weigh as much.
    body_bytes: usize,
}

/// A clock that is off.
#[derive(Debug, Clone, Copy)]
pub(super) struct OurClock {
    server: TokioClock,
    ahead: TimeDelta,
}

impl Clock for OurClock {
    fn now(&self) -> DateTime<Utc> {
        self.server.now() + self.ahead
    }

    fn steady(&self) -> DateTime<Utc> {
        self.now()
    }
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
            our_clock_ahead: scenario.our_clock_ahead,
            is_away: AtomicBool::new(false),
            body_bytes: scenario.body_bytes,
        }
    }

    /// The clock of the machine that polls.
    pub(super) fn our_clock(&self) -> Arc<OurClock> {
        Arc::new(OurClock { server: self.clock, ahead: self.our_clock_ahead })
    }

    pub(super) fn clock(&self) -> Arc<TokioClock> {
        Arc::new(self.clock)
    }

    /// Every answer from now on is spoilt, or none.
    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        self.sim().set_fault(fault);
    }

    /// What it does from now on.
    pub(super) fn set_quirks(&self, quirks: vigie_sim::quirks::Quirks) {
        self.sim().set_quirks(quirks);
    }

    /// A second after `from` with many events.
    pub(super) fn crowded_second(&self, from: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut seconds: HashMap<i64, u32> = HashMap::new();
        for second_s in self.created_s().into_values().filter(|second_s| *second_s > from.timestamp()) {
            *seconds.entry(second_s).or_insert(0) += 1;
        }
        let (second_s, _) = seconds.into_iter().max_by_key(|(second_s, rows)| (*rows, *second_s))?;
        DateTime::from_timestamp(second_s, 0)
    }

    /// The list lies elsewhere from now on, or is back.
    pub(super) fn move_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    pub(super) fn clock_now(&self) -> DateTime<Utc> {
        self.clock.now()
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

    pub(super) fn giant_id(&self) -> Option<String> {
        self.sim().giant_id().map(str::to_owned)
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

    async fn carry(response: SimResponse, body_bytes: usize) -> Result<HttpAnswer, TransportError> {
        let partial = |bytes: usize| {
            let body = response.body.get(..bytes.min(response.body.len())).unwrap_or_default();
            Partial { date: response.header("Date").map(str::to_owned), ..Partial::of(response.status, body) }
        };
        match response.transport {
            vigie_sim::Transport::Whole => {}
            vigie_sim::Transport::CutAfter(_) | vigie_sim::Transport::NoAnswer => return Err(TransportError::Cut),
            vigie_sim::Transport::StallFor(pause) => {
                tokio::time::sleep(pause.min(TOTAL_TIMEOUT)).await;
                if pause >= TOTAL_TIMEOUT {
                    return Err(TransportError::Timeout);
                }
            }
            vigie_sim::Transport::SlowBytes { piece_bytes, pause } => {
                let pieces = u32::try_from(response.body.len() / piece_bytes).expect("small");
                let needed = pause.saturating_mul(pieces);
                tokio::time::sleep(needed.min(TOTAL_TIMEOUT)).await;
                if needed >= TOTAL_TIMEOUT {
                    let came = TOTAL_TIMEOUT.as_millis() / pause.as_millis().max(1);
                    return Err(TransportError::Slow(partial(piece_bytes * usize::try_from(came).expect("small"))));
                }
            }
        }
        if response.body.len() > body_bytes {
            return Err(TransportError::TooLarge(partial(body_bytes)));
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
                path: match self.is_away.load(Ordering::Relaxed) {
                    true => format!("/elsewhere{path}"),
                    false => format!("/beta/audit{path}"),
                },
                query: query.to_owned(),
                authorization: Some(self.authorization.clone()),
            };
            let response = self.sim().handle(&request, self.clock.now());
            tokio::time::sleep(Duration::from_millis(80)).await;
            Self::carry(response, self.body_bytes).await
        })
    }
}
