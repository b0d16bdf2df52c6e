//! The store on SQLite: one file, one writer thread, one reader thread, a lock on the state directory.
//!
//! It never answers before the fsync: WAL with `synchronous=FULL`. It never repairs a damaged file by itself; it refuses and
//! says what can be done. Waiting for its threads is real time, so tests on paused time use the memory store.

mod archive;
mod claim;
mod directory;
mod fault;
mod follow;
mod history;
mod hold;
mod ingest;
mod reader;
mod recover;
mod retention;
mod schema;
mod settle;
mod stamp;
mod upkeep;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use vigie_engine::alert::Alert;

use super::{Alerts, BoxError, IngestBatch, LaneState, Loaded, Queue, Result, Settlement, Store};
use crate::pipeline::BoxFuture;
use crate::sink::Delivery;
use crate::source::{Held, Seen};
use directory::{Ballast, Directory, DirectoryError};
use fault::{Class, Fault};
use reader::Reader;
pub use recover::{Recovered, RecoveredTable, recover};
use schema::SchemaError;
use writer::{Need, Writer};

/// Space kept aside for settling on a full disk: about ten settlements of 64 rows with their ledger lines.
pub const DEFAULT_BALLAST_BYTES: u64 = 8 * 1024 * 1024;
/// How long a writer waits for another process that writes (`deliveries retry` beside a daemon): such writes are short.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Older releases have a rare WAL-reset race that loses commits (fixed in 3.51.3).
const MIN_SQLITE_VERSION: i32 = 3_051_003;
/// Files up to this size are checked whole at each start; a larger one would delay the first poll.
const MAX_CHECKED_BYTES: u64 = 16 * 1024 * 1024;
const NO_CHECKPOINT_ON_CLOSE: DbConfig = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
/// Page size of the file.
const PAGE_BYTES: u64 = 4096;

/// Who opens the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// The one process that polls and delivers: creates and migrates, takes the lock, keeps a ballast.
    Daemon,
    /// A command beside a daemon or alone: the store must exist in this release's format; no lock.
    Tool,
}

/// How the store is opened.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// See [`OpenMode`].
    pub mode: OpenMode,
    /// See [`DEFAULT_BALLAST_BYTES`]; 0 for none.
    pub ballast_bytes: u64,
    /// Largest database file; beyond it the disk counts as full.
    pub max_file_bytes: Option<u64>,
}

impl SqliteOptions {
    /// For the daemon.
    #[must_use]
    pub fn daemon() -> Self {
        Self { mode: OpenMode::Daemon, ballast_bytes: DEFAULT_BALLAST_BYTES, max_file_bytes: None }
    }

    /// For a command.
    #[must_use]
    pub fn tool() -> Self {
        Self { mode: OpenMode::Tool, ballast_bytes: 0, max_file_bytes: None }
    }
}

/// Why the store cannot be opened. Nothing was changed in what was there.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon uses the directory.
    #[error("another vigie (pid {pid}) already uses the state directory {dir}")]
    Locked {
        /// Where.
        dir: PathBuf,
        /// Who, as its lock file says.
        pid: String,
    },
    /// Written by a later release, to be migrated first, or not ours.
    #[error("the store {path} cannot be used")]
    Format {
        /// The file.
        path: PathBuf,
        /// Which of these.
        #[source]
        source: BoxError,
    },
    /// The file is damaged. It is kept as it is.
    #[error("the store {path} is damaged and was left as it is; `vigie state recover` saves what can be read")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        #[source]
        source: BoxError,
    },
    /// A command found no store.
    #[error("there is no store in {0}")]
    Missing(PathBuf),
    /// No space to open it, even without the ballast.
    #[error("no space left in the state directory {0}")]
    Full(PathBuf),
    /// The file system or SQLite says no.
    #[error("the state directory {dir} cannot be used")]
    Io {
        /// Where.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: BoxError,
    },
}

/// The durable store.
#[derive(Debug)]
pub struct SqliteStore {
    // Dropped in this order: the reader's connection closes before the writer's last checkpoint.
    reader: Reader,
    writer: Writer,
    directory: Directory,
}

impl SqliteStore {
    /// Opens the store in `dir`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, options: &SqliteOptions) -> std::result::Result<Self, OpenError> {
        let opening = Opening { dir, options };
        opening.check_library()?;
        match options.mode {
            OpenMode::Daemon => opening.as_daemon(),
            OpenMode::Tool => opening.as_tool(),
        }
    }

    /// The state directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.directory.path()
    }
}

struct Opening<'a> {
    dir: &'a Path,
    options: &'a SqliteOptions,
}

impl Opening<'_> {
    fn check_library(&self) -> std::result::Result<(), OpenError> {
        if rusqlite::version_number() < MIN_SQLITE_VERSION {
            let found = rusqlite::version();
            return Err(self.io(format!("SQLite {found} is too old, 3.51.3 or later is needed")));
        }
        Ok(())
    }

    fn as_daemon(&self) -> std::result::Result<SqliteStore, OpenError> {
        let directory = Directory::create(self.dir).map_err(|error| self.directory_error(error))?;
        let lock = directory.lock().map_err(|error| self.directory_error(error))?;
        let mut ballast = Ballast::of(directory.clone(), self.options.ballast_bytes);
        let connection = match self.connect_and_migrate(&directory) {
            // A store on a full disk must start, or what is owed would wait for a person.
            Err(OpenError::Full(_)) if ballast.is_held() => {
                ballast.release().map_err(|error| self.io(error))?;
                self.connect_and_migrate(&directory)?
            }
            Ok(connection) => {
                if !ballast.refill().map_err(|error| self.io(error))? {
                    tracing::warn!("the disk is full: no ballast could be set aside");
                }
                connection
            }
            Err(error) => return Err(error),
        };
        if let Some(bytes) = self.options.max_file_bytes {
            let pages = i64::try_from(bytes.div_ceil(PAGE_BYTES)).unwrap_or(i64::MAX);
            connection.pragma_update(None, "max_page_count", pages).map_err(|error| self.sqlite(error))?;
        }
        let reader_connection = self.connect_reader(&directory)?;
        let writer = Writer::start(connection, directory.clone(), Some(ballast), Some(lock))
            .map_err(|fault| self.fault(&fault))?;
        let reader = Reader::start(reader_connection).map_err(|fault| self.fault(&fault))?;
        Ok(SqliteStore { reader, writer, directory })
    }

    fn as_tool(&self) -> std::result::Result<SqliteStore, OpenError> {
        let directory = Directory::existing(self.dir);
        if !directory.database().is_file() {
            return Err(OpenError::Missing(self.dir.to_path_buf()));
        }
        let connection = self.connect(&directory)?;
        schema::require_current(&connection).map_err(|error| self.schema(error))?;
        // The daemon makes the checkpoints; a command that ends must not wait for one.
        self.configure(&connection).map_err(|error| self.sqlite(error))?;
        let reader_connection = self.connect_reader(&directory)?;
        let writer = Writer::start(connection, directory.clone(), None, None).map_err(|fault| self.fault(&fault))?;
        let reader = Reader::start(reader_connection).map_err(|fault| self.fault(&fault))?;
        Ok(SqliteStore { reader, writer, directory })
    }

    /// Nothing is written before the file was found to be ours and whole.
    fn connect_and_migrate(&self, directory: &Directory) -> std::result::Result<Connection, OpenError> {
        directory.prepare_database().map_err(|error| self.directory_error(error))?;
        let connection = self.connect(directory)?;
        let version = schema::checked_version(&connection).map_err(|error| self.schema(error))?;
        if version > 0 {
            self.check_content(&connection, directory)?;
        } else {
            // Takes effect only before anything else is written; retention then gives space back bit by bit.
            connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").map_err(|error| self.sqlite(error))?;
        }
        self.configure(&connection).map_err(|error| self.sqlite(error))?;
        schema::migrate(&connection, version).map_err(|error| self.schema(error))?;
        claim::end_leases(&connection).map_err(|error| self.sqlite(error))?;
        connection.set_db_config(NO_CHECKPOINT_ON_CLOSE, false).map_err(|error| self.sqlite(error))?;
        Ok(connection)
    }

    /// A connection that leaves the file as it is, also when it closes.
    fn connect(&self, directory: &Directory) -> std::result::Result<Connection, OpenError> {
        let connect = || -> rusqlite::Result<Connection> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(directory.database(), flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.set_db_config(NO_CHECKPOINT_ON_CLOSE, true)?;
            Ok(connection)
        };
        connect().map_err(|error| self.sqlite(error))
    }

    /// For writing; 8 MiB of cache hold the hot index pages.
    fn configure(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;
             PRAGMA journal_size_limit = 67108864; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -8192; PRAGMA trusted_schema = OFF;",
        )
    }

    fn connect_reader(&self, directory: &Directory) -> std::result::Result<Connection, OpenError> {
        let connection = self.connect(directory)?;
        let configured = connection.execute_batch("PRAGMA query_only = ON; PRAGMA temp_store = MEMORY;");
        configured.map_err(|error| self.sqlite(error))?;
        Ok(connection)
    }

    /// A small file is checked whole; of a larger one the parts that a start reads anyway.
    fn check_content(&self, connection: &Connection, directory: &Directory) -> std::result::Result<(), OpenError> {
        let path = directory.database();
        let bytes = std::fs::metadata(&path).map_err(|error| self.io(error))?.len();
        if bytes <= MAX_CHECKED_BYTES {
            let verdict: String = connection
                .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
                .map_err(|error| self.sqlite(error))?;
            if verdict != "ok" {
                return Err(OpenError::Damaged { path, source: verdict.into() });
            }
        }
        let tables = ["sources", "state", "lanes", "events", "alerts", "deliveries", "attempts"];
        for table in tables {
            let statement = format!("SELECT * FROM {table} LIMIT 1");
            let outcome = connection.prepare(&statement).and_then(|mut statement| statement.exists([]));
            outcome.map_err(|error| self.sqlite(error))?;
        }
        Ok(())
    }

    fn io(&self, source: impl Into<BoxError>) -> OpenError {
        OpenError::Io { dir: self.dir.to_path_buf(), source: source.into() }
    }

    fn directory_error(&self, error: DirectoryError) -> OpenError {
        match error {
            DirectoryError::Locked(pid) => OpenError::Locked { dir: self.dir.to_path_buf(), pid },
            DirectoryError::Io { ref source, .. } if directory::is_full(source) => {
                OpenError::Full(self.dir.to_path_buf())
            }
            DirectoryError::Io { .. } => self.io(error),
        }
    }

    fn schema(&self, error: SchemaError) -> OpenError {
        let path = Directory::existing(self.dir).database();
        match error {
            SchemaError::Sqlite(error) => self.sqlite(error),
            other => OpenError::Format { path, source: other.into() },
        }
    }

    fn sqlite(&self, error: rusqlite::Error) -> OpenError {
        let directory = Directory::existing(self.dir);
        let damaged = matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
        if damaged {
            return OpenError::Damaged { path: directory.database(), source: error.into() };
        }
        match fault::class_of(&error) {
            Class::Full => OpenError::Full(self.dir.to_path_buf()),
            Class::Write if directory.lacks_space() => OpenError::Full(self.dir.to_path_buf()),
            Class::Write | Class::Broken | Class::Refused => self.io(error),
        }
    }

    fn fault(&self, fault: &Fault) -> OpenError {
        self.io(fault.clone().into_store_error())
    }
}

impl Seen for SqliteStore {
    fn held<'a>(&'a self, source: &'a str, ids: &'a [String]) -> BoxFuture<'a, Result<Vec<Held>>> {
        if ids.is_empty() {
            // Most polls find nothing, and another thread costs more than all else that they do.
            return Box::pin(std::future::ready(Ok(Vec::new())));
        }
        let (source, ids) = (source.to_owned(), ids.to_vec());
        Box::pin(self.reader.ask(move |session| session.held(&source, &ids)))
    }

    fn count<'a>(&'a self, source: &'a str, from: DateTime<Utc>, to: DateTime<Utc>) -> BoxFuture<'a, Result<u64>> {
        let source = source.to_owned();
        Box::pin(self.reader.ask(move |session| session.count(&source, from, to)))
    }
}

impl Alerts for SqliteStore {
    fn alert<'a>(&'a self, alert_id: &'a str) -> BoxFuture<'a, Result<Option<Alert>>> {
        Box::pin(async move { Ok(Self::alert(self, alert_id).await?.map(|detail| detail.row.alert)) })
    }
}

impl Store for SqliteStore {
    fn load(&self) -> BoxFuture<'_, Result<Loaded>> {
        Box::pin(self.reader.load())
    }

    fn take_over(&self, now: DateTime<Utc>, latest: DateTime<Utc>) -> BoxFuture<'_, Result<()>> {
        let work = move |session: &mut writer::WriteSession<'_>| {
            claim::take_over(session.connection, now, latest)?;
            follow::take_over(session.connection, now)
        };
        Box::pin(self.writer.submit(Need::Space, work))
    }

    fn commit(&self, batch: IngestBatch) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let prepared = ingest::Prepared::new(batch).map_err(Fault::into_store_error)?;
            self.writer.submit(Need::Space, move |session| session.ingest.write(&prepared)).await
        })
    }

    fn claim<'a>(
        &'a self,
        sink: &'a str,
        now: DateTime<Utc>,
        lease_until: DateTime<Utc>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        let claim = claim::Claim { sink: sink.to_owned(), now, lease_until, limit };
        Box::pin(self.writer.submit(Need::Space, move |session| session.claim.claim(&claim)))
    }

    fn settle<'a>(
        &'a self,
        sink: &'a str,
        settlements: Vec<Settlement>,
        lane: Option<LaneState>,
    ) -> BoxFuture<'a, Result<()>> {
        let sink = sink.to_owned();
        Box::pin(
            self.writer.submit(Need::Ballast, move |session| session.settle.settle(&sink, &settlements, lane.as_ref())),
        )
    }

    fn queue<'a>(&'a self, sink: &'a str) -> BoxFuture<'a, Result<Queue>> {
        let sink = sink.to_owned();
        Box::pin(self.reader.ask(move |session| session.queue(&sink)))
    }
}

#[cfg(test)]
mod tests;
