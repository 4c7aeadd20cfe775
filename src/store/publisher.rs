//! Publishing behind the answers: by a thread of the pool, while others save.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::access::{Access, Entered};
use super::behind;
use super::committer::Committer;

/// Files that are published together: as long, 10 ms perhaps, waits who changes files otherwise.
const PORTION: usize = 256;

/// What falls behind waits so long for others of its files to overtake it.
const PAUSE: Duration = Duration::from_millis(20);

impl Committer {
    /// Enters the log, when not too much is behind it.
    pub(super) fn behind_little<'a>(&self, access: &'a Access) -> Entered<'a> {
        let too_many = |behind: &behind::Behind| behind.saves.len() > behind::MAX;
        while self.behind.as_ref().is_some_and(too_many) && self.publish_some(access).is_some() {}
        access.log()
    }

    /// Publishes some of what has been behind for longest; were there any? `None`: it is over.
    fn publish_some(&self, access: &Access) -> Option<bool> {
        access.publish(PORTION, |core| self.show_hidden(core))
    }

    /// Sees to it that what is behind becomes visible.
    pub(super) fn publish_behind(self: &Arc<Committer>) {
        let Some(behind) = &self.behind else { return };
        if behind.saves.len() > 0 && !behind.is_running.swap(true, Ordering::AcqRel) {
            // Nothing of a store that is closed is open for it.
            let committer = Arc::downgrade(self);
            self.pool.run(Box::new(move || {
                loop {
                    std::thread::sleep(PAUSE);
                    let Some(committer) = committer.upgrade() else { return };
                    // Whatever happens: the next who saves is to find nobody at it.
                    let until_now = AssertUnwindSafe(|| committer.publish_until_now());
                    let _ = catch_unwind(until_now);
                    if committer.has_published_all() {
                        return;
                    }
                }
            }));
        }
    }

    /// Makes visible what is behind now. `None`: it is over.
    pub(super) fn publish_until_now(&self) -> Option<()> {
        let access = self.access.as_ref()?;
        let end = access.unpublished.end();
        while access.unpublished.has_until(end) {
            self.publish_some(access)?;
            access.let_others_in();
        }
        Some(())
    }

    /// The thread: is it done? Who adds something from then on starts another.
    fn has_published_all(&self) -> bool {
        let (Some(access), Some(behind)) = (&self.access, &self.behind) else { return true };
        behind.is_running.store(false, Ordering::SeqCst);
        access.has_ended()
            || behind.saves.len() == 0
            || behind.is_running.swap(true, Ordering::SeqCst)
    }
}
