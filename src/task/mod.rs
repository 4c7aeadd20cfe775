//! A save that was accepted: the job, its payload, the room that it takes, and whom to answer.

pub(crate) mod limits;
pub(crate) mod reply;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use bytes::Bytes;

use crate::engine::calls;
use crate::engine::order::Turn;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::receipt::{Carrier, Receipt};
use limits::Permit;
use reply::Reply;

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

    /// Stands for an older version, which is not written. Gives its payload back.
    pub(crate) fn overtake(&mut self, older: Task) -> Bytes {
        let Task { job, payload, permit, reply, overtaken, .. } = older;
        self.overtaken = overtaken;
        let (target, sequence) = (job.place.shown, job.sequence);
        self.overtaken.push(Overtaken { permit, reply, target, sequence });
        payload
    }

    /// Ends it before anything was done.
    pub(crate) fn fail(self, error: Error) -> Ended {
        let Task { payload, permit, reply, turn, overtaken, .. } = self;
        Ended { payload, permit, reply, answer: Err(error), turn, overtaken }
    }

    /// Begins anew, with a new file, and by plain calls, which look more closely.
    pub(crate) fn restart(&mut self) {
        calls::clean(&mut self.job);
        self.job.restart();
        self.by_calls = true;
        self.carrier = Carrier::Pool;
    }

    /// Cleans up after a save that has come to its end.
    pub(crate) fn end(self) -> Ended {
        let Task { job, payload, carrier, permit, reply, turn, overtaken, .. } = self;
        let answer = calls::finish(job, carrier, payload.len());
        Ended { payload, permit, reply, answer, turn, overtaken }
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
}

impl Ended {
    /// Frees the payloads, gives all the room back at once, so that whoever waits for it finds it
    /// whole, lets the next of each target go, and then answers.
    ///
    /// All of it runs code of the caller's, a waker or a payload's owner. A panic in it must not
    /// take the engine's thread away from everybody else.
    pub(crate) fn answer_all(mut ended: Vec<Ended>) {
        for one in &mut ended {
            let payload = std::mem::take(&mut one.payload);
            contained(|| drop(payload));
        }
        contained(|| Permit::give_back_all(ended.iter_mut().flat_map(Ended::permits)));
        let turns = ended.iter_mut().filter_map(|one| one.turn.take()).collect();
        contained(|| Turn::pass_all(turns));
        for Ended { permit, reply, answer, overtaken, .. } in ended {
            for Overtaken { permit, reply, target, sequence } in overtaken {
                contained(|| reply.send(coalesced(&answer, target, sequence)));
                contained(|| drop(permit));
            }
            contained(|| reply.send(answer));
            contained(|| drop(permit));
        }
    }

    fn permits(&mut self) -> impl Iterator<Item = &mut Permit> {
        let overtaken = self.overtaken.iter_mut().map(|overtaken| &mut overtaken.permit);
        std::iter::once(&mut self.permit).chain(overtaken)
    }
}

/// The answer to a save that this one stood for.
fn coalesced(answer: &Result<Receipt>, target: PathBuf, sequence: u64) -> Result<Receipt> {
    match answer {
        Ok(receipt) => {
            let coalesced_into = Some(receipt.sequence);
            Ok(Receipt { sequence, coalesced_into, ..*receipt })
        }
        Err(error) => Err(error.again(target)),
    }
}

fn contained(body: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(body));
}
