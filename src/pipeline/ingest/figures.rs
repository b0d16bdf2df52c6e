//! What ingest counts and shows: metrics, and how a source stands. It decides nothing.

use chrono::{DateTime, Utc};
use metrics::{counter, gauge};
use vigie_engine::engine::Effects;

use super::Ingest;
use crate::metrics as names;

impl Ingest {
    /// An answer was taken; only one without fault counts as a success.
    #[expect(clippy::cast_precision_loss, reason = "metrics are floats; seconds and counts stay far below 2^53")]
    pub(super) fn polled(&self, name: &str, windows_owed: u64, at_fault: Option<&str>, now: DateTime<Utc>) {
        let source = name.to_owned();
        let outcome = if at_fault.is_none() { "ok" } else { "at_fault" };
        counter!(names::POLL, "source" => source.clone(), "outcome" => outcome).increment(1);
        gauge!(names::WINDOWS_OWED, "source" => source.clone()).set(windows_owed as f64);
        match at_fault {
            None => {
                gauge!(names::POLL_LAST_SUCCESS, "source" => source).set(now.timestamp() as f64);
                self.status.update_source(name, |status| {
                    status.last_success_at = Some(now);
                    status.failing = None;
                    status.failing_since = None;
                });
            }
            Some(fault) => self.status.update_source(name, |status| {
                status.failing = Some(fault.to_owned());
                status.failing_since.get_or_insert(now);
            }),
        }
    }

    pub(super) fn count(&self, effects: &Effects) {
        for (rule_id, matches) in &effects.matches {
            counter!(names::RULE_MATCHES, "rule" => rule_id.clone()).increment(*matches);
        }
        for (rule_id, events) in &effects.uncounted {
            counter!(names::RULE_UNCOUNTED, "rule" => rule_id.clone()).increment(*events);
        }
        counter!(names::UNUSABLE_VALUES).increment(effects.unusable_values);
        counter!(names::TITLE_FAILURES).increment(effects.title_failures);
        for (rule_id, rows) in &effects.evicted {
            counter!(names::STATE_EVICTED, "rule" => rule_id.clone()).increment(*rows);
        }
        self.evicted.add(&effects.evicted);
        self.status.update(|snapshot| snapshot.alerts += effects.alerts.len() as u64);
    }
}
