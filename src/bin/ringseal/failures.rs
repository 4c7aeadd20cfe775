//! Failures: one line each on standard error, and one object each in the JSON output.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use ringseal::{Cause, Error, OpenError, Outcome, StartError, Why};
use serde_json::{Value, json};

use crate::text::complain;

/// Failures: each is printed when it comes, and kept only if the JSON object will need it.
#[derive(Debug)]
pub struct Failures {
    count: u64,
    kept: Vec<Failure>,
    keep: bool,
    bar: ProgressBar,
}

impl Failures {
    /// None yet.
    pub fn new(as_json: bool) -> Failures {
        Failures { count: 0, kept: Vec::new(), keep: as_json, bar: ProgressBar::hidden() }
    }

    /// Lines are printed above this bar from now on.
    pub fn above(&mut self, bar: &ProgressBar) {
        self.bar = bar.clone();
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Are they kept for the JSON object?
    pub fn are_kept(&self) -> bool {
        self.keep
    }

    /// As `--json` prints them; empty if they were not kept.
    pub fn to_json(&self) -> Value {
        Value::Array(self.kept.iter().map(Failure::to_json).collect())
    }

    /// Adds one.
    pub fn add(&mut self, failure: impl Into<Failure>) {
        let failure = failure.into();
        self.bar.suspend(|| complain(&failure.to_string()));
        self.count += 1;
        if self.keep {
            self.kept.push(failure);
        }
    }
}

/// One target that is not as it was asked to be. `Display` has the form of the library's errors.
#[derive(Debug)]
pub struct Failure {
    target: PathBuf,
    step: &'static str,
    errno: Option<i32>,
    cause: String,
    outcome: Outcome,
}

impl Failure {
    /// A step of the command's own: the target is unchanged.
    pub fn new(
        target: impl Into<PathBuf>,
        step: &'static str,
        cause: impl fmt::Display,
        errno: Option<i32>,
    ) -> Failure {
        let (target, cause) = (target.into(), cause.to_string());
        Failure { target, step, errno, cause, outcome: Outcome::Unchanged }
    }

    /// A call of the command's own that failed.
    pub fn of_call(target: impl Into<PathBuf>, step: &'static str, cause: &io::Error) -> Failure {
        Failure::new(target, step, cause, cause.raw_os_error())
    }

    /// What the target was to be made from cannot be read.
    pub fn of_source(target: impl Into<PathBuf>, source: &Path, cause: &Cause) -> Failure {
        let shown = format!("{}: {cause}", source.display());
        Failure::new(target, "read", shown, cause.raw_os_error())
    }

    /// A writer that could not be started.
    pub fn of_start(target: impl Into<PathBuf>, error: &StartError) -> Failure {
        let errno = match error {
            StartError::RingUnavailable(
                Why::SetupFailed(errno) | Why::PrepareFailed(_, errno) | Why::RingLost(errno),
            ) => Some(*errno),
            StartError::NoThread(error) => error.raw_os_error(),
            _ => None,
        };
        Failure::new(target, "start", error, errno)
    }

    /// A file of a store that is durable, and not visible.
    pub fn hidden(target: impl Into<PathBuf>, cause: String, errno: i32) -> Failure {
        let outcome = Outcome::DurableNotVisible;
        Failure { outcome, ..Failure::new(target, "publish", cause, Some(errno)) }
    }

    /// A store that could not be opened.
    pub fn of_open(root: impl Into<PathBuf>, error: &OpenError) -> Failure {
        match error {
            OpenError::Io { source, .. } => {
                Failure::new(root, "open", error, source.raw_os_error())
            }
            OpenError::Root(cause) => Failure {
                target: cause.target().to_owned(),
                step: cause.step().name(),
                errno: cause.raw_os_error(),
                cause: cause.cause().to_string(),
                outcome: cause.outcome(),
            },
            other => Failure::new(root, "open", other, None),
        }
    }

    /// The same failure of another target: a path under which the user knows it.
    pub fn of(mut self, target: impl Into<PathBuf>) -> Failure {
        self.target = target.into();
        self
    }

    fn to_json(&self) -> Value {
        json!({
            "target": self.target.to_string_lossy(),
            "step": self.step,
            "errno": self.errno,
            "outcome": self.outcome.name(),
            "message": self.to_string(),
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure {
            target: error.target().to_owned(),
            step: error.step().name(),
            errno: error.raw_os_error(),
            cause: error.cause().to_string(),
            outcome: error.outcome(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { target, step, cause, outcome, .. } = self;
        write!(f, "{}: {step}: {cause}; {outcome}", target.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_the_library_prints_it() {
        let error = ringseal::replace("/nowhere/state.json", b"").unwrap_err();
        let line = error.to_string();
        assert_eq!(Failure::from(error).to_string(), line);
    }
}
