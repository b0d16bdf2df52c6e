//! The Vonage Audit API as a source: the thin shell around the poller. One list request a `fetch`, and the look-ups
//! that its answer needs.
//!
//! It never commits anything and survives a caller that could not: an answer's consequences are offered with a cursor
//! and taken over only when the caller comes back with just that cursor.

pub mod account;
mod altered;
pub mod calibration;
pub mod client;
pub mod event;
pub mod fault;
pub mod poller;
pub mod state;
pub mod transport;
pub mod window;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::pipeline::BoxFuture;
use crate::source::vonage::altered::Altered;
use crate::source::vonage::client::{Answer, Client, ClientError};
use crate::source::vonage::event::{Row, read_row};
use crate::source::vonage::fault::Faults;
use crate::source::vonage::poller::absorb::Step;
use crate::source::vonage::poller::judge::{Finding, Judgement, MAX_PROBES, Verdict};
use crate::source::vonage::poller::{AnchorLookup, Ask, FAR_S, Observation, Poller, Probe, Request, look_backs_s};
use crate::source::vonage::state::State;
use crate::source::vonage::transport::Transport;
use crate::source::{Cursor, Fault, Fetched, Held, Seen, Source, SourceError};

pub use crate::source::vonage::poller::{DEFAULT_TIERS, Start, Tier};

/// How far a bound moves outward in search of a second without stored rows, so that counting can be exact.
const MAX_EDGE_STEPS: i64 = 8;

/// What a source is told besides where the API is.
#[derive(Debug, Clone)]
pub struct VonageOptions {
    /// The source's name: its identity in the store.
    pub name: String,
    /// Rhythms, fastest first.
    pub tiers: Vec<Tier>,
    /// From where on events are evaluated.
    pub start: Start,
    /// How far before its start the history is read at the first start, for rules that remember; it never alerts.
    pub backfill: Option<Duration>,
    /// How late an event may become visible for what waits until none can come any more.
    pub lateness: Duration,
    /// Decides jitter only.
    pub jitter_seed: u64,
}

impl VonageOptions {
    /// The default tiers with another interval for the first.
    #[must_use]
    pub fn new(name: impl Into<String>, poll_interval: Duration, start: Start) -> Self {
        let mut tiers = DEFAULT_TIERS.to_vec();
        if let Some(first) = tiers.first_mut() {
            // A look-back shorter than a few intervals would leave gaps to the slower tiers.
            first.every = poll_interval;
            first.look_back = first.look_back.max(poll_interval.saturating_mul(4));
        }
        let lateness = tiers.first().map_or(Duration::ZERO, |first| first.look_back);
        Self { name: name.into(), tiers, start, backfill: None, lateness, jitter_seed: rand::random() }
    }
}

/// One account.
#[derive(Debug)]
pub struct VonageSource {
    options: VonageOptions,
    client: Client,
    faults: Faults,
    current: Option<(Option<Cursor>, Poller)>,
    offered: Option<(Cursor, Poller)>,
    altered: Altered,
}

impl VonageSource {
    /// A source that asks through `transport`. Nothing is sent before the first `fetch`.
    #[must_use]
    pub fn new(options: VonageOptions, transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        let faults = Faults::new(options.jitter_seed);
        let client = Client::new(transport, clock);
        Self { options, client, faults, current: None, offered: None, altered: Altered::default() }
    }

    /// The poller as of `cursor`, with what it remembers in memory if that belongs to this cursor.
    fn poller_at(&mut self, cursor: Option<&Cursor>) -> Result<Poller, SourceError> {
        if let Some((offered, poller)) = self.offered.take()
            && Some(&offered) == cursor
        {
            self.altered.told();
            self.current = Some((Some(offered), poller));
        }
        if let Some((current, poller)) = &self.current
            && current.as_ref() == cursor
        {
            return Ok(poller.clone());
        }
        let look_backs_s = look_backs_s(&self.options.tiers);
        let state =
            cursor.map(|cursor| State::read(cursor, &look_backs_s)).transpose().map_err(|error| stop(&error))?;
        let poller = Poller::new(&self.options.tiers, self.options.start, state, Instant::now())
            .reading_back(self.options.backfill);
        self.current = Some((cursor.cloned(), poller.clone()));
        Ok(poller)
    }

    async fn fetch_once(&mut self, cursor: Option<&Cursor>, seen: &dyn Seen) -> Result<Fetched, SourceError> {
        let mut poller = self.poller_at(cursor)?;
        let mut request = poller.plan(Instant::now());
        self.clear_edges(&mut request, seen).await?;
        let answer = self.client.list(&request.query()).await.map_err(|error| self.failed(&error))?;
        let mut observation = self.observe(&poller, &request, answer, seen).await?;
        let judgement = if request.is_window() && !poller.must_hold(&observation.rows) {
            Some(self.judge(&poller, &request, &mut observation).await?)
        } else {
            None
        };
        self.faults.clear();
        let step = poller.absorb(&request, observation, judgement, Instant::now());
        self.offer(poller, step)
    }

    fn offer(&mut self, poller: Poller, step: Step) -> Result<Fetched, SourceError> {
        let next_in = match step.stumbles {
            0 => poller.idle_for(Instant::now()),
            stumbles => self.faults.pause(stumbles),
        };
        let cursor = poller.state.write().map_err(|error| stop(&error))?;
        let mut notices = step.notices;
        notices.extend(self.altered.notice());
        let fetched = Fetched {
            events: step.events,
            before_start: step.before_start,
            poison: step.poison,
            cursor: cursor.clone(),
            notices,
            settled_at: poller.settled_s(self.options.lateness).map(moment),
            aloud_from: poller.state.start_s.map(moment),
            learn_from: poller.learn_from_s().map(moment),
            next_in,
            windows_owed: poller.state.owed.len() as u64,
            at_fault: poller.fault().map(str::to_owned),
            finished: false,
            caught_up: poller.caught_up(),
        };
        self.offered = Some((cursor, poller));
        Ok(fetched)
    }

    fn failed(&mut self, error: &ClientError) -> SourceError {
        self.faults.classify(error, Instant::now())
    }

    /// Moves the bounds of a wide window to seconds without stored rows: rows in the seconds at the edges cannot be
    /// counted.
    async fn clear_edges(&self, request: &mut Request, seen: &dyn Seen) -> Result<(), SourceError> {
        let wide = match request.ask {
            Ask::Root(_) => true,
            Ask::Drain(window) => window.width_s() > 1,
            Ask::Survey | Ask::Zone | Ask::Walk(_) => false,
        };
        if !wide {
            return Ok(());
        }
        if let Some(from_s) = request.from_s {
            request.from_s = Some(self.empty_second(from_s, -1, seen).await?);
        }
        if let Some(to_s) = request.to_s {
            request.to_s = Some(self.empty_second(to_s, 1, seen).await?);
        }
        Ok(())
    }

    async fn empty_second(&self, second_s: i64, step_s: i64, seen: &dyn Seen) -> Result<i64, SourceError> {
        for step in 0..MAX_EDGE_STEPS {
            let candidate_s = second_s + step * step_s;
            if self.count(candidate_s, candidate_s + 1, seen).await? == 0 {
                return Ok(candidate_s);
            }
        }
        Ok(second_s)
    }

    async fn count(&self, from_s: i64, to_s: i64, seen: &dyn Seen) -> Result<u64, SourceError> {
        let (from, to) = (moment(from_s), moment(to_s));
        seen.count(&self.options.name, from, to).await.map_err(|error| store_failed(&error))
    }

    async fn observe(
        &mut self,
        poller: &Poller,
        request: &Request,
        answer: Answer,
        seen: &dyn Seen,
    ) -> Result<Observation, SourceError> {
        let Some(answered) = answer.date else {
            return Err(self.failed(&ClientError::Body(client::BodyFault::NoDate)));
        };
        let elapsed = TimeDelta::from_std(answer.elapsed).unwrap_or_default();
        let (rows, repeated) = distinct(&answer.rows, poller, answered);
        let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let held = seen.held(&self.options.name, &ids).await.map_err(|error| store_failed(&error))?;
        let new = (0..rows.len()).map(|index| held.get(index).is_none_or(|held| *held == Held::Nothing)).collect();
        self.altered.look_at(&rows, &held, &repeated);
        let (from_s, to_s) = request.countable();
        let stored = if request.is_window() && from_s < to_s { self.count(from_s, to_s, seen).await? } else { 0 };
        Ok(Observation {
            rows,
            new,
            page: answer.page,
            asked_s: (answered - elapsed).timestamp(),
            answered_s: answered.timestamp(),
            stored,
            probes: Vec::new(),
            anchor: None,
        })
    }

    /// Judges, with as many look-ups as that takes.
    async fn judge(
        &mut self,
        poller: &Poller,
        request: &Request,
        observation: &mut Observation,
    ) -> Result<Judgement, SourceError> {
        loop {
            match poller.judge(request, observation) {
                Finding::Decided(judgement) => {
                    if judgement.verdict == Verdict::Missing {
                        observation.anchor = self.look_up_anchor(poller).await;
                    }
                    return Ok(judgement);
                }
                Finding::Probe(probe) => {
                    let result = self.probe(&probe, observation.probes.len() >= MAX_PROBES).await?;
                    observation.probes.push(result);
                }
            }
        }
    }

    async fn probe(&mut self, probe: &Request, too_many: bool) -> Result<Probe, SourceError> {
        if too_many {
            return Ok(Probe::Unknown);
        }
        match self.client.list(&probe.query()).await {
            Ok(answer) if answer.rows.is_empty() => Ok(Probe::Empty),
            Ok(_) => Ok(Probe::Rows),
            // Some servers refuse pages beyond the last one.
            Err(ClientError::Rejected { .. }) => Ok(Probe::Unknown),
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn look_up_anchor(&self, poller: &Poller) -> Option<AnchorLookup> {
        let anchor = poller.state.anchor.as_ref()?;
        Some(match self.client.get(&anchor.id).await {
            Ok(Some(_)) => AnchorLookup::Found,
            Ok(None) => AnchorLookup::Gone,
            Err(_) => AnchorLookup::Failed,
        })
    }
}

impl Source for VonageSource {
    fn fetch<'a>(
        &'a mut self,
        cursor: Option<&'a Cursor>,
        seen: &'a dyn Seen,
    ) -> BoxFuture<'a, Result<Fetched, SourceError>> {
        Box::pin(self.fetch_once(cursor, seen))
    }
}

/// The rows of an answer, each id once, and those whose id stood there before.
fn distinct(raw: &[Arc<str>], poller: &Poller, answered: DateTime<Utc>) -> (Vec<Row>, Vec<Row>) {
    let zone = poller.state.calibration.zone.offset();
    let mut ids = HashSet::new();
    raw.iter().map(|row| read_row(row, zone, answered)).partition(|row| ids.insert(row.id.clone()))
}

fn moment(second_s: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second_s.clamp(0, FAR_S), 0).unwrap_or_default()
}

fn stop(error: &dyn std::error::Error) -> SourceError {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    SourceError { fault: Fault::Stop, message: format!("{error}{cause}"), notice: None }
}

/// The store answers for itself; the source just asks again.
fn store_failed(error: &crate::store::StoreError) -> SourceError {
    let pause = Duration::from_secs(1);
    SourceError { fault: Fault::RetryAfter(pause), message: error.to_string(), notice: None }
}
