//! One thing done for every item, by the calling thread and by threads of the pool that are free.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::pool::Pool;

/// Items that a thread takes at once, at most.
const PORTION_MAX: usize = 64;

/// Items, and what is to be done for each.
struct Round<T, F> {
    state: Mutex<State<T>>,
    ended: Condvar,
    width: usize,
    body: F,
}

struct State<T> {
    todo: VecDeque<T>,
    done: Vec<T>,
    /// Threads that have taken items and not yet given them back.
    working: usize,
}

/// Does `body` for every item on up to `width` threads, this one among them, and gives the items
/// back in any order. Nobody is waited for who has not taken an item.
pub(crate) fn each<T, F>(pool: &Pool, width: usize, items: Vec<T>, body: F) -> Vec<T>
where
    T: Send + 'static,
    F: Fn(&mut T) + Send + Sync + 'static,
{
    let helpers = width.min(items.len()).saturating_sub(1);
    let done = Vec::with_capacity(items.len());
    let state = Mutex::new(State { todo: items.into(), done, working: 0 });
    let round = Arc::new(Round { state, ended: Condvar::new(), width, body });
    for _ in 0..helpers {
        // Without a thread to help, this one does it all.
        let round = Arc::clone(&round);
        let _ = pool.enqueue(Box::new(move || round.take_part()));
    }
    round.take_part();
    let mut state = round.lock();
    while state.working > 0 {
        state = round.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    std::mem::take(&mut state.done)
}

impl<T: Send, F: Fn(&mut T) + Send + Sync> Round<T, F> {
    /// Does what is left to be taken, on this thread.
    fn take_part(&self) {
        let mut state = self.lock();
        while !state.todo.is_empty() {
            let portion = self.portion(state.todo.len());
            let mut items: Vec<T> = state.todo.drain(..portion).collect();
            state.working += 1;
            drop(state);
            // A panic must not leave the others waiting for this thread; its items are dropped.
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                items.iter_mut().for_each(&self.body);
                items
            }));
            state = self.lock();
            state.working -= 1;
            state.done.extend(outcome.unwrap_or_default());
        }
        let ended = state.working == 0;
        drop(state);
        if ended {
            self.ended.notify_one();
        }
    }
}

impl<T, F> Round<T, F> {
    /// How many of what is left one thread takes: neighbours, for on btrfs two threads in turn at the
    /// same leaves hinder each other; fewer and fewer, so that all end together.
    fn portion(&self, left: usize) -> usize {
        left.div_ceil(2 * self.width.max(1)).min(PORTION_MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_with_helpers_and_without() {
        let alone = Arc::new(Pool::new(4));
        let helped = Arc::new(Pool::new(4));
        helped.start().unwrap();
        for pool in [&alone, &helped] {
            for count in [0, 1, 3, 1000] {
                let items: Vec<(usize, usize)> = (0..count).map(|id| (id, 0)).collect();
                let mut done = each(pool, 4, items, |(_, times)| *times += 1);
                done.sort();
                let expected: Vec<(usize, usize)> = (0..count).map(|id| (id, 1)).collect();
                assert_eq!(done, expected);
            }
        }
        helped.close();
    }
}
