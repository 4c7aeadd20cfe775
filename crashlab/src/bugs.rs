//! The planted bugs: the library without one of its rules, by a build that can leave one out. Each has to be found.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::bench::Bench;
use crate::cuts;
use crate::disk::Filesystem;
use crate::errors;
use crate::figures::Bug;
use crate::load::{Door, Load, Shape};
use crate::report::Report;

/// What the library is told to leave out by. A build that cannot leave anything out does not read it.
const LEFT_OUT: &str = "RINGSEAL_LEFT_OUT";

/// How a bug is looked for.
#[derive(Debug, Clone, Copy)]
enum Search {
    /// Power cuts under these loads.
    Cuts(&'static [(Shape, Door)]),
    /// Power cuts of a disk that obeys one flush in three only.
    IgnoredFlushes(&'static [(Shape, Door)]),
    /// Device errors.
    Errors(&'static [(Shape, Door)]),
    /// The filesystem is shut down.
    Shutdowns(&'static [(Shape, Door)]),
}

/// A bug, what is left out for it, and where it is looked for.
#[derive(Debug, Clone, Copy)]
struct Planted {
    name: &'static str,
    rule: Option<&'static str>,
    filesystem: &'static str,
    search: Search,
}

const FILES: &[(Shape, Door)] = &[
    (Shape::Singles, Door::Plain),
    (Shape::Singles, Door::Ring),
    (Shape::Many, Door::Threads),
    (Shape::Many, Door::RingByFile),
    (Shape::Crowd, Door::Threads),
];
const STORES: &[(Shape, Door)] = &[(Shape::Store, Door::Store), (Shape::Lives, Door::Store)];

const fn planted(name: &'static str, filesystem: &'static str, search: Search) -> Planted {
    Planted { name, rule: Some(name), filesystem, search }
}

/// The bugs. The last ones are none of the library's: a disk and filesystems on which nothing is promised.
const PLANTED: &[Planted] = &[
    planted("file-sync", "ext4", Search::Cuts(FILES)),
    planted("directory-sync", "ext4", Search::Cuts(FILES)),
    planted("holder-sync", "xfs", Search::Cuts(STORES)),
    planted("rename-before-sync", "ext4", Search::Cuts(FILES)),
    planted("answer-before-barrier", "ext4", Search::Cuts(FILES)),
    planted("publish-before-log", "ext4", Search::Cuts(STORES)),
    planted("segment-reuse", "ext4", Search::Cuts(STORES)),
    planted("torn-tail", "ext4", Search::Cuts(STORES)),
    planted("cut-off", "btrfs", Search::Errors(STORES)),
    planted("mark-beside-log", "ext4", Search::Cuts(&[(Shape::Lives, Door::Store)])),
    planted("own-block", "ext4", Search::Cuts(STORES)),
    planted("liveness", "xfs", Search::Shutdowns(FILES)),
    planted("retry-fsync", "ext4", Search::Errors(FILES)),
    Planted {
        name: "ignored flushes",
        rule: None,
        filesystem: "ext4",
        search: Search::IgnoredFlushes(FILES),
    },
    Planted {
        name: "ext4 nobarrier",
        rule: None,
        filesystem: "ext4-nobarrier",
        search: Search::Cuts(FILES),
    },
    Planted {
        name: "ext4 fast_commit",
        rule: None,
        filesystem: "ext4-fast-commit",
        search: Search::Cuts(FILES),
    },
    Planted {
        name: "btrfs nobarrier",
        rule: None,
        filesystem: "btrfs-nobarrier",
        search: Search::Cuts(FILES),
    },
];

/// Disks, or runs, within which a bug has to be found.
const MOST: u64 = 20_000;

/// Looks for each bug, in a process of its own, for a process leaves out one rule.
pub(crate) fn run(only: &[String], report: &Report) -> Result<Vec<Bug>> {
    let wanted =
        |planted: &&Planted| only.is_empty() || only.iter().any(|name| name == planted.name);
    if !cfg!(ringseal_left_out) {
        bail!(
            "this build leaves no rule out: RUSTFLAGS='--cfg ringseal_left_out', --profile left-out"
        );
    }
    let is_known = |name: &&String| PLANTED.iter().any(|planted| planted.name == **name);
    if let Some(name) = only.iter().find(|name| !is_known(name)) {
        bail!("no bug is called {name}");
    }
    let bar = report.begin("bugs", PLANTED.len() as u64);
    let mut bugs = Vec::new();
    for planted in PLANTED.iter().filter(wanted) {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bug").arg(planted.name);
        if let Some(rule) = planted.rule {
            command.env(LEFT_OUT, rule);
        }
        let output = command.stderr(std::process::Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("{}: the search ended with {}", planted.name, output.status);
        }
        let bug: Bug = serde_json::from_slice(&output.stdout).context(planted.name)?;
        report.say(&match &bug.found {
            Some(found) => format!("{}: found after {}: {found}", bug.name, bug.tries),
            None => format!("BROKEN: {} was not found in {}", bug.name, bug.tries),
        });
        bugs.push(bug);
        bar.step();
    }
    bar.end();
    Ok(bugs)
}

/// Looks for one bug, which this process has, and prints what came of it.
pub(crate) fn be_search(name: &str) -> Result<()> {
    let planted = PLANTED.iter().find(|planted| planted.name == name).context("no such bug")?;
    let filesystem = Filesystem::by_name(planted.filesystem).context("no such filesystem")?;
    let mut bench = Bench::new(filesystem)?;
    let (tries, found) = search(&mut bench, planted)?;
    let bug =
        Bug { name: name.to_owned(), filesystem: planted.filesystem.to_owned(), tries, found };
    println!("{}", serde_json::to_string(&bug)?);
    Ok(())
}

fn search(bench: &mut Bench, planted: &Planted) -> Result<(u64, Option<String>)> {
    let loads = |all: &'static [(Shape, Door)]| {
        (1..).flat_map(move |seed| {
            all.iter().map(move |(shape, door)| Load::new(*shape, *door, seed))
        })
    };
    match planted.search {
        Search::Cuts(all) => cuts::until_broken(bench, loads(all), 300, MOST, |tape| tape),
        Search::IgnoredFlushes(all) => {
            let spoil = |tape| cuts::ignoring_flushes(tape, 3);
            cuts::until_broken(bench, loads(all), 300, MOST, spoil)
        }
        Search::Errors(all) => {
            let mut runs = 0;
            for load in loads(all) {
                let (more, found) = errors::until_broken(bench, &load, MOST - runs)?;
                runs += more;
                if found.is_some() || runs >= MOST {
                    return Ok((runs, found));
                }
            }
            Ok((runs, None))
        }
        Search::Shutdowns(all) => {
            let mut runs = 0;
            for load in loads(all) {
                let (more, found) = crate::stops::until_broken(bench, &load, 20)?;
                runs += more;
                if found.is_some() || runs >= MOST {
                    return Ok((runs, found));
                }
            }
            Ok((runs, None))
        }
    }
}
