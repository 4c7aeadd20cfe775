//! A sync that answers 0 is no proof. The filesystem is shut down between the rename and the
//! directory's sync, as a device error does it: the answer must never be Ok unless the version is
//! there after the remount. And the opposite: what the probe cannot tell is no error.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use ringseal::{Durability, Options, Outcome, Step};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use crate::doors::{Door, assert_reads};
use crate::support::{Disk, Skipped, as_user, has_tmpfile, in_child, need, require_root};

const TRIES: usize = 60;
const NOBODY: u32 = 65534;

/// Calls `then` as soon as something is renamed to `name` in `dir`.
pub fn on_rename(dir: &Path, name: &'static str, then: impl FnOnce() + Send + 'static) -> Watch {
    let events = inotify::init(CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&events, dir, WatchFlags::MOVED_TO).unwrap();
    let (ready, started) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        ready.send(()).unwrap();
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&events, &mut buffer);
        loop {
            let event = reader.next().unwrap();
            assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW));
            if event.file_name().is_some_and(|found| found.to_bytes() == name.as_bytes()) {
                return then();
            }
        }
    });
    started.recv().unwrap();
    Watch(thread)
}

pub struct Watch(std::thread::JoinHandle<()>);

impl Watch {
    pub fn wait(self) {
        self.0.join().unwrap();
    }
}

/// Shuts the disk down as soon as `name` is renamed, again and again, until a save has noticed in
/// `step` or behind it. What is answered is checked against what the remount shows.
fn shutdown_at(
    name: &'static str,
    options: &Options,
    step: Step,
    make: fn() -> Result<Disk, Skipped>,
) -> Result<(), Skipped> {
    for door in Door::all() {
        let mut noticed = Vec::new();
        while noticed.iter().filter(|found| **found >= step).count() < 3 {
            assert!(noticed.len() < TRIES, "{}: only {noticed:?}", door.name());
            let disk = std::sync::Arc::new(make()?);
            let target = disk.path().join("state.json");
            fs::write(&target, "old").unwrap();
            File::open(&target).unwrap().sync_all().unwrap();
            File::open(disk.path()).unwrap().sync_all().unwrap();
            let dying = std::sync::Arc::clone(&disk);
            let watch = on_rename(disk.path(), name, move || {
                let _ = dying.shutdown();
            });
            let answer = door.save_with(options, &target, "new");
            watch.wait();
            disk.remount();
            let after = fs::read_to_string(&target).unwrap();
            let context = format!("{} on {}: {answer:?}, {after:?}", door.name(), disk.name());
            match answer {
                Ok(_) => {
                    assert_eq!(after, "new", "{context}: acknowledged and lost");
                    noticed.push(Step::Accept);
                }
                Err(error) => {
                    match error.outcome() {
                        Outcome::Unchanged => assert_eq!(after, "old", "{context}"),
                        Outcome::ReplacedDurabilityUnknown => {
                            assert!(error.step() > Step::Rename, "{context}");
                            assert!(after == "old" || after == "new", "{context}");
                        }
                        _ => panic!("{context}"),
                    }
                    noticed.push(error.step());
                }
            }
        }
    }
    Ok(())
}

#[test]
fn an_ext4_that_dies_at_the_rename() {
    need!(shutdown_at("state.json", &Options::new(), Step::SyncDirectory, Disk::ext4));
}

/// XFS answers 0 to the sync of a directory that is dead: only the probe notices.
#[test]
fn an_xfs_that_dies_at_the_rename() {
    need!(shutdown_at("state.json", &Options::new(), Step::Verify, Disk::xfs));
}

/// Keep-previous has a sync of its own before the target changes: dead there, it is unchanged.
#[test]
fn a_filesystem_that_dies_while_the_old_version_is_kept() {
    let options = Options::new().keep_previous("previous");
    need!(shutdown_at("previous", &options, Step::SyncPrevious, Disk::ext4));
}

/// No inode is left for the probe: the filesystem is alive, it said so.
#[test]
fn a_filesystem_without_an_inode_left_is_alive() {
    let disk = need!(Disk::ext4_with(64 << 20, &["-b", "4096", "-N", "256"], "defaults"));
    let filled = disk.fill_inodes();
    assert!(filled > 10);
    for (index, door) in Door::all().into_iter().enumerate() {
        // One inode for the new file, none for the probe.
        fs::remove_file(disk.path().join("filler").join(index.to_string())).unwrap();
        let target = disk.path().join(door.name());
        let receipt = door.save(&target, "new").unwrap();
        assert_eq!(receipt.durability, Durability::Durable);
        assert_reads(&target, "new");
        let none = door.save(disk.path().join("none"), "new").unwrap_err();
        assert_eq!((none.step(), none.raw_os_error()), (Step::Open, Some(libc::ENOSPC)));
    }
}

/// The directory is closed to the user at the very moment of the rename: saves that were renamed are
/// durable, whatever the probe may see.
#[test]
fn a_directory_that_changes_at_the_rename_is_no_error() {
    need!(require_root());
    let name = "liveness::a_directory_that_changes_at_the_rename_is_no_error";
    in_child(name, || {
        let disk = need!(Disk::ext4());
        let parent = disk.path().join("parent");
        let mut answers = Vec::new();
        for door in ["plain", "ring", "threads"] {
            for _ in 0..20 {
                fs::create_dir(&parent).unwrap();
                fs::set_permissions(&parent, fs::Permissions::from_mode(0o777)).unwrap();
                let closing = parent.clone();
                // Another process, for that one is root all the time.
                let mut closer = Closer::start(&closing);
                let answer = as_user(NOBODY, NOBODY, || {
                    let door = Door::all().into_iter().find(|found| found.name() == door)?;
                    Some(door.save(parent.join("state.json"), "new"))
                });
                closer.wait();
                fs::set_permissions(&parent, fs::Permissions::from_mode(0o777)).unwrap();
                if let Some(answer) = answer {
                    let receipt = answer.expect("it was renamed, and the disk is alive");
                    assert_reads(&parent.join("state.json"), "new");
                    answers.push(receipt.durability);
                }
                fs::remove_dir_all(&parent).unwrap();
            }
        }
        assert!(
            answers.contains(&Durability::DurableUnproven),
            "never closed in time: {answers:?}"
        );
    });
}

/// A child process, still root, that closes a directory to others once `state.json` is renamed in.
struct Closer(libc::pid_t);

impl Closer {
    fn start(dir: &Path) -> Closer {
        let events = inotify::init(CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&events, dir, WatchFlags::MOVED_TO).unwrap();
        let path = std::ffi::CString::new(dir.to_str().unwrap()).unwrap();
        // SAFETY: the child makes system calls only, and leaves by _exit.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(&events, &mut buffer);
            let _ = reader.next();
            // SAFETY: a path that outlives the call.
            unsafe { libc::chmod(path.as_ptr(), 0o755) };
            // SAFETY: leaves without running what belongs to the parent.
            unsafe { libc::_exit(0) };
        }
        Closer(pid)
    }

    fn wait(&mut self) {
        // Ends at the rename, or is ended.
        std::thread::sleep(Duration::from_millis(2));
        // SAFETY: plain numbers, and no status is asked for.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: as above.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}

/// The directory is removed, with all that is in it, at the moment of the rename.
#[test]
fn a_directory_that_is_removed_at_the_rename_is_no_error() {
    let disk = need!(Disk::ext4());
    for door in Door::all() {
        for round in 0..10 {
            let parent = disk.path().join(format!("{}-{round}", door.name()));
            fs::create_dir(&parent).unwrap();
            let going = parent.clone();
            let watch = on_rename(&parent, "state.json", move || {
                fs::remove_dir_all(&going).unwrap();
            });
            let answer = door.save(parent.join("state.json"), "new");
            watch.wait();
            answer.expect("it was renamed, and the disk is alive");
        }
    }
}

#[test]
fn receipts_say_what_the_filesystem_gives() {
    for disk in [Disk::ext4(), Disk::xfs(), Disk::btrfs(), Disk::overlay("")] {
        let disk = need!(disk);
        for door in Door::all() {
            let target = disk.path().join("state.json");
            let durable = door.save(&target, "new").unwrap();
            let expected = match disk.name() {
                "overlay" if !has_tmpfile(disk.path()) => Durability::DurableUnproven,
                _ => Durability::Durable,
            };
            assert_eq!(durable.durability, expected, "{}", disk.name());
            let atomic = Options::new().level(ringseal::Level::Atomic);
            let receipt = door.save_with(&atomic, &target, "new").unwrap();
            assert_eq!(receipt.durability, Durability::Atomic);
        }
    }
    let disk = need!(Disk::tmpfs(1 << 20, None));
    for door in Door::all() {
        let receipt = door.save(disk.path().join("state.json"), "new").unwrap();
        assert_eq!(receipt.durability, Durability::Volatile);
    }
}
