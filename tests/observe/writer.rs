//! `Writer::stats`: each figure is what was done.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use ringseal::{Engine, Level, Options, Request, Step, Writer, WriterStats};
use rustix::io::Errno;

use crate::engines;
use crate::support::{Disk, Skipped, in_child, need, slow};

fn writer(engine: Engine) -> Writer {
    Writer::builder().engine(engine).build().unwrap()
}

/// What holds of every snapshot at rest.
#[track_caller]
fn assert_at_rest(stats: &WriterStats) {
    assert_eq!(stats.accepted, stats.answered, "{stats:#?}");
    assert_eq!((stats.in_flight, stats.waiting), (0, 0), "{stats:#?}");
    assert_eq!(stats.oldest_in_flight, None, "{stats:#?}");
    assert_eq!(stats.latency.count, stats.answered, "{stats:#?}");
    assert_eq!(stats.failures.total(), stats.failed, "{stats:#?}");
    let carried = stats.carried.ring + stats.carried.pool + stats.carried.caller;
    assert!(carried + stats.coalesced + stats.failed >= stats.answered, "{stats:#?}");
    let latency = &stats.latency;
    let ordered = [Duration::ZERO, latency.p50, latency.p90, latency.p99, latency.max];
    assert!(ordered.is_sorted() && latency.mean <= latency.max, "{stats:#?}");
}

#[test]
fn a_new_writer_has_done_nothing() {
    for engine in engines() {
        let stats = writer(engine).stats();
        assert_at_rest(&stats);
        assert_eq!(format!("{stats:?}"), format!("{:?}", WriterStats::default()));
    }
}

#[test]
fn a_hundred_saves_of_which_three_fail() {
    let disk = need!(Disk::ext4());
    for engine in engines() {
        let writer = writer(engine);
        let dir = disk.path().join(format!("{engine:?}"));
        let target = |number: usize| dir.join(number.to_string()).join("state.json");
        for number in 0..100 {
            fs::create_dir_all(target(number).parent().unwrap()).unwrap();
        }
        // A directory stands there; there is no directory; a mode that is none.
        fs::create_dir(target(10)).unwrap();
        fs::create_dir(target(11)).unwrap();
        fs::remove_dir(target(12).parent().unwrap()).unwrap();
        let requests: Vec<Request> =
            (0..100).map(|number| Request::new(target(number), vec![b'x'; 1000])).collect();
        let answers = writer.replace_all_blocking(requests);
        assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 3);
        let stats = writer.stats();
        assert_at_rest(&stats);
        assert_eq!((stats.answered, stats.failed, stats.coalesced), (100, 3, 0));
        let failures: Vec<(Step, u64)> = stats.failures.iter().collect();
        assert_eq!(failures, [(Step::OpenDirectory, 1), (Step::Check, 2)]);
        assert_eq!((stats.failures.at(Step::Check), stats.failures.at(Step::Write)), (2, 0));
        assert_eq!(stats.bytes, 97 * 1000);
        // All that found room at once is one cycle.
        assert_eq!((stats.cycles, stats.files_in_cycles), (1, 97));
        let carried = stats.carried;
        match engine {
            Engine::Uring => {
                assert_eq!((carried.ring, carried.pool, carried.caller), (97, 0, 0));
                assert!(stats.chains >= 97, "{stats:#?}");
            }
            _ => {
                assert_eq!((carried.ring, carried.pool, carried.caller), (0, 97, 0));
                assert_eq!(stats.chains, 0);
            }
        }
        // A syncfs for the data and one for the names; or an fsync for each file and each directory.
        let (shared, each) = (stats.barriers, stats.syncs);
        assert!((shared, each) == (2, 0) || (shared, each) == (0, 194), "{stats:#?}");
    }
}

#[test]
fn a_save_that_is_alone_is_no_cycle() {
    let disk = need!(Disk::ext4());
    for engine in engines() {
        let writer = writer(engine);
        let target = disk.path().join("alone");
        pollster::block_on(writer.replace(&target, "12345")).unwrap();
        let stats = writer.stats();
        assert_at_rest(&stats);
        assert_eq!((stats.answered, stats.bytes, stats.cycles, stats.barriers), (1, 5, 0, 0));
        assert_eq!(stats.syncs, 2, "its file and its directory");
        assert_eq!(stats.chains > 0, engine == Engine::Uring);

        // On an idle writer this thread does it, whatever the engine.
        writer.replace_blocking(&target, "123456").unwrap();
        let after = writer.stats();
        assert_at_rest(&after);
        assert_eq!((after.bytes, after.carried.caller, after.syncs), (11, 1, 4));
        assert_eq!(after.chains, stats.chains);

        // Nothing is synced that was not asked for.
        let atomic = Request::new(&target, "1").with(Options::new().level(Level::Atomic));
        writer.submit_blocking(atomic).unwrap();
        assert_eq!(writer.stats().syncs, 4);
        writer.close_blocking();
        assert_eq!(writer.stats().answered, 3, "a closed writer still tells");
        writer.replace_blocking(&target, "refused").unwrap_err();
        assert_eq!(writer.stats().accepted, 3, "what finds no room is not counted");
    }
}

#[test]
fn versions_that_are_overtaken_are_coalesced() {
    let disk = need!(Disk::ext4());
    for engine in engines() {
        let writer = writer(engine);
        let target = disk.path().join("again");
        let requests: Vec<_> = (0..50).map(|number| (&target, format!("{number:02}"))).collect();
        let requests: Vec<Request> =
            requests.into_iter().map(|(target, bytes)| Request::new(target, bytes)).collect();
        let answers = writer.replace_all_blocking(requests);
        let coalesced =
            answers.iter().filter(|one| one.as_ref().unwrap().coalesced_into.is_some()).count();
        let stats = writer.stats();
        assert_at_rest(&stats);
        assert!(coalesced > 0);
        assert_eq!(stats.coalesced, coalesced as u64);
        assert_eq!((stats.answered, stats.failed), (50, 0));
        assert_eq!(stats.bytes, 2 * (50 - coalesced as u64), "only what was written");
    }
}

/// Freezes a filesystem while `body` runs.
pub fn frozen(path: &Path, body: impl FnOnce()) -> Result<(), Skipped> {
    let freeze = |how| {
        let output = std::process::Command::new("fsfreeze").arg(how).arg(path).output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            why => Err(Skipped(format!("fsfreeze {how}: {why:?}"))),
        }
    };
    struct Thaw<F: Fn()>(F);
    impl<F: Fn()> Drop for Thaw<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    freeze("-f")?;
    let _thaw = Thaw(|| freeze("-u").unwrap());
    body();
    Ok(())
}

#[test]
fn a_save_that_is_stuck_shows_its_age() {
    let disk = need!(Disk::ext4());
    for engine in engines() {
        let writer = Writer::builder().engine(engine).max_in_flight(1).build().unwrap();
        let mut stuck = pin!(writer.replace(disk.path().join("stuck"), "1"));
        let mut next = pin!(writer.replace(disk.path().join("next"), "2"));
        let mut context = Context::from_waker(Waker::noop());
        need!(frozen(disk.path(), || {
            assert!(stuck.as_mut().poll(&mut context).is_pending());
            assert!(next.as_mut().poll(&mut context).is_pending());
            let first = writer.stats();
            std::thread::sleep(Duration::from_millis(100));
            let began = Instant::now();
            let stats = writer.stats();
            assert!(began.elapsed() < Duration::from_secs(1) * slow(), "it waits for nothing");
            assert_eq!((stats.accepted, stats.answered), (1, 0));
            assert_eq!((stats.in_flight, stats.waiting), (1, 1));
            let (before, age) = (first.oldest_in_flight.unwrap(), stats.oldest_in_flight.unwrap());
            assert!(age >= before + Duration::from_millis(100), "{before:?} {age:?}");
        }));
        pollster::block_on(stuck).unwrap();
        pollster::block_on(next).unwrap();
        let stats = writer.stats();
        assert_at_rest(&stats);
        assert_eq!(stats.answered, 2);
        assert!(stats.latency.max >= Duration::from_millis(100), "{stats:#?}");
    }
}

#[test]
fn a_save_that_was_never_polled_is_counted_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Writer::new().unwrap();
    drop(writer.replace(dir.path().join("never"), "1"));
    assert_eq!(writer.stats().accepted, 0);
}

/// A failure of a real disk: the file has no room.
#[test]
fn a_full_disk_is_seen_at_its_step() {
    let disk = need!(Disk::ext4());
    fs::write(disk.path().join("old"), "old").unwrap();
    for engine in engines() {
        disk.fill_blocks();
        let writer = writer(engine);
        let save = writer.replace(disk.path().join("old"), vec![1; 1 << 20]);
        let error = pollster::block_on(save).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
        let stats = writer.stats();
        assert_at_rest(&stats);
        assert_eq!((stats.failed, stats.failures.at(error.step())), (1, 1), "{error}");
        assert_eq!(stats.bytes, 0);
        fs::remove_file(disk.path().join("filler.blocks")).unwrap();
        disk.wait_for_room();
    }
}

#[test]
fn a_forked_child_is_told_nothing_and_does_not_hang() {
    in_child("writer::a_forked_child_is_told_nothing_and_does_not_hang", || {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::new().unwrap();
        writer.replace_blocking(dir.path().join("state.json"), "1").unwrap();
        // SAFETY: this process was started for this test, and the child only asks and leaves.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let is_nothing = writer.stats().accepted == 0 && writer.stats().latency.count == 0;
            // SAFETY: leaves without running what belongs to the parent.
            unsafe { libc::_exit(i32::from(!is_nothing)) };
        }
        let mut status = 0;
        // SAFETY: `status` is a valid place for the status.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(status, 0);
        assert_eq!(writer.stats().accepted, 1);
    });
}
