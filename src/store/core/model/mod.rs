//! A store in memory: a disk that forgets, files whose contents are not synced, and random histories of
//! saves, failures, crashes and recoveries. The store's and the log's code is the real one; what is
//! modelled is the world around it, by the rules that a power cut may follow:
//!
//! - of a write that was under way, or that failed, any sectors may be on the disk, now or later;
//! - of a file that was replaced and not synced, the old version, the new one, or neither may be there;
//! - a sync that failed says nothing, and neither does a later one of the same pages.

mod disk;
mod fate;
mod tests;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use rustix::io::Errno;

use super::unpublished::{Failed, Portion};
use super::{
    Core, Files, NotCommitted, Published, Refused, Room, Spreading, Visible, mark, replay,
};
use crate::left_out::{Rule, left_out, without};
use crate::store::log::Log;
use crate::store::log::format::{DirectoryId, Kind, Record, blocks_for};
use crate::store::log::scan::{Damage, Scan, scan};
use disk::Disk;
use fate::Fate;
use world::{Syncing, World};

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
    /// A file is not as it was promised to be; `None` is a file that holds no version of its own.
    File { path: String, found: Option<Version>, promised: Version, perhaps: Version },
    /// A part of a transaction is there.
    Torn(Vec<Option<Version>>),
}

/// What one history has been through.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    crashes: u64,
    replayed: u64,
    turns: u64,
    failures: u64,
    spreads: u64,
    remakes: u64,
    beside: u64,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.crashes += other.crashes;
        self.replayed += other.replayed;
        self.turns += other.turns;
        self.failures += other.failures;
        self.spreads += other.spreads;
        self.remakes += other.remakes;
        self.beside += other.beside;
    }
}

/// Changes of paths, each to a version.
type Changes = Vec<(String, Version)>;

#[derive(Clone)]
struct History {
    disk: Disk,
    world: World,
    rng: Rng,
    /// What every caller was told is there.
    promised: BTreeMap<String, Version>,
    /// Paths whose directory somebody else has removed since.
    removed: BTreeSet<String>,
    /// Changes whose fate is not known, in their order.
    unknown: Vec<Changes>,
    next: Version,
    counts: Counts,
    /// How many containers there are, and how many things happen in one life.
    containers: u8,
    longest: u32,
}

/// Runs one history of saves and crashes, and counts what it goes through.
fn run(seed: u64, rule: Option<Rule>, counts: &mut Counts) -> Result<(), Wrong> {
    let _without = without(rule);
    let mut history = History::new(seed);
    let went = history.run();
    counts.add(history.counts);
    went
}

/// Runs a short history up to one power cut, and looks at each state that this one can leave, and at those that
/// it leaves when the recovery is cut off itself, and so on. So many states; `None` if they are too many.
fn run_each_state(seed: u64, rule: Option<Rule>) -> Result<Option<u64>, Wrong> {
    let _without = without(rule);
    let mut history = History::new(seed);
    (history.containers, history.longest) = (2, 5);
    history.disk.fails = *history.rng.choice(&[0, 0, 4]).unwrap_or(&0);
    history.live()?;
    history.disk.crashed = false;
    let (mut fate, mut states) = (Fate::first(), 0);
    loop {
        let mut after = history.clone();
        after.disk.cut_power(&mut fate);
        after.world.cut_power(&mut fate);
        states += 1;
        if states > STATES_MAX {
            return Ok(None);
        }
        while !after.recover()? {
            states += 1;
            after.crash();
        }
        if !fate.advance() {
            return Ok(Some(states));
        }
    }
}

/// States of one history, at most.
const STATES_MAX: u64 = 20_000;

impl History {
    fn new(seed: u64) -> History {
        let mut rng = Rng::with_seed(seed);
        let disk = Disk::new(rng.usize(5..14), rng.fork());
        let world = World::new(rng.fork());
        let mut history = History {
            disk,
            world,
            rng,
            promised: BTreeMap::new(),
            removed: BTreeSet::new(),
            unknown: Vec::new(),
            next: 1,
            counts: Counts::default(),
            containers: 4,
            longest: 40,
        };
        history.disk.fails = *history.rng.choice(&[0, 0, 30, 8]).unwrap_or(&0);
        history
    }
}

type Opened<'a> = Core<&'a mut Disk, &'a mut World>;

/// What others do while the store saves.
#[derive(Default)]
struct UnderWay {
    spreading: Option<(Spreading, Syncing)>,
    publishing: Option<Publishing>,
}

/// How far somebody has come who publishes.
enum Publishing {
    Taken(Portion),
    Done(Portion, Published),
    Noted(Vec<Failed>),
}

impl UnderWay {
    /// Begins to publish, or publishes, or tells what came of it.
    fn publish(&mut self, core: &mut Opened<'_>, max: usize) {
        self.publishing = match self.publishing.take() {
            None => Some(Publishing::Taken(core.unpublished.first(max))),
            Some(Publishing::Taken(portion)) => {
                let records: Vec<Arc<Record>> =
                    portion.iter().map(|(record, _)| Arc::clone(record)).collect();
                let published = core.files.publish(&records);
                Some(Publishing::Done(portion, published))
            }
            Some(Publishing::Done(portion, published)) => {
                Some(Publishing::Noted(core.unpublished.note(portion, published)))
            }
            Some(Publishing::Noted(failed)) => {
                core.hide(failed);
                None
            }
        };
    }

    /// Whoever changes files otherwise waits for its end.
    fn end_publishing(&mut self, core: &mut Opened<'_>) {
        while self.publishing.is_some() {
            self.publish(core, 0);
        }
    }
}

/// Puts into the files what the log has and they may lack, and goes on in the log behind it, as who opens a
/// store does.
fn open<'a>(
    scan: &Scan,
    disk: &'a mut Disk,
    mut world: &'a mut World,
) -> Result<Opened<'a>, Errno> {
    // Another process knows no file of before.
    world.doubtful = false;
    let hidden = replay::replay(scan, &mut world)?;
    Ok(Core::new(Log::begin(disk, scan)?, world, hidden))
}

impl History {
    fn scan(&mut self) -> Result<Scan, Wrong> {
        if !left_out(Rule::FlushBeforeReading) {
            self.disk.flush();
        }
        let scan = scan([&self.disk.bytes(0), &self.disk.bytes(1)]).map_err(Wrong::Refused)?;
        scan.damage.clone().map_or(Ok(scan), |damage| Err(Wrong::Refused(damage)))
    }

    fn run(&mut self) -> Result<(), Wrong> {
        for _ in 0..self.rng.u32(1..8) {
            self.live()?;
            self.crash();
            // Until a recovery is not cut off itself.
            while !self.recover()? {
                self.crash();
            }
            self.crash();
        }
        Ok(())
    }

    /// Opens the store and saves until the power goes.
    fn live(&mut self) -> Result<(), Wrong> {
        self.disk.until_crash = Some(self.rng.u32(1..25));
        self.world.is_kind = false;
        self.world.immutable = self.some_path();
        let scanned = self.scan()?;
        let (mut disk, mut world) = (self.disk.clone(), self.world.clone());
        let lives = open(&scanned, &mut disk, &mut world);
        if let Ok(mut core) = lives {
            self.save_until_the_end(&mut core);
        }
        self.removed.extend(std::mem::take(&mut world.meddled));
        (self.disk, self.world) = (disk, world);
        Ok(())
    }

    fn save_until_the_end(&mut self, core: &mut Opened<'_>) {
        let mut under_way = UnderWay::default();
        for _ in 0..self.rng.u32(1..self.longest) {
            core.files.immutable = self.some_path();
            let goes_on = match self.rng.u8(0..20) {
                0..3 => self.spread(core, &mut under_way),
                3 => {
                    self.remake(core);
                    true
                }
                4 => self.save_beside(core, &mut under_way),
                5..8 => {
                    let max = self.rng.usize(1..3);
                    under_way.publish(core, max);
                    true
                }
                _ => self.save(core, &mut under_way),
            };
            self.removed.extend(std::mem::take(&mut core.files.meddled));
            if !goes_on {
                return;
            }
        }
    }

    /// Begins to spread, or ends it, or does it all.
    fn spread(&mut self, core: &mut Opened<'_>, under_way: &mut UnderWay) -> bool {
        self.counts.spreads += 1;
        under_way.end_publishing(core);
        if under_way.spreading.is_none() {
            match core.begin_spread() {
                Ok(Some(spreading)) => {
                    under_way.spreading = Some((spreading, core.files.begin_sync()));
                }
                Ok(None) => {}
                Err(_) => return false,
            }
            if self.rng.bool() {
                return true;
            }
        }
        if let Some((spreading, syncing)) = under_way.spreading.take() {
            let synced = core.files.end_sync(&syncing).map(|()| Vec::new());
            if core.end_spread(spreading, synced).is_err() {
                return false;
            }
        }
        self.rng.bool() || core.note_spread().is_ok()
    }

    /// Makes room, as who opens a store does: what spreads already is waited for.
    fn make_room(
        &mut self,
        core: &mut Opened<'_>,
        records: &[Record],
        under_way: &mut UnderWay,
    ) -> Option<bool> {
        loop {
            let segment = core.log.segment();
            let room = core.room_for(blocks_for(records));
            self.counts.turns += u64::from(core.log.segment() != segment);
            match room {
                Ok(Room::Here) => return Some(true),
                Ok(Room::Never { .. }) => return Some(false),
                Ok(Room::AfterSpreading) => {
                    // As who spreads does.
                    under_way.end_publishing(core);
                    while core.publish_some(1) {}
                    if !self.spread(core, under_way) {
                        return None;
                    }
                }
                Err(_) => return None,
            }
        }
    }

    fn save(&mut self, core: &mut Opened<'_>, under_way: &mut UnderWay) -> bool {
        let count = self.rng.usize(1..3);
        let batch: Vec<(Changes, Vec<Record>)> = (0..count).map(|_| self.transaction()).collect();
        let records: Vec<Record> = batch.iter().flat_map(|(_, records)| records.clone()).collect();
        match self.make_room(core, &records, under_way) {
            Some(true) => {}
            Some(false) => return true,
            None => return false,
        }
        let (changes, transactions): (Vec<Changes>, Vec<Vec<Record>>) = batch.into_iter().unzip();
        let mut unknown = Changes::new();
        let removes = records.iter().any(|record| record.kind == Kind::Remove);
        let visible = if removes || self.rng.bool() { Visible::Now } else { Visible::Later };
        if visible == Visible::Now {
            under_way.end_publishing(core);
        }
        let answers = core.commit(transactions, visible);
        for (changes, answer) in changes.into_iter().zip(answers) {
            match answer {
                Ok(_) => self.promise(changes),
                Err(NotCommitted::Refused(Refused::Unknown(_))) => unknown.extend(changes),
                Err(NotCommitted::Refused(Refused::Closed(_))) => return false,
                Err(_) => self.counts.failures += 1,
            }
        }
        if !unknown.is_empty() {
            // They are in one group.
            self.unknown.push(unknown);
        }
        true
    }

    /// Saves one file durably, beside the log.
    fn save_beside(&mut self, core: &mut Opened<'_>, under_way: &mut UnderWay) -> bool {
        let path = self.path();
        if core.files.immutable.as_ref() == Some(&path) {
            return true;
        }
        self.counts.beside += 1;
        under_way.end_publishing(core);
        let version = self.version();
        if self.make_room(core, &[mark(&path)], under_way) != Some(true) {
            return false;
        }
        // From here on it may be there.
        self.unknown.push(vec![(path.clone(), version)]);
        core.files.save_durably(&path, version);
        if core.forget(&[&path]).is_err() {
            return false;
        }
        self.promise(vec![(path, version)]);
        true
    }

    /// Somebody else removes a directory, and may make it again.
    fn remake(&mut self, core: &mut Opened<'_>) {
        self.counts.remakes += 1;
        let path = self.path();
        core.files.remake(&path);
        self.removed.insert(path);
    }

    fn promise(&mut self, changes: Changes) {
        for (path, _) in &changes {
            self.removed.remove(path);
        }
        self.promised.extend(changes);
        self.unknown.clear();
    }

    fn path(&mut self) -> String {
        format!("{}/state", self.rng.u8(0..self.containers))
    }

    /// One in five times a path, to be immutable.
    fn some_path(&mut self) -> Option<String> {
        Some(self.path()).filter(|_| self.rng.u8(0..5) == 0)
    }

    fn version(&mut self) -> Version {
        self.next += 1;
        self.next
    }

    /// One to three changes: removals, or saves of a few bytes to some blocks.
    fn transaction(&mut self) -> (Changes, Vec<Record>) {
        let mut changes = Changes::new();
        for _ in 0..self.rng.usize(1..4) {
            let path = self.path();
            if changes.iter().all(|(other, _)| *other != path) {
                let removes = self.rng.u8(0..6) == 0;
                let version = if removes { REMOVED } else { self.version() };
                changes.push((path, version));
            }
        }
        let record = |(path, version): &(String, Version)| {
            let (path, directory) = (path.as_str().into(), DirectoryId::default());
            if *version == REMOVED {
                let (kind, mode, data) = (Kind::Remove, 0, Bytes::new());
                return Record { kind, directory, mode, path, data, transaction: 0 };
            }
            let mut data = version.to_le_bytes().to_vec();
            data.resize(*self.rng.choice(&[4, 100, 3000, 9000]).unwrap_or(&4), *version as u8);
            let (kind, mode, data) = (Kind::Replace, 0o600, Bytes::from(data));
            Record { kind, directory, mode, path, data, transaction: 0 }
        };
        let records = changes.iter().map(record).collect();
        (changes, records)
    }

    /// The power goes, or only the process.
    fn crash(&mut self) {
        self.counts.crashes += 1;
        self.disk.crashed = false;
        if self.rng.u8(0..3) > 0 {
            let mut fate = Fate::Chance(self.rng.fork());
            self.disk.cut_power(&mut fate);
            self.world.cut_power(&mut fate);
        }
    }

    /// Opens the store and looks at everything; false if the power goes meanwhile.
    fn recover(&mut self) -> Result<bool, Wrong> {
        self.disk.until_crash = Some(self.rng.u32(1..8));
        self.world.is_kind = true;
        self.world.immutable = self.some_path();
        let scanned = self.scan()?;
        self.counts.replayed += scanned.live.len() as u64;
        let opened = open(&scanned, &mut self.disk, &mut self.world).is_ok();
        if opened {
            self.check()?;
        }
        Ok(opened)
    }

    /// Is everything as it was promised?
    fn check(&mut self) -> Result<(), Wrong> {
        let paths: Vec<String> = (0..4).map(|id| format!("{id}/state")).collect();
        let of = |versions: &BTreeMap<String, Version>, path: &String| {
            versions.get(path).copied().unwrap_or(REMOVED)
        };
        let is_as = |versions: &BTreeMap<String, Version>, path: &String| {
            let found = self.world.found(path);
            let may_be_gone = self.removed.contains(path) && found == Some(REMOVED);
            found == Some(of(versions, path)) || may_be_gone
        };
        // Those of unknown fate are there up to one of them, and each wholly.
        let mut promised = self.promised.clone();
        for unknown in &self.unknown {
            if paths.iter().all(|path| is_as(&promised, path)) {
                break;
            }
            promised.extend(unknown.iter().cloned());
        }
        if paths.iter().all(|path| is_as(&promised, path)) {
            // What was found is what is there from now on.
            self.promised = paths
                .iter()
                .map(|path| (path.clone(), self.world.found(path).unwrap_or(0)))
                .collect();
            self.unknown.clear();
            // And so is what somebody else has removed.
            for path in std::mem::take(&mut self.removed) {
                self.world.sync_directory(&path);
            }
            return Ok(());
        }
        for path in &paths {
            if !is_as(&self.promised, path) && !is_as(&promised, path) {
                let (found, perhaps) = (self.world.found(path), of(&promised, path));
                let (promised, path) = (of(&self.promised, path), path.clone());
                return Err(Wrong::File { path, found, promised, perhaps });
            }
        }
        Err(Wrong::Torn(paths.iter().map(|path| self.world.found(path)).collect()))
    }
}
