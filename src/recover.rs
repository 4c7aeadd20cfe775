//! What dead writers left behind, and its removal.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::error::{Error, Result};
use crate::filesystem;
use crate::plan::{Outcome, Step};
use crate::temp::{self, Name, Owner};

/// A temporary file that was found, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its path.
    pub path: PathBuf,
    /// Its owner's state.
    pub owner: OwnerState,
    /// Was it removed?
    pub removed: bool,
}

/// What is known of the process that a temporary file belongs to.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwnerState {
    /// Dead: no process of this pid namespace has its id, or one that started later has.
    Dead,
    /// Dead: it ran in an earlier boot of this machine.
    EarlierBoot,
    /// A live process, perhaps this one.
    Alive,
    /// A process of another pid or time namespace of this boot: it cannot be seen from here.
    OtherNamespace,
    /// A process of another machine, or one that cannot be told from it: another host's live
    /// writer looks dead here.
    OtherMachine,
    /// Too little is known, of the owner or of this process (no `/proc`, or another namespace's).
    Unknown,
}

impl OwnerState {
    /// Is the owner provably dead? Only then is its file removed.
    pub const fn is_dead(self) -> bool {
        matches!(self, OwnerState::Dead | OwnerState::EarlierBoot)
    }

    /// The snake_case name that `--json` prints.
    pub const fn name(self) -> &'static str {
        match self {
            OwnerState::Dead => "dead",
            OwnerState::EarlierBoot => "earlier_boot",
            OwnerState::Alive => "alive",
            OwnerState::OtherNamespace => "other_namespace",
            OwnerState::OtherMachine => "other_machine",
            OwnerState::Unknown => "unknown",
        }
    }
}

impl fmt::Display for OwnerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OwnerState::Dead => "its owner is dead",
            OwnerState::EarlierBoot => "its owner ran in an earlier boot",
            OwnerState::Alive => "its owner is alive",
            OwnerState::OtherNamespace => "its owner is in another namespace",
            OwnerState::OtherMachine => "its owner may be on another machine",
            OwnerState::Unknown => "its owner cannot be told",
        })
    }
}

/// The temporary files in a directory, not below it, and whose they are. Removes nothing.
///
/// # Errors
/// At [`Step::OpenDirectory`], if the directory cannot be opened or read.
pub fn leftovers(directory: impl AsRef<Path>) -> Result<Vec<Leftover>> {
    let path = directory.as_ref();
    scan(path, Removal::Nothing).map_err(|errno| failed(path, errno))
}

/// Removes the temporary files of provably dead writers from a directory, not from below it, and
/// says what it found. What it cannot prove dead it leaves: see [`OwnerState`].
///
/// A crash (of the process or the machine) in the middle of a save can leave one or two such files
/// beside the target; they are never read. Call it when a runtime starts, for each directory of
/// states.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// for leftover in ringseal::recover(dir.path())? {
///     eprintln!("{}: {}", leftover.path.display(), leftover.owner);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// At [`Step::OpenDirectory`], if the directory cannot be opened or read. A file that cannot be
/// removed is no error; it is reported as not removed.
pub fn recover(directory: impl AsRef<Path>) -> Result<Vec<Leftover>> {
    let path = directory.as_ref();
    scan(path, Removal::OfTheDead).map_err(|errno| failed(path, errno))
}

fn failed(path: &Path, errno: Errno) -> Error {
    Error::new(path, Step::OpenDirectory, Outcome::Unchanged, errno)
}

fn scan(path: &Path, removal: Removal) -> Result<Vec<Leftover>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    Observer::here(dir.as_fd())?.scan(&dir, path, removal)
}

/// What is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    Nothing,
    OfTheDead,
    /// In a directory of a store whose lock this process has: also the spares of the store before.
    OfTheStoreBefore,
}

/// Who looks at a leftover, and from where.
#[derive(Debug)]
pub(crate) struct Observer {
    here: Owner,
    /// `/proc` shows this process's pid namespace.
    proc_is_ours: bool,
    /// No other machine can be writing to the filesystem.
    filesystem_is_local: bool,
}

impl Observer {
    /// This process, on the filesystem of a directory.
    pub(crate) fn here(dir: BorrowedFd<'_>) -> Result<Observer, Errno> {
        Ok(Observer {
            here: Owner::this_process(),
            proc_is_ours: temp::proc_is_ours(),
            filesystem_is_local: filesystem::is_local(dir)?,
        })
    }

    /// The temporary files in an open directory, whose path this is.
    pub(crate) fn scan(
        &self,
        dir: &OwnedFd,
        path: &Path,
        removal: Removal,
    ) -> Result<Vec<Leftover>, Errno> {
        let mut found = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_spare = removal == Removal::OfTheStoreBefore
                && name.to_bytes().starts_with(temp::SPARE.as_bytes());
            let owner = match Name::parse(name.to_bytes()) {
                Some(parsed) => self.judge(&parsed.owner),
                None if is_spare => OwnerState::Dead,
                None => continue,
            };
            // A writer makes files, and links to what stood at a target: files or symbolic links.
            let kind = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .map(|stat| FileType::from_raw_mode(stat.st_mode));
            match kind {
                Ok(FileType::RegularFile | FileType::Symlink) => {}
                // Gone meanwhile, or nothing of a writer's.
                Ok(_) | Err(Errno::NOENT) => continue,
                // It cannot be looked at, so it cannot be removed either; it is told all the same.
                Err(_) => {}
            }
            let removed = removal != Removal::Nothing
                && owner.is_dead()
                && rustix::fs::unlinkat(dir, name, AtFlags::empty()).is_ok();
            let path = path.join(OsString::from_vec(name.to_bytes().to_vec()));
            found.push(Leftover { path, owner, removed });
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        // A listing begins anew, on tmpfs, when what is behind its place is removed meanwhile.
        found.dedup_by(|one, other| one.path == other.path);
        Ok(found)
    }

    fn judge(&self, owner: &Owner) -> OwnerState {
        let here = &self.here;
        if owner.boot == 0 || here.boot == 0 {
            return OwnerState::Unknown;
        }
        if owner.boot != here.boot {
            // Another boot of this machine, or another machine?
            let same_machine = owner.machine != 0 && owner.machine == here.machine;
            return match same_machine && self.filesystem_is_local {
                true => OwnerState::EarlierBoot,
                false => OwnerState::OtherMachine,
            };
        }
        let known = |owner: &Owner| owner.pid_namespace != 0 && owner.start != 0;
        if !known(owner) || !known(here) || !self.proc_is_ours {
            return OwnerState::Unknown;
        }
        let namespaces = |owner: &Owner| (owner.pid_namespace, owner.time_namespace);
        if namespaces(owner) != namespaces(here) {
            return OwnerState::OtherNamespace;
        }
        match is_running(owner) {
            Some(true) => OwnerState::Alive,
            Some(false) => OwnerState::Dead,
            None => OwnerState::Unknown,
        }
    }
}

/// Is the very process running, and not one that was given its id later?
fn is_running(owner: &Owner) -> Option<bool> {
    let pid = Pid::from_raw(i32::try_from(owner.pid).ok()?)?;
    // kill(2) sees processes that a `/proc` mounted with hidepid does not show.
    if rustix::process::test_kill_process(pid) == Err(Errno::SRCH) {
        return Some(false);
    }
    temp::start_of(owner.pid).map(|start| start == owner.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observer() -> Observer {
        Observer { here: Owner::this_process(), proc_is_ours: true, filesystem_is_local: true }
    }

    #[test]
    fn only_the_provably_dead_are_dead() {
        let here = Owner::this_process();
        assert_ne!(here.machine, 0, "the test needs /etc/machine-id");
        let observer = observer();
        let gone = Owner { pid: i32::MAX as u32, ..here.clone() };
        let judged = |owner: Owner| observer.judge(&owner);
        assert_eq!(judged(here.clone()), OwnerState::Alive);
        assert_eq!(judged(gone.clone()), OwnerState::Dead);
        assert_eq!(judged(Owner { start: here.start + 1, ..here.clone() }), OwnerState::Dead);
        assert_eq!(judged(Owner { boot: 7, ..here.clone() }), OwnerState::EarlierBoot);

        let elsewhere = Owner { pid_namespace: 7, ..gone.clone() };
        assert_eq!(judged(elsewhere), OwnerState::OtherNamespace);
        let elsewhen = Owner { time_namespace: 7, ..gone.clone() };
        assert_eq!(judged(elsewhen), OwnerState::OtherNamespace);
        let foreign = Owner { boot: 7, machine: 7, ..gone.clone() };
        assert_eq!(judged(foreign), OwnerState::OtherMachine);
        assert_eq!(judged(Owner { boot: 7, machine: 0, ..gone.clone() }), OwnerState::OtherMachine);
        for unknown in [
            Owner { boot: 0, ..gone.clone() },
            Owner { start: 0, ..gone.clone() },
            Owner { pid_namespace: 0, ..gone.clone() },
        ] {
            assert_eq!(judged(unknown), OwnerState::Unknown);
        }
    }

    #[test]
    fn an_observer_who_cannot_see_proves_nothing() {
        let here = Owner::this_process();
        let gone = Owner { pid: i32::MAX as u32, ..here.clone() };
        let no_proc = Observer { proc_is_ours: false, ..observer() };
        assert_eq!(no_proc.judge(&gone), OwnerState::Unknown);
        let shared = Observer { filesystem_is_local: false, ..observer() };
        assert_eq!(shared.judge(&Owner { boot: 7, ..gone.clone() }), OwnerState::OtherMachine);
        assert_eq!(shared.judge(&gone), OwnerState::Dead);
    }
}
