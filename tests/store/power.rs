//! Power cuts: the filesystem is shut down, so that nothing more reaches the disk, and mounted again.

use std::fs;
use std::time::{Duration, Instant};

use ringseal::{Freshness, Route, StateStore, StoreOptions, inspect_log};

use crate::support::{Disk, need, require_shared_syncs, slow};
use crate::{assert_state, cut_power, disks, file, lazy, open, shares_its_log};

#[test]
fn what_was_acknowledged_is_there() {
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let store = open(&root);
        let states: Vec<(String, String)> =
            (0..300).map(|index| (format!("c{index}"), "first".repeat(200))).collect();
        store.save_all_blocking(states.clone()).unwrap();
        for round in 0..3 {
            for (id, _) in &states[..40] {
                store.save_bytes_blocking(id, format!("{id} {round}")).unwrap();
            }
        }
        cut_power!(disk, store);
        let reader = StoreOptions::new().open_read_only(&root).unwrap();
        // Until the log is replayed a reader is told.
        let behind = match reader.freshness().unwrap() {
            Freshness::Behind { files, .. } => files.len(),
            _ => 0,
        };
        let store = open(&root);
        assert_eq!(store.recovery().replayed.len(), behind, "{}", disk.name());
        // Where no log is shared, the files were durable before the answer.
        assert_eq!(behind, if shares_its_log(&store) { 300 } else { 0 }, "{}", disk.name());
        for (id, first) in &states {
            let is_later = states[..40].iter().any(|(later, _)| later == id);
            assert_state(&store, id, if is_later { format!("{id} 2") } else { first.clone() });
        }
        assert!(
            matches!(reader.freshness().unwrap(), Freshness::Open { pid, .. } if pid == Some(std::process::id()))
        );
        drop(reader);
        // Once more, at once: what was replayed is durable.
        cut_power!(disk, store);
        assert_eq!(file(&root, "c299").unwrap(), states[299].1.as_bytes());
        let store = open(&root);
        assert!(store.recovery().replayed.is_empty());
        store.close_blocking().unwrap();
        let reader = StoreOptions::new().open_read_only(&root).unwrap();
        assert_eq!(reader.freshness().unwrap(), Freshness::Current);
    }
}

#[test]
fn what_was_removed_does_not_come_back() {
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let store = open(&root);
        store.save_bytes_blocking("a", "1").unwrap();
        store.save_bytes_blocking("b", "1").unwrap();
        store.close_blocking().unwrap();
        drop(store);
        let store = open(&root);
        store.save_bytes_blocking("a", "2").unwrap();
        store.remove_blocking("a").unwrap();
        store.remove_blocking("b").unwrap();
        store.save_bytes_blocking("b", "anew").unwrap();
        cut_power!(disk, store);
        let store = open(&root);
        assert_eq!(store.list_blocking().unwrap(), ["b"], "{}", disk.name());
        assert_state(&store, "b", "anew");
        assert!(!root.join("a").exists());
    }
}

/// A save beside the log is newer than what the log has.
#[test]
fn an_older_version_is_never_put_over_a_newer_one() {
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let store = open(&root);
        store.save_bytes_blocking("a", "by the log").unwrap();
        let beside = store.transaction().save_bytes("a", "beside it").route(Route::Direct);
        assert_eq!(beside.commit_blocking().unwrap().route, Route::Direct);
        store.save_bytes_blocking("b", "by the log").unwrap();
        let large = "large".repeat(1 << 20);
        assert_eq!(store.save_bytes_blocking("b", large.clone()).unwrap().route, Route::Direct);
        store.save_bytes_blocking("c", "beside it").unwrap();
        store.save_bytes_blocking("c", "by the log").unwrap();
        cut_power!(disk, store);
        // They are right without a replay.
        assert_eq!(file(&root, "a").unwrap(), b"beside it", "{}", disk.name());
        assert_eq!(file(&root, "b").unwrap(), large.as_bytes());
        let store = open(&root);
        assert_state(&store, "a", "beside it");
        assert_state(&store, "b", large);
        assert_state(&store, "c", "by the log");
    }
}

/// Somebody else has removed the directory, and made it again: the old state is not put into it, and not
/// dropped in silence.
#[test]
fn a_directory_that_was_remade_is_another() {
    // Else the files were durable, and went with their directory.
    need!(require_shared_syncs());
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let store = open(&root);
        store.save_bytes_blocking("a", "1").unwrap();
        store.save_bytes_blocking("b", "1").unwrap();
        for id in ["a", "b"] {
            fs::remove_dir_all(root.join(id)).unwrap();
        }
        fs::create_dir(root.join("a")).unwrap();
        rustix::fs::syncfs(fs::File::open(&root).unwrap()).unwrap();
        cut_power!(disk, store);
        let store = open(&root);
        assert_eq!(file(&root, "a"), None, "{}", disk.name());
        assert!(!root.join("b").exists());
        assert_eq!(store.list_blocking().unwrap(), [] as [&str; 0]);
        let lost: Vec<_> = store.recovery().not_visible.iter().map(|one| &one.path).collect();
        assert_eq!(lost, [&root.join("a/state.json"), &root.join("b/state.json")]);
        // It is kept until there is a newer one.
        let unplaced = || crate::support::tree::names(&root.join(".ringseal/unplaced"));
        assert_eq!(unplaced(), ["a".to_owned(), "b".to_owned()].into());
        assert_eq!(store.load_bytes_blocking("a").unwrap(), None);
        // A removal in one transaction with something else is refused, and forgets nothing.
        let pair = store.transaction().remove("b").save_bytes("c", "1").commit_blocking();
        assert_eq!(pair.unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert!(unplaced().contains("b") && store.load_bytes_blocking("c").unwrap().is_none());
        store.save_bytes_blocking("a", "2").unwrap();
        store.close_blocking().unwrap();
        drop(store);
        assert_eq!(unplaced(), ["b".to_owned()].into());
        let store = open(&root);
        store.remove_blocking("b").unwrap();
        assert!(unplaced().is_empty());
        assert_eq!(store.remove_blocking("b").unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
}

#[test]
fn the_files_follow_by_themselves() {
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let options = StoreOptions::new().spread_after(std::time::Duration::from_millis(20));
        let store = options.open_blocking(&root).unwrap();
        for index in 0..50 {
            store.save_bytes_blocking(&format!("c{index}"), format!("{index}")).unwrap();
        }
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let live = inspect_log(&root).unwrap().unwrap().live;
            if live.iter().all(|entry| entry.changes.is_empty()) {
                break;
            }
            assert!(std::time::Instant::now() < end, "{live:?}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        cut_power!(disk, store);
        for index in 0..50 {
            let found = file(&root, &format!("c{index}"));
            assert_eq!(found, Some(format!("{index}").into_bytes()), "{}", disk.name());
        }
        assert!(open(&root).recovery().replayed.is_empty());
    }
}

/// A log of the least size: it turns over again and again.
#[test]
fn a_full_log_waits_for_the_files() {
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let options = lazy().segment_bytes(64 << 10, 128 << 10);
        let store = options.open_blocking(&root).unwrap();
        for round in 0..120 {
            for id in ["a", "b", "c"] {
                store.save_bytes_blocking(id, format!("{id}{round}").repeat(300)).unwrap();
            }
        }
        cut_power!(disk, store);
        let store = open(&root);
        for id in ["a", "b", "c"] {
            assert_state(&store, id, format!("{id}119").repeat(300));
        }
    }
}

#[test]
fn a_log_that_is_full_too_soon_grows_while_saves_go_on() {
    need!(require_shared_syncs());
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let options = StoreOptions::new().segment_bytes(64 << 10, 1 << 20);
        let store = options.open_blocking(&root).unwrap();
        let began = Instant::now();
        let mut version = 0;
        while store.stats().log_segment < 1 << 20 {
            assert!(began.elapsed() < Duration::from_secs(60) * slow(), "{:?}", store.stats());
            version += 1;
            for id in 0..40 {
                store
                    .save_bytes_blocking(&format!("c{id}"), format!("{version} ").repeat(300))
                    .unwrap();
            }
        }
        cut_power!(disk, store);
        let store = StateStore::open_blocking(&root).unwrap();
        for id in 0..40 {
            assert_state(&store, &format!("c{id}"), format!("{version} ").repeat(300));
        }
        assert_eq!(store.stats().log_segment, 1 << 20);
    }
}

/// Where saves have to wait until the files have what the log holds, it is too small, however long its segments last.
#[test]
fn a_log_that_saves_wait_for_grows() {
    need!(require_shared_syncs());
    let disk = need!(Disk::ext4());
    // With so short a time no segment is full too soon.
    let options = lazy().spread_after(Duration::ZERO).segment_bytes(64 << 10, 256 << 10);
    let store = options.open_blocking(disk.path().join("root")).unwrap();
    let began = Instant::now();
    for version in 0_u64.. {
        // A third of a segment each: several turns while the files are synced once.
        let state = (version % 10).to_string().repeat(900);
        let states = (0..20).map(|id| (format!("c{id}"), state.clone()));
        store.save_all_blocking(states).unwrap();
        if store.stats().log_segment == 256 << 10 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60) * slow(), "{:?}", store.stats());
    }
    store.close_blocking().unwrap();
}

#[test]
fn a_transaction_that_needs_a_larger_log_gets_one_or_is_refused() {
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let options = lazy().segment_bytes(64 << 10, 1 << 20);
        let store = options.open_blocking(&root).unwrap();
        let states = |count: usize| (0..count).map(|index| (format!("c{index}"), "x".repeat(1000)));
        store.save_bytes_blocking("before", "1").unwrap();
        assert_eq!(store.save_all_blocking(states(500)).unwrap().route, Route::Logged);
        let error = store.save_all_blocking(states(1200)).unwrap_err();
        let ringseal::Cause::TransactionTooLarge { bytes, max, .. } = error.cause() else {
            panic!("{error}");
        };
        assert!(bytes > max && *max < 1 << 20, "{error}");
        assert_eq!(error.outcome(), ringseal::Outcome::Unchanged);
        assert!(!root.join("c500").exists());
        cut_power!(disk, store);
        let store = StateStore::open_blocking(&root).unwrap();
        assert_state(&store, "before", "1");
        assert_state(&store, "c499", "x".repeat(1000));
        assert_eq!(store.list_blocking().unwrap().len(), 501);
    }
}
