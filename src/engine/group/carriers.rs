//! Who takes the saves of a cycle through their own steps: the ring, in one submission, or threads.

use std::sync::Arc;

use super::super::calls;
use super::super::pool::Pool;
use super::super::uring;
use crate::engine::crew;
use crate::engine::task::{Task, Tasks};
use crate::plan::Step;

/// The carriers that a writer has.
#[derive(Debug)]
pub(crate) struct Carriers {
    pub pool: Arc<Pool>,
    pub ring: Option<Arc<uring::Queue>>,
}

impl Carriers {
    /// Runs each save's steps up to the first that is not to be run `here`, on up to `width` of the ring's
    /// workers, or of threads where there is no ring, or for what it cannot do. They come back in any
    /// order.
    pub(super) fn run(
        &self,
        tasks: Tasks,
        width: usize,
        here: impl Fn(Step) -> bool + Copy + Send + Sync + 'static,
    ) -> Tasks {
        let is_due = |task: &Task| task.job.next().is_some_and(here);
        let (mut due, mut done): (Tasks, Tasks) = tasks.into_iter().partition(|task| is_due(task));
        if let Some(ring) = &self.ring {
            let (by_ring, by_calls) = due.into_iter().partition(|task| !task.by_calls);
            let (left, carried) =
                ring.carry(by_ring, width, here).into_iter().partition(|task| is_due(task));
            due = by_calls;
            due.extend::<Tasks>(left);
            done.extend::<Tasks>(carried);
        }
        done.extend(crew::each(&self.pool, width, due, move |task| {
            // A barrier needs no descriptor of the file, and a cycle has many files.
            calls::run_while(&mut task.job, &mut None, &task.payload, here);
        }));
        done
    }
}
