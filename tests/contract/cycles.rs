//! Group commit: saves that come together share their syncs, and nothing else. Each has its own
//! answer, its own options, its own failure.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringseal::{
    Carrier, Durability, Engine, Level, Options, Outcome, Receipt, Request, Step, Writer,
};

use crate::doors::{assert_reads, assert_unchanged, engines, writer};
use crate::liveness::on_rename;
use crate::support::{
    Disk, Skipped, assert_no_temps, child, need, require_shared_syncs, seccomp, skip, strace,
};

const CALLS: [&str; 4] = ["syncfs", "fsync", "fdatasync", "io_uring_enter"];

/// A directory for each target, as a runtime has it.
fn targets(below: &Path, count: usize) -> Vec<PathBuf> {
    let target = |id: usize| {
        let dir = below.join(id.to_string());
        fs::create_dir_all(&dir).unwrap();
        dir.join("state.json")
    };
    (0..count).map(target).collect()
}

fn old_versions(targets: &[PathBuf], below: &Path) {
    targets.iter().for_each(|target| fs::write(target, "old").unwrap());
    rustix::fs::syncfs(File::open(below).unwrap()).unwrap();
}

/// Waits until hardly anything is dirty in the whole system: then a cycle takes a `syncfs`.
fn until_quiet() {
    let quiet = || {
        rustix::fs::sync();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
        let kilobytes = |name: &str| -> u64 {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap()
        };
        kilobytes("Dirty:") + kilobytes("Writeback:") < 256
    };
    for _ in 0..100 {
        if quiet() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The engine that the parent names.
fn engine_of_child() -> Engine {
    match std::env::var("ENGINE").unwrap().as_str() {
        "Uring" => Engine::Uring,
        _ => Engine::Threads,
    }
}

/// The child of the tests that count: saves below `DIR` as `HOW` says.
fn saves_in_a_child() {
    let below = PathBuf::from(std::env::var_os("DIR").unwrap());
    let count: usize = std::env::var("SAVES").unwrap().parse().unwrap();
    let writer = Writer::builder().engine(engine_of_child()).max_in_flight(1024).build().unwrap();
    let receipts: Vec<Receipt> = match std::env::var("HOW").unwrap().as_str() {
        "all" => {
            let requests: Vec<_> =
                targets(&below, count).into_iter().map(|target| (target, "new")).collect();
            writer.replace_all_blocking(requests).into_iter().map(Result::unwrap).collect()
        }
        "one directory" => {
            let requests: Vec<_> =
                (0..count).map(|id| (below.join(format!("{id}.json")), "new")).collect();
            writer.replace_all_blocking(requests).into_iter().map(Result::unwrap).collect()
        }
        // Every caller saves for himself, twenty times.
        "callers" => std::thread::scope(|scope| {
            let caller = |target: PathBuf| {
                let writer = &writer;
                scope.spawn(move || {
                    let save = || pollster::block_on(writer.replace(&target, "new")).unwrap();
                    (0..20).map(|_| save()).collect::<Vec<_>>()
                })
            };
            let callers: Vec<_> = targets(&below, count).into_iter().map(caller).collect();
            callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
        }),
        how => panic!("{how}"),
    };
    let provable = ringseal::probe_directory(&below).unwrap().provable;
    let expected = if provable { Durability::Durable } else { Durability::DurableUnproven };
    assert!(receipts.iter().all(|receipt| receipt.durability == expected), "{receipts:?}");
    writer.close_blocking();
}

/// Counts the calls of saves in a child. Where others have written much, files are synced one by one:
/// so it is tried again, after everything was written, until the counts are as expected.
fn calls(
    name: &str,
    engine: Engine,
    how: &str,
    below: &Path,
    saves: usize,
    expected: impl Fn(&BTreeMap<String, usize>) -> bool,
) -> Option<BTreeMap<String, usize>> {
    let envs = [
        ("ENGINE", format!("{engine:?}")),
        ("HOW", how.to_owned()),
        ("DIR", below.to_str().unwrap().to_owned()),
        ("SAVES", saves.to_string()),
    ];
    let mut counts = BTreeMap::new();
    for _ in 0..20 {
        rustix::fs::sync();
        counts = strace::count(name, &CALLS, &envs)?;
        if expected(&counts) {
            break;
        }
        println!("{saves} saves, {engine:?}, {}: {counts:?}; once more", below.display());
    }
    Some(counts)
}

#[test]
fn many_files_cost_two_syncs() {
    let name = "cycles::many_files_cost_two_syncs";
    child::run_if_child(name, saves_in_a_child);
    need!(require_shared_syncs());
    for make in [Disk::ext4, Disk::xfs, Disk::btrfs] {
        let disk = need!(make());
        for (engine, saves) in
            engines().into_iter().flat_map(|engine| [(engine, 50), (engine, 500)])
        {
            // One sync before the renames, one behind them; on the ring, one submission for what
            // comes before each.
            let enters = if engine == Engine::Uring { 2 } else { 0 };
            let expected = |counts: &BTreeMap<String, usize>| {
                (counts["syncfs"], counts["fsync"], counts["io_uring_enter"]) == (2, 0, enters)
            };
            let counts = calls(name, engine, "all", disk.path(), saves, expected);
            let Some(counts) = counts else {
                skip!("there is no strace(1), or it may not trace");
            };
            assert!(expected(&counts), "{saves} saves on {}, {engine:?}: {counts:?}", disk.name());
        }
    }
}

/// Not trusted with syncfs, an overlay and an ext4 without a journal: a sync for each file, but one for
/// their directory.
#[test]
fn a_directory_is_synced_once_a_cycle() {
    let name = "cycles::a_directory_is_synced_once_a_cycle";
    child::run_if_child(name, saves_in_a_child);
    let overlay = need!(Disk::overlay(""));
    let no_journal = need!(Disk::ext4_with(64 << 20, &["-O", "^has_journal"], "defaults"));
    for disk in [overlay, no_journal] {
        let dir = disk.path();
        let counts = calls(name, Engine::Threads, "one directory", dir, 30, |_| true);
        let Some(counts) = counts else {
            skip!("there is no strace(1), or it may not trace");
        };
        let context = format!("{}: {counts:?}", disk.name());
        assert_eq!((counts["syncfs"], counts["fsync"]), (0, 30 + 1), "{context}");
    }
}

/// Nobody says that they belong together; they only come while others wait for the disk.
#[test]
fn a_stream_of_saves_forms_cycles() {
    let name = "cycles::a_stream_of_saves_forms_cycles";
    child::run_if_child(name, saves_in_a_child);
    need!(require_shared_syncs());
    let disk = need!(Disk::ext4());
    let (callers, saves) = (32, 32 * 20);
    for engine in engines() {
        // By themselves they are two syncs for each, or one submission for each.
        let few = |counts: &BTreeMap<String, usize>| {
            counts["syncfs"] > 0 && counts.values().sum::<usize>() <= saves / 2
        };
        let counts = calls(name, engine, "callers", disk.path(), callers, few);
        let Some(counts) = counts else {
            skip!("there is no strace(1), or it may not trace");
        };
        assert!(few(&counts), "{saves} saves, {engine:?}: {counts:?}");
    }
}

#[test]
fn each_has_its_own_answer() {
    let makes = [Disk::ext4, Disk::xfs, Disk::btrfs];
    for (engine, make) in engines().into_iter().flat_map(|engine| makes.map(|make| (engine, make)))
    {
        let disk = need!(make());
        let targets = targets(disk.path(), 40);
        old_versions(&targets, disk.path());
        fs::remove_file(&targets[3]).unwrap();
        fs::create_dir(&targets[3]).unwrap();
        let gone = targets[5].parent().unwrap().to_path_buf();
        let requests = targets.clone().into_iter().enumerate().map(move |(id, target)| {
            if id == 30 {
                // Its directory is open by now; the file in it can no longer be made.
                fs::remove_dir_all(&gone).unwrap();
            }
            let options = match id {
                7 => Options::new().create_new(),
                8 => Options::new().keep_previous("previous"),
                9 => Options::new().mode(0o640),
                10 => Options::new().level(Level::Atomic),
                11 => Options::new().keep_owner().keep_mode(),
                _ => Options::new(),
            };
            let bytes = if id == 12 { Vec::new() } else { format!("new {id}").into_bytes() };
            Request::new(target, bytes).with(options)
        });
        let answers = writer(engine).replace_all_blocking(requests);
        for (id, (answer, target)) in answers.into_iter().zip(&targets).enumerate() {
            match id {
                3 => drop(assert_unchanged(answer, Step::Check, libc::EISDIR)),
                5 => drop(assert_unchanged(answer, Step::Open, libc::ENOENT)),
                7 => drop(assert_unchanged(answer, Step::Check, libc::EEXIST)),
                _ => {
                    let receipt = answer.unwrap_or_else(|error| panic!("{id}: {error}"));
                    // What keeps its mode needs a call that the ring does not have.
                    let by_ring = engine == Engine::Uring && id != 11;
                    let carrier = if by_ring { Carrier::Ring } else { Carrier::Pool };
                    assert_eq!(receipt.carrier, carrier, "{id}");
                    let expected = if id == 10 { Durability::Atomic } else { Durability::Durable };
                    assert_eq!(receipt.durability, expected, "{id}");
                    let bytes = if id == 12 { String::new() } else { format!("new {id}") };
                    assert_reads(target, bytes);
                    assert_no_temps(target.parent().unwrap());
                }
            }
        }
        assert_reads(&targets[8].with_file_name("previous"), "old");
    }
}

/// The barrier of all fails, which does not say whose write it was: each file is written anew, and has
/// a sync of its own; so has its directory.
#[test]
fn a_barrier_that_fails_is_followed_by_a_sync_for_each() {
    let name = "cycles::a_barrier_that_fails_is_followed_by_a_sync_for_each";
    child::run_if_child(name, || {
        need!(seccomp::deny(&[libc::SYS_syncfs], libc::EIO));
        saves_in_a_child();
    });
    need!(require_shared_syncs());
    for make in [Disk::ext4, Disk::xfs, Disk::btrfs] {
        let disk = need!(make());
        let saves = 200;
        for engine in engines() {
            let tried = |counts: &BTreeMap<String, usize>| counts["syncfs"] > 0;
            let counts = calls(name, engine, "all", disk.path(), saves, tried);
            let Some(counts) = counts else {
                skip!("there is no strace(1), or it may not trace");
            };
            let context = format!("{}, {engine:?}: {counts:?}", disk.name());
            // On the ring too: these look whether the file has room for its bytes.
            assert_eq!((counts["syncfs"], counts["fsync"]), (1, 2 * saves), "{context}");
            for target in targets(disk.path(), saves) {
                assert_reads(&target, "new");
                assert_no_temps(target.parent().unwrap());
                fs::remove_file(target).unwrap();
            }
        }
    }
}

/// The device has room for a part of the files only.
#[test]
fn a_sync_that_fails_in_a_cycle_fails_its_save() {
    for engine in engines() {
        let disk = need!(Disk::ext4_over_full_tmpfs(1 << 20));
        let targets = targets(disk.path(), 12);
        old_versions(&targets, disk.path());
        let large = vec![b'n'; 600 << 10];
        let requests: Vec<_> =
            targets.iter().map(|target| (target.clone(), large.clone())).collect();
        until_quiet();
        let answers = writer(engine).replace_all_blocking(requests);
        for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            assert!(matches!(error.step(), Step::Sync | Step::Write), "{error}");
            assert!(matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EIO)), "{error}");
            assert_eq!(error.outcome(), Outcome::Unchanged, "{error}");
        }
        assert!(answers.iter().any(Result::is_err), "more than the device can take");
        disk.remount();
        for (answer, target) in answers.iter().zip(&targets) {
            let expected: &[u8] = if answer.is_ok() { &large } else { b"old" };
            assert_reads(target, expected);
            assert_no_temps(target.parent().unwrap());
        }
    }
}

/// Filesystems that die in the middle of a cycle: whoever was told Ok is there afterwards.
#[test]
fn a_filesystem_that_dies_in_a_cycle() {
    fn dies(engine: Engine, make: fn() -> Result<Disk, Skipped>) -> Result<(), Skipped> {
        let mut failures = 0;
        for at in [0, 20, 39, 0, 20, 39] {
            let disk = Arc::new(make()?);
            let targets = targets(disk.path(), 40);
            old_versions(&targets, disk.path());
            let dying = Arc::clone(&disk);
            let watch = on_rename(targets[at].parent().unwrap(), "state.json", move || {
                let _ = dying.shutdown();
            });
            let requests: Vec<_> = targets.iter().map(|target| (target.clone(), "new")).collect();
            until_quiet();
            let answers = writer(engine).replace_all_blocking(requests);
            watch.wait();
            disk.remount();
            for (answer, target) in answers.iter().zip(&targets) {
                let after = fs::read_to_string(target).unwrap();
                let context = format!("{}: {answer:?}, {after:?}", disk.name());
                match answer {
                    Ok(_) => assert_eq!(after, "new", "{context}: acknowledged and lost"),
                    Err(error) if error.outcome() == Outcome::Unchanged => {
                        assert_eq!(after, "old", "{context}");
                    }
                    Err(_) => assert!(after == "old" || after == "new", "{context}"),
                }
            }
            failures += answers.iter().filter(|answer| answer.is_err()).count();
        }
        assert!(failures > 0, "the filesystem died too late every time");
        Ok(())
    }
    for engine in engines() {
        need!(dies(engine, Disk::ext4));
        need!(dies(engine, Disk::xfs));
    }
}

#[test]
fn many_filesystems_in_one_call() {
    let disks = [Disk::ext4(), Disk::xfs(), Disk::btrfs(), Disk::tmpfs(8 << 20, None)];
    let mut made = Vec::new();
    for disk in disks {
        made.push(need!(disk));
    }
    for writer in engines().into_iter().map(writer) {
        let all: Vec<Vec<PathBuf>> = made.iter().map(|disk| targets(disk.path(), 25)).collect();
        let mixed: Vec<_> =
            (0..25).flat_map(|id| all.iter().map(move |of| of[id].clone())).collect();
        let requests: Vec<_> = mixed.iter().map(|target| (target.clone(), "new")).collect();
        for (answer, target) in writer.replace_all_blocking(requests).into_iter().zip(&mixed) {
            let volatile = target.starts_with(made[3].path());
            let expected = if volatile { Durability::Volatile } else { Durability::Durable };
            assert_eq!(answer.unwrap().durability, expected);
            assert_reads(target, "new");
        }
        writer.close_blocking();
    }
}

/// In memory nothing waits for a disk: the caller saves for himself, in a future too.
#[test]
fn a_save_in_memory_is_made_by_its_caller() {
    let disk = need!(Disk::tmpfs(8 << 20, None));
    for engine in [Engine::Auto, Engine::Threads] {
        let writer = writer(engine);
        let target = disk.path().join("state.json");
        let one = pollster::block_on(writer.replace(&target, "one")).unwrap();
        assert_eq!(one.carrier, Carrier::Caller);
        let large = vec![b'x'; 1 << 20];
        let large = pollster::block_on(writer.replace(&target, large)).unwrap();
        assert_eq!(large.carrier, Carrier::Pool);
        writer.close_blocking();
    }
}

/// Of a wave no save waits for the disk, and many workers only hinder each other.
#[test]
fn a_wave_has_as_many_workers_as_there_are_processors() {
    child::in_child("cycles::a_wave_has_as_many_workers_as_there_are_processors", || {
        let Ok(writer) = Writer::builder().engine(Engine::Uring).build() else {
            skip!("there is no io_uring here");
        };
        let disk = need!(Disk::btrfs());
        until_quiet();
        let requests: Vec<_> =
            targets(disk.path(), 500).into_iter().map(|target| (target, "new")).collect();
        let answers = writer.replace_all_blocking(requests);
        assert!(answers.iter().all(Result::is_ok));
        let workers = fs::read_dir("/proc/self/task").unwrap().filter(|task| {
            let name = fs::read_to_string(task.as_ref().unwrap().path().join("comm"));
            name.is_ok_and(|name| name.starts_with("iou-wrk"))
        });
        let processors = std::thread::available_parallelism().unwrap().get();
        let workers = workers.count();
        assert!(
            (1..=processors + 1).contains(&workers),
            "{workers} workers, {processors} processors"
        );
    });
}
