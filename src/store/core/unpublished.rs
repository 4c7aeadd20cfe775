//! What is in the log and not visible yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::Published;
use crate::left_out::{Rule, left_out};
use crate::store::log::format::Record;

/// Changes that are durable and not published yet, the newest of each path; shared with who loads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unpublished(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Those that could not be published stay until they are known to be hidden.
    changes: HashMap<Arc<str>, Change>,
    /// Paths in the order in which they fell behind: one that is saved again keeps its place, or it might be
    /// overtaken for ever.
    by_age: BTreeMap<u64, Arc<str>>,
    /// How many of those are of each group.
    by_group: BTreeMap<u64, usize>,
    next: u64,
}

#[derive(Debug)]
struct Change {
    record: Arc<Record>,
    /// The group that holds it.
    seq: u64,
    age: u64,
}

/// What is published together, each with the group that holds it.
pub(crate) type Portion = Vec<(Arc<Record>, u64)>;

/// What could not be published.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(super) record: Arc<Record>,
    pub(super) seq: u64,
    pub(super) errno: Errno,
}

impl State {
    fn put(&mut self, record: Arc<Record>, seq: u64) {
        let older = self.changes.get(&record.path).map(|older| (older.age, older.seq));
        let age = match older {
            Some((age, seq)) => {
                self.take_out(age, seq);
                age
            }
            None => {
                self.next += 1;
                self.next
            }
        };
        self.by_age.insert(age, record.path.clone());
        *self.by_group.entry(seq).or_default() += 1;
        self.changes.insert(record.path.clone(), Change { record, seq, age });
    }

    /// A change waits no more.
    fn take_out(&mut self, age: u64, seq: u64) {
        let waited = self.by_age.remove(&age).is_some();
        if let Some(of_group) = self.by_group.get_mut(&seq).filter(|_| waited) {
            *of_group -= 1;
            if *of_group == 0 {
                self.by_group.remove(&seq);
            }
        }
    }

    fn remove(&mut self, path: &str) {
        if let Some(change) = self.changes.remove(path) {
            self.take_out(change.age, change.seq);
        }
    }

    /// What a group has of this path is dealt with. `false`: a newer one waits, from now on behind the others.
    fn settle(&mut self, path: &str, seq: u64) -> bool {
        let Some(newer) = self.changes.get_mut(path).filter(|change| change.seq > seq) else {
            return true;
        };
        self.next += 1;
        let before = std::mem::replace(&mut newer.age, self.next);
        if let Some(path) = self.by_age.remove(&before) {
            self.by_age.insert(self.next, path);
        }
        false
    }
}

impl Unpublished {
    /// Puts changes there, in the place of older ones of their paths.
    pub(super) fn put(&self, records: &[Arc<Record>], seq: u64) {
        let mut state = self.lock();
        records.iter().for_each(|record| state.put(Arc::clone(record), seq));
    }

    /// The same, but only in the place of older ones.
    pub(super) fn overtake(&self, records: &[Arc<Record>], seq: u64) {
        let mut state = self.lock();
        for record in records {
            if state.changes.contains_key(&record.path) {
                state.put(Arc::clone(record), seq);
            }
        }
    }

    /// It is void.
    pub(super) fn remove(&self, path: &str) {
        self.lock().remove(path);
    }

    /// Takes what came of publishing. What is visible is out; what failed is given back, and waits until it is
    /// hidden.
    pub(crate) fn note(&self, portion: Portion, published: Published) -> Vec<Failed> {
        let mut state = self.lock();
        let mut failed = Vec::new();
        for ((record, seq), published) in portion.into_iter().zip(published) {
            // Else it is the newer one's fate that counts.
            let is_newest = state.settle(&record.path, seq) || left_out(Rule::OvertakenSettled);
            match published {
                Ok(()) if is_newest => state.remove(&record.path),
                Err(errno) if is_newest => failed.push(Failed { record, seq, errno }),
                _ => {}
            }
        }
        failed
    }

    /// It could not be published, and is hidden from now on; unless a newer one waits.
    pub(super) fn hide(&self, path: &str, seq: u64) -> bool {
        let mut state = self.lock();
        if !state.settle(path, seq) {
            return false;
        }
        if let Some((age, seq)) = state.changes.get(path).map(|change| (change.age, change.seq)) {
            state.take_out(age, seq);
        }
        true
    }

    /// Whoever loads knows by now which are hidden.
    pub(crate) fn forget_hidden(&self) {
        let State { changes, by_age, .. } = &mut *self.lock();
        if changes.len() > by_age.len() {
            changes.retain(|_, change| by_age.contains_key(&change.age));
        }
    }

    /// Those that have been behind for longest.
    pub(crate) fn first(&self, max: usize) -> Portion {
        let state = self.lock();
        let paths = state.by_age.values().take(max);
        let changes = paths.filter_map(|path| state.changes.get(path));
        changes.map(|change| (Arc::clone(&change.record), change.seq)).collect()
    }

    /// The first group of which something is not visible, and that nothing newer has made void.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.lock().by_group.keys().next().copied()
    }

    /// Marks the end of those that are behind now.
    pub(crate) fn end(&self) -> u64 {
        self.lock().next
    }

    /// Are there some that were behind then? One that was overtaken since is not among them.
    pub(crate) fn has_until(&self, end: u64) -> bool {
        self.lock().by_age.keys().next().is_some_and(|age| *age <= end)
    }

    /// The change of a path.
    pub(crate) fn get(&self, path: &str) -> Option<Arc<Record>> {
        self.lock().changes.get(path).map(|change| Arc::clone(&change.record))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().by_age.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::layout::record;
    use crate::store::log::format::Kind;

    #[test]
    fn who_is_saved_again_keeps_his_place_and_only_the_newest_is_there() {
        let unpublished = Unpublished::default();
        let save = |path: &str, data: &'static str, seq| {
            let data = Bytes::from_static(data.as_bytes());
            unpublished.put(&[Arc::new(record(Kind::Replace, path, 0o600, data))], seq);
        };
        save("a", "1", 1);
        save("b", "2", 2);
        save("a", "3", 3);
        assert_eq!(unpublished.oldest(), Some(2));
        let first = unpublished.first(1);
        assert_eq!((&*first[0].0.path, &first[0].0.data[..], first[0].1), ("a", &b"3"[..], 3));
        unpublished.remove("a");
        assert_eq!(unpublished.oldest(), Some(2));
        assert!(unpublished.get("a").is_none() && unpublished.get("b").is_some());
        unpublished.hide("b", 2);
        assert_eq!((unpublished.len(), unpublished.oldest()), (0, None));
        assert!(unpublished.get("b").is_some());
        save("c", "4", 4);
        unpublished.forget_hidden();
        assert!(unpublished.get("b").is_none() && unpublished.get("c").is_some());
        unpublished.remove("c");
        unpublished.remove("c");
        assert_eq!((unpublished.len(), unpublished.oldest()), (0, None));
        assert!(unpublished.first(9).is_empty());
    }

    #[test]
    fn what_becomes_visible_at_once_is_loaded_from_here_until_then_if_something_older_was() {
        let unpublished = Unpublished::default();
        let change = |path: &str, data: &'static str| {
            let data = Bytes::from_static(data.as_bytes());
            Arc::new(record(Kind::Replace, path, 0o600, data))
        };
        unpublished.put(&[change("a", "1")], 1);
        unpublished.overtake(&[change("a", "2"), change("b", "2")], 2);
        assert_eq!(unpublished.get("a").unwrap().data, "2");
        assert!(unpublished.get("b").is_none());
        assert_eq!((unpublished.len(), unpublished.oldest()), (1, Some(2)));
        let end = unpublished.end();
        unpublished.put(&[change("c", "3")], 3);
        assert!(unpublished.has_until(end));
        assert_eq!(unpublished.note(vec![(change("a", "2"), 2)], vec![Ok(())]).len(), 0);
        assert!(!unpublished.has_until(end) && unpublished.len() == 1);
    }

    #[test]
    fn what_is_saved_again_while_it_is_published_waits_on() {
        let unpublished = Unpublished::default();
        let change = |path: &str| Arc::new(record(Kind::Replace, path, 0o600, Bytes::new()));
        let noted = |path, seq, came: Result<(), Errno>| {
            unpublished.note(vec![(change(path), seq)], vec![came]).len()
        };
        unpublished.put(&[change("a")], 1);
        unpublished.put(&[change("b")], 1);
        unpublished.put(&[change("a")], 2);
        assert_eq!(noted("a", 1, Ok(())), 0);
        assert_eq!((unpublished.len(), unpublished.oldest()), (2, Some(1)));
        // Behind the others from now on.
        assert_eq!(&*unpublished.first(1)[0].0.path, "b");
        assert_eq!(noted("b", 1, Ok(())), 0);
        assert_eq!((unpublished.len(), unpublished.oldest()), (1, Some(2)));
        // What fails waits until it is hidden.
        assert_eq!(noted("a", 1, Err(Errno::PERM)), 0);
        assert_eq!(noted("a", 2, Err(Errno::PERM)), 1);
        assert_eq!(unpublished.len(), 1);
        unpublished.put(&[change("a")], 3);
        assert!(!unpublished.hide("a", 2));
        assert_eq!(unpublished.len(), 1);
        assert!(unpublished.hide("a", 3));
        assert_eq!((unpublished.len(), unpublished.oldest()), (0, None));
    }
}
