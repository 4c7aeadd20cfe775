//! How much may be in flight: a number of saves and a number of bytes. Who finds no room waits, in
//! the order of asking, so that a large save is not overtaken for ever by small ones.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::error::Cause;
use crate::stats::{Answered, Totals, Traffic};
use crate::sys::fork;

/// The two limits, and who waits for room.
#[derive(Debug)]
pub(crate) struct Limits {
    requests_max: usize,
    bytes_max: usize,
    generation: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: usize,
    /// Those in flight, and those that are done but not yet answered.
    unanswered: usize,
    bytes: usize,
    closed: bool,
    waiting: VecDeque<Waiting>,
    next_ticket: u64,
    drained: Vec<Waker>,
    traffic: Traffic,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    bytes: usize,
    waker: Waker,
}

/// There will be no room.
#[derive(Debug)]
pub(crate) enum NoRoom {
    /// The limits were closed.
    Closed,
    /// This process is a fork: the room is the parent's, and nobody here gives it back.
    Forked,
}

impl From<NoRoom> for Cause {
    fn from(why: NoRoom) -> Cause {
        match why {
            NoRoom::Closed => Cause::Closed,
            NoRoom::Forked => Cause::Forked,
        }
    }
}

/// Room for one save. Dropping it tells that the save was answered, and gives the room back if
/// [`give_back_all`](Permit::give_back_all) has not.
#[derive(Debug)]
pub(crate) struct Permit {
    limits: Arc<Limits>,
    /// Of those that found room.
    number: u64,
    bytes: usize,
    holds_room: bool,
    /// From room to answer.
    took: Duration,
}

/// What is counted of the saves that found room, at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Passed {
    pub totals: Totals,
    pub in_flight: u64,
    pub waiting: u64,
}

impl Limits {
    pub(crate) fn new(requests_max: usize, bytes_max: usize) -> Limits {
        Limits {
            requests_max: requests_max.max(1),
            bytes_max: bytes_max.max(1),
            generation: fork::generation(),
            state: Mutex::default(),
        }
    }

    /// Waits for room. A save that is larger than the limit of bytes waits until it is alone.
    pub(crate) fn acquire(self: &Arc<Limits>, bytes: usize) -> Acquire {
        Acquire { limits: Arc::clone(self), bytes: bytes.min(self.bytes_max), ticket: None }
    }

    /// Room at once, or `None`. Nobody who waits is overtaken.
    pub(crate) fn try_acquire(self: &Arc<Limits>, bytes: usize) -> Option<Permit> {
        let bytes = bytes.min(self.bytes_max);
        let mut state = self.lock();
        if state.closed || !state.waiting.is_empty() || !self.has_room(&state, bytes) {
            return None;
        }
        Some(self.grant(&mut state, bytes))
    }

    /// Room at once if nothing is in flight, even if somebody waits in line who is not polled.
    pub(crate) fn try_acquire_idle(self: &Arc<Limits>, bytes: usize) -> Option<Permit> {
        let bytes = bytes.min(self.bytes_max);
        let mut state = self.lock();
        if state.closed || state.requests > 0 {
            return None;
        }
        Some(self.grant(&mut state, bytes))
    }

    /// Is one save in flight, and no other?
    pub(crate) fn is_one_in_flight(&self) -> bool {
        self.lock().requests == 1
    }

    /// From now on there is no room; who waits is told so.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let wakers: Vec<Waker> = state.waiting.drain(..).map(|waiting| waiting.waker).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Is everything answered?
    pub(crate) fn is_drained(&self) -> bool {
        self.lock().unanswered == 0
    }

    /// Ready when everything is answered.
    pub(crate) fn poll_drained(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.unanswered == 0 {
            return Poll::Ready(());
        }
        if !state.drained.iter().any(|waker| waker.will_wake(context.waker())) {
            state.drained.push(context.waker().clone());
        }
        Poll::Pending
    }

    fn has_room(&self, state: &State, bytes: usize) -> bool {
        state.requests < self.requests_max && state.bytes + bytes <= self.bytes_max
    }

    /// What was counted so far.
    pub(crate) fn passed(&self) -> Passed {
        let state = self.lock();
        let (in_flight, waiting) = (state.requests as u64, state.waiting.len() as u64);
        Passed { totals: state.traffic.totals(), in_flight, waiting }
    }

    fn grant(self: &Arc<Limits>, state: &mut State, bytes: usize) -> Permit {
        state.requests += 1;
        state.unanswered += 1;
        state.bytes += bytes;
        let (number, took) = (state.traffic.begin(), Duration::ZERO);
        Permit { limits: Arc::clone(self), number, bytes, holds_room: true, took }
    }

    /// Who is first in the line, if there is room for it.
    fn first_with_room(&self, state: &State) -> Option<Waker> {
        let first = state.waiting.front()?;
        self.has_room(state, first.bytes).then(|| first.waker.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Gives the room back, all of it at once, before the answers go out: who has one finds the
    /// writer idle, and his save counted. The permits are of the same limits.
    pub(crate) fn give_back_all<'a>(mut permits: impl Iterator<Item = (&'a mut Permit, Answered)>) {
        let Some((first, answered)) = permits.next() else { return };
        let limits = Arc::clone(&first.limits);
        let now = Instant::now();
        let mut state = limits.lock();
        first.give_back(&mut state, now, answered);
        permits.for_each(|(permit, answered)| permit.give_back(&mut state, now, answered));
        let next = limits.first_with_room(&state);
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }

    /// Gives the bytes back, but not the place of a save. Who may have room now is to be woken.
    pub(crate) fn give_bytes_back(&mut self) -> Option<Waker> {
        let mut state = self.limits.lock();
        if self.holds_room {
            state.bytes -= std::mem::take(&mut self.bytes);
        }
        self.limits.first_with_room(&state)
    }

    /// Gives the room back, before the answer goes out, whatever it is.
    pub(crate) fn give_back_for(&mut self, answered: Answered) {
        Permit::give_back_all(std::iter::once((self, answered)));
    }

    /// The save's number among those that found room.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// From room to answer; zero before that.
    pub(crate) fn took(&self) -> Duration {
        self.took
    }

    fn give_back(&mut self, state: &mut State, now: Instant, answered: Answered) {
        if std::mem::take(&mut self.holds_room) {
            state.requests -= 1;
            state.bytes -= self.bytes;
            self.took = state.traffic.end(self.number, now, answered);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let limits = Arc::clone(&self.limits);
        let mut state = limits.lock();
        let mut wakers = Vec::new();
        if self.holds_room {
            // Nobody has said what became of it.
            self.give_back(&mut state, Instant::now(), Answered::LOST);
            wakers.extend(limits.first_with_room(&state));
        }
        state.unanswered -= 1;
        if state.unanswered == 0 {
            wakers.append(&mut state.drained);
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The wait for room.
#[derive(Debug)]
pub(crate) struct Acquire {
    limits: Arc<Limits>,
    bytes: usize,
    ticket: Option<u64>,
}

impl Future for Acquire {
    type Output = Result<Permit, NoRoom>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let limits = Arc::clone(&self.limits);
        // Before the lock, which a thread may hold that a forked child does not have.
        if fork::generation() != limits.generation {
            return Poll::Ready(Err(NoRoom::Forked));
        }
        let mut state = limits.lock();
        if state.closed {
            self.ticket = None;
            return Poll::Ready(Err(NoRoom::Closed));
        }
        let is_first = match state.waiting.front() {
            None => true,
            Some(first) => Some(first.ticket) == self.ticket,
        };
        if is_first && limits.has_room(&state, self.bytes) {
            if self.ticket.take().is_some() {
                state.waiting.pop_front();
            }
            let permit = limits.grant(&mut state, self.bytes);
            // There may be room for the next in line too.
            let next = limits.first_with_room(&state);
            drop(state);
            if let Some(waker) = next {
                waker.wake();
            }
            return Poll::Ready(Ok(permit));
        }
        let waker = context.waker().clone();
        match self.ticket {
            Some(ticket) => {
                let mut all = state.waiting.iter_mut();
                if let Some(waiting) = all.find(|waiting| waiting.ticket == ticket) {
                    waiting.waker = waker;
                }
            }
            None => {
                let ticket = state.next_ticket;
                state.next_ticket += 1;
                state.waiting.push_back(Waiting { ticket, bytes: self.bytes, waker });
                self.ticket = Some(ticket);
            }
        }
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        // In a forked child the lock may be held by a thread that is not there.
        if fork::generation() != self.limits.generation {
            return;
        }
        let mut state = self.limits.lock();
        state.waiting.retain(|waiting| waiting.ticket != ticket);
        let next = self.limits.first_with_room(&state);
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn room_is_given_in_the_order_of_asking() {
        let limits = Arc::new(Limits::new(2, 100));
        let first = limits.try_acquire(60).unwrap();
        let mut large = limits.acquire(70);
        assert!(poll(&mut large).is_pending());
        assert!(limits.try_acquire(10).is_none(), "nobody who waits is overtaken");
        let mut small = limits.acquire(10);
        assert!(poll(&mut small).is_pending());
        drop(first);
        assert!(poll(&mut small).is_pending());
        let Poll::Ready(Ok(large)) = poll(&mut large) else { panic!("no room") };
        let Poll::Ready(Ok(small)) = poll(&mut small) else { panic!("no room") };
        drop((large, small));
    }

    #[test]
    fn what_is_larger_than_the_limit_goes_alone() {
        let limits = Arc::new(Limits::new(8, 100));
        let huge = limits.try_acquire(1 << 40).unwrap();
        assert!(limits.try_acquire(1).is_none());
        drop(huge);
        assert!(limits.try_acquire(100).is_some());
    }

    #[test]
    fn who_stops_waiting_is_out_of_the_line() {
        let limits = Arc::new(Limits::new(1, 100));
        let held = limits.try_acquire(1).unwrap();
        let mut gone = limits.acquire(1);
        assert!(poll(&mut gone).is_pending());
        let mut next = limits.acquire(1);
        assert!(poll(&mut next).is_pending());
        drop(gone);
        drop(held);
        assert!(poll(&mut next).is_ready());
    }

    #[test]
    fn close_tells_who_waits_and_drained_waits_for_who_is_in() {
        let limits = Arc::new(Limits::new(1, 100));
        let held = limits.try_acquire(1).unwrap();
        let mut waiting = limits.acquire(1);
        assert!(poll(&mut waiting).is_pending());
        limits.close();
        assert!(matches!(poll(&mut waiting), Poll::Ready(Err(NoRoom::Closed))));
        let mut context = Context::from_waker(Waker::noop());
        assert!(limits.poll_drained(&mut context).is_pending());
        drop(held);
        assert!(limits.poll_drained(&mut context).is_ready());
        assert!(limits.try_acquire(1).is_none());
    }
}
