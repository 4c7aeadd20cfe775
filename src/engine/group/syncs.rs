//! The calls that a whole cycle shares: `syncfs`, each directory once, one liveness probe.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;

use super::super::pool::Pool;
use super::crew;
use crate::plan::Liveness;
use crate::plan::barrier::{Barrier, Situation};
use crate::{filesystem, inode, liveness};

/// Which barrier a cycle of this many files takes; `dir` is any directory of theirs.
pub(super) fn choose(files: usize, dir: BorrowedFd<'_>) -> Barrier {
    let denied = SYNCFS_DENIED.load(Ordering::Relaxed);
    let may_share = files > 1 && !denied && syncfs_reports_errors();
    let spares = if may_share { filesystem::syncfs_spares(dir) } else { None };
    let dirty = spares.and_then(|_| dirty_bytes());
    Barrier::choose(Situation { files, spares, dirty })
}

/// Everything that is dirty on the filesystem, by a descriptor that was opened before it was
/// written: only that one is told of a write that failed meanwhile (syncfs(2)).
pub(super) fn filesystem(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    let answer = rustix::fs::syncfs(dir);
    if let Err(Errno::PERM | Errno::NOSYS | Errno::ACCESS) = answer {
        SYNCFS_DENIED.store(true, Ordering::Relaxed);
    }
    answer
}

/// A filter denies the call; it is not tried again.
static SYNCFS_DENIED: AtomicBool = AtomicBool::new(false);

/// Syncs each directory once, however many descriptors of it there are; an answer for each.
pub(super) fn directories(pool: &Pool, width: usize, dirs: &[Arc<OwnedFd>]) -> Vec<Answer> {
    let mut distinct: HashMap<(u64, u64), usize> = HashMap::new();
    let mut syncs: Vec<Sync> = Vec::new();
    let mut which = Vec::with_capacity(dirs.len());
    let comparable = dirs.first().is_some_and(|dir| filesystem::numbers_are_unique(dir.as_fd()));
    for dir in dirs {
        let index = syncs.len();
        let known = match inode::of(dir) {
            Ok(look) if comparable => *distinct.entry((look.device, look.inode)).or_insert(index),
            // One that cannot be told from others is synced for itself.
            _ => index,
        };
        if known == index {
            syncs.push(Sync { index, dir: Arc::clone(dir), answer: Ok(()) });
        }
        which.push(known);
    }
    let mut synced =
        crew::each(pool, width, syncs, |sync| sync.answer = rustix::fs::fsync(&sync.dir));
    synced.sort_by_key(|sync| sync.index);
    which.into_iter().map(|index| synced[index].answer).collect()
}

type Answer = Result<(), Errno>;

struct Sync {
    index: usize,
    dir: Arc<OwnedFd>,
    answer: Answer,
}

/// Is the filesystem alive? The first directory that can tell answers for all.
pub(super) fn liveness<'a>(dirs: impl Iterator<Item = BorrowedFd<'a>>) -> Answer {
    let mut answer = Ok(());
    for dir in dirs {
        answer = liveness::probe(dir);
        if Liveness::of(answer) != Liveness::Unprovable {
            break;
        }
    }
    answer
}

/// Since Linux 5.8 `syncfs` tells of writes that failed (syncfs(2)), and since 5.17 of a flush that
/// failed (the kernel's history: "sync_filesystem" returns what the filesystem says).
fn syncfs_reports_errors() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| {
        let uname = rustix::system::uname();
        version(uname.release().to_str().unwrap_or("")) >= Some((5, 17))
    })
}

/// Major and minor number of a kernel's release, such as `6.1.0-13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Bytes of files that wait to be written or are being written, in the whole system
/// (proc_meminfo(5)).
fn dirty_bytes() -> Option<u64> {
    dirty(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn dirty(meminfo: &str) -> Option<u64> {
    let bytes = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kilobytes << 10)
    };
    Some(bytes("Dirty:")? + bytes("Writeback:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("5.10.0-26-amd64") >= Some((5, 8)));
        assert!(version("6.18.44") >= Some((5, 8)));
        assert!(version("5.7.19") < Some((5, 8)));
        assert!(version("4.19.0") < Some((5, 8)));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn dirty_is_read_from_meminfo() {
        let text = "MemTotal:  100 kB\nDirty:              1124 kB\nWriteback:           140 kB\n";
        assert_eq!(dirty(text), Some((1124 + 140) << 10));
        assert_eq!(dirty("MemTotal: 100 kB\n"), None);
        assert!(dirty_bytes().is_some());
    }
}
