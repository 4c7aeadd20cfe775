//! What a store tells: see [`crate::trace`].

#![cfg_attr(not(feature = "tracing"), allow(unused_variables))]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::core::Hidden;
use super::layout::Layout;
use super::{Committed, Recovery};
use crate::error::Error;
#[cfg(feature = "tracing")]
use crate::trace::micros;
use crate::trace::{Span, event, failed, span};

/// A transaction found room.
pub(crate) fn transaction(save: u64, changes: usize, bytes: usize) {
    event!(TRACE, save, changes, bytes, "transaction accepted");
}

/// The span of a group: its write to the log, what is published before the answers, and these.
pub(crate) fn group(transactions: usize, blocks: usize) -> Span {
    span!(DEBUG, "group", transactions, blocks)
}

/// A transaction is answered.
pub(crate) fn committed(save: u64, took: Duration, answer: Result<&Committed, &Error>) {
    match answer {
        Ok(committed) => {
            event!(
                TRACE,
                save,
                sequence = committed.sequence,
                bytes = committed.bytes,
                durability = committed.durability.name(),
                route = committed.route.name(),
                coalesced_into = committed.coalesced_into,
                not_visible = committed.not_visible.len(),
                micros = micros(took),
                "transaction answered"
            );
        }
        Err(error) => failed(save, took, error),
    }
}

/// A store is open.
pub(crate) fn opened(root: &Path, recovery: &Recovery, segment: u64, took: Duration) {
    event!(
        INFO,
        path = %root.display(),
        segment,
        replayed = recovery.replayed.len(),
        torn = recovery.torn,
        not_visible = recovery.not_visible.len(),
        leftovers = recovery.leftovers.len(),
        damaged = recovery.damage.is_some(),
        micros = micros(took),
        "store opened"
    );
}

/// A store is closed, and its root given back.
pub(crate) fn closed(root: &Path, failed: Option<Errno>) {
    if let Some(errno) = failed.map(Errno::raw_os_error) {
        event!(WARN, path = %root.display(), errno, "store closed, and the files are not durable");
    } else {
        event!(INFO, path = %root.display(), "store closed");
    }
}

/// A store's log has larger segments from now on.
pub(crate) fn log_grown(root: &Path, segment: u64) {
    event!(INFO, path = %root.display(), segment, "log grown");
}

/// A larger log did not come into its place.
pub(crate) fn log_not_grown(root: &Path, errno: Errno) {
    let errno = errno.raw_os_error();
    event!(WARN, path = %root.display(), errno, "log not grown");
}

/// A barrier has ended: so many files are durable, or not.
pub(crate) fn spread(files: usize, took: Duration, failed: Option<&Errno>) {
    match failed {
        None => {
            event!(DEBUG, files, micros = micros(took), "spread");
        }
        Some(errno) => {
            let errno = errno.raw_os_error();
            event!(WARN, files, errno, micros = micros(took), "spread failed");
        }
    }
}

/// A change could not be put into its place, and is kept beside.
pub(crate) fn set_aside(path: &Path) {
    event!(WARN, path = %path.display(), "set aside");
}

type AllHidden = BTreeMap<Arc<str>, Hidden>;

/// Changes are durable and could not be made visible.
pub(crate) fn not_visible(layout: &Layout, before: &AllHidden, now: &AllHidden) {
    #[cfg(feature = "tracing")]
    for (path, hidden) in now.iter().filter(|(path, _)| !before.contains_key(*path)) {
        let errno = hidden.errno.raw_os_error();
        event!(WARN, path = %layout.shown(path).display(), errno, "not visible");
    }
}
