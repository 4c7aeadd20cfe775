//! The calls that a whole cycle shares: `syncfs`, each directory once, one liveness probe.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::engine::task::Tasks;
use crate::left_out::final_answer;
use crate::plan::Liveness;
use crate::plan::barrier::{Barrier, Situation};
use crate::{filesystem, inode, liveness};

/// Which barrier a cycle of this many files takes; `dir` is any directory of theirs.
pub(super) fn choose(files: usize, dir: BorrowedFd<'_>) -> Barrier {
    let denied = SYNCFS_DENIED.load(Ordering::Relaxed);
    let may_share = files > 1 && !denied && filesystem::syncfs_reports_errors();
    let spares = if may_share { filesystem::syncfs_spares(dir) } else { None };
    let dirty = spares.and_then(|_| dirty_bytes());
    Barrier::choose(Situation { files, spares, dirty })
}

/// Everything that is dirty on the filesystem, by a descriptor that was opened before it was
/// written: only that one is told of a write that failed meanwhile (syncfs(2)).
pub(super) fn filesystem(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    let answer = final_answer(rustix::fs::syncfs(dir), || rustix::fs::syncfs(dir));
    if let Err(Errno::PERM | Errno::NOSYS | Errno::ACCESS) = answer {
        SYNCFS_DENIED.store(true, Ordering::Relaxed);
    }
    answer
}

/// A filter denies the call; it is not tried again.
static SYNCFS_DENIED: AtomicBool = AtomicBool::new(false);

/// Sorts saves by their directory, however many descriptors of it there are: one of each directory,
/// and the others by the descriptor that this one has.
pub(super) fn one_of_each_directory(tasks: Tasks) -> (Tasks, HashMap<RawFd, Tasks>) {
    let mut known: HashMap<(u64, u64), RawFd> = HashMap::new();
    let mut first = Tasks::with_capacity(tasks.len());
    let mut others: HashMap<RawFd, Tasks> = HashMap::new();
    let dir = tasks.first().map(|task| &task.job.place.dir);
    let comparable = dir.is_some_and(|dir| filesystem::numbers_are_unique(dir.as_fd()));
    for task in tasks {
        let dir = &task.job.place.dir;
        let mine = dir.as_raw_fd();
        let its = match inode::of(dir) {
            Ok(look) if comparable => *known.entry((look.device, look.inode)).or_insert(mine),
            // One that cannot be told from others is synced for itself.
            _ => mine,
        };
        if its == mine {
            first.push(task);
        } else {
            others.entry(its).or_default().push(task);
        }
    }
    (first, others)
}

/// Is the filesystem alive? The first directory that can tell answers for all.
pub(super) fn liveness<'a>(dirs: impl Iterator<Item = BorrowedFd<'a>>) -> Result<(), Errno> {
    let mut answer = Ok(());
    for dir in dirs {
        answer = liveness::probe(dir);
        if Liveness::of(answer) != Liveness::Unprovable {
            break;
        }
    }
    answer
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
    fn dirty_is_read_from_meminfo() {
        let text = "MemTotal:  100 kB\nDirty:              1124 kB\nWriteback:           140 kB\n";
        assert_eq!(dirty(text), Some((1124 + 140) << 10));
        assert_eq!(dirty("MemTotal: 100 kB\n"), None);
        assert!(dirty_bytes().is_some());
    }
}
