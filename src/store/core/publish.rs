//! How what the log has becomes visible: before the answer, or behind it.

use std::sync::Arc;

use rustix::io::Errno;

use super::unpublished::{Failed, Portion};
use super::{Core, Files, Hidden, Unpublished, Unspread, Visible, container};
use crate::left_out::{Rule, left_out};
use crate::store::log::Medium;
use crate::store::log::format::{DirectoryId, Kind, Record, blocks_for};

impl<M: Medium, F: Files> Core<M, F> {
    /// What the log has is to become visible.
    pub(super) fn note_appended(&mut self, records: &[Arc<Record>], seq: u64, visible: Visible) {
        for record in records {
            if record.kind == Kind::Remove {
                self.durable.remove(container(&record.path));
            }
            let unspread = Unspread { record: Arc::clone(record), seq };
            self.unspread.insert(Arc::clone(&record.path), unspread);
            // Newer than what could not be published before.
            self.hidden.remove(&record.path);
        }
        match visible {
            Visible::Later => self.unpublished.put(records, seq),
            // Until it is visible whoever loads has it from there, if he had an older one.
            Visible::Now => self.unpublished.overtake(records, seq),
        }
    }

    /// Makes some of what is behind visible. Is there more?
    pub(crate) fn publish_some(&mut self, max: usize) -> bool {
        self.publish(self.unpublished.first(max));
        self.unpublished.len() > 0
    }

    /// Makes what the log has visible.
    pub(super) fn publish(&mut self, portion: Portion) {
        let records: Vec<Arc<Record>> =
            portion.iter().map(|(record, _)| Arc::clone(record)).collect();
        if !records.is_empty() {
            let published = self.files.publish(&records);
            let failed = self.unpublished.note(portion, published);
            self.hide(failed);
        }
    }

    /// Hides what could not be published.
    pub(crate) fn hide(&mut self, failed: Vec<Failed>) {
        let vanished = self.note_hidden(failed);
        if !vanished.is_empty() {
            self.save_again(vanished);
        }
    }

    /// What is not visible yet. Who has the files can publish some of it while the log goes on, one at a time,
    /// and then notes what came of it.
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
    fn note_hidden(&mut self, failed: Vec<Failed>) -> Vec<Record> {
        let mut vanished = Vec::new();
        for Failed { record, seq, errno } in failed {
            if !self.unpublished.hide(&record.path, seq) {
                continue;
            }
            if !left_out(Rule::TryingAgain) {
                self.hidden.insert(record.path.clone(), Hidden::open(&record, errno));
            }
            if record.kind == Kind::Replace && matches!(errno, Errno::NOENT | Errno::STALE) {
                vanished.push(Record { directory: DirectoryId::default(), ..(*record).clone() });
            }
        }
        vanished
    }

    /// Somebody else has removed a directory, or made it again, while it was saved to: it is saved to the one
    /// that is there now, once.
    fn save_again(&mut self, records: Vec<Record>) {
        let located = self.locate(records.into_iter().map(|record| vec![record]).collect());
        let records: Vec<Arc<Record>> =
            located.into_iter().flatten().flatten().map(Arc::new).collect();
        if records.is_empty() || !self.log.has_room(blocks_for(records.iter().map(|one| &**one))) {
            return;
        }
        if let Ok(seq) = self.append(&records) {
            self.note_appended(&records, seq, Visible::Now);
            let published = self.files.publish(&records);
            let portion = records.into_iter().map(|record| (record, seq)).collect();
            let failed = self.unpublished.note(portion, published);
            self.note_hidden(failed);
        }
    }

    /// After a sync that failed: everything is to be published once more.
    pub(super) fn publish_again(&mut self, errno: Errno) {
        for (path, Unspread { record, seq }) in &self.unspread {
            self.hidden.insert(path.clone(), Hidden::open(record, errno));
            self.unpublished.hide(path, *seq);
        }
    }

    /// Publishes what could not be published, or sets it aside: no target may keep the log from going on.
    pub(super) fn place(&mut self) -> Result<(), Errno> {
        // A removal that is tried again must not take a directory in which something is to be.
        if self.hidden.values().any(|hidden| !hidden.is_kept) {
            self.publish_some(usize::MAX);
        }
        let open = self.hidden.values().filter(|hidden| !hidden.is_kept);
        let open: Vec<Arc<Record>> = open.map(|hidden| Arc::clone(&hidden.record)).collect();
        let published = self.files.publish(&open);
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
            |path: &&Arc<str>| !self.hidden.get(*path).is_some_and(|hidden| hidden.is_kept);
        let stale: Vec<Arc<str>> = self.aside.iter().filter(is_stale).cloned().collect();
        for path in stale {
            self.files.take_back(&path)?;
            self.aside.remove(&path);
        }
        Ok(())
    }
}
