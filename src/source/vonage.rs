//! The Vonage Audit API as a source: the thin shell around the poller. One list request a `fetch`, and the look-ups
//! that its answer needs.
//!
//! It never commits anything and survives a caller that could not: an answer's consequences are offered with a cursor
//! and taken over only when the caller comes back with just that cursor.

pub mod account;
mod altered;
pub mod bounds;
pub mod calibration;
pub mod client;
pub mod event;
pub mod fault;
mod lookup;
pub mod partial;
pub mod poller;
pub mod state;
pub mod transport;
pub mod window;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::pipeline::BoxFuture;
use crate::source::vonage::altered::Altered;
use crate::source::vonage::bounds::BoundSecond;
use crate::source::vonage::client::{Answer, Client, ClientError, ListQuery, PageInfo, describe, http_date};
use crate::source::vonage::event::{Row, read_cut_row, read_row};
use crate::source::vonage::fault::Faults;
use crate::source::vonage::partial::{FirstRow, first_row};
use crate::source::vonage::poller::absorb::Step;
use crate::source::vonage::poller::{Ask, FAR_S, Observation, Poller, Request, look_backs_s};
use crate::source::vonage::state::{ClockMark, State};
use crate::source::vonage::transport::{Transport, TransportError};
use crate::source::{Cursor, Fault, Fetched, Held, Notice, NoticeKind, Seen, Source, SourceError};

pub use crate::source::vonage::poller::{DEFAULT_TIERS, Start, Tier};

/// How far a bound moves outward in search of a second without stored rows, so that counting can be exact.
const MAX_EDGE_STEPS: i64 = 8;

/// Shorter and shorter pages that are tried at once: from the longest to one row.
const MAX_HALVINGS: u32 = 7;
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
    clock: Arc<dyn Clock>,
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
        let client = Client::new(transport, Arc::clone(&clock));
        Self { options, client, clock, faults, current: None, offered: None, altered: Altered::default() }
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
        if let Some(was) = state.as_ref().and_then(|state| state.other_start(self.options.start)) {
            let (source, now) = (&self.options.name, self.options.start.text());
            tracing::warn!(source, %was, %now, "`start` has changed; it counts at the first run only and the old one stays");
        }
        let poller = Poller::new(&self.options.tiers, self.options.start, state, Instant::now())
            .reading_back(self.options.backfill);
        self.current = Some((cursor.cloned(), poller.clone()));
        Ok(poller)
    }

    async fn fetch_once(&mut self, cursor: Option<&Cursor>, seen: &dyn Seen) -> Result<Fetched, SourceError> {
        let mut poller = self.poller_at(cursor)?;
        let mut halvings = 0;
        let (request, answer) = loop {
            let mut request = poller.plan(Instant::now());
            self.clear_edges(&mut request, seen).await?;
            match self.ask(&request).await {
                Ok(answer) => break (request, answer),
                Err(error) if is_too_much(&error) && request.size > 1 && halvings < MAX_HALVINGS => {
                    halvings += 1;
                    poller.halve(&request, Instant::now());
                }
                Err(error) => return Err(self.failed(cursor, poller, &request, &error)),
            }
        };
        let mut observation = match self.observe(&mut poller, &request, answer, seen).await {
            Ok(observation) => observation,
            Err(Failure::Api(error)) => return Err(self.failed(cursor, poller, &request, &error)),
            Err(Failure::Store(error)) => return Err(error),
        };
        let judgement = if request.is_window() && !poller.must_hold(&observation.rows) {
            match self.judge(&poller, &request, &mut observation).await {
                Ok(judgement) => Some(judgement),
                Err(error) => return Err(self.failed(cursor, poller, &request, &error)),
            }
        } else {
            None
        };
        self.faults.clear();
        let repeated = observation.repeated();
        let step = poller.absorb(&request, observation, judgement, Instant::now());
        self.offer(poller, step, repeated)
    }

    fn offer(&mut self, poller: Poller, step: Step, repeated: u64) -> Result<Fetched, SourceError> {
        let next_in = match step.stumbles {
            0 => poller.idle_for(Instant::now()),
            stumbles => self.faults.pause(stumbles),
        };
        let cursor = poller.state.write().map_err(|error| stop(&error))?;
        let mut notices = step.notices;
        notices.extend(self.altered.notice());
        let was_quiet = self.current.as_ref().is_some_and(|(_, before)| before.is_quiet());
        let fetched = Fetched {
            events: step.events,
            before_start: step.before_start,
            poison: step.poison,
            repeated,
            cursor: cursor.clone(),
            cursor_may_wait: was_quiet && poller.is_quiet() && notices.is_empty(),
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

    /// A request failed. The poller keeps what that teaches; the cursor stays.
    fn failed(
        &mut self,
        cursor: Option<&Cursor>,
        mut poller: Poller,
        request: &Request,
        error: &ClientError,
    ) -> SourceError {
        let now = Instant::now();
        if is_too_much(error) {
            poller.halve(request, now);
        }
        let lasts = poller.failed(request, error, self.faults.others_work(now), now);
        let is_window = matches!(request.ask, Ask::Drain(_) | Ask::Walk(_));
        let mut failure = if is_window && matches!(error, ClientError::Refused { .. }) {
            // Perhaps what is old is refused, perhaps the key: roots show it.
            let by_itself = poller.is_accepted(now);
            if !by_itself {
                poller.ask_root(now);
            }
            let message = match by_itself {
                true => format!("this time is refused although the account is not: {}", describe(error)),
                false => describe(error),
            };
            SourceError { fault: Fault::RetryAfter(self.faults.pause(1)), message, notice: None }
        } else {
            self.faults.classify(error, now)
        };
        if let (true, Fault::RetryAfter(pause)) = (is_window && error.pause().is_none(), failure.fault) {
            failure.fault = Fault::RetryAfter(pause.min(poller.root_due_in(now)));
        }
        if let (None, Some(lasts)) = (&failure.notice, lasts) {
            let what = request.describe();
            let message = format!("{what} cannot be read: for {} s, {}", lasts.as_secs(), failure.message);
            failure.notice = Some(Notice { kind: NoticeKind::WindowStuck, message });
        }
        self.current = Some((cursor.cloned(), poller));
        failure
    }

    /// One page. What a server may mean by a refusal is told apart here, and a row that is too long is passed.
    async fn ask(&self, request: &Request) -> Result<Answer, ClientError> {
        let asked_at = Instant::now();
        let error = match self.client.list(&request.query()).await {
            Ok(answer) if answer.is_refused => return self.confirm_end(request, answer).await,
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let elapsed = asked_at.elapsed();
        match &error {
            // Before the start nothing but the server's clock is wanted; whether the list is there at all shows then.
            ClientError::Rejected { status: 404, date, .. }
                if request.from_s.is_none() || self.first_of_all().await.is_ok() =>
            {
                let page = PageInfo { total_elements: Some(0), ..PageInfo::default() };
                Ok(Answer { date: *date, elapsed, page, ..Answer::default() })
            }
            ClientError::Transport(TransportError::TooLarge(partial) | TransportError::Slow(partial))
                if request.size == 1 =>
            {
                let Some(first) = first_row(partial) else { return Err(error) };
                let date = http_date(partial.date.as_deref());
                let page = if request.is_window() { self.page_after(request).await } else { PageInfo::default() };
                let answer = Answer { date, elapsed, page, ..Answer::default() };
                Ok(match first {
                    FirstRow::Nothing => answer,
                    FirstRow::Whole(row) => Answer { rows: vec![row], ..answer },
                    FirstRow::Cut(row) => Answer { cut: Some(row), ..answer },
                })
            }
            _ => Err(error),
        }
    }

    /// A page was refused. There is none if the one before it is shown; else any so far behind is refused, or all are.
    async fn confirm_end(&self, request: &Request, refused: Answer) -> Result<Answer, ClientError> {
        let before = request.at_page(request.page.saturating_sub(1), request.size);
        match self.client.list(&before.query()).await {
            Ok(shown) if !shown.rows.is_empty() => Ok(refused),
            Err(ClientError::Transport(TransportError::TooLarge(_))) => Ok(refused),
            Ok(_) => {
                let message = "it refuses pages that it may have".to_owned();
                Err(ClientError::Rejected { status: 400, message, date: refused.date })
            }
            Err(error) => Err(error),
        }
    }

    /// The list without bounds. If it answers, 404 to a window means that there is nothing in it, and else that there is
    /// no such list.
    async fn first_of_all(&self) -> Result<Answer, ClientError> {
        self.client.list(&ListQuery { page: 1, size: 1, ..ListQuery::default() }).await
    }

    /// Whether the list shows anything at all; one that does not proves nothing about a window.
    async fn shows_anything(&self) -> Result<bool, ClientError> {
        match self.first_of_all().await {
            Ok(answer) => Ok(!answer.rows.is_empty()),
            Err(error) if is_too_much(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// What the next page says about all pages, where this one cannot be read to its end.
    async fn page_after(&self, request: &Request) -> PageInfo {
        let next = request.at_page(request.page.saturating_add(1), request.size);
        self.client.list(&next.query()).await.map_or_else(|_| PageInfo::default(), |answer| answer.page)
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
        poller: &mut Poller,
        request: &Request,
        answer: Answer,
        seen: &dyn Seen,
    ) -> Result<Observation, Failure> {
        let Some(date) = answer.date else {
            return Err(Failure::Api(ClientError::Body(client::BodyFault::NoDate)));
        };
        let wall_s = self.clock.now().timestamp();
        let clock = poller.read_date(date.timestamp(), wall_s, Instant::now());
        // Rounded up: a frontier may lie before the request, never after.
        let elapsed_s = i64::try_from(answer.elapsed.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX);
        let shown = answer.rows.len() as u64 + u64::from(answer.cut.is_some());
        let (rows, copies) = distinct(&answer, poller, moment(clock.at_s));
        let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let held = seen.held(&self.options.name, &ids).await.map_err(|error| store_failed(&error))?;
        let new = (0..rows.len()).map(|index| held.get(index).is_none_or(|held| *held == Held::Nothing)).collect();
        self.altered.look_at(&rows, &held, &copies);
        let (from_s, to_s) = request.countable();
        let stored = if request.is_window() && from_s < to_s { self.count(from_s, to_s, seen).await? } else { 0 };
        let mut bounds = [None; 2];
        for (bound, at_s) in bounds.iter_mut().zip([request.from_s, request.to_s]) {
            if let Some(at_s) = at_s.filter(|_| request.is_window() && shown > 0) {
                *bound = Some(BoundSecond { at_s, stored: self.count(at_s, at_s + 1, seen).await? });
            }
        }
        Ok(Observation {
            rows,
            new,
            shown,
            page: answer.page,
            asked_s: clock.frontier_s.saturating_sub(elapsed_s),
            answered_s: clock.at_s,
            believed: clock.is_believed.then_some(ClockMark { date_s: clock.at_s, wall_s }),
            stored,
            bounds,
            probes: Vec::new(),
            anchor: None,
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

/// Why an answer could not be taken.
enum Failure {
    Api(ClientError),
    Store(SourceError),
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Store(error)
    }
}

/// A shorter page would do.
fn is_too_much(error: &ClientError) -> bool {
    matches!(error, ClientError::Transport(TransportError::TooLarge(_) | TransportError::Slow(_)))
}

/// The rows of an answer, each id once, and those whose id stood there before.
fn distinct(answer: &Answer, poller: &Poller, answered: DateTime<Utc>) -> (Vec<Row>, Vec<Row>) {
    let zone = poller.state.calibration.zone.offset();
    let mut ids = HashSet::new();
    let whole = answer.rows.iter().map(|row| read_row(row, zone, answered));
    let cut = answer.cut.iter().map(|row| read_cut_row(row, zone, answered));
    whole.chain(cut).partition(|row| ids.insert(row.id.clone()))
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
