//! The room of power cuts: loads are recorded below a mounted filesystem, and of the disks that a power cut could
//! have left many are looked at; so are those of a cut in the recovery from one.

mod states;

use anyhow::Result;

use crate::bench::{Bench, RECOVERY, Recording, said};
use crate::crew;
use crate::disk::{Event, Filesystem, Image, Latency, Tape, Walk};
use crate::figures::Cuts;
use crate::load::Load;
use crate::load::note::Note;
use crate::load::script::Script;
use crate::promise::Said;
use crate::report::Report;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Seeds for each shape and door.
    pub(crate) seeds: u64,
    /// States of each recording.
    pub(crate) states: usize,
    /// Recoveries of each recording, that are recorded and cut too.
    pub(crate) recoveries: usize,
    /// States of each recovery.
    pub(crate) states_of_recovery: usize,
}

/// What came of a recording.
#[derive(Debug, Default)]
struct Done {
    states: u64,
    recovery_states: u64,
    recoveries: u64,
    broken: u64,
}

/// Cuts the power of a filesystem.
pub(crate) fn run(
    filesystem: &'static Filesystem,
    size: Size,
    first_seed: u64,
    report: &Report,
) -> Result<Cuts> {
    let loads: Vec<Load> = (first_seed..first_seed + size.seeds).flat_map(Load::all).collect();
    let began = std::time::Instant::now();
    let recordings = loads.len() as u64;
    let bar = report.begin(&format!("cuts {}", filesystem.name), recordings);
    let mut sum = Done::default();
    crew::share(
        loads,
        || Bench::new(filesystem),
        |bench, load| one(bench, &load, size),
        |done| {
            bar.step();
            sum.states += done.states;
            sum.recovery_states += done.recovery_states;
            sum.recoveries += done.recoveries;
            sum.broken += done.broken;
        },
    )?;
    bar.end();
    Ok(Cuts {
        recordings,
        states: sum.states,
        recoveries: sum.recoveries,
        recovery_states: sum.recovery_states,
        broken: sum.broken,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Replies that come late, so that writes are under way while others are flushed.
fn latency(load: &Load) -> Latency {
    Latency { max_us: [0, 300, 1000][load.seed as usize % 3], seed: load.seed }
}

fn one(bench: &mut Bench, load: &Load, size: Size) -> Result<Done> {
    let recording = bench.record(load, latency(load))?;
    let mut done = Done::default();
    let wrong = wrong_by_itself(&recording);
    done.broken += u64::from(bench.tell(load, "undisturbed", &bench.disk.image(), &wrong));
    let mut random = fastrand::Rng::with_seed(load.seed);
    // Images to recover from, and what was said before them.
    let mut cut_again: Vec<(Image, Said)> = Vec::new();
    examine_states(bench, &recording, size.states, |bench, image, said| {
        done.states += 1;
        let broken = bench.examine(load, &image, said);
        // At random, but so that there are as many as asked for.
        let left = (size.states as u64).saturating_sub(done.states) as usize;
        let wanted = size.recoveries - cut_again.len().min(size.recoveries);
        if random.usize(..=left) < wanted {
            cut_again.push((image.clone(), said.clone()));
        }
        // The others are like the first.
        let is_broken = bench.tell(load, "cut", &image, &broken);
        done.broken += u64::from(is_broken);
        !is_broken
    })?;
    for (image, said) in cut_again {
        let recovery = bench.record_recovery(load, image.clone(), latency(load))?;
        done.recoveries += 1;
        done.broken += u64::from(bench.tell(load, "recovery", &image, &recovery.broken));
        examine_states(bench, &recovery, size.states_of_recovery, |bench, image, _| {
            done.recovery_states += 1;
            let broken = bench.examine(load, &image, &said);
            let is_broken = bench.tell(load, "cut in the recovery", &image, &broken);
            done.broken += u64::from(is_broken);
            !is_broken
        })?;
    }
    Ok(done)
}

/// What is wrong with a load that nothing disturbed.
fn wrong_by_itself(recording: &Recording) -> Vec<String> {
    let load = &recording.load;
    let mut wrong = said(load, &recording.tape.events).not_done(load.door.is_ring());
    wrong.extend_from_slice(&recording.broken);
    wrong
}

/// Goes through chosen states of a recording, with what was said before each, until one says to end.
fn examine_states(
    bench: &mut Bench,
    recording: &Recording,
    most: usize,
    mut each: impl FnMut(&mut Bench, Image, &Said) -> bool,
) -> Result<()> {
    let Recording { load, base, tape, .. } = recording;
    let chosen = states::choose(tape, base, most, load.seed);
    let mut walk = Walk::new(tape, base.clone());
    let mut said = Said::new(Script::of(load).first);
    for state in chosen {
        while walk.cut() < state.cut {
            if let Some(Event::Note(line)) = walk.advance() {
                if line != RECOVERY {
                    said.hear(Note::parse(line));
                }
            }
        }
        if !each(bench, walk.build(&state.chosen), &said) {
            break;
        }
    }
    Ok(())
}

/// How many states of a load are looked at until something is broken; `None` if nothing is within so many.
pub(crate) fn until_broken(
    bench: &mut Bench,
    load: &Load,
    each: usize,
    most: u64,
    spoil: impl Fn(Tape) -> Tape,
) -> Result<(u64, Option<String>)> {
    let mut recording = bench.record(load, latency(load))?;
    // A load that was not carried out would not be found broken.
    if let Some(wrong) = wrong_by_itself(&recording).into_iter().next() {
        return Ok((1, Some(format!("{load}: {wrong}"))));
    }
    recording.tape = spoil(recording.tape);
    let mut states = 0;
    let mut found = None;
    examine_states(bench, &recording, each, |bench, image, said| {
        states += 1;
        let broken = bench.examine(load, &image, said);
        found = broken.into_iter().next().map(|broken| format!("{load}: {broken}"));
        found.is_none() && states < most
    })?;
    Ok((states, found))
}

/// A tape of a disk that says that it has flushed, and does so only every so often.
pub(crate) fn ignoring_flushes(mut tape: Tape, but_every: usize) -> Tape {
    let mut count = 0;
    for event in &mut tape.events {
        if let Event::Flush { began } = event {
            count += 1;
            if count % but_every != 0 {
                *began = 0;
            }
        }
    }
    tape
}
