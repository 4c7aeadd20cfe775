//! The plan: which steps a save takes, in which order, what each answer means, and what must be
//! cleaned up. Pure code, without I/O; engines only carry it out.
//!
//! ```text
//!                 next()                        record(step, answer)
//!   Progress ───────────────▶ engine: the call ───────────────────────▶ Progress
//!                                                  until next() is None, then leftovers()
//! ```
//!
//! A step runs only if every step before it succeeded. The one engine that may run ahead, the
//! ring, asks [`chain`] which steps it may link; the rule for that lives there, beside its proof.

pub(crate) mod barrier;
pub(crate) mod chain;
mod step;

#[cfg(test)]
mod power;
#[cfg(test)]
mod tests;

pub use step::{Outcome, Step};

use rustix::io::Errno;

use crate::left_out::{Rule, left_out};

/// What decides which steps a save takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Sync file and directory, and prove the filesystem alive, before the answer.
    pub durable: bool,
    /// Owner, special bits or an access list must be set on the open file.
    pub attributes: bool,
    /// The old version is to stand under another name.
    pub keep_previous: bool,
    /// One write with `RWF_DSYNC` can stand for write and sync.
    pub write_syncs: bool,
}

/// Every step that an engine carries out, in order.
const ORDER: [Step; 10] = [
    Step::Open,
    Step::SetAttributes,
    Step::Write,
    Step::Sync,
    Step::LinkPrevious,
    Step::RenamePrevious,
    Step::SyncPrevious,
    Step::Rename,
    Step::SyncDirectory,
    Step::Verify,
];

/// [`ORDER`], but for [`Rule::RenameBeforeSync`].
const RENAME_BEFORE_SYNC: [Step; 10] = [
    Step::Open,
    Step::SetAttributes,
    Step::Write,
    Step::LinkPrevious,
    Step::RenamePrevious,
    Step::SyncPrevious,
    Step::Rename,
    Step::Sync,
    Step::SyncDirectory,
    Step::Verify,
];

fn order() -> &'static [Step; 10] {
    if left_out(Rule::RenameBeforeSync) { &RENAME_BEFORE_SYNC } else { &ORDER }
}

impl Shape {
    fn includes(self, step: Step) -> bool {
        match step {
            Step::Open | Step::Write | Step::Rename => true,
            Step::SetAttributes => self.attributes,
            Step::Sync if left_out(Rule::FileSync) => false,
            Step::SyncPrevious if left_out(Rule::PreviousSync) => false,
            Step::SyncDirectory if left_out(Rule::DirectorySync) => false,
            Step::Verify if left_out(Rule::Liveness) => false,
            Step::SyncDirectory | Step::Verify if left_out(Rule::AnswerBeforeBarrier) => false,
            Step::Sync | Step::SyncDirectory | Step::Verify => self.durable,
            Step::LinkPrevious | Step::RenamePrevious => self.keep_previous,
            // The rename must not reach the disk before the old version's second name does.
            Step::SyncPrevious => self.keep_previous && self.durable,
            Step::Accept | Step::MakeDirectory | Step::OpenDirectory | Step::Check | Step::Log => {
                false
            }
        }
    }
}

/// What the filesystem said when it was asked whether it is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// It took a new inode, or refused one for want of room only.
    Alive,
    /// It is shut down, aborted or read-only: what the syncs said is void.
    Dead,
    /// This directory cannot tell: ask another of the same filesystem.
    Unprovable,
}

impl Liveness {
    /// Reads the answer of `openat(directory, ".", O_TMPFILE)`.
    pub(crate) fn of(answer: Result<(), Errno>) -> Liveness {
        match answer {
            Ok(()) | Err(Errno::NOSPC | Errno::DQUOT) => Liveness::Alive,
            Err(Errno::ROFS | Errno::IO | Errno::SHUTDOWN | Errno::UCLEAN) => Liveness::Dead,
            Err(_) => Liveness::Unprovable,
        }
    }
}

/// Errors by which rename(2) says that it did nothing. Others (EIO, or a network's ESTALE and
/// ETIMEDOUT) can come after the fact.
fn refuses_rename(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ACCESS
            | Errno::BUSY
            | Errno::DQUOT
            | Errno::EXIST
            | Errno::INVAL
            | Errno::ISDIR
            | Errno::NAMETOOLONG
            | Errno::NOENT
            | Errno::NOMEM
            | Errno::NOSPC
            | Errno::NOSYS
            | Errno::NOTDIR
            | Errno::NOTEMPTY
            | Errno::PERM
            | Errno::ROFS
            | Errno::XDEV
    )
}

/// What a crash or a failure would leave in the directory at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Leftovers {
    /// The temporary file.
    pub temp: bool,
    /// The hard link that was to become the previous version. `rename` of two links to one file
    /// does nothing and succeeds, so it can be left even when every step went well.
    pub link: bool,
}

/// How far a save has come, and what that means.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    shape: Shape,
    /// Index into [`order`] of the step to run; past its end when all is done.
    at: usize,
    failed: Option<Step>,
    errno: Option<Errno>,
    lost: bool,
    /// The rename failed in a way that does not say whether it happened.
    doubtful: bool,
    renamed: bool,
    leftovers: Leftovers,
    unprovable: bool,
    /// The file's sync was tried again: never, but for [`Rule::RetryFsync`].
    retried: bool,
}

impl Progress {
    pub(crate) fn new(shape: Shape) -> Progress {
        let mut progress = Progress {
            shape,
            at: 0,
            failed: None,
            errno: None,
            lost: false,
            doubtful: false,
            renamed: false,
            leftovers: Leftovers::default(),
            unprovable: false,
            retried: false,
        };
        progress.settle();
        progress
    }

    /// Skips the steps that this shape does not have.
    fn settle(&mut self) {
        while order().get(self.at).is_some_and(|step| !self.shape.includes(*step)) {
            self.at += 1;
        }
    }

    /// The step to run, or `None` when the save has ended, well or not.
    pub(crate) fn next(&self) -> Option<Step> {
        if self.failed.is_some() {
            return None;
        }
        order().get(self.at).copied()
    }

    /// The steps still to run if all goes well.
    pub(crate) fn remaining(&self) -> impl Iterator<Item = Step> + use<> {
        let (shape, from) = (self.shape, self.at);
        let ended = self.failed.is_some();
        order().iter().copied().skip(from).filter(move |step| !ended && shape.includes(*step))
    }

    /// Takes the answer of the step that [`next`](Progress::next) named.
    pub(crate) fn record(&mut self, step: Step, answer: Result<(), Errno>) {
        debug_assert_eq!(self.next(), Some(step));
        match (step, answer) {
            // Nothing stands at the target, so there is nothing to keep.
            (Step::LinkPrevious, Err(Errno::NOENT)) => {
                self.advance_to(Step::Rename);
                return;
            }
            (Step::Sync, Err(Errno::IO)) if left_out(Rule::RetryFsync) && !self.retried => {
                self.retried = true;
                return;
            }
            (Step::Verify, answer) => match Liveness::of(answer) {
                Liveness::Alive => {}
                Liveness::Unprovable => self.unprovable = true,
                Liveness::Dead => self.failed = Some(step),
            },
            (_, Err(errno)) => {
                self.failed = Some(step);
                self.doubtful = step == Step::Rename && !refuses_rename(errno);
                // The file can have been made before its opening failed. The name is ours alone,
                // unless it was taken.
                self.leftovers.temp |= step == Step::Open && errno != Errno::EXIST;
            }
            (Step::Open, Ok(())) => self.leftovers.temp = true,
            (Step::LinkPrevious, Ok(())) => self.leftovers.link = true,
            (Step::Rename, Ok(())) => {
                self.renamed = true;
                self.leftovers.temp = false;
            }
            (_, Ok(())) => {}
        }
        if self.failed.is_some() {
            self.errno = answer.err();
        } else {
            self.at += 1;
            self.settle();
        }
    }

    /// The temp was to be made, and may be there although that failed.
    pub(crate) fn may_have_opened(&mut self) {
        self.leftovers.temp = true;
    }

    fn advance_to(&mut self, step: Step) {
        while self.next().is_some_and(|next| next != step) {
            self.at += 1;
        }
    }

    /// The engine died before it could say how the steps from here on went.
    pub(crate) fn lose(&mut self) {
        self.lost = true;
        self.failed = self.failed.or(self.next());
        self.leftovers.temp = !self.renamed;
    }

    /// The temp was removed, as far as it can be. Was it under its name until then? Only that proves
    /// that a rename that failed doubtfully did not happen.
    pub(crate) fn temp_is_gone(&mut self, was_there: bool) {
        self.leftovers.temp = false;
        self.lost |= self.doubtful && !was_there;
    }

    /// The link was removed, or had been moved.
    pub(crate) fn link_is_gone(&mut self) {
        self.leftovers.link = false;
    }

    /// May write and sync be one operation?
    pub(crate) fn write_syncs(&self) -> bool {
        self.shape.write_syncs
    }

    /// The step that failed.
    pub(crate) fn failed(&self) -> Option<Step> {
        self.failed
    }

    /// What the failed step answered; `None` if the engine died.
    pub(crate) fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// What is true of the target now, given that a step failed.
    pub(crate) fn outcome(&self) -> Outcome {
        if self.renamed {
            Outcome::ReplacedDurabilityUnknown
        } else if self.lost {
            Outcome::Unknown
        } else {
            Outcome::Unchanged
        }
    }

    /// What has to be removed, whether the save went well or not.
    pub(crate) fn leftovers(&self) -> Leftovers {
        self.leftovers
    }

    /// The save went well, but no directory could prove the filesystem alive.
    pub(crate) fn is_unprovable(&self) -> bool {
        self.unprovable
    }
}
