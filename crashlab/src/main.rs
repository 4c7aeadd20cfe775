//! Cuts the power, breaks the disk and starves the process under ringseal. See the README beside it.

mod disk;

fn main() {}
