//! The recording disk: a FUSE filesystem which serves one file from memory and writes down, in one
//! order, what came in, what was answered, and what was said meanwhile.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use super::device::{self, Backing};
use super::image::Image;
use super::server::Server;
use super::sys;
use super::tape::{Event, Tape};

/// So many requests of one disk can be in flight.
const THREADS: usize = 8;

/// How long writes and flushes are under way: a random time up to so much, 0 for none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    pub max_us: u64,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    /// Writes and discards.
    Writes,
    Flushes,
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The error is told and nothing was done.
    Lost,
    /// The error is told although everything was done.
    Taken,
}

/// Which requests are to fail, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub of: Requests,
    /// The first to fail among those of this sort, counted from 1.
    pub from: u64,
    /// How many fail: 1, or `u64::MAX` for a disk that is dying.
    pub count: u64,
    pub kind: Kind,
    /// Normally `EIO`.
    pub errno: i32,
}

/// What came of a `Fault`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// So many requests of its sort came in.
    pub seen: u64,
    pub failed: u64,
}

pub(super) struct State {
    pub image: Image,
    tape: Option<Tape>,
    /// Counts the recordings, so that an answer does not end up on the wrong one.
    take: u64,
    max_us: u64,
    random: fastrand::Rng,
    fault: Option<Fault>,
    hit: Hit,
}

/// Where on which tape a request came in.
#[derive(Clone, Copy)]
pub(super) struct Came {
    take: u64,
    pub events: usize,
    pub delay_us: u64,
}

impl State {
    /// How this request is to fail, if it is; counts it.
    pub fn verdict(&mut self, of: Requests) -> Option<(Kind, i32)> {
        let fault = self.fault.filter(|fault| fault.of == Requests::Any || fault.of == of)?;
        self.hit.seen += 1;
        if self.hit.seen < fault.from || self.hit.failed >= fault.count {
            return None;
        }
        self.hit.failed += 1;
        Some((fault.kind, fault.errno))
    }

    /// A request comes in: where the tape is, and how long the answer shall take.
    pub fn came(&mut self) -> Came {
        let delay_us = match self.max_us {
            0 => 0,
            max if self.tape.is_some() => self.random.u64(0..=max),
            _ => 0,
        };
        let events = self.tape.as_ref().map_or(0, |tape| tape.events.len());
        Came { take: self.take, events, delay_us }
    }

    pub fn say(&mut self, event: impl FnOnce() -> Event) {
        if let Some(tape) = &mut self.tape {
            tape.events.push(event());
        }
    }

    /// Puts an answer on the tape, if it is still the one on which the request came in.
    pub fn answer(&mut self, came: Came, event: Event) {
        if came.take == self.take {
            self.say(|| event);
        }
    }

    pub fn note(&mut self, text: &str) {
        for line in text.lines() {
            self.say(|| Event::Note(line.to_owned()));
        }
    }
}

pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A disk that records. Dropped, it is unmounted; drop first what is attached to it.
pub struct Disk {
    state: Arc<Mutex<State>>,
    file: PathBuf,
    notes: PathBuf,
    server: Option<JoinHandle<()>>,
    /// The last to go: the mount point.
    directory: tempfile::TempDir,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disk at {}", self.file.display())
    }
}

impl Disk {
    pub fn new(image: Image) -> io::Result<Disk> {
        let directory = tempfile::Builder::new().prefix("crashlab-disk-").tempdir()?;
        let path = directory.path().canonicalize()?;
        let state = Arc::new(Mutex::new(State {
            image,
            tape: None,
            take: 0,
            max_us: 0,
            random: fastrand::Rng::with_seed(0),
            fault: None,
            hit: Hit::default(),
        }));
        let (tell, told) = mpsc::channel();
        let server = Server::new(state.clone());
        let at = path.clone();
        let server = thread::Builder::new()
            .name("crashlab-disk".into())
            .spawn(move || serve(server, &at, &tell))?;
        let gone = |_| io::Error::other("the disk's server died");
        told.recv().map_err(gone)??;
        let (file, notes) = (path.join("disk"), path.join("notes"));
        Ok(Disk { state, file, notes, server: Some(server), directory })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    #[cfg(test)]
    /// The file to put behind a loop device.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// A file for other processes: each line of each write(2) to it is a note, on the tape before
    /// the write returns.
    pub fn notes(&self) -> &Path {
        &self.notes
    }

    /// Puts other contents on the disk, while nothing is attached.
    pub fn load(&self, image: Image) {
        let before = std::mem::replace(&mut self.state().image, image);
        drop(before);
    }

    /// The contents as they are now.
    pub fn image(&self) -> Image {
        self.state().image.clone()
    }

    /// Begins a new, empty tape, and gives the contents at its beginning. Without a tape nothing
    /// is recorded, and nothing is delayed.
    pub fn record(&self, latency: Latency) -> Image {
        let mut state = self.state();
        state.take += 1;
        state.tape = Some(Tape::default());
        state.max_us = latency.max_us;
        state.random = fastrand::Rng::with_seed(latency.seed);
        state.image.clone()
    }

    /// Ends the recording.
    pub fn stop(&self) -> Tape {
        let mut state = self.state();
        state.take += 1;
        state.tape.take().unwrap_or_default()
    }

    pub fn note(&self, text: &str) {
        self.state().note(text);
    }

    /// From now on requests are counted, and fail as told. A failed one is not on the tape.
    pub fn fail(&self, fault: Fault) {
        let mut state = self.state();
        state.fault = Some(fault);
        state.hit = Hit::default();
    }

    /// Nothing fails any more.
    pub fn heal(&self) -> Hit {
        let mut state = self.state();
        state.fault = None;
        state.hit
    }
}

impl Backing for Disk {
    const DIRECT: bool = true;

    fn open(&self) -> io::Result<File> {
        File::options().read(true).write(true).open(&self.file)
    }

    fn name(&self) -> String {
        self.file.display().to_string()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        match device::unmount(self.directory.path()) {
            // Without a mount the kernel ends the connection, and with it the server's threads.
            Ok(()) => {
                if let Some(server) = self.server.take() {
                    // A panic over there has been printed, and is no reason for one here.
                    let _ = server.join();
                }
            }
            Err(_) => device::detach(self.directory.path()),
        }
    }
}

/// Mounts and serves until unmounted; tells when it is mounted.
///
/// The connection's descriptor is in these threads' table only: when the process is killed while
/// another of its threads waits for this disk, that one could hold the connection open for ever.
fn serve(server: Server, at: &Path, tell: &mpsc::Sender<io::Result<()>>) {
    let mut config = fuser::Config::default();
    config.mount_options = vec![fuser::MountOption::FSName("crashlab".into())];
    config.acl = fuser::SessionACL::All;
    config.n_threads = Some(THREADS);
    // SAFETY: this thread has opened nothing yet, and was given nothing that is open.
    let separate = unsafe { sys::own_descriptors() };
    match separate.and_then(|()| fuser::Session::new(server, at, &config)) {
        Ok(session) => {
            // Nobody listens only if the disk's maker is gone; then it is unmounted at once.
            if tell.send(Ok(())).is_ok() {
                // It ends with an error when the connection is cut; that is no one's concern.
                let _ = session.run();
            }
        }
        Err(error) => drop(tell.send(Err(error))),
    }
}
