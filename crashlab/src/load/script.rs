//! The script of a load: what each thread asks for, one after the other. Made from a seed, without I/O.

use fastrand::Rng;

use super::content::Version;
use super::note::{Asked, Change, Kind};
use super::{Load, OTHER, PID, ROOT, STATE, Shape};

/// What is there before the load runs, and what it does.
#[derive(Debug)]
pub(crate) struct Script {
    /// Directories, made by hand.
    pub(crate) directories: Vec<String>,
    /// The files' first versions, written by hand.
    pub(crate) first: Vec<Change>,
    /// For each thread, its steps.
    pub(crate) threads: Vec<Vec<Step>>,
}

/// A step of a thread.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) asked: Asked,
    pub(crate) way: Way,
}

/// How it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Each change by a call of its own, or all by one that takes many.
    Files,
    /// Below a root that the library makes.
    Beneath,
    /// A transaction of a store, or a save of its own.
    Store,
    /// A save beside the log.
    Direct,
    /// A pid file.
    Pid,
    /// The store is closed and opened again.
    Reopen,
}

impl Script {
    pub(crate) fn of(load: &Load) -> Script {
        let mut maker = Maker { random: Rng::with_seed(load.seed), operations: 0, versions: 0 };
        let length = load.length as usize;
        match load.shape {
            Shape::Singles => maker.singles(length),
            Shape::Many => maker.many(length),
            Shape::Crowd => maker.crowd(length),
            Shape::Store => maker.store(length, false),
            Shape::Lives => maker.store(length, true),
        }
    }
}

struct Maker {
    random: Rng,
    operations: u32,
    versions: u32,
}

impl Maker {
    fn singles(&mut self, length: usize) -> Script {
        let directories: Vec<String> = (0..2).map(|n| format!("d{n}")).collect();
        let kept = |thread: usize| format!("d{thread}/kept.json");
        let plain = |thread: usize, file: usize| format!("d{thread}/state{file}.json");
        let atomic = |thread: usize| format!("d{thread}/atomic.json");
        let mut first = Vec::new();
        for thread in 0..2 {
            first.push(self.change(kept(thread)));
            first.push(self.change(plain(thread, 0)));
        }
        let threads = (0..2).map(|thread| {
            let steps = (0..length).map(|at| {
                let (path, kind, way) = match self.random.u8(..12) {
                    0..4 => (plain(thread, self.random.usize(..2)), Kind::Plain, Way::Files),
                    4..7 => (kept(thread), Kind::KeepPrevious, Way::Files),
                    7 => (format!("d{thread}/new{at}.json"), Kind::CreateNew, Way::Files),
                    8 => (plain(thread, 0), Kind::CreateNew, Way::Files),
                    9 => (atomic(thread), Kind::Atomic, Way::Files),
                    _ => (format!("made{thread}/deep/state.json"), Kind::Plain, Way::Beneath),
                };
                let changes = vec![self.change(path)];
                self.step(changes, false, kind, way)
            });
            steps.collect()
        });
        let threads = threads.collect();
        Script { directories, first, threads }
    }

    fn many(&mut self, length: usize) -> Script {
        let directories: Vec<String> = (0..6).map(|n| format!("d{n}")).collect();
        let path = |file: usize| format!("d{}/state{}.json", file % 6, file / 6);
        // Half of them are there already.
        let first = (0..12).map(|file| self.change(path(file))).collect();
        let steps = (0..length).map(|_| {
            let count = self.random.usize(2..=24);
            let changes = (0..count).map(|_| {
                let file = self.random.usize(..24);
                self.change(path(file))
            });
            let changes = changes.collect();
            self.step(changes, false, Kind::Plain, Way::Files)
        });
        let threads = vec![steps.collect()];
        Script { directories, first, threads }
    }

    fn crowd(&mut self, length: usize) -> Script {
        let path = |file: usize| format!("d/state{file}.json");
        let first = (0..2).map(|file| self.change(path(file))).collect();
        let threads = (0..6).map(|_| {
            let steps = (0..length).map(|_| {
                let file = self.random.usize(..3);
                let changes = vec![self.change(path(file))];
                self.step(changes, false, Kind::Plain, Way::Files)
            });
            steps.collect()
        });
        let threads = threads.collect();
        Script { directories: vec!["d".to_owned()], first, threads }
    }

    /// Threads that save the containers of their own, and one that all share.
    fn store(&mut self, length: usize, lives: bool) -> Script {
        let first_ids = ["shared", "t0-0", "t1-0"];
        let directories = std::iter::once(ROOT.to_owned())
            .chain(first_ids.map(|id| format!("{ROOT}/{id}")))
            .collect();
        let mut first: Vec<Change> = Vec::new();
        for id in first_ids {
            first.push(self.change(format!("{ROOT}/{id}/{STATE}")));
            first.push(Change { path: format!("{ROOT}/{id}/"), ..first[first.len() - 1].clone() });
        }
        // Who closes a store does so alone.
        let threads = if lives { 1 } else { 3 };
        let threads = (0..threads).map(|thread| {
            let steps = (0..length).map(|_| self.store_step(thread, lives));
            steps.collect()
        });
        let threads = threads.collect();
        Script { directories, first, threads }
    }

    fn store_step(&mut self, thread: usize, lives: bool) -> Step {
        let id = match self.random.u8(..8) {
            0 => "shared".to_owned(),
            _ => format!("t{thread}-{}", self.random.u8(..3)),
        };
        let roll = self.random.u8(..20);
        if !lives {
            return match roll {
                0..10 => {
                    let changes = self.saved(&id, STATE);
                    self.step(changes, true, Kind::Plain, Way::Store)
                }
                10..18 => self.transaction(thread),
                18 => self.removal(&id),
                _ => self.pid(&id),
            };
        }
        match roll {
            0..4 => {
                let changes = self.saved(&id, STATE);
                self.step(changes, true, Kind::Plain, Way::Store)
            }
            4..8 => self.transaction(thread),
            8..12 => self.removal(&id),
            12..16 => {
                let changes = self.saved(&id, STATE);
                self.step(changes, true, Kind::Plain, Way::Direct)
            }
            16 => {
                // Larger than a quarter of a segment: it goes beside the log by itself.
                let mut changes = self.saved(&id, STATE);
                for change in &mut changes {
                    change.to = change.to.map(|version| Version { bytes: 80 << 10, ..version });
                }
                self.step(changes, true, Kind::Plain, Way::Store)
            }
            17 => self.pid(&id),
            _ => self.step(Vec::new(), false, Kind::Plain, Way::Reopen),
        }
    }

    fn transaction(&mut self, thread: usize) -> Step {
        let mut ids: Vec<String> = (0..3).map(|n| format!("t{thread}-{n}")).collect();
        ids.push("shared".to_owned());
        self.random.shuffle(&mut ids);
        let mut changes = Vec::new();
        let count = self.random.usize(2..=3);
        for id in ids.drain(..count) {
            changes.append(&mut self.saved(&id, STATE));
            if self.random.bool() {
                let other = self.saved(&id, OTHER);
                changes.push(other[0].clone());
            }
        }
        if self.random.u8(..4) == 0 {
            changes.append(&mut removed(&ids[0]));
        }
        self.step(changes, true, Kind::Plain, Way::Store)
    }

    fn removal(&mut self, id: &str) -> Step {
        self.step(removed(id), true, Kind::Plain, Way::Store)
    }

    fn pid(&mut self, id: &str) -> Step {
        // Not empty; what it holds is some process's number.
        let to = Some(Version { number: 0, bytes: 1 });
        let paths = [PID, ""].map(|name| format!("{ROOT}/{id}/{name}"));
        let changes = paths.map(|path| Change { path, to }).to_vec();
        self.step(changes, false, Kind::Atomic, Way::Pid)
    }

    /// A save of a container's file, and so its directory.
    fn saved(&mut self, id: &str, name: &str) -> Vec<Change> {
        let file = self.change(format!("{ROOT}/{id}/{name}"));
        let directory = Change { path: format!("{ROOT}/{id}/"), to: file.to };
        vec![file, directory]
    }

    fn change(&mut self, path: String) -> Change {
        self.versions += 1;
        let bytes = match self.random.u8(..16) {
            0 => 0,
            1..12 => self.random.u32(60..2000),
            12..15 => self.random.u32(4000..9000),
            _ => self.random.u32(9000..14000),
        };
        Change { path, to: Some(Version { number: self.versions, bytes }) }
    }

    fn step(&mut self, changes: Vec<Change>, whole: bool, kind: Kind, way: Way) -> Step {
        self.operations += 1;
        Step { asked: Asked { operation: self.operations, changes, whole, kind }, way }
    }
}

/// A removed container: its files and its directory.
fn removed(id: &str) -> Vec<Change> {
    let paths = [STATE, OTHER, PID, ""].map(|name| format!("{ROOT}/{id}/{name}"));
    paths.map(|path| Change { path, to: None }).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_script_again() {
        for load in Load::all(7) {
            let one = format!("{:?}", Script::of(&load));
            assert_eq!(one, format!("{:?}", Script::of(&load)), "{load}");
            assert!(
                Script::of(&load).threads.iter().all(|steps| steps.len() == load.length as usize)
            );
        }
    }

    #[test]
    fn no_two_versions_have_a_number() {
        for load in Load::all(3) {
            let script = Script::of(&load);
            let mut numbers = std::collections::HashMap::new();
            let steps = script.threads.iter().flatten().flat_map(|step| &step.asked.changes);
            for change in
                script.first.iter().chain(steps).filter(|change| !change.path.ends_with('/'))
            {
                let Some(version) = change.to.filter(|version| version.number > 0) else {
                    continue;
                };
                assert_eq!(numbers.insert(version.number, &change.path), None, "{load}");
            }
        }
    }
}
