//! The engines: who carries plans out.
//!
//! ```text
//!   Task ──▶ Running::submit ──▶ group: saves that come together share their syncs
//!                          │            │
//!                          │            ▼
//!                          ├───▶ pool: plain system calls on a bounded number of threads
//!                          │            ▲
//!                          │            │ what the ring cannot do, or no longer does
//!                          └───▶ uring: one thread owns the ring; a save is a chain of linked
//!                                       entries, a batch is one io_uring_enter
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
use crate::task::Tasks;
use group::Groups;
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
        let groups = Groups::new(&pool);
        let status = |kind, why| Arc::new(Mutex::new(EngineStatus { kind, why }));
        let why = match config.engine {
            Engine::Uring => {
                let status = status(EngineKind::Uring, Why::Asked);
                let ring = uring::start(config, &pool, &status);
                let ring = Some(ring.map_err(StartError::RingUnavailable)?);
                return Ok(Running { ring, pool, groups, status });
            }
            Engine::Threads => Why::Asked,
            Engine::Auto => Why::Fastest,
        };
        // At least one thread, now: later there may be no more to be had.
        pool.start_resident().map_err(StartError::NoThread)?;
        let status = status(EngineKind::Threads, why);
        Ok(Running { ring: None, pool, groups, status })
    }

    /// Hands saves to the engine, all at once, so that they can share a submission or their syncs.
    /// `alone`: there is one, and nothing else is in flight.
    pub(crate) fn submit(&self, mut tasks: Tasks, alone: bool) {
        if let Some(ring) = &self.ring {
            match ring.push(tasks) {
                Ok(()) => return,
                // The ring was given up: its thread serves the pool now.
                Err(back) => tasks = back,
            }
        }
        if !alone {
            return self.groups.submit(tasks);
        }
        for task in tasks {
            if let Some(work) = self.pool.enqueue(Work::Whole(task)) {
                // The ring's thread panicked, and no other could be made. Never leave a save undone.
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
