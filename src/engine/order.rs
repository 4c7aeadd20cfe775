//! Order: saves of one target take effect in the order in which they were accepted, and a version
//! that is overtaken while it waits is not written at all.
//!
//! ```text
//!   accept ──▶ line of the target ── the first ──▶ route ──▶ answer, and the next of the line
//!                   │
//!                   └─ the others wait; a newer version takes the place of the one before it, if
//!                      both are plain, and its answer is an answer to both
//! ```
//!
//! A line is found by a hash of its target: of the directory's numbers, whatever path led there, and
//! of the name. Two targets of one hash wait for each other in vain, and that is all: before a version
//! is left out, the targets themselves are compared.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::route::Route;
use crate::error::{Cause, Error};
use crate::filesystem;
use crate::job::Job;
use crate::plan::{Outcome, Step};
use crate::task::{Ended, Task, Tasks};

/// The lines of a writer, and where those go that have the turn.
#[derive(Debug)]
pub(crate) struct Order {
    state: Mutex<State>,
    hasher: RandomState,
    route: Route,
}

#[derive(Debug, Default)]
struct State {
    /// A line is here while a save of its target is under way; it takes room only if others wait.
    lines: HashMap<u64, Option<Box<Line>>>,
    /// Saves that were accepted.
    accepted: u64,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Box<Task>>,
    /// The save that had the turn was lost with the ring, and may yet happen.
    lost: bool,
}

/// The right of a save to be carried out now. When it is dropped, the next of its line has the turn.
#[derive(Debug)]
pub(crate) struct Turn {
    /// `None` once it is passed on.
    order: Option<Arc<Order>>,
    line: u64,
}

impl Order {
    pub(super) fn new(route: Route) -> Arc<Order> {
        Arc::new(Order { state: Mutex::default(), hasher: RandomState::new(), route })
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    /// Accepts a save that its caller carries out himself, at once, and numbers it. `None` if another
    /// of its target is under way.
    pub(super) fn enter(self: &Arc<Order>, job: &mut Job) -> Option<Turn> {
        let line = self.line_of(job);
        let mut state = self.lock();
        match state.lines.entry(line) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(entry) => entry.insert(None),
        };
        job.sequence = state.next_sequence();
        Some(self.turn(line))
    }

    /// Accepts a save. It comes back if it has the turn; else it waits for it, or takes the place of
    /// one that does.
    pub(super) fn accept(self: &Arc<Order>, mut task: Box<Task>) -> Option<Box<Task>> {
        if let Some(turn) = self.enter(&mut task.job) {
            task.turn = Some(turn);
            return Some(task);
        }
        // Not asked under the lock: on some filesystems it takes its time.
        let dir = task.job.place.dir.as_fd();
        let may_overtake = task.job.is_plain() && filesystem::numbers_are_unique(dir);
        let line = self.line_of(&mut task.job);
        let mut state = self.lock();
        task.job.sequence = state.next_sequence();
        let Some(others) = state.lines.get_mut(&line) else {
            // They have ended meanwhile.
            state.lines.insert(line, None);
            drop(state);
            task.turn = Some(self.turn(line));
            return Some(task);
        };
        let Line { waiting, lost } = &mut **others.get_or_insert_default();
        if *lost {
            drop(state);
            refuse([task]);
            return None;
        }
        let last = waiting.back().filter(|last| may_overtake && task.job.stands_for(&last.job));
        let overtaken = if last.is_some() { waiting.pop_back() } else { None };
        let payload = overtaken.map(|overtaken| task.overtake(*overtaken));
        waiting.push_back(task);
        drop(state);
        // A payload's owner is code of the caller's.
        drop(payload);
        None
    }

    /// The next of these lines have the turn.
    fn pass(self: &Arc<Order>, mut lines: Vec<u64>) {
        let (mut ready, mut failed) = (Tasks::new(), Vec::new());
        while !lines.is_empty() {
            let next = self.next_of(&lines);
            lines.clear();
            for (line, mut task) in next {
                match task.job.look_again() {
                    Ok(()) => {
                        task.turn = Some(self.turn(line));
                        ready.push(task);
                    }
                    Err(error) => {
                        lines.push(line);
                        failed.push(task.fail(error));
                    }
                }
            }
        }
        self.route.submit(ready, false);
        Ended::answer_all(failed);
    }

    /// Takes the first of each of these lines; ends the lines in which nobody waits.
    fn next_of(&self, lines: &[u64]) -> Vec<(u64, Box<Task>)> {
        let mut next = Vec::new();
        let mut state = self.lock();
        for line in lines {
            let others = state.lines.get_mut(line).and_then(Option::as_mut);
            match others.and_then(|line| line.waiting.pop_front()) {
                Some(task) => next.push((*line, task)),
                None => drop(state.lines.remove(line)),
            }
        }
        next
    }

    fn line_of(&self, job: &mut Job) -> u64 {
        self.hasher.hash_one((job.directory(), &job.place.name))
    }

    fn turn(self: &Arc<Order>, line: u64) -> Turn {
        Turn { order: Some(Arc::clone(self)), line }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_sequence(&mut self) -> u64 {
        self.accepted += 1;
        self.accepted
    }
}

impl Turn {
    /// Passes turns of one writer on, all at once: who was waiting can go together too.
    pub(crate) fn pass_all(turns: Vec<Turn>) {
        let Some(order) = turns.first().and_then(|turn| turn.order.clone()) else { return };
        let pass = |mut turn: Turn| {
            turn.order = None;
            turn.line
        };
        order.pass(turns.into_iter().map(pass).collect());
    }

    /// The save was lost with the ring and may yet happen, after a newer one: nothing of this target
    /// is taken any more.
    pub(crate) fn lose(mut self) {
        let Some(order) = self.order.take() else { return };
        let mut state = order.lock();
        let line = state.lines.entry(self.line).or_default().get_or_insert_default();
        line.lost = true;
        let waiting = std::mem::take(&mut line.waiting);
        drop(state);
        refuse(waiting);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(order) = self.order.take() {
            order.pass(vec![self.line]);
        }
    }
}

fn refuse(tasks: impl IntoIterator<Item = Box<Task>>) {
    let refused = tasks.into_iter().map(|task| {
        let target = task.job.place.shown.clone();
        task.fail(Error::new(target, Step::Accept, Outcome::Unchanged, Cause::EngineLost))
    });
    Ended::answer_all(refused.collect());
}
