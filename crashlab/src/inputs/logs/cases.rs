//! Logs: right ones, ones that say what cannot be, damaged ones, and things that do not belong to one.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{IDS, NAMES, SEGMENT};
use crate::inputs::segment::{BLOCK, Group, Record};
use crate::inputs::tree::Thing;

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub entries: Vec<Entry>,
    /// How many of them, from the first on, the files have.
    pub spread: usize,
    pub damages: Vec<Damage>,
    pub plants: Vec<Plant>,
    pub salvages: bool,
}

/// A group, and what is wrong with it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    changes: Vec<Change>,
    lie: Option<(Lie, u64)>,
}

#[derive(Debug, Clone)]
struct Change {
    kind: u8,
    path: String,
    fill: u8,
    len: usize,
}

/// Which field of a group's header says something else.
#[derive(Debug, Clone, Copy)]
enum Lie {
    Mark,
    Epoch,
    Seq,
    Follows,
    Durable,
    Spread,
    Segment,
    Block,
    Previous,
}

/// Bytes that are others than those written.
#[derive(Debug, Clone)]
pub(super) enum Damage {
    Flip(usize, Index, u8),
    Zero(usize, Index, usize),
    /// A block in the place of another.
    Copy(usize, Index, usize, Index),
    Truncate(usize, Index),
    Extend(usize, u64),
    Noise(usize, Index, Vec<u8>),
    /// The segments in each other's places.
    Swap,
}

/// What was put into the store's own directory.
#[derive(Debug, Clone)]
pub(super) enum Plant {
    Thing {
        path: String,
        thing: Thing,
        replaces: bool,
    },
    /// As if it had been set aside: of the container's directory, or of another.
    Aside {
        id: String,
        name: String,
        mode: u32,
        data: Vec<u8>,
        is_its: bool,
    },
}

impl Case {
    /// Says every group what is so?
    pub(super) fn is_right(&self) -> bool {
        let is_path = |change: &Change| {
            let parts = change.path.split_once('/');
            parts.is_some_and(|(id, name)| IDS.contains(&id) && NAMES.contains(&name))
        };
        let is_right = |entry: &Entry| entry.lie.is_none() && entry.changes.iter().all(is_path);
        self.entries.iter().all(is_right)
    }

    /// Its groups, one behind the other in one segment; and up to which number the files have them.
    pub(super) fn groups(&self, directories: &BTreeMap<&str, (u64, u64)>) -> (Vec<Group>, u64) {
        let first = Group {
            mark: 1,
            epoch: 7,
            seq: 100,
            follows: 99,
            durable: 99,
            spread: 99,
            segment: 0,
            block: 1,
            previous: 0,
            records: vec![],
        };
        let (mut block, mut previous) = (2, first.encode().1);
        let mut groups = vec![first];
        let mut spread = 99;
        for (index, entry) in self.entries.iter().enumerate() {
            let seq = 101 + index as u64;
            let record = |change: &Change| {
                let id = change.path.split('/').next().unwrap_or("");
                Record {
                    kind: change.kind,
                    mode: if change.kind == 1 { 0o600 } else { 0 },
                    path: change.path.clone(),
                    data: vec![change.fill; if change.kind == 1 { change.len } else { 0 }],
                    directory: directories.get(id).copied().unwrap_or((1, 1)),
                }
            };
            let mut records: Vec<Record> = entry.changes.iter().map(record).collect();
            // A group has one record of a path.
            records.sort_by(|one, other| one.path.cmp(&other.path));
            records.dedup_by(|one, other| one.path == other.path);
            let known = if index == self.spread { seq - 1 } else { spread };
            let mut group = Group {
                mark: 0,
                epoch: 7,
                seq,
                follows: seq - 1,
                durable: seq - 1,
                spread: known,
                segment: 0,
                block,
                previous,
                records,
            };
            if let Some((lie, by)) = &entry.lie {
                lie.to(&mut group, *by);
            }
            let (bytes, crc) = group.encode();
            let blocks = (bytes.len() / BLOCK) as u32;
            if (block + blocks) as usize > SEGMENT / BLOCK - 1 {
                break;
            }
            (block, previous, spread) = (block + blocks, crc, known);
            groups.push(group);
        }
        (groups, spread)
    }
}

impl Lie {
    fn to(self, group: &mut Group, by: u64) {
        // Near what is so, or anything.
        let shifted = |value: u64| match by % 4 {
            0 => value.wrapping_add(by >> 2 & 3),
            1 => value.wrapping_sub(by >> 2 & 3),
            2 => by,
            _ => u64::MAX - (by >> 2 & 3),
        };
        match self {
            Lie::Mark => group.mark = (by % 5) as u16,
            Lie::Epoch => group.epoch = shifted(group.epoch),
            Lie::Seq => group.seq = shifted(group.seq),
            Lie::Follows => group.follows = shifted(group.follows),
            Lie::Durable => group.durable = shifted(group.durable),
            Lie::Spread => group.spread = shifted(group.spread),
            Lie::Segment => group.segment = (by % 4) as u16,
            Lie::Block => group.block = (by % 17) as u32,
            Lie::Previous => group.previous = by as u32,
        }
    }
}

impl Damage {
    pub(super) fn to(&self, segments: &mut [Vec<u8>; 2]) {
        match self {
            Damage::Swap => segments.swap(0, 1),
            Damage::Extend(segment, by) => {
                let len = segments[*segment].len() + *by as usize;
                segments[*segment].resize(len, 0);
            }
            Damage::Copy(segment, from, other, to) => {
                let block =
                    |index: &Index, bytes: &[u8]| index.index((bytes.len() / BLOCK).max(1)) * BLOCK;
                let from = block(from, &segments[*segment]);
                let copy = segments[*segment].get(from..from + BLOCK).map(<[u8]>::to_vec);
                let to = block(to, &segments[*other]);
                if let (Some(copy), Some(place)) = (copy, segments[*other].get_mut(to..to + BLOCK))
                {
                    place.copy_from_slice(&copy);
                }
            }
            Damage::Flip(segment, index, bits) => {
                let bytes = &mut segments[*segment];
                if !bytes.is_empty() {
                    let at = near(index, bytes);
                    bytes[at] ^= bits;
                }
            }
            Damage::Zero(segment, index, len) => {
                let bytes = &mut segments[*segment];
                if !bytes.is_empty() {
                    let at = near(index, bytes);
                    let end = (at + len).min(bytes.len());
                    bytes[at..end].fill(0);
                }
            }
            Damage::Truncate(segment, index) => {
                let len = index.index(segments[*segment].len().max(1));
                segments[*segment].truncate(len);
            }
            Damage::Noise(segment, index, noise) => {
                let bytes = &mut segments[*segment];
                if !bytes.is_empty() {
                    let at = near(index, bytes);
                    let len = noise.len().min(bytes.len() - at);
                    bytes[at..at + len].copy_from_slice(&noise[..len]);
                }
            }
        }
    }
}

/// Where something stands, most often: in the first blocks.
fn near(index: &Index, bytes: &[u8]) -> usize {
    index.index(bytes.len().min(6 * BLOCK))
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let entries = vec(entry(), 0..7);
    let damages = prop_oneof![1 => Just(vec![]), 1 => vec(damage(), 1..4)];
    let plants = prop_oneof![1 => Just(vec![]), 1 => vec(plant(), 1..5)];
    (entries, 0..9usize, damages, plants, prop::bool::weighted(0.3)).prop_map(
        |(entries, spread, damages, plants, salvages)| Case {
            entries,
            spread,
            damages,
            plants,
            salvages,
        },
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    let lies = &[
        Lie::Mark,
        Lie::Epoch,
        Lie::Seq,
        Lie::Follows,
        Lie::Durable,
        Lie::Spread,
        Lie::Segment,
        Lie::Block,
        Lie::Previous,
    ][..];
    let lie = prop_oneof![
        8 => Just(None),
        1 => (select(lies), any::<u64>()).prop_map(Some),
    ];
    (vec(change(), 1..4), lie).prop_map(|(changes, lie)| Entry { changes, lie })
}

fn change() -> impl Strategy<Value = Change> {
    let bad = &[
        "../outside/state.json",
        "/etc/passwd",
        "..",
        "a",
        "",
        "a/../b",
        ".ringseal/lock",
        ".RINGSEAL/log",
        "a/b/c",
        "d/state.json",
    ][..];
    let path = prop_oneof![
        30 => (select(&IDS[..]), select(&NAMES[..])).prop_map(|(id, name)| format!("{id}/{name}")),
        1 => select(bad).prop_map(str::to_owned),
    ];
    let kind = prop_oneof![12 => Just(1u8), 2 => Just(2u8), 1 => Just(3u8)];
    let len = prop_oneof![8 => 0..100usize, 1 => 3000..9000usize];
    (kind, path, any::<u8>(), len).prop_map(|(kind, path, fill, len)| Change {
        kind,
        path,
        fill,
        len,
    })
}

fn damage() -> impl Strategy<Value = Damage> {
    let segment = || prop_oneof![3 => Just(0usize), 1 => Just(1usize)];
    let index = any::<Index>;
    prop_oneof![
        3 => (segment(), index(), 1..=255u8).prop_map(|(at, index, bits)| Damage::Flip(at, index, bits)),
        2 => (segment(), index(), 1..5000usize).prop_map(|(at, index, len)| Damage::Zero(at, index, len)),
        2 => (segment(), index(), segment(), index())
            .prop_map(|(from, which, to, whither)| Damage::Copy(from, which, to, whither)),
        1 => (segment(), index()).prop_map(|(at, index)| Damage::Truncate(at, index)),
        1 => (segment(), 1..10_000u64).prop_map(|(at, by)| Damage::Extend(at, by)),
        2 => (segment(), index(), vec(any::<u8>(), 1..64))
            .prop_map(|(at, index, noise)| Damage::Noise(at, index, noise)),
        1 => Just(Damage::Swap),
    ]
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        2 => Just(Thing::Directory),
        2 => Just(Thing::Fifo),
        1 => Just(Thing::Link(b"../../outside".to_vec())),
        1 => Just(Thing::Link(b"lock".to_vec())),
        1 => Just(Thing::Link(b"/etc/passwd".to_vec())),
        2 => vec(any::<u8>(), 0..50).prop_map(|data| Thing::File { mode: 0o600, data }),
        1 => Just(Thing::File { mode: 0o644, data: b"open to all".to_vec() }),
    ]
}

fn plant() -> impl Strategy<Value = Plant> {
    let names = &[
        "lock",
        "log",
        "log/log.0",
        "log/log.1",
        "log/log.2",
        "log.new",
        "log.new/log.0",
        "log.damaged-1",
        "unplaced",
        "unplaced/a",
        "unplaced/a/1-2-0",
        "unplaced/a/1-2-0/state.json",
        "unplaced/a/x/state.json",
        "unplaced/..x/1-2-0/state.json",
        "theirs",
        ".ringseal-1-0000000000000001-00000000000000000000000000000002-3-4-5-6-0000000000000007",
    ][..];
    let thing = (select(names), thing(), any::<bool>()).prop_map(|(path, thing, replaces)| {
        Plant::Thing { path: path.to_owned(), thing, replaces }
    });
    let mode = select(&[0u32, 0o400, 0o600, 0o644][..]);
    let data = vec(any::<u8>(), 0..30);
    let aside = (select(&IDS[..]), select(&NAMES[..]), mode, data, any::<bool>()).prop_map(
        |(id, name, mode, data, is_its)| {
            let (id, name) = (id.to_owned(), name.to_owned());
            Plant::Aside { id, name, mode, data, is_its }
        },
    );
    prop_oneof![2 => thing, 1 => aside]
}
