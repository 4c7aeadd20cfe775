//! What the engine counts of its own work; what it counts of each save is in the
//! [traffic](crate::stats).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Sums since the writer was built.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    chains: AtomicU64,
    cycles: AtomicU64,
    files_in_cycles: AtomicU64,
    barriers: AtomicU64,
}

impl Counters {
    /// A chain was handed to the ring.
    pub(crate) fn chain(&self) {
        self.chains.fetch_add(1, Relaxed);
    }

    /// A cycle of so many files begins.
    pub(crate) fn cycle(&self, files: usize) {
        self.cycles.fetch_add(1, Relaxed);
        self.files_in_cycles.fetch_add(files as u64, Relaxed);
    }

    /// One `syncfs` for all files of a cycle.
    pub(crate) fn barrier(&self) {
        self.barriers.fetch_add(1, Relaxed);
    }

    pub(crate) fn chains(&self) -> u64 {
        self.chains.load(Relaxed)
    }

    pub(crate) fn cycles(&self) -> u64 {
        self.cycles.load(Relaxed)
    }

    pub(crate) fn files_in_cycles(&self) -> u64 {
        self.files_in_cycles.load(Relaxed)
    }

    pub(crate) fn barriers(&self) -> u64 {
        self.barriers.load(Relaxed)
    }
}
