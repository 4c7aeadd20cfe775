//! A store in memory: a disk that forgets, files whose contents are not synced, and random histories of
//! saves, failures, crashes and recoveries. The store's and the log's code is the real one; what is
//! modelled is the world around it, by the rules that a power cut may follow:
//!
//! - of a write that was under way, or that failed, any sectors may be on the disk, now or later;
//! - of a file that was replaced and not synced, the old version, the new one, or neither may be there;
//! - a sync that failed says nothing, and neither does a later one of the same pages.

mod disk;
mod world;

use std::collections::BTreeMap;

use bytes::Bytes;
use fastrand::Rng;

use super::{Core, Files, Refused};
use crate::store::log::format::{DirectoryId, Kind, Record};
use crate::store::log::left_out;
use crate::store::log::scan::{Damage, Scan, scan};
use disk::Disk;
use world::{World, aside};

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

/// A number that no other version has.
type Version = u32;

/// That there is no file.
const REMOVED: Version = 0;

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
    left_out::MARKS.set(without == Without::MarkBeforeOverwriting);
    left_out::CUT_OFF.set(without == Without::CutOff);
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
