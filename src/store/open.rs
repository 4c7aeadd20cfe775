//! Opening a store: the lock, the log, what is recovered, the thread.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::committer::{Committer, Size, make_log};
use super::core::{self, Core, Hidden};
use super::files::{Barrier, Following, Tree};
use super::layout::{self, Layout, OWN};
use super::lock::{self, Refused};
use super::log::Log;
use super::log::files::{self as log_files, NotPlaced, Proof, Segments, Unusable};
use super::log::format::NotASegment;
use super::log::scan::{Damage, Scan};
use super::options::StoreOptions;
use super::queue::Queue;
use super::spreader::Spreader;
use super::{Handle, IN_FLIGHT, NotVisible, StateStore, THREADS_MAX};
use crate::engine::pool::Pool;
use crate::engine::task::limits::Limits;
use crate::error::Error;
use crate::filesystem;
use crate::plan::Outcome;
use crate::probe::FilesystemProbe;
use crate::recover::{Leftover, Observer, Removal};
use crate::root::Root;
use crate::sys::{fork, thread};

/// What the opening of a store has found and done.
#[non_exhaustive]
#[derive(Debug, Default)]
pub struct Recovery {
    /// Files that were put into place, or removed, because the log had changes that they may have lacked.
    pub replayed: Vec<PathBuf>,
    /// Writes to the log that a crash had cut short. Nobody was told that they were done; they are void.
    pub torn: usize,
    /// What is durable and could not be put into its place: the file cannot be replaced, or its directory is
    /// not there any more, or is another of that name. It is kept in `.ringseal/unplaced`.
    pub not_visible: Vec<NotVisible>,
    /// Temporary files that were found, and whether they were removed.
    pub leftovers: Vec<Leftover>,
    /// What was damaged in the log, if the store was opened all the same ([`StoreOptions::salvage`]).
    pub damage: Option<String>,
    /// What the log is used for.
    pub log: LogUse,
}

/// What a store's log is used for.
#[non_exhaustive]
#[derive(Debug, Default)]
pub enum LogUse {
    /// For everything: the files follow it.
    #[default]
    Everything,
    /// For transactions of several changes only. The root is in memory; or its filesystem, named here, or this
    /// kernel, is not known to keep what a shared log needs (ext4 with a journal, XFS and btrfs since Linux
    /// 5.17 do). There each file is made durable before the answer, as a [`Writer`](crate::Writer) does it.
    Transactions(&'static str),
    /// There is none, for it could not be made: single saves go as a [`Writer`](crate::Writer)'s, several
    /// changes at once are refused.
    Nothing(io::Error),
}

/// Why a store cannot be opened.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The options contradict themselves.
    #[error("{0}")]
    Options(&'static str),
    /// The root, or the store's own directory, cannot be made, opened or synced.
    #[error(transparent)]
    Root(#[from] Error),
    /// The store's own directory, or its log, belongs to another user, or others may use it.
    #[error("{}: others may read or write it, or own it", .0.display())]
    NotPrivate(PathBuf),
    /// Another process has the store open, or this one.
    #[non_exhaustive]
    #[error("{}: the store is open{}", root.display(), held_by(*pid))]
    Held {
        /// The root.
        root: PathBuf,
        /// The process that has it, in its pid namespace, if that could be learned.
        pid: Option<u32>,
    },
    /// The log is of a later version of this library. Nothing in it, and no file, was changed.
    #[non_exhaustive]
    #[error("{}: its format has version {version}, which this library does not know", log.display())]
    NewerVersion {
        /// The log.
        log: PathBuf,
        /// Its version.
        version: u16,
    },
    /// The log uses features that this library does not know. Nothing was changed.
    #[non_exhaustive]
    #[error("{}: it uses features that this library does not know (bits {bits:#x})", log.display())]
    UnknownFeatures {
        /// The log.
        log: PathBuf,
        /// Its features.
        bits: u32,
    },
    /// Something that was acknowledged cannot be read from the log any more. Nothing was changed. See
    /// [`StoreOptions::salvage`].
    #[non_exhaustive]
    #[error("{}: the log is damaged: {what}", log.display())]
    Damaged {
        /// The log.
        log: PathBuf,
        /// What is damaged, and where.
        what: String,
    },
    /// The log cannot be read or written, or what it has cannot be put into the files. What was put there is
    /// as the log has it; the log keeps everything.
    #[non_exhaustive]
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// No thread could be made.
    #[error("no thread could be made: {0}")]
    NoThread(io::Error),
}

fn held_by(pid: Option<u32>) -> String {
    pid.map_or_else(|| " elsewhere".to_owned(), |pid| format!(" in process {pid}"))
}

/// Opens the store of a root.
pub(crate) fn open(path: PathBuf, options: StoreOptions) -> Result<StateStore, OpenError> {
    let root = Root::create(path, options.root_mode)?;
    if !is_its_users_alone(&root)? {
        return Err(OpenError::NotPrivate(root.path().to_owned()));
    }
    let own = open_own(&root)?;
    let lock = lock::take(own.as_fd()).map_err(|refused| match refused {
        Refused::Held(pid) => OpenError::Held { root: root.path().to_owned(), pid },
        Refused::Io(errno) => io(root.path().join(OWN).join("lock"), "lock", errno),
    })?;
    let own = Arc::new(own);
    let layout = Arc::new(Layout::new(root, options.names.clone()));
    let look = crate::inode::of(&*own).map_err(|errno| io(layout.shown(OWN), "look", errno))?;
    let nature = filesystem::nature(own.as_fd(), &look)
        .map_err(|errno| io(layout.shown(OWN), "look", errno))?;
    let proven =
        filesystem::syncfs_reports_errors() && filesystem::syncfs_spares(own.as_fd()).is_some();
    let following = match nature.is_volatile {
        true => Following::Nothing,
        false if proven => Following::Shared,
        false => Following::Each,
    };
    // Dropped on a failure, it ends.
    let pool = Arc::new(Pool::new(THREADS_MAX));
    pool.start().map_err(OpenError::NoThread)?;
    let mut starting = Starting(Some(Arc::clone(&pool)));

    let barrier = Barrier::new(&own, &layout, following);
    let files =
        Tree::new(Arc::clone(&layout), Arc::clone(&own), barrier.clone(), Arc::clone(&pool));
    let proof = proof(&layout, following, nature.write_syncs);
    let mut opening = Opening { layout: &layout, own: &own, options: &options, proof, files };
    let (log, hidden, mut recovery) = opening.recover()?;
    recovery.leftovers = leftovers(&layout, &own);
    if following != Following::Shared && matches!(recovery.log, LogUse::Everything) {
        recovery.log = LogUse::Transactions(filesystem::name(own.as_fd()).unwrap_or("unknown"));
    }

    let files = opening.files;
    let segment = log.as_ref().map_or(0, |(_, segment)| *segment);
    let size = Size { segment: Mutex::new(segment), max: options.segment_max.max(segment), proof };
    let shown = hidden.clone();
    let core = log.map(|(log, _)| Mutex::new(Core::new(log, files, hidden)));
    let limits = Arc::new(Limits::new(IN_FLIGHT.0, IN_FLIGHT.1));
    let committer = Arc::new(Committer {
        layout,
        own,
        barrier,
        core,
        size,
        pool,
        writer: OnceLock::new(),
        limits: Arc::clone(&limits),
        queue: Queue::default(),
        spreader: Spreader::new(options.spread_after),
        following,
        hidden: Mutex::new(shown),
        durable: Mutex::default(),
        lock: Mutex::new(Some(lock)),
    });
    let follower = Arc::clone(&committer);
    let thread = thread::spawn("ringseal-store", move || follower.follow());
    thread.map_err(OpenError::NoThread)?;
    // From here on that thread ends them.
    starting.0.take();
    let (generation, route) = (fork::generation(), options.route);
    let handle = Handle { committer, limits, generation, route, recovery };
    Ok(StateStore { handle: Arc::new(handle) })
}

/// Who else can write to the root could give it another log.
fn is_its_users_alone(root: &Root) -> Result<bool, OpenError> {
    let look = crate::inode::of(root.directory());
    let look = look.map_err(|errno| io(root.path().to_owned(), "look", errno))?;
    let writers = Mode::WGRP | Mode::WOTH;
    let is_mine = look.uid == rustix::process::geteuid().as_raw() || look.uid == 0;
    Ok(is_mine && !look.mode.intersects(writers))
}

fn open_own(root: &Root) -> Result<OwnedFd, OpenError> {
    let path = root.path().join(OWN);
    match layout::open_own(root) {
        Ok(Some(own)) => Ok(own),
        Ok(None) => Err(OpenError::NotPrivate(path)),
        Err((step, errno)) => Err(Error::new(path, step, Outcome::Unchanged, errno).into()),
    }
}

/// Threads that end, if the store is not opened.
struct Starting(Option<Arc<Pool>>);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            pool.close();
        }
    }
}

struct Opening<'a> {
    layout: &'a Layout,
    own: &'a Arc<OwnedFd>,
    options: &'a StoreOptions,
    proof: Proof,
    files: Tree,
}

type Found = (Option<(Log<Segments>, u64)>, BTreeMap<String, Hidden>, Recovery);

impl Opening<'_> {
    /// Puts into the files what the log has and they may lack, and goes on in the log behind it; or in a new
    /// one; or in none.
    fn recover(&mut self) -> Result<Found, OpenError> {
        // What a crash has left of the making of one.
        let _ = log_files::remove_new(self.own.as_fd());
        let mut recovery = Recovery::default();
        let exists = log_files::exists(self.own.as_fd()).map_err(|why| self.unusable(why))?;
        let scan = if exists { self.scan(&mut recovery)? } else { None };
        let nothing = Scan::of_new([0; 16], 0);
        let to_replay = scan.as_ref().unwrap_or(&nothing);
        let hidden = core::replay::replay(to_replay, &mut self.files)
            .map_err(|errno| io(self.layout.root.path().to_owned(), "replay the log", errno))?;
        let placed =
            core::replay::changes(to_replay).filter(|record| !hidden.contains_key(&record.path));
        recovery.replayed = placed.map(|record| self.layout.shown(&record.path)).collect();
        recovery.torn = to_replay.torn.len();
        let not_visible = |(path, hidden): (&String, &Hidden)| NotVisible {
            path: self.layout.shown(path),
            errno: hidden.errno.raw_os_error(),
        };
        recovery.not_visible = hidden.iter().map(not_visible).collect();
        let log = self.log(scan.filter(|scan| scan.damage.is_none()), &mut recovery)?;
        Ok((log, hidden, recovery))
    }

    /// What the log says. One that is damaged is an error, or else kept under another name.
    fn scan(&self, recovery: &mut Recovery) -> Result<Option<Scan>, OpenError> {
        let found = match log_files::read(self.own.as_fd()) {
            Ok(scan) => match &scan.damage {
                None => return Ok(Some(scan)),
                Some(damage) => (damage.to_string(), Some(scan)),
            },
            Err(unusable) => match self.unusable(unusable) {
                OpenError::Damaged { what, .. } => (what, None),
                // A disk that cannot be read is a damage, too.
                OpenError::Io { source, .. } if is_broken(&source) && self.options.salvage => {
                    (source.to_string(), None)
                }
                other => return Err(other),
            },
        };
        let (what, scan) = found;
        if !self.options.salvage {
            return Err(OpenError::Damaged { log: self.path_of_log(), what });
        }
        recovery.damage = Some(what);
        Ok(scan)
    }

    /// The log to go on in, and the bytes of its segments.
    fn log(
        &self,
        scan: Option<Scan>,
        recovery: &mut Recovery,
    ) -> Result<Option<(Log<Segments>, u64)>, OpenError> {
        let own = self.own.as_fd();
        if recovery.damage.is_some() {
            let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let name = format!("log.damaged-{}", time.map_or(0, |time| time.as_secs()));
            log_files::keep_as(own, &name)
                .map_err(|errno| io(self.path_of_log(), "keep the damaged log", errno))?;
        }
        if let Some(scan) = scan {
            let segments = Segments::open(own, self.proof).map_err(|why| self.unusable(why))?;
            let log = Log::begin(segments, &scan);
            let log = log.map_err(|errno| io(self.path_of_log(), "write", errno))?;
            return Ok(Some((log, scan.bytes)));
        }
        match make_log(self.own, self.options.segment, self.proof) {
            Ok(log) => Ok(Some((log, self.options.segment))),
            Err(NotPlaced::Unchanged(errno)) => {
                recovery.log = LogUse::Nothing(errno.into());
                Ok(None)
            }
            Err(NotPlaced::Unknown(errno)) => Err(io(self.path_of_log(), "make", errno)),
        }
    }

    fn path_of_log(&self) -> PathBuf {
        self.layout.root.path().join(OWN).join("log")
    }

    fn unusable(&self, why: Unusable) -> OpenError {
        OpenError::of_log(self.path_of_log(), why)
    }
}

impl OpenError {
    /// The kind that an [`io::Error`] of this has.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            OpenError::Options(_) => io::ErrorKind::InvalidInput,
            OpenError::Root(error) => error.kind(),
            OpenError::NotPrivate(_) => io::ErrorKind::PermissionDenied,
            OpenError::Held { .. } => io::ErrorKind::ResourceBusy,
            OpenError::NewerVersion { .. } | OpenError::UnknownFeatures { .. } => {
                io::ErrorKind::Unsupported
            }
            OpenError::Damaged { .. } => io::ErrorKind::InvalidData,
            OpenError::Io { source, .. } => source.kind(),
            OpenError::NoThread(error) => error.kind(),
        }
    }

    /// Why a log cannot be used.
    pub(super) fn of_log(log: PathBuf, why: Unusable) -> OpenError {
        match why {
            Unusable::Io(errno) => io(log, "read", errno),
            Unusable::NotPrivate(name) => OpenError::NotPrivate(match name {
                "log" => log,
                name => log.join(name),
            }),
            Unusable::Missing(name) => {
                OpenError::Damaged { log, what: format!("{name} is missing") }
            }
            Unusable::Damage(Damage::Segment(_, NotASegment::Version(version))) => {
                OpenError::NewerVersion { log, version }
            }
            Unusable::Damage(Damage::Segment(_, NotASegment::Features(bits))) => {
                OpenError::UnknownFeatures { log, bits }
            }
            Unusable::Damage(damage) => OpenError::Damaged { log, what: damage.to_string() },
        }
    }
}

/// What a write to the log needs, to be on the disk. btrfs writes blocks anew, ext4 with `data=journal` all
/// data twice.
fn proof(layout: &Layout, following: Following, write_syncs: bool) -> Proof {
    match following {
        Following::Nothing => return Proof::Nothing,
        Following::Each if !write_syncs => return Proof::Sync,
        Following::Each => return Proof::Liveness,
        Following::Shared => {}
    }
    let writes_over = FilesystemProbe::of(layout.root.path()).is_ok_and(|probe| {
        let through_journal = probe.options.iter().any(|option| option == "data=journal");
        matches!(probe.kind, "ext4" | "xfs") && !through_journal
    });
    if writes_over { Proof::Nothing } else { Proof::Liveness }
}

/// Is this what a disk says that cannot be read?
fn is_broken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EUCLEAN | libc::ENODATA))
}

/// Removes what dead writers have left in the store's own directory and in each container's.
fn leftovers(layout: &Layout, own: &OwnedFd) -> Vec<Leftover> {
    let mut found = Vec::new();
    let Ok(observer) = Observer::here(own.as_fd()) else { return found };
    let mut look = |dir: &OwnedFd, path: &Path| {
        found.extend(observer.scan(dir, path, Removal::OfTheDead).unwrap_or_default());
    };
    look(own, &layout.shown(OWN));
    for id in layout.ids().unwrap_or_default() {
        if let Ok(container) = layout.open(&id) {
            look(&container.dir, &layout.shown(&id));
        }
    }
    found
}

fn io(path: PathBuf, doing: &'static str, errno: Errno) -> OpenError {
    OpenError::Io { path, doing, source: errno.into() }
}

impl From<OpenError> for io::Error {
    /// Keeps the kind; `Display` says the rest.
    fn from(error: OpenError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}
