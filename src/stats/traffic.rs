//! Who is in flight, since when, and what became of those who are not any more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::failures::Failures;
use super::latency::Latencies;
use crate::error::Error;
use crate::plan::Step;
use crate::receipt::{Carrier, Receipt};

/// What is counted of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answered {
    /// The step that failed.
    pub failed: Option<Step>,
    /// It was not written, for a newer version took its place.
    pub coalesced: bool,
    /// Bytes that were written for it.
    pub bytes: u64,
    pub carrier: Option<Carrier>,
    /// Syncs that were made for it alone, or of which it was the first.
    pub syncs: u64,
}

impl Answered {
    /// There is none, and nobody knows how far it came; who waits is told this step.
    pub(crate) const LOST: Answered = Answered {
        failed: Some(Step::Rename),
        coalesced: false,
        bytes: 0,
        carrier: None,
        syncs: 0,
    };

    pub(crate) fn of(answer: Result<&Receipt, &Error>, syncs: u64) -> Answered {
        match answer {
            Ok(Receipt { bytes, carrier, .. }) => {
                Answered { bytes: *bytes, carrier: Some(*carrier), syncs, ..Answered::default() }
            }
            Err(error) => Answered { failed: Some(error.step()), syncs, ..Answered::default() },
        }
    }

    /// Of a version that this one took the place of.
    pub(crate) fn of_older(self) -> Answered {
        Answered { failed: self.failed, coalesced: true, ..Answered::default() }
    }
}

/// Who is in flight, and what was answered.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Since when, in the order in which they found room.
    since: BTreeMap<u64, Instant>,
    totals: Totals,
}

/// The sums of what was answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    pub accepted: u64,
    pub answered: u64,
    pub failures: Failures,
    pub coalesced: u64,
    pub bytes: u64,
    pub by_ring: u64,
    pub by_pool: u64,
    pub by_caller: u64,
    pub syncs: u64,
    pub latencies: Latencies,
    /// How long the one that has been in flight for longest is so.
    pub oldest: Option<Duration>,
}

impl Traffic {
    /// One more is in flight; gives it a number.
    pub(crate) fn begin(&mut self) -> u64 {
        self.totals.accepted += 1;
        self.since.insert(self.totals.accepted, Instant::now());
        self.totals.accepted
    }

    /// That one is answered. Says how long it took.
    pub(crate) fn end(&mut self, number: u64, now: Instant, answered: Answered) -> Duration {
        let since = self.since.remove(&number).unwrap_or(now);
        let took = now.saturating_duration_since(since);
        let totals = &mut self.totals;
        totals.answered += 1;
        totals.coalesced += u64::from(answered.coalesced);
        totals.bytes += answered.bytes;
        totals.syncs += answered.syncs;
        match answered.carrier {
            Some(Carrier::Ring) => totals.by_ring += 1,
            Some(Carrier::Pool) => totals.by_pool += 1,
            Some(Carrier::Caller) => totals.by_caller += 1,
            None => {}
        }
        if let Some(step) = answered.failed {
            totals.failures.add(step);
        }
        totals.latencies.add(took);
        took
    }

    /// The sums, as they are now.
    pub(crate) fn totals(&self) -> Totals {
        let oldest = self.since.first_key_value().map(|(_, since)| since.elapsed());
        Totals { oldest, ..self.totals.clone() }
    }
}
