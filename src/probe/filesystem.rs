//! What a filesystem gives, and what voids its promises.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::filesystem;
use crate::liveness;
use crate::plan::{Liveness, Outcome, Step};

/// What was found of a filesystem.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct FilesystemProbe {
    /// Its type, `unknown` if this crate has no name for it.
    pub kind: &'static str,
    /// What a sync means on it.
    pub sync: SyncMeans,
    /// Where it is mounted; `None` if `/proc/self/mountinfo` does not say.
    pub mount_point: Option<PathBuf>,
    /// What it is mounted from.
    pub source: Option<String>,
    /// Its mount options.
    pub options: Vec<String>,
    /// Can it prove that it is alive, from this directory or one above? If not, saves answer
    /// [`Durability::DurableUnproven`](crate::Durability).
    pub provable: bool,
    /// What voids the promise of durability here, one sentence each. Empty is good.
    pub warnings: Vec<String>,
}

/// What a sync means on a filesystem.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SyncMeans {
    /// The data is on stable storage, as far as the device tells the truth.
    Durable,
    /// Nothing: it lives in memory. Saves are atomic, and are not synced.
    Nothing,
    /// This crate does not know the filesystem: saves are synced, and what that is worth is the
    /// filesystem's word.
    Unknown,
}

/// Filesystems whose sync this crate knows: proven by tests with power cuts, or documented.
const KNOWN: [&str; 7] = ["ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "overlay"];

impl FilesystemProbe {
    pub(crate) fn of(path: &Path) -> Result<FilesystemProbe> {
        let failed =
            |errno: Errno| Error::new(path, Step::OpenDirectory, Outcome::Unchanged, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
        let kind = filesystem::name(dir.as_fd()).map_err(failed)?;
        let sync = match kind {
            "tmpfs" | "ramfs" => SyncMeans::Nothing,
            kind if KNOWN.contains(&kind) => SyncMeans::Durable,
            _ => SyncMeans::Unknown,
        };
        let mount = Mount::of(&dir).unwrap_or_default();
        let fast_commit = kind == "ext4" && has_fast_commit(dir.as_fd());
        let warnings = warnings(kind, sync, fast_commit, &mount);
        let alive = Liveness::of(liveness::probe(dir.as_fd()));
        Ok(FilesystemProbe {
            // The kernel has one magic number for ext2, ext3 and ext4.
            kind: match mount.kind.as_str() {
                "ext2" => "ext2",
                "ext3" => "ext3",
                _ => kind,
            },
            sync,
            mount_point: mount.point,
            source: mount.source,
            options: mount.options,
            provable: alive != Liveness::Unprovable,
            warnings,
        })
    }
}

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, Default, PartialEq, Eq)]
struct Mount {
    point: Option<PathBuf>,
    kind: String,
    source: Option<String>,
    options: Vec<String>,
}

impl Mount {
    fn of(dir: &OwnedFd) -> Option<Mount> {
        let (flags, mask) = (rustix::fs::AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::MNT_ID);
        let id = rustix::fs::statx(dir, c"", flags, mask).ok()?.stx_mnt_id;
        let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
        table.lines().find_map(|line| Mount::parse(line, id))
    }

    fn parse(line: &str, id: u64) -> Option<Mount> {
        let mut fields = line.split(' ');
        if fields.next()?.parse::<u64>().ok()? != id {
            return None;
        }
        let point = PathBuf::from(unescape(fields.nth(3)?));
        let of_mount = fields.next()?;
        let mut of_filesystem = fields.skip_while(|field| *field != "-").skip(1);
        let kind = of_filesystem.next()?.to_owned();
        let source = of_filesystem.next().map(unescape);
        let options = of_mount.split(',').chain(of_filesystem.next()?.split(','));
        let mut known = Vec::new();
        for option in options.map(unescape) {
            if !known.contains(&option) {
                known.push(option);
            }
        }
        Some(Mount { point: Some(point), kind, source, options: known })
    }
}

/// Space, tab, newline and backslash are octal in mountinfo.
fn unescape(field: &str) -> String {
    let escapes = [("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")];
    let mut parts = field.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match escapes.iter().find(|(code, _)| part.starts_with(code)) {
            Some((code, character)) => {
                plain.push_str(character);
                plain.push_str(&part[code.len()..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

fn warnings(kind: &str, sync: SyncMeans, fast_commit: bool, mount: &Mount) -> Vec<String> {
    let has = |option: &str| mount.options.iter().any(|given| given == option);
    let mut warnings = Vec::new();
    let mut warn = |text: &str| warnings.push(text.to_owned());
    if sync == SyncMeans::Unknown {
        warn("what a sync is worth here is this filesystem's own word: it was not tested");
    }
    if has("nobarrier") || has("barrier=0") {
        warn(
            "nobarrier: a power cut can lose what was synced, unless the device has no volatile cache",
        );
    }
    if kind == "overlay" && (has("volatile") || has("fsync=volatile")) {
        warn("overlay volatile: every sync is left out");
    }
    if fast_commit {
        warn(
            "ext4 fast_commit: a power cut can leave a filesystem that does not mount, and whose repair drops synced data",
        );
    }
    if mount.kind == "ext2" || has("norecovery") || has("noload") {
        warn("no journal is replayed: a power cut can leave the directory damaged");
    }
    if has("ro") {
        warn("mounted read-only: nothing can be saved");
    }
    warnings
}

/// mountinfo does not list the feature. `/proc/fs/ext4/DEVICE/options` lists what is in force, this one by
/// the name of the debugging option that has the same flag (seen on 6.18); but not on every kernel (not on
/// 5.10). The superblock says it everywhere, to who may read the device.
fn has_fast_commit(dir: BorrowedFd<'_>) -> bool {
    let Some(name) = filesystem::device_name(dir) else { return false };
    let options = Path::new("/proc/fs/ext4").join(&name).join("options");
    let options = fs::read_to_string(options).unwrap_or_default();
    options.lines().any(|option| matches!(option, "fast_commit" | "fc_debug_force"))
        || superblock_of_ext4(&Path::new("/dev").join(&name)).is_ok_and(|of| has_the_feature(&of))
}

/// As the kernel has it: it reads and writes it through the device's cache.
fn superblock_of_ext4(device: &Path) -> std::io::Result<[u8; 1024]> {
    let mut superblock = [0; 1024];
    let device = fs::File::open(device)?;
    device.read_exact_at(&mut superblock, 1024)?;
    Ok(superblock)
}

/// `s_magic`, and `COMPAT_FAST_COMMIT` in `s_feature_compat` (the kernel's Documentation/filesystems/ext4,
/// "Super Block").
fn has_the_feature(superblock: &[u8; 1024]) -> bool {
    const FAST_COMMIT: u32 = 0x400;
    let features = u32::from_le_bytes([0x5c, 0x5d, 0x5e, 0x5f].map(|at| superblock[at]));
    superblock[0x38..0x3a] == [0x53, 0xef] && features & FAST_COMMIT != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext4 /dev/root rw,nobarrier";

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let mount = Mount::parse(LINE, 36).unwrap();
        assert_eq!(mount.point.as_deref(), Some(Path::new("/mnt 2")));
        assert_eq!(mount.kind, "ext4");
        assert_eq!(mount.source.as_deref(), Some("/dev/root"));
        assert_eq!(mount.options, ["rw", "noatime", "nobarrier"]);
        assert_eq!(Mount::parse(LINE, 35), None);
        assert_eq!(Mount::parse("", 36), None);
    }

    #[test]
    fn escapes_are_read_once() {
        assert_eq!(unescape("a\\040b\\134040c"), "a b\\040c");
    }

    #[test]
    fn what_voids_the_promise_is_said() {
        let mount = Mount::parse(LINE, 36).unwrap();
        assert!(warnings("ext4", SyncMeans::Durable, false, &mount)[0].starts_with("nobarrier"));
        let plain = Mount::parse(&LINE.replace(",nobarrier", ""), 36).unwrap();
        assert_eq!(warnings("xfs", SyncMeans::Durable, false, &plain), [""; 0]);
    }
}
