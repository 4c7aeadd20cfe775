//! Group commit: saves that come together, or pile up, share their syncs.
//!
//! ```text
//!   submit ──▶ lane of the filesystem: what waits ──▶ cycle: own steps, barrier, own steps, ...
//!                                                       on a thread of the pool, helped by others
//! ```
//!
//! A lane runs at most [`CYCLES_MAX`] cycles, so that one prepares while the other waits for the
//! disk. What comes meanwhile waits and is taken whole by the next: the busier the disk, the larger
//! the cycles. Filesystems have lanes of their own: a slow one does not hold up another.

mod crew;
mod cycle;
mod syncs;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use crew::Share;

use super::pool::{Pool, Work};
use crate::task::Tasks;

/// Cycles of one filesystem that run at once.
const CYCLES_MAX: usize = 2;

/// A larger payload goes by itself: a cycle is as slow as the slowest of its files.
const PAYLOAD_MAX: usize = 1 << 20;

/// What waits for a cycle, and how many run, by the number of the filesystem's device.
#[derive(Debug)]
pub(crate) struct Groups {
    lanes: Mutex<HashMap<u64, Lane>>,
    pool: Arc<Pool>,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: Tasks,
    running: usize,
}

impl Groups {
    pub(crate) fn new(pool: &Arc<Pool>) -> Arc<Groups> {
        Arc::new(Groups { lanes: Mutex::default(), pool: Arc::clone(pool) })
    }

    /// Takes saves; each is carried out by the next cycle of its filesystem.
    pub(crate) fn submit(self: &Arc<Groups>, tasks: Tasks) {
        let mut works = Vec::new();
        let mut lanes = self.lock();
        for task in tasks {
            if task.payload.len() > PAYLOAD_MAX {
                works.push(Work::Whole(task));
                continue;
            }
            let device = task.job.settled.device;
            let lane = lanes.entry(device).or_default();
            lane.waiting.push(task);
        }
        for (device, lane) in lanes.iter_mut() {
            if !lane.waiting.is_empty() && lane.running < CYCLES_MAX {
                lane.running += 1;
                works.push(Work::Cycles(Arc::clone(self), *device));
            }
        }
        drop(lanes);
        for work in works {
            if let Some(work) = self.pool.enqueue(work) {
                // There is no thread and none can be made. Never leave a save undone.
                work.carry();
            }
        }
    }

    /// Runs cycles of one filesystem on this thread, until nothing waits.
    pub(crate) fn serve(&self, device: u64) {
        loop {
            let mut lanes = self.lock();
            let Some(lane) = lanes.get_mut(&device) else { return };
            let tasks = std::mem::take(&mut lane.waiting);
            if tasks.is_empty() {
                lane.running -= 1;
                if lane.running == 0 {
                    lanes.remove(&device);
                }
                return;
            }
            drop(lanes);
            cycle::run(tasks, &self.pool);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
