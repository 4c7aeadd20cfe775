//! The files that a checkpoint saves, as requests, one at a time.
//!
//! ```text
//!   listing ──▶ look: which ids have a file? ──▶ made: their directories stand below `to`
//!                                                  │ one sync for BATCH of them
//!                                                  ▼
//!                                            read: one id's files ──▶ ready ──▶ Writer
//! ```
//!
//! At any moment it holds the names of the ids and the contents of one id's files.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use indicatif::ProgressBar;
use ringseal::{Cause, Options, Request, Root, Target};
use rustix::fs::{AtFlags, Dir};
use rustix::io::Errno;

use crate::directory::{self, Directory};
use crate::failures::{Failure, Failures};
use crate::signals::Stop;

/// Ids whose directories are made together.
const BATCH: usize = 256;

/// What is left to save, and what could not be read.
#[derive(Debug)]
pub struct Source {
    from: Directory,
    to: Root,
    names: Vec<OsString>,
    stop: Stop,
    /// `None` when it has ended.
    listing: Option<Dir>,
    /// tmpfs can list an id twice, if those listed after it are removed meanwhile.
    listed: HashSet<OsString>,
    made: VecDeque<OsString>,
    ready: VecDeque<Request>,
    /// What could not be read, and whatever else the caller adds.
    pub failures: Failures,
    /// Ids that were gone when they were to be read.
    pub vanished: u64,
    /// A signal came before the end.
    pub interrupted: bool,
    /// Shows the ids that were looked at.
    pub bar: ProgressBar,
}

impl Source {
    /// The files with these names in the directories directly below `from`.
    pub fn new(
        from: Directory,
        to: Root,
        names: Vec<OsString>,
        stop: Stop,
        mut failures: Failures,
        bar: ProgressBar,
    ) -> Source {
        let listing = match from.list() {
            Ok(listing) => Some(listing),
            Err(errno) => {
                failures.add(Failure::of_source(to.path(), from.path(), &errno.into()));
                None
            }
        };
        failures.above(&bar);
        Source {
            from,
            to,
            names,
            stop,
            listing,
            listed: HashSet::new(),
            made: VecDeque::new(),
            ready: VecDeque::new(),
            failures,
            vanished: 0,
            interrupted: false,
            bar,
        }
    }

    /// Looks at ids until [`BATCH`] of them are to be saved, and makes their directories.
    fn make_directories(&mut self) {
        let mut found = Vec::new();
        while found.len() < BATCH && !self.stop.is_asked() {
            let Some(entry) = self.listing.as_mut().and_then(Dir::next) else {
                self.listing = None;
                break;
            };
            match entry {
                Ok(entry) if directory::may_be_id(&entry) => {
                    let id = OsStr::from_bytes(entry.file_name().to_bytes());
                    if self.listed.insert(id.to_owned()) {
                        self.bar.inc(1);
                        found.extend(self.look(id).map(|mode| (id.to_owned(), mode)));
                    }
                }
                Ok(_) => {}
                Err(errno) => {
                    self.listing = None;
                    self.add_failure(Path::new(""), errno);
                }
            }
        }
        if found.is_empty() {
            return;
        }
        let answers = self.to.make_directories(found.iter().map(|(id, mode)| (id, *mode)));
        for ((id, _), answer) in found.into_iter().zip(answers) {
            match answer {
                Ok(()) => self.made.push_back(id),
                Err(error) => self.failures.add(error),
            }
        }
    }

    /// The permission bits of an id's directory; `None` if it holds nothing to save.
    fn look(&mut self, id: &OsStr) -> Option<u32> {
        let directory = self.open_id(id)?;
        let mode = match rustix::fs::fstat(&directory) {
            Ok(stat) => stat.st_mode & 0o777,
            Err(errno) => {
                self.add_failure(id.as_ref(), errno);
                return None;
            }
        };
        let stands = |name: &OsString| {
            let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
            !matches!(stat, Err(Errno::NOENT))
        };
        self.names.iter().any(stands).then_some(mode)
    }

    /// Opens an id's directory; notes why it cannot.
    fn open_id(&mut self, id: &OsStr) -> Option<OwnedFd> {
        match self.from.open_id(id) {
            Ok(directory) => return Some(directory),
            Err(Errno::NOENT) => self.vanished += 1,
            // A file is no id.
            Err(Errno::NOTDIR) => {}
            Err(errno) => self.add_failure(id.as_ref(), errno),
        }
        None
    }

    /// Reads an id's files.
    fn read(&mut self, id: &OsStr) {
        let Some(directory) = self.open_id(id) else { return };
        let mut gone = 0;
        for name in self.names.clone() {
            let path = Path::new(id).join(&name);
            match directory::read(directory.as_fd(), &name) {
                Ok((bytes, mode)) => {
                    let target = Target::beneath(&self.to, path);
                    let options = Options::new().mode(mode);
                    self.ready.push_back(Request::new(target, bytes).with(options));
                }
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => gone += 1,
                Err(cause) => self.add_failure(&path, cause),
            }
        }
        // `look` had found one of them.
        self.vanished += u64::from(gone == self.names.len());
    }

    fn add_failure(&mut self, path: &Path, cause: impl Into<Cause>) {
        let (target, source) = (self.to.path().join(path), self.from.path().join(path));
        self.failures.add(Failure::of_source(target, &source, &cause.into()));
    }
}

impl Iterator for Source {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        loop {
            let is_empty = self.ready.is_empty() && self.made.is_empty();
            if is_empty && self.listing.is_none() {
                return None;
            }
            if self.stop.is_asked() {
                self.interrupted = true;
                return None;
            }
            if let Some(request) = self.ready.pop_front() {
                return Some(request);
            }
            match self.made.pop_front() {
                Some(id) => self.read(&id),
                None => self.make_directories(),
            }
        }
    }
}
