//! The runtime's state is in a store, is torn in the root, and is restored.

use std::env;
use std::fs::{self, OpenOptions};
use std::path::Path;

use ringseal::Durability;

use crate::checkpoint::{checkpoint, options, restore};
use crate::daemon::{Daemon, done};
use crate::runtime::{CREATED, CRUN, IDS, Kind, RUNC, RUNNING, Runtime, STOPPED};
use crate::seen::Seen;
use crate::support::child::run_if_child;
use crate::support::{need, tree};

const ROOT: &str = "RINGSEAL_RUNTIME_ROOT";
const STORE: &str = "RINGSEAL_STORE_ROOT";

#[test]
fn runc_goes_on() {
    a_runtime_goes_on(&RUNC, "restored::runc_goes_on");
}

#[test]
fn crun_goes_on() {
    a_runtime_goes_on(&CRUN, "restored::crun_goes_on");
}

fn a_runtime_goes_on(kind: &'static Kind, test: &str) {
    run_if_child(test, || checkpoint_and_wait(kind));
    let runtime = need!(Runtime::with_containers(kind));
    let before = Seen::of(&runtime);
    let envs = [(ROOT, runtime.root()), (STORE, runtime.elsewhere())];
    Daemon::start(test, envs).kill();

    // What a kill in the middle of a write in place leaves; and a directory that was lost.
    tear(&runtime.file(CREATED));
    tear(&runtime.file(RUNNING));
    fs::remove_dir_all(runtime.root().join(STOPPED)).unwrap();
    for id in IDS {
        runtime.state(id).unwrap_err();
    }
    // They live, and nobody can start or end them.
    runtime.start(CREATED).unwrap_err();
    runtime.kill(RUNNING).unwrap_err();
    // runc refuses this too; crun forgets the container, whose process goes on.
    let _ = runtime.run(&["delete", "--force", RUNNING]);
    runtime.state(RUNNING).unwrap_err();

    let store = options(kind).open_blocking(runtime.elsewhere()).unwrap();
    let receipts = restore(kind, &store, &runtime.root());
    assert_eq!(receipts.len(), IDS.len() * kind.files().count());
    assert!(receipts.iter().all(|receipt| receipt.durability == Durability::Durable));
    assert_eq!(Seen::of(&runtime), before);
    assert_eq!(tree::temps(&runtime.root()), [""; 0]);
    runtime.finish();
    assert!(tree::names(&runtime.root()).is_empty());
    store.close_blocking().unwrap();
}

/// Cuts a file into half.
pub fn tear(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

/// The daemon that checkpoints, and is killed with its store open.
fn checkpoint_and_wait(kind: &Kind) {
    let [root, store] = [ROOT, STORE].map(|name| env::var_os(name).unwrap());
    let store = options(kind).open_blocking(store).unwrap();
    checkpoint(kind, root.as_ref(), &store).unwrap();
    done();
}
