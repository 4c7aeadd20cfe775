//! Opening: what a killed process leaves, and who may open.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::time::Duration;

use ringseal::{Freshness, OpenError, StateStore, StoreOptions};
use tempfile::tempdir;

use crate::support::child::{kill, lines, run_if_child, spawn_child};
use crate::support::{need, tree};
use crate::{assert_state, file, open, places};

const ROOT: &str = "RINGSEAL_STORE_ROOT";

/// Saves without end, by transactions of two containers, and says what was answered.
fn save_without_end() {
    let store = open(std::env::var_os(ROOT).unwrap().as_ref());
    let mut out = std::io::stdout();
    for version in 1_u64.. {
        let state = format!("{version}").repeat(1 + version as usize % 3000);
        let pair = format!("{}", version % 7);
        let both = [(format!("left-{pair}"), state.clone()), (format!("right-{pair}"), state)];
        store.save_all_blocking(both).unwrap();
        writeln!(out, "{version}").unwrap();
    }
}

#[test]
fn a_killed_process_leaves_whole_transactions() {
    run_if_child("recovery::a_killed_process_leaves_whole_transactions", save_without_end);
    for place in places() {
        let place = need!(place);
        let root = place.root();
        for round in 0..4 {
            let name = "recovery::a_killed_process_leaves_whole_transactions";
            let mut child = spawn_child(name, [(ROOT, root.as_os_str())]);
            let mut answered = HashMap::new();
            for line in lines(&mut child).take(40 + 60 * round) {
                let version: u64 = line.parse().unwrap();
                answered.insert(version % 7, version);
            }
            kill(child);
            let store = open(&root);
            for (pair, version) in answered {
                let left = store.load_bytes_blocking(&format!("left-{pair}")).unwrap().unwrap();
                let right = store.load_bytes_blocking(&format!("right-{pair}")).unwrap().unwrap();
                assert_eq!(left, right, "{}", place.name());
                // Whole, and not older than what was answered.
                let is =
                    |version: u64| left == format!("{version}").repeat(1 + version as usize % 3000);
                assert!((version..version + 200).any(is), "{}: {version}", place.name());
            }
            for id in store.list_blocking().unwrap() {
                assert_eq!(tree::names(&root.join(&id)).len(), 1, "{id}: a leftover stays");
            }
            store.close_blocking().unwrap();
        }
    }
}

#[test]
fn one_process_has_the_store() {
    run_if_child("recovery::one_process_has_the_store", || {
        let store = open(std::env::var_os(ROOT).unwrap().as_ref());
        println!("open");
        std::thread::sleep(Duration::from_secs(60));
        drop(store);
    });
    let dir = tempdir().unwrap();
    let name = "recovery::one_process_has_the_store";
    let mut child = spawn_child(name, [(ROOT, dir.path().as_os_str())]);
    assert_eq!(lines(&mut child).next().unwrap(), "open");
    let pid = child.id();
    match StateStore::open_blocking(dir.path()).unwrap_err() {
        OpenError::Held { root, pid: holder, .. } => {
            assert_eq!((root.as_path(), holder), (dir.path(), Some(pid)));
        }
        other => panic!("{other}"),
    }
    let reader = StoreOptions::new().open_read_only(dir.path()).unwrap();
    assert!(
        matches!(reader.freshness().unwrap(), Freshness::Open { pid: Some(holder), .. } if holder == pid)
    );
    kill(child);
    // What a killed process still holds for a moment is waited for.
    let store = open(dir.path());
    let again = StateStore::open_blocking(dir.path()).unwrap_err();
    assert!(matches!(again, OpenError::Held { pid, .. } if pid == Some(std::process::id())));
    // Looking has not taken the lock away.
    assert!(matches!(reader.freshness().unwrap(), Freshness::Open { .. }));
    let name = "recovery::the_other_is_refused";
    let mut child = spawn_child(name, [(ROOT, dir.path().as_os_str())]);
    assert_eq!(lines(&mut child).next().unwrap(), "held");
    child.wait().unwrap();
    drop(store);
    // The last handle is gone; its thread ends by itself.
    open(dir.path()).close_blocking().unwrap();
}

#[test]
fn the_other_is_refused() {
    run_if_child("recovery::the_other_is_refused", || {
        let root = std::env::var_os(ROOT).unwrap();
        match StateStore::open_blocking(root) {
            Err(OpenError::Held { .. }) => println!("held"),
            other => println!("{other:?}"),
        }
    });
}

#[test]
fn leftovers_of_the_dead_are_removed() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    store.save_bytes_blocking("a", "1").unwrap();
    store.close_blocking().unwrap();
    drop(store);
    run_in_dead_process(dir.path());
    let planted = tree::temps(&dir.path().join("a"));
    assert_eq!(planted.len(), 1, "{planted:?}");
    fs::write(dir.path().join("a/.ringseal-1-not-one"), "theirs").unwrap();
    let store = open(dir.path());
    let leftovers = &store.recovery().leftovers;
    assert_eq!(leftovers.len(), 1, "{leftovers:?}");
    assert!(leftovers[0].removed);
    assert_eq!(leftovers[0].path, dir.path().join("a").join(&planted[0]));
    assert_eq!(tree::names(&dir.path().join("a")).len(), 2);
}

/// A process that is killed while it writes the file piece by piece.
fn run_in_dead_process(root: &std::path::Path) {
    let name = "recovery::a_process_that_dies";
    let mut child = spawn_child(name, [(ROOT, root.as_os_str())]);
    assert_eq!(lines(&mut child).next().unwrap(), "written");
    kill(child);
}

#[test]
fn a_process_that_dies() {
    run_if_child("recovery::a_process_that_dies", || {
        let root = std::path::PathBuf::from(std::env::var_os(ROOT).unwrap());
        let mut file = ringseal::AtomicFile::create(root.join("a/state.json")).unwrap();
        file.write_all(b"half").unwrap();
        println!("written");
        std::thread::sleep(Duration::from_secs(60));
    });
}

/// A root that was copied: its directories are others. What the log had for the old ones is kept aside.
#[test]
fn a_root_that_was_copied_is_not_written_to_by_an_old_log() {
    let dir = tempdir().unwrap();
    let (root, copy) = (dir.path().join("root"), dir.path().join("copy"));
    let store = open(&root);
    store.save_all_blocking([("a", "1"), ("b", "2")]).unwrap();
    let cp = std::process::Command::new("cp").arg("-a").arg(&root).arg(&copy).status().unwrap();
    assert!(cp.success());
    store.close_blocking().unwrap();
    drop(store);
    let store = open(&copy);
    assert_state(&store, "a", "1");
    assert_eq!(file(&copy, "b").unwrap(), b"2");
}
