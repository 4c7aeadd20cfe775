//! What is durable and could not be published is kept beside the files, until a newer version is published
//! or this one can be: so no file that cannot be replaced keeps the log from going on.
//!
//! ```text
//! .ringseal/unplaced/ID/INODE-BORN-HANDLE/NAME
//!                       └ the directory that it was saved to, hexadecimal
//! ```
//!
//! A removal is an empty file of mode 0.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::layout::{FILE_MAX, errno_of, record, split};
use super::log::format::{DirectoryId, Kind, Record, is_path};
use crate::inode::{self, Look};
use crate::left_out::{Rule, left_out};
use crate::request::{Options, Target};

const NAME: &str = "unplaced";

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Keeps a record, durably; `own` is the store's own directory.
pub(crate) fn keep(own: BorrowedFd<'_>, record: &Record) -> Result<(), Errno> {
    if left_out(Rule::SettingAside) {
        return Ok(());
    }
    let (id, name) = split(&record.path);
    // Of an earlier directory of this name, or an older version.
    take_back_but(own, &record.path, Some(&record.directory))?;
    let dir = make(own, NAME)?;
    let dir = make(dir.as_fd(), id)?;
    let dir = make(dir.as_fd(), &to_text(&record.directory))?;
    // A file that is empty and of mode 0 is a removal; nobody needs such a file.
    let mode = if record.kind == Kind::Remove { 0 } else { record.mode | 0o400 };
    let target = Target::at(dir, name);
    let saved = Options::new().mode(mode).replace(target, &record.data);
    saved.map(drop).map_err(|error| errno_of(&error))
}

/// All that is kept. `is_mine`: the store is this process's, so that what a crash has left is removed.
pub(crate) fn all(own: BorrowedFd<'_>, is_mine: bool) -> Result<Vec<Record>, Errno> {
    let mut records = Vec::new();
    let Some(dir) = open(own, NAME)? else { return Ok(records) };
    for id in names(&dir)? {
        let Some(dir) = open(dir.as_fd(), &id)? else { continue };
        for directory in names(&dir)? {
            let Some(saved_to) = from_text(&directory) else { continue };
            let Some(dir) = open(dir.as_fd(), &directory)? else { continue };
            for name in names(&dir)? {
                let path = format!("{id}/{name}");
                if crate::temp::Name::parse(name.as_bytes()).is_some() {
                    if is_mine {
                        let _ = rustix::fs::unlinkat(&dir, &name, AtFlags::empty());
                    }
                } else if is_path(&path) {
                    let read = read(&dir, path, &name)?;
                    records.extend(read.map(|record| Record { directory: saved_to, ..record }));
                }
            }
        }
    }
    Ok(records)
}

/// Keeps what is kept of a path no longer, durably.
pub(crate) fn take_back(own: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
    if left_out(Rule::TakingBack) {
        return Ok(());
    }
    take_back_but(own, path, None)
}

fn take_back_but(own: BorrowedFd<'_>, path: &str, but: Option<&DirectoryId>) -> Result<(), Errno> {
    let (id, name) = split(path);
    let Some(all) = open(own, NAME)? else { return Ok(()) };
    let Some(of_id) = open(all.as_fd(), id)? else { return Ok(()) };
    for directory in names(&of_id)? {
        if from_text(&directory).as_ref() == but {
            continue;
        }
        let Some(dir) = open(of_id.as_fd(), &directory)? else { continue };
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) => rustix::fs::fsync(&dir)?,
            // A directory there is somebody else's.
            Err(Errno::NOENT | Errno::ISDIR) => {}
            Err(errno) => return Err(errno),
        }
        // Empty ones do no harm.
        let _ = rustix::fs::unlinkat(&of_id, directory, AtFlags::REMOVEDIR);
    }
    let _ = rustix::fs::unlinkat(&all, id, AtFlags::REMOVEDIR);
    Ok(())
}

/// Reads what is kept; `None` if the store never kept such a thing, and somebody else has put it there.
fn read(dir: &OwnedFd, path: String, name: &str) -> Result<Option<Record>, Errno> {
    let c_name = CString::new(name).map_err(|_| Errno::INVAL)?;
    let look = match inode::at(dir, &c_name) {
        // Taken back meanwhile, by the process that has the store open.
        Err(Errno::NOENT) => return Ok(None),
        look => look?,
    };
    if !is_kept(&look) {
        return Ok(None);
    }
    let mode = look.mode.as_raw_mode();
    if mode == 0 && look.size == 0 {
        // It need not be readable.
        return Ok(Some(record(Kind::Remove, path, 0, Bytes::new())));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        file => file?,
    };
    if !is_kept(&inode::of(&file)?) {
        return Ok(None);
    }
    let mut data = Vec::new();
    let mut file = std::io::Read::take(std::fs::File::from(file), FILE_MAX);
    std::io::Read::read_to_end(&mut file, &mut data)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(Some(record(Kind::Replace, path, mode, Bytes::from(data))))
}

/// Is it a file, and no larger than any that is saved?
fn is_kept(look: &Look) -> bool {
    look.kind.is_file() && look.size <= FILE_MAX
}

/// Opens a directory in another; `None` if it is not there, or is none.
fn open(dir: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>, Errno> {
    match rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Opens a directory in another, or makes it; durable either way.
fn make(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    if !left_out(Rule::HolderSync) {
        rustix::fs::fsync(dir)?;
    }
    let made = rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())?;
    rustix::fs::fchmod(&made, Mode::RWXU)?;
    Ok(made)
}

fn names(dir: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        if let Ok(name) = entry?.file_name().to_str() {
            if OsStr::new(name) != "." && OsStr::new(name) != ".." {
                names.push(name.to_owned());
            }
        }
    }
    Ok(names)
}

fn to_text(directory: &DirectoryId) -> String {
    let DirectoryId { inode, born, handle } = directory;
    format!("{inode:x}-{born:x}-{handle:x}")
}

fn from_text(text: &str) -> Option<DirectoryId> {
    let mut numbers = text.split('-').map(|number| u64::from_str_radix(number, 16).ok());
    let directory =
        DirectoryId { inode: numbers.next()??, born: numbers.next()??, handle: numbers.next()?? };
    (numbers.next().is_none() && to_text(&directory) == text).then_some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn saved(id: u64, data: &'static [u8]) -> Record {
        let directory = DirectoryId { inode: id, born: 7, handle: u64::MAX };
        Record { directory, ..record(Kind::Replace, "web-1/state.json", 0o640, data.into()) }
    }

    #[test]
    fn what_is_kept_is_found_and_taken_back() {
        let path = tempfile::tempdir().unwrap();
        let own = File::open(path.path()).unwrap();
        let own = own.as_fd();
        assert_eq!(all(own, true), Ok(vec![]));
        let removal = record(Kind::Remove, "web-2/config.json", 0, Bytes::new());
        keep(own, &saved(1, b"one")).unwrap();
        keep(own, &removal).unwrap();
        keep(own, &saved(1, b"two")).unwrap();
        let mut found = all(own, true).unwrap();
        found.sort_by(|one, other| one.path.cmp(&other.path));
        assert_eq!(found, [saved(1, b"two"), removal]);
        // Of another directory of the same name.
        keep(own, &saved(2, b"three")).unwrap();
        assert!(all(own, true).unwrap().contains(&saved(2, b"three")));
        assert_eq!(all(own, true).unwrap().len(), 2);
        take_back(own, "web-1/state.json").unwrap();
        take_back(own, "web-2/config.json").unwrap();
        take_back(own, "web-3/state.json").unwrap();
        assert_eq!(all(own, true), Ok(vec![]));
        assert_eq!(std::fs::read_dir(path.path().join(NAME)).unwrap().count(), 0);
    }
}
