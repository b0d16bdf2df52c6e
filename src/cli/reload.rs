//! What makes a running daemon stop or reload: signals, and files that changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::exit::Exit;
use crate::config::{Directory, Watched};

/// Editors and ConfigMaps write in several steps; a reload waits until they are done.
const SETTLE: Duration = Duration::from_millis(500);
/// Of a larger file, in bytes, its size and its time count, not its content: this is looked at after each change of its
/// directory.
const MAX_HASHED_BYTES: u64 = 16 << 20;

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
    watched: Watched,
    /// Content of the files that make the configuration, as last looked at: what is the same is no reload, and what did not
    /// load is not tried again before it changes.
    contents: Contents,
}

type Contents = BTreeMap<PathBuf, Option<blake3::Hash>>;

impl Reloads {
    pub(super) fn start(watched: &Watched) -> std::io::Result<Self> {
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
            watched: Watched::default(),
            contents: Contents::new(),
        };
        reloads.watch(watched);
        Ok(reloads)
    }

    /// Watches the directories of these files: a ConfigMap swaps a link, it does not write the file. What changed since the
    /// last look, while they were loaded, is still to be found.
    pub(super) fn watch(&mut self, watched: &Watched) {
        self.watched = watched.clone();
        let before = std::mem::take(&mut self.contents);
        self.contents = self.look();
        for (file, content) in before {
            self.contents.entry(file).and_modify(|now| *now = content);
        }
        let Some(watcher) = &mut self.watcher else { return };
        let named = watched.directories.iter().map(Directory::path);
        let mut directories: Vec<&Path> = self.contents.keys().filter_map(|file| file.parent()).chain(named).collect();
        directories.sort_unstable();
        directories.dedup();
        for directory in directories {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                tracing::warn!(?directory, %error, "the directory is not watched; use SIGHUP");
            }
        }
    }

    /// Watches these beside what is watched already: what did not load may load once one of them changes.
    pub(super) fn watch_too(&mut self, named: Watched) {
        let mut watched = std::mem::take(&mut self.watched);
        watched.files.extend(named.files);
        watched.files.sort_unstable();
        watched.files.dedup();
        for directory in named.directories {
            if !watched.directories.contains(&directory) {
                watched.directories.push(directory);
            }
        }
        let before = self.contents.clone();
        self.watch(&watched);
        self.contents.extend(before);
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
                _ = self.hangup.recv() => {
                    // What is loaded now is no news afterwards.
                    self.changed();
                    return Trigger::Reload;
                }
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
        let now = self.look();
        let before = std::mem::replace(&mut self.contents, now);
        before != self.contents
    }

    /// A file that only lies beside those that were named is none of them, whatever its name is.
    fn look(&self) -> Contents {
        let appeared = self.watched.directories.iter().flat_map(Directory::files);
        let files = self.watched.files.iter().cloned().chain(appeared);
        files.map(|file| (file.clone(), hash(&file))).collect()
    }
}

/// A pipe or a device is never read: it would take what another waits for, or never end.
fn hash(file: &Path) -> Option<blake3::Hash> {
    let metadata = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
    let mut hasher = blake3::Hasher::new();
    if metadata.len() > MAX_HASHED_BYTES {
        let modified_ns = metadata.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        hasher.update(&metadata.len().to_le_bytes()).update(&modified_ns.to_le_bytes());
    } else {
        hasher.update_reader(File::open(file).ok()?.take(MAX_HASHED_BYTES + 1)).ok()?;
    }
    Some(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Surroundings, load_or_named};

    fn loaded(arguments: &[PathBuf]) -> Result<Watched, Watched> {
        let clock = std::sync::Arc::new(crate::clock::SystemClock);
        let stdout = std::sync::Arc::new(std::sync::Mutex::new(std::io::sink()));
        let surroundings = Surroundings {
            variable: &|_| None,
            sinks: crate::sink::BuildContext::new(clock.clone(), stdout, false),
            sources: crate::source::BuildContext { clock },
        };
        load_or_named(arguments, &surroundings).0.map(|config| config.watched)
    }

    /// Loads `vigie.yaml` of a directory that is given by its whole path.
    fn watched(directory: &Path, arguments: &[PathBuf]) -> Watched {
        loaded(arguments).unwrap_or_else(|_| panic!("{} does not load", directory.display()))
    }

    fn rule(id: &str) -> String {
        let test = "tests: [{events: [{event_type: A}], expect: alert}]";
        format!("rules: [{{id: {id}, title: t, severity: low, when: {{event_type: A}}, {test}}}]\n")
    }

    #[tokio::test]
    async fn a_file_that_was_not_named_is_no_reason_to_reload() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
        std::fs::create_dir_all(directory.path().join("rules/deep")).expect("a directory");
        write("one.yaml", &rule("one"));
        write("two.yaml", &rule("two"));
        write("rules/three.yaml", &rule("three"));
        write("vigie.yaml", "sources: {a: {ndjson: {path: none}}}\nrules: [one.yaml, two.yaml, rules]\n");
        let named = watched(directory.path(), &[directory.path().join("vigie.yaml")]);
        let mut reloads = Reloads::start(&named).expect("signals");
        write("unrelated.yaml", "hello: world\n");
        write("alerts.jsonl", "{}\n");
        write("two.yaml", &rule("two"));
        assert!(!reloads.changed(), "nothing of the configuration changed");
        write("two.yaml", &rule("zwei"));
        assert!(reloads.changed(), "a named file");
        assert!(!reloads.changed(), "once");
        write("rules/deep/four.yaml", "rules: broken\n");
        assert!(reloads.changed(), "a new file in a named directory");
        assert!(!reloads.changed(), "one that does not load is tried once");
        write("rules/.hidden.yaml", &rule("five"));
        assert!(!reloads.changed(), "hidden");
        std::fs::remove_file(directory.path().join("rules/deep/four.yaml")).expect("removed");
        assert!(reloads.changed(), "a file that is gone");
    }

    #[tokio::test]
    async fn a_file_with_a_secret_or_a_certificate_is_a_reason_to_reload() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(file(name), text).expect("written");
        let fixture = |name: &str| {
            let path = format!("{}/tests/tls/{name}.pem", env!("CARGO_MANIFEST_DIR"));
            std::fs::read_to_string(path).expect("a fixture")
        };
        write("one.yaml", &rule("one"));
        write("secret", "s");
        write("token", "t");
        write("ca.pem", &fixture("authority"));
        write("tls.crt", &fixture("client"));
        write("tls.key", &fixture("client-key"));
        let path = |name: &str| file(name).display().to_string();
        let identity = format!("certificate_file: {}, key_file: {}", path("tls.crt"), path("tls.key"));
        let secrets =
            format!("headers: {{X-Key: '${{file:{}}}'}}, bearer_token_file: {}", path("secret"), path("token"));
        let options = format!("url: 'https://soc.example.org', ca_file: {}, {identity}, {secrets}", path("ca.pem"));
        let sinks = format!("sinks: {{soc: {{webhook: {{{options}}}}}}}");
        write("beat", "b");
        write("beat-ca.pem", &fixture("authority"));
        let beat = format!(
            "heartbeat: {{url: 'https://beat.example.org', ca_file: {}, headers: {{X-Key: '${{file:{}}}'}}}}",
            path("beat-ca.pem"),
            path("beat")
        );
        write(
            "vigie.yaml",
            &format!("sources: {{a: {{ndjson: {{path: none}}}}}}\nrules: [one.yaml]\n{sinks}\n{beat}\n"),
        );
        let named = watched(directory.path(), &[file("vigie.yaml")]);
        let mut reloads = Reloads::start(&named).expect("signals");
        for name in ["secret", "ca.pem", "tls.crt", "tls.key", "beat", "beat-ca.pem"] {
            write(name, "changed");
            assert!(reloads.changed(), "{name}");
        }
        write("token", "changed");
        assert!(!reloads.changed(), "it is read before each request");
    }

    #[tokio::test]
    async fn what_changed_while_it_was_loaded_is_found_and_what_was_loaded_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(file(name), text).expect("written");
        write("one.yaml", &rule("one"));
        write("vigie.yaml", "sources: {a: {ndjson: {path: none}}}\nrules: [one.yaml]\n");
        let mut reloads = Reloads::start(&watched(directory.path(), &[file("vigie.yaml")])).expect("signals");
        write("one.yaml", &rule("two"));
        assert!(reloads.changed());
        let named = watched(directory.path(), &[file("vigie.yaml")]);
        write("one.yaml", &rule("three"));
        reloads.watch(&named);
        assert!(reloads.changed(), "written after it was read");
        reloads.watch(&watched(directory.path(), &[file("vigie.yaml")]));
        assert!(!reloads.changed());
    }

    #[test]
    fn a_file_of_any_size_is_looked_at_without_being_held() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let sized = |bytes: u64| {
            file.as_file().set_len(bytes).expect("set");
            hash(file.path())
        };
        let sizes = [0, MAX_HASHED_BYTES, MAX_HASHED_BYTES + 1, 1 << 40];
        let hashes = sizes.map(|size| sized(size).map(|hash| hash.to_string()));
        assert!(hashes.iter().all(Option::is_some), "{hashes:?}");
        assert!((1..hashes.len()).all(|index| !hashes[..index].contains(&hashes[index])), "{hashes:?}");
        assert_eq!(hash(Path::new("/dev/zero")), None);
    }

    #[tokio::test]
    async fn what_did_not_load_is_tried_again_when_a_file_that_it_named_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(file(name), text).expect("written");
        let sources = "sources: {a: {ndjson: {path: none}}}\nrules: [one.yaml]\n";
        write("one.yaml", &rule("one"));
        write("vigie.yaml", sources);
        let mut reloads = Reloads::start(&watched(directory.path(), &[file("vigie.yaml")])).expect("signals");
        let headers = format!("{{X-Key: '${{file:{}}}'}}", file("secret").display());
        let sinks = format!("sinks: {{soc: {{webhook: {{url: 'https://soc.example.org', headers: {headers}}}}}}}\n");
        write("vigie.yaml", &format!("{sources}{sinks}"));
        assert!(reloads.changed());
        reloads.watch_too(loaded(&[file("vigie.yaml")]).expect_err("no such secret"));
        write("one.yaml", &rule("two"));
        assert!(reloads.changed() && !reloads.changed(), "what was watched is watched still");
        write("secret", "s");
        assert!(reloads.changed(), "the secret is there");
        assert!(loaded(&[file("vigie.yaml")]).is_ok());
    }

    #[tokio::test]
    async fn a_directory_given_as_argument_takes_in_new_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
        std::fs::create_dir_all(directory.path().join("conf")).expect("a directory");
        write("one.yaml", &rule("one"));
        write("conf/vigie.yaml", "sources: {a: {ndjson: {path: none}}}\nrules: [../one.yaml]\n");
        let named = watched(directory.path(), &[directory.path().join("conf")]);
        let mut reloads = Reloads::start(&named).expect("signals");
        write("more.yaml", &rule("more"));
        assert!(!reloads.changed());
        write("conf/state.yaml", "state: {dir: ./state}\n");
        assert!(reloads.changed());
    }
}
