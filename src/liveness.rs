//! The liveness probe: is the filesystem that said "synced" still alive?
//!
//! A sync that returns 0 is no proof. XFS after a shutdown, and ext4 after one journal error (even
//! one that a background commit met), answer 0 to the sync of a directory whose rename is lost.
//! Asking for a new, unnamed inode tells: an aborted filesystem refuses it, and the abort is
//! sticky, so a probe that succeeds after the sync proves the sync's answer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::left_out::{Rule, left_out};
use crate::plan::Liveness;

/// The probe's flags, for both engines.
pub(crate) const FLAGS: OFlags = OFlags::TMPFILE.union(OFlags::RDWR);

/// Directories above the target's that are asked before giving up.
const CLIMB_MAX: usize = 64;

/// Asks the directory; where it cannot tell (this user may not write it, it was removed, no
/// `O_TMPFILE` there), asks those above it on the same filesystem.
pub(crate) fn probe(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    if left_out(Rule::Liveness) {
        return Ok(());
    }
    let answer = ask(dir);
    if Liveness::of(answer) != Liveness::Unprovable {
        return answer;
    }
    climb(dir).unwrap_or(answer)
}

/// The error of a filesystem that is dead.
pub(crate) fn check(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    let answer = probe(dir);
    if Liveness::of(answer) == Liveness::Dead { answer } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use rustix::process::{Gid, Uid};

    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    #[test]
    fn a_removed_directory_leaves_the_question_to_those_above() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("removed");
        fs::create_dir(&path).unwrap();
        let dir = open(&path);
        assert_eq!(probe(dir.as_fd()), Ok(()));
        fs::remove_dir(&path).unwrap();
        // ext4 says EPERM, others answer as if it were there.
        assert_ne!(Liveness::of(ask(dir.as_fd())), Liveness::Dead);
        assert_eq!(probe(dir.as_fd()), Ok(()));
    }

    #[test]
    fn a_directory_that_may_not_be_written_leaves_it_too() {
        if !rustix::process::geteuid().is_root() {
            assert_ne!(std::env::var("RINGSEAL_NO_SKIP").as_deref(), Ok("1"), "needs root");
            eprintln!("skipped: not root");
            return;
        }
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("closed");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(above.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let dir = open(&path);
        // The raw calls change this thread only, which ends with the test.
        let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        assert_eq!(ask(dir.as_fd()), Err(Errno::ACCESS));
        assert_eq!(probe(dir.as_fd()), Ok(()));
    }

    #[test]
    fn a_filesystem_without_unnamed_files_cannot_tell() {
        let dir = open(std::path::Path::new("/proc/self"));
        let answer = probe(dir.as_fd());
        assert_eq!(Liveness::of(answer), Liveness::Unprovable, "{answer:?}");
    }
}
