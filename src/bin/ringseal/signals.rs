//! Signals: SIGINT and SIGTERM end a command between files, never in the middle of one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::signal::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

/// Was the command asked to end?
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on SIGINT and SIGTERM do not end the process: they only set this.
    pub fn on_signal() -> io::Result<Stop> {
        let stop = Stop::default();
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&stop.0))?;
        }
        Ok(stop)
    }

    /// True once a signal has come.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A file larger than `RLIMIT_FSIZE` is then an error (`EFBIG`) like any other; by default its
/// signal kills the process, which would leave the temporary file behind.
pub fn report_oversized_files() {
    // Where it cannot be registered, the default stays.
    let _ = flag::register(SIGXFSZ, Arc::default());
}
