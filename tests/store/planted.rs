//! What somebody has put into the store's own directory: opening the store hangs on none of it, is not made to take
//! all memory, and takes none of it for something that was saved.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use ringseal::{Freshness, OpenError, StateStore, StoreOptions, inspect_log};
use tempfile::{TempDir, tempdir};

use crate::{assert_state, open};

/// A root with a state that was saved, and no log that is needed.
fn root() -> TempDir {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    store.save_bytes_blocking("a", "1").unwrap();
    store.close_blocking().unwrap();
    dir
}

fn fifo(path: &Path) {
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    );
    made.unwrap();
}

fn no_file(error: OpenError) {
    assert!(error.to_string().contains("no file"), "{error}");
}

fn fresh(root: &Path) -> Result<Freshness, OpenError> {
    StoreOptions::new().open_read_only(root).unwrap().freshness()
}

#[test]
fn a_fifo_in_place_of_the_lock_is_not_waited_for() {
    let root = root();
    let lock = root.path().join(".ringseal/lock");
    fs::remove_file(&lock).unwrap();
    fifo(&lock);
    no_file(StateStore::open_blocking(root.path()).unwrap_err());
    no_file(fresh(root.path()).unwrap_err());
    fs::remove_file(&lock).unwrap();
    assert_state(&open(root.path()), "a", "1");
}

#[test]
fn a_fifo_in_place_of_a_segment_is_not_waited_for() {
    for name in ["log.0", "log.1"] {
        let root = root();
        let segment = root.path().join(".ringseal/log").join(name);
        fs::remove_file(&segment).unwrap();
        fifo(&segment);
        no_file(StateStore::open_blocking(root.path()).unwrap_err());
        no_file(fresh(root.path()).unwrap_err());
        no_file(inspect_log(root.path()).unwrap_err());
        // It is kept, with the rest of the log.
        let store = StoreOptions::new().salvage().open_blocking(root.path()).unwrap();
        assert_state(&store, "a", "1");
    }
    let root = root();
    let log = root.path().join(".ringseal/log");
    fs::remove_dir_all(&log).unwrap();
    fifo(&log);
    assert!(matches!(StateStore::open_blocking(root.path()), Err(OpenError::Io { .. })));
}

/// Room is made only for what the first block says, and a log has.
#[test]
fn an_endless_segment_takes_no_memory() {
    for len in [1 << 40, (1 << 30) + 4096, 1 << 30, 5 << 20] {
        let root = root();
        let segment = root.path().join(".ringseal/log/log.1");
        let file = fs::File::options().write(true).open(&segment).unwrap();
        file.set_len(len).unwrap();
        let damaged = |error| assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        damaged(StateStore::open_blocking(root.path()).unwrap_err());
        damaged(fresh(root.path()).unwrap_err());
        damaged(inspect_log(root.path()).unwrap_err());
        file.set_len(4 << 20).unwrap();
        assert_state(&open(root.path()), "a", "1");
    }
}

#[test]
fn what_was_not_set_aside_is_passed_over() {
    let root = root();
    let unplaced = root.path().join(".ringseal/unplaced");
    let of_directory = unplaced.join("a/1-2-3");
    fs::create_dir_all(&of_directory).unwrap();
    fifo(&of_directory.join("fifo"));
    fs::create_dir(of_directory.join("state.json")).unwrap();
    fs::set_permissions(of_directory.join("state.json"), fs::Permissions::from_mode(0o000))
        .unwrap();
    symlink("/etc/passwd", of_directory.join("link")).unwrap();
    symlink("/etc", unplaced.join("b")).unwrap();
    fifo(&unplaced.join("c"));
    let huge = fs::File::create(of_directory.join("huge")).unwrap();
    huge.set_len(1 << 40).unwrap();
    assert_eq!(fresh(root.path()).unwrap(), Freshness::Current);
    let store = open(root.path());
    assert!(store.recovery().not_visible.is_empty(), "{:?}", store.recovery());
    assert_state(&store, "a", "1");
    store.save_bytes_blocking("a", "2").unwrap();
    store.close_blocking().unwrap();
    assert_eq!(fs::read_dir(&of_directory).unwrap().count(), 4, "all of it is still there");
}

#[test]
fn a_root_that_shuts_its_owner_out_is_not_made() {
    let dir = tempdir().unwrap();
    for mode in [0o077, 0o600, 0o4755, 0o40700] {
        let root = dir.path().join("root");
        let error = StoreOptions::new().root_mode(mode).open_blocking(&root).unwrap_err();
        assert!(matches!(error, OpenError::Options(_)), "{mode:o}: {error}");
        assert!(!root.exists());
    }
}

/// Also within one second.
#[test]
fn every_damaged_log_is_kept() {
    let root = root();
    let own = root.path().join(".ringseal");
    for count in 1..=5 {
        fs::write(own.join("log/log.0"), "damaged").unwrap();
        let store = StoreOptions::new().salvage().open_blocking(root.path()).unwrap();
        assert!(store.recovery().damage.is_some());
        store.close_blocking().unwrap();
        let kept = fs::read_dir(&own).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("log.damaged-")
        });
        assert_eq!(kept.count(), count);
    }
}

#[test]
fn a_directory_that_is_left_is_named_once() {
    let root = root();
    let store = open(root.path());
    store.save_all_blocking([("a", "1"), ("b", "1"), ("c", "1")]).unwrap();
    for id in ["a", "b"] {
        fs::write(root.path().join(id).join("theirs"), "").unwrap();
    }
    let removed = store.transaction().remove("b").remove("a").remove("c").remove("b").remove("a");
    let committed = removed.commit_blocking().unwrap();
    assert_eq!(committed.left, [root.path().join("a"), root.path().join("b")]);
}
