//! What an answer proves about its window: that it is complete, that it is not, that rows are missing that must be in
//! it, or that it does not answer the question.
//!
//! Rows known to lie inside are a subset of the API's, so equal numbers make the two the same, whatever the sort
//! order. The API's number is its total, believed only below the largest that was confirmed; or, where totals cannot
//! be trusted, what asking for the row after the last known one says: nothing there means that there are no more.

use crate::source::vonage::bounds::BoundSecond;
use crate::source::vonage::event::Row;
use crate::source::vonage::poller::strays::MAX_STRAYS;
use crate::source::vonage::poller::{Ask, Observation, Poller, Probe, Request};

/// Probes of one answer; more would not tell more.
pub const MAX_PROBES: usize = 2;
/// A naive zone with daylight saving shows the stamps of its other half this far off.
pub(super) const DAYLIGHT_SAVING_S: i64 = 3_600;

/// What an answer proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All that lies in the window is known.
    Complete,
    /// There is more.
    Incomplete,
    /// It lacks rows that the API has shown before.
    Missing,
    /// It shows rows outside of what was asked for.
    Ignored,
}

/// A verdict with what was learned on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// What it proves.
    pub verdict: Verdict,
    /// The total was below or above what is there.
    pub totals_lie: bool,
    /// Totals below this are confirmed.
    pub confirmed_below: Option<u64>,
    /// A page that is not full by what was asked, and yet not all.
    pub capped_at: Option<u64>,
}

/// Either a judgement, or a request whose answer is needed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Ask this, add the result to `Observation::probes`, and judge again.
    Probe(Request),
    /// Done.
    Decided(Judgement),
}

struct Facts<'a> {
    request: &'a Request,
    probes: &'a [Probe],
    /// Rows inside, each once.
    rows: u64,
    /// Rows of the answer as they came: repeated ones and stray ones included.
    shown: u64,
    has_strays: bool,
    /// Nothing asks again for all of this.
    is_final: bool,
    new: u64,
    known: u64,
    known_shown: u64,
    /// Rows in the seconds that it is bounded by, as far as these seem to belong to it; 0 where nothing reads it again.
    at_bounds: u64,
    full: bool,
    confirmed_below: u64,
}

impl Poller {
    /// Judges the answer to a root or a drain.
    #[must_use]
    pub fn judge(&self, request: &Request, seen: &Observation) -> Finding {
        let strays = self.strays(request, &seen.rows);
        if strays > MAX_STRAYS || (strays > 0 && !self.volatile.strays.are_usual()) {
            return decided(Verdict::Ignored);
        }
        let facts = self.facts(request, seen);
        match seen.page.total_elements {
            // Whether stray rows are in the total is not known.
            Some(total) if self.state.calibration.totals_trusted && strays == 0 => by_total(&facts, total),
            _ => by_looking_beyond(&facts, false),
        }
    }

    /// How many rows are outside of what was asked for.
    #[must_use]
    pub fn strays(&self, request: &Request, rows: &[Row]) -> usize {
        rows.iter().filter(|row| is_stray(request, row)).count()
    }

    fn facts<'a>(&self, request: &'a Request, seen: &'a Observation) -> Facts<'a> {
        let (from_s, to_s) = request.countable();
        let counts = from_s >= self.state.calibration.counts_from_s;
        let inside = |second: i64| (from_s..to_s).contains(&second);
        let countable = seen.rows.iter().zip(&seen.new).filter(|(row, _)| row.counted && inside(row.at.timestamp()));
        let (new, known_shown) = countable.fold((0, 0), |(new, known), (_, is_new)| match is_new {
            true => (new + 1, known),
            false => (new, known + 1),
        });
        let stored = seen.stored.saturating_sub(self.state.left_out(from_s, to_s));
        let rows = seen.rows.iter().filter(|row| !is_stray(request, row)).count() as u64;
        let asked = self.state.calibration.full_page(u64::from(request.size));
        let page_size = seen.page.size.filter(|size| *size > 0).map_or(asked, |size| size.min(asked));
        Facts {
            request,
            probes: &seen.probes,
            rows,
            shown: seen.shown,
            has_strays: rows < seen.rows.len() as u64,
            is_final: self.is_final(request, seen.answered_s),
            new,
            known: if counts { stored } else { 0 },
            known_shown: if counts { known_shown } else { 0 },
            at_bounds: if counts { self.rows_at_bounds(request, seen) } else { 0 },
            full: seen.shown >= page_size,
            confirmed_below: if counts { self.state.calibration.totals_confirmed_below } else { 0 },
        }
    }
}

impl Poller {
    /// Rows known to lie in those seconds at the bounds of a window that seem to belong to it. That they do is no proof, so
    /// only what is read again may be settled by it: a root that is not the last tier's, and what a root owes.
    fn rows_at_bounds(&self, request: &Request, seen: &Observation) -> u64 {
        let is_last = matches!(request.ask, Ask::Root(tier) if tier + 1 >= self.tiers.len());
        if is_last || self.is_final(request, seen.answered_s) {
            return 0;
        }
        let sides = self.state.calibration.bounds.sides().iter().zip(self.evident_bounds(seen));
        let inclusive = sides.filter_map(|(bound, second)| second.filter(|_| bound.is_inclusive() == Some(true)));
        inclusive.map(|second| second.stored + rows_at(second, seen, true)).sum()
    }

    /// The seconds at the bounds whose stored rows are evidence, without those rows that must not be counted.
    fn evident_bounds(&self, seen: &Observation) -> [Option<BoundSecond>; 2] {
        let counts_from_s = self.state.calibration.counts_from_s;
        seen.bounds.map(|second| {
            let second = second.filter(|second| second.at_s >= counts_from_s)?;
            let left_out = self.state.left_out(second.at_s, second.at_s + 1);
            Some(BoundSecond { stored: second.stored.saturating_sub(left_out), ..second })
        })
    }

    /// Learns from an answer that shows all that lies in its window whether the seconds at its bounds belong to it.
    pub(super) fn learn_bounds(&mut self, request: &Request, seen: &Observation) {
        let is_whole = seen.page.total_elements == Some(seen.shown) && seen.rows.len() as u64 == seen.shown;
        if !is_whole || !self.state.calibration.totals_trusted || self.strays(request, &seen.rows) > 0 {
            return;
        }
        let shown = self.evident_bounds(seen).map(|second| Some((second?, rows_at(second?, seen, false))));
        if let Some((bound, is_inclusive)) = self.state.calibration.bounds.learn(shown) {
            tracing::info!(bound, is_inclusive, "the API's answers show whether a bound is inclusive");
        }
    }
}

/// Rows of an answer in a second that may be counted: the new ones, or those that were stored before.
fn rows_at(second: BoundSecond, seen: &Observation, new: bool) -> u64 {
    let rows = seen.rows.iter().zip(&seen.new);
    rows.filter(|(row, is_new)| row.counted && row.at.timestamp() == second.at_s && **is_new == new).count() as u64
}

/// An answer has no place for this row.
#[must_use]
pub fn is_stray(request: &Request, row: &Row) -> bool {
    let slack_s = match (row.naive, request.ask) {
        (Some(_), Ask::Drain(_) | Ask::Walk(_) | Ask::Root(1..)) => DAYLIGHT_SAVING_S,
        _ => 0,
    };
    request.is_outside(row, slack_s)
}

impl Facts<'_> {
    /// How often nothing must be found beyond an answer.
    fn probes_needed(&self) -> usize {
        match self.request.ask {
            // A root comes again soon; a window that is settled does not.
            Ask::Root(_) if !self.is_final => 1,
            Ask::Root(_) | Ask::Survey | Ask::Zone | Ask::Drain(_) | Ask::Walk(_) => MAX_PROBES,
        }
    }
}

fn decided(verdict: Verdict) -> Finding {
    Finding::Decided(Judgement { verdict, totals_lie: false, confirmed_below: None, capped_at: None })
}

fn by_total(facts: &Facts<'_>, total: u64) -> Finding {
    if facts.rows == 0 {
        return if total == 0 { empty(facts) } else { nothing_shown(facts) };
    }
    if total < facts.rows || (total < facts.known && (facts.full || facts.rows >= facts.known)) {
        return by_looking_beyond(facts, true);
    }
    let all_shown = total == facts.rows;
    if all_shown && facts.known > facts.known_shown {
        return decided(Verdict::Missing);
    }
    let known = facts.known + facts.new;
    if all_shown || total == known || total == known + facts.at_bounds {
        return confirm(facts, total);
    }
    if facts.shown > facts.rows && total == facts.shown {
        return twins(facts);
    }
    if facts.full { decided(Verdict::Incomplete) } else { short_page(facts) }
}

/// The total counts rows that came with the id of another: all there is, unless a page is shorter than it seems.
fn twins(facts: &Facts<'_>) -> Finding {
    match beyond(facts, facts.shown, facts.probes_needed()) {
        Beyond::Ask(request) => Finding::Probe(request),
        Beyond::Nothing => complete_unless_missing(facts, false),
        Beyond::More | Beyond::Unknown => decided(Verdict::Incomplete),
    }
}

/// The total equals what is known. The first time that a total is as large as this, look beyond it: a total may be
/// capped.
fn confirm(facts: &Facts<'_>, total: u64) -> Finding {
    if total < facts.confirmed_below {
        return decided(Verdict::Complete);
    }
    let Some(probe) = facts.request.after(total, facts.rows) else { return decided(Verdict::Incomplete) };
    match facts.probes.first() {
        None => Finding::Probe(probe),
        Some(Probe::Empty) => Finding::Decided(Judgement {
            verdict: Verdict::Complete,
            totals_lie: false,
            confirmed_below: Some(total + 1),
            capped_at: None,
        }),
        Some(Probe::Rows | Probe::Unknown) => decided(Verdict::Incomplete),
    }
}

/// The total says that there is more, the page has room for it.
fn short_page(facts: &Facts<'_>) -> Finding {
    match beyond(facts, facts.shown, MAX_PROBES) {
        Beyond::Ask(request) => Finding::Probe(request),
        Beyond::Nothing => complete_unless_missing(facts, true),
        Beyond::More => capped(facts, false),
        Beyond::Unknown => decided(Verdict::Incomplete),
    }
}

/// Without totals: a page that is not full, followed by nothing, was everything.
fn by_looking_beyond(facts: &Facts<'_>, totals_lie: bool) -> Finding {
    if facts.shown == 0 {
        return empty(facts);
    }
    let known = facts.known + facts.new;
    let rows = match facts.full {
        false => facts.shown,
        true if known >= facts.rows => known,
        true => return with_lie(Verdict::Incomplete, totals_lie),
    };
    match beyond(facts, rows, facts.probes_needed()) {
        Beyond::Ask(request) => Finding::Probe(request),
        Beyond::Nothing if facts.full => with_lie(Verdict::Complete, totals_lie),
        Beyond::Nothing => complete_unless_missing(facts, totals_lie),
        Beyond::More if !facts.full && !facts.has_strays => capped(facts, totals_lie),
        Beyond::More | Beyond::Unknown => with_lie(Verdict::Incomplete, totals_lie),
    }
}

fn with_lie(verdict: Verdict, totals_lie: bool) -> Finding {
    Finding::Decided(Judgement { verdict, totals_lie, confirmed_below: None, capped_at: None })
}

/// No row and a total of none. A root comes again soon; an owed window is asked for once more before it is believed.
fn empty(facts: &Facts<'_>) -> Finding {
    if facts.known > 0 {
        return decided(Verdict::Missing);
    }
    if matches!(facts.request.ask, Ask::Root(_)) && !facts.is_final {
        return decided(Verdict::Complete);
    }
    match facts.probes.first() {
        None => Finding::Probe(facts.request.clone()),
        Some(Probe::Empty) => decided(Verdict::Complete),
        Some(Probe::Rows | Probe::Unknown) => decided(Verdict::Missing),
    }
}

/// No row although the total is not zero: a bad answer, unless it says so again and again.
fn nothing_shown(facts: &Facts<'_>) -> Finding {
    if facts.known > 0 || facts.probes.iter().any(|probe| *probe != Probe::Empty) {
        return decided(Verdict::Missing);
    }
    if facts.probes.len() < MAX_PROBES {
        return Finding::Probe(facts.request.clone());
    }
    complete_unless_missing(facts, true)
}

fn complete_unless_missing(facts: &Facts<'_>, totals_lie: bool) -> Finding {
    if facts.known > facts.known_shown {
        return decided(Verdict::Missing);
    }
    with_lie(Verdict::Complete, totals_lie)
}

fn capped(facts: &Facts<'_>, totals_lie: bool) -> Finding {
    let verdict = Verdict::Incomplete;
    Finding::Decided(Judgement { verdict, totals_lie, confirmed_below: None, capped_at: Some(facts.rows) })
}

enum Beyond {
    Ask(Request),
    Nothing,
    More,
    Unknown,
}

/// What comes after the first `rows` of the window, asked for as often as `probes` says.
fn beyond(facts: &Facts<'_>, rows: u64, probes: usize) -> Beyond {
    if facts.probes.contains(&Probe::Rows) {
        return Beyond::More;
    }
    if facts.probes.contains(&Probe::Unknown) {
        return Beyond::Unknown;
    }
    if facts.probes.len() >= probes {
        return Beyond::Nothing;
    }
    facts.request.after(rows, facts.shown).map_or(Beyond::Unknown, Beyond::Ask)
}

#[cfg(test)]
mod tests {
    use chrono::{FixedOffset, Offset as _, TimeZone as _, Utc};
    use tokio::time::Instant;

    use super::*;
    use crate::source::vonage::client::PageInfo;
    use crate::source::vonage::event::read_row;
    use crate::source::vonage::poller::{DEFAULT_TIERS, Start};
    use crate::source::vonage::window::Window;

    const NOW_S: i64 = 1_700_000_000;
    const DAY_S: i64 = 86_400;
    /// Rows known inside of the window, and in the second of each bound.
    const INSIDE: u64 = 150;
    const AT_BOUND: u64 = 3;

    /// Long at work, with totals that were confirmed; `inclusive` as its answers have shown.
    fn poller(inclusive: bool) -> Poller {
        let mut poller = Poller::new(&DEFAULT_TIERS, Start::Now, None, Instant::now());
        poller.state.start_s = Some(NOW_S - 90 * DAY_S);
        poller.state.tiers.iter_mut().for_each(|tier| tier.frontier_s = NOW_S);
        poller.state.calibration.totals_confirmed_below = 1_000;
        poller.state.calibration.counts_from_s = NOW_S - 80 * DAY_S;
        for at_s in 1..=if inclusive { 3 } else { 2 } {
            let shown = Some((BoundSecond { at_s, stored: 1 }, 1));
            poller.state.calibration.bounds.learn([shown, shown]);
        }
        poller
    }

    /// A full page of a window whose total counts the rows in the seconds at its bounds.
    fn seen(request: &Request) -> Observation {
        let zone: FixedOffset = Utc.fix();
        let inside_s = request.countable().0 + 10;
        let stamp = Utc.timestamp_opt(inside_s, 0).single().expect("valid").to_rfc3339();
        let raw = serde_json::json!({"id": "a", "event_type": "X", "created_at": stamp}).to_string();
        let row = read_row(&raw.into(), zone, Utc.timestamp_opt(NOW_S, 0).single().expect("valid"));
        let bounds = [request.from_s, request.to_s].map(|at_s| at_s.map(|at_s| BoundSecond { at_s, stored: AT_BOUND }));
        let at_bounds = bounds.iter().flatten().count() as u64 * AT_BOUND;
        Observation {
            rows: vec![row],
            new: vec![false],
            shown: 100,
            page: PageInfo { total_elements: Some(INSIDE + at_bounds), ..PageInfo::default() },
            asked_s: NOW_S,
            answered_s: NOW_S,
            believed: None,
            stored: INSIDE,
            bounds,
            probes: Vec::new(),
            anchor: None,
        }
    }

    fn verdict(poller: &Poller, request: &Request) -> Verdict {
        match poller.judge(request, &seen(request)) {
            Finding::Decided(judgement) => judgement.verdict,
            Finding::Probe(probe) => panic!("asks {probe:?}"),
        }
    }

    fn root(tier: usize, back_s: i64) -> Request {
        Request::new(Ask::Root(tier), Some(NOW_S - back_s), None)
    }

    fn drain(back_s: i64) -> Request {
        Request::drain(Window { from_s: NOW_S - back_s, to_s: NOW_S - back_s + 60, proven_s: 0 }, 100)
    }

    #[test]
    fn what_is_read_again_is_counted_with_its_bounds_and_nothing_else_is() {
        let (knows, unsure) = (poller(true), poller(false));
        for (request, expected) in [
            (root(0, 600), Verdict::Complete),
            (root(1, 6 * 3_600), Verdict::Complete),
            (drain(3_600), Verdict::Complete),
            // Nothing is wider than the last tier, and nothing reaches back so far again.
            (root(2, 7 * DAY_S), Verdict::Incomplete),
            (root(0, 8 * DAY_S), Verdict::Incomplete),
            (drain(8 * DAY_S), Verdict::Incomplete),
        ] {
            assert_eq!(verdict(&knows, &request), expected, "{request:?}");
            assert_eq!(verdict(&unsure, &request), Verdict::Incomplete, "{request:?}");
        }
    }

    #[test]
    fn rows_that_are_no_evidence_are_none_at_a_bound_either() {
        let mut poller = poller(true);
        let request = root(0, 600);
        poller.state.calibration.counts_from_s = NOW_S - 600;
        assert_eq!(verdict(&poller, &request), Verdict::Complete);
        // Of the window itself all counts still; the second at its bound lies before.
        poller.state.calibration.counts_from_s = NOW_S - 599;
        assert_eq!(verdict(&poller, &request), Verdict::Incomplete);
    }
}
