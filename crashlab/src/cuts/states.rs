//! Which disks a power cut can leave, of all that a tape allows: chosen by a seed. Pure.

use std::collections::HashSet;

use fastrand::Rng;

use crate::disk::{Event, Kept, Tape, Walk};

/// Writes, in order of arrival, and how much of each.
pub(crate) type Chosen = Vec<(usize, Kept)>;

/// A disk that a power cut could have left.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// So many events had happened.
    pub(crate) cut: usize,
    /// Of the writes that no flush had covered, those that the disk had taken.
    pub(crate) chosen: Chosen,
}

/// Up to `most` states of a tape, behind its first note, in the order of their cuts.
///
/// At each cut: nothing that was not flushed is there, or all of it; each of it alone, each missing alone; where
/// there are up to four, every subset; three subsets at random; the last one torn, and another. Of two cuts
/// between which nothing came to the disk the later one is taken: it has more answers to keep.
pub(crate) fn choose(tape: &Tape, base: &crate::disk::Image, most: usize, seed: u64) -> Vec<State> {
    let mut random = Rng::with_seed(seed);
    let mut walk = Walk::new(tape, base.clone());
    let mut known: HashSet<(usize, usize, Chosen)> = HashSet::new();
    // Where an answer was given last, for there something can be missing.
    let (mut first, mut others) = (Vec::new(), Vec::new());
    let mut notes = 0;
    loop {
        let next = tape.events.get(walk.cut());
        let changes = !matches!(next, Some(Event::Note(_) | Event::Written { .. }));
        if changes && notes > 0 {
            let mut ways = ways(tape, walk.pending(), &mut random);
            ways.retain(|chosen| known.insert((walk.epoch(), notes, chosen.clone())));
            for chosen in ways {
                let state = State { cut: walk.cut(), chosen };
                if state.chosen.is_empty() { first.push(state) } else { others.push(state) }
            }
        }
        match walk.advance() {
            Some(Event::Note(_)) => notes += 1,
            Some(_) => {}
            None => break,
        }
    }
    random.shuffle(&mut first);
    random.shuffle(&mut others);
    // Half of them with the least that can be there, and the rest of every kind.
    first.truncate(most / 2);
    others.truncate(most - first.len());
    first.append(&mut others);
    first.sort_by_key(|state| state.cut);
    first
}

fn ways(tape: &Tape, pending: &[usize], random: &mut Rng) -> Vec<Chosen> {
    let whole =
        |writes: &[usize]| -> Chosen { writes.iter().map(|write| (*write, Kept::Whole)).collect() };
    let mut ways = vec![Vec::new(), whole(pending)];
    if pending.len() <= 4 {
        for subset in 0..1_usize << pending.len() {
            let is_in = |at: usize| subset >> at & 1 == 1;
            let writes = pending.iter().enumerate().filter(|(at, _)| is_in(*at)).map(|(_, w)| *w);
            ways.push(whole(&writes.collect::<Vec<_>>()));
        }
    } else {
        for at in 0..pending.len() {
            ways.push(whole(&pending[at..=at]));
            ways.push(whole(&[&pending[..at], &pending[at + 1..]].concat()));
        }
    }
    for _ in 0..3 {
        let writes: Vec<usize> = pending.iter().copied().filter(|_| random.bool()).collect();
        ways.push(whole(&writes));
    }
    let mut to_tear = Vec::new();
    if let Some(last) = pending.len().checked_sub(1) {
        to_tear.push(last);
        if last > 0 {
            to_tear.push(random.usize(..last));
        }
    }
    for at in to_tear {
        let Event::Write { bytes, .. } = &tape.events[pending[at]] else { continue };
        for kept in Kept::torn(bytes.len(), 4096) {
            let torn = [(pending[at], kept)];
            ways.push(torn.to_vec());
            ways.push([&whole(&pending[..at])[..], &torn, &whole(&pending[at + 1..])].concat());
        }
    }
    ways
}
