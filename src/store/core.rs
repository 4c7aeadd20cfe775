//! What a save in the store is: into the log, durably; then published; then answered. And what happens
//! behind it: spreading, by which the files come to have durably what the log has. No threads, no paths,
//! no clock: the log's medium and the files are the caller's, and in the tests they are a model's.

#[cfg(test)]
mod model;

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::log::format::{Kind, Record, blocks_for};
use super::log::scan::Scan;
use super::log::{AppendError, Log, Medium};

/// The files of a store.
pub(crate) trait Files {
    /// Makes a record's change visible, whole, without syncing it. A file is made anew each time.
    fn publish(&mut self, record: &Record) -> Result<(), Errno>;

    /// Keeps a record whose change cannot be published, durably, for whoever looks after it; no longer
    /// than until a newer one of its path is published.
    fn set_aside(&mut self, record: &Record) -> Result<(), Errno>;

    /// All that was published or set aside so far is on the disk, and the filesystem is alive.
    fn sync(&mut self) -> Result<(), Errno>;
}

/// An open store.
#[derive(Debug)]
pub(crate) struct Core<M, F> {
    log: Log<M>,
    files: F,
    /// The last record of each path that the log holds and the files may not have durably.
    unspread: BTreeMap<String, Record>,
    /// Those among them that could not be published.
    unpublished: BTreeMap<String, Errno>,
    /// Nothing is taken any more.
    refuses: Option<Errno>,
}

/// A transaction that is durable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Committed {
    /// Paths whose change is not visible yet, and why.
    pub not_visible: Vec<(String, Errno)>,
}

/// Why a transaction was not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It can never fit into the log; so many blocks are needed, and so many can be had.
    TooLarge { blocks: usize, max: usize },
    /// It failed, and nothing of it will ever be there.
    Unchanged(Errno),
    /// It failed, and may be there wholly when the store is opened next.
    Unknown(Errno),
    /// The store takes nothing any more, for this reason.
    Closed(Errno),
}

impl<M: Medium, F: Files> Core<M, F> {
    /// Puts into the files what the log has and they may lack, and goes on in the log behind it. Cut off
    /// anywhere, it is done again the next time.
    pub(crate) fn recover(scan: &Scan, medium: M, mut files: F) -> Result<Core<M, F>, Errno> {
        let mut last: BTreeMap<&str, &Record> = BTreeMap::new();
        for record in scan.live.iter().flat_map(|group| &group.records) {
            match record.kind {
                Kind::Forget => last.remove(record.path.as_str()),
                Kind::Replace | Kind::Remove => last.insert(&record.path, record),
            };
        }
        for record in last.values() {
            if files.publish(record).is_err() {
                files.set_aside(record)?;
            }
        }
        if !last.is_empty() {
            files.sync()?;
        }
        let log = Log::begin(medium, scan)?;
        let (unspread, unpublished) = (BTreeMap::new(), BTreeMap::new());
        Ok(Core { log, files, unspread, unpublished, refuses: None })
    }

    /// Commits the changes, all of them or none. When it returns they are durable and, unless it says
    /// otherwise, visible.
    pub(crate) fn commit(&mut self, records: Vec<Record>) -> Result<Committed, Refused> {
        if let Some(errno) = self.refuses {
            return Err(Refused::Closed(errno));
        }
        let (blocks, max) = (blocks_for(&records), self.log.group_max());
        if blocks > max {
            return Err(Refused::TooLarge { blocks, max });
        }
        if !self.log.has_room(&records) {
            self.spread().map_err(Refused::Closed)?;
            self.log.switch().map_err(|errno| self.refuse(errno))?;
        }
        self.log.append(&records).map_err(|error| match error {
            AppendError::NotWritten(errno) => Refused::Unchanged(errno),
            AppendError::Unknown(errno) => {
                self.refuse(errno);
                Refused::Unknown(errno)
            }
            AppendError::Refused(errno) => self.refuse(errno),
            AppendError::Unfit => Refused::Unchanged(Errno::INVAL),
        })?;
        // Only now: a file can reach the disk before its record, and would replace the old version.
        let mut committed = Committed::default();
        for record in records {
            let path = record.path.clone();
            match self.files.publish(&record) {
                Ok(()) => drop(self.unpublished.remove(&path)),
                Err(errno) => {
                    self.unpublished.insert(path.clone(), errno);
                    committed.not_visible.push((path.clone(), errno));
                }
            }
            self.unspread.insert(path, record);
        }
        Ok(committed)
    }

    /// Brings it about that the files have durably all that the log has, so that its room is free.
    pub(crate) fn spread(&mut self) -> Result<(), Errno> {
        if let Some(errno) = self.refuses {
            return Err(errno);
        }
        let spread = match self.place_and_sync() {
            Ok(()) => Ok(()),
            // What the kernel could not write it may count as written now: a second sync of these files
            // says nothing. Each is made anew, from what the log holds.
            Err(_) => {
                let paths = self.unspread.keys().cloned();
                self.unpublished = paths.map(|path| (path, Errno::IO)).collect();
                self.place_and_sync()
            }
        };
        match spread {
            Ok(()) => self.unspread.clear(),
            Err(errno) => {
                self.refuse(errno);
            }
        }
        spread
    }

    /// Spreads, and says so in the log.
    pub(crate) fn spread_and_note(&mut self) -> Result<(), Errno> {
        self.spread()?;
        let noted = self.log.note_spread();
        if let Err(errno) = noted {
            self.refuse(errno);
        }
        noted
    }

    fn place_and_sync(&mut self) -> Result<(), Errno> {
        for path in std::mem::take(&mut self.unpublished).into_keys() {
            let Some(record) = self.unspread.get(&path) else { continue };
            if self.files.publish(record).is_err() {
                // No target may keep the log from going on.
                self.files.set_aside(record)?;
            }
        }
        self.files.sync()
    }

    fn refuse(&mut self, errno: Errno) -> Refused {
        self.refuses = Some(errno);
        Refused::Closed(errno)
    }
}
