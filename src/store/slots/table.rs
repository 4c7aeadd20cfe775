//! So many values by path, those that were used last. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Of the paths that come while the table is full, one in so many takes the place of the one that was used
/// longest ago. All of them would do harm: where more paths are saved in turn than there is room for, each
/// would drive out the one that comes next.
const ADMITTED: u64 = 16;

/// Values by path, a bounded number of them.
#[derive(Debug)]
pub(super) struct Table<T> {
    max: usize,
    values: HashMap<Arc<str>, (u64, T)>,
    /// The paths, by when they were used.
    by_use: BTreeMap<u64, Arc<str>>,
    uses: u64,
    refused: u64,
}

impl<T> Table<T> {
    pub(super) fn new(max: usize) -> Table<T> {
        Table { max, values: HashMap::new(), by_use: BTreeMap::new(), uses: 0, refused: 0 }
    }

    /// How many values there are, and how many there can be.
    pub(super) fn usage(&self) -> (usize, usize) {
        (self.values.len(), self.max)
    }

    pub(super) fn get(&self, path: &str) -> Option<&T> {
        self.values.get(path).map(|(_, value)| value)
    }

    /// Takes a value out.
    pub(super) fn take(&mut self, path: &str) -> Option<T> {
        let (used, value) = self.values.remove(path)?;
        self.by_use.remove(&used);
        Some(value)
    }

    /// Is a path that is not there to get in?
    pub(super) fn admits(&mut self) -> bool {
        if self.values.len() < self.max {
            return true;
        }
        self.refused += 1;
        self.max > 0 && self.refused % ADMITTED == 0
    }

    /// Puts a value in, or back; gives out the one that has to go for it.
    pub(super) fn put(&mut self, path: &str, value: T) -> Option<T> {
        let mut out = self.take(path);
        if out.is_none() && self.values.len() >= self.max {
            out = self.take_oldest();
        }
        if self.max == 0 {
            return Some(value);
        }
        self.uses += 1;
        let path: Arc<str> = path.into();
        self.by_use.insert(self.uses, Arc::clone(&path));
        self.values.insert(path, (self.uses, value));
        out
    }

    fn take_oldest(&mut self) -> Option<T> {
        let (_, path) = self.by_use.pop_first()?;
        self.values.remove(&path).map(|(_, value)| value)
    }

    /// Takes out all that is there.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        self.by_use.clear();
        self.values.drain().map(|(_, (_, value))| value).collect()
    }

    /// The same, and there are to be half as many, if there were any.
    pub(super) fn halve(&mut self) -> Vec<T> {
        if !self.values.is_empty() {
            self.max /= 2;
        }
        self.take_all()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_one_that_was_used_longest_ago_goes() {
        let mut table = Table::new(2);
        assert_eq!(table.put("a", 1), None);
        assert_eq!(table.put("b", 2), None);
        let a = table.take("a").unwrap();
        assert_eq!(table.put("a", a), None);
        assert_eq!(table.put("c", 3), Some(2));
        assert_eq!((table.get("a"), table.get("b"), table.get("c")), (Some(&1), None, Some(&3)));
        assert_eq!(table.put("c", 4), Some(3));
    }

    #[test]
    fn a_table_without_room_takes_nothing() {
        let mut table = Table::new(0);
        assert!((0..100).all(|_| !table.admits()));
        assert_eq!(table.put("a", 1), Some(1));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn paths_in_turn_do_not_drive_each_other_out() {
        let mut table = Table::new(100);
        let (mut found, mut made) = (0, 0);
        for turn in 0..100 {
            for path in 0..1000 {
                let path = format!("{path}");
                if let Some(value) = table.take(&path) {
                    found += 1;
                    table.put(&path, value);
                } else if table.admits() {
                    made += 1;
                    table.put(&path, turn);
                }
            }
        }
        assert!(made < 100 * 1000 / 10 && found > 0, "{found} found, {made} made");
    }

    proptest! {
        #[test]
        fn never_more_than_the_maximum(max in 0_usize..5, steps in prop::collection::vec((0_u8..8, any::<bool>()), 0..200)) {
            let mut table = Table::new(max);
            let mut there = 0_usize;
            for (path, puts) in steps {
                let path = format!("{path}");
                if puts {
                    there += 1;
                    there -= usize::from(table.put(&path, ()).is_some());
                } else {
                    there -= usize::from(table.take(&path).is_some());
                }
                prop_assert!(table.len() <= max);
                prop_assert_eq!(table.len(), there);
                prop_assert_eq!(table.by_use.len(), there);
            }
            prop_assert_eq!(table.take_all().len(), there);
            prop_assert_eq!(table.len(), 0);
        }
    }
}
