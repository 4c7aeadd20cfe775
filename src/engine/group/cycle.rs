//! One cycle: saves of one filesystem that go through their steps together.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;

use bytes::Bytes;
use rustix::io::Errno;

use super::super::calls::Calls;
use super::super::pool::Pool;
use super::{crew, syncs};
use crate::plan::Step;
use crate::plan::barrier::Barrier;
use crate::receipt::Carrier;
use crate::task::limits::Permit;
use crate::task::reply::Reply;
use crate::task::{Ended, Task, Tasks};

/// A save of the cycle.
#[derive(Debug)]
struct Member {
    calls: Calls,
    payload: Bytes,
    permit: Permit,
    reply: Reply,
}

/// As [`Tasks`].
type Members = Vec<Box<Member>>;

/// Carries the saves out, and answers each as soon as it is done. One that fails leaves the cycle
/// at its step; the others go on.
pub(super) fn run(tasks: Tasks, pool: &Pool) {
    let mut members: Members = tasks.into_iter().map(Member::new).collect();
    let Some(first) = members.first() else { return };
    let mut barrier = syncs::choose(members.len(), first.calls.dir().as_fd());
    while !members.is_empty() {
        let width = width(barrier, members.len(), pool);
        members = crew::each(pool, width, members, move |member| member.run_own(barrier));
        members = answer_ended(members);
        let steps = members.iter().filter_map(|member| member.calls.next());
        if let Some(step) = steps.min() {
            barrier = share(step, barrier, &mut members, pool);
        }
        members = answer_ended(members);
    }
}

/// Answers those that have come to their end; gives the others back.
fn answer_ended(members: Members) -> Members {
    let (ended, going) =
        members.into_iter().partition::<Members, _>(|member| member.calls.next().is_none());
    Ended::answer_all(ended.into_iter().map(|member| member.end()).collect());
    going
}

/// Threads for the saves' own steps: as many as there are processors where they never wait for the
/// disk, as many as there may be where they do.
fn width(barrier: Barrier, members: usize, pool: &Pool) -> usize {
    /// Below this, waking a thread costs more than it takes over.
    const EACH_MIN: usize = 8;
    match barrier {
        Barrier::Filesystem => processors().min(members.div_ceil(EACH_MIN)),
        Barrier::File => pool.threads_max(),
    }
}

/// Asked once: the answer comes from several files.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| available_parallelism().map_or(1, usize::from))
}

/// Carries out a step that all share, for those that have come to it; says how to go on.
fn share(step: Step, barrier: Barrier, members: &mut [Box<Member>], pool: &Pool) -> Barrier {
    let mut waiting: Vec<&mut Box<Member>> =
        members.iter_mut().filter(|member| member.calls.next() == Some(step)).collect();
    let Some(first) = waiting.first() else { return barrier };
    if step == Step::Verify {
        let alive = syncs::liveness(waiting.iter().map(|member| member.calls.dir().as_fd()));
        waiting.iter_mut().for_each(|member| member.calls.record(step, alive));
        return barrier;
    }
    if barrier == Barrier::Filesystem {
        let dir = Arc::clone(first.calls.dir());
        if syncs::filesystem(dir.as_fd()).is_ok() {
            for member in &mut waiting {
                let is_data = step == Step::Sync;
                let answer = if is_data { member.calls.has_its_blocks() } else { Ok(()) };
                member.calls.record(step, answer);
            }
            return barrier;
        }
        // Whose write failed, the answer does not tell, and these files are not synced again, for
        // their pages may count as clean now. Each is written anew, and its own fsync tells.
        if step == Step::Sync {
            waiting.iter_mut().for_each(|member| member.calls.restart());
            return Barrier::File;
        }
    }
    let dirs: Vec<Arc<OwnedFd>> =
        waiting.iter().map(|member| Arc::clone(member.calls.dir())).collect();
    let answers: Vec<Result<(), Errno>> = syncs::directories(pool, pool.threads_max(), &dirs);
    for (member, answer) in waiting.iter_mut().zip(answers) {
        member.calls.record(step, answer);
    }
    barrier
}

impl Member {
    fn new(task: Box<Task>) -> Box<Member> {
        let Task { job, payload, permit, reply, .. } = *task;
        Box::new(Member { calls: Calls::new(job), payload, permit, reply })
    }

    /// Runs its steps up to one that is shared.
    fn run_own(&mut self, barrier: Barrier) {
        self.calls.run_while(&self.payload, |step| !barrier.shares(step));
        // A barrier needs no descriptor of the file, and a cycle has many files.
        self.calls.close_file();
    }

    fn end(self) -> Ended {
        let Member { calls, payload, permit, reply } = self;
        let answer = calls.finish(Carrier::Pool, payload.len());
        Ended { payload, permit, reply, answer }
    }
}
