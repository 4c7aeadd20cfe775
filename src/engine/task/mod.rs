//! A save that was accepted: the job, its payload, the room that it takes, and whom to answer.

pub(crate) mod limits;
pub(crate) mod turn;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::task::Waker;

use bytes::Bytes;

use crate::engine::calls;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::receipt::{Carrier, Receipt};
use crate::reply;
use crate::stats::Answered;
use crate::trace;
use limits::Permit;
use turn::Turn;

/// How a save is answered.
pub(crate) type Reply = reply::Reply<Result<Receipt>>;

/// A save that was accepted.
#[derive(Debug)]
pub(crate) struct Task {
    pub job: Job,
    pub payload: Bytes,
    /// It needs a call that the ring does not have, or has failed on it.
    pub by_calls: bool,
    /// Who has written the file so far.
    pub carrier: Carrier,
    pub permit: Permit,
    pub reply: Reply,
    /// While it is carried out.
    pub turn: Option<Turn>,
    /// Older versions that are not written, because this one is.
    pub overtaken: Vec<Overtaken>,
}

/// A save that is not carried out, because a newer version of its target is.
#[derive(Debug)]
pub(crate) struct Overtaken {
    permit: Permit,
    reply: Reply,
    target: PathBuf,
    sequence: u64,
}

/// What an overtaken save has freed.
#[derive(Debug)]
pub(crate) struct Freed {
    payload: Bytes,
    waker: Option<Waker>,
}

impl Freed {
    /// Runs code of the caller's, so not under a lock.
    pub(crate) fn release(self) {
        contained(|| drop(self.payload));
        if let Some(waker) = self.waker {
            contained(|| waker.wake());
        }
    }
}

/// Saves in a list. They are boxed, because they go from list to list, and one that grows would hold
/// them twice.
pub(crate) type Tasks = Vec<Box<Task>>;

impl Task {
    /// Takes a job, on the caller's thread.
    pub(crate) fn new(job: Job, payload: Bytes, permit: Permit, reply: Reply) -> Box<Task> {
        let carrier = Carrier::Pool;
        let (by_calls, turn, overtaken) = (false, None, Vec::new());
        Box::new(Task { job, payload, by_calls, carrier, permit, reply, turn, overtaken })
    }

    /// io_uring has no fchmod, fchown or fsetxattr on a direct descriptor.
    pub(crate) fn note_what_the_ring_lacks(&mut self) {
        self.by_calls = self.job.settled.shape().attributes || !self.job.open_mode_is_exact();
    }

    /// Stands for an older version, which is not written, and whose bytes are of no use any more.
    pub(crate) fn overtake(&mut self, older: Task) -> Freed {
        let Task { job, payload, mut permit, reply, overtaken, .. } = older;
        let waker = permit.give_bytes_back();
        self.overtaken = overtaken;
        let (target, sequence) = (job.place.shown, job.sequence);
        self.overtaken.push(Overtaken { permit, reply, target, sequence });
        Freed { payload, waker }
    }

    /// Ends it before anything was done.
    pub(crate) fn fail(self, error: Error) -> Ended {
        let Task { job, payload, permit, reply, turn, overtaken, .. } = self;
        let (answer, sequence, syncs) = (Err(error), job.sequence, job.syncs);
        Ended { payload, permit, reply, answer, turn, overtaken, sequence, syncs }
    }

    /// Begins anew, with a new file, and by plain calls, which look more closely.
    pub(crate) fn restart(&mut self) {
        calls::clean(&mut self.job);
        self.job.restart();
        self.by_calls = true;
        self.carrier = Carrier::Pool;
    }

    /// Takes over what is to be kept of the file that is there now. `None` if that cannot be told: the
    /// save has failed, and was answered.
    pub(crate) fn look_again(mut self: Box<Task>) -> Option<Box<Task>> {
        match self.job.look_again() {
            Ok(()) => Some(self),
            Err(error) => {
                Ended::answer_all(vec![self.fail(error)]);
                None
            }
        }
    }

    /// Carries it by plain calls from where it is to its end, and answers.
    pub(crate) fn carry(mut self: Box<Task>) {
        calls::run(&mut self.job, &self.payload);
        Ended::answer_all(vec![self.end()]);
    }

    /// Cleans up after a save that has come to its end.
    pub(crate) fn end(self) -> Ended {
        let Task { job, payload, carrier, permit, reply, turn, overtaken, .. } = self;
        let (sequence, syncs) = (job.sequence, job.syncs);
        let answer = calls::finish(job, carrier, payload.len());
        Ended { payload, permit, reply, answer, turn, overtaken, sequence, syncs }
    }
}

/// A save that has come to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub payload: Bytes,
    pub permit: Permit,
    pub reply: Reply,
    pub answer: Result<Receipt>,
    pub turn: Option<Turn>,
    pub overtaken: Vec<Overtaken>,
    pub sequence: u64,
    /// Syncs that were made for it.
    pub syncs: u64,
}

impl Ended {
    /// Lets the next of each target go, frees the payloads, gives all the room back at once, so that
    /// whoever waits for it finds it whole, and then answers.
    ///
    /// Most of it runs code of the caller's, a waker or a payload's owner. A panic in it must not
    /// take the engine's thread away from everybody else.
    pub(crate) fn answer_all(mut ended: Vec<Ended>) {
        let turns = ended.iter_mut().filter_map(|one| one.turn.take()).collect();
        contained(|| Turn::pass_all(turns));
        for one in &mut ended {
            let payload = std::mem::take(&mut one.payload);
            contained(|| drop(payload));
        }
        contained(|| Permit::give_back_all(ended.iter_mut().flat_map(Ended::permits)));
        for Ended { permit, reply, answer, overtaken, sequence: into, .. } in ended {
            for Overtaken { permit, reply, target, sequence } in overtaken {
                let answer = coalesced(&answer, target, sequence, into);
                contained(|| trace::answered(permit.number(), permit.took(), answer.as_ref()));
                contained(|| reply.send(answer));
                contained(|| drop(permit));
            }
            contained(|| trace::answered(permit.number(), permit.took(), answer.as_ref()));
            contained(|| reply.send(answer));
            contained(|| drop(permit));
        }
    }

    fn permits(&mut self) -> impl Iterator<Item = (&mut Permit, Answered)> {
        let answered = Answered::of(self.answer.as_ref(), self.syncs);
        let overtaken = self.overtaken.iter_mut();
        let overtaken = overtaken.map(move |older| (&mut older.permit, answered.of_older()));
        std::iter::once((&mut self.permit, answered)).chain(overtaken)
    }
}

/// The answer to a save that this one stood for.
fn coalesced(
    answer: &Result<Receipt>,
    target: PathBuf,
    sequence: u64,
    into: u64,
) -> Result<Receipt> {
    match answer {
        Ok(receipt) => Ok(Receipt { sequence, coalesced_into: Some(into), ..*receipt }),
        Err(error) => Err(error.again(target, into)),
    }
}

fn contained(body: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(body));
}
