//! `file`: one alert as JSON a line, appended and synced before an alert counts as delivered, rotated by size.
//!
//! It never glues two lines: what a crash left of a line is ended when the file is opened, what a full disk left of one is
//! taken back. Nothing is opened before the first alert, so that checking a configuration leaves no file behind.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Access, access};
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;

use super::format::{FORMAT, Format};
use super::probe::{Probe, look};
use super::update::{CLOSING, UPDATES, Update};
use super::write::{MAX_WRITE, Writing};
use super::{AttemptReport, BuildContext, Delivery, RenderContext, RenderError, RetryProfile, Sink, SinkKind};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;

/// As the configuration knows it.
pub const FILE: SinkKind = SinkKind {
    kind: "file",
    example: "trail:\n  file:\n    path: alerts.jsonl\n",
    bounds: &[],
    options: &[&[
        OptionSpec {
            name: "path",
            kind: OptionKind::Text,
            presence: Presence::Required,
            help: "file to append to; made with mode 0600, its directory must exist",
        },
        OptionSpec {
            name: "max_size",
            kind: OptionKind::Size(1 << 10, 1 << 40),
            presence: Presence::Default("100MiB"),
            help: "the file is rotated before it would grow beyond this",
        },
        OptionSpec {
            name: "keep",
            kind: OptionKind::Integer(1, 1000),
            presence: Presence::Default("5"),
            help: "rotated files kept, as path.1 (newest) to path.N",
        },
        FORMAT,
        UPDATES,
        CLOSING,
    ]],
    build,
};

/// Holds personal data: nobody else reads it.
const MODE: u32 = 0o600;

/// The sink.
pub struct FileSink {
    log: Arc<Mutex<Log>>,
    format: Format,
    writing: Writing,
}

/// Builds it from its options.
fn build(options: &Options, name: &str, _: &BuildContext, diagnostics: &mut Diagnostics) -> Option<Box<dyn Sink>> {
    let path = PathBuf::from(options.text("path")?);
    if path.is_dir() {
        let message = format!("sink `{name}`: `{}` is a directory", path.display());
        diagnostics.error("E0424", options.span_of("path"), message, Some("give the path of a file in it".into()));
        return None;
    }
    if !directory_of(&path).is_dir() {
        let message = format!("sink `{name}`: the directory of `{}` does not exist", path.display());
        diagnostics.warning("W0424", options.span_of("path"), message, Some("make it before the start".into()));
    }
    let sink = FileSink::new(path, options.integer("max_size")?, options.integer("keep")?);
    Some(Box::new(FileSink { format: Format::of(options), ..sink }))
}

impl FileSink {
    /// Appends to `path`; rotates at `max_bytes`, keeping `keep` rotated files.
    #[must_use]
    pub fn new(path: PathBuf, max_bytes: u64, keep: u64) -> Self {
        let log = Arc::new(Mutex::new(Log { path, max_bytes, keep, open: None }));
        Self { log, format: Format::Native, writing: Writing::default() }
    }
}

impl FileSink {
    fn path(&self) -> PathBuf {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).path.clone()
    }
}

impl Sink for FileSink {
    fn kind(&self) -> &'static str {
        FILE.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let mut line = self.format.alert(alert, context, usize::MAX)?;
        line.push(b'\n');
        Ok(line)
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let mut line = self.format.update(update, context)?;
        line.push(b'\n');
        Ok(line)
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        let (log, line) = (Arc::clone(&self.log), delivery.body.clone());
        Box::pin(self.writing.attempt(&delivery.delivery_id, MAX_WRITE, move || {
            log.lock().unwrap_or_else(PoisonError::into_inner).append(&line)
        }))
    }

    fn probe(&self) -> Probe<'_> {
        let path = self.path();
        Probe::Asks(Box::pin(async move {
            vec![look("file and directory", "the file can be written", move || writable(&path)).await]
        }))
    }
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    max_bytes: u64,
    keep: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    /// A device or pipe has no length, no end to mend and nothing to rotate or sync.
    regular: bool,
}

impl Log {
    /// The line, whole and synced, or an error and no part of it.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let mut open = match self.open.take().filter(|open| self.is_current(open)) {
            Some(open) => open,
            None => open(&self.path)?,
        };
        if open.regular && open.bytes > 0 && open.bytes + line.len() as u64 > self.max_bytes {
            self.rotate(&open)?;
            open = self::open(&self.path)?;
        }
        // On any failure the file stays closed: opening it again finds out what is really there.
        if let Err(error) = open.file.write_all(line) {
            if open.regular {
                open.file.set_len(open.bytes)?;
            }
            return Err(error);
        }
        if open.regular {
            open.file.sync_data()?;
        }
        open.bytes += line.len() as u64;
        self.open = Some(open);
        Ok(())
    }

    /// False when somebody else rotated or removed the file.
    fn is_current(&self, open: &Open) -> bool {
        match (open.file.metadata(), fs::metadata(&self.path)) {
            (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }

    /// `path` becomes `path.1`, `path.1` becomes `path.2`, ...; what would be beyond `keep` is overwritten.
    fn rotate(&self, open: &Open) -> io::Result<()> {
        open.file.sync_all()?;
        for number in (1..self.keep).rev() {
            match fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, numbered(&self.path, 1))?;
        File::open(directory_of(&self.path))?.sync_all()
    }
}

fn open(path: &Path) -> io::Result<Open> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Open { file, bytes: 0, regular: false });
    }
    if is_new {
        // A new name is durable only once its directory is.
        File::open(directory_of(path))?.sync_all()?;
    }
    let mut bytes = metadata.len();
    if bytes > 0 {
        let mut last = [0; 1];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            bytes += 1;
        }
    }
    Ok(Open { file, bytes, regular: true })
}

/// What is written to is there and may be written, and what rotation and a new file need as well; nothing is made.
fn writable(path: &Path) -> io::Result<()> {
    let is_special = match fs::metadata(path) {
        Ok(metadata) => {
            access(path, Access::WRITE_OK)?;
            !metadata.is_file()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    match is_special {
        true => Ok(()),
        false => Ok(access(directory_of(path), Access::WRITE_OK | Access::EXEC_OK)?),
    }
}

fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(format!(".{number}"));
    name.into()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::contract::{self, HOSTILE, alert_titled, delivery, text_node};
    use crate::sink::{Form, Outcome};

    async fn put(sink: &FileSink, title: &str) -> AttemptReport {
        sink.send(&delivery(sink, &alert_titled(title), Form::Full)).await
    }

    fn titles(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).expect("readable");
        assert!(text.ends_with('\n'), "{text}");
        let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("an object a line");
        text.lines().map(|line| read(line)["title"].as_str().unwrap_or_default().to_owned()).collect()
    }

    #[tokio::test]
    async fn lines_are_appended_to_a_private_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("alerts.jsonl");
        let (context, _) = contract::context();
        let sink =
            contract::build("file", vec![("path", text_node(&path.to_string_lossy()))], &context).expect("builds");
        assert!(!path.exists(), "nothing is made before the first alert");
        for title in [HOSTILE, "two"] {
            let sent = sink.send(&delivery(&*sink, &alert_titled(title), Form::Full)).await;
            assert_eq!(sent.outcome, Outcome::Delivered);
        }
        assert_eq!(titles(&path), [HOSTILE, "two"]);
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_line_is_of_the_format_asked_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("alerts.jsonl");
        for (format, member) in [("ecs", "ecs"), ("ocsf", "class_uid"), ("cloudevents", "specversion")] {
            let options = vec![("path", text_node(&path.to_string_lossy())), ("format", text_node(format))];
            let sink = contract::build("file", options, &contract::context().0).expect("builds");
            sink.send(&delivery(&*sink, &alert_titled(HOSTILE), Form::Full)).await;
            let text = fs::read_to_string(&path).expect("readable");
            let last: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
            assert!(last.get(member).is_some(), "{format}: {last}");
        }
        let options = vec![("path", text_node("a")), ("format", text_node("cloudevents-binary"))];
        let told = contract::build("file", options, &contract::context().0).err().expect("a file has no headers");
        assert!(told.contains("E0403"), "{told}");
    }

    #[tokio::test]
    async fn what_a_crash_left_of_a_line_is_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("alerts.jsonl");
        fs::write(&path, "{\"title\":\"old\"}\n{\"tit").expect("written");
        for title in ["new", "newer"] {
            put(&FileSink::new(path.clone(), 1 << 20, 1), title).await;
        }
        let text = fs::read_to_string(&path).expect("readable");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[1]), (4, "{\"title\":\"old\"}", "{\"tit"));
        assert!(lines[2].contains("\"title\":\"new\"") && lines[3].contains("\"title\":\"newer\""), "{text}");
    }

    #[tokio::test]
    async fn rotation_keeps_as_many_files_as_asked_and_loses_no_line_of_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("alerts.jsonl");
        let line_bytes =
            delivery(&FileSink::new(path.clone(), 0, 1), &alert_titled("t1"), Form::Full).body.len() as u64;
        let sink = FileSink::new(path.clone(), line_bytes * 2, 3);
        for number in 1..=9 {
            assert_eq!(put(&sink, &format!("t{number}")).await.outcome, Outcome::Delivered);
        }
        assert_eq!(titles(&path), ["t9"]);
        assert_eq!(titles(&numbered(&path, 1)), ["t7", "t8"]);
        assert_eq!(titles(&numbered(&path, 2)), ["t5", "t6"]);
        assert_eq!(titles(&numbered(&path, 3)), ["t3", "t4"]);
        assert!(!numbered(&path, 4).exists());
    }

    #[tokio::test]
    async fn a_file_rotated_by_somebody_else_is_opened_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, moved) = (directory.path().join("alerts.jsonl"), directory.path().join("moved"));
        let sink = FileSink::new(path.clone(), 1 << 20, 1);
        put(&sink, "one").await;
        fs::rename(&path, &moved).expect("moved");
        put(&sink, "two").await;
        assert_eq!((titles(&moved), titles(&path)), (vec!["one".to_owned()], vec!["two".to_owned()]));
    }

    #[tokio::test]
    async fn a_full_disk_is_retried_and_a_wrong_path_pauses_the_lane() {
        let full = put(&FileSink::new("/dev/full".into(), 1 << 20, 1), "t").await;
        assert_eq!(full.outcome, Outcome::Retry, "{full:?}");
        let directory = tempfile::tempdir().expect("a directory");
        for path in [directory.path().join("missing/alerts.jsonl"), directory.path().to_owned()] {
            let report = put(&FileSink::new(path, 1 << 20, 1), "t").await;
            assert_eq!(report.outcome, Outcome::Misconfigured, "{report:?}");
        }
        let (context, _) = contract::context();
        let path = directory.path().to_string_lossy().into_owned();
        let told = contract::build("file", vec![("path", text_node(&path))], &context).err().expect("refused");
        assert!(told.contains("E0424"), "{told}");
    }
}
