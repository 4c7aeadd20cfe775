//! What goes beside the log: saves that are durable by themselves, pid files, and everything where there is no
//! log. Then the log forgets what it has of their paths.

use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use rustix::io::Errno;

use super::committer::{Committer, newest_of};
use super::core::{self, Failure, Visible, container};
use super::layout::{identity, split};
use super::log::format::{DirectoryId, Record, blocks_for};
use super::queue::{Pending, Way};
use super::stats::How;
use super::{Committed, unplaced};
use crate::engine::calls;
use crate::error::{Cause, Error, Result};
use crate::plan::{Outcome, Step};
use crate::receipt::{Carrier, Durability, Receipt};
use crate::request::{Level, Options, Request, Target};
use crate::writer::Writer;

/// What was made beside the log.
enum Made {
    Saved(Receipt),
    Removed {
        /// The container's directory.
        is_gone: bool,
    },
}

impl Committer {
    /// Makes saves, and the removals of a store without a log, without it; then the log forgets what it has
    /// of their paths.
    pub(super) fn beside(&self, batch: Vec<Pending>) {
        let Some(access) = &self.access else {
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
        let mut open = match self.room(access, blocks_for(&marks), Visible::Now) {
            Ok(open) => open,
            Err(cause) => return self.refuse_all(batch, cause),
        };
        let mut answers = self.make(&batch);
        // One whose fate is not known may lose against what the log has; that was acknowledged.
        let changed: Vec<&str> = batch
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_ok())
            .flat_map(|(pending, _)| pending.records.iter().map(|record| &*record.path))
            .collect();
        if let Err(errno) = open.forget(&changed) {
            for (pending, answer) in batch.iter().zip(&mut answers) {
                if answer.is_ok() {
                    let outcome = Outcome::ReplacedDurabilityUnknown;
                    *answer = Err(Error::new(self.shown(pending), Step::Log, outcome, errno));
                }
            }
        }
        self.show_hidden(&open);
        drop(open);
        self.answer_beside(batch, answers);
    }

    /// In memory: makes a save, [`Way::Atomic`], on this thread, while others make theirs of other files. Gives it back if it has to
    /// wait for its turn.
    pub(super) fn save_at_once(&self, mut pending: Pending) -> Result<(), Pending> {
        let Some(access) = self.access.as_ref().filter(|_| self.is_volatile()) else {
            return Err(pending);
        };
        let Some(right) = self.queue.begin_at_once(&mut pending) else { return Err(pending) };
        // Nobody appends to the log meanwhile, nor is there anything that a spread would publish.
        let open = access.log();
        if open.is_closed() || !open.hidden().is_empty() || open.holds(&pending.records[0].path) {
            return Err(pending);
        }
        drop(open);
        // A panic of somebody's waker is not this caller's; what it drops is lost.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let saved = self.save(&pending.records[0], pending.way).map(Made::Saved);
            // Who is woken may want to save here, too.
            drop(right);
            self.answer_beside(vec![pending], vec![saved]);
        }));
        Ok(())
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

    fn is_hidden(&self, pending: &Pending) -> bool {
        let hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        pending.records.iter().any(|record| hidden.contains_key(&record.path))
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
        // In memory there is no sync that they could share; elsewhere perhaps no thread can be made.
        let writer = if self.is_volatile() { None } else { self.writer() };
        let Some(writer) = writer else {
            let save = |pending: &Pending| self.save(&pending.records[0], pending.way);
            return batch.iter().map(|pending| save(pending).map(Made::Saved)).collect();
        };
        // Saves only; they share their syncs.
        let mut requests = Vec::new();
        let mut answers: Vec<Option<Result<Made>>> = Vec::new();
        let mut located = Vec::new();
        for pending in batch {
            let record = &pending.records[0];
            let id = container(&record.path);
            match self.layout.open_or_make(id) {
                Ok(dir) => {
                    located.push((id, identity(dir.as_fd()).unwrap_or_default()));
                    let target = Target::at(dir, split(&record.path).1);
                    let options = Options::new().mode(record.mode).level(pending.way.level());
                    requests.push(Request::new(target, record.data.clone()).with(options));
                    answers.push(None);
                }
                Err(failure) => answers.push(Some(Err(self.layout.error(&record.path, failure)))),
            }
        }
        let synced = self.make_durable(&located);
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
        let lacks_descriptors = |error: &Error| {
            matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
                && error.outcome() == Outcome::Unchanged
        };
        self.slots.give_way_where(lacks_descriptors, || self.save_once(record, way))
    }

    fn save_once(&self, record: &Record, way: Way) -> Result<Receipt> {
        let layout = &self.layout;
        if self.is_volatile() && self.slots.replace(layout, record) {
            let (durability, carrier) = (Durability::Volatile, Carrier::Caller);
            let (bytes, sequence) = (record.data.len() as u64, 0);
            return Ok(Receipt { durability, carrier, bytes, sequence, coalesced_into: None });
        }
        let dir = layout.open_or_make(container(&record.path));
        let dir = dir.map_err(|failure| layout.error(&record.path, failure))?;
        let located = (container(&record.path), identity(dir.as_fd()).unwrap_or_default());
        let job = layout.job(Arc::new(dir), &record.path, record.mode, way.level())?;
        if way.level() == Level::Durable {
            let durable = self.make_durable(&[located]);
            durable.map_err(|failure| layout.error(&record.path, failure))?;
        }
        let saved = calls::carry(job, &record.data);
        if self.is_volatile() && saved.is_ok() {
            let _ = self.stats.published(Ok(How::NewFile));
        }
        saved
    }

    /// Whoever made these directories, they are on the disk under their names from now on.
    fn make_durable(&self, located: &[(&str, DirectoryId)]) -> Result<(), Failure> {
        if self.is_volatile() {
            return Ok(());
        }
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |(id, directory): &(&str, DirectoryId)| {
            // One that cannot be told from others never is.
            *directory != DirectoryId::default()
                && durable.get(*id).is_some_and(|known| known.is(directory))
        };
        if located.iter().all(is_known) {
            return Ok(());
        }
        self.layout.root.sync()?;
        durable.extend(located.iter().map(|(id, directory)| (Box::from(*id), *directory)));
        Ok(())
    }

    /// Removes a container without the log.
    fn remove(&self, pending: &Pending) -> Result<Made> {
        let layout = &self.layout;
        let id = container(&pending.records[0].path);
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let directory = match layout.locate(&pending.records[0].path, false) {
            // What was set aside of it goes.
            Err((Step::OpenDirectory, Errno::NOENT)) if self.is_hidden(pending) => {
                return Ok(Made::Removed { is_gone: true });
            }
            located => located.map_err(|failure| layout.error(id, failure))?,
        };
        let mut outcome = Outcome::Unchanged;
        for record in &pending.records {
            let record = Record { directory, ..record.clone() };
            self.slots.give_up(&record.path);
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

    fn answer_beside(&self, batch: Vec<Pending>, answers: Vec<Result<Made>>) {
        let is_made = batch.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
        let newest = newest_of(is_made.clone().map(|(pending, _)| pending));
        self.stats.direct(is_made.count());
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
}

impl Way {
    fn level(self) -> Level {
        match self {
            Way::Log | Way::Beside => Level::Durable,
            Way::Atomic => Level::Atomic,
        }
    }
}
