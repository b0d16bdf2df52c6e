//! Blocking writes of a sink: one at a time, off the runtime's threads, bounded in waiting.
//!
//! A write that outlives its attempt (a full pipe, a hung file system) is never started a second time: the next attempt of
//! the same delivery waits for it and takes its result, so a stall gives no duplicate.

use std::io;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::{AttemptReport, Outcome};

/// How long an attempt waits for a write: as long as for a whole HTTP request.
pub(super) const MAX_WRITE: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub(super) struct Writing {
    pending: Mutex<Option<Pending>>,
}

#[derive(Debug)]
struct Pending {
    delivery_id: String,
    task: JoinHandle<io::Result<()>>,
}

impl Writing {
    /// Runs `write` and reports. It is not run when an earlier write still blocks.
    pub(super) async fn attempt(
        &self,
        delivery_id: &str,
        limit: Duration,
        write: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> AttemptReport {
        match self.run(delivery_id, limit, write).await {
            Some(Ok(())) => report(Outcome::Delivered, "written", String::new()),
            Some(Err(error)) => report(outcome_of(error.kind()), &error.kind().to_string(), error.to_string()),
            None => report(Outcome::Retry, "timed out", "the write still blocks".into()),
        }
    }

    async fn run(
        &self,
        delivery_id: &str,
        limit: Duration,
        write: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Option<io::Result<()>> {
        let deadline = Instant::now() + limit;
        let mut pending = timeout_at(deadline, self.pending.lock()).await.ok()?;
        if let Some(earlier) = pending.as_mut() {
            let result = timeout_at(deadline, &mut earlier.task).await.ok()?.unwrap_or_else(|error| Err(error.into()));
            let same = earlier.delivery_id == delivery_id;
            *pending = None;
            if same {
                return Some(result);
            }
        }
        let task = tokio::task::spawn_blocking(write);
        let current = pending.insert(Pending { delivery_id: delivery_id.to_owned(), task });
        let result = timeout_at(deadline, &mut current.task).await.ok()?.unwrap_or_else(|error| Err(error.into()));
        *pending = None;
        Some(result)
    }
}

/// Room comes back by itself; a path, a permission or a closed reader needs a person, and the backlog is kept for then.
pub(super) fn outcome_of(kind: io::ErrorKind) -> Outcome {
    match kind {
        io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::BrokenPipe => Outcome::Misconfigured,
        _ => Outcome::Retry,
    }
}

fn report(outcome: Outcome, status: &str, excerpt: String) -> AttemptReport {
    AttemptReport { outcome, status: status.into(), excerpt, spent: None, receipt: None }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_write_that_blocks_is_never_started_twice() {
        let (release, gate) = mpsc::sync_channel::<()>(1);
        let count = Arc::new(AtomicUsize::new(0));
        let writing = Writing::default();
        let counted = Arc::clone(&count);
        let first = writing.attempt("d1", SHORT, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            gate.recv().map_err(io::Error::other)
        });
        assert_eq!(first.await.status, "timed out");
        let counted = Arc::clone(&count);
        let again = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        assert_eq!(writing.attempt("d1", SHORT, again.clone()).await.outcome, Outcome::Retry);
        release.send(()).expect("the write waits");
        assert_eq!(writing.attempt("d1", MAX_WRITE, again.clone()).await.outcome, Outcome::Delivered);
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert_eq!(writing.attempt("d2", MAX_WRITE, again).await.outcome, Outcome::Delivered);
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }
}
