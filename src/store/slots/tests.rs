//! The rules of a slot, each left out.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::left_out::{Rule, without};
use crate::sys::lease::Lease;
use crate::{StateStore, StoreOptions};

/// A store on a filesystem where files have two inodes; `None` where the temporary directory is on another.
fn store(root: &Path) -> Option<StateStore> {
    let store = StoreOptions::new().slots(8).open_blocking(root).unwrap();
    for number in 0..3 {
        save(&store, number);
    }
    spare(root).is_some().then_some(store)
}

fn save(store: &StateStore, number: u8) {
    store.save_bytes_blocking("a", vec![number; 100]).unwrap();
}

fn spare(root: &Path) -> Option<std::path::PathBuf> {
    let mut files = fs::read_dir(root.join("a")).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.file_name().is_some_and(|name| name != "state.json"))
}

/// What whoever holds the old version sees, and which modes the file has.
fn history(root: &Path) -> Option<(bool, bool)> {
    let store = store(root)?;
    let path = root.join("a/state.json");
    save(&store, 7);
    let mut held = File::open(&path).unwrap();
    save(&store, 8);
    save(&store, 9);
    let mut bytes = Vec::new();
    held.read_to_end(&mut bytes).unwrap();
    let is_unchanged = bytes == [7; 100];

    fs::set_permissions(spare(root)?, fs::Permissions::from_mode(0o644)).unwrap();
    save(&store, 10);
    let has_mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777 == 0o600;
    Some((is_unchanged, has_mode))
}

/// As who has looked the file up when it became the spare.
#[test]
fn who_loads_waits_for_the_end_of_a_lease() {
    let dir = tempfile::tempdir().unwrap();
    let store = StoreOptions::new().slots(0).open_blocking(dir.path()).unwrap();
    save(&store, 1);
    let file = File::options().write(true).open(dir.path().join("a/state.json")).unwrap();
    let Ok(lease) = Lease::take(file.as_fd()) else { panic!("no leases here") };
    let load = std::thread::spawn(move || store.load_bytes_blocking("a").unwrap().unwrap());
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!load.is_finished());
    drop(lease);
    assert_eq!(load.join().unwrap(), vec![1; 100]);
}

#[test]
fn every_rule_is_missed() {
    for (rule, expected) in [
        (None, (true, true)),
        (Some(Rule::SpareUnseen), (false, true)),
        (Some(Rule::SpareMode), (true, false)),
    ] {
        // In memory, if it can be: there they are used everywhere.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let _without = without(rule);
        match history(dir.path()) {
            Some(found) => assert_eq!(found, expected, "{rule:?}"),
            None => {
                assert_ne!(std::env::var("RINGSEAL_NO_SKIP").as_deref(), Ok("1"), "no slots here");
                eprintln!("skipped: no slots in {}", dir.path().display());
            }
        }
    }
}
