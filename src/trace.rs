//! Spans and events, for whoever has a [`tracing`](https://docs.rs/tracing) subscriber: one function for each, and
//! nothing at all without the feature `tracing`. `docs/operations.md` has the table.
//!
//! No event has a payload, nor the text of a cause, which can quote one. A subscriber is code of somebody else's: it is
//! called under no lock of a writer's (but under the one of a store's log), and what panics in it ends here.

#![cfg_attr(not(feature = "tracing"), allow(unused_variables))]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::engine::Why;
use crate::error::Error;
use crate::plan::Outcome;
use crate::receipt::Receipt;
use crate::store::{Committed, Hidden, Layout, Recovery};

/// An event, or nothing.
macro_rules! event {
    ($level:ident, $($fields_and_message:tt)+) => {
        #[cfg(feature = "tracing")]
        contained(|| tracing::event!(target: "ringseal", tracing::Level::$level, $($fields_and_message)+));
    };
}

/// A span that ends with its value, or nothing.
macro_rules! span {
    ($level:ident, $($name_and_fields:tt)+) => {{
        #[cfg(feature = "tracing")]
        let mut span = None;
        #[cfg(feature = "tracing")]
        contained(|| {
            let new = tracing::span!(target: "ringseal", tracing::Level::$level, $($name_and_fields)+);
            span = Some(new.entered());
        });
        Span {
            #[cfg(feature = "tracing")]
            entered: span,
        }
    }};
}

/// A save found room, and its target is open.
pub(crate) fn accepted(save: u64, path: &Path, bytes: usize) {
    event!(TRACE, save, path = %path.display(), bytes, "accepted");
}

/// A save is answered.
pub(crate) fn answered(save: u64, took: Duration, answer: Result<&Receipt, &Error>) {
    match answer {
        Ok(receipt) => {
            event!(
                TRACE,
                save,
                sequence = receipt.sequence,
                bytes = receipt.bytes,
                durability = receipt.durability.name(),
                carrier = receipt.carrier.name(),
                coalesced_into = receipt.coalesced_into,
                micros = micros(took),
                "answered"
            );
        }
        Err(error) => failed(save, took, error),
    }
}

/// A save, or a transaction, has failed.
pub(crate) fn failed(save: u64, took: Duration, error: &Error) {
    macro_rules! failed {
        ($level:ident, $message:literal) => {
            event!(
                $level,
                save,
                path = %error.target().display(),
                step = error.step().name(),
                errno = error.raw_os_error(),
                outcome = error.outcome().name(),
                micros = micros(took),
                $message
            )
        };
    }
    if error.outcome() == Outcome::Unchanged {
        failed!(DEBUG, "failed");
    } else {
        failed!(WARN, "failed, and the target is not known to be as it was");
    }
}

/// The span of a cycle: answers of its saves are within.
pub(crate) fn cycle(files: usize) -> Span {
    span!(DEBUG, "cycle", files)
}

/// Cycles and saves go on without the ring.
pub(crate) fn ring_given_up(why: &Why) {
    event!(WARN, why = %why, "the ring is given up; threads go on");
}

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

/// A span that was entered; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    entered: Option<tracing::span::EnteredSpan>,
}

#[cfg(feature = "tracing")]
impl Drop for Span {
    fn drop(&mut self) {
        contained(|| drop(self.entered.take()));
    }
}

#[cfg(feature = "tracing")]
fn contained(body: impl FnOnce()) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
}

#[cfg(feature = "tracing")]
fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}
