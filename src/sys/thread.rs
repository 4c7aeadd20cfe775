//! Threads of the library: no signal is ever delivered to them, and the ring's has a umask of its
//! own.

use std::io;
use std::mem::MaybeUninit;
use std::thread::JoinHandle;

use rustix::thread::UnshareFlags;

/// Starts a named thread that has every signal blocked from its first instruction on.
pub(crate) fn spawn<F>(name: &str, body: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    // A new thread inherits the mask, so it is set around the start. libc's function, not the raw
    // call: it leaves out the signals by which libc itself makes setuid(2) reach every thread.
    let before = block_all_signals();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    if let Some(before) = before {
        restore_signals(&before);
    }
    thread
}

fn block_all_signals() -> Option<libc::sigset_t> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `all` is a valid place for a signal set; sigfillset initialises it.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` was initialised above, `before` is a valid place for the old set.
    let answer =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    if answer != 0 {
        return None;
    }
    // SAFETY: pthread_sigmask succeeded, so it has written the old set.
    Some(unsafe { before.assume_init() })
}

fn restore_signals(mask: &libc::sigset_t) {
    // SAFETY: `mask` is an initialised signal set; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

/// Gives the calling thread a umask of its own, 0, and leaves the process's alone.
///
/// io_uring's workers share the file attributes (`fs_struct`) of the thread that submits, so files
/// that they create have exactly the mode in the request.
pub(crate) fn own_umask() -> io::Result<()> {
    // SAFETY: `CLONE_FS` leaves memory and descriptors shared; only the thread's root, working
    // directory and umask become its own, and this library's threads resolve no paths of callers.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
    rustix::process::umask(rustix::fs::Mode::empty());
    Ok(())
}
