//! The io_uring engine: one thread owns the ring, and what a save does on it is a chain of linked
//! entries, or a few.
//!
//! # Who owns what, when
//!
//! 1. A caller opens the directory and makes a `Task`; pushed to the [`Queue`], by itself or as one
//!    of a *wave*, it is the ring's. The eventfd that wakes the ring's thread is the one that the
//!    kernel signals completions to: the thread waits in one place for both.
//! 2. The thread gives the task a *slot*: an index into the ring's table of direct descriptors and
//!    into [`Driver`]'s table of tasks. The chain's entries point into the task: names, payload.
//!    The names' and payload's memory is on the heap and stays where it is; the directory's
//!    descriptor stays open. Nothing of the task is touched while a round of entries is pending.
//! 3. All chains that are ready go to the kernel in one `io_uring_enter`, each of them whole: a
//!    chain that a submission's boundary cuts would run out of order.
//! 4. Every entry answers with one completion; none is suppressed. When the last one of a chain
//!    has come, the plan reads the answers: done, or a next chain, or a cleaning round (a severed
//!    chain never runs its tail, so cleaning is always a second submission).
//! 5. Only then is the task taken out of its slot: answered and freed, or, if it came in a wave and
//!    has run the steps that were asked for, given back to the cycle that waits for it. A caller who
//!    dropped its future changes nothing of this.
//!
//! # Why nothing can overflow
//!
//! A round has at most [`ROUND_MAX`] entries, each slot has one round at a time, and the ring is
//! made with `slots * ROUND_MAX` submission entries and twice as many completions.
//!
//! # When the ring cannot go on
//!
//! No worker (a pids limit: the head of a chain answers ECANCELED with nothing of it run): the
//! save is done by plain calls; when that repeats, or the ring dies, the ring is given up. Chains
//! under way are waited for, what did not run is done by plain calls, and the thread ends. Chains
//! that do not come back in [`LOST_AFTER`] are answered `Unknown`, and their memory is leaked,
//! because the kernel may still read it.
//!
//! [`ROUND_MAX`]: ring::ROUND_MAX
//! [`LOST_AFTER`]: driver::LOST_AFTER
//! [`Driver`]: driver::Driver

mod driver;
mod entries;
mod queue;
pub(crate) mod ring;
mod wave;

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use rustix::event::EventfdFlags;

use super::counters::Counters;
use super::pool::Pool;
use super::{Config, SharedStatus, Why};
use crate::sys::thread;
use driver::Driver;
pub(crate) use queue::Queue;
use ring::Ring;

/// Makes the ring, on a thread of its own, and starts to serve.
pub(crate) fn start(
    config: Config,
    pool: &Arc<Pool>,
    status: &SharedStatus,
    counters: &Arc<Counters>,
) -> Result<Arc<Queue>, Why> {
    let failed = |call, errno: rustix::io::Errno| Why::PrepareFailed(call, errno.raw_os_error());
    let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)
        .map_err(|errno| failed("eventfd", errno))?;
    let wake = Arc::new(wake);
    let queue = Arc::new(Queue::new(Arc::clone(&wake)));

    let (tell, told) = sync_channel(1);
    let (driver_queue, pool, status) = (Arc::clone(&queue), Arc::clone(pool), Arc::clone(status));
    let counters = Arc::clone(counters);
    let body = move || {
        // The ring belongs to the thread that makes it: its workers share this thread's umask, and
        // if it ended its chains would be cancelled half-way.
        let ring = thread::own_umask()
            .map_err(|error| Why::PrepareFailed("unshare", error.raw_os_error().unwrap_or(0)))
            .and_then(|()| Ring::new(config, wake));
        match ring {
            Ok(ring) => {
                let _ = tell.send(Ok(()));
                Driver::new(ring, driver_queue, pool, status, counters).run();
            }
            Err(why) => {
                let _ = tell.send(Err(why));
            }
        }
    };
    thread::spawn("ringseal-ring", body)
        .map_err(|error| Why::PrepareFailed("clone", error.raw_os_error().unwrap_or(0)))?;
    // An error here is a thread that ended without a word.
    told.recv().unwrap_or(Err(Why::PrepareFailed("the ring's thread", libc::ECHILD)))?;
    Ok(queue)
}
