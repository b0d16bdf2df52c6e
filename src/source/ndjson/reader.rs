//! Lines of a file or stdin with their offsets. A line longer than an event may be is cut while it is read, so that
//! no line can fill the memory.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncSeekExt as _, BufReader};
use vigie_engine::event::MAX_EVENT_BYTES;

use super::rotated;

/// A line without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// At most `MAX_EVENT_BYTES` and one: one more than an event may have.
    pub(super) bytes: Vec<u8>,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Reader {
    path: Option<PathBuf>,
    input: BufReader<File>,
    file: u64,
    offset: u64,
    /// The beginning of a line whose end is not written yet, and how long it is in the file.
    partial: Vec<u8>,
    partial_bytes: u64,
    /// Another file has its name: what is still written to this one is read before the other is taken up.
    rotated: bool,
    /// The files of this rotation that were read before and with this one; as many as `rotated` looks into at most.
    passed: Vec<u64>,
}

impl Reader {
    pub(super) async fn open(path: Option<&Path>) -> std::io::Result<Self> {
        let file = match path {
            Some(path) => File::open(path).await?,
            None => stdin()?,
        };
        let identity = if path.is_some() { identity(&file.metadata().await?) } else { 0 };
        Ok(Self {
            path: path.map(Path::to_owned),
            input: BufReader::new(file),
            file: identity,
            offset: 0,
            partial: Vec::new(),
            partial_bytes: 0,
            rotated: false,
            passed: vec![identity],
        })
    }

    /// Opens a file that was rotated away from `path` while nobody read it; `None` when it is not found any more.
    pub(super) async fn open_rotated(path: &Path, file: u64, offset: u64) -> std::io::Result<Option<Self>> {
        let Some(place) = rotated::find(path, file, offset).await else { return Ok(None) };
        let mut reader = Self::open(Some(&place)).await?;
        reader.path = Some(path.to_owned());
        // Between the look and the opening it may have been rotated once more.
        let is_it = reader.file == file && reader.seek(offset).await?;
        Ok(is_it.then_some(reader))
    }

    /// Takes the file for one that nobody writes to any more, as a source without `follow` does with its own.
    pub(super) fn left(mut self) -> Self {
        self.rotated = true;
        self
    }

    /// Whether another file has its name.
    pub(super) fn is_rotated(&self) -> bool {
        self.rotated
    }

    /// Identity of the file; 0 for stdin.
    pub(super) fn file(&self) -> u64 {
        self.file
    }

    /// How far whole lines were read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on at an offset; false when the file is shorter (then from its beginning).
    pub(super) async fn seek(&mut self, offset: u64) -> std::io::Result<bool> {
        let fits = self.input.get_ref().metadata().await?.len() >= offset;
        self.offset = if fits { offset } else { 0 };
        self.input.seek(SeekFrom::Start(self.offset)).await?;
        Ok(fits)
    }

    /// The next line; `None` at the end. A last line without its end counts unless more may be written to it.
    pub(super) async fn next_line(&mut self, follow: bool) -> std::io::Result<Option<Line>> {
        loop {
            let chunk = self.input.fill_buf().await?;
            if chunk.is_empty() {
                let whole = (!follow || self.rotated) && self.partial_bytes > 0;
                return Ok(if whole { Some(self.end_line()) } else { None });
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(chunk.len());
            let room = (MAX_EVENT_BYTES + 1).saturating_sub(self.partial.len());
            self.partial.extend(chunk.iter().take(taken.min(room)));
            let used = taken + usize::from(end.is_some());
            self.input.consume(used);
            self.partial_bytes += used as u64;
            if end.is_some() {
                return Ok(Some(self.end_line()));
            }
        }
    }

    /// At the end: the next file where this one was rotated away, the beginning where it was truncated. True when there is
    /// something to read again. A rotation is followed at the second look, because the writer may still have the old file;
    /// where there was more than one since the last look, file by file.
    pub(super) async fn take_up_next(&mut self, follow: bool) -> std::io::Result<bool> {
        let Some(path) = self.path.clone() else { return Ok(false) };
        let there = match tokio::fs::metadata(&path).await {
            // Between two files of a rotation there may be none; what is open stays open.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            there => there?,
        };
        if identity(&there) != self.file {
            if !std::mem::replace(&mut self.rotated, true) {
                return Ok(false);
            }
            let next = rotated::after(&path, self.file, &self.passed).await;
            let is_between = next != path;
            let mut reader = Self::open(Some(&next)).await?;
            if is_between {
                reader.rotated = !follow;
                reader.passed.append(&mut self.passed);
                reader.path = Some(path);
            }
            *self = reader;
            return Ok(true);
        }
        if there.len() < self.offset + self.partial_bytes {
            self.partial.clear();
            self.partial_bytes = 0;
            return self.seek(0).await;
        }
        Ok(false)
    }

    fn end_line(&mut self) -> Line {
        self.offset += self.partial_bytes;
        self.partial_bytes = 0;
        Line { bytes: std::mem::take(&mut self.partial) }
    }
}

#[cfg(unix)]
pub(super) fn identity(metadata: &std::fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    metadata.ino()
}

/// Elsewhere files have no number: the time of creation tells two of them apart.
#[cfg(not(unix))]
pub(super) fn identity(metadata: &std::fs::Metadata) -> u64 {
    let created = metadata.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    created.map_or(1, |since| u64::try_from(since.as_nanos()).unwrap_or(1))
}

#[cfg(unix)]
fn stdin() -> std::io::Result<File> {
    use std::os::fd::AsFd as _;
    let owned = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(File::from_std(std::fs::File::from(owned)))
}

#[cfg(not(unix))]
fn stdin() -> std::io::Result<File> {
    Err(std::io::Error::other("reading stdin is supported on Unix only"))
}
