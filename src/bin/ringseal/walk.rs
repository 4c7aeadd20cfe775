//! A walk through a directory's tree that follows no link and stays on one filesystem.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::failures::Failure;

/// One directory of the walk.
#[derive(Debug)]
pub struct Visited {
    /// Its path, from the path that the walk began with.
    pub path: PathBuf,
    /// A path that leads to the very directory that was opened, whatever was moved since.
    pub handle: PathBuf,
}

/// What the walk comes to.
#[derive(Debug)]
pub enum Step {
    /// A directory.
    Directory(Visited),
    /// A directory of another filesystem: it was not entered.
    NotEntered(PathBuf),
    /// A directory that cannot be opened or listed.
    Failed(Failure),
}

/// The walk. It holds one descriptor for each level of depth.
#[derive(Debug)]
pub struct Walk {
    levels: Vec<Level>,
    device: u64,
    first: Option<Step>,
}

#[derive(Debug)]
struct Level {
    directory: OwnedFd,
    path: PathBuf,
    /// Names of the directories in it that are still to be entered.
    left: Vec<OsString>,
}

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Walk {
    /// Begins at `path`, where a link is followed: the user has named it.
    pub fn new(path: PathBuf) -> Walk {
        let mut walk = Walk { levels: Vec::new(), device: 0, first: None };
        walk.first = Some(match rustix::fs::openat(CWD, &path, OPEN, Mode::empty()) {
            Ok(directory) => {
                walk.device = device(&directory).unwrap_or(0);
                walk.enter(directory, path)
            }
            Err(errno) => failed(path, errno),
        });
        walk
    }

    fn enter(&mut self, directory: OwnedFd, path: PathBuf) -> Step {
        let left = match subdirectories(&directory) {
            Ok(left) => left,
            Err(errno) => return failed(path, errno),
        };
        let handle = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        self.levels.push(Level { directory, path: path.clone(), left });
        Step::Directory(Visited { path, handle })
    }
}

impl Iterator for Walk {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            let level = self.levels.last_mut()?;
            let Some(name) = level.left.pop() else {
                self.levels.pop();
                continue;
            };
            let path = level.path.join(&name);
            let flags = OPEN | OFlags::NOFOLLOW;
            let directory = match rustix::fs::openat(&level.directory, &name, flags, Mode::empty())
            {
                Ok(directory) => directory,
                // Gone since it was listed, or no directory (a link says so, too).
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Some(failed(path, errno)),
            };
            return Some(match device(&directory) {
                Ok(device) if device == self.device => self.enter(directory, path),
                Ok(_) => Step::NotEntered(path),
                Err(errno) => failed(path, errno),
            });
        }
    }
}

fn failed(path: PathBuf, errno: Errno) -> Step {
    Step::Failed(Failure::of_call(path, "open-directory", &errno.into()))
}

fn device(directory: &OwnedFd) -> Result<u64, Errno> {
    Ok(rustix::fs::fstat(directory)?.st_dev)
}

/// In reverse order, for they are taken from the end.
fn subdirectories(directory: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let may_be_directory = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
        if may_be_directory && name != c"." && name != c".." {
            names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
        }
    }
    names.sort_by(|one, other| other.cmp(one));
    // A name can be listed twice if others are removed meanwhile.
    names.dedup();
    Ok(names)
}
