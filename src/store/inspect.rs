//! What a log holds, for whoever looks: nothing is changed, and no lock is taken.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::io::Errno;

use super::OpenError;
use super::layout::{self, OWN};
use super::log::files::{self, Unusable};
use super::log::format::{Kind, Mark, Record};
use super::log::scan::Scan;
use crate::root::Root;

/// What a log holds.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogReport {
    /// Bytes of each of its two segments.
    pub segment_bytes: u64,
    /// The highest number and epoch that anything in it has.
    pub sequence: u64,
    /// See `sequence`.
    pub epoch: u64,
    /// What counts: changes that the files may lack, in order.
    pub live: Vec<LogEntry>,
    /// Numbers of writes whose changes the files have, and that can still be read.
    pub spread: Vec<u64>,
    /// Numbers of writes that a crash has cut short, or that failed. They are void.
    pub torn: Vec<u64>,
    /// What was acknowledged and cannot be read any more. `None` is good.
    pub damage: Option<String>,
}

/// One write to the log: the changes of transactions that were made together.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its number.
    pub sequence: u64,
    /// The epoch: greater in whatever was begun later.
    pub epoch: u64,
    /// The segment and the block where it begins.
    pub place: (u16, u32),
    /// What it is.
    pub kind: LogKind,
    /// When it was written, the files had everything up to this number.
    pub spread: u64,
    /// Its changes.
    pub changes: Vec<LogChange>,
}

/// What a write to the log is.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogKind {
    /// Changes, all of them or none.
    Changes,
    /// The log goes on in a segment.
    Open,
    /// It says up to which number the files have everything: [`LogEntry::spread`].
    Spread,
}

/// One change.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChange {
    /// The container.
    pub id: String,
    /// The file.
    pub name: String,
    /// Bytes of the file; `None`: it is removed.
    pub size: Option<u64>,
    /// Which of the write's transactions it is of.
    pub transaction: u32,
    /// It was changed beside the log: what the log has of it is void.
    pub is_forgotten: bool,
}

impl LogKind {
    /// The name that `--json` prints.
    pub const fn name(self) -> &'static str {
        match self {
            LogKind::Changes => "changes",
            LogKind::Open => "open",
            LogKind::Spread => "spread",
        }
    }
}

impl fmt::Display for LogKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads the log of a root; `None` if there is none. While a process has the store open, what is read can be
/// torn: it is written at the same time.
///
/// # Errors
/// If the root or the log cannot be read, or is not this user's alone, or it is no log that this library
/// knows. One of which something cannot be read any more is no error.
pub fn inspect_log(root: impl AsRef<Path>) -> Result<Option<LogReport>, OpenError> {
    let root = Root::open(root.as_ref())?;
    let path = root.path().join(OWN);
    match layout::look_at_own(&root) {
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(OpenError::Io { path, doing: "open", source: errno.into() }),
        Ok(None) => Err(OpenError::NotPrivate(path)),
        Ok(Some(own)) => Ok(scan(own.as_fd(), &path)?.map(LogReport::from)),
    }
}

/// What the log says; `None` if there is none.
pub(crate) fn scan(own: BorrowedFd<'_>, path: &Path) -> Result<Option<Scan>, OpenError> {
    match files::read(own) {
        Ok(scan) => Ok(Some(scan)),
        Err(Unusable::Io(Errno::NOENT)) => Ok(None),
        Err(unusable) => Err(OpenError::of_log(path.join("log"), unusable)),
    }
}

impl From<Scan> for LogReport {
    fn from(scan: Scan) -> LogReport {
        let live = scan.live.into_iter().map(|group| {
            let change = |record: Record| {
                let (id, name) = layout::split(&record.path);
                LogChange {
                    id: id.to_owned(),
                    name: name.to_owned(),
                    size: (record.kind == Kind::Replace).then_some(record.data.len() as u64),
                    transaction: record.transaction,
                    is_forgotten: record.kind == Kind::Forget,
                }
            };
            let header = group.header;
            LogEntry {
                sequence: header.seq,
                epoch: header.epoch,
                place: (header.segment, header.block),
                kind: match header.mark {
                    Mark::Records => LogKind::Changes,
                    Mark::Open => LogKind::Open,
                    Mark::Spread => LogKind::Spread,
                },
                spread: header.spread_seq,
                changes: group.records.into_iter().map(change).collect(),
            }
        });
        LogReport {
            segment_bytes: scan.bytes,
            sequence: scan.seq,
            epoch: scan.epoch,
            live: live.collect(),
            spread: scan.spread,
            torn: scan.torn.into_iter().map(|(sequence, _)| sequence).collect(),
            damage: scan.damage.map(|damage| damage.to_string()),
        }
    }
}
