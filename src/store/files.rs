//! The files of a store, as a filesystem has them.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use super::core::{Failure, Files, Published, Written, container};
use super::layout::Layout;
use super::log::format::{DirectoryId, Kind, Record};
use super::slots::Slots;
use super::stats::Counters;
use super::trace;
use super::unplaced;
use crate::engine::crew;
use crate::engine::pool::Pool;
use crate::left_out::final_answer;
use crate::plan::Step;
use crate::request::Level;
use crate::{filesystem, liveness};

/// Threads that publish one group, at most: more hinder each other in the filesystem.
const WIDTH_MAX: usize = 4;

/// Where each file is synced, threads wait for the same flushes.
const SYNCED_WIDTH: usize = 64;

/// How the files of a root come to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Following {
    /// Later, by one sync of the filesystem, which is known to sync everything, and to tell what failed.
    Shared,
    /// Each by itself, before the answer: of this filesystem that is not known.
    Each,
    /// Not at all: they are in memory.
    Nothing,
}

/// The files of a store.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub layout: Arc<Layout>,
    /// The store's own directory.
    pub own: Arc<OwnedFd>,
    pub barrier: Barrier,
    pub slots: Arc<Slots>,
    pool: Arc<Pool>,
    width: usize,
    /// Directories of removed containers that hold something of somebody else's.
    left: Vec<String>,
}

/// Syncs everything that was published. Its descriptor was opened before anything was: only such a one is
/// told of what could not be written (syncfs(2)).
#[derive(Debug, Clone)]
pub(crate) struct Barrier {
    dir: Arc<OwnedFd>,
    layout: Arc<Layout>,
    following: Following,
    /// See [`filesystem::may_drop_blocks`].
    may_drop_blocks: bool,
    stats: Arc<Counters>,
}

impl Barrier {
    /// Of the filesystem of the store's own directory.
    pub(crate) fn new(
        own: &Arc<OwnedFd>,
        layout: &Arc<Layout>,
        following: Following,
        stats: &Arc<Counters>,
    ) -> Barrier {
        let may_drop_blocks =
            following == Following::Shared && filesystem::may_drop_blocks(own.as_fd());
        let (dir, layout, stats) = (Arc::clone(own), Arc::clone(layout), Arc::clone(stats));
        Barrier { dir, layout, following, may_drop_blocks, stats }
    }

    /// Syncs, and tells which of these files have no room on the disk all the same.
    pub(crate) fn sync(&self, written: &[Written<'_>]) -> Result<Vec<String>, Errno> {
        if self.following == Following::Nothing {
            return Ok(Vec::new());
        }
        let began = Instant::now();
        let synced = self.sync_all(written);
        self.stats.spread(began, written.len(), &synced);
        synced
    }

    fn sync_all(&self, written: &[Written<'_>]) -> Result<Vec<String>, Errno> {
        match self.following {
            Following::Nothing => {}
            // They are durable.
            Following::Each => {}
            Following::Shared => {
                let sync = || rustix::fs::syncfs(&self.dir);
                final_answer(sync(), sync)?;
            }
        }
        liveness::check(self.dir.as_fd())?;
        if !self.may_drop_blocks {
            return Ok(Vec::new());
        }
        let dropped = written.iter().filter(|one| !self.layout.has_blocks(**one));
        Ok(dropped.map(|(path, _)| (*path).to_owned()).collect())
    }

    /// The level at which a file is published.
    fn level(&self) -> Level {
        match self.following {
            Following::Each => Level::Durable,
            Following::Shared | Following::Nothing => Level::Atomic,
        }
    }
}

impl Tree {
    pub(crate) fn new(
        layout: Arc<Layout>,
        own: Arc<OwnedFd>,
        barrier: Barrier,
        slots: Arc<Slots>,
        pool: Arc<Pool>,
    ) -> Tree {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let width = match barrier.following {
            Following::Each => SYNCED_WIDTH,
            Following::Shared | Following::Nothing => processors.min(WIDTH_MAX),
        };
        Tree { layout, own, barrier, slots, pool, width, left: Vec::new() }
    }

    /// Directories of containers that were removed since it was asked last, and are still there, for they
    /// hold something of somebody else's.
    pub(crate) fn take_left(&mut self) -> Vec<String> {
        std::mem::take(&mut self.left)
    }
}

impl Files for Tree {
    fn locate(&mut self, path: &str, make: bool) -> Result<DirectoryId, Failure> {
        self.slots.locate(&self.layout, path, make)
    }

    fn locate_all(&mut self, paths: &[Arc<str>]) -> Vec<Result<DirectoryId, Failure>> {
        let (layout, slots) = (Arc::clone(&self.layout), Arc::clone(&self.slots));
        let known = slots.known(paths);
        let unknown = paths.iter().zip(&known).filter(|(_, known)| known.is_none());
        let unknown = unknown.map(|(path, _)| Arc::clone(path));
        let lost = Err((Step::OpenDirectory, Errno::IO));
        let found = self.together(unknown, lost, move |path| slots.locate(&layout, path, true));
        let mut found = found.into_iter();
        let located = |known: Option<_>| known.map_or_else(|| found.next().unwrap_or(lost), Ok);
        known.into_iter().map(located).collect()
    }

    fn sync_directories(&mut self) -> Result<(), Failure> {
        match self.barrier.following {
            Following::Nothing => Ok(()),
            Following::Shared | Following::Each => self.layout.root.sync(),
        }
    }

    fn publish(&mut self, records: &[Arc<Record>]) -> Published {
        let (layout, slots) = (Arc::clone(&self.layout), Arc::clone(&self.slots));
        let level = self.barrier.level();
        let publish = move |record: &Record| match level {
            Level::Atomic => slots.publish(&layout, record),
            Level::Durable => slots.publish_durably(&layout, record),
        };
        let answers = match records {
            [record] => vec![publish(record)],
            records => {
                // What a thread has lost was not published.
                let lost = Err(Errno::IO);
                self.together(records.iter().cloned(), lost, move |record| publish(record))
            }
        };
        // Behind all that was in them; but not what a file was saved to.
        let of_kind = |kind| {
            let records = records.iter().filter(move |record| record.kind == kind);
            records.map(|record| (container(&record.path), &record.directory))
        };
        let saved_to: HashSet<&str> = of_kind(Kind::Replace).map(|(id, _)| id).collect();
        let mut removed: Vec<(&str, &DirectoryId)> = of_kind(Kind::Remove).collect();
        removed.retain(|(id, _)| !saved_to.contains(id));
        removed.sort_by_key(|(id, _)| *id);
        removed.dedup_by_key(|(id, _)| *id);
        let is_to_sync = !removed.is_empty() && self.barrier.following == Following::Each;
        for (id, directory) in removed {
            if self.layout.remove_directory(id, directory) != Ok(true) {
                self.left.push(id.to_owned());
            }
        }
        if is_to_sync {
            if let Err((_, errno)) = self.layout.root.sync() {
                return vec![Err(errno); answers.len()];
            }
        }
        answers
    }

    fn begin_anew(&mut self) {
        self.slots.clear();
    }

    fn set_aside(&mut self, record: &Record) -> Result<(), Errno> {
        unplaced::keep(self.own.as_fd(), record)?;
        self.barrier.stats.set_aside();
        trace::set_aside(&self.layout.shown(&record.path));
        Ok(())
    }

    fn aside(&mut self) -> Result<Vec<Record>, Errno> {
        unplaced::all(self.own.as_fd(), true)
    }

    fn take_back(&mut self, path: &str) -> Result<(), Errno> {
        unplaced::take_back(self.own.as_fd(), path)
    }

    fn sync(&mut self, written: &[Written<'_>]) -> Result<Vec<String>, Errno> {
        self.barrier.sync(written)
    }
}

impl Tree {
    /// Does the same for every item, on several threads; answers in their order. `lost`: what is answered for
    /// one that a thread has lost.
    fn together<T, A>(
        &self,
        items: impl Iterator<Item = T>,
        lost: A,
        body: impl Fn(&T) -> A + Send + Sync + 'static,
    ) -> Vec<A>
    where
        T: Send + 'static,
        A: Copy + Send + 'static,
    {
        let items: Vec<(usize, T, A)> =
            items.enumerate().map(|(index, item)| (index, item, lost)).collect();
        let mut answers = vec![lost; items.len()];
        let done = crew::each(&self.pool, self.width, items, move |(_, item, answer)| {
            *answer = body(item);
        });
        for (index, _, answer) in done {
            answers[index] = answer;
        }
        answers
    }
}
