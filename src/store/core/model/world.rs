//! The files and their directories, as a filesystem keeps them: what was not synced may be there after a
//! power cut, or not, or in part; a sync that failed says nothing, and neither does a later one of the
//! same pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use rustix::io::Errno;

use super::super::{Failure, Files, Published, Written, container};
use super::fate::Fate;
use super::{REMOVED, Version};
use crate::left_out::{Rule, left_out};
use crate::plan::Step;
use crate::store::log::format::{DirectoryId, Kind, Record};

/// The number of a directory.
type Inode = u64;

/// What a file holds: a version that was saved to a directory, or nothing that was ever saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Version(Version, Inode),
    Garbage,
}

/// Something that is cached, and what a power cut may leave of it.
#[derive(Debug, Clone)]
struct Kept<T> {
    cached: T,
    perhaps: Vec<T>,
    /// How many came before these and are no longer possible.
    gone: usize,
    /// A sync of these pages has failed: they are never written again.
    failed: bool,
}

impl<T: Copy> Kept<T> {
    fn new(durable: T) -> Kept<T> {
        Kept { cached: durable, perhaps: vec![durable], gone: 0, failed: false }
    }

    fn set(&mut self, value: T) {
        self.cached = value;
        self.perhaps.push(value);
    }

    /// It is on the disk.
    fn set_durably(&mut self, value: T) {
        self.gone += self.perhaps.len();
        (self.cached, self.perhaps, self.failed) = (value, vec![value], false);
    }

    fn cut_power(&mut self, fate: &mut Fate) {
        self.set_durably(self.perhaps[fate.pick(self.perhaps.len())]);
    }

    /// What was there when a sync began, and all that came after it.
    fn keep_from(&mut self, mark: &Mark<T>) {
        let older = mark.seen.saturating_sub(self.gone);
        if older > 0 && !self.failed {
            self.perhaps.drain(..older);
            self.perhaps.insert(0, mark.cached);
            self.gone = mark.seen - 1;
        }
    }

    fn mark(&self) -> Mark<T> {
        Mark { cached: self.cached, seen: self.gone + self.perhaps.len() }
    }
}

#[derive(Debug, Clone)]
struct Mark<T> {
    cached: T,
    /// Values that there were until then.
    seen: usize,
}

/// A sync that has begun.
#[derive(Debug, Clone)]
pub(super) struct Syncing {
    directories: BTreeMap<String, Mark<Option<Inode>>>,
    files: BTreeMap<Inode, Mark<Option<Content>>>,
}

/// The files, as a filesystem keeps them: one in each directory.
#[derive(Debug, Clone)]
pub(super) struct World {
    directories: BTreeMap<String, Kept<Option<Inode>>>,
    files: BTreeMap<Inode, Kept<Option<Content>>>,
    /// What was set aside, durably, by its path.
    aside: BTreeMap<String, Record>,
    next: Inode,
    pub(super) rng: Rng,
    /// A path that nobody can write to.
    pub(super) immutable: Option<String>,
    /// Containers whose directory somebody has removed while they were published.
    pub(super) meddled: Vec<String>,
    /// A sync has failed, and files that were published before may still be written to.
    pub(super) doubtful: bool,
    /// Faults are over: a recovery has to succeed some day.
    pub(super) is_kind: bool,
}

impl World {
    pub(super) fn new(rng: Rng) -> World {
        World {
            directories: BTreeMap::new(),
            files: BTreeMap::new(),
            aside: BTreeMap::new(),
            next: 1,
            rng,
            immutable: None,
            meddled: Vec::new(),
            doubtful: false,
            is_kind: false,
        }
    }

    fn directory(&mut self, path: &str) -> &mut Kept<Option<Inode>> {
        self.directories.entry(container(path).to_owned()).or_insert_with(|| Kept::new(None))
    }

    fn file(&mut self, inode: Inode) -> &mut Kept<Option<Content>> {
        self.files.entry(inode).or_insert_with(|| Kept::new(None))
    }

    fn make_directory(&mut self, path: &str) -> Inode {
        self.next += 1;
        let inode = self.next;
        self.directory(path).set(Some(inode));
        inode
    }

    fn set(&mut self, inode: Inode, content: Option<Content>) {
        let doubtful = self.doubtful;
        let file = self.file(inode);
        file.perhaps.push(Some(Content::Garbage));
        file.set(content);
        // It is another file, or one of before that failure, whose sync says nothing.
        file.failed &= doubtful;
    }

    /// Somebody else removes a container's directory, and may make it again.
    pub(super) fn remake(&mut self, path: &str) {
        self.directory(path).set(None);
        if self.rng.bool() {
            self.make_directory(path);
        }
    }

    /// Somebody else syncs it.
    pub(super) fn sync_directory(&mut self, path: &str) {
        let directory = self.directory(path);
        directory.set_durably(directory.cached);
    }

    /// A file is replaced durably beside the log, its directory with it.
    pub(super) fn save_durably(&mut self, path: &str, version: Version) {
        let inode = match self.directory(path).cached {
            Some(inode) => inode,
            None => self.make_directory(path),
        };
        self.directory(path).set_durably(Some(inode));
        self.file(inode).set_durably(Some(Content::Version(version, inode)));
    }

    /// What the store has of a path: what was set aside is newer than the file. `None`: something that it
    /// should not have.
    pub(super) fn found(&self, path: &str) -> Option<Version> {
        let directory = self.directories.get(container(path)).and_then(|kept| kept.cached);
        let Some(inode) = directory else { return Some(REMOVED) };
        if let Some(record) = self.aside.get(path).filter(|record| record.directory.inode == inode)
        {
            return Some(version_of(record));
        }
        match self.files.get(&inode).and_then(|file| file.cached) {
            None => Some(REMOVED),
            Some(Content::Version(version, saved_to)) if saved_to == inode => Some(version),
            Some(_) => None,
        }
    }

    pub(super) fn cut_power(&mut self, fate: &mut Fate) {
        for directory in self.directories.values_mut() {
            directory.cut_power(fate);
        }
        for file in self.files.values_mut() {
            file.cut_power(fate);
        }
    }

    pub(super) fn begin_sync(&self) -> Syncing {
        Syncing {
            directories: self
                .directories
                .iter()
                .map(|(id, kept)| (id.clone(), kept.mark()))
                .collect(),
            files: self.files.iter().map(|(inode, kept)| (*inode, kept.mark())).collect(),
        }
    }

    pub(super) fn end_sync(&mut self, syncing: &Syncing) -> Result<(), Errno> {
        let fails = !self.is_kind && self.rng.u8(0..10) == 0;
        for (inode, mark) in &syncing.files {
            let Some(file) = self.files.get_mut(inode) else { continue };
            match fails {
                true if file.perhaps.len() > 1 => file.failed = true,
                true => {}
                false => file.keep_from(mark),
            }
        }
        if fails {
            self.doubtful = true;
            return Err(Errno::IO);
        }
        for (id, mark) in &syncing.directories {
            if let Some(directory) = self.directories.get_mut(id) {
                directory.keep_from(mark);
            }
        }
        Ok(())
    }
}

fn version_of(record: &Record) -> Version {
    match record.kind {
        Kind::Replace => record.data[..4].try_into().map_or(0, u32::from_le_bytes),
        Kind::Remove | Kind::Forget => REMOVED,
    }
}

impl Files for &mut World {
    fn locate(&mut self, path: &str, make: bool) -> Result<DirectoryId, Failure> {
        let inode = match self.directory(path).cached {
            Some(inode) => inode,
            None if make => self.make_directory(path),
            None => return Err((Step::OpenDirectory, Errno::NOENT)),
        };
        Ok(DirectoryId { inode, born: 0, handle: inode })
    }

    fn sync_directories(&mut self) -> Result<(), Failure> {
        if left_out(Rule::HolderSync) {
            return Ok(());
        }
        if !self.is_kind && self.rng.u8(0..20) == 0 {
            return Err((Step::SyncDirectory, Errno::IO));
        }
        self.directories.values_mut().for_each(|kept| kept.set_durably(kept.cached));
        Ok(())
    }

    fn publish(&mut self, records: &[Arc<Record>]) -> Published {
        if !self.is_kind && self.rng.u8(0..20) == 0 {
            if let Some(record) = records.first() {
                self.remake(&record.path);
                self.meddled.push(record.path.to_string());
            }
        }
        let publish = |record: &Arc<Record>| {
            let inode = self.directory(&record.path).cached;
            let is_same = inode == Some(record.directory.inode);
            let Some(inode) = inode.filter(|_| is_same || left_out(Rule::DirectoryIdentity)) else {
                return if record.kind == Kind::Remove { Ok(()) } else { Err(Errno::STALE) };
            };
            if self.immutable.as_deref() == Some(&*record.path) {
                return Err(Errno::PERM);
            }
            match record.kind {
                Kind::Replace => {
                    let content = Content::Version(version_of(record), record.directory.inode);
                    self.set(inode, Some(content));
                }
                Kind::Remove => {
                    self.set(inode, None);
                    self.directory(&record.path).set(None);
                }
                Kind::Forget => panic!("a mark is no change"),
            }
            Ok(())
        };
        records.iter().map(publish).collect()
    }

    fn begin_anew(&mut self) {
        self.doubtful = false;
    }

    fn set_aside(&mut self, record: &Record) -> Result<(), Errno> {
        if !left_out(Rule::SettingAside) {
            self.aside.insert(record.path.to_string(), (*record).clone());
        }
        Ok(())
    }

    fn aside(&mut self) -> Result<Vec<Record>, Errno> {
        Ok(self.aside.values().cloned().collect())
    }

    fn take_back(&mut self, path: &str) -> Result<(), Errno> {
        if !left_out(Rule::TakingBack) {
            self.aside.remove(path);
        }
        Ok(())
    }

    fn sync(&mut self, _: &[Written<'_>]) -> Result<Vec<String>, Errno> {
        let syncing = self.begin_sync();
        self.end_sync(&syncing).map(|()| Vec::new())
    }
}
