//! Recovery of a damaged store: copies what can still be read into a new file and keeps the damaged one beside it.
//!
//! It never runs by itself and never changes the damaged file. What is lost is told per table, because the operator must know
//! whether an alert may be missing: a lost event id costs a second evaluation (computed ids make it the same alert), a lost
//! delivery may cost an alert, a lost cursor makes a source begin where its `start` says.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Row, params_from_iter};
use serde::Serialize;

use super::directory::{DATABASE, Directory};
use super::{OpenError, Opening, SqliteOptions, schema};

/// In the order of their worth, should the new file meet a full disk.
const TABLES: [&str; 11] = [
    "sources",
    "lanes",
    "deliveries",
    "silences",
    "state",
    "alerts",
    "follow_ups",
    "attempts",
    "event_types",
    "events",
    "marks",
];
/// Longest name for the damaged file.
const MAX_NAME_CHARS: usize = 64;
const RECOVERING: &str = "vigie.db.recovering";

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recovered {
    /// Where the damaged file is now.
    pub damaged: PathBuf,
    /// Table by table.
    pub tables: Vec<RecoveredTable>,
}

/// What was saved of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveredTable {
    /// Its name in the file.
    pub name: String,
    /// Rows saved.
    pub rows: u64,
    /// Nothing of it was unreadable.
    pub complete: bool,
}

/// Saves what can be read of the store in `dir` into a new one and renames the damaged file to `vigie.db.damaged-NAME`.
///
/// # Errors
/// See [`OpenError`]; a daemon that runs on it, a file of a later release or a name that is taken are refused. Then the
/// store is as it was.
pub fn recover(dir: &Path, name: &str) -> Result<Recovered, OpenError> {
    let options = SqliteOptions::daemon();
    let opening = Opening { dir, options: &options };
    let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME_CHARS || !name.chars().all(is_plain) {
        return Err(opening.io(format!("`{name}` cannot be part of a file name")));
    }
    let directory = Directory::existing(dir);
    if !directory.database().is_file() {
        return Err(OpenError::Missing(dir.to_path_buf()));
    }
    let _lock = directory.lock().map_err(|error| opening.directory_error(error))?;
    let damaged = dir.join(format!("{DATABASE}.damaged-{name}"));
    if damaged.exists() {
        return Err(opening.io(format!("{} exists already", damaged.display())));
    }
    let fresh = dir.join(RECOVERING);
    remove_if_there(&fresh).map_err(|error| opening.io(error))?;
    directory.create_private(RECOVERING).map_err(|error| opening.io(error))?;
    let tables = salvage(&opening, &directory, &fresh)?;
    exchange(&directory, &fresh, &damaged).map_err(|error| opening.io(error))?;
    Ok(Recovered { damaged, tables })
}

fn salvage(opening: &Opening<'_>, directory: &Directory, fresh: &Path) -> Result<Vec<RecoveredTable>, OpenError> {
    let new = Connection::open_with_flags(fresh, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| opening.sqlite(error))?;
    new.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF;")
        .map_err(|error| opening.sqlite(error))?;
    schema::migrate(&new, 0).map_err(|error| opening.schema(error))?;
    let old = match open_damaged(&directory.database()) {
        Ok(old) => match schema::checked_version(&old) {
            Err(error @ schema::SchemaError::Newer { .. }) => return Err(opening.schema(error)),
            _ => Some(old),
        },
        Err(error) => {
            tracing::warn!(%error, "nothing of the damaged store can be read");
            None
        }
    };
    let mut tables = Vec::with_capacity(TABLES.len());
    for name in TABLES {
        let copied = match &old {
            Some(old) => copy_table(old, &new, name).map_err(|error| opening.sqlite(error))?,
            None => (0, false),
        };
        tables.push(RecoveredTable { name: name.to_owned(), rows: copied.0, complete: copied.1 });
    }
    new.execute_batch("DELETE FROM attempts WHERE delivery_no NOT IN (SELECT delivery_no FROM deliveries)")
        .map_err(|error| opening.sqlite(error))?;
    new.close().map_err(|(_, error)| opening.sqlite(error))?;
    Ok(tables)
}

/// Reads the log too, if there is one, and leaves both files as they are.
fn open_damaged(path: &Path) -> rusqlite::Result<Connection> {
    let old = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    old.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    old.execute_batch("PRAGMA query_only = ON; PRAGMA cell_size_check = ON;")?;
    Ok(old)
}

/// From the front up to the first damage, then from the back. Errors are those of the new file only.
fn copy_table(old: &Connection, new: &Connection, table: &str) -> rusqlite::Result<(u64, bool)> {
    // An earlier format does not have every table; a schema that cannot be read is damage and shows below.
    let exists = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    if matches!(old.query_row(exists, [table], |row| row.get::<_, i64>(0)), Ok(0)) {
        return Ok((0, true));
    }
    let columns = shared_columns(old, new, table)?;
    let list = columns.join(", ");
    let key = key_of(table);
    let ascending: Vec<String> = key.iter().map(|column| format!("{column} ASC")).collect();
    let descending: Vec<String> = key.iter().map(|column| format!("{column} DESC")).collect();
    let transaction = new.unchecked_transaction()?;
    let forward = format!("SELECT {list} FROM {table} NOT INDEXED ORDER BY {}", ascending.join(", "));
    let (mut rows, complete) = copy_rows(old, new, &forward, table, &list, columns.len())?;
    if !complete {
        let backward = format!("SELECT {list} FROM {table} NOT INDEXED ORDER BY {}", descending.join(", "));
        rows += copy_rows(old, new, &backward, table, &list, columns.len())?.0;
    }
    transaction.commit()?;
    Ok((rows, complete))
}

/// Rows copied until the end, the first damage or the first row that is there already; true at the end.
fn copy_rows(
    old: &Connection,
    new: &Connection,
    query: &str,
    table: &str,
    list: &str,
    width: usize,
) -> rusqlite::Result<(u64, bool)> {
    let marks = vec!["?"; width].join(", ");
    let mut insert = new.prepare(&format!("INSERT OR IGNORE INTO {table} ({list}) VALUES ({marks})"))?;
    let Ok(mut select) = old.prepare(query) else { return Ok((0, false)) };
    let Ok(mut found) = select.query([]) else { return Ok((0, false)) };
    let mut rows = 0;
    loop {
        let values = match found.next() {
            Ok(Some(row)) => read_values(row, width),
            Ok(None) => return Ok((rows, true)),
            Err(_) => return Ok((rows, false)),
        };
        // A value that is no longer of its type (text that is no UTF-8) is damage too.
        let Ok(values) = values else { return Ok((rows, false)) };
        match insert.execute(params_from_iter(values)) {
            Ok(0) => return Ok((rows, false)),
            Ok(_) => rows += 1,
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                return Ok((rows, false));
            }
            Err(error) => return Err(error),
        }
    }
}

fn read_values(row: &Row<'_>, width: usize) -> rusqlite::Result<Vec<Value>> {
    (0..width).map(|column| row.get(column)).collect()
}

/// Those of the new file, without what a file of an earlier release lacks.
fn shared_columns(old: &Connection, new: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut columns = columns_of(new, table)?;
    if let Ok(known) = columns_of(old, table)
        && !known.is_empty()
    {
        columns.retain(|column| known.contains(column));
    }
    Ok(columns)
}

fn columns_of(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    names.collect()
}

/// The column order in which a table lies in the file, so that reading needs no other page.
fn key_of(table: &str) -> &'static [&'static str] {
    match table {
        "lanes" => &["sink"],
        "silences" => &["silence_id"],
        "follow_ups" => &["alert_id", "sink"],
        "state" => &["rule_id", "kind", "key"],
        "attempts" => &["delivery_no", "number"],
        "event_types" => &["source_id", "event_type"],
        "marks" => &["name"],
        _ => &["rowid"],
    }
}

/// The damaged file gets a second name before the new one takes the first, so that at every moment one of them is there.
fn exchange(directory: &Directory, fresh: &Path, damaged: &Path) -> io::Result<()> {
    let database = directory.database();
    let with = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    fs::hard_link(&database, damaged)?;
    // The old log must not lie beside the new file.
    match fs::rename(with(&database, "-wal"), with(damaged, "-wal")) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => remove_if_there(&with(&database, "-shm"))?,
    }
    fs::rename(fresh, &database)?;
    directory.sync()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
