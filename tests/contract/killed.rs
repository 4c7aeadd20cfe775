//! SIGKILL in the middle of thousands of saves, many times: every target is one whole version, and
//! `recover` leaves no temporary file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ringseal::{Engine, Options, OwnerState, Request, Writer};
use tempfile::tempdir;

use crate::support::{child, spawn_child, tree};

const NAME: &str = "killed::every_target_is_whole_after_a_kill";
const TARGETS: usize = 40;
const ROUNDS: u64 = 24;

fn version(number: usize) -> String {
    format!("{number:08};").repeat(200 + number % 800)
}

#[test]
fn every_target_is_whole_after_a_kill() {
    child::run_if_child(NAME, save_for_ever);
    let dir = tempdir().unwrap();
    let mut swept = 0;
    for round in 0..ROUNDS {
        let engine = if round % 2 == 0 { "uring" } else { "threads" };
        let path = dir.path().to_str().unwrap().to_owned();
        let mut process = spawn_child(NAME, [("TARGETS_DIR", path), ("ENGINE", engine.into())]);
        let mut lines = child::lines(&mut process);
        assert_eq!(lines.next().as_deref(), Some("saving"));
        std::thread::sleep(Duration::from_millis(20 + round * 37 % 180));
        child::kill(process);
        drop(lines);
        // A ring's last operations can outlive its process by a moment.
        std::thread::sleep(Duration::from_millis(20));
        for id in 0..TARGETS {
            for name in [format!("{id}"), format!("{id}.previous")] {
                let path = dir.path().join(name);
                match fs::read_to_string(&path) {
                    Ok(read) => assert_whole(&path, &read),
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
                }
            }
        }
        let leftovers = ringseal::leftovers(dir.path()).unwrap();
        assert!(leftovers.iter().all(|left| left.owner == OwnerState::Dead), "{leftovers:?}");
        let recovered = ringseal::recover(dir.path()).unwrap();
        assert!(recovered.iter().all(|left| left.removed), "{recovered:?}");
        assert_eq!(recovered.len(), leftovers.len());
        swept += recovered.len();
        assert_eq!(tree::temps(dir.path()), [""; 0]);
    }
    assert!(swept > 0, "no kill came in the middle: the test shows nothing");
}

#[track_caller]
fn assert_whole(path: &Path, read: &str) {
    let number: usize = read.get(..8).and_then(|digits| digits.parse().ok()).unwrap_or(usize::MAX);
    assert!(
        number < usize::MAX && read == version(number),
        "{} is not whole: {} bytes, {read:.20}",
        path.display(),
        read.len()
    );
}

fn save_for_ever() {
    let dir = std::path::PathBuf::from(std::env::var("TARGETS_DIR").unwrap());
    let engine = match std::env::var("ENGINE").as_deref() {
        Ok("uring") => Engine::Uring,
        _ => Engine::Threads,
    };
    let writer = Writer::builder()
        .engine(engine)
        .build()
        .unwrap_or_else(|_| crate::doors::writer(Engine::Threads));
    println!("saving");
    for turn in 0.. {
        let request = |id: usize| {
            let mut options = Options::new();
            if id % 4 == 0 {
                options = options.keep_previous(format!("{id}.previous"));
            }
            Request::new(dir.join(format!("{id}")), version(turn * TARGETS + id)).with(options)
        };
        let answers = writer.replace_all_blocking((0..TARGETS).map(request).collect::<Vec<_>>());
        assert!(answers.iter().all(|answer| answer.is_ok()), "{answers:?}");
    }
}
