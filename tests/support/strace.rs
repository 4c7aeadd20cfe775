//! Counting a child's system calls.

use std::collections::BTreeMap;
use std::process::Command;

/// Runs the test `name` as a child under strace(1) and counts the given calls of all its threads.
/// `None` if there is no strace, or it may not trace.
///
/// # Panics
/// If the child fails.
pub fn count(
    name: &str,
    calls: &[&str],
    envs: &[(&str, String)],
) -> Option<BTreeMap<String, usize>> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new("strace")
        .args(["-f", "-e", &format!("trace={}", calls.join(",")), "-o"])
        .arg(log.path())
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env("RINGSEAL_TEST_CHILD", name)
        .envs(envs.iter().map(|(key, value)| (key, value)))
        .output()
        .ok()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("ptrace"), "the traced process failed: {said}");
        return None;
    }
    let log = std::fs::read_to_string(log.path()).unwrap();
    // A call that another thread interrupts in the log stands on two lines.
    let begun =
        |call: &&str| log.lines().filter(|line| line.contains(&format!(" {call}("))).count();
    Some(calls.iter().map(|call| (call.to_string(), begun(call))).collect())
}
