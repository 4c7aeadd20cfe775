//! Opening a store: the lock, the log, what is recovered, the thread.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use rustix::fs::Mode;

use super::StateReader;
use super::access::Access;
use super::behind::Behind;
use super::committer::{Committer, Size};
use super::core::{self, Core, Hidden};
use super::files::{Barrier, Following, Tree};
use super::grow::{Growing, make_log};
use super::layout::{self, Layout, OWN};
use super::lock;
use super::log::Log;
use super::log::files::{self as log_files, NotPlaced, Proof, Segments, Unusable};
use super::log::scan::Scan;
use super::options::StoreOptions;
use super::queue::Queue;
use super::recovery::{LogUse, OpenError, Recovery, io};
use super::slots::{self, Looks, Slots};
use super::spreader::Spreader;
use super::stats::Counters;
use super::trace;
use super::{Handle, IN_FLIGHT, NotVisible, Publish, StateStore, THREADS_MAX};
use crate::engine::pool::Pool;
use crate::engine::task::limits::Limits;
use crate::error::Error;
use crate::plan::{Liveness, Outcome};
use crate::probe::FilesystemProbe;
use crate::recover::{Leftover, Observer, Removal};
use crate::reply::channel;
use crate::root::Root;
use crate::sys::{fork, thread};
use crate::{filesystem, liveness};

/// A store on its way to be opened, by a thread of its own: a future.
#[must_use = "futures do nothing unless polled"]
pub struct Opening(Pin<Box<dyn Future<Output = Result<StateStore, OpenError>> + Send>>);

impl Future for Opening {
    type Output = Result<StateStore, OpenError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").finish_non_exhaustive()
    }
}

impl StoreOptions {
    /// Opens a store; see [`StateStore::open`].
    ///
    /// # Errors
    /// As there.
    pub fn open(self, root: impl Into<PathBuf>) -> Opening {
        Opening(Box::pin(self.open_elsewhere(root.into())))
    }

    async fn open_elsewhere(self, root: PathBuf) -> Result<StateStore, OpenError> {
        let (reply, answer) = channel(fork::generation());
        let body = move || reply.send(self.open_blocking(root));
        thread::spawn("ringseal-open", body).map_err(OpenError::NoThread)?;
        let lost = |_| Err(OpenError::NoThread(std::io::ErrorKind::BrokenPipe.into()));
        answer.await.unwrap_or_else(lost)
    }

    /// Opens a store, on this thread.
    ///
    /// # Errors
    /// As [`StateStore::open`].
    pub fn open_blocking(self, root: impl Into<PathBuf>) -> Result<StateStore, OpenError> {
        self.check()?;
        open(root.into(), self)
    }

    /// Opens a root for reading; see [`StateReader`].
    ///
    /// # Errors
    /// If the root cannot be opened, or a name cannot be a file's.
    pub fn open_read_only(self, root: impl AsRef<Path>) -> Result<StateReader, OpenError> {
        self.check()?;
        StateReader::open(root.as_ref(), self.names)
    }
}

/// Opens the store of a root.
fn open(path: PathBuf, options: StoreOptions) -> Result<StateStore, OpenError> {
    let began = Instant::now();
    let root = Root::create(path, options.root_mode)?;
    if !is_its_users_alone(&root)? {
        return Err(OpenError::NotPrivate(root.path().to_owned()));
    }
    let own = open_own(&root)?;
    let lock =
        lock::take(own.as_fd()).map_err(|refused| OpenError::of_lock(root.path(), refused))?;
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
    let provable = Liveness::of(liveness::probe(own.as_fd())) != Liveness::Unprovable;
    // Dropped on a failure, it ends.
    let pool = Arc::new(Pool::new(THREADS_MAX));
    pool.start().map_err(OpenError::NoThread)?;
    let mut starting = Starting(Some(Arc::clone(&pool)));

    let stats = Arc::new(Counters::default());
    let barrier = Barrier::new(&own, &layout, following, &stats);
    let may_be_behind = options.publish == Publish::Behind && following == Following::Shared;
    let looks = if may_be_behind { Looks::Publishing } else { Looks::Accepting };
    let slots = Slots::new(slots_max(&own, &options, following), looks, Arc::clone(&stats));
    let slots = Arc::new(slots);
    let files = Tree::new(
        Arc::clone(&layout),
        Arc::clone(&own),
        barrier.clone(),
        Arc::clone(&slots),
        Arc::clone(&pool),
    );
    let proof = proof(&layout, following, nature.write_syncs);
    let mut finding = Finding { layout: &layout, own: &own, options: &options, proof, files };
    let (log, hidden, mut recovery) = finding.recover()?;
    if following != Following::Shared && matches!(recovery.log, LogUse::Everything) {
        recovery.log = LogUse::Transactions(filesystem::name(own.as_fd()).unwrap_or("unknown"));
    }

    let files = finding.files;
    let segment = log.as_ref().map_or(0, |(_, segment)| *segment);
    let max = options.segment_max.max(segment);
    let size = Size { segment: Mutex::new(segment), max, proof, growing: Growing::default() };
    let shown = hidden.clone();
    let access = log.map(|(log, _)| Access::new(Core::new(log, files, hidden)));
    let behind = access.as_ref().filter(|_| may_be_behind);
    let behind = behind.map(|access| Behind::new(access.unpublished.clone()));
    let limits = Arc::new(Limits::new(IN_FLIGHT.0, IN_FLIGHT.1));
    let committer = Arc::new(Committer {
        layout,
        own,
        barrier,
        slots,
        access,
        size,
        pool,
        writer: OnceLock::new(),
        limits: Arc::clone(&limits),
        queue: Queue::default(),
        spreader: Spreader::new(options.spread_after),
        stats,
        following,
        behind,
        provable,
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
    trace::opened(committer.layout.root.path(), &recovery, segment, began.elapsed());
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

struct Finding<'a> {
    layout: &'a Layout,
    own: &'a Arc<OwnedFd>,
    options: &'a StoreOptions,
    proof: Proof,
    files: Tree,
}

type Found = (Option<(Log<Segments>, u64)>, BTreeMap<Arc<str>, Hidden>, Recovery);

impl Finding<'_> {
    /// Puts into the files what the log has and they may lack, and goes on in the log behind it; or in a new
    /// one; or in none.
    fn recover(&mut self) -> Result<Found, OpenError> {
        // What a crash has left of the making of one.
        let _ = log_files::remove_new(self.own.as_fd());
        let mut recovery = Recovery::default();
        let exists = log_files::exists(self.own.as_fd()).map_err(|why| self.unusable(why))?;
        let scan = if exists { self.scan(&mut recovery)? } else { None };
        // Before that: a container that is removed has to be empty.
        recovery.leftovers = leftovers(self.layout, self.own);
        let nothing = Scan::of_new([0; 16], 0);
        let to_replay = scan.as_ref().unwrap_or(&nothing);
        let hidden = core::replay::replay(to_replay, &mut self.files)
            .map_err(|errno| io(self.layout.root.path().to_owned(), "replay the log", errno))?;
        let placed =
            core::replay::changes(to_replay).filter(|record| !hidden.contains_key(&record.path));
        recovery.replayed = placed.map(|record| self.layout.shown(&record.path)).collect();
        recovery.torn = to_replay.torn.len();
        let not_visible =
            hidden.iter().map(|(path, one)| NotVisible::new(self.layout, path, one.errno));
        recovery.not_visible = not_visible.collect();
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
            log_files::keep_damaged(own)
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

/// How many files have two inodes.
fn slots_max(own: &OwnedFd, options: &StoreOptions, following: Following) -> usize {
    let max = match (following, options.slots) {
        (Following::Each, _) => 0,
        (_, Some(max)) => max,
        (_, None) => slots::affordable(),
    };
    if max > 0 && slots::are_possible(own.as_fd()) { max } else { 0 }
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
        found.extend(observer.scan(dir, path, Removal::OfTheStoreBefore).unwrap_or_default());
    };
    look(own, &layout.shown(OWN));
    for id in layout.ids().unwrap_or_default() {
        if let Ok(container) = layout.open(&id) {
            look(&container.dir, &layout.shown(&id));
        }
    }
    found
}
