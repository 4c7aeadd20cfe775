//! What a writer tells of itself.

use std::time::Duration;

use crate::engine::counters::Counters;
use crate::engine::task::limits::Passed;
use crate::stats::{Failures, Latency};

/// What a [`Writer`](crate::Writer) has done since it was built, and what is under way; from
/// [`Writer::stats`](crate::Writer::stats).
///
/// Sums only grow. What never found room is not counted: a save of a closed writer, or of a value that does not
/// serialise.
#[non_exhaustive]
#[derive(Debug, Clone, Default)]
pub struct WriterStats {
    /// Saves that found room: `answered` and `in_flight` together.
    pub accepted: u64,
    /// Saves that were answered, well or not.
    pub answered: u64,
    /// Of those, the ones that were answered by an error.
    pub failed: u64,
    /// The same by the step that failed.
    pub failures: Failures,
    /// Versions that were not written, for a newer one took their place.
    pub coalesced: u64,
    /// Bytes of the payloads that were written, of saves that went well.
    pub bytes: u64,
    /// Who has written the files of the saves that went well, but for coalesced ones.
    pub carried: Carried,
    /// Chains of linked operations that were handed to the ring: of a save one, or a few.
    pub chains: u64,
    /// Times that saves which came together went through their steps together.
    pub cycles: u64,
    /// Saves in all of these cycles; by `cycles` it is how many share their syncs.
    pub files_in_cycles: u64,
    /// Shared barriers: a `syncfs` for all files of a cycle.
    pub barriers: u64,
    /// Files and directories that were synced one by one: of saves that were alone, and in cycles where no barrier is
    /// shared.
    pub syncs: u64,
    /// Saves that have room now and are not answered.
    pub in_flight: u64,
    /// How long the oldest of these has been in flight; `None` if there is none.
    pub oldest_in_flight: Option<Duration>,
    /// Saves that wait for room now.
    pub waiting: u64,
    /// From room to answer, of all that were answered.
    pub latency: Latency,
}

/// How many files were written by whom; see [`Carrier`](crate::Carrier).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// By the ring.
    pub ring: u64,
    /// By threads of the writer's pool.
    pub pool: u64,
    /// By the callers' own threads.
    pub caller: u64,
}

impl WriterStats {
    pub(super) fn new(passed: Passed, counters: &Counters) -> WriterStats {
        let Passed { totals, in_flight, waiting } = passed;
        WriterStats {
            accepted: totals.accepted,
            answered: totals.answered,
            failed: totals.failures.total(),
            failures: totals.failures,
            coalesced: totals.coalesced,
            bytes: totals.bytes,
            carried: Carried {
                ring: totals.by_ring,
                pool: totals.by_pool,
                caller: totals.by_caller,
            },
            chains: counters.chains(),
            cycles: counters.cycles(),
            files_in_cycles: counters.files_in_cycles(),
            barriers: counters.barriers(),
            syncs: totals.syncs,
            in_flight,
            oldest_in_flight: totals.oldest,
            waiting,
            latency: totals.latencies.figures(),
        }
    }
}
