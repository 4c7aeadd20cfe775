//! The log as it is written, and its reader against every kind of bytes. What power cuts do to it is the
//! model's, in `store/core/model/`.

use bytes::Bytes;
use proptest::prelude::*;
use rustix::io::Errno;

use super::format::{
    BLOCK, DirectoryId, GROUP_HEADER, GroupHeader, Kind, NotASegment, Record, SegmentHeader,
    VERSION, blocks_for, is_path,
};
use super::scan::{Damage, Scan, scan};
use super::{AppendError, Log, Medium};

/// A disk that does what it is asked for, unless it is told to fail.
#[derive(Debug, Clone)]
struct Disk {
    segments: [Vec<u8>; 2],
    fails: u32,
}

impl Disk {
    fn new(blocks: usize) -> Disk {
        let segment = |index| {
            let bytes = (blocks * BLOCK) as u64;
            let mut segment = SegmentHeader { log_id: *b"0123456789abcdef", index, bytes }.encode();
            segment.resize(blocks * BLOCK, 0);
            segment
        };
        Disk { segments: [segment(0), segment(1)], fails: 0 }
    }

    fn scan(&self) -> Result<Scan, Damage> {
        let scan = scan([&self.segments[0], &self.segments[1]])?;
        scan.damage.clone().map_or(Ok(scan), Err)
    }

    /// The numbers of all groups, whatever they are worth.
    fn numbers(&self) -> Vec<u64> {
        let blocks = self.segments.iter().flat_map(|segment| segment.chunks_exact(BLOCK));
        blocks.filter_map(GroupHeader::decode).map(|(header, _)| header.seq).collect()
    }
}

impl Medium for &mut Disk {
    fn write(&mut self, segment: usize, block: u32, bytes: &[u8]) -> Result<(), Errno> {
        let at = block as usize * BLOCK;
        self.segments[segment][at..at + bytes.len()].copy_from_slice(bytes);
        if self.fails > 0 {
            self.fails -= 1;
            return Err(Errno::IO);
        }
        Ok(())
    }
}

fn record(id: &str, data: &[u8]) -> Record {
    Record {
        kind: Kind::Replace,
        directory: DirectoryId { inode: 12, born: 34, handle: 56 },
        mode: 0o600,
        path: format!("{id}/state.json").into(),
        data: Bytes::copy_from_slice(data),
        transaction: 0,
    }
}

fn spread_and_turn(log: &mut Log<&mut Disk>) {
    log.spread_to(log.last());
    log.turn().unwrap();
}

/// The data of all records that count.
fn data(scan: &Scan) -> Vec<Bytes> {
    scan.live.iter().flat_map(|group| &group.records).map(|record| record.data.clone()).collect()
}

/// A log of three groups, the last of two records.
fn three_groups() -> Disk {
    let mut disk = Disk::new(10);
    let scanned = disk.scan().unwrap();
    let mut log = Log::begin(&mut disk, &scanned).unwrap();
    log.append(&[record("a", b"one")]).unwrap();
    log.append(&[record("a", &[b'2'; 5000])]).unwrap();
    log.append(&[record("a", b"three"), record("b", b"")]).unwrap();
    disk
}

#[test]
fn what_was_appended_is_found() {
    let disk = three_groups();
    let scanned = disk.scan().unwrap();
    assert_eq!(data(&scanned), [&b"one"[..], &[b'2'; 5000], b"three", b""]);
    let records: Vec<&Record> = scanned.live.iter().flat_map(|group| &group.records).collect();
    assert_eq!(*records[0], record("a", b"one"));
    assert_eq!(scanned.torn, []);
}

#[test]
fn what_is_spread_is_not_found_again() {
    let mut disk = three_groups();
    let scanned = disk.scan().unwrap();
    let mut log = Log::begin(&mut disk, &scanned).unwrap();
    log.append(&[record("c", b"new")]).unwrap();
    assert_eq!(data(&disk.scan().unwrap()), [&b"new"[..]]);
    let scanned = disk.scan().unwrap();
    let mut log = Log::begin(&mut disk, &scanned).unwrap();
    log.append(&[record("c", b"newer")]).unwrap();
    log.spread_to(log.last());
    log.note_spread().unwrap();
    assert_eq!(data(&disk.scan().unwrap()), [] as [&[u8]; 0]);
}

/// A write that failed is on the disk all the same; whoever was told that it is not must be right.
#[test]
fn a_failed_write_is_cut_off() {
    let mut disk = three_groups();
    let scanned = disk.scan().unwrap();
    let mut log = Log::begin(&mut disk, &scanned).unwrap();
    log.append(&[record("a", b"before")]).unwrap();
    log.medium.fails = 1;
    let failed = log.append(&[record("a", b"failed")]);
    assert_eq!(failed, Err(AppendError::NotWritten(Errno::IO)));
    log.append(&[record("a", b"behind")]).unwrap();
    assert_eq!(data(&log.medium.scan().unwrap()), [&b"before"[..], b"behind"]);
    // The other segment holds what counts: a second failure cannot be cut off, and ends the log.
    log.medium.fails = 1;
    let failed = log.append(&[record("a", b"again")]);
    assert_eq!(failed, Err(AppendError::Unknown(Errno::IO)));
    let refused = log.append(&[record("a", b"more")]);
    assert_eq!(refused, Err(AppendError::Refused(Errno::IO)));
    assert_eq!(log.turn(), Err(Errno::IO));
    // What has failed has used its number up.
    let mut numbers = disk.numbers();
    numbers.sort();
    let used = numbers.len();
    numbers.dedup();
    assert_eq!(numbers.len(), used, "{numbers:?}");
}

/// The group that cuts a failed one off is itself torn: the failed one is void all the same.
#[test]
fn a_torn_cut_off_still_cuts_off() {
    let mut disk = three_groups();
    let scanned = disk.scan().unwrap();
    let mut log = Log::begin(&mut disk, &scanned).unwrap();
    log.append(&[record("a", b"before")]).unwrap();
    let segment = log.segment;
    log.medium.fails = 1;
    log.append(&[record("a", b"failed")]).unwrap_err();
    assert_ne!(log.segment, segment);
    disk.segments[1 - segment][2 * BLOCK - 1] ^= 1;
    assert_eq!(data(&disk.scan().unwrap()), [&b"before"[..]]);
}

#[test]
fn what_a_reader_would_not_take_is_not_written() {
    let mut disk = Disk::new(8);
    let scanned = disk.scan().unwrap();
    let mut log = Log::begin(&mut disk, &scanned).unwrap();
    let good = record("a", b"x");
    let unfit = [
        Record { mode: 0o100600, ..good.clone() },
        Record { path: "a/../b".into(), ..good.clone() },
        Record { path: "/etc/passwd".into(), ..good.clone() },
        Record { path: format!("{}/b", "a".repeat(70_000)).into(), ..good.clone() },
        Record { kind: Kind::Remove, ..good.clone() },
        record("a", &vec![b'x'; 8 * BLOCK]),
    ];
    for record in unfit {
        assert_eq!(
            log.append(&[good.clone(), record.clone()]),
            Err(AppendError::Unfit),
            "{record:?}"
        );
    }
    log.append(&[good]).unwrap();
    assert_eq!(data(&disk.scan().unwrap()), [&b"x"[..]]);
}

/// The place of a group holds one of the same shape from before: if only the first block of the new one
/// reaches the disk, the rest of the old one does not complete it.
#[test]
fn an_old_group_does_not_complete_a_torn_one() {
    // The second record begins with the second block.
    let fill = BLOCK - GROUP_HEADER - record("a", b"").encoded_len();
    let pair = |version: u8| [record("a", &vec![version; fill]), record("b", &[version; 9])];
    let mut disk = Disk::new(8);
    let scanned = disk.scan().unwrap();
    let mut log = Log::begin(&mut disk, &scanned).unwrap();
    log.append(&pair(1)).unwrap();
    let old = log.medium.clone();
    spread_and_turn(&mut log);
    spread_and_turn(&mut log);
    log.append(&pair(2)).unwrap();
    let second = 3 * BLOCK..4 * BLOCK;
    assert_eq!(data(&disk.scan().unwrap())[1], Bytes::from(vec![2; 9]));
    disk.segments[0][second.clone()].copy_from_slice(&old.segments[0][second]);
    assert_eq!(data(&disk.scan().unwrap()), [] as [&[u8]; 0]);
}

#[test]
fn a_full_segment_takes_a_mark_but_no_group() {
    let mut disk = Disk::new(8);
    let scanned = disk.scan().unwrap();
    let mut log = Log::begin(&mut disk, &scanned).unwrap();
    let one = [record("a", b"x")];
    let mut groups = 0;
    while log.has_room(blocks_for(&one)) {
        log.append(&one).unwrap();
        groups += 1;
    }
    assert_eq!(groups, log.group_max());
    log.spread_to(log.last());
    log.note_spread().unwrap();
    log.note_spread().unwrap();
    spread_and_turn(&mut log);
    let largest = [record("a", &vec![b'x'; log.group_max() * BLOCK - 200])];
    assert!(log.has_room(blocks_for(&largest)));
    log.append(&largest).unwrap();
    assert_eq!(data(&disk.scan().unwrap()), [largest[0].data.clone()]);
}

/// Each byte of a log in turn: what is found is the same, or an end that was never promised, or it is
/// refused. Never anything else.
#[test]
fn no_flipped_byte_is_believed() {
    let disk = three_groups();
    let scanned = disk.scan().unwrap();
    let whole = data(&scanned);
    let promised = scanned.live[scanned.live.len() - 2].header.seq;
    let used = 7 * BLOCK;
    let mut ends = 0;
    for segment in 0..2 {
        // All of the headers, and a sample of what else there is.
        for at in (0..used).filter(|at| at % BLOCK < 170 || at % 13 == 0) {
            let mut flipped = disk.clone();
            flipped.segments[segment][at] ^= 0x10;
            match flipped.scan() {
                // The last group has no witness behind it.
                Ok(scanned) if data(&scanned) == whole[..2] => ends += 1,
                Ok(scanned) => assert_eq!(data(&scanned), whole, "segment {segment}, byte {at}"),
                Err(Damage::Hole { durable, .. }) => assert_eq!(durable, promised),
                Err(Damage::Segment(..)) => assert!(at < 64),
                Err(other) => panic!("segment {segment}, byte {at}: {other:?}"),
            }
        }
    }
    assert!(ends > 170, "the end of the log is torn if its last group is");
}

/// Blocks that go back to what they were before, as a lost write leaves them.
#[test]
fn no_lost_block_is_overlooked() {
    let disk = three_groups();
    let whole = data(&disk.scan().unwrap());
    for block in 1..7 {
        let mut lost = disk.clone();
        lost.segments[0][block * BLOCK..(block + 1) * BLOCK].fill(0);
        match lost.scan() {
            Ok(scanned) => {
                let found = data(&scanned);
                assert!(found == whole || found == whole[..2], "block {block}: {found:?}");
            }
            Err(damage) => {
                assert!(matches!(damage, Damage::Hole { .. }), "block {block}: {damage:?}")
            }
        }
    }
}

/// What stands behind the end of a log: whatever was there before.
#[test]
fn the_end_is_found_whatever_stands_behind_it() {
    let expected = three_groups().scan().unwrap();
    let end = 6;
    let copy_of = |disk: &Disk, block: usize| disk.segments[0][block * BLOCK..][..BLOCK].to_vec();
    let mut gallery: Vec<(&str, Vec<u8>)> = vec![
        ("ones", vec![0xff; BLOCK]),
        ("text", b"RSG1 is how a group begins".repeat(200)[..BLOCK].to_vec()),
    ];
    let disk = three_groups();
    for block in 0..end {
        gallery.push(("a copy of another block", copy_of(&disk, block)));
    }
    let (header, _) = GroupHeader::decode(&copy_of(&disk, 2)).unwrap();
    let body_crc = crc32c::crc32c(&[0; BLOCK - GROUP_HEADER]);
    let empty = GroupHeader { blocks: 1, records: 0, body_len: 0, body_crc, ..header };
    for wrong in [
        GroupHeader { block: end as u32, log: 1, ..header },
        GroupHeader { block: end as u32, blocks: u32::MAX, seq: 50, follows: 49, ..header },
        GroupHeader { block: end as u32, body_len: u32::MAX, seq: 5, follows: 4, ..header },
        GroupHeader { block: end as u32, seq: 5, follows: 4, previous: 1, ..empty },
        GroupHeader { block: end as u32, seq: 3, follows: 3, ..header },
        GroupHeader { block: end as u32, seq: 5000, follows: 4999, spread_seq: 6000, ..empty },
        GroupHeader { block: end as u32, seq: 5000, follows: 1, durable_seq: 4999, ..empty },
        GroupHeader { block: end as u32, seq: u64::MAX, epoch: u64::MAX, ..empty },
        GroupHeader { block: end as u32, segment: 1, seq: 5, follows: 4, ..header },
    ] {
        let mut block = vec![0; BLOCK];
        block[..GROUP_HEADER].copy_from_slice(&wrong.encode().0);
        gallery.push(("a header that is whole and wrong", block));
    }
    for (what, block) in gallery {
        let mut disk = three_groups();
        disk.segments[0][end * BLOCK..][..BLOCK].copy_from_slice(&block);
        match disk.scan() {
            Ok(scanned) => {
                assert_eq!(data(&scanned), data(&expected), "{what}");
                assert_eq!(scanned.live.len(), expected.live.len(), "{what}");
            }
            Err(damage) => panic!("{what}: {damage}"),
        }
    }
}

/// Somebody saves a log as his state: a copy of this very log in its own payload, wherever it falls.
#[test]
fn a_log_in_a_log_is_data() {
    let inner = three_groups().segments[0].clone();
    for shift in [0, 1, BLOCK - 200, BLOCK - 160] {
        let mut disk = Disk::new(40);
        let scanned = disk.scan().unwrap();
        let mut log = Log::begin(&mut disk, &scanned).unwrap();
        let mut state = vec![b' '; shift];
        state.extend(&inner);
        log.append(&[record("a", &state)]).unwrap();
        assert_eq!(data(&disk.scan().unwrap()), [Bytes::from(state)]);
    }
}

/// He even knows the log's id, and writes groups that stand where they say.
#[test]
fn a_forged_group_in_a_payload_is_data() {
    let mut disk = Disk::new(40);
    let scanned = disk.scan().unwrap();
    let mut log = Log::begin(&mut disk, &scanned).unwrap();
    let header_of = |block: u32| {
        let id = u64::from_le_bytes(*b"01234567");
        let (seq, follows) = (1000 + u64::from(block), 2);
        GroupHeader {
            mark: super::format::Mark::Records,
            records: 0,
            log: id,
            epoch: 9,
            seq,
            follows,
            durable_seq: 900,
            spread_seq: 900,
            segment: 0,
            block,
            blocks: 1,
            body_len: 0,
            previous: 0,
            body_crc: crc32c::crc32c(&[0; BLOCK - GROUP_HEADER]),
        }
    };
    let mut state = vec![0; 6 * BLOCK - 160];
    for block in 1..6_u32 {
        let at = block as usize * BLOCK - 160;
        state[at..at + GROUP_HEADER].copy_from_slice(&header_of(2 + block).encode().0);
    }
    log.append(&[record("a", &state)]).unwrap();
    assert_eq!(data(&disk.scan().unwrap()), [Bytes::from(state)]);
}

#[test]
fn another_version_is_told_and_refused() {
    let mut disk = three_groups();
    disk.segments[1][8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let newer = Damage::Segment(1, NotASegment::Version(VERSION + 1));
    assert_eq!(disk.scan().unwrap_err(), newer);
    let mut disk = three_groups();
    disk.segments.swap(0, 1);
    assert_eq!(disk.scan().unwrap_err(), Damage::NotAPair);
    let short = scan([&disk.segments[1][..9 * BLOCK], &disk.segments[0]]);
    assert_eq!(short.unwrap_err(), Damage::NotAPair);
    assert_eq!(scan([&[], &[]]).unwrap_err(), Damage::Segment(0, NotASegment::Foreign));
}

#[test]
fn a_path_is_an_id_and_a_name() {
    for good in ["a/b", "web-1/state.json", "a b/ö"] {
        assert!(is_path(good), "{good}");
    }
    let long = format!("{}/x", "a".repeat(256));
    for bad in
        ["", "a", "/", "a/", "/b", "a/b/c", "../x", "x/..", "./x", "a/\0", ".ringseal/lock", &long]
    {
        assert!(!is_path(bad), "{bad:?}");
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let kind = prop_oneof![Just(Kind::Replace), Just(Kind::Remove), Just(Kind::Forget)];
    let data = proptest::collection::vec(any::<u8>(), 0..3000);
    (kind, any::<(u64, u64, u64)>(), 0..0o1000_u32, "[a-z]{1,9}/[a-z.]{3,20}", data).prop_map(
        |(kind, (inode, born, handle), mode, path, data)| {
            let data = if kind == Kind::Replace { Bytes::from(data) } else { Bytes::new() };
            Record {
                kind,
                directory: DirectoryId { inode, born, handle },
                mode,
                path: path.into(),
                data,
                transaction: mode,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn records_read_back_as_they_were_written(
        groups in proptest::collection::vec(proptest::collection::vec(any_record(), 0..4), 0..4)
    ) {
        let mut disk = Disk::new(24);
        let scanned = disk.scan().unwrap();
        let mut log = Log::begin(&mut disk, &scanned).unwrap();
        for records in &groups {
            log.append(records).unwrap();
        }
        let scanned = disk.scan().unwrap();
        let found: Vec<Record> = scanned.live.into_iter().flat_map(|group| group.records).collect();
        prop_assert_eq!(found, groups.concat());
    }

    /// Whatever the bytes are: no panic, and nothing is found that was not written.
    #[test]
    fn mutated_logs_never_invent_a_version(
        mutations in proptest::collection::vec((0..2_usize, 0..10 * BLOCK, any::<u8>(), 1..3000_usize), 1..6)
    ) {
        let disk = three_groups();
        let whole = data(&disk.scan().unwrap());
        let mut mutated = disk;
        for (segment, at, byte, len) in mutations {
            let end = (at + len).min(10 * BLOCK);
            mutated.segments[segment][at..end].fill(byte);
        }
        if let Ok(scanned) = mutated.scan() {
            let found = data(&scanned);
            prop_assert!(whole.starts_with(&found), "{:?}", found);
        }
    }

    /// Headers with any numbers in them, whose checksums are right.
    #[test]
    fn headers_of_any_numbers_never_panic_or_invent(
        numbers in any::<(u64, u64, u64, u64, u64)>(),
        sizes in any::<(u32, u32, u32, u32, u16)>(),
        small in any::<bool>(),
        block in 1..10_u32,
    ) {
        let mut disk = three_groups();
        let whole = data(&disk.scan().unwrap());
        let at = block as usize * BLOCK;
        let (real, _) = GroupHeader::decode(&disk.segments[0][2 * BLOCK..]).unwrap();
        let near = |number: u64| if small { real.seq.wrapping_sub(4).wrapping_add(number % 12) } else { number };
        let (epoch, seq, follows, durable_seq, spread_seq) = numbers;
        let (blocks, body_len, previous, records, segment) = sizes;
        let (blocks, segment) = if small { (blocks % 4, 0) } else { (blocks, segment) };
        let header = GroupHeader {
            epoch: near(epoch),
            seq: near(seq),
            follows: near(follows),
            durable_seq: near(durable_seq),
            spread_seq: near(spread_seq),
            blocks,
            body_len,
            previous,
            records,
            segment,
            block,
            ..real
        };
        disk.segments[0][at..at + GROUP_HEADER].copy_from_slice(&header.encode().0);
        if let Ok(scanned) = disk.scan() {
            // Such a header can say that something is spread; it cannot say anything else.
            prop_assert!(data(&scanned).iter().all(|found| whole.contains(found)));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        first in proptest::collection::vec(any::<u8>(), 0..3 * BLOCK),
        second in proptest::collection::vec(any::<u8>(), 0..3 * BLOCK),
    ) {
        prop_assert!(scan([&first, &second]).is_err());
        let _ = GroupHeader::decode(&first);
    }
}
