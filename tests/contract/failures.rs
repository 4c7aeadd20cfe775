//! Every step's failure, provoked for real: what was there is still there, the error names the
//! step, the target and the errno, and no temporary file is left. (Sync and what comes after the
//! rename: `sync_failure`, `liveness`.)

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ringseal::{Cause, Level, Options, Outcome, Step, Target, Writer};
use tempfile::tempdir;

use crate::doors::{Door, assert_reads, assert_unchanged};
use crate::support::{Disk, as_user, assert_no_temps, chattr, in_child, need, require_root, tree};

const NOBODY: u32 = 65534;

#[test]
fn no_room_at_the_write() {
    let disks = [
        Disk::ext4_with(64 << 20, &["-b", "4096"], "defaults"),
        Disk::tmpfs(1 << 20, None),
        Disk::xfs(),
        Disk::btrfs(),
    ];
    for disk in disks {
        let disk = need!(disk);
        let target = disk.path().join("state.json");
        fs::write(&target, "old").unwrap();
        disk.fill_blocks();
        for door in Door::all() {
            let error = door.save(&target, vec![1; 8 << 20]).unwrap_err();
            let context = format!("{} on {}: {error}", door.name(), disk.name());
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{context}");
            // XFS and btrfs may have no room for the temp's inode already.
            assert!(matches!(error.step(), Step::Open | Step::Write | Step::Sync), "{context}");
            assert_eq!(error.outcome(), Outcome::Unchanged, "{context}");
            assert_eq!(error.target(), target, "{context}");
            assert_reads(&target, "old");
            assert_no_temps(disk.path());
        }
    }
}

#[test]
fn a_file_may_not_grow_that_large() {
    in_child("failures::a_file_may_not_grow_that_large", || {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let dir = tempdir().unwrap();
        let target = dir.path().join("state.json");
        fs::write(&target, "old").unwrap();
        let doors = Door::all();
        // SAFETY: ignoring a signal touches no memory. By default SIGXFSZ kills the caller.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let limit = Rlimit { current: Some(4096), maximum: None };
        setrlimit(Resource::Fsize, limit).unwrap();
        for door in doors {
            let result = door.save(&target, vec![1; 8192]);
            assert_unchanged(result, Step::Write, libc::EFBIG);
            assert_reads(&target, "old");
            assert_no_temps(dir.path());
        }
    });
}

#[test]
fn the_target_is_a_directory() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("state.json");
    fs::create_dir(&target).unwrap();
    for door in Door::all() {
        assert_unchanged(door.save(&target, "new"), Step::Check, libc::EISDIR);
        assert!(target.is_dir());
        assert_no_temps(dir.path());
    }
}

#[test]
fn the_parent_is_missing_or_no_directory() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for door in Door::all() {
        let missing = door.save(dir.path().join("none/state.json"), "new");
        assert_unchanged(missing, Step::OpenDirectory, libc::ENOENT);
        let file = door.save(dir.path().join("file/state.json"), "new");
        assert_unchanged(file, Step::OpenDirectory, libc::ENOTDIR);
    }
}

#[test]
fn a_path_that_ends_in_no_name() {
    let dir = tempdir().unwrap();
    for door in Door::all() {
        for path in ["", "/", ".", "..", "a/", "a/.", "a/.."] {
            let result = door.save(dir.path().join("x").with_file_name(path), "new");
            let result = if path.is_empty() { door.save("", "new") } else { result };
            let error = result.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{path:?}: {error}");
            assert_eq!(error.step(), Step::Accept);
        }
        let nul = door.save("a\0b", "new").unwrap_err();
        assert_eq!(nul.kind(), std::io::ErrorKind::InvalidInput);
    }
    assert!(tree::names(dir.path()).is_empty());
}

#[test]
fn the_parent_may_not_be_written_or_read() {
    need!(require_root());
    in_child("failures::the_parent_may_not_be_written_or_read", || {
        let dir = tempdir().unwrap();
        open_up(dir.path());
        let parent = dir.path().join("parent");
        fs::create_dir(&parent).unwrap();
        let target = parent.join("state.json");
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).unwrap();
        as_user(NOBODY, NOBODY, || {
            for door in Door::all() {
                assert_unchanged(door.save(&target, "new"), Step::Open, libc::EACCES);
            }
        });
        assert_reads(&target, "old");

        // Writable, but a sync needs the directory open for reading.
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o733)).unwrap();
        as_user(NOBODY, NOBODY, || {
            for door in Door::all() {
                assert_unchanged(door.save(&target, "new"), Step::OpenDirectory, libc::EACCES);
            }
            let atomic = Options::new().level(Level::Atomic).mode(0o644);
            atomic.replace(&target, "plain").unwrap();
            assert_reads(&target, "plain");
            for writer in Door::writers() {
                let kind = writer.engine().kind.name();
                let request = ringseal::Request::new(&target, kind).with(atomic.clone());
                pollster::block_on(writer.submit(request)).unwrap();
                assert_reads(&target, kind);
            }
        });
        assert_no_temps(&parent);
    });
}

#[test]
fn a_read_only_filesystem() {
    let disk = need!(Disk::ext4());
    let target = disk.path().join("state.json");
    fs::write(&target, "old").unwrap();
    disk.remount_read_only();
    for door in Door::all() {
        assert_unchanged(door.save(&target, "new"), Step::Open, libc::EROFS);
        assert_reads(&target, "old");
    }
}

#[test]
fn names_of_255_bytes_and_of_256() {
    let dir = tempdir().unwrap();
    for door in Door::all() {
        let longest = dir.path().join("n".repeat(255));
        door.save(&longest, door.name()).unwrap();
        assert_reads(&longest, door.name());
        let too_long = dir.path().join("n".repeat(256));
        assert_unchanged(door.save(&too_long, "new"), Step::Check, libc::ENAMETOOLONG);
        let previous = Options::new().keep_previous("p".repeat(256));
        let result = door.save_with(&previous, &longest, "new");
        assert_unchanged(result, Step::RenamePrevious, libc::ENAMETOOLONG);
        assert_reads(&longest, door.name());
        assert_eq!(tree::names(dir.path()).len(), 1);
    }
}

#[test]
fn no_descriptor_is_free() {
    in_child("failures::no_descriptor_is_free", || {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let dir = tempdir().unwrap();
        let target = dir.path().join("state.json");
        fs::write(&target, "old").unwrap();
        ringseal::replace(dir.path().join("warm-up"), "").unwrap();
        let before = getrlimit(Resource::Nofile);
        for door in Door::all() {
            let next = fs::File::open("/").unwrap();
            let free = std::os::fd::AsRawFd::as_raw_fd(&next) as u64;
            drop(next);
            let limit = |current| Rlimit { current: Some(current), ..before };
            // Not even the directory's.
            setrlimit(Resource::Nofile, limit(free)).unwrap();
            let none = door.save(&target, "new");
            // The directory's, but not the file's: only a direct descriptor needs none.
            setrlimit(Resource::Nofile, limit(free + 1)).unwrap();
            let one = door.save(&target, "one");
            setrlimit(Resource::Nofile, before).unwrap();
            assert_unchanged(none, Step::OpenDirectory, libc::EMFILE);
            match door {
                Door::Ring(_) => {
                    one.unwrap();
                    assert_reads(&target, "one");
                    fs::write(&target, "old").unwrap();
                }
                _ => {
                    assert_unchanged(one, Step::Open, libc::EMFILE);
                }
            }
            assert_reads(&target, "old");
            assert_no_temps(dir.path());
        }
    });
}

#[test]
fn a_directory_that_was_deleted_and_remade() {
    for door in Door::all() {
        let dir = tempdir().unwrap();
        let parent = dir.path().join("container");
        let target = parent.join("state.json");
        fs::create_dir(&parent).unwrap();
        door.save(&target, "first").unwrap();
        let held = fs::File::open(&parent).unwrap();
        fs::remove_dir_all(&parent).unwrap();
        assert_unchanged(door.save(&target, "none"), Step::OpenDirectory, libc::ENOENT);
        // A descriptor that the caller kept is stale, and says so.
        let stale = Target::at(std::os::fd::OwnedFd::from(held), "state.json");
        assert_unchanged(door.save(stale, "none"), Step::Open, libc::ENOENT);
        fs::create_dir(&parent).unwrap();
        door.save(&target, "second").unwrap();
        assert_reads(&target, "second");
    }
}

/// An immutable target is the one that lets every step before the rename pass.
#[test]
fn the_rename_fails() {
    let disk = need!(Disk::ext4());
    let target = disk.path().join("state.json");
    fs::write(&target, "old").unwrap();
    let _immutable = Immutable::make(&target);
    for door in Door::all() {
        let error = assert_unchanged(door.save(&target, "new"), Step::Rename, libc::EPERM);
        assert!(error.to_string().ends_with("unchanged"), "{error}");
        assert_reads(&target, "old");
        assert_no_temps(disk.path());
    }
}

#[test]
fn the_previous_version_cannot_be_kept() {
    let disk = need!(Disk::ext4());
    let target = disk.path().join("state.json");
    let options = Options::new().keep_previous("previous");
    fs::write(&target, "old").unwrap();
    fs::create_dir(disk.path().join("previous")).unwrap();
    for door in Door::all() {
        let result = door.save_with(&options, &target, "new");
        assert_unchanged(result, Step::RenamePrevious, libc::EISDIR);
    }
    {
        let _immutable = Immutable::make(&target);
        for door in Door::all() {
            let result = door.save_with(&options, &target, "new");
            assert_unchanged(result, Step::LinkPrevious, libc::EPERM);
        }
    }
    assert_reads(&target, "old");
    assert_no_temps(disk.path());
}

#[test]
fn the_owner_cannot_be_kept() {
    need!(require_root());
    in_child("failures::the_owner_cannot_be_kept", || {
        let dir = tempdir().unwrap();
        open_up(dir.path());
        let target = dir.path().join("state.json");
        fs::write(&target, "old").unwrap();
        as_user(NOBODY, NOBODY, || {
            let keep = Options::new().keep_owner();
            let plain = keep.replace(&target, "new");
            assert_unchanged(plain, Step::SetAttributes, libc::EPERM);
            for writer in Door::writers() {
                let request = ringseal::Request::new(&target, "new").with(keep.clone());
                let result = pollster::block_on(writer.submit(request));
                assert_unchanged(result, Step::SetAttributes, libc::EPERM);
            }
        });
        assert_reads(&target, "old");
        assert_no_temps(dir.path());
    });
}

#[test]
fn one_that_fails_does_not_touch_the_others() {
    for writer in Door::writers() {
        let dir = tempdir().unwrap();
        let target = |id: usize| match id % 5 {
            3 => dir.path().join(format!("none/{id}")),
            _ => dir.path().join(format!("{id}")),
        };
        let requests: Vec<_> = (0..600).map(|id| (target(id), format!("state {id}"))).collect();
        let answers = writer.replace_all_blocking(requests);
        assert_eq!(answers.len(), 600);
        for (id, answer) in answers.into_iter().enumerate() {
            if id % 5 == 3 {
                let error = assert_unchanged(answer, Step::OpenDirectory, libc::ENOENT);
                assert_eq!(error.target(), target(id));
            } else {
                answer.unwrap();
                assert_reads(&target(id), format!("state {id}"));
            }
        }
        assert_no_temps(dir.path());
    }
}

#[test]
fn errors_tell_all() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("none/state.json");
    let error = Writer::new().unwrap().replace_blocking(&target, "new").unwrap_err();
    let text = format!(
        "{}: open-directory: No such file or directory (os error 2); unchanged",
        target.display()
    );
    assert_eq!(error.to_string(), text);
    assert!(matches!(error.cause(), Cause::Io(_)));
    let source = std::error::Error::source(&error).expect("a source");
    assert_eq!(source.to_string(), "No such file or directory (os error 2)");
    let io = std::io::Error::from(error);
    assert_eq!((io.kind(), io.raw_os_error()), (std::io::ErrorKind::NotFound, Some(2)));
}

#[test]
fn a_value_that_does_not_serialise_changes_nothing() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("state.json");
    ringseal::replace_json(&target, &[1, 2]).unwrap();
    assert_reads(&target, "[1,2]");
    // A map whose keys are no strings has no JSON.
    let value = std::collections::BTreeMap::from([([1], 2)]);
    for writer in Door::writers() {
        let error = pollster::block_on(writer.replace_json(&target, &value)).unwrap_err();
        assert!(matches!(error.cause(), Cause::Serialize(_)), "{error}");
        assert_eq!(error.outcome(), Outcome::Unchanged);
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::InvalidData);
    }
    assert!(ringseal::replace_json(&target, &value).is_err());
    assert_reads(&target, "[1,2]");
    assert_eq!(tree::names(dir.path()).len(), 1);
}

/// Lets every user in.
fn open_up(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
}

/// A file with the immutable flag, until it is dropped.
struct Immutable<'a>(&'a Path);

impl Immutable<'_> {
    fn make(path: &Path) -> Immutable<'_> {
        chattr("+i", path);
        Immutable(path)
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        chattr("-i", self.0);
    }
}
