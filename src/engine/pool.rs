//! A bounded pool of threads that carry plans out by plain system calls.
//!
//! Threads are made when there is work and nobody idle, up to the limit, and end after some idle
//! seconds. One that was promised (`resident`) stays until the pool is closed: where no more
//! threads can be made, it does everything.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::calls::Calls;
use crate::plan::Progress;
use crate::receipt::Carrier;
use crate::sys::thread;
use crate::task::Task;

/// As long as an idle worker of the kernel's own pool waits.
const IDLE: Duration = Duration::from_secs(5);

/// What a thread of the pool does.
#[derive(Debug)]
pub(crate) enum Work {
    /// A save from its beginning.
    Whole(Task),
    /// A save whose target is replaced, from the step that the progress names.
    Rest(Task, Progress),
}

impl Work {
    /// Does it, on this thread.
    pub(crate) fn carry(self) {
        let (task, progress, carrier) = match self {
            Work::Whole(task) => (task, None, Carrier::Pool),
            // The ring has replaced the target; here it is only finished.
            Work::Rest(task, progress) => (task, Some(progress), Carrier::Ring),
        };
        let Task { job, payload, permit, reply, .. } = task;
        let mut calls = match progress {
            None => Calls::new(job),
            Some(progress) => Calls::resume(job, progress),
        };
        calls.run(&payload);
        let answer = calls.finish(carrier, payload.len());
        drop(payload);
        Task::answer(permit, reply, answer);
    }
}

#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<State>,
    wake: Condvar,
    threads_max: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Work>,
    threads: usize,
    idle: usize,
    /// Somebody serves the pool, or is about to, until it is closed.
    resident: bool,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(threads_max: usize) -> Pool {
        Pool { state: Mutex::default(), wake: Condvar::new(), threads_max: threads_max.max(1) }
    }

    /// Takes work; gives it back if there is nobody to do it and nobody can be made.
    #[must_use = "work that is given back must be done by the caller"]
    pub(crate) fn submit(self: &Arc<Pool>, work: Work) -> Option<Work> {
        let mut state = self.lock();
        state.queue.push_back(work);
        if state.idle >= state.queue.len() || state.threads >= self.threads_max {
            self.wake.notify_one();
            return None;
        }
        state.threads += 1;
        drop(state);
        if self.spawn().is_ok() {
            return None;
        }
        let mut state = self.lock();
        state.threads -= 1;
        if state.threads > 0 || state.resident {
            self.wake.notify_one();
            return None;
        }
        state.queue.pop_back()
    }

    /// Starts the thread that stays.
    pub(crate) fn start_resident(self: &Arc<Pool>) -> io::Result<()> {
        self.promise_resident();
        let pool = Arc::clone(self);
        thread::spawn("ringseal-pool", move || pool.serve()).map(drop)
    }

    /// The caller will serve: work may be queued although there is no thread yet.
    pub(crate) fn promise_resident(&self) {
        self.lock().resident = true;
    }

    /// Does work on this thread until the pool is closed and empty.
    pub(crate) fn serve(&self) {
        self.lock().threads += 1;
        self.work(None);
    }

    /// No more work will come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    fn spawn(self: &Arc<Pool>) -> io::Result<()> {
        let pool = Arc::clone(self);
        thread::spawn("ringseal-pool", move || pool.work(Some(IDLE))).map(drop)
    }

    /// The loop of one thread, which is counted in `threads` already.
    fn work(&self, idle_for: Option<Duration>) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                work.carry();
                state = self.lock();
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let timed_out;
            (state, timed_out) = match idle_for {
                None => (self.wake.wait(state).unwrap_or_else(PoisonError::into_inner), false),
                Some(limit) => {
                    let waited = self.wake.wait_timeout(state, limit);
                    let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    (state, timeout.timed_out())
                }
            };
            state.idle -= 1;
            if timed_out && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
