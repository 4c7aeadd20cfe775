//! What lies in a directory, all of it; and putting things there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;

/// What stands at a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing {
    Directory,
    File { mode: u32, data: Vec<u8> },
    Link(Vec<u8>),
    Fifo,
    Other,
}

/// Everything below a directory, by its path; but for a store's spares, which come and go.
pub(super) type Tree = BTreeMap<Vec<u8>, Thing>;

pub(super) fn read(dir: &Path) -> anyhow::Result<Tree> {
    let mut tree = Tree::new();
    read_into(&mut tree, dir, &[]).with_context(|| format!("look at {}", dir.display()))?;
    Ok(tree)
}

fn read_into(tree: &mut Tree, dir: &Path, prefix: &[u8]) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(b".ringseal-spare-") {
            continue;
        }
        let mut path = prefix.to_vec();
        path.extend_from_slice(entry.file_name().as_bytes());
        let thing = look(&entry.path())?;
        if thing == Thing::Directory {
            let mut below = path.clone();
            below.push(b'/');
            read_into(tree, &entry.path(), &below)?;
        }
        tree.insert(path, thing);
    }
    Ok(())
}

/// What stands at a path, which must be something.
pub(super) fn look(path: &Path) -> anyhow::Result<Thing> {
    let look = fs::symlink_metadata(path)?;
    let kind = look.file_type();
    Ok(if kind.is_dir() {
        Thing::Directory
    } else if kind.is_file() {
        // What seems to be endless is known by its length.
        let data =
            if look.len() > 1 << 24 { look.len().to_le_bytes().to_vec() } else { fs::read(path)? };
        Thing::File { mode: look.permissions().mode() & 0o7777, data }
    } else if kind.is_symlink() {
        Thing::Link(fs::read_link(path)?.into_os_string().into_encoded_bytes())
    } else if kind.is_fifo() {
        Thing::Fifo
    } else {
        Thing::Other
    })
}

/// Puts something at a path where nothing is; a file with exactly its mode.
pub(super) fn put(path: &Path, thing: &Thing) -> anyhow::Result<()> {
    match thing {
        Thing::Directory => Ok(fs::DirBuilder::new().mode(0o755).create(path)?),
        Thing::File { mode, data } => {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(*mode).open(path)?;
            std::io::Write::write_all(&mut file, data)?;
            Ok(file.set_permissions(fs::Permissions::from_mode(*mode))?)
        }
        Thing::Link(target) => Ok(std::os::unix::fs::symlink(OsStr::from_bytes(target), path)?),
        Thing::Fifo | Thing::Other => {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let kind = rustix::fs::FileType::Fifo;
            Ok(rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0)?)
        }
    }
}

/// Removes whatever stands at a path.
pub(super) fn clear(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(look) if look.is_dir() => Ok(fs::remove_dir_all(path)?),
        Ok(_) => Ok(fs::remove_file(path)?),
    }
}

/// The first difference between what is there and what should be.
pub(super) fn difference(found: &Tree, expected: &Tree) -> Option<String> {
    let paths = found.keys().chain(expected.keys());
    let path = paths.into_iter().find(|path| found.get(*path) != expected.get(*path))?;
    let shown = path.escape_ascii();
    Some(format!("{shown}: found {:?}, not {:?}", found.get(path), expected.get(path)))
}

impl std::fmt::Debug for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Thing::Directory => f.write_str("directory"),
            Thing::File { mode, data } => {
                let start = data[..data.len().min(24)].escape_ascii();
                write!(f, "file of {} bytes, {mode:o}, {start}", data.len())
            }
            Thing::Link(target) => write!(f, "link to {}", target.escape_ascii()),
            Thing::Fifo => f.write_str("FIFO"),
            Thing::Other => f.write_str("something else"),
        }
    }
}
