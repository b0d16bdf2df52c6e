//! The state directory: private to its owner, locked by one daemon, with a ballast file that is given up on a full disk.
//!
//! It knows nothing of SQL. The lock is the kernel's (it ends with the process, however that ends), so no stale lock can
//! keep a daemon from starting; the pid in the file is for people only.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Only the owner may look in: events and alerts hold personal data.
const DIRECTORY_MODE: u32 = 0o700;
/// See [`DIRECTORY_MODE`].
const FILE_MODE: u32 = 0o600;
/// How the ballast is written; also how much a probe for space asks for.
const BLOCK_BYTES: usize = 64 * 1024;
/// Longest pid text that is read from a lock file.
const MAX_PID_CHARS: usize = 20;

/// Name of the database within the directory.
pub(super) const DATABASE: &str = "vigie.db";
const LOCK: &str = "lock";
const BALLAST: &str = "ballast";
const BALLAST_PART: &str = "ballast.part";
const PROBE: &str = "probe";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirectoryError {
    /// Another daemon has it.
    #[error("another vigie (pid {0}) already uses this state directory")]
    Locked(String),
    /// The file system says no.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A state directory.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Creates it if it is missing and closes it to others as far as the file system allows.
    pub(super) fn create(path: &Path) -> Result<Self, DirectoryError> {
        let io = |action, source| DirectoryError::Io { action, path: path.to_path_buf(), source };
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(|e| io("cannot create", e))?;
        tighten(path, DIRECTORY_MODE).map_err(|e| io("cannot set the permissions of", e))?;
        Ok(Self { path: path.to_path_buf() })
    }

    /// Uses one that exists.
    pub(super) fn existing(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Takes the lock or says who has it, at once.
    pub(super) fn lock(&self) -> Result<File, DirectoryError> {
        let path = self.path.join(LOCK);
        let io = |action, source| DirectoryError::Io { action, path: path.clone(), source };
        let mut file = private_options().truncate(false).open(&path).map_err(|e| io("cannot open", e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path).map_err(|e| io("cannot read", e))?;
                return Err(DirectoryError::Locked(pid.trim().chars().take(MAX_PID_CHARS).collect()));
            }
            Err(TryLockError::Error(source)) => return Err(io("cannot lock", source)),
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        match written {
            Err(error) if !is_full(&error) => Err(io("cannot write", error)),
            // The lock holds without its text; a full disk must not keep the daemon from starting.
            _ => Ok(file),
        }
    }

    /// Creates the database file before SQLite does, so that it is never readable by others; its companions inherit this.
    pub(super) fn prepare_database(&self) -> Result<(), DirectoryError> {
        let path = self.database();
        let io = |action, source| DirectoryError::Io { action, path: path.clone(), source };
        private_options().truncate(false).open(&path).map_err(|e| io("cannot open", e))?;
        for suffix in ["", "-wal", "-shm"] {
            let file = self.path.join(format!("{DATABASE}{suffix}"));
            match tighten(&file, FILE_MODE) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other.map_err(|e| io("cannot set the permissions of", e))?,
            }
        }
        Ok(())
    }

    /// An empty file that only the owner may read.
    pub(super) fn create_private(&self, name: &str) -> io::Result<()> {
        private_options().truncate(true).open(self.path.join(name)).map(drop)
    }

    /// Whether a write of one block fails for want of space or quota.
    pub(super) fn lacks_space(&self) -> bool {
        let path = self.path.join(PROBE);
        let outcome = private_options().truncate(true).open(&path).and_then(|mut file| {
            file.write_all(&[b'p'; BLOCK_BYTES])?;
            file.sync_all()
        });
        let removed = fs::remove_file(&path);
        [outcome, removed].into_iter().any(|step| step.is_err_and(|error| is_full(&error)))
    }

    /// Makes renames and removals within it durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// Space kept aside, so that what was sent can be written down when the disk is full.
#[derive(Debug)]
pub(super) struct Ballast {
    directory: Directory,
    bytes: u64,
    held: bool,
}

impl Ballast {
    /// Takes up the file that is there; call [`Ballast::refill`] to have one made.
    pub(super) fn of(directory: Directory, bytes: u64) -> Self {
        let found = fs::metadata(directory.path.join(BALLAST)).map_or(0, |metadata| metadata.len());
        Self { directory, bytes, held: found >= bytes }
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Gives the space up. True if there was something to give.
    pub(super) fn release(&mut self) -> io::Result<bool> {
        if !self.held {
            return Ok(false);
        }
        self.held = false;
        let path = self.directory.path.join(BALLAST);
        fs::remove_file(&path)?;
        self.directory.sync()?;
        Ok(true)
    }

    /// Takes the space again. `Ok(false)` when there is not enough.
    pub(super) fn refill(&mut self) -> io::Result<bool> {
        if self.held {
            return Ok(true);
        }
        let part = self.directory.path.join(BALLAST_PART);
        let written = self.write(&part).and_then(|()| fs::rename(&part, self.directory.path.join(BALLAST)));
        match written {
            Ok(()) => {
                self.held = true;
                Ok(true)
            }
            Err(error) => {
                if let Err(leftover) = fs::remove_file(&part)
                    && leftover.kind() != ErrorKind::NotFound
                {
                    return Err(leftover);
                }
                if is_full(&error) { Ok(false) } else { Err(error) }
            }
        }
    }

    /// Bytes that do not compress, because a compressing file system would otherwise set nothing aside.
    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = private_options().truncate(true).open(path)?;
        let mut left = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        let mut block = vec![0_u8; BLOCK_BYTES];
        let mut noise = blake3::Hasher::new_derive_key("vigie ballast").finalize_xof();
        while left > 0 {
            noise.fill(&mut block);
            let size = left.min(block.len());
            file.write_all(block.get(..size).unwrap_or(&block))?;
            left -= size;
        }
        file.sync_all()
    }
}

/// No space or no quota.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(FILE_MODE);
    options
}

/// A mounted volume may belong to somebody else, and then its mode is its owner's business.
fn tighten(path: &Path, mode: u32) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o777 & !mode == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(mode)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            tracing::warn!(path = %path.display(), "others may read the state; its permissions cannot be changed");
            Ok(())
        }
        other => other,
    }
}
