//! Rows of the program's own in the rules' state, one a source: committed with the events that they count, and passed by
//! in the engine.

use serde::Serialize;
use serde::de::DeserializeOwned;
use vigie_engine::state::{StateChange, StateKey, StateRows};

/// Rule id under which they stand; no rule of a user is named so.
const RULE_ID: &str = "vigie";

/// One kind of such rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnRows {
    pub(super) kind: &'static str,
    /// What follows for the operator when a row cannot be read.
    pub(super) unreadable: &'static str,
}

impl OwnRows {
    /// Those among rows that the store kept: source and content.
    pub(super) fn read<T: DeserializeOwned>(self, rows: &StateRows) -> impl Iterator<Item = (String, T)> {
        let is_own = (rows.rule_id.as_str(), rows.kind.as_str()) == (RULE_ID, self.kind);
        rows.rows.iter().filter(move |_| is_own).filter_map(move |(source, value)| {
            let read = serde_json::from_str(value);
            let content = read.inspect_err(|error| tracing::warn!(%source, ?error, "{}", self.unreadable)).ok()?;
            Some((source.to_string(), content))
        })
    }

    /// The row of a source for the store. Numbers and text: writing cannot fail.
    pub(super) fn write<T: Serialize>(self, source: &str, content: &T) -> StateChange {
        let key = StateKey { rule_id: RULE_ID.into(), kind: self.kind.into(), key: source.to_owned() };
        StateChange { key, value: serde_json::to_string(content).ok(), expires_at_us: None }
    }

    /// There is no such row any more.
    pub(super) fn remove(self, key: &str) -> StateChange {
        let key = StateKey { rule_id: RULE_ID.into(), kind: self.kind.into(), key: key.to_owned() };
        StateChange { key, value: None, expires_at_us: None }
    }
}
