//! The rooms of sudden ends: the filesystem is shut down under a load, or the load's process is killed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;

use crate::bench::{Bench, Look};
use crate::condition::Condition;
use crate::crew;
use crate::disk::Filesystem;
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
    let began = Instant::now();
    let loads: Vec<Load> = Load::all(seed).collect();
    let share = times.div_ceil(loads.len() as u64);
    let name = match stop {
        Stop::Filesystem => "shutdowns",
        Stop::Process => "kills",
    };
    // A load's stops in pieces, so that both workers are busy to the end.
    let piece = 10;
    let jobs: Vec<(Load, u64)> =
        loads.iter().flat_map(|load| (0..share.div_ceil(piece)).map(move |n| (*load, n))).collect();
    let bar = report.begin(&format!("{name} {}", filesystem.name), jobs.len() as u64);
    let mut sum = Tried::default();
    crew::share(
        2,
        jobs,
        || Bench::new(filesystem),
        |bench, (load, number)| {
            let count = piece.min(share - number * piece);
            several(bench, &load, stop, count, number)
        },
        |(tried, broken)| {
            bar.step();
            sum.merge(&tried);
            broken.iter().for_each(|broken| report.broken(broken));
        },
    )?;
    bar.end();
    sum.seconds = began.elapsed().as_secs_f64();
    Ok(sum)
}

fn several(
    bench: &mut Bench,
    load: &Load,
    stop: Stop,
    count: u64,
    number: u64,
) -> Result<(Tried, Vec<String>)> {
    let (mut tried, mut all) = (Tried::default(), Vec::new());
    let mut random = Rng::with_seed(load.seed ^ number << 32);
    // How long it runs, if nothing stops it.
    let mut whole = Duration::ZERO;
    let alone = bench.trial(
        load,
        &Condition::None,
        Look::Anew,
        |_| {},
        |child, _| {
            let began = Instant::now();
            child.wait()?;
            whole = began.elapsed();
            Ok(())
        },
    )?;
    all.extend(alone.broken);
    for _ in 0..count {
        let after = whole.mul_f64(random.f64()).max(Duration::from_millis(1));
        let mut hit = false;
        let look = match stop {
            Stop::Filesystem => Look::Anew,
            Stop::Process => Look::AsItIs,
        };
        let trial = bench.trial(
            load,
            &Condition::None,
            look,
            |_| {},
            |child, mounted| {
                sleep(after);
                hit = !child.is_over()?;
                match stop {
                    Stop::Filesystem => mounted.shutdown()?,
                    Stop::Process => child.kill()?,
                }
                Ok(())
            },
        )?;
        tried.add(hit, trial.answers, u64::from(!trial.broken.is_empty()));
        if !trial.broken.is_empty() {
            let kept = bench.keep(&bench.disk.image(), load, &trial.broken);
            let what = trial.broken.join("; ");
            all.push(format!(
                "{} {load}, {stop:?} after {after:?}: {what} ({kept})",
                bench.filesystem.name
            ));
        }
    }
    Ok((tried, all))
}

/// How many shutdowns it takes until something is broken; `None` if nothing is within so many.
pub(crate) fn until_broken(
    bench: &mut Bench,
    load: &Load,
    most: u64,
) -> Result<(u64, Option<String>)> {
    let (tried, broken) = several(bench, load, Stop::Filesystem, most, 0)?;
    Ok((tried.runs, broken.into_iter().next()))
}
