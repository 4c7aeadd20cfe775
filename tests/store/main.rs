//! The state store, through the public API, on real filesystems.

mod attacks;
mod behind;
mod ending;
mod faults;
mod fuzz;
mod meddling;
mod order;
mod planted;
mod power;
mod recovery;
mod slots;
mod surface;

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ringseal::{LogUse, StateStore, StoreOptions};
use tempfile::TempDir;

use support::{Disk, Skipped};

/// A directory for a root, and what holds it.
enum Place {
    Disk(Disk),
    Directory(TempDir),
}

impl Place {
    fn root(&self) -> PathBuf {
        match self {
            Place::Disk(disk) => disk.path().join("root"),
            Place::Directory(directory) => directory.path().join("root"),
        }
    }

    fn name(&self) -> &str {
        match self {
            Place::Disk(disk) => disk.name(),
            Place::Directory(_) => "the temporary directory",
        }
    }
}

/// One of each kind of filesystem: those that share a log, memory, and whatever is there.
fn places() -> Vec<Result<Place, Skipped>> {
    let tmpfs = Disk::tmpfs(64 << 20, None);
    let disks = [Disk::ext4(), Disk::xfs(), Disk::btrfs(), tmpfs];
    let mut places: Vec<_> = disks.into_iter().map(|disk| disk.map(Place::Disk)).collect();
    places.push(Ok(Place::Directory(tempfile::tempdir().unwrap())));
    places
}

/// Filesystems that can be shut down, which is a power cut.
fn disks() -> Vec<Result<Disk, Skipped>> {
    vec![Disk::ext4(), Disk::xfs()]
}

/// Options of a store that spreads only when it must, so that the log is needed.
fn lazy() -> StoreOptions {
    StoreOptions::new().spread_after(Duration::from_secs(3600))
}

fn open(root: &Path) -> StateStore {
    lazy().open_blocking(root).unwrap()
}

/// Are single saves of this store logged? Not in memory, and not before Linux 5.17.
fn shares_its_log(store: &StateStore) -> bool {
    matches!(store.recovery().log, LogUse::Everything)
}

#[track_caller]
fn assert_state(store: &StateStore, id: &str, expected: impl AsRef<[u8]>) {
    let loaded = store.load_bytes_blocking(id).unwrap();
    assert_eq!(loaded, Some(Bytes::copy_from_slice(expected.as_ref())), "{id}");
}

/// The file of a state, as anybody reads it.
fn file(root: &Path, id: &str) -> Option<Vec<u8>> {
    fs::read(root.join(id).join("state.json")).ok()
}

/// Power cut: what was not synced is gone.
macro_rules! cut_power {
    ($disk:expr, $store:expr) => {{
        crate::support::need!($disk.shutdown());
        // It cannot make the files durable any more.
        let _ = $store.close_blocking();
        drop($store);
        $disk.remount();
    }};
}
pub(crate) use cut_power;
