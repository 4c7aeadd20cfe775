//! The way to the ring's thread: saves that are alone, and waves of a cycle's.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ring::ROUND_MAX;
use super::wave::{self, Member};
use crate::engine::task::{Task, Tasks};
use crate::plan::Step;
use crate::plan::chain::{Op, WRITE_MAX, next_chain};

/// Saves on their way to the ring's thread.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Arc<OwnedFd>,
}

/// A save for the ring: to be carried to its end, or as far as its wave goes.
#[derive(Debug)]
pub(super) struct Queued {
    pub task: Box<Task>,
    pub wave: Option<Member>,
}

impl Queued {
    /// Is this step to be run on the ring?
    fn here(&self, step: Step) -> bool {
        self.wave.as_ref().is_none_or(|wave| wave.here(step))
    }

    /// Is there a step to be run on the ring?
    pub(super) fn goes_on(&self) -> bool {
        self.task.job.next().is_some_and(|step| self.here(step))
    }

    /// Can the ring run it?
    pub(super) fn is_for_ring(&self) -> bool {
        // The longest chain: open, the writes, rename, directory sync, probe, close.
        let entries = self.task.payload.len().div_ceil(WRITE_MAX).max(1) + 5;
        self.goes_on() && !self.task.by_calls && entries <= ROUND_MAX
    }

    pub(super) fn next_chain(&self, slot_is_full: bool) -> Vec<Op> {
        let (progress, len) = (&self.task.job.progress, self.task.payload.len());
        next_chain(progress, len, slot_is_full, |step| self.here(step))
    }
}

#[derive(Debug, Default)]
struct State {
    queued: VecDeque<Queued>,
    closed: bool,
    /// The ring takes nothing any more.
    retired: bool,
}

impl Queue {
    /// `wake` is the eventfd that the ring's thread waits on.
    pub(super) fn new(wake: Arc<OwnedFd>) -> Queue {
        Queue { state: Mutex::default(), wake }
    }

    /// Hands saves over, all at once, each to be carried to its end; gives them back if the ring
    /// takes nothing any more.
    pub(crate) fn push(&self, tasks: Tasks) -> Result<(), Tasks> {
        let queued = tasks.into_iter().map(|task| Queued { task, wave: None });
        self.push_all(queued.collect())
            .map_err(|queued| queued.into_iter().map(|queued| queued.task).collect())
    }

    /// Takes saves through their steps, up to the first that is not to be run `here`, in one
    /// submission, with `width` workers, and waits for them. They come back in any order; one that the ring could not
    /// carry so far comes back where it stands.
    pub(crate) fn carry(
        &self,
        tasks: Tasks,
        width: usize,
        here: impl Fn(Step) -> bool + Send + Sync + 'static,
    ) -> Tasks {
        if tasks.is_empty() {
            return tasks;
        }
        let (waiter, members) = wave::wave(tasks.len(), width, here);
        let queued = tasks.into_iter().zip(members);
        let queued = queued.map(|(task, member)| Queued { task, wave: Some(member) }).collect();
        match self.push_all(queued) {
            Ok(()) => waiter.wait(),
            Err(queued) => queued.into_iter().map(|queued| queued.task).collect(),
        }
    }

    fn push_all(&self, queued: Vec<Queued>) -> Result<(), Vec<Queued>> {
        let mut state = self.lock();
        if state.retired {
            return Err(queued);
        }
        state.queued.extend(queued);
        drop(state);
        self.wake();
        Ok(())
    }

    /// No more saves will come from callers. False if the ring takes nothing any more.
    pub(crate) fn close(&self) -> bool {
        let mut state = self.lock();
        state.closed = true;
        let retired = state.retired;
        drop(state);
        self.wake();
        !retired
    }

    /// Moves what has come to `into`; true if callers will send no more.
    pub(super) fn take(&self, into: &mut VecDeque<Queued>) -> bool {
        let mut state = self.lock();
        into.append(&mut state.queued);
        state.closed
    }

    /// Takes nothing from now on; true if callers would have sent no more anyway.
    pub(super) fn retire(&self, into: &mut VecDeque<Queued>) -> bool {
        let mut state = self.lock();
        state.retired = true;
        into.append(&mut state.queued);
        state.closed
    }

    fn wake(&self) {
        // Fails only if the counter is full, and then the thread is awake.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
