//! How what the log has becomes visible: before the answer, or behind it.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::{Core, Files, Hidden, Unpublished, Unspread, container};
use crate::left_out::{Rule, left_out};
use crate::store::log::Medium;
use crate::store::log::format::{DirectoryId, Kind, Record, blocks_for};

/// What became visible of changes, by their paths.
type Answers = BTreeMap<String, Result<(), Errno>>;

impl<M: Medium, F: Files> Core<M, F> {
    /// Makes what the log has visible.
    pub(super) fn publish_now(&mut self, records: Vec<(Record, u64)>, answers: &mut Answers) {
        let vanished = self.publish(records, answers);
        if !vanished.is_empty() {
            self.save_again(vanished, answers);
        }
    }

    /// What the log has is to be made visible by [`publish_some`](Core::publish_some).
    pub(super) fn publish_later(&mut self, records: Vec<Record>, seq: u64) {
        for record in records {
            self.unspread.insert(record.path.clone(), Unspread { record: record.clone(), seq });
            self.unpublished.put(record.clone(), seq);
            // Newer than what could not be published before.
            self.hidden.remove(&record.path);
        }
    }

    /// Makes some of what is behind visible. Is there more?
    pub(crate) fn publish_some(&mut self, max: usize) -> bool {
        let first = self.unpublished.first(max);
        if !first.is_empty() {
            self.publish_now(first, &mut Answers::new());
        }
        self.unpublished.len() > 0
    }

    /// What is answered and not visible yet.
    pub(crate) fn unpublished(&self) -> &Unpublished {
        &self.unpublished
    }

    /// Of every group up to this one all is visible, or void.
    pub(crate) fn visible_to(&self) -> u64 {
        match self.unpublished.oldest() {
            Some(oldest) if !left_out(Rule::UnpublishedUnspread) => oldest - 1,
            _ => self.log.last(),
        }
    }

    /// What it gives back was saved to a directory that is not there any more.
    fn publish(&mut self, records: Vec<(Record, u64)>, answers: &mut Answers) -> Vec<Record> {
        // Only now: a file can reach the disk before its record, and would replace the old version.
        let published = self.files.publish(&records.iter().map(|(one, _)| one).collect::<Vec<_>>());
        let mut vanished = Vec::new();
        for ((record, seq), published) in records.into_iter().zip(published) {
            self.note_published(&record, published);
            let path = record.path.clone();
            answers.insert(path.clone(), published);
            if record.kind == Kind::Replace && matches!(published, Err(Errno::NOENT | Errno::STALE))
            {
                vanished.push(Record { directory: DirectoryId::default(), ..record.clone() });
            }
            // Behind it: until then whoever loads has it from there.
            match published {
                Ok(()) => self.unpublished.remove(&path),
                Err(_) => self.unpublished.hide(&path),
            }
            self.unspread.insert(path, Unspread { record, seq });
        }
        vanished
    }

    /// Somebody else has removed a directory, or made it again, while it was saved to: it is saved to the one
    /// that is there now, once.
    fn save_again(&mut self, records: Vec<Record>, answers: &mut Answers) {
        let located = self.locate(records.into_iter().map(|record| vec![record]).collect());
        let records: Vec<Record> = located.into_iter().flatten().flatten().collect();
        if records.is_empty() || !self.log.has_room(blocks_for(&records)) {
            return;
        }
        if let Ok(seq) = self.append(&records) {
            self.publish(records.into_iter().map(|record| (record, seq)).collect(), answers);
        }
    }

    fn note_published(&mut self, record: &Record, published: Result<(), Errno>) {
        if record.kind == Kind::Remove {
            self.durable.remove(container(&record.path));
        }
        match published {
            Ok(()) => drop(self.hidden.remove(&record.path)),
            Err(_) if left_out(Rule::TryingAgain) => {}
            Err(errno) => {
                self.hidden.insert(record.path.clone(), Hidden::open(record, errno));
            }
        }
    }

    /// After a sync that failed: everything is to be published once more.
    pub(super) fn publish_again(&mut self, errno: Errno) {
        for (path, Unspread { record, .. }) in &self.unspread {
            self.hidden.insert(path.clone(), Hidden::open(record, errno));
            self.unpublished.hide(path);
        }
    }

    /// Publishes what could not be published, or sets it aside: no target may keep the log from going on.
    pub(super) fn place(&mut self) -> Result<(), Errno> {
        // A removal that is tried again must not take a directory in which something is to be.
        if self.hidden.values().any(|hidden| !hidden.is_kept) {
            self.publish_some(usize::MAX);
        }
        let open = self.hidden.values().filter(|hidden| !hidden.is_kept);
        let open: Vec<Record> = open.map(|hidden| hidden.record.clone()).collect();
        let published = self.files.publish(&open.iter().collect::<Vec<_>>());
        for (record, published) in open.iter().zip(published) {
            match published {
                Ok(()) => drop(self.hidden.remove(&record.path)),
                Err(errno) => {
                    self.files.set_aside(record)?;
                    self.aside.insert(record.path.clone());
                    self.hidden.insert(record.path.clone(), Hidden::kept(record, errno));
                }
            }
        }
        // What is older than what the log has.
        let is_stale =
            |path: &&String| !self.hidden.get(*path).is_some_and(|hidden| hidden.is_kept);
        let stale: Vec<String> = self.aside.iter().filter(is_stale).cloned().collect();
        for path in stale {
            self.files.take_back(&path)?;
            self.aside.remove(&path);
        }
        Ok(())
    }
}
