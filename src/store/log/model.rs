//! A store over a log, in memory: a disk that forgets, files whose contents are not synced, and random
//! histories of saves, failures, crashes and recoveries. The log's code is the real one; what is modelled
//! is the world around it, by the rules that a power cut may follow:
//!
//! - of a write that was under way, or that failed, any sectors may be on the disk, now or later;
//! - of a file that was replaced and not synced, the old version, the new one, or neither may be there;
//! - a sync that failed says nothing, and neither does a later one of the same pages.

use std::collections::BTreeMap;

use bytes::Bytes;
use fastrand::Rng;
use rustix::io::Errno;

use super::format::{BLOCK, DirectoryId, Kind, Record, SegmentHeader};
use super::scan::{Damage, scan};
use super::{AppendError, Log, Medium};

/// A rule of the store that a history is run without, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Without {
    Nothing,
    /// Files are replaced only when the log holds their versions.
    LogBeforePublishing,
    /// A segment is used again only when the files have what it holds, durably.
    SpreadBeforeReuse,
    /// The log says that the files have something only when they have.
    SyncBeforeNote,
    /// After a sync that failed, files are written anew.
    FreshFilesAfterFailure,
    /// What a failed write may have left is cut off before anybody is told that nothing changed.
    CutOff,
    /// A recovery syncs what it has put into the files before the log goes on.
    SyncOfReplay,
    /// Before a recovery overwrites groups, it is on the disk that they count no longer.
    MarkBeforeOverwriting,
}

const SECTOR: usize = 512;

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
    until_crash: Option<u32>,
    crashed: bool,
    /// One write in so many fails.
    fails: u32,
    drop_marks: bool,
    drop_next: bool,
    without: Without,
}

impl Disk {
    fn new(blocks: usize, rng: Rng, without: Without) -> Disk {
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
            drop_marks: false,
            drop_next: false,
            without,
        }
    }

    /// What the disk holds after a power cut.
    fn cut_power(&mut self) {
        for block in self.segments.iter_mut().flatten() {
            for perhaps in std::mem::take(&mut block.perhaps) {
                match self.rng.u8(0..4) {
                    0 => {}
                    1 => block.bytes = perhaps,
                    _ => {
                        for at in (0..BLOCK).step_by(SECTOR) {
                            if self.rng.bool() {
                                let sector = at..at + SECTOR;
                                block.bytes[sector.clone()].copy_from_slice(&perhaps[sector]);
                            }
                        }
                    }
                }
            }
        }
    }

    fn bytes(&self, segment: usize) -> Vec<u8> {
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
        let is_mark = first == blocks - 1;
        if self.drop_next || (self.drop_marks && is_mark) {
            self.drop_next = false;
            return Ok(());
        }
        if let Some(left) = &mut self.until_crash {
            *left = left.saturating_sub(1);
            self.crashed = *left == 0;
        }
        let failed = self.fails > 0 && self.rng.u32(0..self.fails) == 0;
        for (index, bytes) in bytes.chunks_exact(BLOCK).enumerate() {
            let block = &mut self.segments[segment][first + index];
            if self.crashed || failed {
                block.perhaps.push(bytes.to_vec());
            } else {
                // Through to the disk; what failed there before is gone.
                *block = Block { bytes: bytes.to_vec(), perhaps: Vec::new() };
            }
        }
        if failed && !self.crashed && self.without == Without::CutOff {
            self.drop_next = true;
        }
        if self.crashed || failed { Err(Errno::IO) } else { Ok(()) }
    }
}

/// What a file holds: a version, nothing that was ever saved, or (`None`) it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Content {
    Version(u32),
    Garbage,
}

#[derive(Debug, Clone, Default)]
struct File {
    cached: Option<Content>,
    /// What a power cut may leave.
    perhaps: Vec<Option<Content>>,
    /// A sync of these pages has failed: they are never written again.
    failed: bool,
}

/// The files, as a filesystem keeps them.
#[derive(Debug, Clone, Default)]
struct Files(BTreeMap<String, File>);

impl Files {
    fn publish(&mut self, path: &str, version: u32) {
        let content = Some(Content::Version(version));
        let absent = File { perhaps: vec![None], ..File::default() };
        let file = self.0.entry(path.to_owned()).or_insert(absent);
        file.cached = content;
        file.perhaps.extend([content, Some(Content::Garbage)]);
        file.failed = false;
    }

    /// Syncs them all.
    fn sync(&mut self, fails: bool) -> Result<(), Errno> {
        for file in self.0.values_mut() {
            if fails && file.perhaps.len() > 1 {
                file.failed = true;
            } else if !file.failed {
                file.perhaps = vec![file.cached];
            }
        }
        if fails { Err(Errno::IO) } else { Ok(()) }
    }

    fn cut_power(&mut self, rng: &mut Rng) {
        for file in self.0.values_mut() {
            file.cached = file.perhaps[rng.usize(0..file.perhaps.len())];
            *file = File { cached: file.cached, perhaps: vec![file.cached], failed: false };
        }
    }
}

/// What was found to be wrong.
#[derive(Debug)]
#[expect(dead_code, reason = "read by whoever sees the test fail")]
pub(super) enum Wrong {
    /// The log was refused although nothing was damaged.
    Refused(Damage),
    /// A file is not as it was promised to be.
    File { path: String, found: Option<u32>, promised: Option<u32>, perhaps: Option<u32> },
    /// A part of a transaction is there.
    Torn(Vec<u32>),
}

/// What one history has been through.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub crashes: u64,
    pub replayed: u64,
    pub switches: u64,
    pub failures: u64,
}

struct Store {
    disk: Disk,
    files: Files,
    rng: Rng,
    without: Without,
    /// What every caller was told is there.
    promised: BTreeMap<String, u32>,
    /// Transactions whose fate is not known, in their order.
    unknown: Vec<Vec<(String, u32)>>,
    next: u32,
    counts: Counts,
}

/// Runs one history of saves and crashes.
pub(super) fn run(seed: u64, without: Without) -> Result<Counts, Wrong> {
    let mut rng = Rng::with_seed(seed);
    let blocks = rng.usize(5..14);
    let disk = Disk::new(blocks, rng.fork(), without);
    let mut store = Store {
        disk,
        files: Files::default(),
        rng,
        without,
        promised: BTreeMap::new(),
        unknown: Vec::new(),
        next: 1,
        counts: Counts::default(),
    };
    store.disk.fails = *store.rng.choice(&[0, 0, 30, 8]).unwrap_or(&0);
    store.disk.drop_marks = without == Without::MarkBeforeOverwriting;
    for _ in 0..store.rng.u32(1..8) {
        store.live()?;
        store.crash();
        // Until a recovery is not cut off itself.
        while !store.recover()? {
            store.crash();
        }
    }
    Ok(store.counts)
}

impl Store {
    /// Opens the log, which holds nothing that the files lack, and saves until the power goes.
    fn live(&mut self) -> Result<(), Wrong> {
        self.disk.until_crash = Some(self.rng.u32(1..25));
        let scanned = scan([&self.disk.bytes(0), &self.disk.bytes(1)]).map_err(Wrong::Refused)?;
        let mut disk = self.disk.clone();
        let log = Log::begin(&mut disk, &scanned);
        if let Ok(mut log) = log {
            self.save_until_the_end(&mut log);
        }
        self.disk = disk;
        Ok(())
    }

    fn save_until_the_end(&mut self, log: &mut Log<&mut Disk>) {
        // What the log holds and the files may not have durably.
        let mut live: Vec<(String, u32)> = Vec::new();
        for _ in 0..self.rng.u32(1..40) {
            if self.rng.u8(0..8) == 0 && !self.spread(&mut live) {
                return;
            }
            if live.is_empty() && self.rng.bool() && log.note_spread().is_err() {
                return;
            }
            let (changes, records) = self.transaction();
            if super::blocks_for(&records) > log.group_max() {
                continue;
            }
            if !log.has_room(&records) {
                let spread = self.without == Without::SpreadBeforeReuse || self.spread(&mut live);
                if !spread || log.switch().is_err() {
                    return;
                }
                self.counts.switches += 1;
                if !log.has_room(&records) {
                    continue;
                }
            }
            if self.without == Without::LogBeforePublishing {
                self.publish(&changes);
            }
            // Until it is answered.
            self.unknown.push(changes.clone());
            match log.append(&records) {
                Ok(_) => {
                    self.publish(&changes);
                    live.extend(changes.iter().cloned());
                    self.promised.extend(changes);
                    self.unknown.clear();
                }
                Err(AppendError::NotWritten(_) | AppendError::Refused(_)) => {
                    self.counts.failures += 1;
                    self.unknown.pop();
                    if self.rng.bool() {
                        return;
                    }
                }
                // The power is gone, or nothing more is taken.
                Err(AppendError::Unknown(_)) => return,
            }
        }
    }

    /// One to three saves, each of a few bytes to some blocks.
    fn transaction(&mut self) -> (Vec<(String, u32)>, Vec<Record>) {
        let mut changes = Vec::new();
        let mut records = Vec::new();
        for _ in 0..self.rng.usize(1..4) {
            let path = format!("{}/state", self.rng.u8(0..4));
            if changes.iter().any(|(other, _)| *other == path) {
                continue;
            }
            let version = self.next;
            self.next += 1;
            let mut data = version.to_le_bytes().to_vec();
            data.resize(*self.rng.choice(&[4, 100, 3000, 9000]).unwrap_or(&4), version as u8);
            let directory = DirectoryId { inode: 1, born: 1 };
            let (kind, mode, data) = (Kind::Replace, 0o600, Bytes::from(data));
            records.push(Record { kind, directory, mode, path: path.clone(), data });
            changes.push((path, version));
        }
        (changes, records)
    }

    fn publish(&mut self, changes: &[(String, u32)]) {
        for (path, version) in changes {
            self.files.publish(path, *version);
        }
    }

    /// Makes the files durable; false if that cannot be had.
    fn spread(&mut self, live: &mut Vec<(String, u32)>) -> bool {
        if self.without == Without::SyncBeforeNote {
            live.clear();
            return true;
        }
        for _ in 0..2 {
            let fails = self.rng.u8(0..10) == 0;
            if self.files.sync(fails).is_ok() {
                live.clear();
                return true;
            }
            if self.without != Without::FreshFilesAfterFailure {
                self.publish(live);
            }
        }
        false
    }

    fn crash(&mut self) {
        self.counts.crashes += 1;
        self.disk.cut_power();
        self.disk.crashed = false;
        self.files.cut_power(&mut self.rng);
    }

    /// Opens the store; false if the power goes meanwhile.
    fn recover(&mut self) -> Result<bool, Wrong> {
        let scanned = scan([&self.disk.bytes(0), &self.disk.bytes(1)]).map_err(Wrong::Refused)?;
        let mut last: BTreeMap<String, u32> = BTreeMap::new();
        for record in scanned.live.iter().flat_map(|group| &group.records) {
            let version = record.data[..4].try_into().map_or(0, u32::from_le_bytes);
            last.insert(record.path.clone(), version);
            self.counts.replayed += 1;
        }
        for (path, version) in &last {
            self.files.publish(path, *version);
            if self.rng.u8(0..30) == 0 {
                return Ok(false);
            }
        }
        if self.without != Without::SyncOfReplay && self.files.sync(false).is_err() {
            return Ok(false);
        }
        self.check()?;
        self.disk.until_crash = Some(self.rng.u32(1..8));
        let begun = Log::begin(&mut self.disk, &scanned).is_ok();
        Ok(begun)
    }

    /// Is everything as it was promised?
    fn check(&mut self) -> Result<(), Wrong> {
        let found = |path: &str| match self.files.0.get(path).and_then(|file| file.cached) {
            Some(Content::Version(version)) => Some(version),
            Some(Content::Garbage) => Some(0),
            None => None,
        };
        // Those of unknown fate are there up to one of them, and each wholly.
        let mut promised = self.promised.clone();
        let as_promised = |promised: &BTreeMap<String, u32>| {
            (0..4).all(|id| {
                let path = format!("{id}/state");
                found(&path) == promised.get(&path).copied()
            })
        };
        for unknown in std::mem::take(&mut self.unknown) {
            if as_promised(&promised) {
                break;
            }
            promised.extend(unknown);
        }
        if as_promised(&promised) {
            self.promised = promised;
            return Ok(());
        }
        for id in 0..4 {
            let path = format!("{id}/state");
            let (found, perhaps) = (found(&path), promised.get(&path).copied());
            let promised = self.promised.get(&path).copied();
            if found != promised && found != perhaps {
                return Err(Wrong::File { path, found, promised, perhaps });
            }
        }
        Err(Wrong::Torn((0..4).filter_map(|id| found(&format!("{id}/state"))).collect()))
    }
}
