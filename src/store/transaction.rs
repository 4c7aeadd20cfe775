//! Changes that are made together, and their way into the store.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use rustix::io::Errno;

use super::committer::{Committer, removed};
use super::files::Following;
use super::layout::{FILE_MAX, record};
use super::log::format::{Kind, Record};
use super::queue::{Pending, Way};
use super::trace;
use super::{Committed, Handle, Route, STRAIGHT_MAX, StateStore, channel, id};
use crate::engine::task::limits::Permit;
use crate::error::{Cause, Error, Result};
use crate::plan::{Outcome, Step};
use crate::reply::{Answer, NoAnswer};

/// Any number of saves and removals, of one container or of many: after a crash all of it is there, or
/// nothing. While the store is open, others see each file change whole, one after the other.
///
/// Of two changes of one file the later one counts. Nothing happens before [`commit`](Transaction::commit).
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = ringseal::StateStore::open_blocking(dir.path())?;
/// let committed = store
///     .transaction()
///     .save_bytes("web-1", "{\"status\":\"stopped\"}")
///     .save_bytes("web-2", "{\"status\":\"running\"}")
///     .commit_blocking()?;
/// assert_eq!(committed.bytes, 40);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a transaction does nothing until `commit`"]
pub struct Transaction {
    store: StateStore,
    records: Vec<Record>,
    way: Option<Way>,
    /// What was asked first that cannot be.
    refused: Option<Error>,
}

impl Transaction {
    pub(super) fn new(store: StateStore) -> Transaction {
        Transaction { store, records: Vec::new(), way: None, refused: None }
    }

    /// Saves a container's state as JSON, without a trailing newline.
    ///
    /// # Errors
    /// If the value does not serialise ([`Cause::Serialize`]).
    #[cfg(feature = "json")]
    pub fn save<T>(self, id: &str, state: &T) -> Result<Transaction>
    where
        T: serde::Serialize + ?Sized,
    {
        match serde_json::to_vec(state) {
            Ok(bytes) => Ok(self.save_bytes(id, bytes)),
            Err(error) => Err(self.store.error(id, Cause::Serialize(error))),
        }
    }

    /// Saves a container's state, whatever its form.
    pub fn save_bytes(self, id: &str, state: impl Into<Bytes>) -> Transaction {
        let name = self.store.handle.committer.layout.names.state.clone();
        self.save_file(id, &name, state)
    }

    /// Saves one of a container's files: one whose [name](super::StoreOptions::other_name) the store was
    /// told.
    pub fn save_file(mut self, id: &str, name: &str, data: impl Into<Bytes>) -> Transaction {
        if name == self.store.handle.committer.layout.names.pid {
            let why = "a pid file is written by `write_pid`, for it must not be replayed";
            let error = self.store.error(&format!("{id}/{name}"), Cause::InvalidRequest(why));
            self.refuse(error);
            return self;
        }
        self.add(id, name, data.into());
        self
    }

    fn add(&mut self, id: &str, name: &str, data: Bytes) {
        let mode = self.store.handle.committer.layout.names.mode;
        match self.store.path(id, name) {
            Ok(path) if data.len() as u64 > FILE_MAX => {
                let error = self.store.error(&path, Errno::FBIG.into());
                self.refuse(error);
            }
            Ok(path) => self.records.push(record(Kind::Replace, path, mode, data)),
            Err(error) => self.refuse(error),
        }
    }

    /// Removes a container: its files that the store manages, then its directory. Saves of it later in the
    /// same transaction are saved all the same.
    pub fn remove(mut self, id: &str) -> Transaction {
        match id::check(id) {
            Ok(()) => self.records.extend(self.store.handle.committer.layout.names.removal(id)),
            Err(why) => {
                let error = self.store.error(id, Cause::InvalidRequest(why));
                self.refuse(error);
            }
        }
        self
    }

    pub(super) fn pid(mut self, id: &str, pid: u32) -> Transaction {
        let name = self.store.handle.committer.layout.names.pid.clone();
        self.way = Some(Way::Atomic);
        self.add(id, &name, pid.to_string().into());
        self
    }

    /// Which way it goes. By [`Route::Direct`] only a single save can go.
    pub fn route(mut self, route: Route) -> Transaction {
        self.way = match route {
            Route::Logged => Some(Way::Log),
            Route::Direct => Some(Way::Beside),
        };
        self
    }

    fn refuse(&mut self, error: Error) {
        self.refused.get_or_insert(error);
    }

    /// Makes the changes.
    ///
    /// Nothing happens until the future is first polled. Dropping it later only means that nobody waits.
    ///
    /// # Errors
    /// An id or a name that is none; [`Cause::TransactionTooLarge`] with the limit; or the step that failed,
    /// its cause, and what is true now of all of it: unchanged, or unknown (it is there or not, wholly, and
    /// the next opening tells); of a single save beside the log also "replaced, durability unknown".
    pub fn commit(self) -> Commit {
        Commit(Box::pin(async move {
            let (handle, records, way) = self.ready()?;
            if records.is_empty() {
                return Ok(handle.nothing());
            }
            let bytes = bytes_of(&records);
            let permit = handle.limits.acquire(bytes).await;
            let permit = permit.map_err(|why| handle.error(&records, why.into()))?;
            // In memory a save takes less time than waking a thread.
            let here = handle.committer.is_volatile() && bytes <= STRAIGHT_MAX;
            let answer = handle.accept(records, way, permit, here);
            handle.outcome(answer.await)
        }))
    }

    /// As [`commit`](Transaction::commit), on this thread. If nobody else saves, the system calls are made
    /// here.
    ///
    /// # Errors
    /// As there.
    pub fn commit_blocking(self) -> Result<Committed> {
        let (handle, records, way) = self.ready()?;
        if records.is_empty() {
            return Ok(handle.nothing());
        }
        let bytes = bytes_of(&records);
        let permit = match handle.limits.try_acquire(bytes) {
            Some(permit) => Ok(permit),
            None => pollster::block_on(handle.limits.acquire(bytes)),
        };
        let permit = permit.map_err(|why| handle.error(&records, why.into()))?;
        let answer = handle.accept(records, way, permit, true);
        handle.outcome(pollster::block_on(answer))
    }

    /// Checks it, and decides which way it goes.
    fn ready(self) -> Result<(Arc<Handle>, Vec<Record>, Way)> {
        let Transaction { store, records, way, refused } = self;
        if let Some(error) = refused {
            return Err(error);
        }
        store.check_fork("")?;
        let handle = store.handle;
        let committer = &handle.committer;
        let has_log = committer.access.is_some();
        let is_shared = has_log && committer.following == Following::Shared;
        let way = match &records[..] {
            [] => Way::Log,
            [record] if record.kind == Kind::Replace => match way {
                Some(Way::Atomic) => Way::Atomic,
                _ if committer.is_volatile() => Way::Atomic,
                Some(Way::Beside) => Way::Beside,
                _ if !is_shared || committer.is_large(record) => Way::Beside,
                Some(Way::Log) => Way::Log,
                None if handle.route == Route::Direct => Way::Beside,
                None => Way::Log,
            },
            records => {
                if way.is_some_and(|way| way != Way::Log) {
                    let cause = Cause::InvalidRequest("only a single save can go beside the log");
                    return Err(handle.error(records, cause));
                }
                match has_log {
                    true => Way::Log,
                    false if removed(records).is_some() => Way::Beside,
                    false => return Err(handle.error(records, Cause::NoLog)),
                }
            }
        };
        Ok((handle, records, way))
    }
}

impl Handle {
    /// The answer to no change at all.
    fn nothing(&self) -> Committed {
        Committed {
            sequence: 0,
            durability: self.committer.durability(),
            route: Route::Logged,
            bytes: 0,
            coalesced_into: None,
            not_visible: Vec::new(),
            left: Vec::new(),
        }
    }

    /// Accepts a transaction; `here`: what waits is carried out on this thread, if nobody does so already.
    fn accept(
        &self,
        mut records: Vec<Record>,
        way: Way,
        permit: Permit,
        here: bool,
    ) -> Answer<Result<Committed>> {
        let (reply, answer) = channel(self.generation);
        let located = self.committer.layout.removed();
        if let (Way::Log, [record], true) = (way, &mut records[..], here) {
            // Found here, by many callers at once. What fails is asked again, and answered, when it has its
            // turn.
            let make = record.kind == Kind::Replace;
            let Committer { slots, layout, .. } = &*self.committer;
            record.directory = slots.locate(layout, &record.path, make).unwrap_or_default();
        }
        trace::transaction(permit.number(), records.len(), bytes_of(&records));
        let mut pending = Pending { records, way, located, sequence: 0, permit, reply };
        if here && way == Way::Atomic {
            match self.committer.save_at_once(pending) {
                Ok(()) => return answer,
                Err(waits) => pending = waits,
            }
        }
        if self.committer.queue.push(pending) {
            match here {
                true => self.committer.carry(Some(&answer)),
                false => self.committer.carry_by_thread(),
            }
        }
        answer
    }

    fn outcome(&self, answer: Result<Result<Committed>, NoAnswer>) -> Result<Committed> {
        let cause = match answer {
            Ok(answer) => return answer,
            Err(NoAnswer::Forked) => Cause::Forked,
            Err(NoAnswer::Lost) => Cause::EngineLost,
        };
        let root = self.committer.layout.root.path();
        Err(Error::new(root, Step::Log, Outcome::Unknown, cause))
    }

    fn error(&self, records: &[Record], cause: Cause) -> Error {
        let path = records.first().map_or("", |record| &record.path);
        let shown = self.committer.layout.shown(path);
        Error::new(shown, Step::Accept, Outcome::Unchanged, cause)
    }
}

fn bytes_of(records: &[Record]) -> usize {
    records.iter().map(|record| record.data.len()).sum()
}

/// A transaction on its way: a future of its answer.
///
/// Nothing happens before it is polled. Once it was accepted it is carried out; dropping it only means that
/// nobody waits.
#[must_use = "futures do nothing unless polled"]
pub struct Commit(Pin<Box<dyn Future<Output = Result<Committed>> + Send>>);

impl Commit {
    #[cfg(feature = "json")]
    pub(super) fn failed(error: Error) -> Commit {
        Commit(Box::pin(std::future::ready(Err(error))))
    }
}

impl Future for Commit {
    type Output = Result<Committed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit").finish_non_exhaustive()
    }
}
