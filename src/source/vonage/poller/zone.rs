//! Naive stamps: nothing of an answer with them is stored before their zone is known.

use crate::source::NoticeKind;
use crate::source::vonage::event::Row;
use crate::source::vonage::poller::absorb::{Step, notice};
use crate::source::vonage::poller::judge::{Judgement, Verdict};
use crate::source::vonage::poller::{Ask, Observation, Poller, Request};

/// Zone probes after which naive stamps are read as UTC, the stated default, and the operator is told.
const MAX_ZONE_TRIES: u32 = 200;

impl Poller {
    /// Rows with naive stamps are not stored under a time that may be hours off: first the zone is found out. The
    /// answer is asked for again afterwards, since nothing moved.
    pub(super) fn hold_for_zone(
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

    pub(super) fn probed_zone(&mut self, request: &Request, seen: &Observation) {
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
}
