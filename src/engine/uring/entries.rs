//! From the plan's operations to submission entries.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{DestinationSlot, Fd, Fixed};
use io_uring::{opcode, types};
use rustix::fs::OFlags;

use crate::engine::task::Task;
use crate::liveness;
use crate::plan::chain::Op;

/// One entry of a cleaning round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cleaning {
    /// Empty the slot.
    Close,
    /// Remove the temporary file.
    RemoveTemp,
    /// Remove the hard link that was to become the previous version.
    RemoveLink,
}

/// `RWF_DSYNC` (preadv2(2), Linux 4.7): the write is done when its bytes are on stable storage.
const RWF_DSYNC: i32 = libc::RWF_DSYNC;

/// The entries of a chain, each linked to the next.
pub(super) fn chain(ops: &[Op], slot: u32, task: &Task) -> Vec<Entry> {
    let last = ops.len() - 1;
    let entry = |(index, op): (usize, &Op)| {
        let entry = operation(*op, slot, task).user_data(user_data(slot, index));
        if index == last { entry } else { entry.flags(Flags::IO_LINK) }
    };
    ops.iter().enumerate().map(entry).collect()
}

/// The entries of a cleaning round, which depend on nothing.
pub(super) fn cleaning(ops: &[Cleaning], slot: u32, task: &Task) -> Vec<Entry> {
    let dir = Fd(task.job.place.dir.as_raw_fd());
    let entry = |(index, op): (usize, &Cleaning)| {
        let entry = match op {
            Cleaning::Close => opcode::Close::new(Fixed(slot)).build(),
            Cleaning::RemoveTemp => opcode::UnlinkAt::new(dir, task.job.temp.as_ptr()).build(),
            Cleaning::RemoveLink => opcode::UnlinkAt::new(dir, task.job.link.as_ptr()).build(),
        };
        entry.user_data(user_data(slot, index))
    };
    ops.iter().enumerate().map(entry).collect()
}

fn user_data(slot: u32, index: usize) -> u64 {
    u64::from(slot) << 8 | index as u64
}

/// Slot and index of a completion.
pub(super) fn of_user_data(user_data: u64) -> (usize, usize) {
    ((user_data >> 8) as usize, (user_data & 0xff) as usize)
}

fn operation(op: Op, slot: u32, task: &Task) -> Entry {
    let job = &task.job;
    let dir = job.place.dir.as_raw_fd();
    let name = job.place.name.as_c_str();
    match op {
        Op::Open => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
            open(dir, &job.temp, flags, job.settled.mode.bits(), slot)
        }
        Op::Verify => open(dir, c".", liveness::FLAGS, 0o600, slot),
        Op::Write { offset, len, sync } => {
            let bytes = task.payload[offset..offset + len].as_ptr();
            opcode::Write::new(Fixed(slot), bytes, len as u32)
                .offset(offset as u64)
                .rw_flags(if sync { RWF_DSYNC } else { 0 })
                .build()
        }
        Op::Sync => opcode::Fsync::new(Fixed(slot)).build(),
        Op::SyncDirectory => opcode::Fsync::new(types::Fd(dir)).build(),
        Op::LinkPrevious => {
            opcode::LinkAt::new(Fd(dir), name.as_ptr(), Fd(dir), job.link.as_ptr()).build()
        }
        Op::RenamePrevious => {
            let previous = job.settled.previous.as_deref().unwrap_or(c"");
            rename(dir, &job.link, previous, 0)
        }
        Op::Rename => rename(dir, &job.temp, name, job.rename_flags().bits()),
        Op::Close => opcode::Close::new(Fixed(slot)).build(),
    }
}

/// Opens into the slot. A direct descriptor takes no `O_CLOEXEC`; what was in the slot is dropped.
fn open(dir: RawFd, name: &CStr, flags: OFlags, mode: u32, slot: u32) -> Entry {
    opcode::OpenAt::new(Fd(dir), name.as_ptr())
        .flags(flags.bits() as i32)
        .mode(mode)
        .file_index(DestinationSlot::try_from_slot_target(slot).ok())
        .build()
}

fn rename(dir: RawFd, from: &CStr, to: &CStr, flags: u32) -> Entry {
    opcode::RenameAt::new(Fd(dir), from.as_ptr(), Fd(dir), to.as_ptr()).flags(flags).build()
}
