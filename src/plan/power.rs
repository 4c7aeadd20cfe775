//! The plan under power cuts, on a filesystem that promises nothing: what was written, the size of a file, and
//! each name in the directory reach the disk alone and in any order, until the sync that is for them. Every
//! state that a power cut can leave is looked at, after each step of each shape.

use std::collections::BTreeMap;

use super::{Progress, Shape, Step};
use crate::left_out::{Rule, without};

/// Versions of the target: what the previous name held, what stood there, and what is saved.
type Version = u8;
const OLDER: Version = 0;
const OLD: Version = 1;
const NEW: Version = 2;

/// What a power cut can leave of a file that was not synced.
const CONTENTS: [Content; 4] = [Content::Empty, Content::Zeros, Content::Half, Content::Whole];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Empty,
    Zeros,
    Half,
    Whole,
}

/// A directory of names for files, each of one version.
#[derive(Debug, Clone)]
struct Disk {
    /// What each name may be: the durable one first, then every later one.
    names: BTreeMap<&'static str, Vec<Option<Version>>>,
    new_is_synced: bool,
}

impl Disk {
    fn new(old_stands: bool) -> Disk {
        let old = old_stands.then_some(OLD);
        let names = [("target", old), ("previous", Some(OLDER)), ("temp", None), ("link", None)];
        let names = names.into_iter().map(|(name, file)| (name, vec![file])).collect();
        Disk { names, new_is_synced: false }
    }

    fn set(&mut self, name: &'static str, file: Option<Version>) {
        self.names.entry(name).or_default().push(file);
    }

    fn get(&self, name: &str) -> Option<Version> {
        self.names.get(name).and_then(|values| *values.last()?)
    }

    fn rename(&mut self, from: &'static str, to: &'static str) {
        let file = self.get(from);
        self.set(to, file);
        self.set(from, None);
    }

    fn run(&mut self, step: Step) -> Result<(), rustix::io::Errno> {
        match step {
            Step::Open => self.set("temp", Some(NEW)),
            Step::Sync => self.new_is_synced = true,
            Step::LinkPrevious if self.get("target").is_none() => {
                return Err(rustix::io::Errno::NOENT);
            }
            Step::LinkPrevious => self.set("link", self.get("target")),
            Step::RenamePrevious => self.rename("link", "previous"),
            Step::SyncPrevious | Step::SyncDirectory => {
                for values in self.names.values_mut() {
                    values.drain(..values.len() - 1);
                }
            }
            Step::Rename => self.rename("temp", "target"),
            _ => {}
        }
        Ok(())
    }

    /// Each state that a power cut can leave: what the two names hold, and what the new file does.
    fn after_power_cut(&self) -> Vec<State> {
        let contents = if self.new_is_synced { &CONTENTS[3..] } else { &CONTENTS[..] };
        let mut states = Vec::new();
        for target in &self.names["target"] {
            for previous in &self.names["previous"] {
                for content in contents {
                    states.push(State { target: *target, previous: *previous, new: *content });
                }
            }
        }
        states
    }
}

#[derive(Debug, Clone, Copy)]
struct State {
    target: Option<Version>,
    previous: Option<Version>,
    new: Content,
}

impl State {
    /// Is it as the contract says? `answered`: the save was, and is durable.
    fn check(self, shape: Shape, old_stands: bool, answered: bool) -> Result<(), &'static str> {
        let State { target, previous, new } = self;
        if target.is_none() && old_stands {
            return Err("a file that existed is missing");
        }
        if target == Some(NEW) && new != Content::Whole {
            return Err("the target is torn");
        }
        if answered && target != Some(NEW) {
            return Err("what was acknowledged is lost");
        }
        if shape.keep_previous && old_stands {
            if target != Some(OLD) && previous != Some(OLD) {
                return Err("the old version has neither name");
            }
            if previous > target {
                return Err("the previous version is newer than the target");
            }
        }
        Ok(())
    }
}

/// Goes through every shape that syncs, step by step; how many states that were, or what was wrong.
fn run(rule: Option<Rule>) -> Result<u64, (Shape, Step, State, &'static str)> {
    let _without = without(rule);
    let mut states = 0;
    for bits in 0..16_u8 {
        let shape = Shape {
            durable: true,
            attributes: bits & 1 != 0,
            keep_previous: bits & 2 != 0,
            write_syncs: bits & 4 != 0,
        };
        let old_stands = bits & 8 != 0;
        let mut disk = Disk::new(old_stands);
        let mut progress = Progress::new(shape);
        while let Some(step) = progress.next() {
            let answer = disk.run(step);
            progress.record(step, answer);
            let answered = progress.next().is_none() && progress.failed().is_none();
            for state in disk.after_power_cut() {
                states += 1;
                let checked = state.check(shape, old_stands, answered);
                checked.map_err(|wrong| (shape, step, state, wrong))?;
            }
        }
        assert_eq!(progress.failed(), None);
    }
    Ok(states)
}

#[test]
fn no_power_cut_breaks_the_contract() {
    let states = run(None).unwrap();
    println!("{states} states");
    assert!(states > 250, "{states}");
}

#[test]
fn every_sync_is_missed_and_their_order() {
    let wrong = |rule| run(Some(rule)).unwrap_err().3;
    assert_eq!(wrong(Rule::FileSync), "the target is torn");
    assert_eq!(wrong(Rule::RenameBeforeSync), "the target is torn");
    assert_eq!(wrong(Rule::PreviousSync), "the old version has neither name");
    assert_eq!(wrong(Rule::DirectorySync), "what was acknowledged is lost");
    assert_eq!(wrong(Rule::AnswerBeforeBarrier), "what was acknowledged is lost");
}
