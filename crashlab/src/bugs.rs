//! The planted bugs: the library without one of its rules, by a build that can leave one out. Each has to be found,
//! and the same search without the bug must find nothing.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::bench::Bench;
use crate::cuts;
use crate::disk::Filesystem;
use crate::errors;
use crate::figures::Bug;
use crate::load::{Door, Load, Shape};
use crate::report::Report;
use crate::stops;

/// What the library is told to leave out by. A build that cannot leave anything out does not read it.
const LEFT_OUT: &str = "RINGSEAL_LEFT_OUT";

/// How a bug is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Search {
    /// Power cuts.
    Cuts,
    /// Power cuts of a disk that obeys one flush in three only.
    IgnoredFlushes,
    /// Device errors.
    Errors,
    /// The filesystem is shut down.
    Shutdowns,
}

impl Search {
    /// How far the search without the bug goes, that was found in so many.
    fn control(self, found_in: u64) -> u64 {
        match self {
            Search::Cuts | Search::IgnoredFlushes => found_in.clamp(300, 1000),
            Search::Errors | Search::Shutdowns => found_in.max(40),
        }
    }
}

/// Who saves.
#[derive(Debug, Clone, Copy)]
struct By {
    name: &'static str,
    loads: &'static [(Shape, Door)],
}

const PLAIN: By = By { name: "plain functions", loads: &[(Shape::Singles, Door::Plain)] };
const THREADS: By = By {
    name: "threads",
    loads: &[
        (Shape::Many, Door::ThreadsByFile),
        (Shape::Singles, Door::Threads),
        (Shape::Many, Door::Threads),
        (Shape::Crowd, Door::Threads),
    ],
};
const RING: By = By {
    name: "ring",
    loads: &[
        (Shape::Many, Door::RingByFile),
        (Shape::Singles, Door::Ring),
        (Shape::Many, Door::Ring),
        (Shape::Crowd, Door::RingByFile),
    ],
};
const STORE: By =
    By { name: "store", loads: &[(Shape::Store, Door::Store), (Shape::Lives, Door::Store)] };

const BEHIND: By = By {
    name: "store, behind",
    loads: &[(Shape::Store, Door::StoreBehind), (Shape::Lives, Door::StoreBehind)],
};

/// What is left out, and where it is looked for.
#[derive(Debug, Clone, Copy)]
struct Planted {
    name: &'static str,
    /// A rule of the library's; or it is the disk's or the filesystem's fault.
    is_rule: bool,
    filesystem: &'static str,
    search: Search,
    by: &'static [By],
}

const fn rule(
    name: &'static str,
    filesystem: &'static str,
    search: Search,
    by: &'static [By],
) -> Planted {
    Planted { name, is_rule: true, filesystem, search, by }
}

const fn foreign(name: &'static str, filesystem: &'static str, search: Search) -> Planted {
    Planted { name, is_rule: false, filesystem, search, by: &[PLAIN] }
}

const FILES: &[By] = &[PLAIN, THREADS, RING];

const PLANTED: &[Planted] = &[
    rule("file-sync", "ext4", Search::Cuts, FILES),
    rule("directory-sync", "ext4", Search::Cuts, FILES),
    rule("holder-sync", "xfs", Search::Cuts, &[STORE]),
    rule("rename-before-sync", "ext4", Search::Cuts, FILES),
    rule("answer-before-barrier", "ext4", Search::Cuts, FILES),
    rule("liveness", "xfs", Search::Shutdowns, FILES),
    rule("retry-fsync", "ext4", Search::Errors, FILES),
    rule("publish-before-log", "ext4-dirsync", Search::Cuts, &[STORE]),
    rule("segment-reuse", "ext4", Search::Cuts, &[STORE]),
    rule("torn-tail", "ext4", Search::Cuts, &[STORE]),
    rule("cut-off", "btrfs", Search::Errors, &[STORE]),
    rule("mark-beside-log", "ext4", Search::Cuts, &[STORE]),
    rule("own-block", "ext4", Search::Cuts, &[STORE]),
    rule("removal-in-log", "ext4", Search::Cuts, &[STORE]),
    rule("whole-transactions", "ext4", Search::Cuts, &[STORE]),
    rule("unpublished-unspread", "ext4", Search::Cuts, &[BEHIND]),
    rule("unpublished-forgotten", "ext4", Search::Cuts, &[BEHIND]),
    foreign("ignored flushes", "ext4", Search::IgnoredFlushes),
    foreign("ext4 nobarrier", "ext4-nobarrier", Search::Cuts),
    foreign("ext4 fast_commit", "ext4-fast-commit", Search::Cuts),
    foreign("btrfs nobarrier", "btrfs-nobarrier", Search::Cuts),
];

/// Disks, or runs, within which a bug has to be found.
const MOST: u64 = 20_000;

/// Disks of one load: it depends more on what happened in it than on the cut whether a bug shows.
const OF_ONE_LOAD: usize = 160;

/// What a search has to find: the bug, or nothing in so many disks or runs, without it.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Bug,
    Nothing(u64),
}

/// What a search did.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Searched {
    tries: u64,
    found: Option<String>,
}

/// Looks for each bug, in a process of its own, for a process leaves out one rule.
pub(crate) fn run(only: &[String], report: &Report) -> Result<Vec<Bug>> {
    if !cfg!(ringseal_left_out) {
        bail!(
            "this build leaves no rule out: RUSTFLAGS='--cfg ringseal_left_out', --profile left-out"
        );
    }
    let is_known = |name: &&String| PLANTED.iter().any(|planted| planted.name == **name);
    if let Some(name) = only.iter().find(|name| !is_known(name)) {
        bail!("no bug is called {name}");
    }
    let wanted =
        |planted: &&Planted| only.is_empty() || only.iter().any(|name| name == planted.name);
    let all: Vec<(&Planted, &By)> = PLANTED
        .iter()
        .filter(wanted)
        .flat_map(|planted| planted.by.iter().map(move |by| (planted, by)))
        .collect();
    let bar = report.begin("bugs", all.len() as u64);
    let mut bugs = Vec::new();
    for (planted, by) in &all {
        let bug = look_apart(planted, by)?;
        report.say(&bug.line());
        bugs.push(bug);
        bar.step();
    }
    bar.end();
    // What several look at, in the same order, is looked at once without a bug, as far as the one that went farthest.
    let mut controls: BTreeMap<Disks, (usize, u64)> = BTreeMap::new();
    let found = all.iter().zip(&bugs).enumerate().filter(|(_, (_, bug))| bug.found.is_some());
    for (index, ((planted, by), bug)) in found {
        let far = planted.search.control(bug.tries);
        let (_, farthest) = controls.entry(planted.disks(by)?).or_insert((index, far));
        *farthest = far.max(*farthest);
    }
    let bar = report.begin("bugs, without them", controls.len() as u64);
    for (disks, (index, far)) in controls {
        let (planted, by) = all[index];
        let control = search_apart(planted, by, Wanted::Nothing(far))?.found;
        for (bug, (planted, by)) in bugs.iter_mut().zip(&all) {
            if control.is_some() && planted.disks(by)? == disks {
                bug.control.clone_from(&control);
                report.say(&bug.line());
            }
        }
        bar.step();
    }
    bar.end();
    Ok(bugs)
}

/// What is looked at: a filesystem, how, and who saves.
type Disks = (&'static str, Search, &'static str);

impl Planted {
    /// What a search without the bug looks at. The fault of a disk or a filesystem is a sound one's there.
    fn disks(&self, by: &By) -> Result<Disks> {
        if self.is_rule {
            return Ok((self.filesystem, self.search, by.name));
        }
        let filesystem = Filesystem::by_name(self.filesystem).context("no such filesystem")?;
        Ok((filesystem.kind, Search::Cuts, by.name))
    }
}

fn look_apart(planted: &Planted, by: &By) -> Result<Bug> {
    let Searched { tries, found } = search_apart(planted, by, Wanted::Bug)?;
    let (name, by) = (planted.name.to_owned(), by.name.to_owned());
    let filesystem = planted.filesystem.to_owned();
    Ok(Bug { name, by, filesystem, tries, found, control: None })
}

fn search_apart(planted: &Planted, by: &By, wanted: Wanted) -> Result<Searched> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bug", planted.name, by.name]).env_remove(LEFT_OUT);
    match wanted {
        Wanted::Bug if planted.is_rule => {
            command.env(LEFT_OUT, planted.name);
        }
        Wanted::Bug => {}
        Wanted::Nothing(tries) => {
            command.arg(tries.to_string());
        }
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{} by {}: the search ended with {}", planted.name, by.name, output.status);
    }
    serde_json::from_slice(&output.stdout).context(planted.name)
}

/// What the process does that [`search_apart`] starts: looks for one bug, or for nothing in so many, and prints
/// what came of it.
pub(crate) fn be_search(name: &str, by: &str, control: Option<u64>) -> Result<()> {
    let planted = PLANTED.iter().find(|planted| planted.name == name).context("no such bug")?;
    let by = planted.by.iter().find(|it| it.name == by).context("nobody of this name saves")?;
    let (filesystem, search, _) = match control {
        Some(_) => planted.disks(by)?,
        None => (planted.filesystem, planted.search, by.name),
    };
    let filesystem = Filesystem::by_name(filesystem).context("no such filesystem")?;
    let searched = look_for(&mut Bench::new(filesystem)?, search, by, control.unwrap_or(MOST))?;
    println!("{}", serde_json::to_string(&searched)?);
    Ok(())
}

fn look_for(bench: &mut Bench, search: Search, by: &By, most: u64) -> Result<Searched> {
    let mut searched = Searched { tries: 0, found: None };
    let seeds = (1..).flat_map(|seed| by.loads.iter().map(move |load| (*load, seed)));
    for load in seeds.map(|((shape, door), seed)| Load::new(shape, door, seed)) {
        let left = most.saturating_sub(searched.tries);
        let (more, found) = match search {
            Search::Cuts => cuts::until_broken(bench, &load, OF_ONE_LOAD, left, |tape| tape)?,
            Search::IgnoredFlushes => {
                let spoil = |tape| cuts::ignoring_flushes(tape, 3);
                cuts::until_broken(bench, &load, OF_ONE_LOAD, left, spoil)?
            }
            Search::Errors => errors::until_broken(bench, &load, left)?,
            Search::Shutdowns => stops::until_broken(bench, &load, left.min(20))?,
        };
        searched.tries += more;
        searched.found = found;
        if searched.found.is_some() || searched.tries >= most {
            break;
        }
    }
    Ok(searched)
}
