//! Finding and reading YAML files. Directories are read in name order, so that two machines see the same.

use std::io::Read;
use std::path::{Path, PathBuf};

use vigie_engine::diagnostic::{Diagnostics, SourceFile, Span};
use vigie_engine::yaml::MAX_YAML_BYTES;

/// How deep a rules directory is searched: deeper trees are a mistake or a link that goes in circles.
const MAX_DIRECTORY_DEPTH: usize = 8;
/// Most files that one run reads.
const MAX_FILES: usize = 10_000;
/// What helps when a file cannot be read.
const READABLE: &str = "look at the path, which counts from the working directory, and at its permissions";

/// What a running daemon must look at for changes.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// Files that were read, those with secrets, certificates and keys among them.
    pub files: Vec<PathBuf>,
    /// Directories that were named: a file that appears in one of them belongs to the configuration too.
    pub directories: Vec<Directory>,
}

/// A directory whose YAML files are all read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    path: PathBuf,
    depth: usize,
}

impl Directory {
    /// One named by `-c`: the files in it, not below it.
    pub(super) fn of_configuration(path: &Path) -> Self {
        Self { path: path.to_path_buf(), depth: 1 }
    }

    /// One named under `rules:`.
    pub(super) fn of_rules(path: &Path) -> Self {
        Self { path: path.to_path_buf(), depth: MAX_DIRECTORY_DEPTH }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The YAML files that are in it now; none when it cannot be read.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        list(&self.path, self.depth, &mut Diagnostics::default())
    }
}

/// Reads files; a directory stands for the YAML files in it (not below it).
#[must_use]
pub fn read_files(paths: &[PathBuf], diagnostics: &mut Diagnostics) -> Vec<SourceFile> {
    let mut files = Vec::new();
    for path in paths {
        let found = if path.is_dir() { list(path, 1, diagnostics) } else { vec![path.clone()] };
        if found.is_empty() {
            let hint = "a configuration directory holds files that end in .yaml or .yml";
            unusable(&start_of(path), "holds no .yaml or .yml file", hint, diagnostics);
        }
        files.extend(found.iter().filter_map(|path| read(path, diagnostics)));
    }
    files
}

/// Reads rule files; a directory stands for all YAML files below it.
pub(crate) fn read_rule_files(path: &Path, diagnostics: &mut Diagnostics) -> Vec<SourceFile> {
    let found = if path.is_dir() { list(path, MAX_DIRECTORY_DEPTH, diagnostics) } else { vec![path.to_path_buf()] };
    found.iter().filter_map(|path| read(path, diagnostics)).collect()
}

fn list(directory: &Path, depth: usize, diagnostics: &mut Diagnostics) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            unusable(&start_of(directory), &format!("cannot be read ({error})"), READABLE, diagnostics);
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        // ConfigMaps keep their versions in hidden directories beside the links that count.
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden || found.len() >= MAX_FILES {
            continue;
        }
        if path.is_dir() {
            if depth > 1 {
                found.extend(list(&path, depth - 1, diagnostics));
            }
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.push(path);
        }
    }
    found
}

fn read(path: &Path, diagnostics: &mut Diagnostics) -> Option<SourceFile> {
    let bytes = match read_bounded(path, MAX_YAML_BYTES as u64) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            let hint = "split it into several files; long lists go into a text file: `{file: path}`";
            unusable(&start_of(path), &format!("is larger than {MAX_YAML_BYTES} bytes"), hint, diagnostics);
            return None;
        }
        Err(error) => {
            unusable(&start_of(path), &format!("cannot be read ({error})"), READABLE, diagnostics);
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(SourceFile { path: path.to_string_lossy().into(), text: text.into() }),
        Err(error) => {
            let (good, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
            let hint = "save it in UTF-8: iconv -f LATIN1 -t UTF-8 FILE";
            unusable(&end_of(path, good), "is not UTF-8 here", hint, diagnostics);
            None
        }
    }
}

/// The whole file; `None` when it holds more than this. The length is not asked for: a device or a pipe has none.
pub(super) fn read_bounded(path: &Path, most_bytes: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most_bytes).then_some(bytes))
}

/// The place behind these bytes of a file.
fn end_of(path: &Path, bytes: &[u8]) -> Span {
    let text = String::from_utf8_lossy(bytes);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let last_line = text.rsplit('\n').next().unwrap_or_default();
    let line = count(text.matches('\n').count() + 1);
    Span { line, column: count(last_line.chars().count() + 1), ..start_of(path) }
}

fn start_of(path: &Path) -> Span {
    Span { path: path.to_string_lossy().into(), line: 1, column: 1, len_chars: 1 }
}

fn unusable(span: &Span, what: &str, hint: &str, diagnostics: &mut Diagnostics) {
    diagnostics.error("E0419", span, format!("{} {what}", span.path), Some(hint.to_owned()));
}
