//! What a log says: which groups count, which are torn, what is damaged. Pure code: bytes in, a verdict
//! out; nothing is changed, and no byte is trusted before its checksum.
//!
//! A power cut can leave any part of the writes that were under way, so the end of the log is a mess
//! by nature. What was *acknowledged* can be told from it: each header says up to which number everything
//! was durable when it was written. So a hole above the highest such number is a torn end, which was
//! never acknowledged, and is left out with all that comes behind; a hole below it is damage, and
//! then nothing is replayed.

use std::cmp::Reverse;
use std::fmt;

use super::format::{
    BLOCK, GroupHeader, LogId, NotASegment, Record, SegmentHeader, decode_body, is_whole,
};

/// A group that counts: whole, acknowledged or at least complete, and not yet known to be spread.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub header: GroupHeader,
    pub records: Vec<Record>,
}

/// What is in a log.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub log_id: LogId,
    /// Bytes of a segment.
    pub bytes: u64,
    /// The groups that count, in order.
    pub live: Vec<Group>,
    /// The numbers of groups that can still be read and are spread.
    pub spread: Vec<u64>,
    /// Numbers and places of the groups behind the end: torn, or behind a torn one.
    pub torn: Vec<(u64, Place)>,
    /// The highest number and epoch that any header has; whatever is written next has higher ones.
    pub seq: u64,
    pub epoch: u64,
    /// Where the header with the highest number stands; `None` in an empty log.
    pub newest: Option<Place>,
    /// Something that was acknowledged cannot be read, and what is live is not all.
    pub damage: Option<Damage>,
}

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub segment: u16,
    pub block: u32,
}

/// Why a log cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Damage {
    /// A file is no segment of this code's.
    Segment(usize, NotASegment),
    /// The two files are not of one log, or not of the size that they say.
    NotAPair,
    /// Something that was acknowledged is missing: the group behind number `after`. What still can be
    /// read says that everything up to `durable` was on the disk.
    Hole { after: u64, durable: u64, at: Option<Place> },
    /// Two groups of one epoch follow this one.
    Twice(u64),
}

/// No number or epoch of a real log comes near it.
const HIGHEST: u64 = 1 << 62;

/// A header that is whole and stands where it says.
struct Candidate {
    header: GroupHeader,
    crc: u32,
}

impl Scan {
    /// A log that nothing was written to.
    pub(crate) fn of_new(log_id: LogId, bytes: u64) -> Scan {
        let (live, torn, newest) = (Vec::new(), Vec::new(), None);
        let spread = Vec::new();
        Scan { log_id, bytes, live, spread, torn, seq: 0, epoch: 0, newest, damage: None }
    }
}

/// Reads both segments. Where something that was acknowledged is missing, it says so, and what comes before
/// it is there.
pub(crate) fn scan(segments: [&[u8]; 2]) -> Result<Scan, Damage> {
    let first = segment_header(segments, 0)?;
    let second = segment_header(segments, 1)?;
    let is_pair = first.log_id == second.log_id
        && (first.index, second.index) == (0, 1)
        && [first, second]
            .into_iter()
            .zip(segments)
            .all(|(header, bytes)| header.bytes == bytes.len() as u64);
    if !is_pair {
        return Err(Damage::NotAPair);
    }
    let candidates = candidates(segments, &first.log_id);
    let highest = |of: fn(&GroupHeader) -> u64| {
        candidates.iter().map(|one| of(&one.header)).max().unwrap_or(0)
    };
    let (durable, spread) =
        (highest(|header| header.durable_seq), highest(|header| header.spread_seq));

    let mut live: Vec<Group> = Vec::new();
    let (mut last, mut last_crc) = (spread, None);
    let mut damage = None;
    loop {
        let candidate = match following(&candidates, last, last_crc) {
            Ok(Some(candidate)) => candidate,
            Ok(None) => break,
            Err(twice) => {
                damage = Some(twice);
                break;
            }
        };
        let Some(records) = records_of(candidate, segments) else { break };
        (last, last_crc) = (candidate.header.seq, Some(candidate.crc));
        live.push(Group { header: candidate.header, records });
    }
    let place = |header: &GroupHeader| Place { segment: header.segment, block: header.block };
    let behind = |candidate: &&Candidate| candidate.header.seq > last;
    if last < durable && damage.is_none() {
        let at = candidates.iter().filter(behind).min_by_key(|one| one.header.seq);
        let at = at.map(|candidate| place(&candidate.header));
        damage = Some(Damage::Hole { after: last, durable, at });
    }
    let torn = candidates.iter().filter(behind);
    let torn = torn.map(|one| (one.header.seq, place(&one.header))).collect();
    let done = candidates.iter().filter(|one| one.header.seq <= spread && one.header.records > 0);
    let mut done: Vec<u64> = done.map(|one| one.header.seq).collect();
    done.sort_unstable();
    let newest = candidates.iter().max_by_key(|one| one.header.seq);
    Ok(Scan {
        log_id: first.log_id,
        bytes: first.bytes,
        spread: done,
        torn,
        seq: highest(|header| header.seq),
        epoch: highest(|header| header.epoch),
        newest: newest.map(|one| place(&one.header)),
        live,
        damage,
    })
}

fn segment_header(segments: [&[u8]; 2], index: usize) -> Result<SegmentHeader, Damage> {
    SegmentHeader::decode(segments[index]).map_err(|why| Damage::Segment(index, why))
}

/// Every header that is whole, of this log, and where it says that it is. Each block is looked at: behind
/// a torn group there can be whole ones, and they are evidence. Sorted by what they follow, those of a
/// later epoch first.
fn candidates(segments: [&[u8]; 2], log_id: &LogId) -> Vec<Candidate> {
    let log = u64::from_le_bytes(log_id[..8].try_into().unwrap_or_default());
    let mut candidates = Vec::new();
    for (segment, bytes) in segments.into_iter().enumerate() {
        let blocks = bytes.len() / BLOCK;
        let mut block = 1;
        while block < blocks {
            let here = &bytes[block * BLOCK..];
            block += 1;
            let Some((header, crc)) = GroupHeader::decode(here) else { continue };
            let stands_here = usize::from(header.segment) == segment
                && header.block as usize == block - 1
                && header.blocks > 0
                && header.blocks as usize <= here.len() / BLOCK;
            let GroupHeader { seq, follows, durable_seq, spread_seq, epoch, .. } = header;
            let in_order = spread_seq <= durable_seq && durable_seq <= follows && follows < seq;
            if header.log != log || !stands_here || !in_order || seq.max(epoch) > HIGHEST {
                continue;
            }
            candidates.push(Candidate { header, crc });
            if is_whole(&header, &here[..header.blocks as usize * BLOCK]) {
                // What looks like a group inside of a whole one is somebody's data.
                block += header.blocks as usize - 1;
            }
        }
    }
    candidates.sort_by_key(|one| (one.header.follows, Reverse(one.header.epoch)));
    candidates
}

/// The group that follows a number: of several that of the latest epoch, for it was written to cut off what
/// the others may have left. It may be torn; the others are void all the same.
fn following(
    candidates: &[Candidate],
    last: u64,
    last_crc: Option<u32>,
) -> Result<Option<&Candidate>, Damage> {
    let from = candidates.partition_point(|one| one.header.follows < last);
    let next = candidates[from..].iter().take_while(|one| one.header.follows == last);
    let mut next = next.filter(|one| last_crc.is_none_or(|crc| crc == one.header.previous));
    let Some(candidate) = next.next() else { return Ok(None) };
    match next.next() {
        Some(other) if other.header.epoch == candidate.header.epoch => Err(Damage::Twice(last)),
        _ => Ok(Some(candidate)),
    }
}

fn records_of(candidate: &Candidate, segments: [&[u8]; 2]) -> Option<Vec<Record>> {
    let header = &candidate.header;
    let start = header.block as usize * BLOCK;
    let segment = segments[usize::from(header.segment)];
    decode_body(header, &segment[start..][..header.blocks as usize * BLOCK])
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Segment(index, why) => write!(f, "log.{index}: {why}"),
            Damage::NotAPair => f.write_str(
                "log.0 and log.1 are not the two segments of one log, or not as long as they say",
            ),
            Damage::Hole { after, durable, at } => {
                write!(f, "what follows group {after} is missing or damaged")?;
                if let Some(Place { segment, block }) = at {
                    write!(f, " (the next that can be read: log.{segment}, block {block})")?;
                }
                write!(f, ", and everything up to {durable} was acknowledged")
            }
            Damage::Twice(after) => write!(f, "two groups follow group {after}"),
        }
    }
}
