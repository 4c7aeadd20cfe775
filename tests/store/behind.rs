//! Saves that are answered before they are visible: this store loads them at once, others see them soon, and a crash
//! loses none.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringseal::{Publish, Route, StateStore};
use rustix::fs::inotify;
use rustix::io::Errno;

use crate::support::{Disk, assert_no_temps, child, need, slow, spawn_child};
use crate::{Place, assert_state, disks, file, lazy, places, shares_its_log};

fn open(root: &Path) -> StateStore {
    lazy().publish(Publish::Behind).open_blocking(root).unwrap()
}

/// Waits until a file is as it should be.
#[track_caller]
fn assert_becomes(root: &Path, id: &str, expected: impl AsRef<[u8]>) {
    let end = Instant::now() + Duration::from_secs(10) * slow();
    while file(root, id).as_deref() != Some(expected.as_ref()) {
        assert!(Instant::now() < end, "{id} is {:?}", file(root, id));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_save_is_loaded_at_once_and_seen_soon() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        for version in 0..200_u32 {
            for id in ["a", "b"] {
                let committed = store.save_bytes_blocking(id, version.to_string()).unwrap();
                assert!(committed.not_visible.is_empty());
                assert_state(&store, id, version.to_string());
                if !shares_its_log(&store) {
                    // There is nothing to wait for.
                    assert_eq!(file(&root, id).unwrap(), version.to_string().as_bytes());
                }
            }
            assert_eq!(store.list_blocking().unwrap(), ["a", "b"], "{}", place.name());
        }
        assert_becomes(&root, "a", "199");
        assert_becomes(&root, "b", "199");
        // Many at once, and again before they are visible.
        for version in 0..5 {
            let states = (0..1000).map(|id| (format!("c{id}"), format!("{version}-{id}")));
            store.save_all_blocking(states).unwrap();
            assert_state(&store, "c999", format!("{version}-999"));
            assert_eq!(store.list_blocking().unwrap().len(), 1002);
        }
        store.close_blocking().unwrap();
        for id in 0..1000 {
            assert_eq!(file(&root, &format!("c{id}")).unwrap(), format!("4-{id}").as_bytes());
            assert_no_temps(&root.join(format!("c{id}")));
        }
    }
}

/// More than are left behind: they are visible before the answer.
#[test]
fn a_large_group_is_visible_before_the_answer() {
    let disk = need!(Disk::ext4());
    let root = disk.path().join("root");
    let store = open(&root);
    let states = || (0..4097).map(|id| (format!("c{id}"), "state"));
    store.save_all_blocking(states()).unwrap();
    for (id, state) in states() {
        assert_eq!(file(&root, &id).as_deref(), Some(state.as_bytes()), "{id}");
    }
    store.close_blocking().unwrap();
}

#[test]
fn what_is_overtaken_is_never_published() {
    let disk = need!(Disk::ext4());
    let root = disk.path().join("root");
    let store = open(&root);
    if !shares_its_log(&store) {
        return;
    }
    let others = |version: u32| (0..2000).map(move |id| (format!("c{id}"), version.to_string()));
    store.save_bytes_blocking("a", "first").unwrap();
    store.save_all_blocking(others(0)).unwrap();
    assert_becomes(&root, "a", "first");
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC);
    let watch = watch.unwrap();
    inotify::add_watch(&watch, root.join("a"), inotify::WatchFlags::MOVED_TO).unwrap();
    let saves = 300;
    for version in 1..=saves {
        store.save_bytes_blocking("a", version.to_string()).unwrap();
        if version % 50 == 1 {
            store.save_all_blocking(others(version)).unwrap();
        }
    }
    assert_becomes(&root, "a", saves.to_string());
    let mut buffer = [std::mem::MaybeUninit::uninit(); 64 << 10];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let mut published = 0;
    while let Ok(event) = events.next() {
        published += u32::from(event.file_name().is_some_and(|name| name == c"state.json"));
    }
    assert!(published > 0 && published < saves, "{published} of {saves} were published");
}

#[test]
fn a_power_cut_loses_nothing_that_was_answered() {
    for disk in disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        for round in 0..5_u32 {
            let store = open(&root);
            for version in 0..3 {
                let states =
                    (0..300).map(|id| (format!("c{id}"), format!("{round}-{version}-{id}")));
                store.save_all_blocking(states).unwrap();
            }
            need!(disk.shutdown());
            drop(store);
            // What was not visible by then cannot become so.
            while StateStore::open_blocking(&root).is_ok() {}
            disk.remount();
            let store = open(&root);
            for id in 0..300 {
                let expected = format!("{round}-2-{id}");
                assert_eq!(file(&root, &format!("c{id}")).unwrap(), expected.as_bytes(), "{id}");
            }
            store.close_blocking().unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_answered() {
    const ROOT: &str = "RINGSEAL_TEST_ROOT";
    let name = "behind::a_killed_process_loses_nothing_that_was_answered";
    child::run_if_child(name, || {
        let store = open(Path::new(&std::env::var_os(ROOT).unwrap()));
        for version in 0.. {
            let states = (0..500).map(|id| (format!("c{id}"), format!("{version}-{id}")));
            store.save_all_blocking(states).unwrap();
            println!("{version}");
        }
    });
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let mut child = spawn_child(name, [(ROOT, root.as_os_str())]);
        let answered = child::lines(&mut child).take(5).last().unwrap();
        let answered: u32 = answered.parse().unwrap();
        child::kill(child);
        let _store = open(&root);
        let versions: Vec<u32> = (0..500)
            .map(|id| {
                let state = String::from_utf8(file(&root, &format!("c{id}")).unwrap()).unwrap();
                state.strip_suffix(&format!("-{id}")).unwrap().parse().unwrap()
            })
            .collect();
        // All of one transaction.
        assert!(versions.iter().all(|version| *version == versions[0]), "{}", place.name());
        assert!(versions[0] >= answered);
    }
}

#[test]
fn a_save_beside_the_log_is_not_overwritten_by_an_older_one() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        let others = || (0..500).map(|id| (format!("c{id}"), "other"));
        for version in 0..30 {
            store.save_all_blocking(others()).unwrap();
            store.save_bytes_blocking("a", format!("logged {version}")).unwrap();
            let direct = format!("direct {version}");
            let save = store.transaction().save_bytes("a", direct.clone());
            save.route(Route::Direct).commit_blocking().unwrap();
            assert_eq!(file(&root, "a").unwrap(), direct.as_bytes(), "{}", place.name());
            assert_becomes(&root, "c499", "other");
            assert_eq!(file(&root, "a").unwrap(), direct.as_bytes());
        }
        store.close_blocking().unwrap();
        assert_eq!(file(&root, "a").unwrap(), b"direct 29");
    }
}

#[test]
fn a_removal_is_visible_before_the_answer_and_takes_what_is_behind() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        for version in 0..30 {
            let states = (0..200).map(|id| (format!("c{id}"), version.to_string()));
            store.save_all_blocking(states).unwrap();
            let committed = store.remove_blocking("c199").unwrap();
            assert!(committed.left.is_empty(), "{}", place.name());
            assert!(!root.join("c199").exists());
            assert_eq!(store.load_bytes_blocking("c199").unwrap(), None);
        }
        store.close_blocking().unwrap();
        assert!(!root.join("c199").exists());
        assert_eq!(file(&root, "c0").unwrap(), b"29");
    }
}

/// Of a group that removes something each file is visible before the answer, one after the other; what was answered
/// before, and not visible then, is not forgotten meanwhile.
#[test]
fn nobody_loads_an_older_version_while_a_removal_is_published() {
    let disk = need!(Disk::ext4());
    let store = open(&disk.path().join("root"));
    let answered = AtomicU32::new(0);
    let is_over = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(60) * slow();
    let save = |version: u32| {
        store.save_bytes_blocking("z", version.to_string()).unwrap();
        answered.store(version, Ordering::SeqCst);
    };
    save(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) && Instant::now() < end {
                let least = answered.load(Ordering::SeqCst);
                let loaded = store.load_bytes_blocking("z").unwrap().unwrap();
                let loaded: u32 = std::str::from_utf8(&loaded).unwrap().parse().unwrap();
                assert!(loaded >= least, "{loaded} was loaded when {least} had been answered");
            }
        });
        for round in 1..=20 {
            store.save_bytes_blocking("gone", "state").unwrap();
            save(2 * round);
            let mut transaction = store.transaction().remove("gone");
            for other in 0..300 {
                transaction = transaction.save_bytes(&format!("c{other}"), round.to_string());
            }
            let version = 2 * round + 1;
            transaction.save_bytes("z", version.to_string()).commit_blocking().unwrap();
            answered.store(version, Ordering::SeqCst);
        }
        is_over.store(true, Ordering::SeqCst);
    });
    store.close_blocking().unwrap();
}

/// Somebody else has removed the directory: a removal ends what is not visible yet, too.
#[test]
fn what_was_removed_does_not_come_back() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        for version in 0..30_u32 {
            let states = (0..300).map(|id| (format!("c{id}"), version.to_string()));
            store.save_all_blocking(states).unwrap();
            let _ = fs::remove_dir_all(root.join("c299"));
            let removed = store.remove_blocking("c299");
            let is_gone = |error: ringseal::Error| error.raw_os_error() == Some(libc::ENOENT);
            assert!(removed.is_ok() || removed.is_err_and(is_gone), "{}", place.name());
            assert_eq!(store.load_bytes_blocking("c299").unwrap(), None);
            assert_becomes(&root, "c298", version.to_string());
            assert!(!root.join("c299").exists(), "{}", place.name());
        }
        store.close_blocking().unwrap();
        assert!(!root.join("c299").exists());
    }
}

/// Somebody else removes a directory, or makes it again, before the save in it is visible.
#[test]
fn a_directory_that_goes_before_it_is_published_is_made_again() {
    for place in places() {
        let place = need!(place);
        if let Place::Directory(_) = place {
            continue;
        }
        let root = place.root();
        let store = open(&root);
        for version in 0..50_u32 {
            let states = (0..100).map(|id| (format!("c{id}"), version.to_string()));
            store.save_all_blocking(states).unwrap();
            // It may be published by now, or be half way.
            let _ = fs::remove_dir_all(root.join("c99"));
            if version % 2 == 0 {
                let _ = fs::create_dir(root.join("c99"));
            }
            store.save_bytes_blocking("c99", "again").unwrap();
            assert_becomes(&root, "c99", "again");
        }
        assert!(store.not_visible().is_empty(), "{:?}", store.not_visible());
    }
}

#[test]
fn many_callers_load_what_they_have_saved() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        std::thread::scope(|scope| {
            for caller in 0..8 {
                let (store, root) = (&store, &root);
                scope.spawn(move || {
                    let id = format!("caller-{caller}");
                    for version in 0..300 / slow() {
                        store.save_bytes_blocking(&id, version.to_string()).unwrap();
                        assert_state(store, &id, version.to_string());
                        // Whoever reads the file has some version, whole.
                        if let Some(seen) = file(root, &id) {
                            let seen: u32 = std::str::from_utf8(&seen).unwrap().parse().unwrap();
                            assert!(seen <= version);
                        }
                    }
                    assert_becomes(root, &id, (300 / slow() - 1).to_string());
                });
            }
        });
        store.close_blocking().unwrap();
    }
}

#[test]
fn what_stands_in_a_files_place_is_told_when_it_is_published() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        if !shares_its_log(&store) {
            continue;
        }
        for version in ["1", "2", "3"] {
            store.save_bytes_blocking("web", version).unwrap();
            assert_becomes(&root, "web", version);
        }
        let path = root.join("web/state.json");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(store.save_bytes_blocking("web", "4").unwrap().not_visible.len(), 0);
        let end = Instant::now() + Duration::from_secs(10) * slow();
        while store.not_visible().is_empty() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(1));
        }
        let hidden = &store.not_visible()[0];
        assert_eq!((&hidden.path, hidden.errno), (&path, Errno::ISDIR.raw_os_error()));
        assert!(path.is_dir());
        assert_state(&store, "web", "4");
        fs::remove_dir(&path).unwrap();
        store.save_bytes_blocking("web", "5").unwrap();
        assert_becomes(&root, "web", "5");
        assert!(store.not_visible().is_empty());
        store.close_blocking().unwrap();
    }
}
