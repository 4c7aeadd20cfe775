//! What this host gives: the ring, the filesystem, the limits.

mod filesystem;
mod ring;

use std::path::Path;

pub use filesystem::{FilesystemProbe, SyncMeans};
pub use ring::RingProbe;

use crate::engine::{Config, Engine, EngineKind, EngineStatus, Running, StartError, Why};
use crate::error::Result;

/// What was found of the kernel and this process's limits.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct HostProbe {
    /// The kernel's release, as uname(2) gives it.
    pub kernel: String,
    /// What its io_uring can do.
    pub ring: RingProbe,
    /// The engine that [`Engine::Auto`] takes here, and why.
    pub engine: Option<EngineStatus>,
    /// `RLIMIT_NOFILE`, soft: descriptors of this process; `None` is no limit. Each save in flight
    /// holds one or two.
    pub descriptors_max: Option<u64>,
    /// `RLIMIT_NPROC`, soft: threads of this user, the ring's workers among them.
    pub processes_max: Option<u64>,
    /// `RLIMIT_FSIZE`, soft: bytes of one file.
    pub file_size_max: Option<u64>,
}

impl HostProbe {
    /// Looks. Starts a writer's engine for a moment.
    pub fn new() -> HostProbe {
        use rustix::process::{Resource, getrlimit};
        HostProbe {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            ring: RingProbe::new(),
            engine: engine(),
            descriptors_max: getrlimit(Resource::Nofile).current,
            processes_max: getrlimit(Resource::Nproc).current,
            file_size_max: getrlimit(Resource::Fsize).current,
        }
    }
}

impl Default for HostProbe {
    fn default() -> HostProbe {
        HostProbe::new()
    }
}

fn engine() -> Option<EngineStatus> {
    let config = Config { engine: Engine::Auto, requests: 8, threads: 1 };
    match Running::start(config) {
        Ok(running) => {
            let status = running.status();
            running.close();
            Some(status)
        }
        Err(StartError::RingUnavailable(why)) => {
            Some(EngineStatus { kind: EngineKind::Threads, why })
        }
        Err(StartError::NoThread(_)) => None,
    }
}

/// What was found of the filesystem that holds `directory`.
///
/// # Errors
/// At [`Step::OpenDirectory`](crate::Step).
pub fn probe_directory(directory: impl AsRef<Path>) -> Result<FilesystemProbe> {
    FilesystemProbe::of(directory.as_ref())
}

impl RingProbe {
    /// Can the ring be used?
    pub fn is_usable(&self) -> bool {
        self.unusable.is_none()
    }

    /// Why it cannot.
    pub fn why_not(&self) -> Option<&Why> {
        self.unusable.as_ref()
    }
}
