//! Order: the last that was accepted stands; none is older than what was answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};

use ringseal::Route;

use crate::support::{Disk, need, slow};
use crate::{file, open, places};

fn version_of(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).unwrap().trim().parse().unwrap()
}

/// Thousands of concurrent saves of a few containers: a reader never sees a version older than one that was
/// answered before, and in the end the last that was accepted is there.
#[test]
fn versions_never_go_back() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        let is_quick = place.name() != "the temporary directory";
        let each = if is_quick { (400 / slow() as usize).max(60) } else { 60 };
        let ids = ["a", "b", "c"];
        // What each version's number is in the store's order.
        let accepted = Mutex::new(Vec::new());
        let next = AtomicU64::new(1);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (store, accepted, next, root, place) =
                    (&store, &accepted, &next, &root, &place);
                scope.spawn(move || {
                    for save in 0..each {
                        let id = ids[(thread + save) % 3];
                        let version = next.fetch_add(1, Ordering::Relaxed);
                        let state = version.to_string();
                        let transaction = store.transaction().save_bytes(id, state);
                        let committed = match (thread + save) % 11 {
                            0 => transaction.route(Route::Direct).commit_blocking(),
                            1 => transaction
                                .save_bytes("pair", version.to_string())
                                .commit_blocking(),
                            2 => pollster::block_on(transaction.commit()),
                            _ => transaction.commit_blocking(),
                        };
                        let committed = committed.unwrap();
                        assert!(committed.not_visible.is_empty());
                        accepted.lock().unwrap().push((id, committed.sequence, version));
                        // Of those that were answered, the one accepted last is not newer than the file.
                        let known = accepted.lock().unwrap().clone();
                        let found = version_of(&file(root, id).unwrap());
                        let order = |version: u64| {
                            known.iter().find(|(_, _, one)| *one == version).map(|one| one.1)
                        };
                        if let Some(found) = order(found) {
                            assert!(found >= committed.sequence, "{}: {id}", place.name());
                        }
                    }
                });
            }
        });
        let accepted = accepted.into_inner().unwrap();
        for id in ids {
            let last = accepted.iter().filter(|one| one.0 == id).max_by_key(|one| one.1).unwrap();
            assert_eq!(version_of(&file(&root, id).unwrap()), last.2, "{}: {id}", place.name());
        }
        store.close_blocking().unwrap();
    }
}

#[test]
fn versions_that_are_overtaken_share_an_answer() {
    for place in places() {
        let place = need!(place);
        if !matches!(place.name(), "ext4" | "xfs" | "btrfs") {
            continue;
        }
        let store = open(&place.root());
        // All are polled before the first group is written.
        let mut saves: Vec<_> =
            (0..500).map(|version| store.save_bytes("a", version.to_string())).collect();
        let mut committed = Vec::new();
        pollster::block_on(std::future::poll_fn(|context| {
            saves.retain_mut(|save| match std::pin::Pin::new(save).poll(context) {
                std::task::Poll::Ready(answer) => {
                    committed.push(answer.unwrap());
                    false
                }
                std::task::Poll::Pending => true,
            });
            if saves.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        }));
        let overtaken = committed.iter().filter(|one| one.coalesced_into.is_some());
        assert!(overtaken.clone().count() > 300, "{}: {}", place.name(), overtaken.clone().count());
        for one in overtaken {
            assert!(one.coalesced_into.unwrap() > one.sequence);
        }
        assert_eq!(file(&place.root(), "a").unwrap(), b"499");
    }
}

/// In memory each caller makes his save himself, beside others of other files; of one file they take turns.
#[test]
fn in_memory_the_last_that_was_accepted_stands() {
    let disk = need!(Disk::tmpfs(16 << 20, None));
    let root = disk.path().join("root");
    let store = open(&root);
    let threads = 4;
    let turn = Barrier::new(threads);
    let newest = Mutex::new((0, String::new()));
    // Nobody panics while others wait for him.
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (store, turn, newest, wrong, root) = (&store, &turn, &newest, &wrong, &root);
            scope.spawn(move || {
                let own = format!("own-{thread}");
                for round in 0..2000 / slow() {
                    let mut state = format!("{round}-{thread}");
                    // So large a one is made by a thread of the store's.
                    let is_large = (thread, round % 3) == (0, 1);
                    state.extend(is_large.then(|| "x".repeat(300 << 10)));
                    let transaction = store.transaction().save_bytes("a", state.clone());
                    turn.wait();
                    let committed = match (thread, round % 3) {
                        (0, 0) => transaction.save_bytes("b", "").commit_blocking(),
                        (0, 1) => pollster::block_on(transaction.commit()),
                        _ => transaction.commit_blocking(),
                    };
                    let sequence = committed.map_or(0, |committed| committed.sequence);
                    let mut last = newest.lock().unwrap();
                    if sequence > last.0 {
                        *last = (sequence, state.clone());
                    }
                    drop(last);
                    let alone = store.save_bytes_blocking(&own, state.clone());
                    let own = file(root, &own);
                    turn.wait();
                    let expected = newest.lock().unwrap().1.clone();
                    if sequence == 0 || file(root, "a") != Some(expected.into()) {
                        wrong.lock().unwrap().push(format!("a in round {round}"));
                    }
                    if alone.is_err() || own != Some(state.into()) {
                        wrong.lock().unwrap().push(format!("{thread}'s own in round {round}"));
                    }
                }
            });
        }
    });
    assert_eq!(wrong.into_inner().unwrap(), Vec::<String>::new());
    store.close_blocking().unwrap();
}
