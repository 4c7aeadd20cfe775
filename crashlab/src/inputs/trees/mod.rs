//! Somebody else plants links, FIFOs, files and directories below a store's root, between its calls: it follows
//! nothing, destroys nothing of theirs, and goes on or says why not.

mod cases;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use ringseal::{Committed, Error, Outcome as Fate, StateStore, StoreOptions};

use super::rooms::{Outcome, check};
use super::tree::{self, Thing, Tree};
use cases::{Act, Case};

/// Names of files that the store manages; all others are theirs.
const MANAGED: [&str; 2] = ["state.json", "init.pid"];

pub(super) fn run(cases: u64, seed: u64, scratch: &Path) -> anyhow::Result<Outcome> {
    let base = scratch.join("base");
    Ok(check(cases, seed, &cases::case(), |case| {
        tree::clear(&base)?;
        one(&base, &case)
    }))
}

fn open(root: &Path) -> anyhow::Result<StateStore> {
    let options = StoreOptions::new().segment_bytes(64 << 10, 64 << 10);
    Ok(options.spread_after(Duration::from_secs(3600)).open_blocking(root)?)
}

fn one(base: &Path, case: &Case) -> anyhow::Result<()> {
    let root = base.join("root");
    fs::create_dir(base)?;
    for dir in ["root", "outside"] {
        fs::create_dir(base.join(dir))?;
        fs::set_permissions(base.join(dir), fs::Permissions::from_mode(0o700))?;
    }
    for name in ["state.json", "init.pid", "theirs"] {
        let theirs = Thing::File { mode: 0o600, data: b"theirs".to_vec() };
        tree::put(&base.join("outside").join(name), &theirs)?;
    }
    let mut store = open(&root)?;
    for (index, act) in case.0.iter().enumerate() {
        let before = tree::read(base)?;
        let done = match act {
            Act::Plant(path, thing) => {
                let path = root.join(path);
                // What stands in its way stays: another act removes it.
                let _ = tree::put(&path, thing);
                continue;
            }
            Act::Clear(path) => {
                tree::clear(&root.join(path))?;
                continue;
            }
            Act::Move(from, to) => {
                let _ = fs::rename(root.join(from), root.join(to));
                continue;
            }
            Act::Reopen => {
                let _ = store.close_blocking();
                drop(store);
                store = open(&root).context("nothing below a root keeps it shut")?;
                continue;
            }
            Act::Save(id, data) => {
                let answer = store.save_bytes_blocking(id, data.clone());
                saved(base, &store, &before, &[(id, data)], answer)
            }
            Act::Pair(one, other, data) => {
                let transaction = store.transaction().save_bytes(one, data.clone());
                let answer = transaction.save_bytes(other, data.clone()).commit_blocking();
                saved(base, &store, &before, &[(one, data), (other, data)], answer)
            }
            Act::Pid(id) => store.write_pid_blocking(id, 4711).map(drop).or_else(|error| {
                ensure!(error.outcome() == Fate::Unchanged, "{error}");
                unchanged(base, &before)
            }),
            Act::Remove(id) => removed(base, &store, &before, id, store.remove_blocking(id)),
            Act::Look(id) => {
                looked(&root, &store, id)?;
                unchanged(base, &before)
            }
        };
        done.with_context(|| format!("act {index}"))?;
        theirs_stand(&before, &tree::read(base)?, act).with_context(|| format!("act {index}"))?;
    }
    let _ = store.close_blocking();
    drop(store);
    open(&root).context("nothing below a root keeps it shut")?;
    Ok(())
}

/// All but empty directories that a transaction which failed has made.
fn unchanged(base: &Path, before: &Tree) -> anyhow::Result<()> {
    let mut after = tree::read(base)?;
    after.retain(|path, thing| *thing != Thing::Directory || before.contains_key(path));
    let rest = |tree: &Tree| -> Tree {
        let is_own = |path: &[u8]| path.starts_with(b"root/.ringseal/");
        tree.iter().filter(|(path, _)| !is_own(path)).map(|(p, t)| (p.clone(), t.clone())).collect()
    };
    match tree::difference(&rest(&after), &rest(before)) {
        Some(difference) => bail!("an error that says unchanged: {difference}"),
        None => Ok(()),
    }
}

fn saved(
    base: &Path,
    store: &StateStore,
    before: &Tree,
    states: &[(&String, &Vec<u8>)],
    answer: Result<Committed, Error>,
) -> anyhow::Result<()> {
    match answer {
        Ok(committed) => {
            for (id, data) in states {
                let loaded = store.load_bytes_blocking(id)?;
                ensure!(loaded.as_deref() == Some(&data[..]), "{id} is {loaded:?}");
                let path = base.join("root").join(id).join("state.json");
                let is_visible = committed.not_visible.iter().all(|one| one.path != path);
                if is_visible {
                    let found = tree::look(&path)?;
                    let expected = Thing::File { mode: 0o600, data: data.to_vec() };
                    ensure!(found == expected, "{id} is {found:?}");
                }
            }
            Ok(())
        }
        Err(error) => {
            ensure!(error.outcome() == Fate::Unchanged, "{error}");
            let is_known = [libc::ENOTDIR, libc::ELOOP, libc::EISDIR, libc::EINVAL];
            let errno = error.raw_os_error().unwrap_or(0);
            ensure!(is_known.contains(&errno), "{error}");
            unchanged(base, before)
        }
    }
}

fn removed(
    base: &Path,
    store: &StateStore,
    before: &Tree,
    id: &str,
    answer: Result<Committed, Error>,
) -> anyhow::Result<()> {
    match answer {
        Ok(committed) => {
            let dir = base.join("root").join(id);
            let is_left = committed.left == [dir.clone()];
            ensure!(is_left == dir.exists(), "left: {:?}", committed.left);
            for name in MANAGED {
                let path = dir.join(name);
                let stands = fs::symlink_metadata(&path).is_ok_and(|look| !look.is_dir());
                ensure!(!stands, "{} was removed, and is there", path.display());
            }
            ensure!(store.load_bytes_blocking(id).ok().flatten().is_none(), "it is loaded");
            Ok(())
        }
        Err(error) => {
            ensure!(error.outcome() == Fate::Unchanged, "{error}");
            unchanged(base, before)
        }
    }
}

/// What is read is the file itself, or an error.
fn looked(root: &Path, store: &StateStore, id: &str) -> anyhow::Result<()> {
    let dir = root.join(id);
    let path = dir.join("state.json");
    let is_directory = fs::symlink_metadata(&dir).is_ok_and(|look| look.is_dir());
    let found = if is_directory { tree::look(&path).ok() } else { None };
    match (store.load_bytes_blocking(id), found) {
        (Ok(Some(data)), Some(Thing::File { data: expected, .. })) => {
            ensure!(data == expected, "read {data:?}");
        }
        (Ok(None), None) => {
            let is_none = is_directory || fs::symlink_metadata(&dir).is_err();
            ensure!(is_none, "it is no directory, and reads as none");
        }
        (Err(error), None) => ensure!(!is_directory, "{error}"),
        (Err(_), Some(Thing::File { .. })) => bail!("a file cannot be read"),
        (Err(_), Some(_)) => {}
        (read, found) => bail!("read {read:?}, and there is {found:?}"),
    }
    let listed = store.list_blocking()?;
    ensure!(listed.windows(2).all(|pair| pair[0] < pair[1]), "{listed:?}");
    let _ = store.verify_blocking()?;
    Ok(())
}

/// Nothing that is not the store's was changed.
fn theirs_stand(before: &Tree, after: &Tree, act: &Act) -> anyhow::Result<()> {
    for (path, thing) in before {
        if path.starts_with(b"root/.ringseal") {
            continue;
        }
        let shown = path.escape_ascii();
        let now = after.get(path);
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(b"");
        let is_in_container = path.starts_with(b"root/")
            && path.iter().filter(|byte| **byte == b'/').count() == 2
            && MANAGED.iter().any(|managed| managed.as_bytes() == name);
        let may_change = match (thing, act) {
            // An empty one goes with its container.
            (Thing::Directory, Act::Remove(_)) => now.is_none(),
            (Thing::Directory, _) => false,
            (Thing::Fifo | Thing::Other, Act::Remove(_)) => is_in_container && now.is_none(),
            (Thing::Fifo | Thing::Other, _) => false,
            (Thing::File { .. } | Thing::Link(_), _) => is_in_container,
        };
        ensure!(now == Some(thing) || may_change, "{shown} was {thing:?} and is {now:?}");
    }
    for (path, thing) in after.iter().filter(|(path, _)| !before.contains_key(*path)) {
        ensure!(path.starts_with(b"root/"), "{} is new: {thing:?}", path.escape_ascii());
    }
    Ok(())
}
