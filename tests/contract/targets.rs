//! What stands at the target, how it can be named, and what it cannot be made to mean.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use ringseal::{Cause, FileKind, Options, Root, Step, Target};
use rustix::fs::{CWD, FileType, Mode};
use tempfile::tempdir;

use crate::doors::{Door, assert_reads, assert_unchanged};
use crate::support::{Disk, assert_no_temps, in_child, need, require_root, seccomp};

#[test]
fn a_link_is_replaced_not_written_through() {
    for door in Door::all() {
        let dir = tempdir().unwrap();
        let (target, elsewhere) = (dir.path().join("state.json"), dir.path().join("elsewhere"));
        fs::write(&elsewhere, "precious").unwrap();
        for points_to in ["elsewhere", "nowhere", "state.json"] {
            let _ = fs::remove_file(&target);
            symlink(points_to, &target).unwrap();
            door.save(&target, "new").unwrap();
            assert!(fs::symlink_metadata(&target).unwrap().is_file());
            assert_reads(&target, "new");
            assert_reads(&elsewhere, "precious");
        }
        // A link on the way to the directory is the caller's to use.
        symlink(".", dir.path().join("here")).unwrap();
        door.save(dir.path().join("here/state.json"), "through").unwrap();
        assert_reads(&target, "through");
    }
}

#[test]
fn what_is_no_file_is_refused() {
    need!(require_root());
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, at(name), kind, Mode::RUSR | Mode::WUSR, device).unwrap();
    };
    node("fifo", FileType::Fifo, 0);
    node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("loop", FileType::BlockDevice, rustix::fs::makedev(7, 200));
    let _socket = UnixListener::bind(at("socket")).unwrap();
    for door in Door::all() {
        for (name, kind) in [
            ("fifo", FileKind::Fifo),
            ("null", FileKind::CharacterDevice),
            ("loop", FileKind::BlockDevice),
            ("socket", FileKind::Socket),
        ] {
            let error = assert_unchanged(door.save(at(name), "x"), Step::Check, libc::EINVAL);
            assert!(
                matches!(error.cause(), Cause::SpecialFile(found) if *found == kind),
                "{error}"
            );
        }
    }
    assert!(fs::metadata(at("fifo")).unwrap().file_type().is_fifo());
    assert!(fs::metadata(at("null")).unwrap().file_type().is_char_device());
    assert!(fs::metadata(at("socket")).unwrap().file_type().is_socket());
    assert_no_temps(dir.path());
}

#[test]
fn a_mount_point_is_named_as_such() {
    let disk = need!(Disk::ext4());
    let (target, other) = (disk.path().join("hosts"), disk.path().join("other"));
    fs::write(&target, "below").unwrap();
    fs::write(&other, "bound").unwrap();
    let mount = |arguments: &[&str]| {
        assert!(Command::new(arguments[0]).args(&arguments[1..]).status().unwrap().success());
    };
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    mount(&["mount", "--bind", &path(&other), &path(&target)]);
    let results: Vec<_> = Door::all().iter().map(|door| door.save(&target, "new")).collect();
    let read = fs::read(&target).unwrap();
    mount(&["umount", &path(&target)]);
    for result in results {
        let error = assert_unchanged(result, Step::Rename, libc::EBUSY);
        assert!(matches!(error.cause(), Cause::MountPoint), "{error}");
    }
    assert_eq!(read, b"bound");
    assert_reads(&target, "below");
    assert_no_temps(disk.path());
}

#[test]
fn create_new_leaves_what_is_there() {
    let dir = tempdir().unwrap();
    let options = Options::new().create_new();
    for door in Door::all() {
        let target = dir.path().join(door.name());
        door.save_with(&options, &target, "first").unwrap();
        assert_unchanged(door.save_with(&options, &target, "no"), Step::Check, libc::EEXIST);
        assert_reads(&target, "first");
        // A dangling link is something, too.
        let link = dir.path().join(format!("{}-link", door.name()));
        symlink("nowhere", &link).unwrap();
        assert_unchanged(door.save_with(&options, &link, "no"), Step::Check, libc::EEXIST);
    }
    assert_no_temps(dir.path());
}

#[test]
fn of_many_who_create_new_one_succeeds() {
    for door in Door::all() {
        let dir = tempdir().unwrap();
        let target = dir.path().join("lock");
        let options = Options::new().create_new();
        let results: Vec<_> = std::thread::scope(|scope| {
            let save = |id: usize| {
                let (door, options, target) = (&door, &options, &target);
                scope.spawn(move || door.save_with(options, target, format!("{id}")))
            };
            let threads: Vec<_> = (0..16).map(save).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<_> = (0..16).filter(|id| results[*id].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        assert_reads(&target, winners[0].to_string());
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
            assert!(matches!(error.step(), Step::Check | Step::Rename), "{error}");
        }
        assert_no_temps(dir.path());
    }
}

#[test]
fn a_target_can_be_named_in_a_directory() {
    let dir = tempdir().unwrap();
    let path_only = rustix::fs::openat(
        CWD,
        dir.path(),
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY,
        Mode::empty(),
    )
    .unwrap();
    let handle = fs::File::open(dir.path()).unwrap();
    ringseal::replace_at(&handle, "plain", "1").unwrap();
    ringseal::replace_at(&path_only, "path", "2").unwrap();
    assert_reads(&dir.path().join("plain"), "1");
    assert_reads(&dir.path().join("path"), "2");
    for name in ["", "a/b", "..", ".", "/etc/hosts"] {
        let error = ringseal::replace_at(&handle, name, "x").unwrap_err();
        assert_eq!(error.step(), Step::Accept, "{name:?}");
    }
    let shared = std::sync::Arc::new(OwnedFd::from(handle));
    for door in Door::all() {
        door.save(Target::at(shared.clone(), door.name()), "3").unwrap();
        assert_reads(&dir.path().join(door.name()), "3");
    }
}

#[test]
fn a_relative_path_is_the_callers() {
    in_child("targets::a_relative_path_is_the_callers", || {
        let dir = tempdir().unwrap();
        let doors = Door::all();
        // After the writers were made: the ring's thread has a working directory of its own.
        std::env::set_current_dir(dir.path()).unwrap();
        fs::create_dir("below").unwrap();
        for door in &doors {
            door.save(door.name(), "1").unwrap();
            door.save(format!("below/{}", door.name()), "2").unwrap();
            assert_reads(&dir.path().join(door.name()), "1");
            assert_reads(&dir.path().join("below").join(door.name()), "2");
        }
    });
}

#[test]
fn a_root_that_was_changed_is_the_callers() {
    need!(require_root());
    in_child("targets::a_root_that_was_changed_is_the_callers", || {
        let dir = tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        let doors = Door::all();
        let outside = fs::File::open(dir.path()).unwrap();
        std::os::unix::fs::chroot(dir.path()).unwrap();
        std::env::set_current_dir("/").unwrap();
        for door in &doors {
            door.save(format!("/run/{}", door.name()), "inside").unwrap();
            assert_reads(&Path::new("/run").join(door.name()), "inside");
            door.save(format!("run/{}-relative", door.name()), "inside").unwrap();
        }
        // Out again, so that the temporary directory can be removed.
        std::env::set_current_dir("/").unwrap();
        for door in &doors {
            let name = format!("run/{}", door.name());
            let there =
                rustix::fs::openat(&outside, name, rustix::fs::OFlags::RDONLY, Mode::empty());
            there.expect("it is in the directory that became the root");
        }
        assert_no_temps(Path::new("/run"));
    });
}

/// In a chroot without /proc, on a kernel that does not tell a process its auxiliary vector otherwise
/// (prctl(2), `PR_GET_AUXV`, since Linux 6.4): nobody reads it.
#[test]
fn nothing_of_proc_is_needed() {
    need!(require_root());
    in_child("targets::nothing_of_proc_is_needed", || {
        let dir = tempdir().unwrap();
        let outside = fs::File::open("/").unwrap();
        std::os::unix::fs::chroot(dir.path()).unwrap();
        std::env::set_current_dir("/").unwrap();
        need!(seccomp::deny(&[libc::SYS_prctl], libc::EINVAL));
        for door in Door::all() {
            let target = Path::new("/").join(door.name());
            door.save(&target, "new").unwrap();
            assert_reads(&target, "new");
        }
        // Out again, so that the temporary directory can be removed.
        rustix::process::fchdir(&outside).unwrap();
        std::os::unix::fs::chroot(".").unwrap();
        assert_no_temps(dir.path());
    });
}

/// What somebody inside a container's directory can do to redirect the save of a daemon outside.
#[test]
fn nothing_below_a_root_leads_out_of_it() {
    for door in Door::all() {
        let dir = tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("ok")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("state.json"), "precious").unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        symlink("ok", root.join("inside")).unwrap();
        symlink(format!("/proc/self/fd/{}", 0), root.join("magic")).unwrap();
        symlink(outside.join("state.json"), root.join("ok/link")).unwrap();
        let confined = Root::open(&root).unwrap();
        for path in [
            "absolute/state.json",
            "relative/state.json",
            "inside/state.json",
            "magic/state.json",
            "../outside/state.json",
            "ok/../../outside/state.json",
            outside.join("state.json").to_str().unwrap(),
        ] {
            let error = door.save(Target::beneath(&confined, path), "stolen").unwrap_err();
            assert_eq!(error.step(), Step::OpenDirectory, "{path}: {error}");
            assert!(matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EXDEV)), "{error}");
        }
        door.save(Target::beneath(&confined, "ok/state.json"), "new").unwrap();
        assert_reads(&root.join("ok/state.json"), "new");
        door.save(Target::beneath(&confined, "top.json"), "new").unwrap();
        // The last component is a link: it is replaced.
        door.save(Target::beneath(&confined, "ok/link"), "new").unwrap();
        assert!(fs::symlink_metadata(root.join("ok/link")).unwrap().is_file());
        // The root was moved: the descriptor follows it.
        fs::rename(&root, dir.path().join("moved")).unwrap();
        door.save(Target::beneath(&confined, "ok/state.json"), "moved").unwrap();
        assert_reads(&dir.path().join("moved/ok/state.json"), "moved");
        assert_reads(&outside.join("state.json"), "precious");
        assert_no_temps(dir.path());
    }
}

/// A directory that is swapped for a link while saves run: they go to the directory or fail, never
/// through the link.
#[test]
fn a_race_for_a_directory_is_not_won() {
    for writer in Door::writers() {
        let dir = tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("id")).unwrap();
        fs::create_dir(&outside).unwrap();
        let confined = Root::open(&root).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let saved = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = fs::rename(root.join("id"), root.join("away"));
                    let _ = symlink("../outside", root.join("id"));
                    let _ = fs::remove_file(root.join("id"));
                    let _ = fs::rename(root.join("away"), root.join("id"));
                    std::thread::sleep(std::time::Duration::from_micros(300));
                }
            });
            let request = |_| (Target::beneath(&confined, "id/state.json"), "confined");
            let answers = writer.replace_all_blocking((0..400).map(request).collect::<Vec<_>>());
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            answers.iter().filter(|answer| answer.is_ok()).count()
        });
        assert!(saved > 0, "the test must have saved something");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}

#[test]
fn a_name_of_the_librarys_own_form_is_refused() {
    let dir = tempdir().unwrap();
    let ours = concat!(
        ".ringseal-1-0000000000000001-00000000000000000000000000000002-3-4-5-6-",
        "0000000000000007"
    );
    for door in Door::all() {
        let refused = door.save(dir.path().join(ours), "x");
        assert_unchanged(refused, Step::Accept, libc::EINVAL);
    }
}

/// Up and down within the root, as openat2 resolves it; its walk is tested beside it.
#[test]
fn a_path_below_a_root_may_go_up_within_it() {
    let dir = tempdir().unwrap();
    fs::create_dir_all(dir.path().join("root/a/b")).unwrap();
    let save = || {
        let confined = Root::open(dir.path().join("root")).unwrap();
        for (number, door) in Door::all().into_iter().enumerate() {
            let up = door.save(Target::beneath(&confined, "a/b/../x.json"), format!("{number}"));
            up.unwrap();
            assert_reads(&dir.path().join("root/a/x.json"), format!("{number}"));
            for path in ["a/../../x.json", "a/b/../../../root/x.json"] {
                let out = door.save(Target::beneath(&confined, path), "x");
                assert_unchanged(out, Step::OpenDirectory, libc::EXDEV);
            }
        }
    };
    save();
    in_child("targets::a_path_below_a_root_may_go_up_within_it", || {
        need!(crate::support::seccomp::deny(&[libc::SYS_openat2], libc::ENOSYS));
        save();
    });
}

#[test]
fn a_mode_that_no_directory_has_is_refused() {
    let dir = tempdir().unwrap();
    for mode in [0o10755, 0o40755, u32::MAX] {
        let error = Root::create(dir.path().join("new"), mode).unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::Accept, Some(libc::EINVAL)));
        assert_eq!(error.outcome(), ringseal::Outcome::Unchanged);
        let root = Root::open(dir.path()).unwrap();
        let error = root.make_directories([("new", mode)]).remove(0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn made_directories_have_their_mode_and_stay() {
    let dir = tempdir().unwrap();
    let root = Root::create(dir.path().join("a/b/c"), 0o751).unwrap();
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for path in ["a", "a/b", "a/b/c"] {
        assert_eq!(mode(&dir.path().join(path)), 0o751);
    }
    fs::create_dir(root.path().join("there")).unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    symlink("there", root.path().join("link")).unwrap();
    let names = ["new", "there", "file", "link", "../out", "x/y"];
    let made = root.make_directories(names.map(|name| (name, 0o711)));
    let errnos: Vec<_> = made
        .iter()
        .map(|made| made.as_ref().err().and_then(|error| error.raw_os_error()))
        .collect();
    let (no, bad) = (Some(libc::ENOTDIR), Some(libc::EINVAL));
    assert_eq!(errnos, [None, None, no, no, bad, bad]);
    assert_eq!(mode(&root.path().join("new")), 0o711);
    // Again is no error.
    assert!(root.make_directories([("new", 0o700)]).remove(0).is_ok());
    assert_eq!(mode(&root.path().join("new")), 0o711);
}
