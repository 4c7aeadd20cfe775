//! The crate `fsys` 1.1, with the method that it chooses for this machine.

use anyhow::{Context, Result};
use fsys::Handle;

use super::{Entry, Writer};
use crate::cell::Cell;

pub(super) fn entries() -> Vec<Entry> {
    let with = |save: fn(&Handle, &Cell) -> Result<()>| {
        move || {
            let handle = fsys::new().context("make a handle of fsys")?;
            Ok(Box::new(Fsys { handle, save }) as Box<dyn Writer>)
        }
    };
    vec![
        Entry::new(
            "fsys_write",
            "calls",
            "fsys `write`, one file after the other; it ignores a failed directory sync",
            with(|handle, cell| {
                let mut pairs = cell.pairs();
                Ok(pairs.try_for_each(|(target, bytes)| handle.write(target, bytes))?)
            }),
        ),
        Entry::new(
            "fsys_batch",
            "threads",
            "fsys `Batch::commit_grouped`: one after the other on its one thread, payloads copied, \
             each directory synced once at the end",
            with(|handle, cell| {
                let mut batch = handle.batch();
                for (target, bytes) in cell.pairs() {
                    batch.write(target, bytes);
                }
                Ok(batch.commit_grouped()?)
            }),
        ),
    ]
}

struct Fsys {
    handle: Handle,
    save: fn(&Handle, &Cell) -> Result<()>,
}

impl Writer for Fsys {
    fn save(&mut self, cell: &Cell) -> Result<()> {
        (self.save)(&self.handle, cell)
    }

    fn note(&self) -> Option<String> {
        Some(format!("fsys method: {}", self.handle.active_method()))
    }
}
