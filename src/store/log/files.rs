//! The log's two files: made whole or not at all, read from the disk, written through to it.

use std::ffi::CString;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, IFlags, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::Medium;
use super::format::{BLOCK, LogId, SegmentHeader};
use super::scan::{Damage, Scan, scan};
use crate::left_out::{Rule, final_answer, left_out};
use crate::{inode, liveness};

/// A log is a directory with two files, so that it comes, and is replaced, as a whole.
const LOG: &str = "log";
/// Until it is durable.
const NEW: &str = "log.new";
/// What is kept of one that was damaged, with a number behind it.
const DAMAGED: &str = "log.damaged-";
const NAMES: [&str; 2] = ["log.0", "log.1"];

/// Why a log cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    Io(Errno),
    Damage(Damage),
    /// One of the two files is missing.
    Missing(&'static str),
    /// Something else stands in its place.
    NoFile(&'static str),
    /// Somebody else owns it, or may read or write it.
    NotPrivate(&'static str),
}

/// The two files, open for writing.
#[derive(Debug)]
pub(crate) struct Segments {
    files: [OwnedFd; 2],
    /// The directory that they are in.
    dir: OwnedFd,
    proof: Proof,
}

/// What a write with `RWF_DSYNC` needs besides, to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing: blocks are written over in their place.
    Nothing,
    /// The filesystem writes through a journal or a tree of its own, and is asked whether it is alive.
    Liveness,
    /// It may not know the flag: a sync, and to be asked.
    Sync,
}

/// Is there a log in the store's own directory?
pub(crate) fn exists(dir: BorrowedFd<'_>) -> Result<bool, Unusable> {
    match open_log(dir) {
        Ok(_) => Ok(true),
        Err(Unusable::Io(Errno::NOENT)) => Ok(false),
        Err(unusable) => Err(unusable),
    }
}

/// Why a log did not come into its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotPlaced {
    /// The one that was there stands.
    Unchanged(Errno),
    /// After a crash it may be the one or the other.
    Unknown(Errno),
}

/// Called after each MiB of a new log that was written to a file.
pub(crate) type Portion<'a> = dyn FnMut(&OwnedFd) -> Result<(), Errno> + 'a;

/// Makes a log with segments of so many bytes, whole blocks, that is not in its place yet.
pub(crate) fn make_new(
    dir: BorrowedFd<'_>,
    bytes: u64,
    log_id: LogId,
    proof: Proof,
    portion: &mut Portion<'_>,
) -> Result<Segments, Errno> {
    remove(dir, NEW)?;
    make(dir, bytes, log_id, proof, portion).inspect_err(|_| {
        let _ = remove(dir, NEW);
    })
}

/// Puts the new log in the place of the one that may be there, of which nothing may be needed. Both names
/// change in one step (renameat2(2)): at no moment there is no log.
pub(crate) fn put_in_place(dir: BorrowedFd<'_>) -> Result<(), NotPlaced> {
    let rename = |flags| rustix::fs::renameat_with(dir, NEW, dir, LOG, flags);
    let renamed = match rename(RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => rename(RenameFlags::EXCHANGE),
        renamed => renamed,
    };
    if let Err(errno) = renamed {
        let _ = remove(dir, NEW);
        return Err(NotPlaced::Unchanged(errno));
    }
    let synced = if left_out(Rule::HolderSync) { Ok(()) } else { rustix::fs::fsync(dir) };
    let synced = synced.and_then(|()| liveness::check(dir));
    synced.map_err(NotPlaced::Unknown)?;
    // If it stays, the next making removes it.
    let _ = remove(dir, NEW);
    Ok(())
}

fn make(
    dir: BorrowedFd<'_>,
    bytes: u64,
    log_id: LogId,
    proof: Proof,
    portion: &mut Portion<'_>,
) -> Result<Segments, Errno> {
    rustix::fs::mkdirat(dir, NEW, Mode::RWXU)?;
    let log = rustix::fs::openat(dir, NEW, DIRECTORY, Mode::empty())?;
    rustix::fs::fchmod(&log, Mode::RWXU)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let zeros = vec![0; 256 * BLOCK];
    let mut files = Vec::new();
    for (index, name) in NAMES.into_iter().enumerate() {
        let file = rustix::fs::openat(&log, name, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
        write_in_place(&file);
        let header = SegmentHeader { log_id, index: index as u32, bytes };
        write_at(&file, &header.encode(), 0, ReadWriteFlags::empty())?;
        // Written, and not only given room: the first write of a block that was only given room changes
        // metadata, and its sync commits the journal.
        let mut at = BLOCK as u64;
        while at < bytes {
            let len = zeros.len().min((bytes - at) as usize);
            write_at(&file, &zeros[..len], at, ReadWriteFlags::empty())?;
            at += len as u64;
            portion(&file)?;
        }
        final_answer(rustix::fs::fsync(&file), || rustix::fs::fsync(&file))?;
        files.push(file);
    }
    rustix::fs::fsync(&log)?;
    let files = files.try_into().map_err(|_| Errno::IO)?;
    Ok(Segments { files, dir: log, proof })
}

/// On a filesystem that writes each block anew, asks for this file's to be written in their place (ioctl_iflags(2)):
/// then a full disk takes them all the same. Their checksums are the log's own.
fn write_in_place(file: &OwnedFd) {
    if let Ok(flags) = rustix::fs::ioctl_getflags(file) {
        let _ = rustix::fs::ioctl_setflags(file, flags | IFlags::NOCOW);
    }
}

/// Removes a log that did not come into its place.
pub(crate) fn remove_new(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    remove(dir, NEW)
}

/// Removes a log by its name, if it is there.
fn remove(dir: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let log = match rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        log => log?,
    };
    for name in NAMES {
        match rustix::fs::unlinkat(&log, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Gives a log another name, under which it is only kept: the time, or the next number that none has yet, for a
/// clock can stand still, or go back.
pub(crate) fn keep_damaged(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut number = time.map_or(0, |time| time.as_nanos());
    loop {
        let name = format!("{DAMAGED}{number}");
        match rustix::fs::renameat_with(dir, LOG, dir, name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => number += 1,
            renamed => break renamed?,
        }
    }
    rustix::fs::fsync(dir)
}

/// What a log says.
pub(crate) fn read(dir: BorrowedFd<'_>) -> Result<Scan, Unusable> {
    let log = open_log(dir)?;
    let [first, second] =
        [read_segment(log.as_fd(), NAMES[0])?, read_segment(log.as_fd(), NAMES[1])?];
    scan([first.bytes(), second.bytes()]).map_err(Unusable::Damage)
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open_log(dir: BorrowedFd<'_>) -> Result<OwnedFd, Unusable> {
    let log = rustix::fs::openat(dir, LOG, DIRECTORY, Mode::empty())?;
    if is_private(log.as_fd())? { Ok(log) } else { Err(Unusable::NotPrivate(LOG)) }
}

/// Is it this user's, and nobody else's to read or write?
pub(crate) fn is_private(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    let look = inode::of(file)?;
    let is_shared = look.mode.intersects(Mode::RWXG | Mode::RWXO);
    Ok(look.uid == rustix::process::geteuid().as_raw() && !is_shared)
}

impl Segments {
    pub(crate) fn open(dir: BorrowedFd<'_>, proof: Proof) -> Result<Segments, Unusable> {
        let log = open_log(dir)?;
        let open = |name| open_private(log.as_fd(), name, OFlags::WRONLY);
        let files = [open(NAMES[0])?, open(NAMES[1])?];
        Ok(Segments { files, dir: log, proof })
    }
}

impl Medium for Segments {
    fn write(&mut self, segment: usize, block: u32, bytes: &[u8]) -> Result<(), Errno> {
        let at = u64::from(block) * BLOCK as u64;
        let file = &self.files[segment];
        let sync = || rustix::fs::fdatasync(file);
        final_answer(write_at(file, bytes, at, ReadWriteFlags::DSYNC), sync)?;
        if self.proof == Proof::Sync {
            final_answer(sync(), sync)?;
        }
        match self.proof {
            Proof::Nothing => Ok(()),
            Proof::Liveness | Proof::Sync => liveness::check(self.dir.as_fd()),
        }
    }
}

fn open_private(
    dir: BorrowedFd<'_>,
    name: &'static str,
    flags: OFlags,
) -> Result<OwnedFd, Unusable> {
    // Before it is opened, and after: opening a FIFO can wait, a device can do anything.
    let c_name = CString::new(name).map_err(|_| Errno::INVAL)?;
    match inode::at(dir, &c_name) {
        Err(Errno::NOENT) => return Err(Unusable::Missing(name)),
        look if !look?.kind.is_file() => return Err(Unusable::NoFile(name)),
        _ => {}
    }
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    if !inode::of(&file)?.kind.is_file() {
        return Err(Unusable::NoFile(name));
    }
    if is_private(file.as_fd())? { Ok(file) } else { Err(Unusable::NotPrivate(name)) }
}

/// One write, if the kernel takes it whole; what it does not take is written behind it.
fn write_at(
    file: &OwnedFd,
    mut bytes: &[u8],
    mut at: u64,
    flags: ReadWriteFlags,
) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwritev2(file, &[IoSlice::new(bytes)], at, flags) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// A segment's bytes, in memory that `O_DIRECT` can read into.
struct Segment {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.len]
    }
}

/// From the disk, and not from the kernel's memory, where a write that failed looks like one that did not;
/// and after a flush: what a killed process has written may be on its way only, and be gone after a power
/// cut, when a recovery has already acted on it.
fn read_segment(dir: BorrowedFd<'_>, name: &'static str) -> Result<Segment, Unusable> {
    let file = match open_private(dir, name, OFlags::RDONLY | OFlags::DIRECT) {
        Err(Unusable::Io(Errno::INVAL)) => open_private(dir, name, OFlags::RDONLY)?,
        file => file?,
    };
    if !left_out(Rule::FlushBeforeReading) {
        rustix::fs::fsync(&file)?;
    }
    let len = inode::of(&file)?.size;
    // Its first block says how long it is. One that is not is not read, nor is room made for it: it may
    // seem to be endless.
    let first = read_blocks(&file, len.min(BLOCK as u64) as usize)?;
    match SegmentHeader::decode(first.bytes()) {
        Ok(header) if header.bytes == len => read_blocks(&file, len as usize),
        _ => Ok(first),
    }
}

fn read_blocks(file: &OwnedFd, len: usize) -> Result<Segment, Unusable> {
    let whole = len.next_multiple_of(BLOCK);
    let mut memory = Vec::new();
    memory.try_reserve_exact(whole + BLOCK).map_err(|_| Errno::NOMEM)?;
    memory.resize(whole + BLOCK, 0);
    let start = memory.as_ptr().align_offset(BLOCK);
    let mut done = 0;
    while done < len {
        // To the end of the last block: a direct read takes whole ones only.
        match rustix::io::pread(file, &mut memory[start..][done..whole], done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Segment { memory, start, len: done.min(len) })
}

impl From<Errno> for Unusable {
    fn from(errno: Errno) -> Unusable {
        Unusable::Io(errno)
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::{DirectoryId, Kind, Record};
    use super::super::{AppendError, Log};
    use super::*;
    use bytes::Bytes;
    use std::fs::{self, File};
    use std::os::unix::fs::{FileExt, PermissionsExt};

    const BYTES: u64 = 16 * BLOCK as u64;

    fn create(dir: BorrowedFd<'_>, bytes: u64, log_id: LogId) -> Result<(), NotPlaced> {
        make_new(dir, bytes, log_id, Proof::Nothing, &mut |_| Ok(()))
            .map_err(NotPlaced::Unchanged)?;
        put_in_place(dir)
    }

    fn record(data: &str) -> Record {
        Record {
            kind: Kind::Replace,
            directory: DirectoryId { inode: 1, born: 2, handle: 0 },
            mode: 0o600,
            path: "web-1/state.json".into(),
            data: Bytes::copy_from_slice(data.as_bytes()),
            transaction: 0,
        }
    }

    fn data(dir: &File) -> Vec<Bytes> {
        let live = read(dir.as_fd()).unwrap().live;
        live.into_iter().flat_map(|group| group.records).map(|record| record.data).collect()
    }

    #[test]
    fn a_log_is_made_written_and_read() {
        let path = tempfile::tempdir().unwrap();
        let dir = File::open(path.path()).unwrap();
        assert_eq!(exists(dir.as_fd()), Ok(false));
        create(dir.as_fd(), BYTES, [9; 16]).unwrap();
        assert_eq!(exists(dir.as_fd()), Ok(true));
        assert_eq!(fs::read_dir(path.path()).unwrap().count(), 1);
        let scanned = read(dir.as_fd()).unwrap();
        let mut log =
            Log::begin(Segments::open(dir.as_fd(), Proof::Nothing).unwrap(), &scanned).unwrap();
        log.append(&[record("one")]).unwrap();
        log.append(&[record("two"), record("three")]).unwrap();
        drop(log);
        assert_eq!(data(&dir), ["one", "two", "three"]);
        // All of it was put into the files; the log goes on behind it.
        let scanned = read(dir.as_fd()).unwrap();
        let mut log =
            Log::begin(Segments::open(dir.as_fd(), Proof::Nothing).unwrap(), &scanned).unwrap();
        log.append(&[record("four")]).unwrap();
        assert_eq!(data(&dir), ["four"]);
    }

    #[test]
    fn a_making_that_was_cut_short_is_done_again() {
        let path = tempfile::tempdir().unwrap();
        let dir = File::open(path.path()).unwrap();
        create(dir.as_fd(), BYTES, [9; 16]).unwrap();
        fs::rename(path.path().join("log"), path.path().join("log.new")).unwrap();
        fs::remove_file(path.path().join("log.new/log.1")).unwrap();
        assert_eq!(exists(dir.as_fd()), Ok(false));
        create(dir.as_fd(), BYTES, [8; 16]).unwrap();
        assert_eq!(read(dir.as_fd()).unwrap().log_id, [8; 16]);
    }

    #[test]
    fn a_log_is_replaced_by_a_larger_one() {
        let path = tempfile::tempdir().unwrap();
        let dir = File::open(path.path()).unwrap();
        create(dir.as_fd(), BYTES, [9; 16]).unwrap();
        create(dir.as_fd(), 2 * BYTES, [8; 16]).unwrap();
        let scanned = read(dir.as_fd()).unwrap();
        assert_eq!((scanned.log_id, scanned.bytes), ([8; 16], 2 * BYTES));
        assert_eq!(fs::read_dir(path.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_segment_is_no_empty_log() {
        for missing in ["log.0", "log.1"] {
            let path = tempfile::tempdir().unwrap();
            let dir = File::open(path.path()).unwrap();
            create(dir.as_fd(), BYTES, [9; 16]).unwrap();
            fs::remove_file(path.path().join("log").join(missing)).unwrap();
            assert_eq!(exists(dir.as_fd()), Ok(true));
            assert_eq!(read(dir.as_fd()).unwrap_err(), Unusable::Missing(missing));
        }
    }

    #[test]
    fn a_file_that_is_cut_or_damaged_is_told() {
        let path = tempfile::tempdir().unwrap();
        let dir = File::open(path.path()).unwrap();
        create(dir.as_fd(), BYTES, [9; 16]).unwrap();
        let first = File::options().write(true).open(path.path().join("log/log.0")).unwrap();
        first.set_len(BYTES - 100).unwrap();
        assert_eq!(read(dir.as_fd()).unwrap_err(), Unusable::Damage(Damage::NotAPair));
        first.write_all_at(b"x", 3).unwrap();
        let damage = read(dir.as_fd()).unwrap_err();
        assert!(matches!(damage, Unusable::Damage(Damage::Segment(0, _))), "{damage:?}");
    }

    #[test]
    fn what_others_may_read_is_refused() {
        let path = tempfile::tempdir().unwrap();
        let dir = File::open(path.path()).unwrap();
        create(dir.as_fd(), BYTES, [9; 16]).unwrap();
        fs::set_permissions(path.path().join("log/log.1"), fs::Permissions::from_mode(0o640))
            .unwrap();
        assert_eq!(read(dir.as_fd()).unwrap_err(), Unusable::NotPrivate("log.1"));
        assert_eq!(
            Segments::open(dir.as_fd(), Proof::Nothing).unwrap_err(),
            Unusable::NotPrivate("log.1")
        );
    }

    #[test]
    fn a_write_that_the_kernel_refuses_is_told() {
        let path = tempfile::tempdir().unwrap();
        let dir = File::open(path.path()).unwrap();
        create(dir.as_fd(), BYTES, [9; 16]).unwrap();
        let scanned = read(dir.as_fd()).unwrap();
        let mut log =
            Log::begin(Segments::open(dir.as_fd(), Proof::Nothing).unwrap(), &scanned).unwrap();
        // Descriptors that cannot be written to.
        let full = || File::options().write(true).open("/dev/full").unwrap().into();
        log.medium.files = [full(), full()];
        let refused = log.append(&[record("lost")]);
        assert!(matches!(refused, Err(AppendError::Unknown(_))), "{refused:?}");
    }
}
