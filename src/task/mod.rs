//! A save that was accepted: the job, its payload, the room that it takes, and whom to answer.

pub(crate) mod limits;
pub(crate) mod reply;

use bytes::Bytes;

use crate::error::Result;
use crate::job::Job;
use crate::receipt::Receipt;
use limits::Permit;
use reply::Reply;

/// A save that was accepted.
#[derive(Debug)]
pub(crate) struct Task {
    pub job: Job,
    pub payload: Bytes,
    /// It needs a call that the ring does not have.
    pub by_calls: bool,
    pub permit: Permit,
    pub reply: Reply,
}

impl Task {
    /// Takes a job, on the caller's thread.
    pub(crate) fn new(job: Job, payload: Bytes, permit: Permit, reply: Reply) -> Task {
        // io_uring has no fchmod, fchown or fsetxattr on a direct descriptor.
        let by_calls = job.shape().attributes || !job.open_mode_is_exact();
        Task { job, payload, by_calls, permit, reply }
    }

    /// Gives the room back, then the answer.
    pub(crate) fn answer(permit: Permit, reply: Reply, answer: Result<Receipt>) {
        drop(permit);
        reply.send(answer);
    }
}
