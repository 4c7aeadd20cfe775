//! Crates that replace one file: `atomic-write-file`, `atomicwrites`, `tempfile`.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use atomic_write_file::AtomicWriteFile;
use atomicwrites::{AllowOverwrite, AtomicFile};
use tempfile::NamedTempFile;

use super::Entry;
use crate::cell::{Cell, parent};

pub(super) fn entries() -> Vec<Entry> {
    vec![
        Entry::plain(
            "atomic_write_file",
            "calls",
            "atomic-write-file 0.3: all five steps, and it copies mode and owner of the old file",
            |cell| each(cell, atomic_write_file),
        ),
        Entry::plain(
            "atomicwrites",
            "calls",
            "atomicwrites 0.4: temporary file in a temporary directory; syncs file and both \
             directories",
            |cell| each(cell, atomicwrites),
        ),
        Entry::plain(
            "tempfile",
            "calls",
            "tempfile 3 `persist`, which syncs nothing: sync of file and directory added",
            |cell| {
                each(cell, |target, bytes| {
                    persist(target, bytes)?;
                    Ok(File::open(parent(target))?.sync_all()?)
                })
            },
        ),
        Entry::plain(
            "tempfile_no_dir_sync",
            "calls",
            "tempfile 3 `persist`, sync of the file added: a power cut can undo the rename",
            |cell| each(cell, persist),
        ),
    ]
}

fn each(cell: &Cell, save: fn(&Path, &[u8]) -> Result<()>) -> Result<()> {
    cell.pairs().try_for_each(|(target, bytes)| save(target, bytes))
}

fn atomic_write_file(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicWriteFile::open(target)?;
    file.write_all(bytes)?;
    Ok(file.commit()?)
}

fn atomicwrites(target: &Path, bytes: &[u8]) -> Result<()> {
    let file = AtomicFile::new(target, AllowOverwrite);
    Ok(file.write(|file| file.write_all(bytes)).map_err(std::io::Error::from)?)
}

fn persist(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut temp = NamedTempFile::new_in(parent(target))?;
    temp.write_all(bytes)?;
    temp.as_file().sync_all()?;
    temp.persist(target)?;
    Ok(())
}
