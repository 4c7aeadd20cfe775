//! What went wrong, where, and what is true now.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::plan::{Outcome, Step};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A save that did not end well: its target, the step that failed, the cause, and what is true of
/// the target now.
///
/// `Display` prints one line, `TARGET: STEP: cause (os error N); outcome`. The cause is also the
/// error's [`source`](std::error::Error::source). Converted to [`io::Error`] it keeps kind and
/// errno.
///
/// ```
/// use ringseal::{Outcome, Step};
///
/// let error = ringseal::replace("/nowhere/state.json", b"{}").unwrap_err();
/// assert_eq!(error.step(), Step::OpenDirectory);
/// assert_eq!(error.outcome(), Outcome::Unchanged);
/// assert_eq!(
///     error.to_string(),
///     "/nowhere/state.json: open-directory: No such file or directory (os error 2); unchanged",
/// );
/// assert_eq!(std::io::Error::from(error).raw_os_error(), Some(2));
/// ```
#[derive(thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Inner>);

#[derive(Debug, thiserror::Error)]
#[error("{}: {step}: {cause}; {outcome}", target.display())]
struct Inner {
    target: PathBuf,
    step: Step,
    #[source]
    cause: Cause,
    outcome: Outcome,
    coalesced_into: Option<u64>,
}

impl Error {
    pub(crate) fn new(
        target: impl Into<PathBuf>,
        step: Step,
        outcome: Outcome,
        cause: impl Into<Cause>,
    ) -> Error {
        let (target, cause) = (target.into(), cause.into());
        Error(Box::new(Inner { target, step, cause, outcome, coalesced_into: None }))
    }

    /// The same error, for a save that the one that failed stood for.
    pub(crate) fn again(&self, target: PathBuf, coalesced_into: u64) -> Error {
        let (step, cause, outcome) = (self.0.step, self.0.cause.again(), self.0.outcome);
        let coalesced_into = Some(coalesced_into);
        Error(Box::new(Inner { target, step, cause, outcome, coalesced_into }))
    }

    /// The same error, of the target by another name.
    pub(crate) fn of(mut self, target: PathBuf) -> Error {
        self.0.target = target;
        self
    }

    /// The target, as it was given; below its root for a target that was named so.
    pub fn target(&self) -> &Path {
        &self.0.target
    }

    /// The step that failed. Every step before it succeeded, none after it counts.
    pub fn step(&self) -> Step {
        self.0.step
    }

    /// What is true of the target now.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// The number ([`Receipt::sequence`](crate::Receipt)) of the newer version that was to stand in this
    /// one's place, where it was that which failed: step, cause and outcome are that one's, and whoever
    /// tries again puts this version over the newer one.
    pub fn coalesced_into(&self) -> Option<u64> {
        self.0.coalesced_into
    }

    /// Why the step failed.
    pub fn cause(&self) -> &Cause {
        &self.0.cause
    }

    /// The kind that an [`io::Error`] of this cause has.
    pub fn kind(&self) -> io::ErrorKind {
        self.0.cause.kind()
    }

    /// The kernel's error number, where there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.cause.raw_os_error()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("target", &self.0.target)
            .field("step", &self.0.step)
            .field("cause", &self.0.cause)
            .field("outcome", &self.0.outcome)
            .finish()
    }
}

/// Why a step failed.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The system call, or the ring's operation, failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A mount covers the target, as a bind-mounted `/etc/hosts` does: its name cannot be moved.
    #[error("the target is a mount point (os error {errno})", errno = libc::EBUSY)]
    MountPoint,
    /// A FIFO, socket or device stands at the target, and replacing would destroy it.
    #[error("the target is a {0}, which a replace would destroy (os error {errno})", errno = libc::EINVAL)]
    SpecialFile(FileKind),
    /// The request cannot be carried out as it is put.
    #[error("{0} (os error {errno})", errno = libc::EINVAL)]
    InvalidRequest(&'static str),
    /// The value could not be serialised; nothing was written.
    #[cfg(feature = "json")]
    #[error("cannot serialise: {0}")]
    Serialize(serde_json::Error),
    /// What was read is no JSON, or not of the type that was asked for; with line and column.
    #[cfg(feature = "json")]
    #[error("cannot be read: {0}")]
    Parse(serde_json::Error),
    /// A transaction of a store does not fit into its log, and never will.
    #[error("the transaction takes {bytes} bytes of the log, which takes {max} at once")]
    TransactionTooLarge {
        /// Bytes that it takes in the log.
        bytes: u64,
        /// Bytes that one transaction may take.
        max: u64,
    },
    /// The store has no log (its recovery report says why), without which several changes cannot be one
    /// transaction.
    #[error("there is no log here, without which several changes cannot be one transaction")]
    NoLog,
    /// A store takes nothing any more: what was written for an earlier change may or may not be on the disk,
    /// or a sync failed twice. Open it again.
    #[error("the store takes nothing any more, since: {0}")]
    Refused(io::Error),
    /// The writer, or the store, was closed.
    #[error("it is closed")]
    Closed,
    /// This process is a fork of the one that made the writer or opened the store. Its threads are not here;
    /// make a new writer, or use the plain functions.
    #[error("it belongs to the process that this one was forked from")]
    Forked,
    /// The engine was lost (its ring died, or its thread), and the answer with it.
    #[error("the engine was lost before it answered")]
    EngineLost,
}

impl Cause {
    /// The same cause, for another whom it ends.
    pub(crate) fn again(&self) -> Cause {
        let io = |error: &io::Error| match error.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::from(error.kind()),
        };
        match self {
            Cause::Io(error) => Cause::Io(io(error)),
            Cause::Refused(error) => Cause::Refused(io(error)),
            Cause::MountPoint => Cause::MountPoint,
            Cause::SpecialFile(kind) => Cause::SpecialFile(*kind),
            Cause::InvalidRequest(why) => Cause::InvalidRequest(why),
            &Cause::TransactionTooLarge { bytes, max } => Cause::TransactionTooLarge { bytes, max },
            Cause::NoLog => Cause::NoLog,
            Cause::Closed => Cause::Closed,
            Cause::Forked => Cause::Forked,
            // These two end one only.
            #[cfg(feature = "json")]
            Cause::Serialize(_) | Cause::Parse(_) => Cause::EngineLost,
            Cause::EngineLost => Cause::EngineLost,
        }
    }

    /// The kind that an [`io::Error`] of this cause has.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Cause::Io(error) => error.kind(),
            Cause::MountPoint => io::ErrorKind::ResourceBusy,
            Cause::SpecialFile(_) | Cause::InvalidRequest(_) => io::ErrorKind::InvalidInput,
            #[cfg(feature = "json")]
            Cause::Serialize(_) | Cause::Parse(_) => io::ErrorKind::InvalidData,
            Cause::TransactionTooLarge { .. } => io::ErrorKind::FileTooLarge,
            Cause::NoLog => io::ErrorKind::Unsupported,
            Cause::Refused(error) => error.kind(),
            Cause::Closed | Cause::Forked | Cause::EngineLost => io::ErrorKind::Other,
        }
    }

    /// The kernel's error number, or the one that stands for this cause.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Cause::Io(error) | Cause::Refused(error) => error.raw_os_error(),
            Cause::MountPoint => Some(libc::EBUSY),
            Cause::SpecialFile(_) | Cause::InvalidRequest(_) => Some(libc::EINVAL),
            _ => None,
        }
    }
}

impl From<rustix::io::Errno> for Cause {
    fn from(errno: rustix::io::Errno) -> Cause {
        Cause::Io(errno.into())
    }
}

/// What is at the target, where it is not a file that can be replaced.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device, such as `/dev/null`.
    CharacterDevice,
    /// A block device.
    BlockDevice,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Fifo => "FIFO",
            FileKind::Socket => "socket",
            FileKind::CharacterDevice => "character device",
            FileKind::BlockDevice => "block device",
        })
    }
}

impl From<Error> for io::Error {
    /// Keeps the errno where there is one, and the kind always.
    fn from(error: Error) -> io::Error {
        match error.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::new(error.kind(), error),
        }
    }
}
