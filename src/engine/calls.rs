//! The plan by plain system calls, on the calling thread: what the plain functions are, what the
//! pool's threads do, and what finishes a save that the ring cannot.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::Result;
use crate::filesystem;
use crate::inode::{self, Look};
use crate::job::Job;
use crate::liveness;
use crate::plan::Step;
use crate::receipt::{Carrier, Receipt};
use crate::temp;

/// How often a temporary name that is taken is replaced by another.
const NAMES_MAX: usize = 16;

/// Carries a job out on the calling thread, from beginning to end.
pub(crate) fn carry(mut job: Job, payload: &[u8]) -> Result<Receipt> {
    run(&mut job, payload);
    finish(job, Carrier::Caller, payload.len())
}

/// Runs every step that is left.
pub(crate) fn run(job: &mut Job, payload: &[u8]) {
    run_while(job, &mut None, payload, |_| true);
}

/// Runs steps up to the first that is not to be run here. `file` is the temporary file, open from
/// the step that makes it on; what comes after its sync does not need it. A save that would go on in
/// the middle of its file, and comes without it, begins anew.
pub(crate) fn run_while(
    job: &mut Job,
    file: &mut Option<OwnedFd>,
    payload: &[u8],
    here: impl Fn(Step) -> bool,
) {
    while let Some(step) = job.next().filter(|step| here(*step)) {
        if step.needs_file() && file.is_none() {
            clean(job);
            job.restart();
            continue;
        }
        let answer = call(step, job, file, payload);
        job.syncs += u64::from(step.syncs());
        job.progress.record(step, answer);
    }
}

fn call(
    step: Step,
    job: &mut Job,
    file: &mut Option<OwnedFd>,
    payload: &[u8],
) -> Result<(), Errno> {
    let dir = job.place.dir.as_fd();
    match step {
        Step::Open => {
            *file = Some(create(job)?);
            Ok(())
        }
        Step::SetAttributes => job.settled.attributes.set(opened(file)?.as_fd(), job.settled.mode),
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
        Step::Rename if job.exchanges => exchange(job),
        Step::Rename => {
            let flags = job.rename_flags();
            rustix::fs::renameat_with(dir, &job.temp, dir, &job.place.name, flags)
        }
        Step::Verify => {
            // The probe needs a descriptor, and this one has done its duty.
            *file = None;
            liveness::probe(dir)
        }
        Step::Accept | Step::MakeDirectory | Step::OpenDirectory | Step::Check | Step::Log => {
            Ok(())
        }
    }
}

/// A rename that does not put one file over another, for where the filesystem writes the new one out at once
/// then.
fn exchange(job: &Job) -> Result<(), Errno> {
    let (dir, temp, name) = (job.place.dir.as_fd(), &job.temp, &job.place.name);
    let rename = |flags| rustix::fs::renameat_with(dir, temp, dir, name, flags);
    match rename(RenameFlags::EXCHANGE) {
        Ok(()) => {}
        // Nothing stands there, or the filesystem does not know it.
        Err(Errno::NOENT | Errno::INVAL) => return rename(RenameFlags::empty()),
        Err(errno) => return Err(errno),
    }
    match rustix::fs::unlinkat(dir, temp, AtFlags::empty()) {
        // Somebody has put a directory there meanwhile.
        Err(errno @ (Errno::ISDIR | Errno::PERM)) => {
            rename(RenameFlags::EXCHANGE)?;
            Err(errno)
        }
        // It is the target all the same. What stays is found by whoever recovers.
        _ => Ok(()),
    }
}

/// Has the temporary file room on the disk for all that was written? `EIO` if not.
pub(crate) fn has_its_blocks(job: &Job) -> Result<(), Errno> {
    let dir = &job.place.dir;
    has_blocks(dir.as_fd(), inode::at(dir, &job.temp)?)
}

/// Cleans up and answers.
pub(crate) fn finish(mut job: Job, carrier: Carrier, bytes: usize) -> Result<Receipt> {
    clean(&mut job);
    job.answer(carrier, bytes)
}

/// Removes what the save would leave behind.
pub(crate) fn clean(job: &mut Job) {
    let leftovers = job.progress.leftovers();
    if leftovers.temp {
        remove_temp(job);
    }
    if leftovers.link {
        remove_link(job);
    }
}

pub(crate) fn remove_temp(job: &mut Job) {
    let removed = rustix::fs::unlinkat(&job.place.dir, &job.temp, AtFlags::empty());
    job.temp_was_removed(removed);
}

pub(crate) fn remove_link(job: &mut Job) {
    // Gone in the common case, in which the rename has moved it.
    let _ = rustix::fs::unlinkat(&job.place.dir, &job.link, AtFlags::empty());
    job.progress.link_is_gone();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Options;

    /// So comes a save whose chain the ring has cut.
    #[test]
    fn a_save_without_its_file_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        for stop in [Step::Write, Step::Rename] {
            let options = Options::new();
            let mut job = Job::prepare(target.as_path().into(), &options).unwrap();
            run_while(&mut job, &mut None, b"half", |step| step < stop);
            let first = job.temp.clone();
            run(&mut job, b"whole");
            assert_eq!(job.temp != first, stop.needs_file(), "{stop}");
            finish(job, Carrier::Pool, 5).unwrap();
            let expected: &[u8] = if stop.needs_file() { b"whole" } else { b"half" };
            assert_eq!(std::fs::read(&target).unwrap(), expected, "{stop}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{stop}");
        }
    }
}
