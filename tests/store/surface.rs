//! What the store does, wherever its root is.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use ringseal::{Cause, Durability, LogUse, Outcome, Route, StateStore, Step, StoreOptions};
use serde::{Deserialize, Serialize};
use tempfile::tempdir;

use crate::support::{
    Disk, assert_no_temps, in_child, need, require_shared_syncs, seccomp, slow, tree,
};
use crate::{Place, assert_state, file, lazy, open, places};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct State {
    status: String,
    pid: u32,
}

fn running(pid: u32) -> State {
    State { status: "running".into(), pid }
}

/// To the last bit.
#[test]
fn numbers_are_loaded_as_they_were_saved() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    for number in [1.369662786700921e85, 0.1, f64::MIN_POSITIVE, f64::MAX, 5e-324, -0.0] {
        store.save_blocking("a", &number).unwrap();
        let loaded = store.load_blocking::<f64>("a").unwrap().unwrap();
        assert_eq!(loaded.to_bits(), number.to_bits(), "{number:e}");
    }
}

#[test]
fn states_are_saved_loaded_listed_and_removed() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = StateStore::open_blocking(&root).unwrap();
        let committed = store.save_blocking("web-1", &running(1)).unwrap();
        let durability = match place {
            Place::Disk(ref disk) if disk.name() == "tmpfs" => Durability::Volatile,
            _ => Durability::Durable,
        };
        assert_eq!(committed.durability, durability, "{}", place.name());
        assert!(committed.not_visible.is_empty());
        store.save_blocking("web-2", &running(2)).unwrap();
        store.save_blocking("web-1", &running(3)).unwrap();
        assert_eq!(store.load_blocking::<State>("web-1").unwrap(), Some(running(3)));
        assert_eq!(store.load_blocking::<State>("web-3").unwrap(), None);
        assert_eq!(file(&root, "web-2").unwrap(), serde_json::to_vec(&running(2)).unwrap());
        assert_eq!(store.list_blocking().unwrap(), ["web-1", "web-2"]);

        store.write_pid_blocking("web-1", 4711).unwrap();
        assert_eq!(fs::read(root.join("web-1/init.pid")).unwrap(), b"4711");
        let removed = store.remove_blocking("web-1").unwrap();
        assert!(removed.left.is_empty());
        assert!(!root.join("web-1").exists());
        assert_eq!(store.list_blocking().unwrap(), ["web-2"]);
        let again = store.remove_blocking("web-1").unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::ENOENT), "{again}");
        assert_eq!(again.outcome(), Outcome::Unchanged);
        // The same id, anew.
        store.save_blocking("web-1", &running(5)).unwrap();
        assert_eq!(store.load_blocking::<State>("web-1").unwrap(), Some(running(5)));
        store.close_blocking().unwrap();
        drop(store);
        let store = open(&root);
        assert_eq!(store.load_blocking::<State>("web-1").unwrap(), Some(running(5)));
        assert_eq!(store.recovery().replayed, Vec::<std::path::PathBuf>::new());
        assert_no_temps_below(&root);
    }
}

fn assert_no_temps_below(root: &std::path::Path) {
    for id in tree::names(root).into_iter().filter(|id| id != ".ringseal") {
        assert_no_temps(&root.join(id));
    }
}

#[test]
fn a_transaction_is_any_number_of_changes() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let options = StoreOptions::new().other_name("config.json");
        let store = options.open_blocking(&root).unwrap();
        store.save_bytes_blocking("old", "1").unwrap();
        store.write_pid_blocking("old", 17).unwrap();
        let committed = store
            .transaction()
            .save_bytes("new", "2")
            .save_file("new", "config.json", "{}")
            .remove("old")
            .save_bytes("new", "3")
            .commit_blocking()
            .unwrap();
        assert_eq!(committed.route, Route::Logged);
        assert_state(&store, "new", "3");
        assert_eq!(fs::read(root.join("new/config.json")).unwrap(), b"{}");
        assert!(!root.join("old").exists());
        // A thousand of them.
        let states: Vec<(String, String)> =
            (0..1000).map(|index| (format!("c{index}"), format!("{{\"n\":{index}}}"))).collect();
        store.save_all_blocking(states.clone()).unwrap();
        for (id, state) in &states {
            assert_eq!(file(&root, id).as_deref(), Some(state.as_bytes()), "{}", place.name());
        }
        assert_eq!(store.list_blocking().unwrap().len(), 1001);
        let nothing = store.transaction().commit_blocking().unwrap();
        assert_eq!((nothing.bytes, nothing.sequence), (0, 0));
        store.close_blocking().unwrap();
    }
}

#[test]
fn a_removal_and_a_save_in_one_transaction_are_a_new_container() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = StoreOptions::new().other_name("config.json").open_blocking(&root).unwrap();
        let both = store.transaction().save_bytes("a", "1").save_file("a", "config.json", "2");
        both.commit_blocking().unwrap();
        store.transaction().remove("a").save_bytes("a", "3").commit_blocking().unwrap();
        assert_state(&store, "a", "3");
        assert_eq!(tree::names(&root.join("a")).len(), 1, "{}", place.name());
    }
}

#[test]
fn what_is_not_the_stores_stays() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = StateStore::open_blocking(&root).unwrap();
        store.save_bytes_blocking("a", "1").unwrap();
        fs::write(root.join("a/rootfs.img"), "theirs").unwrap();
        let removed = store.remove_blocking("a").unwrap();
        assert_eq!(removed.left, [root.join("a")], "{}", place.name());
        assert_eq!(tree::names(&root.join("a")), ["rootfs.img".to_owned()].into());
        assert_eq!(store.list_blocking().unwrap(), [] as [&str; 0]);
        assert_eq!(store.load_bytes_blocking("a").unwrap(), None);
    }
}

#[test]
fn modes_and_names_are_as_asked_for() {
    let dir = tempdir().unwrap();
    let root = dir.path().join("a/b");
    let store = StoreOptions::new()
        .state_name("s")
        .pid_name("p")
        .mode(0o644)
        .directory_mode(0o711)
        .root_mode(0o755)
        .open_blocking(&root)
        .unwrap();
    store.save_bytes_blocking("c", "x").unwrap();
    store.write_pid_blocking("c", 1).unwrap();
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o755);
    assert_eq!(mode("c"), 0o711);
    assert_eq!((mode("c/s"), mode("c/p")), (0o644, 0o644));
    assert_eq!((mode(".ringseal"), mode(".ringseal/log")), (0o700, 0o700));
    assert_eq!(fs::metadata(root.join(".ringseal/log/log.0")).unwrap().mode() & 0o777, 0o600);
    for wrong in [
        StoreOptions::new().state_name("a/b"),
        StoreOptions::new().state_name(""),
        StoreOptions::new().state_name("x".repeat(201)),
        StoreOptions::new().state_name("init.pid"),
        StoreOptions::new().mode(0o200),
        StoreOptions::new().mode(0o4755),
        StoreOptions::new().directory_mode(0o500),
    ] {
        assert!(wrong.open_blocking(dir.path().join("c")).is_err());
    }
    assert!(!dir.path().join("c").exists());
}

#[test]
fn a_value_that_does_not_serialise_changes_nothing() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    store.save_bytes_blocking("a", "1").unwrap();
    let unfit = std::collections::HashMap::from([((1, 2), 3)]);
    let error = store.save_blocking("a", &unfit).unwrap_err();
    assert!(matches!(error.cause(), Cause::Serialize(_)), "{error}");
    assert!(pollster::block_on(store.save("b", &unfit)).is_err());
    assert_state(&store, "a", "1");
    assert!(!dir.path().join("b").exists());
}

/// However many containers there are, and however many save; with slots there are as many as were asked for.
#[test]
fn descriptors_do_not_grow_with_containers() {
    in_child("surface::descriptors_do_not_grow_with_containers", || {
        let containers = 3000 / slow() as usize;
        for place in places() {
            let place = need!(place);
            let store = lazy().slots(0).open_blocking(place.root()).unwrap();
            let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
            store.save_bytes_blocking("first", "1").unwrap();
            let before = descriptors();
            let states = (0..containers).map(|index| (format!("c{index}"), "1"));
            store.save_all_blocking(states).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..8 {
                    let store = &store;
                    scope.spawn(move || {
                        for index in (thread..containers / 3).step_by(8) {
                            store.save_bytes_blocking(&format!("c{index}"), "2").unwrap();
                        }
                    });
                }
            });
            assert_eq!(store.list_blocking().unwrap().len(), containers + 1);
            assert!(descriptors() <= before + 1, "{}: {before}", place.name());
        }
    });
}

/// Those that say who fails, and what of.
#[test]
fn an_error_names_the_one_that_failed() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        fs::create_dir_all(root.join("bad/state.json")).unwrap();
        let states = ["a", "b", "bad", "c"].map(|id| (id, "1"));
        let error = store.save_all_blocking(states).unwrap_err();
        assert_eq!(error.target(), root.join("bad/state.json"), "{}", place.name());
        assert_eq!(store.list_blocking().unwrap(), ["bad"]);
        let error = store.remove_blocking("nowhere").unwrap_err();
        assert_eq!(error.target(), root.join("nowhere"));
    }
}

#[test]
fn states_that_do_not_parse_are_reported() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    store.save_bytes_blocking("good", "{\"pid\":1}").unwrap();
    store.save_bytes_blocking("torn", "{\n  \"pid\": 1,\n  \"st").unwrap();
    store.save_bytes_blocking("empty", "").unwrap();
    let unreadable = store.verify_blocking().unwrap();
    let found: Vec<_> = unreadable.iter().map(|one| (one.id.as_str(), one.place)).collect();
    assert_eq!(found, [("empty", Some((1, 0))), ("torn", Some((3, 5)))]);
    assert_eq!(unreadable[1].path, dir.path().join("torn/state.json"));
    let error = store.load_blocking::<State>("good").unwrap_err();
    assert_eq!(error.step(), Step::Check);
    assert!(error.to_string().contains("missing field `status`"), "{error}");
    assert!(error.to_string().contains("line 1 column 9"), "{error}");
    assert_eq!(pollster::block_on(store.verify()).unwrap().len(), 2);
}

#[test]
fn every_call_has_an_asynchronous_form() {
    let dir = tempdir().unwrap();
    let root = dir.path().join("root");
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let store = StateStore::open(&root).await.unwrap();
        let tasks: Vec<_> = (0..50)
            .map(|pid| {
                let store = store.clone();
                tokio::spawn(async move { store.save(&format!("c{pid}"), &running(pid)).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        store.save_bytes("d", "{}").await.unwrap();
        store.write_pid("d", 1).await.unwrap();
        store.transaction().save("e", &running(1)).unwrap().remove("d").commit().await.unwrap();
        store.save_all([("f", "1"), ("g", "2")]).await.unwrap();
        store.remove("g").await.unwrap();
        assert_eq!(store.list().await.unwrap().len(), 52);
        assert_eq!(store.load::<State>("c7").await.unwrap(), Some(running(7)));
        assert_eq!(store.load_bytes("f").await.unwrap().unwrap(), "1");
        assert!(store.verify().await.unwrap().is_empty());
        // One that is not polled has not begun; one that is dropped is carried out.
        drop(store.save_bytes("never", "1"));
        let mut dropped = Box::pin(store.save_bytes("dropped", "1"));
        let _ = futures_poll(&mut dropped);
        drop(dropped);
        store.close().await.unwrap();
        assert!(root.join("dropped/state.json").exists() && !root.join("never").exists());
    });
}

fn futures_poll<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
    let waker = std::task::Waker::noop();
    std::pin::Pin::new(future).poll(&mut std::task::Context::from_waker(waker))
}

/// A filesystem without `O_TMPFILE` cannot prove that it is alive: one change and several say so.
#[test]
fn what_cannot_be_proven_is_said() {
    in_child("surface::what_cannot_be_proven_is_said", || {
        let overlay = need!(Disk::overlay(""));
        let ext4 = need!(Disk::ext4());
        need!(seccomp::deny_unnamed_files());
        for disk in [overlay, ext4] {
            let store = open(&disk.path().join("root"));
            let committed = [
                store.save_bytes_blocking("a", "1").unwrap(),
                store.save_all_blocking([("a", "2"), ("b", "2")]).unwrap(),
                store.transaction().remove("a").save_bytes("c", "3").commit_blocking().unwrap(),
            ];
            for one in committed {
                let expected = Durability::DurableUnproven;
                assert_eq!(one.durability, expected, "{}: {one:?}", disk.name());
            }
            store.close_blocking().unwrap();
        }
    });
}

#[test]
fn the_log_is_used_where_that_is_known_to_be_sound() {
    for place in places() {
        let place = need!(place);
        let store = StateStore::open_blocking(place.root()).unwrap();
        let log = &store.recovery().log;
        let single = store.save_bytes_blocking("a", "1").unwrap().route;
        let direct = store.transaction().save_bytes("a", "2").route(Route::Direct);
        assert_eq!(direct.commit_blocking().unwrap().route, Route::Direct);
        match place.name() {
            "ext4" | "xfs" | "btrfs" if require_shared_syncs().is_ok() => {
                assert!(matches!(log, LogUse::Everything), "{log:?}");
                assert_eq!(single, Route::Logged);
            }
            "ext4" | "xfs" | "btrfs" => {
                let of = place.name();
                assert!(matches!(log, LogUse::Transactions(name) if *name == of), "{log:?}");
                assert_eq!(single, Route::Direct);
            }
            "tmpfs" => {
                assert!(matches!(log, LogUse::Transactions("tmpfs")), "{log:?}");
                assert_eq!(single, Route::Direct);
            }
            _ => {}
        }
        let two = store.transaction().save_bytes("a", "3").save_bytes("b", "4");
        let refused = two.route(Route::Direct).commit_blocking().unwrap_err();
        assert!(matches!(refused.cause(), Cause::InvalidRequest(_)), "{refused}");
        assert_state(&store, "a", "2");
    }
}
