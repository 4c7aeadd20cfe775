//! A bounded pool of threads that carry plans out by plain system calls.
//!
//! A thread that takes work makes another if none is free, up to the limit; they end after some idle
//! seconds. Threads are made by threads of the library only, never by a caller, whose credentials
//! they would inherit. One that was promised (`resident`) stays until the pool is closed: where no
//! more threads can be made, it does everything.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::calls::Calls;
use super::group::{Groups, LaneKey, Share};
use crate::plan::Progress;
use crate::receipt::Carrier;
use crate::sys::thread;
use crate::task::{Ended, Task};

/// As long as an idle worker of the kernel's own pool waits.
const IDLE: Duration = Duration::from_secs(5);

/// What a thread of the pool does.
#[derive(Debug)]
pub(crate) enum Work {
    /// A save from its beginning.
    Whole(Box<Task>),
    /// A save whose target is replaced, from the step that the progress names.
    Rest(Box<Task>, Progress),
    /// Cycles of a lane.
    Cycles(Arc<Groups>, LaneKey),
    /// What another thread shares out.
    Help(Arc<dyn Share>),
}

impl Work {
    /// Does it, on this thread.
    pub(crate) fn carry(self) {
        let (task, progress, carrier) = match self {
            Work::Whole(task) => (task, None, Carrier::Pool),
            // The ring has replaced the target; here it is only finished.
            Work::Rest(task, progress) => (task, Some(progress), Carrier::Ring),
            Work::Cycles(groups, key) => return groups.serve(key),
            Work::Help(share) => return share.take_part(),
        };
        let Task { job, payload, permit, reply, .. } = *task;
        let mut calls = match progress {
            None => Calls::new(job),
            Some(progress) => Calls::resume(job, progress),
        };
        calls.run(&payload);
        let answer = calls.finish(carrier, payload.len());
        Ended::answer_all(vec![Ended { payload, permit, reply, answer }]);
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
    busy: usize,
    /// Somebody serves the pool until it is closed, or will.
    resident: bool,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(threads_max: usize) -> Pool {
        Pool { state: Mutex::default(), wake: Condvar::new(), threads_max: threads_max.max(1) }
    }

    pub(crate) fn threads_max(&self) -> usize {
        self.threads_max
    }

    /// Takes work from a thread of the library's; gives it back if there is nobody to do it and
    /// nobody can be made.
    #[must_use = "work that is given back must be done by the caller"]
    pub(crate) fn submit(self: &Arc<Pool>, work: Work) -> Option<Work> {
        let mut state = self.lock();
        if state.threads == 0 {
            self.grow(state);
            state = self.lock();
        }
        self.enqueue_locked(state, work)
    }

    /// Takes work from a caller. It makes no thread: that would have the caller's credentials.
    #[must_use = "work that is given back must be done by the caller"]
    pub(crate) fn enqueue(&self, work: Work) -> Option<Work> {
        self.enqueue_locked(self.lock(), work)
    }

    fn enqueue_locked(&self, mut state: MutexGuard<'_, State>, work: Work) -> Option<Work> {
        if state.threads == 0 && !state.resident {
            return Some(work);
        }
        state.queue.push_back(work);
        self.wake.notify_one();
        None
    }

    /// Starts the thread that stays, and waits until it runs.
    pub(crate) fn start_resident(self: &Arc<Pool>) -> io::Result<()> {
        let (started, starts) = sync_channel(1);
        let pool = Arc::clone(self);
        thread::spawn("ringseal-pool", move || {
            pool.promise_resident();
            let _ = started.send(());
            pool.serve();
        })?;
        let _ = starts.recv();
        Ok(())
    }

    /// The caller will serve: work may be queued although there is no thread yet.
    pub(crate) fn promise_resident(&self) {
        self.lock().resident = true;
    }

    /// Does work on this thread until the pool is closed and empty.
    pub(crate) fn serve(self: &Arc<Pool>) {
        self.lock().threads += 1;
        self.work(None);
    }

    /// No more work will come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Makes one more thread, if that is allowed and possible.
    fn grow(self: &Arc<Pool>, mut state: MutexGuard<'_, State>) {
        state.threads += 1;
        drop(state);
        let pool = Arc::clone(self);
        if thread::spawn("ringseal-pool", move || pool.work(Some(IDLE))).is_err() {
            self.lock().threads -= 1;
        }
    }

    /// The loop of one thread, which is counted in `threads` already.
    fn work(self: &Arc<Pool>, idle_for: Option<Duration>) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.queue.pop_front() {
                state.busy += 1;
                // One thread is always free, so that no work waits for another to end.
                if state.busy == state.threads && state.threads < self.threads_max {
                    self.grow(state);
                } else {
                    drop(state);
                }
                work.carry();
                state = self.lock();
                state.busy -= 1;
                continue;
            }
            if state.closed {
                break;
            }
            let timed_out;
            (state, timed_out) = match idle_for {
                None => (self.wake.wait(state).unwrap_or_else(PoisonError::into_inner), false),
                Some(limit) => {
                    let waited = self.wake.wait_timeout(state, limit);
                    let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    (state, timeout.timed_out())
                }
            };
            let is_the_free_one = state.busy > 0 && state.busy + 1 == state.threads;
            if timed_out && state.queue.is_empty() && !is_the_free_one {
                break;
            }
        }
        state.threads -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
