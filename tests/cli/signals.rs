//! `ringseal checkpoint` under signals: what was acknowledged stays, nothing is half done.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::command::*;

const COUNT: usize = 4000;
/// More than the command looks at together.
const FEWER: usize = 1500;

#[test]
fn a_signal_ends_it_between_files() {
    let from = tempfile::tempdir().unwrap();
    make_states(from.path(), COUNT);
    for engine in engines() {
        for kind in [Signal::TERM, Signal::INT] {
            // Where saving is fast it can end first.
            let interrupted = (0..10).map(|_| {
                let to = tempfile::tempdir().unwrap();
                let child = checkpoint_under_way(from.path(), to.path(), engine);
                signal(&child, kind);
                (to, child.wait_with_output().unwrap())
            });
            let mut interrupted = interrupted.skip_while(|(_, output)| output.status.success());
            let (to, output) = interrupted.next().expect("it always ended before the signal came");
            assert_status(&output, 1);
            assert_eq!(stderr(&output), "");
            let document = json(&output);
            assert_eq!(document["interrupted"], true);
            assert_eq!(document["failures"], json!([]));
            let saved = saved_states(to.path(), COUNT);
            assert_eq!(document["files"], saved, "{engine}");
            assert!(saved > 0 && saved < COUNT, "{saved} were saved: it was not interrupted");
            assert_eq!(temporaries(to.path()), Vec::<PathBuf>::new());
        }
    }
}

#[test]
fn the_text_tells_of_the_interruption() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_states(from.path(), COUNT);
    let mut command = ringseal();
    command.arg("checkpoint").arg("--from").arg(from.path()).arg("--to").arg(to.path());
    let child = piped(&mut command);
    wait_until("a directory is made", || fs::read_dir(to.path()).unwrap().next().is_some());
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_status(&output, 1);
    assert!(stdout(&output).contains("\ninterrupted:  "), "{}", stdout(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_kill_leaves_whole_files_and_what_recover_removes() {
    for engine in engines() {
        let (to, left) = leave_temporaries(engine);
        let path = to.path().to_str().unwrap();
        let output = run(["recover", "--recursive", "--json", path]);
        assert_status(&output, 0);
        assert_eq!(json(&output)["removed"], left.len());
        assert_eq!(json(&output)["left"], 0);
        assert_eq!(temporaries(to.path()), Vec::<PathBuf>::new());
        saved_states(to.path(), 3000);
    }
}

/// Stops a checkpoint in the middle, gives it to `meanwhile` and lets it go on to its end.
fn stopped(meanwhile: impl Fn(&Path, &Path) -> bool) -> bool {
    // A runtime's directory is on tmpfs, whose listings take removals in their own way.
    let from = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let to = tempfile::tempdir().unwrap();
    make_states(from.path(), FEWER);
    let child = checkpoint_under_way(from.path(), to.path(), "threads");
    signal(&child, Signal::STOP);
    let stat = format!("/proc/{}/stat", child.id());
    wait_until("it is stopped", || fs::read_to_string(&stat).unwrap().contains(") T "));
    // Calls that were under way end.
    std::thread::sleep(Duration::from_millis(100));
    let happened = meanwhile(from.path(), to.path());
    signal(&child, Signal::CONT);
    let output = child.wait_with_output().unwrap();
    assert_status(&output, 0);
    assert_eq!(stderr(&output), "");
    let document = json(&output);
    assert_eq!(document["files"], saved_states(to.path(), FEWER));
    assert_eq!(temporaries(to.path()), Vec::<PathBuf>::new());
    happened && (document["files"] == FEWER || document["vanished"].as_u64() > Some(0))
}

#[test]
fn recover_leaves_what_a_live_process_is_writing() {
    let found = |_: &Path, to: &Path| {
        let before = temporaries(to);
        let output = run(["recover", "--recursive", "--json", to.to_str().unwrap()]);
        assert_status(&output, 0);
        let document = json(&output);
        for leftover in document["leftovers"].as_array().unwrap() {
            assert_eq!(
                (&leftover["owner"], &leftover["removed"]),
                (&json!("alive"), &json!(false))
            );
        }
        assert_eq!((&document["removed"], &document["left"]), (&json!(0), &before.len().into()));
        assert_eq!(temporaries(to), before);
        !before.is_empty()
    };
    assert!((0..10).any(|_| stopped(found)), "it was never stopped while it was writing");
}

#[test]
fn a_container_that_ends_meanwhile_is_counted_and_no_failure() {
    let ended = |from: &Path, to: &Path| {
        for number in 0..FEWER {
            let id = format!("container-{number:05}");
            if !to.join(&id).join("state.json").exists() {
                fs::remove_dir_all(from.join(id)).unwrap();
            }
        }
        true
    };
    assert!((0..10).any(|_| stopped(ended)), "no container was gone before it was read");
}
