//! Naive stamps: nothing of an answer with them is stored before their zone is known.

use std::time::Duration;

use chrono::NaiveDateTime;
use tokio::time::Instant;

use crate::source::NoticeKind;
use crate::source::vonage::event::Row;
use crate::source::vonage::poller::absorb::{Step, notice};
use crate::source::vonage::poller::ingest::FUTURE_SLACK_S;
use crate::source::vonage::poller::judge::{DAYLIGHT_SAVING_S, Judgement, Verdict};
use crate::source::vonage::poller::troubles::LASTING;
use crate::source::vonage::poller::{Ask, CLOSED_BEYOND_S, Observation, Poller, Request};

/// Zone probes after which naive stamps are read as UTC, the stated default, and the operator is told.
const MAX_ZONE_TRIES: u32 = 200;
/// What is asked for while probes fail or say nothing: halves of what is possible, then shorter parts, as (index, of how
/// many); and then the same for another row. A time that always fails is then soon not among what is asked for.
const PIECES: [(i64, i64); 14] =
    [(0, 2), (1, 2), (0, 4), (3, 4), (1, 4), (2, 4), (0, 8), (7, 8), (1, 8), (6, 8), (2, 8), (5, 8), (3, 8), (4, 8)];
/// Zones lie this far apart: a shorter part of a window would rule out none.
const ZONE_STEP_S: i64 = 900;
/// Pause after the probes of all rows of an answer came to nothing; it doubles with each such round. The tries then last
/// for an hour and more, in which other rows come.
const MIN_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The search for the zone, as far as a restart forgets it.
#[derive(Debug, Clone, Default)]
pub(super) struct ZoneSearch {
    /// The row that is looked for, by its stamp and id.
    pub(super) row: Option<(NaiveDateTime, String)>,
    /// Rows to choose from in the last answer.
    rows: usize,
    /// Probes that were answered.
    tries: u32,
    /// Probes that failed or said nothing: each makes the next another one.
    failures: usize,
    /// Since when rows wait, and whether that was told.
    since: Option<Instant>,
    pub(super) is_told: bool,
}

/// New rows without a zone came, and all of them are dated an hour ahead or so.
fn all_new_are_ahead(seen: &Observation) -> bool {
    new_rows(seen).next().is_some() && !any_new_is_not_ahead(seen)
}

/// Rows that came before say nothing of the zone of now.
fn any_new_is_not_ahead(seen: &Observation) -> bool {
    new_rows(seen).any(|row| row.at.timestamp() <= seen.answered_s + FUTURE_SLACK_S)
}

fn new_rows(seen: &Observation) -> impl Iterator<Item = &Row> {
    let rows = seen.rows.iter().zip(&seen.new);
    rows.filter(|(row, is_new)| **is_new && row.naive.is_some()).map(|(row, _)| row)
}

impl Poller {
    /// Rows with naive stamps are not stored under a time that may be hours off: first the zone is found out. The
    /// answer is asked for again afterwards, since nothing moved.
    pub(super) fn hold_for_zone(
        &mut self,
        request: &Request,
        seen: &Observation,
        judgement: Option<Judgement>,
        now: Instant,
        step: &mut Step,
    ) -> bool {
        let naive: Vec<_> = seen.rows.iter().filter_map(|row| row.naive.map(|stamp| (stamp, row.id.clone()))).collect();
        if naive.is_empty() {
            if matches!(request.ask, Ask::Root(_)) {
                (self.volatile.zone.since, self.volatile.zone.is_told) = (None, false);
            }
            return false;
        }
        let zone = &mut self.state.calibration.zone;
        match judgement.map(|judgement| judgement.verdict) {
            Some(Verdict::Ignored) => zone.doubt(),
            // Where clocks were put forward everything new seems to lie ahead.
            Some(_) if all_new_are_ahead(seen) => {
                zone.doubt();
                let counts_from_s = seen.answered_s + DAYLIGHT_SAVING_S;
                if zone.proven().is_none() {
                    self.state.calibration.counts_from_s = self.state.calibration.counts_from_s.max(counts_from_s);
                }
            }
            Some(_) if any_new_is_not_ahead(seen) => zone.confirm(),
            Some(_) | None => {}
        }
        let zone = &mut self.state.calibration.zone;
        if zone.proven().is_some() {
            self.volatile.zone = ZoneSearch::default();
            return false;
        }
        if request.ask == Ask::Zone {
            return false;
        }
        let lasts = now.saturating_duration_since(*self.volatile.zone.since.get_or_insert(now));
        if lasts >= LASTING && !std::mem::replace(&mut self.volatile.zone.is_told, true) {
            let text = format!(
                "for {} s events have waited for the zone of their stamps, which no answer tells: none of them is matched yet",
                lasts.as_secs()
            );
            step.notices.push(notice(NoticeKind::ZoneUnknown, &text));
        }
        if self.volatile.zone.tries >= MAX_ZONE_TRIES {
            zone.assume_utc();
            let text = "the zone of stamps without one cannot be found out; they are read as UTC";
            step.notices.push(notice(NoticeKind::ZoneUnknown, text));
        } else {
            self.volatile.zone.rows = naive.len();
            let row = self.volatile.zone.failures / PIECES.len() % naive.len();
            self.volatile.zone.row = naive.get(row).cloned();
        }
        if request.ask == Ask::Survey {
            self.begin(seen, now);
        }
        true
    }

    /// Whether the rows were read without knowing the zone of their stamps.
    #[must_use]
    pub fn must_hold(&self, rows: &[Row]) -> bool {
        self.state.calibration.zone.proven().is_none() && rows.iter().any(|row| row.naive.is_some())
    }

    /// A part of the time in which a row with this stamp may lie, by what is known of its zone. What lies ahead of the
    /// server's clock need not be asked for, and may be refused: it comes last.
    pub(super) fn zone_request(&self, stamp: NaiveDateTime, now: Instant) -> Request {
        let failures = self.volatile.zone.failures;
        let window = |piece: usize| {
            let (index, parts) = PIECES.get(piece % PIECES.len()).copied().unwrap_or((0, 2));
            self.state.calibration.zone.probe(stamp, index, parts)
        };
        let most_s = self.volatile.clock.vouched_s(now).map(|now_s| now_s + CLOSED_BEYOND_S);
        let past = |(from_s, to_s): (i64, i64)| {
            let end_s = most_s.map_or(to_s, |most_s| to_s.min(most_s));
            (end_s == to_s || end_s - from_s >= ZONE_STEP_S).then_some((from_s, end_s))
        };
        let later = failures..failures.saturating_add(PIECES.len() - failures % PIECES.len());
        let (from_s, to_s) = later.map(window).find_map(past).unwrap_or_else(|| window(failures));
        Request::new(Ask::Zone, Some(from_s), Some(to_s))
    }

    /// A zone probe failed or said nothing: next comes another part, and then another row.
    pub(super) fn ask_zone_otherwise(&mut self, now: Instant) {
        self.volatile.zone.failures = self.volatile.zone.failures.wrapping_add(1);
        if self.volatile.zone.failures.is_multiple_of(PIECES.len()) {
            self.volatile.zone.row = None;
            self.pause_for_zone(now);
        }
    }

    /// Rows to ask about come from roots: the next ones wait.
    fn pause_for_zone(&mut self, now: Instant) {
        let rounds = self.volatile.zone.failures / PIECES.len() / self.volatile.zone.rows.max(1);
        let Some(doublings) = rounds.checked_sub(1) else { return };
        let doublings = u32::try_from(doublings).unwrap_or(u32::MAX).min(16);
        let at = now + MIN_PAUSE.saturating_mul(1 << doublings).min(MAX_PAUSE);
        self.volatile.due.iter_mut().for_each(|due| *due = (*due).max(at));
    }

    pub(super) fn probed_zone(&mut self, request: &Request, seen: &Observation, now: Instant) {
        self.volatile.zone.tries += 1;
        let Some((stamp, id)) = self.volatile.zone.row.clone() else { return };
        let (Some(from_s), Some(to_s)) = (request.from_s, request.to_s) else { return };
        let zone = &mut self.state.calibration.zone;
        let before = zone.clone();
        let moment = |second| chrono::DateTime::from_timestamp(second, 0).unwrap_or_default();
        let stamps: Vec<_> = seen.rows.iter().filter_map(|row| row.naive).collect();
        zone.learn(&stamps, moment(from_s), moment(to_s));
        let rows = seen.rows.len() as u64;
        let complete = seen.page.total_elements == Some(rows) || seen.page.size.is_some_and(|size| rows < size);
        if zone.proven().is_some() {
            self.volatile.zone = ZoneSearch::default();
        } else if self.volatile.zone.tries >= MAX_ZONE_TRIES {
            self.volatile.zone.row = None;
        } else if !seen.rows.iter().any(|row| row.id == id) {
            if complete {
                zone.exclude(stamp, from_s, to_s);
                if *zone == before {
                    self.ask_zone_otherwise(now);
                }
            } else if let Some(row) = seen.rows.iter().find_map(|row| row.naive.map(|stamp| (stamp, row.id.clone()))) {
                // A row that the API does show in this window tells more than one that may be on another page.
                self.volatile.zone.row = Some(row);
            }
        }
    }
}
