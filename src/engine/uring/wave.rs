//! A wave: saves that the ring takes through some of their steps, in one submission, for a thread
//! that waits for them all.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::engine::task::{Task, Tasks};
use crate::plan::Step;

/// Saves that are taken through their steps up to the first that is not to be run here.
struct Wave {
    width: usize,
    here: Box<dyn Fn(Step) -> bool + Send + Sync>,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    back: Tasks,
    /// Saves that have not come back.
    out: usize,
}

/// A save's membership. When it is dropped the wave no longer waits for the save, whatever has
/// become of it.
#[derive(Debug)]
pub(super) struct Member(Arc<Wave>);

/// The end of whoever waits.
#[derive(Debug)]
pub(super) struct Waiter(Arc<Wave>);

/// A wave of `count` saves, for so many workers at once.
pub(super) fn wave(
    count: usize,
    width: usize,
    here: impl Fn(Step) -> bool + Send + Sync + 'static,
) -> (Waiter, impl Iterator<Item = Member>) {
    let state = Mutex::new(State { back: Vec::with_capacity(count), out: count });
    let wave = Arc::new(Wave { width, here: Box::new(here), state, ended: Condvar::new() });
    let waiter = Waiter(Arc::clone(&wave));
    (waiter, (0..count).map(move |_| Member(Arc::clone(&wave))))
}

impl Member {
    /// Is this step to be run by the ring?
    pub(super) fn here(&self, step: Step) -> bool {
        (self.0.here)(step)
    }

    /// How many workers the ring is to have for the wave.
    pub(super) fn width(&self) -> usize {
        self.0.width
    }

    /// The ring has done with the save what it could.
    pub(super) fn give_back(self, task: Box<Task>) {
        self.0.lock().back.push(task);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.out -= 1;
        let ended = state.out == 0;
        drop(state);
        if ended {
            self.0.ended.notify_one();
        }
    }
}

impl Waiter {
    /// Waits for the saves. One that was lost with the ring does not come back; it is answered.
    pub(super) fn wait(self) -> Tasks {
        let mut state = self.0.lock();
        while state.out > 0 {
            state = self.0.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut state.back)
    }
}

impl Wave {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Wave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wave").field("state", &self.state).finish_non_exhaustive()
    }
}
