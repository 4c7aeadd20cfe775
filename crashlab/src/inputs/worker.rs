//! A chunk of cases in a process of its own, whatever becomes of it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};

use super::rooms::{self, Outcome, Room};

/// What takes longer hangs: a chunk takes a second or two, and half a minute if a case of it is made small.
const PATIENCE: Duration = Duration::from_secs(60);

/// A case that takes more memory than this has been made to.
const MEMORY_MAX: u64 = 8 << 30;

/// Cases that one process does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub room: &'static Room,
    pub cases: u64,
    pub seed: u64,
    /// Each case is noted before it is done.
    pub traced: bool,
}

/// How a chunk has ended.
#[derive(Debug)]
pub(super) enum End {
    Outcome(Outcome),
    /// Without an answer: aborted, killed, hung.
    Died(String),
}

/// A process that does a chunk.
#[derive(Debug)]
pub(super) struct Worker {
    pub chunk: Chunk,
    pid: Pid,
    /// It says here what became of it.
    answers: UnixStream,
    scratch: PathBuf,
    started: Instant,
    hangs: bool,
    seconds: f64,
}

impl Worker {
    pub(super) fn start(chunk: Chunk) -> anyhow::Result<Worker> {
        let (answers, to_parent) = UnixStream::pair()?;
        let scratch = scratch(chunk.seed, chunk.room.name);
        fs::create_dir_all(&scratch)?;
        // SAFETY: this process has no other thread that could hold a lock which the child needs.
        let pid = match unsafe { libc::fork() } {
            -1 => return Err(std::io::Error::last_os_error().into()),
            0 => {
                drop(answers);
                let answered = answer(chunk, &scratch, to_parent);
                // SAFETY: ends this process, and runs none of what the parent has registered.
                unsafe { libc::_exit(i32::from(answered.is_err())) }
            }
            pid => pid,
        };
        let pid = Pid::from_raw(pid).ok_or_else(|| anyhow::anyhow!("fork answered {pid}"))?;
        Ok(Worker {
            chunk,
            pid,
            answers,
            scratch,
            started: Instant::now(),
            hangs: false,
            seconds: 0.0,
        })
    }

    /// Has it ended, and how? One that hangs is ended.
    pub(super) fn end(&mut self) -> anyhow::Result<Option<End>> {
        let mut ready = [PollFd::new(&self.answers, PollFlags::IN)];
        if poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0 {
            if self.started.elapsed() > PATIENCE && !self.hangs {
                self.hangs = true;
                rustix::process::kill_process(self.pid, Signal::KILL)?;
            }
            return Ok(None);
        }
        let mut answer = Vec::new();
        self.answers.read_to_end(&mut answer)?;
        let status = rustix::process::waitpid(Some(self.pid), WaitOptions::empty())?;
        self.seconds = self.started.elapsed().as_secs_f64();
        Ok(Some(match (serde_json::from_slice(&answer), self.hangs) {
            (_, true) => End::Died("hangs".to_owned()),
            (Ok(outcome), _) => End::Outcome(outcome),
            (Err(_), _) => End::Died(format!("ended without an answer: {status:?}")),
        }))
    }

    pub(super) fn seconds(&self) -> f64 {
        self.seconds
    }

    /// The case that it was at, if that was noted.
    pub(super) fn last_case(&self) -> String {
        fs::read_to_string(self.scratch.join("case")).unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// Waits until one of them has something to say, or for some time.
pub(super) fn wait<'a>(workers: impl Iterator<Item = &'a Worker>, time: Duration) {
    let mut ready: Vec<PollFd<'_>> =
        workers.map(|worker| PollFd::new(&worker.answers, PollFlags::IN)).collect();
    let time = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
    let _ = poll(&mut ready, Some(&time));
}

/// The child's part.
fn answer(
    chunk: Chunk,
    scratch: &std::path::Path,
    mut to_parent: UnixStream,
) -> anyhow::Result<()> {
    // One that hangs must not outlive whoever would end it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rooms::count_panics();
    let limit = Rlimit { current: Some(MEMORY_MAX), maximum: Some(MEMORY_MAX) };
    rustix::process::setrlimit(Resource::As, limit)?;
    // One that takes bits away which are asked for.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    if chunk.traced {
        rooms::trace_to(File::create(scratch.join("case"))?);
    }
    let before = rooms::panics();
    let run = || (chunk.room.run)(chunk.cases, chunk.seed, scratch);
    let mut outcome = match std::panic::catch_unwind(run) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome { cases: 0, broken: vec![format!("the room: {error:#}")] },
        Err(_) => Outcome { cases: 0, broken: vec![] },
    };
    if let Some(late) = rooms::late_panic(before).filter(|_| outcome.broken.is_empty()) {
        outcome.broken.push(late);
    }
    let text = serde_json::to_vec(&outcome)?;
    to_parent.write_all(&text)?;
    Ok(())
}

/// In memory, where that can be had: then a case takes no time but its own.
fn scratch(seed: u64, room: &str) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    base.join(format!("ringseal-inputs-{}-{room}-{seed}", std::process::id()))
}
