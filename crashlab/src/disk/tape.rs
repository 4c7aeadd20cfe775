//! What happened to a disk, in one order with what was said above it; and what that means at a cut.

use std::sync::Arc;

use super::image::Image;

/// What happened below the filesystem, and what was said above it, in one order.
#[derive(Debug, Default)]
pub struct Tape {
    pub events: Vec<Event>,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// A write came in. The medium has it for certain once a flush that came in after its answer
    /// (`Written`) was answered. Its number is this event's index.
    Write { offset: u64, bytes: Arc<[u8]> },
    /// Blocks were given up and read as zeros; otherwise like a write.
    Discard { offset: u64, len: u64 },
    /// The write or discard at `events[write]` was answered.
    Written { write: usize },
    /// A flush that came in when the tape had `began` events was answered.
    Flush { began: usize },
    /// Somebody said something.
    Note(String),
}

/// How much of a write that no flush covered reached the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kept {
    Whole,
    /// Only so many bytes at its start.
    First(usize),
    /// Only so many bytes at its end.
    Last(usize),
    /// Every second piece of so many bytes: the first, third, ... or, if `odd`, the others.
    EverySecond {
        unit: usize,
        odd: bool,
    },
}

impl Kept {
    /// The ways in which a write of `len` bytes tears that are worth a look; none if it is one
    /// unit. Pages of 4096 are what filesystems expect at best; 512 shows what a disk may do.
    pub fn torn(len: usize, unit: usize) -> Vec<Kept> {
        let units = len.div_ceil(unit);
        let mut all = Vec::new();
        if units > 1 {
            all.extend([Kept::First(unit), Kept::Last(len - unit)]);
        }
        if units > 2 {
            let most = (units - 1) * unit;
            all.extend([Kept::First(most), Kept::Last(len - most)]);
            all.extend([false, true].map(|odd| Kept::EverySecond { unit, odd }));
        }
        all
    }

    /// The parts of `len` bytes that are kept, as (start, end).
    fn parts(self, len: usize) -> Vec<(usize, usize)> {
        match self {
            Kept::Whole => vec![(0, len)],
            Kept::First(count) => vec![(0, count.min(len))],
            Kept::Last(count) => vec![(len - count.min(len), len)],
            Kept::EverySecond { unit, odd } => (usize::from(odd) * unit..len)
                .step_by(2 * unit)
                .map(|start| (start, (start + unit).min(len)))
                .collect(),
        }
    }
}

impl Event {
    /// Where a write or discard goes: start and end.
    pub fn range(&self) -> Option<(u64, u64)> {
        match self {
            Event::Write { offset, bytes } => Some((*offset, offset + bytes.len() as u64)),
            Event::Discard { offset, len } => Some((*offset, offset + len)),
            _ => None,
        }
    }

    /// Does to `image` what of this write was kept.
    pub fn apply(&self, image: &mut Image, kept: Kept) {
        match self {
            Event::Write { offset, bytes } => {
                for (start, end) in kept.parts(bytes.len()) {
                    image.write(offset + start as u64, &bytes[start..end]);
                }
            }
            Event::Discard { offset, len } => {
                for (start, end) in kept.parts(*len as usize) {
                    image.zero(offset + start as u64, (end - start) as u64);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
/// The disk when the first so many events have happened: its writes, in order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Covered by a flush that was answered.
    pub durable: Vec<usize>,
    /// The others: each of them may have reached the medium, or not.
    pub pending: Vec<usize>,
}

#[cfg(test)]
impl Tape {
    /// The disk when `events[..cut]` have happened. To go through all cuts, use [`super::Walk`].
    pub fn at(&self, cut: usize) -> Cut {
        let events = &self.events[..cut];
        let began = |event: &Event| match event {
            Event::Flush { began } => Some(*began),
            _ => None,
        };
        // A flush that was answered later may have begun earlier: the latest beginning counts.
        let covered = events.iter().filter_map(began).max().unwrap_or(0);
        let mut answered = vec![false; cut];
        for event in &events[..covered] {
            if let Event::Written { write } = event {
                answered[*write] = true;
            }
        }
        let writes = (0..cut).filter(|index| events[*index].range().is_some());
        let (durable, pending) = writes.partition(|index| answered[*index]);
        Cut { durable, pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, byte: u8, len: usize) -> Event {
        Event::Write { offset, bytes: vec![byte; len].into() }
    }

    #[test]
    fn only_a_flush_that_came_after_the_answer_makes_durable() {
        let tape = Tape {
            events: vec![
                write(0, 1, 1),
                write(1, 2, 1),
                Event::Written { write: 1 },
                Event::Written { write: 0 },
                Event::Flush { began: 3 },
                Event::Discard { offset: 0, len: 2 },
                Event::Written { write: 5 },
                Event::Flush { began: 5 },
                Event::Flush { began: 8 },
            ],
        };
        let at = |cut| {
            let Cut { durable, pending } = tape.at(cut);
            (durable, pending)
        };
        assert_eq!(at(0), (vec![], vec![]));
        assert_eq!(at(4), (vec![], vec![0, 1]));
        assert_eq!(at(5), (vec![1], vec![0]));
        assert_eq!(at(7), (vec![1], vec![0, 5]));
        assert_eq!(at(8), (vec![0, 1], vec![5]));
        assert_eq!(at(9), (vec![0, 1, 5], vec![]));
    }

    #[test]
    fn a_torn_write_keeps_what_it_is_told() {
        let torn = |kept| {
            let mut image = Image::new(10);
            write(1, 1, 8).apply(&mut image, kept);
            let mut bytes = [0; 10];
            image.read(0, &mut bytes);
            bytes
        };
        assert_eq!(torn(Kept::Whole), [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(torn(Kept::First(3)), [0, 1, 1, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(torn(Kept::Last(3)), [0, 0, 0, 0, 0, 0, 1, 1, 1, 0]);
        assert_eq!(torn(Kept::EverySecond { unit: 3, odd: false }), [0, 1, 1, 1, 0, 0, 0, 1, 1, 0]);
        assert_eq!(torn(Kept::EverySecond { unit: 3, odd: true }), [0, 0, 0, 0, 1, 1, 1, 0, 0, 0]);
        let mut image = Image::new(10);
        write(0, 1, 10).apply(&mut image, Kept::Whole);
        Event::Discard { offset: 2, len: 4 }.apply(&mut image, Kept::Last(3));
        let mut bytes = [0; 10];
        image.read(0, &mut bytes);
        assert_eq!(bytes, [1, 1, 1, 0, 0, 0, 1, 1, 1, 1]);
    }

    #[test]
    fn one_unit_does_not_tear() {
        assert_eq!(Kept::torn(4096, 4096), []);
        assert_eq!(Kept::torn(8192, 4096), [Kept::First(4096), Kept::Last(4096)]);
        assert_eq!(Kept::torn(4096, 512).len(), 6);
        for kept in Kept::torn(3 * 4096 + 512, 4096) {
            let count: usize = kept.parts(3 * 4096 + 512).iter().map(|(a, b)| b - a).sum();
            assert!(0 < count && count < 3 * 4096 + 512);
        }
    }
}
