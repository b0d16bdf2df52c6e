//! Events that the API shows again under their id with other content.
//!
//! An audit event is immutable, so it is never evaluated twice; but that one was changed after the deed is what an intruder
//! would do, and the operator is told once for each change.

use std::collections::{HashMap, HashSet};

use vigie_engine::event::{Digest, text_digest};

use crate::source::vonage::event::{Content, Row};
use crate::source::{Held, Notice, NoticeKind};

/// Changes that are remembered as told. Beyond that they are told again: a look-back shows them at each poll.
const MAX_TOLD: usize = 1_000;
/// How much of an id a notice shows.
const MAX_SHOWN_ID_CHARS: usize = 80;

/// What was found, and what was told.
#[derive(Debug, Default)]
pub(super) struct Altered {
    found: Vec<(String, Digest)>,
    told: HashSet<(String, Digest)>,
}

impl Altered {
    /// Compares an answer with what is stored (`held`, of each row) and with what the answer says twice (`repeated`).
    pub(super) fn look_at(&mut self, rows: &[Row], held: &[Held], repeated: &[Row]) {
        self.found.clear();
        let mut known: HashMap<&str, Digest> = HashMap::new();
        for (row, held) in rows.iter().zip(held) {
            let own = digest(row);
            if let Held::Content(stored) = held
                && *stored != own
            {
                self.find(row, own);
            }
            if !repeated.is_empty() {
                known.insert(&row.id, own);
            }
        }
        for row in repeated {
            let own = digest(row);
            if known.get(row.id.as_str()).is_some_and(|first| *first != own) {
                self.find(row, own);
            }
        }
    }

    /// What the operator must know of the latest answer.
    pub(super) fn notice(&self) -> Option<Notice> {
        let (first, _) = self.found.first()?;
        let message = format!(
            "{} event(s) came again under their id with other content (such as `{}`); they were not evaluated again",
            self.found.len(),
            vigie_engine::text::single_line(first, MAX_SHOWN_ID_CHARS),
        );
        Some(Notice { kind: NoticeKind::IdReused, message })
    }

    /// The notice of the latest answer was stored.
    pub(super) fn told(&mut self) {
        if self.told.len() + self.found.len() > MAX_TOLD {
            self.told.clear();
        }
        self.told.extend(self.found.drain(..).take(MAX_TOLD));
    }

    fn find(&mut self, row: &Row, digest: Digest) {
        let change = (row.id.clone(), digest);
        if !self.told.contains(&change) && !self.found.contains(&change) {
            self.found.push(change);
        }
    }
}

fn digest(row: &Row) -> Digest {
    match &row.content {
        Content::Event(event) => event.digest(),
        Content::Poison(poison) => text_digest(&poison.raw),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::{DateTime, FixedOffset, Offset as _, Utc};

    use super::*;
    use crate::source::vonage::event::read_row;

    fn row(id: &str, kind: &str) -> Row {
        let raw = format!(r#"{{"id":"{id}","created_at":"2026-03-01T00:00:00Z","event_type":"{kind}"}}"#);
        let zone: FixedOffset = Utc.fix();
        read_row(&Arc::from(raw), zone, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn a_change_is_told_once_it_is_stored_and_then_not_again() {
        let mut altered = Altered::default();
        let rows = [row("a", "APP_CREATE"), row("b", "APP_DELETE"), row("c", "APP_CREATE"), row("d", "APP_CREATE")];
        let held = [
            Held::Content(digest(&rows[0])),
            Held::Content(digest(&row("b", "APP_CREATE"))),
            Held::Unknown,
            Held::Nothing,
        ];
        altered.look_at(&rows, &held, &[]);
        let told = altered.notice().expect("changed").message;
        assert!(told.starts_with("1 event(s)") && told.contains("`b`"), "{told}");
        altered.look_at(&rows, &held, &[]);
        assert!(altered.notice().is_some(), "it was not stored");
        altered.told();
        assert!(altered.notice().is_none());
        altered.look_at(&rows, &held, &[]);
        assert!(altered.notice().is_none(), "told already");
        let again = [row("b", "APP_UPDATE")];
        altered.look_at(&again, &[Held::Content([0; 16])], &[]);
        assert!(altered.notice().is_some(), "another change");
    }

    #[test]
    fn one_answer_may_contradict_itself() {
        let mut altered = Altered::default();
        let rows = [row("a", "APP_CREATE")];
        altered.look_at(&rows, &[Held::Nothing], &[row("a", "APP_CREATE")]);
        assert!(altered.notice().is_none(), "a repetition");
        altered.look_at(&rows, &[Held::Nothing], &[row("a", "APP_DELETE")]);
        assert!(altered.notice().is_some());
    }
}
