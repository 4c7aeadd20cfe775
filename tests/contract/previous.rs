//! Keep-previous: the old version stands beside the new one, and never under neither name.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use ringseal::{Level, Options, Step};
use tempfile::tempdir;

use crate::doors::{Door, assert_reads, assert_unchanged};
use crate::support::tree;

#[test]
fn the_old_version_stands_beside_the_new() {
    for level in [Level::Durable, Level::Atomic] {
        for door in Door::all() {
            let dir = tempdir().unwrap();
            let (target, previous) = (dir.path().join("state.json"), dir.path().join("previous"));
            let options = Options::new().keep_previous("previous").level(level);
            // None there: the target is made, the previous name left alone.
            fs::write(&previous, "not ours").unwrap();
            door.save_with(&options, &target, "1").unwrap();
            assert_reads(&previous, "not ours");
            for version in 2..6 {
                let inode = fs::metadata(&target).unwrap().ino();
                door.save_with(&options, &target, format!("{version}")).unwrap();
                assert_reads(&target, format!("{version}"));
                assert_reads(&previous, format!("{}", version - 1));
                assert_eq!(fs::metadata(&previous).unwrap().ino(), inode, "it is the old file");
                assert_eq!(fs::metadata(&previous).unwrap().nlink(), 1);
            }
            // Two names of one file, as a crash between the two renames leaves them: a rename of
            // one to the other does nothing, and its source must not stay behind.
            fs::remove_file(&previous).unwrap();
            fs::hard_link(&target, &previous).unwrap();
            door.save_with(&options, &target, "6").unwrap();
            assert_reads(&previous, "5");
            assert_eq!(tree::names(dir.path()).len(), 2, "{:?}", tree::names(dir.path()));
            // A link at the target is the old version, itself.
            fs::remove_file(&target).unwrap();
            symlink("nowhere", &target).unwrap();
            door.save_with(&options, &target, "7").unwrap();
            assert_eq!(fs::read_link(&previous).unwrap().to_str(), Some("nowhere"));
        }
    }
}

#[test]
fn a_name_that_cannot_be_is_refused() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("state.json");
    fs::write(&target, "old").unwrap();
    for door in Door::all() {
        for name in ["state.json", "", ".", "a/b"] {
            let options = Options::new().keep_previous(name);
            let result = door.save_with(&options, &target, "new");
            assert_unchanged(result, Step::Accept, libc::EINVAL);
        }
    }
}

/// Whoever looks at any moment finds both names, and the previous version one behind or equal.
#[test]
fn neither_name_is_ever_missing() {
    for door in Door::all() {
        let dir = tempdir().unwrap();
        let (target, previous) = (dir.path().join("state.json"), dir.path().join("previous"));
        let options = Options::new().keep_previous("previous").level(Level::Atomic);
        door.save_with(&options, &target, "0").unwrap();
        door.save_with(&options, &target, "1").unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let version = |path| fs::read_to_string(path).unwrap().parse::<u32>().unwrap();
                let mut looks = 0;
                while !done.load(Ordering::Relaxed) {
                    // Read in this order, the previous can be behind, never ahead.
                    let (behind, ahead) = (version(&previous), version(&target));
                    assert!(behind <= ahead, "{behind} is newer than {ahead}");
                    looks += 1;
                }
                looks
            });
            for version in 2..500 {
                door.save_with(&options, &target, format!("{version}")).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 10);
        });
    }
}

/// Who wants a new file has no old version to keep: not even that of whoever comes between the look and the rename.
#[test]
fn a_new_file_that_is_refused_keeps_nothing() {
    let dir = tempdir().unwrap();
    let (target, previous) = (dir.path().join("state.json"), dir.path().join("previous"));
    let options = Options::new().create_new().keep_previous("previous");
    fs::write(&previous, "theirs").unwrap();
    let mut file = options.create(&target).unwrap();
    std::io::Write::write_all(&mut file, b"new").unwrap();
    fs::write(&target, "old").unwrap();
    assert_unchanged(file.commit(), Step::Rename, libc::EEXIST);
    assert_reads(&target, "old");
    assert_reads(&previous, "theirs");
    for writer in Door::writers() {
        for round in 0..50 {
            let target = dir.path().join(format!("{round}"));
            let request =
                |bytes: &'static str| ringseal::Request::new(&target, bytes).with(options.clone());
            let answers = writer.replace_all_blocking([request("1"), request("2"), request("3")]);
            assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
            assert_reads(&target, "1");
            assert_reads(&previous, "theirs");
            fs::remove_file(target).unwrap();
        }
    }
    assert_eq!(tree::names(dir.path()).len(), 2, "{:?}", tree::names(dir.path()));
}
