//! The bytes of the log: what stands where, and how a reader knows that it is whole. Pure code.
//!
//! The log is two files of equal size, its *segments*, in blocks of [`BLOCK`] bytes. The first block
//! of each says whose it is and never changes; the others hold *groups*. A group is what one write
//! carries: a header, then records, padded to whole blocks, so that a block that holds something
//! acknowledged is never written again.
//!
//! ```text
//! segment   ┌─ block 0 ──────┬─ group ─────────────────────────┬─ group ────┬─ older groups, zeros ─┐
//!           │ segment header │ header │ record │ record │ zeros │ header ... │                       │
//!           └────────────────┴─────────────────────────────────┴────────────┴───────────────────────┘
//! ```
//!
//! All numbers are little-endian. Reserved bytes are zero, and that is checked. A group's header is
//! its commit mark: it covers the body by a checksum, and sectors reach the disk in any order, so
//! that a mark behind the body would prove nothing more. `docs/log-format.md` has the tables.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::left_out::{Rule, left_out};

/// Groups begin at multiples of this, and take whole multiples.
pub(crate) const BLOCK: usize = 4096;

/// The smallest segment: its header, an opening mark, a group, and a closing mark.
pub(crate) const BLOCKS_MIN: usize = 4;
const BYTES_MIN: u64 = (BLOCKS_MIN * BLOCK) as u64;

/// The largest segment: all of it is read into memory.
pub(crate) const BYTES_MAX: u64 = 1 << 30;

/// `\r\n` and `\x1a` show what a transfer as text has done to the file.
const SEGMENT_MAGIC: [u8; 8] = *b"RSEAL\r\n\x1a";
const GROUP_MAGIC: [u8; 4] = *b"RSG1";

/// The version that this code writes, and the only one that it reads.
pub(crate) const VERSION: u16 = 1;

/// Bytes of a segment's header, a group's header, and a record's fixed part.
const SEGMENT_HEADER: usize = 64;
pub(crate) const GROUP_HEADER: usize = 96;
const RECORD_HEADER: usize = 48;

/// The longest path of a record: an id, a slash, a name.
const PATH_MAX: usize = 2 * 255 + 1;

/// Which log a file belongs to; random, so that no other log's bytes are taken for this one's.
pub(crate) type LogId = [u8; 16];

/// What block 0 of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub log_id: LogId,
    /// 0 or 1.
    pub index: u32,
    /// Of the whole file.
    pub bytes: u64,
}

/// Why a file is not a segment of this code's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotASegment {
    /// It does not begin like one, or its header is damaged.
    Foreign,
    /// A later version's, which this code must not touch.
    Version(u16),
    /// It has features that this code does not know.
    Features(u32),
}

impl SegmentHeader {
    /// Its block.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[0..8].copy_from_slice(&SEGMENT_MAGIC);
        put(&mut block, 8, VERSION.to_le_bytes());
        put(&mut block, 10, (SEGMENT_HEADER as u16).to_le_bytes());
        // 12: compatible features, 16: incompatible ones; there are none.
        put(&mut block, 20, self.index.to_le_bytes());
        put(&mut block, 24, self.bytes.to_le_bytes());
        put(&mut block, 32, (BLOCK as u32).to_le_bytes());
        put(&mut block, 40, self.log_id);
        let crc = crc32c::crc32c(&block[..60]);
        put(&mut block, 60, crc.to_le_bytes());
        block
    }

    pub(crate) fn decode(block: &[u8]) -> Result<SegmentHeader, NotASegment> {
        let header = block.get(..SEGMENT_HEADER).ok_or(NotASegment::Foreign)?;
        if header[0..8] != SEGMENT_MAGIC {
            return Err(NotASegment::Foreign);
        }
        // A later version may have a checksum elsewhere: it is told by its number alone.
        let version = u16_at(header, 8);
        if version != VERSION {
            return Err(NotASegment::Version(version));
        }
        if u32_at(header, 60) != crc32c::crc32c(&header[..60]) {
            return Err(NotASegment::Foreign);
        }
        if u32_at(header, 16) != 0 {
            return Err(NotASegment::Features(u32_at(header, 16)));
        }
        let (index, bytes) = (u32_at(header, 20), u64_at(header, 24));
        let is_ours = index < 2
            && usize::from(u16_at(header, 10)) == SEGMENT_HEADER
            && u32_at(header, 32) as usize == BLOCK
            && (BYTES_MIN..=BYTES_MAX).contains(&bytes)
            && bytes % BLOCK as u64 == 0
            && zeros(&header[36..40])
            && zeros(&header[56..60]);
        if !is_ours {
            return Err(NotASegment::Foreign);
        }
        Ok(SegmentHeader { log_id: array_at(header, 40), index, bytes })
    }
}

/// What a group is for, beside its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It holds records.
    Records,
    /// The first in a segment that the log goes on in.
    Open,
    /// It says how far the files have everything, durably: its `spread_seq`.
    Spread,
}

/// A group's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub mark: Mark,
    pub records: u32,
    /// The first half of the log's id.
    pub log: u64,
    /// Greater in whatever was begun later: a segment, or the mark of a recovery. Never used twice.
    pub epoch: u64,
    /// The group's number. Never used twice.
    pub seq: u64,
    /// The number of the group before it, in this segment or in the other. Whatever has a number between
    /// the two is void: it was never acknowledged.
    pub follows: u64,
    /// When this was written, every group up to this one was durable. So far always the one that it follows;
    /// a writer that has several writes under way could say less.
    pub durable_seq: u64,
    /// When this was written, everything up to this group had been spread: it is of no use any more.
    pub spread_seq: u64,
    /// Where it stands, which a copy of a log inside a payload does not.
    pub segment: u16,
    pub block: u32,
    /// Blocks that it takes.
    pub blocks: u32,
    /// Bytes of its records.
    pub body_len: u32,
    /// The checksum of the header before it.
    pub previous: u32,
    pub body_crc: u32,
}

impl GroupHeader {
    /// Its bytes, and their checksum, which the next header names.
    pub(crate) fn encode(&self) -> ([u8; GROUP_HEADER], u32) {
        let mut bytes = [0; GROUP_HEADER];
        let mark: u16 = match self.mark {
            Mark::Records => 0,
            Mark::Open => 1,
            Mark::Spread => 2,
        };
        put(&mut bytes, 0, GROUP_MAGIC);
        put(&mut bytes, 4, mark.to_le_bytes());
        put(&mut bytes, 6, self.segment.to_le_bytes());
        put(&mut bytes, 8, self.log.to_le_bytes());
        put(&mut bytes, 16, self.epoch.to_le_bytes());
        put(&mut bytes, 24, self.seq.to_le_bytes());
        put(&mut bytes, 32, self.durable_seq.to_le_bytes());
        put(&mut bytes, 40, self.spread_seq.to_le_bytes());
        put(&mut bytes, 48, self.records.to_le_bytes());
        put(&mut bytes, 52, self.block.to_le_bytes());
        put(&mut bytes, 56, self.blocks.to_le_bytes());
        put(&mut bytes, 60, self.body_len.to_le_bytes());
        put(&mut bytes, 64, self.previous.to_le_bytes());
        put(&mut bytes, 68, self.body_crc.to_le_bytes());
        put(&mut bytes, 72, self.follows.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..92]);
        put(&mut bytes, 92, crc.to_le_bytes());
        (bytes, crc)
    }

    /// Reads a header, if a whole one stands here; with its checksum. Nothing in it is trusted before
    /// that one is right.
    pub(crate) fn decode(block: &[u8]) -> Option<(GroupHeader, u32)> {
        let bytes = block.get(..GROUP_HEADER)?;
        let crc = u32_at(bytes, 92);
        let whole = bytes[0..4] == GROUP_MAGIC && crc == crc32c::crc32c(&bytes[..92]);
        if !whole || !zeros(&bytes[80..92]) {
            return None;
        }
        let mark = match u16_at(bytes, 4) {
            0 => Mark::Records,
            1 => Mark::Open,
            2 => Mark::Spread,
            _ => return None,
        };
        let header = GroupHeader {
            mark,
            records: u32_at(bytes, 48),
            log: u64_at(bytes, 8),
            epoch: u64_at(bytes, 16),
            seq: u64_at(bytes, 24),
            durable_seq: u64_at(bytes, 32),
            spread_seq: u64_at(bytes, 40),
            segment: u16_at(bytes, 6),
            block: u32_at(bytes, 52),
            blocks: u32_at(bytes, 56),
            body_len: u32_at(bytes, 60),
            previous: u32_at(bytes, 64),
            body_crc: u32_at(bytes, 68),
            follows: u64_at(bytes, 72),
        };
        Some((header, crc))
    }
}

/// The directory that a record's file belongs to, as it was when the record was written: a directory
/// that was removed and made again under the same name is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct DirectoryId {
    pub inode: u64,
    /// When it was made, in nanoseconds since 1970; 0 where the filesystem does not say.
    pub born: u64,
    /// A hash of its file handle, which also tells apart what was made within one tick of the clock; 0
    /// where the filesystem has none.
    pub handle: u64,
}

impl DirectoryId {
    /// Is it the same directory?
    pub(crate) fn is(&self, other: &DirectoryId) -> bool {
        match (self.handle, other.handle) {
            (0, _) | (_, 0) => (self.inode, self.born) == (other.inode, other.born),
            (mine, its) => self.inode == other.inode && mine == its,
        }
    }
}

/// What a record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The file at the path is this one.
    Replace,
    /// There is no file at the path.
    Remove,
    /// What the log has said of the path so far is void: it was changed beside the log, durably.
    Forget,
}

/// One change of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub kind: Kind,
    pub directory: DirectoryId,
    /// Permission bits.
    pub mode: u32,
    /// `id/name`, below the root.
    pub path: Arc<str>,
    pub data: Bytes,
    /// Which of the group's transactions it is of; for whoever reads a dump.
    pub transaction: u32,
}

impl Record {
    /// Bytes that it takes in a group.
    pub(crate) fn encoded_len(&self) -> usize {
        RECORD_HEADER + padded(self.path.len()) + padded(self.data.len())
    }

    fn encode(&self, into: &mut Vec<u8>) {
        let kind: u8 = match self.kind {
            Kind::Replace => 1,
            Kind::Remove => 2,
            Kind::Forget => 3,
        };
        let mut header = [0; RECORD_HEADER];
        header[0] = kind;
        put(&mut header, 2, (self.path.len() as u16).to_le_bytes());
        put(&mut header, 4, self.mode.to_le_bytes());
        put(&mut header, 8, (self.data.len() as u64).to_le_bytes());
        put(&mut header, 16, self.directory.inode.to_le_bytes());
        put(&mut header, 24, self.directory.born.to_le_bytes());
        put(&mut header, 32, self.directory.handle.to_le_bytes());
        let crc = record_crc(&header, self.path.as_bytes(), &self.data);
        put(&mut header, 40, crc.to_le_bytes());
        put(&mut header, 44, self.transaction.to_le_bytes());
        into.extend_from_slice(&header);
        pad(into, self.path.as_bytes());
        pad(into, &self.data);
    }

    /// Reads the record that `bytes` begin with; says how many of them it takes. `None` if it is
    /// damaged, or no record that this code could have written.
    fn decode(bytes: &[u8]) -> Option<(Record, usize)> {
        let header: &[u8; RECORD_HEADER] = bytes.get(..RECORD_HEADER)?.try_into().ok()?;
        let kind = match header[0] {
            1 => Kind::Replace,
            2 => Kind::Remove,
            3 => Kind::Forget,
            _ => return None,
        };
        let path_len = usize::from(u16_at(header, 2));
        let data_len = usize::try_from(u64_at(header, 8)).ok()?;
        if header[1] != 0 {
            return None;
        }
        if path_len > PATH_MAX || data_len > bytes.len() {
            return None;
        }
        let data_at = RECORD_HEADER + padded(path_len);
        let path = bytes.get(RECORD_HEADER..RECORD_HEADER + path_len)?;
        let data = bytes.get(data_at..data_at.checked_add(data_len)?)?;
        let end = data_at + padded(data_len);
        let padding =
            [bytes.get(RECORD_HEADER + path_len..data_at)?, bytes.get(data_at + data_len..end)?];
        let is_whole =
            u32_at(header, 40) == record_crc(header, path, data) && padding.into_iter().all(zeros);
        if !is_whole && !left_out(Rule::TornTail) {
            return None;
        }
        let path = std::str::from_utf8(path).ok()?;
        let record = Record {
            kind,
            directory: DirectoryId {
                inode: u64_at(header, 16),
                born: u64_at(header, 24),
                handle: u64_at(header, 32),
            },
            mode: u32_at(header, 4),
            path: path.into(),
            data: Bytes::copy_from_slice(data),
            transaction: u32_at(header, 44),
        };
        record.is_valid().then_some((record, end))
    }

    /// Is it a save whose directory is not known yet?
    pub(crate) fn is_to_be_located(&self) -> bool {
        self.kind == Kind::Replace && self.directory == DirectoryId::default()
    }

    /// Would a reader take it?
    pub(crate) fn is_valid(&self) -> bool {
        let carries_data = self.kind == Kind::Replace || self.data.is_empty();
        carries_data && self.mode & !0o777 == 0 && is_path(&self.path)
    }
}

/// The checksum covers what the record says of itself, its path and its data.
fn record_crc(header: &[u8; RECORD_HEADER], path: &[u8], data: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&header[..40]);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, path), data)
}

/// Is this an id, a slash, and a name? Nothing else in a record can lead anywhere.
pub(crate) fn is_path(path: &str) -> bool {
    let is_component = |part: &str| {
        let special = part.is_empty() || part == "." || part == "..";
        !special && part.len() <= 255 && !part.contains(['/', '\0'])
    };
    let is_id = |id: &str| is_component(id) && !id.eq_ignore_ascii_case(".ringseal");
    path.split_once('/').is_some_and(|(id, name)| is_id(id) && is_component(name))
}

/// Blocks that a group of these records takes.
pub(crate) fn blocks_for<'a>(records: impl IntoIterator<Item = &'a Record>) -> usize {
    let body: usize = records.into_iter().map(Record::encoded_len).sum();
    (GROUP_HEADER + body).div_ceil(BLOCK)
}

/// Makes these the bytes of a group, whole blocks, and gives back its header's checksum. The header's `records`,
/// `blocks`, `body_len` and `body_crc` are filled in here.
pub(crate) fn encode_group<R: Borrow<Record>>(
    mut header: GroupHeader,
    records: &[R],
    bytes: &mut Vec<u8>,
) -> u32 {
    let blocks = blocks_for(records.iter().map(R::borrow));
    bytes.clear();
    bytes.reserve(blocks * BLOCK);
    bytes.resize(GROUP_HEADER, 0);
    records.iter().for_each(|record| record.borrow().encode(bytes));
    header.records = records.len() as u32;
    header.blocks = blocks as u32;
    header.body_len = (bytes.len() - GROUP_HEADER) as u32;
    bytes.resize(blocks * BLOCK, 0);
    header.body_crc = crc32c::crc32c(&bytes[GROUP_HEADER..]);
    let (encoded, crc) = header.encode();
    bytes[..GROUP_HEADER].copy_from_slice(&encoded);
    crc
}

/// Do these blocks hold all that a header, which was found good, is the header of?
pub(crate) fn is_whole(header: &GroupHeader, bytes: &[u8]) -> bool {
    if left_out(Rule::TornTail) {
        return true;
    }
    bytes.get(GROUP_HEADER..).is_some_and(|body| crc32c::crc32c(body) == header.body_crc)
}

/// The records of a group whose header was found good; `bytes` are its blocks. `None` if anything in
/// them is damaged.
pub(crate) fn decode_body(header: &GroupHeader, bytes: &[u8]) -> Option<Vec<Record>> {
    if !is_whole(header, bytes) {
        return None;
    }
    let mut rest = bytes.get(GROUP_HEADER..)?.get(..header.body_len as usize)?;
    let mut records = Vec::new();
    for _ in 0..header.records {
        let (record, len) = Record::decode(rest)?;
        records.push(record);
        rest = rest.get(len..)?;
    }
    rest.is_empty().then_some(records)
}

impl fmt::Display for NotASegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotASegment::Foreign => {
                f.write_str("it is no log of this library, or its first block is damaged")
            }
            NotASegment::Version(version) => {
                write!(f, "its format has version {version}, this library knows {VERSION}")
            }
            NotASegment::Features(bits) => {
                write!(f, "it uses features that this library does not know (bits {bits:#x})")
            }
        }
    }
}

/// To the next multiple of 8.
fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}

fn pad(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend_from_slice(bytes);
    into.resize(into.len() + padded(bytes.len()) - bytes.len(), 0);
}

fn zeros(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn put<const N: usize>(into: &mut [u8], at: usize, bytes: [u8; N]) {
    into[at..at + N].copy_from_slice(&bytes);
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
