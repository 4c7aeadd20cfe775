//! What a command says: failures on standard error, one line each; the rest on standard output, as
//! text or, with `--json`, as one JSON object.
//!
//! Names that are not UTF-8 are shown with U+FFFD. Field names are stable; more can come.
//!
//! Every command:
//!
//! | field | type | meaning |
//! | --- | --- | --- |
//! | `command` | string | `write`, `checkpoint`, `recover` or `probe` |
//! | `failures` | array | one object for each failure, as below; empty is good |
//! | `failures[].target` | string | the file or directory that was to be changed or read |
//! | `failures[].step` | string | the step that failed, such as `write` or `sync-directory` |
//! | `failures[].errno` | number or null | the kernel's error number, where there is one |
//! | `failures[].outcome` | string | what is true of the target now: `unchanged`, `replaced_durability_unknown` or `unknown` |
//! | `failures[].message` | string | the line on standard error, without `ringseal: ` |
//!
//! `write`:
//!
//! | field | type | meaning |
//! | --- | --- | --- |
//! | `target` | string | the target, below `--root` if one was given |
//! | `bytes` | number or null | bytes of the new version; null if it failed, as the next two |
//! | `durability` | string or null | `durable`, `durable_unproven`, `atomic` or `volatile` |
//! | `carrier` | string or null | who made the system calls: `ring`, `pool` or `caller` |
//! | `engine` | object or null | `kind` and `why`, as in `checkpoint`; null without `--engine` |
//!
//! `checkpoint`:
//!
//! | field | type | meaning |
//! | --- | --- | --- |
//! | `from`, `to` | string | the two directories |
//! | `files` | number | files saved |
//! | `bytes` | number | their bytes |
//! | `seconds` | number | how long it took |
//! | `durability` | object | how many files are `durable`, `durable_unproven` or `volatile` |
//! | `failed` | number | failures |
//! | `vanished` | number | ids that were listed and gone when they were to be read; no failures |
//! | `interrupted` | bool | SIGINT or SIGTERM ended it before all was saved |
//! | `engine` | object or null | `kind`: `uring` or `threads`; `why`: one sentence; null if none could be started |
//! | `filesystem` | object or null | of `to`, as in `probe` |
//!
//! `recover`:
//!
//! | field | type | meaning |
//! | --- | --- | --- |
//! | `directory` | string | where it looked |
//! | `dry_run`, `recursive` | bool | the options |
//! | `directories` | number | directories looked into |
//! | `leftovers` | array | the temporary files found |
//! | `leftovers[].path` | string | the file |
//! | `leftovers[].owner` | string | `dead`, `earlier_boot`, `alive`, `other_namespace`, `other_machine` or `unknown` |
//! | `leftovers[].removed` | bool | it is gone |
//! | `removed`, `left` | number | how many are gone, how many are there |
//! | `not_entered` | array of strings | directories of other filesystems, which were not entered |
//!
//! `probe`:
//!
//! | field | type | meaning |
//! | --- | --- | --- |
//! | `kernel` | string | the release |
//! | `engine` | object or null | what `--engine auto` takes: `kind` and `why`; null if not one thread can be made |
//! | `ring.exists` | bool | a ring can be made |
//! | `ring.usable` | bool | saves can run on it |
//! | `ring.why_not` | string or null | why they cannot |
//! | `ring.operations` | object | operation to bool: does the kernel have it? |
//! | `ring.features` | object | feature to bool |
//! | `ring.failed_sync_breaks_chain` | bool or null | does a failed fsync stop what is linked behind it? null: not to be tried here |
//! | `limits.descriptors`, `limits.processes`, `limits.file_size` | number or null | `RLIMIT_NOFILE`, `RLIMIT_NPROC`, `RLIMIT_FSIZE`; null is no limit |
//! | `filesystem` | object or null | of the directory; null if it cannot be looked at |
//! | `filesystem.directory` | string | the directory that was given |
//! | `filesystem.kind` | string | `ext4`, `xfs`, `tmpfs`, ...; `unknown` for one without a name here |
//! | `filesystem.sync` | string | what a sync means: `durable`, `nothing` (it lives in memory) or `unknown` |
//! | `filesystem.mount_point`, `filesystem.source` | string or null | from `/proc/self/mountinfo` |
//! | `filesystem.options` | array of strings | mount options |
//! | `filesystem.provable` | bool | it can prove that it is alive after a sync |
//! | `filesystem.warnings` | array of strings | what voids the promise of durability |

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::ProgressBar;
use ringseal::{EngineStatus, Error, Outcome};
use serde_json::{Map, Value, json};

/// How a command ends.
#[derive(Debug)]
pub enum Ending {
    /// It ran.
    Report(Report),
    /// Its arguments make no sense together.
    Usage(clap::Error),
}

/// What a command has to say.
#[derive(Debug)]
pub struct Report {
    /// The name of the command.
    pub command: &'static str,
    /// For people, on standard output; may be empty.
    pub text: String,
    /// For machines, without `command` and `failures`.
    pub fields: Value,
    /// What failed.
    pub failures: Failures,
    /// A signal ended it early.
    pub interrupted: bool,
}

impl Report {
    /// Prints it, and gives the exit status.
    pub fn print(self, as_json: bool) -> ExitCode {
        let failed = self.failures.count > 0 || self.interrupted;
        let text = if as_json { format!("{}\n", self.into_json()) } else { self.text };
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            // Who closed the pipe has read enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                complain(&format!("standard output: write: {error}"));
                ExitCode::FAILURE
            }
            _ if failed => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        }
    }

    fn into_json(self) -> Value {
        let mut document = match self.fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        let failures = self.failures.kept.iter().map(Failure::to_json).collect();
        document.insert("command".to_owned(), self.command.into());
        document.insert("failures".to_owned(), Value::Array(failures));
        Value::Object(document)
    }
}

/// A line on standard error. A broken one is nobody's loss.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "ringseal: {}", printable(message));
}

/// Failures: each is printed when it comes, and kept only if the JSON object will need it.
#[derive(Debug)]
pub struct Failures {
    /// How many.
    pub count: u64,
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
    /// A failure that is not the library's: the target is unchanged.
    pub fn new(target: impl Into<PathBuf>, step: &'static str, cause: &io::Error) -> Failure {
        let errno = cause.raw_os_error();
        let (target, cause) = (target.into(), cause.to_string());
        Failure { target, step, errno, cause, outcome: Outcome::Unchanged }
    }

    /// The same, of a target that was to be made from `source`.
    pub fn of_source(target: impl Into<PathBuf>, source: &Path, cause: &io::Error) -> Failure {
        let mut failure = Failure::new(target, "read", cause);
        failure.cause = format!("{}: {}", source.display(), failure.cause);
        failure
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

/// An engine as JSON.
pub fn engine_to_json(status: &EngineStatus) -> Value {
    json!({ "kind": status.kind.name(), "why": status.why.to_string() })
}

/// Text as one line: control characters, which a name can hold, neither begin a new line nor reach
/// a terminal.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

/// A path as [`printable`] text.
pub fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// `1 file`, `2 files`.
pub fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
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

    #[test]
    fn a_name_cannot_forge_a_line() {
        assert_eq!(printable("a\nringseal: b\u{1b}[2J\u{e9}"), "a\\nringseal: b\\u{1b}[2J\u{e9}");
    }
}
