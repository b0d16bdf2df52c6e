//! Findings: what a stateful match rests on, for people and for machines.
//!
//! Values of events stay `Untrusted`; a finding is bounded, the row behind it may hold more.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::log::Observation;
use crate::text::Untrusted;

/// Most events that a finding lists; the newest are kept, and the one it began with.
pub const MAX_EVIDENCE: usize = 20;

/// Why a stateful rule fired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `threshold`, `distinct`, `first_seen`, `travel`, `sequence`, `absence` or `spike`.
    pub detection: String,
    /// One sentence with the numbers. It holds text of events: a writer escapes it like any.
    pub summary: Untrusted,
    /// The events that it rests on, in order of time, at most [`MAX_EVIDENCE`].
    pub evidence: Vec<Evidence>,
}

/// One event behind a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// When it happened.
    pub at: DateTime<Utc>,
    /// Its id.
    pub event_id: String,
    /// Its type.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub event_type: Option<Untrusted>,
    /// From which address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source_ip: Option<Untrusted>,
    /// From which country.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source_country: Option<Untrusted>,
    /// What it stands for: a step's name, a value.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<Untrusted>,
}

impl Evidence {
    pub(super) fn of(observation: &Observation, note: Option<&str>) -> Self {
        let untrusted = |text: &Option<Box<str>>| text.as_deref().map(Untrusted::new);
        Self {
            at: DateTime::from_timestamp_micros(observation.at_us).unwrap_or_default(),
            event_id: observation.id.to_string(),
            event_type: untrusted(&observation.event_type),
            source_ip: untrusted(&observation.ip),
            source_country: untrusted(&observation.country),
            note: note.map(Untrusted::new),
        }
    }

    /// At most [`MAX_EVIDENCE`] of many: the first and the newest.
    pub(super) fn some(mut all: Vec<Self>) -> Vec<Self> {
        if all.len() > MAX_EVIDENCE {
            all.drain(1..all.len() + 1 - MAX_EVIDENCE);
        }
        all
    }
}

/// For a match whose events are gone: they came so late that their window was forgotten.
pub(super) fn none_found() -> (Untrusted, Vec<Evidence>) {
    (Untrusted::new("the events behind it are not in memory any more"), Vec::new())
}
