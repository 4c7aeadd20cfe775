//! The disk under the log: of a write that was under way, or that failed, any part may be there after a
//! power cut.

use fastrand::Rng;
use rustix::io::Errno;

use super::fate::Fate;
use crate::store::log::Medium;
use crate::store::log::format::{BLOCK, SegmentHeader};

/// What reaches the disk whole: less than any disk's sector, to be strict.
const SECTOR: usize = 64;

/// A block, and what it may turn into at the next power cut.
#[derive(Debug, Clone)]
struct Block {
    bytes: Vec<u8>,
    perhaps: Vec<Vec<u8>>,
}

/// The disk under the log.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    segments: [Vec<Block>; 2],
    rng: Rng,
    /// The power goes at the write that makes this 0.
    pub(super) until_crash: Option<u32>,
    pub(super) crashed: bool,
    /// One write in so many fails.
    pub(super) fails: u32,
}

impl Disk {
    pub(super) fn new(blocks: usize, rng: Rng) -> Disk {
        let segment = |index| {
            let header = SegmentHeader { log_id: [7; 16], index, bytes: (blocks * BLOCK) as u64 };
            let mut segment = vec![Block { bytes: vec![0; BLOCK], perhaps: Vec::new() }; blocks];
            segment[0].bytes = header.encode();
            segment
        };
        Disk {
            segments: [segment(0), segment(1)],
            rng,
            until_crash: None,
            crashed: false,
            fails: 0,
        }
    }

    /// What the disk holds after a power cut.
    pub(super) fn cut_power(&mut self, fate: &mut Fate) {
        for block in self.segments.iter_mut().flatten() {
            for perhaps in std::mem::take(&mut block.perhaps) {
                match fate.pick(4) {
                    0 => {}
                    1 => block.bytes = perhaps,
                    torn => {
                        for at in (0..BLOCK).step_by(SECTOR) {
                            let is_there = match fate {
                                Fate::Chance(rng) => rng.bool(),
                                // The first half, or the second.
                                Fate::InTurn { .. } => (at < BLOCK / 2) == (torn == 2),
                            };
                            if is_there {
                                let sector = at..at + SECTOR;
                                block.bytes[sector.clone()].copy_from_slice(&perhaps[sector]);
                            }
                        }
                    }
                }
            }
        }
    }

    /// What is read from now on is what a power cut leaves.
    pub(super) fn flush(&mut self) {
        self.segments.iter_mut().flatten().for_each(|block| block.perhaps.clear());
    }

    pub(super) fn bytes(&self, segment: usize) -> Vec<u8> {
        let blocks: Vec<&[u8]> =
            self.segments[segment].iter().map(|block| block.bytes.as_slice()).collect();
        blocks.concat()
    }
}

impl Medium for &mut Disk {
    fn write(&mut self, segment: usize, block: u32, bytes: &[u8]) -> Result<(), Errno> {
        if self.crashed {
            return Err(Errno::IO);
        }
        let blocks = self.segments[segment].len();
        let first = block as usize;
        assert!(first > 0 && first + bytes.len() / BLOCK <= blocks, "outside of the segment");
        if let Some(left) = &mut self.until_crash {
            *left = left.saturating_sub(1);
            self.crashed = *left == 0;
        }
        let failed = self.fails > 0 && self.rng.u32(0..self.fails) == 0;
        for (index, bytes) in bytes.chunks_exact(BLOCK).enumerate() {
            let block = &mut self.segments[segment][first + index];
            if self.crashed || failed {
                // What is read meanwhile may be either.
                let shown = failed && self.rng.bool();
                let other = if shown { block.bytes.clone() } else { bytes.to_vec() };
                if shown {
                    block.bytes = bytes.to_vec();
                }
                block.perhaps.push(other);
            } else {
                // Through to the disk; what failed there before is gone.
                *block = Block { bytes: bytes.to_vec(), perhaps: Vec::new() };
            }
        }
        if self.crashed || failed { Err(Errno::IO) } else { Ok(()) }
    }
}
