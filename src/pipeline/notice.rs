//! What the program has to say about itself, as events of the built-in source `vigie`.
//!
//! They go through the same engine, routes and store as any event, so dedup, quiet and delivery need no second mechanism.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::json;
use vigie_engine::alert::Alert;
use vigie_engine::event::Event;

use super::deliver::LaneNoticeKind;

/// Name of the built-in source.
pub const SOURCE: &str = "vigie";

/// Rules over the built-in source; they are in force beside the user's own.
pub const BUILTIN_RULES: &str = include_str!("../../rules/builtin/vigie.yaml");

/// Longest text of a notice in characters: it may quote an answer.
const MAX_TEXT_CHARS: usize = 600;

/// One thing to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfNotice {
    /// `VIGIE_...`, see rules/builtin.
    pub event_type: &'static str,
    /// Which source or sink it is about.
    pub about: String,
    /// One sentence, without secrets.
    pub text: String,
}

/// The sink that an alert is about, if it is one of those that a lane told of.
#[must_use]
pub fn sink_of(alert: &Alert) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        event_type: String,
        about: String,
    }
    if alert.source != SOURCE {
        return None;
    }
    let said: Said = serde_json::from_str(alert.event.get()).ok()?;
    LaneNoticeKind::ALL.iter().any(|kind| kind.event_type() == said.event_type).then_some(said.about)
}

/// Numbers notices within this process, so that two of one microsecond differ.
static SERIAL: AtomicU64 = AtomicU64::new(0);

impl SelfNotice {
    /// The event under which the built-in rules see it. Its id is new each time: folding is the rules' business.
    #[must_use]
    pub fn into_event(self, now: DateTime<Utc>) -> Option<Event> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new();
        for part in [self.event_type, &self.about, &now.timestamp_micros().to_string(), &serial.to_string()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let id: String = hasher.finalize().to_hex().chars().take(32).collect();
        let raw = json!({
            "id": id,
            "event_type": self.event_type,
            "created_at": now.to_rfc3339_opts(SecondsFormat::Micros, true),
            "source": SOURCE,
            "about": self.about,
            "message": vigie_engine::text::single_line(&self.text, MAX_TEXT_CHARS),
        });
        Event::new(&id, now, Arc::from(raw.to_string())).ok()
    }
}
