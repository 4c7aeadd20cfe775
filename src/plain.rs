//! The plain functions: for a process that saves a file and ends. They start no thread and no ring.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use crate::engine::calls;
use crate::error::Result;
use crate::file::AtomicFile;
use crate::job::Job;
use crate::receipt::Receipt;
#[cfg(feature = "json")]
use crate::request::not_serialised;
use crate::request::{Options, Target};

/// Replaces `target` by `bytes`, durably, with mode 0o600, on this thread.
///
/// By plain system calls: it starts no thread and no ring, and works in a forked child. For other
/// modes and more, see [`Options::replace`].
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("state.json");
/// ringseal::replace(&path, b"{\"pid\":42}")?;
/// assert_eq!(std::fs::read(&path)?, b"{\"pid\":42}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The step that failed, its cause and what is true of the target now.
pub fn replace(target: impl Into<Target>, bytes: impl AsRef<[u8]>) -> Result<Receipt> {
    Options::new().replace(target, bytes)
}

/// Replaces `target` by `value` as JSON, without a trailing newline, as [`replace`] does.
///
/// # Errors
/// As [`replace`]; a value that does not serialise changes nothing.
#[cfg(feature = "json")]
pub fn replace_json<T>(target: impl Into<Target>, value: &T) -> Result<Receipt>
where
    T: serde::Serialize + ?Sized,
{
    Options::new().replace_json(target, value)
}

/// Replaces the file `name`, one component, in an open directory, as [`replace`] does.
///
/// The descriptor may be `O_PATH`. For options, see [`Target::at`].
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let directory = std::fs::File::open(dir.path())?;
/// ringseal::replace_at(&directory, "init.pid", "42")?;
/// assert_eq!(std::fs::read(dir.path().join("init.pid"))?, b"42");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`replace`].
pub fn replace_at(
    directory: impl AsFd,
    name: impl AsRef<OsStr>,
    bytes: impl AsRef<[u8]>,
) -> Result<Receipt> {
    let job = Job::prepare_at(directory.as_fd(), name.as_ref(), &Options::new())?;
    calls::carry(job, bytes.as_ref())
}

impl Options {
    /// Replaces `target` on this thread, by plain system calls; see [`replace`](crate::replace).
    ///
    /// # Errors
    /// The step that failed, its cause and what is true of the target now.
    pub fn replace(&self, target: impl Into<Target>, bytes: impl AsRef<[u8]>) -> Result<Receipt> {
        let job = Job::prepare(target.into(), self)?;
        calls::carry(job, bytes.as_ref())
    }

    /// Serialises `value` as JSON, without a trailing newline, and replaces `target` by it on this
    /// thread.
    ///
    /// # Errors
    /// As [`replace`](Options::replace); a value that does not serialise changes nothing.
    #[cfg(feature = "json")]
    pub fn replace_json<T>(&self, target: impl Into<Target>, value: &T) -> Result<Receipt>
    where
        T: serde::Serialize + ?Sized,
    {
        let target = target.into();
        match serde_json::to_vec(value) {
            Ok(bytes) => self.replace(target, bytes),
            Err(error) => Err(not_serialised(target, error)),
        }
    }

    /// Opens the new version of `target` for streaming; see [`AtomicFile`].
    ///
    /// # Errors
    /// The step that failed, its cause; the target is unchanged.
    pub fn create(&self, target: impl Into<Target>) -> Result<AtomicFile> {
        AtomicFile::new(Job::prepare(target.into(), self)?)
    }
}
