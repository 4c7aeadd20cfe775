//! Leases: that nobody else has a file open, and that whoever opens it waits.
//!
//! rustix has no call for them.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::left_out::{Rule, left_out};

/// `F_SETSIG` of the kernel's asm-generic/fcntl.h, which libc lacks; only PA-RISC has another.
const F_SETSIG: libc::c_int = 10;

/// A write lease (fcntl(2), `F_SETLEASE`): while it lasts nobody else has the file open or mapped, and who
/// opens it waits until it is given up.
#[derive(Debug)]
pub(crate) struct Lease<'fd>(BorrowedFd<'fd>);

impl<'fd> Lease<'fd> {
    /// Takes it. The file must be open once in this process, by this descriptor.
    ///
    /// # Errors
    /// `EAGAIN` while somebody else has the file open or mapped; `EACCES` if this user does not own it and lacks
    /// `CAP_LEASE`; `EINVAL` where there are no leases.
    pub(crate) fn take(file: BorrowedFd<'fd>) -> Result<Lease<'fd>, Errno> {
        // Whoever opens the file has a signal sent to this process. By default that is SIGIO, which kills a
        // process that does not expect it; SIGURG is ignored. Giving a lease up makes it SIGIO again.
        if !left_out(Rule::LeaseSignal) {
            control(file, F_SETSIG, libc::SIGURG)?;
        }
        control(file, libc::F_SETLEASE, libc::F_WRLCK)?;
        Ok(Lease(file))
    }
}

impl Lease<'_> {
    /// Gives it up.
    ///
    /// # Errors
    /// `EAGAIN` if the kernel has taken it away: who waited for so long (`/proc/sys/fs/lease-break-time`, 45 s) was
    /// let in.
    pub(crate) fn release(self) -> Result<(), Errno> {
        let file = self.0;
        std::mem::forget(self);
        control(file, libc::F_SETLEASE, libc::F_UNLCK)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // It can only fail if the kernel has taken it away already.
        let _ = control(self.0, libc::F_SETLEASE, libc::F_UNLCK);
    }
}

fn control(file: BorrowedFd<'_>, command: libc::c_int, value: libc::c_int) -> Result<(), Errno> {
    // SAFETY: both commands take an int and no memory; the descriptor is open as long as it is borrowed.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), command, value) };
    if answer < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    /// The signal by which a lease is broken; 0 is SIGIO.
    fn signal(file: &File) -> libc::c_int {
        // SAFETY: the command takes no argument.
        unsafe { libc::fcntl(file.as_raw_fd(), 11) }
    }

    #[test]
    fn every_lease_is_broken_by_a_signal_that_kills_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("file")).unwrap();
        for _ in 0..2 {
            let lease = Lease::take(file.as_fd()).unwrap();
            assert_eq!(signal(&file), libc::SIGURG);
            drop(lease);
            assert_eq!(signal(&file), 0);
        }
        let _without = crate::left_out::without(Rule::LeaseSignal);
        let _lease = Lease::take(file.as_fd()).unwrap();
        assert_eq!(signal(&file), 0);
    }

    #[test]
    fn nobody_else_has_the_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(Lease::take(file.as_fd()).map(drop), Err(Errno::AGAIN));
        drop(reader);
        let lease = Lease::take(file.as_fd()).unwrap();
        let opener = std::thread::spawn(move || File::open(&path).unwrap());
        // It waits; and the signal of its waiting does not kill.
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!opener.is_finished());
        drop(lease);
        opener.join().unwrap();
        drop(Lease::take(file.as_fd()).unwrap());
    }
}
