//! Whoever can write below the root leads nothing out of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use ringseal::{Cause, OpenError, Outcome, Route, StateStore, Step, StoreOptions};
use tempfile::tempdir;

use crate::support::{Disk, need, require_shared_syncs};
use crate::{assert_state, file, open, places};

#[test]
fn ids_lead_nowhere_else() {
    let dir = tempdir().unwrap();
    let root = dir.path().join("root");
    let store = open(&root);
    store.save_bytes_blocking("a", "1").unwrap();
    let long = "x".repeat(256);
    for id in ["", ".", "..", "../x", "/etc", "a/b", "a\0", "a\n", ".ringseal", "ü", &long] {
        let refused = [
            store.save_bytes_blocking(id, "x").unwrap_err(),
            store.remove_blocking(id).unwrap_err(),
            store.write_pid_blocking(id, 1).unwrap_err(),
            store.load_bytes_blocking(id).unwrap_err(),
            store.load_blocking::<u32>(id).unwrap_err(),
            pollster::block_on(store.load_bytes(id)).unwrap_err(),
            store.transaction().save_bytes("b", "x").remove(id).commit_blocking().unwrap_err(),
        ];
        for error in refused {
            assert!(matches!(error.cause(), Cause::InvalidRequest(_)), "{id:?}: {error}");
            assert_eq!((error.step(), error.outcome()), (Step::Accept, Outcome::Unchanged));
        }
    }
    for name in ["passwd", "../state.json", "state.json/", ""] {
        let saved = store.transaction().save_file("a", name, "x").commit_blocking();
        assert!(saved.is_err(), "{name:?}");
        assert!(store.load_file_blocking("a", name).is_err());
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(store.list_blocking().unwrap(), ["a"]);
}

#[test]
fn links_in_the_tree_are_not_followed() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let outside = root.parent().unwrap().join("outside");
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("state.json"), "theirs").unwrap();
        let store = open(&root);
        store.save_bytes_blocking("a", "1").unwrap();
        // Between two saves the directory becomes a link.
        fs::rename(root.join("a"), root.join("moved")).unwrap();
        symlink(&outside, root.join("a")).unwrap();
        symlink("moved", root.join("inside")).unwrap();
        for id in ["a", "inside"] {
            let refused = [
                store.save_bytes_blocking(id, "2").unwrap_err(),
                store.write_pid_blocking(id, 2).unwrap_err(),
                store.remove_blocking(id).unwrap_err(),
                store.load_bytes_blocking(id).unwrap_err(),
                store
                    .transaction()
                    .save_bytes("b", "x")
                    .save_bytes(id, "2")
                    .commit_blocking()
                    .unwrap_err(),
            ];
            for error in refused {
                assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{}: {error}", place.name());
                assert_eq!(error.outcome(), Outcome::Unchanged);
            }
        }
        assert_eq!(fs::read(outside.join("state.json")).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        // Nothing of such a transaction is there, but perhaps an empty directory.
        assert_eq!(store.load_bytes_blocking("b").unwrap(), None);
        // A link in the place of the file is replaced, not written through.
        store.save_bytes_blocking("c", "1").unwrap();
        fs::remove_file(root.join("c/state.json")).unwrap();
        symlink(outside.join("state.json"), root.join("c/state.json")).unwrap();
        assert!(store.load_bytes_blocking("c").is_err(), "it is not read either");
        store.save_bytes_blocking("c", "2").unwrap();
        assert_state(&store, "c", "2");
        assert_eq!(fs::read(outside.join("state.json")).unwrap(), b"theirs");
        store.close_blocking().unwrap();
    }
}

/// A container plants a link while the log holds its state: the replay does not follow it.
#[test]
fn a_replay_follows_no_link() {
    // Else the files are durable by then, and nothing is replayed.
    need!(require_shared_syncs());
    for disk in crate::disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let outside = disk.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let store = open(&root);
        store.save_all_blocking([("a", "1"), ("b", "2")]).unwrap();
        fs::rename(root.join("a"), disk.path().join("moved")).unwrap();
        symlink(&outside, root.join("a")).unwrap();
        rustix::fs::syncfs(fs::File::open(&root).unwrap()).unwrap();
        crate::cut_power!(disk, store);
        let store = open(&root);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(store.recovery().not_visible.len(), 1);
        assert_state(&store, "b", "2");
    }
}

#[test]
fn what_is_no_file_is_not_replaced() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        store.save_bytes_blocking("dir", "1").unwrap();
        store.save_bytes_blocking("fifo", "1").unwrap();
        for id in ["dir", "fifo"] {
            fs::remove_file(root.join(id).join("state.json")).unwrap();
        }
        fs::create_dir(root.join("dir/state.json")).unwrap();
        let fifo = root.join("fifo/state.json");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        for (id, errno) in [("dir", libc::EISDIR), ("fifo", libc::EINVAL)] {
            let error = store.save_bytes_blocking(id, "2").unwrap_err();
            assert_eq!((error.step(), error.raw_os_error()), (Step::Check, Some(errno)), "{error}");
            assert_eq!(error.outcome(), Outcome::Unchanged);
            assert_eq!(error.target(), root.join(id).join("state.json"));
            // It does not hang either.
            assert!(store.load_bytes_blocking(id).is_err());
        }
        store.save_bytes_blocking("good", "1").unwrap();
    }
}

/// What is mounted over a container's directory has syncs of its own.
#[test]
fn a_mount_over_a_directory_is_saved_beside_the_log() {
    let disk = need!(Disk::ext4());
    let root = disk.path().join("root");
    let store = open(&root);
    store.save_bytes_blocking("a", "below").unwrap();
    let mount = || {
        let target = root.join("a");
        let made = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(&target)
            .status()
            .unwrap();
        assert!(made.success());
        Mounted(target)
    };
    let mounted = mount();
    let committed = store.save_bytes_blocking("a", "above").unwrap();
    assert_eq!(committed.route, Route::Direct);
    assert_eq!(file(&root, "a").unwrap(), b"above");
    let pair = store.transaction().save_bytes("a", "x").save_bytes("b", "x").commit_blocking();
    let error = pair.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EXDEV), "{error}");
    assert_eq!(store.remove_blocking("a").unwrap_err().raw_os_error(), Some(libc::EXDEV));
    drop(mounted);
    assert_eq!(file(&root, "a").unwrap(), b"below");
    store.close_blocking().unwrap();
}

pub(crate) struct Mounted(pub(crate) std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

/// What stands in the place of a managed file does not keep a container from being removed.
#[test]
fn a_container_cannot_prevent_its_removal() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        store.save_all_blocking([("a", "1"), ("b", "1")]).unwrap();
        let fifo = root.join("a/init.pid");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(store.remove_blocking("a").unwrap().left.is_empty(), "{}", place.name());
        assert!(!root.join("a").exists());
        fs::create_dir(root.join("b/init.pid")).unwrap();
        let removed = store.remove_blocking("b").unwrap();
        assert_eq!(removed.left, [root.join("b")]);
        assert_eq!(store.list_blocking().unwrap(), [] as [&str; 0]);
    }
}

/// A file that seems to be endless takes no memory.
#[test]
fn a_huge_file_is_not_read() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        store.save_bytes_blocking("a", "1").unwrap();
        let file = fs::File::options().write(true).open(root.join("a/state.json")).unwrap();
        // ext4 has no larger ones.
        file.set_len(15 << 40).unwrap();
        let error = store.load_bytes_blocking("a").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG), "{}: {error}", place.name());
        assert_eq!(store.verify_blocking().unwrap().len(), 1);
        store.save_bytes_blocking("a", "2").unwrap();
        assert_state(&store, "a", "2");
        let large = bytes::Bytes::from(vec![0; (256 << 20) + 1]);
        let error = store.save_bytes_blocking("a", large).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG), "{error}");
    }
}

/// Its own file, as long as the saved one and empty: on ext4 that looks like what a damaged filesystem drops.
#[test]
fn a_container_that_forges_its_file_stops_nobody() {
    let disk = need!(Disk::ext4());
    let root = disk.path().join("root");
    let store = lazy_small(&root);
    let state = "x".repeat(5000);
    for round in 0..60 {
        store.save_bytes_blocking("forger", state.clone()).unwrap();
        let forged = root.join("forger/other");
        fs::File::create(&forged).unwrap().set_len(5000).unwrap();
        fs::rename(&forged, root.join("forger/state.json")).unwrap();
        let committed = store.save_bytes_blocking("b", format!("{round}").repeat(3000)).unwrap();
        assert!(committed.not_visible.is_empty());
    }
    store.save_bytes_blocking("b", "last").unwrap();
    assert_state(&store, "b", "last");
    store.close_blocking().unwrap();
    drop(store);
    let store = open(&root);
    // Forged behind the spread of what was saved, it is his; before it, the saved one is kept.
    let found = store.load_bytes_blocking("forger").unwrap().unwrap();
    assert!(found == state.as_bytes() || found == vec![0; 5000]);
    assert_state(&store, "b", "last");
}

fn lazy_small(root: &Path) -> StateStore {
    crate::lazy().segment_bytes(64 << 10, 64 << 10).open_blocking(root).unwrap()
}

#[test]
fn pid_files_are_not_logged() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    store.save_bytes_blocking("a", "1").unwrap();
    let logged = store.transaction().save_file("a", "init.pid", "4711").commit_blocking();
    assert!(matches!(logged.unwrap_err().cause(), Cause::InvalidRequest(_)));
    assert_eq!(store.load_pid_blocking("a").unwrap(), None);
    store.write_pid_blocking("a", 4711).unwrap();
    assert_eq!(store.load_pid_blocking("a").unwrap(), Some(4711));
    assert_eq!(pollster::block_on(store.load_pid("a")).unwrap(), Some(4711));
}

/// The directory that holds the root need not be writable, if it is another mount's.
#[test]
fn a_root_on_a_mount_of_its_own_is_opened() {
    let disk = need!(Disk::ext4());
    let above = disk.path().join("above");
    let root = above.join("root");
    fs::create_dir_all(&root).unwrap();
    let mount = |arguments: &[&str], target: &Path| {
        let mut command = std::process::Command::new("mount");
        assert!(command.args(arguments).arg(target).status().unwrap().success());
    };
    let above_path = above.to_str().unwrap();
    mount(&["--bind", above_path], &above);
    let _above = Mounted(above.clone());
    mount(&["-t", "tmpfs", "-o", "mode=0700", "none"], &root);
    let _root = Mounted(root.clone());
    mount(&["-o", "remount,bind,ro"], &above);
    let store = open(&root);
    store.save_bytes_blocking("a", "1").unwrap();
    store.close_blocking().unwrap();
    drop(store);
}

#[test]
fn the_stores_own_directory_is_its_users_alone() {
    let refused = |prepare: &dyn Fn(&Path)| {
        let dir = tempdir().unwrap();
        prepare(dir.path());
        let error = StateStore::open_blocking(dir.path()).unwrap_err();
        (error, dir)
    };
    let (error, _dir) = refused(&|root| {
        fs::create_dir(root.join(".ringseal")).unwrap();
        fs::set_permissions(root.join(".ringseal"), fs::Permissions::from_mode(0o770)).unwrap();
    });
    assert!(matches!(error, OpenError::NotPrivate(_)), "{error}");
    let (error, dir) = refused(&|root| {
        let elsewhere = root.join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o700)).unwrap();
        symlink("elsewhere", root.join(".ringseal")).unwrap();
    });
    assert!(matches!(error, OpenError::Root(_)), "{error}");
    assert_eq!(fs::read_dir(dir.path().join("elsewhere")).unwrap().count(), 0);
    let (error, _dir) = refused(&|root| {
        open(root).close_blocking().unwrap();
        let log = root.join(".ringseal/log/log.1");
        fs::set_permissions(log, fs::Permissions::from_mode(0o644)).unwrap();
    });
    assert!(matches!(error, OpenError::NotPrivate(path) if path.ends_with("log/log.1")));
    let (error, dir) = refused(&|root| {
        fs::set_permissions(root, fs::Permissions::from_mode(0o775)).unwrap();
    });
    assert!(matches!(error, OpenError::NotPrivate(path) if path == dir.path()));
    let (error, _dir) = refused(&|root| {
        open(root).close_blocking().unwrap();
        let lock = root.join(".ringseal/lock");
        fs::remove_file(&lock).unwrap();
        symlink("/etc/passwd", lock).unwrap();
    });
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    let reader = StoreOptions::new().open_read_only("/nowhere").unwrap_err();
    assert!(matches!(reader, OpenError::Root(_)));
}
