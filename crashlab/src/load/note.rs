//! What a load says while it runs: what it asks for, and what it is answered. One line of JSON each.

use serde::{Deserialize, Serialize};

use super::content::Version;

/// A line on the tape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// Said before the library is called.
    Asked(Asked),
    /// Said when it has answered.
    Answered { operation: u32, how: Vec<How> },
    /// The library answered what it must not.
    Wrong(String),
    /// All is done. So many saves were the ring's.
    Ended { by_ring: u64 },
}

/// An operation: changes that are asked for together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) operation: u32,
    pub(crate) changes: Vec<Change>,
    /// All of them or none: a transaction.
    pub(crate) whole: bool,
    pub(crate) kind: Kind,
}

/// What is special about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Plain,
    /// The old version is to stand beside the new one, under the name that [`previous`] gives.
    KeepPrevious,
    /// It must fail if anything is there.
    CreateNew,
    /// Nothing is promised of it after a power cut.
    Atomic,
}

/// A path below the load's directory, and what is to be there: a version, or nothing. A path that ends in `/`
/// is a directory's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) path: String,
    pub(crate) to: Option<Version>,
}

/// What the answer said of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    /// This version, or a later one, survives a power cut. `order`: which instance of a writer or a store, and
    /// the number in the order in which it accepted changes; 0 if there is none.
    Durable { order: (u32, u64) },
    /// It was not written: a newer one stands for it, and that one is durable.
    Overtaken { order: (u32, u64) },
    /// As before.
    Unchanged,
    /// It may be there or not.
    Unknown,
    /// It is visible, and a power cut may undo it.
    Visible,
    /// The library was not asked, for there was nobody to ask.
    NotAsked,
}

/// The name under which a file's previous version is kept.
pub(crate) fn previous(path: &str) -> String {
    format!("{path}.previous")
}

impl Note {
    pub(crate) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("a note is plain data");
        line.push('\n');
        line
    }

    pub(crate) fn parse(line: &str) -> Note {
        serde_json::from_str(line).unwrap_or_else(|_| Note::Wrong(format!("not a note: {line}")))
    }
}
