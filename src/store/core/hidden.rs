//! What is durable and not visible.

use rustix::io::Errno;

use crate::store::log::format::Record;

/// A change that could not be published.
#[derive(Debug, Clone)]
pub(crate) struct Hidden {
    pub record: Record,
    pub errno: Errno,
    /// It is set aside, so that the log need not keep it.
    pub(super) is_kept: bool,
}

impl Hidden {
    /// Only the log has it.
    pub(super) fn open(record: &Record, errno: Errno) -> Hidden {
        Hidden { record: record.clone(), errno, is_kept: false }
    }

    /// It is set aside.
    pub(super) fn kept(record: &Record, errno: Errno) -> Hidden {
        Hidden { record: record.clone(), errno, is_kept: true }
    }
}
