//! Durable atomic file replace for container runtimes.
//!
//! A runtime keeps a `state.json` for each container. Written in place, a kill or a power cut in
//! the middle leaves half a file, and the container is orphaned. ringseal replaces a file so that
//! this cannot happen: a reader, or a reboot, sees the whole old version or the whole new one, and
//! after the answer the new one survives a power cut. It says so only when it is so.
//!
//! # Which door
//!
//! | who | what |
//! | --- | --- |
//! | a process that saves a file and ends | [`replace`], [`replace_at`], [`Options`]: plain calls on this thread, no ring, no thread |
//! | who streams, or has a `serde` value | [`AtomicFile`] (an [`io::Write`](std::io::Write)), [`replace_json`] |
//! | a daemon that owns a root and saves its containers again and again | [`StateStore`]: one log for all, transactions, recovery |
//! | a daemon that saves many files anywhere | [`Writer`]: futures on any executor; what comes together shares its syncs; threads, or io_uring |
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("state.json");
//! use ringseal::{Options, Outcome};
//!
//! ringseal::replace(&path, b"{\"status\":\"created\"}")?;
//!
//! match Options::new().mode(0o644).replace(&path, b"{\"status\":\"running\"}") {
//!     Ok(receipt) => println!("{:?}", receipt.durability),
//!     Err(error) if error.outcome() == Outcome::Unchanged => eprintln!("kept: {error}"),
//!     Err(error) => eprintln!("look first: {error}"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What an answer means
//!
//! Every save takes the same [`Step`]s: open a temporary file beside the target, write, sync,
//! rename, sync the directory, and verify that the filesystem is alive, for a sync that returned 0
//! is no proof of it. `Ok` means that all of them succeeded. An [`Error`] names the step, the
//! target, the cause, and the [`Outcome`]: what is true of the target now.
//!
//! A sync is worth what the filesystem makes of it. [`Receipt::durability`] says what that was: on
//! tmpfs, where most runtimes keep their state, nothing is synced and the promise is atomicity.
//!
//! # The store
//!
//! What a [`StateStore`] answers is durable in its log, and visible; the files become durable some seconds later.
//! After a power cut they are right when the store was opened again, or `ringseal recover ROOT` was called.
//!
//! # Leftovers
//!
//! A crash in the middle of a save can leave a temporary file. [`recover`] removes those whose
//! owner is provably dead.
//!
//! # Features
//!
//! - `json` (default): [`replace_json`] and its like.
//! - `tracing`: spans and events for a [`tracing`](https://docs.rs/tracing) subscriber; without it not even the
//!   dependency is there. (`stats()` always is.)
//! - `cli`: the command line `ringseal`; not for libraries.
//!
//! Linux only. Everything is described for users in `docs/`: the contract, the architecture with
//! the measurements behind it, and operations (system calls, threads, descriptors).

mod engine;
mod error;
mod file;
mod filesystem;
mod inode;
mod job;
mod left_out;
mod liveness;
mod place;
mod plain;
mod plan;
mod probe;
mod receipt;
mod recover;
mod reply;
mod request;
mod root;
mod stats;
mod store;
mod sys;
mod temp;
mod trace;
mod writer;

pub use engine::{Engine, EngineKind, EngineStatus, StartError, Why};
pub use error::{Cause, Error, FileKind, Result};
pub use file::AtomicFile;
#[cfg(feature = "json")]
pub use plain::replace_json;
pub use plain::{replace, replace_at};
pub use plan::{Outcome, Step};
pub use probe::{FilesystemProbe, HostProbe, RingProbe, SyncMeans, probe_directory};
pub use receipt::{Carrier, Durability, Receipt};
pub use recover::{Leftover, OwnerState, leftovers, recover};
pub use request::{Level, Options, Request, Target};
pub use root::Root;
pub use stats::{Failures, Latency};
#[cfg(feature = "json")]
pub use store::Unreadable;
pub use store::{
    Commit, Committed, Freshness, LogChange, LogEntry, LogKind, LogReport, LogUse, NotVisible,
    OpenError, Opening, Publish, Published, Recovery, Route, StateReader, StateStore, StoreOptions,
    StoreStats, Transaction, inspect_log,
};
pub use writer::{Carried, Save, SaveAll, Writer, WriterBuilder, WriterStats};

/// The code in the documents compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/store.md")]
struct Documents;
