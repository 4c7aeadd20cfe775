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
    /// How many bytes of others a `syncfs` may write for each fsync that it spares; `None` where
    /// `syncfs` does not sync everything, or does not tell what went wrong.
    pub spares: Option<u64>,
    /// Bytes that wait to be written in the whole system; `None` if that cannot be told.
    pub dirty: Option<u64>,
}

impl Barrier {
    /// `syncfs` where it is sound, from the second file on, unless what others have written would
    /// take longer than the fsyncs that it spares. Their dirty bytes are counted in the whole system,
    /// for there is no count of a filesystem's: where they are another's, the fsyncs are slower than
    /// a `syncfs` would have been.
    pub(crate) fn choose(situation: Situation) -> Barrier {
        let Situation { files, spares, dirty } = situation;
        match (spares, dirty) {
            (Some(spares), Some(dirty)) if files > 1 && dirty <= spares * files as u64 => {
                Barrier::Filesystem
            }
            _ => Barrier::File,
        }
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

    const QUIET: Situation = Situation { files: 2, spares: Some(1000), dirty: Some(2000) };

    #[test]
    fn a_syncfs_is_chosen_only_where_it_is_sound_and_pays() {
        assert_eq!(Barrier::choose(QUIET), Barrier::Filesystem);
        let refused = [
            Situation { files: 1, ..QUIET },
            Situation { spares: None, ..QUIET },
            Situation { dirty: None, ..QUIET },
            Situation { dirty: Some(2001), ..QUIET },
        ];
        for situation in refused {
            assert_eq!(Barrier::choose(situation), Barrier::File, "{situation:?}");
        }
        let many = Situation { files: 3, dirty: Some(2001), ..QUIET };
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
