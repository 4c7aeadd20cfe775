//! When the files are to follow the log: some seconds after a save, when a segment is full, at the end. The
//! thread that sees to it, and those that wait for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::reply::Reply;

/// Between a spread that has failed and the next, at least.
const PAUSE: Duration = Duration::from_secs(1);

/// A segment that is full sooner than that is small: the files that it is about are synced more often than they
/// would be otherwise.
const SOON: Duration = Duration::from_millis(2500);

/// How often the thread looks, at its end, whether everything is done.
const MOMENT: Duration = Duration::from_millis(5);

/// The answer to whoever closes the store.
pub(crate) type Closed = Reply<Result<(), Errno>>;

#[derive(Debug)]
pub(crate) struct Spreader {
    state: Mutex<State>,
    changed: Condvar,
    after: Duration,
}

#[derive(Debug)]
struct State {
    /// The log has something since then that the files may lack.
    since: Option<Instant>,
    /// The same for whoever asks how old that is: a spread that is under way, or has failed, has not ended it.
    unspread: Option<Instant>,
    spreading: Option<Instant>,
    /// Somebody waits for a spread.
    wanted: bool,
    /// When the log went on in its other segment, and whether that was too soon.
    turned: Option<Instant>,
    is_log_small: bool,
    /// Spreads that have ended, and what came of the last.
    ended: u64,
    last: Result<(), Errno>,
    closing: bool,
    closers: Vec<Closed>,
    /// The thread has ended.
    is_over: bool,
}

/// What the thread is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Todo {
    Spread,
    /// For the last time.
    End,
}

impl Spreader {
    pub(crate) fn new(after: Duration) -> Spreader {
        let state = State {
            since: None,
            unspread: None,
            spreading: None,
            wanted: false,
            turned: None,
            is_log_small: false,
            ended: 0,
            last: Ok(()),
            closing: false,
            closers: Vec::new(),
            is_over: false,
        };
        Spreader { state: Mutex::new(state), changed: Condvar::new(), after }
    }

    /// The log has something that the files may lack.
    pub(crate) fn note(&self) {
        let mut state = self.lock();
        state.unspread.get_or_insert_with(Instant::now);
        if state.since.is_none() {
            state.since = Some(Instant::now());
            self.changed.notify_all();
        }
    }

    /// How long the log has had something that the files may lack.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let state = self.lock();
        state.spreading.or(state.unspread).map(|since| since.elapsed())
    }

    /// A spread is to begin, and nobody waits for it.
    pub(crate) fn want(&self) {
        self.lock().wanted = true;
        self.changed.notify_all();
    }

    /// The log goes on in its other segment: this one is to be spread, so that it is free when that one is full.
    pub(crate) fn turned(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let before = state.turned.replace(now);
        state.is_log_small |= before.is_some_and(|before| now - before < SOON.min(self.after));
        state.wanted = true;
        self.changed.notify_all();
    }

    /// Saves wait for a spread: the files cannot keep up.
    pub(crate) fn fell_behind(&self) {
        self.lock().is_log_small = true;
    }

    /// Have segments been full too soon since it was asked last?
    pub(crate) fn is_log_small(&self) -> bool {
        std::mem::take(&mut self.lock().is_log_small)
    }

    /// The thread: what the log has now is spread.
    pub(crate) fn begin(&self) {
        let mut state = self.lock();
        (state.wanted, state.since) = (false, None);
        if let Some(since) = state.unspread.take() {
            state.spreading.get_or_insert(since);
        }
    }

    /// Waits for the end of a spread: of the one that is under way, or of the next.
    pub(crate) fn wait(&self) -> Result<(), Errno> {
        let mut state = self.lock();
        let ended = state.ended;
        state.wanted = true;
        self.changed.notify_all();
        while state.ended == ended && !state.is_over {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.ended == ended { Err(Errno::SHUTDOWN) } else { state.last }
    }

    /// The thread is to spread once more and to end; `closed` is told when it has.
    pub(crate) fn close(&self, closed: Option<Closed>) {
        let mut state = self.lock();
        state.closing = true;
        match closed {
            Some(closed) if state.is_over => {
                let last = state.last;
                drop(state);
                closed.send(last);
            }
            closed => state.closers.extend(closed),
        }
        self.changed.notify_all();
    }

    /// The thread: waits for something to do.
    pub(crate) fn next(&self) -> Todo {
        let mut state = self.lock();
        loop {
            if state.closing && !state.wanted {
                return Todo::End;
            }
            // What has failed is not tried again at once.
            let after = if state.last.is_err() { self.after.max(PAUSE) } else { self.after };
            // None: in a time that never comes.
            let due = state.since.and_then(|since| since.checked_add(after));
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            if state.wanted || left.is_some_and(|left| left.is_zero()) {
                state.wanted = false;
                state.since = None;
                state.spreading = state.unspread.take();
                return Todo::Spread;
            }
            state = match left {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// The thread: a spread has ended. `again`: in time, there is something left to do.
    pub(crate) fn end(&self, spread: Result<(), Errno>, again: bool) {
        let mut state = self.lock();
        state.ended += 1;
        state.last = spread;
        let spread_since = state.spreading.take();
        if spread.is_err() {
            state.unspread = spread_since.or(state.unspread);
        }
        if again {
            state.unspread.get_or_insert_with(Instant::now);
        }
        if again && state.since.is_none() {
            state.since = Some(Instant::now());
        }
        self.changed.notify_all();
    }

    /// The thread, when it is to end: does somebody who was accepted before still wait for a spread? Waits a
    /// moment for him.
    pub(crate) fn is_still_wanted(&self) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, MOMENT, |state| !state.wanted);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.wanted)
    }

    /// Is the store being closed?
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Has the thread ended?
    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// The thread: it ends.
    pub(crate) fn finish(&self, last: Result<(), Errno>) {
        let mut state = self.lock();
        (state.is_over, state.last) = (true, last);
        (state.unspread, state.spreading) = (None, None);
        let closers = std::mem::take(&mut state.closers);
        self.changed.notify_all();
        drop(state);
        closers.into_iter().for_each(|closed| closed.send(last));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
