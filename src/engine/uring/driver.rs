//! The loop of the ring's thread: from tasks to chains to answers.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;

use super::entries::{self, Cleaning};
use super::queue::{Queue, Queued};
use super::ring::{Completion, Ring};
use super::wave::Member;
use crate::engine::counters::Counters;
use crate::engine::pool::Pool;
use crate::engine::task::{Ended, Task};
use crate::engine::{self, SharedStatus, Why, calls};
use crate::error::{Cause, Error};
use crate::plan::Step;
use crate::plan::chain::{ChainEnd, Op, record_chain, syncs_of};
use crate::receipt::Carrier;

/// Saves in a row that find no worker before the ring is given up.
const NOT_STARTED_MAX: usize = 3;

/// How long a submission that the kernel has no memory for is tried again: times, milliseconds.
const SUBMIT_TRIES: usize = 100;
const SUBMIT_PAUSE: u32 = 10;

/// How long chains of a dead ring are waited for while nothing completes, in milliseconds.
pub(crate) const LOST_AFTER: u32 = 30_000;

/// Everything that the ring's thread has.
#[derive(Debug)]
pub(crate) struct Driver {
    /// `None` once it is gone.
    ring: Option<Ring>,
    slots: Vec<Option<Active>>,
    free: Vec<u32>,
    /// Saves in slots that are of no wave.
    singles: usize,
    /// Saves that have no slot yet.
    backlog: VecDeque<Queued>,
    /// Rounds that are queued in the ring, and their entries, in the order of queueing.
    unsubmitted: VecDeque<(u32, usize)>,
    not_started: usize,
    workers_max: usize,
    /// No save is started on the ring any more.
    retired: bool,
    /// Nothing is submitted any more.
    lost: bool,
    queue: Arc<Queue>,
    pool: Arc<Pool>,
    status: SharedStatus,
    counters: Arc<Counters>,
}

/// A save that has a slot.
#[derive(Debug)]
struct Active {
    queued: Queued,
    round: Round,
    results: Vec<i32>,
    pending: usize,
    slot_is_full: bool,
}

/// The entries of a save that are with the kernel.
#[derive(Debug)]
enum Round {
    Chain(Vec<Op>),
    Cleaning(Vec<Cleaning>, Then),
}

/// What becomes of a save when it has left nothing behind in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It leaves the ring as it stands.
    Leave,
    /// It leaves the ring, to be begun anew.
    Restart,
}

impl Driver {
    pub(crate) fn new(
        ring: Ring,
        queue: Arc<Queue>,
        pool: Arc<Pool>,
        status: SharedStatus,
        counters: Arc<Counters>,
    ) -> Driver {
        let (slots, workers_max) = (ring.slots(), ring.workers());
        Driver {
            ring: Some(ring),
            slots: (0..slots).map(|_| None).collect(),
            free: (0..slots as u32).rev().collect(),
            singles: 0,
            backlog: VecDeque::new(),
            unsubmitted: VecDeque::new(),
            not_started: 0,
            workers_max,
            retired: false,
            lost: false,
            queue,
            pool,
            status,
            counters,
        }
    }

    /// Serves until the queue is closed, or the ring is given up, and nothing is left on it.
    pub(crate) fn run(mut self) {
        let mut completions = Vec::new();
        loop {
            let closed = self.queue.take(&mut self.backlog);
            self.start_backlog();
            self.submit();
            if self.active() == 0 && (closed || self.retired) {
                // A cycle that is between two waves goes on without the ring.
                let closed = self.queue.retire(&mut self.backlog);
                if self.backlog.is_empty() {
                    if closed {
                        self.pool.close();
                    }
                    break;
                }
                continue;
            }
            if self.retired && !self.backlog.is_empty() {
                continue;
            }
            self.wait();
            self.reap(&mut completions);
        }
    }

    fn active(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn start_backlog(&mut self) {
        while let Some(queued) = self.backlog.pop_front() {
            if self.retired || !queued.is_for_ring() {
                self.leave(queued);
                continue;
            }
            let Some(slot) = self.free.pop() else {
                self.backlog.push_front(queued);
                return;
            };
            self.singles += usize::from(queued.wave.is_none());
            self.slots[slot as usize] = Some(Active {
                queued,
                round: Round::Chain(Vec::new()),
                results: Vec::new(),
                pending: 0,
                slot_is_full: false,
            });
            self.start_chain(slot);
        }
    }

    /// Queues the save's next chain.
    fn start_chain(&mut self, slot: u32) {
        let Some(active) = &mut self.slots[slot as usize] else { return };
        let ops = active.queued.next_chain(active.slot_is_full);
        let entries = entries::chain(&ops, slot, &active.queued.task);
        active.round = Round::Chain(ops);
        self.push(slot, &entries);
        self.counters.chain();
    }

    fn push(&mut self, slot: u32, entries: &[io_uring::squeue::Entry]) {
        let (Some(active), Some(ring)) = (&mut self.slots[slot as usize], &mut self.ring) else {
            return;
        };
        active.results = vec![-libc::ECANCELED; entries.len()];
        active.pending = entries.len();
        // SAFETY: the entries point into the slot's task and name its directory's descriptor. The
        // task stays in the slot, unchanged, until `pending` is 0 (`complete`), and is leaked if
        // that never comes (`lose_all`).
        unsafe { ring.push(entries) };
        self.unsubmitted.push_back((slot, entries.len()));
    }

    /// Hands the kernel every queued round, in one call if it goes well.
    fn submit(&mut self) {
        self.set_workers();
        let mut tries = 0;
        while !self.unsubmitted.is_empty() {
            let Some(ring) = &self.ring else { return };
            let submitted = ring.submit();
            match submitted {
                Ok(0) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOMEM) if tries < SUBMIT_TRIES => {
                    tries += 1;
                    if let Some(ring) = &self.ring {
                        ring.wait_for(SUBMIT_PAUSE);
                    }
                    self.reap(&mut Vec::new());
                }
                Ok(taken) if taken > 0 && self.took(taken) => tries = 0,
                // A chain was cut. What the kernel has of it runs; were the rest submitted now, it
                // would run beside it. So nothing is submitted any more.
                Ok(_) => self.lose_ring(Errno::AGAIN),
                Err(Errno::INTR) => {}
                Err(errno) => self.lose_ring(errno),
            }
        }
    }

    /// As many workers as the saves under way want: saves that wait for the disk each by itself want
    /// many, for they wait together; where only waves are under way, so many are enough as the cycles
    /// ask for. More would hinder each other: on btrfs each change reserves for the worst case, and with 64
    /// at once a filesystem of 1 GiB, almost empty, has no room for a rename (seen).
    fn set_workers(&mut self) {
        if self.unsubmitted.is_empty() {
            return;
        }
        let width = if self.singles > 0 {
            self.workers_max
        } else {
            let slots = self.unsubmitted.iter().map(|(slot, _)| &self.slots[*slot as usize]);
            let widths = slots.flatten().filter_map(|active| active.queued.wave.as_ref());
            widths.map(Member::width).max().unwrap_or(1).clamp(1, self.workers_max)
        };
        if let Some(ring) = &mut self.ring {
            ring.set_workers(width);
        }
    }

    /// Notes how many entries the kernel took; false if it stopped inside a chain.
    fn took(&mut self, mut taken: usize) -> bool {
        while let Some((slot, entries)) = self.unsubmitted.pop_front() {
            if taken >= entries {
                taken -= entries;
                continue;
            }
            self.unsubmitted.push_front((slot, entries));
            if taken > 0 {
                self.truncate(slot, taken);
            }
            return taken == 0;
        }
        true
    }

    /// Only the first entries of a chain are with the kernel, and only they will complete.
    fn truncate(&mut self, slot: u32, taken: usize) {
        self.unsubmitted.pop_front();
        let Some(active) = &mut self.slots[slot as usize] else { return };
        active.pending -= active.results.len() - taken;
        active.results.truncate(taken);
        match &mut active.round {
            Round::Chain(ops) => ops.truncate(taken),
            Round::Cleaning(ops, _) => ops.truncate(taken),
        }
        if active.pending == 0 {
            self.complete(slot);
        }
    }

    /// The ring cannot be entered any more.
    fn lose_ring(&mut self, errno: Errno) {
        self.lost = true;
        self.retire(Why::RingLost(errno.raw_os_error()));
        // Nothing of these rounds has run, nor ever will.
        for (slot, _) in mem::take(&mut self.unsubmitted) {
            if let Some(active) = &mut self.slots[slot as usize] {
                active.pending = 0;
                self.complete(slot);
            }
        }
    }

    /// Gives the ring up: from now on the pool does everything.
    fn retire(&mut self, why: Why) {
        self.retired = true;
        engine::note_ring_given_up(&self.status, why);
        if self.queue.retire(&mut self.backlog) {
            self.pool.close();
        }
    }

    fn wait(&mut self) {
        let Some(ring) = &self.ring else { return };
        if !self.lost {
            ring.wait();
        } else if !ring.wait_for(LOST_AFTER) {
            self.lose_all();
        }
    }

    /// Takes the completions that have come; ends the rounds that are whole.
    fn reap(&mut self, completions: &mut Vec<Completion>) {
        if let Some(ring) = &mut self.ring {
            ring.reap(completions);
        }
        for (user_data, result) in completions.drain(..) {
            let (slot, index) = entries::of_user_data(user_data);
            let Some(Some(active)) = self.slots.get_mut(slot) else { continue };
            if let Some(place) = active.results.get_mut(index) {
                *place = result;
            }
            active.pending = active.pending.saturating_sub(1);
            if active.pending == 0 {
                self.complete(slot as u32);
            }
        }
    }

    /// Every entry of the slot's round has answered.
    fn complete(&mut self, slot: u32) {
        let Some(active) = &mut self.slots[slot as usize] else { return };
        match mem::replace(&mut active.round, Round::Chain(Vec::new())) {
            Round::Chain(ops) => {
                let then = self.end_chain(slot, &ops);
                match then {
                    Some(then) => self.clean(slot, then),
                    None => self.start_chain(slot),
                }
            }
            Round::Cleaning(ops, then) => {
                let results = mem::take(&mut active.results);
                for (op, result) in ops.into_iter().zip(results) {
                    active.cleaned(op, result);
                }
                self.finish(slot, then);
            }
        }
    }

    /// Reads the answers of a chain. `None`: there is a next one.
    fn end_chain(&mut self, slot: u32, ops: &[Op]) -> Option<Then> {
        let active = self.slots[slot as usize].as_mut()?;
        active.note_slot(ops);
        let task = &mut active.queued.task;
        task.job.syncs += syncs_of(ops, &active.results);
        let (len, progress) = (task.payload.len(), &mut task.job.progress);
        let end = record_chain(progress, len, ops, &active.results);
        let name_is_taken =
            progress.failed() == Some(Step::Open) && progress.errno() == Some(Errno::EXIST);
        let may_be_there = progress.next() == Some(Step::Open) && progress.leftovers().temp;
        let then = match end {
            // Plain calls write on, or try other names.
            ChainEnd::ShortWrite => Some(Then::Restart),
            ChainEnd::Recorded if name_is_taken => Some(Then::Restart),
            ChainEnd::NotStarted if may_be_there => Some(Then::Restart),
            ChainEnd::Recorded if active.queued.goes_on() && !self.retired => None,
            _ => Some(Then::Leave),
        };
        if end != ChainEnd::NotStarted && ops.first() == Some(&Op::Open) {
            active.queued.task.carrier = Carrier::Ring;
        }
        if end != ChainEnd::NotStarted {
            self.not_started = 0;
        } else if !self.retired {
            self.not_started += 1;
            if self.not_started >= NOT_STARTED_MAX {
                self.retire(Why::NoWorkers);
            }
        }
        then
    }

    /// Removes what the chain has left, then goes on.
    fn clean(&mut self, slot: u32, then: Then) {
        let Some(active) = &mut self.slots[slot as usize] else { return };
        let ops = active.to_clean(then);
        if self.retired {
            for op in ops {
                active.clean_by_call(op);
            }
            return self.finish(slot, then);
        }
        if ops.is_empty() {
            return self.finish(slot, then);
        }
        let entries = entries::cleaning(&ops, slot, &active.queued.task);
        active.round = Round::Cleaning(ops, then);
        self.push(slot, &entries);
    }

    /// Takes the save out of its slot.
    fn finish(&mut self, slot: u32, then: Then) {
        let Some(Active { mut queued, .. }) = self.slots[slot as usize].take() else { return };
        self.free.push(slot);
        self.singles -= usize::from(queued.wave.is_none());
        if then == Then::Restart {
            queued.task.restart();
        }
        self.leave(queued);
    }

    /// To its wave, to its caller, or to the pool, as it stands.
    fn leave(&self, Queued { task, wave }: Queued) {
        if let Some(wave) = wave {
            wave.give_back(task);
        } else if task.job.next().is_none() {
            Ended::answer_all(vec![task.end()]);
        } else {
            self.pool.run(Box::new(move || task.carry()));
        }
    }

    /// Answers `Unknown` to every save that is with the kernel, and leaks what it may still read.
    fn lose_all(&mut self) {
        for active in self.slots.iter_mut().filter_map(Option::take) {
            // What was not to rename cannot take effect later.
            let renames = matches!(&active.round, Round::Chain(ops) if ops.contains(&Op::Rename));
            let Task { mut job, payload, permit, reply, turn, overtaken, .. } = *active.queued.task;
            job.progress.lose();
            let (step, sequence) = (job.progress.failed().unwrap_or(Step::Verify), job.sequence);
            let (target, outcome) = (job.place.shown.clone(), job.progress.outcome());
            mem::forget((job, payload));
            let lost = Error::new(target, step, outcome, Cause::EngineLost);
            let turn = match turn {
                Some(turn) if renames => {
                    turn.lose();
                    None
                }
                turn => turn,
            };
            let (payload, answer, syncs) = (Bytes::new(), Err(lost), 0);
            let ended = Ended { payload, permit, reply, answer, turn, overtaken, sequence, syncs };
            Ended::answer_all(vec![ended]);
        }
        (self.free, self.singles) = ((0..self.slots.len() as u32).collect(), 0);
        mem::forget(self.ring.take());
    }
}

impl Drop for Driver {
    /// Dropping a ring neither stops nor waits for what it runs. Only a panic gets here with saves
    /// in their slots.
    fn drop(&mut self) {
        if self.active() > 0 {
            self.lose_all();
        }
        if std::thread::panicking() {
            // Saves that wait, and those that come from now on, go on without the ring.
            self.retire(Why::RingLost(0));
            for queued in mem::take(&mut self.backlog) {
                self.leave(queued);
            }
        }
    }
}

impl Active {
    /// Does the slot hold a file after this chain?
    fn note_slot(&mut self, ops: &[Op]) {
        for (op, result) in ops.iter().zip(&self.results) {
            match op {
                Op::Open | Op::Verify if *result >= 0 => self.slot_is_full = true,
                Op::Close if *result >= 0 => self.slot_is_full = false,
                _ => {}
            }
        }
    }

    fn to_clean(&self, then: Then) -> Vec<Cleaning> {
        let progress = &self.queued.task.job.progress;
        let leftovers = progress.leftovers();
        let ends = then == Then::Restart || progress.next().is_none();
        let mut ops = Vec::new();
        if self.slot_is_full {
            ops.push(Cleaning::Close);
        }
        if ends && leftovers.temp {
            ops.push(Cleaning::RemoveTemp);
        }
        if ends && leftovers.link {
            ops.push(Cleaning::RemoveLink);
        }
        ops
    }

    fn cleaned(&mut self, op: Cleaning, result: i32) {
        match (op, -result) {
            // No worker, or never submitted.
            (_, libc::ECANCELED | libc::EAGAIN | libc::ENOMEM) => self.clean_by_call(op),
            (Cleaning::RemoveTemp, 0) => self.queued.task.job.temp_was_removed(Ok(())),
            (Cleaning::RemoveTemp, errno) => {
                self.queued.task.job.temp_was_removed(Err(Errno::from_raw_os_error(errno)));
            }
            (Cleaning::RemoveLink, _) => self.queued.task.job.progress.link_is_gone(),
            (Cleaning::Close, _) => {}
        }
    }

    fn clean_by_call(&mut self, op: Cleaning) {
        match op {
            // The next save of the slot replaces what is in it.
            Cleaning::Close => {}
            Cleaning::RemoveTemp => calls::remove_temp(&mut self.queued.task.job),
            Cleaning::RemoveLink => calls::remove_link(&mut self.queued.task.job),
        }
    }
}
