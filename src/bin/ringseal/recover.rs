//! `ringseal recover`: puts the files of a store right after a crash, and removes the temporary files of dead
//! writers.

use std::path::PathBuf;

use clap::Args;
use ringseal::{Error, Freshness, Leftover, StateStore, StoreOptions};
use serde_json::{Value, json};

use crate::failures::{Failure, Failures};
use crate::output::{Ending, Report};
use crate::store::recovery_to_json;
use crate::text::{count, shown};
use crate::walk::{Step, Visited, Walk};

/// The options of `ringseal recover`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The directory in which files were saved; if it is the root of a store, its log is replayed
    directory: PathBuf,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Look below it, too; no link is followed, no other filesystem entered
    #[arg(long)]
    recursive: bool,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    directories: u64,
    leftovers: Vec<Leftover>,
    not_entered: Vec<PathBuf>,
    store: Option<Value>,
    /// What is to be said of the store.
    said: String,
}

/// Runs the command.
pub fn run(arguments: Arguments, as_json: bool) -> Ending {
    let mut failures = Failures::new(as_json);
    let mut found = Found::default();
    if let Err(failure) = found.recover_store(&arguments) {
        failures.add(failure);
    }
    if arguments.recursive {
        for step in Walk::new(arguments.directory.clone()) {
            match step {
                Step::Directory(visited) => {
                    found.look(visited, arguments.dry_run, &mut failures);
                }
                Step::NotEntered(path) => found.not_entered.push(path),
                Step::Failed(failure) => failures.add(failure),
            }
        }
    } else {
        let path = arguments.directory.clone();
        let itself = Visited { handle: path.clone(), path };
        found.look(itself, arguments.dry_run, &mut failures);
    }
    let text = found.to_text(arguments.dry_run);
    let fields = found.to_json(&arguments);
    Ending::Report(Report { command: "recover", text, fields, failures, interrupted: false })
}

impl Found {
    /// If there is a store: what its log has and the files lack is put into them.
    fn recover_store(&mut self, arguments: &Arguments) -> Result<(), Failure> {
        let root = &arguments.directory;
        let has_store = root.join(".ringseal").symlink_metadata().is_ok_and(|own| own.is_dir());
        if !has_store {
            return Ok(());
        }
        let failed = |error| Failure::of_open(root, &error);
        if arguments.dry_run {
            let reader = StoreOptions::new().open_read_only(root).map_err(failed)?;
            let behind = match reader.freshness().map_err(failed)? {
                Freshness::Behind { files, .. } => files,
                _ => Vec::new(),
            };
            self.say(&behind, "would be put right from the log");
            let behind = behind.iter().map(|path| path.to_string_lossy());
            self.store = Some(json!({ "behind": behind.collect::<Vec<_>>() }));
            return Ok(());
        }
        let store = StateStore::open_blocking(root).map_err(failed)?;
        let recovery = store.recovery();
        self.say(&recovery.replayed, "put right from the log");
        for hidden in &recovery.not_visible {
            let why = std::io::Error::from_raw_os_error(hidden.errno);
            let path = shown(&hidden.path);
            self.said.push_str(&format!("{path}: kept in .ringseal/unplaced: {why}\n"));
        }
        self.leftovers.extend(recovery.leftovers.iter().cloned());
        self.store = Some(recovery_to_json(&store));
        Ok(store.close_blocking()?)
    }

    fn say(&mut self, files: &[PathBuf], what: &str) {
        for path in files {
            self.said.push_str(&format!("{}: {what}\n", shown(path)));
        }
    }

    fn look(&mut self, directory: Visited, dry_run: bool, failures: &mut Failures) {
        let Visited { path, handle } = directory;
        let found = match dry_run {
            true => ringseal::leftovers(&handle),
            false => ringseal::recover(&handle),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => return failures.add(named(error, path)),
        };
        self.directories += 1;
        for mut leftover in found {
            // Somebody else may have removed it in the meantime.
            let is_there = leftover.path.symlink_metadata().is_ok();
            if let Some(name) = leftover.path.file_name() {
                leftover.path = path.join(name);
            }
            leftover.removed |= !dry_run && !is_there;
            if leftover.owner.is_dead() && !leftover.removed && !dry_run {
                let cause = "it could not be removed";
                failures.add(Failure::new(&leftover.path, "remove", cause, None));
            }
            self.leftovers.push(leftover);
        }
    }

    fn removed(&self) -> u64 {
        self.leftovers.iter().filter(|leftover| leftover.removed).count() as u64
    }

    fn to_text(&self, dry_run: bool) -> String {
        let mut text = self.said.clone();
        for Leftover { path, owner, removed } in &self.leftovers {
            let verdict = match (removed, owner.is_dead()) {
                (true, _) => "removed",
                (false, true) if dry_run => "would be removed",
                (false, _) => "left",
            };
            text.push_str(&format!("{}: {owner}: {verdict}\n", shown(path)));
        }
        for path in &self.not_entered {
            text.push_str(&format!("{}: another filesystem: not entered\n", shown(path)));
        }
        let all = self.leftovers.len() as u64;
        let dead = self.leftovers.iter().filter(|leftover| leftover.owner.is_dead()).count();
        let done = match dry_run {
            true => format!("{dead} would be removed, {} would be left", all - dead as u64),
            false => format!("{} removed, {} left", self.removed(), all - self.removed()),
        };
        let (leftovers, directories) = (
            count(all, "temporary file"),
            match self.directories {
                1 => "1 directory".to_owned(),
                number => format!("{number} directories"),
            },
        );
        text.push_str(&format!("{leftovers} in {directories}: {done}\n"));
        text
    }

    fn to_json(&self, arguments: &Arguments) -> Value {
        let leftovers: Vec<Value> = self.leftovers.iter().map(leftover_to_json).collect();
        let not_entered = self.not_entered.iter().map(|path| path.to_string_lossy());
        json!({
            "directory": arguments.directory.to_string_lossy(),
            "dry_run": arguments.dry_run,
            "recursive": arguments.recursive,
            "directories": self.directories,
            "leftovers": leftovers,
            "removed": self.removed(),
            "left": self.leftovers.len() as u64 - self.removed(),
            "not_entered": not_entered.collect::<Vec<_>>(),
            "store": self.store,
        })
    }
}

/// The library's error, under the path that the user knows.
fn named(error: Error, path: PathBuf) -> Failure {
    Failure::from(error).of(path)
}

fn leftover_to_json(leftover: &Leftover) -> Value {
    json!({
        "path": leftover.path.to_string_lossy(),
        "owner": leftover.owner.name(),
        "removed": leftover.removed,
    })
}
