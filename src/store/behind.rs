//! Publishing behind the answer: by a thread of the pool, in portions, so that who saves waits for one of them at
//! most.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::Publish;
use super::committer::{Committer, lock};
use super::core::{Core, Unpublished};
use super::files::Tree;
use super::log::files::Segments;

/// Files that are published at once: as long, 2 ms perhaps, the log waits.
const PORTION: usize = 64;

/// Files that may be behind before who saves helps to publish them.
const MAX: usize = 4096;

/// In which whoever waits for the log gets it.
const MOMENT: Duration = Duration::from_micros(50);

type Open<'a> = MutexGuard<'a, Core<Segments, Tree>>;

/// Saves that are answered and not visible yet.
#[derive(Debug)]
pub(crate) struct Behind {
    /// For whoever loads.
    pub saves: Unpublished,
    /// A thread publishes them.
    is_running: AtomicBool,
    /// Threads that wait for the log.
    waiting: AtomicUsize,
}

impl Behind {
    pub(crate) fn new(saves: Unpublished) -> Behind {
        let (is_running, waiting) = (AtomicBool::new(false), AtomicUsize::new(0));
        Behind { saves, is_running, waiting }
    }

    /// Before something is added: nothing is left behind for long.
    pub(super) fn make_room(&self, core: &mut Core<Segments, Tree>) -> Publish {
        while self.saves.len() > MAX {
            core.publish_some(PORTION);
        }
        Publish::Behind
    }
}

impl Committer {
    /// Waits for the log.
    pub(super) fn enter<'a>(&self, core: &'a Mutex<Core<Segments, Tree>>) -> Open<'a> {
        let Some(behind) = &self.behind else { return lock(core) };
        behind.waiting.fetch_add(1, Ordering::Relaxed);
        let open = lock(core);
        behind.waiting.fetch_sub(1, Ordering::Relaxed);
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

    /// Makes visible what is in the log now.
    pub(super) fn publish_until_now(&self) {
        let (Some(core), Some(_)) = (&self.core, &self.behind) else { return };
        let until = lock(core).last();
        loop {
            let mut open = lock(core);
            if open.visible_to() >= until {
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
