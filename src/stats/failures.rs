//! Failures by the step at which they happened.

use std::collections::BTreeMap;

use crate::plan::Step;

/// How many failed at each [`Step`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failures(BTreeMap<Step, u64>);

impl Failures {
    pub(crate) fn add(&mut self, step: Step) {
        *self.0.entry(step).or_default() += 1;
    }

    /// At all steps together.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// At this step.
    pub fn at(&self, step: Step) -> u64 {
        self.0.get(&step).copied().unwrap_or(0)
    }

    /// The steps at which something failed, in their order, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Step, u64)> + '_ {
        self.0.iter().map(|(step, count)| (*step, *count))
    }
}
