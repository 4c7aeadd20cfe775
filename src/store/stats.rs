//! What a store tells of itself, and where its parts count it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::committer::Committer;
use super::core::Core;
use super::files::Tree;
use super::log::Usage;
use super::log::files::Segments;
use super::trace;
use crate::engine::task::limits::Passed;
use crate::stats::{Failures, Latency};

/// What a [`StateStore`](crate::StateStore) has done since it was opened, and what is under way; from
/// [`StateStore::stats`](crate::StateStore::stats).
///
/// Sums only grow.
#[non_exhaustive]
#[derive(Debug, Clone, Default)]
pub struct StoreStats {
    /// Transactions that found room; a single save is one.
    pub accepted: u64,
    /// Transactions that were answered, well or not.
    pub answered: u64,
    /// Of those, the ones that were answered by an error.
    pub failed: u64,
    /// The same by the step that failed.
    pub failures: Failures,
    /// Versions that were not made by themselves, for a newer one was made in their place.
    pub coalesced: u64,
    /// Bytes of the files of the transactions that went well, but for coalesced ones.
    pub bytes: u64,
    /// Transactions that went well beside the log; see [`Route::Direct`](crate::Route).
    pub direct: u64,
    /// Commits of the log: groups of transactions, each one write and one flush.
    pub groups: u64,
    /// Changes in these groups; by `groups` it is how many share a flush.
    pub changes: u64,
    /// Bytes that were written to the log.
    pub log_bytes: u64,
    /// Bytes of the log's current segment that are in use.
    pub log_used: u64,
    /// Bytes of a segment, of which the log has two; 0 where there is no log.
    pub log_segment: u64,
    /// How changes became visible.
    pub published: Published,
    /// Changes that are durable and not visible now; see [`StateStore::not_visible`](crate::StateStore::not_visible).
    pub not_visible: u64,
    /// Changes that could not be put into their place and were kept beside, so that the log could go on.
    pub set_aside: u64,
    /// Changes that are answered and not published yet; see [`Publish::Behind`](crate::Publish).
    pub unpublished: u64,
    /// How long the log has had something that the files do not have durably; `None` if they have everything.
    pub oldest_unspread: Option<Duration>,
    /// Barriers: syncs that made all durable that was published until then.
    pub spreads: u64,
    /// Barriers that failed.
    pub spreads_failed: u64,
    /// How long the last barrier took; zero if there was none.
    pub last_spread: Duration,
    /// How long the longest took.
    pub longest_spread: Duration,
    /// Files that have two inodes now.
    pub slots: u64,
    /// How many can have.
    pub slots_max: u64,
    /// Transactions that have room now and are not answered.
    pub in_flight: u64,
    /// How long the oldest of these has been in flight; `None` if there is none.
    pub oldest_in_flight: Option<Duration>,
    /// Transactions that wait for room now.
    pub waiting: u64,
    /// From room to answer, of all that were answered.
    pub latency: Latency,
}

/// How many changes became visible, and how.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// Written to the file's second inode, which then took its place.
    pub exchanged: u64,
    /// Written to a new file, which was renamed.
    pub new_files: u64,
    /// The file was removed.
    pub removed: u64,
    /// Tries that failed.
    pub failed: u64,
}

/// How a change became visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Exchanged,
    NewFile,
    Removed,
}

/// Where the parts of a store count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    exchanged: AtomicU64,
    new_files: AtomicU64,
    removed: AtomicU64,
    not_published: AtomicU64,
    set_aside: AtomicU64,
    direct: AtomicU64,
    spreads: AtomicU64,
    spreads_failed: AtomicU64,
    last_spread_micros: AtomicU64,
    longest_spread_micros: AtomicU64,
    /// As it was when the log was used last: who has the log can wait for the disk, and figures do not.
    log: Mutex<Usage>,
}

impl Counters {
    /// A change was published, or not.
    pub(crate) fn published(&self, how: Result<How, Errno>) -> Result<(), Errno> {
        let counter = match how {
            Ok(How::Exchanged) => &self.exchanged,
            Ok(How::NewFile) => &self.new_files,
            Ok(How::Removed) => &self.removed,
            Err(_) => &self.not_published,
        };
        counter.fetch_add(1, Relaxed);
        how.map(drop)
    }

    /// A change was kept beside its place.
    pub(crate) fn set_aside(&self) {
        self.set_aside.fetch_add(1, Relaxed);
    }

    /// Transactions went well beside the log.
    pub(crate) fn direct(&self, count: usize) {
        self.direct.fetch_add(count as u64, Relaxed);
    }

    /// A barrier that began then has ended.
    pub(crate) fn spread<T>(&self, began: Instant, files: usize, synced: &Result<T, Errno>) {
        let took = began.elapsed();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.spreads.fetch_add(1, Relaxed);
        self.spreads_failed.fetch_add(u64::from(synced.is_err()), Relaxed);
        self.last_spread_micros.store(micros, Relaxed);
        self.longest_spread_micros.fetch_max(micros, Relaxed);
        trace::spread(files, took, synced.as_ref().err());
    }

    /// The log was used.
    pub(crate) fn note(&self, core: &Core<Segments, Tree>) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = core.usage();
    }
}

impl StoreStats {
    pub(super) fn of(committer: &Committer, passed: Passed) -> StoreStats {
        let Passed { totals, in_flight, waiting } = passed;
        let counters = &committer.stats;
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let log = *counters.log.lock().unwrap_or_else(PoisonError::into_inner);
        let (slots, slots_max) = committer.slots.usage();
        let hidden = committer.hidden.lock().unwrap_or_else(PoisonError::into_inner).len();
        StoreStats {
            accepted: totals.accepted,
            answered: totals.answered,
            failed: totals.failures.total(),
            failures: totals.failures,
            coalesced: totals.coalesced,
            bytes: totals.bytes,
            direct: of(&counters.direct),
            groups: log.groups,
            changes: log.changes,
            log_bytes: log.written,
            log_used: log.used,
            log_segment: committer.segment(),
            published: Published {
                exchanged: of(&counters.exchanged),
                new_files: of(&counters.new_files),
                removed: of(&counters.removed),
                failed: of(&counters.not_published),
            },
            not_visible: hidden as u64,
            set_aside: of(&counters.set_aside),
            unpublished: committer.behind.as_ref().map_or(0, |behind| behind.saves.len() as u64),
            oldest_unspread: committer.spreader.oldest(),
            spreads: of(&counters.spreads),
            spreads_failed: of(&counters.spreads_failed),
            last_spread: Duration::from_micros(of(&counters.last_spread_micros)),
            longest_spread: Duration::from_micros(of(&counters.longest_spread_micros)),
            slots: slots as u64,
            slots_max: slots_max as u64,
            in_flight,
            oldest_in_flight: totals.oldest,
            waiting,
            latency: totals.latencies.figures(),
        }
    }
}
