//! Where a target stands: an open directory and one name in it. From here on no path is resolved
//! again, so nobody can redirect a save by moving what the path goes through, and the ring's
//! thread needs neither the caller's working directory nor its root.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Cause, Error, Result};
use crate::plan::{Outcome, Step};
use crate::request::{Named, Target};
use crate::root::Root;
use crate::temp;

/// An open directory and one name in it.
#[derive(Debug)]
pub(crate) struct Place {
    pub dir: Arc<OwnedFd>,
    pub name: CString,
    /// The target as errors name it.
    pub shown: PathBuf,
    /// Why the directory cannot be synced: this user may not read it, so it is open as a path
    /// only. Good enough where nothing is to be synced.
    pub unsyncable: Option<Errno>,
}

impl Place {
    pub(crate) fn open(target: Target) -> Result<Place> {
        let opened = match &target.0 {
            Named::Path(path) => Self::open_path(path),
            Named::At(dir, name) => Self::open_at(dir.as_fd(), name),
            Named::Beneath(root, path) => Self::open_beneath(root, path),
        };
        Self::of(target.into_shown(), opened)
    }

    pub(crate) fn open_in(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Place> {
        Self::of(PathBuf::from(name), Self::open_at(dir, name))
    }

    fn of(shown: PathBuf, opened: Result<(Directory, CString), Refused>) -> Result<Place> {
        match opened {
            Ok((Directory { dir, unsyncable }, name)) => {
                Ok(Place { dir: Arc::new(dir), name, shown, unsyncable })
            }
            Err(Refused(step, cause)) => Err(Error::new(shown, step, Outcome::Unchanged, cause)),
        }
    }

    fn open_path(path: &Path) -> Result<(Directory, CString), Refused> {
        let (parent, name) = split(path);
        let name = component(name)?;
        let open = |flags| rustix::fs::openat(CWD, parent, flags, Mode::empty());
        Ok((open_directory(open)?, name))
    }

    fn open_beneath(root: &Root, path: &Path) -> Result<(Directory, CString), Refused> {
        let (parent, name) = split(path);
        let name = component(name)?;
        let open = |flags| root.open_beneath(parent, flags);
        Ok((open_directory(open)?, name))
    }

    /// The caller's descriptor may be `O_PATH`, which cannot be synced: opened anew.
    fn open_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(Directory, CString), Refused> {
        let name = component(name)?;
        let open = |flags| rustix::fs::openat(dir, c".", flags, Mode::empty());
        Ok((open_directory(open)?, name))
    }
}

/// A step that refused the request, and why.
struct Refused(Step, Cause);

impl Refused {
    fn request(why: &'static str) -> Refused {
        Refused(Step::Accept, Cause::InvalidRequest(why))
    }
}

struct Directory {
    dir: OwnedFd,
    unsyncable: Option<Errno>,
}

/// Opens the directory so that it can be synced, if this user may read it.
fn open_directory(open: impl Fn(OFlags) -> Result<OwnedFd, Errno>) -> Result<Directory, Refused> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (opened, unsyncable) = match open(flags | OFlags::RDONLY) {
        Err(errno @ Errno::ACCESS) => (open(flags | OFlags::PATH), Some(errno)),
        opened => (opened, None),
    };
    let dir = opened.map_err(|errno| Refused(Step::OpenDirectory, errno.into()))?;
    Ok(Directory { dir, unsyncable })
}

/// Splits a path into the directory to open and the last component.
fn split(path: &Path) -> (&Path, &OsStr) {
    let bytes = path.as_os_str().as_bytes();
    let (parent, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
        // The root itself, for a name directly below it.
        Some(0) => (&bytes[..1], &bytes[1..]),
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (&b"."[..], bytes),
    };
    (Path::new(OsStr::from_bytes(parent)), OsStr::from_bytes(name))
}

/// One component that a file of ours may have as its name.
pub(crate) fn check_name(name: &OsStr) -> Result<CString, &'static str> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." {
        return Err("the path does not end in a file name");
    }
    if bytes.contains(&b'/') {
        return Err("the name is not a single component");
    }
    if temp::Name::parse(bytes).is_some() {
        return Err("the name has the form of a temporary file's");
    }
    CString::new(bytes).map_err(|_| "the name holds a NUL byte")
}

fn component(name: &OsStr) -> Result<CString, Refused> {
    check_name(name).map_err(Refused::request)
}
