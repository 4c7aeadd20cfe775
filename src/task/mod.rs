//! A save that was accepted: the job, its payload, the room that it takes, and whom to answer.

pub(crate) mod limits;
pub(crate) mod reply;

use std::panic::{AssertUnwindSafe, catch_unwind};

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

    /// Frees the payload, gives the room back, and answers.
    ///
    /// All of it runs code of the caller's, a waker or a payload's owner. A panic in it must not
    /// take the engine's thread away from everybody else.
    pub(crate) fn answer(payload: Bytes, permit: Permit, reply: Reply, answer: Result<Receipt>) {
        let contained = |body: &mut dyn FnMut()| {
            let _ = catch_unwind(AssertUnwindSafe(body));
        };
        let (mut payload, mut permit) = (Some(payload), Some(permit));
        let mut reply = Some((reply, answer));
        contained(&mut || drop(payload.take()));
        contained(&mut || permit.iter_mut().for_each(Permit::give_back));
        contained(&mut || {
            if let Some((reply, answer)) = reply.take() {
                reply.send(answer);
            }
        });
        contained(&mut || drop(permit.take()));
    }
}
