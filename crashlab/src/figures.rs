//! The figures that a run writes, and adds to those of other runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::inputs::Tally;

/// All figures, as `docs/crash-laboratory.json` has them. Rooms by the filesystem that they stood on.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Figures {
    pub(crate) kernel: String,
    pub(crate) processors: usize,
    pub(crate) cuts: BTreeMap<String, Cuts>,
    pub(crate) errors: BTreeMap<String, Tried>,
    pub(crate) shutdowns: BTreeMap<String, Tried>,
    pub(crate) kills: BTreeMap<String, Tried>,
    pub(crate) limits: BTreeMap<String, Tried>,
    pub(crate) inputs: Vec<Tally>,
    pub(crate) bugs: Vec<Bug>,
}

/// Power cuts.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Cuts {
    pub(crate) recordings: u64,
    /// Disks that were looked at.
    pub(crate) states: u64,
    /// Recoveries that were recorded, and disks that a cut in them could have left.
    pub(crate) recoveries: u64,
    pub(crate) recovery_states: u64,
    pub(crate) broken: u64,
    pub(crate) seconds: f64,
}

/// Loads that something happened to.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Tried {
    pub(crate) runs: u64,
    /// Of them, those in which it really happened: an error was met, the filesystem was shut down in the middle.
    pub(crate) hit: u64,
    pub(crate) durable: u64,
    pub(crate) unchanged: u64,
    pub(crate) unknown: u64,
    pub(crate) broken: u64,
    pub(crate) seconds: f64,
}

/// A planted bug.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bug {
    pub(crate) name: String,
    /// Who saved.
    pub(crate) by: String,
    pub(crate) filesystem: String,
    /// Disks or runs that were looked at until it was found.
    pub(crate) tries: u64,
    pub(crate) found: Option<String>,
    /// What the same search found without the bug, in a thousand disks at most; bugs that are looked for in the same
    /// disks share one.
    pub(crate) control: Option<String>,
}

impl Bug {
    /// It was found, and nothing without it.
    pub(crate) fn is_shown(&self) -> bool {
        self.found.is_some() && self.control.is_none()
    }

    /// What came of it, in a line.
    pub(crate) fn line(&self) -> String {
        let Bug { name, by, filesystem, tries, .. } = self;
        let what = match (&self.found, &self.control) {
            (None, _) => "NOT FOUND".to_owned(),
            (Some(_), Some(control)) => format!("FOUND WITHOUT IT TOO: {control}"),
            (Some(found), None) => format!("found: {found}"),
        };
        format!("bug {name} by {by} on {filesystem}, {tries} tried: {what}")
    }
}

impl Tried {
    pub(crate) fn merge(&mut self, other: &Tried) {
        self.runs += other.runs;
        self.hit += other.hit;
        self.durable += other.durable;
        self.unchanged += other.unchanged;
        self.unknown += other.unknown;
        self.broken += other.broken;
    }

    pub(crate) fn add(&mut self, hit: bool, answers: [u64; 3], broken: bool) {
        self.runs += 1;
        self.hit += u64::from(hit);
        self.durable += answers[0];
        self.unchanged += answers[1];
        self.unknown += answers[2];
        self.broken += u64::from(broken);
    }
}

impl Cuts {
    pub(crate) fn all_states(&self) -> u64 {
        self.states + self.recovery_states
    }
}

impl Figures {
    pub(crate) fn here() -> Figures {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Figures { kernel, processors, ..Figures::default() }
    }

    pub(crate) fn read(path: &Path) -> Result<Figures> {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} has no figures", path.display()))
    }

    /// Puts these in the place of what a file has of the same rooms; what it has of others stays.
    pub(crate) fn add_to(&self, path: &Path) -> Result<()> {
        let mut all = if path.exists() { Figures::read(path)? } else { Figures::default() };
        let new = self.clone();
        all.kernel = new.kernel;
        all.processors = new.processors;
        all.cuts.extend(new.cuts);
        all.errors.extend(new.errors);
        all.shutdowns.extend(new.shutdowns);
        all.kills.extend(new.kills);
        all.limits.extend(new.limits);
        for tally in new.inputs {
            all.inputs.retain(|old| old.room != tally.room);
            all.inputs.push(tally);
        }
        if !new.bugs.is_empty() {
            all.bugs = new.bugs;
        }
        let mut text = serde_json::to_string_pretty(&all)?;
        text.push('\n');
        let saved = ringseal::Options::new().mode(0o644).replace(path, text);
        saved.map(drop).context("write the figures")
    }

    /// One line for each room.
    pub(crate) fn print(&self) {
        for (name, cuts) in &self.cuts {
            println!(
                "cuts {name}: {} disks ({} of {} recoveries), {:.0} a minute, {} broken",
                cuts.all_states(),
                cuts.recovery_states,
                cuts.recoveries,
                cuts.all_states() as f64 * 60.0 / cuts.seconds,
                cuts.broken
            );
        }
        let rooms = [
            ("errors", &self.errors),
            ("shutdowns", &self.shutdowns),
            ("kills", &self.kills),
            ("limits", &self.limits),
        ];
        for (room, all) in rooms {
            for (name, tried) in all {
                println!(
                    "{room} {name}: {} runs, {} hit; answers: {} durable, {} unchanged, {} unknown; {} broken",
                    tried.runs,
                    tried.hit,
                    tried.durable,
                    tried.unchanged,
                    tried.unknown,
                    tried.broken
                );
            }
        }
        for tally in &self.inputs {
            println!("inputs {}: {} cases, {} broken", tally.room, tally.cases, tally.broken);
        }
        for bug in &self.bugs {
            println!("{}", bug.line());
        }
    }

    pub(crate) fn broken(&self) -> u64 {
        let tried = [&self.errors, &self.shutdowns, &self.kills, &self.limits];
        let of_tried: u64 = tried.into_iter().flat_map(BTreeMap::values).map(|t| t.broken).sum();
        let of_cuts: u64 = self.cuts.values().map(|cuts| cuts.broken).sum();
        let of_inputs: u64 = self.inputs.iter().map(|tally| tally.broken).sum();
        let missed = self.bugs.iter().filter(|bug| !bug.is_shown()).count() as u64;
        of_tried + of_cuts + of_inputs + missed
    }
}
