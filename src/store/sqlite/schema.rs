//! Tables and their versions. Migrations go forward only, one transaction each, counted by `user_version`.
//!
//! It never reads rows. The raw event is stored once, in `events`; that table is also the memory of seen ids, so retention
//! empties `raw` first and removes the row much later. A delivery stands by itself (body and ids), so that it can be sent
//! although its alert was lost with a damaged page. Times are microseconds since 1970 in UTC.

use rusqlite::Connection;

/// Marks the file as ours (`VIGI`), so that another program's database is refused.
const APPLICATION_ID: i64 = 0x5649_4749;

/// One entry per version, in order; an entry is never edited once released.
const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5];

const VERSION_1: &str = "
CREATE TABLE sources (
    source_id INTEGER PRIMARY KEY,
    name      TEXT NOT NULL UNIQUE,
    cursor    TEXT,
    cursor_at INTEGER
) STRICT;

CREATE TABLE events (
    event_no   INTEGER PRIMARY KEY,
    source_id  INTEGER NOT NULL,
    id         TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    stored_at  INTEGER NOT NULL,
    raw        TEXT,
    poison     TEXT
) STRICT;
CREATE UNIQUE INDEX events_seen ON events (source_id, id);
CREATE INDEX events_time ON events (source_id, created_at);

CREATE TABLE event_types (
    source_id  INTEGER NOT NULL,
    event_type TEXT NOT NULL,
    first_at   INTEGER NOT NULL,
    PRIMARY KEY (source_id, event_type)
) STRICT, WITHOUT ROWID;

CREATE TABLE state (
    rule_id    TEXT NOT NULL,
    kind       TEXT NOT NULL,
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    expires_at INTEGER,
    set_at     INTEGER NOT NULL,
    PRIMARY KEY (rule_id, kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX state_expiry ON state (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE alerts (
    alert_no   INTEGER PRIMARY KEY,
    alert_id   TEXT NOT NULL UNIQUE,
    source     TEXT NOT NULL,
    rule_id    TEXT NOT NULL,
    severity   INTEGER NOT NULL,
    first_at   INTEGER NOT NULL,
    last_at    INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    event_ids  TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    muted_by   TEXT,
    body       TEXT NOT NULL,
    event_no   INTEGER,
    event      TEXT
) STRICT;
CREATE INDEX alerts_event ON alerts (event_no) WHERE event_no IS NOT NULL;
CREATE INDEX alerts_time ON alerts (created_at);

CREATE TABLE deliveries (
    delivery_no INTEGER PRIMARY KEY,
    delivery_id TEXT NOT NULL UNIQUE,
    alert_id    TEXT NOT NULL,
    sink        TEXT NOT NULL,
    body        BLOB NOT NULL,
    status      INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    degraded    INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    owed_since  INTEGER NOT NULL,
    next_at     INTEGER NOT NULL,
    leased      INTEGER NOT NULL DEFAULT 0,
    settled_at  INTEGER
) STRICT;
CREATE INDEX deliveries_alert ON deliveries (alert_id);
CREATE INDEX deliveries_claim ON deliveries (sink, attempts, delivery_no, next_at, owed_since) WHERE status = 0;
CREATE INDEX deliveries_dead ON deliveries (sink, settled_at) WHERE status = 3;

CREATE TABLE attempts (
    delivery_no INTEGER NOT NULL REFERENCES deliveries,
    number      INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    latency_ms  INTEGER NOT NULL,
    resolution  TEXT NOT NULL,
    status      TEXT NOT NULL,
    excerpt     TEXT NOT NULL,
    PRIMARY KEY (delivery_no, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE marks (
    name     TEXT PRIMARY KEY,
    event_no INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE lanes (
    sink         TEXT PRIMARY KEY,
    step         INTEGER NOT NULL,
    paused_until INTEGER,
    reason       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What a row says; the rows that are no events and the alerts that nobody got are found without a search. Rows of version 1 have no digest: an id of theirs that comes again counts
/// as a repetition.
const VERSION_2: &str = "
ALTER TABLE events ADD COLUMN digest BLOB;
CREATE INDEX events_poison ON events (event_no) WHERE poison IS NOT NULL;
CREATE INDEX alerts_muted ON alerts (alert_no) WHERE muted_by IS NOT NULL;
";

/// What sinks were told of alerts after their delivery. `due_at` is null while nothing is to be said.
const VERSION_3: &str = "
CREATE TABLE follow_ups (
    alert_id   TEXT NOT NULL,
    sink       TEXT NOT NULL,
    number     INTEGER NOT NULL,
    told_count INTEGER NOT NULL,
    told_at    INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    closed     INTEGER NOT NULL,
    not_before INTEGER,
    due_at     INTEGER,
    PRIMARY KEY (alert_id, sink)
) STRICT, WITHOUT ROWID;
CREATE INDEX follow_ups_due ON follow_ups (due_at) WHERE due_at IS NOT NULL;
";

/// What waits for a time, what was kept from being sent and by what, and which message told of several. `look_at` is by the
/// clock of lanes for a fallback (status 0 or 3), and by the time of day for what is muted (status 5).
const VERSION_4: &str = "
ALTER TABLE deliveries ADD COLUMN note TEXT;
ALTER TABLE deliveries ADD COLUMN muted_by TEXT;
ALTER TABLE deliveries ADD COLUMN look_at INTEGER;
ALTER TABLE deliveries ADD COLUMN fallback TEXT;
ALTER TABLE deliveries ADD COLUMN repeat_key TEXT;
ALTER TABLE deliveries ADD COLUMN told_in TEXT;
ALTER TABLE deliveries ADD COLUMN about TEXT;
ALTER TABLE deliveries ADD COLUMN receipt TEXT;
CREATE INDEX deliveries_muted ON deliveries (look_at) WHERE look_at IS NOT NULL AND status = 5;
CREATE INDEX deliveries_fallback ON deliveries (status, look_at) WHERE look_at IS NOT NULL AND fallback IS NOT NULL;
CREATE INDEX deliveries_repeat ON deliveries (sink, repeat_key) WHERE repeat_key IS NOT NULL;
CREATE TABLE silences (
    silence_id TEXT PRIMARY KEY,
    matchers   TEXT NOT NULL,
    owner      TEXT NOT NULL,
    reason     TEXT NOT NULL,
    starts_at  INTEGER NOT NULL,
    ends_at    INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// When somebody asked that the sink be tried at once. How the lane stands is written without touching it.
const VERSION_5: &str = "
ALTER TABLE lanes ADD COLUMN asked_at INTEGER;
";

/// Values of `deliveries.status`. The partial indexes name 0 and 3, so these numbers are part of the format.
pub(super) mod status {
    pub(in crate::store::sqlite) const PENDING: i64 = 0;
    pub(in crate::store::sqlite) const DELIVERED: i64 = 1;
    pub(in crate::store::sqlite) const UNCONFIRMED: i64 = 2;
    pub(in crate::store::sqlite) const DEAD: i64 = 3;
    pub(in crate::store::sqlite) const DIGESTED: i64 = 4;
    pub(in crate::store::sqlite) const MUTED: i64 = 5;
}

/// Why a file is not opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SchemaError {
    /// Written by a later release.
    #[error("the store has format {found}, this release knows formats up to {known}: run the newer release again")]
    Newer {
        /// In the file.
        found: i64,
        /// By this program.
        known: i64,
    },
    /// Older than this release; a tool does not migrate.
    #[error("the store has format {found}, this release writes {known}: start `vigie run` once, it migrates the store")]
    Older {
        /// In the file.
        found: i64,
        /// By this program.
        known: i64,
    },
    /// Another program's database.
    #[error("the file is an SQLite database of another program (application id {0:#010x})")]
    Foreign(i64),
    /// SQLite says no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// The version that this release writes.
pub(super) fn known_version() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Brings the file from version `found` to [`known_version`].
pub(super) fn migrate(connection: &Connection, found: i64) -> Result<(), SchemaError> {
    let done = usize::try_from(found).unwrap_or(0);
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        let version = index + 1;
        let statements = format!(
            "BEGIN EXCLUSIVE; {migration} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version}; COMMIT;"
        );
        if let Err(error) = connection.execute_batch(&statements) {
            if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
            return Err(error.into());
        }
    }
    Ok(())
}

/// Refuses every file that is not exactly of [`known_version`].
pub(super) fn require_current(connection: &Connection) -> Result<(), SchemaError> {
    let (found, known) = (checked_version(connection)?, known_version());
    if found < known {
        return Err(SchemaError::Older { found, known });
    }
    Ok(())
}

/// The file's version, if it is ours (or new) and not of a later release.
pub(super) fn checked_version(connection: &Connection) -> Result<i64, SchemaError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let application_id: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let known = known_version();
    if application_id != APPLICATION_ID && (tables > 0 || application_id != 0) {
        return Err(SchemaError::Foreign(application_id));
    }
    if found > known {
        return Err(SchemaError::Newer { found, known });
    }
    Ok(found)
}
