//! Cuts the power, breaks the disk and starves the process under ringseal. See the README beside it.

mod load;
mod look;
mod promise;
#[path = "../../tests/support/seccomp.rs"]
mod seccomp;

/// Why something that a room needs cannot be had here.
#[derive(Debug)]
pub struct Skipped(pub String);

fn main() {}
