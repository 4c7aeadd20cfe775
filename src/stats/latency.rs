//! How long answers took.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// How long answers took, from the moment when there was room for the save until its answer went out.
///
/// The percentiles are exact to 1 % (and to a microsecond); all are zero if nothing was answered.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// Answers.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 90 % of them took no longer.
    pub p90: Duration,
    /// 99 % of them took no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
    /// The arithmetic mean.
    pub mean: Duration,
}

/// The longest that is told from longer ones, in microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;

/// Of the value, that is: 1 %.
const DIGITS: u8 = 2;

/// What the figures are taken from: 26 KiB, whatever the number of answers. In microseconds.
#[derive(Clone)]
pub(crate) struct Latencies(Option<Histogram<u64>>);

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies(Histogram::new_with_bounds(1, LONGEST, DIGITS).ok())
    }
}

impl Latencies {
    pub(crate) fn add(&mut self, took: Duration) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST));
        }
    }

    /// Goes through all of the histogram: not to be called under a lock.
    pub(crate) fn figures(&self) -> Latency {
        let Some(histogram) = self.0.as_ref().filter(|histogram| !histogram.is_empty()) else {
            return Latency::default();
        };
        let max = histogram.max();
        let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile).min(max));
        Latency {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: Duration::from_micros(max),
            mean: Duration::from_secs_f64(histogram.mean() / 1e6),
        }
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.figures().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_what_was_added() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.figures(), Latency::default());
        (1..=1000).for_each(|millis| latencies.add(Duration::from_millis(millis)));
        let figures = latencies.figures();
        assert_eq!(figures.count, 1000);
        let is_near = |one: Duration, other: u64| {
            let other = Duration::from_millis(other);
            one.abs_diff(other) <= other / 64
        };
        let Latency { p50, p90, p99, max, mean, .. } = figures;
        for (figure, millis) in [(p50, 500), (p90, 900), (p99, 990), (max, 1000), (mean, 500)] {
            assert!(is_near(figure, millis), "{millis}: {figures:?}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_counted_as_its_end() {
        let mut latencies = Latencies::default();
        latencies.add(Duration::ZERO);
        latencies.add(Duration::MAX);
        let figures = latencies.figures();
        assert_eq!((figures.count, figures.p50), (2, Duration::ZERO));
        assert!(figures.max >= Duration::from_secs(3500), "{figures:?}");
    }
}
