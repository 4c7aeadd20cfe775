//! Which engine a writer uses, and why.

use std::fmt;
use std::io;

/// Which engine a [`Writer`](crate::Writer) is to use.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Engine {
    /// What was measured to be the fastest: in this version [`Threads`](Engine::Threads). A later
    /// one may choose otherwise.
    #[default]
    Auto,
    /// io_uring for every save that it can carry: a chain of linked operations, or, for saves that come
    /// together and share their syncs, one submission for all; or no writer.
    Uring,
    /// Plain system calls on a bounded pool of threads. Saves that come together share their syncs.
    Threads,
}

/// The engine that runs.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// io_uring.
    Uring,
    /// Plain system calls on a bounded pool of threads.
    Threads,
}

/// The engine that a [`Writer`](crate::Writer) runs, and why that one. `Display` is one line.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct EngineStatus {
    /// The engine.
    pub kind: EngineKind,
    /// The reason.
    pub why: Why,
}

/// Why an engine runs.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub enum Why {
    /// It was asked for.
    Asked,
    /// It was measured to be the fastest.
    Fastest,
    /// `io_uring_setup` failed: `ENOSYS` (no io_uring in this kernel, or a seccomp filter), `EPERM`
    /// (the sysctl `kernel.io_uring_disabled`, or a filter), `ENOMEM`.
    SetupFailed(i32),
    /// A call that prepares the ring failed: its name and its errno.
    PrepareFailed(&'static str, i32),
    /// The kernel lacks a feature: its name, and the version that has it.
    NoFeature(&'static str),
    /// The kernel lacks an operation: its name.
    NoOperation(&'static str),
    /// The ring worked, but the kernel could not make worker threads for it: a limit on processes
    /// (the pids cgroup, `RLIMIT_NPROC`).
    NoWorkers,
    /// The ring died: what `io_uring_enter` answered; 0 if its thread panicked.
    RingLost(i32),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let os = io::Error::from_raw_os_error;
        match self {
            Why::Asked => f.write_str("asked for"),
            Why::Fastest => f.write_str("measured to be the fastest"),
            Why::SetupFailed(errno) => write!(f, "io_uring_setup: {}", os(*errno)),
            Why::PrepareFailed(call, errno) => write!(f, "{call}: {}", os(*errno)),
            Why::NoFeature(name) => write!(f, "this kernel's io_uring lacks {name}"),
            Why::NoOperation(name) => {
                write!(f, "this kernel's io_uring lacks the operation {name}")
            }
            Why::NoWorkers => f.write_str("the kernel could not make workers for the ring"),
            Why::RingLost(0) => f.write_str("the ring's thread panicked"),
            Why::RingLost(errno) => write!(f, "the ring died: {}", os(*errno)),
        }
    }
}

impl EngineKind {
    /// `uring` or `threads`.
    pub const fn name(self) -> &'static str {
        match self {
            EngineKind::Uring => "uring",
            EngineKind::Threads => "threads",
        }
    }
}

impl fmt::Display for EngineStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind.name(), self.why)
    }
}

/// Why a writer could not be started.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// [`Engine::Uring`] was asked for, and is not to be had.
    #[error("io_uring is not available: {0}")]
    RingUnavailable(Why),
    /// Not even one thread could be made.
    #[error("cannot start a thread: {0}")]
    NoThread(#[source] io::Error),
}
