//! Wrong command lines, and standard streams that cannot be written.

use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;

use crate::command::*;

#[test]
fn a_wrong_command_line_is_2_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let target = format!("{path}/target");
    let target = target.as_str();
    let wrong: &[&[&str]] = &[
        &[],
        &["unknown"],
        &["write"],
        &["write", target, "other"],
        &["write", target, "--mode", "8"],
        &["write", target, "--mode", "1777"],
        &["write", target, "--mode", "rw"],
        &["write", target, "--keep-previous", "a/b"],
        &["write", target, "--keep-previous", ""],
        &["write", target, "--engine", "none"],
        &["write", target, "--level", "none"],
        &["checkpoint", "--from", path],
        &["checkpoint", "--to", path],
        &["checkpoint", "--from", path, "--to", target, "--name", ".."],
        &["checkpoint", "--from", path, "--to", target, "--max-in-flight", "0"],
        &["checkpoint", "--from", path, "--to", target, "--max-in-flight", "2049"],
        &["recover"],
        &["recover", path, "--engine", "auto"],
        &["probe", path, path],
    ];
    for arguments in wrong {
        let output = run_with(*arguments, "new");
        assert_status(&output, 2);
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn help_tells_the_exit_statuses() {
    for arguments in
        [&["--help"][..], &["write", "--help"], &["checkpoint", "--help"], &["probe", "-h"]]
    {
        let output = run(arguments);
        assert_status(&output, 0);
        assert!(stdout(&output).contains("Exit status:\n  0  "), "{}", stdout(&output));
    }
    assert_eq!(stdout(&run(["--version"])), format!("ringseal {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_who_has_gone_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    let mut command = ringseal();
    command.arg("write").arg(&target).arg("--json");
    let mut child = piped(command.stdin(Stdio::piped()));
    // It prints only after the end of its input, and by then nobody reads.
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(b"new").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_status(&output, 0);
    assert_eq!(stderr(&output), "");
    assert_eq!(fs::read(target).unwrap(), b"new");
}

#[test]
fn a_full_standard_output_is_told() {
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let output = ringseal().arg("probe").stdout(full).stdin(Stdio::null()).output().unwrap();
    assert_status(&output, 1);
    let line = "ringseal: standard output: write: No space left on device (os error 28)\n";
    assert_eq!(stderr(&output), line);
}
