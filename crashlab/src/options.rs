//! The command line.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cuts;
use crate::disk::Filesystem;

/// Cuts the power, breaks the disk and starves the process under ringseal, and looks whether a promise was broken.
/// Exit status 0: none was. As root.
#[derive(Debug, Parser)]
#[command(name = "ringseal-crashlab")]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One room.
    #[command(flatten)]
    OneRoom(OneRoom),
    /// Every room, but for the planted bugs, which need a build of their own.
    All(Size),
    /// Puts the figures into documents, between the marks that ask for them.
    Quote {
        /// The file that runs wrote.
        #[arg(long)]
        figures: PathBuf,
        documents: Vec<PathBuf>,
    },
    #[command(hide = true)]
    Load { load: String, directory: PathBuf, notes: PathBuf, condition: String },
    #[command(hide = true)]
    Recovery { load: String, directory: PathBuf },
    #[command(hide = true)]
    Bug { name: String, by: String, control: Option<u64> },
}

#[derive(Debug, Subcommand)]
pub(crate) enum OneRoom {
    /// Disks that a power cut could have left.
    Cuts(Size),
    /// Every n-th request to the disk fails.
    Errors(Size),
    /// The filesystem is shut down, or the process killed, at any moment.
    Stops(Size),
    /// No descriptors, threads, memory, room; denied calls; a ring that dies.
    Limits(Size),
    /// Names, paths, ids, JSON, sizes, options, trees and logs of every kind.
    Inputs(Size),
    /// The library without one of its rules. Needs RUSTFLAGS='--cfg ringseal_left_out' and --profile left-out.
    Bugs(Size),
}

/// A technique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Room {
    Cuts,
    Errors,
    Stops,
    Limits,
    Inputs,
    Bugs,
}

/// How much is done.
#[derive(Debug, Clone, Args)]
pub(crate) struct Size {
    /// A fixed, small set, as in CI.
    #[arg(long)]
    pub(crate) short: bool,
    /// The first seed; the same seed makes the same loads.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Filesystems, instead of the room's own: ext4, xfs, btrfs, ext4-writeback, ext4-journal, ...
    #[arg(long, value_delimiter = ',')]
    pub(crate) on: Vec<String>,
    /// How many times as much of everything.
    #[arg(long, default_value_t = 1)]
    pub(crate) times: u64,
    /// Of the planted bugs, or of the rooms of inputs, these.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Cases of input, of all rooms together.
    #[arg(long)]
    pub(crate) cases: Option<u64>,
    /// Adds the figures to this file.
    #[arg(long)]
    pub(crate) figures: Option<PathBuf>,
}

impl OneRoom {
    pub(crate) fn split(self) -> (Room, Size) {
        match self {
            OneRoom::Cuts(size) => (Room::Cuts, size),
            OneRoom::Errors(size) => (Room::Errors, size),
            OneRoom::Stops(size) => (Room::Stops, size),
            OneRoom::Limits(size) => (Room::Limits, size),
            OneRoom::Inputs(size) => (Room::Inputs, size),
            OneRoom::Bugs(size) => (Room::Bugs, size),
        }
    }
}

impl Size {
    /// The filesystems that a room stands on.
    pub(crate) fn filesystems(&self, room: Room) -> Result<Vec<&'static Filesystem>> {
        let own: &[&str] = match room {
            Room::Cuts if self.short => &["ext4", "xfs", "btrfs"],
            Room::Cuts => {
                &["ext4", "xfs", "btrfs", "ext4-writeback", "ext4-journal", "ext4-noauto-da-alloc"]
            }
            Room::Errors if self.short => &["ext4", "xfs", "btrfs"],
            Room::Errors => &["ext4", "xfs", "btrfs", "ext4-remount-ro"],
            Room::Stops => &["ext4", "xfs", "btrfs"],
            Room::Limits if self.short => &["ext4"],
            Room::Limits => &["ext4", "xfs", "btrfs"],
            Room::Inputs | Room::Bugs => &[],
        };
        let named: Vec<&str> = self.on.iter().map(String::as_str).collect();
        let names = if self.on.is_empty() || own.is_empty() { own.to_vec() } else { named };
        let found = names.into_iter().map(|name| {
            Filesystem::by_name(name).with_context(|| format!("no filesystem is called {name}"))
        });
        found.collect()
    }

    pub(crate) fn cuts(&self, filesystem: &Filesystem) -> cuts::Size {
        if self.short {
            return cuts::Size { seeds: 1, states: 60, recoveries: 1, states_of_recovery: 15 };
        }
        // Of a filesystem with other options less than of the filesystem itself.
        let seeds = if filesystem.name == filesystem.kind { 9 } else { 2 };
        let seeds = seeds * self.times;
        cuts::Size { seeds, states: 250, recoveries: 2, states_of_recovery: 40 }
    }

    /// Each how-manieth request fails.
    pub(crate) fn every(&self) -> u64 {
        if self.short { 40 } else { 3 }
    }

    pub(crate) fn shutdowns(&self) -> u64 {
        if self.short { 60 } else { 1300 * self.times }
    }

    pub(crate) fn kills(&self) -> u64 {
        if self.short { 30 } else { 300 * self.times }
    }

    pub(crate) fn fineness(&self) -> u64 {
        if self.short { 2 } else { 8 * self.times }
    }

    pub(crate) fn cases(&self) -> u64 {
        if let Some(cases) = self.cases {
            return cases;
        }
        if self.short { 5_000 } else { 1_000_000 * self.times }
    }
}
