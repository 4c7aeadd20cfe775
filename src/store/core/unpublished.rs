//! What was answered and is not visible yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::log::format::Record;

/// Saves that are durable and not published yet, one of each path; shared with who loads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unpublished(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Those that could not be published stay until they are known to be hidden.
    saves: HashMap<String, Save>,
    /// Paths in the order in which they fell behind: one that is saved again keeps its place, or it might be
    /// overtaken for ever.
    by_age: BTreeMap<u64, String>,
    next: u64,
}

#[derive(Debug)]
struct Save {
    record: Record,
    /// The group that holds it.
    seq: u64,
    age: u64,
}

impl Unpublished {
    /// Puts a save there, in the place of an older one of its path.
    pub(super) fn put(&self, record: Record, seq: u64) {
        let mut state = self.lock();
        let age = match state.saves.get(&record.path) {
            Some(older) => older.age,
            None => {
                state.next += 1;
                state.next
            }
        };
        state.by_age.insert(age, record.path.clone());
        state.saves.insert(record.path.clone(), Save { record, seq, age });
    }

    /// It is visible, or void.
    pub(super) fn remove(&self, path: &str) {
        let mut state = self.lock();
        if let Some(save) = state.saves.remove(path) {
            state.by_age.remove(&save.age);
        }
    }

    /// It could not be published: it is hidden from now on.
    pub(super) fn hide(&self, path: &str) {
        let mut state = self.lock();
        if let Some(age) = state.saves.get(path).map(|save| save.age) {
            state.by_age.remove(&age);
        }
    }

    /// Whoever loads knows by now which are hidden.
    pub(crate) fn forget_hidden(&self) {
        let State { saves, by_age, .. } = &mut *self.lock();
        if saves.len() > by_age.len() {
            saves.retain(|_, save| by_age.contains_key(&save.age));
        }
    }

    /// Those that have been behind for longest.
    pub(super) fn first(&self, max: usize) -> Vec<(Record, u64)> {
        let state = self.lock();
        let paths = state.by_age.values().take(max);
        let saves = paths.filter_map(|path| state.saves.get(path));
        saves.map(|save| (save.record.clone(), save.seq)).collect()
    }

    /// The first group of which something is not visible, and that nothing newer has made void.
    pub(super) fn oldest(&self) -> Option<u64> {
        let state = self.lock();
        let saves = state.by_age.values().filter_map(|path| state.saves.get(path));
        saves.map(|save| save.seq).min()
    }

    /// The save of a path.
    pub(crate) fn get(&self, path: &str) -> Option<Record> {
        self.lock().saves.get(path).map(|save| save.record.clone())
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
            unpublished.put(record(Kind::Replace, path.to_owned(), 0o600, data), seq);
        };
        save("a", "1", 1);
        save("b", "2", 2);
        save("a", "3", 3);
        assert_eq!(unpublished.oldest(), Some(2));
        let first = unpublished.first(1);
        assert_eq!(
            (first[0].0.path.as_str(), &first[0].0.data[..], first[0].1),
            ("a", &b"3"[..], 3)
        );
        unpublished.remove("a");
        assert_eq!(unpublished.oldest(), Some(2));
        assert!(unpublished.get("a").is_none() && unpublished.get("b").is_some());
        unpublished.hide("b");
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
}
