//! What a filesystem holds after a power cut or a fault: recovered as a runtime would, and read.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use ringseal::{Freshness, StateStore};

use crate::condition::FILLER;
use crate::load::content::{Found, STORE_MODE};
use crate::load::run::store_options;
use crate::load::{Load, OTHER, PID, ROOT, STATE};
use crate::promise::Contents;

/// The store's own directory.
const OWN: &str = ".ringseal";

/// Recovers as a runtime does when it starts, and does no more.
pub(crate) fn recover(load: &Load, directory: &Path) -> Result<()> {
    if load.shape.is_store() {
        store_options().open_blocking(directory.join(ROOT))?.close_blocking()?;
        return Ok(());
    }
    for holder in directories(directory)? {
        ringseal::recover(&holder)?;
    }
    Ok(())
}

/// Everything below the load's directory, by its path there, before or after the recovery; what is broken in
/// itself is told.
pub(crate) fn look(load: &Load, directory: &Path) -> Result<Vec<(Contents, Vec<String>)>> {
    if load.shape.is_store() {
        return Ok(vec![through_store(directory)?]);
    }
    // A writer's files need no recovery.
    let before = files(directory, true)?;
    recover(load, directory)?;
    let after = files(directory, false)?;
    Ok(vec![(before, Vec::new()), (after, Vec::new())])
}

/// Opens the store, compares what it says with what the files say, and closes it.
fn through_store(directory: &Path) -> Result<(Contents, Vec<String>)> {
    let root = directory.join(ROOT);
    // Who only reads is told if the files lack something, and may believe it if they do not.
    let before = files(directory, true)?;
    let freshness = store_options().open_read_only(&root)?.freshness();
    let store = store_options().open_blocking(&root).context("the store does not open")?;
    let mut broken = Vec::new();
    for hidden in &store.recovery().not_visible {
        broken.push(format!("{} was not placed: errno {}", hidden.path.display(), hidden.errno));
    }
    let found = files(directory, false)?;
    let behind = match freshness {
        // Somebody whom the kill has not quite ended.
        Ok(Freshness::Open { .. }) => None,
        Ok(Freshness::Behind { files, .. }) => Some(files),
        Ok(_) => Some(Vec::new()),
        Err(error) => {
            broken.push(format!("a reader was refused: {error}"));
            None
        }
    };
    if let Some(behind) = behind {
        let is_told = |path: &str| behind.contains(&directory.join(path));
        let changed = changed(&before, &found).filter(|path| !is_told(path));
        broken.extend(changed.map(|path| {
            format!("{path}: not said to be behind, and opening the store has changed it")
        }));
    }
    broken.extend(differing(&store, &found)?);
    store.close_blocking().context("the store does not close")?;
    let reader = store_options().open_read_only(&root)?;
    match reader.freshness()? {
        Freshness::Current => {}
        other => broken.push(format!("after the store was closed its files are {other:?}")),
    }
    let again = files(directory, false)?;
    if again != found {
        broken.push("closing the store has changed files".to_owned());
    }
    Ok((found, broken))
}

/// The files that are not as before.
fn changed<'a>(before: &'a Contents, after: &'a Contents) -> impl Iterator<Item = &'a String> {
    let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let is_changed = |path: &&String| before.get(*path) != after.get(*path);
    all.into_iter().filter(|path| !path.ends_with('/')).filter(is_changed)
}

/// What the store says otherwise than its files.
fn differing(store: &StateStore, found: &Contents) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let mut with_state = Vec::new();
    let id_of = |path: &String| {
        let below = path.strip_prefix(ROOT)?.strip_prefix('/')?;
        Some(below.strip_suffix('/')?.to_owned())
    };
    for id in found.keys().filter_map(id_of) {
        for name in [STATE, OTHER] {
            let path = format!("{ROOT}/{id}/{name}");
            let there = found.get(&path).unwrap_or(&Found::Nothing);
            let loaded = store.load_file_blocking(&id, name)?;
            let loaded = loaded.map_or(Found::Nothing, |bytes| Found::of(&path, &bytes, None));
            if loaded != *there {
                broken.push(format!("{path}: {there}, but the store loads {loaded}"));
            }
            if name == STATE && loaded != Found::Nothing {
                with_state.push(id.clone());
            }
        }
    }
    let listed = store.list_blocking()?;
    if listed != with_state {
        broken.push(format!("it lists {listed:?}, but the files are {with_state:?}"));
    }
    Ok(broken)
}

/// The files below a directory, and below a store's root the directories. `temps`: temporary files and spares may
/// be there.
fn files(directory: &Path, temps: bool) -> Result<Contents> {
    let mut found = Contents::new();
    for holder in directories(directory)? {
        let of_temps = match temps {
            true => ringseal::leftovers(&holder)?,
            false => Vec::new(),
        };
        let below = below(directory, &holder);
        if below.starts_with(ROOT) && below != ROOT {
            found.insert(format!("{below}/"), Found::Directory);
        }
        for entry in fs::read_dir(&holder)? {
            let entry = entry?;
            let path = entry.path();
            let is_spare = entry.file_name().as_bytes().starts_with(b".ringseal-spare-");
            let is_temp = of_temps.iter().any(|temp| temp.path == path) || (temps && is_spare);
            if path.is_dir() || is_temp || path.ends_with(FILLER) {
                continue;
            }
            let name = self::below(directory, &path);
            let mode = fs::symlink_metadata(&path)?.permissions().mode() & 0o7777;
            let there = match fs::read(&path) {
                // All pid files are alike: some process's number.
                Ok(content)
                    if name.ends_with(PID)
                        && !content.is_empty()
                        && content.iter().all(u8::is_ascii_digit)
                        && mode == STORE_MODE =>
                {
                    Found::Version(0)
                }
                Ok(content) => Found::of(name.trim_end_matches(".previous"), &content, Some(mode)),
                Err(error) => Found::Torn(error.to_string()),
            };
            found.insert(name, there);
        }
    }
    Ok(found)
}

/// The directory and all below it, but for the store's own and what the filesystem has put there.
fn directories(top: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut all = vec![top.to_owned()];
    let mut at = 0;
    while at < all.len() {
        for entry in fs::read_dir(&all[at])? {
            let entry = entry?;
            let is_foreign = [OWN, "lost+found"].iter().any(|name| entry.file_name() == *name);
            if entry.file_type()?.is_dir() && !is_foreign {
                all.push(entry.path());
            }
        }
        at += 1;
    }
    Ok(all)
}

fn below(top: &Path, path: &Path) -> String {
    path.strip_prefix(top).unwrap_or(path).to_string_lossy().into_owned()
}
