//! `ringseal store`: what the store's API does, by hand.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use ringseal::{Cause, Committed, Freshness, StateReader, StateStore, StoreOptions, Unreadable};
use rustix::fs::Dir;
use serde_json::{Map, Value, json};

use crate::arguments;
use crate::directory::{self, Directory};
use crate::failures::{Failure, Failures};
use crate::output::{Ending, Report};
use crate::signals::Stop;
use crate::stats;
use crate::text::{count, printable};

/// The options of `ringseal store`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The root of the store: a directory for each container
    root: PathBuf,
    /// The name of a container's state file [default: state.json]
    #[arg(long, value_name = "NAME")]
    state_name: Option<String>,
    /// Permission bits of the files [default: 600]
    #[arg(long, value_name = "OCTAL", value_parser = arguments::mode)]
    mode: Option<u32>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make standard input a container's state
    Save {
        /// The container
        id: String,
    },
    /// Print a container's state
    Load {
        /// The container
        id: String,
    },
    /// Print the ids of all containers that have a state
    List,
    /// Remove a container
    Remove {
        /// The container
        id: String,
    },
    /// Report states that are no JSON
    Verify,
    /// Save the states below another directory, all of them or none
    Checkpoint {
        /// A directory with one directory for each container, named by its id
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Print what the store has counted, too
        #[arg(long)]
        stats: bool,
    },
}

impl Action {
    const fn changes(&self) -> bool {
        matches!(self, Action::Save { .. } | Action::Remove { .. } | Action::Checkpoint { .. })
    }

    const fn name(&self) -> &'static str {
        match self {
            Action::Save { .. } => "save",
            Action::Load { .. } => "load",
            Action::List => "list",
            Action::Remove { .. } => "remove",
            Action::Verify => "verify",
            Action::Checkpoint { .. } => "checkpoint",
        }
    }
}

/// What an action has to say.
#[derive(Debug, Default)]
struct Said {
    text: String,
    fields: Map<String, Value>,
}

/// Runs the command.
pub fn run(arguments: Arguments, as_json: bool) -> Ending {
    let mut failures = Failures::new(as_json);
    let said = match carry_out(&arguments, as_json, &mut failures) {
        Ok(said) => said,
        Err(failure) => {
            failures.add(failure);
            Said::default()
        }
    };
    let mut fields = said.fields;
    fields.insert("root".to_owned(), arguments.root.to_string_lossy().into());
    fields.insert("action".to_owned(), arguments.action.name().into());
    let fields = Value::Object(fields);
    Ending::Report(Report {
        command: "store",
        text: said.text,
        fields,
        failures,
        interrupted: false,
    })
}

fn carry_out(
    arguments: &Arguments,
    as_json: bool,
    failures: &mut Failures,
) -> Result<Said, Failure> {
    let Arguments { root, action, .. } = arguments;
    let shown = |id: &str| root.join(id);
    // Read to its end first: whoever interrupts the command until then has changed nothing.
    let input = match action {
        Action::Save { id } => {
            let mut bytes = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut bytes);
            let in_shell =
                |error| Failure::of_source(shown(id), "standard input".as_ref(), &Cause::Io(error));
            read.map_err(in_shell)?;
            bytes
        }
        _ => Vec::new(),
    };
    let _stop = Stop::on_signal().map_err(|error| Failure::of_call(root, "start", &error))?;
    let options = options(arguments);
    if !action.changes() {
        let failed = |error| Failure::of_open(root, &error);
        let reader = options.clone().open_read_only(root).map_err(failed)?;
        // Files that are behind the log are put right first, which takes the store.
        if !matches!(reader.freshness().map_err(failed)?, Freshness::Behind { .. }) {
            return look(&reader, root, action, as_json, failures);
        }
    }
    let store = options.open_blocking(root).map_err(|error| Failure::of_open(root, &error))?;
    if !action.changes() {
        // It also knows what the files do not show.
        let said = look(&store, root, action, as_json, failures);
        store.close_blocking()?;
        return said;
    }
    let mut said = act(&store, action, input, failures);
    if let Ok(said) = &mut said {
        let recovered = store.recovery().replayed.len() + store.recovery().not_visible.len();
        said.fields.insert("recovered".to_owned(), recovered.into());
    }
    store.close_blocking()?;
    said
}

fn options(arguments: &Arguments) -> StoreOptions {
    let mut options = StoreOptions::new();
    if let Some(name) = &arguments.state_name {
        options = options.state_name(name);
    }
    match arguments.mode {
        Some(mode) => options.mode(mode),
        None => options,
    }
}

fn act(
    store: &StateStore,
    action: &Action,
    input: Vec<u8>,
    failures: &mut Failures,
) -> Result<Said, Failure> {
    let mut said = Said::default();
    match action {
        Action::Save { id } => {
            let committed = store.save_bytes_blocking(id, input)?;
            said.committed(&committed, failures);
        }
        Action::Remove { id } => {
            let committed = store.remove_blocking(id)?;
            said.committed(&committed, failures);
            for left in &committed.left {
                said.text.push_str(&format!(
                    "{}: it stays, for it holds files that are not the store's\n",
                    printable(&left.to_string_lossy())
                ));
            }
        }
        Action::Load { .. } | Action::List | Action::Verify => {}
        Action::Checkpoint { from, stats } => {
            let states = states_below(store, from, failures)?;
            if failures.count() > 0 {
                // All or nothing.
                return Ok(said);
            }
            let files = states.len();
            let committed = store.save_all_blocking(states)?;
            said.text = format!(
                "{}, {} bytes, in one transaction\n",
                count(files as u64, "file"),
                committed.bytes
            );
            said.fields.insert("files".to_owned(), files.into());
            said.committed(&committed, failures);
            if *stats {
                let stats = store.stats();
                said.text.push_str(&stats::store_to_text(&stats));
                said.fields.insert("stats".to_owned(), stats::store_to_json(&stats));
            }
        }
    }
    Ok(said)
}

/// Who can tell the states: the store, or who only reads the files.
trait States {
    fn load(&self, id: &str) -> ringseal::Result<Option<Bytes>>;
    fn list(&self) -> ringseal::Result<Vec<String>>;
    fn verify(&self) -> ringseal::Result<Vec<Unreadable>>;
}

impl States for StateReader {
    fn load(&self, id: &str) -> ringseal::Result<Option<Bytes>> {
        self.load_bytes(id)
    }

    fn list(&self) -> ringseal::Result<Vec<String>> {
        StateReader::list(self)
    }

    fn verify(&self) -> ringseal::Result<Vec<Unreadable>> {
        StateReader::verify(self)
    }
}

impl States for StateStore {
    fn load(&self, id: &str) -> ringseal::Result<Option<Bytes>> {
        self.load_bytes_blocking(id)
    }

    fn list(&self) -> ringseal::Result<Vec<String>> {
        self.list_blocking()
    }

    fn verify(&self) -> ringseal::Result<Vec<Unreadable>> {
        self.verify_blocking()
    }
}

/// Carries out what changes nothing.
fn look(
    states: &impl States,
    root: &Path,
    action: &Action,
    as_json: bool,
    failures: &mut Failures,
) -> Result<Said, Failure> {
    let mut said = Said::default();
    match action {
        Action::Load { id } => {
            let state = states.load(id)?;
            let Some(state) = state else {
                let path = root.join(id);
                let gone = io::Error::from_raw_os_error(libc::ENOENT);
                return Err(Failure::of_call(path, "read", &gone));
            };
            said.fields.insert("bytes".to_owned(), state.len().into());
            let text = String::from_utf8_lossy(&state);
            said.fields.insert("state".to_owned(), text.into_owned().into());
            if !as_json {
                // As it is: it need not be text.
                let mut stdout = io::stdout().lock();
                let printed = stdout.write_all(&state).and_then(|()| stdout.flush());
                printed.map_err(|error| Failure::of_call("standard output", "write", &error))?;
            }
        }
        Action::List => {
            let ids = states.list()?;
            said.text = ids.iter().map(|id| format!("{id}\n")).collect();
            said.fields.insert("ids".to_owned(), ids.into());
        }
        Action::Verify => {
            let number = states.list()?.len();
            for unreadable in states.verify()? {
                failures.add(unreadable.error);
            }
            let bad = failures.count();
            said.text = format!("{}: {bad} cannot be read\n", count(number as u64, "state"));
            said.fields.insert("states".to_owned(), number.into());
        }
        Action::Save { .. } | Action::Remove { .. } | Action::Checkpoint { .. } => {}
    }
    Ok(said)
}

/// Every state below a directory.
fn states_below(
    store: &StateStore,
    from: &Path,
    failures: &mut Failures,
) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let from = Directory::open(from.to_owned())?;
    let failed = |errno: rustix::io::Errno| {
        Failure::of_source(store.root(), from.path(), &Cause::from(errno))
    };
    let listing: Dir = from.list().map_err(failed)?;
    let mut states = Vec::new();
    for entry in listing {
        let entry = entry.map_err(failed)?;
        let id = entry.file_name().to_string_lossy().into_owned();
        if !directory::may_be_id(&entry) {
            continue;
        }
        let name = store.state_name();
        let read = from.open_id(id.as_ref()).map_err(Cause::from).and_then(|dir| {
            use std::os::fd::AsFd;
            directory::read(dir.as_fd(), name.as_ref())
        });
        match read {
            Ok((state, _)) => states.push((id, state)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => {
                let path = from.path().join(&id).join(name);
                failures.add(Failure::of_source(store.root().join(&id), &path, &cause));
            }
        }
    }
    states.sort();
    Ok(states)
}

impl Said {
    fn committed(&mut self, committed: &Committed, failures: &mut Failures) {
        let mut set = |field: &str, value: Value| self.fields.insert(field.to_owned(), value);
        set("bytes", committed.bytes.into());
        set("durability", committed.durability.name().into());
        set("route", committed.route.name().into());
        let left = committed.left.iter().map(|path| path.to_string_lossy().into());
        set("left", left.collect::<Vec<Value>>().into());
        for hidden in &committed.not_visible {
            let why = io::Error::from_raw_os_error(hidden.errno);
            let cause = why.to_string();
            failures.add(Failure::hidden(&hidden.path, cause, hidden.errno));
        }
    }
}

/// What an opening has recovered, as JSON.
pub fn recovery_to_json(store: &StateStore) -> Value {
    let recovery = store.recovery();
    let paths = |paths: &[PathBuf]| -> Vec<Value> {
        paths.iter().map(|path| path.to_string_lossy().into()).collect()
    };
    let hidden = recovery
        .not_visible
        .iter()
        .map(|hidden| json!({ "path": hidden.path.to_string_lossy(), "errno": hidden.errno }));
    json!({
        "replayed": paths(&recovery.replayed),
        "torn": recovery.torn,
        "not_visible": hidden.collect::<Vec<_>>(),
        "damage": recovery.damage,
    })
}
