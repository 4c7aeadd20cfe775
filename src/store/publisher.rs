//! Publishing behind the answer: by a thread of the pool, in portions, between which others get the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::behind;
use super::committer::{Committer, lock};
use super::core::Core;
use super::files::Tree;
use super::log::files::Segments;

/// Files that are published at once: as long, 2 ms perhaps, the log waits.
const PORTION: usize = 64;

/// In which whoever waits for the log gets it.
const MOMENT: Duration = Duration::from_micros(50);

type Open<'a> = MutexGuard<'a, Core<Segments, Tree>>;

impl Committer {
    /// Waits for the log.
    pub(super) fn enter<'a>(&self, core: &'a Mutex<Core<Segments, Tree>>) -> Open<'a> {
        let Some(behind) = &self.behind else { return lock(core) };
        behind.waiting.fetch_add(1, Ordering::Relaxed);
        let mut open = lock(core);
        behind.waiting.fetch_sub(1, Ordering::Relaxed);
        // Nothing is left behind for long.
        while behind.saves.len() > behind::MAX {
            open.publish_some(PORTION);
        }
        open
    }

    /// Sees to it that what is behind becomes visible.
    pub(super) fn publish_behind(self: &Arc<Committer>) {
        let Some(behind) = &self.behind else { return };
        if behind.saves.len() > 0 && !behind.is_running.swap(true, Ordering::AcqRel) {
            let committer = Arc::clone(self);
            self.pool.run(Box::new(move || {
                // Whatever happens: the next who saves is to find nobody at it.
                let published = catch_unwind(AssertUnwindSafe(|| committer.publish_all()));
                if let (Err(_), Some(behind)) = (published, &committer.behind) {
                    behind.is_running.store(false, Ordering::Release);
                }
            }));
        }
    }

    /// The thread: until nothing is behind.
    fn publish_all(&self) {
        let (Some(core), Some(behind)) = (&self.core, &self.behind) else { return };
        loop {
            let mut open = lock(core);
            if behind.is_over.load(Ordering::Relaxed) {
                return;
            }
            let has_more = open.publish_some(PORTION);
            self.show_hidden(&open);
            if !has_more {
                // Before the log is given up: who adds something from now on starts another.
                behind.is_running.store(false, Ordering::Release);
                return;
            }
            self.let_others_in(open);
        }
    }

    /// The root may be another's from now on.
    pub(super) fn end_publishing(&self) {
        if let (Some(core), Some(behind)) = (&self.core, &self.behind) {
            let _open = lock(core);
            behind.is_over.store(true, Ordering::Relaxed);
        }
    }

    /// Makes visible what is in the log now.
    pub(super) fn publish_until_now(&self) {
        let (Some(core), Some(_)) = (&self.core, &self.behind) else { return };
        let (log, until) = lock(core).end();
        loop {
            let mut open = lock(core);
            // A log is renewed only when all is visible.
            if open.end().0 != log || open.visible_to() >= until {
                return;
            }
            open.publish_some(PORTION);
            self.show_hidden(&open);
            self.let_others_in(open);
        }
    }

    fn let_others_in(&self, open: Open<'_>) {
        drop(open);
        // The lock is not a fair one.
        if self.behind.as_ref().is_some_and(|behind| behind.waiting.load(Ordering::Relaxed) > 0) {
            std::thread::sleep(MOMENT);
        }
    }
}
