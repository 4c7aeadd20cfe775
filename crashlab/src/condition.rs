//! What a load's process lacks while it runs: descriptors, threads, memory, system calls, its ring, room on the disk.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::support::{Skipped, cgroup, seccomp};

/// A lack, which a child process takes upon itself before it carries its load out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Condition {
    None,
    /// So many descriptors may be open (`RLIMIT_NOFILE`).
    Descriptors(u64),
    /// So many threads may exist, the kernel's workers among them (a control group's pids limit).
    Threads(u64),
    /// So many bytes of addresses more than at the start (`RLIMIT_AS`).
    Memory(u64),
    /// A system call fails.
    Deny {
        call: Call,
        errno: i32,
    },
    /// The ring's descriptor is another file's after so many microseconds.
    RingDies(u64),
    /// So many bytes are left on the disk.
    Room(u64),
}

/// A system call, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Call {
    IoUringSetup,
    IoUringEnter,
    IoUringRegister,
    Fsync,
    Fdatasync,
    Syncfs,
    Renameat2,
    Linkat,
    Unlinkat,
    Openat2,
    Mkdirat,
    Fchmod,
    Statx,
    Fallocate,
    Ftruncate,
    Pwritev2,
    Pwrite64,
    SyncFileRange,
}

impl Call {
    pub(crate) const ALL: [Call; 18] = [
        Call::IoUringSetup,
        Call::IoUringEnter,
        Call::IoUringRegister,
        Call::Fsync,
        Call::Fdatasync,
        Call::Syncfs,
        Call::Renameat2,
        Call::Linkat,
        Call::Unlinkat,
        Call::Openat2,
        Call::Mkdirat,
        Call::Fchmod,
        Call::Statx,
        Call::Fallocate,
        Call::Ftruncate,
        Call::Pwritev2,
        Call::Pwrite64,
        Call::SyncFileRange,
    ];

    fn number(self) -> libc::c_long {
        match self {
            Call::IoUringSetup => libc::SYS_io_uring_setup,
            Call::IoUringEnter => libc::SYS_io_uring_enter,
            Call::IoUringRegister => libc::SYS_io_uring_register,
            Call::Fsync => libc::SYS_fsync,
            Call::Fdatasync => libc::SYS_fdatasync,
            Call::Syncfs => libc::SYS_syncfs,
            Call::Renameat2 => libc::SYS_renameat2,
            Call::Linkat => libc::SYS_linkat,
            Call::Unlinkat => libc::SYS_unlinkat,
            Call::Openat2 => libc::SYS_openat2,
            Call::Mkdirat => libc::SYS_mkdirat,
            Call::Fchmod => libc::SYS_fchmod,
            Call::Statx => libc::SYS_statx,
            Call::Fallocate => libc::SYS_fallocate,
            Call::Ftruncate => libc::SYS_ftruncate,
            Call::Pwritev2 => libc::SYS_pwritev2,
            Call::Pwrite64 => libc::SYS_pwrite64,
            Call::SyncFileRange => libc::SYS_sync_file_range,
        }
    }
}

/// What takes up the room of a full disk.
pub(crate) const FILLER: &str = "filler";

/// What lasts as long as the condition does.
#[derive(Debug, Default)]
pub(crate) struct Held {
    _group: Option<cgroup::PidsCgroup>,
}

impl Condition {
    /// Takes it upon this process, which works below the directory.
    pub(crate) fn enter(&self, directory: &Path) -> Result<Held> {
        let skipped = |Skipped(why)| anyhow!("{self}: {why}");
        match *self {
            Condition::None => {}
            Condition::Descriptors(most) => limit(Resource::Nofile, most)?,
            Condition::Threads(most) => {
                return Ok(Held { _group: Some(cgroup::limit_pids(most).map_err(skipped)?) });
            }
            Condition::Memory(more) => limit(Resource::As, addresses()? + more)?,
            Condition::Deny { call, errno } => {
                seccomp::deny(&[call.number()], errno).map_err(skipped)?;
            }
            Condition::RingDies(after) => {
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_micros(after));
                    put_another_file_in_place_of_rings()
                });
            }
            Condition::Room(bytes) => fill(directory, bytes)?,
        }
        Ok(Held::default())
    }

    /// May the process be ended by it?
    pub(crate) fn is_deadly(&self) -> bool {
        // Rust ends a process that gets no memory.
        matches!(self, Condition::Memory(_))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

fn limit(resource: Resource, current: u64) -> io::Result<()> {
    let maximum = getrlimit(resource).maximum;
    Ok(setrlimit(resource, Rlimit { current: Some(current), maximum })?)
}

/// Bytes of addresses that this process has.
fn addresses() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages = text.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
    Ok(pages.unwrap_or_default() * rustix::param::page_size() as u64)
}

/// As when somebody closes descriptors that are not his; the number goes to another file, so that nothing of
/// this process's gets it.
fn put_another_file_in_place_of_rings() -> io::Result<()> {
    let null = File::open("/dev/null")?;
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let is_ring = fs::read_link(entry.path())
            .is_ok_and(|link| link.to_string_lossy().contains("[io_uring]"));
        let number = entry.file_name().to_string_lossy().parse::<i32>().ok();
        if let Some(number) = number.filter(|_| is_ring) {
            crate::over::put(&null, number)?;
        }
    }
    Ok(())
}

/// Takes up the disk but for so many bytes.
fn fill(directory: &Path, but: u64) -> io::Result<()> {
    let filler = File::create(directory.join(FILLER))?;
    let free = || rustix::fs::fstatvfs(&filler).map(|all| all.f_bavail * all.f_frsize);
    let mut size = 0;
    let mut piece = free()?;
    while piece >= 4096 {
        let wanted = piece.min(free()?.saturating_sub(but)) / 4096 * 4096;
        let flags = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(&filler, flags, size, wanted.max(1)) {
            Ok(()) if wanted == 0 => break,
            Ok(()) => size += wanted,
            Err(rustix::io::Errno::NOSPC) => piece /= 2,
            Err(errno) => return Err(errno.into()),
        }
        if wanted == 0 {
            break;
        }
    }
    Ok(())
}
