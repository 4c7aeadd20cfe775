//! The filesystems under test: how they are made and mounted.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::image::Image;

const MIB: u64 = 1 << 20;

/// A kind of filesystem with options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filesystem {
    pub name: &'static str,
    /// What the kernel calls it.
    pub kind: &'static str,
    /// How large a disk it is given.
    pub size: u64,
    /// The program that makes it, and its arguments before the disk's.
    pub mkfs: &'static [&'static str],
    /// What it is mounted with.
    pub options: &'static str,
    /// Whether a promise can rest on it. Where not, the laboratory has to find losses.
    pub sound: bool,
}

/// Nothing is left to be done in the background; the smallest journal that ext4 takes.
const MKFS_EXT4: &[&str] = &[
    "mkfs.ext4",
    "-Fq",
    "-b4096",
    "-Jsize=4",
    "-Elazy_itable_init=0,lazy_journal_init=0,nodiscard",
];

const EXT4: Filesystem = Filesystem {
    name: "ext4",
    kind: "ext4",
    size: 64 * MIB,
    mkfs: MKFS_EXT4,
    options: "",
    sound: true,
};

const XFS: Filesystem = Filesystem {
    name: "xfs",
    kind: "xfs",
    size: 300 * MIB,
    mkfs: &["mkfs.xfs", "-fqK"],
    options: "nouuid",
    sound: true,
};

const BTRFS: Filesystem = Filesystem {
    name: "btrfs",
    kind: "btrfs",
    size: 256 * MIB,
    mkfs: &["mkfs.btrfs", "-fqK"],
    options: "",
    sound: true,
};

const ALL: &[Filesystem] = &[
    EXT4,
    XFS,
    BTRFS,
    Filesystem { name: "ext4-writeback", options: "data=writeback", ..EXT4 },
    Filesystem { name: "ext4-journal", options: "data=journal", ..EXT4 },
    Filesystem { name: "ext4-noauto-da-alloc", options: "noauto_da_alloc", ..EXT4 },
    // A name is on the disk when the call ends, and the file's blocks are not: the order in which they are asked for shows.
    Filesystem { name: "ext4-dirsync", options: "dirsync,noauto_da_alloc", ..EXT4 },
    Filesystem { name: "ext4-remount-ro", options: "errors=remount-ro", ..EXT4 },
    Filesystem { name: "ext4-nobarrier", options: "nobarrier", sound: false, ..EXT4 },
    Filesystem { name: "btrfs-nobarrier", options: "nobarrier", sound: false, ..BTRFS },
    // Some power cuts leave it unmountable, and e2fsck then drops what was durable.
    Filesystem {
        name: "ext4-fast-commit",
        mkfs: &[
            "mkfs.ext4",
            "-Fq",
            "-b4096",
            "-Jsize=4",
            "-Ofast_commit",
            "-Elazy_itable_init=0,lazy_journal_init=0,nodiscard",
        ],
        sound: false,
        ..EXT4
    },
];

impl Filesystem {
    #[cfg(test)]
    pub fn all() -> &'static [Filesystem] {
        ALL
    }

    /// Has it FS_IOC_SHUTDOWN?
    pub fn can_shut_down(&self) -> bool {
        self.kind != "btrfs"
    }

    pub fn by_name(name: &str) -> Option<&'static Filesystem> {
        ALL.iter().find(|filesystem| filesystem.name == name)
    }

    /// A disk with a new, empty filesystem. Each has an id of its own: two disks with copies of
    /// one btrfs must not be mounted at the same moment, as btrfs would take one for the other.
    pub fn format(&self) -> io::Result<Image> {
        let file = tempfile::Builder::new().prefix("crashlab-mkfs-").tempfile()?;
        file.as_file().set_len(self.size)?;
        self.make(file.path())?;
        Image::read_from(file.path())
    }

    fn make(&self, disk: &Path) -> io::Result<()> {
        let [program, arguments @ ..] = self.mkfs else {
            return Err(io::Error::other("no program that makes this filesystem"));
        };
        let output = Command::new(program)
            .args(arguments)
            .arg(disk)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{program}: {}", said.trim())))
    }
}
