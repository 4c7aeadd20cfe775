//! What a room is: a generator of cases, and a check that each has to pass.

use std::cell::Cell;
use std::fmt::Debug;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde::{Deserialize, Serialize};

/// A room.
#[derive(Debug)]
pub(super) struct Room {
    pub name: &'static str,
    /// Its part of all cases.
    pub share: u64,
    /// Cases of one process: a second or so.
    pub chunk: u64,
    /// Cases, seed, and a directory in memory that is its own.
    pub run: fn(u64, u64, &Path) -> anyhow::Result<Outcome>,
}

/// The rooms. Those whose cases cost little have most of them.
pub(super) const ROOMS: [Room; 5] = [
    Room { name: "files", share: 45, chunk: 2000, run: super::files::run },
    Room { name: "store", share: 4, chunk: 300, run: super::store::run },
    Room { name: "states", share: 45, chunk: 4000, run: super::states::run },
    Room { name: "logs", share: 3, chunk: 200, run: super::logs::run },
    Room { name: "trees", share: 3, chunk: 200, run: super::trees::run },
];

/// What became of some cases.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub cases: u64,
    /// The smallest case that was found of each failure, and what is wrong with it.
    pub broken: Vec<String>,
}

/// Panics of this process so far, in whatever thread, and the last one's words.
static PANICS: AtomicU64 = AtomicU64::new(0);
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Where each case is written before it is done.
static TRACE: OnceLock<File> = OnceLock::new();

/// Counts panics instead of printing them: while a case is shrunk there are hundreds.
pub(super) fn count_panics() {
    std::panic::set_hook(Box::new(|panic| {
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
        PANICS.fetch_add(1, Ordering::SeqCst);
    }));
}

/// From now on each case is written to this file before it is done.
pub(super) fn trace_to(file: File) {
    let _ = TRACE.set(file);
}

/// Does cases until one fails, which is then made as small as it can be.
pub(super) fn check<S: Strategy>(
    cases: u64,
    seed: u64,
    strategy: &S,
    test: impl Fn(S::Value) -> anyhow::Result<()>,
) -> Outcome
where
    S::Value: Debug,
{
    let config = Config {
        cases: u32::try_from(cases).unwrap_or(u32::MAX),
        failure_persistence: None,
        max_shrink_iters: 4000,
        max_shrink_time: 20_000,
        ..Config::default()
    };
    let mut bytes = [0x5e; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::XorShift, &bytes);
    let (done, failed) = (Cell::new(0), Cell::new(false));
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(strategy, |case| {
        trace(&case);
        if !failed.get() {
            done.set(done.get() + 1);
        }
        let before = PANICS.load(Ordering::SeqCst);
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(case)));
        let why = match passed {
            _ if PANICS.load(Ordering::SeqCst) > before => last_panic(),
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "it panicked".to_owned(),
        };
        failed.set(true);
        Err(TestCaseError::fail(why))
    });
    let broken = match result {
        Ok(()) => vec![],
        Err(TestError::Fail(why, case)) => vec![format!("{}\n  {case:?}", why.message())],
        Err(TestError::Abort(why)) => vec![format!("no cases: {}", why.message())],
    };
    Outcome { cases: done.get(), broken }
}

/// A panic that came after the last case, in a thread that it had left.
pub(super) fn late_panic(before: u64) -> Option<String> {
    (PANICS.load(Ordering::SeqCst) > before).then(last_panic)
}

pub(super) fn panics() -> u64 {
    PANICS.load(Ordering::SeqCst)
}

fn last_panic() -> String {
    LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn trace(case: &impl Debug) {
    if let Some(file) = TRACE.get() {
        let _ = file.set_len(0);
        let _ = file.write_all_at(format!("  {case:?}").as_bytes(), 0);
    }
}
