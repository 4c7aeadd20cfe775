//! The thread `ringseal-store`: the files follow the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use rustix::io::Errno;

use super::access::Entered;
use super::committer::Committer;
use super::spreader::Todo;
use super::trace;

impl Committer {
    /// The thread that lets the files follow the log.
    pub(crate) fn follow(self: &Arc<Committer>) {
        // Whatever happens here: nobody is to wait for ever, and the root is free.
        let last = catch_unwind(AssertUnwindSafe(|| self.follow_to_the_end()));
        let last = last.unwrap_or_else(|_| {
            // The root may be another's from now on: nothing is written to it any more.
            self.limits.close();
            if let Some(access) = &self.access {
                access.log().close(Errno::CANCELED);
            }
            Err(Errno::CANCELED)
        });
        self.queue.end_at_once();
        if let Some(access) = &self.access {
            access.end();
        }
        self.size.growing.end_all(&self.own);
        self.slots.clear();
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.pool.close();
        trace::closed(self.layout.root.path(), last.err());
        self.spreader.finish(last);
    }

    fn follow_to_the_end(self: &Arc<Committer>) -> Result<(), Errno> {
        while self.spreader.next() == Todo::Spread {
            self.spread_once();
            if self.spreader.is_log_small() {
                self.begin_to_grow();
            }
        }
        if let Some(lock) = &*self.lock.lock().unwrap_or_else(PoisonError::into_inner) {
            lock.is_to_end();
        }
        // What was accepted is made, and may have to wait for a spread.
        while !(self.queue.is_idle() && self.limits.is_drained()) {
            if self.spreader.is_still_wanted() {
                self.spread_once();
            }
        }
        loop {
            let last = self.spread();
            if last.is_err() || self.access.as_ref().is_none_or(|access| access.log().is_spread()) {
                return last;
            }
        }
    }

    fn spread_once(&self) {
        let spread = self.spread();
        if spread.is_ok() {
            self.end_growing();
        }
        // What came while it was under way, or what failed, is to be spread some time too.
        let again = self.access.as_ref().is_some_and(|access| {
            let open = access.log();
            !open.is_spread() && !open.is_closed()
        });
        self.spreader.end(spread, again);
    }

    /// Brings it about that the files have durably what the log has now, and says so in the log. Saves go
    /// on meanwhile.
    pub(super) fn spread(&self) -> Result<(), Errno> {
        let Some(access) = &self.access else { return Ok(()) };
        let _ = self.publish_until_now();
        let mut open = access.both();
        let begun = open.begin_spread();
        self.show_hidden(&open);
        let Some(spreading) = begun? else { return open.note_spread() };
        // Who has asked for one until now gets it.
        self.spreader.begin();
        let written = open.written_by(&spreading);
        drop(open);
        let synced = self.sync(&written);
        let mut open = access.both();
        let ended = open.end_spread(spreading, synced).and_then(|()| open.note_spread());
        self.show_hidden(&open);
        ended
    }

    /// The same of all that the log has, while nobody saves.
    pub(super) fn spread_entered(&self, open: &mut Entered<'_>) -> Result<(), Errno> {
        while open.publish_some(usize::MAX) {}
        let begun = open.begin_spread();
        self.show_hidden(open);
        let Some(spreading) = begun? else { return open.note_spread() };
        let synced = self.sync(&open.written_by(&spreading));
        let ended = open.end_spread(spreading, synced).and_then(|()| open.note_spread());
        self.show_hidden(open);
        ended
    }

    fn sync(&self, written: &[(String, u64)]) -> Result<Vec<String>, Errno> {
        let written: Vec<(&str, u64)> =
            written.iter().map(|(path, len)| (path.as_str(), *len)).collect();
        self.barrier.sync(&written)
    }
}
