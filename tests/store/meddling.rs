//! What somebody else does to a file with two inodes, or to its directory: what is saved next is right all the same,
//! and nothing of his is written to.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use ringseal::Route;

use crate::attacks::Mounted;
use crate::slots::{inode, open, spare, state, version, with_slots};
use crate::support::{Disk, is_since, need, require_root};
use crate::{file, places, shares_its_log};

/// What somebody else can do to the two, or to their directory.
type Meddling = fn(&Path, &Path);

#[test]
fn what_somebody_else_does_to_the_two_changes_nothing() {
    let meddlings: &[(&str, Meddling)] = &[
        ("file deleted", |file, _| fs::remove_file(file).unwrap()),
        ("spare deleted", |_, spare| fs::remove_file(spare).unwrap()),
        ("both deleted", |file, spare| {
            fs::remove_file(file).unwrap();
            fs::remove_file(spare).unwrap();
        }),
        ("file truncated", |file, _| drop(File::create(file).unwrap())),
        ("spare truncated", |_, spare| drop(File::create(spare).unwrap())),
        ("file overwritten", |file, _| fs::write(file, [7; 9000]).unwrap()),
        ("spare overwritten", |_, spare| fs::write(spare, [7; 9000]).unwrap()),
        ("file replaced", |file, _| {
            fs::write(file.with_extension("new"), "other").unwrap();
            fs::rename(file.with_extension("new"), file).unwrap();
        }),
        ("spare replaced", |file, spare| {
            fs::write(file.with_extension("new"), "other").unwrap();
            fs::rename(file.with_extension("new"), spare).unwrap();
        }),
        ("a link at the file", |file, _| {
            fs::remove_file(file).unwrap();
            symlink("/etc/hostname", file).unwrap();
        }),
        ("a link at the spare", |_, spare| {
            fs::remove_file(spare).unwrap();
            symlink("/etc/hostname", spare).unwrap();
        }),
        ("modes", |file, spare| {
            fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
            fs::set_permissions(spare, fs::Permissions::from_mode(0o4777)).unwrap();
        }),
        ("owners", |file, spare| {
            let is_root = rustix::process::geteuid().is_root();
            for path in [file, spare].into_iter().filter(|_| is_root) {
                std::os::unix::fs::chown(path, Some(12_345), Some(54_321)).unwrap();
            }
        }),
        ("attributes", |file, spare| {
            for path in [file, spare] {
                // tmpfs has them since Linux 6.6.
                let flags = rustix::fs::XattrFlags::empty();
                let _ = rustix::fs::setxattr(path, "user.note", b"mine", flags);
            }
        }),
        ("the two exchanged", |file, spare| {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let here = rustix::fs::CWD;
            rustix::fs::renameat_with(here, file, here, spare, flags).unwrap();
        }),
        ("the spare in the file's place", |file, spare| fs::rename(spare, file).unwrap()),
        ("the file in the spare's place", |file, spare| fs::rename(file, spare).unwrap()),
    ];
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        for (what, meddle) in meddlings {
            let what = format!("{what} on {}", place.name());
            for number in 0..3 {
                store.save_bytes_blocking("a", version(number)).unwrap();
            }
            if let Some(spare) = spare(&root, "a") {
                meddle(&state(&root, "a"), &spare);
            }
            for number in 2..8 {
                let committed = store.save_bytes_blocking("a", version(number)).unwrap();
                assert!(committed.not_visible.is_empty(), "{what}");
                assert_eq!(file(&root, "a").unwrap(), version(number), "{what}");
                let look = fs::symlink_metadata(state(&root, "a")).unwrap();
                assert!(look.is_file(), "{what}");
                assert_eq!(look.mode() & 0o7777, 0o600, "{what}");
                assert_eq!(look.uid(), rustix::process::geteuid().as_raw(), "{what}");
                let mut list = [0; 1024];
                let listed = rustix::fs::listxattr(state(&root, "a"), &mut list).unwrap_or(0);
                let list = String::from_utf8_lossy(&list[..listed]);
                assert!(!list.contains("user.note"), "{what}: {list}");
                spare(&root, "a");
            }
        }
        store.remove_blocking("a").unwrap();
        assert!(!root.join("a").exists(), "{}", place.name());
    }
}

/// Whoever takes one of the two away has it as it was.
#[test]
fn what_was_moved_away_is_not_written_to() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        let mut taken = Vec::new();
        for number in 0..40 {
            store.save_bytes_blocking("a", version(number)).unwrap();
            let (file, spare) = (state(&root, "a"), spare(&root, "a"));
            let (what, holds) = match (number % 7, spare) {
                (2, Some(spare)) => (spare, number - 1),
                (5, _) => (file, number),
                _ => continue,
            };
            let to = root.join(format!("taken-{number}"));
            fs::rename(&what, &to).unwrap();
            let is_as_it_was = fs::read(&to).unwrap();
            assert!(holds == number - 1 || is_as_it_was == version(holds));
            taken.push((to, is_as_it_was));
        }
        assert!(taken.len() >= 5);
        for (path, was) in taken {
            assert_eq!(fs::read(path).unwrap(), was, "{}", place.name());
        }
    }
}

#[test]
fn a_directory_that_was_moved_away_or_made_again_is_another() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        let save = |number| {
            store.save_bytes_blocking("a", version(number)).unwrap();
            assert_eq!(file(&root, "a").unwrap(), version(number), "{}", place.name());
        };
        (2..6).for_each(save);
        let moved = root.join("moved");
        fs::rename(root.join("a"), &moved).unwrap();
        (6..10).for_each(save);
        assert_eq!(fs::read(moved.join("state.json")).unwrap(), version(5));
        fs::remove_dir_all(root.join("a")).unwrap();
        (10..14).for_each(save);
        // The first one again: what is in it is not what the store has seen there last.
        fs::remove_dir_all(root.join("a")).unwrap();
        fs::rename(&moved, root.join("a")).unwrap();
        (14..18).for_each(save);
        assert!(store.not_visible().is_empty());
    }
}

/// What is known of a file is known of the one in the root, by no link.
#[test]
fn a_directory_behind_a_link_is_not_saved_to() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        for number in 0..5 {
            store.save_bytes_blocking("a", version(number)).unwrap();
        }
        let out = root.with_file_name("out");
        fs::rename(root.join("a"), &out).unwrap();
        symlink(&out, root.join("a")).unwrap();
        assert!(store.save_bytes_blocking("a", "through a link").is_err(), "{}", place.name());
        assert_eq!(fs::read(out.join("state.json")).unwrap(), version(4));
        fs::remove_file(root.join("a")).unwrap();
        fs::remove_dir_all(&out).unwrap();
    }
}

/// Not even the directory itself, which has the same number.
#[test]
fn a_mount_over_the_directory_is_not_passed_by() {
    need!(require_root());
    for disk in [Disk::ext4(), Disk::xfs(), Disk::btrfs()] {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let store = open(&root);
        if !shares_its_log(&store) {
            continue;
        }
        for number in 0..5 {
            store.save_bytes_blocking("a", version(number)).unwrap();
        }
        let over = root.join("a");
        let mut mount = Command::new("mount");
        assert!(mount.arg("--bind").args([&over, &over]).status().unwrap().success());
        let mounted = Mounted(over);
        let committed = store.save_bytes_blocking("a", version(5)).unwrap();
        // Before Linux 6.8 the kernel does not tell mounts apart for good.
        assert!(committed.route == Route::Direct || !is_since(6, 8), "{}", disk.name());
        assert_eq!(file(&root, "a").unwrap(), version(5));
        drop(mounted);
        store.close_blocking().unwrap();
    }
}

/// The directory is another's by now, and the file was moved back to its path.
#[test]
fn a_file_in_another_directory_is_not_exchanged_in_the_first() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        for number in 0..5 {
            store.save_bytes_blocking("a", version(number)).unwrap();
        }
        fs::rename(root.join("a"), root.join("b")).unwrap();
        fs::create_dir(root.join("a")).unwrap();
        fs::rename(state(&root, "b"), state(&root, "a")).unwrap();
        for number in 5..12 {
            store.save_bytes_blocking("b", version(number)).unwrap();
            store.save_bytes_blocking("a", version(number + 1)).unwrap();
            assert_eq!(file(&root, "a").unwrap(), version(number + 1), "{}", place.name());
            assert_eq!(file(&root, "b").unwrap(), version(number), "{}", place.name());
        }
    }
}

/// Whoever does not own a file cannot have a lease on it.
#[test]
fn a_file_of_another_user_is_replaced() {
    need!(require_root());
    for place in with_slots() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        for number in 0..10 {
            store.save_bytes_blocking("a", version(number)).unwrap();
            std::os::unix::fs::chown(state(&root, "a"), Some(12_345), Some(12_345)).unwrap();
            let inode = inode(&state(&root, "a"));
            store.save_bytes_blocking("a", version(number + 1)).unwrap();
            let look = fs::metadata(state(&root, "a")).unwrap();
            assert_eq!((look.uid(), look.gid()), (0, 0), "{}", place.name());
            assert_ne!(look.ino(), inode);
        }
    }
}
