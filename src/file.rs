//! The adapter for whoever streams: a file that becomes the target on commit, or never was.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::engine::calls;
use crate::error::{Cause, Error, Result};
use crate::job::Job;
use crate::plan::{Outcome, Step};
use crate::receipt::{Carrier, Receipt};
use crate::request::{Options, Target};
use crate::sys::fork;

/// The new version of a target, written piece by piece.
///
/// [`commit`](AtomicFile::commit) makes it the target, durably; dropping it discards it and leaves
/// no temporary file. Until then the target is untouched. Every `write` is a system call: wrap it
/// in a [`BufWriter`](io::BufWriter) for small pieces, and mind that a `BufWriter` must be taken
/// apart by `into_inner` before the commit.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("state.json");
/// use std::io::Write;
///
/// let mut file = ringseal::AtomicFile::create(&path)?;
/// write!(file, "{{\"pid\": {}}}", 42)?;
/// file.commit()?;
/// assert_eq!(std::fs::read(&path)?, b"{\"pid\": 42}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it discards what was written; call `commit`"]
pub struct AtomicFile {
    /// `None` only once it is committed.
    job: Option<Job>,
    file: Option<OwnedFd>,
    target: std::path::PathBuf,
    generation: u64,
    written: usize,
    failed: Option<Errno>,
}

impl AtomicFile {
    /// Opens a new version of `target` with the default [`Options`]; see [`Options::create`].
    ///
    /// # Errors
    /// The step that failed, its cause; the target is unchanged.
    pub fn create(target: impl Into<Target>) -> Result<AtomicFile> {
        Options::new().create(target)
    }

    pub(crate) fn new(job: Job) -> Result<AtomicFile> {
        let target = job.place.shown.clone();
        let (mut job, mut file) = (job, None);
        calls::run_while(&mut job, &mut file, &[], |step| step != Step::Write);
        if job.next().is_none() {
            calls::finish(job, Carrier::Caller, 0)?;
            return Err(Error::new(target, Step::Open, Outcome::Unchanged, Cause::EngineLost));
        }
        let generation = fork::generation();
        Ok(AtomicFile { job: Some(job), file, target, generation, written: 0, failed: None })
    }

    /// Syncs what was written, makes it the target and syncs the directory.
    ///
    /// # Errors
    /// The step that failed, its cause and what is true of the target now. If a `write` had failed,
    /// that is the error, whatever was done about it: the version would not be whole. In a forked
    /// child [`Cause::Forked`]: the file is its parent's.
    pub fn commit(mut self) -> Result<Receipt> {
        let forked = self.is_forked();
        let Some(mut job) = self.job.take() else {
            return Err(self.error(Cause::EngineLost));
        };
        if forked {
            return Err(self.error(Cause::Forked));
        }
        job.progress.record(Step::Write, self.failed.map_or(Ok(()), Err));
        calls::run_while(&mut job, &mut self.file, &[], |_| true);
        calls::finish(job, Carrier::Caller, self.written)
    }

    fn is_forked(&self) -> bool {
        fork::generation() != self.generation
    }

    fn error(&self, cause: Cause) -> Error {
        Error::new(self.target.clone(), Step::Accept, Outcome::Unchanged, cause)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_forked() {
            return Err(self.error(Cause::Forked).into());
        }
        let file = self.file.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        match rustix::io::write(file, bytes) {
            Ok(written) => {
                self.written += written;
                Ok(written)
            }
            // Nothing is lost: the caller tries again.
            Err(errno @ Errno::INTR) => Err(errno.into()),
            Err(errno) => {
                self.failed = Some(errno);
                Err(errno.into())
            }
        }
    }

    /// Does nothing: the bytes are with the kernel, and only [`commit`](AtomicFile::commit) syncs.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // In a forked child the temporary file is the parent's, who may yet commit it.
        let forked = self.is_forked();
        if let Some(mut job) = self.job.take().filter(|_| !forked) {
            calls::clean(&mut job);
        }
    }
}
