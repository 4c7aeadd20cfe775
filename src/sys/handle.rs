//! File handles: what tells one inode from another.
//!
//! An inode's number alone does not, everywhere: snapshots of one bcachefs have equal ones, tmpfs can
//! begin again after 2^32 of them. A handle (name_to_handle_at(2), Linux 2.6.39) has all that the
//! filesystem itself needs to find the inode again.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// `MAX_HANDLE_SZ` (since Linux 3.2).
const MAX: usize = 128;

/// The handle of an open file, to be compared with others of one filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle {
    kind: i32,
    len: usize,
    bytes: [u8; MAX],
}

/// `struct file_handle`, with room for the longest.
#[repr(C)]
struct Raw {
    len: u32,
    kind: i32,
    bytes: [u8; MAX],
}

impl Handle {
    /// # Errors
    /// `EOPNOTSUPP` where the filesystem has no handles.
    pub(crate) fn of(file: BorrowedFd<'_>) -> Result<Handle, Errno> {
        let mut raw = Raw { len: MAX as u32, kind: 0, bytes: [0; MAX] };
        let mut mount = 0;
        // SAFETY: `raw` begins as the kernel's `struct file_handle` does and has as many bytes as its
        // `len` says; the path is an empty string, and `mount` is a place for an int.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                file.as_raw_fd(),
                c"".as_ptr(),
                &raw mut raw,
                &raw mut mount as *mut libc::c_int,
                libc::AT_EMPTY_PATH,
            )
        };
        if answer < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        Ok(Handle { kind: raw.kind, len: raw.len as usize, bytes: raw.bytes })
    }
}

impl Handle {
    /// A number that another handle does not have, but by chance; never 0. FNV-1a.
    pub(crate) fn hash(&self) -> u64 {
        let kind = self.kind.to_le_bytes();
        let bytes = kind.iter().chain(&self.bytes[..self.len.min(MAX)]);
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        hash.max(1)
    }
}

const _: () = assert!(size_of::<Raw>() == 8 + MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn one_directory_has_one_handle() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let open = |path| File::open(path).unwrap();
        let (first, again, other) = (open(dir.path()), open(dir.path()), open(other.path()));
        let Ok(handle) = Handle::of(first.as_fd()) else { return };
        assert_eq!(Handle::of(again.as_fd()), Ok(handle));
        assert_ne!(Handle::of(other.as_fd()), Ok(handle));
    }
}
