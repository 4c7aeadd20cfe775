//! The states of `examples/states`: written after the runtimes' code, so the runtimes read them.
//! This needs no container.

use std::fs;
use std::path::Path;

use oci_spec::runtime::{ContainerState, State};
use tempfile::tempdir;

use crate::checkpoint::{checkpoint, options, restore};
use crate::runtime::{CRUN, Kind, RUNC, parse_list};
use crate::support::need;

#[test]
fn runc_lists_them() {
    // The others are another runtime's, or want systemd.
    they_are_listed(&RUNC, &["rootless-notes", "runc-demo", "web-1"]);
}

#[test]
fn crun_lists_them() {
    let podman = "07b531a9d72a3e0072f1b71139594bcee04a773bb2fd568f00e6f9af62ef9575";
    they_are_listed(&CRUN, &[podman, "cache-a"]);
}

fn they_are_listed(kind: &Kind, ids: &[&str]) {
    need!(kind.require());
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/states");
    let dir = tempdir().unwrap();
    let [elsewhere, root] = ["elsewhere", "root"].map(|name| dir.path().join(name));
    let store = options(kind).open_blocking(&elsewhere).unwrap();
    checkpoint(kind, &examples, &store).unwrap();
    store.close_blocking().unwrap();
    drop(store);
    assert_eq!(list(kind, &root), []);

    let store = options(kind).open_blocking(&elsewhere).unwrap();
    let receipts = restore(kind, &store, &root);
    assert!(receipts.len() >= ids.len());
    let listed = list(kind, &root);
    for id in ids {
        for name in kind.files().filter(|name| examples.join(id).join(name).exists()) {
            let [saved, restored] =
                [&examples, &root].map(|root| fs::read(root.join(id).join(name)));
            assert_eq!(saved.unwrap(), restored.unwrap(), "{id}/{name}");
        }
        let state = listed.iter().find(|state| state.id() == id).expect(id);
        // The processes that they tell of were never there.
        assert_eq!(*state.status(), ContainerState::Stopped, "{id}");
    }
}

fn list(kind: &Kind, root: &Path) -> Vec<State> {
    let output =
        kind.command().arg("--root").arg(root).args(["list", "--format", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    parse_list(std::str::from_utf8(&output.stdout).unwrap())
}
