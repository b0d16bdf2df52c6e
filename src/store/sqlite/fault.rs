//! Failures of SQLite and the disk, by what must follow. Made where the error is seen; nothing here retries.
//!
//! SQLite tells a full disk (ENOSPC) by a code of its own but reports a used-up quota (EDQUOT) as a failed write, so a failed
//! write stays undecided until the writer has asked the directory.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use rusqlite::{ErrorCode, ffi};

use crate::store::StoreError;

/// What must follow from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// No space; nothing happened.
    Full,
    /// A write was refused, perhaps for want of space.
    Write,
    /// The file or the disk can no longer be trusted: no further work.
    Broken,
    /// This request cannot be done; others can.
    Refused,
}

/// A failure within the store's threads. It can be handed to several waiting callers.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) class: Class,
    cause: Arc<dyn Error + Send + Sync>,
}

/// A cause that several callers were given.
#[derive(Debug)]
struct SharedCause(Arc<dyn Error + Send + Sync>);

/// A request that contradicts the contract or what is stored.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Contradiction(String);

impl Fault {
    pub(super) fn new(class: Class, cause: impl Error + Send + Sync + 'static) -> Self {
        Self { class, cause: Arc::new(cause) }
    }

    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::new(Class::Refused, Contradiction(message.into()))
    }

    pub(super) fn full(message: impl Into<String>) -> Self {
        Self::new(Class::Full, Contradiction(message.into()))
    }

    /// A thread of the store is gone (it ended by a bug) or the store is closing.
    pub(super) fn gone() -> Self {
        Self::new(Class::Broken, Contradiction("the store's thread has ended".into()))
    }

    pub(super) fn with_class(self, class: Class) -> Self {
        Self { class, ..self }
    }

    pub(super) fn into_store_error(self) -> StoreError {
        let cause = Box::new(SharedCause(self.cause));
        match self.class {
            Class::Full => StoreError::Full(cause),
            Class::Write | Class::Broken | Class::Refused => StoreError::Fatal(cause),
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(class_of(&error), error)
    }
}

impl fmt::Display for SharedCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl Error for SharedCause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// See [`Class`].
pub(super) fn class_of(error: &rusqlite::Error) -> Class {
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return Class::Refused };
    match failure.code {
        ErrorCode::DiskFull => Class::Full,
        ErrorCode::SystemIoFailure => match failure.extended_code {
            ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMMAP => Class::Write,
            _ => Class::Broken,
        },
        ErrorCode::DatabaseCorrupt
        | ErrorCode::NotADatabase
        | ErrorCode::CannotOpen
        | ErrorCode::ReadOnly
        | ErrorCode::OutOfMemory
        | ErrorCode::PermissionDenied => Class::Broken,
        _ => Class::Refused,
    }
}
