//! Logs of any bytes: opening a store on one never panics, never writes outside of the root, and never puts a
//! version into a file that was not saved to it.

use std::fs;
use std::path::{Path, PathBuf};

use ringseal::OpenError;

use crate::support::child::{kill, lines, run_if_child, spawn_child};
use crate::support::{Disk, need, require_shared_syncs, slow, tree};
use crate::{file, lazy, open};

const ROOT: &str = "RINGSEAL_FUZZ_ROOT";
const IDS: [&str; 3] = ["a", "b", "c"];

fn state(id: &str, version: u32) -> Vec<u8> {
    format!("{id} {version} ").repeat(1 + 97 * version as usize).into_bytes()
}

/// Saves, and is killed: the log is needed.
fn save_and_wait() {
    let store = open(std::env::var_os(ROOT).unwrap().as_ref());
    for version in 0..6 {
        for id in IDS {
            store.save_bytes_blocking(id, state(id, version)).unwrap();
        }
        let all = IDS.map(|id| (id, state(id, 100 + version)));
        store.save_all_blocking(all).unwrap();
    }
    println!("saved");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

struct Log([PathBuf; 2], [Vec<u8>; 2]);

impl Log {
    fn read(root: &Path) -> Log {
        let paths = [0, 1].map(|index| root.join(format!(".ringseal/log/log.{index}")));
        let bytes = [0, 1].map(|index| fs::read(&paths[index]).unwrap());
        Log(paths, bytes)
    }

    /// Puts it back, changed, whatever stands there.
    fn write(&self, root: &Path, change: impl FnOnce(&mut [Vec<u8>; 2])) {
        let own = root.join(".ringseal");
        for name in tree::names(&own) {
            if name.starts_with("log") {
                fs::remove_dir_all(own.join(name)).unwrap();
            }
        }
        let dir = self.0[0].parent().unwrap();
        fs::create_dir(dir).unwrap();
        let private = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
        fs::set_permissions(dir, private).unwrap();
        let mut bytes = self.1.clone();
        change(&mut bytes);
        for (path, bytes) in self.0.iter().zip(bytes) {
            fs::write(path, bytes).unwrap();
            let private = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
            fs::set_permissions(path, private).unwrap();
        }
    }
}

#[test]
fn no_log_writes_anything_that_was_not_saved() {
    run_if_child("fuzz::no_log_writes_anything_that_was_not_saved", save_and_wait);
    let disk = need!(Disk::ext4());
    let root = disk.path().join("root");
    let name = "fuzz::no_log_writes_anything_that_was_not_saved";
    let mut child = spawn_child(name, [(ROOT, root.as_os_str())]);
    assert_eq!(lines(&mut child).next().unwrap(), "saved");
    kill(child);
    let log = Log::read(&root);
    // The parts that hold something.
    let used = log
        .1
        .each_ref()
        .map(|bytes| bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count());
    let outside = || tree::names(disk.path());
    let (before, mut refused, mut replayed) = (outside(), 0, 0);
    let mut rng = fastrand::Rng::with_seed(11);
    let rounds = (300 / slow() as usize).max(60);
    for round in 0..rounds {
        log.write(&root, |bytes| {
            for _ in 0..rng.usize(1..5) {
                let segment = rng.usize(0..2);
                let bytes = &mut bytes[segment];
                let used = used[segment].max(4096).min(bytes.len());
                if used < 4096 {
                    continue;
                }
                let at = rng.usize(0..used);
                let len = rng.usize(1..4096).min(used - at);
                match rng.u8(0..5) {
                    0 => bytes[at] ^= 1 << rng.u8(0..8),
                    1 => bytes[at..at + len].fill(0),
                    2 => rng.fill(&mut bytes[at..at + len]),
                    // A block in the place of another.
                    3 => {
                        let (from, to) = (rng.usize(0..used / 4096), rng.usize(0..used / 4096));
                        bytes.copy_within(from * 4096..(from + 1) * 4096, to * 4096);
                    }
                    _ => bytes.truncate(at),
                }
            }
        });
        let options = if round % 2 == 0 { lazy() } else { lazy().salvage() };
        match options.open_blocking(&root) {
            Ok(store) => {
                replayed += usize::from(!store.recovery().replayed.is_empty());
                assert!(store.recovery().not_visible.is_empty());
                store.close_blocking().unwrap();
            }
            Err(OpenError::Damaged { .. } | OpenError::NewerVersion { .. }) => refused += 1,
            Err(OpenError::UnknownFeatures { .. }) => refused += 1,
            Err(other) => panic!("round {round}: {other}"),
        }
        for id in IDS {
            let found = file(&root, id).unwrap();
            let versions = (0..6).chain(100..106).map(|version| state(id, version));
            assert!(versions.into_iter().any(|version| version == found), "round {round}: {id}");
        }
        assert_eq!(outside(), before);
        assert_eq!(tree::names(&root), [".ringseal", "a", "b", "c"].map(String::from).into());
    }
    println!("{refused} refused, {replayed} replayed");
    assert!(refused > rounds / 6, "{refused} refused");
    // Where no log is shared the files were durable before the answer, and the log says so.
    let expected = if require_shared_syncs().is_ok() { rounds / 6 } else { 0 };
    assert!(replayed >= expected, "{replayed} replayed");
}
