//! A sync that fails. The device below an ext4 without a journal is full: the write succeeds, the
//! sync says ENOSPC. On every kernel since 6.0 the obvious chain goes on and renames; see
//! `docs/architecture.md`.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

use io_uring::squeue::Flags;
use io_uring::types::{DestinationSlot, Fd, Fixed};
use io_uring::{IoUring, opcode};
use ringseal::{Options, Outcome, Step};

use crate::doors::{Door, assert_reads};
use crate::support::{Disk, assert_no_temps, need, skip};

/// What the device can still take, and a payload that it cannot.
const ROOM: u64 = 1 << 20;
const TOO_MUCH: usize = 8 << 20;

#[test]
fn the_old_version_stands_when_the_sync_fails() {
    for door in Door::all() {
        for keep_previous in [false, true] {
            let disk = need!(Disk::ext4_over_full_tmpfs(ROOM));
            let target = disk.path().join("config.json");
            fs::write(&target, "old").unwrap();
            File::open(&target).unwrap().sync_all().unwrap();
            let mut options = Options::new();
            if keep_previous {
                options = options.keep_previous("previous");
            }
            let error = door.save_with(&options, &target, vec![b'n'; TOO_MUCH]).unwrap_err();
            let context = format!("{}: {error}", door.name());
            assert!(matches!(error.step(), Step::Sync | Step::Write), "{context}");
            let errno = error.raw_os_error();
            assert!(matches!(errno, Some(libc::ENOSPC | libc::EIO)), "{context}");
            assert_eq!(error.outcome(), Outcome::Unchanged, "{context}");
            assert_reads(&target, "old");
            assert_no_temps(disk.path());
            assert!(!disk.path().join("previous").exists());
        }
    }
}

/// The same disk, the same payload, and the chain that everybody writes first. This is why the
/// library has no fsync in its chain.
#[test]
fn the_obvious_chain_loses_the_file() {
    let disk = need!(Disk::ext4_over_full_tmpfs(ROOM));
    let target = disk.path().join("config.json");
    fs::write(&target, "old").unwrap();
    File::open(&target).unwrap().sync_all().unwrap();
    let dir = File::open(disk.path()).unwrap();
    let Ok(results) = obvious_chain(&dir, c"temp", c"config.json", &vec![b'n'; TOO_MUCH]) else {
        skip!("there is no io_uring here");
    };
    let [open, write, sync, rename, _sync_directory] = results;
    assert_eq!((open, write), (0, TOO_MUCH as i32));
    assert!(sync == -libc::ENOSPC || sync == -libc::EIO, "the sync failed: {sync}");
    if rename == -libc::ECANCELED {
        skip!("this kernel breaks a chain at a failed fsync");
    }
    assert_eq!(rename, 0, "and the rename was carried out all the same");
    assert_ne!(fs::read(&target).unwrap(), b"old", "the old version is gone");
    drop(dir);
    disk.remount();
    let left =
        fs::read(&target).map_or(0, |read| read.iter().filter(|byte| **byte == b'n').count());
    assert!(left < TOO_MUCH, "and the new one never reached the disk: {left} bytes of it");
}

/// openat -> write -> fsync -> renameat -> fsync(directory), linked.
fn obvious_chain(
    dir: &File,
    temp: &CStr,
    target: &CStr,
    bytes: &[u8],
) -> std::io::Result<[i32; 5]> {
    let mut ring = IoUring::new(8)?;
    ring.submitter().register_files_sparse(1)?;
    let slot = DestinationSlot::try_from_slot_target(0).ok();
    let fd = Fd(dir.as_raw_fd());
    let create = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
    let entries = [
        opcode::OpenAt::new(fd, temp.as_ptr()).flags(create).mode(0o600).file_index(slot).build(),
        opcode::Write::new(Fixed(0), bytes.as_ptr(), bytes.len() as u32).build(),
        opcode::Fsync::new(Fixed(0)).build(),
        opcode::RenameAt::new(fd, temp.as_ptr(), fd, target.as_ptr()).build(),
        opcode::Fsync::new(fd).build(),
    ];
    for (index, entry) in entries.into_iter().enumerate() {
        let link = if index < 4 { Flags::IO_LINK } else { Flags::empty() };
        // SAFETY: names, bytes and directory outlive the wait below.
        unsafe { ring.submission().push(&entry.flags(link).user_data(index as u64)) }
            .expect("room for five entries");
    }
    ring.submit_and_wait(5)?;
    let mut results = [0; 5];
    for completion in ring.completion() {
        results[completion.user_data() as usize] = completion.result();
    }
    Ok(results)
}

/// After a failed sync the file is given up: no second sync of it, which would answer 0. The next
/// save is a new file, and its answer holds after a remount.
#[test]
fn a_save_after_a_failed_one_tells_the_truth() {
    for door in Door::all() {
        let disk = need!(Disk::ext4_over_full_tmpfs(ROOM));
        let target = disk.path().join("config.json");
        fs::write(&target, "old").unwrap();
        File::open(&target).unwrap().sync_all().unwrap();
        door.save(&target, vec![b'n'; TOO_MUCH]).unwrap_err();
        // The device may still be full; what counts is that the answer is true.
        let expected = match door.save(&target, "small") {
            Ok(_) => "small",
            Err(error) => {
                assert_eq!(error.outcome(), Outcome::Unchanged, "{error}");
                "old"
            }
        };
        drop(door);
        disk.remount();
        assert_reads(&target, expected);
        assert_no_temps(Path::new(disk.path()));
    }
}
