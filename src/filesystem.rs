//! What a filesystem is, and what a sync means on it.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use crate::inode::{self, Look};
use crate::sys::handle::Handle;

/// `f_type` values of statfs(2) that matter here, with the names that users know.
const NAMES: [(u64, &str); 17] = [
    (TMPFS, "tmpfs"),
    (RAMFS, "ramfs"),
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (BTRFS, "btrfs"),
    (0xf2f5_2010, "f2fs"),
    (0x2fc1_2fc1, "zfs"),
    (0xca45_1a4e, "bcachefs"),
    (0x794c_7630, "overlay"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
    (0x6573_5546, "fuse"),
    (0x4d44, "vfat"),
    (0x7371_7368, "squashfs"),
];
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const BTRFS: u64 = 0x9123_683e;

/// Filesystems that one kernel at a time can have mounted for writing.
const LOCAL: [&str; 8] = ["tmpfs", "ramfs", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs"];

fn magic(dir: BorrowedFd<'_>) -> Result<u64, Errno> {
    // The field's type differs between architectures; the values all fit in 32 bits.
    Ok(rustix::fs::fstatfs(dir)?.f_type as u64 & 0xffff_ffff)
}

/// What a save must know of a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nature {
    /// It lives in memory: a sync does nothing, and is not paid for.
    pub is_volatile: bool,
    /// A write with `RWF_DSYNC` syncs. Not so on every filesystem: uncached 9p, SMB and FUSE writes
    /// take the flag and do not look at it (by their source). fsync works everywhere.
    pub write_syncs: bool,
}

/// What the filesystem of a directory is, from a look at the directory or at a name in it.
///
/// One on a block device is not asked further, for statfs is no mere question everywhere: on XFS it
/// starts the freeing of every unlinked inode, which then competes with the next sync (45 us a save,
/// measured).
pub(crate) fn nature(dir: BorrowedFd<'_>, look: &Look) -> Result<Nature, Errno> {
    /// The last mount that was found to be in memory; its number is never given again.
    static IN_MEMORY: AtomicU64 = AtomicU64::new(0);
    if look.on_block_device {
        return Ok(Nature { is_volatile: false, write_syncs: true });
    }
    if look.mount.is_some_and(|mount| mount == IN_MEMORY.load(Ordering::Relaxed)) {
        return Ok(Nature { is_volatile: true, write_syncs: false });
    }
    let magic = magic(dir)?;
    let is_volatile = matches!(magic, TMPFS | RAMFS);
    if let (true, Some(mount)) = (is_volatile, look.mount) {
        IN_MEMORY.store(mount, Ordering::Relaxed);
    }
    Ok(Nature { is_volatile, write_syncs: magic == BTRFS })
}

/// How many bytes of others can be written in the time of one fsync that a `syncfs` spares; where
/// both took equally long (measured). `None` where `syncfs` is not known to sync everything and to
/// tell of what failed: an overlay is not told of its upper filesystem's failed writes, and
/// unprivileged FUSE ignores the call, and an ext2, or an ext4 without a journal, writes its last blocks
/// after its last flush.
pub(crate) fn syncfs_spares(dir: BorrowedFd<'_>) -> Option<u64> {
    match name(dir).ok()? {
        "ext4" => has_journal(dir).then_some(64 << 10),
        "xfs" => Some(64 << 10),
        // Each fsync writes a tree of its own.
        "btrfs" => Some(1 << 20),
        _ => None,
    }
}

/// Since Linux 5.8 `syncfs` tells of writes that failed (syncfs(2)), and since 5.17 of a flush that
/// failed (the kernel's history: "sync_filesystem" returns what the filesystem says).
pub(crate) fn syncfs_reports_errors() -> bool {
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

/// Does the ext4 have a journal? Where `/sys` does not tell, it may not (ext4(5), sysfs-fs-ext4).
fn has_journal(dir: BorrowedFd<'_>) -> bool {
    let Some(name) = device_name(dir) else { return false };
    let task = Path::new("/sys/fs/ext4").join(name).join("journal_task");
    std::fs::read_to_string(task).is_ok_and(|task| task.trim().parse::<u32>().is_ok())
}

/// What the kernel calls the block device of a filesystem that has one: `sda1`.
pub(crate) fn device_name(dir: BorrowedFd<'_>) -> Option<OsString> {
    let device = inode::of(dir).ok()?.device;
    let device =
        format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    Some(std::fs::canonicalize(device).ok()?.file_name()?.to_owned())
}

/// Can a file be written, synced by `syncfs` without an error, and have no room on the disk? On an ext4
/// whose maps of free blocks are damaged, if its errors are not to stop it (seen: `errors=continue`).
pub(crate) fn may_drop_blocks(dir: BorrowedFd<'_>) -> bool {
    name(dir).is_ok_and(|name| name == "ext4")
}

/// Do device and number tell two directories apart? Not everywhere: snapshots of one bcachefs, and
/// what 9p exports, can have equal ones.
pub(crate) fn numbers_are_unique(dir: BorrowedFd<'_>) -> bool {
    name(dir).is_ok_and(|name| matches!(name, "ext4" | "xfs" | "btrfs" | "f2fs" | "overlay"))
}

/// Are these two descriptors of one directory, for certain?
pub(crate) fn are_one_directory(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let (Ok(first), Ok(second)) = (inode::of(one), inode::of(other)) else { return false };
    if (first.device, first.inode) != (second.device, second.inode) {
        return false;
    }
    match (Handle::of(one), Handle::of(other)) {
        (Ok(first), Ok(second)) => first == second,
        // An overlay, or a filter that denies the call.
        _ => numbers_are_unique(one),
    }
}

/// The filesystem's name, as mount(8) knows it; `unknown` for one that is not in the list.
pub(crate) fn name(dir: BorrowedFd<'_>) -> Result<&'static str, Errno> {
    let magic = magic(dir)?;
    Ok(NAMES.iter().find(|(value, _)| *value == magic).map_or("unknown", |(_, name)| name))
}

/// Can no other kernel be writing here? On a network filesystem, or one shared into a virtual
/// machine, another host's live writer looks dead.
pub(crate) fn is_local(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(LOCAL.contains(&name(dir)?))
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
}
