//! A process that does something with a store, and is killed while it has the store open.

use std::path::PathBuf;
use std::process::Child;
use std::thread::park;

use crate::support::child::{kill, lines, spawn_child};

const DONE: &str = "done";

/// Dropping it kills it, so that a failing test can unmount.
#[derive(Debug)]
pub struct Daemon(Option<Child>);

impl Daemon {
    /// The test binary once more, for the test of this name; returns when it has said [`done`].
    #[track_caller]
    pub fn start<const N: usize>(test: &str, envs: [(&str, PathBuf); N]) -> Daemon {
        let mut child = spawn_child(test, envs);
        let said = lines(&mut child).next();
        let daemon = Daemon(Some(child));
        assert_eq!(said.as_deref(), Some(DONE));
        daemon
    }

    pub fn kill(self) {}
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            kill(child);
        }
    }
}

/// The end of what the daemon does: it waits to be killed.
pub fn done() -> ! {
    println!("{DONE}");
    loop {
        park();
    }
}
