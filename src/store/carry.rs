//! Carries out what waits, in portions: by the log, many transactions in one group, or beside it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::committer::Committer;
use super::log::format::{BLOCK, blocks_for};
use super::queue::{Pending, Way};
use crate::reply::Answer;

/// Blocks of a group that several transactions share, at most: the larger, the longer each waits.
const SHARED_MAX: usize = (1 << 20) / BLOCK;

/// Saves beside the log that are made together, at most: each holds two descriptors meanwhile.
fn beside_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    (descriptors / 8).clamp(1, 128)
}

impl Committer {
    /// Carries out what waits, until `mine` is answered; then a thread of the pool goes on.
    pub(crate) fn carry<T>(self: &Arc<Committer>, mine: Option<&Answer<T>>) {
        while let Some(batch) = self.queue.take(|first, next| self.joins(first, next)) {
            // A panic of somebody's waker must not leave the others waiting; what it drops is lost.
            let _ = catch_unwind(AssertUnwindSafe(|| self.carry_batch(batch)));
            self.publish_behind();
            if mine.is_some_and(Answer::is_there) {
                if self.queue.leave() {
                    self.carry_by_thread();
                }
                return;
            }
        }
    }

    /// A thread of the pool carries out what waits.
    pub(crate) fn carry_by_thread(self: &Arc<Committer>) {
        let committer = Arc::clone(self);
        self.pool.run(Box::new(move || committer.carry::<()>(None)));
    }

    /// Can the next that waits be carried out with the first of a batch?
    fn joins(&self, first: &Pending, next: &Pending) -> bool {
        first.way == next.way && !first.removes_beside() && !next.removes_beside()
    }

    fn carry_batch(&self, mut batch: Vec<Pending>) {
        while !batch.is_empty() {
            let rest = batch.split_off(self.fitting(&batch));
            match batch[0].way {
                Way::Log => {
                    let elsewhere = self.commit(batch);
                    self.carry_batch(elsewhere);
                }
                Way::Beside | Way::Atomic => self.beside(batch),
            }
            batch = rest;
        }
    }

    /// How many of these go into one group: they, or the marks of their paths.
    fn fitting(&self, batch: &[Pending]) -> usize {
        let by_log = batch[0].way == Way::Log;
        let max = SHARED_MAX.min(self.segment() as usize / BLOCK / 4);
        let mut blocks = 0;
        let fits = |pending: &&Pending| {
            blocks += match by_log {
                true => blocks_for(&pending.records),
                // However long a path is, a mark takes less than a block.
                false => pending.records.len().div_ceil(4),
            };
            blocks <= max
        };
        let most = if by_log || batch.len() == 1 { batch.len() } else { beside_max() };
        batch.iter().take(most).take_while(fits).count().max(1)
    }
}
