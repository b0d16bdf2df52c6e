//! The one thread that writes. Requests that wait together share a commit and thus an fsync, each within a savepoint of its
//! own, so that one request's failure undoes that request only.
//!
//! It never repeats an fsync: after an I/O error it refuses all further work. It makes checkpoints itself, because SQLite's
//! automatic ones hide their errors, and a hidden fsync error would lose what was acknowledged.

use std::fs::File;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::{mpsc, oneshot};

use super::directory::{Ballast, Directory};
use super::fault::{Class, Fault};
use super::{claim, follow, ingest, settle};
use crate::store::Result;

/// Requests that may wait. A caller that finds the queue full waits, so ingest slows down instead of growing.
const QUEUE: usize = 64;
/// Requests in one commit: bounds how long the first of them waits.
const MAX_GROUP: usize = 16;
/// Frames (4 KiB each) in the write-ahead log from which on it is copied into the database: 16 MiB, so that the random
/// pages of the id index are copied once for many commits.
const CHECKPOINT_FRAMES: i64 = 4096;

/// What the writer's requests work with: statements are prepared once.
pub(super) struct WriteSession<'c> {
    pub(super) connection: &'c Connection,
    pub(super) ingest: ingest::Statements<'c>,
    pub(super) claim: claim::Statements<'c>,
    pub(super) settle: settle::Statements<'c>,
    pub(super) follow: follow::Statements<'c>,
}

/// What a request may use on a full disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Waits for real space.
    Space,
    /// Writes down what has happened already: may use up the ballast.
    Ballast,
}

/// The way to the writer.
#[derive(Debug)]
pub(super) struct Writer {
    requests: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. The lock is released after the connection is closed.
    pub(super) fn start(
        connection: Connection,
        directory: Directory,
        ballast: Option<Ballast>,
        lock: Option<File>,
    ) -> std::result::Result<Self, Fault> {
        let (requests, inbox) = mpsc::channel(QUEUE);
        let (ready, started) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                serve(connection, directory, ballast, inbox, |outcome| ready.send(outcome).is_ok());
                drop(lock);
            })
            .map_err(|error| Fault::new(Class::Broken, error))?;
        started.recv().map_err(|_| Fault::gone())??;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Runs `work` in a transaction. It may be run again (after it was undone), so it must not use itself up.
    pub(super) async fn submit<T, F>(&self, need: Need, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut WriteSession<'_>) -> std::result::Result<T, Fault> + Send + 'static,
    {
        let gone = || Fault::gone().into_store_error();
        let (reply, answer) = oneshot::channel();
        let request = Request { need, work, value: None, reply };
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests.send(Box::new(request)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    /// Waits for what was asked before; afterwards the directory can be opened again.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer ended by a panic");
        }
    }
}

/// A request with its waiting caller, whatever its answer is.
trait Job: Send {
    fn need(&self) -> Need;
    fn run(&mut self, session: &mut WriteSession<'_>) -> std::result::Result<(), Fault>;
    fn answer(self: Box<Self>, outcome: std::result::Result<(), Fault>);
}

impl std::fmt::Debug for dyn Job {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Job").field("need", &self.need()).finish_non_exhaustive()
    }
}

struct Request<T, F> {
    need: Need,
    work: F,
    value: Option<T>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Request<T, F>
where
    T: Send,
    F: FnMut(&mut WriteSession<'_>) -> std::result::Result<T, Fault> + Send,
{
    fn need(&self) -> Need {
        self.need
    }

    fn run(&mut self, session: &mut WriteSession<'_>) -> std::result::Result<(), Fault> {
        self.value = Some((self.work)(session)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: std::result::Result<(), Fault>) {
        let value: Result<T> = match (outcome, self.value) {
            (Ok(()), Some(value)) => Ok(value),
            (Ok(()), None) => Err(Fault::gone().into_store_error()),
            (Err(fault), _) => Err(fault.into_store_error()),
        };
        // A caller that went away needs no answer; what it asked for is done or undone as a whole.
        drop(self.reply.send(value));
    }
}

struct Loop<'c> {
    session: WriteSession<'c>,
    directory: Directory,
    ballast: Option<Ballast>,
    broken: Option<Fault>,
}

fn serve(
    connection: Connection,
    directory: Directory,
    ballast: Option<Ballast>,
    mut inbox: mpsc::Receiver<Box<dyn Job>>,
    ready: impl FnOnce(std::result::Result<(), Fault>) -> bool,
) {
    let session = match WriteSession::prepare(&connection) {
        Ok(session) => session,
        Err(error) => {
            ready(Err(error.into()));
            return;
        }
    };
    if !ready(Ok(())) {
        return;
    }
    let mut writer = Loop { session, directory, ballast, broken: None };
    while let Some(first) = inbox.blocking_recv() {
        let mut group = vec![first];
        while group.len() < MAX_GROUP
            && let Ok(next) = inbox.try_recv()
        {
            group.push(next);
        }
        writer.execute(group);
        writer.checkpoint_if_long();
    }
    let broken = writer.broken.is_some();
    drop(writer);
    close(connection, broken);
}

fn close(connection: Connection, broken: bool) {
    // The last connection makes a checkpoint when it closes; after an I/O error that would repeat the fsync.
    if broken && let Err(error) = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
        tracing::error!(%error, "the broken store cannot be closed without a checkpoint");
    }
    if let Err((_, error)) = connection.close() {
        tracing::error!(%error, "the store was not closed cleanly");
    }
}

impl<'c> WriteSession<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            ingest: ingest::Statements::prepare(connection)?,
            claim: claim::Statements::prepare(connection)?,
            settle: settle::Statements::prepare(connection)?,
            follow: follow::Statements::prepare(connection)?,
        })
    }
}

impl Loop<'_> {
    fn execute(&mut self, group: Vec<Box<dyn Job>>) {
        let mut group = self.admit(group);
        if group.is_empty() {
            return;
        }
        match self.attempt(&mut group) {
            Ok(outcomes) => {
                for (job, outcome) in group.into_iter().zip(outcomes) {
                    job.answer(outcome);
                }
            }
            Err(fault) => self.recover(group, fault),
        }
    }

    /// Answers what cannot be tried now and gives back the rest.
    fn admit(&mut self, group: Vec<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
        let mut admitted = Vec::with_capacity(group.len());
        for job in group {
            let refusal = match &self.broken {
                Some(fault) => Some(fault.clone()),
                None if job.need() == Need::Space => self.refill_ballast().err(),
                None => None,
            };
            match refusal {
                Some(fault) => job.answer(Err(fault)),
                None => admitted.push(job),
            }
        }
        admitted
    }

    /// All of the group in one transaction: what each request gave, or why nothing of it happened.
    fn attempt(
        &mut self,
        group: &mut [Box<dyn Job>],
    ) -> std::result::Result<Vec<std::result::Result<(), Fault>>, Fault> {
        let connection = self.session.connection;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let outcome = self.run_each(group);
        let committed = outcome.and_then(|outcomes| match connection.execute_batch("COMMIT") {
            Ok(()) => Ok(outcomes),
            Err(error) => Err(error.into()),
        });
        if committed.is_err() && !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK").map_err(|error| Fault::from(error).with_class(Class::Broken))?;
        }
        committed
    }

    fn run_each(
        &mut self,
        group: &mut [Box<dyn Job>],
    ) -> std::result::Result<Vec<std::result::Result<(), Fault>>, Fault> {
        let connection = self.session.connection;
        if let [only] = group {
            only.run(&mut self.session)?;
            return Ok(vec![Ok(())]);
        }
        let mut outcomes = Vec::with_capacity(group.len());
        for job in group {
            connection.execute_batch("SAVEPOINT request")?;
            let outcome = job.run(&mut self.session);
            match &outcome {
                Ok(()) => connection.execute_batch("RELEASE request")?,
                Err(fault) if fault.class == Class::Refused && !connection.is_autocommit() => {
                    connection.execute_batch("ROLLBACK TO request; RELEASE request")?;
                }
                Err(fault) => return Err(fault.clone()),
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// After a transaction that did not happen.
    fn recover(&mut self, mut group: Vec<Box<dyn Job>>, fault: Fault) {
        let fault = self.decide(fault);
        if fault.class == Class::Broken {
            tracing::error!(error = ?fault, "the store takes no more work");
            self.broken = Some(fault.clone());
        }
        if fault.class != Class::Broken && group.len() > 1 {
            for job in group {
                self.execute(vec![job]);
            }
            return;
        }
        let may_retry = fault.class == Class::Full && group.iter().all(|job| job.need() == Need::Ballast);
        let outcome = if may_retry && self.release_ballast() { self.attempt(&mut group) } else { Err(fault) };
        match outcome.map_err(|fault| self.decide(fault)) {
            Ok(outcomes) => {
                for (job, outcome) in group.into_iter().zip(outcomes) {
                    job.answer(outcome);
                }
            }
            Err(fault) => {
                if fault.class == Class::Broken {
                    self.broken = Some(fault.clone());
                }
                for job in group {
                    job.answer(Err(fault.clone()));
                }
            }
        }
    }

    /// A refused write is a full disk or a used-up quota, or else a fault of the disk.
    fn decide(&self, fault: Fault) -> Fault {
        match fault.class {
            Class::Write if self.directory.lacks_space() => fault.with_class(Class::Full),
            Class::Write => fault.with_class(Class::Broken),
            Class::Full | Class::Broken | Class::Refused => fault,
        }
    }

    fn refill_ballast(&mut self) -> std::result::Result<(), Fault> {
        match self.ballast.as_mut().map(Ballast::refill) {
            None | Some(Ok(true)) => Ok(()),
            Some(Ok(false)) => Err(Fault::full("the ballast cannot be set aside again")),
            Some(Err(error)) => {
                let fault = Fault::new(Class::Broken, error);
                self.broken = Some(fault.clone());
                Err(fault)
            }
        }
    }

    fn release_ballast(&mut self) -> bool {
        match self.ballast.as_mut().map(Ballast::release) {
            Some(Ok(given_up)) => {
                if given_up {
                    tracing::warn!("the disk is full: the ballast was given up to write down what was delivered");
                }
                given_up
            }
            Some(Err(error)) => {
                tracing::error!(%error, "the ballast cannot be given up");
                false
            }
            None => false,
        }
    }

    /// `NOOP` asks for the length of the log only (SQLite 3.51).
    fn checkpoint_if_long(&mut self) {
        if self.broken.is_some() {
            return;
        }
        let connection = self.session.connection;
        let frames = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(1));
        let outcome = match frames("PRAGMA wal_checkpoint(NOOP)") {
            Ok(length) if length >= CHECKPOINT_FRAMES => frames("PRAGMA wal_checkpoint(PASSIVE)").map(|_| ()),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            let fault = self.decide(error.into());
            match fault.class {
                // The log keeps what it has and grows on; the next commit says that the disk is full.
                Class::Full | Class::Refused => tracing::warn!(error = ?fault, "no checkpoint for now"),
                Class::Write | Class::Broken => {
                    tracing::error!(error = ?fault, "the store takes no more work");
                    self.broken = Some(fault);
                }
            }
        }
    }
}
