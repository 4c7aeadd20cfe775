//! Goes through a tape cut by cut, and builds the disks that a power cut could leave at each.

use super::image::Image;
use super::tape::{Event, Kept, Tape};

/// A place on a tape, and what of the disk is certain there.
#[derive(Clone, Debug)]
pub struct Walk<'t> {
    tape: &'t Tape,
    cut: usize,
    epoch: usize,
    /// Where the latest flush of those answered began.
    covered: usize,
    /// For each event that is a write: whether it was answered, and before which event.
    answered: Vec<Option<usize>>,
    pending: Vec<usize>,
    /// Durable writes that arrived after the first pending one, in order.
    later: Vec<usize>,
    base: Image,
}

impl<'t> Walk<'t> {
    /// Before the first event, when the disk held `base`.
    pub fn new(tape: &'t Tape, base: Image) -> Walk<'t> {
        let answered = vec![None; tape.events.len()];
        Walk {
            tape,
            cut: 0,
            epoch: 0,
            covered: 0,
            answered,
            pending: Vec::new(),
            later: Vec::new(),
            base,
        }
    }

    /// So many events have happened.
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// The cut at which the durable writes last became more: the same number, the same base.
    pub fn epoch(&self) -> usize {
        self.epoch
    }

    /// The writes which may have reached the medium or not, in order of arrival.
    pub fn pending(&self) -> &[usize] {
        &self.pending
    }

    /// Passes one event and tells which; `None` at the end.
    pub fn advance(&mut self) -> Option<&'t Event> {
        let event = self.tape.events.get(self.cut)?;
        match event {
            Event::Write { .. } | Event::Discard { .. } => self.pending.push(self.cut),
            Event::Written { write } => self.answered[*write] = Some(self.cut),
            Event::Flush { began } if *began > self.covered => {
                self.covered = *began;
                self.settle();
            }
            Event::Flush { .. } | Event::Note(_) => {}
        }
        self.cut += 1;
        Some(event)
    }

    /// Moves what the latest flush covered from the pending writes into the base.
    fn settle(&mut self) {
        let covered = |write: &usize| self.answered[*write].is_some_and(|at| at < self.covered);
        let (durable, pending): (Vec<_>, Vec<_>) = self.pending.iter().copied().partition(covered);
        if durable.is_empty() {
            return;
        }
        let chosen: Vec<_> = durable.iter().map(|write| (*write, Kept::Whole)).collect();
        // Taken out meanwhile, so that the base isn't shared and copied page by page.
        let mut base = std::mem::replace(&mut self.base, Image::new(0));
        self.put(&mut base, &chosen);
        self.base = base;
        self.pending = pending;
        self.later.extend(durable);
        self.later.sort_unstable();
        let first = self.pending.first().copied().unwrap_or(usize::MAX);
        self.later.retain(|write| *write > first);
        self.epoch = self.cut + 1;
    }

    /// The disk after a power cut here, of which exactly `chosen` of the pending writes reached
    /// the medium. They stand in order of arrival.
    pub fn build(&self, chosen: &[(usize, Kept)]) -> Image {
        let mut image = self.base.clone();
        self.put(&mut image, chosen);
        image
    }

    /// Puts writes onto a copy of the base which arrived before some that are in it already:
    /// where they overlap, the later one stays.
    fn put(&self, image: &mut Image, chosen: &[(usize, Kept)]) {
        debug_assert!(chosen.is_sorted(), "writes in order of arrival");
        let mut touched: Vec<(u64, u64)> = Vec::new();
        let mut later = self.later.iter().copied().peekable();
        let mut again = |image: &mut Image, touched: &mut Vec<(u64, u64)>, until: usize| {
            while let Some(write) = later.next_if(|write| *write < until) {
                let event = &self.tape.events[write];
                let Some((start, end)) = event.range() else { continue };
                if touched.iter().any(|(from, to)| *from < end && start < *to) {
                    event.apply(image, Kept::Whole);
                    touched.push((start, end));
                }
            }
        };
        for (write, kept) in chosen {
            again(image, &mut touched, *write);
            let event = &self.tape.events[*write];
            event.apply(image, *kept);
            touched.extend(event.range());
        }
        again(image, &mut touched, usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 40;

    fn bytes(image: &Image) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        image.read(0, &mut bytes);
        bytes
    }

    /// Writes and discards which overlap, answered in any order, with flushes under way.
    fn any_tape(seed: u64) -> Tape {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut tape = Tape::default();
        let (mut open, mut flushes) = (Vec::new(), Vec::new());
        for number in 0..60 {
            let now = tape.events.len();
            let offset = random.u64(0..SIZE as u64 - 8);
            let len = random.u64(1..8);
            match random.u32(0..10) {
                0..4 => {
                    open.push(now);
                    let bytes = vec![number + 1; len as usize].into();
                    tape.events.push(Event::Write { offset, bytes });
                }
                4 => {
                    open.push(now);
                    tape.events.push(Event::Discard { offset, len });
                }
                5..8 if !open.is_empty() => {
                    let write = open.swap_remove(random.usize(0..open.len()));
                    tape.events.push(Event::Written { write });
                }
                8 => flushes.push(now),
                9 if !flushes.is_empty() => {
                    let began = flushes.swap_remove(random.usize(0..flushes.len()));
                    tape.events.push(Event::Flush { began });
                }
                _ => tape.events.push(Event::Note("said".into())),
            }
        }
        tape
    }

    #[test]
    fn walking_agrees_with_the_definition() {
        let mut overlapped = 0;
        for seed in 0..300 {
            let tape = any_tape(seed);
            let mut random = fastrand::Rng::with_seed(seed);
            let mut walk = Walk::new(&tape, Image::new(SIZE as u64));
            loop {
                let cut = tape.at(walk.cut());
                assert_eq!(walk.pending(), cut.pending);
                overlapped += usize::from(!walk.later.is_empty());
                let mut chosen: Vec<_> =
                    cut.pending.iter().map(|write| (*write, Kept::Whole)).collect();
                chosen.retain(|_| random.bool());
                for (_, kept) in &mut chosen {
                    *kept = [Kept::Whole, Kept::First(2), Kept::Last(1)][random.usize(0..3)];
                }
                let durable = cut.durable.iter().map(|write| (*write, Kept::Whole));
                let mut all: Vec<_> = durable.chain(chosen.clone()).collect();
                all.sort_unstable();
                let mut expected = Image::new(SIZE as u64);
                for (write, kept) in all {
                    tape.events[write].apply(&mut expected, kept);
                }
                assert_eq!(bytes(&walk.build(&chosen)), bytes(&expected), "seed {seed}");
                if walk.advance().is_none() {
                    break;
                }
            }
            assert_eq!(walk.cut(), tape.events.len());
        }
        assert!(overlapped > 100, "the tapes of this test have pending writes before durable ones");
    }

    #[test]
    fn the_epoch_changes_with_the_base_only() {
        let write = Event::Write { offset: 0, bytes: vec![1; 4].into() };
        let tape = Tape {
            events: vec![
                Event::Flush { began: 0 },
                write,
                Event::Written { write: 1 },
                Event::Flush { began: 1 },
                Event::Flush { began: 4 },
                Event::Note("end".into()),
            ],
        };
        let mut walk = Walk::new(&tape, Image::new(SIZE as u64));
        let mut epochs = Vec::new();
        while walk.advance().is_some() {
            epochs.push(walk.epoch());
        }
        assert_eq!(epochs, [0, 0, 0, 0, 5, 5]);
        assert_eq!(bytes(&walk.base)[..5], [1, 1, 1, 1, 0]);
    }
}
