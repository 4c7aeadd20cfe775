//! A store's whole surface, in any order, ids and names good and bad, closed, opened again and killed: against a
//! map of what was saved.

mod cases;
mod model;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use ringseal::{Cause, Committed, Error, Outcome as Fate, StateStore, Step, StoreOptions};

use super::rooms::{Outcome, check};
use super::tree;
use cases::{Call, Change};
use model::{Model, Verdict};

pub(super) const STATE: &str = "state.json";
pub(super) const PID: &str = "init.pid";
pub(super) const OTHER: &str = "network.json";

pub(super) fn run(cases: u64, seed: u64, scratch: &Path) -> anyhow::Result<Outcome> {
    let root = scratch.join("root");
    Ok(check(cases, seed, &cases::calls(), |calls| {
        tree::clear(&root)?;
        one(&root, &calls)
    }))
}

fn open(root: &Path) -> anyhow::Result<StateStore> {
    let options = StoreOptions::new().other_name(OTHER).segment_bytes(64 << 10, 128 << 10);
    Ok(options.spread_after(Duration::from_secs(3600)).open_blocking(root)?)
}

fn one(root: &Path, calls: &[Call]) -> anyhow::Result<()> {
    let mut model = Model::default();
    let mut store = open(root)?;
    for (index, call) in calls.iter().enumerate() {
        let done = match call {
            Call::Reopen => {
                store.close_blocking()?;
                closed(&store)?;
                drop(store);
                store = open(root)?;
                opened(&store)
            }
            Call::Drop => {
                drop(store);
                store = open(root)?;
                opened(&store)
            }
            Call::Killed(calls) => {
                store.close_blocking()?;
                drop(store);
                killed(root, &mut model, calls)?;
                store = open(root)?;
                opened(&store)
            }
            call => make(&store, root, &mut model, call),
        };
        done.with_context(|| format!("call {index}"))?;
        same(&store, root, &model).with_context(|| format!("after call {index}"))?;
    }
    Ok(())
}

/// One call, and what it has to answer.
fn make(store: &StateStore, root: &Path, model: &mut Model, call: &Call) -> anyhow::Result<()> {
    match call {
        Call::Commit { changes, is_future } => {
            let verdict = model.commit(root, changes);
            let transaction = transaction(store, changes);
            let answer = match is_future {
                true => pollster::block_on(transaction.commit()),
                false => transaction.commit_blocking(),
            };
            judge(model, changes, verdict, answer)
        }
        Call::Pid(id, pid) => {
            let verdict = model.pid(id, *pid);
            let change = Change::Save(id.clone(), PID.to_owned(), pid.to_string().into_bytes());
            judge(model, &[change], verdict, store.write_pid_blocking(id, *pid))
        }
        Call::Load(id, name) => {
            let found = match name == STATE {
                true => store.load_bytes_blocking(id),
                false => store.load_file_blocking(id, name),
            };
            match (found, model.load(id, name)) {
                (Ok(found), Some(expected)) => {
                    ensure!(found.as_deref() == expected, "loaded {found:?}");
                    Ok(())
                }
                (Err(error), None) => refused(&error),
                (found, expected) => bail!("loaded {found:?}, not {expected:?}"),
            }
        }
        Call::Reopen | Call::Drop | Call::Killed(_) => Ok(()),
    }
}

fn transaction(store: &StateStore, changes: &[Change]) -> ringseal::Transaction {
    changes.iter().fold(store.transaction(), |transaction, change| match change {
        Change::Save(id, name, data) if name == STATE => transaction.save_bytes(id, data.clone()),
        Change::Save(id, name, data) => transaction.save_file(id, name, data.clone()),
        Change::Remove(id) => transaction.remove(id),
    })
}

fn judge(
    model: &mut Model,
    changes: &[Change],
    verdict: Verdict,
    answer: Result<Committed, Error>,
) -> anyhow::Result<()> {
    let data = changes.iter().map(Change::len).sum::<usize>();
    match (answer, verdict) {
        // It is not looked at any further. Its records have more than their data, but not much more.
        (Err(error), Verdict::Made(_) | Verdict::Missing) if is_too_large(&error) => {
            ensure!(changes.len() > 1 && data > 80 << 10, "{error}");
            ensure!(error.outcome() == Fate::Unchanged, "{error}");
            Ok(())
        }
        (Ok(committed), Verdict::Made(next)) => {
            ensure!(committed.bytes == data as u64, "{committed:?}, of {data} bytes");
            ensure!(committed.not_visible.is_empty() && committed.left.is_empty(), "{committed:?}");
            *model = next;
            Ok(())
        }
        (Err(error), Verdict::Refused) => refused(&error),
        (Err(error), Verdict::Missing) => {
            let found = (error.step(), error.raw_os_error(), error.outcome());
            let expected = (Step::OpenDirectory, Some(libc::ENOENT), Fate::Unchanged);
            ensure!(found == expected, "{error}");
            Ok(())
        }
        (Err(error), Verdict::Made(_)) => bail!("it failed: {error}"),
        (Ok(committed), verdict) => bail!("{committed:?}, not {verdict:?}"),
    }
}

fn is_too_large(error: &Error) -> bool {
    matches!(error.cause(), Cause::TransactionTooLarge { bytes, max } if bytes > max)
}

/// Refused before anything was done.
fn refused(error: &Error) -> anyhow::Result<()> {
    let is_refusal = matches!(error.cause(), Cause::InvalidRequest(_));
    ensure!(is_refusal && error.step() == Step::Accept, "{error}");
    ensure!(error.outcome() == Fate::Unchanged, "{error}");
    Ok(())
}

/// A store that is closed takes nothing and reads nothing.
fn closed(store: &StateStore) -> anyhow::Result<()> {
    let saved = store.save_bytes_blocking("a", "late").map(drop);
    let errors = [saved, store.list_blocking().map(drop), store.load_bytes_blocking("a").map(drop)];
    for answer in errors {
        let Err(error) = answer else { bail!("a closed store answers") };
        ensure!(matches!(error.cause(), Cause::Closed), "{error}");
    }
    Ok(())
}

/// Nothing was lost or damaged, and everything has its place.
fn opened(store: &StateStore) -> anyhow::Result<()> {
    let recovery = store.recovery();
    let is_good = recovery.damage.is_none() && recovery.not_visible.is_empty();
    ensure!(is_good && recovery.torn == 0, "{recovery:?}");
    Ok(())
}

/// Does calls in a process that ends without closing its store.
fn killed(root: &Path, model: &mut Model, calls: &[Call]) -> anyhow::Result<()> {
    // SAFETY: the store was closed, so that no other thread of this process holds a lock for long.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error().into()),
        0 => {
            // One that hangs ends with the one that waits for it.
            let kill = Some(rustix::process::Signal::KILL);
            let _ = rustix::process::set_parent_process_death_signal(kill);
            let body = || -> anyhow::Result<()> {
                let store = open(root)?;
                calls.iter().try_for_each(|call| make(&store, root, model, call))?;
                std::mem::forget(store);
                Ok(std::fs::write(root.with_extension("model"), serde_json::to_vec(model)?)?)
            };
            let why = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(_) => Some("it panicked".to_owned()),
            };
            if let Some(why) = &why {
                let _ = std::fs::write(root.with_extension("failure"), why);
            }
            // SAFETY: ends this process as a kill does, without closing anything.
            unsafe { libc::_exit(i32::from(why.is_some())) }
        }
        pid => {
            let pid = rustix::process::Pid::from_raw(pid).context("a child")?;
            let options = rustix::process::WaitOptions::empty();
            let ended = rustix::process::waitpid(Some(pid), options)?;
            let code = ended.and_then(|(_, status)| status.exit_status());
            let failure = root.with_extension("failure");
            ensure!(code == Some(0), "the killed one: {:?}", std::fs::read_to_string(failure));
            let made = std::fs::read(root.with_extension("model"))?;
            *model = serde_json::from_slice(&made)?;
            Ok(())
        }
    }
}

/// The store, and the files themselves, are what was saved.
fn same(store: &StateStore, root: &Path, model: &Model) -> anyhow::Result<()> {
    let mut found = tree::read(root)?;
    found.retain(|path, _| !path.starts_with(b".ringseal"));
    // One that a transaction which failed has made may stay, empty.
    let is_file = |thing: &tree::Thing| *thing != tree::Thing::Directory;
    let files: tree::Tree = found.into_iter().filter(|(_, thing)| is_file(thing)).collect();
    if let Some(difference) = tree::difference(&files, &model.files()) {
        bail!("{difference}");
    }
    let (ids, expected) = (store.list_blocking()?, model.ids());
    ensure!(ids == expected, "the list is {ids:?}, not {expected:?}");
    ensure!(store.not_visible().is_empty(), "{:?}", store.not_visible());
    Ok(())
}
