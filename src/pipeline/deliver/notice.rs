//! What a lane has to tell the operator. It never blocks a lane: when nobody takes notices up, they are counted and dropped,
//! because the lane's state and the dead letters are in the store anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::counter;
use tokio::sync::{mpsc, watch};

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
pub struct NoticeSender {
    waiting: mpsc::Sender<LaneNotice>,
    told: Arc<AtomicU64>,
    done: watch::Receiver<u64>,
}

/// The other end, which takes notices up.
#[derive(Debug)]
pub struct Notices {
    waiting: mpsc::Receiver<LaneNotice>,
    done: watch::Sender<u64>,
}

impl Notices {
    /// The next one; `None` once no lane is left.
    pub async fn next(&mut self) -> Option<LaneNotice> {
        self.waiting.recv().await
    }

    /// The next one, if it is there.
    #[cfg(test)]
    pub fn try_next(&mut self) -> Option<LaneNotice> {
        self.waiting.try_recv().ok()
    }

    /// The last one is dealt with.
    pub fn is_done(&self) {
        self.done.send_modify(|done| *done += 1);
    }
}

impl NoticeSender {
    /// A bounded channel for all lanes together.
    #[must_use]
    pub fn channel() -> (Self, Notices) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING_NOTICES);
        let (done_in, done) = watch::channel(0);
        (Self { waiting: sender, told: Arc::default(), done }, Notices { waiting: receiver, done: done_in })
    }

    /// Hands a notice over, or counts it as dropped.
    pub fn tell(&self, notice: LaneNotice) {
        tracing::warn!(sink = ?notice.sink, kind = notice.kind.event_type(), notice = ?notice.message, "sink notice");
        match self.waiting.try_send(notice) {
            Ok(()) => {
                self.told.fetch_add(1, Ordering::Relaxed);
            }
            Err(mpsc::error::TrySendError::Full(notice) | mpsc::error::TrySendError::Closed(notice)) => {
                counter!(crate::metrics::SINK_NOTICES_DROPPED, "sink" => notice.sink).increment(1);
            }
        }
    }

    /// Waits until all that was told so far is dealt with, or nobody takes up any more; how many that were.
    pub async fn all_done(&self) -> u64 {
        let told = self.told.load(Ordering::Relaxed);
        let mut done = self.done.clone();
        // An error means that the other end is gone: whoever ended it says why.
        drop(done.wait_for(|done| *done >= told).await);
        told
    }
}
