//! A bounded pool of threads.
//!
//! A thread that takes work makes another if none is free, up to the limit; they end after some idle
//! seconds. Threads are made by threads of the library only, never by a caller, whose credentials
//! they would inherit; but for the first, which is made with the writer and stays until the pool is
//! closed: where no more threads can be made, it does everything.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys::thread;

/// As long as an idle worker of the kernel's own pool waits.
const IDLE: Duration = Duration::from_secs(5);

/// Something to be done by a thread of the pool.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

pub(crate) struct Pool {
    state: Mutex<State>,
    wake: Condvar,
    threads_max: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    threads: usize,
    busy: usize,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(threads_max: usize) -> Pool {
        Pool { state: Mutex::default(), wake: Condvar::new(), threads_max: threads_max.max(1) }
    }

    pub(crate) fn threads_max(&self) -> usize {
        self.threads_max
    }

    /// Takes work. It makes no thread here: that would have the caller's credentials.
    ///
    /// Gives the work back if there is no thread: the pool was closed, and all are gone.
    #[must_use = "work that is given back must be done by the caller"]
    pub(crate) fn enqueue(&self, work: Work) -> Option<Work> {
        let mut state = self.lock();
        if state.threads == 0 {
            return Some(work);
        }
        state.queue.push_back(work);
        self.wake.notify_one();
        None
    }

    /// Has work done, by a thread of the pool, or by this one if there is none: no save is left undone.
    pub(crate) fn run(&self, work: Work) {
        if let Some(work) = self.enqueue(work) {
            run_here(work);
        }
    }

    /// Starts the first thread, the one that stays.
    pub(crate) fn start(self: &Arc<Pool>) -> io::Result<()> {
        self.spawn(self.lock(), None)
    }

    /// No more work will come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Makes one more thread, which ends when it was idle for so long, or when the pool is closed.
    fn spawn(
        self: &Arc<Pool>,
        mut state: MutexGuard<'_, State>,
        idle_for: Option<Duration>,
    ) -> io::Result<()> {
        state.threads += 1;
        drop(state);
        let pool = Arc::clone(self);
        let spawned = thread::spawn("ringseal-pool", move || pool.work(idle_for));
        if spawned.is_err() {
            self.lock().threads -= 1;
        }
        spawned.map(drop)
    }

    /// The loop of one thread, which is counted in `threads` already.
    fn work(self: &Arc<Pool>, idle_for: Option<Duration>) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.queue.pop_front() {
                state.busy += 1;
                // One thread is always free, so that no work waits for another to end.
                if state.busy == state.threads && state.threads < self.threads_max {
                    // Where none can be made, those that are there do it.
                    let _ = self.spawn(state, Some(IDLE));
                } else {
                    drop(state);
                }
                // A panic, of a waker perhaps, must not take the thread and its place away.
                let _ = catch_unwind(AssertUnwindSafe(work));
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

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads_max", &self.threads_max).finish_non_exhaustive()
    }
}

/// Does work on this thread. What that work has done here in turn, because there is still nobody else, is
/// done behind it, not inside of it: a long line of saves must not be a deep stack.
fn run_here(work: Work) {
    thread_local! {
        /// `Some` while this thread does such work.
        static BEHIND: RefCell<Option<VecDeque<Work>>> = const { RefCell::new(None) };
    }
    let first = BEHIND.with_borrow_mut(|behind| match behind {
        Some(behind) => {
            behind.push_back(work);
            None
        }
        None => {
            *behind = Some(VecDeque::new());
            Some(work)
        }
    });
    let mut next = first;
    while let Some(work) = next {
        // A panic of one must not leave the others undone.
        let _ = catch_unwind(AssertUnwindSafe(work));
        next = BEHIND.with_borrow_mut(|behind| {
            let next = behind.as_mut().and_then(VecDeque::pop_front);
            if next.is_none() {
                *behind = None;
            }
            next
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn work_that_makes_work_is_no_deep_stack() {
        fn chain(pool: &Arc<Pool>, left: u32, done: &Arc<AtomicU32>) {
            let (next, done) = (Arc::clone(pool), Arc::clone(done));
            pool.run(Box::new(move || {
                done.fetch_add(1, Ordering::Relaxed);
                if left > 1 {
                    chain(&next, left - 1, &done);
                }
            }));
        }
        let pool = Arc::new(Pool::new(4));
        let done = Arc::default();
        chain(&pool, 1_000_000, &done);
        assert_eq!(done.load(Ordering::Relaxed), 1_000_000);
    }
}
