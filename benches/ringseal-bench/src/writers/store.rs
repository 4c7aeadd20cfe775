//! ringseal's store.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ringseal::{StateStore, StoreOptions};

use super::{Entry, Writer};
use crate::cell::{Cell, parent};

pub(super) fn entries() -> Vec<Entry> {
    vec![
        Entry::new(
            "ringseal_store",
            "calls",
            "ringseal `StateStore`, all files in one transaction, visible when it is answered",
            || Ok(Box::new(Store::new("store", StoreOptions::new()))),
        ),
        Entry::new(
            "ringseal_store_no_slots",
            "calls",
            "the same, and every version is a new file",
            || Ok(Box::new(Store::new("store-no-slots", StoreOptions::new().slots(0)))),
        ),
    ]
}

/// A store owns its root: it saves to files of its own, which nobody else replaces meanwhile.
struct Store {
    name: &'static str,
    options: StoreOptions,
    open: Option<StateStore>,
    targets: Arc<[PathBuf]>,
}

impl Store {
    fn new(name: &'static str, options: StoreOptions) -> Store {
        Store { name, options, open: None, targets: Arc::new([]) }
    }
}

/// The ids and the states of a cell.
pub(super) fn states(cell: &Cell) -> impl Iterator<Item = (&str, &bytes::Bytes)> {
    cell.pairs().map(|(target, bytes)| {
        let id = parent(target).file_name().and_then(|id| id.to_str()).unwrap_or_default();
        (id, bytes)
    })
}

impl Writer for Store {
    fn prepare(&mut self, cell: &Cell) -> Result<()> {
        // The one of the cell before goes first: its root is gone.
        self.open = None;
        ensure!(cell.has_directories(), "a store has a directory for each container");
        let root = parent(&cell.log).join(self.name);
        self.targets = states(cell).map(|(id, _)| root.join(id).join("state.json")).collect();
        let store = self.options.clone().open_blocking(root);
        self.open = Some(store.context("open the store")?);
        // The files are there, as everybody's are, and were saved before.
        self.save(cell)?;
        self.save(cell)
    }

    fn targets<'a>(&'a self, _: &'a Cell) -> &'a Arc<[PathBuf]> {
        &self.targets
    }

    fn save(&mut self, cell: &Cell) -> Result<()> {
        let store = self.open.as_ref().context("it is not open")?;
        store.save_all_blocking(states(cell).map(|(id, bytes)| (id, bytes.clone())))?;
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(store) = self.open.take() {
            let _ = store.close_blocking();
        }
    }
}
