//! One cycle: saves of one filesystem that go through their steps together.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;

use super::super::calls;
use super::super::counters::Counters;
use super::carriers::Carriers;
use super::syncs;
use crate::engine::task::{Ended, Tasks};
use crate::left_out::{Rule, left_out};
use crate::plan::Step;
use crate::plan::barrier::Barrier;
use crate::trace;

/// Carries the saves out, and answers each as soon as it is done. One that fails leaves the cycle
/// at its step; the others go on.
pub(super) fn run(mut tasks: Tasks, carriers: &Carriers, counters: &Counters) {
    let Some(first) = tasks.first() else { return };
    counters.cycle(tasks.len());
    let _span = trace::cycle(tasks.len());
    let mut barrier = syncs::choose(tasks.len(), first.job.place.dir.as_fd());
    while !tasks.is_empty() {
        let width = width(barrier, tasks.len(), carriers);
        tasks = carriers.run(tasks, width, move |step| !barrier.shares(step));
        tasks = answer_ended(tasks);
        if let Some(step) = tasks.iter().filter_map(|task| task.job.next()).min() {
            let (waiting, others) =
                tasks.into_iter().partition(|task| task.job.next() == Some(step));
            (tasks, barrier) = share(step, barrier, waiting, carriers, counters);
            tasks.extend::<Tasks>(others);
        }
        tasks = answer_ended(tasks);
    }
}

/// Answers those that have come to their end; gives the others back.
fn answer_ended(tasks: Tasks) -> Tasks {
    let (ended, going): (Tasks, Tasks) =
        tasks.into_iter().partition(|task| task.job.next().is_none());
    Ended::answer_all(ended.into_iter().map(|task| task.end()).collect());
    going
}

/// Threads for the saves' own steps: as many as there are processors where they never wait for the
/// disk, as many as there may be where they do.
fn width(barrier: Barrier, tasks: usize, carriers: &Carriers) -> usize {
    /// Below this, waking a thread costs more than it takes over.
    const EACH_MIN: usize = 8;
    match barrier {
        Barrier::Filesystem => processors().min(tasks.div_ceil(EACH_MIN)),
        Barrier::File => carriers.pool.threads_max(),
    }
}

/// Asked once: the answer comes from several files.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| available_parallelism().map_or(1, usize::from))
}

/// Carries out a step that all share, for those that have come to it; says how to go on.
fn share(
    step: Step,
    barrier: Barrier,
    mut waiting: Tasks,
    carriers: &Carriers,
    counters: &Counters,
) -> (Tasks, Barrier) {
    let Some(first) = waiting.first() else { return (waiting, barrier) };
    if step == Step::Verify {
        let alive = syncs::liveness(waiting.iter().map(|task| task.job.place.dir.as_fd()));
        waiting.iter_mut().for_each(|task| task.job.progress.record(step, alive));
        return (waiting, barrier);
    }
    if barrier == Barrier::Filesystem {
        let dir = Arc::clone(&first.job.place.dir);
        counters.barrier();
        if syncs::filesystem(dir.as_fd()).is_ok() {
            for task in &mut waiting {
                // The temporary name is gone by then if the rename came first.
                let is_data = step == Step::Sync && !left_out(Rule::RenameBeforeSync);
                let answer = if is_data { calls::has_its_blocks(&task.job) } else { Ok(()) };
                task.job.progress.record(step, answer);
            }
            return (waiting, barrier);
        }
        // Whose write failed, the answer does not tell, and these files are not synced again, for
        // their pages may count as clean now. Each is written anew, and its own fsync tells.
        if step == Step::Sync {
            waiting.iter_mut().for_each(|task| task.restart());
            return (waiting, Barrier::File);
        }
    }
    (sync_directories(step, waiting, carriers), barrier)
}

/// Syncs each directory once, however many of the saves are in it: one of them carries the step out,
/// and what it was answered holds for the others.
fn sync_directories(step: Step, waiting: Tasks, carriers: &Carriers) -> Tasks {
    let (mut first, mut others) = syncs::one_of_each_directory(waiting);
    first = carriers.run(first, carriers.pool.threads_max(), move |next| next == step);
    let mut synced = Tasks::with_capacity(first.len());
    for task in first {
        let answer = task.job.progress.errno().map_or(Ok(()), Err);
        let same = others.remove(&task.job.place.dir.as_raw_fd()).unwrap_or_default();
        synced.extend(same.into_iter().map(|mut task| {
            task.job.progress.record(step, answer);
            task
        }));
        synced.push(task);
    }
    // Whose first was lost with the ring waits on.
    synced.extend(others.into_values().flatten());
    synced
}
