//! One thing done for every item, by the calling thread and by threads of the pool that are free.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::super::pool::{Pool, Work};

/// Work that any number of threads can take part in.
pub(crate) trait Share: Send + Sync + fmt::Debug {
    /// Does what is left to be taken, on this thread.
    fn take_part(&self);
}

/// Items, and what is to be done for each.
struct Round<T, F> {
    state: Mutex<State<T>>,
    ended: Condvar,
    body: F,
}

struct State<T> {
    todo: Vec<T>,
    done: Vec<T>,
    taken: usize,
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
    let state = Mutex::new(State { todo: items, done, taken: 0 });
    let round = Arc::new(Round { state, ended: Condvar::new(), body });
    for _ in 0..helpers {
        // Without a thread to help, this one does it all.
        let _ = pool.enqueue(Work::Help(Arc::clone(&round) as Arc<dyn Share>));
    }
    round.take_part();
    let mut state = round.lock();
    while state.taken > 0 {
        state = round.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    std::mem::take(&mut state.done)
}

impl<T: Send, F: Fn(&mut T) + Send + Sync> Share for Round<T, F> {
    fn take_part(&self) {
        let mut state = self.lock();
        while let Some(mut item) = state.todo.pop() {
            state.taken += 1;
            drop(state);
            (self.body)(&mut item);
            state = self.lock();
            state.taken -= 1;
            state.done.push(item);
        }
        let ended = state.taken == 0;
        drop(state);
        if ended {
            self.ended.notify_one();
        }
    }
}

impl<T, F> Round<T, F> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, F> fmt::Debug for Round<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Round").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_with_helpers_and_without() {
        let alone = Arc::new(Pool::new(4));
        let helped = Arc::new(Pool::new(4));
        helped.start_resident().unwrap();
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
