//! Where a save goes that has the turn: to a cycle, to the ring, to a thread, or back to its caller.

use std::sync::Arc;

use super::counters::Counters;
use super::group::{self, Carriers, Groups};
use super::pool::Pool;
use super::uring;
use crate::engine::task::{Task, Tasks};
use crate::job::{Job, Promise};

/// The ways that a writer has.
#[derive(Debug)]
pub(super) struct Route {
    ring: Option<Arc<uring::Queue>>,
    pool: Arc<Pool>,
    /// Saves that come together share their syncs.
    groups: Arc<Groups>,
}

/// A larger payload would hold up the caller's executor: 256 KiB are copied in about 30 us.
const STRAIGHT_MAX: usize = 256 << 10;

impl Route {
    pub(super) fn new(
        pool: Arc<Pool>,
        ring: Option<Arc<uring::Queue>>,
        counters: Arc<Counters>,
    ) -> Route {
        let carriers = Carriers { pool: Arc::clone(&pool), ring: ring.clone() };
        let groups = Groups::new(carriers, counters);
        Route { ring, pool, groups }
    }

    /// Takes saves, all at once, so that they can share a submission or their syncs.
    /// `alone`: there is one, and nothing else is in flight.
    pub(super) fn submit(&self, tasks: Tasks, alone: bool) {
        let is_single = |task: &Task| alone || task.payload.len() > group::PAYLOAD_MAX;
        let (single, together) = tasks.into_iter().partition(|task| is_single(task));
        self.groups.submit(together);
        self.submit_single(single);
    }

    /// Takes a save that keeps something of the version before it, which a thread of the pool has to look
    /// at first.
    pub(super) fn look_again_first(&self, task: Box<Task>) {
        self.pool.run(Box::new(move || {
            if let Some(task) = task.look_again() {
                task.carry();
            }
        }));
    }

    /// Is there a ring, whose lacks a save has to know?
    pub(super) fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// Saves that share nothing.
    fn submit_single(&self, tasks: Tasks) {
        let left = match &self.ring {
            Some(ring) if !tasks.is_empty() => ring.push(tasks).err().unwrap_or_default(),
            _ => tasks,
        };
        for task in left {
            self.pool.run(Box::new(move || task.carry()));
        }
    }

    /// In memory nothing waits, and a save costs less than handing it to another thread: unless it is
    /// large, it is carried out where it was asked for.
    pub(super) fn leaves_to_caller(&self, job: &Job, payload_len: usize) -> bool {
        let small = payload_len <= STRAIGHT_MAX;
        self.ring.is_none() && job.settled.promise == Promise::Volatile && small
    }

    /// No more saves will come: the threads end when what was accepted is done.
    pub(super) fn close(&self) {
        match &self.ring {
            Some(ring) if ring.close() => {}
            _ => self.pool.close(),
        }
    }
}
