//! How a store is opened.

use std::ffi::OsStr;
use std::time::Duration;

use super::layout::Names;
use super::log::format::BYTES_MAX;
use super::recovery::OpenError;
use super::{Publish, Route};
use crate::place::check_name;

/// How a [`StateStore`](super::StateStore) is opened. The names and modes are part of what a root is: give the same every time.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use ringseal::StoreOptions;
///
/// let store = StoreOptions::new()
///     .state_name("config.json")
///     .other_name("network.json")
///     .mode(0o640)
///     .open_blocking(dir.path())?;
/// store.save_bytes_blocking("web-1", "{}")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "options do nothing until a store is opened"]
pub struct StoreOptions {
    pub(crate) names: Names,
    pub(crate) root_mode: u32,
    pub(crate) spread_after: Duration,
    pub(crate) segment: u64,
    pub(crate) segment_max: u64,
    pub(crate) route: Route,
    pub(crate) publish: Publish,
    pub(crate) slots: Option<usize>,
    pub(crate) salvage: bool,
}

/// A name has to leave room for what the store adds to it.
const NAME_MAX: usize = 200;

/// A segment takes four blocks at least, and a transaction is to fit into memory several times.
const SEGMENT: std::ops::RangeInclusive<u64> = (64 << 10)..=BYTES_MAX;

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            names: Names {
                state: "state.json".to_owned(),
                pid: "init.pid".to_owned(),
                others: Vec::new(),
                mode: 0o600,
                directory_mode: 0o700,
            },
            root_mode: 0o700,
            spread_after: Duration::from_secs(5),
            segment: 4 << 20,
            segment_max: 64 << 20,
            route: Route::Logged,
            publish: Publish::BeforeAnswer,
            slots: None,
            salvage: false,
        }
    }
}

impl StoreOptions {
    /// `state.json` and `init.pid`, modes 0o600 and 0o700, saves through the log, which the files follow
    /// within 5 seconds.
    pub fn new() -> StoreOptions {
        StoreOptions::default()
    }

    /// The name of a container's state file.
    pub fn state_name(mut self, name: impl Into<String>) -> StoreOptions {
        self.names.state = name.into();
        self
    }

    /// The name of a container's pid file.
    pub fn pid_name(mut self, name: impl Into<String>) -> StoreOptions {
        self.names.pid = name.into();
        self
    }

    /// One more file that a container may have. The store saves and removes no file whose name it was not
    /// told.
    pub fn other_name(mut self, name: impl Into<String>) -> StoreOptions {
        self.names.others.push(name.into());
        self
    }

    /// The mode of the files, exactly, whatever the umask is. The owner must be able to read (0o400).
    pub fn mode(mut self, mode: u32) -> StoreOptions {
        self.names.mode = mode;
        self
    }

    /// The mode of containers' directories that the store makes. The owner must be able to use them (0o700).
    pub fn directory_mode(mut self, mode: u32) -> StoreOptions {
        self.names.directory_mode = mode;
        self
    }

    /// The mode of the root, if the store makes it. The owner must be able to use it (0o700); what others may write
    /// to is then refused.
    pub fn root_mode(mut self, mode: u32) -> StoreOptions {
        self.root_mode = mode;
        self
    }

    /// How long after a save the files are made durable, at the latest, so that the log need not be
    /// replayed for them; sooner where a segment of the log is full, or 2048 files wait for it.
    pub fn spread_after(mut self, time: Duration) -> StoreOptions {
        self.spread_after = time;
        self
    }

    /// Bytes of each of the log's two segments, from 64 KiB to 1 GiB: at first, and at most. A segment
    /// grows where a transaction needs it; or where it is full within 2.5 seconds, or before the files follow,
    /// and the filesystem has much room. A transaction can have a little less than a segment. By default 4 MiB and 64 MiB.
    pub fn segment_bytes(mut self, first: u64, max: u64) -> StoreOptions {
        let clamp = |bytes: u64| bytes.clamp(*SEGMENT.start(), *SEGMENT.end()) / 4096 * 4096;
        self.segment = clamp(first);
        self.segment_max = clamp(max).max(self.segment);
        self
    }

    /// Which way single saves go.
    pub fn route(mut self, route: Route) -> StoreOptions {
        self.route = route;
        self
    }

    /// When a save is answered.
    pub fn publish(mut self, publish: Publish) -> StoreOptions {
        self.publish = publish;
        self
    }

    /// How many files may have two inodes: the one that readers see, and a spare beside it that the next version
    /// is written to. So a save makes no inode and frees none. Each holds three descriptors of the process. 0:
    /// none has. By default what a quarter of the soft `RLIMIT_NOFILE` allows, up to 16384. None has two on
    /// filesystems that do not [share a log](crate::LogUse), but for tmpfs, nor where the process cannot have
    /// leases (fcntl(2)).
    pub fn slots(mut self, files: usize) -> StoreOptions {
        self.slots = Some(files);
        self
    }

    /// Open a store whose log is damaged: what can be read of it before the damage is put into the files, and
    /// the log is kept beside the new one, as `.ringseal/log.damaged-…`. What was acknowledged behind the
    /// damage is lost.
    pub fn salvage(mut self) -> StoreOptions {
        self.salvage = true;
        self
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        let Names { mode, directory_mode, .. } = self.names;
        let mut names: Vec<&str> = self.names.all().collect();
        let is_name = |name: &&str| name.len() <= NAME_MAX && check_name(OsStr::new(name)).is_ok();
        let is_own = |name: &&str| name.starts_with(".ringseal");
        if !names.iter().all(is_name) || names.iter().any(is_own) {
            return Err(OpenError::Options("a name is none that a file of a store can have"));
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        if names.len() != count {
            return Err(OpenError::Options("two files of a container have one name"));
        }
        if mode & !0o777 != 0 || mode & 0o400 == 0 {
            return Err(OpenError::Options("the mode of files is none that their owner can read"));
        }
        let is_of_directory = |mode: u32| mode & !0o777 == 0 && mode & 0o700 == 0o700;
        if !is_of_directory(directory_mode) {
            return Err(OpenError::Options("the mode of directories shuts their owner out"));
        }
        if !is_of_directory(self.root_mode) {
            return Err(OpenError::Options("the mode of the root shuts its owner out"));
        }
        Ok(())
    }
}
