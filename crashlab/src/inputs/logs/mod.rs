//! Any bytes as a log, as what was set aside, and beside them: opening a store on them never panics, hangs or takes
//! all memory, writes nothing outside of its root, and either changes nothing or puts only what was written into
//! the files.

mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use ringseal::{OpenError, StateStore, StoreOptions, inspect_log};

use super::rooms::{Outcome, check};
use super::tree::{self, Thing, Tree};
use super::{segment, segment::Record};
use cases::{Case, Plant};

/// Containers that are there, and have these files.
pub(super) const IDS: [&str; 3] = ["a", "b", "c"];
pub(super) const NAMES: [&str; 2] = ["state.json", "network.json"];

/// Bytes of a segment.
pub(super) const SEGMENT: usize = 64 << 10;

pub(super) fn run(cases: u64, seed: u64, scratch: &Path) -> anyhow::Result<Outcome> {
    let base = scratch.join("base");
    Ok(check(cases, seed, &cases::case(), |case| {
        tree::clear(&base)?;
        one(&base, &case)
    }))
}

fn options(case: &Case) -> StoreOptions {
    let options = StoreOptions::new().other_name("network.json").segment_bytes(64 << 10, 64 << 10);
    if case.salvages { options.salvage() } else { options }
}

fn one(base: &Path, case: &Case) -> anyhow::Result<()> {
    let root = base.join("root");
    make(base, &root)?;
    let own = root.join(".ringseal");
    let mut written = Written::default();
    let replayed = log(&own, &root, case, &mut written)?;
    plant(&own, &root, case, &mut written)?;

    let before = tree::read(base)?;
    // Whoever only looks changes nothing, whatever is there.
    let _ = inspect_log(&root);
    let _ = StoreOptions::new().open_read_only(&root)?.freshness();
    if let Some(difference) = tree::difference(&tree::read(base)?, &before) {
        bail!("a look has changed {difference}");
    }
    let opened = options(case).open_blocking(&root);
    let after = tree::read(base)?;
    match opened {
        Err(error) => {
            may_refuse(case, &error)?;
            match error {
                // Some files may be as the log has them.
                OpenError::Io { .. } => only_written(&before, &after, &written),
                _ => unchanged(&before, &after),
            }
        }
        Ok(store) => {
            only_written(&before, &after, &written)?;
            if let (Some(replayed), true) = (&replayed, case.plants.is_empty()) {
                exactly(&after, replayed)?;
            }
            goes_on(&store, case, &root)
        }
    }
}

/// A root with containers, and somebody else's things around it.
fn make(base: &Path, root: &Path) -> anyhow::Result<()> {
    for dir in [base, root, &base.join("outside"), &root.join(".ringseal")] {
        fs::create_dir(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    let file = |data: &str| Thing::File { mode: 0o600, data: data.into() };
    tree::put(&base.join("outside/state.json"), &file("theirs"))?;
    for id in IDS {
        tree::put(&root.join(id), &Thing::Directory)?;
        tree::put(&root.join(id).join("state.json"), &file("old"))?;
    }
    tree::put(&root.join("a/theirs"), &file("theirs"))
}

/// Versions that were written, of each path; `None` is a removal.
#[derive(Debug, Default)]
struct Written(BTreeMap<String, BTreeSet<Option<Vec<u8>>>>);

impl Written {
    fn note(&mut self, record: &Record) {
        let version = (record.kind == 1).then(|| record.data.clone());
        // One that is made void is neither.
        if record.kind != 3 {
            self.0.entry(record.path.clone()).or_default().insert(version);
        }
    }
}

/// Makes the log. What its replay has to bring about, if nothing in it is wrong.
fn log(
    own: &Path,
    root: &Path,
    case: &Case,
    written: &mut Written,
) -> anyhow::Result<Option<BTreeMap<String, Option<Vec<u8>>>>> {
    let mut segments = [segment::empty(0, SEGMENT), segment::empty(1, SEGMENT)];
    let directories: BTreeMap<&str, (u64, u64)> = IDS
        .into_iter()
        .map(|id| Ok((id, segment::directory(&root.join(id))?)))
        .collect::<anyhow::Result<_>>()?;
    let (groups, spread) = case.groups(&directories);
    let mut replayed = BTreeMap::new();
    for group in &groups {
        let (bytes, _) = group.encode();
        let at = group.block as usize * segment::BLOCK;
        let Some(place) = segments[usize::from(group.segment % 2)].get_mut(at..at + bytes.len())
        else {
            continue;
        };
        place.copy_from_slice(&bytes);
        for record in &group.records {
            written.note(record);
            if group.seq > spread {
                match record.kind {
                    3 => drop(replayed.remove(&record.path)),
                    kind => {
                        let version = (kind == 1).then(|| record.data.clone());
                        replayed.insert(record.path.clone(), version);
                    }
                }
            }
        }
    }
    case.damages.iter().for_each(|damage| damage.to(&mut segments));
    let log = own.join("log");
    fs::create_dir(&log)?;
    fs::set_permissions(&log, fs::Permissions::from_mode(0o700))?;
    for (index, data) in segments.into_iter().enumerate() {
        let file = Thing::File { mode: 0o600, data };
        tree::put(&log.join(format!("log.{index}")), &file)?;
    }
    let is_right = case.damages.is_empty() && case.is_right();
    Ok(is_right.then_some(replayed))
}

/// Puts what does not belong there into the store's own directory.
fn plant(own: &Path, root: &Path, case: &Case, written: &mut Written) -> anyhow::Result<()> {
    for plant in &case.plants {
        match plant {
            Plant::Thing { path, thing, replaces } => {
                let path = own.join(path);
                if let Some(dir) = path.parent() {
                    // A parent may be a file by now; then it is not planted.
                    let _ = fs::create_dir_all(dir);
                }
                if *replaces {
                    let _ = tree::clear(&path);
                }
                let _ = tree::put(&path, thing);
            }
            Plant::Aside { id, name, mode, data, is_its } => {
                let (inode, born) = segment::directory(&root.join(id))?;
                let born = if *is_its { born } else { born ^ 1 };
                let dir = own.join(format!("unplaced/{id}/{inode:x}-{born:x}-0"));
                if fs::create_dir_all(&dir).is_err() {
                    continue;
                }
                let file = Thing::File { mode: *mode, data: data.clone() };
                if tree::put(&dir.join(name), &file).is_ok() {
                    let path = format!("{id}/{name}");
                    let is_removal = *mode == 0 && data.is_empty();
                    let version = (!is_removal).then(|| data.clone());
                    written.0.entry(path).or_default().insert(version);
                }
            }
        }
    }
    Ok(())
}

/// Why a store may not be opened here.
fn may_refuse(case: &Case, error: &OpenError) -> anyhow::Result<()> {
    let is_damaged = !case.damages.is_empty() || !case.is_right();
    match error {
        OpenError::Damaged { .. } if case.salvages && case.plants.is_empty() => {
            bail!("not even salvaged: {error}")
        }
        OpenError::Damaged { .. }
        | OpenError::NewerVersion { .. }
        | OpenError::UnknownFeatures { .. }
            if is_damaged =>
        {
            Ok(())
        }
        _ if !case.plants.is_empty() => Ok(()),
        other => bail!("refused: {other}"),
    }
}

/// All but what an opening may make of the store's own things, and what a crash has left of them.
fn unchanged(before: &Tree, after: &Tree) -> anyhow::Result<()> {
    let rest = |tree: &Tree| -> Tree {
        let own = b"root/.ringseal/";
        let mut tree = tree.clone();
        tree.retain(|path, _| {
            let name = path.strip_prefix(own).unwrap_or(b"");
            name != b"lock" && !name.starts_with(b"log.new")
        });
        tree
    };
    match tree::difference(&rest(after), &rest(before)) {
        Some(difference) => bail!("it was refused, and changed: {difference}"),
        None => Ok(()),
    }
}

/// Nothing was written but what had been written before, and nothing of others is touched.
fn only_written(before: &Tree, after: &Tree, written: &Written) -> anyhow::Result<()> {
    let is_own = |path: &[u8]| path.starts_with(b"root/.ringseal");
    let paths: BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    for path in paths.into_iter().filter(|path| !is_own(path)) {
        let (old, new) = (before.get(path), after.get(path));
        if old == new {
            continue;
        }
        let shown = path.escape_ascii();
        let below = path.strip_prefix(b"root/").and_then(|path| std::str::from_utf8(path).ok());
        let below = below.with_context(|| format!("{shown} was changed, outside of the root"))?;
        let versions = written.0.get(below);
        let was_removed = |id: &str| {
            let path = |path: &String| path.split_once('/').is_some_and(|(its, _)| its == id);
            written.0.iter().any(|(of, versions)| path(of) && versions.contains(&None))
        };
        let is_good = match (old, new) {
            (_, Some(Thing::File { data, .. })) => {
                versions.is_some_and(|versions| versions.contains(&Some(data.clone())))
            }
            (Some(Thing::File { .. }), None) => {
                versions.is_some_and(|versions| versions.contains(&None))
            }
            (Some(Thing::Directory), None) => was_removed(below),
            _ => false,
        };
        ensure!(is_good, "{shown} was {old:?} and is {new:?}");
    }
    Ok(())
}

/// The files have the last version that the log has of each.
fn exactly(after: &Tree, replayed: &BTreeMap<String, Option<Vec<u8>>>) -> anyhow::Result<()> {
    for (path, version) in replayed {
        let found = match after.get(format!("root/{path}").as_bytes()) {
            Some(Thing::File { data, .. }) => Some(data),
            _ => None,
        };
        ensure!(found == version.as_ref(), "{path} is {found:?}, not {version:?}");
    }
    Ok(())
}

/// A store that was opened is one.
fn goes_on(store: &StateStore, case: &Case, root: &Path) -> anyhow::Result<()> {
    let saved = store.save_bytes_blocking("new", "1");
    ensure!(saved.is_ok(), "opened, and takes nothing: {saved:?}");
    let pair = store.transaction().save_bytes("a", "2").save_bytes("b", "3").commit_blocking();
    if case.plants.is_empty() {
        let committed = pair.context("a transaction in what was opened")?;
        ensure!(committed.not_visible.is_empty(), "{committed:?}");
    }
    let _ = store.close_blocking();
    ensure!(fs::read(root.join("new/state.json"))? == b"1", "it was saved, and is not there");
    if case.plants.is_empty() {
        let again = options(case).open_blocking(root).context("what was opened and closed")?;
        ensure!(again.load_bytes_blocking("a")?.as_deref() == Some(&b"2"[..]), "it is not there");
    }
    Ok(())
}
