//! A request made ready for an engine: the directory is open, what stands at the target was looked
//! at, names and shape are settled. From here on nothing is decided that is not in the plan.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, RenameFlags, Stat, Uid};
use rustix::io::Errno;

use crate::error::{Cause, Error, FileKind, Result};
use crate::place::{Place, check_name};
use crate::plan::{Outcome, Progress, Shape, Step};
use crate::receipt::{Carrier, Durability, Receipt};
use crate::request::{DEFAULT_MODE, Level, Options, Target};
use crate::temp;

/// The mount of an extended attribute that holds a POSIX access list.
const ACCESS_LIST: &str = "system.posix_acl_access";
const DEFAULT_ACCESS_LIST: &str = "system.posix_acl_default";

/// A save, ready to be carried out.
#[derive(Debug)]
pub(crate) struct Job {
    pub place: Place,
    pub mode: Mode,
    pub attributes: Attributes,
    pub create_new: bool,
    pub previous: Option<CString>,
    pub level: Level,
    /// Names in the same directory: of the temporary file, and of keep-previous's link.
    pub temp: CString,
    pub link: CString,
}

/// What has to be set on the open file, because no argument of `open` can.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    pub owner: Option<(Uid, Gid)>,
    pub access_list: Option<Vec<u8>>,
}

impl Job {
    /// Resolves the target on the calling thread, in the caller's world, and checks the request.
    pub(crate) fn prepare(target: &Target, options: &Options) -> Result<Job> {
        Job::in_place(Place::open(target, options.level)?, options)
    }

    /// The same for a name in a directory of the caller's.
    pub(crate) fn prepare_at(dir: BorrowedFd<'_>, name: &OsStr, options: &Options) -> Result<Job> {
        Job::in_place(Place::open_in(dir, name, options.level)?, options)
    }

    fn in_place(place: Place, options: &Options) -> Result<Job> {
        match Job::check(&place, options) {
            Ok((mode, attributes, previous)) => Ok(Job {
                place,
                mode,
                attributes,
                create_new: options.create_new,
                previous,
                level: options.level,
                temp: temp::Name::unique().to_c_string(),
                link: temp::Name::unique().to_c_string(),
            }),
            Err((step, cause)) => Err(Error::new(place.shown, step, Outcome::Unchanged, cause)),
        }
    }

    fn check(
        place: &Place,
        options: &Options,
    ) -> Result<(Mode, Attributes, Option<CString>), (Step, Cause)> {
        let refuse = |why| (Step::Accept, Cause::InvalidRequest(why));
        let mode = options.mode.unwrap_or(DEFAULT_MODE);
        if mode & !0o777 != 0 {
            return Err(refuse("the mode has other bits than permissions (0o777)"));
        }
        let previous = options.previous.as_deref().map(check_name).transpose().map_err(refuse)?;
        if previous.as_ref() == Some(&place.name) {
            return Err(refuse("the previous version cannot keep the target's own name"));
        }
        let check = |errno: Errno| (Step::Check, errno.into());
        let standing = match rustix::fs::statat(&place.dir, &place.name, AtFlags::SYMLINK_NOFOLLOW)
        {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(check(errno)),
        };
        let (mut mode, mut attributes) = (Mode::from_raw_mode(mode), Attributes::default());
        if let Some(stat) = standing {
            refuse_what_is_no_file(&stat).map_err(|cause| (Step::Check, cause))?;
            if options.create_new {
                return Err(check(Errno::EXIST));
            }
            // A link's own mode and owner say nothing about a file.
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                if options.keep_mode {
                    mode = Mode::from_raw_mode(stat.st_mode & 0o777);
                    attributes.access_list = access_list(place).map_err(check)?;
                }
                if options.keep_owner {
                    attributes.owner =
                        Some((Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)));
                }
            }
        }
        Ok((mode, attributes, previous))
    }

    /// Which steps this save takes.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            durable: self.level == Level::Durable && !self.place.volatile,
            attributes: self.attributes.owner.is_some() || self.attributes.access_list.is_some(),
            keep_previous: self.previous.is_some(),
        }
    }

    /// The flags of the rename onto the target.
    pub(crate) fn rename_flags(&self) -> RenameFlags {
        if self.create_new { RenameFlags::NOREPLACE } else { RenameFlags::empty() }
    }

    /// Does the mode given at `open` become the file's mode, for a thread whose umask is 0? Not
    /// where a default access list of the directory is laid over it (umask(2), acl(5)).
    pub(crate) fn open_mode_is_exact(&self) -> bool {
        let mut none: [u8; 0] = [];
        let answer = rustix::fs::fgetxattr(&self.place.dir, DEFAULT_ACCESS_LIST, &mut none);
        matches!(answer, Err(Errno::NODATA | Errno::OPNOTSUPP))
    }

    /// What a save that came to its end answers.
    pub(crate) fn answer(
        self,
        progress: &Progress,
        carrier: Carrier,
        bytes: usize,
    ) -> Result<Receipt> {
        let Some(step) = progress.failed() else {
            let durability = match self.shape().durable {
                true if progress.is_unprovable() => Durability::DurableUnproven,
                true => Durability::Durable,
                false if self.place.volatile => Durability::Volatile,
                false => Durability::Atomic,
            };
            return Ok(Receipt { durability, carrier, bytes: bytes as u64 });
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

fn refuse_what_is_no_file(stat: &Stat) -> Result<(), Cause> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
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
/// only the list's mask. Read through `/proc`, for the file itself may be unreadable.
fn access_list(place: &Place) -> Result<Option<Vec<u8>>, Errno> {
    let name = place.name.to_bytes();
    let mut path = format!("/proc/self/fd/{}/", place.dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let mut list = Vec::with_capacity(1024);
    loop {
        list.clear();
        let room = list.capacity();
        match rustix::fs::lgetxattr(
            path.as_slice(),
            ACCESS_LIST,
            rustix::buffer::spare_capacity(&mut list),
        ) {
            Ok(_) => return Ok(Some(list)),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOENT) => return Ok(None),
            Err(Errno::RANGE) => list.reserve(room * 2),
            Err(errno) => return Err(errno),
        }
    }
}

impl Attributes {
    /// Sets them on the temporary file. Owner first: chown clears what chmod sets.
    pub(crate) fn set(&self, file: BorrowedFd<'_>, mode: Mode) -> Result<(), Errno> {
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(file, mode)?;
        if let Some(list) = &self.access_list {
            rustix::fs::fsetxattr(file, ACCESS_LIST, list, rustix::fs::XattrFlags::empty())?;
        }
        Ok(())
    }
}
