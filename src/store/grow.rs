//! A log with larger segments: at once, for a transaction that fits into no smaller one; or while saves go on, where
//! segments are full before the files follow by themselves, and a file that is saved again and again is synced
//! with each of them.

use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::Advice;
use rustix::io::Errno;

use super::access::Entered;
use super::committer::Committer;
use super::log::Log;
use super::log::files::{self as log_files, NotPlaced, Portion, Proof, Segments};
use super::log::format::{BLOCK, LogId};
use super::log::scan::Scan;
use crate::trace;

/// How much larger segments become where they are full too soon.
const TIMES: u64 = 4;

/// Between two portions of a log that nobody waits for.
const PAUSE: Duration = Duration::from_millis(10);

/// What is left to others of a filesystem's free space: all but one part of so many.
const SHARE: u64 = 16;

/// A larger log, on its way.
#[derive(Debug, Default)]
pub(crate) struct Growing(Mutex<Option<New>>);

/// A log that is not in its place yet.
#[derive(Debug)]
struct New {
    segments: Segments,
    id: LogId,
    /// Bytes of each of them.
    bytes: u64,
    /// Somebody waits for it.
    is_awaited: bool,
}

impl Committer {
    /// Makes a log with larger segments, and waits until the store goes on in it.
    pub(super) fn grow(&self, wanted: u64) -> Result<(), Errno> {
        let Some(bytes) = self.larger(wanted) else { return Ok(()) };
        let mut growing = self.size.growing.lock();
        // Its files are in the way.
        growing.take();
        *growing = Some(New::make(&self.own, bytes, self.size.proof, true, &mut |_| Ok(()))?);
        drop(growing);
        while self.segment() < bytes {
            self.spreader.wait()?;
        }
        Ok(())
    }

    /// A thread makes a larger log, slowly, while saves go on; if there is much room.
    pub(super) fn begin_to_grow(self: &Arc<Committer>) {
        let committer = Arc::clone(self);
        self.pool.run(Box::new(move || {
            // If it cannot be had, the log that there is does as well.
            let _ = committer.make_larger();
        }));
    }

    fn make_larger(&self) -> Result<(), Errno> {
        let mut growing = self.size.growing.lock();
        let Some(bytes) = self.larger(self.segment().saturating_mul(TIMES)) else { return Ok(()) };
        let room = rustix::fs::fstatvfs(&self.own)?;
        let is_roomy = room.f_bavail.saturating_mul(room.f_frsize) / SHARE >= 2 * bytes;
        if growing.is_some() || !is_roomy {
            return Ok(());
        }
        let mut pause = |file: &OwnedFd| {
            // It is written out from now on (posix_fadvise(2)), and not all at once by the sync.
            let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
            std::thread::sleep(PAUSE);
            if self.spreader.is_closing() { Err(Errno::CANCELED) } else { Ok(()) }
        };
        *growing = Some(New::make(&self.own, bytes, self.size.proof, false, &mut pause)?);
        drop(growing);
        self.spreader.want();
        Ok(())
    }

    /// Goes on in a larger log that was made, if there is one. What the files lack follows while nobody saves: just
    /// after a spread that is little.
    pub(super) fn end_growing(&self) -> Result<(), Errno> {
        // Who is making one is not waited for.
        let new = self.size.growing.0.try_lock().ok().and_then(|mut growing| growing.take());
        let (Some(access), Some(new)) = (&self.access, new) else { return Ok(()) };
        let is_awaited = new.is_awaited;
        let mut open = access.both();
        let spread = self.spread_entered(&mut open);
        let grown = spread.and_then(|()| self.go_on_in(&mut open, new));
        if is_awaited { grown } else { spread }
    }

    /// So many bytes, if segments may be so large, and are not yet.
    fn larger(&self, wanted: u64) -> Option<u64> {
        let bytes = wanted.min(self.size.max) / BLOCK as u64 * BLOCK as u64;
        (bytes > self.segment()).then_some(bytes)
    }

    fn go_on_in(&self, open: &mut Entered<'_>, new: New) -> Result<(), Errno> {
        if !open.is_spread() {
            return Err(Errno::AGAIN);
        }
        let bytes = new.bytes;
        match new.put_in_place(&self.own) {
            Ok(log) => open.renew(log),
            Err(NotPlaced::Unchanged(errno)) => return Err(errno),
            Err(NotPlaced::Unknown(errno)) => {
                // What is appended to the one may not be found if the other is.
                open.close(errno);
                return Err(errno);
            }
        }
        *self.size.segment.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
        trace::log_grown(self.layout.root.path(), bytes);
        Ok(())
    }
}

impl Growing {
    /// Waits until nobody makes one any more.
    pub(super) fn wait(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<New>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl New {
    fn make(
        own: &OwnedFd,
        bytes: u64,
        proof: Proof,
        is_awaited: bool,
        portion: &mut Portion<'_>,
    ) -> Result<New, Errno> {
        let random = RandomState::new();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.hash_one(std::process::id()).to_le_bytes());
        id[8..].copy_from_slice(&random.hash_one(std::time::SystemTime::now()).to_le_bytes());
        let segments = log_files::make_new(own.as_fd(), bytes, id, proof, portion)?;
        Ok(New { segments, id, bytes, is_awaited })
    }

    fn put_in_place(self, own: &OwnedFd) -> Result<Log<Segments>, NotPlaced> {
        let New { segments, id, bytes, .. } = self;
        let log = Log::begin(segments, &Scan::of_new(id, bytes)).map_err(NotPlaced::Unchanged)?;
        log_files::put_in_place(own.as_fd())?;
        Ok(log)
    }
}

/// Makes a log, in the place of the one that may be there.
pub(crate) fn make_log(
    own: &OwnedFd,
    bytes: u64,
    proof: Proof,
) -> Result<Log<Segments>, NotPlaced> {
    New::make(own, bytes, proof, false, &mut |_| Ok(()))
        .map_err(NotPlaced::Unchanged)?
        .put_in_place(own)
}
