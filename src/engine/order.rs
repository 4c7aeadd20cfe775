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
//! is left out, the directories themselves are compared.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::route::Route;
use crate::engine::task::turn::{Lines, Turn};
use crate::engine::task::{Ended, Task, Tasks};
use crate::error::{Cause, Error};
use crate::filesystem;
use crate::job::{Job, directory_of};
use crate::plan::{Outcome, Step};

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
    /// The one save that is under way, if it began when nothing else was: it has a line only if others
    /// come, for to find one costs a look at the directory.
    alone: Option<Alone>,
}

#[derive(Debug)]
enum Alone {
    /// Its directory and name.
    WithoutLine(Arc<OwnedFd>, CString),
    WithLine(u64),
}

/// In a turn, for a line: it is of the one that was alone. No line's hash has this bit.
const ALONE: u64 = 1 << 63;

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Box<Task>>,
    /// The save that had the turn was lost with the ring, and may yet happen.
    lost: bool,
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
        let mut state = self.lock();
        if state.lines.is_empty() && state.alone.is_none() {
            state.alone =
                Some(Alone::WithoutLine(Arc::clone(&job.place.dir), job.place.name.clone()));
            job.sequence = state.next_sequence();
            return Some(self.turn(ALONE));
        }
        drop(state);
        let line = self.line_of(job);
        self.enter_line(line, job)
    }

    fn enter_line(self: &Arc<Order>, line: u64, job: &mut Job) -> Option<Turn> {
        let mut state = self.lock_with_lines();
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
        let line = self.line_of(&mut task.job);
        // The last that waits, and is it of this target?
        let mut compared = None;
        loop {
            if let Some(turn) = self.enter_line(line, &mut task.job) {
                task.turn = Some(turn);
                return task.look_again();
            }
            let mut state = self.lock();
            let State { lines, accepted, .. } = &mut *state;
            // They can have ended meanwhile.
            let Some(others) = lines.get_mut(&line) else { continue };
            let Line { waiting, lost } = &mut **others.get_or_insert_default();
            if *lost {
                drop(state);
                refuse([task]);
                return None;
            }
            let mut overtakes = false;
            if let Some(last) = waiting.back().filter(|last| task.job.stands_for(&last.job)) {
                let (sequence, dir) = (last.job.sequence, Arc::clone(&last.job.place.dir));
                match compared {
                    Some((compared, same)) if compared == sequence => overtakes = same,
                    _ => {
                        drop(state);
                        // Not under the lock: it can take its time.
                        let mine = task.job.place.dir.as_fd();
                        let same = filesystem::are_one_directory(mine, dir.as_fd());
                        compared = Some((sequence, same));
                        continue;
                    }
                }
            }
            *accepted += 1;
            task.job.sequence = *accepted;
            let last = if overtakes { waiting.pop_back() } else { None };
            let freed = last.map(|last| task.overtake(*last));
            waiting.push_back(task);
            drop(state);
            if let Some(freed) = freed {
                freed.release();
            }
            return None;
        }
    }

    /// Takes the first of each of these lines; ends the lines in which nobody waits.
    fn next_of(&self, lines: &[u64]) -> Vec<(u64, Box<Task>)> {
        let mut next = Vec::new();
        let mut state = self.lock();
        for line in lines {
            let line = match line {
                &ALONE => match state.alone.take() {
                    Some(Alone::WithLine(line)) => line,
                    _ => continue,
                },
                line => *line,
            };
            let others = state.lines.get_mut(&line).and_then(Option::as_mut);
            match others.and_then(|line| line.waiting.pop_front()) {
                Some(task) => next.push((line, task)),
                None => drop(state.lines.remove(&line)),
            }
        }
        next
    }

    fn line_of(&self, job: &mut Job) -> u64 {
        self.hash(job.directory(), &job.place.name)
    }

    fn hash(&self, directory: (u64, u64), name: &CStr) -> u64 {
        self.hasher.hash_one((directory, name)) & !ALONE
    }

    /// The state, in which every save that is under way has a line.
    fn lock_with_lines(&self) -> MutexGuard<'_, State> {
        loop {
            let mut state = self.lock();
            let Some(Alone::WithoutLine(dir, name)) = &state.alone else { return state };
            let (dir, name) = (Arc::clone(dir), name.clone());
            drop(state);
            // Not under the lock: it can take its time.
            let line = self.hash(directory_of(&dir), &name);
            state = self.lock();
            let is_same =
                matches!(&state.alone, Some(Alone::WithoutLine(now, _)) if Arc::ptr_eq(now, &dir));
            if is_same {
                state.alone = Some(Alone::WithLine(line));
                state.lines.insert(line, None);
                return state;
            }
        }
    }

    fn turn(self: &Arc<Order>, line: u64) -> Turn {
        Turn::new(Arc::clone(self) as Arc<dyn Lines>, line)
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

impl Lines for Order {
    fn pass(self: Arc<Order>, lines: Vec<u64>) {
        let mut ready = Tasks::new();
        for (line, mut task) in self.next_of(&lines) {
            task.turn = Some(self.turn(line));
            if task.job.keeps() {
                // It looks at the file that is there now, and not on this thread, which may be the ring's.
                self.route.look_again_first(task);
            } else {
                ready.push(task);
            }
        }
        self.route.submit(ready, false);
    }

    fn lose(&self, line: u64) {
        let mut state = self.lock();
        let line = state.lines.entry(line).or_default().get_or_insert_default();
        line.lost = true;
        let waiting = std::mem::take(&mut line.waiting);
        drop(state);
        refuse(waiting);
    }
}

fn refuse(tasks: impl IntoIterator<Item = Box<Task>>) {
    let refused = tasks.into_iter().map(|task| {
        let target = task.job.place.shown.clone();
        task.fail(Error::new(target, Step::Accept, Outcome::Unchanged, Cause::EngineLost))
    });
    Ended::answer_all(refused.collect());
}
