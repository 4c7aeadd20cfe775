//! The liveness probe: is the filesystem that said "synced" still alive?
//!
//! A sync that returns 0 is no proof. XFS after a shutdown, and ext4 after one journal error (even
//! one that a background commit met), answer 0 to the sync of a directory whose rename is lost.
//! Asking for a new, unnamed inode tells: an aborted filesystem refuses it, and the abort is
//! sticky, so a probe that succeeds after the sync proves the sync's answer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::plan::Liveness;

/// The probe's flags, for both engines.
pub(crate) const FLAGS: OFlags = OFlags::TMPFILE.union(OFlags::RDWR);

/// Directories above the target's that are asked before giving up.
const CLIMB_MAX: usize = 64;

/// Asks the directory; where it cannot tell (this user may not write it, it was removed, no
/// `O_TMPFILE` there), asks those above it on the same filesystem.
pub(crate) fn probe(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    let answer = ask(dir);
    if Liveness::of(answer) != Liveness::Unprovable {
        return answer;
    }
    climb(dir).unwrap_or(answer)
}

fn ask(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::openat(dir, c".", FLAGS | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).map(drop)
}

/// The first answer that tells, from the parents up to the filesystem's own root.
fn climb(dir: BorrowedFd<'_>) -> Option<Result<(), Errno>> {
    let start = rustix::fs::fstat(dir).ok()?;
    let mut inode = start.st_ino;
    let mut at: OwnedFd = parent(dir)?;
    for _ in 0..CLIMB_MAX {
        let stat = rustix::fs::fstat(&at).ok()?;
        if stat.st_dev != start.st_dev || stat.st_ino == inode {
            return None;
        }
        let answer = ask(at.as_fd());
        if Liveness::of(answer) != Liveness::Unprovable {
            return Some(answer);
        }
        inode = stat.st_ino;
        at = parent(at.as_fd())?;
    }
    None
}

fn parent(dir: BorrowedFd<'_>) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c"..", flags, Mode::empty()).ok()
}
