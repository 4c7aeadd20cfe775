//! The system calls that rustix does not have: loop devices, ioctls, descriptor tables.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
const FS_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587D;
/// Nothing is written any more, not even the filesystem's log.
const SHUTDOWN_NOLOGFLUSH: u32 = 2;
const BTRFS_IOC_FORGET_DEV: libc::Ioctl = 0x5000_9405;

/// `struct loop_config` of linux/loop.h, with `struct loop_info64` in it.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info_before_flags: [u8; 52],
    flags: u32,
    info_after_flags: [u8; 176],
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopConfig>() == 304);

fn done(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// The number of a loop device that was free a moment ago.
pub fn free_loop(control: &File) -> io::Result<i32> {
    // SAFETY: the call takes no argument.
    done(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })
}

/// Puts `backing` behind a free loop device until nobody has the device open; past the page cache
/// and several requests at once, if `direct`.
pub fn configure_loop(device: &File, backing: &File, direct: bool) -> io::Result<()> {
    let config = LoopConfig {
        fd: backing.as_raw_fd() as u32,
        block_size: 512,
        info_before_flags: [0; 52],
        flags: LO_FLAGS_AUTOCLEAR | if direct { LO_FLAGS_DIRECT_IO } else { 0 },
        info_after_flags: [0; 176],
        reserved: [0; 8],
    };
    // SAFETY: the kernel reads one `loop_config`, whose layout this is.
    done(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) })?;
    Ok(())
}

/// Cuts a mounted filesystem off its disk.
pub fn shut_down(root: &File) -> io::Result<()> {
    let how = SHUTDOWN_NOLOGFLUSH;
    // SAFETY: the kernel reads one u32.
    done(unsafe { libc::ioctl(root.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const how) })?;
    Ok(())
}

/// btrfs remembers devices by the filesystem's id, and an older state of it would be refused: let
/// it forget all those which are not mounted.
pub fn btrfs_forget() -> io::Result<()> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/btrfs-control")?;
    let nothing_named = [0u8; 4096];
    // SAFETY: the kernel reads one `btrfs_ioctl_vol_args` of 4096 bytes.
    let answer =
        unsafe { libc::ioctl(control.as_raw_fd(), BTRFS_IOC_FORGET_DEV, &raw const nothing_named) };
    done(answer)?;
    Ok(())
}

/// Gives the calling thread, and those it will start, a descriptor table of their own which holds
/// the standard descriptors only.
///
/// # Safety
/// The thread, and the threads it starts, own no descriptor and use none that another thread has.
pub unsafe fn own_descriptors() -> io::Result<()> {
    // SAFETY: the caller says that no descriptor of this thread is in use.
    done(unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_UNSHARE as i32) })?;
    Ok(())
}

/// Gives the calling thread, and those it will start, a mount namespace of their own.
pub fn own_mounts() -> io::Result<()> {
    // SAFETY: descriptors stay shared (no CLONE_FILES).
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
    Ok(())
}
