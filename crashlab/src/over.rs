//! Another file in the place of an open one, whoever has it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Makes the descriptor of this number one of `file`.
pub(crate) fn put(file: &File, number: i32) -> io::Result<()> {
    // SAFETY: no memory is touched. Whoever owns the number finds another file there, which is what is tried.
    match unsafe { libc::dup2(file.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
