//! The disk's FUSE requests: everything is answered from memory, as a filesystem under this one
//! that waited for a filesystem on top of it would never end.

use std::ffi::OsStr;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::recorder::{Came, Kind, Requests, State, lock};
use super::tape::Event;

const ROOT: u64 = 1;
const DISK: u64 = 2;
const NOTES: u64 = 3;
/// The disk's size changes when it is loaded: the kernel has to ask each time.
const TTL: Duration = Duration::ZERO;

pub(super) struct Server {
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(super) fn new(state: Arc<Mutex<State>>) -> Server {
        Server { state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn attributes(&self, inode: u64) -> FileAttr {
        let (kind, perm) = match inode {
            ROOT => (FileType::Directory, 0o755),
            DISK => (FileType::RegularFile, 0o600),
            _ => (FileType::RegularFile, 0o666),
        };
        let size = if inode == DISK { self.state().image.size() } else { 0 };
        FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// A write or discard: `Some(errno)` if it is to fail. It is on the medium's way when it comes
    /// in, and its answer is on the tape before the kernel has it.
    fn change(&self, event: impl FnOnce() -> Event, apply: impl FnOnce(&mut State)) -> Option<i32> {
        let mut state = self.state();
        if let Some((kind, errno)) = state.verdict(Requests::Writes) {
            if kind == Kind::Taken {
                apply(&mut state);
            }
            return Some(errno);
        }
        let came = state.came();
        apply(&mut state);
        state.say(event);
        let state = self.under_way(state, came);
        answered(state, came, Event::Written { write: came.events });
        None
    }

    /// Lets the time pass which the answer shall take, without the lock.
    fn under_way<'s>(&'s self, state: MutexGuard<'s, State>, came: Came) -> MutexGuard<'s, State> {
        if came.delay_us == 0 {
            return state;
        }
        drop(state);
        thread::sleep(Duration::from_micros(came.delay_us));
        self.state()
    }
}

fn answered(mut state: MutexGuard<'_, State>, came: Came, event: Event) {
    state.answer(came, event);
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused = |_| io::Error::other("the kernel's FUSE is too old");
        // Without it each write of the loop device would wait for the one before.
        config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).map_err(refused)?;
        // Larger requests than the kernel's are no error: it keeps to what it can.
        let _ = config.set_max_write(1 << 20);
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str() {
            Some("disk") => reply.entry(&TTL, &self.attributes(DISK), Generation(0)),
            Some("notes") => reply.entry(&TTL, &self.attributes(NOTES), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(inode.0));
    }

    /// Nothing changes, and nobody minds: notes are opened with `O_TRUNC` by shells.
    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&TTL, &self.attributes(inode.0));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if inode.0 != DISK {
            return reply.data(&[]);
        }
        let state = self.state();
        let size = u64::from(size).min(state.image.size().saturating_sub(offset));
        let mut bytes = vec![0; size as usize];
        state.image.read(offset, &mut bytes);
        drop(state);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if inode.0 == NOTES {
            self.state().note(&String::from_utf8_lossy(data));
            return reply.written(data.len() as u32);
        }
        let event = || Event::Write { offset, bytes: data.into() };
        match self.change(event, |state| state.image.write(offset, data)) {
            None => reply.written(data.len() as u32),
            Some(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let zeros = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if inode.0 != DISK || mode & zeros == 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let event = || Event::Discard { offset, len };
        match self.change(event, |state| state.image.zero(offset, len)) {
            None => reply.ok(),
            Some(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if inode.0 != DISK {
            return reply.ok();
        }
        let mut state = self.state();
        if let Some((_, errno)) = state.verdict(Requests::Flushes) {
            drop(state);
            return reply.error(Errno::from_i32(errno));
        }
        let came = state.came();
        let state = self.under_way(state, came);
        answered(state, came, Event::Flush { began: came.events });
        reply.ok();
    }

    /// Comes with each close(2).
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
