//! What an open store shares, and its transactions by the log: room for them, their group, their answers.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::io::Errno;

use super::access::{Access, Entered};
use super::behind::Behind;
use super::core::{
    self, Answer, Core, Hidden, NotCommitted, Published, Refused, Room, Visible, container,
};
use super::files::{Barrier, Following, Tree};
use super::grow::Growing;
use super::layout::Layout;
use super::lock::Lock;
use super::log::files::{Proof, Segments};
use super::log::format::{BLOCK, DirectoryId, Kind, Record, blocks_for};
use super::queue::{Pending, Queue, Way};
use super::slots::Slots;
use super::spreader::Spreader;
use super::stats::Counters;
use super::trace;
use super::{Committed, NotVisible};
use crate::engine::pool::Pool;
use crate::engine::task::limits::Limits;
use crate::error::{Cause, Error, Result};
use crate::plan::{Outcome, Step};
use crate::receipt::Durability;
use crate::writer::Writer;

/// An open store: what its handles and its thread share.
#[derive(Debug)]
pub(crate) struct Committer {
    pub layout: Arc<Layout>,
    pub own: Arc<OwnedFd>,
    pub barrier: Barrier,
    pub slots: Arc<Slots>,
    /// `None`: there is no log here.
    pub access: Option<Access>,
    pub size: Size,
    pub pool: Arc<Pool>,
    /// For saves beside the log that come together. With threads of its own: one of `pool` waits for it.
    pub writer: OnceLock<Option<Writer>>,
    pub limits: Arc<Limits>,
    pub queue: Queue,
    pub spreader: Spreader,
    pub stats: Arc<Counters>,
    pub following: Following,
    /// Where saves are answered before they are visible.
    pub behind: Option<Behind>,
    /// Can the filesystem prove that it is alive? Where it cannot, answers say so.
    pub provable: bool,
    /// What is durable and not visible, for whoever reads.
    pub hidden: Mutex<BTreeMap<Arc<str>, Hidden>>,
    /// Directories below the root that are durable, of those that were saved to beside the log.
    pub durable: Mutex<HashMap<Box<str>, DirectoryId>>,
    /// Until the store is closed.
    pub lock: Mutex<Option<Lock>>,
}

/// Files that a spread makes durable, but for those of one large group: the more there are, the longer others on
/// this filesystem wait.
const UNSPREAD_MAX: usize = 2048;

/// How large the log's segments are, and may become.
#[derive(Debug)]
pub(crate) struct Size {
    pub segment: Mutex<u64>,
    pub max: u64,
    pub proof: Proof,
    pub growing: Growing,
}

impl Committer {
    /// Are the files in memory?
    pub(crate) fn is_volatile(&self) -> bool {
        self.following == Following::Nothing
    }

    pub(super) fn segment(&self) -> u64 {
        *self.size.segment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is a save of so many bytes better made beside the log?
    pub(crate) fn is_large(&self, record: &Record) -> bool {
        blocks_for([record]) as u64 * BLOCK as u64 > self.segment() / 4
    }

    /// Commits a group. Gives back those whose directory is another mount's, of which the log's syncs say
    /// nothing.
    pub(super) fn commit(&self, batch: Vec<Pending>) -> Vec<Pending> {
        let Some(access) = &self.access else {
            self.refuse_all(batch, Cause::NoLog.into());
            return Vec::new();
        };
        let records = || batch.iter().flat_map(|pending| &pending.records);
        let blocks = blocks_for(records());
        let removes = records().any(|record| record.kind == Kind::Remove);
        let visible = match &self.behind {
            Some(behind) if !removes && behind.takes(records().count()) => Visible::Later,
            _ => Visible::Now,
        };
        let mut open = match self.room(access, blocks, visible) {
            Ok(open) => open,
            Err(cause) => {
                self.refuse_all(batch, cause);
                return Vec::new();
            }
        };
        let _span = trace::group(batch.len(), blocks);
        // What was left before is nobody's here.
        open.files().take_left();
        let mut group = open.commit(self.located(&batch), visible);
        let left = open.files().take_left();
        if self.following == Following::Shared {
            self.spreader.note();
            if open.unspread() > UNSPREAD_MAX {
                self.spreader.want();
            }
        } else {
            // What is visible is all that it can be.
            let _ = open.spread().and_then(|()| open.note_spread());
        }
        if removes {
            self.remove_aside(&mut open, &batch, &mut group);
        }
        self.show_hidden(&open);
        let is_visible = |record: &Record| {
            let hidden = open.hidden().get(&record.path).filter(|_| visible == Visible::Now);
            hidden.map_or(Ok(()), |hidden| Err(hidden.errno))
        };
        let published = |(pending, answer): (&Pending, Answer)| {
            answer.map(|()| pending.records.iter().map(is_visible).collect())
        };
        let answers: Vec<_> = batch.iter().zip(group).map(published).collect();
        drop(open);

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
        elsewhere
    }

    /// The records of each, and where they go, as far as that is known.
    fn located(&self, batch: &[Pending]) -> Vec<Vec<Record>> {
        let removed = self.layout.removed();
        let records = |pending: &Pending| {
            let mut records = pending.records.clone();
            if pending.located != removed {
                // Anew: theirs may have been among those that were removed.
                records.iter_mut().for_each(|record| record.directory = DirectoryId::default());
            }
            records
        };
        batch.iter().map(records).collect()
    }

    /// Containers whose directory is gone, and of which something was set aside or is not visible yet: that goes.
    fn remove_aside(&self, open: &mut Entered<'_>, batch: &[Pending], group: &mut [Answer]) {
        for (pending, answer) in batch.iter().zip(group) {
            let is_gone =
                matches!(answer, Err(NotCommitted::Before(_, Step::OpenDirectory, Errno::NOENT)));
            // But not what another transaction of the group has saved there meanwhile.
            let is_alone = || {
                pending.removed().is_some_and(|id| {
                    let names = |other: &&Pending| {
                        other.records.iter().any(|record| container(&record.path) == id)
                    };
                    batch.iter().filter(names).count() == 1
                })
            };
            if !is_gone || !is_alone() {
                continue;
            }
            let paths = pending.records.iter().map(|record| &*record.path);
            let is_aside = |path: &&str| {
                open.hidden().contains_key(*path) || open.unpublished().get(path).is_some()
            };
            let aside: Vec<&str> = paths.filter(is_aside).collect();
            let marks: Vec<Record> = aside.iter().map(|path| core::mark(path)).collect();
            let mut has_room = || open.room_for(blocks_for(&marks)) == Ok(Room::Here);
            if !aside.is_empty() && has_room() && open.forget(&aside).is_ok() {
                *answer = Ok(());
            }
        }
    }

    /// Sees to it that there is room for a group.
    pub(super) fn room<'a>(
        &'a self,
        access: &'a Access,
        blocks: usize,
        visible: Visible,
    ) -> Result<Entered<'a>, Refusal> {
        loop {
            let mut open = match visible {
                Visible::Now => access.both(),
                Visible::Later => self.behind_little(access),
            };
            let before = open.segment();
            let room = open.room_for(blocks);
            // The other segment is now to be spread, so that it is free when this one is full.
            if open.segment() != before {
                match self.following {
                    Following::Shared => self.spreader.turned(),
                    Following::Each | Following::Nothing => self.spreader.want(),
                }
            }
            match room? {
                Room::Here => return Ok(open),
                Room::AfterSpreading => {
                    drop(open);
                    self.spreader.fell_behind();
                    self.spreader.wait().map_err(|errno| Refusal::Unchanged(errno.into()))?;
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
                    self.grow((bytes + around).next_power_of_two())
                        .map_err(|errno| Refusal::Unchanged(errno.into()))?;
                }
            }
        }
    }

    fn answer(
        &self,
        pending: &Pending,
        answer: Result<Published, NotCommitted>,
        newest: &HashMap<Arc<str>, u64>,
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
            published.err().map(|errno| NotVisible::new(&self.layout, &record.path, errno))
        });
        let ids = pending.records.iter().filter(|record| record.kind == Kind::Remove);
        let mut left: Vec<PathBuf> = ids
            .map(|record| container(&record.path))
            .filter(|id| left.iter().any(|left| left == id))
            .map(|id| self.layout.shown(id))
            .collect();
        left.sort_unstable();
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

    /// What a change is worth here.
    pub(crate) fn durability(&self) -> Durability {
        match (self.is_volatile(), self.provable) {
            (true, _) => Durability::Volatile,
            (false, true) => Durability::Durable,
            (false, false) => Durability::DurableUnproven,
        }
    }

    pub(super) fn refuse_all(&self, batch: Vec<Pending>, refusal: Refusal) {
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
    pub(super) fn shown(&self, pending: &Pending) -> PathBuf {
        let mut ids = pending.records.iter().map(|record| container(&record.path));
        let first = ids.next();
        match (&pending.records[..], first) {
            ([record], _) => self.layout.shown(&record.path),
            (_, Some(id)) if ids.all(|other| other == id) => self.layout.shown(id),
            _ => self.layout.root.path().to_owned(),
        }
    }

    /// Whoever loads knows what is hidden.
    pub(super) fn show_hidden(&self, core: &Core<Segments, Tree>) {
        let mut shown = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        if !(shown.is_empty() && core.hidden().is_empty()) {
            trace::not_visible(&self.layout, &shown, core.hidden());
            shown.clone_from(core.hidden());
        }
        // Whoever loads looks at both while he has this lock.
        core.unpublished().forget_hidden();
        drop(shown);
        self.stats.note(core);
    }
}

/// Why the log did not take something, and what that means.
#[derive(Debug)]
pub(super) enum Refusal {
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

/// The number of the last of each path.
pub(super) fn newest_of<'a>(
    batch: impl Iterator<Item = &'a Pending> + Clone,
) -> HashMap<Arc<str>, u64> {
    let mut newest = HashMap::new();
    if batch.clone().nth(1).is_none() {
        // One alone is overtaken by nobody.
        return newest;
    }
    for pending in batch {
        for record in &pending.records {
            newest.insert(Arc::clone(&record.path), pending.sequence);
        }
    }
    newest
}

/// The container that these remove, if that is all they do.
pub(super) fn removed(records: &[Record]) -> Option<&str> {
    let id = container(&records.first()?.path);
    let removes = |record: &Record| record.kind == Kind::Remove && container(&record.path) == id;
    records.iter().all(removes).then_some(id)
}

impl Pending {
    /// The number of the newer version that was made in place of this one, if it is a single one.
    pub(super) fn overtaken_by(&self, newest: &HashMap<Arc<str>, u64>) -> Option<u64> {
        let [record] = &self.records[..] else { return None };
        newest.get(&record.path).copied().filter(|sequence| *sequence != self.sequence)
    }

    /// The one container that it removes, if that is all that it does.
    pub(super) fn removed(&self) -> Option<&str> {
        removed(&self.records)
    }

    pub(super) fn removes(&self) -> bool {
        self.records.first().is_some_and(|record| record.kind == Kind::Remove)
    }

    pub(super) fn removes_beside(&self) -> bool {
        self.way != Way::Log && self.removes()
    }

    fn is_save(&self) -> bool {
        matches!(&self.records[..], [record] if record.kind == Kind::Replace)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().map(|record| record.data.len() as u64).sum()
    }
}
