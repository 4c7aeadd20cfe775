//! What is in flight is bounded, and close waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringseal::{Cause, Engine, Request, Step, Writer};
use tempfile::tempdir;

use crate::doors::{Door, assert_reads};
use crate::support::assert_no_temps;

const ENGINES: [Engine; 2] = [Engine::Auto, Engine::Threads];

#[test]
fn saves_wait_for_room() {
    for engine in ENGINES {
        let builder = Writer::builder().engine(engine).max_in_flight(2).max_bytes_in_flight(4096);
        let writer = builder.build().unwrap();
        let dir = tempdir().unwrap();
        // Larger than the limit too: such a save goes alone.
        let payload = |id: usize| vec![id as u8; 100 + id * 100];
        let requests: Vec<_> =
            (0..100).map(|id| (dir.path().join(format!("{id}")), payload(id))).collect();
        let answers = writer.replace_all_blocking(requests);
        assert!(answers.iter().all(|answer| answer.is_ok()));
        for id in 0..100 {
            assert_reads(&dir.path().join(format!("{id}")), payload(id));
        }
    }
}

/// The iterator is asked for a request only when there is room for it, so what is in flight is
/// bounded by the writer, not by the caller's list.
#[test]
fn requests_are_taken_as_there_is_room() {
    for engine in ENGINES {
        let writer = Writer::builder().engine(engine).max_in_flight(4).build().unwrap();
        let dir = tempdir().unwrap();
        let taken = Arc::new(AtomicUsize::new(0));
        let (counted, path) = (taken.clone(), dir.path().to_owned());
        let requests = (0..50).map(move |id| {
            // Those taken before are at most in flight: the others are on disk.
            let saved = std::fs::read_dir(&path).unwrap().count();
            let before = counted.fetch_add(1, Ordering::Relaxed);
            assert!(before <= saved + 5, "{before} taken, {saved} saved");
            Request::new(path.join(format!("{id}")), "x")
        });
        let answers = writer.replace_all_blocking(requests);
        assert_eq!((answers.len(), taken.load(Ordering::Relaxed)), (50, 50));
    }
}

#[test]
fn close_waits_and_then_nothing_is_taken() {
    for writer in Door::writers() {
        let dir = tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let answered = Arc::new(AtomicUsize::new(0));
        runtime.block_on(async {
            for id in 0..100 {
                let save = writer.replace(dir.path().join(format!("{id}")), "new");
                let answered = answered.clone();
                tokio::spawn(async move {
                    match save.await {
                        Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            assert!(matches!(error.cause(), Cause::Closed), "{error}");
                            0
                        }
                    }
                });
            }
            tokio::task::yield_now().await;
            writer.close().await;
        });
        // What was acknowledged is there; what was accepted is done; nothing is half done.
        let there = std::fs::read_dir(dir.path()).unwrap().count();
        assert!(there >= answered.load(Ordering::Relaxed));
        assert_no_temps(dir.path());
        let late = dir.path().join("late");
        for error in [
            writer.replace_blocking(&late, "new").unwrap_err(),
            pollster::block_on(writer.replace(&late, "new")).unwrap_err(),
            writer.replace_all_blocking([(late.clone(), "new")]).remove(0).unwrap_err(),
        ] {
            assert!(matches!(error.cause(), Cause::Closed), "{error}");
            assert_eq!(error.step(), Step::Accept);
        }
        assert!(!late.exists());
        writer.close_blocking();
    }
}
