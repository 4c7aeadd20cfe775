//! The rooms of sudden ends: the filesystem is shut down under a load, or the load's process is killed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;

use crate::bench::{Bench, Look};
use crate::condition::Condition;
use crate::crew;
use crate::disk::{Disk, Filesystem};
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
        Ok(several(bench, &load, stop, count, number, false)?.0)
    })
}

/// Stops a load several times; what is broken, and with `until_broken` no more after that.
fn several(
    bench: &mut Bench,
    load: &Load,
    stop: Stop,
    count: u64,
    number: u64,
    until_broken: bool,
) -> Result<(Tried, Option<String>)> {
    let (mut tried, mut found) = (Tried::default(), None);
    let mut random = Rng::with_seed(load.seed ^ number << 32);
    let undisturbed = |_: &Disk| {};
    // How long it runs, if nothing stops it.
    let mut whole = Duration::ZERO;
    let alone = bench.trial(load, &Condition::None, Look::Anew, undisturbed, |child, _| {
        let began = Instant::now();
        child.wait()?;
        whole = began.elapsed();
        Ok(())
    })?;
    tried.broken += u64::from(bench.tell(load, "undisturbed", &bench.disk.image(), &alone.broken));
    for _ in 0..count {
        let after = whole.mul_f64(random.f64()).max(Duration::from_millis(1));
        let mut hit = false;
        let look = match stop {
            Stop::Filesystem => Look::Anew,
            Stop::Process => Look::AsItIs,
        };
        let trial = bench.trial(load, &Condition::None, look, undisturbed, |child, mounted| {
            sleep(after);
            hit = !child.is_over()?;
            match stop {
                Stop::Filesystem => mounted.shutdown()?,
                Stop::Process => child.kill()?,
            }
            Ok(())
        })?;
        let how = format!("{stop:?} after {after:?}");
        if until_broken {
            found = trial.broken.first().map(|broken| format!("{load}, {how}: {broken}"));
            tried.add(hit, trial.answers, found.is_some());
            if found.is_some() {
                break;
            }
        } else {
            let is_broken = bench.tell(load, &how, &bench.disk.image(), &trial.broken);
            tried.add(hit, trial.answers, is_broken);
        }
    }
    Ok((tried, found))
}

/// How many shutdowns it takes until something is broken; `None` if nothing is within so many.
pub(crate) fn until_broken(
    bench: &mut Bench,
    load: &Load,
    most: u64,
) -> Result<(u64, Option<String>)> {
    let (tried, found) = several(bench, load, Stop::Filesystem, most, 0, true)?;
    Ok((tried.runs, found))
}
