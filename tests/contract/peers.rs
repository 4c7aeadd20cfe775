//! Cases that peers test and that fit nowhere else; `docs/testing.md` tells whose they are.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use ringseal::{AtomicFile, Carrier, Durability, Options, Outcome, Request, Step};
use tempfile::tempdir;

use crate::doors::{Door, assert_reads, assert_unchanged};
use crate::support::{
    Disk, as_user, assert_no_temps, in_child, need, require_root, seccomp, skip, tree,
};

const NOBODY: u32 = 65534;

/// Names that this process will use next, from the one that an open file uses now.
fn names_to_come(dir: &std::path::Path, count: u64) -> Vec<String> {
    let file = AtomicFile::create(dir.join("x")).unwrap();
    let name = tree::temps(dir).pop().unwrap();
    drop(file);
    let (stem, counter) = name.rsplit_once('-').unwrap();
    let counter = u64::from_str_radix(counter, 16).unwrap();
    (1..=count).map(|next| format!("{stem}-{:016x}", counter.wrapping_add(next))).collect()
}

/// Somebody plants files and links under the names that come next. They are neither
/// written nor removed, and the save takes another name; after 16 it gives up.
#[test]
fn a_temporary_name_that_is_taken_is_left_alone() {
    in_child("peers::a_temporary_name_that_is_taken_is_left_alone", || {
        for door in Door::all() {
            let dir = tempdir().unwrap();
            let (target, precious) = (dir.path().join("state.json"), dir.path().join("precious"));
            fs::write(&target, "old").unwrap();
            fs::write(&precious, "precious").unwrap();
            for (index, name) in names_to_come(dir.path(), 6).iter().enumerate() {
                match index % 2 {
                    0 => fs::write(dir.path().join(name), "planted").unwrap(),
                    _ => symlink("precious", dir.path().join(name)).unwrap(),
                }
            }
            let receipt = match &door {
                Door::Plain => ringseal::replace(&target, "new"),
                Door::Ring(writer) | Door::Threads(writer) => {
                    pollster::block_on(writer.replace(&target, "new"))
                }
            };
            // The ring leaves the search for a name to plain calls.
            assert_ne!(receipt.unwrap().carrier, Carrier::Ring);
            assert_reads(&target, "new");
            assert_reads(&precious, "precious");
            assert_eq!(tree::temps(dir.path()).len(), 6);

            for name in names_to_come(dir.path(), 40) {
                fs::write(dir.path().join(name), "planted").unwrap();
            }
            assert_unchanged(door.save(&target, "newer"), Step::Open, libc::EEXIST);
            assert_reads(&target, "new");
            assert_eq!(tree::temps(dir.path()).len(), 46);
        }
    });
}

/// Dropped before the commit, it has made no target where there was none.
#[test]
fn dropped_it_makes_no_target() {
    let dir = tempdir().unwrap();
    let mut file = AtomicFile::create(dir.path().join("state.json")).unwrap();
    file.write_all(b"new").unwrap();
    drop(file);
    assert!(tree::names(dir.path()).is_empty());
}

/// Links to a directory, chains and cycles: each is replaced like any other.
#[test]
fn links_of_every_kind_are_replaced() {
    for door in Door::all() {
        let dir = tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "precious").unwrap();
        fs::create_dir(at("directory")).unwrap();
        symlink("file", at("second")).unwrap();
        symlink("state.json", at("back")).unwrap();
        for points_to in ["directory", "second", "back"] {
            let _ = fs::remove_file(at("state.json"));
            symlink(points_to, at("state.json")).unwrap();
            door.save(at("state.json"), "new").unwrap();
            assert!(fs::symlink_metadata(at("state.json")).unwrap().is_file(), "{points_to}");
            assert_reads(&at("state.json"), "new");
        }
        assert_reads(&at("file"), "precious");
        assert!(tree::names(&at("directory")).is_empty());
        assert!(fs::symlink_metadata(at("second")).unwrap().is_symlink());
        assert!(fs::symlink_metadata(at("back")).unwrap().is_symlink());
    }
}

/// The umask is the process's, and it changes while saves run.
#[test]
fn the_mode_is_exact_while_the_umask_changes() {
    in_child("peers::the_mode_is_exact_while_the_umask_changes", || {
        let dir = tempdir().unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for umask in [0o777, 0o077, 0o022, 0] {
                        // SAFETY: sets a number of the process, which is this test's own.
                        unsafe { libc::umask(umask) };
                    }
                }
            });
            for door in Door::all() {
                for turn in 0..200 {
                    let target = dir.path().join("state.json");
                    let mode = [0o644, 0o600, 0o666, 0o440][turn % 4];
                    door.save_with(&Options::new().mode(mode), &target, "new").unwrap();
                    let found = fs::metadata(&target).unwrap().permissions().mode() & 0o7777;
                    assert_eq!(found, mode, "{}", door.name());
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}

/// A name is bytes, not text.
#[test]
fn any_bytes_make_a_name() {
    let dir = tempdir().unwrap();
    let names: [&[u8]; 5] = ["état-\u{1f512}".as_bytes(), b"\xff\xfe", b"\n", b" ", b"..."];
    for door in Door::all() {
        for name in names {
            let target = dir.path().join(OsStr::from_bytes(name));
            door.save(&target, door.name()).unwrap();
            assert_reads(&target, door.name());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), names.len());
    }
}

/// What a link leads to has a mode that is not the target's.
#[test]
fn the_mode_behind_a_link_is_not_kept() {
    let dir = tempdir().unwrap();
    let (target, behind) = (dir.path().join("state.json"), dir.path().join("behind"));
    fs::write(&behind, "x").unwrap();
    fs::set_permissions(&behind, fs::Permissions::from_mode(0o777)).unwrap();
    for door in Door::all() {
        let _ = fs::remove_file(&target);
        symlink("behind", &target).unwrap();
        door.save_with(&Options::new().keep_mode().mode(0o640), &target, "new").unwrap();
        assert_eq!(fs::symlink_metadata(&target).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::metadata(&behind).unwrap().permissions().mode() & 0o7777, 0o777);
    }
}

/// The directory was opened at the start; where the process is by then is all one.
#[test]
fn a_change_of_directory_does_not_move_it() {
    in_child("peers::a_change_of_directory_does_not_move_it", || {
        let (here, there) = (tempdir().unwrap(), tempdir().unwrap());
        std::env::set_current_dir(here.path()).unwrap();
        let mut file = AtomicFile::create("state.json").unwrap();
        file.write_all(b"new").unwrap();
        let dropped = AtomicFile::create("dropped").unwrap();
        std::env::set_current_dir(there.path()).unwrap();
        file.commit().unwrap();
        drop(dropped);
        assert_reads(&here.path().join("state.json"), "new");
        assert_eq!(tree::names(here.path()).len(), 1);
        assert!(tree::names(there.path()).is_empty());
        std::env::set_current_dir("/").unwrap();
    });
}

/// The working directory was removed: a relative name fails, and says so.
#[test]
fn the_working_directory_is_gone() {
    in_child("peers::the_working_directory_is_gone", || {
        let dir = tempdir().unwrap();
        let doors = Door::all();
        let gone = dir.path().join("gone");
        fs::create_dir(&gone).unwrap();
        std::env::set_current_dir(&gone).unwrap();
        fs::remove_dir(&gone).unwrap();
        for door in &doors {
            assert_unchanged(door.save("state.json", "new"), Step::Open, libc::ENOENT);
        }
        std::env::set_current_dir("/").unwrap();
    });
}

/// A cleaner of old files took the temporary one.
#[test]
fn a_temp_that_a_cleaner_removed() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("state.json");
    fs::write(&target, "old").unwrap();
    let mut file = AtomicFile::create(&target).unwrap();
    file.write_all(b"new").unwrap();
    fs::remove_file(dir.path().join(tree::temps(dir.path()).pop().unwrap())).unwrap();
    let error = file.commit().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Rename, Some(libc::ENOENT)));
    assert_eq!(error.outcome(), Outcome::Unchanged);
    assert_reads(&target, "old");
}

/// With a umask that takes bits away, plain calls need fchmod; the ring does not.
#[test]
fn the_mode_cannot_be_set() {
    in_child("peers::the_mode_cannot_be_set", || {
        let dir = tempdir().unwrap();
        let target = dir.path().join("state.json");
        fs::write(&target, "old").unwrap();
        // SAFETY: sets a number of the process, which is this test's own.
        unsafe { libc::umask(0o077) };
        let doors = Door::all();
        need!(seccomp::deny(&[libc::SYS_fchmod], libc::EPERM));
        let options = Options::new().mode(0o644);
        for door in doors {
            let result = door.save_with(&options, &target, "new");
            match door {
                Door::Ring(_) => {
                    result.unwrap();
                    assert_reads(&target, "new");
                }
                _ => {
                    assert_unchanged(result, Step::Open, libc::EPERM);
                    assert_reads(&target, "old");
                }
            }
            assert_no_temps(dir.path());
        }
    });
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Whatever a save comes to, its descriptors are closed by the answer, or soon after.
#[test]
fn no_descriptor_is_left_open() {
    in_child("peers::no_descriptor_is_left_open", || {
        let dir = tempdir().unwrap();
        let (target, taken) = (dir.path().join("state.json"), dir.path().join("taken"));
        fs::create_dir(&taken).unwrap();
        for door in Door::all() {
            door.save(&target, "warm").unwrap();
            let before = descriptors();
            for _ in 0..50 {
                door.save(&target, "new").unwrap();
                door.save(&taken, "new").unwrap_err();
                door.save(dir.path().join("none/x"), "new").unwrap_err();
                door.save(dir.path().join("n".repeat(256)), "new").unwrap_err();
                let kept = Options::new().keep_previous("taken");
                door.save_with(&kept, &target, "new").unwrap_err();
                drop(AtomicFile::create(&target).unwrap());
            }
            assert_eq!(descriptors(), before, "{}", door.name());
            drop(door);
        }
    });
}

/// The directory's permissions count, not the file's.
#[test]
fn a_read_only_file_is_replaced() {
    need!(require_root());
    in_child("peers::a_read_only_file_is_replaced", || {
        let dir = tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let target = dir.path().join("state.json");
        for index in 0..Door::all().len() {
            fs::write(&target, "old").unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o444)).unwrap();
            as_user(NOBODY, NOBODY, || {
                assert!(fs::write(&target, "in place").is_err());
                Door::all().swap_remove(index).save(&target, "new").unwrap();
            });
            assert_reads(&target, "new");
            assert_no_temps(dir.path());
        }
    });
}

/// Of two who share one batch, each gets its own filesystem's answer.
#[test]
fn a_batch_over_several_filesystems() {
    let disks = [need!(Disk::ext4()), need!(Disk::xfs()), need!(Disk::tmpfs(1 << 20, None))];
    let full = need!(Disk::tmpfs(256 << 10, None));
    for writer in Door::writers() {
        let target = |id: usize| disks[id % 3].path().join(format!("{id}"));
        let mut requests: Vec<_> =
            (0..90).map(|id| Request::new(target(id), format!("state {id}"))).collect();
        requests.insert(45, Request::new(full.path().join("x"), vec![1; 1 << 20]));
        let mut answers = writer.replace_all_blocking(requests);
        assert_unchanged(answers.remove(45), Step::Write, libc::ENOSPC);
        for (id, answer) in answers.into_iter().enumerate() {
            let expected = if id % 3 == 2 { Durability::Volatile } else { Durability::Durable };
            assert_eq!(answer.unwrap().durability, expected);
            assert_reads(&target(id), format!("state {id}"));
        }
        assert!(tree::names(full.path()).is_empty());
    }
    disks.iter().for_each(|disk| assert_no_temps(disk.path()));
}

/// In a user namespace that has no number for the owner.
#[test]
fn the_owner_has_no_id_here() {
    const NAME: &str = "peers::the_owner_has_no_id_here";
    crate::support::child::run_if_child(NAME, || {
        let target = std::path::PathBuf::from(std::env::var("TARGET").unwrap());
        for door in Door::all() {
            let keep = Options::new().keep_owner();
            let result = match &door {
                Door::Plain => keep.replace(&target, "new"),
                Door::Ring(writer) | Door::Threads(writer) => {
                    let request = Request::new(&target, "new").with(keep);
                    pollster::block_on(writer.submit(request))
                }
            };
            assert_unchanged(result, Step::SetAttributes, libc::EINVAL);
            assert_reads(&target, "old");
        }
        // Replaced without its owner, it is this user's.
        ringseal::replace(&target, "mine").unwrap();
    });
    need!(require_root());
    let dir = tempdir().unwrap();
    let target = dir.path().join("state.json");
    fs::write(&target, "old").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::chown(&target, Some(1234), Some(4321)).unwrap();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env("RINGSEAL_TEST_CHILD", NAME)
        .env("TARGET", &target)
        .output();
    let Ok(output) = output else {
        skip!("there is no unshare(1)");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_reads(&target, "mine");
    assert_no_temps(dir.path());
}

/// EDQUOT. A btrfs quota holds for root too.
#[test]
fn a_quota_is_used_up() {
    let disk = need!(Disk::btrfs());
    let btrfs = |arguments: &[&str]| {
        let status = Command::new("btrfs").arg("-q").args(arguments).arg(disk.path()).status();
        status.is_ok_and(|status| status.success())
    };
    if !btrfs(&["quota", "enable"]) || !btrfs(&["qgroup", "limit", "2M", "0/5"]) {
        skip!("there is no btrfs(8), or no quota");
    }
    let target = disk.path().join("state.json");
    fs::write(&target, "old").unwrap();
    for door in Door::all() {
        disk.wait_for_room();
        let error = door.save(&target, vec![1; 8 << 20]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EDQUOT), "{}: {error}", door.name());
        assert!(matches!(error.step(), Step::Write | Step::Sync), "{error}");
        assert_eq!(error.outcome(), Outcome::Unchanged, "{error}");
        assert_reads(&target, "old");
        assert_no_temps(disk.path());
    }
}

/// Without /proc the list is not found; it must not be lost in silence, for the
/// mode's group bits are only its mask.
#[test]
fn an_access_list_that_cannot_be_read_is_not_lost() {
    in_child("peers::an_access_list_that_cannot_be_read_is_not_lost", || {
        let disk = need!(Disk::ext4());
        let target = disk.path().join("state.json");
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        let list = ["-m", "u:1234:rw,g::-"];
        assert!(Command::new("setfacl").args(list).arg(&target).status().unwrap().success());
        let before = Command::new("getfacl").arg("-cpn").arg(&target).output().unwrap().stdout;
        let outside = fs::File::open("/").unwrap();
        std::os::unix::fs::chroot(disk.path()).unwrap();
        let results: Vec<_> = Door::all()
            .iter()
            .map(|door| match door {
                Door::Plain => Options::new().keep_mode().replace("/state.json", "new"),
                Door::Ring(writer) | Door::Threads(writer) => {
                    let keep = Options::new().keep_mode();
                    let request = Request::new("/state.json", "new").with(keep);
                    pollster::block_on(writer.submit(request))
                }
            })
            .collect();
        rustix::process::fchdir(&outside).unwrap();
        std::os::unix::fs::chroot(".").unwrap();
        let after = Command::new("getfacl").arg("-cpn").arg(&target).output().unwrap().stdout;
        assert_eq!(String::from_utf8(after), String::from_utf8(before), "{results:?}");
    });
}

/// The pool's threads must not be those of whoever came first.
#[test]
fn one_callers_credentials_do_not_serve_another() {
    need!(require_root());
    in_child("peers::one_callers_credentials_do_not_serve_another", || {
        use std::os::unix::fs::MetadataExt;
        let dir = tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let writer = crate::doors::writer(ringseal::Engine::Threads);
        let save = |name: &str| {
            let requests = (0..100).map(|id| (dir.path().join(format!("{name}{id}")), "x"));
            let answers = writer.replace_all_blocking(requests.collect::<Vec<_>>());
            assert!(answers.iter().all(|answer| answer.is_ok()), "{answers:?}");
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: a plain number; changes this thread only.
                unsafe { libc::syscall(libc::SYS_setfsuid, NOBODY) };
                save("theirs");
            });
        });
        save("mine");
        for id in 0..100 {
            assert_eq!(fs::metadata(dir.path().join(format!("mine{id}"))).unwrap().uid(), 0);
        }
    });
}
