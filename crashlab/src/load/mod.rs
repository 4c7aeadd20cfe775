//! What the library is made to do while its disk is recorded, broken or taken away.
//!
//! A load is a script that a seed makes ([`script`]), carried out by a child process ([`run`]), which says
//! before each call what it asks for, and after it what it was answered ([`note`]); its files' bytes tell which
//! version they are ([`content`]).

pub(crate) mod content;
pub(crate) mod note;
pub(crate) mod run;
pub(crate) mod script;

use std::fmt;

use serde::{Deserialize, Serialize};

/// The store's directory below the load's.
pub(crate) const ROOT: &str = "root";

/// The state file and the other file of a container.
pub(crate) const STATE: &str = "state.json";
pub(crate) const OTHER: &str = "network.json";
pub(crate) const PID: &str = "init.pid";

/// A load, by which a child process and a seed can make it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) shape: Shape,
    pub(crate) door: Door,
    pub(crate) seed: u64,
    /// Operations of each thread.
    pub(crate) length: u32,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// Single replaces; keep-previous, create-new and atomic ones among them.
    Singles,
    /// Many files together; many directories.
    Many,
    /// Threads that save the same few files: versions overtake each other.
    Crowd,
    /// A store: saves and transactions by the log, in threads.
    Store,
    /// A store: removals, saves beside the log, large ones, closing and opening.
    Lives,
}

/// By which part of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Door {
    /// The plain functions.
    Plain,
    /// A writer on threads.
    Threads,
    /// A writer on the ring.
    Ring,
    /// The same, where `syncfs` is denied: a barrier for each file.
    ThreadsByFile,
    RingByFile,
    /// A store that answers what is visible, and one that answers before.
    Store,
    StoreBehind,
}

impl Shape {
    pub(crate) const ALL: [Shape; 5] =
        [Shape::Singles, Shape::Many, Shape::Crowd, Shape::Store, Shape::Lives];

    pub(crate) fn is_store(self) -> bool {
        matches!(self, Shape::Store | Shape::Lives)
    }

    /// The doors by which it can be asked for.
    pub(crate) fn doors(self) -> &'static [Door] {
        match self {
            Shape::Singles => &[Door::Plain, Door::Threads, Door::Ring],
            Shape::Many | Shape::Crowd => {
                &[Door::Threads, Door::Ring, Door::ThreadsByFile, Door::RingByFile]
            }
            Shape::Store | Shape::Lives => &[Door::Store, Door::StoreBehind],
        }
    }

    /// Operations of a thread, so that a recording has a few hundred places to cut it at.
    fn length(self) -> u32 {
        match self {
            Shape::Singles => 8,
            Shape::Many => 3,
            Shape::Crowd => 6,
            Shape::Store => 12,
            Shape::Lives => 14,
        }
    }
}

impl Door {
    pub(crate) fn is_ring(self) -> bool {
        matches!(self, Door::Ring | Door::RingByFile)
    }
}

impl Load {
    pub(crate) fn new(shape: Shape, door: Door, seed: u64) -> Load {
        Load { shape, door, seed, length: shape.length() }
    }

    /// Every shape by every door.
    pub(crate) fn all(seed: u64) -> impl Iterator<Item = Load> {
        Shape::ALL.into_iter().flat_map(move |shape| {
            shape.doors().iter().map(move |door| Load::new(shape, *door, seed))
        })
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Load { shape, door, seed, length } = self;
        write!(f, "{shape:?}/{door:?}/{length}, seed {seed}")
    }
}
