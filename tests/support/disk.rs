//! A filesystem made for one test.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::host::{self, Layer};
use super::leftovers::Home;
use super::{Skipped, slow, tree};

/// A filesystem of its own, mounted at [`Disk::path`] and gone when this is dropped.
#[derive(Debug)]
pub struct Disk {
    pub(super) name: &'static str,
    pub(super) layers: Vec<Layer>,
    // Last: dropping it unmounts everything and deletes the image.
    pub(super) home: Home,
}

impl Disk {
    /// The kind, for messages: `ext4`, `xfs`, `btrfs`, `tmpfs`, `overlay`, ...
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The root directory of the filesystem.
    pub fn path(&self) -> &Path {
        &self.top().target
    }

    fn top(&self) -> &Layer {
        self.layers.last().expect("no constructor returns a disk that is not mounted")
    }

    /// Makes the mount read-only; whoever has a file open for writing must close it first.
    pub fn remount_read_only(&self) {
        self.top().remount_read_only().expect("remount read-only");
    }

    /// A power cut: from now on nothing reaches the device, not even the journal.
    ///
    /// Everything fails from here on until [`Disk::remount`] shows what survived. On an overlay
    /// it is the filesystem below that stops. An ext4 without a journal loses nothing this way.
    pub fn shutdown(&self) -> Result<(), Skipped> {
        const FS_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587D;
        let without_log_flush: u32 = 2;
        let root = File::open(&self.layers[0].target).expect("open the root directory");
        // SAFETY: FS_IOC_SHUTDOWN reads one u32, which outlives the call.
        let answer =
            unsafe { libc::ioctl(root.as_raw_fd(), FS_IOC_SHUTDOWN as _, &without_log_flush) };
        if answer == 0 {
            return Ok(());
        }
        Err(Skipped(format!("{} cannot be shut down: {}", self.name, io::Error::last_os_error())))
    }

    /// Unmounts and mounts again, with journal recovery if there is something to recover.
    pub fn remount(&self) {
        assert_ne!(self.layers[0].fstype, "tmpfs", "a tmpfs forgets everything");
        let devices = host::devices_of(self.home.name());
        for layer in self.layers.iter().rev() {
            host::unmount(&layer.target).expect("unmount: does the test still have files open?");
        }
        // Mounting again may take other devices.
        devices.iter().for_each(|device| device.lift_limit());
        drop(devices);
        for layer in &self.layers {
            layer.mount().expect("mount again");
        }
    }

    /// Waits until there is room for a file again: what was discarded takes it up until that is committed, and on
    /// Linux 6.1 a moment longer (seen).
    pub fn wait_for_room(&self) {
        let path = self.path().join("room");
        let end = Instant::now() + host::PATIENCE * slow();
        let write = || {
            rustix::fs::syncfs(File::open(self.path())?)?;
            let mut file = File::create(&path)?;
            file.write_all(&[1; 4096])?;
            file.sync_all()
        };
        while let Err(error) = write() {
            let is_full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
            assert!(is_full && Instant::now() < end, "no room on {}: {error}", self.name);
            sleep(Duration::from_millis(20));
        }
        fs::remove_file(&path).expect("remove what was written");
    }

    /// Creates empty files in `filler/` until there are no inodes left; returns how many.
    ///
    /// For filesystems with a fixed number: ext4 (`-N`), tmpfs (`nr_inodes`).
    pub fn fill_inodes(&self) -> usize {
        const TOO_MANY: usize = 200_000;
        let dir = self.path().join("filler");
        let outcome = fs::create_dir_all(&dir).and_then(|()| {
            (0..TOO_MANY).try_for_each(|n| File::create_new(dir.join(n.to_string())).map(drop))
        });
        match outcome {
            Err(error) if error.kind() == ErrorKind::StorageFull => tree::names(&dir).len(),
            Err(error) => panic!("filling the inodes of {}: {error}", self.name),
            Ok(()) => panic!("{} has no end of inodes", self.name),
        }
    }

    /// Writes to the file `filler.blocks` until no block is left; returns its size.
    pub fn fill_blocks(&self) -> u64 {
        let path = self.path().join("filler.blocks");
        let mut file =
            OpenOptions::new().append(true).create(true).open(path).expect("open the filler");
        loop {
            let written = fill(&mut file);
            // What was set aside for delayed allocation and not used comes back here.
            match file.sync_all() {
                Err(error) if error.kind() != ErrorKind::StorageFull => {
                    panic!("filling {}: {error}", self.name)
                }
                _ if written == 0 => return file.metadata().expect("stat the filler").len(),
                _ => {}
            }
        }
    }
}

/// Appends until there is no room, ever smaller pieces towards the end.
fn fill(file: &mut File) -> u64 {
    let piece = vec![0x5a; 1 << 20];
    let (mut size, mut written) = (piece.len(), 0);
    while size >= 512 {
        match file.write(&piece[..size]) {
            Ok(count) => written += count as u64,
            Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
            Err(error) => panic!("filling: {error}"),
        }
    }
    written
}
