//! The commands and ioctls behind [`Disk`](super::Disk).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::Skipped;

/// How long something may stay busy: for instance while another thread forks with our files open.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Whether this process may mount, change its user, and so on.
pub fn require_root() -> Result<(), Skipped> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(Skipped("needs root".into())) }
}

/// Whether this kernel is of that version or a later one.
pub fn is_since(major: u32, minor: u32) -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_str().expect("a release is ASCII");
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut number = || -> u32 { numbers.next().and_then(|text| text.parse().ok()).unwrap_or(0) };
    (number(), number()) >= (major, minor)
}

/// What only a kernel of that version or a later one has.
pub fn require_since(major: u32, minor: u32, what: &str) -> Result<(), Skipped> {
    match is_since(major, minor) {
        true => Ok(()),
        false => Err(Skipped(format!("{what} needs Linux {major}.{minor}"))),
    }
}

/// Before 5.17 a `syncfs` does not tell of a flush that failed: the library shares no syncs there, and
/// a store no log.
pub fn require_shared_syncs() -> Result<(), Skipped> {
    require_since(5, 17, "a syncfs that tells of a failed flush")
}

/// Whether a directory's filesystem makes files without a name, and so can prove that it is alive. Overlays do
/// on 6.12, and do not on 6.1.
pub fn has_tmpfile(directory: &Path) -> bool {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::from_raw_mode(0o600)) {
        Ok(_) => true,
        Err(errno) => {
            assert_eq!(errno, Errno::OPNOTSUPP, "{}", directory.display());
            assert!(!is_since(6, 12), "{}", directory.display());
            false
        }
    }
}

/// So much memory that can be had, in bytes (proc_meminfo(5)).
pub fn require_memory(bytes: u64) -> Result<(), Skipped> {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    match kilobytes.is_some_and(|kilobytes| kilobytes << 10 >= bytes) {
        true => Ok(()),
        false => Err(Skipped(format!("needs {} MiB of free memory", bytes >> 20))),
    }
}

/// `PATH`, and the sbin directories: `su` without a login shell leaves root without them.
pub fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

/// Runs a command; a failure becomes the reason for a skip, with what the command said.
pub fn run(program: &str, args: &[&dyn AsRef<OsStr>]) -> Result<String, Skipped> {
    let args: Vec<&OsStr> = args.iter().map(|arg| (*arg).as_ref()).collect();
    let output = Command::new(program)
        .args(&args)
        .env("PATH", search_path())
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Skipped(format!("cannot run {program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Skipped(format!("{program} {args:?}, {}: {}", output.status, said.trim())))
}

/// Attaches a loop device to an image and returns its path, such as `/dev/loop3`.
fn attach(image: &Image) -> Result<PathBuf, Skipped> {
    let device = PathBuf::from(run("losetup", &[&"--find", &"--show", &image.path])?);
    if image.block_by_block {
        fs::write(max_sectors(&device), "4").map_err(|error| {
            Skipped(format!("cannot limit the requests of {}: {error}", device.display()))
        })?;
    } else {
        lift_limit(&device); // that a killed process left
    }
    Ok(device)
}

/// A loop device, kept from being given another image by being open.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    open: File,
}

/// The loop devices whose images lie in a directory of this name.
pub fn devices_of(dir_name: &str) -> Vec<Held> {
    let is_ours = |device: &Path| {
        fs::read_to_string(sysfs(device).join("loop/backing_file"))
            .is_ok_and(|image| image.contains(&format!("/{dir_name}/")))
    };
    let Ok(devices) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let devices = devices.flatten().map(|entry| Path::new("/dev").join(entry.file_name()));
    let held = devices.filter(|path| is_ours(path)).filter_map(|path| {
        let open = File::open(&path).ok()?;
        // Once more, now that it stays true.
        is_ours(&path).then_some(Held { path, open })
    });
    held.collect()
}

impl Held {
    /// Detaches the device when its last user closes it: at once, or when it is unmounted.
    pub fn detach(&self) {
        const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
        // SAFETY: LOOP_CLR_FD takes no argument, and the descriptor is open.
        unsafe { libc::ioctl(self.open.as_raw_fd(), LOOP_CLR_FD as _) };
    }

    /// Undoes [`Image::block_by_block`], which the device's next user would inherit.
    pub fn lift_limit(&self) {
        lift_limit(&self.path);
    }
}

fn lift_limit(device: &Path) {
    let limit = max_sectors(device);
    if fs::read_to_string(&limit).is_ok_and(|limit| limit == "4\n") {
        // 0 is the kernel's default; older kernels want a number.
        let _ = ["0", "1280"].iter().any(|size| fs::write(&limit, size).is_ok());
    }
}

fn max_sectors(device: &Path) -> PathBuf {
    sysfs(device).join("queue/max_sectors_kb")
}

fn sysfs(device: &Path) -> PathBuf {
    Path::new("/sys/block").join(device.file_name().unwrap_or_default())
}

/// A file to be used as a disk.
#[derive(Debug, Clone)]
pub struct Image {
    pub path: PathBuf,
    /// Linux 6.18's loop device reports success for a request that the image could store only in
    /// part. With this its requests are single blocks, each of which fits or does not.
    pub block_by_block: bool,
}

/// One mount, in a form that can be repeated.
#[derive(Debug, Clone)]
pub struct Layer {
    pub fstype: &'static str,
    pub image: Option<Image>,
    pub target: PathBuf,
    pub options: String,
}

impl Layer {
    pub fn mount(&self) -> Result<(), Skipped> {
        fs::create_dir_all(&self.target)
            .map_err(|error| Skipped(format!("cannot make {}: {error}", self.target.display())))?;
        let options = if self.options.is_empty() { "defaults" } else { &self.options };
        let device = self.image.as_ref().map(attach).transpose()?;
        let source = device.as_deref().unwrap_or(Path::new("none"));
        run("mount", &[&"-t", &self.fstype, &"-o", &options, &source, &self.target])?;
        if let Some(path) = device
            && let Ok(open) = File::open(&path)
        {
            // It goes with the mount from now on, even if only the end of a container ends that.
            Held { path, open }.detach();
        }
        Ok(())
    }

    pub fn remount_read_only(&self) -> io::Result<()> {
        let flags = rustix::mount::MountFlags::RDONLY;
        patiently(|| rustix::mount::mount_remount(&self.target, flags, c""))
    }
}

/// Unmounts, waiting a few seconds for it to be no longer busy.
pub fn unmount(target: &Path) -> io::Result<()> {
    patiently(|| rustix::mount::unmount(target, UnmountFlags::NOFOLLOW))
}

/// Takes a mount out of sight; it ends when its last user does.
pub fn unmount_lazily(target: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?)
}

/// Mount points in directories of this name, as paths below it, oldest first.
pub fn mounts_in(dir_name: &str) -> Vec<PathBuf> {
    let inside = format!("/{dir_name}/");
    mount_points()
        .iter()
        .filter_map(|point| point.split_once(&inside))
        .map(|(_, below)| PathBuf::from(below))
        .collect()
}

/// All mount points of this process.
pub fn mount_points() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    // The kernel escapes white space, of which TMPDIR might have this.
    points.map(|point| point.replace("\\040", " ")).collect()
}

fn patiently(mut attempt: impl FnMut() -> rustix::io::Result<()>) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(Errno::BUSY) if Instant::now() < end => sleep(Duration::from_millis(10)),
            outcome => return Ok(outcome?),
        }
    }
}
