//! What is in flight is bounded, and close waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringseal::{Cause, Request, Step, Writer};
use tempfile::tempdir;

use crate::doors::{Door, assert_reads, engines};
use crate::support::assert_no_temps;

#[test]
fn saves_wait_for_room() {
    for engine in engines() {
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
    for engine in engines() {
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

/// One that stands in line and is not polled does not keep a blocking save from an idle writer.
#[test]
fn an_idle_writer_is_not_held_up_by_who_does_not_poll() {
    use std::future::Future;
    for engine in engines() {
        let writer = Writer::builder().engine(engine).max_in_flight(1).build().unwrap();
        let dir = tempdir().unwrap();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut first = writer.replace(dir.path().join("first"), "1");
        let mut second = writer.replace(dir.path().join("second"), "2");
        assert!(std::pin::Pin::new(&mut first).poll(&mut context).is_pending());
        let _ = std::pin::Pin::new(&mut second).poll(&mut context);
        pollster::block_on(first).unwrap();
        writer.replace_blocking(dir.path().join("third"), "3").unwrap();
        pollster::block_on(second).unwrap();
        assert_reads(&dir.path().join("third"), "3");
        assert_reads(&dir.path().join("second"), "2");
    }
}

/// A caller's waker panics, on the engine's thread. Everybody else is served.
#[test]
fn a_panic_of_a_callers_does_not_stop_the_engine() {
    use std::future::Future;
    struct Bad;
    impl std::task::Wake for Bad {
        fn wake(self: Arc<Self>) {
            std::panic::resume_unwind(Box::new("a waker's own"));
        }
    }
    for engine in engines() {
        let writer = Writer::builder().engine(engine).max_threads(1).build().unwrap();
        let kind = writer.engine().kind;
        let dir = tempdir().unwrap();
        for round in 0..5 {
            let waker = std::task::Waker::from(Arc::new(Bad));
            let mut save = writer.replace(dir.path().join("bad"), "1");
            let mut context = std::task::Context::from_waker(&waker);
            let _ = std::pin::Pin::new(&mut save).poll(&mut context);
            let good = dir.path().join(format!("{round}"));
            pollster::block_on(writer.replace(&good, "good")).unwrap();
            assert_reads(&good, "good");
            pollster::block_on(save).unwrap();
        }
        assert_eq!(writer.engine().kind, kind);
        writer.close_blocking();
    }
}
