//! What a transaction that went well answers.

use std::path::PathBuf;

use rustix::io::Errno;

use super::layout::Layout;
use crate::receipt::Durability;

/// When a save that goes through the log is answered.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Publish {
    /// When it is durable and every process sees it.
    #[default]
    BeforeAnswer,
    /// When it is durable. This store's `load` gives it at once; who reads the file sees it later: 20 ms, and
    /// what it takes to publish what was saved before, which are 8192 files at most, so in under a second where the
    /// filesystem answers. A version that is overtaken meanwhile is never published. Visible before the answer is a removal,
    /// with all that is committed in one group with it, and what is committed in a group of more than 4096 changes.
    Behind,
}

/// Which way a save goes.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// Through the log: one flush for all that come together; the file follows.
    Logged,
    /// As a [`Writer`](crate::Writer) saves: the file itself is durable with the answer. So go saves that are
    /// larger than a quarter of a log's segment, saves into a directory on another filesystem, all where
    /// there is no log, and single saves in memory.
    Direct,
}

impl Route {
    /// The name that `--json` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Route::Logged => "logged",
            Route::Direct => "direct",
        }
    }
}

/// The answer to a transaction that went well: what was done, and what it is worth.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its number in the order in which this store accepted transactions, from 1 on.
    pub sequence: u64,
    /// What a power cut can do to it.
    pub durability: Durability,
    /// Which way it went.
    pub route: Route,
    /// Bytes of the files.
    pub bytes: u64,
    /// The number of a newer version of the file that was written in this one's place.
    pub coalesced_into: Option<u64>,
    /// Files whose change is durable, and could not be made visible yet: the store keeps it, gives it to
    /// who loads it, and tries again when the files follow the log, and whenever it is opened. Empty is good.
    pub not_visible: Vec<NotVisible>,
    /// Directories of removed containers that are still there, for they hold files that are not the
    /// store's.
    pub left: Vec<PathBuf>,
}

/// A change that is durable and not visible.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotVisible {
    /// The file.
    pub path: PathBuf,
    /// The kernel's error number.
    pub errno: i32,
}

impl NotVisible {
    pub(super) fn new(layout: &Layout, path: &str, errno: Errno) -> NotVisible {
        NotVisible { path: layout.shown(path), errno: errno.raw_os_error() }
    }
}
