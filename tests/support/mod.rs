//! What the integration tests share: throw-away filesystems, child processes, visible skips.
//!
//! ```ignore
//! mod support;
//! use support::{Disk, assert_no_temps, in_child, need};
//!
//! #[test]
//! fn survives_a_power_cut() {
//!     let disk = need!(Disk::ext4()); // skips the test, visibly, where this cannot be made
//!     // ... write below disk.path() ...
//!     need!(disk.shutdown());
//!     disk.remount();
//!     assert_no_temps(disk.path());
//! }
//!
//! #[test]
//! fn without_io_uring() {
//!     in_child("without_io_uring", || {
//!         need!(support::seccomp::deny(&[libc::SYS_io_uring_setup], libc::EPERM));
//!         // ... this process, and only this one, has no io_uring ...
//!     });
//! }
//! ```
//!
//! With `RINGSEAL_NO_SKIP=1`, a test which cannot run fails instead of being skipped.

// Each test binary compiles all of this and uses a part.
#![allow(dead_code, unused_imports, unused_macros)]

pub mod cgroup;
pub mod child;
mod disk;
mod group;
mod host;
mod leftovers;
mod make;
pub mod seccomp;
pub mod strace;
pub mod tree;
mod user;

use std::fmt;
use std::io::Write;

pub use child::{in_child, spawn_child};
pub use disk::Disk;
pub use group::ProcessGroup;
pub use host::{
    has_tmpfile, is_since, require_memory, require_root, require_shared_syncs, search_path,
};
pub use leftovers::sweep;
pub use tree::{assert_no_temps, chattr};
pub use user::as_user;

/// How many times slower than usual this machine is: `RINGSEAL_SLOW`, for an emulated processor.
///
/// What waits has so much more patience, and what only repeats itself does it so many times less.
pub fn slow() -> u32 {
    let asked = std::env::var("RINGSEAL_SLOW").ok();
    asked.map_or(1, |asked| asked.parse().expect("RINGSEAL_SLOW is a number")).max(1)
}

/// Why something a test needs cannot be had on this machine.
#[derive(Debug, Clone)]
pub struct Skipped(pub String);

impl fmt::Display for Skipped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Says on stderr that a test is skipped; the caller returns. See [`skip!`] and [`need!`].
///
/// # Panics
/// With `RINGSEAL_NO_SKIP=1`, which is how CI makes sure that nothing is skipped in silence.
pub fn skipped(why: impl fmt::Display) {
    if std::env::var_os("RINGSEAL_NO_SKIP").is_some_and(|value| value == "1") {
        panic!("RINGSEAL_NO_SKIP=1, but this test would be skipped: {why}");
    }
    // Not eprintln!: the harness captures that, and a passing test would hide its skip.
    let _ = std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes());
}

/// Skips the rest of a test: `skip!("needs {} CPUs", 4)`.
macro_rules! skip {
    ($($why:tt)+) => {{
        $crate::support::skipped(format_args!($($why)+));
        return;
    }};
}
pub(crate) use skip;

/// The value of a `Result<T, Skipped>`, or a skip of the rest of the test.
macro_rules! need {
    ($wanted:expr) => {
        match $wanted {
            Ok(value) => value,
            Err($crate::support::Skipped(why)) => $crate::support::skip!("{why}"),
        }
    };
}
pub(crate) use need;
