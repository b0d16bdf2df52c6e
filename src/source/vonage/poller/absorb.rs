//! What follows from an answer: events handed on, windows owed or settled, the frontier moved, the operator told.
//!
//! A frontier moves only together with what it leaves behind: the window is proven complete, or its parts are owed in
//! the same cursor. An answer that is at fault (rows missing, filter ignored) moves nothing.

use vigie_engine::event::Event;

use crate::source::vonage::poller::MAX_HISTORY_FIRST_S;
use crate::source::vonage::poller::judge::{Judgement, Verdict};
use crate::source::vonage::poller::strays::MAX_STRAYS;
use crate::source::vonage::poller::walk::WalkEnd;
use crate::source::vonage::poller::{
    AnchorLookup, Ask, CLOSED_BEYOND_S, DRAINS_PER_ROOT, FAR_S, Instant, Observation, Poller, Request, Start,
};
use crate::source::vonage::window::{MAX_OWED, Window};
use crate::source::{Notice, NoticeKind, Poison};

/// Answers at fault in a row after which what was stored before no longer counts as evidence: the API may have
/// dropped rows.
const MAX_STUMBLES: u32 = 10;

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
    /// Answers in a row, this one included, with which polling cannot begin; the next request waits accordingly.
    pub stumbles: u32,
}

impl Poller {
    /// Takes an answer. `judgement` is what `judge` decided where the request was for a window.
    pub fn absorb(&mut self, request: &Request, seen: Observation, judgement: Option<Judgement>, now: Instant) -> Step {
        self.state.step += 1;
        self.volatile.history_failures = 0;
        let mut step = Step::default();
        if self.weigh_date(&seen, now, &mut step) {
            // What was asked for followed from what has just been taken back.
            if !self.must_hold(&seen.rows) {
                self.ingest(&seen, 0, &mut step);
            }
            return step;
        }
        if self.state.start_s.is_none() && seen.believed.is_none() {
            self.volatile.surveys += 1;
            step.stumbles = self.volatile.surveys;
            return step;
        }
        if let Some(judgement) = judgement {
            self.learn_totals(request, &judgement, seen.page.total_elements, &mut step);
            if judgement.verdict == Verdict::Complete {
                self.learn_bounds(request, &seen);
            }
            self.watch_strays(request, &seen, now, &mut step);
        }
        if self.hold_for_zone(request, &seen, judgement, now, &mut step) {
            return step;
        }
        match request.ask {
            Ask::Survey => {
                self.begin(&seen, now);
                // Where history comes first, what this shows of it and of later by chance comes in its turn.
                if self.backfill_s == 0 {
                    self.ingest(&seen, 0, &mut step);
                }
            }
            Ask::Zone => self.probed_zone(request, &seen, now),
            Ask::Root(tier) => self.rooted(tier, request, &seen, verdict(judgement), now, &mut step),
            Ask::Drain(window) => self.drained(window, request, &seen, verdict(judgement), now, &mut step),
            Ask::Walk(window) => self.walked(window, &seen, now, &mut step),
        }
        self.volatile.walks.forget_settled(&self.state.owed);
        self.volatile.troubles.forget_settled(&self.state.owed);
        if self.state.owed.is_empty() {
            self.state.tiers.iter_mut().for_each(|tier| tier.proven = true);
            self.end_history(now);
        }
        step
    }

    /// Keeps a `Date` that is believed; whether it shows that the cursor was moved by one that was wrong.
    fn weigh_date(&mut self, seen: &Observation, now: Instant, step: &mut Step) -> bool {
        let Some(mark) = seen.believed else {
            if self.volatile.clock.tells(now) {
                let text = "the Date of an answer fits neither our clock nor the answers before; until it does, what is \
                            asked for reaches back to the last one that did";
                step.notices.push(notice(NoticeKind::ClockDoubted, text));
            }
            return false;
        };
        self.state.clock = Some(mark);
        let is_healed = self.state.heal(mark.date_s, matches!(self.start, Start::At(_)));
        if is_healed {
            self.volatile.due.iter_mut().for_each(|due| *due = now);
            self.volatile.rooted.iter_mut().for_each(|rooted| *rooted = false);
            if self.volatile.clock.tells(now) {
                let text =
                    "a wrong Date had moved polling ahead of the API's clock; it goes back to the newest event seen";
                step.notices.push(notice(NoticeKind::ClockDoubted, text));
            }
        }
        is_healed
    }

    fn watch_strays(&mut self, request: &Request, seen: &Observation, now: Instant, step: &mut Step) {
        if let Some(lasts) = self.volatile.strays.saw(self.strays(request, &seen.rows), now) {
            let text = format!(
                "for {} s the API has answered with events outside of the time that was asked for; a few in each answer \
                 are left out where windows are proven complete, with more than {MAX_STRAYS} nothing is proven",
                lasts.as_secs()
            );
            step.notices.push(notice(NoticeKind::FilterIgnoredLong, &text));
        }
    }

    pub(super) fn begin(&mut self, seen: &Observation, now: Instant) {
        let start_s = match self.start {
            Start::Now => seen.asked_s,
            Start::Ago(span) => seen.asked_s - i64::try_from(span.as_secs()).unwrap_or(i64::MAX).min(seen.asked_s),
            Start::At(at) => at.timestamp(),
        };
        self.state.start_s = Some(start_s);
        (self.state.start, self.state.backfill_s) = (Some(self.start.text()), self.backfill_s);
        self.state.tiers.iter_mut().for_each(|tier| tier.frontier_s = start_s);
        if self.backfill_s > 0 {
            // Owed like any other window: read piece by piece, proven complete, durable over restarts.
            let from_s = start_s.saturating_sub(self.backfill_s).max(0);
            self.state.owed.add(Window { from_s, to_s: start_s, proven_s: 0 });
            self.state.history_until_s = Some(seen.asked_s.saturating_add(MAX_HISTORY_FIRST_S));
            self.wait_for_history(now);
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
        // A root that was asked because the history cannot be had at present does not end the wait for it.
        if self.state.history_until_s.is_some_and(|until_s| seen.asked_s >= until_s) {
            self.end_history(now);
        }
        if let Some(due) = self.volatile.due.get_mut(tier) {
            *due = now + every;
        }
        self.wait_for_history(now);
        // The server's Date has whole seconds and was written after the request was made.
        let start_s = seen.asked_s - 1;
        let proven_s = if old.proven { old.frontier_s } else { 0 };
        if matches!(verdict, Verdict::Missing | Verdict::Ignored) {
            let rest = self.stumble(request, verdict, seen, now, step);
            if let Some(due) = self.volatile.due.get_mut(tier) {
                *due = now + rest;
            }
            if verdict == Verdict::Ignored && self.strays(request, &seen.rows) <= MAX_STRAYS {
                // The frontier stays, but what does not fit on the page must not wait for it.
                self.owe(tier, request, seen, start_s + CLOSED_BEYOND_S, proven_s);
            }
            return;
        }
        self.volatile.troubles.recovered(request.ask);
        self.volatile.accepted_at = Some(now);
        self.volatile.drains_since_root = 0;
        if let Some(rooted) = self.volatile.rooted.get_mut(tier) {
            *rooted = true;
        }
        self.ingest(seen, proven_s, step);
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

    fn drained(
        &mut self,
        window: Window,
        request: &Request,
        seen: &Observation,
        verdict: Verdict,
        now: Instant,
        step: &mut Step,
    ) {
        self.volatile.drains_since_root += 1;
        match verdict {
            Verdict::Missing | Verdict::Ignored => {
                // What is fresh must not wait for it.
                self.volatile.drains_since_root = DRAINS_PER_ROOT;
                self.stumble(request, verdict, seen, now, step);
                return;
            }
            Verdict::Complete => self.settle(window),
            Verdict::Incomplete if window.width_s() > 1 && !self.is_crowded() => self.split(window, seen),
            Verdict::Incomplete => self.volatile.walks.begin(window, seen, now),
        }
        // Of what is owed on a part succeeded; of a window that is gone the trouble is forgotten with it.
        self.volatile.troubles.progressed(request.ask, now);
        self.ingest(seen, window.proven_s, step);
    }

    fn settle(&mut self, window: Window) {
        self.state.owed.settle(window);
        if self.volatile.settled.len() >= MAX_OWED {
            self.volatile.settled.clear();
        }
        self.volatile.settled.insert(window.from_s, self.state.step);
    }

    /// A window without an upper bound is cut behind the furthest row that came of it.
    fn split(&mut self, window: Window, seen: &Observation) {
        self.state.owed.settle(window);
        let mut near = window;
        if window.to_s >= FAR_S {
            let furthest_s = seen.rows.iter().map(|row| row.at.timestamp()).max().unwrap_or(window.from_s);
            near.to_s = furthest_s.saturating_add(1).clamp(window.from_s + 1, FAR_S);
            self.state.owed.add(Window { from_s: near.to_s, ..window });
        }
        for part in near.split(parts(seen)) {
            self.state.owed.add(part);
        }
    }

    /// Where so many windows cannot be settled, the parts of one would be joined again at the limit, and split again, for
    /// ever: it is walked as a whole.
    pub(super) fn is_crowded(&self) -> bool {
        self.state.owed.len() >= MAX_OWED / 2
    }

    fn walked(&mut self, window: Window, seen: &Observation, now: Instant, step: &mut Step) {
        self.volatile.drains_since_root += 1;
        self.volatile.troubles.progressed(Ask::Walk(window), now);
        self.ingest(seen, window.proven_s, step);
        let trusted = self.state.calibration.totals_trusted;
        match self.volatile.walks.take(seen, trusted, now) {
            (WalkEnd::Open, _) => {}
            (WalkEnd::Complete { totals_lie }, _) => {
                self.settle(window);
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
    /// word. Returns how long to wait before it is asked for again.
    fn stumble(
        &mut self,
        request: &Request,
        verdict: Verdict,
        seen: &Observation,
        now: Instant,
        step: &mut Step,
    ) -> std::time::Duration {
        if verdict == Verdict::Missing || seen.rows.iter().all(|row| row.naive.is_none()) {
            self.ingest(seen, 0, step);
        }
        let outside = "the API answered with events outside of the time that was asked for";
        if verdict == Verdict::Ignored && self.strays(request, &seen.rows) <= MAX_STRAYS {
            // If that is what it always does, it is soon judged without them.
            if self.volatile.strays.are_news() {
                step.notices.push(notice(NoticeKind::FilterIgnored, outside));
            }
            return self.volatile.troubles.failed(request.ask, now);
        }
        let is_news = !self.volatile.troubles.has_stumbles();
        let (rest, stumbles) = self.volatile.troubles.stumbled(request.ask, now);
        let is_told = is_news || stumbles.is_multiple_of(MAX_STUMBLES);
        if verdict == Verdict::Ignored {
            if is_told {
                step.notices.push(notice(NoticeKind::FilterIgnored, outside));
            }
            return rest;
        }
        if is_told {
            let detail = match seen.anchor {
                Some(AnchorLookup::Found) => "the newest one is still there when asked for by itself",
                Some(AnchorLookup::Gone) => "the newest one is not found by itself either",
                Some(AnchorLookup::Unlisted) => {
                    "the newest one is there when asked for by itself, but the list is empty"
                }
                Some(AnchorLookup::Failed) | None => "the newest one could not be asked for by itself",
            };
            let text = format!("an answer of the API lacks events that it has shown before; {detail}");
            step.notices.push(notice(NoticeKind::AnchorMissing, &text));
        }
        // A list that shows nothing while its newest event is there is at fault, however long it says so. Of another time
        // than that event's, only a list that shows nothing at all is.
        let has_anchor = self.state.anchor.as_ref().is_some_and(|anchor| {
            let (from_s, to_s) = request.countable();
            (from_s..to_s).contains(&anchor.at_us.div_euclid(1_000_000))
        });
        let at_fault = seen.rows.is_empty()
            && match seen.anchor {
                Some(AnchorLookup::Found) => has_anchor,
                Some(AnchorLookup::Unlisted) => true,
                Some(AnchorLookup::Gone | AnchorLookup::Failed) | None => false,
            };
        if stumbles >= MAX_STUMBLES && !at_fault {
            self.volatile.troubles.forgive();
            self.state.anchor = None;
            self.state.calibration.counts_from_s = seen.answered_s;
            let text = "events that were seen are gone from the API for good; polling goes on without them as evidence";
            step.notices.push(notice(NoticeKind::AnchorMissing, text));
        }
        rest
    }
}

fn verdict(judgement: Option<Judgement>) -> Verdict {
    judgement.map_or(Verdict::Incomplete, |judgement| judgement.verdict)
}

/// How many parts a window is split into: about what its total fills, with room for uneven ones.
fn parts(seen: &Observation) -> i64 {
    let rows = seen.shown.max(1);
    let pages = seen.page.total_elements.unwrap_or(0) / rows;
    i64::try_from(pages.saturating_mul(3) / 2).unwrap_or(i64::MAX).max(2)
}

pub(super) fn notice(kind: NoticeKind, message: &str) -> Notice {
    Notice { kind, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::{FixedOffset, Offset as _, Utc};

    use super::*;
    use crate::source::vonage::client::PageInfo;
    use crate::source::vonage::event::{Row, read_row};
    use crate::source::vonage::poller::DEFAULT_TIERS;
    use crate::source::vonage::state::ClockMark;

    fn answer(ids: &[&str]) -> Observation {
        let zone: FixedOffset = Utc.fix();
        let at = "2026-01-02T03:04:05Z".parse().expect("a stamp");
        let row = |id: &&str| {
            read_row(&Arc::from(format!(r#"{{"id":"{id}","created_at":"2026-01-02T03:04:05Z"}}"#)), zone, at)
        };
        let rows: Vec<Row> = ids.iter().map(row).collect();
        Observation {
            new: vec![true; rows.len()],
            shown: rows.len() as u64,
            rows,
            page: PageInfo::default(),
            asked_s: at.timestamp(),
            answered_s: at.timestamp(),
            believed: Some(ClockMark { date_s: at.timestamp(), wall_s: at.timestamp() }),
            stored: 0,
            bounds: [None; 2],
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
            let wide = poller.root(2, Instant::now());
            let step = poller.absorb(&wide, answer(&["a"]), judged(Verdict::Missing), Instant::now());
            notices += step.notices.len();
            let fresh = poller.root(0, Instant::now());
            poller.absorb(&fresh, answer(&[]), judged(Verdict::Complete), Instant::now());
        }
        assert!(poller.state.calibration.counts_from_s > 0, "they are evidence for ever");
        assert_eq!(notices, 3, "at first, after ten, and that they are no longer waited for");
    }

    #[test]
    fn an_answer_that_ignores_its_window_moves_nothing_and_its_events_are_evaluated() {
        let mut poller = begun();
        let frontiers: Vec<i64> = poller.state.tiers.iter().map(|tier| tier.frontier_s).collect();
        let request = poller.root(0, Instant::now());
        let step = poller.absorb(&request, answer(&["a", "b"]), judged(Verdict::Ignored), Instant::now());
        assert_eq!((step.events.len(), poller.fault()), (2, None), "a few may be what it always shows");
        let ids: Vec<String> = (0..=MAX_STRAYS).map(|index| format!("s{index}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let before_all = Request { to_s: Some(1_000), ..request };
        poller.absorb(&before_all, answer(&ids), judged(Verdict::Ignored), Instant::now());
        assert_eq!(poller.fault(), Some("answers lack events that were seen before, or ignore what was asked"));
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
