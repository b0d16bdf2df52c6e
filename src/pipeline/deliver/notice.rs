//! What a lane has to tell the operator. It never blocks a lane: when nobody takes notices up, they are counted and dropped,
//! because the lane's state and the dead letters are in the store anyway.

use metrics::counter;
use tokio::sync::mpsc;

/// How many notices may wait to be taken up: a few for each of some dozens of sinks.
pub const MAX_WAITING_NOTICES: usize = 256;

/// Something the operator must know about a sink. It becomes an event of the built-in source `vigie`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneNotice {
    /// Sink name from the configuration; a notice must not be routed to this sink alone.
    pub sink: String,
    /// What happened.
    pub kind: LaneNoticeKind,
    /// One sentence for people, without secrets.
    pub message: String,
}

/// Kinds of notices; each has a built-in rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaneNoticeKind {
    /// The destination refuses us (401, 403, 404): nothing arrives until somebody mends the configuration.
    Misconfigured,
    /// Nothing has been delivered for longer than a few minutes.
    Failing,
    /// A lane of which one of the above was said delivers again.
    Recovered,
    /// A delivery was given up.
    DeadLetter,
}

impl LaneNoticeKind {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Misconfigured, Self::Failing, Self::Recovered, Self::DeadLetter];

    /// The event type under which the built-in rules see it.
    #[must_use]
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Misconfigured => "VIGIE_SINK_MISCONFIGURED",
            Self::Failing => "VIGIE_SINK_FAILING",
            Self::Recovered => "VIGIE_SINK_RECOVERED",
            Self::DeadLetter => "VIGIE_DEAD_LETTER",
        }
    }
}

/// The lanes' end of the channel.
#[derive(Debug, Clone)]
pub struct NoticeSender(mpsc::Sender<LaneNotice>);

impl NoticeSender {
    /// A bounded channel for all lanes together.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<LaneNotice>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING_NOTICES);
        (Self(sender), receiver)
    }

    /// Hands a notice over, or counts it as dropped.
    pub fn tell(&self, notice: LaneNotice) {
        tracing::warn!(sink = ?notice.sink, kind = notice.kind.event_type(), notice = ?notice.message, "sink notice");
        if let Err(mpsc::error::TrySendError::Full(notice) | mpsc::error::TrySendError::Closed(notice)) =
            self.0.try_send(notice)
        {
            counter!(crate::metrics::SINK_NOTICES_DROPPED, "sink" => notice.sink).increment(1);
        }
    }
}
