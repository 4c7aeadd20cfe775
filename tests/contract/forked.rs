//! After a fork the child's handles answer at once; the parent's go on.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use ringseal::{AtomicFile, Cause, Engine, Writer};
use tempfile::tempdir;

use crate::doors::{Door, assert_reads, engines};
use crate::support::{assert_no_temps, in_child};

#[test]
fn a_forked_childs_handles_answer_forked() {
    in_child("forked::a_forked_childs_handles_answer_forked", || {
        for writer in Door::writers() {
            let dir = tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            pollster::block_on(writer.replace(at("before"), "1")).unwrap();
            // Waits for its answer while the process forks.
            let mut file = AtomicFile::create(at("streamed")).unwrap();
            file.write_all(b"parent's").unwrap();
            let status = fork(|| {
                let start = Instant::now();
                let forked = [
                    pollster::block_on(writer.replace(at("child"), "x")).unwrap_err(),
                    writer.replace_blocking(at("child"), "x").unwrap_err(),
                    writer.replace_all_blocking([(at("child"), "x")]).remove(0).unwrap_err(),
                ];
                assert!(forked.iter().all(|error| matches!(error.cause(), Cause::Forked)));
                writer.close_blocking();
                let mut file = file;
                assert!(file.write_all(b"child's").is_err());
                assert!(matches!(file.commit().unwrap_err().cause(), Cause::Forked));
                drop(writer.clone());
                // The plain functions work, and so does a writer of the child's own.
                ringseal::replace(at("plain"), "2").unwrap();
                let own = Writer::builder().engine(Engine::Auto).build().unwrap();
                pollster::block_on(own.replace(at("own"), "3")).unwrap();
                own.close_blocking();
                assert!(start.elapsed() < Duration::from_secs(20), "it must not hang");
            });
            assert_eq!(status, 0, "the child failed");
            assert_reads(&at("plain"), "2");
            assert_reads(&at("own"), "3");
            assert!(!at("child").exists());
            // The parent's are untouched. Its streamed file is known by its name only.
            pollster::block_on(writer.replace(at("after"), "4")).unwrap();
            assert_reads(&at("after"), "4");
            writer.close_blocking();
        }
    });
}

/// The child drops what it inherited: the parent's temporary file must survive that.
#[test]
fn a_forked_child_discards_nothing_of_its_parents() {
    in_child("forked::a_forked_child_discards_nothing_of_its_parents", || {
        let dir = tempdir().unwrap();
        let target = dir.path().join("state.json");
        let mut file = Some(AtomicFile::create(&target).unwrap());
        file.as_mut().unwrap().write_all(b"whole").unwrap();
        assert_eq!(fork(|| drop(file.take())), 0);
        file.take().unwrap().commit().unwrap();
        assert_reads(&target, "whole");
        // Its own temps have names of their own.
        assert_eq!(fork(|| assert!(ringseal::replace(&target, "child's").is_ok())), 0);
        assert_reads(&target, "child's");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_no_temps(dir.path());
    });
}

/// Runs `body` in a forked child; its exit status.
pub fn fork(body: impl FnOnce()) -> i32 {
    // SAFETY: the test binary's other threads hold no lock that the body needs: this runs in a
    // process that was started for one test.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: leaves without running what belongs to the parent.
        unsafe { libc::_exit(if outcome.is_ok() { 0 } else { 1 }) };
    }
    let mut status = 0;
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        // SAFETY: `status` is a valid place for the status.
        let ended = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
        if ended == pid {
            return status;
        }
        if Instant::now() > deadline {
            // SAFETY: plain numbers.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            panic!("the forked child hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A save that stands in line for room while the process forks: the room is the parent's.
#[test]
fn a_save_that_stands_in_line_does_not_hang() {
    in_child("forked::a_save_that_stands_in_line_does_not_hang", || {
        use std::future::Future;
        for engine in engines() {
            let writer = Writer::builder().engine(engine).max_in_flight(1).build().unwrap();
            let dir = tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            let poll_once = |save: &mut ringseal::Save| {
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                std::pin::Pin::new(save).poll(&mut context).is_pending()
            };
            let mut first = writer.replace(at("first"), vec![1; 64 << 20]);
            let mut second = writer.replace(at("second"), "2");
            assert!(poll_once(&mut first) && poll_once(&mut second));
            let mut inherited = Some((first, second));
            let status = fork(|| {
                let (first, second) = inherited.take().unwrap();
                let second = pollster::block_on(second).unwrap_err();
                assert!(matches!(second.cause(), Cause::Forked));
                assert_eq!(second.outcome(), ringseal::Outcome::Unchanged);
                // Accepted before the fork: the parent's to know.
                let first = pollster::block_on(first).unwrap_err();
                assert!(matches!(first.cause(), Cause::Forked));
                assert_eq!(first.outcome(), ringseal::Outcome::Unknown);
            });
            assert_eq!(status, 0, "the child failed");
            let (first, second) = inherited.take().unwrap();
            pollster::block_on(first).unwrap();
            pollster::block_on(second).unwrap();
            assert_reads(&at("second"), "2");
            writer.close_blocking();
        }
    });
}
