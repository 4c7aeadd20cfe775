//! A control group whose processes end with it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::host::{self, require_root, require_since};
use super::leftovers::{self, Home};
use super::{Skipped, slow};

/// A control group (version 2). Dropping it kills whoever is in it or below it, and removes it.
#[derive(Debug)]
pub struct ProcessGroup {
    group: PathBuf,
    hierarchy: PathBuf,
    // Last: dropping it unmounts the hierarchy.
    home: Home,
}

impl ProcessGroup {
    /// An empty group, in a hierarchy that is mounted for this test: the machine may have
    /// version 1, or a mixture, or may have mounted it read-only.
    pub fn new() -> Result<ProcessGroup, Skipped> {
        require_root()?;
        require_since(5, 14, "cgroup.kill")?;
        let home = Home::new(0)?;
        let hierarchy = home.path().join("cgroup");
        let failed = |error: io::Error| Skipped(format!("no control group: {error}"));
        fs::create_dir(&hierarchy).map_err(failed)?;
        host::run("mount", &[&"-t", &"cgroup2", &"none", &hierarchy])?;
        sweep(&hierarchy);
        let group = hierarchy.join(home.name());
        fs::create_dir(&group).map_err(failed)?;
        Ok(ProcessGroup { group, hierarchy, home })
    }

    /// Where the whole hierarchy is mounted.
    pub fn hierarchy(&self) -> &Path {
        &self.hierarchy
    }

    /// The group's path in the hierarchy, from its top.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(self.home.name())
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Err(error) = end(&self.group) {
            eprintln!("cannot remove {}: {error}", self.group.display());
        }
    }
}

/// Kills what is in a group or below it, and removes it.
fn end(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.kill"), "1")?;
    let end = Instant::now() + host::PATIENCE * slow();
    loop {
        match remove(group) {
            // Busy while a process is still on its way out.
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < end => {
                sleep(Duration::from_millis(10));
            }
            outcome => return outcome,
        }
    }
}

/// Removes a group and those below it.
fn remove(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Ends the groups of tests that were killed.
fn sweep(hierarchy: &Path) {
    let Ok(entries) = fs::read_dir(hierarchy) else {
        return;
    };
    for group in entries.flatten().map(|entry| entry.path()) {
        if leftovers::owner(&group).is_some_and(leftovers::is_dead) {
            let _ = end(&group);
        }
    }
}
