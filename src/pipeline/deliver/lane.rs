//! One lane: claim, send, judge, settle, and wait for the next thing to do.
//!
//! It is one loop in one task and owns all of its state. It waits in a single place that does nothing else, so that no result
//! can be lost when one thing overtakes another; sends that ended and are not settled yet count as in flight, because both
//! are what kill -9 would repeat.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics::{counter, gauge, histogram};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use vigie_engine::alert::Alert;
use vigie_engine::text::single_line;
use vigie_engine::time::format_duration;

use super::flights::{Flights, Landed};
use super::health::{Attempt, Health, Next, Now, later};
use super::outbox::Outbox;
use super::pacer::Pacer;
use super::storm::Storm;
use super::{
    IDLE_RECHECK, LEASE, LaneNotice, LaneNoticeKind, Lanes, MACHINE_IN_FLIGHT, MAX_DRAIN, MAX_SEND, PERSON_IN_FLIGHT,
};
use crate::metrics as names;
use crate::pace::Pace;
use crate::pipeline::ingest::Outlet;
use crate::sink::update::Follow;
use crate::sink::{
    AttemptReport, Delivery, Form, MAX_EXCERPT_CHARS, Outcome, RenderContext, RetryProfile, Sink, delivery_id,
};
use crate::store::{LaneState, MAX_CLAIM, Queue, Resolution, Result, Settlement};

/// Rows claimed for each send that may be in flight: enough to share a commit, few enough to be sent within the lease.
const CLAIMS_PER_FLIGHT: usize = 8;
/// How long after its claim a row may still be sent: its send then ends within the lease.
const SENDABLE: Duration = LEASE.saturating_sub(MAX_SEND);
/// Shortest time between two looks, whatever the store says is due.
const MIN_RECHECK: Duration = Duration::from_millis(10);
/// What the ledger keeps of a status.
const MAX_STATUS_CHARS: usize = 100;

/// One sink's way out.
pub struct Lane {
    pub(super) name: String,
    sink: Arc<dyn Sink>,
    pub(super) shared: Lanes,
    in_flight_limit: usize,
    pub(super) health: Health,
    pacer: Pacer,
    claimed: VecDeque<Delivery>,
    lease_ends: Instant,
    flights: Flights,
    outbox: Outbox,
    /// Rows may be due: a claim is worth its commit.
    due: bool,
    /// The outbox holds rows that will be due again.
    gave_back: bool,
    next_look: Instant,
    /// Since when the oldest waits, at the last look.
    oldest: Option<DateTime<Utc>>,
    pub(super) storm: Option<Storm>,
    pub(super) next_fold: Instant,
}

/// What a lane waited for.
enum Turn {
    Landed(Landed),
    Woken,
    Look,
    Nothing,
}

impl Lane {
    /// See [`Lanes::lane`].
    pub(super) fn new(shared: Lanes, name: &str, sink: Arc<dyn Sink>, state: LaneState) -> Self {
        let now = now(&shared);
        let profile = sink.retry_profile();
        let own_seed = name.bytes().fold(shared.jitter_seed, |seed, byte| seed.rotate_left(7) ^ u64::from(byte));
        Self {
            name: name.to_owned(),
            in_flight_limit: match profile {
                RetryProfile::Machine => MACHINE_IN_FLIGHT,
                RetryProfile::Person => PERSON_IN_FLIGHT,
            },
            health: Health::new(profile, own_seed, state, shared.own_pauses.until(name), now),
            shared,
            pacer: Pacer::default(),
            sink,
            claimed: VecDeque::new(),
            lease_ends: now.instant,
            flights: Flights::default(),
            outbox: Outbox::default(),
            due: true,
            gave_back: false,
            next_look: now.instant,
            oldest: None,
            storm: None,
            next_fold: now.instant,
        }
    }

    /// Folds what waits beyond a limit.
    #[must_use]
    pub fn folding(mut self, storm: Option<Storm>) -> Self {
        self.storm = storm;
        self
    }

    /// The sink as it renders.
    pub(super) fn outlet(&self, follow: Option<Follow>) -> Outlet {
        Outlet { name: self.name.clone(), sink: Arc::clone(&self.sink), follow }
    }

    /// Keeps below the destination's limit, if it has one.
    #[must_use]
    pub fn paced(mut self, pace: Option<Pace>) -> Self {
        self.pacer = Pacer::new(pace);
        self
    }

    /// Runs until `stop`; then waits for the sends in flight and settles them, so that none is sent twice.
    ///
    /// # Errors
    /// As [`super::run`].
    pub async fn run(mut self, mut wake: watch::Receiver<()>, stop: CancellationToken) -> Result<()> {
        while !stop.is_cancelled() {
            if !self.advance().await? {
                let turn = self.turn(Some(&mut wake), &stop).await;
                self.take(turn).await?;
            }
        }
        self.close().await
    }

    /// Runs until nothing is due and nothing is in flight; what waits in back-off stays.
    ///
    /// # Errors
    /// As [`super::run`]; also when the disk stays full.
    pub async fn drain(mut self, stop: CancellationToken) -> Result<(String, Queue)> {
        while !stop.is_cancelled() && !self.outbox.full_disk.lasts(MAX_DRAIN, Instant::now()) {
            if self.advance().await? {
                continue;
            }
            let pausing = self.health.paused_until(Instant::now()).is_some();
            if self.flights.is_empty() && self.claimed.is_empty() && self.outbox.is_empty() && (pausing || !self.due) {
                break;
            }
            let turn = self.turn(None, &stop).await;
            self.take(turn).await?;
        }
        let (name, store) = (self.name.clone(), Arc::clone(&self.shared.store));
        self.close().await?;
        let left = store.queue(&name).await?;
        Ok((name, left))
    }

    /// Does what can be done without waiting for a send or for time to pass; whether there was anything.
    async fn advance(&mut self) -> Result<bool> {
        self.start_sends();
        let now = Instant::now();
        if self.flush_at().is_some_and(|at| at <= now) {
            self.flush().await?;
            return Ok(true);
        }
        if self.may_claim(now) {
            if self.pacer.is_ready(now) {
                self.claim().await?;
                return Ok(true);
            }
        } else if self.claimed.is_empty() {
            // Others may have it; kept, it would be one send too many later.
            self.pacer.give_back();
        }
        Ok(false)
    }

    /// Waits for the next thing to do. It only waits, so that nothing is lost when one branch overtakes another.
    async fn turn(&mut self, wake: Option<&mut watch::Receiver<()>>, stop: &CancellationToken) -> Turn {
        let now = Instant::now();
        let look_at = self.next_look_at(now);
        let act_at = self.flush_at().into_iter().chain(self.pacer.wakes_at(now)).fold(look_at, Instant::min);
        tokio::select! {
            () = stop.cancelled() => Turn::Nothing,
            () = woken(wake) => Turn::Woken,
            Some(landed) = self.flights.next(), if !self.flights.is_empty() => Turn::Landed(landed),
            () = sleep_until(act_at) => if act_at < look_at { Turn::Nothing } else { Turn::Look },
        }
    }

    async fn take(&mut self, turn: Turn) -> Result<()> {
        match turn {
            Turn::Landed(landed) => self.settle(landed).await?,
            Turn::Woken => self.due = true,
            Turn::Look => self.look().await?,
            Turn::Nothing => {}
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.outbox.flush(&self.name, &*self.shared.store).await?;
        if self.outbox.is_empty() {
            self.due |= std::mem::take(&mut self.gave_back);
        }
        Ok(())
    }

    fn now(&self) -> Now {
        now(&self.shared)
    }

    fn may_claim(&self, now: Instant) -> bool {
        let room = self.in_flight() < self.limit();
        let storage_waits = self.outbox.full_disk.until().is_some_and(|until| until > now);
        let unwritten = self.outbox.full_disk.until().is_some() && !self.outbox.is_empty();
        self.due
            && room
            && self.claimed.is_empty()
            && !storage_waits
            && !unwritten
            && self.health.paused_until(now).is_none()
    }

    /// At once when nothing is in flight that could share the commit, or when half of what may be in flight waits.
    fn flush_at(&self) -> Option<Instant> {
        self.outbox.flush_at(self.flights.is_empty() || self.outbox.attempts() * 2 >= self.in_flight_limit)
    }

    fn in_flight(&self) -> usize {
        self.flights.len() + self.outbox.attempts()
    }

    fn limit(&self) -> usize {
        if self.health.is_probing() { 1 } else { self.in_flight_limit }
    }

    async fn claim(&mut self) -> Result<()> {
        let now = self.now();
        // Only what failed is noted: a look that wrote nothing says nothing about the disk.
        if let Err(error) = self.fold_storm(now.instant).await {
            self.outbox.full_disk.note(Err::<(), _>(error), now.instant)?;
            return Ok(());
        }
        let batch = (self.in_flight_limit * CLAIMS_PER_FLIGHT).min(MAX_CLAIM);
        let limit = if self.health.is_probing() { 1 } else { batch.min(self.pacer.worth(SENDABLE, now.instant)) };
        let claimed = self.shared.store.claim(&self.name, now.steady, later(now.steady, LEASE), limit).await;
        let Some(rows) = self.outbox.full_disk.note(claimed, now.instant)? else {
            return Ok(());
        };
        self.due = rows.len() >= limit;
        if rows.is_empty() {
            // What is due and cannot be claimed waits for an earlier word about the same alert.
            self.next_look = now.instant + IDLE_RECHECK;
        } else if !self.due {
            // A look counts all that waits; while more is due than was claimed, it would be one at each claim.
            self.next_look = now.instant + MIN_RECHECK;
        }
        self.lease_ends = now.instant + LEASE;
        // Not so a settlement: it may live off the ballast.
        if !rows.is_empty() {
            self.shared.status.stored();
        }
        // `deliveries retry` may make a row due while it is in flight; its own result will settle it.
        let again = |row: &Delivery| self.flights.carry(&row.delivery_id) || self.outbox.holds(&row.delivery_id);
        self.claimed.extend(rows.into_iter().filter(|row| !again(row)));
        Ok(())
    }

    /// Starts what may be in flight and gives back what may not be sent any more under this claim.
    fn start_sends(&mut self) {
        let now = self.now();
        let paused = self.health.paused_until(now.instant).is_some();
        let lease_too_short = now.instant + MAX_SEND >= self.lease_ends;
        if paused || lease_too_short {
            self.release_claimed(now);
            return;
        }
        while self.in_flight() < self.limit() && !self.claimed.is_empty() && self.pacer.admit(now.instant) {
            let Some(delivery) = self.claimed.pop_front() else { break };
            self.flights.start(&self.sink, delivery, self.health.epoch(), now.wall);
        }
    }

    /// Judges an attempt and puts it down for the ledger.
    async fn settle(&mut self, landed: Landed) -> Result<()> {
        let Landed { delivery, epoch, started_at, latency, report } = landed;
        let now = self.now();
        let epoch_before = self.health.epoch();
        let paused_before = self.health.state().paused_until;
        let resolution = match self.health.judge(&Attempt { delivery: &delivery, report: &report, epoch }, now) {
            Next::Settle(resolution) => resolution,
            Next::Plain => match self.plain_body(&delivery).await? {
                Some(body) => Resolution::Degraded(now.steady, body),
                None => Resolution::Dead,
            },
        };
        self.shared.own_pauses.note(&self.name, self.health.own_until());
        if let Some(pause) = report.spent {
            self.health.hold(pause, &report.status, now);
        }
        if self.health.epoch() != epoch_before || self.health.state().paused_until != paused_before {
            self.outbox.set_lane(self.health.state().clone(), now.instant);
        }
        self.gave_back |=
            matches!(resolution, Resolution::RetryAt(_) | Resolution::Refused(_) | Resolution::Degraded(..));
        self.count(&delivery, &report, &resolution, now);
        let settlement = Settlement {
            delivery_id: delivery.delivery_id.clone(),
            resolution,
            started_at,
            latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
            status: single_line(&report.status, MAX_STATUS_CHARS),
            excerpt: single_line(&report.excerpt, MAX_EXCERPT_CHARS),
            receipt: report.receipt,
        };
        self.outbox.push(settlement, now.instant);
        Ok(())
    }

    /// The plain text of a refused alert; `None` when it was this text that was refused, or the alert is gone. An update is
    /// plain from the start, and the alert in its place would be told twice.
    async fn plain_body(&self, delivery: &Delivery) -> Result<Option<Vec<u8>>> {
        if delivery.delivery_id != delivery_id(&delivery.alert_id, &self.name) {
            return Ok(None);
        }
        let Some(alert) = self.shared.alerts.alert(&delivery.alert_id).await? else {
            return Ok(None);
        };
        // Not the present time: a text that differed at each refusal would be refused for ever.
        let now = delivery.created_at;
        let context = RenderContext { delivery_id: &delivery.delivery_id, now, form: Form::Plain };
        let alert = Alert { note: delivery.note.clone(), ..alert };
        let rendered = catch_unwind(AssertUnwindSafe(|| self.sink.render(&alert, &context)));
        match rendered {
            Ok(Ok(body)) => Ok(Some(body).filter(|body| *body != delivery.body)),
            Ok(Err(error)) => {
                tracing::warn!(sink = ?self.name, ?error, "no plain text");
                Ok(None)
            }
            Err(_) => {
                tracing::error!(sink = ?self.name, "panic while rendering plain text");
                Ok(None)
            }
        }
    }

    fn count(&mut self, delivery: &Delivery, report: &AttemptReport, resolution: &Resolution, now: Now) {
        let outcome = outcome_label(&report.outcome);
        counter!(names::DELIVERIES, "sink" => self.name.clone(), "outcome" => outcome).increment(1);
        if matches!(resolution, Resolution::Delivered { .. }) {
            let age = (now.steady - delivery.created_at).to_std().unwrap_or_default();
            histogram!(names::DELIVERY_LATENCY, "sink" => self.name.clone()).record(age.as_secs_f64());
        }
        if *resolution == Resolution::Dead {
            counter!(names::DEAD_LETTERS, "sink" => self.name.clone()).increment(1);
            let message = format!("delivery {} to sink {} was given up", delivery.delivery_id, self.name);
            self.tell(LaneNoticeKind::DeadLetter, message, &report.status);
        }
        if let Some(kind) = self.health.notice(&report.outcome, now.instant) {
            let message = match kind {
                LaneNoticeKind::Misconfigured => format!("sink {} refuses what it is sent", self.name),
                LaneNoticeKind::Recovered => {
                    // What is sent stays the same bytes however late it goes, so the delay is told here.
                    let oldest = self.oldest.map_or(delivery.created_at, |oldest| oldest.min(delivery.created_at));
                    let waited = (now.steady - oldest).to_std().unwrap_or_default();
                    let waited = format_duration(Duration::from_secs(waited.as_secs()));
                    format!("sink {} delivers again; its oldest alert was delayed by {waited}", self.name)
                }
                _ => format!("sink {} has delivered nothing for minutes", self.name),
            };
            self.tell(kind, message, &report.status);
        }
    }

    fn tell(&self, kind: LaneNoticeKind, message: String, status: &str) {
        let message = format!("{message} ({})", single_line(status, MAX_STATUS_CHARS));
        self.shared.notices.tell(LaneNotice { sink: self.name.clone(), kind, message });
    }

    /// Looks at the backlog: what to sleep by, and the gauges.
    async fn look(&mut self) -> Result<()> {
        let queue = self.shared.store.queue(&self.name).await?;
        let now = self.now();
        #[expect(clippy::cast_precision_loss, reason = "a gauge; exact up to 2^53 rows")]
        gauge!(names::DELIVERY_QUEUE_DEPTH, "sink" => self.name.clone()).set(queue.depth as f64);
        let oldest =
            queue.oldest_created_at.map_or(0.0, |at| (now.steady - at).to_std().unwrap_or_default().as_secs_f64());
        gauge!(names::DELIVERY_OLDEST, "sink" => self.name.clone()).set(oldest);
        let next_in = queue.next_due_at.map(|at| (at - now.steady).to_std().unwrap_or_default());
        self.oldest = queue.oldest_created_at;
        if self.health.open_if_asked(queue.asked_at, now.instant) {
            self.shared.own_pauses.note(&self.name, None);
        }
        self.due = next_in.is_some_and(|next_in| next_in.is_zero());
        let next_in = next_in.filter(|next_in| !next_in.is_zero()).unwrap_or(IDLE_RECHECK);
        self.next_look = now.instant + next_in.clamp(MIN_RECHECK, IDLE_RECHECK);
        Ok(())
    }

    fn next_look_at(&self, now: Instant) -> Instant {
        // With something due, the end of a pause is what the lane waits for, not the next look.
        [self.health.paused_until(now), self.outbox.full_disk.until().filter(|until| *until > now)]
            .into_iter()
            .flatten()
            .fold(self.next_look, Instant::min)
    }

    fn release_claimed(&mut self, now: Now) {
        while let Some(delivery) = self.claimed.pop_front() {
            self.gave_back = true;
            self.outbox.push(released(&delivery, now.steady), now.instant);
        }
    }

    /// Gives back what was not sent, waits for what was, settles all of it.
    async fn close(mut self) -> Result<()> {
        let deadline = Instant::now() + MAX_DRAIN;
        self.pacer.give_back();
        self.release_claimed(self.now());
        while !(self.flights.is_empty() && self.outbox.is_empty()) && Instant::now() < deadline {
            let until = self.flush_at().map_or(deadline, |at| at.min(deadline));
            match timeout_at(until, self.flights.next()).await {
                Ok(Some(landed)) => self.settle(landed).await?,
                Ok(None) => {
                    sleep_until(until).await;
                    self.flush().await?;
                }
                Err(_) => self.flush().await?,
            }
        }
        if !self.flights.is_empty() {
            tracing::warn!(sink = ?self.name, count = self.flights.len(), "sends did not end in time; they may repeat");
        }
        self.flush().await?;
        self.outbox.end()
    }
}

fn now(shared: &Lanes) -> Now {
    Now { instant: Instant::now(), steady: shared.clock.steady(), wall: shared.clock.now() }
}

async fn woken(wake: Option<&mut watch::Receiver<()>>) {
    if let Some(wake) = wake
        && wake.changed().await.is_ok()
    {
        return;
    }
    // Nobody wakes this lane; it goes on by its own looks.
    std::future::pending().await
}

fn released(delivery: &Delivery, at: DateTime<Utc>) -> Settlement {
    Settlement {
        delivery_id: delivery.delivery_id.clone(),
        resolution: Resolution::Released,
        started_at: at,
        latency_ms: 0,
        status: String::new(),
        excerpt: String::new(),
        receipt: None,
    }
}

fn outcome_label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Accepted => "accepted",
        Outcome::Retry => "retry",
        Outcome::Wait(_) => "wait",
        Outcome::Later(_) => "later",
        Outcome::NotYet(_) => "not_yet",
        Outcome::Needless => "needless",
        Outcome::Degrade => "degrade",
        Outcome::Misconfigured => "misconfigured",
        Outcome::Dead => "dead",
    }
}
