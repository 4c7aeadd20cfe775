//! A directory that saves can be confined to, and durable directories below it.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Cause, Error, Result};
use crate::left_out::{Rule, left_out};
use crate::plan::{Outcome, Step};
use crate::{inode, liveness};

/// An open directory; a [`Target::beneath`](crate::Target::beneath) it cannot lead out of it.
///
/// Paths are opened with `openat2` and `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
/// RESOLVE_NO_MAGICLINKS` (Linux 5.6, openat2(2)); where that call is missing, one component at a
/// time with `O_NOFOLLOW`. Mounts below the root are entered.
#[derive(Debug, Clone)]
pub struct Root {
    directory: Arc<OwnedFd>,
    path: PathBuf,
}

const OPEN: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

impl Root {
    /// Opens a directory as root. Symbolic links in `path` itself are followed.
    ///
    /// # Errors
    /// At [`Step::OpenDirectory`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Root> {
        let path = path.into();
        match rustix::fs::openat(CWD, &path, OPEN | OFlags::RDONLY, Mode::empty()) {
            Ok(directory) => Ok(Root { directory: Arc::new(directory), path }),
            Err(errno) => Err(Error::new(path, Step::OpenDirectory, Outcome::Unchanged, errno)),
        }
    }

    /// Opens a directory as root; makes it, and whatever is missing above it, with `mode`, each
    /// durable: the directory that holds it is synced before this returns.
    ///
    /// # Errors
    /// At [`Step::MakeDirectory`] or [`Step::SyncDirectory`], naming the directory; at [`Step::Accept`] if `mode` has
    /// bits outside 0o7777.
    pub fn create(path: impl Into<PathBuf>, mode: u32) -> Result<Root> {
        let path = path.into();
        if !is_mode(mode) {
            let why = Cause::InvalidRequest("the mode has other bits than a directory's (0o7777)");
            return Err(Error::new(path, Step::Accept, Outcome::Unchanged, why));
        }
        let mut above: Vec<&Path> =
            path.ancestors().take_while(|dir| !dir.as_os_str().is_empty()).collect();
        let mut existing = None;
        while above.last().is_some_and(|dir| dir.is_dir()) {
            existing = above.pop();
        }
        // Who made that one may not have lived to sync it. Above it, this user may not look.
        if let Some(existing) = existing {
            sync_holder(existing).map_err(|(step, errno)| {
                Error::new(&path, step, Outcome::ReplacedDurabilityUnknown, errno)
            })?;
        }
        for dir in above.into_iter().rev() {
            let Some(name) = dir.file_name() else { continue };
            let holder = holder_of(dir.parent().unwrap_or(Path::new(".")))?;
            let [made] = holder.make_directories([(name, mode)]).try_into().unwrap_or([Ok(())]);
            made?;
        }
        Root::open(path)
    }

    /// Makes directories directly below the root, those that are missing, with exactly the mode
    /// given for each, and syncs the root once for them all: after `Ok`, a power cut does not take
    /// that directory away, whoever made it. Answers in order.
    ///
    /// # Errors
    /// For each name: at [`Step::MakeDirectory`] if it could not be made or something else stands
    /// there, at [`Step::SyncDirectory`] or [`Step::Verify`] if it may not be durable.
    pub fn make_directories<N: AsRef<OsStr>>(
        &self,
        directories: impl IntoIterator<Item = (N, u32)>,
    ) -> Vec<Result<()>> {
        let mut made: Vec<(PathBuf, Result<(), Errno>)> = Vec::new();
        for (name, mode) in directories {
            let name = name.as_ref();
            made.push((self.path.join(name), self.make_directory(name, mode)));
        }
        let synced = self.sync();
        let answer = |(path, made): (PathBuf, Result<(), Errno>)| {
            made.map_err(|errno| {
                Error::new(&path, Step::MakeDirectory, Outcome::Unchanged, errno)
            })?;
            synced.map_err(|(step, errno)| {
                Error::new(&path, step, Outcome::ReplacedDurabilityUnknown, errno)
            })
        };
        made.into_iter().map(answer).collect()
    }

    pub(crate) fn make_directory(&self, name: &OsStr, mode: u32) -> Result<(), Errno> {
        let is_component = Path::new(name).components().eq([Component::Normal(name)]);
        if !is_component || !is_mode(mode) {
            return Err(Errno::INVAL);
        }
        let mode = Mode::from_raw_mode(mode);
        let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
        let made = match rustix::fs::mkdirat(&self.directory, &name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno),
        };
        let open = OPEN | OFlags::NOFOLLOW | OFlags::RDONLY;
        // A link or a file in the directory's stead is refused here (ENOTDIR).
        match rustix::fs::openat(&self.directory, &name, open, Mode::empty()) {
            Ok(dir) if made => rustix::fs::fchmod(dir, mode),
            Ok(_) => Ok(()),
            // One that was there may be unreadable for this user; the saves into it will tell.
            Err(Errno::ACCESS) if !made => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Syncs the root, and proves that its filesystem is alive.
    pub(crate) fn sync(&self) -> Result<(), (Step, Errno)> {
        if !left_out(Rule::HolderSync) {
            rustix::fs::fsync(&self.directory).map_err(|errno| (Step::SyncDirectory, errno))?;
        }
        liveness::check(self.directory.as_fd()).map_err(|errno| (Step::Verify, errno))
    }

    /// The path that the root was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The root's own directory.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Opens a directory below the root without following any link.
    pub(crate) fn open_beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_beneath_by(path, flags, ResolveFlags::empty())
    }

    /// The same on this mount only: `EXDEV` elsewhere.
    pub(crate) fn open_on_this_mount(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_beneath_by(path, flags, ResolveFlags::NO_XDEV)
    }

    fn open_beneath_by(
        &self,
        path: &Path,
        flags: OFlags,
        further: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.directory, path, flags, Mode::empty(), resolve | further) {
            // Before Linux 5.6, or denied by a filter that does not know the call. Or a rename elsewhere in
            // the tree raced with a `..`, and the kernel asks for another try.
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => self.walk(path, flags, further),
            opened => opened,
        }
    }

    /// What openat2 does, one component at a time, and with its answers. `..` goes back to where the walk came
    /// from, whatever was moved meanwhile, so it never comes out above the root.
    fn walk(&self, path: &Path, flags: OFlags, further: ResolveFlags) -> Result<OwnedFd, Errno> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.contains(&0) {
            return Err(Errno::INVAL);
        }
        if bytes.len() >= libc::PATH_MAX as usize {
            return Err(Errno::NAMETOOLONG);
        }
        let mount = match further.contains(ResolveFlags::NO_XDEV) {
            true => Some(mount_of(&self.directory)?),
            false => None,
        };
        // Every directory from the root to here.
        let mut way: Vec<OwnedFd> = Vec::new();
        for component in path.components() {
            let at = way.last().map_or(self.directory.as_fd(), AsFd::as_fd);
            match component {
                Component::CurDir => {}
                Component::RootDir | Component::Prefix(_) => return Err(Errno::XDEV),
                Component::ParentDir => {
                    // Who may not search a directory may not leave it upwards, either.
                    rustix::fs::statat(at, c"..", AtFlags::SYMLINK_NOFOLLOW)?;
                    way.pop().ok_or(Errno::XDEV)?;
                }
                Component::Normal(name) => {
                    let open = OPEN | OFlags::PATH | OFlags::NOFOLLOW;
                    let next = match rustix::fs::openat(at, name, open, Mode::empty()) {
                        // `O_DIRECTORY | O_NOFOLLOW` on a link: say what openat2 says.
                        Err(Errno::NOTDIR) if is_link(at, name) => return Err(Errno::LOOP),
                        next => next?,
                    };
                    if mount.is_some_and(|mount| mount_of(&next) != Ok(mount)) {
                        return Err(Errno::XDEV);
                    }
                    way.push(next);
                }
            }
        }
        let at = way.last().map_or(self.directory.as_fd(), AsFd::as_fd);
        rustix::fs::openat(at, c".", flags, Mode::empty())
    }
}

fn is_link(dir: BorrowedFd<'_>, name: &OsStr) -> bool {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink())
}

/// Syncs the directory that holds one which is there, so that this one is durable; where it is of another mount,
/// or cannot be written, that is nobody's concern here.
fn sync_holder(existing: &Path) -> Result<(), (Step, Errno)> {
    let Some(Ok(holder)) = existing.parent().map(holder_of) else { return Ok(()) };
    let Ok(Ok(mount)) = Root::open(existing).map(|root| mount_of(&root.directory)) else {
        return Ok(());
    };
    if mount_of(&holder.directory) != Ok(mount) {
        return Ok(());
    }
    match holder.sync() {
        Err((_, Errno::ROFS | Errno::INVAL)) => Ok(()),
        synced => synced,
    }
}

fn is_mode(mode: u32) -> bool {
    mode & !0o7777 == 0
}

/// Which filesystem, and by which mount, where the kernel tells (statx(2), since Linux 5.8).
fn mount_of(dir: &OwnedFd) -> Result<(u64, u64), Errno> {
    let device = inode::of(dir)?.device;
    let (flags, wanted) = (AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::MNT_ID);
    let mount = rustix::fs::statx(dir, c"", flags, wanted).map_or(0, |stat| stat.stx_mnt_id);
    Ok((device, mount))
}

/// Opens the directory that holds another; for a bare name, the working directory.
fn holder_of(parent: &Path) -> Result<Root> {
    Root::open(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The walk is what hosts without openat2 get: it must refuse what openat2 refuses.
    #[test]
    fn the_walk_refuses_what_openat2_refuses() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("out")).unwrap();
        std::fs::write(dir.path().join("file"), b"").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let flags = OPEN | OFlags::RDONLY;
        let long = "a/../".repeat(900);
        let paths = [
            "a",
            "a/b",
            ".",
            "a/.",
            "link",
            "link/b",
            "out",
            "out/etc",
            "..",
            "a/../..",
            "/etc",
            "file",
            "file/x",
            "none",
            "a/..",
            "a/../a",
            "a/b/..",
            "a/b/../..",
            "a/b/../../..",
            "a/../../etc",
            "./..",
            "a/./../.",
            "a//..//a",
            "none/..",
            "file/..",
            "link/..",
            "out/..",
            "../a",
            "a/b/../../a/b",
            "/",
            "//",
            "a/",
            "a\0",
            "none/\0",
            &long,
            &long[..4090],
        ];
        let inode = |dir: Result<OwnedFd, Errno>| dir.map(|dir| inode::of(dir).unwrap().inode);
        for further in [ResolveFlags::empty(), ResolveFlags::NO_XDEV] {
            for path in paths {
                let walked = inode(root.walk(Path::new(path), flags, further));
                let opened = inode(root.open_beneath_by(Path::new(path), flags, further));
                assert_eq!(walked, opened, "{path}");
            }
        }
    }
}
