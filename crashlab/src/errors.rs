//! The room of device errors: every n-th request to the disk fails, until no load meets the fault any more.

use anyhow::Result;

use crate::bench::{Bench, Look, Trial};
use crate::condition::Condition;
use crate::crew;
use crate::disk::{Disk, Fault, Filesystem, Kind, Requests};
use crate::figures::Tried;
use crate::load::{Door, Load, Shape};
use crate::report::Report;

/// A way in which a disk fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    name: &'static str,
    of: Requests,
    kind: Kind,
    count: u64,
}

const WAYS: [Way; 4] = [
    // The write is lost.
    Way { name: "lost write", of: Requests::Writes, kind: Kind::Lost, count: 1 },
    // The disk has taken it, and says that it has not.
    Way { name: "taken write", of: Requests::Writes, kind: Kind::Taken, count: 1 },
    Way { name: "flush", of: Requests::Flushes, kind: Kind::Lost, count: 1 },
    // From here on nothing is taken.
    Way { name: "dying disk", of: Requests::Any, kind: Kind::Lost, count: u64::MAX },
];

/// The loads that meet the errors: a writer by threads, by the ring, and a store.
fn loads(seed: u64) -> Vec<Load> {
    let all = [
        (Shape::Singles, Door::Plain),
        (Shape::Singles, Door::Ring),
        (Shape::Many, Door::Threads),
        (Shape::Many, Door::RingByFile),
        (Shape::Crowd, Door::Ring),
        (Shape::Store, Door::Store),
        (Shape::Store, Door::StoreBehind),
        (Shape::Lives, Door::Store),
    ];
    all.map(|(shape, door)| Load::new(shape, door, seed)).to_vec()
}

/// Fails every `every`-th request of each load, in each way.
pub(crate) fn run(
    filesystem: &'static Filesystem,
    every: u64,
    seed: u64,
    report: &Report,
) -> Result<Tried> {
    let jobs = loads(seed).into_iter().flat_map(|load| WAYS.map(|way| (load, way))).collect();
    crew::try_all("errors", filesystem, jobs, report, |bench, (load, way)| {
        sweep(bench, &load, way, every)
    })
}

fn sweep(bench: &mut Bench, load: &Load, way: Way, every: u64) -> Result<Tried> {
    let mut tried = Tried::default();
    // Other places each time.
    let mut from = 1 + load.seed % every;
    let mut misses = 0;
    // How many requests there are differs from run to run.
    while misses < 3 {
        let trial = one(bench, load, way, from)?;
        misses = if trial.hit == 0 { misses + 1 } else { 0 };
        let how = format!("{} {from}", way.name);
        let is_broken = bench.tell(load, &how, &bench.disk.image(), &trial.broken);
        tried.add(trial.hit > 0, trial.answers, is_broken);
        from += every;
    }
    Ok(tried)
}

fn one(bench: &mut Bench, load: &Load, way: Way, from: u64) -> Result<Trial> {
    let Way { of, kind, count, .. } = way;
    let fault = Fault { of, kind, count, from, errno: libc::EIO };
    let before = |disk: &Disk| disk.fail(fault);
    bench.trial(load, &Condition::None, Look::Anew, before, |_, _| Ok(()))
}

/// How many runs with errors it takes until something is broken; `None` if nothing is within so many.
pub(crate) fn until_broken(
    bench: &mut Bench,
    load: &Load,
    most: u64,
) -> Result<(u64, Option<String>)> {
    let mut runs = 0;
    for from in 1.. {
        let mut is_hit = false;
        for way in WAYS {
            let trial = one(bench, load, way, from)?;
            runs += 1;
            is_hit |= trial.hit > 0;
            if let Some(broken) = trial.broken.into_iter().next() {
                return Ok((runs, Some(format!("{load}, {} {from}: {broken}", way.name))));
            }
        }
        if runs >= most || !is_hit {
            break;
        }
    }
    Ok((runs, None))
}
