//! Who waits for the log. Whoever comes and finds nobody at it carries out what waits, his own first; those
//! who come meanwhile are the next group.
//!
//! In memory there is nothing to share: while nobody waits each makes his save himself, beside others of other files.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::log::format::Record;
use super::{Committed, Route, trace};
use crate::engine::task::limits::Permit;
use crate::error::{Error, Result};
use crate::reply::Reply;
use crate::stats::Answered;

/// A transaction that was accepted.
#[derive(Debug)]
pub(crate) struct Pending {
    pub records: Vec<Record>,
    pub way: Way,
    /// [`Layout::removed`](super::layout::Layout::removed) before its records got their directories.
    pub located: u64,
    /// Its number among those that were accepted.
    pub sequence: u64,
    pub permit: Permit,
    pub reply: Reply<Result<Committed>>,
}

/// How a transaction is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the log.
    Log,
    /// Durably, beside the log.
    Beside,
    /// Whole or not at all, and not synced: pid files, and saves in memory.
    Atomic,
}

impl Way {
    pub(crate) fn route(self) -> Route {
        match self {
            Way::Log => Route::Logged,
            Way::Beside | Way::Atomic => Route::Direct,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// The last of those that are made at once has been made.
    made: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Pending>,
    accepted: u64,
    /// Somebody carries out what waits.
    is_carried: bool,
    /// Paths of saves that are made at once; whoever carries waits for their end.
    at_once: HashSet<Arc<str>>,
    /// None is made at once any more.
    is_over: bool,
}

/// The right to make a save of a path at once, until it is dropped.
#[derive(Debug)]
pub(crate) struct AtOnce<'a> {
    queue: &'a Queue,
    path: Arc<str>,
}

impl Drop for AtOnce<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.at_once.remove(&self.path);
        if (state.is_carried || state.is_over) && state.at_once.is_empty() {
            self.queue.made.notify_all();
        }
    }
}

impl Pending {
    pub(crate) fn answer(mut self, answer: Result<Committed>) {
        self.permit.give_back_for(answered(answer.as_ref()));
        trace::committed(self.permit.number(), self.permit.took(), answer.as_ref());
        self.reply.send(answer);
        // Whoever closes the store waits for the answers, too.
        drop(self.permit);
    }
}

/// What is counted of an answer.
fn answered(answer: Result<&Committed, &Error>) -> Answered {
    match answer {
        Ok(Committed { bytes, coalesced_into: None, .. }) => {
            Answered { bytes: *bytes, ..Answered::default() }
        }
        Ok(_) => Answered { coalesced: true, ..Answered::default() },
        Err(error) => Answered { failed: Some(error.step()), ..Answered::default() },
    }
}

impl Queue {
    /// Accepts a transaction. `true`: whoever asks is to carry out what waits.
    #[must_use = "if nobody carries it out, it waits for ever"]
    pub(crate) fn push(&self, mut pending: Pending) -> bool {
        let mut state = self.lock();
        state.accepted += 1;
        pending.sequence = state.accepted;
        state.waiting.push_back(pending);
        !std::mem::replace(&mut state.is_carried, true)
    }

    /// Accepts a save that is made at once, if nothing waits, and nobody makes one of its path.
    pub(crate) fn begin_at_once(&self, pending: &mut Pending) -> Option<AtOnce<'_>> {
        let path = Arc::clone(&pending.records.first()?.path);
        let mut state = self.lock();
        if state.is_carried || state.is_over || !state.at_once.insert(Arc::clone(&path)) {
            return None;
        }
        state.accepted += 1;
        pending.sequence = state.accepted;
        Some(AtOnce { queue: self, path })
    }

    /// Takes the first that waits, and those behind it that `joins` it, up to the first that does not. `None`:
    /// nobody waits, and whoever comes next carries.
    pub(crate) fn take(
        &self,
        mut joins: impl FnMut(&Pending, &Pending) -> bool,
    ) -> Option<Vec<Pending>> {
        let mut state = self.until_made(self.lock());
        let Some(first) = state.waiting.pop_front() else {
            state.is_carried = false;
            return None;
        };
        let mut batch = vec![first];
        while state.waiting.front().is_some_and(|next| joins(&batch[0], next)) {
            batch.extend(state.waiting.pop_front());
        }
        Some(batch)
    }

    /// Whoever carries stops. `true`: somebody else has to go on.
    #[must_use = "if nobody goes on, they wait for ever"]
    pub(crate) fn leave(&self) -> bool {
        let mut state = self.lock();
        state.is_carried = !state.waiting.is_empty();
        state.is_carried
    }

    /// Is nothing that was accepted under way?
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        !state.is_carried && state.at_once.is_empty()
    }

    /// No save is made at once any more.
    pub(crate) fn end_at_once(&self) {
        let mut state = self.lock();
        state.is_over = true;
        drop(self.until_made(state));
    }

    /// Waits for those that are made at once.
    fn until_made<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while !state.at_once.is_empty() {
            state = self.made.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
