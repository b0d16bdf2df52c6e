//! Rows of an answer: handed on once, and what can be learned from them about lateness and the newest event.

use crate::source::NoticeKind;
use crate::source::vonage::event::{Content, Row};
use crate::source::vonage::poller::absorb::{Step, notice};
use crate::source::vonage::poller::{Observation, Poller, look_backs_s};
use crate::source::vonage::state::Anchor;

/// A row dated further ahead than this is reported.
pub(super) const FUTURE_SLACK_S: i64 = 60;
/// The last tier never looks back further: the usual retention of the store.
pub const MAX_LOOK_BACK_S: i64 = 30 * 86_400;
/// Rows of one answer that are told one by one; of what comes beyond, the number is told. All are kept.
const MAX_ROW_NOTICES: usize = 5;

impl Poller {
    /// Hands on what is new and learns from it.
    pub(super) fn ingest(&mut self, seen: &Observation, proven_s: i64, step: &mut Step) {
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
        let more = [
            (NoticeKind::PoisonEvent, poisoned, "are no events; kept"),
            (NoticeKind::FutureEvent, ahead, "are dated ahead of the API's clock"),
        ];
        for (kind, rows, text) in more.into_iter().filter(|(_, rows, _)| *rows > MAX_ROW_NOTICES) {
            step.notices.push(notice(kind, &format!("{} more rows of the same answer {text}", rows - MAX_ROW_NOTICES)));
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

fn shown(row: &Row) -> String {
    vigie_engine::text::single_line(&row.id, 64)
}
