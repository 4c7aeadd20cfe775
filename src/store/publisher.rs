//! Publishing behind the answers: by a thread of the pool, while others save.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::access::{Access, Entered};
use super::behind;
use super::committer::Committer;

/// Files that are published together: as long, 10 ms perhaps, who changes files otherwise waits.
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
            let committer = Arc::clone(self);
            self.pool.run(Box::new(move || {
                // Whatever happens: the next who saves is to find nobody at it.
                let published = catch_unwind(AssertUnwindSafe(|| committer.publish_all()));
                if let (Err(_), Some(behind)) = (published, &committer.behind) {
                    behind.is_running.store(false, Ordering::Release);
                }
            }));
        }
    }

    /// The thread: until nothing is behind.
    fn publish_all(&self) {
        let (Some(access), Some(behind)) = (&self.access, &self.behind) else { return };
        loop {
            std::thread::sleep(PAUSE);
            let is_over = self.publish_until_now(access).is_none();
            // Nobody adds anything meanwhile; who does so from now on starts another.
            let _open = access.log();
            if is_over || behind.saves.len() == 0 {
                behind.is_running.store(false, Ordering::Release);
                return;
            }
        }
    }

    /// Makes visible what is in the log now. `None`: it is over.
    pub(super) fn publish_until_now(&self, access: &Access) -> Option<()> {
        let (log, until) = access.log().end();
        // A log is renewed only when all is visible.
        while access.unpublished.oldest().is_some_and(|oldest| oldest <= until) {
            self.publish_some(access)?;
            if access.log().end().0 != log {
                break;
            }
        }
        Some(())
    }
}
