//! What a store holds: a map.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cases::Change;
use super::{OTHER, PID, STATE};
use crate::inputs::tree::{Thing, Tree};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Model {
    /// The files of each container.
    containers: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

/// What has to become of a transaction.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is made, and then this is there.
    Made(Model),
    /// It is none that can be made.
    Refused,
    /// It removes something that is not there.
    Missing,
}

impl Model {
    /// A transaction; which directories there are is asked of the root, for one that failed may leave one.
    pub(super) fn commit(&self, root: &Path, changes: &[Change]) -> Verdict {
        self.make(changes, |id| root.join(id).is_dir())
    }

    fn make(&self, changes: &[Change], is_there: impl Fn(&str) -> bool) -> Verdict {
        let is_good = |change: &Change| match change {
            Change::Save(id, name, _) => is_id(id) && [STATE, OTHER].contains(&name.as_str()),
            Change::Remove(id) => is_id(id),
        };
        if !changes.iter().all(is_good) {
            return Verdict::Refused;
        }
        let mut next = self.clone();
        // Directories that the transaction itself makes before it removes them.
        let mut made = BTreeSet::new();
        for change in changes {
            match change {
                Change::Save(id, name, data) => {
                    made.insert(id);
                    let files = next.containers.entry(id.clone()).or_default();
                    files.insert(name.clone(), data.clone());
                }
                Change::Remove(id) => {
                    let known = self.containers.contains_key(id) || made.contains(id);
                    if !known && !is_there(id) {
                        return Verdict::Missing;
                    }
                    next.containers.remove(id);
                }
            }
        }
        Verdict::Made(next)
    }

    pub(super) fn pid(&self, id: &str, pid: u32) -> Verdict {
        if !is_id(id) {
            return Verdict::Refused;
        }
        let mut next = self.clone();
        let files = next.containers.entry(id.to_owned()).or_default();
        files.insert(PID.to_owned(), pid.to_string().into_bytes());
        Verdict::Made(next)
    }

    /// What is loaded; `None`: nothing can be asked for by these names.
    pub(super) fn load(&self, id: &str, name: &str) -> Option<Option<&[u8]>> {
        let is_known = is_id(id) && [STATE, PID, OTHER].contains(&name);
        let file = || self.containers.get(id)?.get(name);
        is_known.then(|| file().map(Vec::as_slice))
    }

    pub(super) fn ids(&self) -> Vec<String> {
        let with_state = self.containers.iter().filter(|(_, files)| files.contains_key(STATE));
        with_state.map(|(id, _)| id.clone()).collect()
    }

    /// The files that are there.
    pub(super) fn files(&self) -> Tree {
        let mut tree = Tree::new();
        for (id, files) in &self.containers {
            for (name, data) in files {
                let file = Thing::File { mode: 0o600, data: data.clone() };
                tree.insert(format!("{id}/{name}").into_bytes(), file);
            }
        }
        tree
    }
}

/// What runc takes, and a directory can be called.
fn is_id(id: &str) -> bool {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "_+-.".contains(letter);
    let is_special = ["", ".", ".."].contains(&id) || id.to_lowercase() == ".ringseal";
    id.len() <= 255 && !is_special && id.chars().all(is_allowed)
}
