//! Durable ingest: events a second through `Store::commit` on a real disk, beside the disk's own fsync time.
//!
//! Plain timing instead of a sampler, because a commit's cost depends on the file's growth and must be seen over many
//! commits.

#[path = "shared/figures.rs"]
mod figures;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use vigie::source::Cursor;
use vigie::store::sqlite::{SqliteOptions, SqliteStore};
use vigie::store::{IngestBatch, Store, StoredEvent};

use figures::{millis, percentiles, print, print_fsync, scratch};

/// Events in one commit: the largest page of the Audit API.
const BATCH_EVENTS: usize = 100;
/// Commits in one measurement: long enough for several checkpoints.
const COMMITS: usize = 2000;
/// Events a second that one source's commits must reach.
const AIM: f64 = 15_000.0;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let dir = scratch()?;
    print_fsync(dir.path())?;
    for sources in [1, 4] {
        let state = dir.path().join(format!("sources-{sources}"));
        let store = SqliteStore::open(&state, &SqliteOptions::daemon())?;
        let report = runtime.block_on(ingest(&store, sources))?;
        let rate = report.events as f64 / report.elapsed.as_secs_f64();
        let name = format!("durable ingest, {BATCH_EVENTS} a commit, {sources} source(s)");
        print(&name, &format!("{rate:.0} events/s"), Some(("15,000 events/s or more", rate >= AIM)));
        let times = format!("p50 {:.2} ms, p99 {:.2} ms", millis(report.p50), millis(report.p99));
        print(&format!("one commit, {sources} source(s)"), &times, None);
    }
    Ok(())
}

struct Report {
    events: usize,
    elapsed: Duration,
    p50: Duration,
    p99: Duration,
}

/// Each source commits one batch after the other, as a poller does.
async fn ingest(store: &SqliteStore, sources: usize) -> anyhow::Result<Report> {
    let per_source = COMMITS / sources;
    let prepared: Vec<Vec<IngestBatch>> =
        (0..sources).map(|source| (0..per_source).map(|index| batch(source, index)).collect()).collect();
    let started = Instant::now();
    let runs = prepared.into_iter().map(|batches| async move {
        let mut times = Vec::with_capacity(batches.len());
        for batch in batches {
            let began = Instant::now();
            store.commit(batch).await?;
            times.push(began.elapsed());
        }
        Ok::<_, vigie::store::StoreError>(times)
    });
    let mut times = Vec::new();
    for outcome in futures_util::future::join_all(runs).await {
        times.extend(outcome?);
    }
    let elapsed = started.elapsed();
    let (p50, p99) = percentiles(times);
    Ok(Report { events: per_source * sources * BATCH_EVENTS, elapsed, p50, p99 })
}

fn batch(source: usize, index: usize) -> IngestBatch {
    let start = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(20_000);
    let at = start + TimeDelta::seconds(i64::try_from(index).unwrap_or(0));
    let events = (0..BATCH_EVENTS).map(|row| event(source, index * BATCH_EVENTS + row, at)).collect();
    let cursor = Some(Cursor(format!(r#"{{"frontier":"{at}","owed":[]}}"#)));
    IngestBatch { source: format!("source-{source}"), cursor, events, at: Some(at), ..IngestBatch::default() }
}

/// As the Audit API's: a random id, 500 to 600 bytes.
fn event(source: usize, number: usize, created_at: DateTime<Utc>) -> StoredEvent {
    let id = blake3::hash(format!("{source}/{number}").as_bytes()).to_hex().chars().take(32).collect::<String>();
    let raw: Arc<str> = format!(
        r#"{{"id":"{id}","event_type":"NUMBER_UPDATED","event_type_description":"Number updated","created_at":"{created_at}","user_email":"ada@example.org","user_id":{number},"account_id":"abcd1234","source":"DEVAPI","source_ip":"154.59.142.233","source_description":"Developer API","source_country":"GB","context":{{"country":"GB","msisdn":"447700900000","voice-type":"sip","voice-value":"sip:user@example12.com","accountId":"abcd1234"}},"_links":{{"self":{{"href":"https://api.example.org/beta/audit/events/{id}"}}}}}}"#
    )
    .into();
    let digest = vigie_engine::event::text_digest(&raw);
    StoredEvent { id, created_at, raw, digest, poison: None }
}
