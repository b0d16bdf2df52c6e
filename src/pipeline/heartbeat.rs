//! A heartbeat: a URL that is asked at regular times as long as polling and delivery succeed, so that somebody else notices
//! when they do not, this program's death included.
//!
//! It never beats to say that something is wrong: silence says that. It beats late rather than wrongly, and a beat that fails
//! is no failure of anything else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::BoxFuture;
use super::status::{Snapshot, Status};
use crate::clock::Clock;
use crate::store::{Result, Store};

/// Dead letters of a sink, and when there came another.
type DeadLetters = (u64, Option<DateTime<Utc>>);

/// Where it beats.
pub trait Ping: Send + Sync {
    /// One beat; what went wrong otherwise, for people and without secrets.
    fn ping(&self) -> BoxFuture<'_, std::result::Result<(), String>>;
}

/// How it is configured.
#[derive(Clone)]
pub struct Beat {
    /// Where it beats.
    pub ping: Arc<dyn Ping>,
    /// How often.
    pub every: Duration,
    /// A delivery may wait for so long.
    pub late_after: Duration,
}

/// Beats while all is well.
pub struct Heartbeat {
    /// Where and how often.
    pub beat: Beat,
    /// Names of the sinks that must deliver.
    pub sinks: Vec<String>,
    /// How sources stand.
    pub status: Arc<Status>,
    /// How long deliveries wait.
    pub store: Arc<dyn Store>,
    /// Both clocks.
    pub clock: Arc<dyn Clock>,
}

impl Heartbeat {
    /// Until `stop`.
    ///
    /// # Errors
    /// When the store failed for good.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let (mut was_silent_for, mut dead) = (None, HashMap::new());
        for sink in &self.sinks {
            dead.insert(sink.clone(), (self.store.queue(sink).await?.dead, None));
        }
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.beat.every) => {}
            }
            let silent_for = self.trouble(&mut dead).await?;
            match &silent_for {
                None => {
                    if let Err(error) = self.beat.ping.ping().await {
                        tracing::warn!(?error, "the heartbeat was not taken");
                    }
                }
                Some(trouble) if was_silent_for.is_none() => {
                    tracing::warn!(?trouble, "no heartbeat while this lasts");
                }
                Some(_) => {}
            }
            was_silent_for = silent_for;
        }
    }

    /// What keeps it from beating.
    async fn trouble(&self, dead: &mut HashMap<String, DeadLetters>) -> Result<Option<String>> {
        if let Some(trouble) = polling_trouble(&self.status.snapshot(), self.clock.now()) {
            return Ok(Some(trouble));
        }
        let steady = self.clock.steady();
        for sink in &self.sinks {
            let queue = self.store.queue(sink).await?;
            let (known, since) = dead.entry(sink.clone()).or_default();
            if queue.dead > *known {
                *since = Some(steady);
            }
            *known = queue.dead;
            if since.is_some_and(|since| (steady - since).to_std().is_ok_and(|ago| ago <= self.beat.late_after)) {
                return Ok(Some(format!("sink {sink} gave up an alert")));
            }
            let waits = queue.oldest_created_at.map(|at| (steady - at).to_std().unwrap_or_default());
            if waits.is_some_and(|waits| waits > self.beat.late_after) {
                return Ok(Some(format!("sink {sink} has not delivered an alert for longer than it may")));
            }
        }
        Ok(None)
    }
}

fn polling_trouble(snapshot: &Snapshot, now: DateTime<Utc>) -> Option<String> {
    if let Some(store) = &snapshot.store {
        return Some(format!("nothing can be stored: {store}"));
    }
    if snapshot.sources.is_empty() {
        return Some("no source was asked yet".into());
    }
    snapshot.sources.iter().find_map(|(name, source)| match (&source.failing, source.is_polled(now)) {
        (Some(failing), _) => Some(format!("source {name} fails: {failing}")),
        (None, false) => Some(format!("source {name} was not polled")),
        (None, true) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::clock::TokioClock;
    use crate::store::contract::{at, batch};
    use crate::store::memory::MemoryStore;
    use crate::store::{Resolution, Settlement};

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Ping for Counted {
        fn ping(&self) -> BoxFuture<'_, std::result::Result<(), String>> {
            let count = self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { if count == 0 { Err("refused".into()) } else { Ok(()) } })
        }
    }

    struct Scene {
        store: MemoryStore,
        status: Arc<Status>,
        pings: Arc<Counted>,
        clock: Arc<TokioClock>,
        stop: CancellationToken,
    }

    fn scene() -> Scene {
        let (store, status, pings) = (MemoryStore::new(), Arc::<Status>::default(), Arc::<Counted>::default());
        let stop = CancellationToken::new();
        let beat = Beat { ping: pings.clone(), every: Duration::from_secs(60), late_after: Duration::from_secs(600) };
        let (sinks, clock) = (vec!["chat".to_owned()], Arc::new(TokioClock::starting_at(at(0))));
        let heartbeat =
            Heartbeat { beat, sinks, status: status.clone(), store: Arc::new(store.clone()), clock: clock.clone() };
        tokio::spawn(heartbeat.run(stop.clone()));
        Scene { store, status, pings, clock, stop }
    }

    fn settled(delivery_id: &str, resolution: Resolution) -> Settlement {
        Settlement {
            delivery_id: delivery_id.to_owned(),
            resolution,
            started_at: at(0),
            latency_ms: 0,
            status: String::new(),
            excerpt: String::new(),
            receipt: None,
        }
    }

    impl Scene {
        /// Beats within so many minutes, in which polling succeeds or does not.
        async fn beats(&self, minutes: u64, failing: Option<&str>) -> usize {
            let before = self.pings.0.load(Ordering::Relaxed);
            for _ in 0..minutes {
                self.status.update_source("main", |source| {
                    source.failing = failing.map(str::to_owned);
                    source.last_success_at = Some(self.clock.now());
                });
                tokio::time::advance(Duration::from_secs(60)).await;
                // The task runs up to its next wait.
                for _ in 0..8 {
                    tokio::task::yield_now().await;
                }
            }
            self.pings.0.load(Ordering::Relaxed) - before
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_beats_only_while_polling_and_delivery_succeed() {
        let scene = scene();
        tokio::task::yield_now().await;
        assert_eq!(scene.beats(5, None).await, 5, "a beat that is refused is followed by the next");
        assert_eq!(scene.beats(5, Some("HTTP 500")).await, 0);
        assert_eq!(scene.beats(2, None).await, 2);
        scene.status.update(|snapshot| snapshot.store = Some("no space".into()));
        assert_eq!(scene.beats(2, None).await, 0);
        scene.status.stored();
        // 14 minutes are over: an alert that waits since the eighth.
        scene.store.commit(batch("a", 8 * 60, &["chat"])).await.expect("stored");
        assert_eq!(scene.beats(4, None).await, 4, "it may wait for ten minutes");
        assert_eq!(scene.beats(5, None).await, 0);
        let claimed = scene.store.claim("chat", at(9_999), at(9_999), 64).await.expect("claimed");
        let done = settled(&claimed[0].delivery_id, Resolution::Delivered { unconfirmed: false });
        scene.store.settle("chat", vec![done], None).await.expect("settled");
        assert_eq!(scene.beats(2, None).await, 2);
        scene.store.commit(batch("b", 25 * 60, &["chat"])).await.expect("stored");
        let claimed = scene.store.claim("chat", at(9_999), at(9_999), 64).await.expect("claimed");
        scene
            .store
            .settle("chat", vec![settled(&claimed[0].delivery_id, Resolution::Dead)], None)
            .await
            .expect("settled");
        assert_eq!(scene.beats(5, None).await, 0, "an alert was given up");
        assert_eq!(scene.beats(10, None).await, 4, "ten minutes later");
        scene.stop.cancel();
    }

    #[test]
    fn a_source_that_was_never_polled_or_long_ago_is_trouble() {
        let status = Status::default();
        let trouble = |status: &Status, seconds| polling_trouble(&status.snapshot(), at(seconds));
        assert!(trouble(&status, 0).is_some(), "no source yet");
        status.update_source("main", |_| {});
        assert!(trouble(&status, 0).is_some_and(|trouble| trouble.contains("main was not polled")));
        status.update_source("main", |source| source.last_success_at = Some(at(0)));
        assert_eq!((trouble(&status, 1199), trouble(&status, 1200).is_some()), (None, true));
        status.update_source("main", |source| source.finished = true);
        assert_eq!(trouble(&status, 9_999), None, "a file that is read to its end");
    }
}
