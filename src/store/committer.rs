//! Carries out what waits: by the log, many transactions in one group, or beside it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::Errno;

use super::core::{self, Core, Hidden, NotCommitted, Published, Refused, Room, container};
use super::files::{Barrier, Following, Tree};
use super::layout::Layout;
use super::lock::Lock;
use super::log::Log;
use super::log::files::{self as log_files, NotPlaced, Proof, Segments};
use super::log::format::{BLOCK, DirectoryId, Kind, Record, blocks_for};
use super::log::scan::Scan;
use super::queue::{Pending, Queue, Way};
use super::spreader::{Spreader, Todo};
use super::{Committed, NotVisible, unplaced};
use crate::engine::pool::Pool;
use crate::engine::task::limits::Limits;
use crate::error::{Cause, Error, Result};
use crate::plan::{Outcome, Step};
use crate::receipt::{Durability, Receipt};
use crate::reply::Answer;
use crate::request::{Level, Options, Request, Target};
use crate::writer::Writer;

/// Blocks of a group that several transactions share, at most: the larger, the longer each waits.
const SHARED_MAX: usize = (1 << 20) / BLOCK;

/// Saves beside the log that are made together, at most: each holds two descriptors meanwhile.
fn beside_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    (descriptors / 8).clamp(1, 128)
}

/// An open store: what its handles and its thread share.
#[derive(Debug)]
pub(crate) struct Committer {
    pub layout: Arc<Layout>,
    pub own: Arc<OwnedFd>,
    pub barrier: Barrier,
    /// `None`: there is no log here.
    pub core: Option<Mutex<Core<Segments, Tree>>>,
    pub size: Size,
    pub pool: Arc<Pool>,
    /// For saves beside the log that come together. With threads of its own: one of `pool` waits for it.
    pub writer: OnceLock<Option<Writer>>,
    pub limits: Arc<Limits>,
    pub queue: Queue,
    pub spreader: Spreader,
    pub following: Following,
    /// What is durable and not visible, for whoever reads.
    pub hidden: Mutex<BTreeMap<String, Hidden>>,
    /// Until the store is closed.
    pub lock: Mutex<Option<Lock>>,
}

/// How large the log's segments are, and may become.
#[derive(Debug)]
pub(crate) struct Size {
    pub segment: Mutex<u64>,
    pub max: u64,
    pub proof: Proof,
}

type Answers = Vec<Result<Published, NotCommitted>>;

impl Committer {
    /// Carries out what waits, until `mine` is answered; then a thread of the pool goes on.
    pub(crate) fn carry<T>(self: &Arc<Committer>, mine: Option<&Answer<T>>) {
        while let Some(batch) = self.queue.take(|first, next| self.joins(first, next)) {
            // A panic of somebody's waker must not leave the others waiting; what it drops is lost.
            let _ = catch_unwind(AssertUnwindSafe(|| self.carry_batch(batch)));
            if mine.is_some_and(Answer::is_there) {
                if self.queue.leave() {
                    self.carry_by_thread();
                }
                return;
            }
        }
    }

    /// A thread of the pool carries out what waits.
    pub(crate) fn carry_by_thread(self: &Arc<Committer>) {
        let committer = Arc::clone(self);
        self.pool.run(Box::new(move || committer.carry::<()>(None)));
    }

    /// Can the next that waits be carried out with the first of a batch?
    fn joins(&self, first: &Pending, next: &Pending) -> bool {
        first.way == next.way && !first.removes_beside() && !next.removes_beside()
    }

    fn carry_batch(&self, mut batch: Vec<Pending>) {
        match batch[0].way {
            Way::Log => {
                while !batch.is_empty() {
                    let rest = batch.split_off(self.fitting(&batch));
                    self.commit(batch);
                    batch = rest;
                }
            }
            Way::Beside | Way::Atomic => {
                while !batch.is_empty() {
                    let rest = batch.split_off(self.fitting(&batch));
                    self.beside(batch);
                    batch = rest;
                }
            }
        }
    }

    /// How many of these go into one group: they, or the marks of their paths.
    fn fitting(&self, batch: &[Pending]) -> usize {
        let by_log = batch[0].way == Way::Log;
        let max = SHARED_MAX.min(self.segment() as usize / BLOCK / 4);
        let mut blocks = 0;
        let fits = |pending: &&Pending| {
            blocks += match by_log {
                true => blocks_for(&pending.records),
                // However long a path is, a mark takes less than a block.
                false => pending.records.len().div_ceil(4),
            };
            blocks <= max
        };
        let most = if by_log { batch.len() } else { beside_max() };
        batch.iter().take(most).take_while(fits).count().max(1)
    }

    /// Are the files in memory?
    pub(crate) fn is_volatile(&self) -> bool {
        self.following == Following::Nothing
    }

    fn segment(&self) -> u64 {
        *self.size.segment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is a save of so many bytes better made beside the log?
    pub(crate) fn is_large(&self, record: &Record) -> bool {
        blocks_for([record]) as u64 * BLOCK as u64 > self.segment() / 4
    }

    fn commit(&self, batch: Vec<Pending>) {
        let Some(core) = &self.core else { return self.refuse_all(batch, Cause::NoLog.into()) };
        let blocks = blocks_for(batch.iter().flat_map(|pending| &pending.records));
        let mut core = match self.room(core, blocks) {
            Ok(core) => core,
            Err(cause) => return self.refuse_all(batch, cause),
        };
        let removed = self.layout.removed();
        let records = |pending: &Pending| {
            let mut records = pending.records.clone();
            if pending.located != removed {
                // Anew: theirs may have been among those that were removed.
                records.iter_mut().for_each(|record| record.directory = DirectoryId::default());
            }
            records
        };
        let transactions = batch.iter().map(records).collect();
        let mut answers: Answers = core.commit(transactions);
        let left = core.files().take_left();
        if self.following != Following::Shared {
            // What is visible is all that it can be.
            let _ = core.spread().and_then(|()| core.note_spread());
        } else {
            self.spreader.note();
        }
        for (pending, answer) in batch.iter().zip(&mut answers) {
            let is_gone =
                matches!(answer, Err(NotCommitted::Before(_, Step::OpenDirectory, Errno::NOENT)));
            if is_gone && pending.removes() {
                self.remove_aside(&mut core, pending, answer);
            }
        }
        self.show_hidden(core.hidden());
        drop(core);

        let is_made = batch.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
        let newest = newest_of(is_made.map(|(pending, _)| pending));
        let mut elsewhere = Vec::new();
        for (pending, answer) in batch.into_iter().zip(answers) {
            match answer {
                Err(NotCommitted::Before(_, Step::OpenDirectory, Errno::XDEV))
                    if pending.is_save() =>
                {
                    elsewhere.push(Pending { way: Way::Beside, ..pending });
                }
                answer => {
                    let answer = self.answer(&pending, answer, &newest, &left);
                    pending.answer(answer);
                }
            }
        }
        // Its directory is another mount's, of which the log's syncs say nothing.
        if !elsewhere.is_empty() {
            self.beside(elsewhere);
        }
    }

    /// A container whose directory is gone, and of which something was set aside: that goes.
    fn remove_aside(
        &self,
        core: &mut Core<Segments, Tree>,
        pending: &Pending,
        answer: &mut Result<Published, NotCommitted>,
    ) {
        let paths = pending.records.iter().map(|record| record.path.as_str());
        let aside: Vec<&str> = paths.filter(|path| core.hidden().contains_key(*path)).collect();
        let marks: Vec<Record> = aside.iter().map(|path| core::mark(path)).collect();
        if aside.is_empty() || core.room_for(blocks_for(&marks)) != Ok(Room::Here) {
            return;
        }
        if core.forget(&aside).is_ok() {
            *answer = Ok(pending.records.iter().map(|_| Ok(())).collect());
        }
    }

    /// Sees to it that there is room for a group.
    fn room<'a>(
        &'a self,
        core: &'a Mutex<Core<Segments, Tree>>,
        blocks: usize,
    ) -> Result<MutexGuard<'a, Core<Segments, Tree>>, Refusal> {
        loop {
            let mut open = lock(core);
            let before = open.segment();
            let room = open.room_for(blocks);
            // The other segment is now to be spread, so that it is free when this one is full.
            if open.segment() != before {
                self.spreader.want();
            }
            match room? {
                Room::Here => return Ok(open),
                Room::AfterSpreading => {
                    drop(open);
                    self.spreader.wait().map_err(|errno| Refusal::Unchanged(errno.into()))?;
                    // The files cannot keep up: with a larger log, files that are saved again meanwhile
                    // are spread once.
                    let _ = self.grow(core, self.segment().saturating_mul(4));
                }
                Room::Never { max } => {
                    drop(open);
                    let bytes = (blocks * BLOCK) as u64;
                    // What a segment has beside one group.
                    let around = 4 * BLOCK as u64;
                    if bytes + around > self.size.max {
                        let max = (self.size.max - around).max((max * BLOCK) as u64);
                        return Err(Cause::TransactionTooLarge { bytes, max }.into());
                    }
                    self.grow(core, (bytes + around).next_power_of_two())
                        .map_err(|errno| Refusal::Unchanged(errno.into()))?;
                }
            }
        }
    }

    /// Goes on in a log with larger segments, once the files have all that this one holds.
    fn grow(&self, core: &Mutex<Core<Segments, Tree>>, wanted: u64) -> Result<(), Errno> {
        let segment = wanted.min(self.size.max) / BLOCK as u64 * BLOCK as u64;
        if segment <= self.segment() {
            return Ok(());
        }
        let mut open = loop {
            let open = lock(core);
            if open.is_spread() {
                break open;
            }
            drop(open);
            self.spreader.wait()?;
        };
        match make_log(&self.own, segment, self.size.proof) {
            Ok(log) => open.renew(log),
            Err(NotPlaced::Unchanged(errno)) => return Err(errno),
            Err(NotPlaced::Unknown(errno)) => {
                // What is appended to the one may not be found if the other is.
                open.close(errno);
                return Err(errno);
            }
        }
        *self.size.segment.lock().unwrap_or_else(PoisonError::into_inner) = segment;
        Ok(())
    }

    /// Makes saves, and the removals of a store without a log, without it; then the log forgets what it has
    /// of their paths.
    fn beside(&self, batch: Vec<Pending>) {
        let Some(core) = &self.core else {
            let mut answers = self.make(&batch);
            for (pending, answer) in batch.iter().zip(&mut answers) {
                if let (true, Err(errno)) = (answer.is_ok(), self.show_newer(pending)) {
                    let outcome = Outcome::ReplacedDurabilityUnknown;
                    *answer = Err(Error::new(self.shown(pending), Step::Log, outcome, errno));
                }
            }
            return self.answer_beside(batch, answers);
        };
        let paths = batch.iter().flat_map(|pending| &pending.records);
        let marks: Vec<Record> = paths.map(|record| core::mark(&record.path)).collect();
        let mut open = match self.room(core, blocks_for(&marks)) {
            Ok(open) => open,
            Err(cause) => return self.refuse_all(batch, cause),
        };
        let mut answers = self.make(&batch);
        // One whose fate is not known may lose against what the log has; that was acknowledged.
        let changed: Vec<&str> = batch
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_ok())
            .flat_map(|(pending, _)| pending.records.iter().map(|record| record.path.as_str()))
            .collect();
        if let Err(errno) = open.forget(&changed) {
            for (pending, answer) in batch.iter().zip(&mut answers) {
                if answer.is_ok() {
                    let outcome = Outcome::ReplacedDurabilityUnknown;
                    *answer = Err(Error::new(self.shown(pending), Step::Log, outcome, errno));
                }
            }
        }
        self.show_hidden(open.hidden());
        drop(open);
        self.answer_beside(batch, answers);
    }

    /// Without a log: what was set aside of these paths is older than what was saved now.
    fn show_newer(&self, pending: &Pending) -> Result<(), Errno> {
        for record in &pending.records {
            let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
            if hidden.contains_key(&record.path) {
                unplaced::take_back(self.own.as_fd(), &record.path)?;
                hidden.remove(&record.path);
            }
        }
        Ok(())
    }

    /// Makes changes of files, without the log, and answers for each.
    fn make(&self, batch: &[Pending]) -> Vec<Result<Made>> {
        if let [pending] = batch {
            let made = match pending.removes() {
                true => self.remove(pending),
                false => self.save(&pending.records[0], pending.way).map(Made::Saved),
            };
            return vec![made];
        }
        let Some(writer) = self.writer() else {
            // No thread can be made for it.
            let save = |pending: &Pending| self.save(&pending.records[0], pending.way);
            return batch.iter().map(|pending| save(pending).map(Made::Saved)).collect();
        };
        // Saves only; they share their syncs.
        let mut requests = Vec::new();
        let mut answers: Vec<Option<Result<Made>>> = Vec::new();
        for pending in batch {
            let record = &pending.records[0];
            match self.layout.open_or_make(container(&record.path)) {
                Ok(dir) => {
                    let target = Target::at(dir, super::layout::split(&record.path).1);
                    let options = Options::new().mode(record.mode).level(pending.way.level());
                    requests.push(Request::new(target, record.data.clone()).with(options));
                    answers.push(None);
                }
                Err(failure) => answers.push(Some(Err(self.layout.error(&record.path, failure)))),
            }
        }
        let synced = if self.is_volatile() { Ok(()) } else { self.layout.root.sync() };
        let saved = writer.replace_all_blocking(requests);
        let mut saved = saved.into_iter();
        let answer = |(pending, answer): (&Pending, Option<Result<Made>>)| {
            let path = &pending.records[0].path;
            answer.unwrap_or_else(|| match (saved.next(), synced) {
                (Some(Ok(_)), Err((step, errno))) => {
                    let outcome = Outcome::ReplacedDurabilityUnknown;
                    Err(Error::new(self.layout.shown(path), step, outcome, errno))
                }
                (Some(Ok(receipt)), Ok(())) => Ok(Made::Saved(receipt)),
                (Some(Err(error)), _) => Err(error.of(self.layout.shown(path))),
                (None, _) => {
                    let shown = self.layout.shown(path);
                    Err(Error::new(shown, Step::Accept, Outcome::Unknown, Cause::EngineLost))
                }
            })
        };
        batch.iter().zip(answers).map(answer).collect()
    }

    fn writer(&self) -> Option<&Writer> {
        self.writer.get_or_init(|| Writer::new().ok()).as_ref()
    }

    /// One save on this thread.
    fn save(&self, record: &Record, way: Way) -> Result<Receipt> {
        let layout = &self.layout;
        let dir = layout.open_or_make(container(&record.path));
        let dir = dir.map_err(|failure| layout.error(&record.path, failure))?;
        let job = layout.job(dir, &record.path, record.mode, way.level())?;
        if way.level() == Level::Durable && !self.is_volatile() {
            // Whoever made the directory, it may not be durable.
            layout.root.sync().map_err(|failure| layout.error(&record.path, failure))?;
        }
        crate::engine::calls::carry(job, &record.data)
    }

    /// Removes a container without the log.
    fn remove(&self, pending: &Pending) -> Result<Made> {
        let layout = &self.layout;
        let id = container(&pending.records[0].path);
        let located = layout.locate(&pending.records[0].path, false);
        let directory = located.map_err(|failure| layout.error(id, failure))?;
        let mut outcome = Outcome::Unchanged;
        for record in &pending.records {
            let record = Record { directory, ..record.clone() };
            let published = layout.publish(&record, Level::Durable);
            published.map_err(|errno| {
                Error::new(layout.shown(&record.path), Step::Rename, outcome, errno)
            })?;
            // From now on something is gone.
            outcome = Outcome::ReplacedDurabilityUnknown;
        }
        let is_gone = layout.remove_directory(id, &directory) == Ok(true);
        if !self.is_volatile() {
            let failed = |(step, errno)| Error::new(layout.shown(id), step, outcome, errno);
            layout.root.sync().map_err(failed)?;
        }
        Ok(Made::Removed { is_gone })
    }

    fn answer(
        &self,
        pending: &Pending,
        answer: Result<Published, NotCommitted>,
        newest: &HashMap<String, u64>,
        left: &[String],
    ) -> Result<Committed> {
        let published = match answer {
            Ok(published) => published,
            Err(NotCommitted::Before(index, step, errno)) => {
                let path = pending.records.get(index).map_or("", |record| match record.kind {
                    Kind::Remove => container(&record.path),
                    Kind::Replace | Kind::Forget => &record.path,
                });
                return Err(self.layout.error(path, (step, errno)));
            }
            Err(NotCommitted::Refused(refused)) => {
                return Err(self.refusal(pending, refused.into()));
            }
        };
        let hidden = pending.records.iter().zip(published);
        let hidden = hidden.filter_map(|(record, published)| {
            let path = self.layout.shown(&record.path);
            published.err().map(|errno| NotVisible { path, errno: errno.raw_os_error() })
        });
        let ids = pending.records.iter().filter(|record| record.kind == Kind::Remove);
        let mut left: Vec<PathBuf> = ids
            .map(|record| container(&record.path))
            .filter(|id| left.iter().any(|left| left == id))
            .map(|id| self.layout.shown(id))
            .collect();
        left.dedup();
        Ok(Committed {
            sequence: pending.sequence,
            durability: self.durability(),
            route: pending.way.route(),
            bytes: pending.bytes(),
            coalesced_into: pending.overtaken_by(newest),
            not_visible: hidden.collect(),
            left,
        })
    }

    fn answer_beside(&self, batch: Vec<Pending>, answers: Vec<Result<Made>>) {
        let is_made = batch.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
        let newest = newest_of(is_made.map(|(pending, _)| pending));
        for (pending, answer) in batch.into_iter().zip(answers) {
            let committed = |made| {
                let (durability, coalesced, left) = match made {
                    Made::Saved(receipt) => (receipt.durability, receipt.coalesced_into, vec![]),
                    Made::Removed { is_gone } => {
                        let left = if is_gone { vec![] } else { vec![self.shown(&pending)] };
                        (self.durability(), None, left)
                    }
                };
                Committed {
                    sequence: pending.sequence,
                    durability,
                    route: pending.way.route(),
                    bytes: pending.bytes(),
                    // The writer's numbers are not the store's.
                    coalesced_into: coalesced.and_then(|_| pending.overtaken_by(&newest)),
                    not_visible: Vec::new(),
                    left,
                }
            };
            let answer = answer.map(committed);
            pending.answer(answer);
        }
    }

    /// What a change is worth here.
    pub(crate) fn durability(&self) -> Durability {
        if self.is_volatile() { Durability::Volatile } else { Durability::Durable }
    }

    fn refuse_all(&self, batch: Vec<Pending>, refusal: Refusal) {
        for pending in batch {
            let error = self.refusal(&pending, refusal.again());
            pending.answer(Err(error));
        }
    }

    fn refusal(&self, pending: &Pending, refusal: Refusal) -> Error {
        let (outcome, cause) = match refusal {
            Refusal::Unchanged(cause) => (Outcome::Unchanged, cause),
            Refusal::Unknown(cause) => (Outcome::Unknown, cause),
        };
        Error::new(self.shown(pending), Step::Log, outcome, cause)
    }

    /// What a transaction is known by: its file, its container, or the root.
    fn shown(&self, pending: &Pending) -> PathBuf {
        let mut ids = pending.records.iter().map(|record| container(&record.path));
        let first = ids.next();
        match (&pending.records[..], first) {
            ([record], _) => self.layout.shown(&record.path),
            (_, Some(id)) if ids.all(|other| other == id) => self.layout.shown(id),
            _ => self.layout.root.path().to_owned(),
        }
    }

    fn show_hidden(&self, hidden: &BTreeMap<String, Hidden>) {
        let mut shown = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        if !(shown.is_empty() && hidden.is_empty()) {
            shown.clone_from(hidden);
        }
    }

    /// The thread that lets the files follow the log.
    pub(crate) fn follow(&self) {
        // Whatever happens here: nobody is to wait for ever, and the root is free.
        let last = catch_unwind(AssertUnwindSafe(|| self.follow_to_the_end()));
        let last = last.unwrap_or(Err(Errno::CANCELED));
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.pool.close();
        self.spreader.finish(last);
    }

    fn follow_to_the_end(&self) -> Result<(), Errno> {
        while self.spreader.next() == Todo::Spread {
            self.spread_once();
        }
        if let Some(lock) = &*self.lock.lock().unwrap_or_else(PoisonError::into_inner) {
            lock.is_to_end();
        }
        // What was accepted is made, and may have to wait for a spread.
        while !(self.queue.is_idle() && self.limits.is_drained()) {
            if self.spreader.is_still_wanted() {
                self.spread_once();
            }
        }
        loop {
            let last = self.spread();
            if last.is_err() || self.core.as_ref().is_none_or(|core| lock(core).is_spread()) {
                return last;
            }
        }
    }

    fn spread_once(&self) {
        let spread = self.spread();
        // What came while it was under way, or what failed, is to be spread some time too.
        let again = self.core.as_ref().is_some_and(|core| {
            let core = lock(core);
            !core.is_spread() && !core.is_closed()
        });
        self.spreader.end(spread, again);
    }

    /// Brings it about that the files have durably what the log has now, and says so in the log. Saves go
    /// on meanwhile.
    fn spread(&self) -> Result<(), Errno> {
        let Some(core) = &self.core else { return Ok(()) };
        let mut open = lock(core);
        let begun = open.begin_spread();
        self.show_hidden(open.hidden());
        let Some(spreading) = begun? else { return open.note_spread() };
        let written = open.written_by(&spreading);
        drop(open);
        let written: Vec<(&str, u64)> =
            written.iter().map(|(path, len)| (path.as_str(), *len)).collect();
        let synced = self.barrier.sync(&written);
        let mut open = lock(core);
        let ended = open.end_spread(spreading, synced).and_then(|()| open.note_spread());
        self.show_hidden(open.hidden());
        ended
    }
}

/// Makes a log, in the place of the one that may be there.
pub(crate) fn make_log(
    own: &OwnedFd,
    segment: u64,
    proof: Proof,
) -> Result<Log<Segments>, NotPlaced> {
    let random = RandomState::new();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random.hash_one(std::process::id()).to_le_bytes());
    id[8..].copy_from_slice(&random.hash_one(std::time::SystemTime::now()).to_le_bytes());
    let segments = log_files::make_new(own.as_fd(), segment, id, proof);
    let log = Log::begin(segments.map_err(NotPlaced::Unchanged)?, &Scan::of_new(id, segment));
    let log = log.map_err(NotPlaced::Unchanged)?;
    log_files::put_in_place(own.as_fd())?;
    Ok(log)
}

fn lock(core: &Mutex<Core<Segments, Tree>>) -> MutexGuard<'_, Core<Segments, Tree>> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was made beside the log.
enum Made {
    Saved(Receipt),
    Removed {
        /// The container's directory.
        is_gone: bool,
    },
}

/// Why the log did not take something, and what that means.
#[derive(Debug)]
enum Refusal {
    Unchanged(Cause),
    Unknown(Cause),
}

impl Refusal {
    /// The same for another transaction.
    fn again(&self) -> Refusal {
        match self {
            Refusal::Unchanged(cause) => Refusal::Unchanged(cause.again()),
            Refusal::Unknown(cause) => Refusal::Unknown(cause.again()),
        }
    }
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Refusal {
        Refusal::Unchanged(cause)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        match refused {
            Refused::Unchanged(errno) => Refusal::Unchanged(errno.into()),
            Refused::Unknown(errno) => Refusal::Unknown(errno.into()),
            Refused::Closed(errno) => Refusal::Unchanged(Cause::Refused(errno.into())),
        }
    }
}

impl Way {
    fn level(self) -> Level {
        match self {
            Way::Log | Way::Beside => Level::Durable,
            Way::Atomic => Level::Atomic,
        }
    }
}

/// The number of the last of each path.
fn newest_of<'a>(batch: impl Iterator<Item = &'a Pending>) -> HashMap<String, u64> {
    let mut newest = HashMap::new();
    for pending in batch {
        for record in &pending.records {
            newest.insert(record.path.clone(), pending.sequence);
        }
    }
    newest
}

impl Pending {
    /// The number of the newer version that was made in place of this one, if it is a single one.
    fn overtaken_by(&self, newest: &HashMap<String, u64>) -> Option<u64> {
        let [record] = &self.records[..] else { return None };
        newest.get(&record.path).copied().filter(|sequence| *sequence != self.sequence)
    }

    fn removes(&self) -> bool {
        self.records.first().is_some_and(|record| record.kind == Kind::Remove)
    }

    fn removes_beside(&self) -> bool {
        self.way != Way::Log && self.removes()
    }

    fn is_save(&self) -> bool {
        matches!(&self.records[..], [record] if record.kind == Kind::Replace)
    }

    fn bytes(&self) -> u64 {
        self.records.iter().map(|record| record.data.len() as u64).sum()
    }
}
