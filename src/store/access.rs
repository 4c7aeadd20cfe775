//! Who may do what, while others do something else: one appends to the log, another publishes what it has.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::core::{Core, Files, Unpublished};
use super::files::Tree;
use super::log::files::Segments;
use super::log::format::Record;

/// An open store's log and files.
///
/// | who | has | so meanwhile |
/// | --- | --- | --- |
/// | saves | the log | others publish |
/// | publishes | the files | others save |
/// | removes, saves beside the log, begins or ends a spread | both | nobody does anything |
/// | saves at once, in memory | neither: the [queue](super::queue) keeps all of these away | others save other files |
#[derive(Debug)]
pub(crate) struct Access {
    log: Mutex<Core<Segments, Tree>>,
    pub(super) unpublished: Unpublished,
    /// Taken before the log, by whoever takes both. `None`: the root may be another process's.
    files: Mutex<Option<Tree>>,
    /// Threads that wait for both.
    waiting: AtomicUsize,
}

/// In which whoever waits for the files gets them.
const MOMENT: Duration = Duration::from_micros(50);

/// The right to the log, and perhaps to the files.
#[derive(Debug)]
pub(super) struct Entered<'a> {
    log: MutexGuard<'a, Core<Segments, Tree>>,
    _files: Option<MutexGuard<'a, Option<Tree>>>,
}

impl Access {
    pub(super) fn new(mut core: Core<Segments, Tree>) -> Access {
        let files = Mutex::new(Some(core.files().clone()));
        let unpublished = core.unpublished().clone();
        Access { log: Mutex::new(core), unpublished, files, waiting: AtomicUsize::new(0) }
    }

    /// For whoever appends changes that are published later, or only looks.
    pub(super) fn log(&self) -> Entered<'_> {
        Entered { log: lock(&self.log), _files: None }
    }

    /// For whoever changes files, too.
    pub(super) fn both(&self) -> Entered<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let files = lock(&self.files);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Entered { log: lock(&self.log), _files: Some(files) }
    }

    /// Makes up to so many of the changes visible that have been behind for longest, while the log goes on.
    /// Were there any? `hidden` is called with the log if some failed. `None`: no file is written to any more.
    pub(super) fn publish(
        &self,
        max: usize,
        hidden: impl FnOnce(&Core<Segments, Tree>),
    ) -> Option<bool> {
        let mut files = lock(&self.files);
        let tree = files.as_mut()?;
        let portion = self.unpublished.first(max);
        if portion.is_empty() {
            return Some(false);
        }
        let records: Vec<Arc<Record>> =
            portion.iter().map(|(record, _)| Arc::clone(record)).collect();
        let published = tree.publish(&records);
        // Who appends has the log until it is on the disk: it is not waited for without need.
        let failed = self.unpublished.note(portion, published);
        if !failed.is_empty() {
            let mut core = lock(&self.log);
            core.hide(failed);
            hidden(&core);
        }
        Some(true)
    }

    /// Who publishes portion after portion lets others have the files: a lock is not fair.
    pub(super) fn let_others_in(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(MOMENT);
        }
    }

    /// No file is written to any more.
    pub(super) fn end(&self) {
        lock(&self.files).take();
    }

    /// Is no file written to any more?
    pub(super) fn has_ended(&self) -> bool {
        lock(&self.files).is_none()
    }
}

impl Deref for Entered<'_> {
    type Target = Core<Segments, Tree>;

    fn deref(&self) -> &Core<Segments, Tree> {
        &self.log
    }
}

impl DerefMut for Entered<'_> {
    fn deref_mut(&mut self) -> &mut Core<Segments, Tree> {
        &mut self.log
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
