//! What the kernel's io_uring can do.

use std::os::fd::AsRawFd;

use io_uring::squeue::Flags;
use io_uring::{IoUring, cqueue, opcode, squeue, types};

use crate::engine::uring::ring::OPERATIONS;
use crate::engine::{Config, Engine, Running, StartError, Why};

/// What was found of io_uring.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct RingProbe {
    /// Can a ring be made at all?
    pub exists: bool,
    /// The operations that a save needs, and whether the kernel has each.
    pub operations: Vec<(&'static str, bool)>,
    /// The features that a save needs, and whether the kernel has each.
    pub features: Vec<(&'static str, bool)>,
    /// Does a failed fsync break the chain that it stands in, as the manual says? On the kernels
    /// of 2022 to 2026 it does not; the library is right either way. `None`: it could not be tried.
    pub failed_sync_breaks_chain: Option<bool>,
    pub(super) unusable: Option<Why>,
}

impl RingProbe {
    pub(super) fn new() -> RingProbe {
        let config = Config { engine: Engine::Uring, requests: 8, threads: 1 };
        let unusable = match Running::start(config) {
            Ok(running) => {
                running.close();
                None
            }
            Err(StartError::RingUnavailable(why)) => Some(why),
            Err(StartError::NoThread(error)) => {
                Some(Why::PrepareFailed("clone", error.raw_os_error().unwrap_or(0)))
            }
        };
        let Ok(ring) = IoUring::new(8) else {
            return RingProbe {
                exists: false,
                operations: OPERATIONS.map(|(name, _)| (name, false)).to_vec(),
                features: Vec::new(),
                failed_sync_breaks_chain: None,
                unusable,
            };
        };
        let mut probe = io_uring::Probe::new();
        let probed = ring.submitter().register_probe(&mut probe).is_ok();
        let has = |code| probed && probe.is_supported(code);
        let parameters = ring.params();
        let mut submit_all = IoUring::<squeue::Entry, cqueue::Entry>::builder();
        RingProbe {
            exists: true,
            operations: OPERATIONS.map(|(name, code)| (name, has(code))).to_vec(),
            features: vec![
                ("nodrop", parameters.is_feature_nodrop()),
                ("submit_stable", parameters.is_feature_submit_stable()),
                ("linked_file", parameters.is_feature_linked_file()),
                ("submit_all", submit_all.setup_submit_all().build(8).is_ok()),
            ],
            failed_sync_breaks_chain: severs_after_failed_sync(),
            unusable,
        }
    }
}

/// Tries it: an fsync that fails (a pipe cannot be synced, `EINVAL`) and a no-op linked behind it.
///
/// `Some(false)`: the no-op ran, so a rename linked behind a failed fsync would have run too.
/// `None`: there is no ring to try it on.
fn severs_after_failed_sync() -> Option<bool> {
    let mut ring = IoUring::new(8).ok()?;
    let (pipe, _writer) = rustix::pipe::pipe().ok()?;
    let entries = [
        opcode::Fsync::new(types::Fd(pipe.as_raw_fd())).build().flags(Flags::IO_LINK).user_data(0),
        opcode::Nop::new().build().user_data(1),
    ];
    // SAFETY: neither entry points to memory, and the pipe is open until both have completed.
    unsafe { ring.submission().push_multiple(&entries) }.ok()?;
    ring.submit_and_wait(2).ok()?;
    let second = ring.completion().find(|entry| entry.user_data() == 1)?;
    Some(second.result() == -libc::ECANCELED)
}
