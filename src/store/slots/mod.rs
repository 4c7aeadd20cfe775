//! Publishing without making an inode: a file that is saved again and again has two, the one that stands at
//! its name and a *spare* beside it. A version is written to the spare, then the two change places (renameat2(2),
//! `RENAME_EXCHANGE`, Linux 3.15).
//!
//! ```text
//!   publish ──▶ is all as it was? ──▶ may the spare be written? ──▶ write ──▶ exchange
//!                 │ no, or no slot      │ no, or none: a new one is made
//!                 ▼                     └─ lease: nobody has it open or mapped, and who opens it waits
//!               the file is replaced, as everywhere else; the new one, kept open, is a slot
//! ```
//!
//! | who owns what, when | |
//! | --- | --- |
//! | the table | every slot that nobody uses. Who publishes takes his out, and puts it back |
//! | a slot | descriptors of the directory and of both inodes: while they are open no other inode gets their numbers, so equal numbers are the same inode. It made both inodes: no file of somebody else's is written to, and none that was there before a sync failed |
//! | the spare's bytes | whoever has the lease: from its taking to its end nobody else sees them. Before, nobody had it open; after, it is the next version |
//!
//! The lease is given up before the exchange, so that no reader of the file ever meets one. What was a version
//! once is written to only if nobody can see it any more: not while somebody has it open or mapped, nor if it has
//! another name, nor if it was moved. And only if it differs from a new file in nothing but its bytes: mode,
//! owner, attributes.
//!
//! What a lease does not tell, by its nature: pages that somebody spliced out of a file before he closed it
//! (splice(2), sendfile(2)); a descriptor that cannot read (`O_PATH`) and is opened again later, through `/proc`; and a
//! hard link to the old version that was begun two saves ago and is made at this moment. And a directory that
//! somebody puts in the file's place between the look and the exchange is found under the spare's name.

mod slot;
mod table;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::core::Failure;
use super::layout::{Layout, c_string};
use super::log::format::{DirectoryId, Kind, Record};
use super::stats::{Counters, How};
use crate::request::Level;
use crate::sys::lease::Lease;
use crate::{inode, liveness};
use slot::{Place, Slot};
use table::Table;

/// Descriptors of a slot: its directory and two inodes.
const DESCRIPTORS: usize = 3;

/// Slots at most, where the limit of descriptors would allow more.
const MAX: usize = 16 << 10;

/// When it is seen whether a known file and its directory are still there, and nothing in their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looks {
    /// When a change is accepted, which is refused otherwise.
    Accepting,
    /// When it is published: until then nobody waits for it.
    Publishing,
}

/// The files that have two inodes.
#[derive(Debug)]
pub(crate) struct Slots {
    table: Mutex<Table<Slot>>,
    looks: Looks,
    stats: Arc<Counters>,
}

impl Slots {
    /// For so many files; 0: all are replaced as everywhere else.
    pub(crate) fn new(max: usize, looks: Looks, stats: Arc<Counters>) -> Slots {
        Slots { table: Mutex::new(Table::new(max)), looks, stats }
    }

    /// How many files have two inodes, and how many can have.
    pub(crate) fn usage(&self) -> (usize, usize) {
        self.lock().usage()
    }

    /// Makes a record's change visible, unsynced.
    pub(crate) fn publish(&self, layout: &Layout, record: &Record) -> Result<(), Errno> {
        self.stats.published(self.publish_unsynced(layout, record, Table::admits))
    }

    /// Makes a record's change visible and durable. That is never an exchange.
    pub(crate) fn publish_durably(&self, layout: &Layout, record: &Record) -> Result<(), Errno> {
        let how = if record.kind == Kind::Remove { How::Removed } else { How::NewFile };
        self.stats.published(layout.publish(record, Level::Durable).map(|()| how))
    }

    /// `admits`: does a file that has one inode get a second?
    fn publish_unsynced(
        &self,
        layout: &Layout,
        record: &Record,
        admits: impl FnOnce(&mut Table<Slot>) -> bool,
    ) -> Result<How, Errno> {
        if record.kind == Kind::Remove {
            self.give_up(&record.path);
            return layout.publish(record, Level::Atomic).map(|()| How::Removed);
        }
        let mut table = self.lock();
        let slot = table.take(&record.path);
        let is_admitted = slot.is_some() || admits(&mut table);
        drop(table);
        if let Some(mut slot) = slot {
            let is_there =
                self.looks == Looks::Accepting || slot.place.has_file(layout, &record.path);
            if is_there && slot.publish(layout, record).is_ok() {
                self.put(record, slot);
                return Ok(How::Exchanged);
            }
            slot.give_up();
        }
        let lacks = |errno: &Errno| matches!(*errno, Errno::MFILE | Errno::NFILE);
        let replaced = self.give_way_where(lacks, || layout.replace(record, Level::Atomic))?;
        if let Some(slot) = is_admitted.then(|| Slot::of(replaced)).flatten() {
            self.put(record, slot);
        }
        Ok(How::NewFile)
    }

    fn put(&self, record: &Record, slot: Slot) {
        let out = self.lock().put(&record.path, slot);
        if let Some(out) = out {
            out.give_up();
        }
    }

    /// Publishes a record that was not located, if a file stands there that has two inodes, or is to have them. Who is
    /// told that nothing was published does it himself, and learns why.
    pub(crate) fn replace(&self, layout: &Layout, record: &Record) -> bool {
        let mut table = self.lock();
        let known = table.get(&record.path).map(|slot| slot.place.directory);
        if known.is_none() && !table.admits() {
            return false;
        }
        drop(table);
        let look = inode::at(layout.root.directory(), &c_string(&record.path));
        if !look.is_ok_and(|look| look.kind.is_file()) {
            return false;
        }
        // Whether it is the right one is seen when it is published.
        let Some(directory) = known.or_else(|| layout.locate(&record.path, true).ok()) else {
            return false;
        };
        let record = Record { directory, ..record.clone() };
        self.stats.published(self.publish_unsynced(layout, &record, |_| true)).is_ok()
    }

    /// The directories of those files that are not looked at before they are published.
    pub(crate) fn known(&self, paths: &[Arc<str>]) -> Vec<Option<DirectoryId>> {
        if self.looks == Looks::Accepting {
            return vec![None; paths.len()];
        }
        let table = self.lock();
        let directory = |path: &Arc<str>| table.get(path).map(|slot| slot.place.directory);
        paths.iter().map(directory).collect()
    }

    /// [`Layout::locate`], by what is known.
    pub(crate) fn locate(
        &self,
        layout: &Layout,
        path: &str,
        make: bool,
    ) -> Result<DirectoryId, Failure> {
        let known = self.lock().get(path).map(|slot| slot.place);
        let is_there =
            |place: &Place| self.looks == Looks::Publishing || place.is_known(layout, path);
        if let Some(place) = known.filter(|place| make && is_there(place)) {
            return Ok(place.directory);
        }
        let lacks = |failure: &Failure| matches!(failure.1, Errno::MFILE | Errno::NFILE);
        self.give_way_where(lacks, || layout.locate(path, make))
    }

    /// The file has one inode from now on.
    pub(crate) fn give_up(&self, path: &str) {
        let slot = self.lock().take(path);
        if let Some(slot) = slot {
            slot.give_up();
        }
    }

    /// All files have one inode.
    pub(crate) fn clear(&self) {
        let slots = self.lock().take_all();
        slots.into_iter().for_each(Slot::give_up);
    }

    /// Does something, and once more if it lacked descriptors: without slots, of which there are half as many from
    /// then on.
    pub(crate) fn give_way_where<T, E>(
        &self,
        lacks_descriptors: impl Fn(&E) -> bool,
        body: impl Fn() -> Result<T, E>,
    ) -> Result<T, E> {
        match body() {
            Err(error) if lacks_descriptors(&error) => {
                // Whoever comes meanwhile waits until they are closed.
                let mut table = self.lock();
                table.halve().into_iter().for_each(Slot::give_up);
                drop(table);
                body()
            }
            done => done,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table<Slot>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many slots there can be: a quarter of the descriptors that the process may have.
pub(crate) fn affordable() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    (descriptors / 4 / DESCRIPTORS).min(MAX)
}

/// Can this process have leases on files that it makes in a directory?
pub(crate) fn are_possible(dir: BorrowedFd<'_>) -> bool {
    let flags = liveness::FLAGS | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, c".", flags, Mode::RUSR | Mode::WUSR);
    file.is_ok_and(|file| Lease::take(file.as_fd()).is_ok())
}
