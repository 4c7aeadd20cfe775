//! One answer, from a thread of the library to whoever waits for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::sys::fork;

#[derive(Debug)]
enum State<T> {
    Waiting(Option<Waker>),
    Answered(T),
    /// It was dropped.
    Lost,
    Taken,
}

type Cell<T> = Arc<Mutex<State<T>>>;

fn lock<T>(cell: &Cell<T>) -> MutexGuard<'_, State<T>> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of whoever answers. Dropped without an answer, it tells that this one was lost.
#[derive(Debug)]
pub(crate) struct Reply<T>(Cell<T>);

/// The end of whoever waits. Dropping it only means that nobody does.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    cell: Cell<T>,
    generation: u64,
}

/// There will be no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Whoever was to give it is gone.
    Lost,
    /// This process is a fork of the one that asked.
    Forked,
}

/// For a question of a process of this [`generation`](fork::generation).
pub(crate) fn channel<T>(generation: u64) -> (Reply<T>, Answer<T>) {
    let cell = Arc::new(Mutex::new(State::Waiting(None)));
    (Reply(Arc::clone(&cell)), Answer { cell, generation })
}

impl<T> Reply<T> {
    pub(crate) fn send(self, answer: T) {
        self.settle(State::Answered(answer));
    }

    fn settle(&self, end: State<T>) {
        let mut state = lock(&self.0);
        if let State::Waiting(waker) = &mut *state {
            let waker = waker.take();
            *state = end;
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.settle(State::Lost);
    }
}

impl<T> Answer<T> {
    /// Is there an answer, or will there be none?
    pub(crate) fn is_there(&self) -> bool {
        !matches!(*lock(&self.cell), State::Waiting(_))
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, NoAnswer>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // In a forked child nobody will answer, and the lock may be held for ever.
        if fork::generation() != self.generation {
            return Poll::Ready(Err(NoAnswer::Forked));
        }
        let mut state = lock(&self.cell);
        if let State::Waiting(waker) = &mut *state {
            *waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Answered(answer) => Poll::Ready(Ok(answer)),
            _ => Poll::Ready(Err(NoAnswer::Lost)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_is_dropped_is_told() {
        let (reply, answer) = channel::<()>(fork::generation());
        drop(reply);
        assert_eq!(pollster::block_on(answer), Err(NoAnswer::Lost));
    }

    #[test]
    fn an_answer_that_is_there_is_seen() {
        let (reply, answer) = channel(fork::generation());
        assert!(!answer.is_there());
        reply.send(7);
        assert!(answer.is_there());
        assert_eq!(pollster::block_on(answer), Ok(7));
    }
}
