//! Group commit: saves that come together, or pile up, share their syncs.
//!
//! ```text
//!   submit ──▶ lane of the filesystem: what waits ──▶ cycle, on a thread of the pool:
//!                                                       own steps      by the ring, or by threads
//!                                                       shared step    one call, or a few, for all
//!                                                       own steps, ...
//! ```
//!
//! A lane runs at most [`CYCLES_MAX`] cycles, so that one prepares while the other waits for the
//! disk. What comes meanwhile waits and is taken whole by the next: the busier the disk, the larger
//! the cycles. Filesystems have lanes of their own: a slow one does not hold up another.

mod carriers;
mod cycle;
mod syncs;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use carriers::Carriers;

use super::counters::Counters;
use crate::engine::task::Tasks;
use crate::job::Promise;

/// Cycles of one filesystem that run at once.
const CYCLES_MAX: usize = 2;

/// A larger payload goes by itself: a cycle is as slow as the slowest of its files.
pub(super) const PAYLOAD_MAX: usize = 1 << 20;

/// Saves that can share a cycle: of one filesystem, by the number of its device. Those that are not
/// synced do not wait for those that are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey {
    device: u64,
    durable: bool,
}

/// What waits for a cycle, and how many run.
#[derive(Debug)]
pub(crate) struct Groups {
    lanes: Mutex<HashMap<LaneKey, Lane>>,
    carriers: Carriers,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: Tasks,
    running: usize,
}

impl Groups {
    pub(crate) fn new(carriers: Carriers, counters: Arc<Counters>) -> Arc<Groups> {
        Arc::new(Groups { lanes: Mutex::default(), carriers, counters })
    }

    /// Takes saves; each is carried out by the next cycle of its filesystem.
    pub(crate) fn submit(self: &Arc<Groups>, tasks: Tasks) {
        if tasks.is_empty() {
            return;
        }
        let mut starting = Vec::new();
        let mut lanes = self.lock();
        for task in tasks {
            let durable = task.job.settled.promise == Promise::Durable;
            let key = LaneKey { device: task.job.settled.device, durable };
            lanes.entry(key).or_default().waiting.push(task);
        }
        for (key, lane) in lanes.iter_mut() {
            if !lane.waiting.is_empty() && lane.running < CYCLES_MAX {
                lane.running += 1;
                starting.push(*key);
            }
        }
        drop(lanes);
        for key in starting {
            let groups = Arc::clone(self);
            self.carriers.pool.run(Box::new(move || groups.serve(key)));
        }
    }

    /// Runs a cycle of a lane on this thread. What came meanwhile is queued behind other work, so that
    /// a busy lane does not keep a thread from it.
    pub(crate) fn serve(self: &Arc<Groups>, key: LaneKey) {
        loop {
            let mut lanes = self.lock();
            let Some(lane) = lanes.get_mut(&key) else { return };
            let tasks = std::mem::take(&mut lane.waiting);
            if tasks.is_empty() {
                lane.running -= 1;
                if lane.running == 0 {
                    lanes.remove(&key);
                }
                return;
            }
            drop(lanes);
            // Whoever is not answered because of a panic is told so by the drop of his reply.
            let run = || cycle::run(tasks, &self.carriers, &self.counters);
            let _ = catch_unwind(AssertUnwindSafe(run));
            let groups = Arc::clone(self);
            if self.carriers.pool.enqueue(Box::new(move || groups.serve(key))).is_none() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LaneKey, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
