//! What follows from an answer: events handed on, windows owed or settled, the frontier moved, the operator told.
//!
//! A frontier moves only together with what it leaves behind: the window is proven complete, or its parts are owed in
//! the same cursor. An answer that is at fault (rows missing, filter ignored) moves nothing.

use vigie_engine::event::Event;

use crate::source::vonage::event::{Content, Row};
use crate::source::vonage::poller::judge::{Judgement, Verdict};
use crate::source::vonage::poller::walk::WalkEnd;
use crate::source::vonage::poller::{
    AnchorLookup, Ask, CLOSED_BEYOND_S, DRAINS_PER_ROOT, FAR_S, Instant, Observation, Poller, Request, Start,
    look_backs_s,
};
use crate::source::vonage::state::Anchor;
use crate::source::vonage::window::{MAX_OWED, Window};
use crate::source::{Notice, NoticeKind, Poison};

/// Answers at fault in a row after which what was stored before no longer counts as evidence: the API may have
/// dropped rows.
const MAX_STUMBLES: u32 = 10;
/// Zone probes after which naive stamps are read as UTC, the stated default, and the operator is told.
const MAX_ZONE_TRIES: u32 = 200;
/// A row dated further ahead than this is reported.
const FUTURE_SLACK_S: i64 = 60;
/// The last tier never looks back further: the usual retention of the store.
const MAX_LOOK_BACK_S: i64 = 30 * 86_400;
/// Notices of one kind from one answer; the rows themselves are all kept.
const MAX_ROW_NOTICES: usize = 5;

/// What one answer gives to the pipeline.
#[derive(Debug, Default)]
pub struct Step {
    /// To be evaluated.
    pub events: Vec<Event>,
    /// To be stored and never evaluated: they happened before the start.
    pub before_start: Vec<Event>,
    /// To be kept.
    pub poison: Vec<Poison>,
    /// For the operator.
    pub notices: Vec<Notice>,
    /// Answers at fault in a row, this one included; the next request waits accordingly.
    pub stumbles: u32,
}

impl Poller {
    /// Takes an answer. `judgement` is what `judge` decided where the request was for a window.
    pub fn absorb(&mut self, request: &Request, seen: Observation, judgement: Option<Judgement>, now: Instant) -> Step {
        self.state.step += 1;
        let mut step = Step::default();
        if let Some(judgement) = judgement {
            self.learn_totals(request, &judgement, seen.page.total_elements, &mut step);
        }
        if self.hold_for_zone(request, &seen, judgement, &mut step) {
            return step;
        }
        match request.ask {
            Ask::Survey => {
                self.begin(&seen);
                self.ingest(&seen, 0, &mut step);
            }
            Ask::Zone => self.probed_zone(request, &seen),
            Ask::Root(tier) => self.rooted(tier, request, &seen, verdict(judgement), now, &mut step),
            Ask::Drain(window) => self.drained(window, &seen, verdict(judgement), now, &mut step),
            Ask::Walk(window) => self.walked(window, &seen, now, &mut step),
        }
        self.volatile.walks.forget_settled(&self.state.owed);
        if self.state.owed.is_empty() {
            self.state.tiers.iter_mut().for_each(|tier| tier.proven = true);
        }
        step
    }

    fn begin(&mut self, seen: &Observation) {
        let start_s = match self.start {
            Start::Now => seen.asked_s,
            Start::Ago(span) => seen.asked_s - i64::try_from(span.as_secs()).unwrap_or(i64::MAX).min(seen.asked_s),
            Start::At(at) => at.timestamp(),
        };
        self.state.start_s = Some(start_s);
        self.state.tiers.iter_mut().for_each(|tier| tier.frontier_s = start_s);
        if self.backfill_s > 0 {
            // Owed like any other window: read piece by piece, proven complete, durable over restarts.
            let from_s = start_s.saturating_sub(self.backfill_s).max(0);
            self.state.owed.add(Window { from_s, to_s: start_s, proven_s: 0 });
        }
    }

    /// Rows with naive stamps are not stored under a time that may be hours off: first the zone is found out. The
    /// answer is asked for again afterwards, since nothing moved.
    fn hold_for_zone(
        &mut self,
        request: &Request,
        seen: &Observation,
        judgement: Option<Judgement>,
        step: &mut Step,
    ) -> bool {
        let zone = &mut self.state.calibration.zone;
        let Some(row) = seen.rows.iter().find_map(|row| row.naive.map(|stamp| (stamp, row.id.clone()))) else {
            return false;
        };
        match judgement.map(|judgement| judgement.verdict) {
            Some(Verdict::Ignored) => zone.doubt(),
            Some(_) => zone.confirm(),
            None => {}
        }
        if zone.proven().is_some() || request.ask == Ask::Zone {
            return false;
        }
        if self.volatile.zone_tries >= MAX_ZONE_TRIES {
            zone.assume_utc();
            let text = "the zone of stamps without one cannot be found out; they are read as UTC";
            step.notices.push(notice(NoticeKind::FilterIgnored, text));
        } else {
            self.volatile.zone_row = Some(row);
        }
        if request.ask == Ask::Survey {
            self.begin(seen);
        }
        true
    }

    /// Whether the rows were read without knowing the zone of their stamps.
    #[must_use]
    pub fn must_hold(&self, rows: &[Row]) -> bool {
        self.state.calibration.zone.proven().is_none() && rows.iter().any(|row| row.naive.is_some())
    }

    fn probed_zone(&mut self, request: &Request, seen: &Observation) {
        self.volatile.zone_tries += 1;
        let Some((stamp, id)) = self.volatile.zone_row.clone() else { return };
        let (Some(from_s), Some(to_s)) = (request.from_s, request.to_s) else { return };
        let zone = &mut self.state.calibration.zone;
        let moment = |second| chrono::DateTime::from_timestamp(second, 0).unwrap_or_default();
        let stamps: Vec<_> = seen.rows.iter().filter_map(|row| row.naive).collect();
        zone.learn(&stamps, moment(from_s), moment(to_s));
        let rows = seen.rows.len() as u64;
        let complete = seen.page.total_elements == Some(rows) || seen.page.size.is_some_and(|size| rows < size);
        if zone.proven().is_some() {
            self.volatile.zone_row = None;
            self.volatile.zone_tries = 0;
        } else if self.volatile.zone_tries >= MAX_ZONE_TRIES {
            self.volatile.zone_row = None;
        } else if !seen.rows.iter().any(|row| row.id == id) {
            if complete {
                zone.exclude(stamp, to_s);
            } else if let Some(row) = seen.rows.iter().find_map(|row| row.naive.map(|stamp| (stamp, row.id.clone()))) {
                // A row that the API does show in this window tells more than one that may be on another page.
                self.volatile.zone_row = Some(row);
            }
        }
    }

    fn learn_totals(&mut self, request: &Request, judgement: &Judgement, total: Option<u64>, step: &mut Step) {
        let calibration = &mut self.state.calibration;
        if let Some(rows) = judgement.capped_at {
            calibration.learn_cap(rows, u64::from(request.size));
        }
        if let Some(below) = judgement.confirmed_below {
            calibration.totals_confirmed_below = calibration.totals_confirmed_below.max(below);
        }
        if judgement.totals_lie {
            self.distrust_totals(total, step);
        }
    }

    fn distrust_totals(&mut self, total: Option<u64>, step: &mut Step) {
        if std::mem::replace(&mut self.state.calibration.totals_trusted, false) {
            let text = format!(
                "the API's total ({}) is not what it shows; windows are now proven complete by reading to their end",
                total.unwrap_or(0)
            );
            step.notices.push(notice(NoticeKind::TotalsUntrusted, &text));
        }
    }

    fn rooted(
        &mut self,
        tier: usize,
        request: &Request,
        seen: &Observation,
        verdict: Verdict,
        now: Instant,
        step: &mut Step,
    ) {
        let Some(old) = self.state.tiers.get(tier).cloned() else { return };
        let every = self.tiers.get(tier).map_or(std::time::Duration::ZERO, |tier| tier.every);
        if let Some(due) = self.volatile.due.get_mut(tier) {
            *due = now + every;
        }
        if matches!(verdict, Verdict::Missing | Verdict::Ignored) {
            if let Some(due) = self.volatile.due.get_mut(tier) {
                *due = now;
            }
            self.stumble(request.ask, verdict, seen, step);
            return;
        }
        self.recovered(request.ask);
        self.volatile.drains_since_root = 0;
        if let Some(rooted) = self.volatile.rooted.get_mut(tier) {
            *rooted = true;
        }
        let proven_s = if old.proven { old.frontier_s } else { 0 };
        self.ingest(seen, proven_s, step);
        // The server's Date has whole seconds and was written after the request was made.
        let start_s = seen.asked_s - 1;
        let complete = verdict == Verdict::Complete;
        if !complete {
            self.owe(tier, request, seen, start_s + CLOSED_BEYOND_S, proven_s);
        }
        if let Some(unproven) = self.volatile.unproven_roots.get_mut(tier) {
            *unproven = if complete { 0 } else { *unproven + 1 };
        }
        if let Some(tier) = self.state.tiers.get_mut(tier) {
            tier.frontier_s = tier.frontier_s.max(start_s);
            tier.proven = complete && (tier.proven || self.state.owed.is_empty());
        }
    }

    fn owe(&mut self, tier: usize, request: &Request, seen: &Observation, closed_s: i64, proven_s: i64) {
        let from_s = request.countable().0;
        let window = Window { from_s, to_s: closed_s.max(from_s + 1), proven_s };
        for part in window.split(parts(seen)) {
            self.state.owed.add(part);
        }
        let again = self.volatile.unproven_roots.get(tier).is_some_and(|unproven| *unproven > 0);
        if again || seen.rows.iter().any(|row| row.at.timestamp() >= window.to_s) {
            // What is dated in the future: closed as well, so that it is proven complete and not only glanced at.
            self.state.owed.add(Window { from_s: window.to_s, to_s: FAR_S, proven_s: 0 });
        }
    }

    fn drained(&mut self, window: Window, seen: &Observation, verdict: Verdict, now: Instant, step: &mut Step) {
        self.volatile.drains_since_root += 1;
        match verdict {
            Verdict::Missing | Verdict::Ignored => {
                self.volatile.deferred = Some(window);
                // Its pauses grow; what is fresh must not wait for them.
                self.volatile.drains_since_root = DRAINS_PER_ROOT;
                self.stumble(Ask::Drain(window), verdict, seen, step);
                return;
            }
            Verdict::Complete => self.state.owed.settle(window),
            Verdict::Incomplete if window.width_s() > 1 && !self.is_crowded() => {
                self.state.owed.settle(window);
                for part in window.split(parts(seen)) {
                    self.state.owed.add(part);
                }
            }
            Verdict::Incomplete => self.volatile.walks.begin(window, seen, now),
        }
        self.recovered(Ask::Drain(window));
        self.volatile.deferred = None;
        self.ingest(seen, window.proven_s, step);
    }

    /// Where so many windows cannot be settled, the parts of one would be joined again at the limit, and split again, for
    /// ever: it is walked as a whole.
    fn is_crowded(&self) -> bool {
        self.state.owed.len() >= MAX_OWED / 2
    }

    fn walked(&mut self, window: Window, seen: &Observation, now: Instant, step: &mut Step) {
        self.volatile.drains_since_root += 1;
        self.ingest(seen, window.proven_s, step);
        let trusted = self.state.calibration.totals_trusted;
        match self.volatile.walks.take(seen, trusted, now) {
            (WalkEnd::Open, _) => {}
            (WalkEnd::Complete { totals_lie }, _) => {
                self.state.owed.settle(window);
                if totals_lie {
                    self.distrust_totals(seen.page.total_elements, step);
                }
            }
            (WalkEnd::Fruitless, failures) => {
                self.volatile.drains_since_root = DRAINS_PER_ROOT;
                if failures == 1 || failures.is_multiple_of(MAX_STUMBLES) {
                    let text = format!(
                        "the API shows the same events again where the next page was asked for; {} s of events stay \
                         owed and are asked for again, more and more rarely",
                        self.volatile.walks.waiting()
                    );
                    step.notices.push(notice(NoticeKind::FilterIgnored, &text));
                }
            }
        }
    }

    /// Nothing moves, but what the answer shows happened all the same. Stamps whose zone is in doubt are not taken at their
    /// word.
    fn stumble(&mut self, ask: Ask, verdict: Verdict, seen: &Observation, step: &mut Step) {
        if verdict == Verdict::Missing || seen.rows.iter().all(|row| row.naive.is_none()) {
            self.ingest(seen, 0, step);
        }
        let is_news = self.forget_settled();
        let stumbles = self.count_stumble(ask);
        step.stumbles = stumbles;
        let is_told = is_news || stumbles.is_multiple_of(MAX_STUMBLES);
        if verdict == Verdict::Ignored {
            if is_told {
                let text = "the API answered with events outside of the time that was asked for";
                step.notices.push(notice(NoticeKind::FilterIgnored, text));
            }
            return;
        }
        let gone = seen.anchor == Some(AnchorLookup::Gone);
        if is_told {
            let detail = match seen.anchor {
                Some(AnchorLookup::Found) => "the newest one is still there when asked for by itself",
                Some(AnchorLookup::Gone) => "the newest one is not found by itself either",
                Some(AnchorLookup::Failed) | None => "the newest one could not be asked for by itself",
            };
            let text = format!("an answer of the API lacks events that it has shown before; {detail}");
            step.notices.push(notice(NoticeKind::AnchorMissing, &text));
        }
        // A list that shows nothing while its newest event is there is at fault, however long it says so.
        let at_fault = seen.rows.is_empty() && seen.anchor == Some(AnchorLookup::Found);
        if gone || (stumbles >= MAX_STUMBLES && !at_fault) {
            self.volatile.stumbles.clear();
            self.state.anchor = None;
            self.state.calibration.counts_from_s = seen.answered_s;
            let text = "events that were seen are gone from the API for good; polling goes on without them as evidence";
            step.notices.push(notice(NoticeKind::AnchorMissing, text));
        }
    }

    /// Drops windows that are no longer owed; whether nothing was at fault before.
    fn forget_settled(&mut self) -> bool {
        let owed = self.state.owed.windows();
        self.volatile.stumbles.retain(|(ask, _)| match ask {
            Ask::Drain(window) => owed.contains(window),
            Ask::Survey | Ask::Zone | Ask::Root(_) | Ask::Walk(_) => true,
        });
        self.volatile.stumbles.is_empty()
    }

    fn count_stumble(&mut self, ask: Ask) -> u32 {
        if let Some((_, count)) = self.volatile.stumbles.iter_mut().find(|(of, _)| *of == ask) {
            *count = count.saturating_add(1);
            return *count;
        }
        self.volatile.stumbles.push((ask, 1));
        1
    }

    fn recovered(&mut self, ask: Ask) {
        self.volatile.stumbles.retain(|(of, _)| *of != ask);
    }

    /// Hands on what is new and learns from it.
    fn ingest(&mut self, seen: &Observation, proven_s: i64, step: &mut Step) {
        let mut latest_late_s = 0;
        let (mut poisoned, mut ahead) = (0, 0);
        for (row, _) in seen.rows.iter().zip(&seen.new).filter(|(_, is_new)| **is_new) {
            let at_s = row.at.timestamp();
            match &row.content {
                Content::Event(event) if at_s < self.state.start_s.unwrap_or(0) => {
                    step.before_start.push(event.clone())
                }
                Content::Event(event) => step.events.push(event.clone()),
                Content::Poison(poison) => {
                    poisoned += 1;
                    if poisoned <= MAX_ROW_NOTICES {
                        let text = format!("a row of the API is no event ({}); kept as {}", poison.error, poison.id);
                        step.notices.push(notice(NoticeKind::PoisonEvent, &text));
                    }
                    step.poison.push(poison.clone());
                }
            }
            if !row.counted {
                self.state.leave_out(row.at.timestamp_micros(), seen.answered_s);
                continue;
            }
            if at_s > seen.answered_s + FUTURE_SLACK_S {
                ahead += 1;
                if ahead <= MAX_ROW_NOTICES {
                    let text =
                        format!("event {} is dated {} s ahead of the API's clock", shown(row), at_s - seen.answered_s);
                    step.notices.push(notice(NoticeKind::FutureEvent, &text));
                }
                continue;
            }
            latest_late_s = latest_late_s.max(proven_s - at_s);
            self.anchor_at(row);
        }
        self.widen(latest_late_s, step);
    }

    fn anchor_at(&mut self, row: &Row) {
        let at_us = row.at.timestamp_micros();
        if self.state.anchor.as_ref().is_none_or(|anchor| anchor.at_us < at_us) {
            self.state.anchor = Some(Anchor { id: row.id.clone(), at_us });
        }
    }

    /// An event was invisible for at least this long: tiers whose look-back is less than twice that look back
    /// further, each at most as far as the next one does anyway.
    fn widen(&mut self, late_s: i64, step: &mut Step) {
        if late_s <= 0 {
            return;
        }
        let defaults = look_backs_s(&self.tiers);
        let mut widened = Vec::new();
        for (index, tier) in self.state.tiers.iter_mut().enumerate() {
            let limit_s = defaults.get(index + 1).copied().unwrap_or(MAX_LOOK_BACK_S);
            let wanted_s = late_s.saturating_mul(2).min(limit_s);
            if late_s > tier.look_back_s / 2 && wanted_s > tier.look_back_s {
                tier.look_back_s = wanted_s;
                widened.push(index);
            }
        }
        if !widened.is_empty() {
            let text = format!("events became visible {late_s} s late or more; polling now looks back further");
            step.notices.push(notice(NoticeKind::EventsLate, &text));
        }
    }
}

fn verdict(judgement: Option<Judgement>) -> Verdict {
    judgement.map_or(Verdict::Incomplete, |judgement| judgement.verdict)
}

/// How many parts a window is split into: about what its total fills, with room for uneven ones.
fn parts(seen: &Observation) -> i64 {
    let rows = seen.rows.len().max(1) as u64;
    let pages = seen.page.total_elements.unwrap_or(0) / rows;
    i64::try_from(pages.saturating_mul(3) / 2).unwrap_or(i64::MAX).max(2)
}

fn shown(row: &Row) -> String {
    vigie_engine::text::single_line(&row.id, 64)
}

fn notice(kind: NoticeKind, message: &str) -> Notice {
    Notice { kind, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::{FixedOffset, Offset as _, Utc};

    use super::*;
    use crate::source::vonage::client::PageInfo;
    use crate::source::vonage::event::read_row;
    use crate::source::vonage::poller::DEFAULT_TIERS;

    fn answer(ids: &[&str]) -> Observation {
        let zone: FixedOffset = Utc.fix();
        let at = "2026-01-02T03:04:05Z".parse().expect("a stamp");
        let row = |id: &&str| {
            read_row(&Arc::from(format!(r#"{{"id":"{id}","created_at":"2026-01-02T03:04:05Z"}}"#)), zone, at)
        };
        let rows: Vec<Row> = ids.iter().map(row).collect();
        Observation {
            new: vec![true; rows.len()],
            rows,
            page: PageInfo::default(),
            asked_s: at.timestamp(),
            answered_s: at.timestamp(),
            stored: 0,
            probes: Vec::new(),
            anchor: Some(AnchorLookup::Found),
        }
    }

    fn judged(verdict: Verdict) -> Option<Judgement> {
        Some(Judgement { verdict, totals_lie: false, confirmed_below: None, capped_at: None })
    }

    fn begun() -> Poller {
        let mut poller = Poller::new(&DEFAULT_TIERS, Start::Now, None, Instant::now());
        poller.state.start_s = Some(0);
        poller
    }

    #[test]
    fn good_answers_in_between_do_not_hide_that_rows_are_gone_for_good() {
        let mut poller = begun();
        let mut notices = 0;
        for _ in 0..MAX_STUMBLES {
            let wide = poller.root(2);
            let step = poller.absorb(&wide, answer(&["a"]), judged(Verdict::Missing), Instant::now());
            notices += step.notices.len();
            let fresh = poller.root(0);
            poller.absorb(&fresh, answer(&[]), judged(Verdict::Complete), Instant::now());
        }
        assert!(poller.state.calibration.counts_from_s > 0, "they are evidence for ever");
        assert_eq!(notices, 3, "at first, after ten, and that they are no longer waited for");
    }

    #[test]
    fn an_answer_that_ignores_its_window_moves_nothing_and_its_events_are_evaluated() {
        let mut poller = begun();
        let frontiers: Vec<i64> = poller.state.tiers.iter().map(|tier| tier.frontier_s).collect();
        let request = poller.root(0);
        let step = poller.absorb(&request, answer(&["a", "b"]), judged(Verdict::Ignored), Instant::now());
        assert_eq!(step.events.len(), 2);
        assert_eq!(step.stumbles, 1);
        assert_eq!(poller.state.tiers.iter().map(|tier| tier.frontier_s).collect::<Vec<_>>(), frontiers);
    }

    #[test]
    fn a_window_that_is_always_answered_wrongly_does_not_keep_the_newest_waiting() {
        let mut poller = begun();
        let window = Window { from_s: 100, to_s: 200, proven_s: 0 };
        poller.state.owed.add(window);
        let request = poller.drain(Instant::now()).expect("it is owed");
        poller.absorb(&request, answer(&[]), judged(Verdict::Ignored), Instant::now());
        assert!(matches!(poller.plan(Instant::now()).ask, Ask::Root(_)));
    }

    /// Asks for what is owed, every answer showing the same rows of more, until only the newest is left to ask for.
    fn ask_until_all_rests(poller: &mut Poller) -> (usize, Vec<Notice>) {
        let (mut asked, mut notices) = (0, Vec::new());
        poller.volatile.due.iter_mut().for_each(|due| *due = Instant::now() + std::time::Duration::from_secs(900));
        while poller.idle_for(Instant::now()).is_zero() && asked < 5 * MAX_OWED {
            let request = poller.plan(Instant::now());
            let judgement = if request.is_window() { judged(Verdict::Incomplete) } else { None };
            notices.extend(poller.absorb(&request, answer(&["a", "b"]), judgement, Instant::now()).notices);
            asked += 1;
        }
        (asked, notices)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_that_does_not_page_hides_stays_owed_and_rests() {
        let mut poller = begun();
        poller.state.owed.add(Window { from_s: 100, to_s: 103, proven_s: 0 });
        let (asked, notices) = ask_until_all_rests(&mut poller);
        assert!(asked < 20, "{asked}");
        assert_eq!(notices.iter().map(|notice| notice.kind).collect::<Vec<_>>(), [NoticeKind::FilterIgnored]);
        let seconds: i64 = poller.state.owed.windows().iter().map(|window| window.width_s()).sum();
        assert_eq!(seconds, 3);
        assert!(poller.fault().is_some() && !poller.caught_up());
        assert!(matches!(poller.plan(Instant::now()).ask, Ask::Root(_)), "nothing else is asked for");
        let rest = poller.idle_for(Instant::now());
        assert!(rest > std::time::Duration::ZERO, "{rest:?}");
        tokio::time::advance(rest).await;
        assert!(matches!(poller.plan(Instant::now()).ask, Ask::Drain(_)), "and then once more");
    }

    #[tokio::test(start_paused = true)]
    async fn more_owed_windows_than_are_kept_apart_rest_as_well() {
        let mut poller = begun();
        for index in 0..i64::try_from(MAX_OWED).expect("small") {
            poller.state.owed.add(Window { from_s: index * 10, to_s: index * 10 + 3, proven_s: 0 });
        }
        let (asked, _) = ask_until_all_rests(&mut poller);
        assert!(asked < 2 * MAX_OWED, "they are joined and split for ever");
        assert!(poller.state.owed.windows().iter().map(|window| window.width_s()).sum::<i64>() >= 3 * 2_048);
    }
}
