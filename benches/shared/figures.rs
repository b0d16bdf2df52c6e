//! What the benchmarks share: where they write, what they count with, and how a figure is printed beside its aim.
//!
//! A missed aim is printed and fails nothing: a loaded machine misses what an idle one holds.
#![expect(clippy::print_stdout, reason = "a benchmark reports on stdout")]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Fsyncs that the disk is asked for by itself.
const FSYNCS: usize = 200;
/// What one fsync writes: a commit of 100 events writes about as much.
const FSYNC_BYTES: usize = 64 * 1024;

/// One line of the report.
pub(crate) fn print(name: &str, measured: &str, aim: Option<(&str, bool)>) {
    let (aim, holds) = match aim {
        Some((aim, true)) => (aim, "holds"),
        Some((aim, false)) => (aim, "MISSED"),
        None => ("", ""),
    };
    println!("figure | {name:<46} | {measured:<28} | {aim:<24} | {holds}");
}

/// What the disk alone costs: p50 and p99 of an append and `fdatasync`.
pub(crate) fn print_fsync(directory: &Path) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(directory.join("fsync"))?;
    let block = vec![b'x'; FSYNC_BYTES];
    let mut times = Vec::with_capacity(FSYNCS);
    for _ in 0..FSYNCS {
        let began = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    let (p50, p99) = percentiles(times);
    let measured = format!("p50 {:.2} ms, p99 {:.2} ms", millis(p50), millis(p99));
    print("the disk alone: append of 64 KiB and fdatasync", &measured, None);
    Ok(())
}

/// p50 and p99.
pub(crate) fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    (at(0.5), at(0.99))
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A directory of this run: below `TMPDIR`, which then should be on the disk in question, or else below `target`.
#[expect(clippy::disallowed_methods, reason = "the benchmark's own setting")]
pub(crate) fn scratch() -> std::io::Result<tempfile::TempDir> {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let parent = std::env::var_os("TMPDIR").map_or_else(own, PathBuf::from);
    tempfile::Builder::new().prefix("bench").tempdir_in(parent)
}
