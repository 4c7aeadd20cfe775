//! A store in memory: a disk that forgets, files whose contents are not synced, and random histories of
//! saves, failures, crashes and recoveries. The store's and the log's code is the real one; what is
//! modelled is the world around it, by the rules that a power cut may follow:
//!
//! - of a write that was under way, or that failed, any sectors may be on the disk, now or later;
//! - of a file that was replaced and not synced, the old version, the new one, or neither may be there;
//! - a sync that failed says nothing, and neither does a later one of the same pages.

use std::collections::BTreeMap;

use bytes::Bytes;
use fastrand::Rng;
use rustix::io::Errno;

use super::{Core, Files, Refused};
use crate::store::log::Medium;
use crate::store::log::format::{BLOCK, DirectoryId, Kind, Record, SegmentHeader};
use crate::store::log::scan::{Damage, Scan, scan};

/// A rule of the store that a history is run without, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
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
    /// What a recovery puts into the files is durable before the log goes on.
    DurableReplay,
    /// Before a recovery overwrites groups, it is on the disk that they count no longer.
    MarkBeforeOverwriting,
    /// What a recovery reads of the log is on the disk, and not only on its way.
    FlushBeforeReading,
    /// What cannot be published is kept somewhere else before the log forgets it.
    SettingAside,
    /// After a write whose fate is not known, nothing more is taken.
    RefusalAfterUnknown,
}

/// What reaches the disk whole: less than any disk's sector, to be strict.
const SECTOR: usize = 64;

/// A number that no other version has.
type Version = u32;

/// That there is no file.
const REMOVED: Version = 0;

/// A block, and what it may turn into at the next power cut.
#[derive(Debug, Clone)]
struct Block {
    bytes: Vec<u8>,
    perhaps: Vec<Vec<u8>>,
}

/// The disk under the log.
#[derive(Debug, Clone)]
struct Disk {
    segments: [Vec<Block>; 2],
    rng: Rng,
    /// The power goes at the write that makes this 0.
    until_crash: Option<u32>,
    crashed: bool,
    /// One write in so many fails.
    fails: u32,
}

impl Disk {
    fn new(blocks: usize, rng: Rng) -> Disk {
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

    /// What is read from now on is what a power cut leaves.
    fn flush(&mut self) {
        self.segments.iter_mut().flatten().for_each(|block| block.perhaps.clear());
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

/// What a file holds: a version, or nothing that was ever saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Version(Version),
    Garbage,
}

/// A file; `None` is that it is not there.
#[derive(Debug, Clone)]
struct File {
    cached: Option<Content>,
    /// What a power cut may leave.
    perhaps: Vec<Option<Content>>,
    /// A sync of these pages has failed: they are never written again.
    failed: bool,
}

/// The files, as a filesystem keeps them. Those that were set aside have a name of their own.
#[derive(Debug, Clone)]
struct World {
    files: BTreeMap<String, File>,
    rng: Rng,
    /// A path that nobody can write to.
    immutable: Option<String>,
    /// Faults are over: a recovery has to succeed some day.
    is_kind: bool,
    without: Without,
}

impl World {
    fn set(&mut self, path: &str, content: Option<Content>) {
        let absent = File { cached: None, perhaps: vec![None], failed: false };
        let file = self.files.entry(path.to_owned()).or_insert(absent);
        if self.without == Without::FreshFilesAfterFailure && file.cached == content {
            return;
        }
        file.cached = content;
        file.perhaps.extend([content, Some(Content::Garbage)]);
        file.failed = false;
    }

    fn set_durably(&mut self, path: &str, content: Option<Content>) {
        let file = File { cached: content, perhaps: vec![content], failed: false };
        self.files.insert(path.to_owned(), file);
    }

    fn get(&self, path: &str) -> Option<Version> {
        match self.files.get(path).and_then(|file| file.cached)? {
            Content::Version(version) => Some(version),
            Content::Garbage => Some(Version::MAX),
        }
    }

    fn cut_power(&mut self) {
        for file in self.files.values_mut() {
            file.cached = file.perhaps[self.rng.usize(0..file.perhaps.len())];
            *file = File { cached: file.cached, perhaps: vec![file.cached], failed: false };
        }
    }
}

fn aside(path: &str) -> String {
    format!("aside/{path}")
}

fn version_of(record: &Record) -> Version {
    match record.kind {
        Kind::Replace => record.data[..4].try_into().map_or(0, u32::from_le_bytes),
        Kind::Remove | Kind::Forget => REMOVED,
    }
}

impl Files for &mut World {
    fn publish(&mut self, record: &Record) -> Result<(), Errno> {
        if self.immutable.as_ref() == Some(&record.path) {
            return Err(Errno::PERM);
        }
        let content = Some(Content::Version(version_of(record)));
        self.set(&record.path, content.filter(|_| record.kind == Kind::Replace));
        if self.files.contains_key(&aside(&record.path)) {
            self.set(&aside(&record.path), None);
        }
        Ok(())
    }

    fn set_aside(&mut self, record: &Record) -> Result<(), Errno> {
        if self.without != Without::SettingAside {
            let content = Some(Content::Version(version_of(record)));
            self.set_durably(&aside(&record.path), content);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Errno> {
        let fails = !self.is_kind && self.rng.u8(0..10) == 0;
        if self.without == Without::DurableReplay && self.is_kind {
            return Ok(());
        }
        for file in self.files.values_mut() {
            if fails && file.perhaps.len() > 1 {
                file.failed = true;
            } else if !file.failed {
                file.perhaps = vec![file.cached];
            }
        }
        if fails { Err(Errno::IO) } else { Ok(()) }
    }
}

/// What was found to be wrong.
#[derive(Debug)]
#[expect(dead_code, reason = "read by whoever sees the test fail")]
enum Wrong {
    /// The log was refused although nothing was damaged.
    Refused(Damage),
    /// A file is not as it was promised to be.
    File { path: String, found: Version, promised: Version, perhaps: Version },
    /// A part of a transaction is there.
    Torn(Vec<Version>),
}

/// What one history has been through.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    crashes: u64,
    replayed: u64,
    switches: u64,
    failures: u64,
}

struct History {
    disk: Disk,
    world: World,
    rng: Rng,
    without: Without,
    /// What every caller was told is there.
    promised: BTreeMap<String, Version>,
    /// The transaction whose fate is not known.
    unknown: Vec<Vec<(String, Version)>>,
    next: Version,
    counts: Counts,
}

/// Runs one history of saves and crashes.
fn run(seed: u64, without: Without) -> Result<Counts, Wrong> {
    let mut rng = Rng::with_seed(seed);
    let disk = Disk::new(rng.usize(5..14), rng.fork());
    super::super::log::left_out::MARKS.set(without == Without::MarkBeforeOverwriting);
    super::super::log::left_out::CUT_OFF.set(without == Without::CutOff);
    let files = BTreeMap::new();
    let world = World { files, rng: rng.fork(), immutable: None, is_kind: false, without };
    let (promised, unknown, counts) = (BTreeMap::new(), Vec::new(), Counts::default());
    let mut history = History { disk, world, rng, without, promised, unknown, next: 1, counts };
    history.disk.fails = *history.rng.choice(&[0, 0, 30, 8]).unwrap_or(&0);
    for _ in 0..history.rng.u32(1..8) {
        history.live()?;
        history.crash();
        // Until a recovery is not cut off itself.
        while !history.recover()? {
            history.crash();
        }
        history.crash();
    }
    Ok(history.counts)
}

impl History {
    fn scan(&mut self) -> Result<Scan, Wrong> {
        if self.without != Without::FlushBeforeReading {
            self.disk.flush();
        }
        scan([&self.disk.bytes(0), &self.disk.bytes(1)]).map_err(Wrong::Refused)
    }

    /// Opens the store and saves until the power goes.
    fn live(&mut self) -> Result<(), Wrong> {
        self.disk.until_crash = Some(self.rng.u32(1..25));
        self.world.is_kind = false;
        self.world.immutable = self.some_path();
        let scanned = self.scan()?;
        let (mut disk, mut world) = (self.disk.clone(), self.world.clone());
        let lives = Core::recover(&scanned, &mut disk, &mut world);
        if let Ok(mut core) = lives {
            self.save_until_the_end(&mut core);
        }
        (self.disk, self.world) = (disk, world);
        Ok(())
    }

    fn save_until_the_end(&mut self, core: &mut Core<&mut Disk, &mut World>) {
        for _ in 0..self.rng.u32(1..40) {
            core.files.immutable = self.some_path();
            if self.rng.u8(0..8) == 0 {
                let spread = match self.without {
                    Without::SyncBeforeNote => core.log.note_spread(),
                    _ => core.spread_and_note(),
                };
                if spread.is_err() {
                    return;
                }
            }
            let (changes, records) = self.transaction();
            if self.without == Without::LogBeforePublishing {
                let published = records.iter().try_for_each(|record| core.files.publish(record));
                let _ = published;
            }
            if !core.log.has_room(&records) {
                self.counts.switches += 1;
                if self.without == Without::SpreadBeforeReuse && core.log.switch().is_err() {
                    return;
                }
            }
            match core.commit(records) {
                Ok(_) => {
                    self.promised.extend(changes);
                    self.unknown.clear();
                }
                Err(Refused::TooLarge { .. }) => {}
                Err(Refused::Unchanged(_)) => self.counts.failures += 1,
                Err(Refused::Unknown(_)) => {
                    self.unknown.push(changes);
                    if self.without == Without::RefusalAfterUnknown {
                        core.refuses = None;
                        core.log.forget_failure();
                    }
                }
                Err(Refused::Closed(_)) => return,
            }
        }
    }

    /// One in five times a path, to be immutable.
    fn some_path(&mut self) -> Option<String> {
        let path = format!("{}/state", self.rng.u8(0..4));
        Some(path).filter(|_| self.rng.u8(0..5) == 0)
    }

    /// One to three changes: removals, or saves of a few bytes to some blocks.
    fn transaction(&mut self) -> (Vec<(String, Version)>, Vec<Record>) {
        let mut changes: Vec<(String, Version)> = Vec::new();
        let mut records = Vec::new();
        for _ in 0..self.rng.usize(1..4) {
            let path = format!("{}/state", self.rng.u8(0..4));
            if changes.iter().any(|(other, _)| *other == path) {
                continue;
            }
            let directory = DirectoryId { inode: 1, born: 1 };
            if self.rng.u8(0..6) == 0 {
                let (kind, mode, data) = (Kind::Remove, 0, Bytes::new());
                records.push(Record { kind, directory, mode, path: path.clone(), data });
                changes.push((path, REMOVED));
                continue;
            }
            let version = self.next;
            self.next += 1;
            let mut data = version.to_le_bytes().to_vec();
            data.resize(*self.rng.choice(&[4, 100, 3000, 9000]).unwrap_or(&4), version as u8);
            let (kind, mode, data) = (Kind::Replace, 0o600, Bytes::from(data));
            records.push(Record { kind, directory, mode, path: path.clone(), data });
            changes.push((path, version));
        }
        (changes, records)
    }

    /// The power goes, or only the process.
    fn crash(&mut self) {
        self.counts.crashes += 1;
        self.disk.crashed = false;
        if self.rng.u8(0..3) > 0 {
            self.disk.cut_power();
            self.world.cut_power();
        }
    }

    /// Opens the store and looks at everything; false if the power goes meanwhile.
    fn recover(&mut self) -> Result<bool, Wrong> {
        self.disk.until_crash = Some(self.rng.u32(1..8));
        self.world.is_kind = true;
        self.world.immutable = self.some_path();
        let scanned = self.scan()?;
        self.counts.replayed += scanned.live.len() as u64;
        let opened = Core::recover(&scanned, &mut self.disk, &mut self.world).is_ok();
        if opened {
            self.check()?;
        }
        Ok(opened)
    }

    /// What the store has of a path: what was set aside is newer than the file.
    fn found(&self, path: &str) -> Version {
        self.world.get(&aside(path)).or(self.world.get(path)).unwrap_or(REMOVED)
    }

    /// Is everything as it was promised?
    fn check(&mut self) -> Result<(), Wrong> {
        // Those of unknown fate are there up to one of them, and each wholly.
        let mut promised = self.promised.clone();
        let paths: Vec<String> = (0..4).map(|id| format!("{id}/state")).collect();
        let of = |versions: &BTreeMap<String, Version>, path: &String| {
            versions.get(path).copied().unwrap_or(REMOVED)
        };
        let as_promised = |promised: &BTreeMap<String, Version>| {
            paths.iter().all(|path| self.found(path) == of(promised, path))
        };
        for unknown in &self.unknown {
            if as_promised(&promised) {
                break;
            }
            promised.extend(unknown.iter().cloned());
        }
        if as_promised(&promised) {
            self.promised = promised;
            self.unknown.clear();
            return Ok(());
        }
        for path in paths {
            let (found, perhaps) = (self.found(&path), of(&promised, &path));
            let promised = of(&self.promised, &path);
            if found != promised && found != perhaps {
                return Err(Wrong::File { path, found, promised, perhaps });
            }
        }
        Err(Wrong::Torn((0..4).map(|id| self.found(&format!("{id}/state"))).collect()))
    }
}

/// Histories that every run of the tests goes through; `RINGSEAL_HISTORIES` asks for another number.
fn histories() -> u64 {
    let asked = std::env::var("RINGSEAL_HISTORIES").ok();
    asked.map_or(20_000, |asked| asked.parse().expect("a number of histories"))
}

#[test]
fn no_history_loses_or_invents_anything() {
    let histories = histories();
    let mut all = Counts::default();
    for seed in 0..histories {
        match run(seed, Without::Nothing) {
            Ok(counts) => {
                all.crashes += counts.crashes;
                all.replayed += counts.replayed;
                all.switches += counts.switches;
                all.failures += counts.failures;
            }
            Err(wrong) => panic!("seed {seed}: {wrong:?}"),
        }
    }
    println!("{all:?}");
    assert!(all.crashes > histories && all.replayed > histories, "{all:?}");
    assert!(all.switches > histories / 10 && all.failures > histories / 10, "{all:?}");
}

/// The model can lose something: without any one of the rules it does.
#[test]
fn every_rule_is_missed() {
    let rules = [
        Without::LogBeforePublishing,
        Without::SpreadBeforeReuse,
        Without::SyncBeforeNote,
        Without::FreshFilesAfterFailure,
        Without::CutOff,
        Without::DurableReplay,
        Without::MarkBeforeOverwriting,
        Without::FlushBeforeReading,
        Without::SettingAside,
        Without::RefusalAfterUnknown,
    ];
    for rule in rules {
        let caught = (0..histories()).find_map(|seed| Some((seed, run(seed, rule).err()?)));
        let (seed, wrong) = caught.unwrap_or_else(|| panic!("{rule:?} is not missed"));
        println!("{rule:?}: history {}: {wrong:?}", seed + 1);
    }
}
