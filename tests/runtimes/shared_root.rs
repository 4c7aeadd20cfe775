//! The store's root is the runtime's.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ringseal::{LogUse, StateStore};

use crate::checkpoint::{checkpoint, options};
use crate::daemon::{Daemon, done};
use crate::restored::tear;
use crate::runtime::{CRUN, IDS, Kind, RUNC, RUNNING, Runtime};
use crate::seen::Seen;
use crate::support::child::run_if_child;
use crate::support::{need, require_shared_syncs, tree};

const ROOT: &str = "RINGSEAL_RUNTIME_ROOT";

#[test]
fn runc_reads_what_the_store_saves() {
    a_runtime_reads_what_the_store_saves(&RUNC, "shared_root::runc_reads_what_the_store_saves");
}

#[test]
fn crun_reads_what_the_store_saves() {
    a_runtime_reads_what_the_store_saves(&CRUN, "shared_root::crun_reads_what_the_store_saves");
}

fn a_runtime_reads_what_the_store_saves(kind: &'static Kind, test: &str) {
    run_if_child(test, || save_and_wait(kind));
    need!(require_shared_syncs());
    let runtime = need!(Runtime::with_containers(kind));
    let before = Seen::of(&runtime);
    let daemon = Daemon::start(test, [(ROOT, runtime.root())]);
    // Beside the store's own directory, and with a spare beside each state.
    let spare = format!(".ringseal-spare-{}", kind.state);
    for id in IDS {
        assert!(tree::names(&runtime.root().join(id)).contains(&spare), "{id}");
    }
    assert_eq!(Seen::of(&runtime), before);
    daemon.kill();
    assert_eq!(Seen::of(&runtime), before);

    // Opening the store is enough: its log has what the files had.
    tear(&runtime.file(RUNNING));
    runtime.state(RUNNING).unwrap_err();
    let store = open(&runtime.root(), kind);
    assert_eq!(Seen::of(&runtime), before);
    for id in IDS {
        let saved = store.load_bytes_blocking(id).unwrap();
        assert_eq!(saved.as_deref(), fs::read(runtime.file(id)).ok().as_deref(), "{id}");
    }

    // The runtime removes its containers' directories below an open store.
    runtime.finish();
    assert_eq!(store.list_blocking().unwrap(), [""; 0]);
    store.close_blocking().unwrap();
    drop(store);
    let store = open(&runtime.root(), kind);
    assert_eq!(store.list_blocking().unwrap(), [""; 0]);
    assert_eq!(tree::names(&runtime.root()), [".ringseal".to_owned()].into());
}

/// A store whose log is needed: the files do not follow by themselves.
fn open(root: &Path, kind: &Kind) -> StateStore {
    options(kind).spread_after(Duration::from_secs(3600)).open_blocking(root).unwrap()
}

/// The daemon that saves the runtime's files over themselves, and is killed with its store open.
fn save_and_wait(kind: &Kind) {
    let root = env::var_os(ROOT).unwrap();
    let store = open(root.as_ref(), kind);
    assert!(matches!(store.recovery().log, LogUse::Everything));
    // From the third time on a file has a spare.
    for _ in 0..3 {
        checkpoint(kind, root.as_ref(), &store).unwrap();
    }
    done();
}
