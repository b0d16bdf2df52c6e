//! Durable ingest: events a second through `Store::commit` on a real disk, fsync included, beside the disk's own fsync time.
//!
//! Plain timing instead of a sampler, because a commit's cost depends on the file's growth and must be seen over many
//! commits. Directory: `TMPDIR` if it is set (then it should be on the disk in question), else `target`.
#![expect(clippy::print_stdout, reason = "a benchmark reports on stdout")]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use vigie::source::Cursor;
use vigie::store::sqlite::{SqliteOptions, SqliteStore};
use vigie::store::{IngestBatch, Store, StoredEvent};

/// Events in one commit: the largest page of the Audit API.
const BATCH_EVENTS: usize = 100;
/// Commits in one measurement: long enough for several checkpoints.
const COMMITS: usize = 2000;
/// Fsyncs that the disk is asked for by itself.
const FSYNCS: usize = 200;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let dir = tempfile::Builder::new().prefix("ingest").tempdir_in(directory())?;
    let fsync = measure_fsync(dir.path())?;
    println!("append of 64 KiB and fsync: p50 {:.3} ms, p99 {:.3} ms", millis(fsync.0), millis(fsync.1));
    for sources in [1, 4] {
        let state = dir.path().join(format!("sources-{sources}"));
        let store = SqliteStore::open(&state, &SqliteOptions::daemon())?;
        let report = runtime.block_on(ingest(&store, sources))?;
        println!(
            "{sources} source(s) at once, {BATCH_EVENTS} events a commit: {:.0} events/s, commit p50 {:.3} ms, p99 {:.3} ms, \
             {} events, {:.1} MiB",
            report.events as f64 / report.elapsed.as_secs_f64(),
            millis(report.p50),
            millis(report.p99),
            report.events,
            store.store_bytes()? as f64 / 1_048_576.0,
        );
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
    StoredEvent { id, created_at, raw, poison: None }
}

fn measure_fsync(dir: &Path) -> anyhow::Result<(Duration, Duration)> {
    let mut file = OpenOptions::new().create(true).append(true).open(dir.join("fsync"))?;
    let block = vec![b'x'; 64 * 1024];
    let mut times = Vec::with_capacity(FSYNCS);
    for _ in 0..FSYNCS {
        file.write_all(&block)?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(percentiles(times))
}

fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    (at(0.5), at(0.99))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[expect(clippy::disallowed_methods, reason = "the benchmark's own setting")]
fn directory() -> std::path::PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), Into::into)
}
