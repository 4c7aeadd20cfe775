//! Saves that are answered and not visible yet: where they are, and who is at it. `publisher.rs` publishes them.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::Publish;
use super::core::Unpublished;

/// Files that may be behind before a group is added, and changes of a group that are published behind it: twice as
/// many are behind at most.
pub(super) const MAX: usize = 4096;

/// Saves that are answered and not visible yet.
#[derive(Debug)]
pub(crate) struct Behind {
    /// For whoever loads.
    pub saves: Unpublished,
    /// A thread publishes them.
    pub(super) is_running: AtomicBool,
    /// Threads that wait for the log.
    pub(super) waiting: AtomicUsize,
    /// Nothing is published any more; read and set by whoever has the log.
    pub(super) is_over: AtomicBool,
}

impl Behind {
    pub(crate) fn new(saves: Unpublished) -> Behind {
        let [is_running, is_over] = [false, false].map(AtomicBool::new);
        Behind { saves, is_running, waiting: AtomicUsize::new(0), is_over }
    }

    /// When a group of so many changes is published.
    pub(super) fn publish(&self, changes: usize) -> Publish {
        if changes > MAX { Publish::BeforeAnswer } else { Publish::Behind }
    }
}
