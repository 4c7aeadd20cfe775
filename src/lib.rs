#![doc = "ringseal"]
mod engine;
mod error;
mod file;
mod filesystem;
mod inode;
mod job;
mod liveness;
mod place;
mod plan;
mod probe;
mod receipt;
mod recover;
mod request;
mod root;
mod sys;
mod temp;
mod writer;

use std::ffi::OsStr;
use std::os::fd::AsFd;

pub use engine::{Engine, EngineKind, EngineStatus, StartError, Why};
pub use error::{Cause, Error, FileKind, Result};
pub use file::AtomicFile;
pub use plan::{Outcome, Step};
pub use probe::{FilesystemProbe, HostProbe, RingProbe, SyncMeans, probe_directory};
pub use receipt::{Carrier, Durability, Receipt};
pub use recover::{Leftover, OwnerState, leftovers, recover};
pub use request::{Level, Options, Request, Target};
pub use root::Root;
pub use writer::{Save, SaveAll, Writer, WriterBuilder};

/// Replaces.
pub fn replace(target: impl Into<Target>, bytes: impl AsRef<[u8]>) -> Result<Receipt> {
    Options::new().replace(target, bytes)
}

/// Replaces at.
pub fn replace_at(
    directory: impl AsFd,
    name: impl AsRef<OsStr>,
    bytes: impl AsRef<[u8]>,
) -> Result<Receipt> {
    let job = job::Job::prepare_at(directory.as_fd(), name.as_ref(), &Options::new())?;
    engine::calls::carry(job, bytes.as_ref())
}
