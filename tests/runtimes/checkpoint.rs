//! A runtime's state tree, to a store and back.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use ringseal::{
    Committed, Options, Receipt, Request, Root, StateStore, StoreOptions, Target, Writer,
};

use crate::runtime::Kind;

/// Options of a store that knows a runtime's files.
pub fn options(kind: &Kind) -> StoreOptions {
    let options = StoreOptions::new()
        .state_name(kind.state)
        .mode(kind.mode)
        .directory_mode(kind.directory_mode);
    kind.others.iter().fold(options, |options, name| options.other_name(*name))
}

/// Saves what a runtime keeps of its containers, in one transaction. Nothing else: a container's
/// `exec.fifo` is no state, and whoever opened it would wait, or let the container start.
pub fn checkpoint(kind: &Kind, root: &Path, store: &StateStore) -> ringseal::Result<Committed> {
    let mut transaction = store.transaction();
    for container in fs::read_dir(root).unwrap().map(Result::unwrap) {
        let id = container.file_name().into_string().unwrap();
        for name in kind.files() {
            match fs::read(container.path().join(name)) {
                Ok(bytes) => transaction = transaction.save_file(&id, name, bytes),
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
                    "{id}/{name}: {error}"
                ),
            }
        }
    }
    transaction.commit_blocking()
}

/// Puts all that a store has into a runtime's root, durably.
pub fn restore(kind: &Kind, store: &StateStore, root: &Path) -> Vec<Receipt> {
    let root = Root::create(root, 0o700).unwrap();
    let ids: BTreeSet<String> = store.list_blocking().unwrap().into_iter().collect();
    for made in root.make_directories(ids.iter().map(|id| (id, kind.directory_mode))) {
        made.unwrap();
    }
    let mut requests = Vec::new();
    for id in &ids {
        for name in kind.files() {
            if let Some(bytes) = store.load_file_blocking(id, name).unwrap() {
                let target = Target::beneath(&root, format!("{id}/{name}"));
                requests.push(Request::new(target, bytes).with(Options::new().mode(kind.mode)));
            }
        }
    }
    let writer = Writer::new().unwrap();
    writer.replace_all_blocking(requests).into_iter().map(Result::unwrap).collect()
}
