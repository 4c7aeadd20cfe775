//! Reading a root that another process may have open.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::io::Errno;

use super::layout::{self, Layout, Names, OWN};
use super::{OpenError, core, id, lock};
use crate::error::{Cause, Error, Result};
use crate::plan::{Outcome, Step};
use crate::root::Root;

/// Reads the states below a root without its lock, from the files as they are; changes nothing. Its calls make
/// the system calls on the calling thread.
///
/// While a process has the store open, the files are what it shows; with
/// [`Publish::Behind`](crate::Publish::Behind) they lag for a moment. If none has, they can be behind the log:
/// after a power cut that is what [`freshness`](StateReader::freshness) tells, and opening the store mends.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # ringseal::StateStore::open_blocking(dir.path())?.save_bytes_blocking("web-1", "{}")?;
/// use ringseal::{Freshness, StoreOptions};
///
/// let reader = StoreOptions::new().open_read_only(dir.path())?;
/// for id in reader.list()? {
///     println!("{id}: {:?}", reader.load_bytes(&id)?);
/// }
/// if let Freshness::Behind { files, .. } = reader.freshness()? {
///     eprintln!("older than they were acknowledged, or torn: {files:?}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StateReader {
    layout: Layout,
}

/// Are the files as new as the log?
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// A process has the store open: the files show what it has saved, but for what it could not
    /// publish, or has not published yet.
    #[non_exhaustive]
    Open {
        /// The process, in its pid namespace, if that could be learned.
        pid: Option<u32>,
    },
    /// They have everything that was acknowledged.
    Current,
    /// The log has changes of these files, which they may lack.
    #[non_exhaustive]
    Behind {
        /// The files.
        files: Vec<PathBuf>,
    },
}

impl StateReader {
    pub(super) fn open(path: &Path, names: Names) -> Result<StateReader, OpenError> {
        Ok(StateReader { layout: Layout::new(Root::open(path)?, names) })
    }

    /// Reads a container's state as JSON; `None` if it has none.
    ///
    /// # Errors
    /// As [`StateStore::load`](super::StateStore::load).
    #[cfg(feature = "json")]
    pub fn load<T: serde::de::DeserializeOwned>(&self, id: &str) -> Result<Option<T>> {
        self.load_bytes(id)?.map(|bytes| self.layout.parse(id, &bytes)).transpose()
    }

    /// Reads a container's state; `None` if it has none.
    ///
    /// # Errors
    /// As [`StateStore::load_bytes`](super::StateStore::load_bytes).
    pub fn load_bytes(&self, id: &str) -> Result<Option<Bytes>> {
        let path = format!("{id}/{}", self.layout.names.state);
        if let Err(why) = id::check(id) {
            let (step, cause) = (Step::Accept, Cause::InvalidRequest(why));
            return Err(Error::new(self.layout.shown(&path), step, Outcome::Unchanged, cause));
        }
        let read = self.layout.read(&path);
        Ok(read.map_err(|failure| self.layout.error(&path, failure))?.map(Bytes::from))
    }

    /// The ids of all containers that have a state, in their order.
    ///
    /// # Errors
    /// If the root cannot be read.
    pub fn list(&self) -> Result<Vec<String>> {
        let failed = |errno| self.layout.error("", (Step::OpenDirectory, errno));
        let mut ids = self.layout.ids().map_err(failed)?;
        ids.retain(|id| self.layout.has(id, &self.layout.names.state));
        Ok(ids)
    }

    /// Reports states that are no JSON, with line and column.
    ///
    /// # Errors
    /// If the root cannot be read.
    #[cfg(feature = "json")]
    pub fn verify(&self) -> Result<Vec<super::Unreadable>> {
        Ok(super::verify::all(&self.layout, self.list()?, |id| self.load_bytes(id)))
    }

    /// Are the files as new as the log? The log is its user's alone: who else asks gets `EACCES`.
    ///
    /// # Errors
    /// If the log cannot be read, or is damaged; what it then has cannot be told.
    pub fn freshness(&self) -> Result<Freshness, OpenError> {
        let path = self.layout.shown(OWN);
        let failed =
            |doing, errno: Errno| OpenError::Io { path: path.clone(), doing, source: errno.into() };
        let own = match layout::look_at_own(&self.layout.root) {
            // There never was a store.
            Err(Errno::NOENT) => return Ok(Freshness::Current),
            Err(errno) => return Err(failed("open", errno)),
            Ok(None) => return Err(OpenError::NotPrivate(path)),
            Ok(Some(own)) => own,
        };
        let holder = || {
            let holder = lock::holder_of(own.as_fd());
            holder.map_err(|refused| OpenError::of_lock(self.layout.root.path(), refused))
        };
        if let Some(pid) = holder()? {
            return Ok(Freshness::Open { pid });
        }
        let Some(scan) = super::inspect::scan(own.as_fd(), &path)? else {
            return Ok(Freshness::Current);
        };
        if let Some(damage) = &scan.damage {
            // A process may have opened it meanwhile, and write.
            if let Some(pid) = holder()? {
                return Ok(Freshness::Open { pid });
            }
            let (log, what) = (path.join("log"), damage.to_string());
            return Err(OpenError::Damaged { log, what });
        }
        let aside = super::unplaced::all(own.as_fd(), false);
        let aside = aside.map_err(|errno| failed("read what was not placed", errno))?;
        let changed = core::replay::changes(&scan).chain(&aside);
        let mut files: Vec<PathBuf> =
            changed.map(|record| self.layout.shown(&record.path)).collect();
        files.sort_unstable();
        files.dedup();
        Ok(if files.is_empty() { Freshness::Current } else { Freshness::Behind { files } })
    }
}
