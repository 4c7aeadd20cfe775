//! The room of lacks: no descriptors, no threads, no memory, no room on the disk, denied calls, a ring that dies.

use anyhow::Result;

use crate::bench::Look;
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
        (Shape::Store, Door::StoreBehind),
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
    let with = |load| conditions(fineness).into_iter().map(move |condition| (load, condition));
    let jobs = loads(seed).into_iter().flat_map(with).collect();
    crew::try_all("limits", filesystem, jobs, report, |bench, (load, condition)| {
        let trial = bench.trial(&load, &condition, Look::AsItIs, |_| {}, |_, _| Ok(()))?;
        let how = condition.to_string();
        let is_broken = bench.tell(&load, &how, &bench.disk.image(), &trial.broken);
        let [_, unchanged, unknown] = trial.answers;
        let mut tried = Tried::default();
        // Something was not done as asked.
        tried.add(unchanged + unknown > 0, trial.answers, is_broken);
        Ok(tried)
    })
}
