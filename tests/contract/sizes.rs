//! A payload of any size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use ringseal::Options;
use tempfile::tempdir;

use crate::doors::{Door, assert_reads};
use crate::support::{Disk, assert_no_temps, need, require_memory};

#[test]
fn small_ones_to_the_byte() {
    let dir = tempdir().unwrap();
    let pattern: Vec<u8> = (0..1_000_003_u32).map(|index| (index % 251) as u8).collect();
    for door in Door::all() {
        let target = dir.path().join("state.json");
        for size in [0, 1, 511, 4095, 4096, 4097, 1 << 16, 1_000_003, 3, 0] {
            let receipt = door.save(&target, pattern[..size].to_vec()).unwrap();
            assert_eq!(receipt.bytes, size as u64);
            assert_reads(&target, &pattern[..size]);
        }
    }
    assert_no_temps(dir.path());
}

#[test]
fn a_hundred_mebibytes() {
    let dir = tempdir().unwrap();
    let payload: Bytes = (0..100 << 20).map(|index: u32| (index >> 12) as u8).collect();
    for door in Door::all() {
        let target = dir.path().join(door.name());
        door.save(&target, payload.clone()).unwrap();
        assert_reads(&target, &payload);
    }
}

/// One write call stops at 2,147,479,552 bytes.
#[test]
fn more_than_one_write_can_carry() {
    const SIZE: usize = (2 << 30) + 12_345;
    // The payload, and the file in memory.
    need!(require_memory(5 << 30));
    let disk = need!(Disk::tmpfs(3 << 30, None));
    let mut payload = vec![0; SIZE];
    for marked in [0, 1 << 30, (1 << 30) - 1, 2_147_479_551, 2_147_479_552, SIZE - 1] {
        payload[marked] = 0xa5;
    }
    let payload = Bytes::from(payload);
    for door in Door::all() {
        let target = disk.path().join("memory.img");
        let receipt = door.save_with(&Options::new(), &target, payload.clone()).unwrap();
        assert_eq!(receipt.bytes, SIZE as u64);
        assert!(same(&target, &payload), "{}", door.name());
        std::fs::remove_file(&target).unwrap();
    }
}

fn same(path: &Path, payload: &[u8]) -> bool {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let read = file.read(&mut buffer).unwrap();
        if read == 0 {
            return at == payload.len();
        }
        if payload.get(at..at + read) != Some(&buffer[..read]) {
            return false;
        }
        at += read;
    }
}
