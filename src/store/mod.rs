//! The state store: a root directory, a directory in it for each container, and one log for all of them.
//!
//! ```text
//!             ┌ queue: who comes while the log is written is in the next group
//!   save ─────┤
//!             └▶ committer ──▶ core: into the log, durably ──▶ published ──▶ answered
//!                                │                              (visible, not yet synced)
//!                                └▶ spreader: later, one sync for all that was published; then that part of
//!                                             the log is free
//!   open ──▶ what the log has and the files lack is put into them
//! ```
//!
//! | file | its one job |
//! | --- | --- |
//! | `options.rs`, `open.rs`, `recovery.rs` | how a store is opened; what is recovered then, or why it cannot be |
//! | `transaction.rs`, `committed.rs`, `load.rs` | changes that are made together, and their answer; reading |
//! | `queue.rs`, `carry.rs` | who waits; what is carried out together |
//! | `committer.rs`, `beside.rs` | transactions by the log; what goes beside it |
//! | `access.rs` | who may do what, while others do something else |
//! | `behind.rs`, `publisher.rs` | what is answered and not visible yet; the thread that publishes it |
//! | `spreader.rs`, `follow.rs` | when the files follow the log; the thread that sees to it |
//! | `grow.rs` | a log with larger segments |
//! | `core.rs` | the rules: what is durable, visible, forgotten, in which order. No paths, no threads |
//! | `log/` | the log: its bytes, its reader, its two files |
//! | `files.rs`, `layout.rs`, `unplaced.rs` | the files, as a filesystem has them |
//! | `slots/` | files that are published without making an inode |
//! | `reader.rs`, `verify.rs`, `inspect.rs` | reading without the lock; what does not parse; what a log holds |
//! | `stats.rs` | what a store tells of itself, and where its parts count it |
//! | `lock.rs`, `id.rs` | one store for each root; what an id is |

mod access;
mod behind;
mod beside;
mod carry;
mod committed;
mod committer;
mod core;
mod files;
mod follow;
mod grow;
mod id;
mod inspect;
mod layout;
mod load;
mod lock;
mod log;
mod open;
mod options;
mod publisher;
mod queue;
mod reader;
mod recovery;
mod slots;
mod spreader;
mod stats;
mod trace;
mod transaction;
mod unplaced;
#[cfg(feature = "json")]
mod verify;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

pub use committed::{Committed, NotVisible, Publish, Route};
pub use inspect::{LogChange, LogEntry, LogKind, LogReport, inspect_log};
pub use open::Opening;
pub use options::StoreOptions;
pub use reader::{Freshness, StateReader};
pub use recovery::{LogUse, OpenError, Recovery};
pub use stats::{Published, StoreStats};
pub use transaction::{Commit, Transaction};
#[cfg(feature = "json")]
pub use verify::Unreadable;

use crate::engine::task::limits::Limits;
use crate::error::{Cause, Error, Result};
use crate::plan::{Outcome, Step};
use crate::reply::{NoAnswer, channel};
use crate::sys::fork;
use committer::Committer;

/// The states of many containers below one root, saved again and again: for a daemon that owns the root.
///
/// A container is a directory `<root>/<id>`, its state the file `state.json` in it ([names and
/// modes](StoreOptions) can be others). Files are plain files that any program can read. What makes a save
/// durable is a log that all containers share: saves that come together cost one flush, and a
/// [`transaction`](StateStore::transaction) of any number of changes is all there after a crash, or not at
/// all. When a save is answered it is durable and every reader sees it ([`Publish::Behind`]: who loads it from the
/// store); the files themselves become durable some seconds later, many at a time.
///
/// **The price**: after a power cut the files are right only when the log has been replayed, for a file that
/// was published may be half on the disk. Opening the store does it, and so does `ringseal recover ROOT`.
/// Who has to read the files before that saves by [`Route::Direct`], or with a [`Writer`](crate::Writer).
///
/// A cheap handle (`Clone + Send + Sync`); its futures run on any executor, and every call has a form that
/// blocks. What was accepted is carried out, whatever becomes of the future. Ids are what runc takes: letters,
/// digits, `_`, `+`, `-`, `.`.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let root = dir.path().join("containers");
/// use ringseal::StateStore;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct State { status: String }
/// let running = State { status: "running".into() };
///
/// let store = StateStore::open_blocking(&root)?;
/// store.save_blocking("web-1", &running)?;
/// store.transaction().save("web-2", &running)?.remove("web-1").commit_blocking()?;
/// assert_eq!(store.load_blocking::<State>("web-2")?, Some(running));
/// assert_eq!(store.list_blocking()?, ["web-2"]);
/// store.close_blocking()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct StateStore {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    committer: Arc<Committer>,
    limits: Arc<Limits>,
    generation: u64,
    route: Route,
    recovery: Recovery,
}

/// Threads of a store, at most: one carries out what waits, others help to publish, or read for those who may
/// not block.
const THREADS_MAX: usize = 16;

/// Transactions in flight at most, and bytes of their files.
const IN_FLIGHT: (usize, usize) = (16 << 10, 256 << 20);

/// A larger save holds up the caller's executor; see `engine/route.rs`.
const STRAIGHT_MAX: usize = 256 << 10;

impl StateStore {
    /// Opens the store of a root with the default [`StoreOptions`], makes the root if it is missing, and
    /// recovers: puts into the files what the log has and they lack, and removes what crashes have left
    /// behind. [`recovery`](StateStore::recovery) tells what that was.
    ///
    /// # Errors
    /// Another process has it open, the log is damaged or of a later version, somebody else can write to
    /// `.ringseal`, or a call failed. Nothing was changed then, but that some files may be as the log has
    /// them.
    pub fn open(root: impl Into<PathBuf>) -> Opening {
        StoreOptions::new().open(root)
    }

    /// As [`open`](StateStore::open), on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn open_blocking(root: impl Into<PathBuf>) -> Result<StateStore, OpenError> {
        StoreOptions::new().open_blocking(root)
    }

    /// What the opening has found and done.
    pub fn recovery(&self) -> &Recovery {
        &self.handle.recovery
    }

    /// The root, as it was given.
    pub fn root(&self) -> &Path {
        self.handle.committer.layout.root.path()
    }

    /// The name of a container's state file.
    pub fn state_name(&self) -> &str {
        &self.handle.committer.layout.names.state
    }

    /// Saves a container's state as JSON, without a trailing newline; makes its directory if it is missing.
    ///
    /// # Errors
    /// The step that failed, its cause and what is true now. A value that does not serialise, or an id that
    /// is none, changes nothing.
    #[cfg(feature = "json")]
    pub fn save<T>(&self, id: &str, state: &T) -> Commit
    where
        T: serde::Serialize + ?Sized,
    {
        match self.transaction().save(id, state) {
            Ok(transaction) => transaction.commit(),
            Err(error) => Commit::failed(error),
        }
    }

    /// As [`save`](StateStore::save), on this thread.
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "json")]
    pub fn save_blocking<T>(&self, id: &str, state: &T) -> Result<Committed>
    where
        T: serde::Serialize + ?Sized,
    {
        self.transaction().save(id, state)?.commit_blocking()
    }

    /// Saves a container's state, whatever its form.
    ///
    /// # Errors
    /// As [`save`](StateStore::save).
    pub fn save_bytes(&self, id: &str, state: impl Into<Bytes>) -> Commit {
        self.transaction().save_bytes(id, state).commit()
    }

    /// As [`save_bytes`](StateStore::save_bytes), on this thread. If nobody else saves, the system calls are
    /// made here.
    ///
    /// # Errors
    /// As [`save`](StateStore::save).
    pub fn save_bytes_blocking(&self, id: &str, state: impl Into<Bytes>) -> Result<Committed> {
        self.transaction().save_bytes(id, state).commit_blocking()
    }

    /// Saves the states of many containers, all of them or none: one transaction.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub fn save_all<I, S, B>(&self, states: I) -> Commit
    where
        I: IntoIterator<Item = (S, B)>,
        S: AsRef<str>,
        B: Into<Bytes>,
    {
        self.all(states).commit()
    }

    /// As [`save_all`](StateStore::save_all), on this thread.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub fn save_all_blocking<I, S, B>(&self, states: I) -> Result<Committed>
    where
        I: IntoIterator<Item = (S, B)>,
        S: AsRef<str>,
        B: Into<Bytes>,
    {
        self.all(states).commit_blocking()
    }

    fn all<I, S, B>(&self, states: I) -> Transaction
    where
        I: IntoIterator<Item = (S, B)>,
        S: AsRef<str>,
        B: Into<Bytes>,
    {
        states.into_iter().fold(self.transaction(), |transaction, (id, state)| {
            transaction.save_bytes(id.as_ref(), state)
        })
    }

    /// Begins a transaction: any number of saves and removals, of one container or of many. After a crash
    /// all of it is there, or nothing.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.clone())
    }

    /// Removes a container: its files that the store manages, then its directory. One that holds anything
    /// else stays, and [`Committed::left`] names it.
    ///
    /// # Errors
    /// As [`save`](StateStore::save); `ENOENT` if there is no such directory.
    pub fn remove(&self, id: &str) -> Commit {
        self.transaction().remove(id).commit()
    }

    /// As [`remove`](StateStore::remove), on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn remove_blocking(&self, id: &str) -> Result<Committed> {
        self.transaction().remove(id).commit_blocking()
    }

    /// Writes a container's pid file: whole or not at all, for readers and for a killed process. It is not
    /// synced and never replayed: after a reboot a pid is a stranger's.
    ///
    /// # Errors
    /// As [`save`](StateStore::save).
    pub fn write_pid(&self, id: &str, pid: u32) -> Commit {
        self.transaction().pid(id, pid).commit()
    }

    /// As [`write_pid`](StateStore::write_pid), on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn write_pid_blocking(&self, id: &str, pid: u32) -> Result<Committed> {
        self.transaction().pid(id, pid).commit_blocking()
    }

    /// What is durable and not visible. Empty is good.
    pub fn not_visible(&self) -> Vec<NotVisible> {
        if self.is_forked() {
            return Vec::new();
        }
        let committer = &self.handle.committer;
        let hidden = committer.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = hidden
            .iter()
            .map(|(path, hidden)| NotVisible::new(&committer.layout, path, hidden.errno));
        shown.collect()
    }

    /// What it has done so far, and what is under way: a snapshot, for metrics. It takes some microseconds, waits for
    /// no disk, and can be asked at any time, also of a closed store. In a forked child all is zero.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use ringseal::StateStore;
    ///
    /// let store = StateStore::open_blocking(dir.path().join("containers"))?;
    /// store.transaction().save_bytes("web-1", "{}").save_bytes("web-2", "{}").commit_blocking()?;
    /// let stats = store.stats();
    /// assert_eq!((stats.answered, stats.failed, stats.bytes), (1, 0, 4));
    /// println!("log: {} of {} bytes", stats.log_used, stats.log_segment);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> StoreStats {
        // First of all: in a forked child every lock may be held by a thread that is not there.
        if self.is_forked() {
            return StoreStats::default();
        }
        StoreStats::of(&self.handle.committer, self.handle.limits.passed())
    }

    /// Takes no more transactions, waits for those that were accepted, makes the files durable, and gives
    /// the root back. All handles of this store are closed. What is left in the log is nothing.
    ///
    /// # Errors
    /// If the files could not be made durable. Nothing is lost ([`Outcome::DurableNotVisible`]): the log has
    /// it, and the next opening puts it into the files.
    pub fn close(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let store = self.clone();
        async move {
            store.check_fork("")?;
            let Handle { committer, limits, generation, .. } = &*store.handle;
            // From here on it is closed, whatever becomes of this future.
            limits.close();
            let (reply, answer) = channel(*generation);
            committer.spreader.close(Some(reply));
            let (outcome, cause) = match answer.await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(errno)) => (Outcome::DurableNotVisible, Cause::from(errno)),
                Err(NoAnswer::Forked) => (Outcome::Unknown, Cause::Forked),
                Err(NoAnswer::Lost) => (Outcome::Unknown, Cause::EngineLost),
            };
            Err(Error::new(store.root(), Step::Sync, outcome, cause))
        }
    }

    /// As [`close`](StateStore::close), on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn close_blocking(&self) -> Result<()> {
        pollster::block_on(self.close())
    }

    fn path(&self, id: &str, name: &str) -> Result<String> {
        let layout = &self.handle.committer.layout;
        let path = format!("{id}/{name}");
        let why = match id::check(id) {
            Err(why) => why,
            Ok(()) if layout.names.all().any(|known| known == name) => return Ok(path),
            Ok(()) => "the store manages no file of this name",
        };
        Err(self.error(&path, Cause::InvalidRequest(why)))
    }

    fn is_forked(&self) -> bool {
        fork::generation() != self.handle.generation
    }

    /// Nor may it be closed: what is hidden is not known any more, and the root may be another's.
    fn check_open(&self, path: &str) -> Result<()> {
        self.check_fork(path)?;
        match self.handle.committer.spreader.is_over() {
            true => Err(self.error(path, Cause::Closed)),
            false => Ok(()),
        }
    }

    fn check_fork(&self, path: &str) -> Result<()> {
        // First of all: in a forked child every lock may be held by a thread that is not there.
        if self.is_forked() { Err(self.error(path, Cause::Forked)) } else { Ok(()) }
    }

    fn error(&self, path: &str, cause: Cause) -> Error {
        let shown = self.handle.committer.layout.shown(path);
        Error::new(shown, Step::Accept, Outcome::Unchanged, cause)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if fork::generation() == self.generation {
            self.committer.spreader.close(None);
        }
    }
}
