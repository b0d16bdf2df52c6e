//! Two wrong commit orders around the real store, in a process of their own that can be killed like the real one.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use vigie::clock::SystemClock;
use vigie::config::{self, Surroundings};
use vigie::daemon::Daemon;
use vigie::pipeline::BoxFuture;
use vigie::sink::Delivery;
use vigie::source::{Held, Seen};
use vigie::store::sqlite::{SqliteOptions, SqliteStore};
use vigie::store::{IngestBatch, LaneState, Loaded, Queue, Resolution, Result, Settlement, Store};

use crate::program::{Place, Running};

const VARIABLE: &str = "VIGIE_TEST_ORDER";
/// A slow disk between the two halves of what should be one commit.
const BETWEEN: Duration = Duration::from_millis(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Ids and cursor in one commit, alerts and deliveries in the next.
    SeenFirst,
    /// A delivery is settled as delivered when it is claimed.
    MarkThenSend,
}

/// Starts this test binary again, as a daemon with the wrong order.
pub(super) fn start(place: &Place, order: Order) -> Running {
    let this = std::env::current_exe().expect("this binary");
    let mut command = tokio::process::Command::new(this);
    command
        .args(["--exact", "crash::mutant::daemon_with_a_wrong_order", "--nocapture"])
        .current_dir(place.path())
        .env(VARIABLE, format!("{order:?}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    Running::from(command.spawn().expect("it starts"))
}

/// The body of the process that `start` makes; does nothing in an ordinary run of the tests.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the process is told by its environment what it is")]
async fn daemon_with_a_wrong_order() {
    let order = match std::env::var(VARIABLE).as_deref() {
        Ok("SeenFirst") => Order::SeenFirst,
        Ok("MarkThenSend") => Order::MarkThenSend,
        _ => return,
    };
    let clock = Arc::new(SystemClock);
    let surroundings = Surroundings {
        variable: &|_| None,
        sinks: vigie::sink::BuildContext::new(clock.clone(), Arc::new(std::sync::Mutex::new(std::io::sink())), false),
        sources: vigie::source::BuildContext { clock: clock.clone() },
    };
    let (config, _) = config::load(&[Path::new("vigie.yaml").to_path_buf()], &surroundings);
    let config = config.expect("the scene's configuration loads");
    let real = Arc::new(SqliteStore::open(&config.state_dir, &SqliteOptions::daemon()).expect("the store opens"));
    let daemon = Daemon {
        store: Arc::new(Wrong { real: real.clone(), order }),
        alerts: real.clone(),
        follow_ups: real.clone(),
        holds: real.clone(),
        maintain: real,
        clock,
        status: Arc::default(),
        once: false,
        dry_run: false,
        jitter_seed: 1,
    };
    daemon.run(config, &CancellationToken::new()).await.expect("it runs until it is killed");
}

struct Wrong {
    real: Arc<SqliteStore>,
    order: Order,
}

impl Seen for Wrong {
    fn held<'a>(&'a self, source: &'a str, ids: &'a [String]) -> BoxFuture<'a, Result<Vec<Held>>> {
        self.real.held(source, ids)
    }

    fn count<'a>(&'a self, source: &'a str, from: DateTime<Utc>, to: DateTime<Utc>) -> BoxFuture<'a, Result<u64>> {
        self.real.count(source, from, to)
    }
}

impl Store for Wrong {
    fn load(&self) -> BoxFuture<'_, Result<Loaded>> {
        self.real.load()
    }

    fn take_over(&self, now: DateTime<Utc>, latest: DateTime<Utc>) -> BoxFuture<'_, Result<()>> {
        self.real.take_over(now, latest)
    }

    fn commit(&self, batch: IngestBatch) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.order != Order::SeenFirst {
                return self.real.commit(batch).await;
            }
            let second = IngestBatch {
                source: batch.source.clone(),
                state: batch.state,
                alerts: batch.alerts,
                folds: batch.folds,
                deliveries: batch.deliveries,
                unmuted: batch.unmuted,
                at: batch.at,
                due_at: batch.due_at,
                ..IngestBatch::default()
            };
            let first = IngestBatch {
                source: batch.source,
                cursor: batch.cursor,
                events: batch.events,
                at: batch.at,
                ..IngestBatch::default()
            };
            self.real.commit(first).await?;
            tokio::time::sleep(BETWEEN).await;
            self.real.commit(second).await
        })
    }

    fn claim<'a>(
        &'a self,
        sink: &'a str,
        now: DateTime<Utc>,
        lease_until: DateTime<Utc>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        Box::pin(async move {
            let claimed = self.real.claim(sink, now, lease_until, limit).await?;
            if self.order == Order::MarkThenSend {
                let marks = claimed.iter().map(|delivery| Settlement {
                    delivery_id: delivery.delivery_id.clone(),
                    resolution: Resolution::Delivered { unconfirmed: false },
                    started_at: now,
                    latency_ms: 0,
                    status: "marked".into(),
                    excerpt: String::new(),
                });
                self.real.settle(sink, marks.collect(), None).await?;
                tokio::time::sleep(BETWEEN).await;
            }
            Ok(claimed)
        })
    }

    fn settle<'a>(
        &'a self,
        sink: &'a str,
        settlements: Vec<Settlement>,
        lane: Option<LaneState>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if self.order == Order::MarkThenSend {
                return Ok(());
            }
            self.real.settle(sink, settlements, lane).await
        })
    }

    fn queue<'a>(&'a self, sink: &'a str) -> BoxFuture<'a, Result<Queue>> {
        self.real.queue(sink)
    }
}
