//! `ringseal write`: what it refuses, and that it neither follows a link nor leaves its root.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode};
use rustix::process::Signal;
use serde_json::json;

use crate::command::*;
use crate::write::engine_arguments;

#[test]
fn json_tells_what_failed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for engine in engine_arguments() {
        let output = run_with(["write", path, "--json"].iter().chain(&engine), "new");
        assert_status(&output, 1);
        let message = format!("{path}: check: Is a directory (os error 21); unchanged");
        assert_eq!(stderr(&output), format!("ringseal: {message}\n"));
        let document = json(&output);
        let failure = json!({
            "target": path, "step": "check", "errno": 21, "outcome": "unchanged",
            "message": message,
        });
        assert_eq!(document["failures"], json!([failure]));
        assert_eq!((&document["bytes"], &document["durability"]), (&json!(null), &json!(null)));
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // Root could destroy the real one, if the command were wrong; others cannot.
    let own = dir.path().join("null");
    let number = rustix::fs::makedev(1, 3);
    let made = rustix::fs::mknodat(CWD, &own, FileType::CharacterDevice, Mode::RUSR, number);
    let null = if made.is_ok() { own } else { "/dev/null".into() };
    for engine in engine_arguments() {
        for (path, what) in [(fifo.as_path(), "FIFO"), (null.as_path(), "character device")] {
            let arguments = ["write", path.to_str().unwrap()];
            let output = run_with(arguments.iter().chain(&engine), "new");
            assert_status(&output, 1);
            let line = format!(
                "ringseal: {}: check: the target is a {what}, which a replace would destroy \
                 (os error 22); unchanged\n",
                path.display()
            );
            assert_eq!(stderr(&output), line);
        }
        assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
        assert!(fs::symlink_metadata(&null).unwrap().file_type().is_char_device());
    }
}

#[test]
fn a_root_is_not_left() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("id")).unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    symlink("../outside", root.join("out")).unwrap();
    for engine in engine_arguments() {
        let write = |target: &str| {
            let arguments = ["write", target, "--root", root.to_str().unwrap()];
            run_with(arguments.iter().chain(&engine), "new")
        };
        assert_status(&write("id/state.json"), 0);
        assert_eq!(fs::read(root.join("id/state.json")).unwrap(), b"new");
        fs::remove_file(root.join("id/state.json")).unwrap();
        for (target, errno) in [("../escaped", 18), ("out/escaped", 40)] {
            let output = write(target);
            assert_status(&output, 1);
            let begin = format!("ringseal: {}/{target}: open-directory: ", root.display());
            assert!(stderr(&output).starts_with(&begin), "{}", stderr(&output));
            let end = format!("(os error {errno}); unchanged\n");
            assert!(stderr(&output).ends_with(&end), "{}", stderr(&output));
        }
        assert!(!dir.path().join("escaped").exists());
        assert!(!dir.path().join("outside/escaped").exists());
    }
}

#[test]
fn a_link_at_the_target_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (link, other) = (dir.path().join("link"), dir.path().join("other"));
    for engine in engine_arguments() {
        fs::write(&other, "other").unwrap();
        let _ = fs::remove_file(&link);
        symlink(&other, &link).unwrap();
        assert_status(&run_with(["write", link.to_str().unwrap()].iter().chain(&engine), "new"), 0);
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
        assert_eq!(fs::read(&link).unwrap(), b"new");
        assert_eq!(fs::read(&other).unwrap(), b"other");
    }
}

#[test]
fn an_input_that_cannot_be_read_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("state.json");
    fs::write(&target, "old").unwrap();
    let directory = File::open(dir.path()).unwrap();
    let output = ringseal().arg("write").arg(&target).stdin(directory).output().unwrap();
    assert_status(&output, 1);
    let line = format!(
        "ringseal: {}: read: standard input: Is a directory (os error 21); unchanged\n",
        target.display()
    );
    assert_eq!(stderr(&output), line);
    assert_eq!(fs::read(&target).unwrap(), b"old");
}

#[test]
fn whoever_interrupts_the_input_has_changed_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("state.json");
    fs::write(&target, "old").unwrap();
    let mut command = ringseal();
    command.arg("write").arg(&target);
    let mut child = piped(command.stdin(Stdio::piped()));
    // More than a pipe holds: when it is written, the command has begun to read.
    child.stdin.as_mut().unwrap().write_all(&vec![b'n'; 4 << 20]).unwrap();
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(2));
    assert_eq!(fs::read(&target).unwrap(), b"old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_size_limit_is_an_error_not_a_death() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("state.json");
    fs::write(&target, "old").unwrap();
    for engine in engine_arguments() {
        let mut command = Command::new("sh");
        let script = "ulimit -f 8; exec \"$@\"";
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_ringseal"), "write"]);
        let output = feed(command.arg(&target).args(&engine), &[b'n'; 1 << 20]);
        assert_status(&output, 1);
        let line = format!(
            "ringseal: {}: write: File too large (os error 27); unchanged\n",
            target.display()
        );
        assert_eq!(stderr(&output), line);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
