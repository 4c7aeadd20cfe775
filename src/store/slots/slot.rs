//! The two inodes of one file.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use crate::engine::calls;
use crate::inode::{self, Look};
use crate::left_out::{Rule, left_out};
use crate::plan::Step;
use crate::request::Level;
use crate::store::layout::{Layout, Replaced, c_string, errno_of, split};
use crate::store::log::format::{DirectoryId, Record};
use crate::sys::lease::Lease;
use crate::temp;

/// A file, and the inode that its next version is written to. Both were made by this process.
#[derive(Debug)]
pub(super) struct Slot {
    dir: Arc<OwnedFd>,
    pub(super) place: Place,
    /// What stands at the file's name.
    current: OwnedFd,
    spare: Option<Spare>,
    /// User and group of files that are made here.
    owner: (u32, u32),
}

/// Where the file is. While a slot's descriptors are open nothing else gets these numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) directory: DirectoryId,
    /// Of the filesystem, the directory and the file.
    device: u64,
    holder: u64,
    file: u64,
    /// The directory's mount, where the kernel tells (Linux 6.8).
    mount: Option<u64>,
}

#[derive(Debug)]
struct Spare {
    file: OwnedFd,
    number: u64,
    /// In the same directory: [`temp::spare_of`] the file, or a temporary file's if that is taken.
    name: CString,
}

impl Slot {
    /// Of a file that was replaced just now.
    pub(super) fn of(replaced: Replaced) -> Option<Slot> {
        let Replaced { dir, directory, file: current } = replaced;
        let current = current?;
        let (holder, file) = (inode::of(&*dir).ok()?, inode::of(&current).ok()?);
        let (device, mount, holder) = (holder.device, holder.mount, holder.inode);
        let place = Place { directory, device, holder, file: file.inode, mount };
        Some(Slot { dir, place, current, spare: None, owner: (file.uid, file.gid) })
    }

    /// Makes a version visible. On an error none is, and the slot is to be given up.
    pub(super) fn publish(&mut self, layout: &Layout, record: &Record) -> Result<(), Errno> {
        let holder = self.place.holder(layout, &record.path).ok_or(Errno::STALE)?;
        if !self.place.directory.is(&record.directory) {
            return Err(Errno::STALE);
        }
        if !self.write_spare(&holder, record)? {
            self.make_spare(layout, record)?;
        }
        let spare = self.spare.take().ok_or(Errno::BADF)?;
        let name = split(&record.path).1;
        let exchanged = rustix::fs::renameat_with(
            &self.dir,
            &spare.name,
            &self.dir,
            name,
            RenameFlags::EXCHANGE,
        );
        if let Err(errno) = exchanged {
            self.spare = Some(spare);
            return Err(errno);
        }
        let (file, number) = (std::mem::replace(&mut self.current, spare.file), self.place.file);
        self.place.file = spare.number;
        self.spare = Some(Spare { file, number, name: spare.name });
        Ok(())
    }

    /// Writes to the spare, if nobody can see it, and it is in nothing else than its contents different from a
    /// new file.
    fn write_spare(&self, holder: &Look, record: &Record) -> Result<bool, Errno> {
        let Some(spare) = &self.spare else { return Ok(false) };
        let file = spare.file.as_fd();
        let lease = match Lease::take(file) {
            Ok(lease) => Some(lease),
            Err(_) if left_out(Rule::SpareUnseen) => None,
            Err(_) => return Ok(false),
        };
        // Under the lease: nobody opens, lengthens and closes it from here on.
        let Ok(look) = inode::at(&self.dir, &spare.name) else { return Ok(false) };
        if look.inode != spare.number || !self.is_as_new(spare, &look, holder, record) {
            return Ok(false);
        }
        write_over(file, look.size, &record.data)?;
        // Somebody who waited too long has been let in: he may have seen a part.
        Ok(lease.is_none_or(|lease| lease.release().is_ok()))
    }

    fn is_as_new(&self, spare: &Spare, look: &Look, holder: &Look, record: &Record) -> bool {
        let has_mode = look.mode.as_raw_mode() == record.mode && !look.is_special;
        // In a set-group-id directory a new file has the directory's group (inode(7)).
        let group = if holder.is_special { holder.gid } else { self.owner.1 };
        (has_mode || left_out(Rule::SpareMode))
            && look.kind.is_file()
            && (look.links == 1 || left_out(Rule::SpareUnseen))
            && (look.uid, look.gid) == (self.owner.0, group)
            && is_labelled_as(spare.file.as_fd(), self.current.as_fd())
    }

    /// Makes a new spare, as every new file is made, with the version in it.
    fn make_spare(&mut self, layout: &Layout, record: &Record) -> Result<(), Errno> {
        self.drop_spare();
        let dir = Arc::clone(&self.dir);
        let job = layout.job(dir, &record.path, record.mode, Level::Atomic);
        let mut job = job.map_err(|error| errno_of(&error))?;
        job.temp = temp::spare_of(split(&record.path).1);
        let mut file = None;
        calls::run_while(&mut job, &mut file, &record.data, |step| step < Step::Rename);
        let made = match (file, job.progress.failed()) {
            (Some(file), None) => inode::of(&file).map(|look| (file, look)),
            _ => Err(job.progress.errno().unwrap_or(Errno::IO)),
        };
        let (file, look) = match made {
            Ok(made) => made,
            Err(errno) => {
                calls::clean(&mut job);
                return Err(errno);
            }
        };
        self.owner = (look.uid, look.gid);
        self.spare = Some(Spare { file, number: look.inode, name: job.temp });
        Ok(())
    }

    fn drop_spare(&mut self) {
        if let Some(spare) = self.spare.take() {
            // What cannot be removed is found by whoever recovers.
            let _ = rustix::fs::unlinkat(&self.dir, &spare.name, AtFlags::empty());
        }
    }

    /// Leaves the file as it is, and no spare.
    pub(super) fn give_up(mut self) {
        self.drop_spare();
    }
}

impl Place {
    /// Is the container's directory the one that is open here, and nothing mounted over it?
    fn holder(&self, layout: &Layout, path: &str) -> Option<Look> {
        let look = inode::at(layout.root.directory(), &c_string(split(path).0)).ok()?;
        let is_it = (look.device, look.inode, look.mount) == (self.device, self.holder, self.mount);
        is_it.then_some(look)
    }

    /// And is the file in it the one that is known?
    pub(super) fn is_known(&self, layout: &Layout, path: &str) -> bool {
        self.holder(layout, path).is_some() && self.has_file(layout, path)
    }

    /// Is the file the one that is known, if its directory is?
    pub(super) fn has_file(&self, layout: &Layout, path: &str) -> bool {
        // Not behind a link, for it is the directory itself.
        let is_file = |look: Look| (look.device, look.inode) == (self.device, self.file);
        inode::at(layout.root.directory(), &c_string(path)).is_ok_and(is_file)
    }
}

/// Has a spare no attribute that a new file would not have? Of those a new file has security labels only, as the
/// policy says; who changes them changes them where the file is seen.
fn is_labelled_as(spare: BorrowedFd<'_>, file: BorrowedFd<'_>) -> bool {
    // These are of a file's contents.
    let of_contents: [&[u8]; 3] = [b"security.ima", b"security.evm", b"security.capability"];
    let is_label = |(name, _): &Attribute| {
        name.starts_with(b"security.") && !of_contents.contains(&name.as_slice())
    };
    match attributes(spare) {
        Ok(none) if none.is_empty() => true,
        Ok(labels) if labels.iter().all(is_label) => attributes(file).is_ok_and(|of| of == labels),
        _ => false,
    }
}

/// A name and a value.
type Attribute = (Vec<u8>, Vec<u8>);

/// With more or longer ones than these it is no file as the store makes them.
fn attributes(file: BorrowedFd<'_>) -> Result<Vec<Attribute>, Errno> {
    let mut list = [0; 1024];
    let len = match rustix::fs::flistxattr(file, &mut list) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        len => len?,
    };
    let names = list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = [0; 4096];
        let len = rustix::fs::fgetxattr(file, name, &mut value)?;
        Ok(value[..len].to_vec())
    };
    names.map(|name| Ok((name.to_vec(), value(name)?))).collect()
}

/// Makes these bytes the contents of a file of so many.
fn write_over(file: BorrowedFd<'_>, size: u64, data: &[u8]) -> Result<(), Errno> {
    let mut written = 0;
    while written < data.len() {
        match rustix::io::pwrite(file, &data[written..], written as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(more) => written += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    if size > data.len() as u64 {
        rustix::io::retry_on_intr(|| rustix::fs::ftruncate(file, data.len() as u64))?;
    }
    Ok(())
}
