//! What is durable and not visible.

use std::sync::Arc;

use rustix::io::Errno;

use crate::store::log::format::Record;

/// A change that could not be published.
#[derive(Debug, Clone)]
pub(crate) struct Hidden {
    pub record: Arc<Record>,
    pub errno: Errno,
    /// It is set aside, so that the log need not keep it.
    pub(super) is_kept: bool,
}

impl Hidden {
    /// Only the log has it.
    pub(super) fn open(record: &Arc<Record>, errno: Errno) -> Hidden {
        Hidden { record: Arc::clone(record), errno, is_kept: false }
    }

    /// It is set aside.
    pub(super) fn kept(record: &Arc<Record>, errno: Errno) -> Hidden {
        Hidden { record: Arc::clone(record), errno, is_kept: true }
    }
}
