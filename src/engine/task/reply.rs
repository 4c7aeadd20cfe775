//! One answer, from an engine's thread to whoever waits for it.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::{Cause, Error, Result};
use crate::plan::{Outcome, Step};
use crate::receipt::Receipt;
use crate::sys::fork;

#[derive(Debug)]
enum State {
    Waiting(Option<Waker>),
    Answered(Result<Receipt>),
    /// The engine dropped it.
    Lost,
    Taken,
}

type Cell = Arc<Mutex<State>>;

fn lock(cell: &Cell) -> MutexGuard<'_, State> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The engine's end. Dropped without an answer, it tells that the engine was lost.
#[derive(Debug)]
pub(crate) struct Reply(Cell);

/// The caller's end. Dropping it only means that nobody waits.
#[derive(Debug)]
pub(crate) struct Answer {
    cell: Cell,
    target: PathBuf,
    generation: u64,
}

/// For a save of `target` in the writer of this [`generation`](fork::generation).
pub(crate) fn channel(target: PathBuf, generation: u64) -> (Reply, Answer) {
    let cell = Arc::new(Mutex::new(State::Waiting(None)));
    (Reply(Arc::clone(&cell)), Answer { cell, target, generation })
}

impl Reply {
    pub(crate) fn send(self, answer: Result<Receipt>) {
        self.settle(State::Answered(answer));
    }

    fn settle(&self, end: State) {
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

impl Drop for Reply {
    fn drop(&mut self) {
        self.settle(State::Lost);
    }
}

impl Future for Answer {
    type Output = Result<Receipt>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // In a forked child nobody will answer, and the lock may be held for ever.
        if fork::generation() != self.generation {
            return Poll::Ready(Err(self.unknown(Cause::Forked)));
        }
        let mut state = lock(&self.cell);
        if let State::Waiting(waker) = &mut *state {
            *waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Answered(answer) => Poll::Ready(answer),
            _ => Poll::Ready(Err(self.unknown(Cause::EngineLost))),
        }
    }
}

impl Answer {
    fn unknown(&self, cause: Cause) -> Error {
        Error::new(self.target.clone(), Step::Rename, Outcome::Unknown, cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_drops_its_reply_is_lost() {
        let (reply, answer) = channel("t".into(), fork::generation());
        drop(reply);
        let error = pollster::block_on(answer).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert!(matches!(error.cause(), Cause::EngineLost));
    }
}
