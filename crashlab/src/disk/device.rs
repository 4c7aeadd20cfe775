//! A loop device over a recording disk, and a filesystem mounted from it.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::filesystem::Filesystem;
use super::sys;

/// So long is waited for somebody else who still holds a device or mount: a killed process lets go
/// of its descriptors some milliseconds after its death.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives this thread, and those it starts, mounts that nobody else sees, and that go with the
/// process. Call it before other threads start.
pub fn enter_private_mounts() -> io::Result<()> {
    sys::own_mounts()?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", flags)?)
}

/// Asks until the answer is true, or for so long as seems reasonable.
fn wait_until(mut there: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(50);
    while !there() {
        if begin.elapsed() > PATIENCE {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
    true
}

/// Unmounts; if somebody holds it open for long, an error of `EBUSY`.
pub(super) fn unmount(path: &Path) -> io::Result<()> {
    let mut answer = Ok(());
    wait_until(|| {
        answer = rustix::mount::unmount(path, UnmountFlags::empty());
        answer != Err(Errno::BUSY)
    });
    Ok(answer?)
}

/// Takes a mount out of sight; it ends when nobody has anything of it open.
pub(super) fn detach(path: &Path) {
    // There is nothing left to try if this fails.
    let _ = rustix::mount::unmount(path, UnmountFlags::DETACH);
}

/// What can stand behind a loop device.
pub trait Backing {
    /// Whether the device goes past the page cache, with several requests at once.
    const DIRECT: bool;

    fn open(&self) -> io::Result<File>;

    /// What the kernel calls it.
    fn name(&self) -> String;
}

/// A loop device over a disk; dropped, it is free again. Unmount first what is mounted from it.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    backing: String,
    open: Option<File>,
}

impl Device {
    pub fn attach<B: Backing>(disk: &B) -> io::Result<Device> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let control = options.open("/dev/loop-control")?;
        let backing = disk.open()?;
        let mut attempts = 0;
        loop {
            let path = PathBuf::from(format!("/dev/loop{}", sys::free_loop(&control)?));
            let open = options.open(&path)?;
            match sys::configure_loop(&open, &backing, B::DIRECT) {
                Ok(()) => {
                    return Ok(Device { path, backing: disk.name(), open: Some(open) });
                }
                // Somebody else was quicker.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempts < 10_000 => {
                    attempts += 1;
                    thread::yield_now();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Mounts the filesystem that is on the disk.
    pub fn mount(&self, filesystem: &Filesystem, at: &Path) -> io::Result<Mounted> {
        let options = CString::new(filesystem.options)?;
        let mount = || {
            rustix::mount::mount(
                &self.path,
                at,
                filesystem.kind,
                MountFlags::empty(),
                options.as_c_str(),
            )
        };
        let btrfs = filesystem.kind == "btrfs";
        match mount() {
            // It has seen a newer state of this filesystem on another device.
            Err(Errno::EXIST) if btrfs => {
                sys::btrfs_forget()?;
                mount()?;
            }
            answer => answer?,
        }
        Ok(Mounted { path: at.into(), btrfs, mounted: true })
    }

    /// Whether the device is still over this disk, held by somebody else.
    fn attached(&self) -> bool {
        let name = self.path.file_name().unwrap_or_default();
        let file = Path::new("/sys/block").join(name).join("loop/backing_file");
        std::fs::read_to_string(file)
            .is_ok_and(|backing| backing.trim_end_matches('\n') == self.backing)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // The last one who closes it frees it (LO_FLAGS_AUTOCLEAR).
        self.open = None;
        wait_until(|| !self.attached());
    }
}

/// A mounted filesystem; dropped, it is unmounted.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    btrfs: bool,
    mounted: bool,
}

impl Mounted {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts; waits some time for those who still hold it open.
    pub fn unmount(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        unmount(&self.path)?;
        self.mounted = false;
        if self.btrfs {
            // If it can't, the next mount tries again.
            let _ = sys::btrfs_forget();
        }
        Ok(())
    }

    /// Cuts the filesystem off its disk, as a crash does, without writing its log.
    pub fn shutdown(&self) -> io::Result<()> {
        sys::shut_down(&File::open(&self.path)?)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted && self.end().is_err() {
            detach(&self.path);
        }
    }
}
