//! A log with larger segments: at once, for a transaction that fits into no smaller one; or while saves go on, where
//! segments are full before the files follow by themselves, and a file that is saved again and again is synced
//! with each of them.
//!
//! ```text
//!   idle ──▶ asked ──▶ making ──▶ made ──▶ idle, in the larger log       over: the store is closed
//!              │ a thread of the pool       │ the thread that lets the files follow, after a spread
//!   idle ──────┴─ who needs it now ─────────┘
//! ```

use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::Advice;
use rustix::io::Errno;

use super::access::Entered;
use super::committer::Committer;
use super::log::Log;
use super::log::files::{self as log_files, NotPlaced, Portion, Proof, Segments};
use super::log::format::{BLOCK, LogId};
use super::log::scan::Scan;
use super::trace;

/// How much larger segments become where they are full too soon.
const TIMES: u64 = 4;

/// Between two portions of a log that nobody waits for.
const PAUSE: Duration = Duration::from_millis(10);

/// What is left to others of a filesystem's free space: all but one part of so many.
const SHARE: u64 = 16;

/// A larger log, on its way: one at a time.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    state: Mutex<State>,
    changed: Condvar,
    /// Somebody waits for the one that is made.
    is_urgent: AtomicBool,
}

#[derive(Debug)]
enum State {
    /// What came of the last.
    Idle(Result<(), Errno>),
    Asked,
    Making,
    Made(New),
    /// The root may be another's.
    Over,
}

impl Default for State {
    fn default() -> State {
        State::Idle(Ok(()))
    }
}

/// A log that is not in its place yet.
#[derive(Debug)]
struct New {
    segments: Segments,
    id: LogId,
    /// Bytes of each of them.
    bytes: u64,
}

impl Committer {
    /// Makes a log with larger segments, and waits until the store goes on in it.
    pub(super) fn grow(&self, wanted: u64) -> Result<(), Errno> {
        let growing = &self.size.growing;
        growing.is_urgent.store(true, Ordering::Relaxed);
        let grown = self.grow_now(wanted);
        growing.is_urgent.store(false, Ordering::Relaxed);
        grown
    }

    fn grow_now(&self, wanted: u64) -> Result<(), Errno> {
        let Some(bytes) = self.larger(wanted) else { return Ok(()) };
        let growing = &self.size.growing;
        while self.segment() < bytes {
            let mut state = growing.lock();
            match &*state {
                State::Over => return Err(Errno::SHUTDOWN),
                State::Making => drop(growing.wait(state)),
                State::Made(new) if new.bytes >= bytes => {
                    drop(state);
                    self.spreader.wait()?;
                    if let State::Idle(Err(errno)) = *growing.lock() {
                        return Err(errno);
                    }
                }
                // One that is too small, or that nobody has begun.
                State::Idle(_) | State::Asked | State::Made(_) => {
                    *state = State::Making;
                    drop(state);
                    self.make_larger(bytes)?;
                }
            }
        }
        Ok(())
    }

    /// A thread makes a larger log, slowly, while saves go on; if there is much room.
    pub(super) fn begin_to_grow(self: &Arc<Committer>) {
        let mut state = self.size.growing.lock();
        if !matches!(*state, State::Idle(_)) {
            return;
        }
        *state = State::Asked;
        drop(state);
        let committer = Arc::clone(self);
        let refused = self.pool.enqueue(Box::new(move || committer.grow_behind()));
        if refused.is_some() {
            // No thread can be made: the log that there is does as well.
            self.size.growing.end(State::Asked, Ok(()));
        }
    }

    /// The thread.
    fn grow_behind(&self) {
        let growing = &self.size.growing;
        let mut state = growing.lock();
        if !matches!(*state, State::Asked) {
            return;
        }
        *state = State::Making;
        drop(state);
        let bytes = self.larger(self.segment().saturating_mul(TIMES));
        match bytes.filter(|bytes| self.is_roomy_for(*bytes)) {
            Some(bytes) => {
                let _ = self.make_larger(bytes);
            }
            None => growing.end(State::Making, Ok(())),
        }
    }

    /// Makes a log, by whoever has said so.
    fn make_larger(&self, bytes: u64) -> Result<(), Errno> {
        let growing = &self.size.growing;
        let mut portion = |file: &OwnedFd| {
            if self.spreader.is_closing() && !growing.is_urgent.load(Ordering::Relaxed) {
                return Err(Errno::CANCELED);
            }
            if !growing.is_urgent.load(Ordering::Relaxed) {
                // It is written out from now on (posix_fadvise(2)), and not all at once by the sync.
                let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
                std::thread::sleep(PAUSE);
            }
            Ok(())
        };
        // Whoever waits for it is not to wait for ever.
        let made = catch_unwind(AssertUnwindSafe(|| {
            New::make(&self.own, bytes, self.size.proof, &mut portion)
        }));
        let (state, made) = match made.unwrap_or(Err(Errno::IO)) {
            Ok(new) => (State::Made(new), Ok(())),
            Err(errno) => (State::Idle(Err(errno)), Err(errno)),
        };
        *growing.lock() = state;
        growing.changed.notify_all();
        if made.is_ok() {
            self.spreader.want();
        }
        made
    }

    /// Goes on in a larger log that was made, if there is one. What the files lack follows while nobody saves: just
    /// after a spread that is little.
    pub(super) fn end_growing(&self) {
        let Some(access) = &self.access else { return };
        let mut state = self.size.growing.lock();
        if !matches!(*state, State::Made(_)) {
            return;
        }
        if let State::Made(new) = std::mem::take(&mut *state) {
            let mut open = access.both();
            let grown = self.spread_entered(&mut open);
            let grown = grown.and_then(|()| self.go_on_in(&mut open, new));
            if let Err(errno) = grown {
                // What has this name may be the log, if that is not known.
                if !open.is_closed() {
                    let _ = log_files::remove_new(self.own.as_fd());
                }
                trace::log_not_grown(self.layout.root.path(), errno);
            }
            *state = State::Idle(grown);
        }
    }

    /// So many bytes, if segments may be so large, and are not yet.
    fn larger(&self, wanted: u64) -> Option<u64> {
        let bytes = wanted.min(self.size.max) / BLOCK as u64 * BLOCK as u64;
        (bytes > self.segment()).then_some(bytes)
    }

    fn is_roomy_for(&self, bytes: u64) -> bool {
        let of_blocks = |room: rustix::fs::StatVfs| room.f_bavail.saturating_mul(room.f_frsize);
        let room = rustix::fs::fstatvfs(&self.own).map_or(0, of_blocks);
        room / SHARE >= 2 * bytes
    }

    fn go_on_in(&self, open: &mut Entered<'_>, new: New) -> Result<(), Errno> {
        if !open.is_spread() {
            return Err(Errno::AGAIN);
        }
        let bytes = new.bytes;
        match new.put_in_place(&self.own) {
            Ok(log) => open.renew(log),
            Err(NotPlaced::Unchanged(errno)) => return Err(errno),
            Err(NotPlaced::Unknown(errno)) => {
                // What is appended to the one may not be found if the other is.
                open.close(errno);
                return Err(errno);
            }
        }
        *self.size.segment.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
        trace::log_grown(self.layout.root.path(), bytes);
        Ok(())
    }
}

impl Growing {
    /// No log is made any more. Waits for who is making one.
    pub(super) fn end_all(&self, own: &OwnedFd) {
        let mut state = self.lock();
        while matches!(*state, State::Making) {
            state = self.wait(state);
        }
        if let State::Made(_) = std::mem::replace(&mut *state, State::Over) {
            let _ = log_files::remove_new(own.as_fd());
        }
    }

    /// It ends, if it is so far.
    fn end(&self, at: State, came: Result<(), Errno>) {
        let mut state = self.lock();
        if std::mem::discriminant(&*state) == std::mem::discriminant(&at) {
            *state = State::Idle(came);
        }
        self.changed.notify_all();
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl New {
    fn make(
        own: &OwnedFd,
        bytes: u64,
        proof: Proof,
        portion: &mut Portion<'_>,
    ) -> Result<New, Errno> {
        let random = RandomState::new();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.hash_one(std::process::id()).to_le_bytes());
        id[8..].copy_from_slice(&random.hash_one(std::time::SystemTime::now()).to_le_bytes());
        let segments = log_files::make_new(own.as_fd(), bytes, id, proof, portion)?;
        Ok(New { segments, id, bytes })
    }

    fn put_in_place(self, own: &OwnedFd) -> Result<Log<Segments>, NotPlaced> {
        let New { segments, id, bytes } = self;
        let log = Log::begin(segments, &Scan::of_new(id, bytes)).map_err(NotPlaced::Unchanged)?;
        log_files::put_in_place(own.as_fd())?;
        Ok(log)
    }
}

/// Makes a log, in the place of the one that may be there.
pub(crate) fn make_log(
    own: &OwnedFd,
    bytes: u64,
    proof: Proof,
) -> Result<Log<Segments>, NotPlaced> {
    let new = New::make(own, bytes, proof, &mut |_| Ok(())).map_err(NotPlaced::Unchanged)?;
    new.put_in_place(own)
}
