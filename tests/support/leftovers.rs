//! Directories that hold the images and mounts of one disk, and their removal on every path.
//!
//! The name holds the process id: what a killed test leaves, the next test run removes.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Skipped, host};

/// What the names of our directories start with.
pub const PREFIX: &str = "ringseal-test-";

/// A directory with everything that belongs to one disk. Dropping it unmounts and deletes.
#[derive(Debug)]
pub struct Home(PathBuf);

impl Home {
    /// A new directory where `size` bytes can be stored: in memory if possible.
    pub fn new(size: u64) -> Result<Home, Skipped> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        Home::create(size).map_err(|error| Skipped(format!("no temporary directory: {error}")))
    }

    fn create(size: u64) -> io::Result<Home> {
        let roots = roots();
        let root = roots.iter().find(|root| is_memory(root, size)).unwrap_or(&roots[0]);
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .permissions(Permissions::from_mode(0o755)) // as_user() must get through
            .tempdir_in(root)?;
        Ok(Home(dir.keep()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its name, which no other directory has.
    pub fn name(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).expect("made of ASCII")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes what test processes left behind that did not come to their end.
pub fn sweep() {
    sweep_where(is_dead);
}

/// Removes what one process, which has ended, left behind.
pub fn sweep_of(dead: u32) {
    sweep_where(|pid| pid == dead);
}

/// Whether there is no such process any more.
pub fn is_dead(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

fn sweep_where(wanted: impl Fn(u32) -> bool) {
    // The mount table too: TMPDIR may have been another one then.
    let mounted = host::mount_points().into_iter().filter_map(|point| {
        let start = point.find(&format!("/{PREFIX}"))? + 1;
        let end = point[start..].find('/').map_or(point.len(), |length| start + length);
        Some(PathBuf::from(&point[..end]))
    });
    let stored = roots().into_iter().filter_map(|root| fs::read_dir(root).ok()).flatten();
    let dirs: BTreeSet<PathBuf> =
        stored.flatten().map(|entry| entry.path()).chain(mounted).collect();
    for dir in dirs {
        if owner(&dir).is_some_and(&wanted) {
            remove(&dir);
        }
    }
}

/// The process whose id a name such as `ringseal-test-123-x7Gh2k` holds.
pub fn owner(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn remove(dir: &Path) {
    let Some(name) = dir.file_name().and_then(|name| name.to_str()) else {
        return;
    };
    // First, so that each loop device goes with its mount and lets go of its image.
    detach_devices(name);
    for target in host::mounts_in(name).iter().rev().map(|below| dir.join(below)) {
        if let Err(error) = host::unmount(&target) {
            eprintln!("{} stays in use: {error}", target.display());
            let _ = host::unmount_lazily(&target);
        }
    }
    // Gone, unless somebody else looks at the device just now.
    let end = Instant::now() + Duration::from_secs(1);
    while detach_devices(name) && Instant::now() < end {
        sleep(Duration::from_millis(5));
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("cannot remove {}: {error}", dir.display());
        }
        _ => {}
    }
}

/// Returns whether there were any.
fn detach_devices(dir_name: &str) -> bool {
    let devices = host::devices_of(dir_name);
    for device in &devices {
        device.lift_limit();
        device.detach();
    }
    !devices.is_empty()
}

/// Where directories are made: the temporary directory, and memory.
fn roots() -> Vec<PathBuf> {
    let temporary = std::env::temp_dir();
    let temporary = temporary.canonicalize().unwrap_or(temporary);
    vec![temporary, PathBuf::from("/dev/shm")]
}

fn is_memory(root: &Path, size: u64) -> bool {
    const TMPFS_MAGIC: u32 = 0x0102_1994;
    let is_tmpfs = rustix::fs::statfs(root).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC as i64);
    is_tmpfs && rustix::fs::statvfs(root).is_ok_and(|fs| fs.f_bavail * fs.f_frsize > size)
}
