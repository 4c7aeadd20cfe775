//! The constructors of [`Disk`].

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::host::{self, Image, Layer, require_root};
use super::leftovers::Home;
use super::{Disk, Skipped};

const MIB: u64 = 1 << 20;

/// mke2fs takes 1 KiB blocks for small images, which no real root filesystem has.
const EXT4: &[&str] = &["-q", "-F", "-b", "4096"];

impl Disk {
    /// A journalled ext4 of 128 MiB with 4 KiB blocks.
    pub fn ext4() -> Result<Disk, Skipped> {
        Disk::ext4_with(128 * MIB, &[], "")
    }

    /// An xfs of 320 MiB, about the smallest that mkfs.xfs agrees to.
    pub fn xfs() -> Result<Disk, Skipped> {
        Disk::xfs_with(320 * MIB, &[], "")
    }

    /// A btrfs of 256 MiB.
    pub fn btrfs() -> Result<Disk, Skipped> {
        Disk::btrfs_with(256 * MIB, &[], "")
    }

    /// An ext4 with further arguments for mkfs (`&["-O", "fast_commit"]`) and mount options.
    pub fn ext4_with(size: u64, mkfs: &[&str], options: &str) -> Result<Disk, Skipped> {
        Disk::new("ext4", size)?.with_image("ext4", size, &[EXT4, mkfs].concat(), options)
    }

    /// An xfs with further arguments for mkfs and mount options.
    pub fn xfs_with(size: u64, mkfs: &[&str], options: &str) -> Result<Disk, Skipped> {
        Disk::new("xfs", size)?.with_image("xfs", size, &[&["-q"], mkfs].concat(), options)
    }

    /// A btrfs with further arguments for mkfs and mount options.
    pub fn btrfs_with(size: u64, mkfs: &[&str], options: &str) -> Result<Disk, Skipped> {
        Disk::new("btrfs", size)?.with_image("btrfs", size, &[&["-q"], mkfs].concat(), options)
    }

    /// A tmpfs; `nr_inodes` counts the root directory too.
    pub fn tmpfs(size: u64, nr_inodes: Option<u64>) -> Result<Disk, Skipped> {
        let inodes = nr_inodes.map_or(String::new(), |count| format!(",nr_inodes={count}"));
        let disk = Disk::new("tmpfs", 0)?;
        let (target, options) = (disk.dir("mnt"), format!("size={size},mode=755{inodes}"));
        disk.with_layer("tmpfs", None, target, &options)
    }

    /// An overlay over directories of an ext4; `lower/file` comes from its lower layer.
    pub fn overlay(options: &str) -> Result<Disk, Skipped> {
        let size = 128 * MIB;
        let disk = Disk::new("overlay", size)?;
        let image = disk.image("image", size, "ext4", EXT4)?;
        let base = disk.dir("base");
        let disk = disk.with_layer("ext4", Some(image), base.clone(), "")?;
        for dir in ["upper", "work", "below/lower"] {
            fs::create_dir_all(base.join(dir)).expect("a new ext4 takes directories");
        }
        fs::write(base.join("below/lower/file"), "from below").expect("a new ext4 takes files");
        let [lower, upper, work] = ["below", "upper", "work"].map(|dir| base.join(dir));
        let (lower, upper, work) = (lower.display(), upper.display(), work.display());
        let mut all = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        if !options.is_empty() {
            all = format!("{all},{options}");
        }
        let target = disk.dir("mnt");
        disk.with_layer("overlay", None, target, &all)
    }

    /// An ext4 without a journal, which believes that it has 96 MiB, on a device that can take
    /// `room` more bytes of file contents: a larger write succeeds, and its fsync says ENOSPC.
    ///
    /// Only the first fsync says so. Freed blocks keep their room, a new file may get others.
    pub fn ext4_over_full_tmpfs(room: u64) -> Result<Disk, Skipped> {
        let disk = Disk::new("ext4 on a full device", 0)?;
        // No part of `layers`: a remount must keep the image.
        let store = Layer {
            fstype: "tmpfs",
            image: None,
            target: disk.dir("store"),
            options: format!("size={}", room + 2 * MIB),
        };
        store.mount()?;
        // Without these features all metadata lies in the first 73 blocks (dumpe2fs shows it).
        let features = ["-O", "^has_journal,^resize_inode,^flex_bg"];
        let layout = ["-m", "0", "-N", "1024", "-E", "lazy_itable_init=0"];
        let mkfs = [EXT4, &features, &layout].concat();
        let mut image = disk.image("store/image", 96 * MIB, "ext4", &mkfs)?;
        // Those blocks must not run out of room, only file contents.
        reserve(&image.path, 73 * 4096)
            .map_err(|error| Skipped(format!("no fallocate on tmpfs: {error}")))?;
        image.block_by_block = true;
        let target = disk.dir("mnt");
        let disk = disk.with_layer("ext4", Some(image), target, "")?;
        let free = rustix::fs::statvfs(&store.target).expect("statvfs of a mounted tmpfs");
        let ballast = (free.f_bavail * free.f_frsize).saturating_sub(room);
        reserve(&store.target.join("ballast"), ballast).expect("the tmpfs has this much room");
        Ok(disk)
    }

    /// The kinds a behaviour should hold on, each made when it is asked for.
    pub fn each() -> impl Iterator<Item = Result<Disk, Skipped>> {
        let tmpfs: fn() -> Result<Disk, Skipped> = || Disk::tmpfs(64 * MIB, None);
        let overlay: fn() -> Result<Disk, Skipped> = || Disk::overlay("");
        [Disk::ext4, Disk::xfs, Disk::btrfs, tmpfs, overlay].into_iter().map(|make| make())
    }

    fn new(name: &'static str, size: u64) -> Result<Disk, Skipped> {
        require_root()?;
        Ok(Disk { name, layers: Vec::new(), home: Home::new(size)? })
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn image(&self, name: &str, size: u64, fstype: &str, mkfs: &[&str]) -> Result<Image, Skipped> {
        let path = self.dir(name);
        File::create_new(&path)
            .and_then(|file| file.set_len(size))
            .map_err(|error| Skipped(format!("cannot make an image: {error}")))?;
        let mut args: Vec<&dyn AsRef<OsStr>> = mkfs.iter().map(|arg| arg as _).collect();
        args.push(&path);
        host::run(&format!("mkfs.{fstype}"), &args)?;
        Ok(Image { path, block_by_block: false })
    }

    fn with_image(
        self,
        fstype: &'static str,
        size: u64,
        mkfs: &[&str],
        options: &str,
    ) -> Result<Disk, Skipped> {
        let image = self.image("image", size, fstype, mkfs)?;
        let target = self.dir("mnt");
        self.with_layer(fstype, Some(image), target, options)
    }

    fn with_layer(
        mut self,
        fstype: &'static str,
        image: Option<Image>,
        target: PathBuf,
        options: &str,
    ) -> Result<Disk, Skipped> {
        let layer = Layer { fstype, image, target, options: options.into() };
        layer.mount()?;
        self.layers.push(layer);
        Ok(self)
    }
}

/// Makes sure that the first `length` bytes of a file can be written, without changing them.
fn reserve(path: &Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let flags = rustix::fs::FallocateFlags::empty();
    Ok(rustix::fs::fallocate(&file, flags, 0, length)?)
}
