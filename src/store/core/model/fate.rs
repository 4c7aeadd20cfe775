//! What decides what a power cut leaves: chance, or each possibility in its turn.

use fastrand::Rng;

#[derive(Debug, Clone)]
pub(super) enum Fate {
    Chance(Rng),
    /// The choices that are made, and of how many each is one; the next is the one at `at`.
    InTurn {
        choices: Vec<(usize, usize)>,
        at: usize,
    },
}

impl Fate {
    /// The first of all possibilities.
    pub(super) fn first() -> Fate {
        Fate::InTurn { choices: Vec::new(), at: 0 }
    }

    /// One of so many.
    pub(super) fn pick(&mut self, of: usize) -> usize {
        match self {
            Fate::Chance(rng) => rng.usize(0..of),
            Fate::InTurn { choices, at } => {
                if *at == choices.len() {
                    choices.push((0, of));
                }
                *at += 1;
                choices[*at - 1].0
            }
        }
    }

    /// Goes to the next possibility; false behind the last.
    pub(super) fn advance(&mut self) -> bool {
        let Fate::InTurn { choices, at } = self else { return false };
        *at = 0;
        while let Some((choice, of)) = choices.pop() {
            if choice + 1 < of {
                choices.push((choice + 1, of));
                return true;
            }
        }
        false
    }
}

#[test]
fn every_possibility_has_its_turn() {
    let mut fate = Fate::first();
    let mut seen = Vec::new();
    loop {
        let first = fate.pick(3);
        let second = if first == 1 { fate.pick(2) } else { 0 };
        seen.push((first, second));
        if !fate.advance() {
            break;
        }
    }
    assert_eq!(seen, [(0, 0), (1, 0), (1, 1), (2, 0)]);
}
