//! The log's two files: made whole or not at all, read from the disk, written through to it.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::Medium;
use super::format::{BLOCK, GroupHeader, LogId, SegmentHeader};
use super::scan::{Damage, Scan, scan};

const NAMES: [&str; 2] = ["log.0", "log.1"];
/// Until both are durable.
const NEW_NAMES: [&str; 2] = ["log.0.new", "log.1.new"];

/// Why a log cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    Io(Errno),
    Damage(Damage),
    /// One of the two files is missing, and the other has been used.
    Missing(&'static str),
    /// Somebody else owns the file, or may read or write it.
    NotPrivate(&'static str),
}

/// The two files, open for writing.
#[derive(Debug)]
pub(crate) struct Segments([OwnedFd; 2]);

/// Is there a log in the directory? One whose making was cut short is none.
pub(crate) fn exists(dir: BorrowedFd<'_>) -> Result<bool, Unusable> {
    let [first, second] = [is_there(dir, NAMES[0])?, is_there(dir, NAMES[1])?];
    match (first, second) {
        (true, true) => Ok(true),
        (false, false) => Ok(false),
        (true, false) => Err(Unusable::Missing(NAMES[1])),
        // The first gets its name last. Without it the second was never used, unless somebody has removed
        // it.
        (false, true) => {
            let second = read_segment(dir, NAMES[1])?;
            let used =
                second.bytes().chunks(BLOCK).any(|block| GroupHeader::decode(block).is_some());
            if used { Err(Unusable::Missing(NAMES[0])) } else { Ok(false) }
        }
    }
}

fn is_there(dir: BorrowedFd<'_>, name: &str) -> Result<bool, Errno> {
    match rustix::fs::accessat(dir, name, rustix::fs::Access::EXISTS, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Makes the two files of a log, of so many bytes each, whole blocks.
pub(crate) fn create(dir: BorrowedFd<'_>, bytes: u64, log_id: LogId) -> Result<(), Errno> {
    let flags =
        OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let zeros = vec![0; 64 * BLOCK];
    for (index, name) in NEW_NAMES.into_iter().enumerate() {
        let file = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
        let header = SegmentHeader { log_id, index: index as u32, bytes };
        write_at(&file, &header.encode(), 0, ReadWriteFlags::empty())?;
        // Written, and not only given room: the first write of a block that was only given room changes
        // metadata, and its sync commits the journal.
        let mut at = BLOCK as u64;
        while at < bytes {
            let len = zeros.len().min((bytes - at) as usize);
            write_at(&file, &zeros[..len], at, ReadWriteFlags::empty())?;
            at += len as u64;
        }
        rustix::fs::fsync(&file)?;
    }
    for index in [1, 0] {
        rustix::fs::renameat_with(dir, NEW_NAMES[index], dir, NAMES[index], RenameFlags::empty())?;
        rustix::fs::fsync(dir)?;
    }
    Ok(())
}

/// Reads a log.
pub(crate) fn read(dir: BorrowedFd<'_>) -> Result<Scan, Unusable> {
    let [first, second] = [read_segment(dir, NAMES[0])?, read_segment(dir, NAMES[1])?];
    scan([first.bytes(), second.bytes()]).map_err(Unusable::Damage)
}

impl Segments {
    pub(crate) fn open(dir: BorrowedFd<'_>) -> Result<Segments, Unusable> {
        let open = |name| open_private(dir, name, OFlags::WRONLY);
        Ok(Segments([open(NAMES[0])?, open(NAMES[1])?]))
    }
}

impl Medium for Segments {
    fn write(&mut self, segment: usize, block: u32, bytes: &[u8]) -> Result<(), Errno> {
        let at = u64::from(block) * BLOCK as u64;
        write_at(&self.0[segment], bytes, at, ReadWriteFlags::DSYNC)
    }
}

fn open_private(
    dir: BorrowedFd<'_>,
    name: &'static str,
    flags: OFlags,
) -> Result<OwnedFd, Unusable> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let is_private = stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_mode & 0o077 == 0
        && rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    if is_private { Ok(file) } else { Err(Unusable::NotPrivate(name)) }
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
    rustix::fs::fsync(&file)?;
    let len = rustix::fs::fstat(file.as_fd())?.st_size as usize;
    let whole = len.next_multiple_of(BLOCK);
    let mut memory = vec![0; whole + BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let mut done = 0;
    while done < len {
        // To the end of the last block: a direct read takes whole ones only.
        match rustix::io::pread(&file, &mut memory[start..][done..whole], done as u64) {
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

    fn record(data: &str) -> Record {
        Record {
            kind: Kind::Replace,
            directory: DirectoryId { inode: 1, born: 2, handle: 0 },
            mode: 0o600,
            path: "web-1/state.json".into(),
            data: Bytes::copy_from_slice(data.as_bytes()),
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
        assert_eq!(fs::read_dir(path.path()).unwrap().count(), 2);
        let scanned = read(dir.as_fd()).unwrap();
        let mut log = Log::begin(Segments::open(dir.as_fd()).unwrap(), &scanned).unwrap();
        log.append(&[record("one")]).unwrap();
        log.append(&[record("two"), record("three")]).unwrap();
        drop(log);
        assert_eq!(data(&dir), ["one", "two", "three"]);
        // All of it was put into the files; the log goes on behind it.
        let scanned = read(dir.as_fd()).unwrap();
        let mut log = Log::begin(Segments::open(dir.as_fd()).unwrap(), &scanned).unwrap();
        log.append(&[record("four")]).unwrap();
        assert_eq!(data(&dir), ["four"]);
    }

    #[test]
    fn a_making_that_was_cut_short_is_done_again() {
        let path = tempfile::tempdir().unwrap();
        let dir = File::open(path.path()).unwrap();
        create(dir.as_fd(), BYTES, [9; 16]).unwrap();
        fs::rename(path.path().join("log.0"), path.path().join("log.0.new")).unwrap();
        assert_eq!(exists(dir.as_fd()), Ok(false));
        create(dir.as_fd(), BYTES, [8; 16]).unwrap();
        assert_eq!(read(dir.as_fd()).unwrap().log_id, [8; 16]);
    }

    #[test]
    fn a_missing_segment_is_no_empty_log() {
        for (missing, other) in [("log.0", "log.1"), ("log.1", "log.0")] {
            let path = tempfile::tempdir().unwrap();
            let dir = File::open(path.path()).unwrap();
            create(dir.as_fd(), BYTES, [9; 16]).unwrap();
            let scanned = read(dir.as_fd()).unwrap();
            let mut log = Log::begin(Segments::open(dir.as_fd()).unwrap(), &scanned).unwrap();
            log.append(&[record("one")]).unwrap();
            log.turn().unwrap();
            fs::remove_file(path.path().join(missing)).unwrap();
            assert_eq!(exists(dir.as_fd()), Err(Unusable::Missing(missing)), "{other} is there");
        }
    }

    #[test]
    fn a_file_that_is_cut_or_damaged_is_told() {
        let path = tempfile::tempdir().unwrap();
        let dir = File::open(path.path()).unwrap();
        create(dir.as_fd(), BYTES, [9; 16]).unwrap();
        let first = File::options().write(true).open(path.path().join("log.0")).unwrap();
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
        fs::set_permissions(path.path().join("log.1"), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(read(dir.as_fd()).unwrap_err(), Unusable::NotPrivate("log.1"));
        assert_eq!(Segments::open(dir.as_fd()).unwrap_err(), Unusable::NotPrivate("log.1"));
    }

    #[test]
    fn a_write_that_the_kernel_refuses_is_told() {
        let path = tempfile::tempdir().unwrap();
        let dir = File::open(path.path()).unwrap();
        create(dir.as_fd(), BYTES, [9; 16]).unwrap();
        let scanned = read(dir.as_fd()).unwrap();
        let mut log = Log::begin(Segments::open(dir.as_fd()).unwrap(), &scanned).unwrap();
        // Descriptors that cannot be written to.
        let full = || File::options().write(true).open("/dev/full").unwrap().into();
        log.medium.0 = [full(), full()];
        let refused = log.append(&[record("lost")]);
        assert!(matches!(refused, Err(AppendError::Unknown(_))), "{refused:?}");
    }
}
