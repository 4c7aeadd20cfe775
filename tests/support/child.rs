//! Tests whose body needs a process of its own: umask, limits, chroot, seccomp, SIGKILL.
//!
//! The test binary runs itself again, with one test and an environment variable that says so.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::{leftovers, skipped, slow};

/// Holds the name of the test whose body the process is to run.
const MARK: &str = "RINGSEAL_TEST_CHILD";

/// Printed before the body: without it a misspelt name would run no test and pass.
const STARTED: &str = "the child's body starts";

/// For one child, on a machine of the usual speed.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs `body`, the whole body of the test `test_name`, in a process of its own.
///
/// `test_name` is the full one, with modules but without the crate: `"links::through_proc"`.
/// The child runs the test from its start, so this should be the first statement.
///
/// # Panics
/// With the child's output if the body panicked, or the child ended otherwise than well, or took
/// longer than a minute.
#[track_caller]
pub fn in_child(test_name: &str, body: impl FnOnce()) {
    run_if_child(test_name, body);
    match supervise(test_name) {
        Ok(output) => {
            // A skip in there is a skip of this test.
            for line in output.lines() {
                if let Some(why) = line.strip_prefix("skipped: ") {
                    skipped(why);
                }
            }
        }
        Err(why) => panic!("{why}"),
    }
}

/// Runs `body` and exits if this process is the child for `test_name`; returns otherwise.
///
/// The first statement of a test that goes on to [`spawn_child`] and kills what it gets.
pub fn run_if_child(test_name: &str, body: impl FnOnce()) {
    if env::var_os(MARK).is_none_or(|name| name != test_name) {
        return;
    }
    let _ = io::stdout().write_all(format!("{STARTED}\n").as_bytes());
    // The panic hook has printed the message; what the body owns is dropped in either case.
    let outcome = catch_unwind(AssertUnwindSafe(body));
    let _ = io::stdout().flush();
    // Not std's exit: it unmaps the main thread's signal stack, on which libc's setuid() may still
    // run a handler, as it does in all threads. That was a SIGSEGV in one of 200 runs.
    // SAFETY: nothing else in this process calls exit; the main thread waits for this test.
    unsafe { libc::exit(if outcome.is_ok() { 0 } else { 101 }) };
}

/// Starts the child for `test_name`, with further environment variables.
///
/// Its stdout is a pipe: read it (see [`lines`]), or it blocks when the pipe is full. It dies
/// with the thread that started it, so a failing test leaves no child behind.
pub fn spawn_child<K, V>(test_name: &str, envs: impl IntoIterator<Item = (K, V)>) -> Child
where
    K: AsRef<OsStr>,
    V: AsRef<OsStr>,
{
    let mut command = command(test_name);
    command.envs(envs).stdout(Stdio::piped()).spawn().expect("start the test binary again")
}

/// The lines a child prints from its body, until it ends.
pub fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let stdout = child.stdout.take().expect("the child's stdout is read once");
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    lines.skip_while(|line| !line.ends_with(STARTED)).skip(1)
}

/// Kills a child with SIGKILL, removes the disks it made, and returns the rest of its output.
pub fn kill(child: Child) -> Output {
    let pid = child.id();
    // With what it forked, or the pipe would stay open.
    let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
    let output = child.wait_with_output().expect("wait for the child");
    leftovers::sweep_of(pid);
    output
}

fn command(test_name: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("the path of the test binary"));
    command
        .args([test_name, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"])
        .env(MARK, test_name)
        .stdin(Stdio::null())
        // A group of its own, to kill what it forks together with it.
        .process_group(0);
    let parent = rustix::process::getpid();
    let die_with_parent = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have died just before.
        let orphaned = rustix::process::getppid() != Some(parent);
        if orphaned { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    };
    // SAFETY: the closure makes system calls only, which is fine between fork and exec.
    unsafe { command.pre_exec(die_with_parent) };
    command
}

/// The child's output, or what went wrong with it.
fn supervise(test_name: &str) -> Result<String, String> {
    // One pipe for both, to keep their order; no file, as the child may limit its files' size.
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).expect("make a pipe");
    let reader = File::from(reader);
    let mut command = command(test_name);
    command.stdout(writer.try_clone().expect("dup")).stderr(writer);
    let mut child = command.spawn().expect("start the test binary again");
    let (status, output) = watch(&mut child, reader);
    leftovers::sweep_of(child.id());

    let problem = match status {
        None => format!("did not end within {:?} and was killed", TIMEOUT * slow()),
        Some(status) if !status.success() => format!("failed ({status})"),
        Some(_) if !output.contains(STARTED) => "ran no test: is this its full name?".to_owned(),
        Some(_) => return Ok(output),
    };
    Err(format!(
        "the child for {test_name:?} {problem}\n---- its output ----\n{output}---- end ----"
    ))
}

/// Collects output until the child ends (its status) or its time is over (none).
fn watch(child: &mut Child, mut pipe: File) -> (Option<ExitStatus>, String) {
    let pid = Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open");
    rustix::fs::fcntl_setfl(&pipe, rustix::fs::OFlags::NONBLOCK).expect("O_NONBLOCK");
    let step = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let end = Instant::now() + TIMEOUT * slow();
    let mut output = Vec::new();
    let ended = loop {
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&step))
            .is_ok_and(|ready| ready > 0);
        // Ends with "would block" while somebody holds the other side, a grandchild for instance.
        let _ = pipe.read_to_end(&mut output);
        if ended || Instant::now() > end {
            break ended;
        }
    };
    // Before it is waited for, while its id cannot belong to anybody else.
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    let status = child.wait().expect("wait for the child");
    (ended.then_some(status), String::from_utf8_lossy(&output).into_owned())
}
