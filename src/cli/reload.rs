//! What makes a running daemon stop or reload: signals, and files that changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::exit::Exit;

/// Editors and ConfigMaps write in several steps; a reload waits until they are done.
const SETTLE: Duration = Duration::from_millis(500);

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    Stop(Exit),
    Reload,
}

/// Listens to signals and files.
pub(super) struct Reloads {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    changes: mpsc::Receiver<()>,
    watcher: Option<RecommendedWatcher>,
    /// Content of the watched files, so that a touched file is no reload.
    contents: BTreeMap<PathBuf, Option<blake3::Hash>>,
}

impl Reloads {
    pub(super) fn start(files: &[PathBuf]) -> std::io::Result<Self> {
        // One waiting change is enough: what changed is found by reading.
        let (sender, changes) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let reads = event.as_ref().is_ok_and(|event| event.kind.is_access());
            if !reads && let Err(mpsc::error::TrySendError::Closed(())) = sender.try_send(()) {
                tracing::debug!("nobody waits for changed files any more");
            }
        });
        let watcher = watcher.inspect_err(|error| tracing::warn!(%error, "files are not watched; use SIGHUP")).ok();
        let mut reloads = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            changes,
            watcher,
            contents: BTreeMap::new(),
        };
        reloads.watch(files);
        Ok(reloads)
    }

    /// Watches the directories of these files: a ConfigMap swaps a link, it does not write the file.
    pub(super) fn watch(&mut self, files: &[PathBuf]) {
        self.contents = files.iter().map(|file| (file.clone(), hash(file))).collect();
        let Some(watcher) = &mut self.watcher else { return };
        let mut directories: Vec<&Path> = files.iter().filter_map(|file| file.parent()).collect();
        directories.sort_unstable();
        directories.dedup();
        for directory in directories {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                tracing::warn!(?directory, %error, "the directory is not watched; use SIGHUP");
            }
        }
    }

    /// Waits for the next thing asked for.
    pub(super) async fn next(&mut self) -> Trigger {
        // What is written beside the configuration (a log, a file sink) wakes this all the time: signals come first, and
        // the wait for a writer to finish never holds one up.
        let mut look_at: Option<Instant> = None;
        loop {
            let looks = async {
                match look_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return Trigger::Stop(Exit::OK),
                _ = self.interrupt.recv() => return Trigger::Stop(Exit::INTERRUPTED),
                _ = self.hangup.recv() => return Trigger::Reload,
                () = looks => {
                    look_at = None;
                    if self.changed() {
                        return Trigger::Reload;
                    }
                }
                Some(()) = self.changes.recv(), if look_at.is_none() => look_at = Some(Instant::now() + SETTLE),
            }
        }
    }

    /// A second Ctrl-C while stopping.
    pub(super) async fn interrupted(&mut self) {
        self.interrupt.recv().await;
    }

    fn changed(&mut self) -> bool {
        let now: BTreeMap<PathBuf, Option<blake3::Hash>> =
            self.contents.keys().map(|file| (file.clone(), hash(file))).collect();
        let before = std::mem::replace(&mut self.contents, now);
        before != self.contents || self.new_rule_file()
    }

    /// A file that appeared in a directory of rules.
    fn new_rule_file(&self) -> bool {
        let directories = self.contents.keys().filter_map(|file| file.parent());
        let mut entries = directories.filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
        entries.any(|entry| {
            let path = entry.path();
            let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            let beside_rules = self.contents.keys().filter(|file| file.parent() == path.parent()).count() > 1;
            yaml && beside_rules && !self.contents.contains_key(&path)
        })
    }
}

fn hash(file: &Path) -> Option<blake3::Hash> {
    std::fs::read(file).ok().map(|content| blake3::hash(&content))
}
