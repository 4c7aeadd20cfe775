//! A cell: so many targets on one filesystem, and what is to be saved into them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tempfile::TempDir;

use crate::options::{Layout, Measuring};
use crate::statistics::varied_size;

/// All writers save into the same targets, so that each finds the same directories.
#[derive(Debug)]
pub(crate) struct Cell {
    pub targets: Arc<[PathBuf]>,
    pub payloads: Arc<[Bytes]>,
    /// Where the floor appends: outside the directories of the targets.
    pub log: PathBuf,
    layout: Layout,
    root: TempDir,
}

impl Cell {
    /// Makes the directories and saves a first version, so that every measured save replaces one.
    pub(crate) fn make(dir: &Path, files: usize, measuring: &Measuring) -> Result<Cell> {
        let root = tempfile::Builder::new()
            .prefix("ringseal-bench-")
            .tempdir_in(dir)
            .with_context(|| format!("make a directory in {}", dir.display()))?;
        let layout = measuring.layout;
        let targets = (0..files).map(|index| target(root.path(), layout, index)).collect();
        let cell = Cell {
            targets,
            payloads: payloads(files, measuring),
            log: root.path().join("log"),
            layout,
            root,
        };
        fs::create_dir(cell.tree()).context("make the directory of the targets")?;
        for (path, bytes) in cell.pairs() {
            if layout == Layout::DirEach {
                fs::create_dir(parent(path)).context("make a directory for a target")?;
            }
            fs::write(path, bytes).context("save a first version")?;
        }
        fs::write(&cell.log, "").context("make the log")?;
        cell.settle()?;
        Ok(cell)
    }

    pub(crate) fn files(&self) -> usize {
        self.targets.len()
    }

    /// Has each target a directory of its own?
    pub(crate) fn has_directories(&self) -> bool {
        self.layout == Layout::DirEach
    }

    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payloads.iter().map(|bytes| bytes.len() as u64).sum()
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&Path, &Bytes)> {
        self.targets.iter().map(PathBuf::as_path).zip(self.payloads.iter())
    }

    /// Writes out what is dirty and lets go of deleted inodes, so that the next writer does not pay
    /// for the last one.
    pub(crate) fn settle(&self) -> Result<()> {
        let dir = File::open(self.root.path()).context("open the directory")?;
        rustix::fs::syncfs(&dir).context("syncfs")?;
        // XFS frees inodes in the background: asking for its free space makes it begin.
        rustix::fs::fstatfs(&dir).context("statfs")?;
        rustix::fs::syncfs(&dir).context("syncfs")?;
        Ok(())
    }

    /// That there is every target, with its size, and nothing beside it. What is beside it is
    /// removed, for the next writer is not to find it.
    pub(crate) fn check(&self, targets: &[PathBuf]) -> Result<()> {
        for (path, bytes) in targets.iter().zip(self.payloads.iter()) {
            let found = fs::metadata(path).with_context(|| format!("{}", path.display()))?.len();
            ensure!(found == bytes.len() as u64, "{} has {found} bytes", path.display());
        }
        let leftovers = self.leftovers()?;
        for path in &leftovers {
            match path.is_dir() {
                true => fs::remove_dir_all(path),
                false => fs::remove_file(path),
            }
            .with_context(|| format!("remove {}", path.display()))?;
        }
        ensure!(leftovers.is_empty(), "it left {} files behind", leftovers.len());
        Ok(())
    }

    fn leftovers(&self) -> Result<Vec<PathBuf>> {
        let expected: BTreeSet<&Path> = self.targets.iter().map(PathBuf::as_path).collect();
        let directories: Vec<PathBuf> = match self.layout {
            Layout::OneDir => vec![self.tree()],
            Layout::DirEach => self.targets.iter().map(|path| parent(path).to_owned()).collect(),
        };
        let mut leftovers = Vec::new();
        for directory in directories {
            for entry in fs::read_dir(directory).context("read a directory")? {
                let path = entry.context("read a directory")?.path();
                if !expected.contains(path.as_path()) {
                    leftovers.push(path);
                }
            }
        }
        Ok(leftovers)
    }

    fn tree(&self) -> PathBuf {
        tree(self.root.path())
    }
}

/// The inode of every target: a save changes it.
pub(crate) fn inodes(targets: &[PathBuf]) -> Result<Vec<u64>> {
    let inode = |path: &PathBuf| fs::metadata(path).map(|metadata| metadata.ino());
    targets.iter().map(inode).collect::<Result<_, _>>().context("look at a target")
}

/// The directory of a target.
pub(crate) fn parent(target: &Path) -> &Path {
    target.parent().unwrap_or(Path::new("."))
}

fn tree(root: &Path) -> PathBuf {
    root.join("states")
}

fn target(root: &Path, layout: Layout, index: usize) -> PathBuf {
    match layout {
        Layout::OneDir => tree(root).join(format!("state-{index:05}.json")),
        Layout::DirEach => tree(root).join(format!("{index:05}")).join("state.json"),
    }
}

/// Pieces of one buffer that no filesystem can compress.
fn payloads(files: usize, measuring: &Measuring) -> Arc<[Bytes]> {
    let size = |index| match measuring.vary_size {
        true => varied_size(measuring.size, index) as usize,
        false => measuring.size as usize,
    };
    let longest = (0..files).map(size).max().unwrap_or(0);
    let mut random = fastrand::Rng::with_seed(1);
    let buffer = Bytes::from_iter(std::iter::repeat_with(|| random.u8(..)).take(longest));
    (0..files).map(|index| buffer.slice(..size(index))).collect()
}
