//! Limiting how many threads and processes there may be.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::host::require_root;
use super::{Skipped, leftovers};

/// A control group that this process is in, until this is dropped.
#[derive(Debug)]
pub struct PidsCgroup {
    group: PathBuf,
    home: PathBuf,
}

/// Moves this process into a new control group in which `max` threads may exist.
///
/// For use in [`in_child`](super::in_child) only. The process' present threads count, and stay
/// even if they are more. Whatever wants one more gets EAGAIN, the kernel's io_uring workers too.
pub fn limit_pids(max: u64) -> Result<PidsCgroup, Skipped> {
    require_root()?;
    let failed = |error: io::Error| Skipped(format!("no control group with a pids limit: {error}"));
    let (root, home) =
        find().ok_or_else(|| Skipped("no control groups with a pids controller".into()))?;
    sweep(&root);
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let group = root.join(format!("{}{}-{number}", leftovers::PREFIX, std::process::id()));
    fs::create_dir(&group).map_err(failed)?;
    let cgroup = PidsCgroup { group, home };
    cgroup.set_max(max).and_then(|()| enter(&cgroup.group)).map_err(failed)?;
    Ok(cgroup)
}

impl PidsCgroup {
    /// Changes the limit.
    pub fn set_max(&self, max: u64) -> io::Result<()> {
        fs::write(self.group.join("pids.max"), max.to_string())
    }

    /// How many threads there are.
    pub fn current(&self) -> io::Result<u64> {
        let text = fs::read_to_string(self.group.join("pids.current"))?;
        text.trim().parse().map_err(io::Error::other)
    }
}

impl Drop for PidsCgroup {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(5);
        // Busy while a thread of the process is still on its way out.
        let left = loop {
            match enter(&self.home).and_then(|()| fs::remove_dir(&self.group)) {
                Err(_) if Instant::now() < end => sleep(Duration::from_millis(10)),
                outcome => break outcome,
            }
        };
        if let Err(error) = left {
            eprintln!("cannot remove {}: {error}", self.group.display());
        }
    }
}

fn enter(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
}

/// Removes the groups of processes that were killed.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for group in entries.flatten().map(|entry| entry.path()) {
        if leftovers::owner(&group).is_some_and(leftovers::is_dead) {
            let _ = fs::remove_dir(group);
        }
    }
}

/// The top of the hierarchy with the pids controller, and this process' own group in it.
fn find() -> Option<(PathBuf, PathBuf)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    mounts.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let front: Vec<&str> = front.split(' ').collect();
        let (inner, point) = (front.get(3)?, Path::new(front.get(4)?));
        let version_2 = back.starts_with("cgroup2 ");
        let has_pids = if version_2 {
            // At the top, where systemd has switched it on already; if it has not, this may.
            let _ = fs::write(point.join("cgroup.subtree_control"), "+pids");
            fs::read_to_string(point.join("cgroup.subtree_control"))
                .is_ok_and(|on| has(&on, ' ', "pids"))
        } else {
            back.starts_with("cgroup ") && has(back.rsplit(' ').next()?, ',', "pids")
        };
        let own = groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            (if version_2 { controllers.is_empty() } else { has(controllers, ',', "pids") })
                .then_some(path)
        })?;
        // In a container the mount shows only what lies below the container's own group.
        let own = Path::new(own).strip_prefix(inner).unwrap_or(Path::new(""));
        has_pids.then(|| (point.to_owned(), point.join(own)))
    })
}

fn has(list: &str, separator: char, name: &str) -> bool {
    list.trim().split(separator).any(|item| item == name)
}
