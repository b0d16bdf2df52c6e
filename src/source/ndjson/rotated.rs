//! Files that were rotated away, found again beside the one that has their name now.
//!
//! A file is known by its number, never by its name alone, and only regular files of the same directory and device count.
//! What came between it and the present one is told by names of the same shape (`log.2` and `log.1`, `log-20260301` and
//! `log-20260302`) and the time of the last change, so that a lock or an index beside a log is never read as one.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::reader::identity;

/// Entries of the directory that are looked at: a log beside more files than this has a directory of its own somewhere.
const MAX_ENTRIES: usize = 10_000;
/// Files with the name of a rotated one that are looked into: years of daily ones.
const MAX_CANDIDATES: usize = 2_000;
/// What stands between the name of a file and what rotation adds to it: `log.1`, `log-20260301`.
const SEPARATORS: [char; 2] = ['.', '-'];

/// A file that once may have had the name of the followed one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rotated {
    changed: SystemTime,
    name: String,
    file: u64,
    bytes: u64,
}

/// The rotated file with this number if it holds at least `offset` bytes.
pub(super) async fn find(path: &Path, file: u64, offset: u64) -> Option<PathBuf> {
    let all = beside(path).await;
    let found = all.into_iter().find(|rotated| rotated.file == file && rotated.bytes >= offset);
    found.map(|rotated| path.with_file_name(rotated.name))
}

/// What is to be read after the file with this number: the next one of its rotation, else the followed one itself. None of
/// `passed` comes again, whoever changes it meanwhile.
pub(super) async fn after(path: &Path, file: u64, passed: &[u64]) -> PathBuf {
    let all = beside(path).await;
    let next = all.iter().find(|rotated| rotated.file == file).and_then(|own| {
        let later = all.iter().filter(|other| *other > own && !passed.contains(&other.file));
        later.filter(|other| shape(&other.name) == shape(&own.name)).min()
    });
    next.map_or_else(|| path.to_owned(), |next| path.with_file_name(&next.name))
}

/// A directory that cannot be listed shows nothing: that must not keep anybody from the followed file itself.
async fn beside(path: &Path) -> Vec<Rotated> {
    let mut found = Vec::new();
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return found };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(home) = tokio::fs::metadata(directory).await else { return found };
    let Ok(mut entries) = tokio::fs::read_dir(directory).await else { return found };
    for _ in 0..MAX_ENTRIES {
        let Ok(Some(entry)) = entries.next_entry().await else { break };
        let Ok(other) = entry.file_name().into_string() else { continue };
        if !other.strip_prefix(name).is_some_and(|added| added.starts_with(SEPARATORS)) {
            continue;
        }
        // Of a link only the link itself is looked at; one that vanished meanwhile is none.
        let Ok(metadata) = tokio::fs::symlink_metadata(entry.path()).await else { continue };
        if metadata.is_file() && is_same_device(&metadata, &home) {
            let changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push(Rotated { changed, name: other, file: identity(&metadata), bytes: metadata.len() });
        }
        if found.len() >= MAX_CANDIDATES {
            break;
        }
    }
    found
}

/// The name without what rotation counts in it: each run of digits is one.
fn shape(name: &str) -> String {
    let mut shape = String::with_capacity(name.len());
    for character in name.chars() {
        match character.is_ascii_digit() {
            true if shape.ends_with('#') => {}
            true => shape.push('#'),
            false => shape.push(character),
        }
    }
    shape
}

#[cfg(unix)]
fn is_same_device(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    one.dev() == other.dev()
}

#[cfg(not(unix))]
fn is_same_device(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_rotation_have_one_shape() {
        for (one, other, same) in [
            ("log.1", "log.12", true),
            ("log-20260301", "log-20260302", true),
            ("log.2026-03-01", "log.2026-03-02", true),
            ("log.1", "log.lock", false),
            ("log.1", "log.1.gz", false),
            ("log.1", "log-1", false),
        ] {
            assert_eq!(shape(one) == shape(other), same, "{one} {other}");
        }
    }
}
