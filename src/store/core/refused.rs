//! Why the log does not take something, and what is true then.

use rustix::io::Errno;

use crate::plan::Step;

/// Why the log does not take something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It failed, and nothing of it will ever be there.
    Unchanged(Errno),
    /// It failed, and may be there wholly when the store is opened next.
    Unknown(Errno),
    /// The store takes nothing any more, for this reason.
    Closed(Errno),
}

/// Why a transaction was not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotCommitted {
    /// A step before the log failed, for this one of its records; nothing was changed.
    Before(usize, Step, Errno),
    Refused(Refused),
}

impl From<Refused> for NotCommitted {
    fn from(refused: Refused) -> NotCommitted {
        NotCommitted::Refused(refused)
    }
}

/// Is there room in the log?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Here,
    /// When the files have what the log holds.
    AfterSpreading,
    /// Never: so many blocks can be had.
    Never {
        max: usize,
    },
}

impl Refused {
    pub(crate) fn errno(self) -> Errno {
        match self {
            Refused::Unchanged(errno) | Refused::Unknown(errno) | Refused::Closed(errno) => errno,
        }
    }
}
