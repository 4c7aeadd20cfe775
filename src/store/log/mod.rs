//! The log: two files of blocks that were written before they are used, so that an append is one write
//! and one flush, and no commit of the filesystem's journal.
//!
//! ```text
//!   open ──▶ scan ──▶ (the store puts into the files what they lack) ──▶ begin a new epoch
//!   append ──▶ one write, through to the disk ──▶ what was appended is durable
//!   segment full ──▶ go on in the other one, if the files have what that one holds
//! ```
//!
//! The state here is the writer's. After a write that failed nothing is appended behind it, for it may
//! be on the disk all the same, and a replay may find it: the log goes on in the other segment, in a
//! group that says where the one before it ends; what lies between is void. Only when that group is
//! durable may anybody be told that nothing has changed.

pub(crate) mod files;
pub(crate) mod format;
pub(crate) mod scan;

#[cfg(test)]
mod tests;

use std::borrow::Borrow;

use rustix::io::Errno;

use format::{BLOCK, GroupHeader, Mark, Record, blocks_for, encode_group};
use scan::Scan;

use crate::left_out::{Rule, left_out};

/// Blocks at the end of a segment that only a mark may take, so that a full log can always say that it
/// is spread.
const RESERVED: u32 = 1;

/// Numbers and epochs that are passed over when a log is opened: a write that failed may have used some
/// that nothing on the disk shows yet.
const UNSEEN: u64 = 1 << 10;

/// Memory that is kept for the next group, at most: memory of the system's, new for every group, costs more than
/// what is written to it.
const KEPT: usize = 4 << 20;

/// What a log is written to.
pub(crate) trait Medium {
    /// Writes whole blocks of a segment, through to the disk. After an error any part of them may be
    /// there, now or later.
    fn write(&mut self, segment: usize, block: u32, bytes: &[u8]) -> Result<(), Errno>;
}

/// A log, open for writing.
#[derive(Debug)]
pub(crate) struct Log<M> {
    medium: M,
    /// The first half of its id.
    id: u64,
    /// Blocks of a segment.
    blocks: u32,
    /// A group's, while it is written.
    bytes: Vec<u8>,
    /// Where the next group goes.
    segment: usize,
    block: u32,
    epoch: u64,
    /// The highest number that was ever used.
    seq: u64,
    /// The last group that counts, and its header's checksum.
    last: u64,
    last_crc: u32,
    /// Up to here the files have everything, durably.
    spread: u64,
    /// Up to here the disk says so.
    noted: u64,
    /// The last group that counted when the other segment was left: what that one holds is needed until the
    /// disk says that it is spread.
    other_last: u64,
    /// A write failed, and what it has left on the disk could not be cut off.
    failed: Option<Errno>,
    usage: Usage,
}

/// What was written, and how full the log is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Groups of changes, and the changes in them.
    pub groups: u64,
    pub changes: u64,
    /// Bytes that were written, marks included.
    pub written: u64,
    /// Bytes of the segment that are in use.
    pub used: u64,
}

/// Why something was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppendError {
    /// A write failed, and no replay will find what it may have left.
    NotWritten(Errno),
    /// The write failed, and a replay may find it.
    Unknown(Errno),
    /// An earlier write failed so. Nothing of this one was written, nor will be.
    Refused(Errno),
    /// There is no room for the records, or one of them is none that a reader would take.
    Unfit,
}

impl<M: Medium> Log<M> {
    /// Begins a new epoch in a log that was read, and whose groups are all in the files, durably.
    pub(crate) fn begin(medium: M, scan: &Scan) -> Result<Log<M>, Errno> {
        let mut log = Log {
            medium,
            bytes: Vec::new(),
            id: u64::from_le_bytes(scan.log_id[..8].try_into().unwrap_or_default()),
            blocks: (scan.bytes / BLOCK as u64) as u32,
            segment: scan.newest.map_or(1, |place| usize::from(place.segment)),
            block: 0,
            epoch: scan.epoch + UNSEEN,
            seq: scan.seq + UNSEEN,
            last: scan.seq,
            last_crc: 0,
            spread: scan.seq,
            noted: 0,
            other_last: 0,
            failed: None,
            usage: Usage::default(),
        };
        let other = 1 - log.segment;
        let in_other = |group: &&scan::Group| usize::from(group.header.segment) == other;
        let live = scan.live.iter().filter(in_other);
        log.other_last = live.map(|group| group.header.seq).max().unwrap_or(0);
        log.open_other()?;
        Ok(log)
    }

    /// Goes on in the other segment, which is overwritten. If groups in it are still a part of what a reader
    /// goes through, it must be on the disk before that all of them are in the files: a write that is torn
    /// would else take away a link of the chain.
    fn open_other(&mut self) -> Result<(), Errno> {
        if self.other_is_needed() && !left_out(Rule::MarkBeforeOverwriting) {
            self.block = self.blocks - RESERVED;
            self.epoch += 1;
            self.write::<Record>(Mark::Spread, &[])?;
        }
        self.turn_over();
        self.write::<Record>(Mark::Open, &[])
    }

    /// Does a reader still go through what the other segment holds?
    fn other_is_needed(&self) -> bool {
        self.other_last > self.noted
    }

    /// What was written since the store was opened, and how full the segment is.
    pub(crate) fn usage(&self) -> Usage {
        Usage { used: u64::from(self.block) * BLOCK as u64, ..self.usage }
    }

    /// Goes on counting what another log has counted, in whose place it is.
    pub(crate) fn counts_on(mut self, before: Usage) -> Log<M> {
        self.usage.groups += before.groups;
        self.usage.changes += before.changes;
        self.usage.written += before.written;
        self
    }

    /// Which segment it goes on in.
    pub(crate) fn segment(&self) -> usize {
        self.segment
    }

    /// The number of the last group.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The files have everything up to this group, durably.
    pub(crate) fn spread_to(&mut self, seq: u64) {
        self.spread = self.spread.max(seq);
    }

    /// Have the files everything, durably?
    pub(crate) fn is_spread(&self) -> bool {
        self.spread >= self.last
    }

    /// Does the disk say how far they have it?
    pub(crate) fn is_noted(&self) -> bool {
        self.noted >= self.spread
    }

    /// Have they what the other segment holds, so that it can be overwritten?
    pub(crate) fn other_is_spread(&self) -> bool {
        self.spread >= self.other_last
    }

    /// Blocks that one group may have.
    pub(crate) fn group_max(&self) -> usize {
        // Every epoch begins with a mark.
        (self.blocks - RESERVED - 2) as usize
    }

    /// Is there room for a group of so many blocks in this segment?
    pub(crate) fn has_room(&self, blocks: usize) -> bool {
        blocks <= (self.blocks - RESERVED).saturating_sub(self.block) as usize
    }

    /// Appends records, durably, all of them or none. There must be room.
    pub(crate) fn append<R: Borrow<Record>>(&mut self, records: &[R]) -> Result<u64, AppendError> {
        if let Some(errno) = self.failed {
            return Err(AppendError::Refused(errno));
        }
        let is_valid = |record: &R| record.borrow().is_valid();
        if !self.has_room(blocks_for(records.iter().map(R::borrow)))
            || !records.iter().all(is_valid)
        {
            return Err(AppendError::Unfit);
        }
        match self.write(Mark::Records, records) {
            Ok(()) => Ok(self.last),
            Err(errno) => Err(self.cut_off(errno)),
        }
    }

    /// After a write that failed: goes on in the other segment, in a group that says what it follows, so
    /// that whatever the write has left is void.
    fn cut_off(&mut self, errno: Errno) -> AppendError {
        if left_out(Rule::CutOff) {
            return AppendError::NotWritten(errno);
        }
        self.failed = Some(errno).filter(|_| !left_out(Rule::RefusalAfterUnknown));
        if self.other_is_needed() {
            return AppendError::Unknown(errno);
        }
        self.turn_over();
        match self.write::<Record>(Mark::Open, &[]) {
            Ok(()) => {
                self.failed = None;
                AppendError::NotWritten(errno)
            }
            Err(_) => AppendError::Unknown(errno),
        }
    }

    /// Goes on in the other segment, whose groups the files must have.
    pub(crate) fn turn(&mut self) -> Result<(), Errno> {
        if let Some(errno) = self.failed {
            return Err(errno);
        }
        let opened = self.open_other();
        self.failed = opened.err();
        opened
    }

    /// Says on the disk how far the files have everything, if there is room for it.
    pub(crate) fn note_spread(&mut self) -> Result<(), Errno> {
        if let Some(errno) = self.failed {
            return Err(errno);
        }
        if self.noted >= self.spread {
            return Ok(());
        }
        let everything = self.is_spread();
        // The last block is for the mark behind which nothing counts.
        let room = if everything { self.blocks } else { self.blocks - RESERVED };
        if self.block >= room {
            return if everything { self.turn() } else { Ok(()) };
        }
        match self.write::<Record>(Mark::Spread, &[]) {
            Ok(()) => {
                if everything {
                    (self.spread, self.noted) = (self.last, self.last);
                }
                Ok(())
            }
            Err(errno) => match self.cut_off(errno) {
                AppendError::NotWritten(_) => Ok(()),
                _ => Err(errno),
            },
        }
    }

    fn turn_over(&mut self) {
        self.segment = 1 - self.segment;
        self.block = 1;
        self.epoch += 1;
        self.other_last = self.last;
    }

    /// Writes a group where the next one goes, through to the disk.
    fn write<R: Borrow<Record>>(&mut self, mark: Mark, records: &[R]) -> Result<(), Errno> {
        // Used from now on, whatever becomes of the write.
        self.seq += 1;
        if left_out(Rule::OwnBlock) && mark == Mark::Records && self.block > 2 {
            self.block -= 1;
        }
        let header = GroupHeader {
            mark,
            records: 0,
            log: self.id,
            epoch: self.epoch,
            seq: self.seq,
            follows: self.last,
            durable_seq: self.last,
            spread_seq: self.spread,
            segment: self.segment as u16,
            block: self.block,
            blocks: 0,
            body_len: 0,
            previous: self.last_crc,
            body_crc: 0,
        };
        let crc = encode_group(header, records, &mut self.bytes);
        self.medium.write(self.segment, self.block, &self.bytes)?;
        let len = self.bytes.len();
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
        self.block += (len / BLOCK) as u32;
        self.usage.written += len as u64;
        self.usage.groups += u64::from(mark == Mark::Records);
        self.usage.changes += records.len() as u64;
        (self.last, self.last_crc) = (self.seq, crc);
        self.noted = self.spread;
        Ok(())
    }
}
