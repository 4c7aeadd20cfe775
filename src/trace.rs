//! Spans and events, for whoever has a [`tracing`](https://docs.rs/tracing) subscriber: one function for each, and
//! nothing at all without the feature `tracing`. `docs/operations.md` has the table. A store's are its own.
//!
//! No event has a payload, nor the text of a cause, which can quote one. A subscriber is code of somebody else's: it is
//! called under no lock of a writer's (but under the one of a store's log), and what panics in it ends here.

#![cfg_attr(not(feature = "tracing"), allow(unused_variables))]

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::plan::Outcome;
use crate::receipt::Receipt;

/// An event, or nothing.
macro_rules! event {
    ($level:ident, $($fields_and_message:tt)+) => {
        #[cfg(feature = "tracing")]
        $crate::trace::contained(|| tracing::event!(target: "ringseal", tracing::Level::$level, $($fields_and_message)+));
    };
}

/// A span that ends with its value, or nothing.
macro_rules! span {
    ($level:ident, $($name_and_fields:tt)+) => {{
        #[cfg(feature = "tracing")]
        let mut span = None;
        #[cfg(feature = "tracing")]
        $crate::trace::contained(|| {
            let new = tracing::span!(target: "ringseal", tracing::Level::$level, $($name_and_fields)+);
            span = Some(new.entered());
        });
        $crate::trace::Span {
            #[cfg(feature = "tracing")]
            entered: span,
        }
    }};
}

pub(crate) use {event, span};

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
pub(crate) fn ring_given_up(why: &impl Display) {
    event!(WARN, why = %why, "the ring is given up; threads go on");
}

/// A span that was entered; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    pub(crate) entered: Option<tracing::span::EnteredSpan>,
}

#[cfg(feature = "tracing")]
impl Drop for Span {
    fn drop(&mut self) {
        contained(|| drop(self.entered.take()));
    }
}

#[cfg(feature = "tracing")]
pub(crate) fn contained(body: impl FnOnce()) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
}

#[cfg(feature = "tracing")]
pub(crate) fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}
