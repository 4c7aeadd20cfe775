//! How a writer is made.

use std::sync::Arc;

use super::{Shared, Writer};
use crate::engine::task::limits::Limits;
use crate::engine::{Config, Engine, Running, StartError};
use crate::sys::fork;

/// Settings of a [`Writer`]; from [`Writer::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct WriterBuilder {
    engine: Engine,
    requests: usize,
    bytes: usize,
    threads: usize,
}

impl Default for WriterBuilder {
    fn default() -> WriterBuilder {
        WriterBuilder {
            engine: Engine::Auto,
            requests: requests_default(),
            bytes: 256 << 20,
            threads: 64,
        }
    }
}

/// As many as one cycle should have, and a quarter of the descriptors that this process may open.
fn requests_default() -> usize {
    const WANTED: usize = 1024;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    WANTED.min(descriptors / 4).max(1)
}

/// A save holds a slot of the ring, and every slot has room for eight entries.
const REQUESTS_MAX: usize = 2048;

impl WriterBuilder {
    /// Which engine; [`Engine::Auto`] by default.
    pub fn engine(mut self, engine: Engine) -> WriterBuilder {
        self.engine = engine;
        self
    }

    /// Saves in flight at most, 1 to 2048. By default 1024, or a quarter of the soft
    /// `RLIMIT_NOFILE` (so 256 where that is 1024), for each holds a descriptor, the directory's.
    /// The more, the fewer flushes for many saves.
    pub fn max_in_flight(mut self, saves: usize) -> WriterBuilder {
        self.requests = saves.clamp(1, REQUESTS_MAX);
        self
    }

    /// Bytes in flight at most; 256 MiB by default. A larger save waits until it is alone.
    pub fn max_bytes_in_flight(mut self, bytes: usize) -> WriterBuilder {
        self.bytes = bytes;
        self
    }

    /// Threads at most; 64 by default. They are the library's own, and on the ring as many of the
    /// kernel's workers too; made when there is work, gone after some idle seconds. Where files
    /// are synced one by one, many threads wait for the same flush.
    pub fn max_threads(mut self, threads: usize) -> WriterBuilder {
        self.threads = threads.clamp(1, REQUESTS_MAX);
        self
    }

    /// Starts the engine.
    ///
    /// # Errors
    /// If [`Engine::Uring`] was asked for and is not to be had, or no thread can be made.
    pub fn build(self) -> Result<Writer, StartError> {
        let config = Config { engine: self.engine, requests: self.requests, threads: self.threads };
        let engine = Running::start(config)?;
        let limits = Arc::new(Limits::new(self.requests, self.bytes));
        let generation = fork::generation();
        Ok(Writer { shared: Arc::new(Shared { limits, engine, generation }) })
    }
}
