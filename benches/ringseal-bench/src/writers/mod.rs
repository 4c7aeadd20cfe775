//! The ways of saving files that are compared.
//!
//! Each does the same for a file, as far as it can: a temporary file beside the target, write,
//! sync, rename, sync of the directory.

mod crates;
pub(crate) mod databases;
mod floor;
mod fsys;
mod ringseal;
pub(crate) mod std_fs;
mod store;
mod tokio_fs;
mod tokio_uring;

use std::fmt;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};

use crate::cell::{Cell, parent};

/// A way of saving files, ready to measure.
pub(crate) trait Writer {
    /// Called once for a cell, not measured.
    fn prepare(&mut self, _cell: &Cell) -> Result<()> {
        Ok(())
    }

    /// Called before every measurement, not measured.
    fn before(&mut self, _cell: &Cell) -> Result<()> {
        Ok(())
    }

    /// Saves every file of the cell once.
    fn save(&mut self, cell: &Cell) -> Result<()>;

    /// What it replaces: the targets that all share, or its own.
    fn targets<'a>(&'a self, cell: &'a Cell) -> &'a Arc<[PathBuf]> {
        &cell.targets
    }

    /// Called after every measurement, not measured.
    fn after(&mut self) -> Result<()> {
        Ok(())
    }

    /// How often a measurement saves each file.
    fn saves(&self) -> usize {
        1
    }

    /// The number of threads, where that is the row's point.
    fn threads(&self) -> Option<usize> {
        None
    }

    /// Whether the targets are replaced: not by the floor.
    fn replaces(&self) -> bool {
        true
    }

    /// What it found out about itself.
    fn note(&self) -> Option<String> {
        None
    }
}

impl<F: FnMut(&Cell) -> Result<()>> Writer for F {
    fn save(&mut self, cell: &Cell) -> Result<()> {
        self(cell)
    }
}

type Make = Box<dyn Fn() -> Result<Box<dyn Writer>>>;

/// A row of the table: a writer that can be made.
pub(crate) struct Entry {
    pub name: &'static str,
    /// Who makes the system calls: `calls` (this thread), `threads`, `uring`, or ringseal's `auto`.
    pub engine: &'static str,
    pub about: &'static str,
    make: Make,
}

impl Entry {
    fn new(
        name: &'static str,
        engine: &'static str,
        about: &'static str,
        make: impl Fn() -> Result<Box<dyn Writer>> + 'static,
    ) -> Entry {
        Entry { name, engine, about, make: Box::new(make) }
    }

    /// One that needs no state.
    pub(crate) fn plain(
        name: &'static str,
        engine: &'static str,
        about: &'static str,
        save: fn(&Cell) -> Result<()>,
    ) -> Entry {
        Entry::new(name, engine, about, move || Ok(Box::new(save)))
    }

    pub(crate) fn make(&self) -> Result<Box<dyn Writer>> {
        (self.make)()
    }

    fn is_meant(&self, pattern: &str) -> bool {
        let (name, engine) = match pattern.split_once('/') {
            Some((name, engine)) => (name, Some(engine)),
            None => (pattern, None),
        };
        let is_named = match name.strip_suffix('*') {
            Some(beginning) => self.name.starts_with(beginning),
            None => self.name == name,
        };
        is_named && engine.is_none_or(|engine| self.engine == engine)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.engine)
    }
}

pub(crate) fn all() -> Vec<Entry> {
    let parts = [
        std_fs::entries(),
        tokio_fs::entries(),
        tokio_uring::entries(),
        fsys::entries(),
        crates::entries(),
        ringseal::entries(),
        store::entries(),
        databases::entries(),
        floor::entries(),
    ];
    parts.into_iter().flatten().collect()
}

/// Those of `all` that a pattern names; all if there is no pattern.
pub(crate) fn chosen(all: Vec<Entry>, only: &[String]) -> Result<Vec<Entry>> {
    if only.is_empty() {
        return Ok(all);
    }
    for pattern in only {
        if !all.iter().any(|entry| entry.is_meant(pattern)) {
            bail!("there is no writer {pattern}; `ringseal-bench list` shows them");
        }
    }
    let is_chosen = |entry: &Entry| only.iter().any(|pattern| entry.is_meant(pattern));
    Ok(all.into_iter().filter(is_chosen).collect())
}

/// A line for each writer.
pub(crate) fn list() -> String {
    let mut text = String::new();
    for Entry { name, engine, about, .. } in all() {
        let _ = writeln!(text, "{name:<27} {engine:<8} {about}");
    }
    text
}

/// A name for a temporary file beside the target that no other save has.
fn temp_beside(target: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    parent(target).join(format!(".tmp-{}-{number}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(only: &[&str]) -> Vec<String> {
        let only: Vec<String> = only.iter().map(|&pattern| pattern.to_owned()).collect();
        let chosen = chosen(all(), &only).expect("there are such writers");
        chosen.iter().map(|entry| format!("{entry:?}")).collect()
    }

    #[test]
    fn writers_are_chosen_by_name_engine_and_beginning() {
        assert_eq!(names(&["std_loop"]), ["std_loop/calls"]);
        assert_eq!(names(&["ringseal_replace_all/uring"]), ["ringseal_replace_all/uring"]);
        assert_eq!(names(&["ringseal_replace_all"]).len(), 3);
        assert_eq!(names(&["std_threads*", "floor"]).len(), 4);
        assert_eq!(names(&[]).len(), all().len());
        assert!(chosen(all(), &["nothing".to_owned()]).is_err());
    }

    #[test]
    fn no_two_rows_have_the_same_name_and_engine() {
        let unique: BTreeSet<String> = names(&[]).into_iter().collect();
        assert_eq!(unique.len(), all().len());
    }
}
