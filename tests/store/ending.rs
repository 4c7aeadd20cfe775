//! Closing, forking, dropping.

use std::time::{Duration, Instant};

use ringseal::{Cause, StateStore, inspect_log};
use tempfile::tempdir;

use crate::support::{in_child, need};
use crate::{assert_state, file, open, places};

#[test]
fn close_spreads_and_leaves_an_empty_log() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let store = store.clone();
                std::thread::spawn(move || {
                    let mut saved = 0;
                    for version in 0_u32.. {
                        match store.save_bytes_blocking(&format!("c{thread}"), version.to_string())
                        {
                            Ok(_) => saved = version,
                            Err(error) => {
                                assert!(matches!(error.cause(), Cause::Closed), "{error}");
                                break;
                            }
                        }
                    }
                    saved
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(100));
        store.close_blocking().unwrap();
        for (thread, saved) in threads.into_iter().enumerate() {
            let saved = saved.join().unwrap();
            let found = file(&root, &format!("c{thread}")).unwrap();
            assert_eq!(found, saved.to_string().as_bytes(), "{}", place.name());
        }
        let log = inspect_log(&root).unwrap().unwrap();
        assert!(log.live.iter().all(|entry| entry.changes.is_empty()), "{log:?}");
        assert!(matches!(store.save_bytes_blocking("x", "1").unwrap_err().cause(), Cause::Closed));
        let closed = pollster::block_on(store.save_bytes("x", "1")).unwrap_err();
        assert!(matches!(closed.cause(), Cause::Closed), "{closed}");
        // Closed twice is closed.
        store.close_blocking().unwrap();
        // The root is free, although there is a handle.
        open(&root).close_blocking().unwrap();
    }
}

#[test]
fn the_last_handle_gives_the_root_back() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    store.save_all_blocking([("a", "1"), ("b", "2")]).unwrap();
    drop(store);
    let end = Instant::now() + Duration::from_secs(20);
    let store = loop {
        match StateStore::open_blocking(dir.path()) {
            Ok(store) => break store,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    };
    assert!(store.recovery().replayed.is_empty());
    assert_state(&store, "b", "2");
}

/// Nobody has a handle any more, the log is full, and what was accepted waits for the files.
#[test]
fn what_was_accepted_is_made_although_nobody_is_left() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let options = crate::lazy().segment_bytes(64 << 10, 64 << 10);
        let store = options.open_blocking(&root).unwrap();
        for index in 0..60 {
            let save = store.save_bytes(&format!("c{index}"), vec![b'x'; 10_000]);
            let mut save = Box::pin(save);
            let waker = std::task::Waker::noop();
            let _ = save.as_mut().poll(&mut std::task::Context::from_waker(waker));
        }
        drop(store);
        let store = open(&root);
        assert_eq!(store.list_blocking().unwrap().len(), 60, "{}", place.name());
        assert!(store.recovery().replayed.is_empty());
    }
}

#[test]
fn a_store_that_never_spreads_by_itself_can_be_closed() {
    let dir = tempdir().unwrap();
    let options = ringseal::StoreOptions::new().spread_after(Duration::MAX);
    let store = options.open_blocking(dir.path()).unwrap();
    store.save_all_blocking([("a", "1"), ("b", "2")]).unwrap();
    store.close_blocking().unwrap();
    assert_eq!(file(dir.path(), "b").unwrap(), b"2");
}

/// Where one thread can be made, and no more.
#[test]
fn a_store_of_few_threads_serves_all() {
    in_child("ending::a_store_of_few_threads_serves_all", || {
        for place in places() {
            let place = need!(place);
            let store = open(&place.root());
            let cgroup = need!(crate::support::cgroup::limit_pids(1));
            let saves: Vec<_> = (0..50_u32)
                .flat_map(|index| {
                    let id = format!("c{}", index % 7);
                    [store.save_bytes(&id, index.to_string()), store.write_pid(&id, index)]
                })
                .collect();
            let mut saves: Vec<_> = saves.into_iter().map(Box::pin).collect();
            let all = std::future::poll_fn(|context| {
                saves.retain_mut(|save| match save.as_mut().poll(context) {
                    std::task::Poll::Ready(answer) => {
                        answer.unwrap();
                        false
                    }
                    std::task::Poll::Pending => true,
                });
                match saves.is_empty() {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                }
            });
            pollster::block_on(all);
            store.close_blocking().unwrap();
            drop(cgroup);
        }
    });
}

#[test]
fn a_forked_childs_handle_answers_forked() {
    in_child("ending::a_forked_childs_handle_answers_forked", || {
        let dir = tempdir().unwrap();
        let store = open(dir.path());
        store.save_bytes_blocking("a", "1").unwrap();
        // SAFETY: the child makes calls of this library only, which allow for it, and ends by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let forked = [
                store.save_bytes_blocking("a", "2").unwrap_err(),
                pollster::block_on(store.save_bytes("a", "2")).unwrap_err(),
                store.load_bytes_blocking("a").unwrap_err(),
                store.list_blocking().unwrap_err(),
                store.close_blocking().unwrap_err(),
            ];
            let all = forked.iter().all(|error| matches!(error.cause(), Cause::Forked));
            // It does not have the lock either.
            let held = StateStore::open_blocking(dir.path()).is_err();
            drop(store);
            // SAFETY: it ends this process, of which nothing is needed any more.
            unsafe { libc::_exit(if all && held { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: `status` is a place for an int.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0, "the child failed");
        store.save_bytes_blocking("a", "3").unwrap();
        assert_state(&store, "a", "3");
        store.close_blocking().unwrap();
    });
}
