//! Full disks, files that cannot be replaced, damaged logs: a clear error, nothing acknowledged lost, and the
//! other containers go on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use ringseal::{Cause, LogUse, OpenError, Outcome, Step, StoreOptions, inspect_log};
use tempfile::tempdir;

use crate::support::{Disk, chattr, need, require_shared_syncs, tree};
use crate::{assert_state, cut_power, disks, file, lazy, open, shares_its_log};

/// One file that cannot be replaced, among many.
#[test]
fn an_immutable_file_holds_up_nobody() {
    // Else such a save fails, for it is not in a log.
    need!(require_shared_syncs());
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let store = lazy().segment_bytes(64 << 10, 64 << 10).open_blocking(&root).unwrap();
        store.save_bytes_blocking("a", "old").unwrap();
        store.save_bytes_blocking("b", "old").unwrap();
        chattr("+i", &root.join("a/state.json"));
        let committed = store.save_bytes_blocking("a", "new").unwrap();
        assert_eq!(committed.not_visible.len(), 1, "{}", disk.name());
        assert_eq!(committed.not_visible[0].path, root.join("a/state.json"));
        assert_eq!(committed.not_visible[0].errno, libc::EPERM);
        // Others see the old one, the store gives the new one.
        assert_eq!(file(&root, "a").unwrap(), b"old");
        assert_state(&store, "a", "new");
        assert_eq!(store.not_visible(), committed.not_visible);
        // The log turns over all the same.
        for version in 0..100 {
            let state = version.to_string().repeat(500);
            assert!(store.save_bytes_blocking("b", state).unwrap().not_visible.is_empty());
        }
        assert_state(&store, "a", "new");
        cut_power!(disk, store);
        let store = open(&root);
        assert_eq!(store.recovery().not_visible.len(), 1);
        assert_state(&store, "a", "new");
        assert_state(&store, "b", "99".repeat(500));
        store.close_blocking().unwrap();
        drop(store);
        // It can be replaced again: the next opening does it.
        chattr("-i", &root.join("a/state.json"));
        let store = open(&root);
        assert!(store.recovery().not_visible.is_empty());
        assert_eq!(file(&root, "a").unwrap(), b"new", "{}", disk.name());
        assert!(tree::names(&root.join(".ringseal/unplaced")).is_empty());
    }
}

#[test]
fn a_newer_version_replaces_what_was_set_aside() {
    // Else nothing is set aside.
    need!(require_shared_syncs());
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let store = open(&root);
        store.save_bytes_blocking("a", "old").unwrap();
        chattr("+i", &root.join("a/state.json"));
        store.save_bytes_blocking("a", "set aside").unwrap();
        store.close_blocking().unwrap();
        drop(store);
        assert!(root.join(".ringseal/unplaced/a").exists(), "{}", disk.name());
        let store = open(&root);
        chattr("-i", &root.join("a/state.json"));
        assert!(store.save_bytes_blocking("a", "newer").unwrap().not_visible.is_empty());
        cut_power!(disk, store);
        let store = open(&root);
        assert_state(&store, "a", "newer");
        store.close_blocking().unwrap();
        drop(store);
        let store = open(&root);
        assert_state(&store, "a", "newer");
        assert_eq!(file(&root, "a").unwrap(), b"newer");
        // The same for one that goes beside the log.
        chattr("+i", &root.join("a/state.json"));
        store.save_bytes_blocking("a", "set aside").unwrap();
        store.close_blocking().unwrap();
        drop(store);
        let store = open(&root);
        chattr("-i", &root.join("a/state.json"));
        let beside = store.transaction().save_bytes("a", "beside").route(ringseal::Route::Direct);
        beside.commit_blocking().unwrap();
        cut_power!(disk, store);
        let store = open(&root);
        assert_state(&store, "a", "beside");
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    for disk in [Disk::ext4(), Disk::xfs(), Disk::btrfs()] {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let store = lazy().segment_bytes(64 << 10, 64 << 10).open_blocking(&root).unwrap();
        store.save_bytes_blocking("a", "before").unwrap();
        disk.fill_blocks();
        let mut last = "before".to_owned();
        let (mut durable, mut refused) = (0, 0);
        for version in 0..60 {
            let state = format!("{version}").repeat(2000);
            match store.save_bytes_blocking("a", state.clone()) {
                Ok(_) => {
                    durable += 1;
                    last = state;
                }
                Err(error) => {
                    assert_eq!(
                        error.raw_os_error(),
                        Some(libc::ENOSPC),
                        "{}: {error}",
                        disk.name()
                    );
                    assert_eq!(error.outcome(), Outcome::Unchanged);
                    refused += 1;
                }
            }
            assert_state(&store, "a", &last);
        }
        println!("{}: {durable} durable, {refused} refused", disk.name());
        let error = store.save_bytes_blocking("new", "x".repeat(8 << 20)).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unchanged, "{error}");
        // There is room again, and the store goes on.
        fs::remove_file(disk.path().join("filler.blocks")).unwrap();
        rustix::fs::syncfs(File::open(disk.path()).unwrap()).unwrap();
        assert_state(&store, "a", &last);
        store.save_bytes_blocking("b", "after").unwrap();
        store.close_blocking().unwrap();
        drop(store);
        let store = open(&root);
        assert_state(&store, "a", &last);
        assert_state(&store, "b", "after");
        assert_eq!(file(&root, "a").unwrap(), last.as_bytes(), "{}", disk.name());
    }
}

/// A log that cannot be made: single saves go as a writer's, and say so.
#[test]
fn where_there_is_no_room_for_a_log_files_are_saved_without() {
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        fs::create_dir(&root).unwrap();
        disk.fill_blocks();
        // Room for a file, not for a log.
        let filler = File::options().write(true).open(disk.path().join("filler.blocks")).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - (1 << 20)).unwrap();
        filler.sync_all().unwrap();
        drop(filler);
        let store = open(&root);
        let LogUse::Nothing(error) = &store.recovery().log else { panic!("there is a log") };
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        store.save_bytes_blocking("a", "1").unwrap();
        assert_eq!(file(&root, "a").unwrap(), b"1");
        let error = store.save_all_blocking([("a", "2"), ("b", "2")]).unwrap_err();
        assert!(matches!(error.cause(), Cause::NoLog), "{error}");
        assert!(store.remove_blocking("a").unwrap().left.is_empty());
        assert!(!root.join("a").exists(), "{}", disk.name());
        cut_power!(disk, store);
        fs::remove_file(disk.path().join("filler.blocks")).unwrap();
        let store = open(&root);
        let log = &store.recovery().log;
        assert_eq!(shares_its_log(&store), require_shared_syncs().is_ok(), "{log:?}");
        assert!(!matches!(log, LogUse::Nothing(_)), "{log:?}");
        assert_eq!(store.list_blocking().unwrap(), [] as [&str; 0]);
    }
}

/// The filesystem dies: nothing is acknowledged from then on, and all that was is there.
#[test]
fn a_dead_filesystem_acknowledges_nothing() {
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let store = open(&root);
        store.save_bytes_blocking("a", "1").unwrap();
        need!(disk.shutdown());
        for _ in 0..3 {
            let error = store.save_bytes_blocking("a", "2").unwrap_err();
            let outcomes = [Outcome::Unchanged, Outcome::Unknown];
            assert!(outcomes.contains(&error.outcome()), "{}: {error}", disk.name());
            assert!(store.save_all_blocking([("a", "3"), ("b", "3")]).is_err());
        }
        let closed = store.close_blocking().unwrap_err();
        assert_eq!(closed.outcome(), Outcome::DurableNotVisible, "{closed}");
        drop(store);
        disk.remount();
        let store = open(&root);
        assert_state(&store, "a", "1");
    }
}

#[test]
fn a_read_only_filesystem_is_told() {
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let store = open(&root);
        store.save_bytes_blocking("a", "1").unwrap();
        store.close_blocking().unwrap();
        drop(store);
        disk.remount_read_only();
        let error = lazy().open_blocking(&root).unwrap_err();
        assert!(error.to_string().contains("Read-only file system"), "{}: {error}", disk.name());
        let reader = StoreOptions::new().open_read_only(&root).unwrap();
        assert_eq!(reader.load_bytes("a").unwrap().unwrap(), "1");
        assert_eq!(reader.list().unwrap(), ["a"]);
        assert!(reader.verify().unwrap().is_empty());
        assert_eq!(reader.freshness().unwrap(), ringseal::Freshness::Current);
    }
}

/// Whoever has a log with states in it that are needed; the files are behind.
fn with_log(disk: &Disk) -> std::path::PathBuf {
    let root = disk.path().join("root");
    let store = open(&root);
    for id in ["a", "b", "c", "d"] {
        store.save_bytes_blocking(id, format!("{id} old")).unwrap();
    }
    store.close_blocking().unwrap();
    drop(store);
    let store = open(&root);
    for id in ["a", "b", "c", "d"] {
        store.save_bytes_blocking(id, format!("{id} new")).unwrap();
    }
    disk.shutdown().unwrap();
    let _ = store.close_blocking();
    drop(store);
    disk.remount();
    root
}

fn place_of(root: &Path, id: &str) -> (std::path::PathBuf, u64) {
    let log = inspect_log(root).unwrap().unwrap();
    let holds = |entry: &&ringseal::LogEntry| entry.changes.iter().any(|one| one.id == id);
    let (segment, block) = log.live.iter().find(holds).unwrap().place;
    (root.join(format!(".ringseal/log/log.{segment}")), u64::from(block) * 4096)
}

#[test]
fn a_damaged_log_is_refused_and_can_be_salvaged() {
    // Else these saves are in no log.
    need!(require_shared_syncs());
    let disk = need!(Disk::ext4());
    need!(disk.shutdown());
    disk.remount();
    let root = with_log(&disk);
    let (segment, at) = place_of(&root, "b");
    let log = File::options().read(true).write(true).open(segment).unwrap();
    let mut byte = [0];
    log.read_exact_at(&mut byte, at + 150).unwrap();
    log.write_all_at(&[byte[0] ^ 1], at + 150).unwrap();
    log.sync_all().unwrap();
    drop(log);
    let before = ["a", "b", "c", "d"].map(|id| file(&root, id));
    let error = lazy().open_blocking(&root).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged { what, .. } if what.contains("log.")), "{error}");
    assert_eq!(["a", "b", "c", "d"].map(|id| file(&root, id)), before, "it changed something");
    assert!(inspect_log(&root).unwrap().unwrap().damage.is_some());
    let store = lazy().salvage().open_blocking(&root).unwrap();
    assert!(store.recovery().damage.is_some());
    // What stood before the damage is there.
    assert_state(&store, "a", "a new");
    store.save_bytes_blocking("b", "newest").unwrap();
    store.close_blocking().unwrap();
    drop(store);
    let own = tree::names(&root.join(".ringseal"));
    assert!(own.iter().any(|name| name.starts_with("log.damaged-")), "{own:?}");
    let store = open(&root);
    assert_state(&store, "b", "newest");
    assert_eq!(store.recovery().damage, None);
}

#[test]
fn a_log_of_a_later_version_is_left_alone() {
    let dir = tempdir().unwrap();
    open(dir.path()).close_blocking().unwrap();
    let path = dir.path().join(".ringseal/log/log.0");
    let log = File::options().write(true).open(&path).unwrap();
    log.write_all_at(&2_u16.to_le_bytes(), 8).unwrap();
    let before = fs::read(&path).unwrap();
    for options in [lazy(), lazy().salvage()] {
        let error = options.open_blocking(dir.path()).unwrap_err();
        assert!(matches!(error, OpenError::NewerVersion { version: 2, .. }), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_log_of_which_a_part_is_missing_is_damaged() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    store.save_bytes_blocking("a", "1").unwrap();
    store.close_blocking().unwrap();
    drop(store);
    fs::remove_file(dir.path().join(".ringseal/log/log.1")).unwrap();
    let error = lazy().open_blocking(dir.path()).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged { what, .. } if what.contains("log.1")), "{error}");
    let store = lazy().salvage().open_blocking(dir.path()).unwrap();
    assert_state(&store, "a", "1");
}

#[test]
fn no_step_fails_in_silence() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = lazy().open_blocking(&file).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
    let root = dir.path().join("root");
    let store = open(&root);
    fs::write(root.join("a"), "a file where a directory is to be").unwrap();
    let error = store.save_bytes_blocking("a", "1").unwrap_err();
    assert_eq!(error.step(), Step::OpenDirectory, "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
    assert!(lazy().spread_after(Duration::ZERO).open_blocking(dir.path().join("b")).is_ok());
}
