//! The right of a save to be carried out now: of one target, one has it at a time.

use std::fmt::Debug;
use std::sync::Arc;

/// Where the others of each target wait.
pub(crate) trait Lines: Debug + Send + Sync {
    /// The next of these lines have the turn.
    fn pass(self: Arc<Self>, lines: Vec<u64>);

    /// The one that had the turn may yet take effect, and nobody can tell when.
    fn lose(&self, line: u64);
}

/// A save's turn. When it is dropped, the next of its line has it.
#[derive(Debug)]
pub(crate) struct Turn {
    /// `None` once it is passed on.
    lines: Option<Arc<dyn Lines>>,
    line: u64,
}

impl Turn {
    pub(crate) fn new(lines: Arc<dyn Lines>, line: u64) -> Turn {
        Turn { lines: Some(lines), line }
    }

    /// Passes turns of one writer on, all at once: who was waiting can go together too.
    pub(crate) fn pass_all(mut turns: Vec<Turn>) {
        let Some(lines) = turns.first().and_then(|turn| turn.lines.clone()) else { return };
        turns.iter_mut().for_each(|turn| turn.lines = None);
        lines.pass(turns.into_iter().map(|turn| turn.line).collect());
    }

    /// The save was lost with the ring and may yet happen, after a newer one: nothing of this target
    /// is taken any more.
    pub(crate) fn lose(mut self) {
        if let Some(lines) = self.lines.take() {
            lines.lose(self.line);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(lines) = self.lines.take() {
            lines.pass(vec![self.line]);
        }
    }
}
