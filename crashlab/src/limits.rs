//! The room of lacks: no descriptors, no threads, no memory, no room on the disk, denied calls, a ring that dies.

use std::time::Instant;

use anyhow::Result;

use crate::bench::{Bench, Look};
use crate::condition::{Call, Condition};
use crate::crew;
use crate::disk::Filesystem;
use crate::figures::Tried;
use crate::load::{Door, Load, Shape};
use crate::report::Report;

/// Every lack, `fineness` steps of those that have a measure.
fn conditions(fineness: u64) -> Vec<Condition> {
    let steps = |from: u64, to: u64| (0..fineness).map(move |n| from + (to - from) * n / fineness);
    let mut all: Vec<Condition> = Vec::new();
    all.extend(steps(5, 40).map(Condition::Descriptors));
    all.extend(steps(1, 12).map(Condition::Threads));
    all.extend(steps(0, 64 << 20).map(Condition::Memory));
    all.extend(steps(0, 600 << 10).map(Condition::Room));
    all.extend(steps(200, 30_000).map(Condition::RingDies));
    for call in Call::ALL {
        for errno in [libc::EPERM, libc::ENOSYS, libc::EIO, libc::ENOMEM] {
            all.push(Condition::Deny { call, errno });
        }
    }
    all
}

fn loads(seed: u64) -> Vec<Load> {
    let all = [
        (Shape::Singles, Door::Plain),
        (Shape::Singles, Door::Ring),
        (Shape::Many, Door::Threads),
        (Shape::Many, Door::Ring),
        (Shape::Store, Door::Store),
        (Shape::Lives, Door::Store),
    ];
    all.map(|(shape, door)| Load::new(shape, door, seed)).to_vec()
}

/// Carries every load out under every lack.
pub(crate) fn run(
    filesystem: &'static Filesystem,
    fineness: u64,
    seed: u64,
    report: &Report,
) -> Result<Tried> {
    let began = Instant::now();
    let jobs: Vec<(Load, Condition)> = loads(seed)
        .into_iter()
        .flat_map(|load| conditions(fineness).into_iter().map(move |condition| (load, condition)))
        .collect();
    let bar = report.begin(&format!("limits {}", filesystem.name), jobs.len() as u64);
    let mut sum = Tried::default();
    crew::share(
        2,
        jobs,
        || Bench::new(filesystem),
        |bench, (load, condition)| {
            let trial = bench.trial(&load, &condition, Look::AsItIs, |_| {}, |_, _| Ok(()))?;
            let broken = (!trial.broken.is_empty()).then(|| {
                let kept = bench.keep(&bench.disk.image(), &load, &trial.broken);
                format!("{load} with {condition}: {} ({kept})", trial.broken.join("; "))
            });
            Ok((trial.answers, broken))
        },
        |(answers, broken)| {
            bar.step();
            // Something was not done as asked.
            sum.add(answers[1] + answers[2] > 0, answers, u64::from(broken.is_some()));
            broken.iter().for_each(|broken| report.broken(broken));
        },
    )?;
    bar.end();
    sum.seconds = began.elapsed().as_secs_f64();
    Ok(sum)
}
