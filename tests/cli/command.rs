//! How the tests run the command, and look at what it has done.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

/// The program.
pub fn ringseal() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringseal"))
}

/// Runs it to its end, with nothing on standard input.
pub fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    ringseal().args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs it to its end, with `input` on standard input.
pub fn run_with<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    input: impl AsRef<[u8]>,
) -> Output {
    feed(ringseal().args(arguments), input.as_ref())
}

/// Runs a command to its end, with `input` on standard input.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = piped(command.stdin(Stdio::piped()));
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Starts a command whose output is kept.
pub fn piped(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// The one JSON object on standard output.
pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", stdout(output), stderr(output)))
}

#[track_caller]
pub fn assert_status(output: &Output, status: i32) {
    assert_eq!(output.status.code(), Some(status), "{}{}", stdout(output), stderr(output));
}

/// The engines that can be asked for here.
pub fn engines() -> &'static [&'static str] {
    let usable = json(&run(["probe", "--json"]))["ring"]["usable"].as_bool().unwrap();
    if usable {
        return &["uring", "threads"];
    }
    eprintln!("io_uring cannot be used here: only the threads engine is tested");
    &["threads"]
}

/// Permission bits.
pub fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

pub fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The files below a directory whose names begin as a temporary file's.
pub fn temporaries(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        // The command may be making and removing files meanwhile.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(".ringseal")) {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// What the state file of container `number` holds: some are longer than a page.
pub fn state(number: usize) -> String {
    format!("{{\"id\":{number},\"padding\":\"{}\"}}", "x".repeat(number % 7 * 1000))
}

/// Makes the directories of `count` containers.
pub fn make_states(directory: &Path, count: usize) {
    for number in 0..count {
        let id = directory.join(format!("container-{number:05}"));
        fs::create_dir_all(&id).unwrap();
        fs::write(id.join("state.json"), state(number)).unwrap();
    }
}

/// How many of the containers were saved; each of those must be as its source was.
#[track_caller]
pub fn saved_states(directory: &Path, count: usize) -> usize {
    let mut saved = 0;
    for number in 0..count {
        let file = directory.join(format!("container-{number:05}/state.json"));
        if let Ok(content) = fs::read_to_string(&file) {
            assert!(content == state(number), "{} is not whole", file.display());
            saved += 1;
        }
    }
    saved
}

pub fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits for something to become true.
#[track_caller]
pub fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_true() {
        assert!(Instant::now() < end, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Starts a checkpoint and waits until some of the files are saved.
#[track_caller]
pub fn checkpoint_under_way(from: &Path, to: &Path, engine: &str) -> Child {
    let mut command = ringseal();
    command.args(["checkpoint", "--json", "--engine", engine, "--from"]).arg(from);
    let child = piped(command.arg("--to").arg(to).stdin(Stdio::null()));
    wait_until("a file is saved", || {
        let ids = fs::read_dir(to).into_iter().flatten().flatten();
        ids.into_iter().any(|id| id.path().join("state.json").exists())
    });
    child
}

/// The name of a real temporary file whose owner is dead: a checkpoint that is killed leaves some.
#[track_caller]
pub fn leave_temporaries(engine: &str) -> (tempfile::TempDir, Vec<PathBuf>) {
    const COUNT: usize = 3000;
    let from = tempfile::tempdir().unwrap();
    make_states(from.path(), COUNT);
    for _ in 0..30 {
        let to = tempfile::tempdir().unwrap();
        let mut child = checkpoint_under_way(from.path(), to.path(), engine);
        child.kill().unwrap();
        child.wait().unwrap();
        // The kernel's workers of a dead ring end a little later.
        std::thread::sleep(Duration::from_millis(300));
        saved_states(to.path(), COUNT);
        let left = temporaries(to.path());
        if !left.is_empty() {
            return (to, left);
        }
    }
    panic!("thirty killed checkpoints have left no temporary file");
}
