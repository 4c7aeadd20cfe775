//! Opening a store: the lock, the log, what is recovered, the thread.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::committer::{Committer, Size, make_log};
use super::core::{self, Core, Hidden};
use super::files::{Barrier, Following, Tree};
use super::layout::{self, Layout, OWN};
use super::lock::{self, Refused};
use super::log::Log;
use super::log::files::{self as log_files, Segments, Unusable};
use super::log::format::{Kind, NotASegment};
use super::log::scan::{Damage, Scan};
use super::options::StoreOptions;
use super::queue::Queue;
use super::spreader::Spreader;
use super::{Handle, IN_FLIGHT, NotVisible, StateStore};
use crate::engine::StartError;
use crate::engine::task::limits::Limits;
use crate::error::Error;
use crate::filesystem;
use crate::plan::Outcome;
use crate::probe::FilesystemProbe;
use crate::recover::{Leftover, Observer, Removal};
use crate::root::Root;
use crate::sys::{fork, thread};
use crate::writer::Writer;

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
    #[error("{}: the store is open{}", root.display(), held_by(*pid))]
    Held {
        /// The root.
        root: PathBuf,
        /// The process that has it, in its pid namespace, if that could be learned.
        pid: Option<u32>,
    },
    /// The log is of a later version of this library. Nothing was changed.
    #[error("{}: its format has version {version}, which this library does not know", log.display())]
    NewerVersion {
        /// The log.
        log: PathBuf,
        /// Its version.
        version: u16,
    },
    /// Something that was acknowledged cannot be read from the log any more. Nothing was changed. See
    /// [`StoreOptions::salvage`].
    #[error("{}: the log is damaged: {what}", log.display())]
    Damaged {
        /// The log.
        log: PathBuf,
        /// What is damaged, and where.
        what: String,
    },
    /// The log cannot be read or written, or what it has cannot be put into the files. What was put there is
    /// as the log has it; the log keeps everything.
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
    let writer = Writer::new().map_err(|error| match error {
        StartError::NoThread(error) => OpenError::NoThread(error),
        other => OpenError::NoThread(io::Error::other(other.to_string())),
    })?;

    let barrier = Barrier::new(&own, following);
    let pool = Arc::clone(writer.pool());
    let files = Tree::new(Arc::clone(&layout), Arc::clone(&own), barrier.clone(), pool);
    let mut opening = Opening { layout: &layout, own: &own, options: &options, files };
    let (log, hidden, mut recovery) = opening.recover()?;
    recovery.leftovers = leftovers(&layout, &own);
    if following != Following::Shared && matches!(recovery.log, LogUse::Everything) {
        recovery.log = LogUse::Transactions(filesystem::name(own.as_fd()).unwrap_or("unknown"));
    }

    let files = opening.files;
    let segment = log.as_ref().map_or(0, |(_, segment)| *segment);
    let size = Size {
        segment: Mutex::new(segment),
        max: options.segment_max.max(segment),
        writes_over: writes_over(&layout),
    };
    let shown = hidden.clone();
    let core = log.map(|(log, _)| Mutex::new(Core::new(log, files, hidden)));
    let committer = Arc::new(Committer {
        layout,
        own,
        barrier,
        core,
        size,
        writer,
        queue: Queue::default(),
        spreader: Spreader::new(options.spread_after),
        following,
        hidden: Mutex::new(shown),
        lock: Mutex::new(Some(lock)),
    });
    let follower = Arc::clone(&committer);
    let thread = thread::spawn("ringseal-store", move || follower.follow());
    thread.map_err(OpenError::NoThread)?;
    let limits = Arc::new(Limits::new(IN_FLIGHT.0, IN_FLIGHT.1));
    let (generation, route) = (fork::generation(), options.route);
    let handle = Handle { committer, limits, generation, route, recovery };
    Ok(StateStore { handle: Arc::new(handle) })
}

fn open_own(root: &Root) -> Result<OwnedFd, OpenError> {
    let path = root.path().join(OWN);
    match layout::open_own(root) {
        Ok(Some(own)) => Ok(own),
        Ok(None) => Err(OpenError::NotPrivate(path)),
        Err((step, errno)) => Err(Error::new(path, step, Outcome::Unchanged, errno).into()),
    }
}

struct Opening<'a> {
    layout: &'a Layout,
    own: &'a Arc<OwnedFd>,
    options: &'a StoreOptions,
    files: Tree,
}

type Found = (Option<(Log<Segments>, u64)>, BTreeMap<String, Hidden>, Recovery);

impl Opening<'_> {
    /// Puts into the files what the log has and they may lack, and goes on in the log behind it; or in a new
    /// one; or in none.
    fn recover(&mut self) -> Result<Found, OpenError> {
        let mut recovery = Recovery::default();
        let exists = log_files::exists(self.own.as_fd()).map_err(|why| self.unusable(why))?;
        let scan = if exists { self.scan(&mut recovery)? } else { None };
        let nothing = Scan::of_new([0; 16], 0);
        let to_replay = scan.as_ref().unwrap_or(&nothing);
        let hidden = core::replay(to_replay, &mut self.files)
            .map_err(|errno| io(self.layout.root.path().to_owned(), "replay the log", errno))?;
        let changes = to_replay.live.iter().flat_map(|group| &group.records);
        let changes = changes.filter(|record| record.kind != Kind::Forget);
        let mut paths: Vec<&str> = changes
            .map(|record| record.path.as_str())
            .filter(|path| !hidden.contains_key(*path))
            .collect();
        paths.sort_unstable();
        paths.dedup();
        recovery.replayed = paths.into_iter().map(|path| self.layout.shown(path)).collect();
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
        let writes_over = writes_over(self.layout);
        if let Some(scan) = scan {
            let segments = Segments::open(own, writes_over).map_err(|why| self.unusable(why))?;
            let log = Log::begin(segments, &scan);
            let log = log.map_err(|errno| io(self.path_of_log(), "write", errno))?;
            return Ok(Some((log, scan.bytes)));
        }
        match make_log(self.own, self.options.segment, writes_over) {
            Ok(log) => Ok(Some((log, self.options.segment))),
            Err(errno) => {
                recovery.log = LogUse::Nothing(errno.into());
                Ok(None)
            }
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
            Unusable::Damage(damage) => OpenError::Damaged { log, what: damage.to_string() },
        }
    }
}

/// Are the log's blocks written over in their place, and not through a journal? btrfs writes each anew, ext4
/// with `data=journal` all data twice.
fn writes_over(layout: &Layout) -> bool {
    let probe = FilesystemProbe::of(layout.root.path());
    probe.is_ok_and(|probe| {
        matches!(probe.kind, "ext4" | "xfs")
            && !probe.options.iter().any(|one| one == "data=journal")
    })
}

/// Removes what dead writers have left, in the root, in the store's own directory, and in each container's.
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
