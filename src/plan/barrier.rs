//! Barriers: how the saves of a cycle wait for the disk together.
//!
//! A save by itself runs its steps one after the other. In a cycle every save runs its *own* steps
//! up to the first one that is *shared*; the shared step is one call, or a few, for all of them; its
//! answer is recorded for each, and they go on. So a cycle is the plan of a single save with fewer
//! calls: prepare, data barrier, rename, directory barrier, liveness.

use super::Step;

/// How the files of a cycle are synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Barrier {
    /// One `syncfs` for all: the number of flushes does not grow with the files.
    Filesystem,
    /// An fsync for each file, many of them under way at once; each directory once.
    File,
}

/// What is known when the barrier is chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    /// Saves of the cycle.
    pub files: usize,
    /// `syncfs` of this filesystem, on this kernel, syncs everything and reports what went wrong.
    pub syncfs_tells: bool,
    /// Bytes that wait to be written in the whole system; `None` if that cannot be told.
    pub dirty: Option<u64>,
}

/// Other programs' dirty bytes that a `syncfs` may have to write for each file that it spares an
/// fsync.
const DIRTY_PER_FILE: u64 = 64 << 10;

impl Barrier {
    /// `syncfs` where it is sound, from the second file on, unless it would write more of other
    /// programs' bytes than it spares.
    pub(crate) fn choose(situation: Situation) -> Barrier {
        let Situation { files, syncfs_tells, dirty } = situation;
        let bearable = dirty.is_some_and(|dirty| dirty <= DIRTY_PER_FILE * files as u64);
        if syncfs_tells && files > 1 && bearable { Barrier::Filesystem } else { Barrier::File }
    }

    /// Is this step one for all saves of a cycle?
    pub(crate) fn shares(self, step: Step) -> bool {
        match step {
            Step::Sync => self == Barrier::Filesystem,
            Step::SyncPrevious | Step::SyncDirectory | Step::Verify => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Situation = Situation { files: 2, syncfs_tells: true, dirty: Some(0) };

    #[test]
    fn a_syncfs_is_chosen_only_where_it_is_sound_and_pays() {
        assert_eq!(Barrier::choose(QUIET), Barrier::Filesystem);
        let refused = [
            Situation { files: 1, ..QUIET },
            Situation { syncfs_tells: false, ..QUIET },
            Situation { dirty: None, ..QUIET },
            Situation { dirty: Some(2 * DIRTY_PER_FILE + 1), ..QUIET },
        ];
        for situation in refused {
            assert_eq!(Barrier::choose(situation), Barrier::File, "{situation:?}");
        }
        let many = Situation { files: 3, dirty: Some(2 * DIRTY_PER_FILE + 1), ..QUIET };
        assert_eq!(Barrier::choose(many), Barrier::Filesystem);
    }

    #[test]
    fn what_changes_a_file_or_a_name_is_never_shared() {
        for barrier in [Barrier::Filesystem, Barrier::File] {
            for step in [Step::Open, Step::SetAttributes, Step::Write, Step::Rename] {
                assert!(!barrier.shares(step), "{step}");
            }
        }
        assert!(!Barrier::File.shares(Step::Sync));
    }
}
