//! Saves that are answered and not visible yet: where they are, and who is at it. `publisher.rs` publishes them.

use std::sync::atomic::AtomicBool;

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
}

impl Behind {
    pub(crate) fn new(saves: Unpublished) -> Behind {
        Behind { saves, is_running: AtomicBool::new(false) }
    }

    /// Is a group of so many changes answered before it is visible?
    pub(super) fn takes(&self, changes: usize) -> bool {
        changes <= MAX
    }
}
