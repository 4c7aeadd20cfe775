//! ringseal's store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringseal::{Publish, StateStore, StoreOptions};

use super::{Entry, Writer};
use crate::cell::{Cell, inodes, parent};

pub(super) fn entries() -> Vec<Entry> {
    let behind = || StoreOptions::new().publish(Publish::Behind);
    let entry = |name, about, options: fn() -> StoreOptions, checkpoints| {
        Entry::new(name, "calls", about, move || {
            Ok(Box::new(Store::new(name, options(), checkpoints)))
        })
    };
    vec![
        entry(
            "ringseal_store",
            "ringseal `StateStore`, all files in one transaction, visible when it is answered",
            StoreOptions::new,
            1,
        ),
        entry(
            "ringseal_store_no_slots",
            "the same, and every version is a new file",
            || StoreOptions::new().slots(0),
            1,
        ),
        entry(
            "ringseal_store_6000_slots",
            "`ringseal_store`, and up to 6000 files have two inodes, for 18,000 descriptors",
            || StoreOptions::new().slots(6000),
            1,
        ),
        entry("ringseal_store_behind", "`ringseal_store`, answered when it is durable", behind, 1),
        entry(
            "ringseal_store_50",
            "`ringseal_store` 50 times, one after the other, until the files are durable",
            StoreOptions::new,
            50,
        ),
        entry("ringseal_store_behind_50", "the same with `ringseal_store_behind`", behind, 50),
    ]
}

/// A store owns its root: it saves to files of its own, which nobody else replaces meanwhile.
struct Store {
    name: &'static str,
    options: StoreOptions,
    open: Option<StateStore>,
    targets: Arc<[PathBuf]>,
    /// How often all files are saved in one measurement; more than once, also until they are durable.
    checkpoints: usize,
    /// What each took.
    latencies: Vec<Duration>,
    /// The files before the measurement.
    before: Vec<u64>,
}

impl Store {
    fn new(name: &'static str, options: StoreOptions, checkpoints: usize) -> Store {
        let (open, targets) = (None, Arc::new([]));
        let (latencies, before) = (Vec::new(), Vec::new());
        Store { name, options, open, targets, checkpoints, latencies, before }
    }

    fn save_once(&self, cell: &Cell) -> Result<()> {
        let store = self.open.as_ref().context("it is not open")?;
        store.save_all_blocking(states(cell).map(|(id, bytes)| (id, bytes.clone())))?;
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        match self.open.take() {
            Some(store) => Ok(store.close_blocking()?),
            None => Ok(()),
        }
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
        self.latencies.clear();
        ensure!(cell.has_directories(), "a store has a directory for each container");
        let root = parent(&cell.log).join(self.name);
        self.targets = states(cell).map(|(id, _)| root.join(id).join("state.json")).collect();
        Ok(())
    }

    fn before(&mut self, cell: &Cell) -> Result<()> {
        if self.open.is_none() {
            let root = parent(&cell.log).join(self.name);
            self.open = Some(self.options.clone().open_blocking(root).context("open the store")?);
            // The files are there, as everybody's are, and were saved before.
            self.before = inodes(&self.targets).unwrap_or_default();
            for _ in 0..3 {
                self.save_once(cell)?;
                self.after()?;
            }
        }
        self.before = inodes(&self.targets)?;
        Ok(())
    }

    fn save(&mut self, cell: &Cell) -> Result<()> {
        for _ in 0..self.checkpoints {
            let began = Instant::now();
            self.save_once(cell)?;
            self.latencies.push(began.elapsed());
        }
        if self.checkpoints > 1 { self.close() } else { Ok(()) }
    }

    /// Until they are visible.
    fn after(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            // In the first three they need not be there.
            let now = inodes(&self.targets).unwrap_or_default();
            let is_changed = |(before, now): (&u64, &u64)| before != now;
            if now.len() == self.targets.len() && self.before.iter().zip(&now).all(is_changed) {
                self.before = now;
                return Ok(());
            }
            ensure!(Instant::now() < end, "not visible in 10 s");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn targets<'a>(&'a self, _: &'a Cell) -> &'a Arc<[PathBuf]> {
        &self.targets
    }

    fn replaces(&self) -> bool {
        // Of an even number of versions the last has the inode of the one before the first.
        self.checkpoints == 1
    }

    fn saves(&self) -> usize {
        self.checkpoints
    }

    fn note(&self) -> Option<String> {
        if self.checkpoints == 1 {
            return None;
        }
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        let at = |part: f64| {
            let index = (latencies.len() as f64 * part) as usize;
            let latency = latencies.get(index.min(latencies.len().checked_sub(1)?))?;
            Some(latency.as_secs_f64() * 1000.0)
        };
        let (p50, p99, worst) = (at(0.5)?, at(0.99)?, at(1.0)?);
        Some(format!("a checkpoint takes {p50:.1} ms, p99 {p99:.1}, at worst {worst:.1}"))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.close();
    }
}
