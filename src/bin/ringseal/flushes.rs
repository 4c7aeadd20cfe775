//! The kernel's count of a device's flushes: what a durable save really costs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, major, minor, statx};

/// The flush counter of the device below a directory, and where it stood.
#[derive(Debug)]
pub struct Flushes {
    stat: PathBuf,
    before: u64,
}

impl Flushes {
    /// Notes where the counter stands. `None` where there is no block device, or no `/sys`.
    pub fn of(dir: &Path) -> Option<Flushes> {
        let device = fs::metadata(dir).ok()?.dev();
        // btrfs has numbers of its own, which are no device's: the mount's source tells.
        let device = if major(device) == 0 { source_of(dir)? } else { device };
        let link = format!("/sys/dev/block/{}:{}", major(device), minor(device));
        let found = fs::canonicalize(link).ok()?;
        // A partition's flushes are counted for the whole disk only.
        let disk = if found.join("partition").exists() { found.parent()? } else { &found };
        let stat = disk.join("stat");
        let before = count(&stat)?;
        Some(Flushes { stat, before })
    }

    /// Flushes since then, those of others included.
    pub fn since(&self) -> Option<u64> {
        count(&self.stat)?.checked_sub(self.before)
    }
}

/// Flush requests completed: field 16 (Linux 5.5, Documentation/ABI/stable/sysfs-block).
fn count(stat: &Path) -> Option<u64> {
    fs::read_to_string(stat).ok()?.split_whitespace().nth(15)?.parse().ok()
}

/// The block device that the directory's mount was made from (proc_pid_mountinfo(5)).
fn source_of(dir: &Path) -> Option<u64> {
    let mount = statx(CWD, dir, AtFlags::empty(), StatxFlags::MNT_ID).ok()?.stx_mnt_id.to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let source = mounts.lines().find_map(|line| {
        let (before, filesystem) = line.split_once(" - ")?;
        (before.split(' ').next()? == mount).then(|| filesystem.split(' ').nth(1))?
    })?;
    Some(fs::metadata(source).ok()?.rdev()).filter(|device| major(*device) != 0)
}
