//! The directory that a checkpoint reads: one directory for each container, named by its id.
//!
//! No link below it is followed: every open is relative to an open directory, with `O_NOFOLLOW`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ringseal::Cause;
use rustix::fs::{AtFlags, CWD, Dir, DirEntry, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::failures::Failure;

/// The directory, open.
#[derive(Debug)]
pub struct Directory {
    handle: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens it. A link in the path that the user gives is followed.
    pub fn open(path: PathBuf) -> Result<Directory, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
            Ok(handle) => Ok(Directory { handle, path }),
            Err(errno) => Err(Failure::of_call(path, "open-directory", &errno.into())),
        }
    }

    /// Is it the directory at `path`?
    pub fn is(&self, path: &Path) -> bool {
        let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
        let here = rustix::fs::fstat(&self.handle).map(identity);
        here.is_ok() && here == rustix::fs::stat(path).map(identity)
    }

    /// Its path, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it; see [`may_be_id`].
    pub fn list(&self) -> Result<Dir, Errno> {
        Dir::read_from(&self.handle)
    }

    /// How many ids it seems to have.
    pub fn count(&self) -> u64 {
        let Ok(listing) = self.list() else { return 0 };
        listing.map_while(Result::ok).filter(may_be_id).count() as u64
    }

    /// Opens an id's directory: ELOOP for a link, ENOTDIR for a file.
    pub fn open_id(&self, id: &OsStr) -> Result<OwnedFd, Errno> {
        // O_PATH: to look up a name in it, permission to search it is enough.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.handle, id, flags, Mode::empty()) {
            // O_DIRECTORY says so of a link, too.
            Err(Errno::NOTDIR) if self.is_link(id) => Err(Errno::LOOP),
            opened => opened,
        }
    }

    fn is_link(&self, name: &OsStr) -> bool {
        rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_symlink())
    }
}

/// Is it a directory, as far as the listing tells? A link counts: it is an id that cannot be read.
pub fn may_be_id(entry: &DirEntry) -> bool {
    let (name, kind) = (entry.file_name(), entry.file_type());
    let may_be = matches!(kind, FileType::Directory | FileType::Symlink | FileType::Unknown);
    may_be && name != c"." && name != c".."
}

/// Reads a regular file, and its permission bits.
pub fn read(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(Vec<u8>, u32), Cause> {
    // Not to wait for the other end of a FIFO.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
    let stat = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR.into()),
        _ => return Err(Cause::InvalidRequest("it is not a regular file")),
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((bytes, stat.st_mode & 0o777))
}
