//! What lies in a directory.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::Command;

/// What the names of the library's temporary files start with.
const TEMP: &str = ".ringseal";

/// The names in a directory, without its subdirectories' contents.
pub fn names(dir: &Path) -> BTreeSet<String> {
    let entries =
        fs::read_dir(dir).unwrap_or_else(|error| panic!("list {}: {error}", dir.display()));
    entries
        .map(|entry| entry.expect("read a directory").file_name().to_string_lossy().into_owned())
        .collect()
}

/// The temporary files in a directory and below it, as paths relative to it, sorted.
///
/// Entries that vanish meanwhile are no error, so it can be used beside running writers.
pub fn temps(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    if let Err(error) = collect(dir, "", &mut found) {
        panic!("list {}: {error}", dir.display());
    }
    found.sort();
    found
}

/// Fails if a temporary file lies in `dir` or below it.
#[track_caller]
pub fn assert_no_temps(dir: &Path) {
    let temps = temps(dir);
    assert!(temps.is_empty(), "temporary files left in {}: {temps:?}", dir.display());
}

fn collect(dir: &Path, prefix: &str, found: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let path = format!("{prefix}{}", name.to_string_lossy());
        if name.as_encoded_bytes().starts_with(TEMP.as_bytes()) {
            found.push(path.clone());
        }
        // The entry's own type: a symlink to a directory is not followed.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), &format!("{path}/"), found)?;
        }
    }
    Ok(())
}

/// Changes an attribute of a file: `+i`, nobody can change or replace it. For root only.
#[track_caller]
pub fn chattr(flag: &str, path: &Path) {
    let status = Command::new("chattr").arg(flag).arg(path).status().expect("chattr");
    assert!(status.success(), "chattr {flag} {}", path.display());
}
