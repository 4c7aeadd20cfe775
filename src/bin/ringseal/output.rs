//! What a command says: failures on standard error, one line each; the rest on standard output, as
//! text or, with `--json`, as one JSON object.
//!
//! Names that are not UTF-8 are shown with U+FFFD. Field names are stable; more can come.
//!
//! Every command:
//!
//! | field | type | meaning |
//! | --- | --- | --- |
//! | `command` | string | `write`, `checkpoint`, `recover`, `store`, `log` or `probe` |
//! | `failures` | array | one object for each failure, as below; empty is good |
//! | `failures[].target` | string | the file or directory that was to be changed or read |
//! | `failures[].step` | string | a step of the library, such as `write` or `sync-directory`; or the command's own: `start` (engine, signals), `read` (the source), `remove` (a leftover), `open` (a store), `publish` (a file that is durable and not yet visible) |
//! | `failures[].errno` | number or null | the kernel's error number, where there is one |
//! | `failures[].outcome` | string | what is true of the target now: `unchanged`, `replaced_durability_unknown`, `durable_not_visible` or `unknown` |
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
//! | `flushes` | number or null | flushes of the device of `to` meanwhile, other programs' included; null in memory |
//! | `vanished` | number | ids that were listed and gone when they were to be read; no failures |
//! | `interrupted` | bool | SIGINT or SIGTERM ended it before all was saved |
//! | `engine` | object or null | `kind`: `uring` or `threads`; `why`: one sentence; null if none could be started |
//! | `filesystem` | object or null | of `to`, as in `probe` |
//! | `stats` | object | only with `--stats`: the fields of the library's `WriterStats`; times are seconds |
//! | `stats.failures` | object | step to number: where saves failed |
//! | `stats.oldest_in_flight` | number or null | null at rest |
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
//! | `store` | object or null | of a store whose root this is; null if it is none |
//! | `store.replayed` | array of strings | files that were put into place, or removed, from the log |
//! | `store.torn` | number | writes to the log that a crash had cut short |
//! | `store.not_visible` | array | `path` and `errno` of what could not be put into its place, and is kept in `.ringseal/unplaced` |
//! | `store.damage` | string or null | always null here: a damaged log is a failure |
//! | `store.behind` | array of strings | with `--dry-run`, instead of these: files that the log is newer than |
//!
//! `store`:
//!
//! | field | type | meaning |
//! | --- | --- | --- |
//! | `root` | string | the root |
//! | `action` | string | `save`, `load`, `list`, `remove`, `verify` or `checkpoint` |
//! | `recovered` | number | `save`, `remove`, `checkpoint`: files that the opening had to put right |
//! | `bytes` | number | `save`, `checkpoint`, `load`: bytes of the files |
//! | `durability`, `route` | string | `save`, `remove`, `checkpoint`: `durable`, `durable_unproven` or `volatile`; `logged` or `direct` |
//! | `left` | array of strings | `remove`: directories that stay, for they hold files that are not the store's |
//! | `state` | string | `load`: the state |
//! | `ids` | array of strings | `list` |
//! | `states` | number | `verify`: those that there are; the unreadable ones are failures |
//! | `files` | number | `checkpoint`: files saved, in one transaction |
//! | `stats` | object | `checkpoint --stats`: the fields of the library's `StoreStats`; times are seconds |
//!
//! `log`:
//!
//! | field | type | meaning |
//! | --- | --- | --- |
//! | `root` | string | the root |
//! | `log` | object or null | null if there is none |
//! | `log.segment_bytes` | number | of each of the two segments |
//! | `log.sequence`, `log.epoch` | number | the highest of anything in it |
//! | `log.live` | array | writes that count: their changes may be missing in the files |
//! | `log.live[].sequence`, `epoch`, `segment`, `block` | number | which, and where |
//! | `log.live[].kind` | string | `changes`, `open` or `spread` |
//! | `log.live[].spread` | number | when it was written, the files had everything up to this number |
//! | `log.live[].changes` | array | `id`, `name`, `size` (null: removed), `transaction` (which of this write's) and `forgotten` |
//! | `log.spread` | array of numbers | writes whose changes the files have, and that can still be read |
//! | `log.torn` | array of numbers | writes that a crash cut short |
//! | `log.damage` | string or null | what was acknowledged and cannot be read |
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

use std::io::{self, Write};
use std::process::ExitCode;

use ringseal::EngineStatus;
use serde_json::{Map, Value, json};

use crate::failures::Failures;
use crate::text::complain;

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
        let failed = self.failures.count() > 0 || self.interrupted;
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
        document.insert("command".to_owned(), self.command.into());
        document.insert("failures".to_owned(), self.failures.to_json());
        Value::Object(document)
    }
}

/// An engine as JSON.
pub fn engine_to_json(status: &EngineStatus) -> Value {
    json!({ "kind": status.kind.name(), "why": status.why.to_string() })
}
