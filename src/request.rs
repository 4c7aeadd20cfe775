//! What is asked: a target, its new bytes, and options.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

#[cfg(feature = "json")]
use crate::error::{Error, Result};
use crate::root::Root;

/// Which file a save replaces.
///
/// Made from a path, relative ones to the working directory, or by [`at`](Target::at) and
/// [`beneath`](Target::beneath). The last component is never followed: a symbolic link there is
/// replaced, not written through.
#[derive(Debug, Clone)]
pub struct Target(pub(crate) Named);

#[derive(Debug, Clone)]
pub(crate) enum Named {
    Path(PathBuf),
    At(Arc<OwnedFd>, OsString),
    Beneath(Root, PathBuf),
}

impl Target {
    /// The file `name`, one component, in an open directory. `O_PATH` descriptors will do.
    pub fn at(directory: impl Into<Arc<OwnedFd>>, name: impl Into<OsString>) -> Target {
        Target(Named::At(directory.into(), name.into()))
    }

    /// A path that cannot leave `root`: not by `..`, not through a symbolic link anywhere in it,
    /// not by an absolute path. Who can write below the root cannot redirect the save.
    pub fn beneath(root: &Root, path: impl Into<PathBuf>) -> Target {
        Target(Named::Beneath(root.clone(), path.into()))
    }

    /// The target as errors name it.
    pub(crate) fn into_shown(self) -> PathBuf {
        match self.0 {
            Named::Path(path) => path,
            Named::At(_, name) => PathBuf::from(name),
            Named::Beneath(root, path) => root.path().join(path),
        }
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Target {
    fn from(path: &P) -> Target {
        Target(Named::Path(path.as_ref().to_path_buf()))
    }
}

impl From<PathBuf> for Target {
    fn from(path: PathBuf) -> Target {
        Target(Named::Path(path))
    }
}

impl From<String> for Target {
    fn from(path: String) -> Target {
        Target(Named::Path(path.into()))
    }
}

/// What the answer promises.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Level {
    /// After the answer, a power cut at any moment leaves this version (or a later one).
    #[default]
    Durable,
    /// Whole or not at all, for readers and for a killed process. Nothing is synced: after a power
    /// cut the target can be the old version, the new one, or, on some filesystems, empty. For
    /// what a reboot voids anyway, such as pid files.
    Atomic,
}

/// How a save is to be done. One builder for the plain functions, the
/// [`Writer`](crate::Writer) and [`AtomicFile`](crate::AtomicFile).
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("state.json");
/// use ringseal::Options;
///
/// Options::new().mode(0o644).create_new().replace(&path, b"{}")?;
/// let again = Options::new().create_new().replace(&path, b"{}").unwrap_err();
/// assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub(crate) mode: Option<u32>,
    pub(crate) keep_mode: bool,
    pub(crate) keep_owner: bool,
    pub(crate) create_new: bool,
    pub(crate) previous: Option<OsString>,
    pub(crate) level: Level,
}

/// The mode of a file whose save names none.
pub(crate) const DEFAULT_MODE: u32 = 0o600;

impl Options {
    /// Mode 0o600, an existing target is replaced, [`Level::Durable`].
    pub fn new() -> Options {
        Options::default()
    }

    /// The mode of the new file, exactly: neither the process's umask nor a default access list of
    /// the directory changes it. Permission bits only: bits outside 0o777 are refused.
    pub fn mode(mut self, mode: u32) -> Options {
        self.mode = Some(mode);
        self
    }

    /// Takes mode and POSIX access list from the file at the target. Where there is none, the mode
    /// is the one given to [`mode`](Options::mode), or 0o600.
    pub fn keep_mode(mut self) -> Options {
        self.keep_mode = true;
        self
    }

    /// Takes owner and group from the file at the target. A process that may not give the file
    /// away gets an error at [`Step::SetAttributes`](crate::Step), and the target is unchanged.
    pub fn keep_owner(mut self) -> Options {
        self.keep_owner = true;
        self
    }

    /// Fails with `EEXIST` if anything stands at the target (`RENAME_NOREPLACE`, renameat2(2)). There is then no
    /// version to [keep](Options::keep_previous), and what stands at that name is left alone.
    pub fn create_new(mut self) -> Options {
        self.create_new = true;
        self
    }

    /// The version that is replaced then stands beside the new one, as `name` in the same
    /// directory. At every moment, power cuts included, the old version has the target's name or
    /// this one; and this name never holds a version newer than the target's.
    ///
    /// It costs one more directory sync. Where nothing stands at the target, what stands at `name`
    /// is left alone. The filesystem must have hard links.
    pub fn keep_previous(mut self, name: impl Into<OsString>) -> Options {
        self.previous = Some(name.into());
        self
    }

    /// What the answer promises.
    pub fn level(mut self, level: Level) -> Options {
        self.level = level;
        self
    }
}

/// One save for a [`Writer`](crate::Writer): a target, its new bytes, options.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) target: Target,
    pub(crate) bytes: Bytes,
    pub(crate) options: Options,
}

impl Request {
    /// Replace `target` by `bytes`, which are not copied.
    pub fn new(target: impl Into<Target>, bytes: impl Into<Bytes>) -> Request {
        Request { target: target.into(), bytes: bytes.into(), options: Options::new() }
    }

    /// Serialises `value` as JSON, without a trailing newline, straight into the buffer that will
    /// be written.
    ///
    /// # Errors
    /// [`Cause::Serialize`](crate::Cause) at [`Step::Accept`](crate::Step).
    #[cfg(feature = "json")]
    pub fn json<T>(target: impl Into<Target>, value: &T) -> Result<Request>
    where
        T: serde::Serialize + ?Sized,
    {
        let target = target.into();
        match serde_json::to_vec(value) {
            Ok(bytes) => Ok(Request::new(target, bytes)),
            Err(error) => Err(not_serialised(target, error)),
        }
    }

    /// With these options instead of the default ones.
    pub fn with(mut self, options: Options) -> Request {
        self.options = options;
        self
    }
}

impl<T: Into<Target>, B: Into<Bytes>> From<(T, B)> for Request {
    fn from((target, bytes): (T, B)) -> Request {
        Request::new(target, bytes)
    }
}

#[cfg(feature = "json")]
pub(crate) fn not_serialised(target: Target, error: serde_json::Error) -> Error {
    use crate::error::Cause;
    use crate::plan::{Outcome, Step};
    let cause = Cause::Serialize(error);
    Error::new(target.into_shown(), Step::Accept, Outcome::Unchanged, cause)
}
