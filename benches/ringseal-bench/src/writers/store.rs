//! ringseal's store.

use anyhow::{Context, Result, ensure};
use ringseal::StateStore;

use super::{Entry, Writer};
use crate::cell::{Cell, parent};

pub(super) fn entries() -> Vec<Entry> {
    vec![Entry::new(
        "ringseal_store",
        "calls",
        "ringseal `StateStore`, all files in one transaction, visible when it is answered",
        || Ok(Box::new(Store(None))),
    )]
}

struct Store(Option<StateStore>);

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
        self.0 = None;
        ensure!(cell.has_directories(), "a store has a directory for each container");
        let root = parent(parent(&cell.targets[0]));
        self.0 = Some(StateStore::open_blocking(root).context("open the store")?);
        Ok(())
    }

    fn save(&mut self, cell: &Cell) -> Result<()> {
        let store = self.0.as_ref().context("it is not open")?;
        store.save_all_blocking(states(cell).map(|(id, bytes)| (id, bytes.clone())))?;
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(store) = self.0.take() {
            let _ = store.close_blocking();
        }
    }
}
