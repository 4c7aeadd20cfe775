//! One store for each root: a lock that ends with its process, and that a forked child does not have.
//!
//! A POSIX record lock (fcntl(2)) does both. But it is the process's, not the descriptor's: a second
//! store in the same process would get it too, and the first to close any descriptor of the file would
//! lose it for both. So this process also keeps a list of the roots that it holds, and asks it first.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::inode;
use crate::sys::fork;

const NAME: &CStr = c"lock";

/// What a process that was killed still holds for a moment is waited for.
const PATIENCE: Duration = Duration::from_millis(200);

/// Roots that this process holds, by the numbers of their directories, and in which generation of forks
/// they were taken: what a parent holds is not this process's.
static HELD: Mutex<Option<HashMap<Key, Entry>>> = Mutex::new(None);

type Key = (u64, u64);

#[derive(Debug, Clone, Copy)]
struct Entry {
    generation: u64,
    /// Its store is at its end: the root will be free.
    ends: bool,
}

/// The lock of a root. Dropped, it is free.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Closing it gives the lock back; and then the root goes off the list.
    _file: OwnedFd,
    noted: Noted,
}

/// A root's place in the list.
#[derive(Debug)]
struct Noted {
    key: Key,
    generation: u64,
}

/// Why there is no lock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A process holds it; this is its id in its pid namespace, if it could be read.
    Held(Option<u32>),
    /// What stands in its place is no file.
    NoFile,
    Io(Errno),
}

/// Takes the lock of the root whose own directory this is.
pub(crate) fn take(dir: BorrowedFd<'_>) -> Result<Lock, Refused> {
    let look = inode::of(dir)?;
    let (key, generation) = ((look.device, look.inode), fork::generation());
    let mut patient_until = Instant::now() + PATIENCE;
    loop {
        match note(key, generation) {
            Ok(()) => break,
            // Its files are being synced for the last time.
            Err(held) if held.ends => patient_until = Instant::now() + PATIENCE,
            Err(_) if Instant::now() >= patient_until => {
                return Err(Refused::Held(Some(std::process::id())));
            }
            Err(_) => {}
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // From here on a failure takes the root off the list again.
    let noted = Noted { key, generation };
    let file = open(dir, OFlags::CREATE | OFlags::RDWR)?;
    loop {
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::AGAIN | Errno::ACCESS) if Instant::now() < patient_until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(Refused::Held(holder(file.as_fd()))),
            Err(errno) => return Err(errno.into()),
        }
    }
    note_holder(file.as_fd());
    Ok(Lock { _file: file, noted })
}

/// Opens the lock's file. What else stands there is not waited for, as a FIFO would be.
fn open(dir: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Refused> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let is_file = |look: inode::Look| look.kind.is_file();
    match inode::at(dir, NAME) {
        Ok(look) if !is_file(look) => return Err(Refused::NoFile),
        _ => {}
    }
    let file = rustix::fs::openat(dir, NAME, flags, Mode::RUSR | Mode::WUSR)?;
    if is_file(inode::of(&file)?) { Ok(file) } else { Err(Refused::NoFile) }
}

/// Puts a root on the list, if it is not there.
fn note(key: Key, generation: u64) -> Result<(), Entry> {
    let mut held = held();
    let held = held.get_or_insert_default();
    match held.get(&key).filter(|entry| entry.generation == generation) {
        Some(entry) => Err(*entry),
        None => {
            held.insert(key, Entry { generation, ends: false });
            Ok(())
        }
    }
}

impl Lock {
    /// The store is at its end: who wants to open the root again waits for it.
    pub(crate) fn is_to_end(&self) {
        let mut held = held();
        if let Some(entry) = held.get_or_insert_default().get_mut(&self.noted.key) {
            entry.ends = true;
        }
    }
}

/// The process that holds the lock, if one does; its id in its pid namespace, if it could be read.
pub(crate) fn holder_of(dir: BorrowedFd<'_>) -> Result<Option<Option<u32>>, Refused> {
    let look = inode::of(dir)?;
    // Kept to the end: this process's lock ends with any descriptor of the file that it closes.
    let mut held = held();
    let here = held.get_or_insert_default().get(&(look.device, look.inode));
    if here.is_some_and(|entry| entry.generation == fork::generation()) {
        return Ok(Some(Some(std::process::id())));
    }
    let file = match open(dir, OFlags::RDONLY) {
        Err(Refused::Io(Errno::NOENT)) => return Ok(None),
        file => file?,
    };
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(Some(holder(file.as_fd()))),
        Err(errno) => Err(errno.into()),
    }
}

/// For whoever finds the root taken; nothing rests on it.
fn note_holder(file: BorrowedFd<'_>) {
    let text = format!("{}\n", std::process::id());
    if rustix::fs::ftruncate(file, 0).is_ok() {
        let _ = rustix::io::pwrite(file, text.as_bytes(), 0);
    }
}

fn holder(file: BorrowedFd<'_>) -> Option<u32> {
    let mut text = [0; 16];
    let len = rustix::io::pread(file, &mut text, 0).ok()?;
    std::str::from_utf8(&text[..len]).ok()?.trim().parse().ok()
}

fn held() -> MutexGuard<'static, Option<HashMap<Key, Entry>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Noted {
    fn drop(&mut self) {
        // In a forked child the lock is the parent's, and so is the mutex, perhaps for ever.
        if fork::generation() != self.generation {
            return;
        }
        if let Some(roots) = held().as_mut() {
            roots.remove(&self.key);
        }
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Refused {
        Refused::Io(errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    const DIR: &str = "RINGSEAL_LOCK_TEST";

    #[test]
    fn one_process_has_one_store_of_a_root() {
        let path = tempfile::tempdir().unwrap();
        let (dir, again) = (File::open(path.path()).unwrap(), File::open(path.path()).unwrap());
        let lock = take(dir.as_fd()).unwrap();
        let mine = Some(std::process::id());
        assert_eq!(take(again.as_fd()).unwrap_err(), Refused::Held(mine));
        // The refusal has closed nothing that the lock hangs on.
        let mut other = holder_elsewhere(path.path());
        assert_eq!(first_line(&mut other), format!("{:?}", Refused::Held(mine)));
        other.wait().unwrap();
        drop(lock);
        take(again.as_fd()).unwrap();
    }

    #[test]
    fn a_lock_ends_with_its_process() {
        let path = tempfile::tempdir().unwrap();
        let dir = File::open(path.path()).unwrap();
        let mut other = holder_elsewhere(path.path());
        assert_eq!(first_line(&mut other), "taken");
        assert_eq!(take(dir.as_fd()).unwrap_err(), Refused::Held(Some(other.id())));
        other.kill().unwrap();
        other.wait().unwrap();
        take(dir.as_fd()).unwrap();
    }

    /// The other process of the tests above: takes the lock, says how that went, and holds it.
    #[test]
    fn the_other_process() {
        let Some(path) = std::env::var_os(DIR) else { return };
        let dir = File::open(path).unwrap();
        match take(dir.as_fd()) {
            Ok(_lock) => {
                eprintln!("taken");
                std::thread::sleep(Duration::from_secs(60));
            }
            Err(refused) => eprintln!("{refused:?}"),
        }
    }

    fn holder_elsewhere(dir: &std::path::Path) -> Child {
        let this = std::env::current_exe().unwrap();
        let test = "store::lock::tests::the_other_process";
        let mut command = Command::new(this);
        command.args([test, "--exact", "--nocapture"]).env(DIR, dir);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn first_line(child: &mut Child) -> String {
        let mut line = String::new();
        let stderr = child.stderr.take().unwrap();
        BufReader::new(stderr).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}
