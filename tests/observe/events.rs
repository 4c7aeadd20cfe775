//! The events of the feature `tracing`: what is told, at which level, and what never is.

use std::fmt::{Debug, Write};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringseal::{Engine, Outcome, Request, StateStore, StoreOptions, Writer};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::engines;
use crate::support::{Disk, cgroup, chattr, in_child, need, require_shared_syncs};

/// Collects what is told, a line each: `LEVEL name=value ... message`; spans as `LEVEL span NAME ...`.
#[derive(Debug, Clone, Default)]
pub struct Collector {
    lines: Arc<Mutex<Vec<String>>>,
    spans: Arc<AtomicU64>,
}

impl Collector {
    /// Collects from now on, in this process.
    pub fn install() -> Collector {
        let collector = Collector::default();
        tracing::subscriber::set_global_default(collector.clone()).unwrap();
        collector
    }

    /// What was told since it was asked last.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => write!(self.0, " {value:?}").unwrap(),
            name => write!(self.0, " {name}={value:?}").unwrap(),
        }
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "ringseal"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(format!("{} span {}", span.metadata().level(), span.metadata().name()));
        span.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Lines of a level that hold all of these.
pub fn of<'a>(lines: &'a [String], level: Level, parts: &[&str]) -> Vec<&'a String> {
    let is_of = |line: &&String| {
        line.starts_with(level.as_str()) && parts.iter().all(|part| line.contains(part))
    };
    lines.iter().filter(is_of).collect()
}

/// What is saved in these tests, and must not be told.
pub const SECRET: &str = "c2VjcmV0-of-a-container";

#[test]
fn every_save_is_told_and_no_payload_is() {
    in_child("events::every_save_is_told_and_no_payload_is", || {
        let disk = need!(Disk::ext4());
        let collector = Collector::install();
        for engine in engines() {
            let writer = Writer::builder().engine(engine).build().unwrap();
            let dir = disk.path().join(format!("{engine:?}"));
            fs::create_dir_all(dir.join("3")).unwrap();
            let requests: Vec<Request> =
                (0..10).map(|number| Request::new(dir.join(number.to_string()), SECRET)).collect();
            let answers = writer.replace_all_blocking(requests);
            assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1);
            writer.replace_blocking(dir.join("alone"), SECRET).unwrap();
            writer.close_blocking();

            let lines = collector.take();
            assert_eq!(of(&lines, Level::TRACE, &[" accepted", "path="]).len(), 10, "{lines:#?}");
            let bytes = format!("bytes={}", SECRET.len());
            let answered = of(&lines, Level::TRACE, &[" answered", &bytes, "micros="]);
            assert_eq!(answered.len(), 10, "{lines:#?}");
            let failed = of(&lines, Level::DEBUG, &[" failed", "step=\"check\"", "errno=21"]);
            assert_eq!(failed.len(), 1, "{lines:#?}");
            assert!(failed[0].contains("outcome=\"unchanged\""), "{failed:?}");
            let cycles = of(&lines, Level::DEBUG, &["span cycle", "files=9"]);
            assert_eq!(cycles.len(), 1, "{lines:#?}");
            assert!(of(&lines, Level::WARN, &[]).is_empty(), "{lines:#?}");
            assert!(lines.iter().all(|line| !line.contains(SECRET)), "{lines:#?}");
        }
    });
}

#[test]
fn a_failure_that_leaves_doubt_is_a_warning() {
    in_child("events::a_failure_that_leaves_doubt_is_a_warning", || {
        let collector = Collector::install();
        for engine in engines() {
            let disk = need!(Disk::xfs());
            let writer = Writer::builder().engine(engine).build().unwrap();
            let target = disk.path().join("state.json");
            writer.replace_blocking(&target, "old").unwrap();
            collector.take();
            need!(disk.shutdown());
            let error = pollster::block_on(writer.replace(&target, SECRET)).unwrap_err();
            let lines = collector.take();
            let level = match error.outcome() {
                Outcome::Unchanged => Level::DEBUG,
                _ => Level::WARN,
            };
            let step = format!("step={:?}", error.step().name());
            assert_eq!(of(&lines, level, &[&step, "failed"]).len(), 1, "{error}: {lines:#?}");
            assert!(lines.iter().all(|line| !line.contains(SECRET)), "{lines:#?}");
            writer.close_blocking();
            drop(writer);
            disk.remount();
        }
    });
}

/// A subscriber is somebody else's code: one that panics takes no save with it.
#[test]
fn a_subscriber_that_panics_loses_no_save() {
    struct Panics;
    impl Subscriber for Panics {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            panic!("a span")
        }
        fn event(&self, _: &Event<'_>) {
            panic!("an event")
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }
    in_child("events::a_subscriber_that_panics_loses_no_save", || {
        std::panic::set_hook(Box::new(|_| {}));
        tracing::subscriber::set_global_default(Panics).unwrap();
        let disk = need!(Disk::ext4());
        for engine in engines() {
            let writer = Writer::builder().engine(engine).build().unwrap();
            let requests: Vec<Request> = (0..20)
                .map(|number| Request::new(disk.path().join(number.to_string()), SECRET))
                .collect();
            let answers = writer.replace_all_blocking(requests);
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
            writer.replace_blocking(disk.path().join("alone"), SECRET).unwrap();
            writer.close_blocking();
        }
    });
}

#[test]
fn a_store_tells_its_life_and_no_payload() {
    in_child("events::a_store_tells_its_life_and_no_payload", || {
        let disk = need!(Disk::ext4());
        let collector = Collector::install();
        let root = disk.path().join("root");
        let store = StateStore::open_blocking(&root).unwrap();
        store.save_bytes_blocking("web-1", SECRET).unwrap();
        store.remove_blocking("none").unwrap_err();
        store.close_blocking().unwrap();
        let lines = collector.take();
        let path = format!("path={}", root.display());
        for (level, parts) in [
            (Level::INFO, ["store opened", &path]),
            (Level::TRACE, ["transaction accepted", "changes=1"]),
            (Level::TRACE, ["transaction answered", "micros="]),
            (Level::DEBUG, ["span group", "transactions=1"]),
            (Level::DEBUG, ["failed", "step=\"open-directory\""]),
            (Level::DEBUG, ["spread", "micros="]),
            (Level::INFO, ["store closed", &path]),
        ] {
            assert!(!of(&lines, level, &parts).is_empty(), "{parts:?}: {lines:#?}");
        }
        assert!(of(&lines, Level::WARN, &[]).is_empty(), "{lines:#?}");
        assert!(lines.iter().all(|line| !line.contains(SECRET)), "{lines:#?}");
    });
}

/// What somebody who watches a host is to see: each is a warning, but for a log that has grown.
#[test]
fn what_goes_wrong_in_a_store_is_a_warning() {
    in_child("events::what_goes_wrong_in_a_store_is_a_warning", || {
        need!(require_shared_syncs());
        let disk = need!(Disk::ext4());
        let collector = Collector::install();
        let root = disk.path().join("root");
        let open = || {
            let options = StoreOptions::new().spread_after(Duration::from_secs(3600));
            options.segment_bytes(64 << 10, 1 << 20).open_blocking(&root).unwrap()
        };
        let store = open();
        store.save_bytes_blocking("web-1", "old").unwrap();
        collector.take();

        let states = (0..60).map(|index| (format!("c{index}"), SECRET.repeat(40)));
        store.save_all_blocking(states).unwrap();
        let lines = collector.take();
        assert_eq!(of(&lines, Level::INFO, &["log grown", "segment="]).len(), 1, "{lines:#?}");
        assert!(of(&lines, Level::WARN, &[]).is_empty(), "{lines:#?}");

        let target = root.join("web-1/state.json");
        let path = format!("path={}", target.display());
        chattr("+i", &target);
        let committed = store.save_bytes_blocking("web-1", SECRET).unwrap();
        assert_eq!(committed.not_visible.len(), 1);
        let lines = collector.take();
        let not_visible = of(&lines, Level::WARN, &["not visible", &path, "errno=1"]);
        assert_eq!(not_visible.len(), 1, "{lines:#?}");
        // Once for each version, and not for every save of others.
        store.save_bytes_blocking("web-2", SECRET).unwrap();
        assert!(of(&collector.take(), Level::WARN, &[]).is_empty());
        store.close_blocking().unwrap();
        let lines = collector.take();
        assert_eq!(of(&lines, Level::WARN, &["set aside", &path]).len(), 1, "{lines:#?}");
        chattr("-i", &target);
        drop(store);

        let store = open();
        store.save_bytes_blocking("web-1", SECRET).unwrap();
        collector.take();
        need!(disk.shutdown());
        store.close_blocking().unwrap_err();
        let lines = collector.take();
        for parts in
            [["spread failed", "errno="], ["store closed, and the files are not durable", "errno="]]
        {
            assert!(!of(&lines, Level::WARN, &parts).is_empty(), "{parts:?}: {lines:#?}");
        }
        assert!(lines.iter().all(|line| !line.contains(SECRET)), "{lines:#?}");
        drop(store);
        disk.remount();
    });
}

#[test]
fn a_ring_that_is_given_up_is_a_warning() {
    in_child("events::a_ring_that_is_given_up_is_a_warning", || {
        if !engines().contains(&Engine::Uring) {
            return;
        }
        let disk = need!(Disk::ext4());
        let group = need!(cgroup::limit_pids(1000));
        let writer = Writer::builder().engine(Engine::Uring).build().unwrap();
        let collector = Collector::install();
        // No worker of the kernel's can be made from now on.
        group.set_max(group.current().unwrap()).unwrap();
        for number in 0..20 {
            let target = disk.path().join(number.to_string());
            pollster::block_on(writer.replace(target, SECRET)).unwrap();
        }
        let lines = collector.take();
        let given_up = of(&lines, Level::WARN, &["the ring is given up", "why="]);
        assert_eq!(given_up.len(), 1, "{lines:#?}");
        writer.close_blocking();
    });
}
