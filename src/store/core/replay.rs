//! What a log has, put into the files: at every opening, before anything is saved.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustix::io::Errno;

use super::{Files, Hidden, Written};
use crate::left_out::{Rule, left_out};
use crate::store::log::format::{Kind, Record};
use crate::store::log::scan::Scan;

/// Puts into the files, durably, what a log has and they may lack. What could not be published is hidden, and
/// set aside.
pub(crate) fn replay(
    scan: &Scan,
    files: &mut impl Files,
) -> Result<BTreeMap<Arc<str>, Hidden>, Errno> {
    let last = last_of_each_path(scan);
    // What was set aside is tried again, unless the log has something newer.
    let aside = files.aside()?;
    let is_newest = |record: &&Record| !last.contains_key(&*record.path);
    let again = aside.iter().filter(is_newest);
    let from_log = last.values().copied().filter(|record| record.kind != Kind::Forget);
    let tried_again = again.clone().count();
    // In one go: a directory goes only if nothing is to be put into it.
    let all: Vec<Arc<Record>> =
        again.chain(from_log).map(|record| Arc::new(record.clone())).collect();
    let mut hidden = BTreeMap::new();
    let mut placed = Vec::new();
    for (index, (record, published)) in all.iter().zip(files.publish(&all)).enumerate() {
        match published {
            Ok(()) => placed.push(record),
            Err(errno) => {
                if index >= tried_again {
                    files.set_aside(record)?;
                }
                hidden.insert(record.path.clone(), Hidden::kept(record, errno));
            }
        }
    }
    if !placed.is_empty() && !left_out(Rule::DurableReplay) {
        let placed: Vec<Written<'_>> =
            placed.into_iter().filter_map(|record| written(record)).collect();
        for path in files.sync(&placed)? {
            let Some(record) = all.iter().find(|record| *record.path == path) else { continue };
            files.set_aside(record)?;
            hidden.insert(Arc::clone(&record.path), Hidden::kept(record, Errno::IO));
        }
    }
    // Only now: until then it was the only one that is sure to be whole.
    for record in aside.iter().filter(|record| !hidden.contains_key(&record.path)) {
        files.take_back(&record.path)?;
    }
    Ok(hidden)
}

/// What a record has written, if it is a file.
pub(super) fn written(record: &Record) -> Option<Written<'_>> {
    (record.kind == Kind::Replace).then_some((&*record.path, record.data.len() as u64))
}

/// The changes of a log that count: the last of each path, unless it was made void.
pub(crate) fn changes(scan: &Scan) -> impl Iterator<Item = &Record> {
    last_of_each_path(scan).into_values().filter(|record| record.kind != Kind::Forget)
}

/// What the log says of each path.
fn last_of_each_path(scan: &Scan) -> BTreeMap<&str, &Record> {
    let records = scan.live.iter().flat_map(|group| &group.records);
    records.map(|record| (&*record.path, record)).collect()
}
