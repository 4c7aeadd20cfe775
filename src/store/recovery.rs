//! What an opening has found, or why there is none.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::NotVisible;
use super::layout::OWN;
use super::lock::Refused;
use super::log::files::Unusable;
use super::log::format::NotASegment;
use super::log::scan::Damage;
use crate::error::Error;
use crate::recover::Leftover;

/// What the opening of a store has found and done.
#[non_exhaustive]
#[derive(Debug, Default)]
pub struct Recovery {
    /// Files that were put into place, or removed, because the log had changes that they may have lacked.
    pub replayed: Vec<PathBuf>,
    /// Writes to the log that a crash had cut short. Nobody was told that they were done; they are void.
    pub torn: usize,
    /// What is durable and could not be put into its place: the file cannot be replaced, or its directory is
    /// not there any more, or is another of that name. It is kept in `.ringseal/unplaced`.
    pub not_visible: Vec<NotVisible>,
    /// Temporary files that were found, and whether they were removed.
    pub leftovers: Vec<Leftover>,
    /// What was damaged in the log, if the store was opened all the same ([`StoreOptions::salvage`](crate::StoreOptions::salvage)).
    pub damage: Option<String>,
    /// What the log is used for.
    pub log: LogUse,
}

/// What a store's log is used for.
#[non_exhaustive]
#[derive(Debug, Default)]
pub enum LogUse {
    /// For everything: the files follow it.
    #[default]
    Everything,
    /// For transactions of several changes only. The root is in memory; or its filesystem, named here, or this
    /// kernel, is not known to keep what a shared log needs (ext4 with a journal, XFS and btrfs since Linux
    /// 5.17 do). There each file is made durable before the answer, as a [`Writer`](crate::Writer) does it.
    Transactions(&'static str),
    /// There is none, for it could not be made: single saves go as a [`Writer`](crate::Writer)'s, several
    /// changes at once are refused.
    Nothing(io::Error),
}

/// Why a store cannot be opened.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The options contradict themselves.
    #[error("{0}")]
    Options(&'static str),
    /// The root, or the store's own directory, cannot be made, opened or synced.
    #[error(transparent)]
    Root(#[from] Error),
    /// The store's own directory, or its log, belongs to another user, or others may use it.
    #[error("{}: others may read or write it, or own it", .0.display())]
    NotPrivate(PathBuf),
    /// Another process has the store open, or this one.
    #[non_exhaustive]
    #[error("{}: the store is open{}", root.display(), held_by(*pid))]
    Held {
        /// The root.
        root: PathBuf,
        /// The process that has it, in its pid namespace, if that could be learned.
        pid: Option<u32>,
    },
    /// The log is of a later version of this library. Nothing in it, and no file, was changed.
    #[non_exhaustive]
    #[error("{}: its format has version {version}, which this library does not know", log.display())]
    NewerVersion {
        /// The log.
        log: PathBuf,
        /// Its version.
        version: u16,
    },
    /// The log uses features that this library does not know. Nothing was changed.
    #[non_exhaustive]
    #[error("{}: it uses features that this library does not know (bits {bits:#x})", log.display())]
    UnknownFeatures {
        /// The log.
        log: PathBuf,
        /// Its features.
        bits: u32,
    },
    /// Something that was acknowledged cannot be read from the log any more. Nothing was changed. See
    /// [`StoreOptions::salvage`](crate::StoreOptions::salvage).
    #[non_exhaustive]
    #[error("{}: the log is damaged: {what}", log.display())]
    Damaged {
        /// The log.
        log: PathBuf,
        /// What is damaged, and where.
        what: String,
    },
    /// The log cannot be read or written, or what it has cannot be put into the files. What was put there is
    /// as the log has it; the log keeps everything.
    #[non_exhaustive]
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// No thread could be made.
    #[error("no thread could be made: {0}")]
    NoThread(io::Error),
}

fn held_by(pid: Option<u32>) -> String {
    pid.map_or_else(|| " elsewhere".to_owned(), |pid| format!(" in process {pid}"))
}

impl OpenError {
    /// The kind that an [`io::Error`] of this has.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            OpenError::Options(_) => io::ErrorKind::InvalidInput,
            OpenError::Root(error) => error.kind(),
            OpenError::NotPrivate(_) => io::ErrorKind::PermissionDenied,
            OpenError::Held { .. } => io::ErrorKind::ResourceBusy,
            OpenError::NewerVersion { .. } | OpenError::UnknownFeatures { .. } => {
                io::ErrorKind::Unsupported
            }
            OpenError::Damaged { .. } => io::ErrorKind::InvalidData,
            OpenError::Io { source, .. } => source.kind(),
            OpenError::NoThread(error) => error.kind(),
        }
    }

    /// Why there is no lock of a root.
    pub(super) fn of_lock(root: &Path, why: Refused) -> OpenError {
        let path = root.join(OWN).join("lock");
        match why {
            Refused::Held(pid) => OpenError::Held { root: root.to_owned(), pid },
            Refused::Io(errno) => io(path, "lock", errno),
            Refused::NoFile => {
                let why = "what stands there is no file";
                let source = io::Error::new(io::ErrorKind::InvalidInput, why);
                OpenError::Io { path, doing: "lock", source }
            }
        }
    }

    /// Why a log cannot be used.
    pub(super) fn of_log(log: PathBuf, why: Unusable) -> OpenError {
        match why {
            Unusable::Io(errno) => io(log, "read", errno),
            Unusable::NotPrivate(name) => OpenError::NotPrivate(match name {
                "log" => log,
                name => log.join(name),
            }),
            Unusable::Missing(name) => {
                OpenError::Damaged { log, what: format!("{name} is missing") }
            }
            Unusable::NoFile(name) => {
                OpenError::Damaged { log, what: format!("{name} is no file") }
            }
            Unusable::Damage(Damage::Segment(_, NotASegment::Version(version))) => {
                OpenError::NewerVersion { log, version }
            }
            Unusable::Damage(Damage::Segment(_, NotASegment::Features(bits))) => {
                OpenError::UnknownFeatures { log, bits }
            }
            Unusable::Damage(damage) => OpenError::Damaged { log, what: damage.to_string() },
        }
    }
}

impl From<OpenError> for io::Error {
    /// Keeps the kind; `Display` says the rest.
    fn from(error: OpenError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}

/// A call that failed.
pub(super) fn io(path: PathBuf, doing: &'static str, errno: Errno) -> OpenError {
    OpenError::Io { path, doing, source: errno.into() }
}
