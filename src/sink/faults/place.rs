//! A destination on this machine: the standard output, a file, a pipe, a program.
//!
//! It is in trouble from the start and is healed once; it keeps what it got, and never judges it.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::sync::{Arc, Mutex};

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};

use super::{Fault, TITLE};
use crate::sink::BuildContext;
use crate::sink::every::Every;

/// A destination on this machine.
pub(super) struct Place {
    directory: tempfile::TempDir,
    written: Arc<Mutex<Vec<u8>>>,
    /// What a write to the standard output does until it is healed.
    fails: Arc<Mutex<Option<io::ErrorKind>>>,
    /// Held while the reader does not read.
    gate: Mutex<Option<std::sync::mpsc::SyncSender<()>>>,
    /// A full pipe in place of a file.
    pipe: Option<Pipe>,
}

/// A named pipe that nobody reads until it is emptied of what it was filled with.
struct Pipe {
    end: File,
    filled_bytes: usize,
}

impl Pipe {
    fn full(path: &str) -> Self {
        mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).expect("a pipe");
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag");
        let mut end = File::options().read(true).write(true).custom_flags(flags).open(path).expect("opened");
        let mut filled_bytes = 0;
        while let Ok(count) = end.write(&[b'.'; 4096]) {
            filled_bytes += count;
        }
        Self { end, filled_bytes }
    }

    fn empty(&self) {
        let mut filled = vec![0; self.filled_bytes];
        (&self.end).read_exact(&mut filled).expect("read");
    }

    fn rest(&self) -> Vec<u8> {
        let mut rest = Vec::new();
        // It ends with `WouldBlock`, for this end can also write.
        assert!((&self.end).read_to_end(&mut rest).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        rest
    }
}

struct Terminal {
    written: Arc<Mutex<Vec<u8>>>,
    fails: Arc<Mutex<Option<io::ErrorKind>>>,
    gate: Option<std::sync::mpsc::Receiver<()>>,
}

impl io::Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(gate) = self.gate.take() {
            // The other end is dropped when it is healed.
            gate.recv().unwrap_or_default();
        }
        match *self.fails.lock().expect("not poisoned") {
            Some(kind) => Err(kind.into()),
            None => self.written.lock().expect("not poisoned").write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The program that an `exec` sink runs while it is in trouble.
fn program(fault: Fault) -> &'static str {
    match fault {
        Fault::ConnectStall => "exec sleep 600",
        Fault::ByteASecond => "while :; do printf .; sleep 1; done",
        Fault::Burst => "exit 75",
        Fault::Endless => "exec cat /dev/zero",
        _ => "cat >> \"${0%/*}/written\"",
    }
}

impl Place {
    pub(super) fn new(every: &Every, fault: Fault, context: &mut BuildContext) -> (Self, String) {
        let directory = tempfile::tempdir().expect("a directory");
        let (written, fails) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None)));
        let (holds, gate) = std::sync::mpsc::sync_channel(0);
        let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        let place = match (every.kind, fault) {
            ("file", Fault::Refused) => path("absent/written"),
            ("file", Fault::Burst) => {
                std::os::unix::fs::symlink("/dev/full", path("written")).expect("a link");
                path("written")
            }
            ("file", _) => path("written"),
            ("exec", Fault::Refused) => path("program"),
            ("exec", fault) => {
                std::fs::write(path("program"), program(fault)).expect("written");
                format!("/bin/sh {}", path("program"))
            }
            _ => String::new(),
        };
        let pipe = ((every.kind, fault) == ("file", Fault::ConnectStall)).then(|| Pipe::full(&place));
        *fails.lock().expect("not poisoned") = match fault {
            Fault::Refused => Some(io::ErrorKind::BrokenPipe),
            Fault::Burst => Some(io::ErrorKind::StorageFull),
            _ => None,
        };
        let stalls = fault == Fault::ConnectStall;
        let terminal =
            Terminal { written: Arc::clone(&written), fails: Arc::clone(&fails), gate: stalls.then_some(gate) };
        context.stdout = Arc::new(Mutex::new(terminal));
        (Self { directory, written, fails, gate: Mutex::new(Some(holds)), pipe }, place)
    }

    pub(super) fn heal(&self, kind: &str, fault: Fault) {
        let path = |name: &str| self.directory.path().join(name);
        *self.fails.lock().expect("not poisoned") = None;
        drop(self.gate.lock().expect("not poisoned").take());
        self.pipe.iter().for_each(Pipe::empty);
        match (kind, fault) {
            ("file", Fault::Refused) => std::fs::create_dir(path("absent")).expect("made"),
            ("file", Fault::Burst) => std::fs::remove_file(path("written")).expect("removed"),
            ("exec", Fault::Refused) => {
                // Whole at once: it may be asked for at any moment.
                std::fs::write(path("begun"), format!("#!/bin/sh\n{}", program(Fault::None))).expect("written");
                std::fs::set_permissions(path("begun"), Permissions::from_mode(0o700)).expect("may be run");
                std::fs::rename(path("begun"), path("program")).expect("renamed");
            }
            ("exec", _) => std::fs::write(path("program"), program(Fault::None)).expect("written"),
            _ => {}
        }
    }

    /// Copies that are there.
    pub(super) fn copies(&self, kind: &str, fault: Fault) -> usize {
        let read = |name: &str| std::fs::read(self.directory.path().join(name)).unwrap_or_default();
        let bytes = match (kind, fault) {
            ("stdout", _) => self.written.lock().expect("not poisoned").clone(),
            ("file", Fault::Refused) => read("absent/written"),
            ("file", Fault::ConnectStall) => self.pipe.as_ref().map(Pipe::rest).unwrap_or_default(),
            _ => read("written"),
        };
        String::from_utf8_lossy(&bytes).matches(TITLE).count()
    }
}
