//! Rules that had to forget before its time what they had noted: what depends on it may stay silent, so somebody must know.
//!
//! The engine says which; here it is only seen to that each rule is told of at most once an hour.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

use crate::pipeline::notice::SelfNotice;

/// A rule that is at its bound forgets with each new key.
const TOLD_EVERY: TimeDelta = TimeDelta::hours(1);

/// By rule.
#[derive(Debug, Default)]
pub(super) struct Evicted(Mutex<BTreeMap<String, Rule>>);

#[derive(Debug, Default)]
struct Rule {
    /// Rows and noted events that were not told yet.
    untold: u64,
    told_at: Option<DateTime<Utc>>,
}

impl Evicted {
    /// Counts what a batch had to forget.
    pub(super) fn add(&self, evicted: &[(String, u64)]) {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (rule_id, count) in evicted {
            rules.entry(rule_id.clone()).or_default().untold += count;
        }
    }

    /// What is to be told now; it counts as told.
    pub(super) fn notices(&self, now: DateTime<Utc>) -> Vec<SelfNotice> {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = rules
            .iter_mut()
            .filter(|(_, rule)| rule.untold > 0 && rule.told_at.is_none_or(|told_at| now >= told_at + TOLD_EVERY));
        due.map(|(rule_id, rule)| {
            rule.told_at = Some(now);
            let text = format!(
                "{} rows or noted events had to make room for others before their time; with too many keys raise `max_keys`, with too many \
                 events of one key narrow `when`",
                std::mem::take(&mut rule.untold)
            );
            SelfNotice { event_type: "VIGIE_STATE_EVICTED", about: rule_id.clone(), text }
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_told_of_once_an_hour_with_all_that_was_lost_since() {
        let evicted = Evicted::default();
        let at = |minutes: i64| DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes);
        assert!(evicted.notices(at(0)).is_empty());
        let told = |minutes: i64, count: u64| {
            evicted.add(&[("many".into(), count)]);
            let notices = evicted.notices(at(minutes));
            notices
                .iter()
                .map(|notice| (notice.about.clone(), notice.text.split(' ').next().map(str::to_owned)))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(1, 2), [("many".to_owned(), Some("2".to_owned()))]);
        assert_eq!(told(30, 3), []);
        assert_eq!(told(61, 4), [("many".to_owned(), Some("7".to_owned()))]);
        assert!(evicted.notices(at(500)).is_empty(), "nothing more was lost");
    }
}
