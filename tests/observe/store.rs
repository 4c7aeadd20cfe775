//! `StateStore::stats`: each figure is what was done.

use std::fs;
use std::time::Duration;

use ringseal::{Publish, Route, StateStore, Step, StoreOptions, StoreStats};

use crate::support::{Disk, in_child, need, require_shared_syncs};
use crate::writer::frozen;

/// What holds of every snapshot at rest.
#[track_caller]
fn assert_at_rest(stats: &StoreStats) {
    assert_eq!(stats.accepted, stats.answered, "{stats:#?}");
    assert_eq!((stats.in_flight, stats.waiting), (0, 0), "{stats:#?}");
    assert_eq!(stats.oldest_in_flight, None, "{stats:#?}");
    assert_eq!(stats.latency.count, stats.answered, "{stats:#?}");
    assert_eq!(stats.failures.total(), stats.failed, "{stats:#?}");
}

/// A store whose files follow the log when it is closed.
fn open(disk: &Disk) -> StateStore {
    let options = StoreOptions::new().spread_after(Duration::from_secs(1000));
    options.open_blocking(disk.path().join("root")).unwrap()
}

#[test]
fn transactions_groups_and_what_was_published() {
    need!(require_shared_syncs());
    for disk in [need!(Disk::ext4()), need!(Disk::xfs()), need!(Disk::btrfs())] {
        let store = open(&disk);
        let before = store.stats();
        assert_at_rest(&before);
        assert_eq!((before.accepted, before.groups, before.oldest_unspread), (0, 0, None));

        let states = || (0..20).map(|id| (format!("web-{id}"), "12345"));
        store.save_all_blocking(states()).unwrap();
        let stats = store.stats();
        assert_at_rest(&stats);
        assert_eq!((stats.answered, stats.failed, stats.bytes), (1, 0, 100));
        assert_eq!((stats.groups, stats.changes), (1, 20));
        assert_eq!((stats.published.new_files, stats.published.exchanged), (20, 0));
        assert!(stats.log_bytes >= 4096 && stats.log_used >= before.log_used + 4096, "{stats:#?}");
        assert!(stats.log_used <= stats.log_segment, "{stats:#?}");
        assert!(stats.oldest_unspread.is_some() && stats.spreads == 0, "{stats:#?}");

        // From the third version on there are two inodes, where a process can have leases.
        (0..3).for_each(|_| drop(store.save_all_blocking(states()).unwrap()));
        let stats = store.stats();
        assert_eq!((stats.groups, stats.changes), (4, 80));
        let published = stats.published;
        assert_eq!(published.new_files + published.exchanged, 80);
        assert_eq!((stats.slots > 0, published.exchanged > 0), (true, true), "{stats:#?}");
        assert!(stats.slots <= stats.slots_max);

        store.remove_blocking("web-0").unwrap();
        let direct = store.transaction().save_bytes("web-1", "1").route(Route::Direct);
        direct.commit_blocking().unwrap();
        assert_eq!(store.remove_blocking("none").unwrap_err().step(), Step::OpenDirectory);
        let stats = store.stats();
        assert_at_rest(&stats);
        assert_eq!((stats.answered, stats.failed, stats.direct), (7, 1, 1));
        assert_eq!(stats.failures.at(Step::OpenDirectory), 1);
        // All files of a container that the store manages.
        assert!(stats.published.removed > 0, "{stats:#?}");

        store.close_blocking().unwrap();
        let stats = store.stats();
        assert!(stats.spreads > 0 && stats.longest_spread >= stats.last_spread, "{stats:#?}");
        assert_eq!((stats.spreads_failed, stats.oldest_unspread, stats.slots), (0, None, 0));
    }
}

#[test]
fn what_is_overtaken_in_a_group_is_coalesced() {
    let disk = need!(Disk::ext4());
    let store = open(&disk);
    let saves: Vec<_> = (0..50).map(|n| store.save_bytes("web-1", format!("{n:02}"))).collect();
    let mut saves: Vec<_> = saves.into_iter().map(Box::pin).collect();
    for save in &mut saves {
        // All are accepted before the first answer is waited for.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::future::Future::poll(save.as_mut(), &mut context).is_pending());
    }
    let answers: Vec<_> = saves.into_iter().map(|save| pollster::block_on(save).unwrap()).collect();
    let coalesced = answers.iter().filter(|one| one.coalesced_into.is_some()).count() as u64;
    store.close_blocking().unwrap();
    let stats = store.stats();
    assert_at_rest(&stats);
    assert_eq!((stats.accepted, stats.failed), (50, 0));
    assert_eq!((stats.coalesced, stats.bytes), (coalesced, 2 * (50 - coalesced)));
    // What was written is one change for each group.
    assert_eq!((stats.changes, stats.groups), (50 - coalesced, 50 - coalesced), "{stats:#?}");
}

#[test]
fn what_cannot_be_shown_is_counted() {
    let disk = need!(Disk::ext4());
    let store = open(&disk);
    store.save_bytes_blocking("web-1", "old").unwrap();
    let file = disk.path().join("root/web-1/state.json");
    let chattr = |how: &str| std::process::Command::new("chattr").arg(how).arg(&file).status();
    if !chattr("+i").is_ok_and(|status| status.success()) {
        crate::support::skipped("chattr +i");
        return;
    }
    let committed = store.save_bytes_blocking("web-1", "new").unwrap();
    assert_eq!(committed.not_visible.len(), 1);
    let stats = store.stats();
    assert_eq!((stats.not_visible, stats.set_aside), (1, 0), "{stats:#?}");
    assert!(stats.published.failed > 0);
    store.close_blocking().unwrap();
    assert_eq!(store.stats().set_aside, 1);
    chattr("-i").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"old");
}

#[test]
fn a_transaction_that_is_stuck_shows_its_age() {
    let disk = need!(Disk::ext4());
    for publish in [Publish::BeforeAnswer, Publish::Behind] {
        let options = StoreOptions::new().publish(publish);
        let store = options.open_blocking(disk.path().join("root")).unwrap();
        let commit = store.save_bytes("web-1", "1");
        let mut commit = std::pin::pin!(commit);
        need!(frozen(disk.path(), || {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(std::future::Future::poll(commit.as_mut(), &mut context).is_pending());
            std::thread::sleep(Duration::from_millis(100));
            let stats = store.stats();
            assert_eq!((stats.accepted, stats.answered, stats.in_flight), (1, 0, 1));
            assert!(stats.oldest_in_flight.unwrap() >= Duration::from_millis(90), "{stats:#?}");
        }));
        pollster::block_on(commit).unwrap();
        assert_at_rest(&store.stats());
        assert!(store.stats().latency.max >= Duration::from_millis(90));
        store.close_blocking().unwrap();
        assert_eq!(store.stats().unpublished, 0);
    }
}

#[test]
fn a_store_in_memory_counts_too() {
    let disk = need!(Disk::tmpfs(64 << 20, None));
    let store = open(&disk);
    store.save_bytes_blocking("web-1", "123").unwrap();
    store
        .transaction()
        .save_bytes("web-1", "1")
        .save_bytes("web-2", "2")
        .commit_blocking()
        .unwrap();
    let stats = store.stats();
    assert_at_rest(&stats);
    assert_eq!((stats.answered, stats.bytes), (2, 5));
    assert_eq!((stats.direct, stats.groups, stats.changes), (1, 1, 2));
    assert_eq!((stats.spreads, stats.oldest_unspread), (0, None));
    store.close_blocking().unwrap();
}

#[test]
fn a_forked_child_is_told_nothing_of_a_store() {
    in_child("store::a_forked_child_is_told_nothing_of_a_store", || {
        let dir = tempfile::tempdir().unwrap();
        let store = StateStore::open_blocking(dir.path().join("root")).unwrap();
        store.save_bytes_blocking("web-1", "1").unwrap();
        // SAFETY: this process was started for this test, and the child only asks and leaves.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let is_nothing = store.stats().accepted == 0;
            // SAFETY: leaves without running what belongs to the parent.
            unsafe { libc::_exit(i32::from(!is_nothing)) };
        }
        let mut status = 0;
        // SAFETY: `status` is a valid place for the status.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(status, 0);
        assert_eq!(store.stats().answered, 1);
    });
}
