//! The futures run anywhere, and dropping one stops nothing.

use std::future::Future;
use std::task::{Context, Waker};
use std::time::Duration;

use ringseal::{Save, Writer};
use tempfile::tempdir;

use crate::doors::{Door, assert_reads};
use crate::support::assert_no_temps;

fn is_handle<T: Clone + Send + Sync + 'static>() {}
fn is_task<T: Future + Send + Unpin + 'static>() {}

#[test]
fn handles_and_futures_can_go_anywhere() {
    is_handle::<Writer>();
    is_task::<Save>();
}

async fn save_some(writer: Writer, dir: std::path::PathBuf) {
    for id in 0..20 {
        writer.replace(dir.join(format!("{id}")), format!("{id}")).await.unwrap();
    }
    for id in 0..20 {
        assert_reads(&dir.join(format!("{id}")), format!("{id}"));
    }
}

#[test]
fn on_tokio() {
    for writer in Door::writers() {
        let dir = tempdir().unwrap();
        let future = save_some(writer.clone(), dir.path().into());
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        runtime.block_on(async { tokio::spawn(future).await.unwrap() });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(save_some(writer, dir.path().into()));
    }
}

#[test]
fn on_tokio_uring() {
    let works = std::panic::catch_unwind(|| tokio_uring::start(async {})).is_ok();
    if !works {
        crate::support::skip!("tokio-uring does not start here");
    }
    for writer in Door::writers() {
        let dir = tempdir().unwrap();
        tokio_uring::start(save_some(writer, dir.path().into()));
    }
}

#[test]
fn on_a_bare_block_on() {
    for writer in Door::writers() {
        let dir = tempdir().unwrap();
        pollster::block_on(save_some(writer, dir.path().into()));
    }
}

/// A future that was polled once and dropped: the save is carried out, whole, and nothing of it is
/// freed before the kernel is done with it.
#[test]
fn a_dropped_future_stops_nothing() {
    for writer in Door::writers() {
        let dir = tempdir().unwrap();
        let payload = |id: usize| vec![id as u8; 1 << 20];
        for id in 0..40 {
            let mut save = writer.replace(dir.path().join(format!("{id}")), payload(id));
            let mut context = Context::from_waker(Waker::noop());
            let _ = std::pin::Pin::new(&mut save).poll(&mut context);
            drop(save);
        }
        writer.close_blocking();
        for id in 0..40 {
            assert_reads(&dir.path().join(format!("{id}")), payload(id));
        }
        assert_no_temps(dir.path());
    }
}

/// One that was never polled has not begun.
#[test]
fn a_future_that_is_not_polled_does_nothing() {
    for writer in Door::writers() {
        let dir = tempdir().unwrap();
        drop(writer.replace(dir.path().join("state.json"), "new"));
        std::thread::sleep(Duration::from_millis(20));
        writer.close_blocking();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

/// The last handle is dropped with saves in flight: they are carried out.
#[test]
fn dropping_the_last_handle_stops_nothing() {
    for writer in Door::writers() {
        let dir = tempdir().unwrap();
        let target = dir.path().join("state.json");
        let mut save = writer.replace(&target, "new");
        drop(writer);
        let mut context = Context::from_waker(Waker::noop());
        let _ = std::pin::Pin::new(&mut save).poll(&mut context);
        pollster::block_on(save).unwrap();
        assert_reads(&target, "new");
    }
}
