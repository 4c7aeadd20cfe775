//! The ring itself: made so that it can do what a save needs and nothing else, filled, submitted,
//! reaped. The one place where the kernel is given pointers.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::register::{Probe, Restriction};
use io_uring::{IoUring, opcode, squeue};
use rustix::io::Errno;

use crate::engine::{Config, Why};

/// Entries of a save that can be pending at once.
pub(crate) const ROUND_MAX: usize = 8;

/// The operations that a save uses; the ring refuses every other.
pub(crate) const OPERATIONS: [(&str, u8); 7] = [
    ("openat", opcode::OpenAt::CODE),
    ("write", opcode::Write::CODE),
    ("fsync", opcode::Fsync::CODE),
    ("linkat", opcode::LinkAt::CODE),
    ("renameat", opcode::RenameAt::CODE),
    ("unlinkat", opcode::UnlinkAt::CODE),
    ("close", opcode::Close::CODE),
];

/// What the ring may be told of itself once it is enabled (linux/io_uring.h).
const REGISTER_IOWQ_MAX_WORKERS: u8 = 19;

/// A completion: the entry's user data, and its result.
pub(super) type Completion = (u64, i32);

/// An enabled, restricted ring, and the eventfd that it signals.
pub(crate) struct Ring {
    ring: IoUring,
    slots: usize,
    /// Workers that the kernel may make for it.
    workers: usize,
    signal: Arc<OwnedFd>,
}

impl Ring {
    /// Makes the ring for the calling thread.
    pub(crate) fn new(config: Config, signal: Arc<OwnedFd>) -> Result<Ring, Why> {
        let slots = slots(config.requests);
        let ring = setup(slots)?;
        let parameters = ring.params();
        // An entry may name a direct descriptor that an entry linked before it opens.
        if !parameters.is_feature_linked_file() {
            return Err(Why::NoFeature("IORING_FEAT_LINKED_FILE (Linux 5.17)"));
        }
        if !parameters.is_feature_nodrop() || !parameters.is_feature_submit_stable() {
            return Err(Why::NoFeature("IORING_FEAT_NODROP and SUBMIT_STABLE (Linux 5.5)"));
        }
        let submitter = ring.submitter();
        let mut probe = Probe::new();
        prepare("IORING_REGISTER_PROBE", submitter.register_probe(&mut probe))?;
        if let Some((name, _)) = OPERATIONS.iter().find(|(_, code)| !probe.is_supported(*code)) {
            return Err(Why::NoOperation(name));
        }
        let descriptors = submitter.register_files_sparse(slots as u32);
        prepare("IORING_REGISTER_FILES2", descriptors)?;
        prepare("IORING_REGISTER_EVENTFD", submitter.register_eventfd(signal.as_raw_fd()))?;
        // By default four workers for each processor: too few to share flushes.
        let workers = submitter.register_iowq_max_workers(&mut [config.threads as u32, 0]);
        prepare("IORING_REGISTER_IOWQ_MAX_WORKERS", workers)?;
        let operations = OPERATIONS.iter().map(|(_, code)| Restriction::sqe_op(*code));
        let mut allowed: Vec<Restriction> = operations.collect();
        let flags = squeue::Flags::IO_LINK | squeue::Flags::FIXED_FILE;
        allowed.push(Restriction::sqe_flags_allowed(flags.bits()));
        allowed.push(Restriction::register_op(REGISTER_IOWQ_MAX_WORKERS));
        let restricted = submitter.register_restrictions(&mut allowed);
        prepare("IORING_REGISTER_RESTRICTIONS", restricted)?;
        prepare("IORING_REGISTER_ENABLE_RINGS", submitter.register_enable_rings())?;
        Ok(Ring { ring, slots, workers: config.threads, signal })
    }

    /// Saves that can be on the ring at once.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// Lets the kernel have so many workers from now on.
    pub(super) fn set_workers(&mut self, workers: usize) {
        if self.workers != workers {
            self.workers = workers;
            // It only widens or narrows; what is under way goes on either way.
            let _ = self.ring.submitter().register_iowq_max_workers(&mut [workers as u32, 0]);
        }
    }

    /// Queues entries; they go to the kernel with the next [`submit`](Ring::submit).
    ///
    /// # Safety
    /// Whatever the entries point to, and every descriptor that they name, must stay as it is
    /// until each of them has completed.
    pub(super) unsafe fn push(&mut self, entries: &[squeue::Entry]) {
        // SAFETY: the caller keeps what the entries point to until they have completed.
        let pushed = unsafe { self.ring.submission().push_multiple(entries) };
        debug_assert!(pushed.is_ok(), "a ring has room for a round of every slot");
    }

    /// Hands the kernel everything that is queued; says how many entries it took.
    pub(super) fn submit(&self) -> Result<usize, Errno> {
        self.ring.submit().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// Takes the completions that have come.
    pub(super) fn reap(&mut self, into: &mut Vec<Completion>) {
        let completions = self.ring.completion();
        into.extend(completions.map(|entry| (entry.user_data(), entry.result())));
    }

    /// Waits until a completion or a caller signals.
    pub(super) fn wait(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.signal, &mut count);
    }

    /// As [`wait`](Ring::wait), for at most this long; false if nothing came.
    pub(super) fn wait_for(&self, milliseconds: u32) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let limit = Timespec {
            tv_sec: i64::from(milliseconds / 1000),
            tv_nsec: i64::from(milliseconds % 1000) * 1_000_000,
        };
        let mut signal = [PollFd::from_borrowed_fd(self.signal.as_fd(), PollFlags::IN)];
        if !matches!(poll(&mut signal, Some(&limit)), Ok(1..)) {
            return false;
        }
        self.wait();
        true
    }
}

/// A slot for each save, as far as the soft `RLIMIT_NOFILE` allows: a table of direct descriptors
/// may not be larger (io_uring_register(2)). Saves beyond it wait for a slot.
fn slots(requests: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    requests.min(limit).max(1)
}

/// io_uring_setup, disabled until it is restricted.
fn setup(slots: usize) -> Result<IoUring, Why> {
    let entries = (slots * ROUND_MAX).next_power_of_two() as u32;
    let mut builder = IoUring::builder();
    // SUBMIT_ALL: an entry that is refused must not hold back the chains behind it.
    builder.dontfork().setup_r_disabled().setup_submit_all();
    let mut wanted = builder.clone();
    // Since 5.19 and 6.0: no interrupts for completions, one submitter.
    wanted.setup_coop_taskrun().setup_single_issuer();
    let made = wanted.build(entries).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => builder.build(entries),
        _ => Err(error),
    });
    made.map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => Why::NoFeature("IORING_SETUP_SUBMIT_ALL (Linux 5.18)"),
        errno => Why::SetupFailed(errno.unwrap_or(0)),
    })
}

fn prepare<T>(call: &'static str, result: std::io::Result<T>) -> Result<T, Why> {
    result.map_err(|error| Why::PrepareFailed(call, error.raw_os_error().unwrap_or(0)))
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("fd", &self.ring.as_raw_fd()).finish_non_exhaustive()
    }
}
