//! What rules remember, as rows that the store commits together with the batch that changed them.
//!
//! The engine never keeps a change to itself: a batch collects changes, the store commits them, and only then are they
//! applied. A commit that fails leaves the engine as it was.

use serde::{Deserialize, Serialize};

/// Kind of the rows that say which alert of a rule takes up a match.
pub const FOLD_KIND: &str = "fold";

/// Identity of a row: which rule, which kind of memory (`fold` now; the stateful detections add theirs), which key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StateKey {
    /// Rule id.
    pub rule_id: String,
    /// Kind of memory.
    pub kind: String,
    /// Group key within the rule; opaque to the store.
    pub key: String,
}

/// A row set or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// Which row.
    pub key: StateKey,
    /// New value (JSON), or `None` to remove the row.
    pub value: Option<String>,
    /// Event time in microseconds after which the row has no effect and may be dropped.
    pub expires_at_us: Option<i64>,
}
