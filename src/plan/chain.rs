//! Which steps may be linked in one submission.
//!
//! The manual says that an error anywhere breaks a chain of linked requests. In the kernel (6.0
//! up to at least 6.18) only some operations break it: a failed **open, read, write or close**
//! does, a short write too; a failed **fsync, rename, link or unlink posts its error, and the next
//! linked request runs all the same.** So the obvious chain, write → fsync → rename, replaces the
//! old file by one whose data never reached the disk.
//!
//! One rule covers it, and is right whether or not the kernel is ever changed:
//!
//! > A step may be linked behind another only if that one's failure breaks the chain, or if the
//! > step does no harm when it runs after that failure.
//!
//! A write with `RWF_DSYNC` is write and sync in one operation, and its failure breaks the chain:
//! a rename may follow it. A rename that follows a plain fsync must wait until user space has seen
//! the fsync's answer: it begins a new chain.

use rustix::io::Errno;

use super::{Liveness, Progress, Step};
use crate::left_out::{Rule, left_out};

/// One submission entry of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// Create the temp in the save's slot.
    Open,
    /// Write `len` bytes at `offset`; with `sync`, through to stable storage.
    Write { offset: usize, len: usize, sync: bool },
    /// fsync of the temp.
    Sync,
    /// linkat(target, link)
    LinkPrevious,
    /// renameat(link, previous)
    RenamePrevious,
    /// fsync of the directory.
    SyncDirectory,
    /// renameat2(temp, target)
    Rename,
    /// openat(".", O_TMPFILE) into the save's slot.
    Verify,
    /// Empty the slot.
    Close,
}

impl Op {
    /// Does its failure keep the entries linked behind it from running, on every kernel?
    const fn breaks_chain(self) -> bool {
        matches!(self, Op::Open | Op::Write { .. } | Op::Verify | Op::Close)
    }

    /// May it run although the entry before it failed?
    ///
    /// A directory sync, a liveness probe and a close change nothing that a reader can see.
    const fn is_harmless(self) -> bool {
        matches!(self, Op::SyncDirectory | Op::Verify | Op::Close)
    }

    /// Does it wait for the disk to have a file or a directory?
    const fn syncs(self) -> bool {
        matches!(self, Op::Write { sync: true, .. } | Op::Sync | Op::SyncDirectory)
    }
}

/// Bytes that one write entry carries: below the 2,147,479,552 at which a single write stops
/// (write(2)), and a multiple of every block size.
pub(crate) const WRITE_MAX: usize = 1 << 30;

/// The next chain: the longest run of steps from here on that may be submitted together, up to the
/// first that is not to be run `here`. `slot_is_full`: an earlier chain has left the temp open.
pub(crate) fn next_chain(
    progress: &Progress,
    payload_len: usize,
    slot_is_full: bool,
    here: impl Fn(Step) -> bool,
) -> Vec<Op> {
    let mut chain: Vec<Op> = Vec::new();
    let mut all = Vec::with_capacity(12);
    let mut steps = progress.remaining().take_while(|step| here(*step)).peekable();
    while let Some(step) = steps.next() {
        match step {
            Step::Open => all.push(Op::Open),
            Step::Write => {
                let durable = steps.peek() == Some(&Step::Sync);
                // A write of no bytes with RWF_DSYNC syncs nothing: an empty file needs its fsync.
                // So does a filesystem that does not honour the flag.
                let sync = durable && payload_len > 0 && progress.write_syncs();
                if sync {
                    steps.next();
                }
                all.extend(writes(payload_len, sync));
            }
            Step::Sync => all.push(Op::Sync),
            Step::LinkPrevious => all.push(Op::LinkPrevious),
            Step::RenamePrevious => all.push(Op::RenamePrevious),
            Step::SyncPrevious | Step::SyncDirectory => all.push(Op::SyncDirectory),
            Step::Rename => all.push(Op::Rename),
            Step::Verify => all.push(Op::Verify),
            // Needs calls that the ring lacks; such a save never comes here.
            Step::SetAttributes => break,
            Step::Accept | Step::MakeDirectory | Step::OpenDirectory | Step::Check | Step::Log => {}
        }
    }
    if slot_is_full || all.iter().any(|op| matches!(op, Op::Open | Op::Verify)) {
        all.push(Op::Close);
    }
    for op in all {
        if chain.last().is_some_and(|last| !last.breaks_chain() && !op.is_harmless()) {
            break;
        }
        chain.push(op);
    }
    chain
}

/// The write entries of a payload: one at least, so that every step has an entry.
fn writes(payload_len: usize, sync: bool) -> impl Iterator<Item = Op> {
    let last = payload_len.saturating_sub(1) / WRITE_MAX;
    (0..=last).map(move |index| {
        let offset = index * WRITE_MAX;
        Op::Write { offset, len: WRITE_MAX.min(payload_len - offset), sync }
    })
}

/// How many syncs a chain has made, by its results.
pub(crate) fn syncs_of(chain: &[Op], results: &[i32]) -> u64 {
    let made = chain.iter().zip(results).filter(|(_, result)| **result != -libc::ECANCELED);
    made.filter(|(op, _)| op.syncs()).count() as u64
}

/// How a whole chain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainEnd {
    /// Every answer is in the progress.
    Recorded,
    /// The kernel could not carry out the chain's head (no worker, no memory): nothing else of it ran.
    NotStarted,
    /// Fewer bytes were written than were given, which breaks the chain and hides the cause.
    ShortWrite,
    /// All went well up to the liveness probe, which this directory cannot answer.
    Unprovable,
}

/// Takes the answers of a chain, one result for each entry, into the progress.
///
/// Entries behind a failure may have run or not, depending on the kernel; their answers are not
/// looked at, because the plan has ended.
pub(crate) fn record_chain(
    progress: &mut Progress,
    payload_len: usize,
    chain: &[Op],
    results: &[i32],
) -> ChainEnd {
    for (index, (op, result)) in chain.iter().zip(results).enumerate() {
        let answer = answer(*result);
        if index == 0 && is_not_started(*op, answer) {
            if answer != Err(Errno::CANCELED) {
                progress.may_have_opened();
            }
            return ChainEnd::NotStarted;
        }
        if *op == Op::Close {
            continue;
        }
        let Some(step) = progress.next() else { break };
        match *op {
            Op::Write { len, .. } if answer.is_ok() && *result as usize != len => {
                return ChainEnd::ShortWrite;
            }
            Op::Write { offset, len, .. } if answer.is_ok() && offset + len < payload_len => {}
            Op::Write { sync: true, .. } if answer.is_ok() => {
                progress.record(Step::Write, Ok(()));
                progress.record(Step::Sync, Ok(()));
            }
            // Its bytes are written, and a sync is asked of them once more.
            Op::Write { offset, len, sync: true }
                if left_out(Rule::RetryFsync)
                    && answer == Err(Errno::IO)
                    && offset + len == payload_len =>
            {
                progress.record(Step::Write, Ok(()));
                progress.record(Step::Sync, answer);
                return ChainEnd::Recorded;
            }
            Op::Verify if Liveness::of(answer) == Liveness::Unprovable => {
                return ChainEnd::Unprovable;
            }
            _ => progress.record(step, answer),
        }
    }
    ChainEnd::Recorded
}

fn answer(result: i32) -> Result<(), Errno> {
    if result < 0 { Err(Errno::from_raw_os_error(-result)) } else { Ok(()) }
}

/// No worker could be made for the chain (a pids limit, no memory): it answers ECANCELED at its
/// head, where nothing before it can have cancelled it. A new file's making can also lack memory; a sync
/// or a rename that says so has been tried, and is not tried again.
fn is_not_started(op: Op, head: Result<(), Errno>) -> bool {
    match head {
        Err(Errno::CANCELED) => true,
        Err(Errno::AGAIN | Errno::NOMEM) => op == Op::Open,
        _ => false,
    }
}
