//! A save that was accepted: the job, its payload, the room that it takes, and whom to answer.

pub(crate) mod limits;
pub(crate) mod reply;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use crate::engine::calls;
use crate::error::Result;
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
}

/// Saves in a list. They are boxed, because they go from list to list, and one that grows would hold
/// them twice.
pub(crate) type Tasks = Vec<Box<Task>>;

impl Task {
    /// Takes a job, on the caller's thread.
    pub(crate) fn new(job: Job, payload: Bytes, permit: Permit, reply: Reply) -> Box<Task> {
        // io_uring has no fchmod, fchown or fsetxattr on a direct descriptor.
        let by_calls = job.settled.shape().attributes || !job.open_mode_is_exact();
        Box::new(Task { job, payload, by_calls, carrier: Carrier::Pool, permit, reply })
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
        let Task { job, payload, carrier, permit, reply, .. } = self;
        let answer = calls::finish(job, carrier, payload.len());
        Ended { payload, permit, reply, answer }
    }
}

/// A save that has come to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub payload: Bytes,
    pub permit: Permit,
    pub reply: Reply,
    pub answer: Result<Receipt>,
}

impl Ended {
    /// Frees the payloads, gives all the room back at once, so that whoever waits for it finds it
    /// whole, and then answers.
    ///
    /// All of it runs code of the caller's, a waker or a payload's owner. A panic in it must not
    /// take the engine's thread away from everybody else.
    pub(crate) fn answer_all(ended: Vec<Ended>) {
        let mut permits = Vec::with_capacity(ended.len());
        let mut replies = Vec::with_capacity(ended.len());
        for Ended { payload, permit, reply, answer } in ended {
            contained(|| drop(payload));
            permits.push(permit);
            replies.push((reply, answer));
        }
        contained(|| Permit::give_back_all(&mut permits));
        for (reply, answer) in replies {
            contained(|| reply.send(answer));
        }
        for permit in permits {
            contained(|| drop(permit));
        }
    }
}

fn contained(body: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(body));
}
