//! The engines: who carries plans out.
//!
//! ```text
//!   Task ──▶ Running::submit ──▶ group: saves that come together share their syncs
//!                    │ alone            │ what each save has to do for itself
//!                    ▼                  ▼
//!            uring: one thread owns the ring; a save is a chain of linked entries, however many
//!                    │ saves there are, they are one io_uring_enter
//!                    ▼ what the ring cannot do, or no longer does, and all where there is no ring
//!            pool: plain system calls on a bounded number of threads
//! ```
//!
//! A [`Task`] owns everything that a save needs: open directory, names, payload. It belongs to the
//! engine from `submit` until its answer, whatever becomes of the caller's future; memory that the
//! kernel reads is freed only after the last completion of its chain.

pub(crate) mod calls;
mod group;
mod pool;
mod status;
pub(crate) mod uring;

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::job::{Job, Promise};
use crate::task::{Task, Tasks};
use group::{Carriers, Groups};
use pool::{Pool, Work};
pub use status::{Engine, EngineKind, EngineStatus, StartError, Why};

/// What a writer asks of its engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    pub engine: Engine,
    /// Saves that can be in flight at once.
    pub requests: usize,
    /// Threads of the pool, and workers of the ring, at most.
    pub threads: usize,
}

/// The status, as engine and writer share it.
pub(crate) type SharedStatus = Arc<Mutex<EngineStatus>>;

/// A started engine.
#[derive(Debug)]
pub(crate) struct Running {
    ring: Option<Arc<uring::Queue>>,
    pool: Arc<Pool>,
    /// Saves that come together share their syncs.
    groups: Arc<Groups>,
    status: SharedStatus,
}

/// A larger payload would hold up the caller's executor: 256 KiB are copied in about 30 us.
const STRAIGHT_MAX: usize = 256 << 10;

impl Running {
    pub(crate) fn start(config: Config) -> Result<Running, StartError> {
        let pool = Arc::new(Pool::new(config.threads));
        let (kind, why) = match config.engine {
            Engine::Uring => (EngineKind::Uring, Why::Asked),
            Engine::Threads => (EngineKind::Threads, Why::Asked),
            Engine::Auto => (EngineKind::Threads, Why::Fastest),
        };
        let status = Arc::new(Mutex::new(EngineStatus { kind, why }));
        let ring = match kind {
            EngineKind::Uring => {
                let ring = uring::start(config, &pool, &status);
                Some(ring.map_err(StartError::RingUnavailable)?)
            }
            EngineKind::Threads => None,
        };
        let groups = Groups::new(Carriers { pool: Arc::clone(&pool), ring: ring.clone() });
        let running = Running { ring, pool, groups, status };
        // At least one thread, now: later there may be no more to be had.
        if let Err(error) = running.pool.start() {
            running.close();
            return Err(StartError::NoThread(error));
        }
        Ok(running)
    }

    /// Hands saves to the engine, all at once, so that they can share a submission or their syncs.
    /// `alone`: there is one, and nothing else is in flight.
    pub(crate) fn submit(&self, tasks: Tasks, alone: bool) {
        let is_single = |task: &Task| alone || task.payload.len() > group::PAYLOAD_MAX;
        let (single, together) = tasks.into_iter().partition(|task| is_single(task));
        self.groups.submit(together);
        self.submit_single(single);
    }

    /// Saves that share nothing.
    fn submit_single(&self, tasks: Tasks) {
        let left = match &self.ring {
            Some(ring) if !tasks.is_empty() => ring.push(tasks).err().unwrap_or_default(),
            _ => tasks,
        };
        for task in left {
            if let Some(work) = self.pool.enqueue(Work::Save(task)) {
                // There is no thread. Never leave a save undone.
                work.carry();
            }
        }
    }

    /// In memory nothing waits, and a save costs less than handing it to another thread: unless it is
    /// large, it is carried out where it was asked for.
    pub(crate) fn leaves_to_caller(&self, job: &Job, payload_len: usize) -> bool {
        let small = payload_len <= STRAIGHT_MAX;
        self.ring.is_none() && job.settled.promise == Promise::Volatile && small
    }

    pub(crate) fn status(&self) -> EngineStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No more saves will come: the threads end when what was accepted is done.
    pub(crate) fn close(&self) {
        match &self.ring {
            Some(ring) if ring.close() => {}
            _ => self.pool.close(),
        }
    }
}
