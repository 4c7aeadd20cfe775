//! The file that is written piece by piece: the target on commit, or never.

use std::fs;
use std::io::{BufWriter, Write};
use std::panic::AssertUnwindSafe;

use ringseal::{AtomicFile, Durability, Options, Outcome, Step};
use tempfile::tempdir;

use crate::doors::assert_reads;
use crate::support::{Disk, assert_no_temps, need, tree};

#[test]
fn it_is_the_target_on_commit() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("state.json");
    fs::write(&target, "old").unwrap();
    let mut file = BufWriter::new(AtomicFile::create(&target).unwrap());
    serde_json::to_writer(&mut file, &(0..5000).collect::<Vec<_>>()).unwrap();
    assert_reads(&target, "old");
    let receipt = file.into_inner().unwrap().commit().unwrap();
    let expected = serde_json::to_vec(&(0..5000).collect::<Vec<_>>()).unwrap();
    assert_reads(&target, &expected);
    assert_eq!(receipt.bytes, expected.len() as u64);
    assert!(matches!(receipt.durability, Durability::Durable | Durability::Volatile));
    assert_eq!(tree::names(dir.path()).len(), 1);
    // Nothing written is an empty file.
    AtomicFile::create(&target).unwrap().commit().unwrap();
    assert_reads(&target, "");
}

#[test]
fn dropped_it_was_never_there() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("state.json");
    fs::write(&target, "old").unwrap();
    let mut file = AtomicFile::create(&target).unwrap();
    file.write_all(b"new").unwrap();
    assert_eq!(tree::names(dir.path()).len(), 2);
    drop(file);
    assert_eq!(tree::names(dir.path()).len(), 1);
    // In a panic too.
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let mut file = AtomicFile::create(&target).unwrap();
        file.write_all(b"new").unwrap();
        std::panic::resume_unwind(Box::new("thrown"));
    }));
    assert!(panicked.is_err());
    assert_eq!(tree::names(dir.path()).len(), 1);
    assert_reads(&target, "old");
}

#[test]
fn two_at_once_do_not_share_a_temp() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("state.json");
    let mut one = AtomicFile::create(&target).unwrap();
    let mut two = AtomicFile::create(&target).unwrap();
    one.write_all(b"one").unwrap();
    two.write_all(b"two").unwrap();
    two.commit().unwrap();
    assert_reads(&target, "two");
    one.commit().unwrap();
    assert_reads(&target, "one");
}

#[test]
fn options_hold_for_it_too() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("state.json");
    let options = Options::new().create_new().mode(0o640);
    options.create(&target).unwrap().commit().unwrap();
    let error = options.create(&target).unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Check, Some(libc::EEXIST)));
    // Made in between: the rename finds it.
    fs::remove_file(&target).unwrap();
    let file = options.create(&target).unwrap();
    fs::write(&target, "first").unwrap();
    let error = file.commit().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Rename, Some(libc::EEXIST)));
    assert_eq!(error.outcome(), Outcome::Unchanged);
    assert_reads(&target, "first");
    assert_no_temps(dir.path());
}

/// A write that failed makes the commit fail, even if a later write went well and the caller
/// looked at neither.
#[test]
fn a_failed_write_cannot_be_committed() {
    let disk = need!(Disk::tmpfs(256 << 10, None));
    let target = disk.path().join("state.json");
    fs::write(&target, "old").unwrap();
    let mut file = AtomicFile::create(&target).unwrap();
    assert!(file.write_all(&vec![1; 1 << 20]).is_err());
    let error = file.commit().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Write, Some(libc::ENOSPC)));
    assert_eq!(error.outcome(), Outcome::Unchanged);
    assert_reads(&target, "old");
    assert_no_temps(disk.path());
}

/// The directory is removed while the file is open.
#[test]
fn a_directory_that_is_gone_at_the_commit() {
    let dir = tempdir().unwrap();
    let parent = dir.path().join("container");
    fs::create_dir(&parent).unwrap();
    let mut file = AtomicFile::create(parent.join("state.json")).unwrap();
    file.write_all(b"new").unwrap();
    fs::remove_dir_all(&parent).unwrap();
    let error = file.commit().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Rename, Some(libc::ENOENT)));
    assert_eq!(error.outcome(), Outcome::Unchanged);
}
