//! The rooms of sudden ends: the filesystem is shut down under a load, or the load's process is killed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;

use crate::bench::{Bench, Look, Process, Trial};
use crate::condition::Condition;
use crate::crew;
use crate::disk::{Filesystem, Mounted};
use crate::figures::Tried;
use crate::load::Load;
use crate::report::Report;

/// What ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The filesystem, by FS_IOC_SHUTDOWN without a flush of its log.
    Filesystem,
    /// The process, by SIGKILL.
    Process,
}

/// Stops as many loads as told, each at a moment of its own.
pub(crate) fn run(
    filesystem: &'static Filesystem,
    stop: Stop,
    times: u64,
    seed: u64,
    report: &Report,
) -> Result<Tried> {
    let loads: Vec<Load> = Load::all(seed).collect();
    let share = times.div_ceil(loads.len() as u64);
    let name = match stop {
        Stop::Filesystem => "shutdowns",
        Stop::Process => "kills",
    };
    // A load's stops in pieces, so that all workers are busy to the end.
    let piece = 10;
    let pieces = |load| (0..share.div_ceil(piece)).map(move |number| (load, number));
    let jobs = loads.into_iter().flat_map(pieces).collect();
    crew::try_all(name, filesystem, jobs, report, |bench, (load, number)| {
        let count = piece.min(share - number * piece);
        several(bench, &load, stop, count, number)
    })
}

/// Stops a load several times.
fn several(bench: &mut Bench, load: &Load, stop: Stop, count: u64, number: u64) -> Result<Tried> {
    let mut tried = Tried::default();
    let mut random = Rng::with_seed(load.seed ^ number << 32);
    let (whole, broken) = how_long(bench, load)?;
    tried.broken += u64::from(bench.tell(load, "undisturbed", &bench.disk.image(), &broken));
    for _ in 0..count {
        let after = whole.mul_f64(random.f64());
        let (hit, trial) = once(bench, load, stop, after)?;
        let how = format!("{stop:?} after {after:?}");
        let is_broken = bench.tell(load, &how, &bench.disk.image(), &trial.broken);
        tried.add(hit, trial.answers, is_broken);
    }
    Ok(tried)
}

/// How long a load runs if nothing stops it; and what is broken then.
fn how_long(bench: &mut Bench, load: &Load) -> Result<(Duration, Vec<String>)> {
    let mut whole = Duration::ZERO;
    let time = |child: &mut Process, _: &Mounted| {
        let began = Instant::now();
        child.wait()?;
        whole = began.elapsed();
        Ok(())
    };
    let trial = bench.trial(load, &Condition::None, Look::Anew, |_| {}, time)?;
    Ok((whole, trial.broken))
}

/// Stops a load after a time; whether it was still at work then.
fn once(bench: &mut Bench, load: &Load, stop: Stop, after: Duration) -> Result<(bool, Trial)> {
    let mut hit = false;
    let look = match stop {
        Stop::Filesystem => Look::Anew,
        Stop::Process => Look::AsItIs,
    };
    let disturb = |child: &mut Process, mounted: &Mounted| {
        sleep(after.max(Duration::from_millis(1)));
        hit = !child.is_over()?;
        match stop {
            Stop::Filesystem => Ok(mounted.shutdown()?),
            Stop::Process => child.kill(),
        }
    };
    let trial = bench.trial(load, &Condition::None, look, |_| {}, disturb)?;
    Ok((hit, trial))
}

/// How many runs, with a shutdown but for the first, it takes until something is broken; `None` if nothing is within
/// so many.
pub(crate) fn until_broken(
    bench: &mut Bench,
    load: &Load,
    most: u64,
) -> Result<(u64, Option<String>)> {
    let mut random = Rng::with_seed(load.seed);
    let (whole, broken) = how_long(bench, load)?;
    if let Some(broken) = broken.into_iter().next() {
        return Ok((1, Some(format!("{load}, undisturbed: {broken}"))));
    }
    let most = most.max(2);
    for run in 2..=most {
        let after = whole.mul_f64(random.f64());
        let (_, trial) = once(bench, load, Stop::Filesystem, after)?;
        if let Some(broken) = trial.broken.into_iter().next() {
            return Ok((run, Some(format!("{load}, shutdown after {after:?}: {broken}"))));
        }
    }
    Ok((most, None))
}
