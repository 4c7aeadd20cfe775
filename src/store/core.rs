//! What a save in the store is: into the log, durably; then published; then answered. And what happens
//! behind it: spreading, by which the files come to have durably what the log has. No threads, no paths,
//! no clock: the log's medium and the files are the caller's, and in the tests they are a model's.

mod hidden;
#[cfg(test)]
mod model;
mod publish;
mod refused;
pub(crate) mod replay;
mod unpublished;

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;

use super::log::format::{DirectoryId, Kind, Record};
use super::log::{AppendError, Log, Medium, Usage};
use crate::left_out::{Rule, left_out};
use crate::plan::Step;
pub(crate) use hidden::Hidden;
pub(crate) use refused::{NotCommitted, Refused, Room};
pub(crate) use unpublished::Unpublished;

/// The files of a store.
pub(crate) trait Files {
    /// Finds the directory of a path, or makes it, and looks whether a file can be at the path.
    fn locate(&mut self, path: &str, make: bool) -> Result<DirectoryId, Failure>;

    /// The same for many saves, at once.
    fn locate_all(&mut self, paths: &[Arc<str>]) -> Vec<Result<DirectoryId, Failure>> {
        paths.iter().map(|path| self.locate(path, true)).collect()
    }

    /// Every directory that was located is on the disk, under its name.
    fn sync_directories(&mut self) -> Result<(), Failure>;

    /// Makes changes visible, each whole, without syncing them, and answers for each. No two are of one path.
    fn publish(&mut self, records: &[Arc<Record>]) -> Published;

    /// A sync has failed: no file that was published before is written to again.
    fn begin_anew(&mut self);

    /// Keeps a record whose change cannot be published, durably, for whoever looks after it.
    fn set_aside(&mut self, record: &Record) -> Result<(), Errno>;

    /// Records that were set aside and not taken back.
    fn aside(&mut self) -> Result<Vec<Record>, Errno>;

    /// Takes back what was set aside of a path, durably.
    fn take_back(&mut self, path: &str) -> Result<(), Errno>;

    /// All that was published before this began is on the disk, and the filesystem is alive; but for those of
    /// these files whose paths it gives back, which are not known to be.
    fn sync(&mut self, written: &[Written<'_>]) -> Result<Vec<String>, Errno>;
}

/// A path, and the bytes of the file that was published there.
pub(crate) type Written<'a> = (&'a str, u64);

/// A step that failed before anything was changed, and why.
pub(crate) type Failure = (Step, Errno);

/// What became visible of changes, in their order.
pub(crate) type Published = Vec<Result<(), Errno>>;

/// When what the log has becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visible {
    /// Before anything else happens: whoever saves behind a removal is to find the directory gone.
    Now,
    /// When somebody publishes it. Not for removals.
    Later,
}

/// Is a transaction in the log?
pub(crate) type Answer = Result<(), NotCommitted>;

/// An open store.
#[derive(Debug)]
pub(crate) struct Core<M, F> {
    log: Log<M>,
    files: F,
    /// The last record of each path that the log holds and the files may not have durably.
    unspread: BTreeMap<Arc<str>, Unspread>,
    /// Those of them that are not visible yet.
    unpublished: Unpublished,
    /// Changes that are durable and not visible.
    hidden: BTreeMap<Arc<str>, Hidden>,
    /// Paths of which a version is set aside. One that is not the newest is taken back before the log
    /// forgets the newer one.
    aside: BTreeSet<Arc<str>>,
    /// Directories that are on the disk under their names, by the container's id.
    durable: HashMap<Box<str>, DirectoryId>,
    /// Files that the spread covers that is under way.
    spreading: usize,
    /// Nothing is taken any more.
    refuses: Option<Errno>,
}

#[derive(Debug)]
struct Unspread {
    record: Arc<Record>,
    /// The group that holds it.
    seq: u64,
}

/// A spread that has begun: everything up to a group was published or set aside.
#[derive(Debug)]
#[must_use = "the files are to be synced, and the end to be told"]
pub(crate) struct Spreading {
    upto: u64,
}

impl<M: Medium, F: Files> Core<M, F> {
    /// A store whose log is empty.
    pub(crate) fn new(log: Log<M>, files: F, hidden: BTreeMap<Arc<str>, Hidden>) -> Core<M, F> {
        let (unspread, durable) = (BTreeMap::new(), HashMap::new());
        let unpublished = Unpublished::default();
        let aside = hidden.keys().cloned().collect();
        Core {
            log,
            files,
            unspread,
            unpublished,
            hidden,
            aside,
            durable,
            spreading: 0,
            refuses: None,
        }
    }

    /// Goes on in another log. The files must have everything that this one holds, durably, and no spread may be under
    /// way.
    pub(crate) fn renew(&mut self, log: Log<M>) {
        self.log = log.counts_on(self.log.usage());
    }

    /// How much of the log is used.
    pub(crate) fn usage(&self) -> Usage {
        self.log.usage()
    }

    /// Which of the log's two segments it goes on in.
    pub(crate) fn segment(&self) -> usize {
        self.log.segment()
    }

    /// It takes nothing any more, for this reason.
    pub(crate) fn close(&mut self, errno: Errno) {
        self.refuse(errno);
    }

    /// Does it take nothing any more?
    pub(crate) fn is_closed(&self) -> bool {
        self.refuses.is_some()
    }

    /// Files that the next spread makes durable, but for one that is under way.
    pub(crate) fn unspread(&self) -> usize {
        self.unspread.len().saturating_sub(self.spreading)
    }

    /// The files that a spread covers.
    pub(crate) fn written_by(&self, spreading: &Spreading) -> Vec<(String, u64)> {
        let covered = self.unspread.values().filter(|unspread| unspread.seq <= spreading.upto);
        let written = covered.filter_map(|unspread| replay::written(&unspread.record));
        written.map(|(path, len)| (path.to_owned(), len)).collect()
    }

    /// Have the files everything that the log has, durably?
    pub(crate) fn is_spread(&self) -> bool {
        self.log.is_spread()
    }

    /// Is there room for a group of so many blocks, or can it be had? May go on in the log's other segment.
    pub(crate) fn room_for(&mut self, blocks: usize) -> Result<Room, Refused> {
        self.check()?;
        let max = self.log.group_max();
        if blocks > max {
            return Ok(Room::Never { max });
        }
        if self.log.has_room(blocks) {
            return Ok(Room::Here);
        }
        if !self.log.other_is_spread() && !left_out(Rule::SegmentReuse) {
            return Ok(Room::AfterSpreading);
        }
        self.log.turn().map_err(|errno| self.refuse(errno))?;
        Ok(Room::Here)
    }

    /// Commits transactions, each all of it or nothing; there must be room. What it answers for each is
    /// durable; it becomes visible here, or by who publishes later. A record that has no directory yet gets it
    /// here.
    ///
    /// Of changes of one path only the last is made; the others count as made before it.
    pub(crate) fn commit(
        &mut self,
        transactions: Vec<Vec<Record>>,
        visible: Visible,
    ) -> Vec<Answer> {
        if let Err(refused) = self.check() {
            return transactions.iter().map(|_| Err(refused.into())).collect();
        }
        let mut answers = Vec::with_capacity(transactions.len());
        let mut records: Vec<Arc<Record>> = Vec::new();
        for (number, located) in self.locate(transactions).into_iter().enumerate() {
            answers.push(located.as_ref().map(drop).map_err(|why| *why));
            let of_transaction = located.into_iter().flatten();
            let transaction = number as u32;
            records.extend(of_transaction.map(|record| Arc::new(Record { transaction, ..record })));
        }
        // The last of each path.
        records.reverse();
        records.sort_by(|one, other| one.path.cmp(&other.path));
        records.dedup_by(|older, newer| older.path == newer.path);
        if records.is_empty() {
            return answers;
        }
        if left_out(Rule::PublishBeforeLog) {
            self.files.publish(&records);
        }
        let seq = match self.append(&records) {
            Ok(seq) => seq,
            Err(refused) => {
                let refused = NotCommitted::from(refused);
                return answers.into_iter().map(|one| one.and(Err(refused))).collect();
            }
        };
        self.note_appended(&records, seq, visible);
        // Only now: a file can reach the disk before its record, and would replace the old version.
        if visible == Visible::Now {
            self.publish(records.into_iter().map(|record| (record, seq)).collect());
        }
        answers
    }

    /// Finds the directories of records, or makes them, and sees to it that they are on the disk: the log's
    /// writes do not bring them there. What fails for one record fails for its transaction.
    fn locate(&mut self, transactions: Vec<Vec<Record>>) -> Vec<Result<Vec<Record>, NotCommitted>> {
        let mut located: Vec<Result<Vec<Record>, NotCommitted>> = Vec::new();
        let mut new = Vec::new();
        // A removal has to see what was made before it; saves alone can be located in any order.
        let mut all = match &transactions[..] {
            [records] if records.iter().all(Record::is_to_be_located) => {
                let paths: Vec<_> = records.iter().map(|record| Arc::clone(&record.path)).collect();
                self.files.locate_all(&paths)
            }
            _ => Vec::new(),
        }
        .into_iter();
        for mut records in transactions {
            let locate = |(index, record): (usize, &mut Record)| {
                let known = all.next();
                if record.directory == DirectoryId::default() {
                    let make = record.kind == Kind::Replace;
                    let found = known.unwrap_or_else(|| self.files.locate(&record.path, make));
                    record.directory =
                        found.map_err(|(step, errno)| NotCommitted::Before(index, step, errno))?;
                }
                let id = container(&record.path);
                if self.durable.get(id).is_none_or(|known| !known.is(&record.directory)) {
                    new.push((located.len(), index, Box::<str>::from(id), record.directory));
                }
                Ok(())
            };
            let found = records.iter_mut().enumerate().try_for_each(locate);
            located.push(found.map(|()| records));
        }
        if new.is_empty() {
            return located;
        }
        let synced = self.files.sync_directories();
        for (transaction, index, id, directory) in new {
            match synced {
                Ok(()) => drop(self.durable.insert(id, directory)),
                Err((step, errno)) => {
                    located[transaction] = Err(NotCommitted::Before(index, step, errno));
                }
            }
        }
        located
    }

    /// Would a recovery put something over this path?
    pub(crate) fn holds(&self, path: &str) -> bool {
        self.unspread.contains_key(path)
            || self.aside.contains(path)
            // What is spread is replayed all the same until the disk says that it is spread.
            || !self.log.is_noted()
    }

    /// These paths were changed beside the log, durably: what it holds of them, and what was set aside, is
    /// void. There must be room for their marks.
    pub(crate) fn forget(&mut self, paths: &[&str]) -> Result<(), Errno> {
        // These are older than what stands there, whatever becomes of their marks.
        for path in paths.iter().filter(|_| !left_out(Rule::UnpublishedForgotten)) {
            self.unpublished.remove(path);
        }
        let held: Vec<&str> = paths.iter().copied().filter(|path| self.holds(path)).collect();
        if held.is_empty() || left_out(Rule::MarkBesideLog) {
            return Ok(());
        }
        let marks: Vec<Record> = held.iter().map(|path| mark(path)).collect();
        self.append(&marks).map_err(Refused::errno)?;
        for path in &held {
            self.unspread.remove(*path);
            self.hidden.remove(*path);
        }
        for path in held {
            if self.aside.contains(path) {
                self.files.take_back(path)?;
                self.aside.remove(path);
            }
        }
        Ok(())
    }

    fn append<R: Borrow<Record>>(&mut self, records: &[R]) -> Result<u64, Refused> {
        let removes = |record: &R| record.borrow().kind == Kind::Remove;
        if left_out(Rule::RemovalInLog) && records.iter().all(removes) {
            return Ok(self.log.last());
        }
        if left_out(Rule::WholeTransactions) && records.len() > 1 {
            return records.chunks(1).try_fold(0, |_, record| self.append(record));
        }
        self.log.append(records).map_err(|error| match error {
            AppendError::NotWritten(errno) => Refused::Unchanged(errno),
            AppendError::Unknown(errno) if left_out(Rule::RefusalAfterUnknown) => {
                Refused::Unknown(errno)
            }
            AppendError::Unknown(errno) => {
                self.refuse(errno);
                Refused::Unknown(errno)
            }
            AppendError::Refused(errno) => self.refuse(errno),
            AppendError::Unfit => Refused::Unchanged(Errno::INVAL),
        })
    }

    /// Begins to bring it about that the files have durably all that the log has. `None`: they have.
    pub(crate) fn begin_spread(&mut self) -> Result<Option<Spreading>, Errno> {
        if let Some(errno) = self.refuses {
            return Err(errno);
        }
        if self.log.is_spread() {
            return Ok(None);
        }
        self.place()?;
        if left_out(Rule::NoteBeforeSync) {
            self.log.spread_to(self.log.last());
            self.note_spread()?;
        }
        self.spreading = self.unspread.len();
        Ok(Some(Spreading { upto: self.visible_to() }))
    }

    /// Takes the answer of the sync that followed. If it failed, it is all done again, from what the log
    /// holds.
    pub(crate) fn end_spread(
        &mut self,
        spreading: Spreading,
        synced: Result<Vec<String>, Errno>,
    ) -> Result<(), Errno> {
        self.spreading = 0;
        if let Some(errno) = self.refuses {
            return Err(errno);
        }
        let (upto, doubtful) = match synced {
            Ok(doubtful) if left_out(Rule::LatePublish) => (self.log.last(), doubtful),
            Ok(doubtful) => (spreading.upto, doubtful),
            Err(errno) => {
                // What the kernel could not write it may count as written now: a second sync of these
                // files says nothing. Each is made anew.
                if !left_out(Rule::FreshFiles) {
                    if !left_out(Rule::SlotsGivenUp) {
                        self.files.begin_anew();
                    }
                    self.publish_again(errno);
                    self.place()?;
                }
                let all = self.unspread.values().map(|unspread| &*unspread.record);
                let written: Vec<Written<'_>> = all.filter_map(replay::written).collect();
                match self.files.sync(&written) {
                    Ok(doubtful) => (self.log.last(), doubtful),
                    Err(errno) => {
                        self.refuse(errno);
                        return Err(errno);
                    }
                }
            }
        };
        // No file may keep the log from going on, whatever somebody else has made of it.
        for path in doubtful {
            let Some(unspread) = self.unspread.get(&*path).filter(|one| one.seq <= upto) else {
                continue;
            };
            self.files.set_aside(&unspread.record)?;
            let path = &unspread.record.path;
            self.hidden.insert(Arc::clone(path), Hidden::kept(&unspread.record, Errno::IO));
            self.aside.insert(Arc::clone(path));
        }
        self.unspread.retain(|_, unspread| unspread.seq > upto);
        self.log.spread_to(upto);
        Ok(())
    }

    /// Says on the disk how far the files have everything.
    pub(crate) fn note_spread(&mut self) -> Result<(), Errno> {
        if let Some(errno) = self.refuses {
            return Err(errno);
        }
        let noted = self.log.note_spread();
        if let Err(errno) = noted {
            self.refuse(errno);
        }
        noted
    }

    /// All of a spread, here and now.
    pub(crate) fn spread(&mut self) -> Result<(), Errno> {
        let Some(spreading) = self.begin_spread()? else { return Ok(()) };
        let synced = self.files.sync(&[]);
        self.end_spread(spreading, synced)
    }

    /// Changes that are durable and not visible.
    pub(crate) fn hidden(&self) -> &BTreeMap<Arc<str>, Hidden> {
        &self.hidden
    }

    /// The files.
    pub(crate) fn files(&mut self) -> &mut F {
        &mut self.files
    }

    fn check(&self) -> Result<(), Refused> {
        self.refuses.map_or(Ok(()), |errno| Err(Refused::Closed(errno)))
    }

    fn refuse(&mut self, errno: Errno) -> Refused {
        self.refuses = Some(errno);
        Refused::Closed(errno)
    }
}

/// The mark that what the log has said of a path is void.
pub(crate) fn mark(path: &str) -> Record {
    let (kind, mode, directory) = (Kind::Forget, 0, DirectoryId::default());
    Record { kind, directory, mode, path: path.into(), data: Bytes::new(), transaction: 0 }
}

/// The id in a path.
pub(crate) fn container(path: &str) -> &str {
    path.split_once('/').map_or(path, |(id, _)| id)
}
