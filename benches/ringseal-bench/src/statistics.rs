//! Medians, spreads, and the deterministic choices of a run.

use serde::{Deserialize, Serialize};

/// The spread of a figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// Of no values there is none.
    pub(crate) fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        };
        Some(Spread { min, median, max })
    }
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    Spread::of(&values.into_iter().collect::<Vec<_>>()).map(|spread| spread.median)
}

/// Rounds that make the median of `files` steady: each writer saves about 200 files at least.
/// Large numbers of files take long and vary little.
pub(crate) fn default_rounds(files: usize) -> usize {
    const ROUNDS: usize = 9;
    const FILES: usize = 200;
    if files >= 10_000 { ROUNDS / 3 } else { ROUNDS.max(FILES.div_ceil(files)) }
}

/// The size of the file with this index: log-uniform from `size / 4` to `size * 16`, at least 1.
pub(crate) fn varied_size(size: u64, index: usize) -> u64 {
    let exponent = fastrand::Rng::with_seed(index as u64).f64() * 6.0 - 2.0;
    ((size as f64 * exponent.exp2()).round() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_odd_even_and_none() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn small_numbers_of_files_get_more_rounds() {
        assert_eq!(default_rounds(1), 200);
        assert_eq!(default_rounds(10), 20);
        assert_eq!(default_rounds(1000), 9);
        assert_eq!(default_rounds(10_000), 3);
    }

    #[test]
    fn varied_sizes_are_the_same_each_time_and_within_bounds() {
        let sizes: Vec<u64> = (0..1000).map(|index| varied_size(1024, index)).collect();
        assert_eq!(sizes, (0..1000).map(|index| varied_size(1024, index)).collect::<Vec<_>>());
        assert!(sizes.iter().all(|size| (256..=16384).contains(size)));
        let below = sizes.iter().filter(|size| **size < 1024).count();
        assert!((250..420).contains(&below), "a third of the range is below: {below}");
        assert!((0..100).all(|index| varied_size(1, index) >= 1));
    }
}
