//! The log's bytes, written once more from `docs/log-format.md`: a log whose checksums are right can say anything.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};

pub(super) const BLOCK: usize = 4096;

/// Which log; both its segments have it.
pub(super) const ID: [u8; 16] = *b"an id of a log.!";

/// A group as it is to stand there, right or wrong.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub mark: u16,
    pub epoch: u64,
    pub seq: u64,
    pub follows: u64,
    pub durable: u64,
    pub spread: u64,
    pub segment: u16,
    pub block: u32,
    /// The checksum of the header before it.
    pub previous: u32,
    pub records: Vec<Record>,
}

#[derive(Debug, Clone)]
pub(super) struct Record {
    pub kind: u8,
    pub mode: u32,
    pub path: String,
    pub data: Vec<u8>,
    /// Inode and time of birth of its directory.
    pub directory: (u64, u64),
}

/// What a record knows a directory by.
pub(super) fn directory(path: &Path) -> anyhow::Result<(u64, u64)> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let stat = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
    let born = stat.stx_btime;
    let is_told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    let born = born.tv_sec as u64 * 1_000_000_000 + u64::from(born.tv_nsec);
    Ok((stat.stx_ino, if is_told { born } else { 0 }))
}

/// A segment with its header, and no group.
pub(super) fn empty(index: u32, bytes: usize) -> Vec<u8> {
    let mut segment = vec![0; bytes];
    segment[0..8].copy_from_slice(b"RSEAL\r\n\x1a");
    put(&mut segment, 8, &1u16.to_le_bytes());
    put(&mut segment, 10, &64u16.to_le_bytes());
    put(&mut segment, 20, &index.to_le_bytes());
    put(&mut segment, 24, &(bytes as u64).to_le_bytes());
    put(&mut segment, 32, &(BLOCK as u32).to_le_bytes());
    put(&mut segment, 40, &ID);
    let crc = crc32c(&segment[..60]);
    put(&mut segment, 60, &crc.to_le_bytes());
    segment
}

impl Group {
    /// Its blocks, and its header's checksum.
    pub(super) fn encode(&self) -> (Vec<u8>, u32) {
        let mut bytes = vec![0; 96];
        self.records.iter().for_each(|record| record.encode(&mut bytes));
        let body_len = bytes.len() - 96;
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let blocks = bytes.len() / BLOCK;
        let body_crc = crc32c(&bytes[96..]);
        put(&mut bytes, 0, b"RSG1");
        put(&mut bytes, 4, &self.mark.to_le_bytes());
        put(&mut bytes, 6, &self.segment.to_le_bytes());
        put(&mut bytes, 8, &ID[..8]);
        put(&mut bytes, 16, &self.epoch.to_le_bytes());
        put(&mut bytes, 24, &self.seq.to_le_bytes());
        put(&mut bytes, 32, &self.durable.to_le_bytes());
        put(&mut bytes, 40, &self.spread.to_le_bytes());
        put(&mut bytes, 48, &(self.records.len() as u32).to_le_bytes());
        put(&mut bytes, 52, &self.block.to_le_bytes());
        put(&mut bytes, 56, &(blocks as u32).to_le_bytes());
        put(&mut bytes, 60, &(body_len as u32).to_le_bytes());
        put(&mut bytes, 64, &self.previous.to_le_bytes());
        put(&mut bytes, 68, &body_crc.to_le_bytes());
        put(&mut bytes, 72, &self.follows.to_le_bytes());
        let crc = crc32c(&bytes[..92]);
        put(&mut bytes, 92, &crc.to_le_bytes());
        (bytes, crc)
    }
}

impl Record {
    fn encode(&self, into: &mut Vec<u8>) {
        let mut header = [0; 48];
        header[0] = self.kind;
        put(&mut header, 2, &(self.path.len() as u16).to_le_bytes());
        put(&mut header, 4, &self.mode.to_le_bytes());
        put(&mut header, 8, &(self.data.len() as u64).to_le_bytes());
        put(&mut header, 16, &self.directory.0.to_le_bytes());
        put(&mut header, 24, &self.directory.1.to_le_bytes());
        // The hash of its handle: not told.
        let crc = crc32c(&[&header[..40], self.path.as_bytes(), &self.data].concat());
        put(&mut header, 40, &crc.to_le_bytes());
        into.extend_from_slice(&header);
        for part in [self.path.as_bytes(), &self.data] {
            into.extend_from_slice(part);
            let len = into.len() + part.len().next_multiple_of(8) - part.len();
            into.resize(len, 0);
        }
    }
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    into[at..at + bytes.len()].copy_from_slice(bytes);
}

/// CRC-32C (RFC 3720, B.4), a byte at a time.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes
        .iter()
        .fold(!0, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut crc, mut bit) = (index as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}
