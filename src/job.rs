//! A request made ready for an engine: the directory is open, what stands at the target was looked
//! at, names and shape are settled. From here on nothing is decided that is not in the plan, and
//! the job knows how far it has come.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use crate::error::{Cause, Error, FileKind, Result};
use crate::filesystem::{self, Nature};
use crate::inode::{self, Look};
use crate::place::{Place, check_name};
use crate::plan::{Outcome, Progress, Shape, Step};
use crate::receipt::{Carrier, Durability, Receipt};
use crate::request::{DEFAULT_MODE, Level, Options, Target};
use crate::temp;

/// The extended attributes that hold POSIX access lists.
const ACCESS_LIST: &str = "system.posix_acl_access";
const DEFAULT_ACCESS_LIST: &str = "system.posix_acl_default";

/// A save that is ready to be carried out, or on its way.
#[derive(Debug)]
pub(crate) struct Job {
    pub place: Place,
    pub settled: Settled,
    pub create_new: bool,
    /// The temporary file and the target change names, and then the old version is removed; by plain calls
    /// only.
    pub exchanges: bool,
    /// Its number among those that its writer accepted; 0 without a writer.
    pub sequence: u64,
    asked: Asked,
    /// Names in the same directory: of the temporary file, and of keep-previous's link (empty
    /// without it).
    pub temp: CString,
    pub link: CString,
    pub progress: Progress,
    /// Syncs of its file and directory that were made for it so far.
    pub syncs: u64,
}

/// The numbers of a directory's filesystem and of the directory.
pub(crate) type Directory = (u64, u64);

/// What was asked of a plain replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    mode: Option<u32>,
    keep_mode: bool,
    keep_owner: bool,
    level: Level,
}

/// What a look at the target has settled.
#[derive(Debug)]
pub(crate) struct Settled {
    pub mode: Mode,
    pub attributes: Attributes,
    /// The name under which the old version is to stand.
    pub previous: Option<CString>,
    pub promise: Promise,
    /// Something stood at the target.
    pub stood: bool,
    /// The number of the filesystem.
    pub device: u64,
    /// Which directory it is, once that was looked at.
    directory: Option<Directory>,
    /// A write with `RWF_DSYNC` is known to sync on this filesystem.
    pub write_syncs: bool,
}

/// What has to be set on the open file, because no argument of `open` can.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    pub owner: Option<(Uid, Gid)>,
    pub access_list: Option<Vec<u8>>,
    /// The directory gives new files an access list, which has to go.
    pub inherits_list: bool,
}

/// What the save can promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    Durable,
    Atomic,
    /// The filesystem lives in memory: there is nothing to sync to.
    Volatile,
}

impl Job {
    /// Resolves the target on the calling thread, in the caller's world, and checks the request.
    pub(crate) fn prepare(target: Target, options: &Options) -> Result<Job> {
        Job::in_place(Place::open(target)?, options)
    }

    /// The same for a name in a directory of the caller's.
    pub(crate) fn prepare_at(dir: BorrowedFd<'_>, name: &OsStr, options: &Options) -> Result<Job> {
        Job::in_place(Place::open_in(dir, name)?, options)
    }

    /// The same for a place that is open.
    pub(crate) fn in_place(place: Place, options: &Options) -> Result<Job> {
        let settled = match Settled::of(&place, options) {
            Ok(settled) => settled,
            Err((step, cause)) => {
                return Err(Error::new(place.shown, step, Outcome::Unchanged, cause));
            }
        };
        let link = settled.previous.as_ref().map(|_| temp::unique()).unwrap_or_default();
        let create_new = options.create_new;
        let progress = Progress::new(settled.shape());
        let Options { mode, keep_mode, keep_owner, level, .. } = *options;
        let asked = Asked { mode, keep_mode, keep_owner, level };
        let (temp, sequence) = (temp::unique(), 0);
        let (exchanges, syncs) = (false, 0);
        Ok(Job {
            place,
            settled,
            create_new,
            exchanges,
            sequence,
            asked,
            temp,
            link,
            progress,
            syncs,
        })
    }

    /// The step to run, or `None` when the save has ended, well or not.
    pub(crate) fn next(&self) -> Option<Step> {
        self.progress.next()
    }

    /// Does it do nothing but replace what may stand there?
    pub(crate) fn is_plain(&self) -> bool {
        !self.create_new && self.settled.previous.is_none()
    }

    /// The numbers of the directory's filesystem and of the directory, by which it is known again; asked
    /// for once. A directory that does not tell is known by its descriptor.
    pub(crate) fn directory(&mut self) -> Directory {
        let dir = &self.place.dir;
        *self.settled.directory.get_or_insert_with(|| directory_of(dir))
    }

    /// Is this save, once it is carried out, as good as that older one? So it is if both are plain, are of
    /// one target, as far as numbers tell directories apart, and ask for the same.
    pub(crate) fn stands_for(&self, older: &Job) -> bool {
        let of_one_target = self.settled.directory == older.settled.directory
            && self.place.name == older.place.name;
        of_one_target && self.is_plain() && older.is_plain() && self.asked == older.asked
    }

    /// Does it keep anything of the version before it?
    pub(crate) fn keeps(&self) -> bool {
        self.asked.keep_mode || self.asked.keep_owner
    }

    /// Takes over anew what is to be kept: saves that came before have changed it.
    pub(crate) fn look_again(&mut self) -> Result<()> {
        let Asked { mode, keep_mode, keep_owner, level } = self.asked;
        if !self.keeps() {
            return Ok(());
        }
        let previous = self.settled.previous.as_ref();
        let previous = previous.map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
        let create_new = self.create_new;
        let options = Options { mode, keep_mode, keep_owner, create_new, previous, level };
        match Settled::of(&self.place, &options) {
            Ok(settled) => self.settled = settled,
            Err((step, cause)) => {
                let target = self.place.shown.clone();
                return Err(Error::new(target, step, Outcome::Unchanged, cause));
            }
        }
        self.progress = Progress::new(self.settled.shape());
        Ok(())
    }

    /// Begins anew, with a new file; nothing of the old one is left.
    pub(crate) fn restart(&mut self) {
        self.temp = temp::unique();
        self.progress = Progress::new(self.settled.shape());
    }

    /// Does the mode given at `open` become the file's mode, for a thread whose umask is 0? Not
    /// where a default access list of the directory is laid over it (umask(2), acl(5)).
    pub(crate) fn open_mode_is_exact(&self) -> bool {
        !inherits_list(&self.place)
    }

    /// The flags of the rename onto the target.
    pub(crate) fn rename_flags(&self) -> RenameFlags {
        if self.create_new { RenameFlags::NOREPLACE } else { RenameFlags::empty() }
    }

    /// Takes the answer of the temporary file's removal. Where it could not be removed (a dying disk),
    /// a look tells whether it was there.
    pub(crate) fn temp_was_removed(&mut self, removal: Result<(), Errno>) {
        let was_there = match removal {
            Ok(()) => true,
            Err(Errno::NOENT) => false,
            Err(_) => inode::at(&self.place.dir, &self.temp).is_ok(),
        };
        self.progress.temp_is_gone(was_there);
    }

    /// What a save that came to its end answers.
    pub(crate) fn answer(self, carrier: Carrier, bytes: usize) -> Result<Receipt> {
        let progress = self.progress;
        let Some(step) = progress.failed() else {
            let durability = match self.settled.promise {
                Promise::Durable if progress.is_unprovable() => Durability::DurableUnproven,
                Promise::Durable => Durability::Durable,
                Promise::Atomic => Durability::Atomic,
                Promise::Volatile => Durability::Volatile,
            };
            let (bytes, sequence) = (bytes as u64, self.sequence);
            return Ok(Receipt { durability, carrier, bytes, sequence, coalesced_into: None });
        };
        let cause = match progress.errno() {
            // The one reason of a file's for it (rename(2)): a mount in this process's namespace.
            Some(Errno::BUSY) if step == Step::Rename => Cause::MountPoint,
            Some(errno) => errno.into(),
            None => Cause::EngineLost,
        };
        Err(Error::new(self.place.shown, step, progress.outcome(), cause))
    }
}

impl Settled {
    /// Which steps the save takes.
    pub(crate) fn shape(&self) -> Shape {
        let Settled { attributes, previous, promise, write_syncs, .. } = self;
        Shape {
            durable: *promise == Promise::Durable,
            attributes: attributes.owner.is_some()
                || attributes.access_list.is_some()
                || attributes.inherits_list,
            keep_previous: previous.is_some(),
            write_syncs: *write_syncs,
        }
    }

    fn of(place: &Place, options: &Options) -> Result<Settled, (Step, Cause)> {
        let refuse = |why| (Step::Accept, Cause::InvalidRequest(why));
        let mode = options.mode.unwrap_or(DEFAULT_MODE);
        if mode & !0o777 != 0 {
            return Err(refuse("the mode has other bits than permissions (0o777)"));
        }
        let previous = options.previous.as_deref().map(check_name).transpose().map_err(refuse)?;
        if previous.as_ref() == Some(&place.name) {
            return Err(refuse("the previous version cannot keep the target's own name"));
        }
        // What somebody else puts there from here on is no version before this one: the rename refuses it, and
        // the previous name must not have become it by then.
        let previous = previous.filter(|_| !options.create_new);
        let (mode, attributes) = (Mode::from_raw_mode(mode), Attributes::default());
        let (promise, write_syncs) = (Promise::Durable, false);
        let (device, directory, stood) = (0, None, false);
        let mut settled =
            Settled { mode, attributes, previous, promise, stood, device, directory, write_syncs };
        let check = |errno: Errno| (Step::Check, errno.into());
        let standing = match inode::at(&place.dir, &place.name) {
            Ok(look) => Some(look),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(check(errno)),
        };
        settled.stood = standing.is_some();
        if let Some(standing) = &standing {
            refuse_what_is_no_file(standing.kind).map_err(|cause| (Step::Check, cause))?;
            if options.create_new {
                return Err(check(Errno::EXIST));
            }
            settled.keep(place, standing, options).map_err(check)?;
        }
        // Where only the owner may do anything, the list's mask is empty: nobody gets in by it.
        let shared = settled.mode.intersects(Mode::RWXG | Mode::RWXO);
        settled.attributes.inherits_list = shared && inherits_list(place);
        let (device, nature, directory) = filesystem_of(place, standing.as_ref())
            .map_err(|errno| (Step::OpenDirectory, errno.into()))?;
        settled.device = device;
        settled.directory = directory;
        settled.write_syncs = nature.write_syncs;
        settled.promise = match (options.level, place.unsyncable) {
            _ if nature.is_volatile => Promise::Volatile,
            (Level::Atomic, _) => Promise::Atomic,
            (Level::Durable, None) => Promise::Durable,
            (Level::Durable, Some(errno)) => return Err((Step::OpenDirectory, errno.into())),
        };
        Ok(settled)
    }

    /// Takes over what is to be kept of the file at the target.
    fn keep(&mut self, place: &Place, standing: &Look, options: &Options) -> Result<(), Errno> {
        // A link's own mode and owner say nothing about a file.
        if standing.kind != FileType::RegularFile {
            return Ok(());
        }
        if options.keep_mode {
            self.mode = standing.mode;
            self.attributes.access_list = access_list(place)?;
        }
        if options.keep_owner {
            let (uid, gid) = (Uid::from_raw(standing.uid), Gid::from_raw(standing.gid));
            self.attributes.owner = Some((uid, gid));
        }
        Ok(())
    }
}

/// The numbers of an open directory's filesystem and of the directory. One that does not tell is known by
/// its descriptor.
pub(crate) fn directory_of(dir: &OwnedFd) -> Directory {
    match inode::of(dir) {
        Ok(look) => (look.device, look.inode),
        Err(_) => (0, dir.as_raw_fd() as u64),
    }
}

/// Which filesystem, and what it is; and which directory, if that was looked at. What stands at the target may have told already, if it is known
/// that nothing is mounted over it: that could be unmounted before the rename.
fn filesystem_of(
    place: &Place,
    standing: Option<&Look>,
) -> Result<(u64, Nature, Option<Directory>), Errno> {
    let dir = place.dir.as_fd();
    let (look, directory) = match standing.filter(|look| look.mount.is_some()) {
        Some(look) => (*look, None),
        None => {
            let look = inode::of(dir)?;
            (look, Some((look.device, look.inode)))
        }
    };
    Ok((look.device, filesystem::nature(dir, &look)?, directory))
}

/// Does the directory lay an access list over new files (acl(5))? If it cannot be told, it may.
fn inherits_list(place: &Place) -> bool {
    let mut none: [u8; 0] = [];
    let answer = rustix::fs::fgetxattr(&place.dir, DEFAULT_ACCESS_LIST, &mut none);
    !matches!(answer, Err(Errno::NODATA | Errno::OPNOTSUPP))
}

fn refuse_what_is_no_file(kind: FileType) -> Result<(), Cause> {
    let kind = match kind {
        FileType::Directory => return Err(Errno::ISDIR.into()),
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharacterDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::RegularFile | FileType::Symlink | FileType::Unknown => return Ok(()),
    };
    Err(Cause::SpecialFile(kind))
}

/// The POSIX access list of the file at the target: it is part of its mode, whose group bits are
/// only the list's mask. Read through `/proc`, for the file itself may be unreadable; where there
/// is no `/proc`, through the file.
fn access_list(place: &Place) -> Result<Option<Vec<u8>>, Errno> {
    let mut path = format!("/proc/self/fd/{}/", place.dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(place.name.to_bytes());
    let through_proc = read_list(|list| {
        let list = rustix::buffer::spare_capacity(list);
        rustix::fs::lgetxattr(path.as_slice(), ACCESS_LIST, list)
    });
    if through_proc != Err(Errno::NOENT) {
        return through_proc;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(&place.dir, &place.name, flags, Mode::empty()) {
        Ok(file) => read_list(|list| {
            let list = rustix::buffer::spare_capacity(list);
            rustix::fs::fgetxattr(&file, ACCESS_LIST, list)
        }),
        // Removed meanwhile: there is nothing to keep.
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn read_list(
    mut read: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>,
) -> Result<Option<Vec<u8>>, Errno> {
    let mut list = Vec::with_capacity(1024);
    loop {
        list.clear();
        match read(&mut list) {
            Ok(_) => return Ok(Some(list)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) => list.reserve(list.capacity() * 2),
            Err(errno) => return Err(errno),
        }
    }
}

impl Attributes {
    /// Sets them on the temporary file. The inherited list goes before chmod, which would only set
    /// its mask.
    pub(crate) fn set(&self, file: BorrowedFd<'_>, mode: Mode) -> Result<(), Errno> {
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        if self.inherits_list {
            match rustix::fs::fremovexattr(file, ACCESS_LIST) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
        }
        rustix::fs::fchmod(file, mode)?;
        if let Some(list) = &self.access_list {
            rustix::fs::fsetxattr(file, ACCESS_LIST, list, rustix::fs::XattrFlags::empty())?;
        }
        Ok(())
    }
}
