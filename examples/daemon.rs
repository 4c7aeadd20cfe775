//! A daemon that owns a root of 1000 pretend containers, is killed in the middle of its work, and is started again.
//!
//! ```sh
//! cargo run --release --features cli --example daemon [DIR]
//! ```
//!
//! The first process starts the daemon as a second one, which tells it of every state that the store has
//! acknowledged, and kills it. The next daemon must find all of them.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use indicatif::{ProgressBar, ProgressStyle};
use ringseal::{Publish, StateStore, StoreOptions};
use serde::{Deserialize, Serialize};

const CONTAINERS: u64 = 1000;
/// What each container goes through.
const LIFE: [&str; 4] = ["creating", "created", "running", "stopped"];
/// Containers that change their state together, as those of a pod do.
const POD: u64 = 4;
const ROOT: &str = "RINGSEAL_EXAMPLE_ROOT";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct State {
    id: String,
    status: String,
    pid: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(root) = std::env::var_os(ROOT) {
        return be_daemon(Path::new(&root));
    }
    let home = tempfile::tempdir()?;
    let root = std::env::args_os().nth(1).map_or(home.path().join("containers"), PathBuf::from);
    let mut acknowledged = HashMap::new();
    // Two thirds into all lives it is killed; the second one comes to the end.
    let all = CONTAINERS * LIFE.len() as u64;
    let told = watch_daemon(&root, &mut acknowledged, Some(all * 2 / 3))?;
    println!("killed after {told} acknowledged states");

    let store = StateStore::open_blocking(&root)?;
    let replayed = store.recovery().replayed.len();
    let newer = |status: &str| LIFE.iter().position(|one| *one == status);
    for (id, status) in &acknowledged {
        let found = store.load_blocking::<State>(id)?.ok_or_else(|| format!("{id} is lost"))?;
        if newer(&found.status) < newer(status) {
            return Err(
                format!("{id} is {}, and was acknowledged as {status}", found.status).into()
            );
        }
    }
    println!("nothing lost: {} containers; {replayed} files were put right", acknowledged.len());
    store.close_blocking()?;
    drop(store);

    watch_daemon(&root, &mut acknowledged, None)?;
    let reader = StoreOptions::new().open_read_only(&root)?;
    println!("after the restart: {:?}", reader.freshness()?);
    let stopped = acknowledged.values().filter(|status| *status == "stopped").count();
    println!("{stopped} of {CONTAINERS} containers have stopped");
    if stopped as u64 == CONTAINERS { Ok(()) } else { Err("some have not".into()) }
}

/// Runs a daemon, notes what it tells, and kills it after so much.
fn watch_daemon(
    root: &Path,
    acknowledged: &mut HashMap<String, String>,
    kill_after: Option<u64>,
) -> Result<u64, Box<dyn Error>> {
    let mut daemon = Command::new(std::env::current_exe()?);
    let mut daemon = daemon.env(ROOT, root).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(daemon.stdout.take().ok_or("no pipe")?).lines();
    let bar = ProgressBar::new(CONTAINERS * LIFE.len() as u64);
    bar.set_style(ProgressStyle::with_template("{msg:12} {wide_bar} {pos}/{len} {per_sec}")?);
    let mut told = 0;
    for line in lines {
        let line = line?;
        let (id, status) = line.split_once(' ').ok_or("not a line of the daemon's")?;
        bar.set_message(status.to_owned());
        bar.inc(1);
        acknowledged.insert(id.to_owned(), status.to_owned());
        told += 1;
        if kill_after == Some(told) {
            daemon.kill()?;
            break;
        }
    }
    bar.abandon();
    let status = daemon.wait()?;
    if kill_after.is_none() && !status.success() {
        return Err(format!("the daemon ended with {status}").into());
    }
    Ok(told)
}

/// Brings every container from where it is to its end, a pod at a time.
fn be_daemon(root: &Path) -> Result<(), Box<dyn Error>> {
    // What it tells is durable; others see it a moment later.
    let store = StoreOptions::new().publish(Publish::Behind).open_blocking(root)?;
    let mut out = std::io::stdout().lock();
    for (stage, status) in LIFE.iter().enumerate() {
        for pod in 0..CONTAINERS / POD {
            let mut transaction = store.transaction();
            let mut changed = Vec::new();
            for container in pod * POD..(pod + 1) * POD {
                let id = format!("container-{container:03}");
                let before = store.load_blocking::<State>(&id)?;
                let at = before.and_then(|state| LIFE.iter().position(|one| *one == state.status));
                if at.is_some_and(|at| at > stage) {
                    continue;
                }
                let state = State { id: id.clone(), status: (*status).to_owned(), pid: 4711 };
                transaction = transaction.save(&id, &state)?;
                changed.push(id);
            }
            transaction.commit_blocking()?;
            for id in changed {
                writeln!(out, "{id} {status}")?;
            }
            out.flush()?;
        }
    }
    Ok(store.close_blocking()?)
}
