//! What stands where: a directory for each container below the root, and the store's own, `.ringseal`.
//! Nothing that somebody plants in the tree leads out of it: no link is followed, and a directory is known
//! by more than its name.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::core::{Failure, Written, container};
use super::id;
use super::log::files::is_private;
use super::log::format::{DirectoryId, Kind, Record};
use crate::engine::calls;
use crate::error::{Cause, Error, Result};
use crate::filesystem;
use crate::inode;
use crate::job::Job;
use crate::left_out::{Rule, left_out};
use crate::place::Place;
use crate::plan::{Outcome, Step};
use crate::receipt::Carrier;
use crate::request::{Level, Options};
use crate::root::Root;
use crate::sys::handle::Handle;
use crate::temp;

/// The store's own directory.
pub(crate) const OWN: &str = ".ringseal";

/// The largest file that a store saves or reads: whoever can write to a container's directory could else take
/// all memory by a file that is larger, or seems to be.
pub(crate) const FILE_MAX: u64 = 256 << 20;

/// How often a file is opened again that somebody has a lease on, and when.
const LEASES_MAX: usize = 1000;
const MOMENT: Duration = Duration::from_millis(1);

/// What the files of a container are called, and which modes they and their directory have.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub state: String,
    pub pid: String,
    pub others: Vec<String>,
    pub mode: u32,
    pub directory_mode: u32,
}

/// The tree below a root.
#[derive(Debug)]
pub(crate) struct Layout {
    pub root: Root,
    pub names: Names,
    /// Directories that the store has removed so far: what was located before may be gone.
    removed: AtomicU64,
    /// A rename over a file makes this filesystem write the new one out at once: ext4, with `auto_da_alloc`.
    writes_out_renamed: bool,
}

/// A container's directory, open.
#[derive(Debug)]
pub(crate) struct Container {
    pub dir: OwnedFd,
    pub id: DirectoryId,
}

/// A file that was replaced.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub dir: Arc<OwnedFd>,
    pub directory: DirectoryId,
    /// The new file, if there was an old one.
    pub file: Option<OwnedFd>,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Names {
    /// The names of the files that the store manages, the state's last.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        let others = self.others.iter().map(String::as_str);
        others.chain([self.pid.as_str(), self.state.as_str()])
    }

    /// Records that remove a container's files.
    pub(crate) fn removal(&self, id: &str) -> Vec<Record> {
        let removal = |name| record(Kind::Remove, format!("{id}/{name}"), 0, bytes::Bytes::new());
        self.all().map(removal).collect()
    }
}

/// A record whose directory is not known yet.
pub(crate) fn record(
    kind: Kind,
    path: impl Into<Arc<str>>,
    mode: u32,
    data: bytes::Bytes,
) -> Record {
    let (path, directory) = (path.into(), DirectoryId::default());
    Record { kind, directory, mode, path, data, transaction: 0 }
}

impl Layout {
    pub(crate) fn new(root: Root, names: Names) -> Layout {
        let writes_out_renamed = filesystem::name(root.directory()) == Ok("ext4");
        Layout { root, names, removed: AtomicU64::new(0), writes_out_renamed }
    }

    /// A number that changes whenever the store removes a directory.
    pub(crate) fn removed(&self) -> u64 {
        self.removed.load(Ordering::Acquire)
    }

    /// The path of a file, for whoever reads an error.
    pub(crate) fn shown(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Opens a container's directory. One on another mount is `EXDEV`: what is synced here says nothing
    /// of it.
    pub(crate) fn open(&self, id: &str) -> Result<Container, Errno> {
        let dir = self.root.open_on_this_mount(Path::new(id), DIRECTORY)?;
        let id = identity(dir.as_fd())?;
        Ok(Container { dir, id })
    }

    /// Opens a container's directory, whatever is mounted there; or makes it.
    pub(crate) fn open_or_make(&self, id: &str) -> Result<OwnedFd, Failure> {
        let open = || self.root.open_beneath(Path::new(id), DIRECTORY);
        match open() {
            Err(Errno::NOENT) => {
                self.make(id)?;
                open().map_err(|errno| (Step::OpenDirectory, errno))
            }
            opened => opened.map_err(|errno| (Step::OpenDirectory, errno)),
        }
    }

    fn make(&self, id: &str) -> Result<(), Failure> {
        let made = self.root.make_directory(id.as_ref(), self.names.directory_mode);
        made.map_err(|errno| (Step::MakeDirectory, errno))
    }

    /// Finds the directory of a path, for a removal; or makes it, for a save, and looks whether a file can be at
    /// the path.
    pub(crate) fn locate(&self, path: &str, make: bool) -> Result<DirectoryId, Failure> {
        let (id, name) = split(path);
        let container = match self.open(id) {
            Err(Errno::NOENT) if make => {
                self.make(id)?;
                self.open(id)
            }
            container => container,
        };
        let container = container.map_err(|errno| (Step::OpenDirectory, errno))?;
        if !make {
            // To be removed, whatever it is.
            return Ok(container.id);
        }
        match inode::at(&container.dir, &c_string(name)) {
            Ok(look) => match look.kind {
                FileType::RegularFile | FileType::Symlink => Ok(container.id),
                FileType::Directory => Err((Step::Check, Errno::ISDIR)),
                // What a replace would destroy.
                _ => Err((Step::Check, Errno::INVAL)),
            },
            Err(Errno::NOENT) => Ok(container.id),
            Err(errno) => Err((Step::Check, errno)),
        }
    }

    /// Makes a record's change visible, in the very directory that it was made for.
    pub(crate) fn publish(&self, record: &Record, level: Level) -> Result<(), Errno> {
        match record.kind {
            Kind::Remove => self.unlink(record, level),
            Kind::Replace | Kind::Forget => self.replace(record, level).map(drop),
        }
    }

    fn unlink(&self, record: &Record, level: Level) -> Result<(), Errno> {
        let container = match self.open_same(record) {
            // What was in it went with it.
            Err(Errno::NOENT | Errno::STALE) => return Ok(()),
            container => container?,
        };
        let name = split(&record.path).1;
        match rustix::fs::unlinkat(&container.dir, name, AtFlags::empty()) {
            // A directory that somebody has made there stays, with the one that it is in.
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
            Err(errno) => return Err(errno),
        }
        // What a store before this one has left; or the directory could not go.
        let _ = rustix::fs::unlinkat(&container.dir, temp::spare_of(name), AtFlags::empty());
        match level {
            Level::Durable => rustix::fs::fsync(&container.dir),
            Level::Atomic => Ok(()),
        }
    }

    /// Replaces a file by a new one.
    pub(crate) fn replace(&self, record: &Record, level: Level) -> Result<Replaced, Errno> {
        let Container { dir, id } = self.open_same(record)?;
        let dir = Arc::new(dir);
        let job = self.job(Arc::clone(&dir), &record.path, record.mode, level);
        let mut job = job.map_err(|error| errno_of(&error))?;
        // The log has it: there is no hurry to write it out.
        job.exchanges = self.writes_out_renamed && level == Level::Atomic;
        let (mut file, stood) = (None, job.settled.stood);
        calls::run_while(&mut job, &mut file, &record.data, |_| true);
        let saved = calls::finish(job, Carrier::Caller, record.data.len());
        saved.map_err(|error| errno_of(&error))?;
        Ok(Replaced { dir, directory: id, file: file.filter(|_| stood) })
    }

    /// The directory that a record was made for; `STALE` if another has its name.
    fn open_same(&self, record: &Record) -> Result<Container, Errno> {
        let container = self.open(container(&record.path))?;
        match container.id.is(&record.directory) || left_out(Rule::DirectoryIdentity) {
            true => Ok(container),
            false => Err(Errno::STALE),
        }
    }

    /// A save beside the log.
    pub(crate) fn job(
        &self,
        dir: Arc<OwnedFd>,
        path: &str,
        mode: u32,
        level: Level,
    ) -> Result<Job> {
        let place =
            Place { dir, name: c_string(split(path).1), shown: self.shown(path), unsyncable: None };
        Job::in_place(place, &Options::new().mode(mode).level(level))
    }

    /// Removes a container's directory, if it is this one, and nothing is left in it. Answers whether it is
    /// gone.
    pub(crate) fn remove_directory(
        &self,
        id: &str,
        directory: &DirectoryId,
    ) -> Result<bool, Errno> {
        match self.open(id) {
            Ok(container) if container.id.is(directory) => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(true),
            Err(errno) => return Err(errno),
        }
        let removed = rustix::fs::unlinkat(self.root.directory(), id, AtFlags::REMOVEDIR);
        // Behind it: whoever has seen the number before has seen the directory before.
        self.removed.fetch_add(1, Ordering::AcqRel);
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// The ids below the root that are directories, in their order.
    pub(crate) fn ids(&self) -> Result<Vec<String>, Errno> {
        let mut ids = Vec::new();
        for entry in Dir::read_from(self.root.directory())? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let is_directory = match entry.file_type() {
                FileType::Directory => true,
                FileType::Unknown => self.open(name).is_ok(),
                _ => false,
            };
            if is_directory && id::check(name).is_ok() {
                ids.push(name.to_owned());
            }
        }
        ids.sort_unstable();
        // A listing can begin anew, on tmpfs, when what is behind its place is removed meanwhile.
        ids.dedup();
        Ok(ids)
    }

    /// Reads a file; `None` if there is none.
    pub(crate) fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        let (id, name) = split(path);
        let dir = match self.root.open_beneath(Path::new(id), OFlags::PATH | DIRECTORY) {
            Err(Errno::NOENT) => return Ok(None),
            dir => dir.map_err(|errno| (Step::OpenDirectory, errno))?,
        };
        // Not to hang on a FIFO that somebody has put there.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let check = |errno| (Step::Check, errno);
        let mut left = LEASES_MAX;
        let file = loop {
            match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => return Ok(None),
                // Somebody has a lease on it; see `slots/`.
                Err(Errno::AGAIN) if left > 0 => std::thread::sleep(MOMENT),
                file => break file.map_err(check)?,
            }
            left -= 1;
        };
        let look = inode::of(&file).map_err(check)?;
        if !look.kind.is_file() {
            return Err((Step::Check, Errno::INVAL));
        }
        let mut data = Vec::new();
        let room = look.size.min(FILE_MAX) as usize + 1;
        data.try_reserve_exact(room).map_err(|_| check(Errno::NOMEM))?;
        let mut file = std::io::Read::take(std::fs::File::from(file), FILE_MAX + 1);
        match std::io::Read::read_to_end(&mut file, &mut data) {
            Ok(read) if read as u64 > FILE_MAX => Err(check(Errno::FBIG)),
            Ok(_) => Ok(Some(data)),
            Err(error) => Err(check(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
        }
    }

    /// Is there a file of this name?
    pub(crate) fn has(&self, id: &str, name: &str) -> bool {
        let dir = self.root.open_beneath(Path::new(id), OFlags::PATH | DIRECTORY);
        dir.is_ok_and(|dir| inode::at(dir, &c_string(name)).is_ok())
    }

    /// Has a file its room on the disk? One that is not there, or is another by now, needs none.
    pub(crate) fn has_blocks(&self, (path, len): Written<'_>) -> bool {
        let Ok(look) = inode::at(self.root.directory(), &c_string(path)) else { return true };
        look.allocated >= look.size || look.size != len || !look.kind.is_file()
    }

    /// An error of a path.
    pub(crate) fn error(&self, path: &str, (step, errno): Failure) -> Error {
        let cause = match (step, errno) {
            (Step::Check, Errno::INVAL) => Cause::InvalidRequest("what stands there is no file"),
            _ => errno.into(),
        };
        Error::new(self.shown(path), step, Outcome::Unchanged, cause)
    }
}

/// Opens the store's own directory, or makes it, durably. `None`: somebody else can write to it.
pub(crate) fn open_own(root: &Root) -> Result<Option<OwnedFd>, Failure> {
    root.make_directory(OWN.as_ref(), 0o700).map_err(|errno| (Step::MakeDirectory, errno))?;
    root.sync()?;
    look_at_own(root).map_err(|errno| (Step::OpenDirectory, errno))
}

/// The same, if it is there.
pub(crate) fn look_at_own(root: &Root) -> Result<Option<OwnedFd>, Errno> {
    let own = root.open_on_this_mount(Path::new(OWN), DIRECTORY)?;
    Ok(is_private(own.as_fd())?.then_some(own))
}

/// Which directory this is, so that it is known again after a reboot, and one that was made later under its
/// name is not taken for it.
pub(crate) fn identity(dir: BorrowedFd<'_>) -> Result<DirectoryId, Errno> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let (inode, born) = match rustix::fs::statx(dir, c"", AtFlags::EMPTY_PATH, wanted) {
        Ok(stat) => {
            let told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
            let born = stat.stx_btime;
            let nanoseconds = born.tv_sec as u64 * 1_000_000_000 + u64::from(born.tv_nsec);
            (stat.stx_ino, if told { nanoseconds } else { 0 })
        }
        // Denied by a filter that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => (inode::of(dir)?.inode, 0),
        Err(errno) => return Err(errno),
    };
    let handle = Handle::of(dir).map_or(0, |handle| handle.hash());
    Ok(DirectoryId { inode, born, handle })
}

/// The id and the name in a path.
pub(crate) fn split(path: &str) -> (&str, &str) {
    let id = container(path);
    (id, path.get(id.len() + 1..).unwrap_or(""))
}

pub(crate) fn errno_of(error: &Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

pub(crate) fn c_string(name: &str) -> CString {
    // Names have been checked; one with a NUL byte would be empty, which no file is called.
    CString::new(name).unwrap_or_else(|_| CStr::to_owned(c""))
}
