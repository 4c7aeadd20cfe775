//! Saves of one target take effect in the order in which they were accepted, and versions that are
//! overtaken while they wait may be left out.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ringseal::{Options, Receipt, Request, Result, Save, Step, Target, Writer};

use crate::doors::{assert_reads, assert_unchanged, engines, writer};
use crate::forked::fork;
use crate::support::{Disk, assert_no_temps, need, slow};

/// A directory in memory, and an ext4.
fn places() -> Vec<(PathBuf, Option<Disk>)> {
    let mut places = vec![(Path::new("/dev/shm").to_owned(), None)];
    match Disk::ext4() {
        Ok(disk) => places.push((disk.path().to_owned(), Some(disk))),
        Err(why) => crate::support::skipped(format_args!("{why}")),
    }
    places
}

/// How one save of a random stream is asked for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    target: usize,
    mode: Option<u32>,
    keep_mode: bool,
    keep_previous: bool,
    blocking: bool,
}

fn asked(targets: usize) -> impl Strategy<Value = Asked> {
    let mode = prop_oneof![4 => Just(None), 1 => Just(Some(0o640))];
    let often_not = prop_oneof![9 => Just(false), 1 => Just(true)];
    (0..targets, mode, often_not.clone(), often_not, prop::bool::weighted(0.3)).prop_map(
        |(target, mode, keep_mode, keep_previous, blocking)| Asked {
            target,
            mode,
            keep_mode,
            keep_previous,
            blocking,
        },
    )
}

/// What was acknowledged, and what stood at the target right after it.
#[derive(Debug)]
struct Seen {
    asked: Asked,
    id: usize,
    receipt: Receipt,
    found: usize,
}

fn request(dir: &Path, id: usize, asked: Asked) -> Request {
    let mut options = Options::new();
    if let Some(mode) = asked.mode {
        options = options.mode(mode);
    }
    if asked.keep_mode {
        options = options.keep_mode();
    }
    if asked.keep_previous {
        options = options.keep_previous(format!("{}.previous", asked.target));
    }
    Request::new(dir.join(asked.target.to_string()), id.to_string()).with(options)
}

fn id_at(dir: &Path, target: usize) -> usize {
    fs::read_to_string(dir.join(target.to_string())).unwrap().parse().unwrap()
}

/// Streams of saves from eight threads; half of each thread's are under way at once.
fn run(writer: &Writer, dir: &Path, streams: &[Vec<Asked>]) -> Vec<Seen> {
    let seen = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for (stream, all) in streams.iter().enumerate() {
            let (seen, writer) = (&seen, writer.clone());
            scope.spawn(move || {
                let note = |id: usize, asked: Asked, receipt: Result<Receipt>| {
                    let found = id_at(dir, asked.target);
                    let receipt = receipt.unwrap();
                    seen.lock().unwrap().push(Seen { asked, id, receipt, found });
                };
                let mut waiting = Vec::new();
                for (index, asked) in all.iter().enumerate() {
                    let id = stream * 1_000_000 + index;
                    let request = request(dir, id, *asked);
                    if asked.blocking {
                        note(id, *asked, writer.submit_blocking(request));
                        continue;
                    }
                    let mut save = Box::pin(writer.submit(request));
                    if let Some(answer) = poll_once(&mut save) {
                        note(id, *asked, answer);
                        continue;
                    }
                    waiting.push((id, *asked, save));
                    if waiting.len() > 8 {
                        let (id, asked, save) = waiting.remove(0);
                        note(id, asked, pollster::block_on(save));
                    }
                }
                for (id, asked, save) in waiting {
                    note(id, asked, pollster::block_on(save));
                }
            });
        }
    });
    seen.into_inner().unwrap()
}

fn poll_once(
    save: &mut (impl Future<Output = Result<Receipt>> + Unpin),
) -> Option<Result<Receipt>> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(save).poll(&mut context) {
        std::task::Poll::Ready(answer) => Some(answer),
        std::task::Poll::Pending => None,
    }
}

/// Against a model: what is on disk is never older than what was acknowledged, in the end it is the last
/// that was accepted, and whatever was left out was left out for a newer version that was written.
fn check(dir: &Path, targets: usize, seen: &[Seen]) {
    let accepted: HashMap<usize, u64> =
        seen.iter().map(|seen| (seen.id, seen.receipt.sequence)).collect();
    let by_sequence: HashMap<u64, &Seen> =
        seen.iter().map(|seen| (seen.receipt.sequence, seen)).collect();
    assert_eq!(by_sequence.len(), seen.len(), "every save has a number of its own");
    for one in seen {
        let found = accepted[&one.found];
        assert!(found >= one.receipt.sequence, "{one:?}: number {found} is on disk");
        if let Some(newer) = one.receipt.coalesced_into {
            let newer = by_sequence[&newer];
            assert!(newer.receipt.sequence > one.receipt.sequence, "{one:?} {newer:?}");
            assert_eq!(newer.asked.target, one.asked.target, "{one:?} {newer:?}");
            assert_eq!(newer.receipt.coalesced_into, None, "{one:?} {newer:?}");
        }
    }
    for target in 0..targets {
        let mut of_target: Vec<&Seen> =
            seen.iter().filter(|seen| seen.asked.target == target).collect();
        of_target.sort_by_key(|seen| seen.receipt.sequence);
        let Some(last) = of_target.last() else { continue };
        assert_eq!(id_at(dir, target), last.id, "the last that was accepted: {last:?}");
        let mut mode = None;
        for Seen { asked, .. } in
            of_target.iter().filter(|seen| seen.receipt.coalesced_into.is_none())
        {
            let kept = mode.filter(|_| asked.keep_mode);
            mode = Some(kept.or(asked.mode).unwrap_or(0o600));
        }
        let found =
            fs::metadata(dir.join(target.to_string())).unwrap().permissions().mode() & 0o777;
        assert_eq!(Some(found), mode, "{of_target:?}");
    }
    assert_no_temps(dir);
}

#[test]
fn streams_of_saves_take_effect_in_their_order() {
    const TARGETS: usize = 3;
    for (below, _disk) in places() {
        let coalesced = Cell::new(0);
        for engine in engines() {
            let streams = vec(vec(asked(TARGETS), 20..120), 8);
            let mut runner = TestRunner::new(Config { cases: 12, ..Config::default() });
            let outcome = runner.run(&streams, |streams| {
                let dir = tempfile::tempdir_in(&below).unwrap();
                let writer = writer(engine);
                let seen = run(&writer, dir.path(), &streams);
                writer.close_blocking();
                check(dir.path(), TARGETS, &seen);
                let left_out = seen.iter().filter(|seen| seen.receipt.coalesced_into.is_some());
                coalesced.set(coalesced.get() + left_out.count());
                Ok(())
            });
            outcome
                .unwrap_or_else(|failure| panic!("{engine:?} in {}: {failure}", below.display()));
        }
        assert!(coalesced.get() > 0, "nothing was ever overtaken in {}", below.display());
    }
}

/// Thousands of saves of each of a few targets, as fast as they can be asked for.
#[test]
fn thousands_of_saves_of_one_target() {
    for (below, _disk) in places() {
        for engine in engines() {
            let dir = tempfile::tempdir_in(&below).unwrap();
            let writer = writer(engine);
            let plain = |target| Asked {
                target,
                mode: None,
                keep_mode: false,
                keep_previous: false,
                blocking: false,
            };
            let streams: Vec<_> =
                (0..8).map(|id| vec![plain(id % 2); 1000 / slow() as usize]).collect();
            let seen = run(&writer, dir.path(), &streams);
            writer.close_blocking();
            check(dir.path(), 2, &seen);
        }
    }
}

/// All are accepted before the first is carried out: of a thousand versions two are written.
#[test]
fn what_is_overtaken_is_not_written() {
    for make in [Disk::ext4, Disk::xfs, Disk::btrfs] {
        let disk = need!(make());
        for engine in engines() {
            let writer = writer(engine);
            let target = disk.path().join("state.json");
            let requests: Vec<_> = (1..=100).map(|id| (target.clone(), format!("{id}"))).collect();
            let answers = writer.replace_all_blocking(requests);
            let receipts: Vec<Receipt> = answers.into_iter().map(Result::unwrap).collect();
            let last = receipts[99].sequence;
            for (index, receipt) in receipts.iter().enumerate() {
                assert_eq!(receipt.sequence, index as u64 + 1);
                let expected = if index == 0 || index == 99 { None } else { Some(last) };
                assert_eq!(receipt.coalesced_into, expected, "{index}");
            }
            assert_reads(&target, "100");
        }
    }
}

/// By whatever path: one target is one target.
#[test]
fn a_target_is_known_by_every_path() {
    let disk = need!(Disk::ext4());
    let dir = disk.path().join("real");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink(&dir, disk.path().join("link")).unwrap();
    let open: Arc<std::os::fd::OwnedFd> = Arc::new(fs::File::open(&dir).unwrap().into());
    for engine in engines() {
        let ways = |id: usize| -> Target {
            match id % 3 {
                0 => dir.join("state.json").into(),
                1 => disk.path().join("link/state.json").into(),
                _ => Target::at(open.clone(), "state.json"),
            }
        };
        let requests: Vec<_> = (0..30).map(|id| Request::new(ways(id), format!("{id}"))).collect();
        let answers = writer(engine).replace_all_blocking(requests);
        let left_out =
            answers.iter().filter(|answer| answer.as_ref().unwrap().coalesced_into.is_some());
        assert_eq!(left_out.count(), 28);
        assert_reads(&dir.join("state.json"), "29");
    }
}

/// What asks for more than a replace, or for something else, is carried out for itself.
#[test]
fn only_equal_plain_saves_stand_for_each_other() {
    let disk = need!(Disk::ext4());
    for engine in engines() {
        let dir = tempfile::tempdir_in(disk.path()).unwrap();
        let target = dir.path().join("state.json");
        let plain = Options::new();
        let all = [
            plain.clone(),
            plain.clone(),
            plain.clone().mode(0o640),
            plain.clone().keep_previous("previous"),
            plain.clone().keep_previous("previous"),
            plain.clone().level(ringseal::Level::Atomic),
            plain.clone().create_new(),
            plain.clone(),
        ];
        let requests = all.clone().into_iter().enumerate();
        let requests: Vec<_> = requests
            .map(|(id, options)| Request::new(&target, format!("{id}")).with(options))
            .collect();
        let answers = writer(engine).replace_all_blocking(requests);
        for (id, answer) in answers.into_iter().enumerate() {
            if id == 6 {
                // It was not there when the save was asked for, but by its turn it is.
                assert_unchanged(answer, Step::Rename, libc::EEXIST);
            } else {
                assert_eq!(answer.unwrap().coalesced_into, None, "{id}");
            }
        }
        assert_reads(&target, "7");
        // Of number 4, which found number 3 at the target.
        assert_reads(&dir.path().join("previous"), "3");
    }
}

/// The mode to be kept is that of the version before it, not of what stood there when it was asked for.
#[test]
fn what_is_kept_is_of_the_version_before() {
    for (below, _disk) in places() {
        for engine in engines() {
            let dir = tempfile::tempdir_in(&below).unwrap();
            let target = dir.path().join("state.json");
            fs::write(&target, "old").unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
            let requests = vec![
                Request::new(&target, "1").with(Options::new().mode(0o644)),
                Request::new(&target, "2").with(Options::new().keep_mode()),
            ];
            let answers = writer(engine).replace_all_blocking(requests);
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
            assert_reads(&target, "2");
            assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o644);
        }
    }
}

/// The one that stands for others fails: they fail with it, and what comes later goes on.
#[test]
fn a_failure_is_everybodys_whom_it_stood_for() {
    let disk = need!(Disk::ext4_with(16 << 20, &[], "defaults"));
    for engine in engines() {
        let target = disk.path().join("state.json");
        fs::write(&target, "old").unwrap();
        let writer = writer(engine);
        let large = vec![b'x'; 32 << 20];
        let payloads = [b"1".to_vec(), b"2".to_vec(), large];
        let requests: Vec<_> = payloads.into_iter().map(|bytes| (target.clone(), bytes)).collect();
        let answers = writer.replace_all_blocking(requests);
        answers[0].as_ref().unwrap();
        let errors: Vec<_> =
            answers[1..].iter().map(|answer| answer.as_ref().unwrap_err()).collect();
        for error in &errors {
            assert_eq!(error.outcome(), ringseal::Outcome::Unchanged, "{error}");
            assert_eq!(error.step(), errors[0].step());
            assert_eq!(error.raw_os_error(), errors[0].raw_os_error());
        }
        // The second says that it was the third that failed.
        assert_eq!(
            errors.iter().map(|error| error.coalesced_into()).collect::<Vec<_>>(),
            [Some(3), None]
        );
        assert_reads(&target, "1");
        disk.wait_for_room();
        pollster::block_on(writer.replace(&target, "3")).unwrap();
        assert_reads(&target, "3");
    }
}

/// Fifty saves of a target under way, none of which may stand for another. Those that were answered at
/// once are not among them.
fn fifty_in_line(writer: &Writer, target: &Path) -> Vec<Pin<Box<Save>>> {
    let save = |id: usize| {
        let mode = if id % 2 == 0 { 0o600 } else { 0o640 };
        let request = Request::new(target, format!("{id}")).with(Options::new().mode(mode));
        let mut save = Box::pin(writer.submit(request));
        match poll_once(&mut save) {
            Some(answer) => answer.map(|_| None).unwrap(),
            None => Some(save),
        }
    };
    (0..50).filter_map(save).collect()
}

/// Dropped with saves in line: they are carried out, up to the last.
#[test]
fn a_dropped_writer_ends_its_lines() {
    for (below, _disk) in places() {
        for engine in engines() {
            let dir = tempfile::tempdir_in(&below).unwrap();
            let target = dir.path().join("state.json");
            let writer = writer(engine);
            let saves = fifty_in_line(&writer, &target);
            drop((saves, writer));
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
            while fs::read_to_string(&target).unwrap_or_default() != "49" {
                assert!(std::time::Instant::now() < deadline, "the last save was never made");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}

/// A save on the caller's own thread stands in line like the others.
#[test]
fn a_blocking_save_keeps_its_place() {
    let disk = need!(Disk::ext4());
    for engine in engines() {
        let target = disk.path().join("state.json");
        let writer = writer(engine);
        for round in 0..30 {
            let (first, second) = (format!("{round} first"), format!("{round} second"));
            std::thread::scope(|scope| {
                let blocking =
                    scope.spawn(|| writer.replace_blocking(&target, first.clone()).unwrap());
                let other = pollster::block_on(writer.replace(&target, second.clone())).unwrap();
                let blocking = blocking.join().unwrap();
                let last = if blocking.sequence > other.sequence { &first } else { &second };
                assert_reads(&target, last);
            });
        }
    }
}

/// The iterator of a batch is the caller's, and may itself save what the batch has already: nobody waits
/// for a batch that is still being put together.
#[test]
fn a_batch_that_is_put_together_holds_nobody_up() {
    for (below, _disk) in places() {
        for engine in engines() {
            let dir = tempfile::tempdir_in(&below).unwrap();
            let target = dir.path().join("state.json");
            let writer = writer(engine);
            let (inner, path) = (writer.clone(), target.clone());
            let requests = (0..3).map(move |id| {
                inner.replace_blocking(&path, format!("inner {id}")).unwrap();
                (path.clone(), format!("{id}"))
            });
            let answers = writer.replace_all_blocking(requests);
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
            assert_reads(&target, "2");
        }
    }
}

/// Closed with saves in line: all of them are carried out, and answered, before it ends.
#[test]
fn close_waits_for_the_lines() {
    for (below, _disk) in places() {
        for engine in engines() {
            let dir = tempfile::tempdir_in(&below).unwrap();
            let target = dir.path().join("state.json");
            let writer = writer(engine);
            let saves = fifty_in_line(&writer, &target);
            writer.close_blocking();
            assert_reads(&target, "49");
            for mut save in saves {
                poll_once(&mut save).expect("it was answered").unwrap();
            }
        }
    }
}

/// In a forked child, who waits in line is told so, as everybody is.
#[test]
fn a_fork_does_not_wait_in_line() {
    crate::support::in_child("order::a_fork_does_not_wait_in_line", || {
        let disk = need!(Disk::ext4());
        for engine in engines() {
            let target = disk.path().join("state.json");
            let writer = writer(engine);
            let mut saves = fifty_in_line(&writer, &target);
            let told = fork(|| {
                let is_error =
                    |answer: Option<Result<Receipt>>| answer.is_some_and(|one| one.is_err());
                assert!(saves.iter_mut().all(|save| is_error(poll_once(save))));
            });
            assert_eq!(told, 0);
            writer.close_blocking();
            assert_reads(&target, "49");
        }
    });
}
