//! The room of inputs: names, paths, bytes and sequences that nobody thought of, against models of what has to
//! come of them.
//!
//! ```text
//!   run ──▶ chunks of cases, of every room in turn ──▶ worker: a forked process for each chunk
//!                                                        room: generates, checks, shrinks
//! ```
//!
//! A chunk is a process of its own, so that a case which aborts, hangs or takes all memory ends one chunk, and is
//! found by doing that chunk again, case by case.

mod files;
mod logs;
mod rooms;
mod segment;
mod states;
mod store;
mod tree;
mod trees;
mod worker;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use rooms::{ROOMS, Room};
use worker::{Chunk, End, Worker};

/// What became of a room.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub room: String,
    pub cases: u64,
    pub broken: u64,
    /// Of all its processes together.
    pub seconds: f64,
}

/// A room in which so much is broken is left.
const BROKEN_MAX: u64 = 3;

/// Runs so many cases, shared out among the rooms. What is broken is printed, with what gives it again.
pub(crate) fn run(
    cases: u64,
    seed: u64,
    progress: &dyn Fn(&str, u64),
) -> anyhow::Result<Vec<Tally>> {
    let shares: u64 = ROOMS.iter().map(|room| room.share).sum();
    let wanted = ROOMS.iter().map(|room| (room, (cases * room.share).div_ceil(shares)));
    run_rooms(wanted.collect(), seed, progress)
}

/// Runs so many cases of one room.
pub(crate) fn run_room(
    name: &str,
    cases: u64,
    seed: u64,
    progress: &dyn Fn(&str, u64),
) -> anyhow::Result<Vec<Tally>> {
    let room = ROOMS.iter().find(|room| room.name == name);
    let room = room.ok_or_else(|| anyhow::anyhow!("there is no room {name}"))?;
    run_rooms(vec![(room, cases)], seed, progress)
}

/// How far a room has come.
struct Standing {
    room: &'static Room,
    wanted: u64,
    begun: u64,
    chunks: u64,
    tally: Tally,
}

fn run_rooms(
    wanted: Vec<(&'static Room, u64)>,
    seed: u64,
    progress: &dyn Fn(&str, u64),
) -> anyhow::Result<Vec<Tally>> {
    let standing = |(room, wanted): (&'static Room, u64)| Standing {
        room,
        wanted,
        begun: 0,
        chunks: 0,
        tally: Tally { room: room.name.to_owned(), cases: 0, broken: 0, seconds: 0.0 },
    };
    let mut rooms: Vec<Standing> = wanted.into_iter().map(standing).collect();
    let width = std::thread::available_parallelism().map_or(1, usize::from);
    let mut workers: Vec<(usize, Worker)> = Vec::new();
    let mut told = Instant::now();
    loop {
        while workers.len() < width {
            let Some(next) = least_done(&rooms) else { break };
            let room = &mut rooms[next];
            let cases = room.room.chunk.min(room.wanted - room.begun);
            // So that a chunk by itself is given again by its seed.
            let seed = seed.wrapping_add(room.chunks);
            (room.begun, room.chunks) = (room.begun + cases, room.chunks + 1);
            let chunk = Chunk { room: room.room, cases, seed, traced: false };
            workers.push((next, Worker::start(chunk)?));
        }
        if workers.is_empty() {
            return Ok(rooms.into_iter().map(|room| room.tally).collect());
        }
        worker::wait(workers.iter().map(|(_, worker)| worker), Duration::from_millis(500));
        let mut index = 0;
        while index < workers.len() {
            let Some(end) = workers[index].1.end()? else {
                index += 1;
                continue;
            };
            let (room, worker) = workers.swap_remove(index);
            take(&mut rooms[room].tally, &worker, end)?;
        }
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            rooms.iter().for_each(|room| progress(room.room.name, room.tally.cases));
        }
    }
}

/// The room that has the smallest part of its cases behind it.
fn least_done(rooms: &[Standing]) -> Option<usize> {
    let is_open = |room: &Standing| room.begun < room.wanted && room.tally.broken < BROKEN_MAX;
    let open = rooms.iter().enumerate().filter(|(_, room)| is_open(room));
    let part = |room: &Standing| room.begun as f64 / room.wanted as f64;
    open.min_by(|(_, one), (_, other)| part(one).total_cmp(&part(other))).map(|(index, _)| index)
}

fn take(tally: &mut Tally, worker: &Worker, end: End) -> anyhow::Result<()> {
    let Chunk { room, cases, seed, .. } = worker.chunk;
    tally.seconds += worker.seconds();
    let broken = match end {
        End::Outcome(outcome) => {
            tally.cases += outcome.cases;
            outcome.broken
        }
        End::Died(how) => {
            // Once more, one case after the other, to learn which it is.
            let mut again = Worker::start(Chunk { traced: true, ..worker.chunk })?;
            let end = loop {
                worker::wait([&again].into_iter(), Duration::from_millis(500));
                if let Some(end) = again.end()? {
                    break end;
                }
            };
            match end {
                End::Died(how) => vec![format!("the process {how}\n{}", again.last_case())],
                End::Outcome(outcome) if !outcome.broken.is_empty() => outcome.broken,
                End::Outcome(_) => vec![format!("the process {how}, and not again")],
            }
        }
    };
    for what in broken {
        tally.broken += 1;
        let name = room.name;
        println!("{name} is broken (inputs --only {name} --seed {seed} --cases {cases}): {what}");
    }
    Ok(())
}
