//! Many at once: readers see whole versions only, and processes do not share a temp.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ringseal::Writer;
use tempfile::tempdir;

use crate::doors::Door;
use crate::support::{Disk, assert_no_temps, child, need, slow, spawn_child, tree};

/// A version that shows when it is not whole: its number over and over, and a length that differs.
fn version(number: usize) -> String {
    format!("{number:08};").repeat(50 + number % 400)
}

#[track_caller]
fn assert_whole(read: &str) {
    let number = read.get(..8).and_then(|digits| digits.parse().ok());
    let number: usize = number.unwrap_or_else(|| panic!("not a version: {read:.40}"));
    assert!(read == version(number), "version {number} is not whole");
}

/// In memory, where there is no disk to wait for, so that saves and readers meet most often.
#[test]
fn sixty_four_tasks_save_one_target_a_thousand_times_each() {
    let disk = need!(Disk::tmpfs(64 << 20, None));
    for writer in Door::writers() {
        save_at_once(&writer, disk.path(), 1000 / slow() as usize);
    }
}

#[test]
fn sixty_four_tasks_save_one_target_durably() {
    for writer in Door::writers() {
        let dir = tempdir().unwrap();
        save_at_once(&writer, dir.path(), 10);
    }
}

/// 64 tasks save one target, `turns` times each, while readers look.
fn save_at_once(writer: &Writer, dir: &Path, turns: usize) {
    let target = Arc::new(dir.join("state.json"));
    fs::write(&*target, version(0)).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let looks = Arc::new(AtomicUsize::new(0));
    let reader = |_| {
        let (target, done, looks) = (target.clone(), done.clone(), looks.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                assert_whole(&fs::read_to_string(&*target).expect("the target is there"));
                looks.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let readers: Vec<_> = (0..2).map(reader).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let task = |task: usize| {
            let (writer, target) = (writer.clone(), target.clone());
            tokio::spawn(async move {
                for turn in 0..turns {
                    let saved = writer.replace(&*target, version(task * turns + turn)).await;
                    saved.expect("saved");
                }
            })
        };
        let tasks: Vec<_> = (0..64).map(task).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
    assert!(looks.load(Ordering::Relaxed) > 100);
    assert_whole(&fs::read_to_string(&*target).unwrap());
    assert_eq!(tree::names(dir).len(), 1);
}

#[test]
fn two_processes_save_one_target() {
    const NAME: &str = "concurrency::two_processes_save_one_target";
    child::run_if_child(NAME, || {
        let target = std::env::var("TARGET").unwrap();
        let base: usize = std::env::var("BASE").unwrap().parse().unwrap();
        for door in Door::all() {
            for turn in 0..60 {
                door.save(Path::new(&target), version(base + turn)).unwrap();
            }
        }
    });
    let dir = tempdir().unwrap();
    let target = dir.path().join("state.json");
    fs::write(&target, version(0)).unwrap();
    let start = |base: usize| {
        let path = target.to_str().unwrap().to_owned();
        spawn_child(NAME, [("TARGET", path), ("BASE", base.to_string())])
    };
    let mut children = [start(1000), start(2000)];
    let mut looks = 0;
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        assert_whole(&fs::read_to_string(&target).unwrap());
        looks += 1;
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert!(looks > 10);
    assert_no_temps(dir.path());
}
