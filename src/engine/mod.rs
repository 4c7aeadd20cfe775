//! The engines: who carries plans out.
//!
//! ```text
//!   Task ──▶ order: of one target, one after the other
//!              ▼
//!            route ───────────▶ group: saves that come together share their syncs
//!              │ alone              │ what each save has to do for itself
//!              ▼                    ▼
//!            uring: one thread owns the ring; a save is a chain of linked entries, however many
//!              │    saves there are, they are one io_uring_enter
//!              ▼ what the ring cannot do, or no longer does, and all where there is no ring
//!            pool: plain system calls on a bounded number of threads
//! ```
//!
//! A [`Task`] owns everything that a save needs: open directory, names, payload. It belongs to the
//! engine from `accept` until its answer, whatever becomes of the caller's future; memory that the
//! kernel reads is freed only after the last completion of its chain.

pub(crate) mod calls;
pub(crate) mod counters;
pub(crate) mod crew;
mod group;
pub(crate) mod order;
pub(crate) mod pool;
mod route;
mod status;
pub(crate) mod task;
pub(crate) mod uring;

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::job::Job;
use crate::trace;
use counters::Counters;
use order::Order;
use pool::Pool;
use route::Route;
pub use status::{Engine, EngineKind, EngineStatus, StartError, Why};
use task::turn::Turn;
use task::{Task, Tasks};

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

/// The ring is given up: from now on threads do everything.
fn note_ring_given_up(status: &SharedStatus, why: Why) {
    trace::ring_given_up(&why);
    let now = EngineStatus { kind: EngineKind::Threads, why };
    *status.lock().unwrap_or_else(PoisonError::into_inner) = now;
}

/// A started engine.
#[derive(Debug)]
pub(crate) struct Running {
    order: Arc<Order>,
    status: SharedStatus,
    counters: Arc<Counters>,
}

impl Running {
    pub(crate) fn start(config: Config) -> Result<Running, StartError> {
        let pool = Arc::new(Pool::new(config.threads));
        let (kind, why) = match config.engine {
            Engine::Uring => (EngineKind::Uring, Why::Asked),
            Engine::Threads => (EngineKind::Threads, Why::Asked),
            Engine::Auto => (EngineKind::Threads, Why::Fastest),
        };
        let status = Arc::new(Mutex::new(EngineStatus { kind, why }));
        let counters = Arc::new(Counters::default());
        let ring = match kind {
            EngineKind::Uring => {
                let ring = uring::start(config, &pool, &status, &counters);
                Some(ring.map_err(StartError::RingUnavailable)?)
            }
            EngineKind::Threads => None,
        };
        let order = Order::new(Route::new(Arc::clone(&pool), ring, Arc::clone(&counters)));
        let running = Running { order, status, counters };
        // At least one thread, now: later there may be no more to be had.
        if let Err(error) = pool.start() {
            running.close();
            return Err(StartError::NoThread(error));
        }
        Ok(running)
    }

    /// Makes a save ready to be accepted, on the caller's thread.
    pub(crate) fn prepare(&self, task: &mut Task) {
        if self.order.route().has_ring() {
            task.note_what_the_ring_lacks();
        }
    }

    /// Accepts a save. It comes back if it can be carried out now, and is to be submitted at once: others
    /// of its target wait for it. Else it waits for them, and is seen to by the engine.
    pub(crate) fn accept(&self, task: Box<Task>) -> Option<Box<Task>> {
        self.order.accept(task)
    }

    /// Accepts a save that its caller carries out himself; `None` if there are others of its target.
    pub(crate) fn enter(&self, job: &mut Job) -> Option<Turn> {
        self.order.enter(job)
    }

    /// Hands saves that were accepted to the engine, all at once, so that they can share a submission
    /// or their syncs. `alone`: there is one, and nothing else is in flight.
    pub(crate) fn submit(&self, tasks: Tasks, alone: bool) {
        self.order.route().submit(tasks, alone);
    }

    /// Is this save best carried out by whoever asks for it?
    pub(crate) fn leaves_to_caller(&self, job: &Job, payload_len: usize) -> bool {
        self.order.route().leaves_to_caller(job, payload_len)
    }

    pub(crate) fn status(&self) -> EngineStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// No more saves will come: the threads end when what was accepted is done.
    pub(crate) fn close(&self) {
        self.order.route().close();
    }
}
