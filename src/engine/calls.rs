//! The plan by plain system calls, on the calling thread: what the plain functions are, what the
//! pool's threads do, and what finishes a save that the ring cannot.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::error::Result;
use crate::filesystem;
use crate::inode::{self, Look};
use crate::job::Job;
use crate::liveness;
use crate::plan::{Progress, Step};
use crate::receipt::{Carrier, Receipt};
use crate::temp;

/// Carries a job out on the calling thread, from beginning to end.
pub(crate) fn carry(job: Job, payload: &[u8]) -> Result<Receipt> {
    let mut calls = Calls::new(job);
    calls.run(payload);
    calls.finish(Carrier::Caller, payload.len())
}

/// How often a temporary name that is taken is replaced by another.
const NAMES_MAX: usize = 16;

/// A job that is being carried out by plain calls.
#[derive(Debug)]
pub(crate) struct Calls {
    job: Job,
    progress: Progress,
    file: Option<OwnedFd>,
}

impl Calls {
    pub(crate) fn new(job: Job) -> Calls {
        let progress = Progress::new(job.shape());
        Calls { job, progress, file: None }
    }

    /// Goes on with a save whose file is written, from the step that `progress` names.
    pub(crate) fn resume(job: Job, progress: Progress) -> Calls {
        Calls { job, progress, file: None }
    }

    /// Runs every step that is left.
    pub(crate) fn run(&mut self, payload: &[u8]) {
        self.run_while(payload, |_| true);
    }

    /// Runs steps up to the first that is not to be run here.
    pub(crate) fn run_while(&mut self, payload: &[u8], here: impl Fn(Step) -> bool) {
        while let Some(step) = self.next().filter(|step| here(*step)) {
            let answer = self.call(step, payload);
            self.progress.record(step, answer);
        }
    }

    /// The step to run, or `None` when the save has ended, well or not.
    pub(crate) fn next(&self) -> Option<Step> {
        self.progress.next()
    }

    /// Notes what a step answered that somebody else carried out.
    pub(crate) fn record(&mut self, step: Step, answer: Result<(), Errno>) {
        self.progress.record(step, answer);
    }

    fn call(&mut self, step: Step, payload: &[u8]) -> Result<(), Errno> {
        let Calls { job, file, .. } = self;
        let dir = job.place.dir.as_fd();
        match step {
            Step::Open => {
                *file = Some(create(job)?);
                Ok(())
            }
            Step::SetAttributes => {
                job.settled.attributes.set(opened(file)?.as_fd(), job.settled.mode)
            }
            Step::Write => write_all(opened(file)?, payload),
            Step::Sync => {
                let file = opened(file)?;
                rustix::fs::fsync(file)?;
                has_blocks(dir, inode::of(file)?)
            }
            Step::LinkPrevious => {
                rustix::fs::linkat(dir, &job.place.name, dir, &job.link, AtFlags::empty())
            }
            Step::RenamePrevious => {
                let previous = job.settled.previous.as_ref().ok_or(Errno::INVAL)?;
                rustix::fs::renameat(dir, &job.link, dir, previous)
            }
            Step::SyncPrevious | Step::SyncDirectory => rustix::fs::fsync(dir),
            Step::Rename => {
                let flags = job.rename_flags();
                rustix::fs::renameat_with(dir, &job.temp, dir, &job.place.name, flags)
            }
            Step::Verify => {
                // The probe needs a descriptor, and this one has done its duty.
                *file = None;
                liveness::probe(dir)
            }
            Step::Accept | Step::MakeDirectory | Step::OpenDirectory | Step::Check => Ok(()),
        }
    }

    /// The temporary file, once it is open.
    pub(crate) fn file(&self) -> Option<&OwnedFd> {
        self.file.as_ref()
    }

    /// The directory that holds the target.
    pub(crate) fn dir(&self) -> &Arc<OwnedFd> {
        &self.job.place.dir
    }

    /// Has the temporary file room on the disk for all that was written? `EIO` if not.
    pub(crate) fn has_its_blocks(&self) -> Result<(), Errno> {
        let dir = &self.job.place.dir;
        has_blocks(dir.as_fd(), inode::at(dir, &self.job.temp)?)
    }

    /// Gives up the file's descriptor. What is left to do does not need it.
    pub(crate) fn close_file(&mut self) {
        self.file = None;
    }

    /// Begins anew, with a new file: nothing of the old one is left.
    pub(crate) fn restart(&mut self) {
        self.clean();
        self.job.temp = temp::unique();
        self.progress = Progress::new(self.job.shape());
    }

    /// Cleans up and answers.
    pub(crate) fn finish(mut self, carrier: Carrier, bytes: usize) -> Result<Receipt> {
        self.clean();
        self.job.answer(&self.progress, carrier, bytes)
    }

    /// Removes what the save would leave behind.
    pub(crate) fn clean(&mut self) {
        self.file = None;
        let leftovers = self.progress.leftovers();
        let dir = &self.job.place.dir;
        if leftovers.temp {
            let removed = rustix::fs::unlinkat(dir, &self.job.temp, AtFlags::empty());
            self.progress.temp_was_there(self.job.temp_was_there(removed));
        }
        if leftovers.link {
            // Gone in the common case, in which the rename has moved it.
            let _ = rustix::fs::unlinkat(dir, &self.job.link, AtFlags::empty());
        }
    }
}

fn opened(file: &Option<OwnedFd>) -> Result<&OwnedFd, Errno> {
    file.as_ref().ok_or(Errno::BADF)
}

/// Creates the temporary file, with exactly the mode that was asked for.
fn create(job: &mut Job) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut left = NAMES_MAX;
    let file = loop {
        left -= 1;
        let opened = rustix::io::retry_on_intr(|| {
            rustix::fs::openat(&job.place.dir, &job.temp, flags, job.settled.mode)
        });
        match opened {
            // Somebody planted it, or this process left it before an exec.
            Err(Errno::EXIST) if left > 0 => job.temp = temp::unique(),
            opened => break opened?,
        }
    };
    exact_mode(&file, job.settled.mode)?;
    Ok(file)
}

/// The process's umask may have taken bits away.
fn exact_mode(file: &OwnedFd, mode: Mode) -> Result<(), Errno> {
    if inode::of(file)?.mode == mode {
        return Ok(());
    }
    rustix::fs::fchmod(file, mode)
}

/// Did a sync that said so give the file its room? An ext4 whose maps of free blocks are damaged can
/// drop what was written, say so to the sync of one file, and 0 to that of the next.
fn has_blocks(dir: BorrowedFd<'_>, look: Look) -> Result<(), Errno> {
    if look.allocated < look.size && filesystem::may_drop_blocks(dir) {
        return Err(Errno::IO);
    }
    Ok(())
}

fn write_all(file: &OwnedFd, mut payload: &[u8]) -> Result<(), Errno> {
    while !payload.is_empty() {
        match rustix::io::write(file, payload) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => payload = &payload[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
